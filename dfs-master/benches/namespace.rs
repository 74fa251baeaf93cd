//! Namespace.
fn main() {}
