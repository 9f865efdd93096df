//! Blobs by digest: immutable, on the disk before they have their name, checked when they are read.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use dory_types::Digest;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::StoreError;
use crate::record::{Durability, replace_file};

/// The directory `content/sha256`.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) directory: OwnedFd,
}

impl Content {
    /// Stores `bytes` under their digest; one that is already there is left as it is.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.get(&digest).is_ok() {
            return Ok(digest);
        }
        replace_file(&self.directory, &digest.hex(), bytes, Durability::Synced)
            .map_err(|source| StoreError::StoreBlob { digest, source })?;
        Ok(digest)
    }

    /// As [`Content::put`], where somebody else has the bytes too: a power cut may take them.
    pub(crate) fn put_unsynced(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.get(&digest).is_err() {
            replace_file(&self.directory, &digest.hex(), bytes, Durability::Unsynced)
                .map_err(|source| StoreError::StoreBlob { digest, source })?;
        }
        Ok(digest)
    }

    /// The bytes of `digest`.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let bytes = self.read(digest).map_err(|source| StoreError::ReadBlob { digest: *digest, source })?;
        if Digest::of(&bytes) != *digest {
            let source = io::Error::new(io::ErrorKind::InvalidData, "the content does not match the digest");
            return Err(StoreError::ReadBlob { digest: *digest, source });
        }
        Ok(bytes)
    }

    fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&self.directory, digest.hex(), flags, Mode::empty())?;
        let mut bytes = Vec::new();
        std::fs::File::from(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Removes the blob with the file name `name`.
    pub(crate) fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}
