//! The plain values that the log carries: entries, the hard state, the member set, positions. Nothing
//! here does I/O, so the decisions may name these types too.

use bytes::Bytes;
use dfs_proto::ids::{LogIndex, Term};
use serde::{Deserialize, Serialize};

/// A master in its Raft group. 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

/// Names one entry for ever: no two entries share both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize)]
pub struct EntryId {
    pub index: LogIndex,
    pub term: Term,
}

/// What an entry is to those who apply it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A command of the state machine; `data` is its encoding.
    Command,
    /// The empty entry with which a leader begins its term. Nothing to apply.
    Election,
    /// A change of the group's members, already applied by [`crate::core::raft`] when it is handed out.
    ConfChange,
}

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEntry {
    pub index: LogIndex,
    pub term: Term,
    pub kind: EntryKind,
    #[serde(with = "as_bytes")]
    pub data: Bytes,
}

impl LogEntry {
    /// The entry's name.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId { index: self.index, term: self.term }
    }
}

/// What a node must not forget besides its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
    /// Known committed when this was written; a hint, never above the last entry once recovered.
    pub commit: LogIndex,
}

/// The group's members; the `next` and `outgoing` sets are empty but during a change of several at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConfState {
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    pub voters_outgoing: Vec<NodeId>,
    pub learners_next: Vec<NodeId>,
    pub auto_leave: bool,
}

impl ConfState {
    /// A group of these voters.
    #[must_use]
    pub fn of(voters: &[NodeId]) -> ConfState {
        ConfState { voters: voters.to_vec(), ..ConfState::default() }
    }

    /// Is `id` the group's only voter?
    #[must_use]
    pub fn is_sole_voter(&self, id: NodeId) -> bool {
        self.voters == [id] && self.voters_outgoing.is_empty()
    }
}

/// The number of a record in this node's log files, counted from 1 and never with a gap. Entries are a
/// part of the records, and an entry that replaced another has the same index but a later number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct RecordNum(pub u64);

impl RecordNum {
    /// The record that follows.
    #[must_use]
    pub fn next(self) -> RecordNum {
        RecordNum(self.0 + 1)
    }
}

/// Up to where the log reaches, in records and in entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    pub record: RecordNum,
    pub entry: EntryId,
}

/// Bytes cross the wire as one string of bytes, not as a list of numbers.
mod as_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        Ok(Bytes::from(serde_bytes::ByteBuf::deserialize(from)?.into_vec()))
    }
}
