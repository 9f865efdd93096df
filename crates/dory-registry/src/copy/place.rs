//! Where images are, in skopeo's words.

use std::path::PathBuf;
use std::str::FromStr;

use dory_types::ImageReference;

use super::CopyError;

/// Where an image is, or is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `docker://NAME[:TAG|@DIGEST]`: a registry.
    Registry(ImageReference),
    /// `oci:DIRECTORY[:TAG]`: an OCI image layout.
    Layout {
        /// Its directory.
        directory: PathBuf,
        /// Which image of it.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: an OCI image layout in a tar archive.
    LayoutArchive {
        /// The archive.
        file: PathBuf,
        /// Which image of it.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:NAME[:TAG]]`: what `docker save` writes.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// Which image of it.
        reference: Option<ImageReference>,
    },
    /// `dory:NAME`: an engine, which whoever copies has to ask.
    Engine(String),
}

impl FromStr for Place {
    type Err = CopyError;

    fn from_str(text: &str) -> Result<Self, CopyError> {
        let invalid = || CopyError::Place(text.to_owned());
        let (transport, rest) = text.split_once(':').ok_or_else(invalid)?;
        if rest.is_empty() {
            return Err(invalid());
        }
        // A path ends at the first colon, as skopeo has it; a reference has colons of its own.
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (PathBuf::from(path), Some(name).filter(|name| !name.is_empty())),
            None => (PathBuf::from(rest), None),
        };
        let reference = |name: &str| {
            name.parse::<ImageReference>()
                .map_err(|source| CopyError::Reference { text: name.to_owned(), source })
        };
        match transport {
            "docker" => Ok(Self::Registry(reference(rest.strip_prefix("//").ok_or_else(invalid)?)?)),
            "oci" => Ok(Self::Layout { directory: path, tag: name.map(str::to_owned) }),
            "oci-archive" => Ok(Self::LayoutArchive { file: path, tag: name.map(str::to_owned) }),
            "docker-archive" => {
                Ok(Self::DockerArchive { file: path, reference: name.map(reference).transpose()? })
            }
            "dory" => Ok(Self::Engine(rest.to_owned())),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let text = |text: &str| text.parse::<Place>();
        assert_eq!(
            text("docker://localhost:5000/a:1").unwrap(),
            Place::Registry("localhost:5000/a:1".parse().unwrap())
        );
        assert_eq!(
            text("oci:/a/b:latest").unwrap(),
            Place::Layout { directory: "/a/b".into(), tag: Some("latest".to_owned()) }
        );
        assert_eq!(text("oci:a").unwrap(), Place::Layout { directory: "a".into(), tag: None });
        assert_eq!(
            text("docker-archive:x.tar:localhost:5000/a:2").unwrap(),
            Place::DockerArchive { file: "x.tar".into(), reference: "localhost:5000/a:2".parse().ok() }
        );
        assert_eq!(text("dory:busybox").unwrap(), Place::Engine("busybox".to_owned()));
        for wrong in ["", "busybox", "docker:busybox", "docker://A", "zip:x", "oci:", "docker-archive:x:A B"]
        {
            assert!(text(wrong).is_err(), "{wrong}");
        }
    }
}
