//! Names of images: what may be pulled, run, given and pushed.

use dory_types::ImageReference;
use serde_json::{Map, Value};

use crate::facts::{Kind, Resolution};
use crate::judge::{self, Judgement};
use crate::pattern;

/// The full familiar name of an image, with its tag.
pub fn familiar(name: &str) -> Option<String> {
    name.parse::<ImageReference>().ok().map(|reference| reference.familiar())
}

/// Whether the session may give this name to an image of its own: it is on the list, and nobody else's.
pub(crate) fn may_name(judgement: &mut Judgement<'_>, name: &str) {
    let Some(name) = familiar(name) else {
        return judgement.answer(400, "model", "invalid reference format".to_owned());
    };
    if !pattern::any(&judgement.policy.images.tag, &name) {
        judgement.refuse("images.tag", format!("the name {name:?} is not on the list"));
    }
    match judgement.name(Kind::Image, &name) {
        None | Some(Resolution::Own(_) | Resolution::Absent) => {}
        Some(Resolution::Shared { .. } | Resolution::Joined(_) | Resolution::Foreign) => {
            judgement.refuse("images.tag", format!("the name {name:?} is taken by somebody else's image"));
        }
    }
}

/// A name in two parameters; the second one is a tag or a digest.
fn joined(query: &Map<String, Value>, name: &str) -> String {
    let (name, tag) = (judge::field(query, name), judge::field(query, "tag"));
    match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    }
}

/// A pull, of one name that is written in full.
pub(crate) fn pull(judgement: &mut Judgement<'_>, query: &mut Map<String, Value>) {
    let wanted = joined(query, "fromImage");
    let Some(name) = familiar(&wanted) else {
        return judgement.answer(400, "model", "invalid reference format".to_owned());
    };
    if !query.contains_key("tag") && !judge::field(query, "fromImage").contains(['@', ':']) {
        // Without a tag dockerd pulls every tag there is.
        query.insert("tag".to_owned(), "latest".into());
    }
    if !pattern::any(&judgement.policy.images.pull, &name) {
        judgement.refuse("images.pull", format!("{name:?} is not on the list of images that may be pulled"));
    }
    if judgement.name(Kind::Image, &name) == Some(Resolution::Foreign) {
        judgement.refuse("images.pull", format!("the name {name:?} is taken by somebody else's image"));
    }
}

/// A name for an own image.
pub(crate) fn name(judgement: &mut Judgement<'_>, query: &Map<String, Value>) {
    if !judge::field(query, "repo").is_empty() {
        may_name(judgement, &joined(query, "repo"));
    }
}

/// A push: `target` is the name as it stands in the path.
pub(crate) fn push(judgement: &mut Judgement<'_>, target: &str, query: &Map<String, Value>) {
    let wanted = match judge::field(query, "tag") {
        "" => target.to_owned(),
        tag => format!("{target}:{tag}"),
    };
    match familiar(&wanted) {
        Some(name) if pattern::any(&judgement.policy.images.push, &name) => {}
        _ => judgement
            .refuse("images.push", format!("{wanted:?} is not on the list of images that may be pushed")),
    }
}
