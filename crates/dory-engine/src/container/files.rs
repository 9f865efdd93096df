//! `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` and /dev/shm of a container.

use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use dory_net::{ExtraHost, Hosts, ResolvConf};

use super::object::Container;
use super::record::Record;
use crate::engine::Inner;
use crate::network::{Link, embedded_resolv_conf, uses_resolver};
use crate::spec::ETC_FILES;
use crate::spec::namespace::{Mode, Modes};
use crate::{EngineError, Result};

/// The engine's files that a container sees in its /etc.
#[derive(Debug)]
pub(super) struct EtcFiles {
    /// The directory that holds them: the container's own, or that of the one whose network it joins.
    directory: PathBuf,
}

impl EtcFiles {
    /// Path in the container and on the host.
    pub(super) fn mounts(&self) -> Vec<(&'static str, PathBuf)> {
        ETC_FILES.map(|(inside, name)| (inside, self.directory.join(name))).into()
    }
}

/// Writes the files for this run.
pub(super) fn write_etc_files(
    engine: &Inner,
    container: &Container,
    record: &Record,
    modes: &Modes,
    addresses: &[IpAddr],
    links: &[Link],
) -> Result<EtcFiles> {
    if let Some(reference) = modes.network.container() {
        let directory = engine.registry.find(reference)?.directory.clone();
        return Ok(EtcFiles { directory });
    }
    let mut extra = extra_hosts(record)?;
    extra.extend(links.iter().map(Link::host));
    let gateway = host_gateway(engine, &extra);
    let hosts = Hosts {
        addresses,
        hostname: &record.config.hostname,
        domainname: &record.config.domainname,
        extra: &extra,
        gateway,
    };
    let hosts = match modes.network {
        // The host's own names hold where its network is shared.
        Mode::Host => fs::read_to_string("/etc/hosts").unwrap_or_default() + &extra_lines(&extra, gateway),
        _ => hosts.render(),
    };
    let owner = record.user_namespace.root();
    let write = |name: &str, text: &str| {
        write_file(&container.directory.join(name), text, owner)
            .map_err(|error| EngineError::failed(format!("cannot write the container's {name}"), error))
    };
    write("hosts", &hosts)?;
    write("hostname", &format!("{}\n", record.config.hostname))?;
    write("resolv.conf", &resolv_conf(engine, record, modes)?)?;
    Ok(EtcFiles { directory: container.directory.clone() })
}

/// The most that is read of a file that the container may have written to.
const ETC_FILE_MAX: u64 = 1 << 20;

/// Lets the files of a running container follow a change of its networks. What somebody changed in them stays.
pub(crate) fn update_etc_files(engine: &Inner, container: &Container, record: &Record) -> Result<()> {
    let modes = Modes::parse(&record.host_config)?;
    if modes.network == Mode::Host || modes.network.container().is_some() {
        return Ok(());
    }
    let places = record.run.iter().flat_map(|run| &run.endpoints);
    let addresses: Vec<_> = places.flat_map(|place| place.addresses.iter().copied()).collect();
    let hosts = Hosts {
        addresses: &addresses,
        hostname: &record.config.hostname,
        domainname: &record.config.domainname,
        extra: &[],
        gateway: None,
    };
    let change = |name: &str, change: &dyn Fn(&str) -> Option<String>| {
        let path = container.directory.join(name);
        let updated = read_file(&path).and_then(|text| match text.as_deref().and_then(change) {
            Some(new) => fs::write(&path, new),
            None => Ok(()),
        });
        updated.map_err(|error| EngineError::failed(format!("cannot update the container's {name}"), error))
    };
    change("hosts", &|text| Some(hosts.update(text)).filter(|new| new != text))?;
    if !uses_resolver(record) {
        return Ok(());
    }
    let wishes = resolver_wishes(record)?;
    let before = engine.bridge.resolv_conf(&wishes)?.to_string();
    let after = embedded_resolv_conf(&crate::link::host_resolvers(), &wishes).to_string();
    change("resolv.conf", &|text| (text == before).then(|| after.clone()))
}

/// The file's text; none where it is no text, or longer than such a file is.
fn read_file(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(ETC_FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).ok().filter(|text| (text.len() as u64) < ETC_FILE_MAX))
}

fn extra_hosts(record: &Record) -> Result<Vec<ExtraHost>> {
    let parse = |entry: &String| {
        entry.parse().map_err(|error: dory_net::ExtraHostError| EngineError::invalid(error.to_string()))
    };
    record.host_config.extra_hosts.iter().map(parse).collect()
}

/// The address that `host-gateway` stands for: the default bridge's, which is made where somebody asks for it.
fn host_gateway(engine: &Inner, extra: &[ExtraHost]) -> Option<IpAddr> {
    let wanted = extra.iter().any(|host| host.target == dory_net::HostTarget::Gateway);
    let bridge = if wanted { engine.bridge.network().ok() } else { engine.bridge.existing() };
    bridge.and_then(|bridge| bridge.gateway()).map(IpAddr::V4)
}

impl crate::Engine {
    /// The address by which containers reach the machine: what `host-gateway` stands for. None without a bridge.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        self.inner.bridge.network().ok().and_then(|bridge| bridge.gateway()).map(IpAddr::V4)
    }
}

fn extra_lines(extra: &[ExtraHost], gateway: Option<IpAddr>) -> String {
    extra
        .iter()
        .filter_map(|host| match host.target {
            dory_net::HostTarget::Address(address) => Some((address, &host.name)),
            dory_net::HostTarget::Gateway => gateway.map(|address| (address, &host.name)),
        })
        .map(|(address, name)| format!("{address}\t{name}\n"))
        .collect()
}

fn resolv_conf(engine: &Inner, record: &Record, modes: &Modes) -> Result<String> {
    let wishes = resolver_wishes(record)?;
    match modes.network {
        _ if uses_resolver(record) => {
            let host = crate::link::host_resolvers();
            Ok(embedded_resolv_conf(&host, &wishes).to_string())
        }
        // The engine's own file serves where its own network is shared, unless something else was asked for.
        Mode::Host if wishes == ResolvConf::default() => {
            Ok(fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
        }
        Mode::Host | Mode::None => Ok(crate::link::host_resolvers().for_container(&wishes, None).to_string()),
        _ => Ok(engine.bridge.resolv_conf(&wishes)?.to_string()),
    }
}

/// What the container itself wants of its resolv.conf.
fn resolver_wishes(record: &Record) -> Result<ResolvConf> {
    let host = &record.host_config;
    let address = |text: &String| {
        text.parse().map_err(|_| EngineError::invalid(format!("invalid DNS address: {text}")))
    };
    Ok(ResolvConf {
        nameservers: host.dns.iter().map(address).collect::<Result<_>>()?,
        search: host.dns_search.to_vec(),
        options: host.dns_options.to_vec(),
    })
}

/// Writes in place: a bind of the file in a running container keeps showing it.
fn write_file(path: &Path, text: &str, (uid, gid): (u32, u32)) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    chown(path, Some(uid), Some(gid))
}

impl Inner {
    /// The directory that stands for /dev/shm where containers share it, or where it is the host's.
    ///
    /// COMPAT: it lies in the exec-root, which is memory on ordinary hosts; `--shm-size` does not bound it.
    pub(super) fn shared_memory(&self, container: &Container, modes: &Modes) -> Result<Option<PathBuf>> {
        match &modes.ipc {
            Mode::Host => Ok(Some(PathBuf::from("/dev/shm"))),
            Mode::Shareable => {
                let path = container.runtime_directory.join("shm");
                fs::create_dir(&path)
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)))
                    .map_err(|error| {
                        EngineError::failed("cannot make the shared memory's directory", error)
                    })?;
                Ok(Some(path))
            }
            Mode::Container(reference) => {
                let other = self.registry.find(reference)?;
                let path = other.runtime_directory.join("shm");
                if !path.exists() {
                    return Err(EngineError::conflict(format!(
                        "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
                         container)",
                        other.id
                    )));
                }
                Ok(Some(path))
            }
            _ => Ok(None),
        }
    }
}
