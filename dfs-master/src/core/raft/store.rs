//! The recent entries in memory, as raft-rs wants to read them. It persists nothing: an entry is here as
//! soon as it is handed out for persisting, which is what raft-rs asks for.
//!
//! Invariant: entries are contiguous behind `base`, and `base` is applied.

use std::collections::VecDeque;

use raft::eraftpb as pb;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Besides its data, roughly what an entry takes in a message.
const ENTRY_OVERHEAD: u64 = 32;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) hard_state: pb::HardState,
    pub(super) conf: pb::ConfState,
    /// Index and term of the last entry that is not here any more.
    base: (u64, u64),
    entries: VecDeque<pb::Entry>,
    /// The newest snapshot that can be given to a follower.
    snapshot: Option<pb::Snapshot>,
}

impl Store {
    pub(super) fn new(hard_state: pb::HardState, conf: pb::ConfState, base: (u64, u64)) -> Store {
        Store { hard_state, conf, base, entries: VecDeque::new(), snapshot: None }
    }

    fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Position of `index` in `entries`; it must be behind the base.
    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.base.0 - 1).unwrap_or(usize::MAX)
    }

    /// Appends; a conflicting tail goes first.
    ///
    /// # Panics
    /// On a gap, or on entries that are compacted: raft-rs makes neither.
    pub(super) fn append(&mut self, entries: impl IntoIterator<Item = pb::Entry>) {
        for entry in entries {
            assert!(entry.index > self.base.0 && entry.index <= self.last() + 1, "a gap in raft's entries");
            self.entries.truncate(self.place(entry.index));
            self.entries.push_back(entry);
        }
    }

    /// Forgets the entries up to `index`, as far as they are here.
    pub(super) fn compact(&mut self, index: u64) {
        let index = index.min(self.last());
        if index <= self.base.0 {
            return;
        }
        let at = self.place(index);
        self.base = (index, self.entries[at].term);
        self.entries.drain(..=at);
    }

    /// The state comes from a snapshot now; nothing before it is left.
    pub(super) fn install(&mut self, snapshot: &pb::Snapshot) {
        let meta = snapshot.get_metadata();
        self.base = (meta.index, meta.term);
        self.entries.clear();
        self.conf = meta.get_conf_state().clone();
        self.snapshot = Some(snapshot.clone());
    }

    /// Is there nobody but `id` who could ever want an entry?
    pub(super) fn is_alone(&self, id: u64) -> bool {
        let pb::ConfState { voters, learners, voters_outgoing, .. } = &self.conf;
        *voters == [id] && learners.is_empty() && voters_outgoing.is_empty()
    }

    /// A newer snapshot is on disk.
    pub(super) fn offer(&mut self, snapshot: pb::Snapshot) {
        self.snapshot = Some(snapshot);
    }
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<pb::Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let range = self.entries.range(self.place(low)..self.place(high));
        let Some(max) = max_size.into() else { return Ok(range.cloned().collect()) };
        let mut size = 0u64;
        let fits = |entry: &&pb::Entry| {
            let first = size == 0;
            size = size.saturating_add(entry.data.len() as u64 + ENTRY_OVERHEAD);
            first || size <= max
        };
        Ok(range.take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get(self.place(index)) {
            Some(entry) => Ok(entry.term),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<pb::Snapshot> {
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= request_index.max(self.base.0) => {
                Ok(snapshot.clone())
            }
            Some(_) | None => Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}
