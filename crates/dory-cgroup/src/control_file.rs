//! Reading and writing control files. Each write is one `write(2)`: the kernel parses it as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::CgroupError;

/// Writes `value` to `name` in `group`.
pub(crate) fn write(group: &Path, name: &str, value: &str) -> Result<(), CgroupError> {
    let path = group.join(name);
    let result =
        fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    result.map_err(|source| CgroupError::Write { path, value: value.to_owned(), source })
}

/// The text of `name` in `group`.
pub(crate) fn read(group: &Path, name: &str) -> Result<String, CgroupError> {
    let path = group.join(name);
    fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
}

/// True where `group` has the control file `name`.
pub(crate) fn exists(group: &Path, name: &str) -> bool {
    group.join(name).exists()
}

/// A single number, `None` for `max`.
pub(crate) fn read_limit(group: &Path, name: &str) -> Result<Option<u64>, CgroupError> {
    let text = read(group, name)?;
    match text.trim() {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| CgroupError::Content { path: group.join(name), text }),
    }
}

/// A single number.
pub(crate) fn read_number(group: &Path, name: &str) -> Result<u64, CgroupError> {
    let limit = read_limit(group, name)?;
    limit.ok_or_else(|| CgroupError::Content { path: group.join(name), text: "max".to_owned() })
}

/// Lines of `key number`, as in `memory.stat`; other lines are skipped.
pub(crate) fn read_keyed(group: &Path, name: &str) -> Result<BTreeMap<String, u64>, CgroupError> {
    let text = read(group, name)?;
    let parse = |line: &str| {
        let (key, number) = line.split_once(' ')?;
        Some((key.to_owned(), number.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(parse).collect())
}
