//! Consensus as the core sees it: proposals in, entries to persist and committed entries out. A wrapper
//! around raft-rs that hides its types, its traps and its panics; it does no I/O and reads no clock.
//!
//! One master is a group of one voter, on this same code. The driver's loop: [`RaftNode::ready`] says
//! what to write; once it is written (interval mode, one voter) or synced, [`RaftNode::on_persisted`]
//! with its number; [`RaftNode::committed`] is what may be applied, [`RaftNode::take_messages`] what may
//! be sent. Numbers are persisted in order; the next may be begun before the last has ended.
//!
//! Invariants (I25): no message that promises a vote or an entry leaves before it is persisted; an entry
//! is handed out once, in order, and never changes after. What a peer sends is checked before raft-rs
//! sees it, because raft-rs panics on nonsense.

mod convert;
mod member;
mod message;
mod node;
mod start;
mod store;
#[cfg(test)]
mod tests;

pub use member::{BadConf, MemberChange};
pub use message::{BadMessage, MessageKind, RaftMessage, SnapshotOffer};
pub use node::RaftNode;
pub use start::{RaftConfig, RaftStart};

use dfs_proto::ids::LogIndex;

use crate::log::entry::{ConfState, EntryId, HardState, LogEntry, NodeId};

/// What must be persisted, in this order: hard state, snapshot, entries. Entries may replace a tail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadyOut {
    /// For [`RaftNode::on_persisted`].
    pub number: u64,
    pub hard_state: Option<HardState>,
    /// The state comes from this snapshot now, which the driver has on disk; load it before persisting
    /// is reported.
    pub install: Option<Install>,
    pub entries: Vec<LogEntry>,
    /// Term or vote moved, or entries came: with peers, sync before reporting.
    pub must_sync: bool,
}

/// A snapshot that takes the place of all entries up to its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    pub id: EntryId,
    pub conf: ConfState,
}

/// Why a proposal was not taken. Nothing was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    #[error("not the leader; it is {0:?}")]
    NotLeader(Option<NodeId>),
    /// Too many bytes are proposed and not yet committed, or the leader is handing over.
    #[error("not now")]
    Busy,
}

/// Why a node cannot start from what was recovered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RaftStartError {
    #[error("the group's members: {0}")]
    Conf(#[from] BadConf),
    #[error("entry {found} follows {last}")]
    Gap { found: LogIndex, last: LogIndex },
    #[error("entry {index} is of term {term}, out of order")]
    Term { index: LogIndex, term: u64 },
    #[error("entry {0} is no change of members")]
    Change(LogIndex),
    #[error("election ticks {election} must exceed heartbeat ticks {heartbeat}")]
    Ticks { election: u16, heartbeat: u16 },
    #[error("raft refuses: {0}")]
    Raft(String),
}
