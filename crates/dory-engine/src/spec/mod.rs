//! From a container's configuration to what the runtime runs, as dockerd and runc do it together.

pub(crate) mod capability;
pub(crate) mod device;
pub(crate) mod host;
mod mounts;
pub(crate) mod namespace;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod tmpfs;

#[cfg(test)]
mod tests;

pub(crate) use mounts::{ETC_FILES, PARENT_LEASE, PARENT_STORE, of_point_for_build, stopped_binds};

use std::collections::BTreeMap;
use std::path::PathBuf;

use dory_cgroup::Group;
use dory_runtime::spec::{
    ConsoleSize, ContainerSpec, DeviceNode, Namespace, Namespaces, Rootfs, Stdio, UserNamespace,
};
use dory_types::ContainerId;

use crate::EngineError;
use crate::apparmor::DefaultProfile;
use crate::config::{ContainerConfig, HostConfig};
use crate::mount::Point;
use host::HostFacts;
use namespace::{Mode, Modes};
use security::SecurityOptions;

/// Everything that a spec is made of.
#[derive(Debug)]
pub(crate) struct SpecInput<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) host_config: &'a HostConfig,
    pub(crate) facts: &'a HostFacts,
    pub(crate) default_profile: &'a DefaultProfile,
    pub(crate) path: &'a str,
    pub(crate) args: &'a [String],
    pub(crate) hostname: &'a str,
    /// Variables of the containers that it is linked to.
    pub(crate) linked_env: &'a [String],
    pub(crate) user_namespace: &'a UserNamespace,
    pub(crate) modes: &'a Modes,
    /// The processes whose namespaces are joined.
    pub(crate) joined: Joined,
    pub(crate) rootfs: Rootfs,
    pub(crate) devices: Vec<DeviceNode>,
    pub(crate) points: &'a [Point],
    /// `/etc/hosts` and its like: path in the container, the engine's file.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
    /// The directory that several containers have as /dev/shm.
    pub(crate) shared_memory: Option<PathBuf>,
    pub(crate) shm_size: i64,
    /// What of this engine's store the container may use from below.
    pub(crate) shared_store: Option<dory_store::Share>,
    /// The shim listens for the container's own API socket.
    pub(crate) guarded_socket: bool,
    pub(crate) cgroup: Option<Group>,
    pub(crate) log: dory_log::LogConfig,
    pub(crate) directory: PathBuf,
    pub(crate) runtime_directory: PathBuf,
}

/// Processes of other containers, as the engine numbers them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Joined {
    pub(crate) network: Option<i32>,
    pub(crate) pid: Option<i32>,
    pub(crate) ipc: Option<i32>,
}

/// Builds the spec.
pub(crate) fn build(input: SpecInput<'_>) -> Result<ContainerSpec, EngineError> {
    let security = SecurityOptions::parse(input.host_config)?;
    let host = input.host_config;
    let (hostname, domainname) = match input.modes.uts {
        Mode::Host => (String::new(), String::new()),
        _ => (input.hostname.to_owned(), input.config.domainname.clone()),
    };
    Ok(ContainerSpec {
        id: input.id.clone(),
        hostname,
        domainname,
        namespaces: namespaces(&input),
        mounts: mounts::mounts(&input)?,
        masked_paths: host.masked_paths.to_vec(),
        readonly_paths: host.readonly_paths.to_vec(),
        sysctls: sysctls(&input),
        process: process::container(&input, &security)?,
        init: host.init.unwrap_or(false),
        stdio: Stdio {
            open_stdin: input.config.open_stdin,
            stdin_once: input.config.stdin_once,
            tty: input.config.tty,
            console_size: console_size(host.console_size),
        },
        devices: input.devices,
        rootfs: input.rootfs,
        cgroup: input.cgroup,
        log: input.log,
        directory: input.directory,
        runtime_directory: input.runtime_directory,
        guarded_socket: input.guarded_socket,
        dies_with_parent: false,
    })
}

fn namespaces(input: &SpecInput<'_>) -> Namespaces {
    let namespace = |mode: &Mode, joined: Option<i32>| match (mode, joined) {
        (Mode::Host, _) => Namespace::Host,
        (Mode::Container(_), Some(pid)) => Namespace::Of { pid },
        _ => Namespace::New,
    };
    Namespaces {
        user: input.user_namespace.clone(),
        pid: namespace(&input.modes.pid, input.joined.pid),
        network: namespace(&input.modes.network, input.joined.network),
        ipc: namespace(&input.modes.ipc, input.joined.ipc),
        uts: namespace(&input.modes.uts, None),
        cgroup: match input.cgroup {
            Some(_) => namespace(&input.modes.cgroup, None),
            None => Namespace::Host,
        },
    }
}

/// The configured parameters, and dockerd's two for a network namespace of one's own: low ports and ping for everybody.
fn sysctls(input: &SpecInput<'_>) -> BTreeMap<String, String> {
    let mut sysctls = input.host_config.sysctls.clone();
    if matches!(input.modes.network, Mode::Private | Mode::None) && !input.host_config.privileged {
        sysctls.entry("net.ipv4.ip_unprivileged_port_start".to_owned()).or_insert_with(|| "0".to_owned());
        // The range has to be mapped where it is written.
        if !input.user_namespace.is_new() && !input.facts.is_nested_in_user_namespace() {
            sysctls
                .entry("net.ipv4.ping_group_range".to_owned())
                .or_insert_with(|| "0 2147483647".to_owned());
        }
    }
    sysctls
}

/// Docker's pair of height and width; zeros mean "not given".
pub(crate) fn console_size([height, width]: [u16; 2]) -> Option<ConsoleSize> {
    (height != 0 && width != 0).then_some(ConsoleSize { height, width })
}
