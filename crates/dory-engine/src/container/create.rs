//! `create`: validation, defaults, and the first version of the record.

use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::Arc;

use dory_log::{LogConfig, LogSubject};
use dory_runtime::spec::UserNamespace;
use dory_store::{Image, Owner};
use dory_sys::fault_point;
use dory_types::{ContainerId, ContainerName, Timestamp};

use super::merge::{merge_image, path_and_args};
use super::name::{random_bytes, random_name};
use super::object::Container;
use super::record::Record;
use super::request::{CreateContainer, CreatedContainer};
use super::state::ContainerState;
use super::validate;
use crate::config::{ContainerConfig, HostConfig, NetworkingConfig};
use crate::engine::{Engine, Inner, blocking};
use crate::options::PrivilegedMode;
use crate::spec::namespace::{Mode, Modes};
use crate::spec::security::{self, SecurityOptions};
use crate::{EngineError, Result};

impl Engine {
    /// Makes a container: `POST /containers/create`.
    ///
    /// # Errors
    /// `Invalid` for a configuration that cannot work, `NotFound` for an unknown image or container that it refers
    /// to, `Conflict` for a taken name, `Forbidden` for what would hand over the host against the engine's
    /// configuration.
    pub async fn create_container(&self, request: CreateContainer) -> Result<CreatedContainer> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.create(request)).await
    }
}

impl Inner {
    /// Whoever shares a network answers to its name: that of the host or of the other container, else the short id.
    fn default_hostname(&self, modes: &Modes, id: &ContainerId) -> String {
        match (&modes.uts, &modes.network) {
            (Mode::Host, _) | (_, Mode::Host) => {
                rustix::system::uname().nodename().to_string_lossy().into_owned()
            }
            // One that does not exist is the start's error.
            (_, Mode::Container(other)) => self
                .registry
                .find(other)
                .map_or_else(|_| id.short().to_owned(), |other| other.record().config.hostname.clone()),
            _ => id.short().to_owned(),
        }
    }

    fn create(self: &Arc<Self>, request: CreateContainer) -> Result<CreatedContainer> {
        let CreateContainer { name, platform, mut config, mut host_config, networking_config } = request;
        validate::platform(&platform)?;
        let warnings = validate::validate(&config, &mut host_config, self)?;
        if config.image.is_empty() {
            return Err(EngineError::invalid("no image specified"));
        }
        let image = self.store.image(&config.image).map_err(crate::image::store_error)?;
        merge_image(&mut config, &image.config.config);
        let (path, args) = path_and_args(&config)?;
        self.fill_defaults(&config, &mut host_config)?;
        let id = ContainerId::from_bytes(random_bytes());
        let modes = Modes::parse(&host_config)?;
        if config.hostname.is_empty() {
            config.hostname = self.default_hostname(&modes, &id);
        }
        let name = self.reserve_name(name.as_deref(), &id)?;
        fault_point!("create.name-reserved");
        let mut networking = networking_config;
        let made = self.resolve_links(&mut host_config, &mut networking, name.as_str()).and_then(|()| {
            self.make(&id, &name, &image, config, host_config, &modes, networking, (path, args))
        });
        match made {
            Ok(container) => {
                let record = container.record();
                self.registry.insert(Arc::clone(&container));
                self.sync_later(&container);
                fault_point!("create.registered");
                self.events.publish("container", "create", id.as_str(), record.event_attributes());
                Ok(CreatedContainer { id, warnings })
            }
            Err(error) => {
                self.registry.release(&name, &id);
                Err(error)
            }
        }
    }

    fn reserve_name(&self, wanted: Option<&str>, id: &ContainerId) -> Result<ContainerName> {
        if let Some(wanted) = wanted.filter(|name| !name.is_empty()) {
            let name: ContainerName = wanted
                .parse()
                .map_err(|error: dory_types::NameError| EngineError::invalid(error.to_string()))?;
            self.registry.reserve(&name, id)?;
            return Ok(name);
        }
        let mut attempt = 0;
        loop {
            let name = random_name(attempt);
            match self.registry.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if attempt > 50 => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// What dockerd fills into `HostConfig` before it keeps it.
    pub(super) fn fill_defaults(&self, config: &ContainerConfig, host: &mut HostConfig) -> Result<()> {
        if host.network_mode.is_empty() || host.network_mode == "default" {
            host.network_mode = "bridge".to_owned();
        }
        if config.network_disabled {
            host.network_mode = "none".to_owned();
        }
        if host.shm_size == 0 {
            host.shm_size = self.options.shm_size;
        }
        if host.log_config.kind.is_empty() {
            host.log_config.kind.clone_from(&self.options.log_driver);
        }
        if host.restart_policy.name.is_empty() {
            host.restart_policy.name = "no".to_owned();
        }
        for (text, default) in [
            (&mut host.ipc_mode, "private"),
            (&mut host.cgroupns_mode, "private"),
            (&mut host.runtime, crate::system::DEFAULT_RUNTIME),
        ] {
            if text.is_empty() {
                default.clone_into(text);
            }
        }
        // dockerd tells by this that labels separate nothing here; with SELinux or without.
        let labelled = host.security_opt.iter().any(|option| option.starts_with("label"));
        if (host.privileged || host.ipc_mode == "host" || host.pid_mode == "host") && !labelled {
            host.security_opt.push("label=disable".to_owned());
        }
        if host.memory > 0 && host.memory_swap == 0 {
            host.memory_swap = host.memory.saturating_mul(2);
        }
        let options = SecurityOptions::parse(host)?;
        if !host.privileged {
            let shown = !options.system_paths_unconfined;
            if host.masked_paths.0.is_none() {
                host.masked_paths = if shown { security::masked_paths() } else { Vec::new() }.into();
            }
            if host.readonly_paths.0.is_none() {
                host.readonly_paths = if shown { security::readonly_paths() } else { Vec::new() }.into();
            }
        } else {
            host.masked_paths = Default::default();
            host.readonly_paths = Default::default();
        }
        if let Ok(network) = self.networks.find(&host.network_mode) {
            network.record.name().clone_into(&mut host.network_mode);
        }
        // Joined names become ids: a name may mean another container tomorrow. One that means none fails the start.
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(other) =
                mode.strip_prefix("container:").and_then(|name| self.registry.find(name).ok())
            {
                *mode = format!("container:{}", other.id);
            }
        }
        Ok(())
    }

    /// Makes the snapshot, the volumes and the record; nothing of them is left on failure.
    #[expect(clippy::too_many_arguments, reason = "the parts of one value that is built here")]
    fn make(
        &self,
        id: &ContainerId,
        name: &ContainerName,
        image: &Image,
        config: ContainerConfig,
        host_config: HostConfig,
        modes: &Modes,
        networking: NetworkingConfig,
        (path, args): (String, Vec<String>),
    ) -> Result<Arc<Container>> {
        let subject = LogSubject {
            id: id.as_str(),
            name: name.as_str(),
            image_id: &format!("sha256:{}", image.id),
            image_name: &config.image,
            labels: Some(&config.labels),
            env: &config.env,
        };
        let log =
            LogConfig::from_docker(&host_config.log_config.kind, &host_config.log_config.config, &subject)
                .map_err(|error| EngineError::invalid(error.to_string()))?;
        let mut points = self.collect_points(&config, &host_config)?;
        let endpoints = self.endpoint_wishes(&config, &host_config, modes, networking)?;
        let user_namespace = self.allocate_user_namespace(&host_config, modes, id)?;
        let made = self.make_files(id, image, &user_namespace).and_then(|snapshot| {
            fault_point!("create.files-made");
            self.make_volumes(id, &mut points, &snapshot)?;
            fault_point!("create.volumes-made");
            let record = Record {
                id: id.clone(),
                name: name.clone(),
                created: Timestamp::now(),
                image: image.id.clone(),
                path,
                args,
                config: Arc::new(config),
                host_config: Arc::new(host_config),
                endpoints,
                state: ContainerState::default(),
                restart_count: 0,
                stopped_by_user: false,
                paused_for_commit: false,
                points,
                user_namespace: user_namespace.clone(),
                log,
                guard_owner: None,
                run: None,
            };
            let container = Container::new(record, snapshot.directory.clone(), self.runtime_directory(id));
            container.save()?;
            fault_point!("create.record-written");
            Ok(Arc::new(container))
        });
        made.inspect_err(|_| {
            self.ids.release(&user_namespace);
            if let Err(error) = self.store.remove_snapshot(id) {
                tracing::warn!(container.id = %id, %error, "Cannot remove what is left of a failed create");
            }
        })
    }

    /// Ids for a confined container; every other one has the engine's.
    pub(super) fn allocate_user_namespace(
        &self,
        host: &HostConfig,
        modes: &Modes,
        id: &ContainerId,
    ) -> Result<UserNamespace> {
        if !host.privileged || self.options.privileged == PrivilegedMode::Host {
            return Ok(UserNamespace::Host);
        }
        if modes.user_host {
            return Err(EngineError::new(
                crate::ErrorKind::Forbidden,
                "--userns=host together with --privileged would hand over the host: this engine confines privileged \
                 containers to a user namespace of their own (set privileged = \"host\" in its configuration to have \
                 Docker's meaning)",
            ));
        }
        self.ids.allocate(&self.facts, id)
    }

    fn make_files(
        &self,
        id: &ContainerId,
        image: &Image,
        user: &UserNamespace,
    ) -> Result<dory_store::Snapshot> {
        let (uid, gid) = user.root();
        let snapshot = self
            .store
            .create_snapshot(id, Some(&image.id), Owner { uid, gid })
            .map_err(crate::image::store_error)?;
        // Programs look for this file to learn that they run in a container.
        let marker = snapshot.upper.join(".dockerenv");
        std::fs::File::create(&marker)
            .and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o755)))
            .and_then(|()| chown(&marker, Some(uid), Some(gid)))
            .map_err(|error| EngineError::failed("cannot make `.dockerenv`", error))?;
        Ok(snapshot)
    }
}
