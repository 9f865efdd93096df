//! What the engine says of itself and of its host.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use dory_cgroup::{Controller, Hierarchies, Mode};
use serde::Serialize;

use crate::Result;
use crate::container::{ContainerSummary, ListOptions, STORAGE_DRIVER, Status};
use crate::engine::{Engine, Inner, blocking};
use crate::events::{EventOptions, EventStream};
use crate::image::ImageSummary;
use crate::options::PrivilegedMode;
use crate::volume::VolumeDetails;

/// The engine's facts behind `/info`; counts are at the time of the call.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SystemInfo {
    /// Stable id of the data-root.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers.
    pub containers: usize,
    /// Of these, running.
    pub containers_running: usize,
    /// Of these, paused.
    pub containers_paused: usize,
    /// Of these, not running.
    pub containers_stopped: usize,
    /// Images.
    pub images: usize,
    /// Storage driver.
    pub driver: String,
    /// Its facts.
    pub driver_status: Vec<[String; 2]>,
    /// Where state lies.
    pub docker_root_dir: String,
    /// The limits that this host's cgroups can enforce.
    pub memory_limit: bool,
    /// Swap.
    pub swap_limit: bool,
    /// CFS period.
    pub cpu_cfs_period: bool,
    /// CFS quota.
    pub cpu_cfs_quota: bool,
    /// Shares.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Cpusets.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Pids.
    pub pids_limit: bool,
    /// OOM killer can be disabled.
    pub oom_kill_disable: bool,
    /// IPv4 is forwarded.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Default log driver.
    pub logging_driver: String,
    /// `none` or `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`; empty for none.
    pub cgroup_version: String,
    /// Subscribers of events.
    pub n_events_listener: usize,
    /// Kernel's release.
    pub kernel_version: String,
    /// Distribution, from os-release.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// `x86_64`...
    pub architecture: String,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub ncpu: usize,
    /// Bytes of memory.
    pub mem_total: u64,
    /// Host name.
    pub name: String,
    /// Labels of the engine.
    pub labels: Vec<String>,
    /// Product's version.
    pub server_version: String,
    /// `name=seccomp,profile=builtin`...
    pub security_options: Vec<String>,
    /// What is missing.
    pub warnings: Vec<String>,
    /// The tier's name and what it cannot give, in words.
    pub tier: String,
    /// Every facility that the probe knows, with its result.
    pub facilities: Vec<[String; 2]>,
}

/// The engine's facts behind `/version`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionInfo {
    /// Product's version.
    pub version: String,
    /// Commit that it was built from.
    pub git_commit: String,
    /// Kernel's release.
    pub kernel_version: String,
    /// `linux`.
    pub os: String,
    /// Go's name of the architecture: `amd64`...
    pub arch: String,
}

/// API 1.51, the answer of `GET /system/df`.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: i64,
    /// Images, with shared sizes and counts.
    pub images: Option<Vec<ImageSummary>>,
    /// Containers, with sizes.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Volumes, with usage.
    pub volumes: Option<Vec<VolumeDetails>>,
}

/// Go's name of the architecture that this engine was built for.
pub(crate) fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The runtime's name where a request names none. There is one runtime and it is built in; the name is the one that
/// clients know from dockerd and compare with.
pub const DEFAULT_RUNTIME: &str = "runc";

/// True where the kernel can limit swap: v1 only with swap accounting.
pub(crate) fn swap_limit(hierarchies: &Hierarchies) -> bool {
    let v1_memory = hierarchies
        .mount_points()
        .find(|(_, controllers)| controllers.contains(&Controller::Memory))
        .map(|(path, _)| path.join("memory.memsw.limit_in_bytes").exists());
    v1_memory.unwrap_or(true)
}

impl Engine {
    /// Follows events.
    ///
    /// # Errors
    /// `Invalid` for an unknown filter.
    pub fn subscribe_events(&self, options: EventOptions) -> Result<EventStream> {
        self.inner.events.subscribe(options)
    }

    /// The engine and its host.
    ///
    /// # Errors
    /// `Internal` where the store is damaged.
    pub async fn info(&self) -> Result<SystemInfo> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.info()).await
    }

    /// The engine's version.
    pub fn version(&self) -> VersionInfo {
        VersionInfo {
            version: self.inner.options.version.clone(),
            git_commit: self.inner.options.commit.clone(),
            kernel_version: self.inner.facts.kernel_release.clone(),
            os: "linux".to_owned(),
            arch: go_architecture().to_owned(),
        }
    }

    /// What takes how much room. `types` are `container`, `image`, `volume`, `build-cache`; empty means all.
    ///
    /// # Errors
    /// `Internal` where the store is damaged.
    pub async fn disk_usage(&self, types: &[String]) -> Result<DiskUsage> {
        let wanted = |kind: &str| types.is_empty() || types.iter().any(|wanted| wanted == kind);
        let mut usage = DiskUsage::default();
        if wanted("container") {
            let options = ListOptions { all: true, size: true, ..ListOptions::default() };
            usage.containers = Some(self.list_containers(options).await?);
        }
        let (images, volumes) = (wanted("image"), wanted("volume"));
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            if images {
                let all = inner.store.images().map_err(crate::image::store_error)?;
                usage.layers_size = inner.layers_size(&all);
                usage.images = Some(inner.counted_images(&all));
            }
            if volumes {
                usage.volumes = Some(inner.volume_usage());
            }
            Ok(usage)
        })
        .await
    }
}

impl Inner {
    fn info(&self) -> Result<SystemInfo> {
        let states: Vec<Status> =
            self.registry.all().iter().map(|container| container.record().state.status).collect();
        let count = |wanted: &[Status]| states.iter().filter(|status| wanted.contains(status)).count();
        let running = count(&[Status::Running, Status::Restarting]);
        let paused = count(&[Status::Paused]);
        let hierarchies = self.cgroups.hierarchies();
        let controllers = hierarchies.controllers();
        let has = |controller| controllers.contains(&controller);
        let release = os_release();
        let os = |key: &str| release.get(key).cloned().unwrap_or_default();
        let facilities = self.facilities();
        let memory = has(Controller::Memory);
        let mut info = SystemInfo {
            id: self.identity.id.clone(),
            containers: states.len(),
            containers_running: running,
            containers_paused: paused,
            containers_stopped: states.len() - running - paused,
            images: self.store.images().map_err(crate::image::store_error)?.len(),
            driver: STORAGE_DRIVER.to_owned(),
            driver_status: self.driver_status(),
            docker_root_dir: self.store.data_root().to_string_lossy().into_owned(),
            memory_limit: memory,
            swap_limit: memory && swap_limit(hierarchies),
            cpu_cfs_period: has(Controller::Cpu),
            cpu_cfs_quota: has(Controller::Cpu),
            cpu_shares: has(Controller::Cpu),
            cpu_set: has(Controller::CpuSet),
            pids_limit: has(Controller::Pids),
            oom_kill_disable: memory && hierarchies.mode() != Mode::V2,
            ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
            logging_driver: self.options.log_driver.clone(),
            cgroup_driver: if controllers.is_empty() { "none" } else { "cgroupfs" }.to_owned(),
            cgroup_version: match hierarchies.mode() {
                Mode::V2 => "2",
                Mode::None => "",
                _ => "1",
            }
            .to_owned(),
            n_events_listener: self.events.subscribers(),
            kernel_version: self.facts.kernel_release.clone(),
            operating_system: os("PRETTY_NAME"),
            os_version: os("VERSION_ID"),
            os_type: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            ncpu: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            mem_total: memory_total(),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            labels: self.options.labels.clone(),
            server_version: self.options.version.clone(),
            security_options: self.security_options(),
            warnings: Vec::new(),
            tier: facilities
                .and_then(|facilities| facilities.tier())
                .map(|tier| tier.to_string())
                .unwrap_or_default(),
            facilities: facilities
                .map(|facilities| {
                    facilities.render().into_iter().map(|(name, value)| [name, value]).collect()
                })
                .unwrap_or_default(),
        };
        info.warnings = warnings(&info);
        info.warnings.extend(self.default_profile.warning());
        Ok(info)
    }

    fn driver_status(&self) -> Vec<[String; 2]> {
        let backing = self.store.backing();
        [
            ("Backing Filesystem", backing.name.clone()),
            ("Supports d_type", "true".to_owned()),
            (
                "Upper directory",
                if backing.overlay_upper { "overlay" } else { "refused by the kernel" }.to_owned(),
            ),
        ]
        .map(|(name, value)| [name.to_owned(), value])
        .into()
    }

    fn security_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.default_profile.is_enabled() {
            options.push("name=apparmor".to_owned());
        }
        options.push("name=seccomp,profile=builtin".to_owned());
        options.push("name=cgroupns".to_owned());
        if self.options.privileged == PrivilegedMode::Confined {
            options.push("name=confined-privilege".to_owned());
        }
        // The one place in `docker info` where every version of the client prints a name as it is (older ones leave
        // out what stands beside it).
        if let Some(tier) = self.facilities().and_then(dory_probe::Facilities::tier) {
            options.push(format!("name=tier {tier}"));
        }
        options
    }

    /// Bytes of all layers, each counted once.
    fn layers_size(&self, images: &[dory_store::Image]) -> i64 {
        // The store tells sizes by image: those of images that share their layers are counted by their largest.
        let mut largest: BTreeMap<Vec<dory_types::Digest>, u64> = BTreeMap::new();
        for image in images {
            let layers = &image.config.rootfs.diff_ids;
            let covered = largest.keys().any(|known| known.starts_with(layers));
            if !covered {
                largest.retain(|known, _| !layers.starts_with(known));
                largest.insert(layers.clone(), image.size);
            }
        }
        i64::try_from(largest.values().sum::<u64>()).unwrap_or(i64::MAX)
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// os-release(5).
fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_else(|_| read("/usr/lib/os-release"));
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

/// Bytes of memory, as /proc/meminfo has it.
fn memory_total() -> u64 {
    let text = read("/proc/meminfo");
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// dockerd's warnings for what is missing.
fn warnings(info: &SystemInfo) -> Vec<String> {
    [
        (info.memory_limit, "WARNING: No memory limit support"),
        (info.swap_limit, "WARNING: No swap limit support"),
        (info.cpu_cfs_period, "WARNING: No cpu cfs period support"),
        (info.cpu_cfs_quota, "WARNING: No cpu cfs quota support"),
        (info.cpu_shares, "WARNING: No cpu shares support"),
        (info.cpu_set, "WARNING: No cpuset support"),
        (info.pids_limit, "WARNING: No pids limit support"),
        (info.ipv4_forwarding, "WARNING: IPv4 forwarding is disabled"),
    ]
    .into_iter()
    .filter(|(present, _)| !present)
    .map(|(_, warning)| warning.to_owned())
    .collect()
}
