//! Flags and the configuration file of `dory serve`: the same names in both, a flag wins.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use dory_api::ServerTls;
use dory_engine::{
    AddressPool, BridgeOptions, EngineConfig, IdRange, PrivilegedMode, RegistryConfig, SocketMount,
    UnpackLimits,
};
use dory_policy::Policy;
use serde::Deserialize;

/// Where the file is looked for when none is named; there it may be missing.
const DEFAULT_FILE: &str = "/etc/dory/config.toml";
/// Long-lived, its own objects, nothing of the host.
const DEFAULT_SOCKET_POLICY: &str = "dev";

/// Run an engine that speaks the Docker Engine API.
///
/// Containers survive the engine: stop it, start it again, and it finds them. Every option can also stand in the
/// configuration file under the same name.
#[derive(Debug, Default, Parser, Deserialize)]
#[command(name = "dory serve", version)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Options {
    /// Listen here: `unix:///path`, `tcp://address:port`, `fd://` (systemd); may be given several times
    /// [default: unix:///run/dory/dory.sock, or $XDG_RUNTIME_DIR/dory.sock for an ordinary user].
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    #[serde(alias = "host")]
    pub hosts: Vec<String>,
    /// Images, volumes and containers [default: /var/lib/dory, or $XDG_DATA_HOME/dory].
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// Sockets and pids, gone after a reboot [default: /run/dory, or $XDG_RUNTIME_DIR/dory].
    #[arg(long, value_name = "DIR")]
    pub exec_root: Option<PathBuf>,
    /// Configuration file in TOML [default: /etc/dory/config.toml if it is there].
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// What `--privileged` means: every capability inside the container's own user namespace (confined), or Docker's
    /// meaning, which hands the host over (host) [default: confined].
    #[arg(long, value_enum)]
    pub privileged: Option<Privileged>,
    /// What mounting the engine's own socket into a container means: a socket of the container's own that shows it what it
    /// made itself (guarded), nothing, it is refused (refuse), or Docker's meaning, which hands the engine over (raw)
    /// [default: guarded].
    #[arg(long, value_enum)]
    pub socket_mount: Option<SocketMountWord>,
    /// What a container may do with a guarded socket: a preset of `dory policy` or a file [default: dev].
    #[arg(long, value_name = "POLICY")]
    pub socket_policy: Option<String>,
    /// Where decisions about requests on guarded sockets are written, one JSON line each [default: nowhere].
    #[arg(long, value_name = "FILE")]
    pub socket_audit: Option<PathBuf>,
    /// Use the images of another engine's store from below, without a copy: its data-root, or what it shares of it. With
    /// `:DIR` behind it, that directory is where to say what is used; may be given several times.
    #[arg(long = "lower-store", value_name = "DIR[:LEASE]")]
    #[serde(alias = "lower-store")]
    pub lower_stores: Vec<String>,
    /// Keep images in this directory, together with other engines that name it too and take turns. Containers and volumes stay in
    /// the data-root. Not together with --lower-store and --share-store.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["lower_stores", "share_store"])]
    pub image_store: Option<PathBuf>,
    /// Let engines in privileged containers use this engine's images from below, read-only: they see all of them.
    #[arg(long)]
    #[serde(default)]
    pub share_store: bool,
    /// Speak TLS on TCP sockets; implied by --tlsverify.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub tls: Option<bool>,
    /// Speak TLS on TCP sockets, and let those in only who show a certificate of --tlscacert.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub tlsverify: Option<bool>,
    /// Certificate authority of the clients, in PEM form [default: ~/.docker/ca.pem].
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// The engine's certificate, in PEM form [default: ~/.docker/cert.pem].
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// The key of that certificate, in PEM form [default: ~/.docker/key.pem].
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Group that may use the unix sockets [default: docker if it exists, else root's].
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Name of the default bridge [default: dory0]; `none` for no bridge network.
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,
    /// Address of the default bridge, e.g. 172.30.0.1/24 [default: the first pool that collides with no route].
    #[arg(long, value_name = "CIDR")]
    pub bip: Option<String>,
    /// MTU of the default bridge [default: that of the outer interface].
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Where networks' subnets are taken from: `base=10.20.0.0/16,size=24`; may be given several times [default: Docker's
    /// pools].
    #[arg(long = "default-address-pool", value_name = "POOL")]
    #[serde(default, alias = "default-address-pool")]
    pub default_address_pools: Vec<AddressPool>,
    /// Name servers of containers that name none [default: those of the surroundings].
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Ids for confined containers, `FIRST:COUNT` [default: the entry of root in /etc/subuid, else a built-in range].
    #[arg(long, value_name = "RANGE")]
    pub userns_range: Option<String>,
    /// Cgroup below which containers get theirs [default: dory].
    #[arg(long, value_name = "NAME")]
    pub cgroup_parent: Option<String>,
    /// Log driver of containers that name none [default: json-file].
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Labels of the engine, seen in `docker info`.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    #[serde(alias = "label")]
    pub labels: Vec<String>,
    /// Ask this address before Docker Hub, e.g. https://mirror.example; may be given several times.
    #[arg(long = "registry-mirror", value_name = "URL")]
    #[serde(skip)]
    pub registry_mirrors: Vec<String>,
    /// Do not check certificates of this registry (`HOST[:PORT]` or a network), and speak to it without TLS where it has
    /// none; may be given several times.
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    #[serde(skip)]
    pub insecure_registries: Vec<String>,
    /// How many layers are downloaded at the same time [default: 6].
    #[arg(long, value_name = "COUNT")]
    #[serde(skip)]
    pub max_concurrent_downloads: Option<usize>,
    /// Everything about registries; in the configuration file only: `[registries]`.
    #[arg(skip)]
    pub registries: RegistryConfig,
    /// How much a layer may unpack to; in the configuration file only: `[unpack-limits]`.
    #[arg(skip)]
    pub unpack_limits: UnpackLimits,
    /// Write the engine's pid here.
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// End by itself when nothing runs and nobody has asked for so many seconds (used by `dory run`).
    #[arg(long, value_name = "SECONDS")]
    pub idle_exit: Option<u64>,
    /// At the end stop and remove every container, and the bridge and cgroups too: nothing is left but the data-root.
    #[arg(long)]
    #[serde(default)]
    pub ephemeral: bool,
    /// How much is logged: error, warn, info, debug or trace [default: info].
    #[arg(short = 'l', long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// The same as --log-level debug.
    #[arg(short = 'D', long)]
    #[serde(default)]
    pub debug: bool,
}

/// What `--privileged` means.
#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privileged {
    /// Confined to the container's own namespaces.
    Confined,
    /// Docker's meaning.
    Host,
}

/// What mounting the engine's own socket means.
#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketMountWord {
    /// The container gets a socket of its own.
    Guarded,
    /// It is refused.
    Refuse,
    /// Docker's meaning.
    Raw,
}

impl Options {
    /// Adds what the file says to what the flags say.
    ///
    /// # Errors
    /// A file that was named and cannot be read, or one that is not understood: the message names line and column.
    pub fn with_file(self) -> Result<Self> {
        let (path, required) = match &self.config {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let file = parse_file(&text)
                    .with_context(|| format!("in the configuration `{}`", path.display()))?;
                Ok(self.over(file))
            }
            Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => Ok(self),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read the configuration `{}`", path.display()))
            }
        }
    }

    /// These options where they are given, else `file`'s.
    fn over(self, file: Self) -> Self {
        fn list<T>(ours: Vec<T>, theirs: Vec<T>) -> Vec<T> {
            if ours.is_empty() { theirs } else { ours }
        }
        Self {
            hosts: list(self.hosts, file.hosts),
            data_root: self.data_root.or(file.data_root),
            exec_root: self.exec_root.or(file.exec_root),
            config: self.config,
            privileged: self.privileged.or(file.privileged),
            socket_mount: self.socket_mount.or(file.socket_mount),
            image_store: self.image_store.or(file.image_store),
            socket_policy: self.socket_policy.or(file.socket_policy),
            socket_audit: self.socket_audit.or(file.socket_audit),
            lower_stores: list(self.lower_stores, file.lower_stores),
            share_store: self.share_store || file.share_store,
            tls: self.tls.or(file.tls),
            tlsverify: self.tlsverify.or(file.tlsverify),
            tlscacert: self.tlscacert.or(file.tlscacert),
            tlscert: self.tlscert.or(file.tlscert),
            tlskey: self.tlskey.or(file.tlskey),
            group: self.group.or(file.group),
            bridge: self.bridge.or(file.bridge),
            bip: self.bip.or(file.bip),
            mtu: self.mtu.or(file.mtu),
            default_address_pools: list(self.default_address_pools, file.default_address_pools),
            dns: list(self.dns, file.dns),
            userns_range: self.userns_range.or(file.userns_range),
            cgroup_parent: self.cgroup_parent.or(file.cgroup_parent),
            log_driver: self.log_driver.or(file.log_driver),
            labels: list(self.labels, file.labels),
            registry_mirrors: self.registry_mirrors,
            insecure_registries: self.insecure_registries,
            max_concurrent_downloads: self.max_concurrent_downloads,
            registries: file.registries,
            unpack_limits: file.unpack_limits,
            pidfile: self.pidfile.or(file.pidfile),
            idle_exit: self.idle_exit.or(file.idle_exit),
            ephemeral: self.ephemeral || file.ephemeral,
            log_level: self.log_level.or(file.log_level),
            debug: self.debug || file.debug,
        }
    }

    /// Where to listen.
    pub fn hosts(&self) -> Vec<String> {
        if self.hosts.is_empty() {
            vec![format!("unix://{}", super::default_socket().display())]
        } else {
            self.hosts.clone()
        }
    }

    /// How TCP sockets are encrypted; `None` for not at all.
    ///
    /// # Errors
    /// Files that are missing or of no use.
    pub fn tls(&self) -> Result<Option<ServerTls>> {
        let verify = self.tlsverify.unwrap_or(false);
        if !verify && !self.tls.unwrap_or(false) {
            return Ok(None);
        }
        let directory = std::env::var_os("DOCKER_CERT_PATH").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
            PathBuf::from,
        );
        let file = |given: &Option<PathBuf>, name| given.clone().unwrap_or_else(|| directory.join(name));
        let clients = verify.then(|| file(&self.tlscacert, "ca.pem"));
        let (certificate, key) = (file(&self.tlscert, "cert.pem"), file(&self.tlskey, "key.pem"));
        Ok(Some(ServerTls::load(&certificate, &key, clients.as_deref())?))
    }

    /// The engine's configuration.
    ///
    /// # Errors
    /// An id range that is not one.
    pub fn engine(&self) -> Result<EngineConfig> {
        let data_root = self.data_root.clone().unwrap_or_else(default_data_root);
        let exec_root = self.exec_root.clone().unwrap_or_else(default_exec_root);
        let mut config = EngineConfig::new(absolute(&data_root)?, absolute(&exec_root)?);
        if let Some(Privileged::Host) = self.privileged {
            config.privileged = PrivilegedMode::Host;
        }
        config.socket_mount = match self.socket_mount {
            None | Some(SocketMountWord::Guarded) => SocketMount::Guarded,
            Some(SocketMountWord::Refuse) => SocketMount::Refuse,
            Some(SocketMountWord::Raw) => SocketMount::Raw,
        };
        config.socket_cleanup = self.socket_policy()?.cleanup;
        for store in &self.lower_stores {
            config.lower_stores.push(parse_lower_store(store)?);
        }
        match &self.image_store {
            None => config.find_parent_store(),
            Some(_) if self.share_store || !self.lower_stores.is_empty() => {
                bail!("image-store goes neither with lower-stores nor with share-store")
            }
            Some(images) => config.image_store = Some(absolute(images)?),
        }
        config.share_store = self.share_store;
        config.unpack_limits = self.unpack_limits;
        config.bridge = self.bridge();
        config.address_pools.clone_from(&self.default_address_pools);
        config.dns.clone_from(&self.dns);
        config.userns_range = self.userns_range.as_deref().map(parse_range).transpose()?;
        config.labels.clone_from(&self.labels);
        if let Some(parent) = &self.cgroup_parent {
            config.cgroup_parent.clone_from(parent);
        }
        if let Some(driver) = &self.log_driver {
            config.log_driver.clone_from(driver);
        }
        config.registries = self.registries();
        config.commit = option_env!("DORY_COMMIT").unwrap_or_default().to_owned();
        Ok(config)
    }

    /// What containers may do with guarded sockets.
    ///
    /// # Errors
    /// A file that cannot be read, or is no policy.
    pub fn socket_policy(&self) -> Result<Policy> {
        crate::gateway::load_policy(self.socket_policy.as_deref().unwrap_or(DEFAULT_SOCKET_POLICY))
    }

    /// What the file says of registries, and what the flags add to it.
    fn registries(&self) -> RegistryConfig {
        let mut registries = self.registries.clone();
        registries.registry_mirrors.extend(self.registry_mirrors.iter().cloned());
        registries.insecure_registries.extend(self.insecure_registries.iter().cloned());
        if let Some(count) = self.max_concurrent_downloads {
            registries.max_concurrent_downloads = count;
        }
        registries
    }

    fn bridge(&self) -> Option<BridgeOptions> {
        let mut bridge = BridgeOptions::default();
        match self.bridge.as_deref() {
            Some("none") => return None,
            Some(name) => bridge.name = name.to_owned(),
            None => {}
        }
        bridge.address.clone_from(&self.bip);
        bridge.mtu = self.mtu.unwrap_or(0);
        Some(bridge)
    }

    /// The log level, as a filter directive.
    pub fn log_filter(&self) -> String {
        if self.debug {
            "debug".to_owned()
        } else {
            self.log_level.clone().unwrap_or_else(|| "info".to_owned())
        }
    }
}

/// Parses the file's text.
fn parse_file(text: &str) -> Result<Options> {
    Ok(toml::from_str(text)?)
}

/// Reads `DIR[:LEASE]`.
fn parse_lower_store(text: &str) -> Result<dory_engine::LowerOptions> {
    let (path, lease) = text.split_once(':').map_or((text, None), |(path, lease)| (path, Some(lease)));
    let lease = lease.map(|lease| absolute(Path::new(lease))).transpose()?;
    Ok(dory_engine::LowerOptions { path: absolute(Path::new(path))?, lease })
}

fn parse_range(text: &str) -> Result<IdRange> {
    let parse = || {
        let (first, size) = text.split_once(':')?;
        let range = IdRange { first: first.parse().ok()?, size: size.parse().ok()? };
        // One container needs 65,536; and root's own ids must never be given away.
        (range.first >= 65_536 && range.size >= 65_536 && range.first.checked_add(range.size).is_some())
            .then_some(range)
    };
    match parse() {
        Some(range) => Ok(range),
        None => bail!("invalid id range `{text}`: FIRST:COUNT is needed, both at least 65536"),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("invalid path `{}`", path.display()))
}

/// True for root, in whatever user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn default_data_root() -> PathBuf {
    if is_root() {
        return PathBuf::from("/var/lib/dory");
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share");
    std::env::var_os("XDG_DATA_HOME").map_or_else(home, PathBuf::from).join("dory")
}

fn default_exec_root() -> PathBuf {
    if is_root() { PathBuf::from("/run/dory") } else { super::runtime_directory().join("dory") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let flags = Options::parse_from(["dory serve", "-H", "unix:///a", "--mtu", "1400"]);
        let file = parse_file(
            "hosts = [\"tcp://127.0.0.1:1\"]\nmtu = 9000\nprivileged = \"host\"\nsocket-mount = \"raw\"\nbridge = \"none\"",
        )
        .unwrap();
        let both = flags.over(file);
        assert_eq!(both.hosts(), ["unix:///a"]);
        assert_eq!(both.mtu, Some(1400));
        let engine = both.engine().unwrap();
        assert_eq!(engine.privileged, PrivilegedMode::Host);
        assert_eq!(engine.socket_mount, SocketMount::Raw);
        assert!(engine.bridge.is_none());
        let file = parse_file("[unpack-limits]\narchive-size = 1000000").unwrap();
        assert_eq!(file.unpack_limits, UnpackLimits { archive_size: 1_000_000, ..UnpackLimits::default() });
    }

    #[test]
    fn a_wrong_file_is_an_error_that_names_the_place() {
        for wrong in [
            "data-rot = \"/x\"",
            "mtu = \"large\"",
            "privileged = \"yes\"",
            "socket-mount = \"yes\"",
            "hosts = [",
        ] {
            let text = format!("{:#}", parse_file(wrong).unwrap_err());
            assert!(text.contains("line 1"), "{text}");
        }
    }

    #[test]
    fn id_ranges_leave_the_machines_own_ids_alone() {
        assert_eq!(parse_range("100000:65536").unwrap(), IdRange { first: 100_000, size: 65_536 });
        for wrong in ["", "0:65536", "100000", "100000:1", "4294967295:65536", "a:b"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }
}
