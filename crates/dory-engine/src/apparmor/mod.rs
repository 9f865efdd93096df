//! `docker-default`, the AppArmor profile of containers that ask for none.
//!
//! Without it an ordinary container would be confined less than Docker's. It is loaded when the first container needs
//! it, unless a dockerd has done so already: an engine that starts should not wait for a parser.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The profile's name, which is dockerd's.
const NAME: &str = "docker-default";
/// Its text (apparmor.d(5)).
const TEXT: &str = include_str!("docker-default.profile");
/// `Y` where the kernel has AppArmor and it is switched on.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// The loaded profiles, one a line: `docker-default (enforce)`.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// What confines the engine itself: `unconfined`, or `NAME (MODE)`.
const OWN_LABEL: &str = "/proc/self/attr/current";
/// Where apparmor_parser(8) is installed; the engine's PATH need not have them.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];

/// Why the profile is not there.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    /// No securityfs, as in containers, or no right to read it.
    #[error("cannot read `{PROFILES}`")]
    Profiles(#[source] io::Error),
    /// The package apparmor is not installed.
    #[error("`apparmor_parser` is not installed")]
    NoParser,
    /// The parser cannot be run.
    #[error("cannot run `{}`", .parser.display())]
    Run {
        /// The parser.
        parser: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The parser or the kernel did not take the profile.
    #[error("`{}` refuses the profile: {message}", .parser.display())]
    Refused {
        /// The parser.
        parser: PathBuf,
        /// What it printed.
        message: String,
    },
}

/// What became of looking for the profile or loading it.
type Outcome = Option<Result<(), String>>;

/// Whether containers can be confined by the default profile.
#[derive(Debug)]
pub(crate) struct DefaultProfile {
    enabled: bool,
    /// `None` until it has been found or loaded; the text says why that failed.
    outcome: Mutex<Outcome>,
}

impl DefaultProfile {
    /// Looks whether AppArmor is on and the profile there already.
    pub(crate) fn detect() -> Self {
        let enabled = fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'));
        let found = enabled && is_loaded().unwrap_or(false);
        Self { enabled, outcome: Mutex::new(found.then_some(Ok(()))) }
    }

    /// True where the kernel's AppArmor is on.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The name to enter; loads the profile where it is missing. `None` without AppArmor, and where it cannot be loaded:
    /// such containers run as confined as the engine itself. Blocks for as long as the parser takes.
    ///
    /// A profile that was there may be gone: a reload of AppArmor's service removes what it does not know. One that could
    /// not be loaded is not tried again.
    pub(crate) fn name(&self) -> Option<&'static str> {
        if !self.enabled {
            return None;
        }
        let mut outcome = self.outcome();
        if !matches!(*outcome, Some(Err(_))) {
            *outcome = Some(load().map_err(|error| {
                let reason = dory_types::with_causes(&error);
                tracing::warn!(reason, "Containers run without the AppArmor profile {NAME}");
                reason
            }));
        }
        outcome.as_ref()?.is_ok().then_some(NAME)
    }

    /// The name, where the profile was there when it was last looked for.
    pub(crate) fn present(&self) -> Option<&'static str> {
        self.outcome().as_ref()?.is_ok().then_some(NAME)
    }

    /// What `docker info` has to say, once it is known.
    pub(crate) fn warning(&self) -> Option<String> {
        let outcome = self.outcome();
        let reason = outcome.as_ref()?.as_ref().err()?;
        Some(format!("WARNING: Containers run without the AppArmor profile {NAME}: {reason}"))
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        // It is whole at every instant.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_loaded() -> io::Result<bool> {
    Ok(lists(&fs::read_to_string(PROFILES)?))
}

/// True where `profiles`, the kernel's list, has ours in whatever mode.
fn lists(profiles: &str) -> bool {
    profiles.lines().any(|line| line.strip_prefix(NAME).is_some_and(|rest| rest.starts_with(" (")))
}

/// The profile for an engine with the label `own`: one that has a profile itself, be it one that allows everything, is
/// not `unconfined` to AppArmor, and has to be named to be able to end its containers.
fn text(own: &str) -> String {
    let name = own.split(" (").next().unwrap_or_default().trim_end();
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    match TEXT.trim_end().strip_suffix('}') {
        Some(rules) if !name.is_empty() && name.chars().all(plain) && name != "unconfined" => {
            format!("{rules}  signal (receive) peer=\"{name}\",\n}}\n")
        }
        _ => TEXT.to_owned(),
    }
}

/// Loads the profile, unless somebody has meanwhile.
fn load() -> Result<(), LoadError> {
    if is_loaded().map_err(LoadError::Profiles)? {
        return Ok(());
    }
    let parser =
        PARSERS.iter().map(Path::new).find(|path| path.exists()).ok_or(LoadError::NoParser)?.to_owned();
    let failed = |source| LoadError::Run { parser: parser.clone(), source };
    let text = text(&fs::read_to_string(OWN_LABEL).unwrap_or_default());
    let mut child = Command::new(&parser)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A parser that does not read says why at its end.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(LoadError::Refused { parser, message });
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_profile_in_the_kernels_list() {
        assert!(lists("lsb_release (enforce)\ndocker-default (enforce)\n"));
        assert!(lists("docker-default (complain)\n"));
        assert!(!lists("docker-default-old (enforce)\n/docker-default (enforce)\n"));
        assert!(!lists(""));
    }

    #[test]
    fn says_why_containers_go_without() {
        let profile = DefaultProfile { enabled: true, outcome: Mutex::new(None) };
        assert_eq!(profile.warning(), None);
        *profile.outcome() = Some(Err(LoadError::NoParser.to_string()));
        assert_eq!((profile.name(), profile.present()), (None, None));
        assert!(profile.warning().unwrap().ends_with("`apparmor_parser` is not installed"));
    }

    #[test]
    fn needs_no_profile_without_apparmor() {
        let profile = DefaultProfile { enabled: false, outcome: Mutex::new(None) };
        assert_eq!((profile.name(), profile.present(), profile.warning()), (None, None, None));
        assert!(profile.outcome().is_none());
    }

    #[test]
    fn an_engine_with_a_profile_can_end_its_containers() {
        assert!(TEXT.contains(&format!("profile {NAME} ")));
        for own in ["unconfined\n", "unconfined", "", "a//&b (enforce)", "\"x\" (enforce)"] {
            assert_eq!(text(own), TEXT, "{own}");
        }
        for own in ["/usr/bin/dory (unconfined)\n", "/usr/bin/dory (enforce)", "/usr/bin/dory"] {
            assert!(text(own).ends_with("\n  signal (receive) peer=\"/usr/bin/dory\",\n}\n"), "{own}");
        }
    }
}
