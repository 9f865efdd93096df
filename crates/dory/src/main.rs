//! The binary: it picks the role.
fn main() {}
