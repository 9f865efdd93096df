//! `docker save`.

use std::io::Write;
use std::sync::Arc;

use dory_store::SavePlan;

use super::platform::PlatformChoice;
use super::store_error;
use crate::Result;
use crate::engine::{Engine, blocking};

impl Engine {
    /// Finds the images that are to be saved, and holds them: whoever asked wrongly learns it before an archive begins.
    /// `platform` is the query's, empty for any.
    ///
    /// # Errors
    /// `NotFound` for an image that is not here, or not for that platform; `Invalid` for a platform that is none.
    pub async fn plan_save(&self, names: Vec<String>, platform: &str) -> Result<SavePlan> {
        let (inner, platform) = (Arc::clone(&self.inner), PlatformChoice::parse(platform)?);
        blocking(move || {
            let plan = inner.store.plan_save(&names).map_err(store_error)?;
            for (id, name) in plan.images() {
                let image = inner.store.image(id.as_str()).map_err(store_error)?;
                platform.check(&name, &image.config)?;
            }
            Ok(plan)
        })
        .await
    }

    /// Writes the archive of the images to `sink`, and says so to whoever listens.
    ///
    /// # Errors
    /// `Internal` where the sink or the disk fails.
    pub async fn save_images(&self, plan: SavePlan, mut sink: impl Write + Send + 'static) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let images: Vec<_> = plan.images().map(|(id, name)| (id.clone(), name)).collect();
            plan.write(&mut sink).map_err(store_error)?;
            for (id, name) in images {
                inner.publish_image("save", &id, &name);
            }
            Ok(())
        })
        .await
    }
}
