//! `inspect`.

use anyhow::{Context, Result, bail};

use super::each::finish;
use crate::client::{Client, Path};
use crate::command::{Arity, Command, Invocation};
use crate::data::Data;
use crate::failure::{ApiError, ExitStatus};
use crate::flags::{Flag, FlagsEnd, long_value, switch, value};
use crate::print;
use crate::template::Template;

const FORMAT: Flag = value("format", 'f', "string", "json, or a Go template");
const SIZE: Flag = switch("size", 's', "Show sizes of containers");

/// `dory inspect`.
pub(crate) const INSPECT: Command = Command {
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show all that is known of containers, images, volumes or networks",
    flags: &[&[
        FORMAT,
        SIZE,
        long_value("type", "string", "Look only among these: container, image, volume, network"),
    ]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(inspect(invocation, kinds_of(invocation))),
};

macro_rules! inspect_one_kind {
    ($(#[$doc:meta])* $name:ident, $kind:expr, $usage:literal, $about:literal) => {
        $(#[$doc])*
        pub(crate) const $name: Command = Command {
            usage: $usage,
            about: $about,
            flags: &[&[FORMAT, SIZE]],
            arity: Arity::AtLeast(1),
            flags_end: FlagsEnd::DoubleDash,
            run: |invocation| Box::pin(inspect(invocation, Ok(&[$kind]))),
        };
    };
}

inspect_one_kind!(
    /// `dory container inspect`.
    INSPECT_CONTAINER, Kind::Container, "[OPTIONS] CONTAINER [CONTAINER...]", "Show all that is known of containers"
);
inspect_one_kind!(
    /// `dory image inspect`.
    INSPECT_IMAGE, Kind::Image, "[OPTIONS] IMAGE [IMAGE...]", "Show all that is known of images"
);
inspect_one_kind!(
    /// `dory volume inspect`.
    INSPECT_VOLUME, Kind::Volume, "[OPTIONS] VOLUME [VOLUME...]", "Show all that is known of volumes"
);
inspect_one_kind!(
    /// `dory network inspect`.
    INSPECT_NETWORK, Kind::Network, "[OPTIONS] NETWORK [NETWORK...]", "Show all that is known of networks"
);

/// What a name may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// The order in which a bare name is looked up.
const ALL_KINDS: &[Kind] = &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume];

impl Kind {
    fn path(self, name: &str, size: bool) -> Path {
        match self {
            Self::Container => Path::new(&["containers", name, "json"]).flag("size", size),
            Self::Image => Path::new(&["images", name, "json"]),
            Self::Network => Path::new(&["networks", name]),
            Self::Volume => Path::new(&["volumes", name]),
        }
    }
}

fn kinds_of(invocation: &Invocation<'_>) -> Result<&'static [Kind]> {
    Ok(match invocation.arguments.text("type") {
        "" => ALL_KINDS,
        "container" => &[Kind::Container],
        "image" => &[Kind::Image],
        "network" => &[Kind::Network],
        "volume" => &[Kind::Volume],
        other => bail!("\"{other}\" is not a valid value for --type"),
    })
}

async fn inspect(invocation: &Invocation<'_>, kinds: Result<&'static [Kind]>) -> Result<ExitStatus> {
    let (arguments, kinds) = (&invocation.arguments, kinds?);
    let template = match arguments.text("format") {
        "" => None,
        "json" => Some(Template::parse("{{json .}}")?),
        format => Some(Template::parse(&format.replace("\\t", "\t").replace("\\n", "\n"))?),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in arguments.positional() {
        match find(&invocation.client, kinds, name, arguments.on("size")).await {
            Ok(Some(object)) => found.push(object),
            Ok(None) => failures.push(format!("Error: No such object: {name}")),
            Err(error) => match error.downcast_ref::<ApiError>() {
                Some(failure) => failures.push(failure.to_string()),
                None => return Err(error),
            },
        }
    }
    match template {
        None => print(&indented(&found)?)?,
        Some(template) => {
            let mut text = String::new();
            for object in &found {
                text.push_str(&template.render(object)?);
                text.push('\n');
            }
            print(&text)?
        }
    };
    finish(&failures)
}

/// The first object of that name; with several kinds, `None` if there is none at all.
async fn find(client: &Client<'_>, kinds: &[Kind], name: &str, size: bool) -> Result<Option<Data>> {
    for kind in kinds {
        match client.get(kind.path(name, size).as_str()).await {
            Ok(object) => return Ok(Some(object)),
            Err(error) => match error.downcast_ref::<ApiError>() {
                Some(failure) if failure.is_not_found() && kinds.len() > 1 => {}
                _ => return Err(error),
            },
        }
    }
    Ok(None)
}

/// A list with four blanks per level.
fn indented(objects: &[Data]) -> Result<String> {
    use serde::Serialize;
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    objects.serialize(&mut serializer).context("cannot encode the answer")?;
    text.push(b'\n');
    Ok(String::from_utf8(text)?)
}
