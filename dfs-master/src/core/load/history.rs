//! What was decided and done about chunks, for whoever asks why.

use std::collections::VecDeque;

use dfs_proto::ids::ChunkId;
use dfs_proto::units::Timespec;

/// Remembered, of all chunks together: a few hundred bytes each.
const EVENTS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<(ChunkId, Timespec, String)>,
}

impl History {
    pub(super) fn add(&mut self, chunk: ChunkId, wall: Timespec, what: String) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((chunk, wall, what));
    }

    /// Of all, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &(ChunkId, Timespec, String)> {
        self.events.iter().rev()
    }

    /// Of one chunk, the oldest first.
    pub(super) fn of(&self, chunk: ChunkId) -> Vec<(Timespec, String)> {
        let of = self.events.iter().filter(|(other, _, _)| *other == chunk);
        of.map(|(_, wall, what)| (*wall, what.clone())).collect()
    }
}
