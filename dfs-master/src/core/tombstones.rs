//! Chunks that a logged decision took away, kept until their replicas are deleted and long enough after
//! that a server that comes back late is recognised.
//!
//! Keeps its part of I17: a chunk without a tombstone here is never deleted anywhere.

use dfs_proto::ids::{ChunkId, ChunkVersion, LogIndex, ServerNum};
use serde::{Deserialize, Serialize};

use super::table::CowTable;

/// One chunk's end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tombstone {
    /// The record that took the chunk away.
    pub index: LogIndex,
    /// When that was, in seconds of the master's time of day.
    pub sec: i64,
    pub version: ChunkVersion,
    /// Its members and learners then.
    pub servers: Box<[ServerNum]>,
    /// Every one of them said that its file is gone.
    pub done: bool,
}

/// All tombstones.
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    table: CowTable<Tombstone>,
}

impl Tombstones {
    #[must_use]
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    #[must_use]
    pub fn get(&self, chunk: ChunkId) -> Option<&Tombstone> {
        self.table.get(chunk.0)
    }

    pub fn insert(&mut self, chunk: ChunkId, tombstone: Tombstone) {
        self.table.insert(chunk.0, tombstone);
    }

    /// Notes that no server named has a replica any more.
    pub fn finish(&mut self, chunk: ChunkId) {
        if let Some(tombstone) = self.table.get_mut(chunk.0) {
            tombstone.done = true;
        }
    }

    pub fn remove(&mut self, chunk: ChunkId) {
        self.table.remove(chunk.0);
    }

    /// The tombstones from `from` on, by rising chunk id.
    pub fn iter_from(&self, from: ChunkId) -> impl Iterator<Item = (ChunkId, &Tombstone)> {
        self.table.iter_from(from.0).map(|(id, tombstone)| (ChunkId(id), tombstone))
    }
}
