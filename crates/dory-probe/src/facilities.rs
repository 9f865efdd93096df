//! The value that a probe ends in.

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Feature};
use crate::environment::Environment;
use crate::id_map::IdMap;
use crate::tier::Tier;
use crate::trial::Outcomes;

/// What the surroundings allow. Strategies are chosen from this, never from a tier's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facilities {
    /// Facts that were read.
    pub environment: Environment,
    /// What the engine can do as it is, or in namespaces owned by its own user namespace.
    pub(crate) direct: Outcomes,
    /// What it can do in a new user namespace.
    pub user_namespace: UserNamespace,
    /// Whether the attempts were made on the data-root's filesystem; false where nothing could be written there.
    pub tried_data_root: bool,
    /// How long probing took, in microseconds, without the start of the process.
    pub microseconds: u64,
}

/// What a new user namespace brings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Whether it can be made.
    pub new: Attempt,
    /// How its ids can be mapped; `None` where not even one can be, or nobody tried.
    pub map: Option<IdMap>,
    pub(crate) outcomes: Outcomes,
}

impl Facilities {
    /// What became of `feature`, without a new user namespace.
    pub fn direct(&self, feature: Feature) -> Attempt {
        self.direct.get(&feature).copied().unwrap_or_default()
    }

    /// What became of `feature` in a new user namespace. [`crate::quick`] leaves this out where it does not decide.
    pub fn in_user_namespace(&self, feature: Feature) -> Attempt {
        self.user_namespace.outcomes.get(&feature).copied().unwrap_or_default()
    }

    /// The best isolation that follows; `None` where not even a supervised process is possible.
    pub fn tier(&self) -> Option<Tier> {
        Tier::of(self)
    }

    /// Name and finding, line by line, as `dory info` shows them.
    pub fn render(&self) -> Vec<(String, String)> {
        let environment = &self.environment;
        let mut lines = vec![
            line("tier", self.tier().map_or("none".to_owned(), |tier| tier.to_string())),
            line("kernel", environment.kernel.clone()),
            line("user", format!("{} of {} mapped", environment.user, environment.mapped_users)),
            line("user namespace", self.render_user_namespace()),
            line("cgroups", format!("{:?}", environment.cgroups).to_lowercase()),
            line("data-root filesystem", environment.data_root_filesystem.clone()),
            line("seccomp of the surroundings", yes_no(environment.seccomp_filtered)),
            line("no_new_privs of the surroundings", yes_no(environment.no_new_privileges)),
            line(
                "landlock",
                environment.landlock.map_or("no".to_owned(), |version| format!("version {version}")),
            ),
            line("apparmor", environment.apparmor_profile.clone().unwrap_or_else(|| "no".to_owned())),
            line(
                "yama",
                environment
                    .yama_ptrace_scope
                    .map_or("no".to_owned(), |scope| format!("ptrace_scope {scope}")),
            ),
            line("newuidmap", environment.newuidmap.clone().unwrap_or_else(|| "no".to_owned())),
        ];
        lines.extend(Feature::ALL.iter().filter_map(|&feature| {
            let attempts = (self.direct(feature), self.in_user_namespace(feature));
            let text = match attempts {
                (Attempt::Untried, Attempt::Untried) => return None,
                (direct, Attempt::Untried) => direct.to_string(),
                (direct, inner) if direct == inner => direct.to_string(),
                (Attempt::Untried, inner) => format!("in a user namespace: {inner}"),
                (direct, inner) => format!("{direct}; in a user namespace: {inner}"),
            };
            Some(line(feature.label(), text))
        }));
        lines
    }

    fn render_user_namespace(&self) -> String {
        match (self.user_namespace.new, self.user_namespace.map) {
            (Attempt::Works, Some(IdMap::Direct(count))) => format!("yes, {count} ids"),
            (Attempt::Works, Some(IdMap::Helper(count))) => format!("yes, {count} ids by newuidmap"),
            (Attempt::Works, Some(IdMap::Single)) => "yes, own id only".to_owned(),
            (Attempt::Works, None) => "yes, but no id can be mapped".to_owned(),
            (attempt, _) => attempt.to_string(),
        }
    }
}

fn line(name: &str, finding: String) -> (String, String) {
    (name.to_owned(), finding)
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
