//! For which machines an image is, and which one of an index fits best.
//!
//! Names are Go's (`GOOS`, `GOARCH`), as the OCI image-spec wants them; the order of preference is containerd's: a
//! machine runs its own variant and the older ones of its architecture.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Index, IndexEntry, ManifestError};

/// An operating system, an architecture and its variant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Go's name, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v8`; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows' build; empty elsewhere.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

impl Platform {
    /// This machine.
    pub fn current() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            "riscv64" => ("riscv64", ""),
            "powerpc64" => ("ppc64le", ""),
            "s390x" => ("s390x", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os_version: String::new(),
        }
    }

    /// The platform in the words in which one is stated, with the defaults that are never stated.
    fn normalised(mut self) -> Self {
        self.os.make_ascii_lowercase();
        self.architecture.make_ascii_lowercase();
        self.variant.make_ascii_lowercase();
        if self.os == "macos" {
            "darwin".clone_into(&mut self.os);
        }
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", if variant == "v1" { "" } else { variant }),
            ("i386" | "i486" | "i586" | "i686", variant) => ("386", variant),
            ("aarch64" | "arm64", "" | "8") => ("arm64", "v8"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        (self.architecture, self.variant) = (architecture.to_owned(), variant.to_owned());
        self
    }

    /// How well an image for `image` runs where this platform is wanted: less is better, `None` not at all.
    fn distance(&self, image: &Self) -> Option<u8> {
        let (wanted, image) = (self.clone().normalised(), image.clone().normalised());
        if wanted.os != image.os || wanted.architecture != image.architecture {
            return None;
        }
        if wanted.variant == image.variant {
            return Some(0);
        }
        // An image that states no level runs on every one; a later level than this machine's does not run on it.
        let level = |variant: &str| match variant {
            "" => Some(0),
            variant => variant.strip_prefix('v').and_then(|number| number.parse::<u8>().ok()),
        };
        let (wanted, image) = (level(&wanted.variant)?, level(&image.variant)?);
        (image < wanted).then(|| wanted - image)
    }

    /// True where an image for `image` runs on what is wanted.
    pub fn accepts(&self, image: &Self) -> bool {
        self.distance(image).is_some()
    }

    /// The entry of `index` that fits best; of several equal ones the first.
    ///
    /// # Errors
    /// [`ManifestError::NoMatch`].
    pub fn select<'i>(&self, index: &'i Index) -> Result<&'i IndexEntry, ManifestError> {
        let fitting = index.manifests.iter().filter(|entry| !entry.is_attestation()).filter_map(|entry| {
            let distance = match &entry.platform {
                Some(platform) => self.distance(platform)?,
                // An index of one image need not say for which machine it is.
                None => u8::MAX,
            };
            Some((distance, entry))
        });
        fitting
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, entry)| entry)
            .ok_or_else(|| ManifestError::NoMatch { platform: self.clone() })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        // What is the same without saying it is not said, as containerd's formatter has it.
        match (self.architecture.as_str(), self.variant.as_str()) {
            (_, "") | ("arm64", "v8") => Ok(()),
            (_, variant) => write!(formatter, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let parts: Vec<_> = text.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(valid) {
            return Err(ManifestError::Platform(text.to_owned()));
        }
        let platform = |os: &str, architecture: &str, variant: &str| {
            let (os, architecture, variant) = (os.to_owned(), architecture.to_owned(), variant.to_owned());
            Self { os, architecture, variant, os_version: String::new() }.normalised()
        };
        match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd" | "macos"] => {
                let own = Self::current();
                Ok(platform(parts[0], &own.architecture, &own.variant))
            }
            [architecture] => Ok(platform("linux", architecture, "")),
            [os, architecture] => Ok(platform(os, architecture, "")),
            [os, architecture, variant] => Ok(platform(os, architecture, variant)),
            _ => Err(ManifestError::Platform(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Windows/AMD64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in ["", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn prefers_the_nearest_older_variant() {
        for (wanted, offered, chosen) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some(1)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm64", &["linux/arm64/v8"], Some(0)),
            ("linux/arm64", &["linux/arm/v7"], None),
            ("windows/amd64", &["linux/amd64"], None),
            ("linux/amd64", &["unknown/unknown"], None),
        ] {
            let entries: Vec<_> = offered
                .iter()
                .enumerate()
                .map(|(number, platform)| {
                    let mut parts = platform.split('/');
                    let mut part = || parts.next().unwrap_or_default();
                    serde_json::json!({
                        "mediaType": "", "size": number, "digest": format!("sha256:{}", "a".repeat(64)),
                        "platform": {"os": part(), "architecture": part(), "variant": part()},
                    })
                })
                .collect();
            let index: Index = serde_json::from_value(serde_json::json!({"manifests": entries})).unwrap();
            let selected = wanted.parse::<Platform>().unwrap().select(&index).map(|entry| entry.target.size);
            assert_eq!(selected.ok(), chosen, "{wanted} of {offered:?}");
        }
    }
}
