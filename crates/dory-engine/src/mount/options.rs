//! `--mount` and `--volumes-from` (moby `volume/mounts/linux_parser.go`).

use dory_types::VolumeName;

use super::bind::check_destination;
use super::{Point, PointKind, clean, is_propagation};
use crate::EngineError;
use crate::config::{MountSpec, TmpfsOptions};

/// Reads one entry of `HostConfig.Mounts`. That a bind's source exists is checked by the caller.
pub(crate) fn from_mount(mount: &MountSpec) -> Result<Point, EngineError> {
    let kind = mount.kind.as_str();
    let invalid =
        |reason: &str| EngineError::invalid(format!("invalid mount config for type \"{kind}\": {reason}"));
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    match kind {
        "bind" | "volume" | "tmpfs" => {}
        _ => return Err(invalid("mount type unknown")),
    }
    check_destination(&mount.target, kind).map_err(EngineError::invalid)?;
    let foreign = [
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("ImageOptions", mount.image_options.is_some(), "image"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
    ];
    if let Some((name, ..)) = foreign.iter().find(|(_, present, owner)| *present && *owner != kind) {
        return Err(invalid(&format!("field {name} must not be specified")));
    }
    let destination = clean(&mount.target);
    let mut point = match kind {
        "bind" => bind(mount, destination, invalid)?,
        "volume" => volume(mount, destination, invalid)?,
        _ => tmpfs(mount, destination, invalid)?,
    };
    point.writable = !mount.read_only;
    Ok(point)
}

fn bind(
    mount: &MountSpec,
    destination: String,
    invalid: impl Fn(&str) -> EngineError,
) -> Result<Point, EngineError> {
    if mount.source.is_empty() {
        return Err(invalid("field Source must not be empty"));
    }
    if !mount.source.starts_with('/') {
        return Err(invalid(&format!("invalid mount path: '{}' mount path must be absolute", mount.source)));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if !options.propagation.is_empty() && !is_propagation(&options.propagation) {
        return Err(invalid(&format!("invalid propagation mode: {}", options.propagation)));
    }
    if options.read_only_force_recursive && options.read_only_non_recursive {
        return Err(invalid("field BindOptions.ReadOnlyForceRecursive must not be specified"));
    }
    if options.read_only_force_recursive && !mount.read_only {
        return Err(invalid("option ReadOnlyForceRecursive needs a read-only mount"));
    }
    if options.read_only_force_recursive && options.non_recursive {
        return Err(invalid("option ReadOnlyForceRecursive contradicts NonRecursive"));
    }
    if options.read_only_force_recursive
        && !matches!(options.propagation.as_str(), "" | "private" | "rprivate")
    {
        // What is mounted below later would come in writable.
        return Err(invalid("option ReadOnlyForceRecursive needs the propagation private or rprivate"));
    }
    if options.subpath.starts_with('/') || options.subpath.split('/').any(|part| part == "..") {
        return Err(invalid("subpath must be a relative path within the source"));
    }
    let propagation =
        if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
    Ok(Point {
        source: clean(&mount.source),
        propagation,
        recursive: !options.non_recursive,
        recursive_readonly: mount.read_only && !options.non_recursive && !options.read_only_non_recursive,
        create_source: options.create_mountpoint,
        subpath: options.subpath,
        ..Point::new(PointKind::Bind, destination)
    })
}

fn volume(
    mount: &MountSpec,
    destination: String,
    invalid: impl Fn(&str) -> EngineError,
) -> Result<Point, EngineError> {
    let options = mount.volume_options.clone().unwrap_or_default();
    let mut point = if mount.source.is_empty() {
        if !options.subpath.is_empty() {
            return Err(invalid("must not set Subpath when using anonymous volumes"));
        }
        if mount.read_only {
            return Err(invalid("must not set ReadOnly mode when using anonymous volumes"));
        }
        Point::anonymous(&destination)
    } else {
        let name: VolumeName = mount
            .source
            .parse()
            .map_err(|error: dory_types::VolumeNameError| EngineError::invalid(error.to_string()))?;
        Point { volume: name.as_str().to_owned(), ..Point::new(PointKind::Volume, destination) }
    };
    let climbs = options.subpath.split('/').any(|part| part == "..");
    if options.subpath.starts_with('/') || climbs {
        return Err(invalid("subpath must be a relative path within the volume"));
    }
    point.subpath = options.subpath;
    point.copy = !options.no_copy;
    if let Some(driver) = options.driver_config {
        if !matches!(driver.name.as_str(), "" | "local") {
            let name = driver.name;
            return Err(EngineError::not_found(format!(
                "error looking up volume plugin {name}: plugin \"{name}\" not found"
            )));
        }
        point.volume_options = Some(driver.options).filter(|options| !options.is_empty());
    }
    point.volume_labels = Some(options.labels).filter(|labels| !labels.is_empty());
    Ok(point)
}

fn tmpfs(
    mount: &MountSpec,
    destination: String,
    invalid: impl Fn(&str) -> EngineError,
) -> Result<Point, EngineError> {
    if !mount.source.is_empty() {
        return Err(invalid("field Source must not be specified"));
    }
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let text = tmpfs_text(&options, mount.read_only);
    crate::spec::tmpfs::parse(&text)?;
    Ok(Point { tmpfs: text, ..Point::new(PointKind::Tmpfs, destination) })
}

fn tmpfs_text(options: &TmpfsOptions, read_only: bool) -> String {
    let mut words = Vec::new();
    if read_only {
        words.push("ro".to_owned());
    }
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes != 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    words.extend(options.options.iter().map(|option| option.join("=")));
    words.join(",")
}

/// Reads `container[:mode]`; true where the mounts stay writable as they are.
pub(crate) fn parse_volumes_from(text: &str) -> Result<(&str, bool), EngineError> {
    let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if container.is_empty() {
        return Err(EngineError::invalid(format!("invalid volumes-from specification: {text}")));
    }
    let words: Vec<&str> = mode.split(',').collect();
    if !words.iter().all(|word| matches!(*word, "rw" | "ro" | "z" | "Z")) {
        return Err(EngineError::invalid(format!("invalid mode: {mode}")));
    }
    Ok((container, !words.contains(&"ro")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BindOptions, VolumeOptions};

    fn mount(kind: &str, source: &str, target: &str) -> MountSpec {
        MountSpec { kind: kind.into(), source: source.into(), target: target.into(), ..MountSpec::default() }
    }

    #[test]
    fn reads_each_type() {
        let point = from_mount(&MountSpec {
            read_only: true,
            bind_options: Some(BindOptions { propagation: "rslave".into(), ..BindOptions::default() }),
            ..mount("bind", "/src", "/dst")
        })
        .unwrap();
        assert_eq!((point.kind, point.writable, &*point.propagation), (PointKind::Bind, false, "rslave"));
        assert!(point.recursive_readonly && !point.create_source);
        let point = from_mount(&MountSpec {
            volume_options: Some(VolumeOptions {
                subpath: "a/b".into(),
                no_copy: true,
                ..VolumeOptions::default()
            }),
            ..mount("volume", "data", "/dst")
        })
        .unwrap();
        assert_eq!((&*point.volume, &*point.subpath, point.copy), ("data", "a/b", false));
        let point = from_mount(&MountSpec {
            tmpfs_options: Some(TmpfsOptions { size_bytes: 5, mode: 0o700, ..TmpfsOptions::default() }),
            ..mount("tmpfs", "", "/dst")
        })
        .unwrap();
        assert_eq!(point.tmpfs, "mode=700,size=5");
        assert!(from_mount(&mount("volume", "", "/dst")).unwrap().anonymous);
    }

    #[test]
    fn refuses_in_dockerds_words() {
        let cases = [
            (
                mount("bind", "/a", ""),
                "invalid mount config for type \"bind\": field Target must not be empty",
            ),
            (
                mount("bind", "", "/b"),
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (mount("foo", "", "/b"), "invalid mount config for type \"foo\": mount type unknown"),
            (
                mount("tmpfs", "/a", "/b"),
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ),
            (
                mount("bind", "a", "/b"),
                "invalid mount config for type \"bind\": invalid mount path: 'a' mount path must be absolute",
            ),
            (
                MountSpec { bind_options: Some(BindOptions::default()), ..mount("volume", "a1", "/b") },
                "invalid mount config for type \"volume\": field BindOptions must not be specified",
            ),
        ];
        for (mount, message) in cases {
            assert_eq!(from_mount(&mount).unwrap_err().message(), message);
        }
    }

    #[test]
    fn reads_volumes_from() {
        assert_eq!(parse_volumes_from("web").unwrap(), ("web", true));
        assert_eq!(parse_volumes_from("web:ro,z").unwrap(), ("web", false));
        assert!(parse_volumes_from("web:nocopy").is_err());
        assert!(parse_volumes_from(":ro").is_err());
    }
}
