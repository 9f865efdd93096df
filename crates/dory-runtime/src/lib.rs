//! The OCI runtime: shim, init, exec, and the spec that they run.
//!
//! ```text
//!  engine ──spawn──▶ shim ──clone3──▶ init ──execve──▶ the user's process (pid 1 of its namespace)
//!    │                │  └─fork, setns, clone──▶ exec'd processes
//!    └─ unix socket ──┘
//! ```
//!
//! The engine side is [`Launcher`] (start) and [`ShimClient`] (everything afterwards, also from an engine that started
//! later). Both block; an asynchronous caller wraps them. The shim side is [`shim::main`], the small reaper of
//! `--init` is [`reaper::main`]: roles of the same binary, chosen before any thread exists.
//!
//! Only code that runs single-threaded forks here: the shim is re-executed from a sealed memfd and never starts a
//! thread, so its children may allocate and run ordinary Rust before `execve`.

pub mod capability;
pub mod client;
mod error;
mod filesystem;
mod init;
mod launcher;
pub mod protocol;
pub mod reaper;
pub mod recorder;
pub mod shim;
pub mod spec;
pub mod stopped;
pub mod user;

pub use client::ShimClient;
pub use error::{FailureKind, StartFailure};
pub use launcher::{LaunchError, Launcher, Started};
pub use shim::rootfs::mount_overlay;
