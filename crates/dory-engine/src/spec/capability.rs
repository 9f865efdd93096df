//! Capabilities as `--cap-add` and `--cap-drop` name them.

use std::collections::BTreeSet;

use dory_runtime::capability;

use crate::EngineError;
use crate::config::HostConfig;

/// What an ordinary container keeps (moby `oci/caps/defaults.go`).
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// `names` in the kernel's form; `ALL` stays `ALL`.
fn normalise(names: &[String], field: &str) -> Result<Vec<String>, EngineError> {
    let mut normalised = Vec::with_capacity(names.len());
    for name in names {
        let mut upper = name.to_uppercase();
        if upper != "ALL" && !upper.starts_with("CAP_") {
            upper.insert_str(0, "CAP_");
        }
        if upper != "ALL" && capability::number(&upper).is_none() {
            return Err(EngineError::invalid(format!("invalid {field}: unknown capability: \"{upper}\"")));
        }
        normalised.push(upper);
    }
    Ok(normalised)
}

/// Checks the names of `host`'s two lists.
pub(crate) fn validate(host: &HostConfig) -> Result<(), EngineError> {
    normalise(&host.cap_add, "CapAdd")?;
    normalise(&host.cap_drop, "CapDrop")?;
    Ok(())
}

/// The capabilities of a container's processes, among `available`: those of the engine's own bounding set, or all of
/// them in a new user namespace.
pub(crate) fn effective(
    host: &HostConfig,
    available: &BTreeSet<String>,
) -> Result<BTreeSet<String>, EngineError> {
    if host.privileged {
        return Ok(available.clone());
    }
    let added = normalise(&host.cap_add, "CapAdd")?;
    let dropped = normalise(&host.cap_drop, "CapDrop")?;
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let base: Vec<&str> = match (has(&added, "ALL"), has(&dropped, "ALL")) {
        (true, _) => available.iter().map(String::as_str).filter(|name| !has(&dropped, name)).collect(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT.into_iter().filter(|name| !has(&dropped, name)).collect(),
    };
    let wanted = base.into_iter().chain(added.iter().map(String::as_str)).filter(|name| *name != "ALL");
    Ok(wanted.filter(|name| available.contains(*name)).map(str::to_owned).collect())
}

/// The capabilities whose bits are set in `mask`, as `/proc/<pid>/status` prints it (`CapBnd`).
pub(crate) fn from_mask(mask: u64) -> BTreeSet<String> {
    capability::names()
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1)
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StrSlice;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let list = |names: &[&str]| StrSlice(Some(names.iter().map(|name| (*name).to_owned()).collect()));
        HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }
    }

    #[test]
    fn adds_and_drops_as_dockerd_does() {
        let all = from_mask(u64::MAX);
        assert_eq!(all.len(), 41);
        type Case<'a> = (&'a [&'a str], &'a [&'a str], usize, &'a str, bool);
        let cases: [Case<'_>; 6] = [
            (&[], &[], 14, "CAP_CHOWN", true),
            (&["sys_admin"], &["CAP_CHOWN"], 14, "CAP_SYS_ADMIN", true),
            (&["ALL"], &["NET_RAW"], 40, "CAP_NET_RAW", false),
            (&["NET_RAW"], &["all"], 1, "CAP_NET_RAW", true),
            (&[], &["ALL"], 0, "CAP_KILL", false),
            (&["NET_ADMIN"], &[], 15, "CAP_NET_ADMIN", true),
        ];
        for (add, drop, count, name, present) in cases {
            let result = effective(&host(add, drop), &all).unwrap();
            assert_eq!((result.len(), result.contains(name)), (count, present), "+{add:?} -{drop:?}");
        }
        let error = validate(&host(&["FOO"], &[])).unwrap_err();
        assert_eq!(error.message(), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }

    #[test]
    fn stays_within_what_the_engine_has() {
        let available = from_mask(0b11);
        assert_eq!(effective(&host(&[], &[]), &available).unwrap().len(), 2);
        assert_eq!(
            effective(&HostConfig { privileged: true, ..host(&[], &["ALL"]) }, &available).unwrap().len(),
            2
        );
    }
}
