//! What is owed for inodes that were forgotten: a file that was written, closed and opened again must be on the disks
//! after an fsync all the same, and a change of it that the master lost with its last records is reported then.
//!
//! Bounded: beyond the bound an inode is synced before it is forgotten.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, Ino, LogIndex};

use crate::inode::{State, Unsynced};

/// Inodes that something is owed for: some 8 MiB of memory.
const OWED_MAX: usize = 1 << 16;
/// Inodes looked through for what has become durable.
const TIDY_AT: usize = OWED_MAX / 4;

/// Chunks written and not synced.
pub(crate) type Chunks = BTreeMap<ChunkId, Unsynced>;

/// What is owed for one inode.
#[derive(Debug, Default)]
pub(crate) struct Debt {
    pub(crate) chunks: Chunks,
    /// The last record of this mount about it.
    last_change: LogIndex,
    /// Something of it was lost, and nobody has heard of it.
    pub(crate) lost: bool,
}

impl Debt {
    fn stands(&self, durable: LogIndex) -> bool {
        self.lost || !self.chunks.is_empty() || self.last_change > durable
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    inodes: BTreeMap<Ino, Debt>,
    /// Nothing is looked through below this.
    tidy_at: usize,
}

impl Owed {
    pub(crate) fn is_full(&self) -> bool {
        self.inodes.len() >= OWED_MAX
    }

    /// The inode is forgotten. `durable`: the last record that is known to be on the master's disk.
    pub(crate) fn keep(&mut self, ino: Ino, state: &mut State, durable: LogIndex) {
        let mut debt = Debt { chunks: std::mem::take(&mut state.unsynced), ..Debt::default() };
        // Handles that are left see that the inode is dead, and say so themselves.
        if state.handles.is_empty() {
            (debt.last_change, debt.lost) = (state.last_change, state.latch.is_unheard());
        }
        self.add(ino, debt, durable);
    }

    /// A record of this mount changed an inode that it does not know, or no longer.
    pub(crate) fn note_change(&mut self, ino: Ino, index: LogIndex, durable: LogIndex) {
        self.add(ino, Debt { last_change: index, ..Debt::default() }, durable);
    }

    fn add(&mut self, ino: Ino, debt: Debt, durable: LogIndex) {
        if !debt.stands(durable) {
            return;
        }
        if self.inodes.len() >= self.tidy_at.max(TIDY_AT) {
            self.inodes.retain(|_, debt| debt.stands(durable));
            self.tidy_at = 2 * self.inodes.len();
        }
        let kept = self.inodes.entry(ino).or_default();
        kept.chunks.extend(debt.chunks);
        kept.last_change = kept.last_change.max(debt.last_change);
        kept.lost |= debt.lost;
    }

    /// The master's log lacks what came after `durable`.
    pub(crate) fn tail_lost(&mut self, durable: LogIndex) {
        for debt in self.inodes.values_mut() {
            debt.lost |= debt.last_change > durable;
            debt.last_change = debt.last_change.min(durable);
        }
    }

    /// The inode is known again.
    pub(crate) fn take(&mut self, ino: Ino) -> Debt {
        self.inodes.remove(&ino).unwrap_or_default()
    }

    /// Its last name is gone.
    pub(crate) fn forget(&mut self, ino: Ino) {
        self.inodes.remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_lost_is_owed_until_the_inode_is_known_again() {
        let mut owed = Owed::default();
        owed.note_change(Ino(2), LogIndex(5), LogIndex(4));
        owed.note_change(Ino(3), LogIndex(9), LogIndex(4));
        owed.note_change(Ino(4), LogIndex(3), LogIndex(4));
        owed.tail_lost(LogIndex(7));
        assert!(!owed.take(Ino(2)).lost && !owed.take(Ino(4)).lost);
        assert!(owed.take(Ino(3)).lost);
        assert!(!owed.take(Ino(3)).lost, "it reports it from then on");
    }

    #[test]
    fn what_became_durable_takes_no_room() {
        let mut owed = Owed::default();
        for n in 0..=OWED_MAX as u64 {
            owed.note_change(Ino(n + 2), LogIndex(n + 1), LogIndex(n));
        }
        assert!(!owed.is_full());
        owed.tail_lost(LogIndex(OWED_MAX as u64));
        assert!(owed.take(Ino(OWED_MAX as u64 + 2)).lost);
    }
}
