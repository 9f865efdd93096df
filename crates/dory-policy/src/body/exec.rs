//! Commands in containers: `POST /containers/{id}/exec` and `POST /exec/{id}/start` of API 1.51.

use serde_json::Value;

use super::{container, field};
use crate::judge::{Judgement, free, is_zero};
use crate::shape::Field;
use crate::shape::Shape::{Bool, Pair, Text, Texts};

/// API 1.51, `ExecConfig`.
pub(crate) static CREATE: &[Field] = &[
    field("AttachStdin", Bool, free),
    field("AttachStdout", Bool, free),
    field("AttachStderr", Bool, free),
    field("ConsoleSize", Pair, free),
    field("DetachKeys", Text, free),
    field("Tty", Bool, free),
    field("Env", Texts, free),
    field("Cmd", Texts, free),
    field("Privileged", Bool, privileged),
    field("User", Text, container::user),
    field("WorkingDir", Text, container::working_directory),
];

/// API 1.51, `ExecStartConfig`.
pub(crate) static START: &[Field] =
    &[field("Detach", Bool, free), field("Tty", Bool, free), field("ConsoleSize", Pair, free)];

/// `Privileged` of a container or of a command in one.
pub(crate) fn privileged(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if is_zero(&value) {
        return None;
    }
    let choice = judgement.policy.containers.privileged;
    judgement.choose(choice, "containers.privileged", "`Privileged`").then_some(value)
}
