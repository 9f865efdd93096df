//! The engine: what it owns, how it opens and how it ends.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use dory_cgroup::{Hierarchies, Manager};
use dory_net::PortAllocator;
use dory_probe::Facilities;
use dory_registry::Registries;
use dory_runtime::Launcher;
use dory_store::Store;
use dory_types::{ContainerId, ExecId, VolumeName};
use tokio::sync::mpsc;

use crate::apparmor::DefaultProfile;
use crate::container::{Container, Guards, Registry};
use crate::distribution::Transfers;
use crate::events::Events;
use crate::exec::Exec;
use crate::identity::Identity;
use crate::ids::IdAllocator;
use crate::link::Bridge;
use crate::network::{Networks, Resolver};
use crate::options::EngineConfig;
use crate::spec::host::HostFacts;
use crate::{EngineError, Result, sync};

/// A running engine; clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: EngineConfig,
    pub(crate) facts: HostFacts,
    pub(crate) default_profile: DefaultProfile,
    pub(crate) identity: Identity,
    pub(crate) store: Arc<Store>,
    pub(crate) registries: Arc<Registries>,
    pub(crate) transfers: Transfers,
    pub(crate) cgroups: Manager,
    pub(crate) bridge: Bridge,
    pub(crate) networks: Networks,
    pub(crate) resolver: Resolver,
    pub(crate) ports: PortAllocator,
    /// Dropping a container's entry ends the proxy of its published ports.
    pub(crate) port_proxies: Mutex<HashMap<ContainerId, OwnedFd>>,
    pub(crate) ids: IdAllocator,
    pub(crate) events: Events,
    pub(crate) registry: Registry,
    pub(crate) execs: Mutex<HashMap<ExecId, Arc<Exec>>>,
    /// Volumes that are mounted because of their options, and the containers that they are mounted for.
    pub(crate) mounted_volumes: Mutex<HashMap<VolumeName, HashSet<ContainerId>>>,
    /// Made when first needed: it copies the whole binary.
    launcher: OnceLock<Launcher>,
    pub(crate) guards: Guards,
    /// Made when first needed.
    pub(crate) builder: OnceLock<Arc<dory_build::Builder>>,
    /// Found when first needed, by trying.
    facilities: OnceLock<Option<Facilities>>,
    syncer: mpsc::UnboundedSender<sync::Request>,
    runtime: tokio::runtime::Handle,
    /// Set once the engine ends: exits from here on are the next engine's business.
    ending: std::sync::atomic::AtomicBool,
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::failed("the engine's own task ended early", error)),
    }
}

impl Engine {
    /// Opens the data-root, finds the containers that live on from an earlier engine, and applies restart policies.
    ///
    /// # Errors
    /// `Conflict` where another engine has the data-root (the message names it); `Internal` where the data-root, the
    /// exec-root or the cgroups cannot be used.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (syncer, requests) = mpsc::unbounded_channel();
        tokio::spawn(sync::run(requests));
        let inner = blocking(move || Inner::open(config, syncer, runtime)).await?;
        let engine = Self { inner: Arc::new(inner) };
        engine.restore().await?;
        if engine.inner.options.warm_up {
            engine.inner.warm_up();
        }
        Ok(engine)
    }

    /// Ends the engine: nothing is started or cleaned up any more, records that wait for the disk are synced, and
    /// containers run on.
    pub async fn shutdown(&self) {
        self.inner.ending.store(true, std::sync::atomic::Ordering::SeqCst);
        for container in self.inner.registry.all() {
            container.cancel_restart();
        }
        let (done, synced) = tokio::sync::oneshot::channel();
        if self.inner.syncer.send(sync::Request::Flush(done)).is_ok() {
            // An error means that there was nothing left to do.
            let _ = synced.await;
        }
    }

    /// Ends the engine and everything that it made but the data-root: containers, the bridge, the cgroups.
    pub async fn dismantle(&self) {
        let removing = self.inner.registry.all().into_iter().map(|container| {
            let options = crate::RemoveOptions { force: true, volumes: true, link: false };
            let engine = self.clone();
            async move {
                if let Err(error) = engine.remove_container(container.id.as_str(), options).await {
                    tracing::warn!(container.id = %container.id, %error, "Cannot remove a container");
                }
            }
        });
        futures_util::future::join_all(removing).await;
        self.shutdown().await;
        let inner = Arc::clone(&self.inner);
        let removed = blocking(move || {
            inner.remove_bridges();
            inner.cgroups.remove_parent();
            inner.store.wait_until_removed();
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "Cannot clean up");
        }
    }

    /// The engine's id, the same for as long as its data.
    pub fn id(&self) -> &str {
        &self.inner.identity.id
    }

    /// Where its data are.
    pub fn data_root(&self) -> &Path {
        &self.inner.options.data_root
    }

    /// True where no container runs, none is about to, and nothing is built (for an engine that goes away when idle).
    pub fn is_idle(&self) -> bool {
        let building = self.inner.builder.get().is_some_and(|builder| builder.is_building());
        !building && self.inner.registry.all().iter().all(|container| !container.record().state.running)
    }

    /// The container that `reference` means: id, name (with or without slash), or unambiguous start of an id.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` where several ids start so.
    pub fn resolve_container(&self, reference: &str) -> Result<ContainerId> {
        self.inner.registry.find(reference).map(|container| container.id.clone())
    }
}

impl Inner {
    fn open(
        mut options: EngineConfig,
        syncer: mpsc::UnboundedSender<sync::Request>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self> {
        let holder = format!("exec-root {}", options.exec_root.display());
        let store = match &options.image_store {
            None => Store::open_above(&options.data_root, &holder, &options.lower_stores),
            Some(images) => Store::open_sharing(&options.data_root, &holder, images),
        };
        let store = store.map_err(crate::image::store_error)?;
        store.limit_unpacking(options.unpack_limits);
        store.data_root().clone_into(&mut options.data_root);
        if !store.backing().overlay_upper {
            return Err(EngineError::invalid(format!(
                "the data-root `{}` lies on {}, on which the kernel makes no overlay: give it a volume \
                 (`docker run -v dory-data:{} ...`) or memory (`--tmpfs {}`)",
                options.data_root.display(),
                store.backing().name,
                options.data_root.display(),
                options.data_root.display(),
            )));
        }
        let containers = options.exec_root.join("containers");
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o711)
            .create(&containers)
            .map_err(|error| EngineError::failed(format!("cannot make `{}`", containers.display()), error))?;
        let registries =
            Registries::new(options.registries.clone()).map_err(crate::distribution::registry_error)?;
        let registries = Arc::new(registries);
        let identity = Identity::of(&store)?;
        let networks = Networks::open(&options.data_root, &identity)?;
        let facts = HostFacts { descriptor_limit: options.descriptor_limit, ..HostFacts::read() };
        // A group of this engine's own: another one beneath the same parent must not sweep what it has just made.
        let own_parent = format!("{}/{}", options.cgroup_parent, identity.owner());
        let cgroups = Hierarchies::detect()
            .and_then(|hierarchies| Manager::new(hierarchies, &own_parent))
            .map_err(|error| EngineError::failed("cannot use control groups", error))?;
        Ok(Self {
            bridge: Bridge::new(&options, &identity, networks.subnets()),
            networks,
            ids: IdAllocator::new(options.userns_range)?,
            resolver: Resolver::default(),
            ports: PortAllocator::new(),
            port_proxies: Mutex::default(),
            events: Events::new(),
            transfers: Transfers::new(options.registries.max_concurrent_downloads),
            registries,
            registry: Registry::default(),
            execs: Mutex::default(),
            mounted_volumes: Mutex::default(),
            launcher: OnceLock::new(),
            guards: Guards::new(),
            builder: OnceLock::new(),
            facilities: OnceLock::new(),
            ending: Default::default(),
            options,
            facts,
            default_profile: DefaultProfile::detect(),
            identity,
            store,
            cgroups,
            syncer,
            runtime,
        })
    }

    /// Makes, behind everybody's back, what the first container needs: the first request need not wait for it.
    fn warm_up(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.runtime.spawn_blocking(move || {
            if let Err(error) = inner.launcher() {
                tracing::warn!(%error, "Cannot prepare the launcher");
            }
            if let Err(error) = inner.bridge.network() {
                tracing::warn!(%error, "The default bridge cannot be used");
            }
            // Last, because nothing but `info` waits for it.
            inner.facilities();
        });
    }

    pub(crate) fn launcher(&self) -> Result<&Launcher> {
        if let Some(launcher) = self.launcher.get() {
            return Ok(launcher);
        }
        let launcher =
            Launcher::new().map_err(|error| EngineError::failed("cannot copy the engine's binary", error))?;
        Ok(self.launcher.get_or_init(|| launcher))
    }

    /// What the surroundings allow; `None` where the probe itself failed. Blocks for some milliseconds the first time.
    pub(crate) fn facilities(&self) -> Option<&Facilities> {
        let probe = || {
            dory_probe::full(&self.options.data_root)
                .inspect_err(|error| tracing::warn!(%error, "Cannot probe the surroundings"))
                .ok()
        };
        self.facilities.get_or_init(probe).as_ref()
    }

    /// A container's directory in the exec-root.
    pub(crate) fn runtime_directory(&self, id: &ContainerId) -> PathBuf {
        self.options.exec_root.join("containers").join(id.as_str())
    }

    /// Has the record's first version brought to the disk within a second.
    pub(crate) fn sync_later(&self, container: &Arc<Container>) {
        // The task ends with the engine only.
        let _ = self.syncer.send(sync::Request::Container(Arc::clone(container)));
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(std::sync::atomic::Ordering::SeqCst)
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}
