//! dfs-chunkserver
fn main() {}
