//! `update`: limits and the restart policy.

use std::sync::Arc;

use dory_cgroup::{Controller, Hierarchies, Mode};

use super::validate::{self, Purpose};
use crate::config::{HostConfig, UpdateConfig};
use crate::engine::{Engine, Inner, blocking};
use crate::spec::resources;
use crate::{EngineError, Result};

impl Engine {
    /// Changes limits and the restart policy; zero values leave what they are for as it is. Answers warnings.
    ///
    /// # Errors
    /// `Invalid` for values that cannot be, `Conflict` for a container that is being removed, `Internal` where the
    /// kernel refuses a limit.
    pub async fn update_container(&self, reference: &str, update: UpdateConfig) -> Result<Vec<String>> {
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(&container));
        let warnings = blocking(move || {
            validate::restart_policy(&update.restart_policy, false)?;
            // Only what the update brings is checked by itself, as dockerd does.
            let mut changes = changes(&update);
            validate::realtime(&changes)?;
            let warnings = validate::resources(&mut changes, &inner, Purpose::Update)?;
            let record = target.record();
            let cannot = |error: EngineError| {
                let message = format!("Cannot update container {}: {}", target.id, error.message());
                EngineError::new(error.kind(), message).caused_by(error)
            };
            if target.live().removed || record.state.dead {
                return Err(cannot(EngineError::conflict(
                    "Container is marked for removal and cannot be \"update\".",
                )));
            }
            conflicts(&record.host_config, &changes).map_err(cannot)?;
            let host = merge(&record.host_config, &changes);
            if let Some(run) = record.present_run() {
                apply(&run.group, &record.host_config, &host, changes.pids_limit).map_err(cannot)?;
            }
            target.update(|record| record.host_config = Arc::new(host));
            target.save()?;
            Ok(warnings)
        })
        .await?;
        self.publish(&container, "update");
        Ok(warnings)
    }
}

/// The update as a configuration: zero and empty fields change nothing.
fn changes(update: &UpdateConfig) -> HostConfig {
    HostConfig {
        cpu_shares: update.cpu_shares,
        memory: update.memory,
        nano_cpus: update.nano_cpus,
        blkio_weight: update.blkio_weight,
        cpu_period: update.cpu_period,
        cpu_quota: update.cpu_quota,
        cpu_realtime_period: update.cpu_realtime_period,
        cpu_realtime_runtime: update.cpu_realtime_runtime,
        cpuset_cpus: update.cpuset_cpus.clone(),
        cpuset_mems: update.cpuset_mems.clone(),
        memory_reservation: update.memory_reservation,
        memory_swap: update.memory_swap,
        // Every way to say "unlimited" is kept as zero.
        pids_limit: update.pids_limit.map(|limit| limit.max(0)),
        restart_policy: update.restart_policy.clone(),
        ..HostConfig::default()
    }
}

/// What an update cannot bring to a container that has something else already (moby `Container.UpdateContainer`).
fn conflicts(old: &HostConfig, changes: &HostConfig) -> Result<()> {
    let already = |changed: &str, set: &str| {
        format!("Conflicting options: {changed} cannot be updated as {set} has already been set")
    };
    let refusal = if changes.nano_cpus > 0 && old.cpu_period > 0 {
        already("Nano CPUs", "CPU Period")
    } else if changes.nano_cpus > 0 && old.cpu_quota > 0 {
        already("Nano CPUs", "CPU Quota")
    } else if changes.cpu_period > 0 && old.nano_cpus > 0 {
        already("CPU Period", "NanoCPUs")
    } else if changes.cpu_quota > 0 && old.nano_cpus > 0 {
        already("CPU Quota", "NanoCPUs")
    } else if changes.memory > old.memory_swap && old.memory_swap != -1 && changes.memory_swap == 0 {
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
            .to_owned()
    } else if old.auto_remove && !matches!(changes.restart_policy.name.as_str(), "" | "no") {
        "Restart policy cannot be updated because AutoRemove is enabled for the container".to_owned()
    } else {
        return Ok(());
    };
    Err(EngineError::conflict(refusal))
}

/// The configuration after the update.
fn merge(old: &HostConfig, changes: &HostConfig) -> HostConfig {
    let mut host = old.clone();
    let set = |own: &mut i64, new: i64| {
        if new != 0 {
            *own = new;
        }
    };
    set(&mut host.cpu_shares, changes.cpu_shares);
    set(&mut host.memory, changes.memory);
    set(&mut host.nano_cpus, changes.nano_cpus);
    set(&mut host.cpu_period, changes.cpu_period);
    set(&mut host.cpu_quota, changes.cpu_quota);
    set(&mut host.memory_reservation, changes.memory_reservation);
    set(&mut host.memory_swap, changes.memory_swap);
    if changes.blkio_weight != 0 {
        host.blkio_weight = changes.blkio_weight;
    }
    for (own, new) in
        [(&mut host.cpuset_cpus, &changes.cpuset_cpus), (&mut host.cpuset_mems, &changes.cpuset_mems)]
    {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    if changes.pids_limit.is_some() {
        host.pids_limit = changes.pids_limit;
    }
    if !changes.restart_policy.name.is_empty() {
        host.restart_policy = changes.restart_policy.clone();
    }
    host
}

/// Puts the changed limits into force; the first refusal is the error. `pids_limit` is the update's own.
fn apply(
    group: &dory_cgroup::Group,
    old: &HostConfig,
    new: &HostConfig,
    pids_limit: Option<i64>,
) -> Result<()> {
    let mut wanted = resources::resources(new)?;
    if resources::resources(old)? == wanted {
        return Ok(());
    }
    if group.is_none() {
        return Err(EngineError::internal(
            "the container has no control group whose limits could be changed",
        ));
    }
    if pids_limit == Some(0) {
        // To lift a limit is more than to ask for none.
        wanted.pids_limit = Some(-1);
    }
    match group.update(&wanted).into_iter().find(|refusal| refusal.requested) {
        Some(refusal) => {
            Err(EngineError::internal(format!("cannot enforce the limit that was asked for: {refusal}")))
        }
        None => Ok(()),
    }
}

impl Inner {
    /// Takes back the limits that no hierarchy here offers and that dockerd drops with a warning; what is kept and
    /// refused later fails the start.
    pub(crate) fn drop_unsupported_limits(&self, host: &mut HostConfig, warnings: &mut Vec<String>) {
        let hierarchies = self.cgroups.hierarchies();
        let v2 = hierarchies.mode() == Mode::V2;
        if v2 && host.memory_swappiness.is_some_and(|swappiness| swappiness != -1) {
            host.memory_swappiness = None;
            warnings.push(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
                 swappiness discarded."
                    .to_owned(),
            );
        }
        if v2 && host.oom_kill_disable == Some(true) {
            host.oom_kill_disable = None;
            warnings
                .push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned());
        }
        let weights = has_file(hierarchies, Controller::BlkIo, &["blkio.weight", "blkio.bfq.weight"]);
        if host.blkio_weight != 0 && !v2 && !weights {
            host.blkio_weight = 0;
            warnings.push(
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                    .to_owned(),
            );
        }
        let weights =
            has_file(hierarchies, Controller::BlkIo, &["blkio.weight_device", "blkio.bfq.weight_device"]);
        if !host.blkio_weight_device.is_empty() && !v2 && !weights {
            host.blkio_weight_device = Vec::new().into();
            warnings.push(
                "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device \
                 discarded."
                    .to_owned(),
            );
        }
        // Linux 5.4 deprecated both, and no runtime sets them any more.
        for (limit, what) in
            [(&mut host.kernel_memory, "memory limit"), (&mut host.kernel_memory_tcp, "memory TCP limit")]
        {
            if *limit > 0 {
                *limit = 0;
                warnings.push(format!(
                    "Your kernel does not support kernel {what} capabilities or the cgroup is not mounted. Limitation \
                     discarded."
                ));
            }
        }
        let swap = !hierarchies.controllers().contains(&Controller::Memory)
            || crate::system::swap_limit(hierarchies);
        if host.memory > 0 && host.memory_swap != -1 && !swap {
            host.memory_swap = -1;
            warnings.push(
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited \
                 without swap."
                    .to_owned(),
            );
        }
    }
}

/// True where the v1 hierarchy of `controller` offers one of `files`.
fn has_file(hierarchies: &Hierarchies, controller: Controller, files: &[&str]) -> bool {
    let mut points = hierarchies.mount_points().filter(|(_, controllers)| controllers.contains(&controller));
    points.any(|(point, _)| files.iter().any(|file| point.join(file).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RestartPolicy;

    #[test]
    fn zero_leaves_a_limit_alone() {
        let old = HostConfig { memory: 100 << 20, cpu_shares: 5, ..HostConfig::default() };
        let update = UpdateConfig {
            cpu_shares: 7,
            pids_limit: Some(-1),
            restart_policy: RestartPolicy { name: "always".into(), ..RestartPolicy::default() },
            ..UpdateConfig::default()
        };
        let new = merge(&old, &changes(&update));
        assert_eq!((new.memory, new.cpu_shares, new.restart_policy.name.as_str()), (100 << 20, 7, "always"));
        assert_eq!(new.pids_limit, Some(0));
        assert_eq!(merge(&old, &changes(&UpdateConfig::default())), old);
    }

    #[test]
    fn refuses_what_the_container_has_otherwise() {
        let old = HostConfig { nano_cpus: 1, auto_remove: true, memory_swap: 100, ..HostConfig::default() };
        let refused =
            |changes: HostConfig| conflicts(&old, &changes).map_err(|error| error.message().to_owned());
        assert_eq!(refused(HostConfig::default()), Ok(()));
        assert_eq!(refused(HostConfig { memory: 100, ..HostConfig::default() }), Ok(()));
        let policy = RestartPolicy { name: "always".into(), ..RestartPolicy::default() };
        for (changes, beginning) in [
            (HostConfig { cpu_quota: 1, ..HostConfig::default() }, "Conflicting options: CPU Quota"),
            (HostConfig { memory: 101, ..HostConfig::default() }, "Memory limit should be smaller"),
            (HostConfig { restart_policy: policy, ..HostConfig::default() }, "Restart policy cannot"),
        ] {
            assert!(refused(changes).unwrap_err().starts_with(beginning), "{beginning}");
        }
    }
}
