//! dfs-tests
