//! The OCI runtime: shim, init, exec, and the spec that they run.
