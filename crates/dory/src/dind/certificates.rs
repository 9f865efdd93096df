//! Certificates for an engine in a container and for its clients, in the places where `docker:dind` has them.
//!
//! ```text
//! DIR/ca/{cert,key}.pem             the authority, kept to sign again for another name or address
//! DIR/server/{ca,cert,key}.pem      what the engine shows
//! DIR/client/{ca,cert,key}.pem      what clients need: the volume that people share
//! ```
//!
//! What is there already is kept, as far as it is of use: a volume that lives longer than its container keeps its clients
//! working. The engine's own certificate is made anew each time, for the names and addresses of now.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// The longest that clients accept (Apple's platforms refuse more), and what Docker's script has.
const VALIDITY: Duration = Duration::days(825);
/// For clocks that go slow.
const SLACK: Duration = Duration::hours(1);

/// Under which an engine is reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// `docker`, `localhost`, the host name, the addresses of the moment, and what `DOCKER_TLS_SAN` adds.
    pub fn of_this_container() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut names = Self {
            names: vec![host, "docker".to_owned(), "localhost".to_owned()],
            addresses: vec![IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()],
        };
        names
            .addresses
            .extend(own_addresses(&fs::read_to_string("/etc/hosts").unwrap_or_default(), &names.names[0]));
        names.add(&std::env::var("DOCKER_TLS_SAN").unwrap_or_default());
        names
    }

    /// Adds a list as openssl writes it: `DNS:name,IP:address`.
    fn add(&mut self, list: &str) {
        for item in list.split(',').map(str::trim) {
            match item.split_once(':') {
                Some(("DNS", name)) => self.names.push(name.to_owned()),
                Some(("IP", address)) => self.addresses.extend(address.parse::<IpAddr>()),
                _ => {}
            }
        }
    }

    fn alternatives(&self) -> Vec<SanType> {
        let names = self.names.iter().filter_map(|name| name.as_str().try_into().ok().map(SanType::DnsName));
        names.chain(self.addresses.iter().copied().map(SanType::IpAddress)).collect()
    }
}

/// The addresses that a container's /etc/hosts has for its own name: the outer engine writes them there.
fn own_addresses(hosts: &str, own_name: &str) -> Vec<IpAddr> {
    let own = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name == own_name).then_some(address)
    };
    hosts.lines().filter_map(own).collect()
}

/// Makes what is missing below `directory`, for an engine that is reached under `names`. Nothing is made where somebody
/// put an engine's certificates there without the authority's key.
///
/// # Errors
/// A file that cannot be written, or an authority that cannot be read.
pub fn make(directory: &Path, names: &Names) -> Result<()> {
    let file = |name: &str| directory.join(name);
    let there = |name: &str| file(name).exists();
    if there("server/cert.pem") && there("server/key.pem") && !there("ca/key.pem") {
        return Ok(());
    }
    for (name, mode) in [("ca", 0o700), ("server", 0o700), ("client", 0o755)] {
        std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), mode)
            .create(file(name))
            .with_context(|| format!("cannot make `{}`", file(name).display()))?;
    }
    if !there("ca/cert.pem") || !there("ca/key.pem") {
        let key = KeyPair::generate()?;
        let certificate = authority()?.self_signed(&key)?;
        // The key last: with it the authority is whole.
        write(&file("ca/cert.pem"), &certificate.pem(), 0o644)?;
        write(&file("ca/key.pem"), &key.serialize_pem(), 0o600)?;
        // A client's certificate of another authority is of no use.
        let _ = fs::remove_file(file("client/cert.pem"));
    }
    let read = |name: &str| {
        fs::read_to_string(file(name)).with_context(|| format!("cannot read `{}`", file(name).display()))
    };
    let authority_pem = read("ca/cert.pem")?;
    let key =
        KeyPair::from_pem(&read("ca/key.pem")?).context("cannot use the authority's key that is there")?;
    // Its name never changes, so that nothing needs to be read from its certificate.
    let issuer = Issuer::new(authority()?, key);
    let mut server = leaf("docker:dind server", ExtendedKeyUsagePurpose::ServerAuth)?;
    server.subject_alt_names = names.alternatives();
    sign(directory, "server", &server, &issuer, &authority_pem)?;
    let is_whole = ["client/ca.pem", "client/cert.pem", "client/key.pem"].iter().all(|name| there(name));
    if is_whole && read("client/ca.pem")? == authority_pem {
        return Ok(());
    }
    let client = leaf("docker:dind client", ExtendedKeyUsagePurpose::ClientAuth)?;
    sign(directory, "client", &client, &issuer, &authority_pem)
}

fn sign(
    directory: &Path,
    place: &str,
    parameters: &CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
    authority: &str,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate: Certificate = parameters.signed_by(&key, issuer)?;
    let file = |name: &str| directory.join(place).join(name);
    write(&file("key.pem"), &key.serialize_pem(), 0o600)?;
    write(&file("cert.pem"), &certificate.pem(), 0o644)?;
    write(&file("ca.pem"), authority, 0o644)
}

fn authority() -> Result<CertificateParams> {
    let mut parameters = parameters("docker:dind CA")?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn leaf(name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<CertificateParams> {
    let mut parameters = parameters(name)?;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![purpose];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn parameters(name: &str) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (parameters.not_before, parameters.not_after) = (now - SLACK, now + VALIDITY);
    Ok(parameters)
}

/// Writes a file that is whole as soon as it has its name.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let begun = path.with_extension("new");
    let _ = fs::remove_file(&begun);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&begun)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&begun, path));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_engine_takes_what_is_made_and_clients_outlive_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut names = Names::default();
        names.add("DNS:docker, IP:127.0.0.1,IP:nonsense,email:x");
        assert_eq!(names.alternatives().len(), 2);
        let hosts = "127.0.0.1\tlocalhost\n172.18.0.2\tabc\nfd00::2\tabc.org abc\n# 1.1.1.1 abc\n";
        assert_eq!(own_addresses(hosts, "abc").len(), 2);
        make(path, &names).unwrap();
        let file = |name: &str| path.join(name);
        dory_api::ServerTls::load(
            &file("server/cert.pem"),
            &file("server/key.pem"),
            Some(&file("server/ca.pem")),
        )
        .unwrap();
        assert_eq!(file("client/key.pem").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let read = |name: &str| fs::read_to_string(file(name)).unwrap();
        let (client, server) = (read("client/cert.pem"), read("server/cert.pem"));
        make(path, &names).unwrap();
        assert_eq!(read("client/cert.pem"), client);
        assert_ne!(read("server/cert.pem"), server);
        fs::remove_file(file("ca/key.pem")).unwrap();
        let server = read("server/cert.pem");
        make(path, &names).unwrap();
        assert_eq!(read("server/cert.pem"), server, "somebody else's");
    }
}
