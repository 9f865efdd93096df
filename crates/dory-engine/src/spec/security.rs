//! `--security-opt`: seccomp, AppArmor, no-new-privileges, and what of /proc and /sys is hidden.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use dory_seccomp::{Arch, CompileTarget, Filter, KernelVersion, Profile};

use crate::EngineError;
use crate::config::HostConfig;

/// Hidden from ordinary containers (moby `oci/defaults.go`).
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// The same, of newer kernels.
const MASKED_DEVICES: [&str; 1] = ["/sys/devices/virtual/powercap"];
/// Read-only for ordinary containers (moby `oci/defaults.go`).
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The default hidden paths.
pub(crate) fn masked_paths() -> Vec<String> {
    MASKED.iter().chain(&MASKED_DEVICES).map(|path| (*path).to_owned()).collect()
}

/// The default read-only paths.
pub(crate) fn readonly_paths() -> Vec<String> {
    READONLY.iter().map(|path| (*path).to_owned()).collect()
}

/// Which seccomp policy a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seccomp {
    /// Docker's default.
    Default,
    /// None.
    Unconfined,
    /// The operator's profile, as JSON.
    Profile(String),
}

/// `HostConfig.SecurityOpt`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub(crate) seccomp: Seccomp,
    /// Profile to enter; `None` means the engine's default.
    pub(crate) apparmor: Option<String>,
    pub(crate) no_new_privileges: bool,
    /// `systempaths=unconfined`: nothing of /proc and /sys is hidden.
    pub(crate) system_paths_unconfined: bool,
}

impl SecurityOptions {
    /// Reads the options, with dockerd's messages for wrong ones.
    pub(crate) fn parse(host: &HostConfig) -> Result<Self, EngineError> {
        let mut options = Self {
            seccomp: Seccomp::Default,
            apparmor: None,
            no_new_privileges: false,
            system_paths_unconfined: false,
        };
        for option in &host.security_opt {
            options.apply(option)?;
        }
        Ok(options)
    }

    fn apply(&mut self, option: &str) -> Result<(), EngineError> {
        let invalid =
            |number: u8| EngineError::invalid(format!("invalid --security-opt {number}: \"{option}\""));
        if option == "no-new-privileges" {
            self.no_new_privileges = true;
            return Ok(());
        }
        if option == "disable" {
            return Ok(());
        }
        // Before Docker 1.11 the separator was a colon; a profile's JSON may hold either, so that the first one counts.
        let (name, value) = option.split_once(['=', ':']).ok_or_else(|| invalid(1))?;
        match name {
            "label" => {}
            "apparmor" => self.apparmor = Some(value.to_owned()),
            "seccomp" if value == "unconfined" => self.seccomp = Seccomp::Unconfined,
            "seccomp" if matches!(value, "builtin" | "") => self.seccomp = Seccomp::Default,
            "seccomp" => {
                Profile::parse(value.as_bytes()).map_err(|error| {
                    EngineError::invalid(format!("Decoding seccomp profile failed: {error}")).caused_by(error)
                })?;
                self.seccomp = Seccomp::Profile(value.to_owned());
            }
            "no-new-privileges" => {
                self.no_new_privileges = value.parse().map_err(|_| invalid(2))?;
            }
            "systempaths" if value == "unconfined" => self.system_paths_unconfined = true,
            "writable-cgroups" => {
                return Err(EngineError::not_implemented(
                    "the security option writable-cgroups is not supported",
                ));
            }
            _ => return Err(invalid(2)),
        }
        Ok(())
    }

    /// Compiles the policy for a container with these capabilities; `None` where there is none to load.
    pub(crate) fn filter(
        &self,
        capabilities: &BTreeSet<String>,
        kernel: KernelVersion,
    ) -> Result<Option<Filter>, EngineError> {
        let profile = match &self.seccomp {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default => return default_filter(capabilities, kernel),
            Seccomp::Profile(text) => Profile::parse(text.as_bytes())
                .map_err(|error| EngineError::failed("Decoding seccomp profile failed", error))?,
        };
        compile(&profile, capabilities, kernel)
    }
}

/// The default policy for these capabilities. Most containers have the same ones as the one before, and compiling takes
/// longer than everything else in a spec.
fn default_filter(
    capabilities: &BTreeSet<String>,
    kernel: KernelVersion,
) -> Result<Option<Filter>, EngineError> {
    static LAST: Mutex<Option<(BTreeSet<String>, Filter)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, filter)) = &*last
        && known == capabilities
    {
        return Ok(Some(filter.clone()));
    }
    let filter = compile(&Profile::docker_default(), capabilities, kernel)?;
    *last = filter.clone().map(|filter| (capabilities.clone(), filter));
    Ok(filter)
}

/// Compiles `profile` for this machine.
fn compile(
    profile: &Profile,
    capabilities: &BTreeSet<String>,
    kernel: KernelVersion,
) -> Result<Option<Filter>, EngineError> {
    let Some(arch) = Arch::native() else { return Ok(None) };
    profile
        .compile(&CompileTarget { arch, capabilities, kernel })
        .map(Some)
        .map_err(|error| EngineError::failed("cannot compile the seccomp profile", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOptions, EngineError> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        SecurityOptions::parse(&HostConfig { security_opt: options.into(), ..HostConfig::default() })
    }

    #[test]
    fn reads_options_old_and_new() {
        let options =
            parse(&["seccomp:unconfined", "no-new-privileges:true", "apparmor=mine", "label=disable"])
                .unwrap();
        assert_eq!(options.seccomp, Seccomp::Unconfined);
        assert!(options.no_new_privileges);
        assert_eq!(options.apparmor.as_deref(), Some("mine"));
        assert!(parse(&["systempaths=unconfined"]).unwrap().system_paths_unconfined);
        let profile = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#;
        assert!(matches!(parse(&[profile]).unwrap().seccomp, Seccomp::Profile(_)));
    }

    #[test]
    fn refuses_unknown_ones() {
        assert_eq!(parse(&["foo=bar"]).unwrap_err().message(), "invalid --security-opt 2: \"foo=bar\"");
        assert!(parse(&["seccomp={"]).is_err());
        assert!(parse(&["no-new-privileges=maybe"]).is_err());
    }
}
