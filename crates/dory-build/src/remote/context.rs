//! A build context from an address: a repository, an archive, or a Dockerfile alone.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use dory_store::{IdMap, Ownership, Scratch, Store, Tree, UnpackOptions, is_archive};
use dory_types::with_causes;
use rustix::fs::{self, Mode, OFlags};

use super::file::FileAddress;
use super::{authorization, is_address};
use crate::cancel::Cancel;
use crate::context::{Context, ContextError, ContextTree, Need};
use crate::git::{Checkout, GitAddress, GitError};
use crate::grant::Secrets;
use crate::images::TransferProgress;
use crate::web::Web;

/// What a Dockerfile that comes alone is called.
const DOCKERFILE: &str = "Dockerfile";

/// A context from an address. It is in a temporary directory, and goes with the build.
#[derive(Debug)]
pub struct RemoteContext {
    store: Arc<Store>,
    web: Arc<dyn Web>,
    secrets: Option<Arc<dyn Secrets>>,
    address: String,
}

impl RemoteContext {
    /// Whether `context` is the address of a context, as `docker build` takes it, and no path.
    #[must_use]
    pub fn is_address(context: &str) -> bool {
        is_address(context) || context.starts_with("github.com/")
    }

    /// The context at `address`; `secrets` may have `GIT_AUTH_TOKEN`.
    pub fn new(
        store: Arc<Store>,
        web: Arc<dyn Web>,
        secrets: Option<Arc<dyn Secrets>>,
        address: impl Into<String>,
    ) -> Self {
        Self { store, web, secrets, address: address.into() }
    }

    fn failed(&self, message: impl std::fmt::Display) -> ContextError {
        // Names and passwords in addresses are for the server alone.
        let address = match self.address.split_once("://") {
            Some((scheme, rest)) => match rest.split_once('@') {
                Some((user, host)) if !user.contains('/') => format!("{scheme}://{host}"),
                _ => self.address.clone(),
            },
            None => self.address.clone(),
        };
        ContextError::Fetch { address, message: message.to_string() }
    }

    fn repository(
        &self,
        address: &GitAddress,
        scratch: &Scratch,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<(), GitError> {
        let checkout = Checkout {
            store: &self.store,
            web: &self.web,
            authorization: &|host| authorization(self.secrets.as_ref(), host),
            progress: &|length| progress("receiving objects", length, 0, false),
            cancel,
        };
        let server = checkout.server(address)?;
        let commit = server.resolve(&address.reference)?;
        checkout.write(&server, address, &commit, scratch.fd())
    }

    /// A file is an archive of the context, or the Dockerfile of an empty one.
    fn file(
        &self,
        scratch: &Scratch,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<(), ContextError> {
        let failed = |error: &dyn std::error::Error| self.failed(with_causes(error));
        let address = FileAddress { address: &self.address };
        let beside = self.store.build_scratch().map_err(|error| failed(&error))?;
        let tell = |length, total| progress("downloading", length, total, false);
        address
            .fetch(self.web.as_ref(), None, beside.fd(), DOCKERFILE, &tell, cancel)
            .map_err(|message| self.failed(message))?;
        let open = || -> Result<std::fs::File, ContextError> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = fs::openat(beside.fd(), DOCKERFILE, flags, Mode::empty());
            Ok(file.map_err(|errno| self.failed(errno))?.into())
        };
        if !is_archive(open()?) {
            return fs::renameat(beside.fd(), DOCKERFILE, scratch.fd(), DOCKERFILE)
                .map_err(|errno| self.failed(errno));
        }
        let root: OwnedFd = scratch.fd().try_clone_to_owned().map_err(|error| failed(&error))?;
        let options = UnpackOptions { owner: Ownership::Unpacker, ..UnpackOptions::default() };
        let unpacked = Tree::new(root, IdMap::default()).unpack("/", open()?, options);
        unpacked.map_err(|error| ContextError::Archive(with_causes(&error)))
    }
}

impl Context for RemoteContext {
    fn open(
        &self,
        _: &Need,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<ContextTree, ContextError> {
        let scratch = self.store.build_scratch().map_err(|error| self.failed(with_causes(&error)))?;
        match GitAddress::parse(&self.address) {
            Some(address) => {
                let written =
                    address.and_then(|address| self.repository(&address, &scratch, progress, cancel));
                written.map_err(|error| match error {
                    GitError::Cancelled => ContextError::Cancelled,
                    error => self.failed(with_causes(&error)),
                })?;
            }
            None => self.file(&scratch, progress, cancel)?,
        }
        let root = scratch.fd().try_clone_to_owned().map_err(|error| self.failed(error))?;
        Ok(ContextTree { root, identity: None, keep: Some(Box::new(scratch)) })
    }

    fn name(&self) -> String {
        match GitAddress::parse(&self.address) {
            Some(_) => format!("git source {}", self.address),
            None => format!("remote build context {}", self.address),
        }
    }
}
