//! How an engine is set up.

use std::net::IpAddr;
use std::path::PathBuf;

use dory_registry::RegistryConfig;

/// What `--privileged` means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivilegedMode {
    /// Every capability inside the container's own user namespace, cgroup subtree and network namespace; no host
    /// devices beyond the harmless ones.
    #[default]
    Confined,
    /// Docker's meaning: the host is handed over.
    Host,
}

/// What a bind of the engine's own socket means (`-v /var/run/docker.sock:/var/run/docker.sock`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SocketMount {
    /// The container gets a socket of its own ([`crate::GuardEvent`]), which shows it its own objects.
    #[default]
    Guarded,
    /// It is refused.
    Refuse,
    /// Docker's meaning: the socket itself is mounted.
    Raw,
}

/// Host ids from which confined containers get 65,536 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id.
    pub first: u32,
    /// How many.
    pub size: u32,
}

/// The default bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Name of the interface.
    pub name: String,
    /// Its address and prefix, e.g. `172.17.0.1/16`; `None` picks a free one as dockerd does.
    pub address: Option<String>,
    /// MTU; 0 means the kernel's.
    pub mtu: u32,
    /// Containers reach the outside through NAT.
    pub masquerade: bool,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self { name: "dory0".to_owned(), address: None, mtu: 0, masquerade: true }
    }
}

/// Everything that [`crate::Engine::open`] needs to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Images, volumes, containers; survives a reboot. Locked against a second engine.
    pub data_root: PathBuf,
    /// Sockets and pids; gone after a reboot.
    pub exec_root: PathBuf,
    /// What `--privileged` means.
    pub privileged: PrivilegedMode,
    /// What a bind of the engine's own socket means.
    pub socket_mount: SocketMount,
    /// Where images are that other engines have as well, and write to; `None` for the data-root.
    pub image_store: Option<PathBuf>,
    /// What a container made through its guarded socket is removed with it.
    pub socket_cleanup: bool,
    /// Other engines' stores that this one uses from below.
    pub lower_stores: Vec<dory_store::LowerOptions>,
    /// How much a layer may unpack to.
    pub unpack_limits: dory_store::UnpackLimits,
    /// Privileged containers get this engine's images to use from below, read-only.
    pub share_store: bool,
    /// The unix sockets that this engine listens on, absolute; the first one is what `/var/run/docker.sock` means.
    pub sockets: Vec<PathBuf>,
    /// The default bridge; `None` for an engine that has no bridge network.
    pub bridge: Option<BridgeOptions>,
    /// Where networks' subnets are taken from (dockerd's `default-address-pools`); empty means Docker's pools.
    pub address_pools: Vec<dory_net::AddressPool>,
    /// Servers for `resolv.conf` where a container names none; empty means the engine's own.
    pub dns: Vec<IpAddr>,
    /// Ids for confined containers; `None` takes /etc/subuid's entry for root, or the built-in range.
    pub userns_range: Option<IdRange>,
    /// Name of the cgroup below which containers get theirs.
    pub cgroup_parent: String,
    /// Log driver of containers that name none.
    pub log_driver: String,
    /// Bytes of `/dev/shm` of containers that name none.
    pub shm_size: i64,
    /// Open descriptors, soft and hard limit, of containers that name none; `None` lets them inherit the engine's, which
    /// may have raised its own.
    pub descriptor_limit: Option<(u64, u64)>,
    /// Version that `/version` and `/info` report for the product.
    pub version: String,
    /// Commit that it was built from.
    pub commit: String,
    /// What the first container needs is made as soon as the engine is open.
    pub warm_up: bool,
    /// Labels of the engine (`docker info`).
    pub labels: Vec<String>,
    /// Mirrors, insecure registries, proxies.
    pub registries: RegistryConfig,
}

impl EngineConfig {
    /// The defaults, with state in `data_root` and sockets in `exec_root`.
    pub fn new(data_root: impl Into<PathBuf>, exec_root: impl Into<PathBuf>) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            privileged: PrivilegedMode::default(),
            socket_mount: SocketMount::default(),
            image_store: None,
            socket_cleanup: false,
            lower_stores: Vec::new(),
            unpack_limits: dory_store::UnpackLimits::default(),
            share_store: false,
            sockets: Vec::new(),
            bridge: Some(BridgeOptions::default()),
            address_pools: Vec::new(),
            dns: Vec::new(),
            userns_range: None,
            cgroup_parent: "dory".to_owned(),
            log_driver: "json-file".to_owned(),
            shm_size: 64 << 20,
            descriptor_limit: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: String::new(),
            warm_up: true,
            labels: Vec::new(),
            registries: RegistryConfig::default(),
        }
    }
}
