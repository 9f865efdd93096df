//! `update`: limits and the restart policy.

use std::sync::Arc;

use dory_cgroup::{Controller, Hierarchies, Mode};

use super::validate;
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
        if container.live().removed || container.record().state.dead {
            return Err(EngineError::conflict(format!(
                "Cannot update container {}: Container is marked for removal and cannot be \"update\".",
                container.id
            )));
        }
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(&container));
        let warnings = blocking(move || {
            let record = target.record();
            let mut host = merge(&record.host_config, &update);
            validate::restart_policy(&update.restart_policy, false)?;
            if host.auto_remove && !matches!(update.restart_policy.name.as_str(), "" | "no") {
                return Err(EngineError::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            let warnings = validate::resources(&mut host, &inner)?;
            if let Some(run) = record.present_run() {
                apply(&run.group, &record.host_config, &host)?;
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

/// The configuration after the update.
fn merge(old: &HostConfig, update: &UpdateConfig) -> HostConfig {
    let mut host = old.clone();
    let set = |own: &mut i64, new: i64| {
        if new != 0 {
            *own = new;
        }
    };
    set(&mut host.cpu_shares, update.cpu_shares);
    set(&mut host.memory, update.memory);
    set(&mut host.nano_cpus, update.nano_cpus);
    set(&mut host.cpu_period, update.cpu_period);
    set(&mut host.cpu_quota, update.cpu_quota);
    set(&mut host.memory_reservation, update.memory_reservation);
    set(&mut host.memory_swap, update.memory_swap);
    if update.blkio_weight != 0 {
        host.blkio_weight = update.blkio_weight;
    }
    for (own, new) in
        [(&mut host.cpuset_cpus, &update.cpuset_cpus), (&mut host.cpuset_mems, &update.cpuset_mems)]
    {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    if update.pids_limit.is_some() {
        host.pids_limit = update.pids_limit;
    }
    if !update.restart_policy.name.is_empty() {
        host.restart_policy = update.restart_policy.clone();
    }
    host
}

/// Puts the changed limits into force; the first refusal is the error.
fn apply(group: &dory_cgroup::Group, old: &HostConfig, new: &HostConfig) -> Result<()> {
    let wanted = resources::resources(new)?;
    if resources::resources(old)? == wanted {
        return Ok(());
    }
    if group.is_none() {
        return Err(EngineError::internal(
            "the container has no control group whose limits could be changed",
        ));
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
            restart_policy: RestartPolicy { name: "always".into(), ..RestartPolicy::default() },
            ..UpdateConfig::default()
        };
        let new = merge(&old, &update);
        assert_eq!((new.memory, new.cpu_shares, new.restart_policy.name.as_str()), (100 << 20, 7, "always"));
        assert_eq!(merge(&old, &UpdateConfig::default()), old);
    }
}
