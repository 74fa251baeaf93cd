//! dfs-master
