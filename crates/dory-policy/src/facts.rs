//! What a decision rests on beside the request and the policy: who asks, and what the names in it mean.
//!
//! Judging does no I/O. Where a fact is missing the judgement names what it needs ([`Need`]); whoever asked finds out and
//! asks again.

use std::collections::BTreeMap;

use crate::policy::BindRoot;

pub use dory_types::OWNER_LABEL;

/// Label of containers: the image as the caller named it, since the request is sent on with the image's id.
pub const IMAGE_LABEL: &str = "io.dory.image";
/// Labels that begin with this are ours.
pub(crate) const LABEL_PREFIX: &str = "io.dory.";

/// Who asks.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The value of [`OWNER_LABEL`].
    pub owner: String,
    /// What a mount of the engine's socket becomes: the session's own socket, as a path where the upstream runs.
    pub socket: Option<String>,
    /// The requests come from a container, which is listed with what is its own though it carries no label.
    pub in_container: bool,
    /// Directories that this caller may mount beside those of the policy, such as the one that a job runs in.
    pub binds: Vec<BindRoot>,
}

/// A kind of thing that names are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume; its name is its id.
    Volume,
    /// An image.
    Image,
    /// A command in a container.
    Exec,
}

impl Kind {
    /// The word for it in Docker's messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Exec => "exec instance",
        }
    }

    /// dockerd's words for a name that means nothing, which are also the words for what belongs to somebody else.
    pub fn absent(self, name: &str) -> String {
        match self {
            Self::Container => format!("No such container: {name}"),
            Self::Network => format!("network {name} not found"),
            Self::Volume => format!("get {name}: no such volume"),
            Self::Image => format!("No such image: {name}"),
            Self::Exec => format!("No such exec instance: {name}"),
        }
    }
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A thing of the session's own, by its full id.
    Own(String),
    /// A thing that the operator shares; the session may use it and not change it.
    Shared {
        /// Full id.
        id: String,
        /// The name that rules are matched with.
        name: String,
    },
    /// A network, by its full id, that the caller itself is in; it may be joined and not changed.
    Joined(String),
    /// A thing of somebody else's: for the caller the same as nothing.
    Foreign,
    /// Nothing.
    Absent,
}

/// What a container has mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// A path of the host.
    Bind(String),
    /// A volume, by name.
    Volume(String),
}

/// What a path of the caller's means where the upstream runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMeaning {
    /// A path of the host, without symbolic links.
    Host(String),
    /// A part of what the caller has mounted itself: it may be mounted without a rule, for the caller has it.
    Mine {
        /// What the caller has mounted.
        mounted: Mounted,
        /// What is meant below it; empty for all of it. Only our own engine is asked for parts of binds.
        subpath: String,
        /// The caller cannot write there.
        read_only: bool,
    },
    /// The engine's socket, or one of ours.
    Socket,
    /// Nothing is there.
    Missing,
    /// It cannot be mounted, and why.
    Unusable(String),
}

/// A fact that a judgement lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// What the name means.
    Name(Kind, String),
    /// A volume of this name, made for the session: it was absent, and making it implicitly would leave it unmarked.
    NewVolume(String),
    /// How many of these the session has.
    Count(Kind),
    /// What the path means.
    Path(String),
}

/// What has been found out.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Names.
    pub names: BTreeMap<(Kind, String), Resolution>,
    /// How many.
    pub counts: BTreeMap<Kind, usize>,
    /// Paths.
    pub paths: BTreeMap<String, PathMeaning>,
}
