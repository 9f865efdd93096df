//! `RUN --mount`.

use dory_types::{ByteSize, parse_bool};

use crate::csv;
use crate::error::{ExpansionError, SyntaxError, near};

/// The kinds of mounts that a `RUN` can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountType {
    /// Files of the context, a stage or an image; the default.
    #[default]
    Bind,
    /// A directory that lives on between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file or variable that leaves no trace in the image.
    Secret,
    /// The client's SSH agent.
    Ssh,
}

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];

impl MountType {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self).map_or("bind", |(name, _)| name)
    }
}

/// How builds that run side by side share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSharing {
    /// All at once; the default.
    #[default]
    Shared,
    /// Each its own while another one has it.
    Private,
    /// One after the other.
    Locked,
}

const SHARINGS: [(&str, CacheSharing); 3] =
    [("shared", CacheSharing::Shared), ("private", CacheSharing::Private), ("locked", CacheSharing::Locked)];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount of a `RUN`, its variables expanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountType,
    /// A stage, image or named context; the build context where it is not given.
    pub from: Option<String>,
    /// The path in it.
    pub source: Option<String>,
    /// Where in the container.
    pub target: Option<String>,
    /// Whether the command may write there. Only caches and tmpfs are writable by default.
    pub read_only: bool,
    /// Bytes of a tmpfs; unbounded where it is not given.
    pub size: Option<u64>,
    /// The cache's, secret's or agent's name.
    pub id: Option<String>,
    /// How a cache is shared.
    pub sharing: CacheSharing,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// The variable that gets a secret; `Some("")` names it after its id.
    pub env: Option<String>,
    /// Permissions of a cache, secret or agent socket.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

impl Mount {
    /// Checks what can be checked before variables have values: the fields' form, and that `from` has no variable.
    ///
    /// # Errors
    /// Quotes out of place; a variable in `from`.
    pub(crate) fn check(text: &str) -> Result<(), SyntaxError> {
        for field in split(text)? {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            let variable = value.find('$').is_some_and(|at| at + 1 != value.len());
            if key.eq_ignore_ascii_case("from") && variable {
                return wrong("'from' doesn't support variable expansion, define alias stage instead");
            }
        }
        Ok(())
    }

    /// Reads `type=…,target=…`; `expand` gives each value its variables.
    ///
    /// # Errors
    /// An unknown key or value, or one that this kind of mount does not take.
    pub fn parse(
        text: &str,
        mut expand: impl FnMut(&str) -> Result<String, ExpansionError>,
    ) -> Result<Self, SyntaxError> {
        let mut mount = Self::default();
        let mut sharing = None;
        let mut access = None;
        for field in split(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(expand(value)?)),
                None => (field.to_ascii_lowercase(), None),
            };
            mount.set(&key, value, &field, &mut sharing, &mut access)?;
        }
        let writable = matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
        mount.read_only = access.unwrap_or(!writable);
        mount.sharing = sharing.unwrap_or_default();
        mount.fits_together(sharing.is_some())?;
        Ok(mount)
    }

    fn set(
        &mut self,
        key: &str,
        value: Option<String>,
        field: &str,
        sharing: &mut Option<CacheSharing>,
        access: &mut Option<bool>,
    ) -> Result<(), SyntaxError> {
        let secret_like = matches!(self.kind, MountType::Secret | MountType::Ssh);
        let unexpected = || wrong(format!("unexpected key '{key}' for mount type '{}'", self.kind.as_str()));
        let Some(value) = value else {
            match key {
                "readonly" | "ro" => *access = Some(true),
                "readwrite" | "rw" => *access = Some(false),
                "required" if secret_like => self.required = true,
                "required" => return unexpected(),
                _ => return wrong(format!("invalid field '{field}' must be a key=value pair")),
            }
            return Ok(());
        };
        let number = |radix| {
            u32::from_str_radix(&value, radix).or_else(|_| wrong(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => self.kind = choose(&TYPES, &value, "mount type")?,
            "from" => self.from = given(value),
            "source" | "src" => self.source = given(value),
            "target" | "dst" | "destination" => self.target = given(value),
            "readonly" | "ro" => *access = Some(boolean(key, &value)?),
            "readwrite" | "rw" => *access = Some(!boolean(key, &value)?),
            "required" if secret_like => self.required = boolean(key, &value)?,
            "size" if self.kind == MountType::Tmpfs => match value.parse::<ByteSize>() {
                Ok(size) => self.size = Some(size.0).filter(|&size| size > 0),
                Err(_) => return wrong(format!("invalid value for {key}: {value}")),
            },
            "required" | "size" => return unexpected(),
            "id" => self.id = given(value),
            "sharing" => *sharing = Some(choose(&SHARINGS, &value, "sharing value")?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value),
            _ => {
                let hint = near(key, KEYS).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
                return wrong(format!("unexpected key '{key}' in '{field}'{hint}"));
            }
        }
        Ok(())
    }

    fn fits_together(&self, has_sharing: bool) -> Result<(), SyntaxError> {
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((name, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return wrong(format!("{name} not allowed for \"{}\" type mounts", self.kind.as_str()));
            }
        }
        if self.kind == MountType::Secret {
            match self {
                Self { from: Some(_), .. } => return wrong("secret mount should not have a from"),
                _ if has_sharing => return wrong("secret mount should not define sharing"),
                Self { source: None, target: None, id: None, .. } => {
                    return wrong("invalid secret mount. one of source, target required");
                }
                Self { source: Some(_), id: Some(_), .. } => {
                    return wrong("both source and id can't be set");
                }
                _ => {}
            }
        }
        if has_sharing && self.kind != MountType::Cache {
            return wrong(format!("invalid cache sharing set for {} mount", self.kind.as_str()));
        }
        Ok(())
    }
}

fn split(text: &str) -> Result<Vec<String>, SyntaxError> {
    match csv::fields(text) {
        Some(fields) => Ok(fields),
        None => wrong("failed to parse csv mounts: bare or open quote"),
    }
}

fn wrong<T>(message: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError::Mount(message.into()))
}

fn given(value: String) -> Option<String> {
    Some(value).filter(|value| !value.is_empty())
}

fn boolean(key: &str, value: &str) -> Result<bool, SyntaxError> {
    parse_bool(value).ok_or_else(|| SyntaxError::Mount(format!("invalid value for {key}: {value}")))
}

fn choose<T: Copy>(known: &[(&str, T)], value: &str, what: &str) -> Result<T, SyntaxError> {
    let lower = value.to_lowercase();
    known.iter().find(|(name, _)| *name == lower).map(|(_, kind)| *kind).ok_or_else(|| {
        let hint = near(value, known.iter().map(|(name, _)| *name));
        let hint = hint.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        SyntaxError::Mount(format!("unsupported {what} {value:?}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, |value| Ok(value.replace("$V", "v"))).map_err(|error| error.to_string())
    }

    #[test]
    fn reads() {
        let text = |text: &str| Some(text.to_owned());
        let cache = Mount {
            kind: MountType::Cache,
            target: text("/c/v"),
            sharing: CacheSharing::Locked,
            mode: Some(0o755),
            uid: Some(33),
            ..Mount::default()
        };
        assert_eq!(parse("type=cache,dst=/c/$V,sharing=locked,mode=0755,uid=33"), Ok(cache));
        let bind = Mount { target: text("/x"), source: text("a,b"), read_only: true, ..Mount::default() };
        assert_eq!(parse("target=/x,\"src=a,b\""), Ok(bind));
        assert_eq!(parse("target=/x,rw").map(|mount| mount.read_only), Ok(false));
        assert_eq!(parse("type=tmpfs,target=/x,size=1m").map(|mount| mount.size), Ok(Some(1 << 20)));
        assert_eq!(parse("type=secret,id=k,required").map(|mount| mount.required), Ok(true));
        assert_eq!(
            parse("type=secret,id=k,env").map(|mount| mount.env),
            Err("invalid field 'env' must be a key=value pair".into())
        );
    }

    #[test]
    fn refuses() {
        for (text, message) in [
            ("type=cach", "unsupported mount type \"cach\" (did you mean cache?)"),
            ("target=/x,uid=1", "uid not allowed for \"bind\" type mounts"),
            ("type=cache,required", "unexpected key 'required' for mount type 'cache'"),
            ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=ssh,sharing=locked", "invalid cache sharing set for ssh mount"),
            ("tagret=/x", "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("target=\"x", "failed to parse csv mounts: bare or open quote"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
        assert!(Mount::check("from=$x").is_err() && Mount::check("target=$x,from=a").is_ok());
    }
}
