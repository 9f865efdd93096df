//! Users of a container, looked up in its own files.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::StartFailure;
use crate::init::{Root, resolve_user};

/// The user and group ids that Docker's `User` form (`name`, `uid`, `name:group`, `uid:gid`) means below `root`.
///
/// # Errors
/// [`StartFailure`] for a name that the container's account files do not have.
pub fn find(root: &OwnedFd, user: &str) -> Result<(u32, u32), StartFailure> {
    let identity = resolve_user(Root::new(root.as_fd()), user, &[])?;
    Ok((identity.uid, identity.gid))
}
