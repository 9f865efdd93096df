//! Exporters: `--output`, as clients send it.
//!
//! Source: BuildKit's exporter/containerimage/exptypes (keys.go) and moby's builder-next, whose exporter `moby` is its image store.

use std::collections::HashMap;

use dory_build::{Annotation, CacheLocation};
use dory_types::{ImageReference, parse_bool};

use crate::attributes::AttributeError;

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exporter {
    /// An image, kept by the engine, and pushed where that is asked for.
    Image {
        /// Its names; none for an image without one.
        names: Vec<ImageReference>,
        /// It is pushed to the registries of its names.
        push: bool,
        /// These may speak plain HTTP.
        insecure: bool,
    },
    /// An image as an archive, which the client takes.
    Archive {
        /// Its names, which are told in it.
        names: Vec<ImageReference>,
        /// The exporter's name: `oci` or `docker`.
        kind: &'static str,
    },
    /// The files, as a directory of the client's.
    Local,
    /// The files, as an archive that the client takes.
    Tar,
}

impl Exporter {
    /// Reads one exporter, and the annotations in its attributes.
    ///
    /// # Errors
    /// One that nobody knows, and attributes that cannot be followed.
    pub fn read(
        kind: &str,
        attributes: &HashMap<String, String>,
    ) -> Result<(Self, Vec<Annotation>), AttributeError> {
        let boolean = |name: &str| flag(attributes, name);
        let annotations = annotations(attributes)?;
        let exporter = match kind {
            "moby" | "image" => {
                refuse(attributes, &["push-by-digest"])?;
                if boolean("store")? == Some(false) {
                    return Err(AttributeError::Unsupported(format!("`store=false` of the exporter {kind}")));
                }
                Self::Image {
                    names: names(attributes)?,
                    push: boolean("push")?.unwrap_or_default(),
                    insecure: boolean("registry.insecure")?.unwrap_or_default(),
                }
            }
            "oci" | "docker" => {
                if boolean("tar")? == Some(false) {
                    return Err(AttributeError::Unsupported(format!("`tar=false` of the exporter {kind}")));
                }
                let kind = if kind == "oci" { "oci" } else { "docker" };
                Self::Archive { names: names(attributes)?, kind }
            }
            "local" => Self::Local,
            "tar" => Self::Tar,
            other => return Err(AttributeError::Unsupported(format!("the exporter `{other}`"))),
        };
        Ok((exporter, annotations))
    }

    /// What the exporter is called while it works.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Image { .. } => "exporting to image",
            Self::Archive { kind: "oci", .. } => "exporting to oci image format",
            Self::Archive { .. } => "exporting to docker image format",
            Self::Local => "exporting to client directory",
            Self::Tar => "exporting to client tarball",
        }
    }
}

fn flag(attributes: &HashMap<String, String>, name: &str) -> Result<Option<bool>, AttributeError> {
    match attributes.get(name).map(String::as_str) {
        None => Ok(None),
        // An attribute without a value is switched on.
        Some("") => Ok(Some(true)),
        Some(value) => parse_bool(value).map(Some).ok_or_else(|| AttributeError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            reason: "not a boolean".to_owned(),
        }),
    }
}

fn refuse(attributes: &HashMap<String, String>, names: &[&str]) -> Result<(), AttributeError> {
    for name in names {
        if flag(attributes, name)? == Some(true) {
            return Err(AttributeError::Unsupported(format!("`{name}` of an exporter")));
        }
    }
    Ok(())
}

fn names(attributes: &HashMap<String, String>) -> Result<Vec<ImageReference>, AttributeError> {
    let names = attributes.get("name").map(String::as_str).unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty() && *name != "*");
    names
        .map(|name| {
            name.parse().map_err(|error: dory_types::ReferenceError| AttributeError::Value {
                name: "name".to_owned(),
                value: name.to_owned(),
                reason: error.to_string(),
            })
        })
        .collect()
}

/// `annotation[-LEVEL][[PLATFORM]].KEY`.
fn annotations(attributes: &HashMap<String, String>) -> Result<Vec<Annotation>, AttributeError> {
    let mut annotations = Vec::new();
    for (name, value) in attributes {
        let Some(rest) = name.strip_prefix("annotation") else { continue };
        let Some((level, key)) = rest.split_once('.') else { continue };
        let level = match level {
            "" => "manifest",
            level => level.strip_prefix('-').unwrap_or(level),
        };
        if level.contains('[') {
            return Err(AttributeError::Unsupported(format!("an annotation of one platform (`{name}`)")));
        }
        annotations.push(Annotation { level: level.to_owned(), key: key.to_owned(), value: value.clone() });
    }
    annotations.sort_by(|one, other| (&one.level, &one.key).cmp(&(&other.level, &other.key)));
    Ok(annotations)
}

/// Places for cached results, as requests have them.
pub fn cache_locations<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a HashMap<String, String>)>,
) -> Vec<CacheLocation> {
    let location = |(kind, attributes): (&str, &HashMap<String, String>)| CacheLocation {
        kind: kind.to_owned(),
        attributes: attributes.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    };
    entries.into_iter().map(location).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, pairs: &[(&str, &str)]) -> Result<(Exporter, Vec<Annotation>), AttributeError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Exporter::read(kind, &pairs.collect())
    }

    #[test]
    fn exporters_of_clients() {
        let (exporter, annotations) = read(
            "moby",
            &[
                ("name", "a:1,docker.io/b/c"),
                ("push", ""),
                ("annotation.x.y", "z"),
                ("annotation-index.a", "b"),
            ],
        )
        .unwrap();
        let Exporter::Image { names, push: true, insecure: false } = exporter else { panic!("{exporter:?}") };
        assert_eq!(names.iter().map(ImageReference::familiar).collect::<Vec<_>>(), ["a:1", "b/c:latest"]);
        let levels: Vec<_> =
            annotations.iter().map(|note| (note.level.as_str(), note.key.as_str())).collect();
        assert_eq!(levels, [("index", "a"), ("manifest", "x.y")]);
        assert_eq!(read("oci", &[]).unwrap().0, Exporter::Archive { names: Vec::new(), kind: "oci" });
        assert_eq!(read("local", &[("dest", "x")]).unwrap().0, Exporter::Local);
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (kind, pairs, expected) in [
            ("floppy", &[][..], "the exporter `floppy` is not supported"),
            ("image", &[("push-by-digest", "true")][..], "`push-by-digest` of an exporter is not supported"),
            ("oci", &[("tar", "false")][..], "`tar=false` of the exporter oci is not supported"),
            ("image", &[("name", "A B")][..], "invalid value `A B` for `name`"),
            ("image", &[("push", "maybe")][..], "invalid value `maybe` for `push`"),
        ] {
            let error = read(kind, pairs).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
