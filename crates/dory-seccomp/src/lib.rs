//! Seccomp profiles in Docker's JSON form, compiled to compact BPF. Pure: no I/O and no system call.
//!
//! A profile names system calls; what it means depends on the container's capabilities, the architecture and the
//! kernel. [`Profile::compile`] resolves those into one outcome per system call number, merges neighbours with equal
//! outcomes into ranges and emits a binary search over the ranges. Size matters because the kernel charges every filter
//! of every nesting level to one budget of 32,768 instructions, and time matters because each system call of a
//! container walks the filter.
//!
//! ```text
//! load arch -> x86_64? -> load number -> search tree -> (argument tests) -> return action
//!           -> i386?   -> load number -> search tree -> (argument tests) -> return action
//!           -> kill
//! ```

mod action;
mod arch;
mod assemble;
mod filter;
mod outcome;
mod profile;
mod syscall_table;

#[cfg(test)]
mod equivalence;

pub use arch::{Arch, syscall_number};
pub use filter::{Filter, FilterError, Instruction};
pub use profile::{CompileTarget, KernelVersion, Profile, ProfileError};
