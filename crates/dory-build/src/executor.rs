//! Who runs the commands of `RUN`. The builder knows layers and keys; processes are the executor's.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dory_store::LayerLease;

use crate::cancel::Cancel;
use crate::grant::Agents;
use crate::progress::Stream;
use crate::request::{NetworkMode, RunLimits};

/// What a command finds mounted.
#[derive(Debug, Clone)]
pub struct RunMount {
    /// Absolute path in the container. Where it is missing it is made, and taken away again if it is still empty.
    pub target: String,
    /// What.
    pub source: RunMountSource,
    /// Whether the command may not write there.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum RunMountSource {
    /// A directory or file of the builder's; `subpath` is resolved beneath it, whatever links it has.
    Directory {
        /// On this machine; made by the builder, never taken from a Dockerfile.
        path: PathBuf,
        /// What of it; empty for all.
        subpath: String,
    },
    /// Memory.
    Memory {
        /// Bytes; `None` for no bound of its own.
        size: Option<u64>,
    },
    /// A file with a secret, never on a disk.
    Secret {
        /// Its content.
        content: Vec<u8>,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A socket that leads to an SSH agent.
    Agent {
        /// Who has it.
        agents: Arc<dyn Agents>,
        /// Which one.
        id: String,
        /// Permissions of the socket.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// A command to run.
#[derive(Debug)]
pub struct RunCommand {
    /// The layers that it runs on, the lowest first.
    pub layers: Vec<LayerLease>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; made where it is missing.
    pub directory: String,
    /// Docker's `User`.
    pub user: String,
    /// Mounts, in the order of the Dockerfile.
    pub mounts: Vec<RunMount>,
    /// Network.
    pub network: NetworkMode,
    /// With all privileges (`--security=insecure`): granted.
    pub insecure: bool,
    /// Limits.
    pub limits: RunLimits,
    /// Nothing that it changes says that this was later, in seconds since 1970.
    pub latest: Option<i64>,
}

/// How a command ended.
#[derive(Debug)]
pub struct RunEnd {
    /// Its status; 128 and the signal where one ended it.
    pub exit_code: i32,
    /// The kernel ended it because memory was short.
    pub oom_killed: bool,
    /// What it changed; `None` where nothing, or where it failed.
    pub layer: Option<LayerLease>,
}

/// Takes what a command writes, and where it runs.
pub trait RunObserver: Send + Sync {
    /// The command is about to run in a container with this id.
    fn running(&self, container: &str);

    /// It wrote something.
    fn output(&self, stream: Stream, data: &[u8]);
}

/// A command could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The container could not be made or started; the reason as the runtime gives it.
    #[error("{0}")]
    Start(String),
    /// Its changes could not be kept.
    #[error("cannot keep what the command changed: {0}")]
    Snapshot(String),
    /// A mount could not be made.
    #[error("cannot prepare the mount `{target}`")]
    Mount {
        /// Where it would be.
        target: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The build was cancelled; the command is dead.
    #[error("the build was cancelled")]
    Cancelled,
    /// This builder runs no commands.
    #[error("cannot run commands: {0}")]
    Unavailable(String),
}

/// Runs commands, as confined as any container. Whatever becomes of this process, no command outlives it.
pub trait Executor: Debug + Send + Sync {
    /// Runs `command` to its end. Blocks; may be called from several threads.
    ///
    /// # Errors
    /// [`ExecuteError`]; a command that ran and failed is no error here.
    fn run(
        &self,
        command: RunCommand,
        observer: &dyn RunObserver,
        cancel: &Cancel,
    ) -> Result<RunEnd, ExecuteError>;
}
