//! `-v`: `[source:]destination[:mode]` (moby `volume/mounts/linux_parser.go`).

use dory_types::VolumeName;

use super::{Point, PointKind, clean, is_propagation};
use crate::EngineError;

/// Reads one entry of `HostConfig.Binds`.
pub(crate) fn parse_bind(text: &str) -> Result<Point, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid());
    }
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => (None, *destination, ""),
        // A volume without a name has no mode either.
        [_, mode] if is_mode(mode) => return Err(invalid()),
        [source, destination] => (Some(*source), *destination, ""),
        [source, destination, mode] => (Some(*source), *destination, *mode),
        _ => return Err(invalid()),
    };
    if !is_mode(mode) {
        return Err(EngineError::invalid(format!("invalid mode: {mode}")));
    }
    let kind = match source {
        Some(source) if source.starts_with('/') => "bind",
        _ => "volume",
    };
    check_destination(destination, kind).map_err(|reason| {
        EngineError::invalid(format!("invalid volume specification: '{text}': {reason}"))
    })?;
    let destination = clean(destination);
    let mut point = match source {
        None => Point::anonymous(&destination),
        Some(source) if source.starts_with('/') => Point {
            source: clean(source),
            propagation: "rprivate".to_owned(),
            create_source: true,
            ..Point::new(PointKind::Bind, destination)
        },
        Some(name) => {
            let name: VolumeName = name
                .parse()
                .map_err(|error: dory_types::VolumeNameError| EngineError::invalid(error.to_string()))?;
            Point { volume: name.as_str().to_owned(), ..Point::new(PointKind::Volume, destination) }
        }
    };
    apply_mode(&mut point, mode, text)?;
    Ok(point)
}

/// Checks the path in the container.
pub(super) fn check_destination(destination: &str, kind: &str) -> Result<(), String> {
    if !destination.starts_with('/') {
        return Err(format!(
            "invalid mount config for type \"{kind}\": invalid mount path: '{destination}' mount path must be absolute"
        ));
    }
    if clean(destination) == "/" {
        return Err(format!(
            "invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        ));
    }
    Ok(())
}

/// The groups of which a mode takes at most one word each.
fn group(word: &str) -> Option<usize> {
    match word {
        "rw" | "ro" => Some(0),
        "z" | "Z" => Some(1),
        "nocopy" => Some(2),
        "consistent" | "cached" | "delegated" => Some(3),
        _ if is_propagation(word) => Some(4),
        _ => None,
    }
}

/// True for a mode that dockerd accepts; empty is one.
fn is_mode(mode: &str) -> bool {
    if mode.is_empty() {
        return true;
    }
    let mut seen = [false; 5];
    mode.split(',').all(|word| match group(word) {
        Some(index) => !std::mem::replace(&mut seen[index], true),
        None => false,
    })
}

fn apply_mode(point: &mut Point, mode: &str, text: &str) -> Result<(), EngineError> {
    point.mode = mode.to_owned();
    for word in mode.split(',') {
        match word {
            "ro" => {
                point.writable = false;
                point.recursive_readonly = point.kind == PointKind::Bind;
            }
            "nocopy" => point.copy = false,
            _ if is_propagation(word) && point.kind == PointKind::Bind => {
                word.clone_into(&mut point.propagation)
            }
            _ if is_propagation(word) || (word == "nocopy" && point.kind == PointKind::Bind) => {
                return Err(EngineError::invalid(format!("invalid volume specification: '{text}'")));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let cases = [
            ("/data", PointKind::Volume, "", "", "/data", true),
            ("/host:/data", PointKind::Bind, "/host", "", "/data", true),
            ("/host/../h:/data/:ro,Z", PointKind::Bind, "/h", "", "/data", false),
            ("name:/data", PointKind::Volume, "", "name", "/data", true),
            ("name:/data:nocopy", PointKind::Volume, "", "name", "/data", true),
        ];
        for (text, kind, source, volume, destination, writable) in cases {
            let point = parse_bind(text).unwrap();
            let found = (point.kind, &*point.source, &*point.volume, &*point.destination, point.writable);
            assert_eq!(found, (kind, source, volume, destination, writable), "{text}");
        }
        assert!(parse_bind("/data").unwrap().anonymous);
        assert!(!parse_bind("name:/data:nocopy").unwrap().copy);
        assert_eq!(parse_bind("/a:/b:rslave").unwrap().propagation, "rslave");
    }

    #[test]
    fn refuses_in_dockerds_words() {
        let cases = [
            ("", "invalid volume specification: ''"),
            ("/data:ro", "invalid volume specification: '/data:ro'"),
            ("a::b", "invalid volume specification: 'a::b'"),
            ("/a:/b:rw:x", "invalid volume specification: '/a:/b:rw:x'"),
            ("/a:/b:foo", "invalid mode: foo"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(parse_bind(text).unwrap_err().message(), message, "{text}");
        }
        assert!(parse_bind("a/b:/c").is_err());
    }
}
