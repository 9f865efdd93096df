//! What the fuzzers of `fuzz/` call: the checks of requests, without an engine around them.

use crate::CreateContainer;
use crate::container::check;
use crate::mount::{clean, from_mount, parse_bind, parse_volumes_from};

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

/// Reads `text` as each of the texts that say what is mounted where.
pub fn mount_text(text: &str) {
    if let Ok(point) = parse_bind(text) {
        assert_eq!(point.destination, clean(&point.destination), "{text:?}");
        assert_ne!(point.destination, "/", "{text:?}");
        assert!(point.source.is_empty() || point.source == clean(&point.source), "{text:?}");
    }
    if let Ok((container, _)) = parse_volumes_from(text) {
        assert!(!container.is_empty(), "{text:?}");
    }
    let _ = crate::spec::tmpfs::parse(text).is_ok();
}
