//! Everything around the product: tests, machines, images, benchmarks.
fn main() {}
