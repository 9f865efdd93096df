//! The engine as the builder's: base images, pushes, and the commands of `RUN`.

mod depot;
mod images;
mod pieces;
mod web;

use std::sync::Arc;

use dory_build::{Builder, Cancel, ExecuteError, Executor, RunCommand, RunEnd, RunObserver};
use dory_registry::Credentials;

use crate::engine::{Engine, Inner};
use images::EngineImages;
use web::EngineWeb;

/// Knows the credentials of registries.
pub trait CredentialSource: std::fmt::Debug + Send + Sync {
    /// Those for the registry `domain`, such as `docker.io`; anonymous ones where there are none. May block.
    fn credentials(&self, domain: &str) -> Credentials;
}

/// Nobody's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl CredentialSource for Anonymous {
    fn credentials(&self, _domain: &str) -> Credentials {
        Credentials::default()
    }
}

/// Runs commands as containers of this engine.
#[derive(Debug)]
struct EngineExecutor(std::sync::Weak<Inner>);

impl Executor for EngineExecutor {
    fn run(
        &self,
        command: RunCommand,
        observer: &dyn RunObserver,
        cancel: &Cancel,
    ) -> Result<RunEnd, ExecuteError> {
        let inner =
            self.0.upgrade().ok_or_else(|| ExecuteError::Unavailable("the engine is gone".to_owned()))?;
        inner.run_for_build(&command, observer, cancel)
    }
}

impl Engine {
    /// The engine's builder, the same for everybody: builds at the same time share their work. Without images of its own
    /// a build finds them with no credentials.
    pub fn builder(&self) -> Arc<Builder> {
        let make = || {
            let images = Arc::new(EngineImages::new(Arc::downgrade(&self.inner), Arc::new(Anonymous)));
            let web = Arc::new(EngineWeb::new(Arc::downgrade(&self.inner)));
            let executor = Arc::new(EngineExecutor(Arc::downgrade(&self.inner)));
            Arc::new(Builder::new(Arc::clone(&self.inner.store), images, web, executor))
        };
        Arc::clone(self.inner.builder.get_or_init(make))
    }

    /// Tells whoever listens to events what a build made and named.
    pub fn publish_build(&self, outcome: &dory_build::Outcome, names: &[dory_types::ImageReference]) {
        for result in &outcome.results {
            for name in names {
                self.inner.publish_image("tag", &result.id, &name.familiar());
            }
        }
    }

    /// Finds and pushes images for one build, with a client's credentials: for [`dory_build::Request::images`].
    pub fn build_images(&self, credentials: Arc<dyn CredentialSource>) -> Arc<dyn dory_build::Images> {
        Arc::new(EngineImages::new(Arc::downgrade(&self.inner), credentials))
    }
}
