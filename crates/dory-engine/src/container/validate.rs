//! What dockerd refuses, or warns of, when a container is created (moby `daemon/container.go`,
//! `daemon/daemon_unix.go`).

use dory_types::Signal;

use crate::config::{ContainerConfig, HealthConfig, HostConfig, RestartPolicy};
use crate::engine::Inner;
use crate::spec::namespace::{Mode, Modes};
use crate::spec::security::SecurityOptions;
use crate::spec::{capability, device, port, process, tmpfs};
use crate::{EngineError, Result};

/// The least memory that a container can start with, in bytes.
const MEMORY_MIN: i64 = 6 << 20;

/// Refuses platforms other than this machine's.
pub(crate) fn platform(platform: &str) -> Result<()> {
    if platform.is_empty() {
        return Ok(());
    }
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
    let own = crate::system::go_architecture();
    if os != "linux" || architecture.is_some_and(|architecture| architecture != own) {
        return Err(EngineError::not_found(format!(
            "image with reference was found but does not match the specified platform: wanted {platform}, actual: \
             linux/{own}"
        )));
    }
    Ok(())
}

/// Checks everything that can be known before the image is; answers warnings, and takes back from `host` what the
/// kernel lacks and dockerd drops with a warning.
pub(crate) fn validate(
    config: &ContainerConfig,
    host: &mut HostConfig,
    engine: &Inner,
) -> Result<Vec<String>> {
    check(config, host)?;
    resources(host, engine, Purpose::Create)
}

/// Checks what depends on the request alone.
pub(crate) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let modes = Modes::parse(host)?;
    validate_config(config)?;
    restart_policy(&host.restart_policy, host.auto_remove)?;
    capability::validate(host)?;
    SecurityOptions::parse(host)?;
    process::rlimits(&host.ulimits)?;
    port::exposed(config, host)?;
    port::requests(&host.port_bindings)?;
    for rule in &host.device_cgroup_rules {
        device::parse_rule(rule)?;
    }
    for (path, options) in &host.tmpfs {
        if !path.starts_with('/') {
            return Err(EngineError::invalid(format!(
                "invalid mount path: '{path}' mount path must be absolute"
            )));
        }
        tmpfs::parse(options)?;
    }
    for entry in &host.extra_hosts {
        if !entry.contains([':', '=']) {
            return Err(EngineError::invalid(format!("bad format for add-host: \"{entry}\"")));
        }
    }
    sysctls(host, &modes)?;
    conflicts(config, host, &modes)?;
    foreign(config, host)
}

fn validate_config(config: &ContainerConfig) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for entry in &config.env {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(EngineError::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    if !config.stop_signal.is_empty() {
        config.stop_signal.parse::<Signal>()?;
    }
    config.healthcheck.as_ref().map_or(Ok(()), health)
}

/// moby `validateHealthCheck`: a millisecond at least, as its messages say.
fn health(health: &HealthConfig) -> Result<()> {
    const MILLISECOND: i64 = 1_000_000;
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < MILLISECOND {
            return Err(EngineError::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(EngineError::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// Checks a restart policy (also of an update).
pub(crate) fn restart_policy(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            let reason = if policy.maximum_retry_count < 0 { " and cannot be negative" } else { "" };
            return Err(EngineError::invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{reason}"
            )));
        }
        "" | "no" => return Ok(()),
        "on-failure" if policy.maximum_retry_count < 0 => {
            return Err(EngineError::invalid(
                "invalid restart policy: maximum retry count cannot be negative",
            ));
        }
        "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(EngineError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            )));
        }
    }
    if auto_remove {
        return Err(EngineError::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

/// Only parameters of namespaces that the container has for itself.
fn sysctls(host: &HostConfig, modes: &Modes) -> Result<()> {
    for name in host.sysctls.keys() {
        let ipc = matches!(
            name.as_str(),
            "kernel.msgmax"
                | "kernel.msgmnb"
                | "kernel.msgmni"
                | "kernel.sem"
                | "kernel.shmall"
                | "kernel.shmmax"
                | "kernel.shmmni"
                | "kernel.shm_rmid_forced"
        ) || name.starts_with("fs.mqueue.");
        let (namespaced, shared, mode) = if name.starts_with("net.") {
            (true, modes.network == Mode::Host, "network")
        } else if ipc {
            (true, modes.ipc == Mode::Host, "IPC")
        } else if name == "kernel.domainname" {
            (true, modes.uts == Mode::Host, "UTS")
        } else {
            (false, false, "")
        };
        if !namespaced {
            return Err(EngineError::invalid(format!(
                "invalid sysctl: \"{name}\" is not in a separate kernel namespace"
            )));
        }
        if shared {
            return Err(EngineError::invalid(format!(
                "sysctl '{name}' is not allowed in host {mode} namespace"
            )));
        }
    }
    Ok(())
}

/// Options that exclude one another, in the words of runconfig.
fn conflicts(config: &ContainerConfig, host: &HostConfig, modes: &Modes) -> Result<()> {
    let refuse = |text: &str| Err(EngineError::invalid(format!("conflicting options: {text}")));
    let joined = modes.network.container().is_some();
    if modes.network == Mode::Host && !host.links.is_empty() {
        return refuse(
            "host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    if joined && !config.hostname.is_empty() {
        return refuse("hostname and the network mode");
    }
    if modes.uts == Mode::Host && !config.hostname.is_empty() {
        return refuse("hostname and the UTS mode");
    }
    if joined && !host.links.is_empty() {
        return refuse(
            "container type network can't be used with links. This would result in undefined behavior",
        );
    }
    if joined && !host.dns.is_empty() {
        return refuse("dns and the network mode");
    }
    if joined && !host.extra_hosts.is_empty() {
        return refuse("custom host-to-IP mapping and the network mode");
    }
    if joined && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        return refuse("port publishing and the container type network mode");
    }
    if joined && !config.exposed_ports.is_empty() {
        return refuse("port exposing and the container type network mode");
    }
    if !host.device_requests.is_empty() {
        return Err(EngineError::not_implemented(
            "could not select device driver: device requests (--gpus) are not supported",
        ));
    }
    if !matches!(host.runtime.as_str(), "" | "dory" | "runc" | "io.containerd.runc.v2") {
        return Err(EngineError::invalid(format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(EngineError::invalid(format!(
            "invalid isolation: \"{}\" - linux only supports 'default'",
            host.isolation
        )));
    }
    if !host.storage_opt.is_empty() {
        return Err(EngineError::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    Ok(())
}

/// What belongs to Windows, to kernels that ours are not, or to drivers that are not there: refused by name, because a
/// limit that is silently not in force is worse than none.
pub(crate) fn foreign(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let windows = [
        ("CpuCount", host.cpu_count != 0),
        ("CpuPercent", host.cpu_percent != 0),
        ("IOMaximumIOps", host.io_maximum_iops != 0),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth != 0),
    ];
    if let Some((name, _)) = windows.iter().find(|(_, given)| *given) {
        return Err(EngineError::invalid(format!("invalid option: {name} is supported on Windows only")));
    }
    realtime(host)?;
    // The driver matters where a volume would be made with it.
    let volumes = config.volumes.iter().flatten().count() > 0
        || host.binds.iter().any(|bind| !bind.is_empty() && !bind.starts_with('/'));
    if volumes && !matches!(host.volume_driver.as_str(), "" | "local") {
        return Err(EngineError::not_found(format!(
            "error looking up volume plugin {0}: plugin \"{0}\" not found",
            host.volume_driver
        )));
    }
    if !host.cgroup.is_empty() {
        return Err(EngineError::invalid(format!("invalid cgroup mode: {}", host.cgroup)));
    }
    Ok(())
}

/// Refuses the real-time scheduler's limits by name.
pub(crate) fn realtime(host: &HostConfig) -> Result<()> {
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return Err(EngineError::invalid(
            "invalid option: CpuRealtimePeriod and CpuRealtimeRuntime are not supported: your kernel does not support \
             CPU real-time scheduler",
        ));
    }
    Ok(())
}

/// What limits are checked for: an update brings only what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new container.
    Create,
    /// One that is there.
    Update,
}

/// moby `verifyPlatformContainerResources`.
pub(crate) fn resources(host: &mut HostConfig, engine: &Inner, purpose: Purpose) -> Result<Vec<String>> {
    let invalid = |text: &str| Err(EngineError::invalid(text));
    let mut warnings = Vec::new();
    if host.memory != 0 && host.memory < MEMORY_MIN {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 && purpose == Purpose::Create {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return Err(EngineError::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if host.memory_reservation != 0 && host.memory_reservation < MEMORY_MIN {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.nano_cpus < 0 || host.nano_cpus > cpus() * 1_000_000_000 {
        let cpus = cpus();
        return Err(EngineError::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.blkio_weight != 0 && !(10..=1_000).contains(&host.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if !(-1_000..=1_000).contains(&host.oom_score_adj) {
        return Err(EngineError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    super::cpuset::check(host)?;
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .to_owned(),
        );
    }
    engine.drop_unsupported_limits(host, &mut warnings);
    Ok(warnings)
}

fn cpus() -> i64 {
    std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_restart_policies() {
        let policy = |name: &str, count| RestartPolicy { name: name.into(), maximum_retry_count: count };
        for name in ["", "no", "always", "unless-stopped", "on-failure"] {
            assert!(restart_policy(&policy(name, 0), false).is_ok(), "{name}");
        }
        assert!(restart_policy(&policy("on-failure", 3), false).is_ok());
        assert!(restart_policy(&policy("always", 3), false).is_err());
        assert!(
            restart_policy(&policy("sometimes", 0), false).unwrap_err().message().contains("'sometimes'")
        );
        assert_eq!(
            restart_policy(&policy("always", 0), true).unwrap_err().message(),
            "can't create 'AutoRemove' container with restart policy"
        );
    }

    #[test]
    fn refuses_what_excludes_itself() {
        let parse = |host: &str| -> HostConfig { crate::config::json::from_slice(host.as_bytes()).unwrap() };
        let cases = [
            (r#"{"NetworkMode":"container:x"}"#, "conflicting options: hostname and the network mode"),
            (r#"{"UTSMode":"host"}"#, "conflicting options: hostname and the UTS mode"),
        ];
        let config = ContainerConfig { hostname: "box".into(), ..ContainerConfig::default() };
        for (host, message) in cases {
            let host = parse(host);
            let modes = Modes::parse(&host).unwrap();
            assert_eq!(conflicts(&config, &host, &modes).unwrap_err().message(), message);
        }
        let host = parse(r#"{"NetworkMode":"host","Sysctls":{"net.core.somaxconn":"1"}}"#);
        assert!(sysctls(&host, &Modes::parse(&host).unwrap()).is_err());
        let host = parse(r#"{"Sysctls":{"vm.swappiness":"1"}}"#);
        assert!(sysctls(&host, &Modes::parse(&host).unwrap()).is_err());
    }

    #[test]
    fn refuses_foreign_platforms() {
        assert!(platform("").is_ok());
        assert!(platform(&format!("linux/{}", crate::system::go_architecture())).is_ok());
        assert!(platform("linux/s390x").is_err() && platform("windows").is_err());
    }
}
