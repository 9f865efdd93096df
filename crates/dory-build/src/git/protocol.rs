//! Version 2 of git's protocol over HTTP: which commit a name means, and the pack of that commit's files.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::{GitError, ObjectId};
use crate::cancel::Cancel;
use crate::web::{Web, WebAnswer, WebRequest};

/// Bytes of a packet at most, its length included (gitprotocol-common(5)).
const PACKET_MAX: usize = 65520;
/// Packets of an advertisement, or of a list of refs, at most: what is asked for by prefix is few.
const PACKETS_MAX: usize = 100_000;
/// Bytes of a pack at most.
const PACK_MAX: u64 = 16 << 30;
const AGENT: &str = concat!("agent=dory/", env!("CARGO_PKG_VERSION"), "\n");

/// A repository at a server.
#[derive(Debug)]
pub(crate) struct GitServer<'a> {
    web: &'a Arc<dyn Web>,
    cancel: &'a Cancel,
    /// Where the repository is, redirects followed.
    base: String,
    authorization: Option<String>,
    can_be_shallow: bool,
}

/// What stands in a stream of packets.
#[derive(Debug, PartialEq, Eq)]
enum Packet {
    Line(Vec<u8>),
    /// The end of a message.
    Flush,
    /// Between sections of a message.
    Delimiter,
}

impl<'a> GitServer<'a> {
    /// Finds out what the server at `repository` can do. `authorization` is the value of the header, where there is one.
    pub(crate) fn connect(
        web: &'a Arc<dyn Web>,
        repository: &str,
        authorization: Option<String>,
        cancel: &'a Cancel,
    ) -> Result<Self, GitError> {
        let repository = repository.trim_end_matches('/');
        let mut server = Self { web, cancel, base: String::new(), authorization, can_be_shallow: false };
        let address = format!("{repository}/info/refs?service=git-upload-pack");
        let mut answer = server.ask(&WebRequest { address, headers: server.headers(), body: None })?;
        let base = answer.address.split("/info/refs").next().unwrap_or_default().to_owned();
        let mut is_two = false;
        let mut packets = 0;
        loop {
            match packet(&mut answer.body)? {
                Packet::Flush if is_two => break,
                Packet::Line(line) => {
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end();
                    match line.split_once('=') {
                        _ if line == "version 2" => is_two = true,
                        Some(("object-format", format)) if format != "sha1" => {
                            return Err(GitError::ObjectFormat(format.to_owned()));
                        }
                        Some(("fetch", features)) => {
                            server.can_be_shallow = features.split(' ').any(|feature| feature == "shallow");
                        }
                        _ => {}
                    }
                    // Version 0 goes on with refs, which may be many.
                    if !is_two && !line.starts_with("# service=") {
                        return Err(GitError::Version);
                    }
                }
                _ => {}
            }
            packets += 1;
            if packets > PACKETS_MAX {
                return Err(GitError::Protocol("its advertisement has no end"));
            }
        }
        // A credential is for whom it was given.
        if !same_host(repository, &base) {
            server.authorization = None;
        }
        server.base = base;
        Ok(server)
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("git-protocol", "version=2".to_owned())];
        headers.extend(self.authorization.clone().map(|value| ("authorization", value)));
        headers
    }

    fn ask(&self, request: &WebRequest) -> Result<WebAnswer, GitError> {
        let answer = self.web.ask(request, self.cancel)?;
        if self.cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        match answer.status {
            200 => Ok(answer),
            status => Err(GitError::Status { status }),
        }
    }

    fn command(&self, name: &str, arguments: &[String]) -> Result<WebAnswer, GitError> {
        let mut body = Vec::new();
        for line in [format!("command={name}\n"), AGENT.to_owned(), "object-format=sha1\n".to_owned()] {
            write_packet(&mut body, &line);
        }
        body.extend_from_slice(b"0001");
        for argument in arguments {
            write_packet(&mut body, &format!("{argument}\n"));
        }
        body.extend_from_slice(b"0000");
        let mut headers = self.headers();
        headers.push(("content-type", "application/x-git-upload-pack-request".to_owned()));
        headers.push(("accept", "application/x-git-upload-pack-result".to_owned()));
        self.ask(&WebRequest { address: format!("{}/git-upload-pack", self.base), headers, body: Some(body) })
    }

    /// The commit that `reference` means: `HEAD` where it is empty, else an id, a full name, a tag, a branch.
    pub(crate) fn resolve(&self, reference: &str) -> Result<ObjectId, GitError> {
        if let Ok(id) = reference.parse() {
            return Ok(id);
        }
        let names: Vec<String> = match reference {
            "" => vec!["HEAD".to_owned()],
            name => ["", "refs/", "refs/tags/", "refs/heads/"].map(|prefix| format!("{prefix}{name}")).into(),
        };
        if names.iter().any(|name| name.contains(|letter: char| letter.is_control() || letter == ' ')) {
            return Err(GitError::Reference(reference.to_owned()));
        }
        let mut arguments = vec!["peel".to_owned()];
        arguments.extend(names.iter().map(|name| format!("ref-prefix {name}")));
        let mut answer = self.command("ls-refs", &arguments)?;
        let mut found: Option<(usize, ObjectId)> = None;
        for _ in 0..PACKETS_MAX {
            let line = match packet(&mut answer.body)? {
                Packet::Line(line) => line,
                Packet::Flush | Packet::Delimiter => break,
            };
            let Some((name, id)) = reference_line(&line)? else { continue };
            // The ids are of annotated tags' commits where they have any.
            if let Some(place) = names.iter().position(|wanted| *wanted == name)
                && found.is_none_or(|(best, _)| place < best)
            {
                found = Some((place, id));
            }
        }
        found.map(|(_, id)| id).ok_or_else(|| {
            GitError::Reference(if reference.is_empty() { "HEAD" } else { reference }.to_owned())
        })
    }

    /// Writes the pack with `commit`, and nothing that was before it, to `sink`.
    pub(crate) fn fetch(
        &self,
        commit: &ObjectId,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), GitError> {
        let mut arguments = vec!["no-progress".to_owned(), "ofs-delta".to_owned()];
        arguments.extend(self.can_be_shallow.then(|| "deepen 1".to_owned()));
        arguments.extend([format!("want {commit}"), "done".to_owned()]);
        let mut answer = self.command("fetch", &arguments)?;
        // Sections that come before say what was asked for: how deep, and what is shallow.
        loop {
            match packet(&mut answer.body)? {
                Packet::Line(line) if line == b"packfile\n" => break,
                Packet::Flush => return Err(GitError::Protocol("it has no pack")),
                _ => {}
            }
        }
        let mut length = 0;
        loop {
            if self.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            let line = match packet(&mut answer.body)? {
                Packet::Line(line) => line,
                Packet::Flush | Packet::Delimiter => return Ok(()),
            };
            match line.split_first() {
                Some((1, data)) => {
                    length += data.len() as u64;
                    if length > PACK_MAX {
                        return Err(GitError::Protocol("its pack is too long"));
                    }
                    sink.write_all(data)
                        .map_err(|source| GitError::Write { path: "pack".to_owned(), source })?;
                    progress(length);
                }
                Some((2, _)) => {}
                Some((3, message)) => {
                    return Err(GitError::Remote(String::from_utf8_lossy(message).trim().to_owned()));
                }
                _ => return Err(GitError::Protocol("a packet belongs to no stream")),
            }
        }
    }
}

/// Whether two addresses have scheme, host and port in common.
fn same_host(one: &str, other: &str) -> bool {
    let host =
        |address: &str| address.splitn(4, '/').take(3).collect::<Vec<_>>().join("/").to_ascii_lowercase();
    host(one) == host(other)
}

/// `ID NAME [peeled:ID] …`; the id of what it stands for in the end.
fn reference_line(line: &[u8]) -> Result<Option<(String, ObjectId)>, GitError> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end().split(' ');
    let (Some(id), Some(name)) = (words.next(), words.next()) else {
        return Err(GitError::Protocol("a ref has no name"));
    };
    let peeled = words.find_map(|word| word.strip_prefix("peeled:"));
    // `unborn` stands for the id of a HEAD whose branch has no commit.
    Ok(peeled.unwrap_or(id).parse().ok().map(|id| (name.to_owned(), id)))
}

fn write_packet(body: &mut Vec<u8>, line: &str) {
    body.extend_from_slice(format!("{:04x}{line}", line.len() + 4).as_bytes());
}

/// Reads a packet: four hexadecimal digits for the length, and what they count.
fn packet(source: &mut impl Read) -> Result<Packet, GitError> {
    let mut length = [0; 4];
    read(source, &mut length)?;
    let length = std::str::from_utf8(&length).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
    match length.ok_or(GitError::Protocol("a packet has no length"))? {
        0 => Ok(Packet::Flush),
        1 => Ok(Packet::Delimiter),
        length @ 4..=PACKET_MAX => {
            let mut line = vec![0; length - 4];
            read(source, &mut line)?;
            match line.strip_prefix(b"ERR ") {
                Some(message) => Err(GitError::Remote(String::from_utf8_lossy(message).trim().to_owned())),
                None => Ok(Packet::Line(line)),
            }
        }
        _ => Err(GitError::Protocol("a packet has no such length")),
    }
}

fn read(source: &mut impl Read, buffer: &mut [u8]) -> Result<(), GitError> {
    source.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => GitError::Protocol("it ends too early"),
        _ => GitError::Receive(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_packets() {
        let mut stream = &b"0009line\n00010000"[..];
        assert_eq!(packet(&mut stream).unwrap(), Packet::Line(b"line\n".to_vec()));
        assert_eq!(packet(&mut stream).unwrap(), Packet::Delimiter);
        assert_eq!(packet(&mut stream).unwrap(), Packet::Flush);
        for (wrong, message) in [
            (&b"00"[..], "ends too early"),
            (b"zzzz", "no length"),
            (b"0003", "no such length"),
            (b"ffff", "no such length"),
            (b"000dERR gone\n", "git server: gone"),
        ] {
            let error = packet(&mut &*wrong).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn reads_refs() {
        let id = "ce013625030ba8dba906f756967f9e9ca394464a";
        let peeled = "0000000000000000000000000000000000000001";
        let tag = format!("{id} refs/tags/v1 peeled:{peeled}\n");
        let (name, found) = reference_line(tag.as_bytes()).unwrap().unwrap();
        assert_eq!((name.as_str(), found.to_string().as_str()), ("refs/tags/v1", peeled));
        assert!(reference_line(b"unborn HEAD symref-target:refs/heads/main\n").unwrap().is_none());
        assert!(reference_line(b"x").is_err());
    }
}
