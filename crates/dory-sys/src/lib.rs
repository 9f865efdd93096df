//! The only unsafe code of the workspace: system calls that rustix lacks, with owned descriptors out.
//!
//! Every function here is safe to call; what it relies on stands in its `SAFETY` comments. Where rustix has a safe
//! wrapper, callers use rustix directly and nothing is repeated here.

pub mod bpf;
pub mod fault;
pub mod mount;
pub mod netlink;
pub mod probe;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod xtables;
