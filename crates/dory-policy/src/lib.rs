//! What a caller of the Docker API may do: a model of each request, and a typed policy that judges it.
//!
//! ```text
//!  bytes ── Request::read ──▶ Request ── Policy::judge ──▶ Permitted | Refusal | Needs(facts) ── again, with the facts
//! ```
//!
//! - Pure: no I/O, no clock, no state. Whoever asks finds out what names, paths and counts mean ([`Need`]).
//! - Every field that may reach the other side stands in a table with its type and its judge; the rest is dropped.
//! - [`Permitted`] is made by [`Policy::judge`] alone and is what is written: nothing of the caller's bytes is sent on.
//! - A refusal names its rule as the policy file does.

#![expect(clippy::needless_pass_by_value, reason = "a judge owns the value that it may send on")]

mod body;
mod facts;
mod image;
mod json;
mod judge;
mod pattern;
mod policy;
mod preset;
mod query;
mod request;
mod route;
mod shape;

pub use facts::{Facts, IMAGE_LABEL, Identity, Kind, Mounted, Need, OWNER_LABEL, PathMeaning, Resolution};
pub use image::familiar;
pub use json::{JsonError, parse as parse_json};
pub use judge::{Change, Refusal};
pub use pattern::Pattern;
pub use policy::{
    BindRoot, BindRules, Bytes, Choice, ContainerRules, Group, HostNamespace, ImageRules, Limits,
    NetworkRules, Objects, Policy, PolicyError, TimeSpan, VolumeRules,
};
pub use preset::{NAMES as PRESETS, text as preset_text};
pub use request::{Permitted, Raw, Request, RequestError, VERSIONS, Verdict, find_route, message};
pub use route::{Action, Answer, Body, Route};
pub use shape::{Field, Shape, ShapeError};
