//! What an environment lacks, and the smallest thing that its operator could grant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Feature};
use crate::environment::{ContainerHint, Environment, NET_ADMIN, SYS_ADMIN};
use crate::facilities::Facilities;
use crate::tier::{NETWORK, ROOTFS, Tier};

/// Why the engine cannot run containers with the kernel's isolation here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What the surroundings do allow.
    pub tier: Option<Tier>,
    /// What was refused, one line each.
    pub lacking: Vec<String>,
    /// Ways out, any one of which is enough.
    pub grants: Vec<Grant>,
}

/// Something that the operator of the surroundings could change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Where: `docker run`, `podman run`, `kubernetes pod`, `host`.
    pub place: String,
    /// What: options, fields or a command.
    pub change: String,
}

impl Facilities {
    /// What stands between these surroundings and the kernel tier; `None` in that tier.
    pub fn missing(&self) -> Option<Missing> {
        let tier = self.tier();
        if tier == Some(Tier::Kernel) {
            return None;
        }
        Some(Missing { tier, lacking: self.lacking(), grants: self.grants() })
    }

    fn lacking(&self) -> Vec<String> {
        let roots = [Feature::PivotRoot, Feature::MoveRoot];
        let root_is_lacking = !roots.into_iter().any(|feature| self.direct(feature).works());
        let needed = ROOTFS.into_iter().chain(NETWORK).chain(roots.into_iter().filter(|_| root_is_lacking));
        let state = |feature: Feature| match self.direct(feature) {
            Attempt::Works => None,
            // What builds on something refused needs no line of its own.
            Attempt::Untried => None,
            attempt => Some(format!("{}: {attempt}", feature.label())),
        };
        needed.filter_map(state).collect()
    }

    fn grants(&self) -> Vec<Grant> {
        let environment = &self.environment;
        let grant = |place: &str, change: String| Grant { place: place.to_owned(), change };
        match environment.container {
            ContainerHint::Kubernetes => vec![grant("kubernetes pod", pod_fields(environment))],
            ContainerHint::Podman => vec![grant("podman run", self.run_options())],
            ContainerHint::Docker => vec![grant("docker run", self.run_options())],
            // A container that leaves no mark looks like root without the capabilities of root.
            ContainerHint::None if environment.user == 0 && !environment.has_capability(SYS_ADMIN) => {
                vec![
                    grant("docker run", self.run_options()),
                    grant("kubernetes pod", pod_fields(environment)),
                ]
            }
            ContainerHint::None => {
                host_changes(environment).into_iter().map(|change| grant("host", change)).collect()
            }
        }
    }

    /// Options for `docker run` and `podman run`.
    fn run_options(&self) -> String {
        let environment = &self.environment;
        let refused = |feature: Feature| matches!(self.direct(feature), Attempt::Refused(_) | Attempt::Lost);
        let has_admin = environment.has_capability(SYS_ADMIN);
        let volume;
        let mut options = Vec::new();
        if environment.user != 0 {
            options.push("--user 0");
        }
        if !has_admin {
            options.push("--cap-add SYS_ADMIN");
        }
        if !environment.has_capability(NET_ADMIN) {
            options.push("--cap-add NET_ADMIN");
        }
        if environment.is_confined_by_apparmor() {
            options.push("--security-opt apparmor=unconfined");
        }
        if environment.selinux_enforcing {
            options.push("--security-opt label=disable");
        }
        // The default profiles open with SYS_ADMIN; where it is there and nothing else explains it, the filter does.
        let unexplained =
            has_admin && !environment.is_confined_by_apparmor() && !environment.selinux_enforcing;
        if environment.seccomp_filtered && unexplained && ROOTFS.into_iter().any(refused) {
            options.push("--security-opt seccomp=unconfined");
        }
        if environment.data_root_filesystem == "overlay" {
            volume = format!("-v {}", environment.data_root.display());
            options.push(&volume);
        }
        options.join(" ")
    }
}

fn pod_fields(environment: &Environment) -> String {
    let mut fields =
        "hostUsers: false and securityContext: {capabilities: {add: [SYS_ADMIN, NET_ADMIN]}".to_owned();
    if environment.user != 0 {
        fields.push_str(", runAsUser: 0");
    }
    if environment.no_new_privileges {
        fields.push_str(", allowPrivilegeEscalation: true");
    }
    if environment.is_confined_by_apparmor() {
        fields.push_str(", appArmorProfile: {type: Unconfined}");
    }
    fields.push('}');
    fields
}

/// Commands and changes on a machine without a container around the engine.
fn host_changes(environment: &Environment) -> Vec<String> {
    let mut changes = Vec::new();
    if environment.user != 0 {
        changes.push("run the engine as root".to_owned());
    }
    if environment.max_user_namespaces == Some(0) {
        changes.push("sysctl -w user.max_user_namespaces=15000".to_owned());
    }
    if environment.unprivileged_user_namespaces == Some(false) {
        changes.push("sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
    }
    if environment.apparmor_restricts_user_namespaces {
        changes.push(
            "an AppArmor profile with `userns,` for the engine, or sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0"
                .to_owned(),
        );
    }
    changes
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tier {
            Some(tier) => write!(formatter, "these surroundings allow the tier `{tier}` only")?,
            None => formatter.write_str("these surroundings allow no containers")?,
        }
        if !self.lacking.is_empty() {
            write!(formatter, " ({})", self.lacking.join("; "))?;
        }
        for grant in &self.grants {
            write!(formatter, "\nhint: {}: {}", grant.place, grant.change)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facilities::UserNamespace;
    use crate::id_map::IdMap;
    use crate::trial::Outcomes;

    const EPERM: Attempt = Attempt::Refused(1);

    fn environment(container: ContainerHint) -> Environment {
        Environment {
            kernel: "6.18.0".to_owned(),
            user: 0,
            mapped_users: 1 << 32,
            initial_user_namespace: true,
            effective_capabilities: 0xa804_25fb,
            no_new_privileges: false,
            seccomp_filtered: true,
            apparmor_profile: Some("docker-default (enforce)".to_owned()),
            apparmor_restricts_user_namespaces: false,
            selinux_enforcing: false,
            yama_ptrace_scope: Some(1),
            max_user_namespaces: Some(1000),
            unprivileged_user_namespaces: None,
            subordinate_users: None,
            newuidmap: None,
            landlock: Some(7),
            container,
            cgroups: dory_cgroup::Mode::None,
            data_root: "/var/lib/dory".into(),
            data_root_filesystem: "overlay".to_owned(),
        }
    }

    fn facilities(environment: Environment, direct: &[(Feature, Attempt)]) -> Facilities {
        Facilities {
            environment,
            direct: direct.iter().copied().collect(),
            user_namespace: UserNamespace::default(),
            tried_data_root: true,
            microseconds: 0,
        }
    }

    fn all(attempt: Attempt) -> Vec<(Feature, Attempt)> {
        Feature::ALL.iter().map(|&feature| (feature, attempt)).collect()
    }

    #[test]
    fn plain_docker_container_is_told_the_options() {
        let mut outcomes = all(EPERM);
        for feature in [Feature::Chroot, Feature::SetUser, Feature::Chown, Feature::SeccompNotify] {
            outcomes.push((feature, Attempt::Works));
        }
        let missing = facilities(environment(ContainerHint::Docker), &outcomes).missing().unwrap();
        assert_eq!(missing.tier, Some(Tier::Chroot));
        assert!(missing.lacking.iter().any(|line| line.starts_with("mount namespace: no: ")), "{missing}");
        assert_eq!(
            missing.grants,
            [Grant {
                place: "docker run".to_owned(),
                change: "--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt apparmor=unconfined -v /var/lib/dory"
                    .to_owned(),
            }]
        );
    }

    #[test]
    fn restricted_pod_is_told_the_fields() {
        let restricted = Environment {
            user: 1000,
            effective_capabilities: 0,
            no_new_privileges: true,
            apparmor_profile: None,
            ..environment(ContainerHint::Kubernetes)
        };
        let mut outcomes = all(EPERM);
        outcomes.extend([(Feature::SeccompNotify, Attempt::Works), (Feature::Ptrace, Attempt::Works)]);
        let missing = facilities(restricted, &outcomes).missing().unwrap();
        assert_eq!(missing.tier, Some(Tier::Supervised));
        assert_eq!(
            missing.grants[0].change,
            "hostUsers: false and securityContext: {capabilities: {add: [SYS_ADMIN, NET_ADMIN]}, runAsUser: 0, \
             allowPrivilegeEscalation: true}"
        );
    }

    #[test]
    fn tiers_follow_from_facilities() {
        let works: Outcomes = all(Attempt::Works).into_iter().collect();
        let inner = UserNamespace { new: Attempt::Works, map: Some(IdMap::Single), outcomes: works };
        let host = || environment(ContainerHint::None);

        assert_eq!(facilities(host(), &all(Attempt::Works)).tier(), Some(Tier::Kernel));
        assert_eq!(facilities(host(), &all(Attempt::Works)).missing(), None);

        let mut no_network = all(Attempt::Works);
        no_network.extend(NETWORK.map(|feature| (feature, EPERM)));
        let mixed = Facilities { user_namespace: inner.clone(), ..facilities(host(), &no_network) };
        assert_eq!(mixed.tier(), Some(Tier::Mixed));

        let rootless = Facilities { user_namespace: inner, ..facilities(host(), &all(EPERM)) };
        assert_eq!(rootless.tier(), Some(Tier::Rootless));
        assert_eq!(facilities(host(), &all(EPERM)).tier(), None);

        let mut moved = all(Attempt::Works);
        moved.extend([(Feature::PivotRoot, EPERM), (Feature::FreshProc, EPERM)]);
        assert_eq!(facilities(host(), &moved).tier(), Some(Tier::Kernel));
        moved.push((Feature::MoveRoot, EPERM));
        assert_ne!(facilities(host(), &moved).tier(), Some(Tier::Kernel));
    }

    #[test]
    fn ordinary_user_on_ubuntu_is_told_the_profile() {
        let user = Environment {
            user: 1000,
            effective_capabilities: 0,
            seccomp_filtered: false,
            apparmor_profile: Some("unconfined".to_owned()),
            apparmor_restricts_user_namespaces: true,
            ..environment(ContainerHint::None)
        };
        let text = facilities(user, &all(EPERM)).missing().unwrap().to_string();
        assert!(text.contains("hint: host: run the engine as root"), "{text}");
        assert!(text.contains("AppArmor profile with `userns,`"), "{text}");
    }
}
