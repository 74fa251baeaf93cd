//! dfs-cli
fn main() {}
