//! Files of a result, as clients read them through the gateway (`ReadFile`, `ReadDir`, `StatFile`).
//!
//! A result is its layers, merged; links in it lead nowhere out of it.

use std::io::{Read, Seek, SeekFrom};

use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    FileRange, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, StatFileRequest,
    StatFileResponse,
};
use dory_dockerfile::Glob;
use dory_store::{FileError, Node, View};
use rustix::fs::FileType;

use crate::filesync::{Entry, EntryKind};
use crate::grpc::{Code, Status};

/// No answer is longer, in bytes: clients' own limit for a message is 16 MiB.
const READ_MAX: u64 = 12 << 20;

/// The content of a file, or a part of it.
///
/// # Errors
/// No such file, none that can be read, one that is too long for a message.
pub fn read_file(view: &View, request: &ReadFileRequest) -> Result<ReadFileResponse, Status> {
    let path = &request.file_path;
    let node = find(view, path, true)?;
    if node.kind() != FileType::RegularFile {
        return Err(Status::invalid(format!("read {path}: not a regular file")));
    }
    let mut file = node.open().map_err(|error| unreadable(path, &error))?;
    let FileRange { offset, length } = request.range.unwrap_or_default();
    let negative = |_| Status::invalid(format!("read {path}: the range is negative"));
    let offset = u64::try_from(offset).map_err(negative)?;
    let length = match u64::try_from(length).map_err(negative)? {
        0 => READ_MAX + 1,
        length => length,
    };
    let failed = |error: std::io::Error| Status::unknown(format!("read {path}: {error}"));
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut data = Vec::new();
    file.take(length.min(READ_MAX + 1)).read_to_end(&mut data).map_err(failed)?;
    if data.len() as u64 > READ_MAX {
        return Err(Status::invalid(format!("read {path}: longer than {READ_MAX} bytes; ask for a range")));
    }
    Ok(ReadFileResponse { data })
}

/// What is in a directory.
///
/// # Errors
/// No such directory, a pattern that is none.
pub fn read_dir(view: &View, request: &ReadDirRequest) -> Result<ReadDirResponse, Status> {
    let path = &request.dir_path;
    let node = find(view, path, true)?;
    if !node.is_directory() {
        return Err(Status::invalid(format!("read {path}: not a directory")));
    }
    let pattern = match request.include_pattern.as_str() {
        "" => None,
        text => Some(Glob::parse(text).map_err(|error| Status::invalid(format!("{text}: {error}")))?),
    };
    let mut entries = Vec::new();
    for name in node.names().map_err(|error| unreadable(path, &error))? {
        // Names are text in a message; what is none cannot be told.
        let Ok(text) = std::str::from_utf8(&name) else { continue };
        if pattern.as_ref().is_some_and(|pattern| !pattern.matches(text)) {
            continue;
        }
        let Some(child) = node.child(&name).map_err(|error| unreadable(path, &error))? else { continue };
        entries.push(stat(text, &child)?);
    }
    Ok(ReadDirResponse { entries })
}

/// What a file is; a link is not followed.
///
/// # Errors
/// No such file.
pub fn stat_file(view: &View, request: &StatFileRequest) -> Result<StatFileResponse, Status> {
    let node = find(view, &request.path, false)?;
    let name = request.path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("/");
    Ok(StatFileResponse { stat: Some(stat(name, &node)?) })
}

fn find(view: &View, path: &str, follow_last: bool) -> Result<Node, Status> {
    let found = view.find(path.as_bytes(), follow_last).map_err(|error| unreadable(path, &error))?;
    // Clients look for these words: Go's `fs.ErrNotExist` does not survive gRPC.
    found.ok_or_else(|| Status::new(Code::NotFound, format!("lstat {path}: no such file or directory")))
}

fn unreadable(path: &str, error: &FileError) -> Status {
    Status::unknown(format!("{path}: {error}"))
}

fn stat(name: &str, node: &Node) -> Result<Stat, Status> {
    let stat = node.stat();
    let kind = match node.kind() {
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => {
            let target = node.link_target().map_err(|error| unreadable(name, &error))?;
            EntryKind::Symlink(String::from_utf8_lossy(&target).into_owned())
        }
        FileType::Fifo => EntryKind::Pipe,
        _ => EntryKind::File,
    };
    let size = if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or_default() } else { 0 };
    let entry = Entry {
        path: name.to_owned(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
        modified: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64),
        xattrs: Vec::new(),
    };
    Ok(entry.to_stat())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree() -> (tempfile::TempDir, View) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/one.txt"), "0123456789").unwrap();
        fs::write(folder.path().join("d/two"), "").unwrap();
        std::os::unix::fs::symlink("/d/one.txt", folder.path().join("link")).unwrap();
        let root = fs::File::open(folder.path()).unwrap().into();
        (folder, View::of_directory(root).unwrap())
    }

    fn read(view: &View, path: &str, offset: i64, length: i64) -> Result<String, String> {
        let range = Some(FileRange { offset, length });
        let request = ReadFileRequest { file_path: path.to_owned(), range, ..ReadFileRequest::default() };
        match read_file(view, &request) {
            Ok(response) => Ok(String::from_utf8(response.data).unwrap()),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    #[test]
    fn files_are_read_in_parts() {
        let (_folder, view) = tree();
        for (path, offset, length, expected) in [
            ("/d/one.txt", 0, 0, Ok("0123456789")),
            ("link", 2, 3, Ok("234")),
            ("d/one.txt", 8, 100, Ok("89")),
            ("d/one.txt", 100, 1, Ok("")),
            ("d", 0, 0, Err("read d: not a regular file")),
            ("missing", 0, 0, Err("lstat missing: no such file or directory")),
            ("d/two", -1, 0, Err("read d/two: the range is negative")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(&view, path, offset, length), expected, "{path} {offset} {length}");
        }
    }

    #[test]
    fn directories_are_listed_and_links_told() {
        let (_folder, view) = tree();
        let list = |pattern: &str| {
            let request = ReadDirRequest {
                dir_path: "d".to_owned(),
                include_pattern: pattern.to_owned(),
                ..ReadDirRequest::default()
            };
            let entries = read_dir(&view, &request).unwrap().entries;
            entries.into_iter().map(|stat| format!("{} {}", stat.path, stat.size)).collect::<Vec<_>>()
        };
        assert_eq!(list(""), ["one.txt 10", "two 0"]);
        assert_eq!(list("*.txt"), ["one.txt 10"]);
        let request = StatFileRequest { path: "/link".to_owned(), ..StatFileRequest::default() };
        let stat = stat_file(&view, &request).unwrap().stat.unwrap();
        assert_eq!((stat.path.as_str(), stat.linkname.as_str()), ("link", "/d/one.txt"));
    }
}
