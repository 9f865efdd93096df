//! An image whose only file is this program.

use std::fs::File;
use std::io::{self, Write};

/// Name of the image on every level.
pub const NAME: &str = "dory:demo";

/// Writes the image's tree as a tar archive: `/dory`, and the directories that a container wants.
///
/// # Errors
/// Those of reading this program and of `output`.
pub fn write_archive(output: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(output);
    for directory in ["tmp/", "run/", "var/lib/dory/"] {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        archive.append_data(&mut header, directory, io::empty())?;
    }
    let program = File::open("/proc/self/exe")?;
    let mut header = header(tar::EntryType::Regular, program.metadata()?.len(), 0o755);
    archive.append_data(&mut header, "dory", program)?;
    archive.into_inner()?.flush()
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
