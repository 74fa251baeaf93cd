//! dfs-master
fn main() {}
