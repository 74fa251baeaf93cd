//! The syncs that are owed for inodes that were forgotten: a file that was written, closed and opened again
//! must be on the disks after an fsync all the same.
//!
//! Bounded: beyond the bound an inode is synced before it is forgotten.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, Ino};

use crate::inode::{State, Unsynced};

/// Inodes that syncs are owed for: some 8 MiB of memory.
const OWED_MAX: usize = 1 << 16;

/// Chunks written and not synced.
pub(crate) type Chunks = BTreeMap<ChunkId, Unsynced>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    inodes: BTreeMap<Ino, Chunks>,
}

impl Owed {
    pub(crate) fn is_full(&self) -> bool {
        self.inodes.len() >= OWED_MAX
    }

    /// The inode is forgotten.
    pub(crate) fn keep(&mut self, ino: Ino, state: &mut State) {
        if !state.unsynced.is_empty() {
            let owed = std::mem::take(&mut state.unsynced);
            self.inodes.entry(ino).or_default().extend(owed);
        }
    }

    /// The inode is known again.
    pub(crate) fn take(&mut self, ino: Ino) -> Chunks {
        self.inodes.remove(&ino).unwrap_or_default()
    }

    /// Its last name is gone.
    pub(crate) fn forget(&mut self, ino: Ino) {
        self.inodes.remove(&ino);
    }
}
