//! dfs-client
