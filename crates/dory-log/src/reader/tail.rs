//! Where the last records of a file begin, found from its end.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::fstat;
use rustix::io::pread;

use crate::config::LogFormat;
use crate::frames::BLOCK;
use crate::local::{self, HEAD, START};

/// The offset at which the last `count` records of `file` begin, and how many there are; `None` where damage hides that.
pub(super) fn start_of_last(
    file: BorrowedFd<'_>,
    count: u64,
    format: LogFormat,
) -> io::Result<Option<(u64, u64)>> {
    match format {
        LogFormat::Json => start_of_last_lines(file, count).map(Some),
        LogFormat::Local => start_of_last_records(file, count),
    }
}

/// For lines; an unfinished last one does not count, and lies behind the offset.
fn start_of_last_lines(file: BorrowedFd<'_>, count: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0_u8; BLOCK];
    let mut end = fstat(file)?.st_size as u64;
    // Newlines met: the last one ends the last line, and the one before the first wanted line is where it begins.
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let length = pread(file, &mut block[..(end - start) as usize], start)?;
        for index in (0..length).rev() {
            if block[index] == b'\n' {
                if newlines == count {
                    return Ok((start + index as u64 + 1, count));
                }
                newlines += 1;
            }
        }
        end = start;
    }
    Ok((0, newlines))
}

/// For records of the `local` form, each of which ends with its length. A writer may be in the middle of its last one:
/// that looks like damage too.
fn start_of_last_records(file: BorrowedFd<'_>, count: u64) -> io::Result<Option<(u64, u64)>> {
    let mut place = fstat(file)?.st_size as u64;
    let mut found = 0;
    while found < count && place > 0 {
        let Some(before) = place.checked_sub(HEAD as u64) else { return Ok(None) };
        let mut tail = [0; HEAD];
        if pread(file, &mut tail, before)? < HEAD {
            return Ok(None);
        }
        let start = local::record_length(tail).and_then(|length| place.checked_sub(length as u64));
        let Some(start) = start else { return Ok(None) };
        let mut beginning = [0; START];
        if pread(file, &mut beginning, start)? < START || !local::belong_together(&beginning, tail) {
            return Ok(None);
        }
        place = start;
        found += 1;
    }
    Ok(Some((place, found)))
}
