//! Mapping ids of a new user namespace.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// How ids of a new user namespace could be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "by", content = "count")]
pub enum IdMap {
    /// The engine itself mapped this many user ids.
    Direct(u64),
    /// The programs newuidmap and newgidmap did, by /etc/subuid and /etc/subgid.
    Helper(u64),
    /// The engine's own user only.
    Single,
}

/// An extent of /proc/<pid>/uid_map: first id inside, first id outside, count.
pub(crate) type Extent = [u64; 3];

/// Reads the text of an id map (user_namespaces(7)).
pub(crate) fn parse(text: &str) -> Vec<Extent> {
    let extent = |line: &str| {
        let numbers: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        Extent::try_from(numbers).ok()
    };
    text.lines().filter_map(extent).collect()
}

/// The caller's own ids, each mapped to itself.
fn identity(file: &str) -> io::Result<(String, u64)> {
    let extents = parse(&fs::read_to_string(format!("/proc/self/{file}"))?);
    let text = extents.iter().map(|[inside, _, count]| format!("{inside} {inside} {count}\n")).collect();
    Ok((text, extents.iter().map(|[_, _, count]| count).sum()))
}

/// Maps as many ids as possible into the user namespace of `pid`, a child of the caller.
///
/// # Errors
/// Where not even the caller's own id can be mapped.
pub(crate) fn write_best(pid: Pid) -> io::Result<IdMap> {
    write_identity(pid).or_else(|_| run_helpers(pid)).or_else(|_| write_single(pid))
}

fn write(pid: Pid, file: &str, text: &str) -> io::Result<()> {
    // One write for the whole map: the kernel takes a map once only.
    let mut file =
        fs::OpenOptions::new().write(true).open(format!("/proc/{}/{file}", pid.as_raw_nonzero()))?;
    io::Write::write_all(&mut file, text.as_bytes())
}

fn write_identity(pid: Pid) -> io::Result<IdMap> {
    let (users, count) = identity("uid_map")?;
    if count < 2 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (groups, _) = identity("gid_map")?;
    write(pid, "gid_map", &groups)?;
    write(pid, "uid_map", &users)?;
    Ok(IdMap::Direct(count))
}

fn run_helpers(pid: Pid) -> io::Result<IdMap> {
    let user = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    let (first_user, users) = subordinate_range("/etc/subuid", user)?;
    let (first_group, groups) = subordinate_range("/etc/subgid", user)?;
    let run = |program: &str, own: u32, first: u64, count: u64| {
        let numbers = [0, own.into(), 1, 1, first, count].map(|number: u64| number.to_string());
        let status = Command::new(program)
            .arg(pid.as_raw_nonzero().to_string())
            .args(numbers)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::PermissionDenied)) }
    };
    run("newgidmap", group, first_group, groups)?;
    run("newuidmap", user, first_user, users)?;
    Ok(IdMap::Helper(users + 1))
}

fn write_single(pid: Pid) -> io::Result<IdMap> {
    // Without CAP_SETGID a group may be mapped only after setgroups(2) is given up.
    write(pid, "setgroups", "deny")?;
    write(pid, "gid_map", &format!("0 {} 1", rustix::process::getgid().as_raw()))?;
    write(pid, "uid_map", &format!("0 {} 1", rustix::process::getuid().as_raw()))?;
    Ok(IdMap::Single)
}

/// First id and count of the range that a file such as /etc/subuid gives to `user`.
fn subordinate_range(file: &str, user: u32) -> io::Result<(u64, u64)> {
    let name = user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), user);
    parse_subordinate(&fs::read_to_string(file)?, user, name.as_deref())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Finds the range by number or by name (subuid(5)).
pub(crate) fn parse_subordinate(text: &str, user: u32, name: Option<&str>) -> Option<(u64, u64)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let mine = owner == user.to_string() || Some(owner) == name;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        mine.then_some((first, count))
    })
}

/// The name of `user` in the text of /etc/passwd.
pub(crate) fn user_name(passwd: &str, user: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_maps() {
        assert_eq!(parse("         0     100000      65536\n"), [[0, 100_000, 65_536]]);
        assert_eq!(parse("0 0\nx y z\n"), [[0_u64; 3]; 0]);
    }

    #[test]
    fn finds_ranges_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        let text = "bob:100000:65536\nann:165536:65536\n1001:300000:10\n";
        assert_eq!(parse_subordinate(text, 1000, Some("ann")), Some((165_536, 65_536)));
        assert_eq!(parse_subordinate(text, 1001, None), Some((300_000, 10)));
        assert_eq!(parse_subordinate(text, 1002, Some("eve")), None);
    }
}
