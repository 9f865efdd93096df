//! `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` and /dev/shm of a container.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use dory_net::{ExtraHost, Hosts, ResolvConf};

use super::object::Container;
use super::record::Record;
use crate::engine::Inner;
use crate::network::Link;
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
    address: Option<IpAddr>,
    links: &[Link],
) -> Result<EtcFiles> {
    if let Some(reference) = modes.network.container() {
        let directory = engine.registry.find(reference)?.directory.clone();
        return Ok(EtcFiles { directory });
    }
    let host = &record.host_config;
    let mut extra: Vec<ExtraHost> = host
        .extra_hosts
        .iter()
        .map(|entry| {
            entry.parse().map_err(|error: dory_net::ExtraHostError| EngineError::invalid(error.to_string()))
        })
        .collect::<Result<_>>()?;
    extra.extend(links.iter().map(Link::host));
    let gateway = engine.bridge.existing().and_then(|network| network.gateway()).map(IpAddr::V4);
    let hosts = Hosts {
        address,
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
    let host = &record.host_config;
    let wishes = ResolvConf {
        nameservers: host
            .dns
            .iter()
            .map(|text| {
                text.parse().map_err(|_| EngineError::invalid(format!("invalid DNS address: {text}")))
            })
            .collect::<Result<_>>()?,
        search: host.dns_search.to_vec(),
        options: host.dns_options.to_vec(),
    };
    match modes.network {
        // The engine's own file serves where its own network is shared, unless something else was asked for.
        Mode::Host if wishes == ResolvConf::default() => {
            Ok(fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
        }
        Mode::Host | Mode::None => Ok(crate::link::host_resolvers().for_container(&wishes, None).to_string()),
        _ => Ok(engine.bridge.resolv_conf(&wishes)?.to_string()),
    }
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
