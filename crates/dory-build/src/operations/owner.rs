//! `--chown`: names are those of the files that are being changed.

use std::io::Read;

use dory_store::View;

use crate::error::StepError;

/// No such file is longer, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// The user and group that `text` (`user`, `user:group`, by name or number) means in `files`.
///
/// A number needs no entry; without a group it is the group's number too. A name's group is that of its entry.
pub(crate) fn owner(text: &str, files: &View) -> Result<(u32, u32), StepError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let missing = |what: &str, name: &str| {
        StepError::Invalid(format!(
            "invalid user index or name: unable to find {what} {name}: no matching entries"
        ))
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let entry = find(files, b"etc/passwd", user, 4)?.ok_or_else(|| missing("user", user))?;
            (entry[0], entry[1])
        }
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => find(files, b"etc/group", group, 3)?.ok_or_else(|| missing("group", group))?[0],
        },
    };
    Ok((uid, gid))
}

/// The numbers in the fields from the third to `last` of the line that begins with `name`.
fn find(files: &View, path: &[u8], name: &str, last: usize) -> Result<Option<Vec<u32>>, StepError> {
    let failed =
        |error: String| StepError::Copy { path: String::from_utf8_lossy(path).into_owned(), message: error };
    let node = files.find(path, true).map_err(|error| failed(error.to_string()))?;
    let Some(node) = node.filter(|node| node.kind() == rustix::fs::FileType::RegularFile) else {
        return Ok(None);
    };
    let mut text = Vec::new();
    let file = node.open().map_err(|error| failed(error.to_string()))?;
    file.take(FILE_MAX).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&text);
    let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let numbers = |fields: Vec<&str>| -> Option<Vec<u32>> {
        fields.get(2..last)?.iter().map(|field| field.parse().ok()).collect()
    };
    Ok(entry.filter(|fields| fields.first() == Some(&name)).find_map(numbers))
}
