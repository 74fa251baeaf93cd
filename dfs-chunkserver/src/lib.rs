//! dfs-chunkserver
pub mod store;
