//! Files from web servers.

use std::fs::{File, FileTimes};
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use dory_types::Digest;
use rustix::fs::{self, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::cancel::Cancel;
use crate::web::{Web, WebAnswer, WebRequest};

/// Permissions of what is downloaded, as with BuildKit.
const MODE: u32 = 0o600;
/// Bytes that are copied at once.
const BUFFER: usize = 128 << 10;
/// An address, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileAddress<'a> {
    pub(crate) address: &'a str,
}

/// What a server said of a file, by which it says whether it has changed; and what the file was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validators {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) etag: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) last_modified: String,
    /// Of the content.
    pub(crate) digest: Option<Digest>,
}

/// What a server has.
pub(crate) enum Fetched {
    /// What it had.
    Unchanged,
    /// A file, which is where it was to be.
    File(Validators),
}

impl FileAddress<'_> {
    /// The name of the file: the last one of the path, as with BuildKit.
    pub(crate) fn name(&self) -> String {
        let path = self.address.split("://").nth(1).unwrap_or_default();
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let name = match path.split_once('/') {
            Some((_, path)) => path.trim_end_matches('/').rsplit('/').next().unwrap_or_default(),
            None => "",
        };
        match unescaped(name).as_str() {
            "" | "." | ".." => "__unnamed__".to_owned(),
            name if name.contains(['/', '\0']) => "__unnamed__".to_owned(),
            name => name.to_owned(),
        }
    }

    /// Brings the file as `name` into `directory`, unless it is what `known` says.
    pub(crate) fn fetch(
        &self,
        web: &dyn Web,
        known: Option<&Validators>,
        directory: BorrowedFd<'_>,
        name: &str,
        progress: &dyn Fn(u64, u64),
        cancel: &Cancel,
    ) -> Result<Fetched, String> {
        let mut headers = Vec::new();
        if let Some(known) = known.filter(|known| known.digest.is_some()) {
            for (name, value) in [("if-none-match", &known.etag), ("if-modified-since", &known.last_modified)]
            {
                headers.extend((!value.is_empty()).then(|| (name, value.clone())));
            }
        }
        let is_conditional = !headers.is_empty();
        let request = WebRequest { address: self.without_fragment(), headers, body: None };
        let answer = web.ask(&request, cancel).map_err(|error| error.to_string())?;
        match answer.status {
            304 if is_conditional => return Ok(Fetched::Unchanged),
            200..=299 => {}
            status => return Err(format!("invalid response status {status}")),
        }
        let header = |name| answer.header(name).unwrap_or_default().to_owned();
        let mut validators =
            Validators { etag: header("etag"), last_modified: header("last-modified"), digest: None };
        validators.digest = Some(save(answer, &validators, directory, name, progress, cancel)?);
        Ok(Fetched::File(validators))
    }

    fn without_fragment(&self) -> String {
        self.address.split('#').next().unwrap_or_default().to_owned()
    }
}

impl Validators {
    /// When the file was changed, in seconds since 1970; 0 where the server does not say.
    pub(crate) fn modified(&self) -> i64 {
        // RFC 9110, section 5.6.7: the form of mail, and always in GMT.
        let parsed = OffsetDateTime::parse(&self.last_modified, &Rfc2822);
        parsed.map_or(0, OffsetDateTime::unix_timestamp).max(0)
    }
}

fn save(
    mut answer: WebAnswer,
    validators: &Validators,
    directory: BorrowedFd<'_>,
    name: &str,
    progress: &dyn Fn(u64, u64),
    cancel: &Cancel,
) -> Result<Digest, String> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(MODE);
    let file = fs::openat(directory, name, flags, mode).map_err(|errno| errno.to_string())?;
    fs::fchmod(&file, mode).map_err(|errno| errno.to_string())?;
    let mut file = File::from(file);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut length = 0;
    loop {
        if cancel.is_cancelled() {
            return Err("the build was cancelled".to_owned());
        }
        let count = match answer.body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        };
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(|error| error.to_string())?;
        length += count as u64;
        progress(length, answer.length.unwrap_or(0));
    }
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(validators.modified().unsigned_abs());
    let times = FileTimes::new().set_modified(modified).set_accessed(modified);
    file.set_times(times).map_err(|error| error.to_string())?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// A name of an address without its escapes; as it is where they are no text.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        rest = if code.is_some() { &after[2..] } else { after };
        bytes.push(code.unwrap_or(byte));
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (address, name) in [
            ("https://host/a/b.tar.gz", "b.tar.gz"),
            ("https://host/a%20b?x=/y#z", "a b"),
            ("https://host/a/", "a"),
            ("https://host", "__unnamed__"),
            ("https://host/", "__unnamed__"),
            ("https://host/%2e%2e", "__unnamed__"),
            ("https://host/a%2fb", "__unnamed__"),
        ] {
            assert_eq!(FileAddress { address }.name(), name, "{address}");
        }
    }

    #[test]
    fn times_of_servers() {
        let said = |text: &str| Validators { last_modified: text.to_owned(), ..Validators::default() };
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT").modified(), 784_111_777);
        assert_eq!(said("").modified(), 0);
        assert_eq!(said("yesterday").modified(), 0);
    }
}
