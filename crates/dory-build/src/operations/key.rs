//! Keys of cached results: digests of everything that a result depends on, and of nothing else.

use dory_types::Digest;
use sha2::{Digest as _, Sha256};

/// A key in the making. Parts are framed by their lengths: no two different lists of parts are one sequence of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    /// A key of an operation of this name and version; a change of what the operation makes needs another version.
    pub(crate) fn new(operation: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.part(operation.as_bytes());
        key
    }

    /// Adds bytes.
    pub(crate) fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.part(text.as_bytes())
    }

    /// Adds a list of texts.
    pub(crate) fn texts<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> &mut Self {
        let mut inner = Self::new("list");
        for text in texts {
            inner.text(text.as_ref());
        }
        let digest = inner.digest();
        self.text(&digest.hex())
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        self.part(&number.to_le_bytes())
    }

    /// Adds another digest.
    pub(crate) fn content(&mut self, digest: &Digest) -> &mut Self {
        self.text(&digest.hex())
    }

    /// The key.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let of = |parts: &[&str]| {
            let mut key = Key::new("x");
            for part in parts {
                key.text(part);
            }
            key.digest()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["a"]), of(&["a"]));
        assert_ne!(Key::new("a").texts(["b"]).digest(), Key::new("a").text("b").digest());
    }
}
