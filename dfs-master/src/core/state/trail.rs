//! What the log has come to, as one running number: of every record what was answered to it, and the chunk map
//! that it left. Every [`EVERY`] records the leader logs the number, and whoever applies that record, then or when
//! it starts again, compares it with its own. So a build that takes an old record differently, or a state that
//! memory has bent, is found before anything is decided by it (I25).
//!
//! It is not a hash of the whole state: a change that no answer shows is not seen by it, but for the chunk map's.
//! What a snapshot holds is compared by its checksums.

use dfs_proto::ids::LogIndex;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::apply::Outcome;

/// Records from one logged number to the next.
pub const EVERY: u64 = 10_000;

/// The number where the log passed a multiple of [`EVERY`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    pub index: LogIndex,
    pub hash: u64,
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trail {
    hash: u64,
    mark: Option<Mark>,
    differs: Option<LogIndex>,
}

impl Trail {
    /// A record was applied; `before` is the one before it. The chunk map is `chunks` now.
    pub(super) fn note(&mut self, before: LogIndex, index: LogIndex, outcome: &Outcome, chunks: u64) {
        // Serialising into memory fails only for types without a length, of which an answer has none.
        let bytes =
            postcard::to_extend(&outcome.answer, Vec::with_capacity(128)).expect("an answer serialises");
        let dropped = postcard::to_extend(&outcome.dropped, bytes).expect("a list of ids serialises");
        self.hash = xxh3_64_with_seed(&dropped, self.hash.rotate_left(1) ^ index.0 ^ chunks);
        if before.0 / EVERY != index.0 / EVERY {
            self.mark = Some(Mark { index, hash: self.hash });
        }
    }

    /// The number to be logged after the record at `index`.
    #[must_use]
    pub fn made_at(&self, index: LogIndex) -> Option<Mark> {
        self.mark.filter(|mark| mark.index == index)
    }

    /// Compares with what a leader logged.
    pub(super) fn compare(&mut self, logged: Mark) {
        if self.made_at(logged.index).is_some_and(|mark| mark.hash != logged.hash) {
            self.differs.get_or_insert(logged.index);
        }
    }

    /// Where this state was first found to be another than the leader's.
    #[must_use]
    pub fn differs(&self) -> Option<LogIndex> {
        self.differs
    }

    #[cfg(test)]
    pub(crate) fn plant(&mut self, differs: LogIndex) {
        self.differs = Some(differs);
    }

    /// An operator goes on with the state as it is.
    pub(super) fn accept(&mut self) {
        self.differs = None;
    }
}
