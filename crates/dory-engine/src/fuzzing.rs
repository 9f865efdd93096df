//! What the fuzzers of `fuzz/` call: the checks of requests, without an engine around them.

use crate::CreateContainer;
use crate::container::check;
use crate::mount::{from_mount, parse_bind};

/// Runs the checks of a create that need no engine.
pub fn validate(request: &CreateContainer) {
    let _ = check(&request.config, &request.host_config).is_ok();
    for bind in &request.host_config.binds {
        let _ = parse_bind(bind).is_ok();
    }
    for mount in &request.host_config.mounts {
        let _ = from_mount(mount).is_ok();
    }
}
