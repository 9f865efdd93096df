//! Names that people give to containers and volumes, checked as dockerd checks them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What dockerd prints as the characters that a name may have.
const RESTRICTED_NAME_CHARS: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";

/// True where `name` matches `^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`: a name has at least two characters.
fn is_restricted_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The text cannot name a container; dockerd's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid container name ({0}), only {RESTRICTED_NAME_CHARS} are allowed")]
pub struct NameError(pub String);

/// A container's name, without the slash that the API's answers put before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name as people type it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the API's `Name` and `Names` fields have it, with a leading slash.
    pub fn with_slash(&self) -> String {
        format!("/{}", self.0)
    }
}

impl FromStr for ContainerName {
    type Err = NameError;

    /// Reads a name with or without one leading slash, as dockerd does.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        if is_restricted_name(name) { Ok(Self(name.to_owned())) } else { Err(NameError(text.to_owned())) }
    }
}

/// The text cannot name a volume; dockerd's messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeNameError {
    /// One character, or none.
    #[error("create {0}: volume name is too short, names should be at least two alphanumeric characters")]
    TooShort(String),
    /// A character outside the allowed ones.
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, only {RESTRICTED_NAME_CHARS:?} are allowed. \
         If you intended to pass a host directory, use absolute path"
    )]
    InvalidCharacters(String),
}

/// A volume's name; 64 hexadecimal digits for an anonymous one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// The name as people type it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = VolumeNameError;

    fn from_str(text: &str) -> Result<Self, VolumeNameError> {
        match text {
            _ if text.len() < 2 => Err(VolumeNameError::TooShort(text.to_owned())),
            _ if is_restricted_name(text) => Ok(Self(text.to_owned())),
            _ => Err(VolumeNameError::InvalidCharacters(text.to_owned())),
        }
    }
}

macro_rules! name_conversions {
    ($name:ident, $error:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_conversions!(ContainerName, NameError);
name_conversions!(VolumeName, VolumeNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names() {
        for good in ["ab", "/web", "A.b_c-d", "0x"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good}");
        }
        for wrong in ["", "/", "a", "-ab", ".ab", "a b", "a/b", "//ab", "ab\n", "é2"] {
            assert!(wrong.parse::<ContainerName>().is_err(), "{wrong}");
        }
        let name: ContainerName = "/web".parse().unwrap();
        assert_eq!((name.as_str(), name.with_slash().as_str()), ("web", "/web"));
        assert_eq!(
            "a b".parse::<ContainerName>().unwrap_err().to_string(),
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn volume_names() {
        assert!("data_1".parse::<VolumeName>().is_ok());
        assert_eq!(
            "a".parse::<VolumeName>().unwrap_err().to_string(),
            "create a: volume name is too short, names should be at least two alphanumeric characters"
        );
        assert_eq!(
            "../x".parse::<VolumeName>().unwrap_err().to_string(),
            "create ../x: \"../x\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        );
    }
}
