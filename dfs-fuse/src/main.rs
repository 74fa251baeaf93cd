//! dfs-fuse
fn main() {}
