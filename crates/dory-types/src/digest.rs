//! Content digests: `sha256:` and 64 hexadecimal digits (OCI image-spec, descriptor.md "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ImageId;

/// The prefix of every digest that this project stores.
const SHA256_PREFIX: &str = "sha256:";

/// The text is not a digest that can be stored. The messages are those of `go-digest`, which clients match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm is not `sha256`.
    #[error("unsupported digest algorithm")]
    UnsupportedAlgorithm,
    /// The encoded part does not have 64 digits.
    #[error("invalid checksum digest length")]
    InvalidLength,
    /// There is no algorithm, or a digit is not a lower-case hexadecimal one.
    #[error("invalid checksum digest format")]
    InvalidFormat,
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest whose raw value is `bytes`, as a hash function returns it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Reads the 64 digits without the algorithm, as file names in a content store have them.
    ///
    /// # Errors
    /// [`DigestError::InvalidLength`] and [`DigestError::InvalidFormat`].
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        if hex.len() != 64 {
            return Err(DigestError::InvalidLength);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Ok(Self(bytes))
    }

    /// The 64 digits without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
            text
        })
    }

    /// The raw value.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The value of one lower-case hexadecimal digit.
fn hex_digit(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::InvalidFormat),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SHA256_PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({})", &self.hex()[..12])
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::InvalidFormat)?;
        if algorithm != "sha256" {
            return Err(DigestError::UnsupportedAlgorithm);
        }
        Self::from_hex(hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl From<Digest> for ImageId {
    fn from(digest: Digest) -> Self {
        ImageId::from_bytes(digest.0)
    }
}

impl From<&ImageId> for Digest {
    fn from(id: &ImageId) -> Self {
        Self::from_hex(id.as_str()).expect("an image id is 64 lower-case hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashes_and_prints() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let id = ImageId::from(Digest::of(b""));
        assert_eq!(id.as_str(), &EMPTY[7..]);
        assert_eq!(Digest::from(&id), EMPTY.parse().unwrap());
    }

    #[test]
    fn refuses_what_is_no_sha256() {
        let cases = [
            ("", DigestError::InvalidFormat),
            ("sha256", DigestError::InvalidFormat),
            ("sha256:abc", DigestError::InvalidLength),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::UnsupportedAlgorithm),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text}");
        }
        let upper = format!("sha256:{}", EMPTY[7..].to_uppercase());
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::InvalidFormat));
        // 64 bytes that are not 64 characters must not split one in the middle.
        assert_eq!(Digest::from_hex(&"é".repeat(32)), Err(DigestError::InvalidFormat));
    }
}
