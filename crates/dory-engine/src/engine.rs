//! The engine.

use std::io::Read;
use std::sync::Arc;

use dory_types::{ContainerId, ExecId};

use crate::config::*;
use crate::*;

/// A running engine; clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {}

impl Engine {
    /// Opens the data-root, finds the containers that live on from an earlier engine, and applies restart policies.
    pub async fn open(config: EngineConfig) -> Result<Self> { todo!() }
    /// Publishes nothing more and lets containers run on. Pending records are written.
    pub async fn shutdown(&self) { todo!() }
    /// True where no container runs (for an engine that goes away when idle).
    pub fn is_idle(&self) -> bool { todo!() }

    /// The container that `reference` means: id, name (with or without slash), or unambiguous prefix of an id.
    pub fn resolve_container(&self, reference: &str) -> Result<ContainerId> { todo!() }
    /// POST /containers/create
    pub async fn create_container(&self, request: CreateContainer) -> Result<CreatedContainer> { todo!() }
    /// `NotModified` where it runs already.
    pub async fn start_container(&self, reference: &str) -> Result<()> { todo!() }
    /// `NotModified` where it does not run.
    pub async fn stop_container(&self, reference: &str, options: StopOptions) -> Result<()> { todo!() }
    /// restart
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<()> { todo!() }
    /// `signal` is a name or number; `None` or empty is SIGKILL.
    pub async fn kill_container(&self, reference: &str, signal: Option<&str>) -> Result<()> { todo!() }
    /// pause
    pub async fn pause_container(&self, reference: &str) -> Result<()> { todo!() }
    /// unpause
    pub async fn unpause_container(&self, reference: &str) -> Result<()> { todo!() }
    /// Returns once the wait is registered; `ContainerWait::outcome` then waits.
    pub async fn wait_container(&self, reference: &str, condition: WaitCondition) -> Result<ContainerWait> { todo!() }
    /// attach
    pub async fn attach_container(&self, reference: &str, options: AttachOptions) -> Result<Attachment> { todo!() }
    /// logs
    pub async fn container_logs(&self, reference: &str, options: LogOptions) -> Result<ContainerLogs> { todo!() }
    /// inspect
    pub async fn inspect_container(&self, reference: &str, size: bool) -> Result<ContainerDetails> { todo!() }
    /// list
    pub async fn list_containers(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> { todo!() }
    /// `ps_args` empty means `-ef`.
    pub async fn top_container(&self, reference: &str, ps_args: &str) -> Result<TopTable> { todo!() }
    /// rename
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<()> { todo!() }
    /// Answers warnings.
    pub async fn update_container(&self, reference: &str, update: UpdateConfig) -> Result<Vec<String>> { todo!() }
    /// resize
    pub async fn resize_container(&self, reference: &str, height: u16, width: u16) -> Result<()> { todo!() }
    /// remove
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<()> { todo!() }
    /// prune
    pub async fn prune_containers(&self, filters: &Filters) -> Result<PrunedContainers> { todo!() }

    /// exec create
    pub async fn create_exec(&self, reference: &str, config: ExecConfig) -> Result<ExecId> { todo!() }
    /// `None` where detached.
    pub async fn start_exec(&self, id: &str, start: ExecStartConfig) -> Result<Option<ExecStream>> { todo!() }
    /// exec inspect
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecDetails> { todo!() }
    /// exec resize
    pub async fn resize_exec(&self, id: &str, height: u16, width: u16) -> Result<()> { todo!() }

    /// Reads a `docker save` or OCI layout archive (any compression) to its end, in a thread of its own.
    pub async fn load_images(&self, archive: impl Read + Send + 'static) -> Result<Vec<LoadedImage>> { todo!() }
    /// Makes an image of a root filesystem's tar; answers its id with `sha256:`.
    pub async fn import_image(&self, archive: impl Read + Send + 'static, options: ImportOptions) -> Result<String> { todo!() }
    /// list
    pub async fn list_images(&self, filters: &Filters, all: bool, shared_size: bool) -> Result<Vec<ImageSummary>> { todo!() }
    /// inspect
    pub async fn inspect_image(&self, reference: &str) -> Result<ImageDetails> { todo!() }
    /// history
    pub async fn image_history(&self, reference: &str) -> Result<Vec<ImageHistoryEntry>> { todo!() }
    /// tag
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<()> { todo!() }
    /// remove
    pub async fn remove_image(&self, reference: &str, force: bool, no_prune: bool) -> Result<Vec<ImageDeletion>> { todo!() }
    /// prune
    pub async fn prune_images(&self, filters: &Filters) -> Result<PrunedImages> { todo!() }

    /// create
    pub async fn create_volume(&self, request: VolumeCreate) -> Result<VolumeDetails> { todo!() }
    /// inspect
    pub async fn inspect_volume(&self, name: &str) -> Result<VolumeDetails> { todo!() }
    /// list
    pub async fn list_volumes(&self, filters: &Filters) -> Result<VolumeList> { todo!() }
    /// remove
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> { todo!() }
    /// prune
    pub async fn prune_volumes(&self, filters: &Filters) -> Result<PrunedVolumes> { todo!() }

    /// list
    pub async fn list_networks(&self, filters: &Filters) -> Result<Vec<NetworkDetails>> { todo!() }
    /// inspect
    pub async fn inspect_network(&self, reference: &str) -> Result<NetworkDetails> { todo!() }
    /// `NotImplemented` for now; answers the id.
    pub async fn create_network(&self, request: NetworkCreate) -> Result<String> { todo!() }
    /// remove
    pub async fn remove_network(&self, reference: &str) -> Result<()> { todo!() }
    /// connect
    pub async fn connect_network(&self, reference: &str, container: &str, endpoint: EndpointSettings) -> Result<()> { todo!() }
    /// disconnect
    pub async fn disconnect_network(&self, reference: &str, container: &str, force: bool) -> Result<()> { todo!() }
    /// Answers the names of what is gone: nothing, for now.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> { todo!() }

    /// events
    pub fn subscribe_events(&self, options: EventOptions) -> Result<EventStream> { todo!() }
    /// info
    pub async fn info(&self) -> Result<SystemInfo> { todo!() }
    /// version
    pub fn version(&self) -> VersionInfo { todo!() }
    /// `types` are `container`, `image`, `volume`, `build-cache`; empty means all.
    pub async fn disk_usage(&self, types: &[String]) -> Result<DiskUsage> { todo!() }
}
