//! The flags of Kaniko's executor, and their values.
//!
//! Kaniko reads them as Go's pflag does: a switch may be given as `--cache=true`, and the last one counts. Hence one table
//! instead of a struct: what is ignored and what is refused is told by name.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};
use dory_types::parse_bool;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// One value.
    Value,
    /// Any number of values.
    List,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
struct Flag {
    name: &'static str,
    short: Option<char>,
    kind: Kind,
    /// Empty for those that are accepted and not shown.
    help: &'static str,
}

const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, short: None, kind, help }
}

const fn short(name: &'static str, short: char, kind: Kind, help: &'static str) -> Flag {
    Flag { name, short: Some(short), kind, help }
}

/// Those that do something.
const MEANT: &[Flag] = &[
    flag("build-arg", Kind::List, "Set a build argument, NAME or NAME=VALUE"),
    flag("cache", Kind::Switch, "Use a repository for cached layers (--cache-repo)"),
    flag(
        "cache-repo",
        Kind::Value,
        "Repository of cached layers; the first destination with /cache by default",
    ),
    short(
        "context",
        'c',
        Kind::Value,
        "Build context: DIRECTORY, dir://, tar://FILE, tar://stdin, git://HOST/PATH",
    ),
    flag("context-sub-path", Kind::Value, "Directory within the context that is the context"),
    flag("customPlatform", Kind::Value, ""),
    flag("custom-platform", Kind::Value, "Build for this platform"),
    short("destination", 'd', Kind::List, "Name of the image that is pushed; may be repeated"),
    flag("digest-file", Kind::Value, "Write the digest of the image here"),
    short("dockerfile", 'f', Kind::Value, "Path of the Dockerfile"),
    flag("git", Kind::List, "How git is cloned: branch=NAME,recurse-submodules=BOOL,single-branch=BOOL"),
    flag("image-name-tag-with-digest-file", Kind::Value, "Write NAME:TAG@DIGEST of each destination here"),
    flag("image-name-with-digest-file", Kind::Value, "Write NAME@DIGEST of each destination here"),
    flag("insecure", Kind::Switch, "Push to registries that speak plain HTTP"),
    flag("insecure-registry", Kind::List, "Registry that speaks plain HTTP"),
    flag("kaniko-dir", Kind::Value, "Where images, layers and the cache are kept"),
    flag("label", Kind::List, "Set a label, NAME=VALUE"),
    flag("no-push", Kind::Switch, "Do not push"),
    flag("no-push-cache", Kind::Switch, "Do not push cached layers"),
    flag("registry-certificate", Kind::List, "Authority's certificate of a registry, HOST=FILE"),
    flag("registry-client-cert", Kind::List, "Our certificate for a registry, HOST=CERTIFICATE,KEY"),
    flag("registry-map", Kind::List, "Mirror of one registry, HOST=MIRROR"),
    flag("registry-mirror", Kind::List, "Mirror of Docker Hub"),
    flag("reproducible", Kind::Switch, "Leave times out of the image"),
    flag("single-snapshot", Kind::Switch, "Make one layer of all that the build adds"),
    flag("skip-tls-verify", Kind::Switch, "Push without checking certificates"),
    flag("skip-tls-verify-registry", Kind::List, "Registry whose certificate is not checked"),
    flag("tar-path", Kind::Value, "Write the image to this archive"),
    flag("tarPath", Kind::Value, ""),
    flag("target", Kind::Value, "Stage to build"),
];

/// Those of which the result does not depend.
const IGNORED: &[Flag] = &[
    flag("cache-copy-layers", Kind::Switch, ""),
    flag("cache-dir", Kind::Value, ""),
    flag("cache-run-layers", Kind::Switch, ""),
    flag("cache-ttl", Kind::Value, ""),
    flag("cleanup", Kind::Switch, ""),
    flag("compressed-caching", Kind::Switch, ""),
    flag("compression", Kind::Value, ""),
    flag("compression-level", Kind::Value, ""),
    flag("credential-helpers", Kind::List, ""),
    flag("force", Kind::Switch, ""),
    flag("force-build-metadata", Kind::Switch, ""),
    flag("ignore-var-run", Kind::Switch, ""),
    flag("image-download-retry", Kind::Value, ""),
    flag("image-fs-extract-retry", Kind::Value, ""),
    flag("initial-fs-unpacked", Kind::Switch, ""),
    flag("log-format", Kind::Value, ""),
    flag("log-timestamp", Kind::Switch, ""),
    flag("preserve-context", Kind::Switch, ""),
    flag("push-ignore-immutable-tag-errors", Kind::Switch, ""),
    flag("push-retry", Kind::Value, ""),
    flag("skip-default-registry-fallback", Kind::Switch, ""),
    flag("skip-push-permission-check", Kind::Switch, ""),
    flag("skip-unused-stages", Kind::Switch, ""),
    flag("snapshot-mode", Kind::Value, ""),
    flag("snapshotMode", Kind::Value, ""),
    flag("use-new-run", Kind::Switch, ""),
    short("verbosity", 'v', Kind::Value, ""),
];

/// Those that would change the result in a way that there is none of here, and the way out.
const REFUSED: &[(Flag, &str)] = &[
    (
        short("bucket", 'b', Kind::Value, ""),
        "contexts in buckets are not fetched; unpack the context, and name its directory with --context",
    ),
    (
        flag("ignore-path", Kind::List, ""),
        "layers have what each RUN changed and nothing else; remove the files in the RUN instead",
    ),
    (flag("insecure-pull", Kind::Switch, ""), "name the registries with --insecure-registry"),
    (
        flag("oci-layout-path", Kind::Value, ""),
        "write an archive with --tar-path, and copy it with `dory image copy`",
    ),
    (flag("skip-tls-verify-pull", Kind::Switch, ""), "name the registries with --skip-tls-verify-registry"),
];

/// What was given.
#[derive(Debug)]
pub(super) struct Arguments(ArgMatches);

impl Arguments {
    /// Reads the words, of which the first is the program's.
    ///
    /// # Errors
    /// Clap's own: unknown flags, missing values, `--help`.
    pub(super) fn parse(words: &[OsString]) -> Result<Self, clap::Error> {
        let flags = MEANT.iter().chain(IGNORED).chain(REFUSED.iter().map(|(flag, _)| flag));
        let command = Command::new("dory kaniko")
            .version(env!("CARGO_PKG_VERSION"))
            .about("Build and push an image with no engine, with the flags of Kaniko's executor")
            .args_override_self(true);
        flags.fold(command, |command, flag| command.arg(argument(flag))).try_get_matches_from(words).map(Self)
    }

    /// Whether a switch is on.
    pub(super) fn on(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// The last value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    /// All values.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        self.0.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
    }

    /// Flags that were given and change nothing.
    pub(super) fn ignored(&self) -> impl Iterator<Item = &'static str> {
        IGNORED.iter().map(|flag| flag.name).filter(|name| self.0.contains_id(name))
    }

    /// A flag that was given and cannot be obeyed, and the way out.
    pub(super) fn refused(&self) -> Option<(&'static str, &'static str)> {
        let is_wanted = |name: &str| self.list(name).iter().any(|value| *value != "false");
        REFUSED.iter().map(|(flag, way_out)| (flag.name, *way_out)).find(|(name, _)| is_wanted(name))
    }
}

fn argument(flag: &Flag) -> Arg {
    let mut arg = Arg::new(flag.name).long(flag.name).help(flag.help).hide(flag.help.is_empty());
    if let Some(short) = flag.short {
        arg = arg.short(short);
    }
    match flag.kind {
        Kind::Switch => {
            let read = |text: &str| parse_bool(text).map(|on| on.to_string()).ok_or("no boolean");
            let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            arg.value_parser(read).value_name("BOOL")
        }
        Kind::Value => arg.value_name("VALUE"),
        Kind::List => arg.action(ArgAction::Append).value_name("VALUE"),
    }
}
