//! One action for many objects, as `stop a b c` does it.

use std::future::Future;

use anyhow::Result;

use crate::failure::{ApiError, Exit, ExitStatus, code};
use crate::print;

/// Does `action` for each of `names`, one after the other, and prints what it returns; a failure does not stop the rest.
///
/// # Errors
/// One error with all failures, a line each. An engine that cannot be reached stops at once.
pub(super) async fn for_each<F: Future<Output = Result<String>>>(
    names: &[String],
    action: impl Fn(String) -> F,
) -> Result<ExitStatus> {
    let mut failures = Vec::new();
    for name in names {
        match action(name.clone()).await {
            Ok(line) => drop(print(&format!("{line}\n"))?),
            Err(error) => match error.downcast_ref::<ApiError>() {
                Some(failure) => failures.push(failure.to_string()),
                None => return Err(error),
            },
        }
    }
    finish(&failures)
}

/// Success, or all `failures` in one error.
pub(super) fn finish(failures: &[String]) -> Result<ExitStatus> {
    if failures.is_empty() {
        return Ok(ExitStatus::Success);
    }
    Err(Exit { text: failures.join("\n"), code: code::FAILED }.into())
}
