//! `Binds` and `Mounts` of API 1.51: where a container's files come from.
//!
//! Sources of the host are looked at one by one ([`PathMeaning`]) and sent on as what they mean, never as what was
//! written. Volumes that are named for the first time are made before the container, so that they carry their owner.

use serde_json::{Map, Value};

use super::{field, labels, mark, volume};
use crate::facts::{Kind, Mounted, Need, PathMeaning, Resolution};
use crate::judge::{self, Judgement, dropped, free};
use crate::policy::{BindRoot, Choice};
use crate::shape::Field;
use crate::shape::Shape::{Bool, Int, Object, Text, TextLists, TextMap};

static BIND: &[Field] = &[
    field("Propagation", Text, propagation),
    field("NonRecursive", Bool, free),
    field("CreateMountpoint", Bool, dropped),
    field("ReadOnlyNonRecursive", Bool, free),
    field("ReadOnlyForceRecursive", Bool, free),
];
static DRIVER: &[Field] = &[field("Name", Text, volume::driver), field("Options", TextMap, volume::options)];
static VOLUME: &[Field] = &[
    field("NoCopy", Bool, free),
    field("Labels", TextMap, labels),
    field("Subpath", Text, subpath),
    field("DriverConfig", Object(DRIVER), free),
];
static IMAGE: &[Field] = &[field("Subpath", Text, subpath)];
static TMPFS: &[Field] =
    &[field("SizeBytes", Int, free), field("Mode", Int, free), field("Options", TextLists, free)];

/// API 1.51, `Mount`.
pub(crate) static MOUNT: &[Field] = &[
    field("Target", Text, free),
    field("Source", Text, free),
    field("Type", Text, free),
    field("ReadOnly", Bool, free),
    field("Consistency", Text, dropped),
    field("BindOptions", Object(BIND), free),
    field("VolumeOptions", Object(VOLUME), free),
    field("ImageOptions", Object(IMAGE), free),
    field("TmpfsOptions", Object(TMPFS), free),
];

fn propagation(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    match value.as_str()? {
        "" | "private" | "rprivate" | "slave" | "rslave" => Some(value),
        "shared" | "rshared" => {
            let choice = judgement.policy.binds.propagation;
            judgement.choose(choice, "binds.propagation", "shared propagation").then_some(value)
        }
        other => {
            judgement.refuse("model", format!("the propagation {other:?} is not known"));
            None
        }
    }
}

fn subpath(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let path = value.as_str()?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        judgement.refuse("model", format!("the path {path:?} leads out of its volume"));
    }
    Some(value)
}

/// A source, as it is sent on.
enum Source {
    /// A path of the host.
    Host { path: String, read_only: bool },
    /// A part of what the caller has mounted itself.
    Mine { mounted: Mounted, subpath: String, read_only: bool },
}

impl Source {
    fn read_only(&self) -> bool {
        match self {
            Self::Host { read_only, .. } | Self::Mine { read_only, .. } => *read_only,
        }
    }
}

/// The minor version of the API that brought `VolumeOptions.Subpath`.
const SUBPATH_VERSION: u32 = 45;

/// Makes `mount` one of a part of what the caller has mounted. The engine follows no link out of it, at no start.
fn take_part(
    judgement: &mut Judgement<'_>,
    mount: &mut Map<String, Value>,
    mounted: Mounted,
    subpath: String,
) {
    let (kind, source, options) = match mounted {
        Mounted::Bind(path) => ("bind", path, "BindOptions"),
        Mounted::Volume(name) => ("volume", name, "VolumeOptions"),
    };
    if kind == "volume" {
        mount.remove("BindOptions");
    }
    mount.insert("Type".to_owned(), kind.into());
    mount.insert("Source".to_owned(), source.into());
    let options = mount.entry(options).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(options) = options {
        if !subpath.is_empty() {
            options.insert("Subpath".to_owned(), subpath.into());
        }
        if kind == "volume" {
            judgement.version = judgement.version.max(SUBPATH_VERSION);
            options.insert("NoCopy".to_owned(), true.into());
        }
    }
}

/// What the path means, and whether it may be mounted.
fn source(judgement: &mut Judgement<'_>, path: &str) -> Option<Source> {
    let Some(meaning) = judgement.facts.paths.get(path) else {
        judgement.needs.push(Need::Path(path.to_owned()));
        return None;
    };
    match meaning {
        PathMeaning::Mine { mounted, subpath, read_only } => {
            Some(Source::Mine { mounted: mounted.clone(), subpath: subpath.clone(), read_only: *read_only })
        }
        PathMeaning::Host(real) => allowed(judgement, path, real),
        PathMeaning::Socket => socket(judgement, path),
        PathMeaning::Missing if judgement.policy.binds.any => {
            Some(Source::Host { path: path.to_owned(), read_only: false })
        }
        PathMeaning::Missing => {
            let message =
                format!("invalid mount config for type \"bind\": bind source path does not exist: {path}");
            judgement.answer(400, "binds.allow", message);
            None
        }
        PathMeaning::Unusable(reason) => {
            judgement.refuse("binds.allow", format!("{path:?} cannot be mounted: {reason}"));
            None
        }
    }
}

fn allowed(judgement: &mut Judgement<'_>, path: &str, real: &str) -> Option<Source> {
    let rules = &judgement.policy.binds;
    if rules.any {
        return Some(Source::Host { path: real.to_owned(), read_only: false });
    }
    let below = |root: &&BindRoot| {
        let root = root.source.trim_end_matches('/');
        real.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match rules.allow.iter().chain(&judgement.identity.binds).find(below) {
        Some(root) => Some(Source::Host { path: real.to_owned(), read_only: root.read_only }),
        None => {
            judgement.refuse("binds.allow", format!("{path:?} is below no directory that may be mounted"));
            None
        }
    }
}

fn socket(judgement: &mut Judgement<'_>, path: &str) -> Option<Source> {
    match (judgement.policy.containers.socket, &judgement.identity.socket) {
        (Choice::Allow, Some(socket)) => {
            judgement.change("containers.socket", format!("{path} is this session's own socket there"));
            Some(Source::Host { path: socket.clone(), read_only: false })
        }
        (Choice::Allow, None) => {
            judgement.refuse("containers.socket", "this session has no socket that can be mounted");
            None
        }
        _ => {
            judgement.refuse("containers.socket", format!("{path:?} commands the engine"));
            None
        }
    }
}

/// The name of a volume that the session may mount; one that is not there yet is made first.
fn named_volume(judgement: &mut Judgement<'_>, name: &str) -> Option<String> {
    match judgement.name(Kind::Volume, name)? {
        Resolution::Own(id) | Resolution::Shared { id, .. } => Some(id),
        Resolution::Absent => {
            let limit = judgement.policy.limits.volumes;
            judgement.quota(Kind::Volume, limit, "limits.volumes");
            judgement.needs.push(Need::NewVolume(name.to_owned()));
            None
        }
        Resolution::Foreign | Resolution::Joined(_) => {
            judgement.answer(409, "objects", format!("the volume {name} belongs to somebody else"));
            None
        }
    }
}

/// `SOURCE:TARGET[:OPTIONS]`, or a path alone for an anonymous volume.
pub(crate) fn binds(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let binds: Vec<Value> =
        judge::texts(value).iter().filter_map(|text| bind(judgement, text)).map(Value::from).collect();
    Some(binds.into())
}

fn bind(judgement: &mut Judgement<'_>, text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, target, options) = match parts[..] {
        [target] if target.starts_with('/') => return Some(target.to_owned()),
        [from, target] => (from, target, ""),
        [from, target, options] => (from, target, options),
        _ => ("", "", ""),
    };
    if from.is_empty() || !target.starts_with('/') {
        judgement.answer(400, "model", format!("invalid volume specification: '{text}'"));
        return None;
    }
    let mut kept: Vec<String> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" | "nocopy" => kept.push(option.to_owned()),
            // Labels the host's files; a volume's are the engine's own.
            "z" | "Z" if !from.starts_with('/') || judgement.policy.binds.any => kept.push(option.to_owned()),
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            other => kept.extend(propagation(judgement, other.into()).map(judge::text)),
        }
    }
    let from = if from.starts_with('/') {
        let source = source(judgement, from)?;
        if source.read_only() {
            kept.retain(|option| option != "rw");
            if !kept.iter().any(|option| option == "ro") {
                judgement.change("binds.allow", format!("{from} is mounted read-only"));
                kept.push("ro".to_owned());
            }
        }
        match source {
            Source::Host { path, .. } => {
                if path.contains([':', ',']) {
                    judgement.refuse("model", format!("{path:?} cannot be written in a bind"));
                }
                path
            }
            // A bind's text has no place for the part.
            Source::Mine { mounted, subpath, .. } => {
                let mut mount = Map::new();
                mount.insert("Target".to_owned(), target.into());
                mount.insert("ReadOnly".to_owned(), kept.iter().any(|option| option == "ro").into());
                take_part(judgement, &mut mount, mounted, subpath);
                judgement.mounts.push(Value::Object(mount));
                return None;
            }
        }
    } else {
        named_volume(judgement, from)?
    };
    let options = if kept.is_empty() { String::new() } else { format!(":{}", kept.join(",")) };
    Some(format!("{from}:{target}{options}"))
}

/// Mounts as a whole, after their fields have been judged.
pub(crate) fn mounts(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let Value::Array(items) = value else { return None };
    let mut mounts = Vec::new();
    for item in items {
        if let Value::Object(mut item) = item
            && mount(judgement, &mut item)
        {
            mounts.push(Value::Object(item));
        }
    }
    Some(mounts.into())
}

fn mount(judgement: &mut Judgement<'_>, mount: &mut Map<String, Value>) -> bool {
    let from = judge::field(mount, "Source").to_owned();
    let found = match judge::field(mount, "Type") {
        "bind" => {
            let Some(source) = source(judgement, &from) else { return false };
            if source.read_only() {
                mount.insert("ReadOnly".to_owned(), true.into());
            }
            match source {
                Source::Host { path, .. } => Some(path),
                Source::Mine { mounted, subpath, .. } => {
                    take_part(judgement, mount, mounted, subpath);
                    return true;
                }
            }
        }
        "volume" if from.is_empty() => {
            let options = mount.entry("VolumeOptions").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(options) = options {
                mark(judgement, options, &[]);
            }
            return true;
        }
        "volume" => named_volume(judgement, &from),
        "image" => judgement.visible(Kind::Image, &from),
        "tmpfs" => return true,
        other => {
            judgement.refuse("model", format!("the mount type {other:?} is not known"));
            None
        }
    };
    found.map(|path| mount.insert("Source".to_owned(), path.into())).is_some()
}
