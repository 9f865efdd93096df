//! The container's process and those of exec.

use std::collections::BTreeSet;

use dory_runtime::spec::{Process, Rlimit};
use dory_types::ULIMIT_NAMES;

use super::security::SecurityOptions;
use super::{SpecInput, capability};
use crate::EngineError;
use crate::apparmor::DefaultProfile;
use crate::config::{ContainerConfig, ExecConfig, HostConfig, Ulimit};

/// What a process finds where neither the image nor the client says otherwise.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of a process: Docker's own variables, those of linked containers, then the configuration's, where `NAME` alone removes one.
pub(crate) fn environment(
    config: &ContainerConfig,
    hostname: &str,
    tty: bool,
    linked: &[String],
    extra: &[String],
) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in linked.iter().chain(config.env.iter()).chain(extra) {
        let name = entry.split('=').next().unwrap_or_default();
        let place = env.iter().position(|known| known.split('=').next() == Some(name));
        match (place, entry.contains('=')) {
            (Some(place), true) => entry.clone_into(&mut env[place]),
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

/// The container's own process.
pub(super) fn container(input: &SpecInput<'_>, security: &SecurityOptions) -> Result<Process, EngineError> {
    let (config, host) = (input.config, input.host_config);
    let capabilities = capabilities(input, host)?;
    let args = std::iter::once(input.path.to_owned()).chain(input.args.iter().cloned()).collect();
    Ok(Process {
        args,
        env: environment(config, input.hostname, config.tty, input.linked_env, &[]),
        cwd: working_directory(&config.working_dir),
        user: config.user.clone(),
        additional_groups: host.group_add.to_vec(),
        seccomp: match host.privileged {
            true => None,
            false => security.filter(&capabilities, input.facts.kernel)?,
        },
        capabilities: capabilities.into_iter().collect(),
        no_new_privileges: security.no_new_privileges,
        rlimits: with_descriptors(rlimits(&host.ulimits)?, input.facts.descriptor_limit),
        apparmor: apparmor(security, host, input.default_profile),
        oom_score_adj: oom_score(host.oom_score_adj, input.facts.oom_score_adj),
    })
}

/// A process of `docker exec`.
pub(crate) fn exec(input: &SpecInput<'_>, exec: &ExecConfig) -> Result<Process, EngineError> {
    let config = input.config;
    let security = SecurityOptions::parse(input.host_config)?;
    let privileged = HostConfig { privileged: true, ..HostConfig::default() };
    let capabilities = capabilities(input, if exec.privileged { &privileged } else { input.host_config })?;
    let unconfined = exec.privileged || input.host_config.privileged;
    Ok(Process {
        args: exec.cmd.to_vec(),
        env: environment(config, input.hostname, exec.tty, input.linked_env, &exec.env),
        cwd: working_directory(if exec.working_dir.is_empty() {
            &config.working_dir
        } else {
            &exec.working_dir
        }),
        user: if exec.user.is_empty() { config.user.clone() } else { exec.user.clone() },
        additional_groups: input.host_config.group_add.to_vec(),
        seccomp: match unconfined {
            true => None,
            false => security.filter(&capabilities, input.facts.kernel)?,
        },
        capabilities: capabilities.into_iter().collect(),
        no_new_privileges: security.no_new_privileges,
        rlimits: with_descriptors(rlimits(&input.host_config.ulimits)?, input.facts.descriptor_limit),
        apparmor: if exec.privileged {
            None
        } else {
            apparmor(&security, input.host_config, input.default_profile)
        },
        oom_score_adj: oom_score(input.host_config.oom_score_adj, input.facts.oom_score_adj),
    })
}

/// In a user namespace of its own a container may have everything: it means nothing outside.
fn capabilities(input: &SpecInput<'_>, host: &HostConfig) -> Result<BTreeSet<String>, EngineError> {
    let available =
        if input.user_namespace.is_new() { &input.facts.all_capabilities } else { &input.facts.capabilities };
    capability::effective(host, available)
}

fn working_directory(directory: &str) -> String {
    if directory.is_empty() { "/".to_owned() } else { crate::mount::clean(directory) }
}

fn apparmor(security: &SecurityOptions, host: &HostConfig, default: &DefaultProfile) -> Option<String> {
    match security.apparmor.as_deref() {
        Some("unconfined") => None,
        Some("") | None if host.privileged => None,
        Some("") | None => default.name().map(str::to_owned),
        Some(profile) => Some(profile.to_owned()),
    }
}

/// A container does not inherit the protection that an engine may have; lowering below one's own takes privilege.
fn oom_score(wanted: i32, own: i32) -> Option<i32> {
    (wanted != 0 || own < 0).then_some(wanted)
}

/// `HostConfig.Ulimits` for the runtime; -1 is unlimited.
pub(crate) fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<Rlimit>, EngineError> {
    ulimits
        .iter()
        .map(|limit| {
            if !ULIMIT_NAMES.contains(&limit.name.as_str()) {
                return Err(EngineError::invalid(format!("invalid ulimit type: {}", limit.name)));
            }
            let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            let (soft, hard) = (number(limit.soft), number(limit.hard));
            if soft > hard {
                return Err(EngineError::invalid(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    limit.soft, limit.hard
                )));
            }
            Ok(Rlimit { name: limit.name.clone(), soft, hard })
        })
        .collect()
}

/// Adds the limit on descriptors that the engine had before it raised its own: programs that walk through all numbers
/// up to the soft limit, or use select(2), would suffer from a high one.
fn with_descriptors(mut limits: Vec<Rlimit>, default: Option<(u64, u64)>) -> Vec<Rlimit> {
    const NAME: &str = "nofile";
    if let Some((soft, hard)) = default
        && !limits.iter().any(|limit| limit.name == NAME)
    {
        limits.push(Rlimit { name: NAME.to_owned(), soft, hard });
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_environments() {
        let env: Vec<String> = ["A=1", "PATH=/bin", "HOSTNAME"].map(str::to_owned).into();
        let config = ContainerConfig { env: env.into(), ..ContainerConfig::default() };
        let merged = environment(&config, "box", true, &[], &["A=2".to_owned(), "B=3".to_owned()]);
        assert_eq!(merged, ["PATH=/bin", "TERM=xterm", "A=2", "B=3"]);
    }

    #[test]
    fn checks_limits() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let limits = rlimits(&[limit("nofile", 10, -1)]).unwrap();
        assert_eq!((limits[0].soft, limits[0].hard), (10, u64::MAX));
        assert_eq!(with_descriptors(limits.clone(), Some((1, 2))), limits);
        assert_eq!(with_descriptors(Vec::new(), Some((1, 2)))[0].hard, 2);
        assert!(rlimits(&[limit("foo", 1, 1)]).is_err());
        assert!(rlimits(&[limit("core", -1, 1)]).is_err());
    }

    #[test]
    fn never_lends_the_engines_protection() {
        assert_eq!(oom_score(0, 0), None);
        assert_eq!(oom_score(0, -500), Some(0));
        assert_eq!(oom_score(300, 0), Some(300));
    }
}
