//! `start`: everything that a run needs, made in an order that a crash at any point leaves repairable.
//!
//! 1. what others own is looked up: joined containers, volumes, sources of binds
//! 2. address, cgroup and /etc files are made, and the record names them
//! 3. the shim makes the namespaces; the network is configured, and the record names the endpoint
//! 4. clients that attached before are connected; the program is executed
//! 5. the record says that it runs

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use dory_cgroup::{Delegation, Group, Refusal};
use dory_runtime::client::EarlyAttachment;
use dory_runtime::spec::{ContainerSpec, Rootfs};
use dory_runtime::{FailureKind, LaunchError, Started};
use dory_sys::fault_point;
use dory_types::{Timestamp, with_causes};
use tokio::sync::oneshot;

use super::files::write_etc_files;
use super::guard;
use super::name::random_bytes;
use super::object::Container;
use super::record::{Record, Run};
use super::state::Status;
use crate::engine::{Engine, Inner, blocking};
use crate::options::PrivilegedMode;
use crate::spec::device::Devices;
use crate::spec::namespace::{Mode, Modes};
use crate::spec::{Joined, SpecInput, resources};
use crate::{EngineError, ErrorKind, Result};

/// What runc and containerd put before the reason in Docker's message; clients look for the reason within it.
const RUNTIME_PREFIX: &str = "failed to create task for container: failed to create shim task: OCI runtime create \
                              failed: runc create failed: unable to start container process: ";

/// Why a start failed, and what the container's exit code is then.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: EngineError,
    exit_code: i32,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { error, exit_code: 128 }
    }
}

impl Engine {
    /// Starts a container: `POST /containers/{id}/start`.
    ///
    /// # Errors
    /// `NotModified` where it runs already, `Conflict` where it is paused or being removed; `Invalid` where the
    /// program cannot be executed, otherwise `Internal` with what was refused.
    pub async fn start_container(&self, reference: &str) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        let record = container.record();
        if record.state.paused {
            return Err(EngineError::conflict("cannot start a paused container, try unpause instead"));
        }
        if record.runs() {
            return Err(EngineError::new(ErrorKind::NotModified, "container is already running"));
        }
        if container.live().removed || record.state.dead {
            return Err(EngineError::conflict("container is marked for removal and cannot be started"));
        }
        container.cancel_restart();
        container.update(|record| {
            record.stopped_by_user = false;
            record.restart_count = 0;
        });
        self.launch(&container).await
    }

    /// Runs `container`, whose lifecycle lock the caller holds.
    pub(crate) async fn launch(&self, container: &Arc<Container>) -> Result<()> {
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(container));
        let outcome = blocking(move || Ok(inner.launch_blocking(&target))).await?;
        match outcome {
            Ok(started) => {
                self.watch(container, started.monitor, Some(started.shim));
                self.begin_health_checks(container);
                Ok(())
            }
            Err(failure) => {
                self.after_failed_start(container, &failure).await;
                Err(failure.error)
            }
        }
    }

    /// A container that did not start is as before, and says why; with `--rm` it is gone.
    async fn after_failed_start(&self, container: &Arc<Container>, failure: &Failure) {
        container.update(|record| {
            record.state.error = failure.error.message().to_owned();
            record.state.exit_code = failure.exit_code;
            record.state.running = false;
            record.state.restarting = false;
            record.state.pid = 0;
            if record.state.status != Status::Created {
                record.state.status = Status::Exited;
            }
        });
        if container.record().host_config.auto_remove {
            if let Err(error) = self.remove_locked(container, true).await {
                tracing::warn!(container.id = %container.id, %error, "Cannot remove a container that did not start");
            }
            return;
        }
        let target = Arc::clone(container);
        if let Err(error) = blocking(move || target.save()).await {
            tracing::warn!(container.id = %container.id, %error, "Cannot keep why a container did not start");
        }
    }
}

impl Inner {
    fn launch_blocking(self: &Arc<Self>, container: &Arc<Container>) -> Result<Started, Failure> {
        let launched =
            self.prepare(container).map_err(Failure::from).and_then(|spec| self.run(container, spec));
        let launched = launched.map_err(|failure| self.diagnose(failure));
        // Whoever waits for the streams of a container that did not start waits for nothing.
        if launched.is_err() {
            let pending = std::mem::take(&mut container.live().pending);
            drop(pending);
            self.release_run(container, true);
        }
        launched
    }

    /// Adds what the surroundings lack to a failure that is not the container's own.
    fn diagnose(&self, failure: Failure) -> Failure {
        if failure.error.kind() != ErrorKind::Internal {
            return failure;
        }
        match self.facilities().and_then(dory_probe::Facilities::missing) {
            Some(missing) => {
                let message = format!("{}\n{missing}", failure.error.message());
                Failure { error: EngineError::internal(message).caused_by(failure.error), ..failure }
            }
            None => failure,
        }
    }

    /// Steps 1 and 2.
    pub(super) fn prepare(&self, container: &Arc<Container>) -> Result<ContainerSpec> {
        let record = container.record();
        let modes = Modes::parse(&record.host_config)?;
        let joined = self.joined(&modes)?;
        self.use_volumes(&record.points, &container.id)?;
        let (points, guard) = self.points_to_mount(&record)?;
        let snapshot = self
            .store
            .snapshot(&container.id)
            .ok_or_else(|| EngineError::internal("the container's files are gone"))?;
        let links = self.links(&record)?;
        let own_name = record.name.as_str();
        let linked_env: Vec<String> = links.iter().flat_map(|link| link.environment(own_name)).collect();
        let endpoints = self.take_endpoints(&record)?;
        let addresses: Vec<_> = endpoints.iter().flat_map(|place| place.addresses.iter().copied()).collect();
        let run = Run {
            group: Group::none(),
            endpoints,
            sandbox_id: dory_types::NetworkId::from_bytes(random_bytes()).to_string(),
            ports: Vec::new(),
            guard,
            published_on: None,
            facts: Vec::new(),
        };
        container.update(|record| {
            record.run = Some(run);
            if guard.is_some() {
                record.guard_owner.get_or_insert_with(guard::new_owner);
            }
        });
        fault_point!("start.address-taken");
        make_runtime_directory(container)?;
        fault_point!("start.runtime-directory-made");
        let files = write_etc_files(self, container, &record, &modes, &addresses, &links)?;
        fault_point!("start.etc-files-written");
        let mut devices = devices(&record, self.options.privileged)?;
        let group = self.make_group(container, &record, &mut devices)?;
        container.update(|record| {
            if let Some(run) = &mut record.run {
                run.group = group.clone();
            }
        });
        fault_point!("start.group-made");
        // The next engine must know what to release, whatever happens from here on.
        container.save()?;
        fault_point!("start.run-recorded");
        let input = SpecInput {
            id: &container.id,
            config: &record.config,
            host_config: &record.host_config,
            facts: &self.facts,
            default_profile: &self.default_profile,
            path: &record.path,
            args: &record.args,
            hostname: &record.config.hostname,
            linked_env: &linked_env,
            user_namespace: &record.user_namespace,
            modes: &modes,
            joined,
            rootfs: Rootfs {
                lower: snapshot.layers,
                upper: snapshot.upper,
                work: snapshot.work,
                readonly: record.host_config.readonly_rootfs,
            },
            devices: devices.nodes,
            points: &points,
            files: files.mounts(),
            shared_memory: self.shared_memory(container, &modes)?,
            shm_size: record.host_config.shm_size,
            guarded_socket: guard.is_some(),
            shared_store: self.shared_store(container, &record.host_config)?,
            cgroup: (!group.is_none()).then_some(group),
            log: record.log.clone(),
            directory: container.directory.clone(),
            runtime_directory: container.runtime_directory.clone(),
        };
        crate::spec::build(input)
    }

    /// Steps 3 to 5.
    fn run(self: &Arc<Self>, container: &Arc<Container>, spec: ContainerSpec) -> Result<Started, Failure> {
        remove_exit_record(container)?;
        fault_point!("start.exit-record-removed");
        let launcher = self.launcher()?;
        let spec_shares_network = spec.namespaces.network != dory_runtime::spec::Namespace::New;
        let network = |namespace: BorrowedFd<'_>| self.connect_all(container, namespace);
        let mut early = Vec::new();
        let before_run = || early = connect_pending(container);
        let started = launcher.start(spec, network, before_run).map_err(failure)?;
        fault_point!("start.executed");
        for (attachment, sender) in early {
            match attachment.complete() {
                // A client that went away meanwhile closes its stream by going.
                Ok(stream) => drop(sender.send(stream)),
                Err(error) => {
                    tracing::warn!(container.id = %container.id, %error, "Cannot attach a waiting client")
                }
            }
        }
        let record = container.record();
        if spec_shares_network {
            self.publish_connections(container);
        }
        container.update(|record| {
            let state = &mut record.state;
            state.status = Status::Running;
            state.running = true;
            state.restarting = false;
            state.paused = false;
            state.oom_killed = false;
            state.pid = started.pid;
            state.exit_code = 0;
            state.error.clear();
            state.started_at = Timestamp::now();
            // The results of earlier runs stay, as dockerd keeps them.
            if let Some(health) = &mut state.health {
                "starting".clone_into(&mut health.status);
                health.failing_streak = 0;
            }
            if let Some(run) = &mut record.run {
                run.facts.extend(started.facts.iter().cloned());
            }
        });
        for fact in &started.facts {
            tracing::info!(container.id = %container.id, %fact, "A container goes without");
        }
        // It runs whatever becomes of the record: an engine that finds the shim knows better than its record.
        if let Err(error) = container.save() {
            tracing::warn!(container.id = %container.id, %error, "Cannot keep that a container runs");
        }
        fault_point!("start.recorded");
        self.begin_guard(container);
        self.publish_mounts(&record, "mount");
        self.events.publish("container", "start", container.id.as_str(), record.event_attributes());
        Ok(started)
    }

    /// The processes whose namespaces are joined.
    fn joined(&self, modes: &Modes) -> Result<Joined> {
        let pid = |mode: &Mode| -> Result<Option<i32>> {
            let Some(reference) = mode.container() else { return Ok(None) };
            let other = self.registry.find(reference)?;
            let record = other.record();
            if !record.runs() {
                return Err(EngineError::conflict(format!(
                    "cannot join namespace of a non running container: container {} is {}",
                    other.id,
                    record.state.status.as_str()
                )));
            }
            Ok(Some(record.state.pid))
        };
        Ok(Joined { network: pid(&modes.network)?, pid: pid(&modes.pid)?, ipc: pid(&modes.ipc)? })
    }

    /// The group with the limits that were asked for; one that is refused fails the start, by name.
    fn make_group(&self, container: &Container, record: &Record, devices: &mut Devices) -> Result<Group> {
        let mut resources = resources::resources(&record.host_config)?;
        resources.devices = Some(std::mem::take(&mut devices.rules));
        let delegation = match (record.host_config.privileged, record.user_namespace.is_new()) {
            (true, true) => {
                let (uid, gid) = record.user_namespace.root();
                Delegation::To { uid, gid }
            }
            _ => Delegation::None,
        };
        let parent = Some(record.host_config.cgroup_parent.as_str()).filter(|parent| !parent.is_empty());
        let (group, refusals) = self
            .cgroups
            .create(&container.id, parent, &resources, delegation)
            .map_err(|error| EngineError::invalid(with_causes(&error)).caused_by(error))?;
        // Nobody asked for the default rules about devices, nor for the swap that goes with a limit of memory.
        let default_swap = record.host_config.memory_swap <= 0;
        let asked = |refusal: &Refusal| {
            refusal.requested && refusal.what != "devices" && !(refusal.what == "memory_swap" && default_swap)
        };
        let (requested, stated): (Vec<Refusal>, Vec<Refusal>) = refusals.into_iter().partition(asked);
        for refusal in &stated {
            tracing::debug!(container.id = %container.id, %refusal, "A container goes without");
        }
        if let Some(refusal) = requested.first() {
            let message = format!("cannot enforce the limit that was asked for: {refusal}");
            if let Err(errors) = group.remove() {
                tracing::warn!(container.id = %container.id, ?errors, "Cannot remove a control group");
            }
            return Err(EngineError::internal(message));
        }
        Ok(group)
    }

    /// Gives back what the present run holds, and goes on past failures. `failed` is for a start that did not succeed:
    /// its record forgets the run.
    pub(crate) fn release_run(&self, container: &Container, failed: bool) {
        container.live().attachable = false;
        self.leave_volumes(&container.id);
        let record = container.record();
        let Some(run) = &record.run else { return };
        self.end_guard(container);
        if !run.group.is_none() {
            // With a pid namespace of its own nothing is left; without one, the container's other processes are.
            if run.group.processes().is_ok_and(|processes| !processes.is_empty())
                && let Err(error) = run.group.kill_all()
            {
                tracing::warn!(container.id = %container.id, %error, "Cannot kill what is left of a container");
            }
            if let Err(errors) = run.group.remove() {
                tracing::warn!(container.id = %container.id, ?errors, "Cannot remove a control group");
            }
        }
        fault_point!("release.group-removed");
        self.release_endpoints(container);
        fault_point!("release.network-released");
        match std::fs::remove_dir_all(&container.runtime_directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(container.id = %container.id, %error, "Cannot remove a runtime directory");
            }
            _ => {}
        }
        if failed {
            container.update(|record| record.run = None);
        }
    }
}

/// The devices of a container.
fn devices(record: &Record, privileged: PrivilegedMode) -> Result<Devices> {
    match (record.host_config.privileged, privileged) {
        (true, PrivilegedMode::Host) => Ok(Devices::all_of_host()),
        (true, PrivilegedMode::Confined) => Devices::confined(&record.host_config),
        (false, _) => Devices::ordinary(&record.host_config),
    }
}

fn make_runtime_directory(container: &Container) -> Result<()> {
    let failed = |error| EngineError::failed("cannot make the container's runtime directory", error);
    match std::fs::remove_dir_all(&container.runtime_directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o711)
        .create(&container.runtime_directory)
        .map_err(failed)
}

/// The last run's exit must not be taken for this one's.
fn remove_exit_record(container: &Container) -> Result<()> {
    match std::fs::remove_file(container.directory.join(dory_runtime::protocol::EXIT_RECORD_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::failed("cannot remove the last run's exit record", error))
        }
        _ => Ok(()),
    }
}

/// A client on its way into the streams.
type Early = (EarlyAttachment, oneshot::Sender<UnixStream>);

/// Step 4: whoever attached before the start joins now, before the program has written its first byte.
fn connect_pending(container: &Container) -> Vec<Early> {
    let pending = {
        let mut live = container.live();
        live.attachable = true;
        std::mem::take(&mut live.pending)
    };
    let shim = container.shim();
    let mut early = Vec::with_capacity(pending.len());
    for client in pending {
        match shim.attach_early(client.stdin, client.stdout, client.stderr) {
            Ok(attachment) => early.push((attachment, client.sender)),
            Err(error) => {
                tracing::warn!(container.id = %container.id, %error, "Cannot attach a waiting client")
            }
        }
    }
    early
}

/// dockerd's message and exit code for what kept the program from running.
pub(super) fn failure(error: LaunchError<EngineError>) -> Failure {
    match error {
        LaunchError::Failed(failure) => {
            let (kind, exit_code) = match failure.kind {
                FailureKind::NotFound => (ErrorKind::Invalid, 127),
                FailureKind::NotExecutable | FailureKind::Invalid => (ErrorKind::Invalid, 126),
                FailureKind::Refused => (ErrorKind::Internal, 128),
            };
            Failure {
                error: EngineError::new(kind, format!("{RUNTIME_PREFIX}{}: unknown", failure.message)),
                exit_code,
            }
        }
        LaunchError::Network(error) => error.into(),
        other => EngineError::failed("failed to create task for container", other).into(),
    }
}
