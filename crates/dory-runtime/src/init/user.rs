//! Looks users and groups up in the container's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Never through the C library: its name services would read the engine's files and load plug-ins.

use crate::error::{FailureKind, StartFailure};

use super::root::Root;

/// Larger account files are cut: an image can be hostile.
const FILE_LIMIT: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` for a user without an entry.
    pub home: String,
}

/// Resolves Docker's `User` form and the additional groups inside `root`.
pub fn resolve(root: Root<'_>, user: &str, additional_groups: &[String]) -> Result<Identity, StartFailure> {
    let passwd = read_text(root, "/etc/passwd");
    let group = read_text(root, "/etc/group");
    identify(&passwd, &group, user, additional_groups)
}

fn read_text(root: Root<'_>, path: &str) -> String {
    // A missing file is an empty one: `FROM scratch` images have none.
    root.read(path, FILE_LIMIT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn identify(passwd: &str, group: &str, user: &str, additional: &[String]) -> Result<Identity, StartFailure> {
    let (user_part, group_part) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let entry = entries(passwd).find(|fields| fields.first() == Some(&user_part)).or_else(|| {
        let uid: u32 = user_part.parse().ok()?;
        entries(passwd).find(|fields| number(fields, 2) == Some(uid))
    });
    let uid = match (&entry, user_part.parse::<u32>()) {
        (Some(fields), _) if number(fields, 2).is_some() => number(fields, 2).unwrap_or_default(),
        (_, Ok(uid)) if uid <= i32::MAX as u32 => uid,
        (_, Ok(_)) => return Err(invalid("uids and gids must be in range 0-2147483647".to_owned())),
        _ => {
            return Err(invalid(format!(
                "unable to find user {user_part}: no matching entries in passwd file"
            )));
        }
    };
    let gid = match group_part {
        Some(name) => find_group(group, name)?,
        None => entry.as_ref().and_then(|fields| number(fields, 3)).unwrap_or(0),
    };
    // The primary group too: a program that drops it must not thereby lose what it denies (CVE-2022-36109).
    let mut groups = vec![gid];
    // An explicit group switches the memberships off, as in Docker.
    if let (None, Some(name)) = (group_part, entry.as_ref().and_then(|fields| fields.first())) {
        groups.extend(memberships(group, name));
    }
    for name in additional {
        groups.push(find_group(group, name)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.as_ref().and_then(|fields| fields.get(5)).filter(|home| !home.is_empty());
    Ok(Identity { uid, gid, groups, home: home.map_or_else(|| "/".to_owned(), |home| (*home).to_owned()) })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

fn number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

fn find_group(group: &str, name: &str) -> Result<u32, StartFailure> {
    let by_name = entries(group).find(|fields| fields.first() == Some(&name));
    match (by_name.and_then(|fields| number(&fields, 2)), name.parse::<u32>()) {
        (Some(gid), _) => Ok(gid),
        (None, Ok(gid)) if gid <= i32::MAX as u32 => Ok(gid),
        (None, Ok(_)) => Err(invalid("uids and gids must be in range 0-2147483647".to_owned())),
        _ => Err(invalid(format!("unable to find group {name}: no matching entries in group file"))),
    }
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    entries(group)
        .filter(move |fields| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user))
        })
        .filter_map(|fields| number(&fields, 2))
}

fn invalid(message: String) -> StartFailure {
    StartFailure::new(FailureKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# no\nwww:x:33:33::/var/www:/bin/false\n1000:x:7:7::/seven:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,www\nwww:x:33:\nstaff:x:50:www\n";

    #[test]
    fn resolves_every_form() {
        let cases = [
            ("", 0, 0, vec![0, 10], "/root"),
            ("www", 33, 33, vec![10, 33, 50], "/var/www"),
            ("33", 33, 33, vec![10, 33, 50], "/var/www"),
            ("www:staff", 33, 50, vec![50], "/var/www"),
            ("5000", 5000, 0, vec![0], "/"),
            ("5000:6000", 5000, 6000, vec![6000], "/"),
            // A name made of digits is a name first, as in Docker.
            ("1000", 7, 7, vec![7], "/seven"),
        ];
        for (user, uid, gid, groups, home) in cases {
            let found = identify(PASSWD, GROUP, user, &[]).unwrap();
            assert_eq!(found, Identity { uid, gid, groups, home: home.to_owned() }, "{user}");
        }
    }

    #[test]
    fn adds_groups_and_refuses_unknown_names() {
        let found = identify(PASSWD, GROUP, "5000", &["staff".into(), "77".into()]).unwrap();
        assert_eq!(found.groups, [0, 50, 77]);
        for (user, text) in [
            ("nobody", "unable to find user nobody: no matching entries in passwd file"),
            ("www:none", "unable to find group none: no matching entries in group file"),
            ("4294967295", "uids and gids must be in range 0-2147483647"),
        ] {
            assert_eq!(identify(PASSWD, GROUP, user, &[]).unwrap_err().message, text);
        }
    }

    #[test]
    fn an_image_without_accounts_has_numbers_only() {
        assert_eq!(identify("", "", "", &[]).unwrap().uid, 0);
        assert_eq!(identify("", "", "12:34", &[]).unwrap().gid, 34);
        assert!(identify("", "", "root", &[]).is_err());
    }
}
