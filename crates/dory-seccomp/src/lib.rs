//! Seccomp profiles in Docker's JSON form, compiled to compact BPF.
