//! dfs-chunkserver
