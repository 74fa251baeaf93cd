//! What masters say to each other, as a type of our own, and the one validator between a peer and
//! raft-rs. raft-rs's own messages have 16 fields; three of them (a snapshot's request and two
//! priorities) belong to features that are not used, stay zero and do not travel.

use bytes::Bytes;
use dfs_proto::ids::{LogIndex, Term};
use serde::{Deserialize, Serialize};

use super::member::{BadConf, check_conf, decode_changes};
use crate::log::entry::{ConfState, EntryId, EntryKind, LogEntry, NodeId};

/// The kinds that travel. Proposals and reads are not forwarded between masters: clients go to the
/// leader themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum MessageKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Snapshot,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
    RequestPreVote,
    RequestPreVoteResponse,
}

/// A snapshot that the leader offers; its file travels apart, and must be here before this is stepped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotOffer {
    pub id: EntryId,
    pub conf: ConfState,
}

/// A message between two masters. Which fields mean something depends on the kind; the rest are zero.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RaftMessage {
    pub kind: MessageKind,
    pub to: NodeId,
    pub from: NodeId,
    pub term: Term,
    #[serde(default)]
    pub log_term: Term,
    #[serde(default)]
    pub index: LogIndex,
    #[serde(default)]
    pub entries: Vec<LogEntry>,
    #[serde(default)]
    pub commit: LogIndex,
    #[serde(default)]
    pub commit_term: Term,
    #[serde(default)]
    pub snapshot: Option<SnapshotOffer>,
    #[serde(default)]
    pub reject: bool,
    #[serde(default)]
    pub reject_hint: LogIndex,
    /// Says of a vote's request that the leader itself handed over; else empty.
    #[serde(default, with = "serde_bytes")]
    pub context: Vec<u8>,
}

/// The only context that is used, raft-rs's own.
pub(super) const HANDED_OVER: &[u8] = b"CampaignTransfer";
/// Above this a number is nonsense, and sums of two could overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a message was not stepped. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMessage {
    #[error("it is for {0:?}")]
    NotForUs(NodeId),
    #[error("it is from {0:?}, which cannot be")]
    Sender(NodeId),
    #[error("a number in it is zero or beyond any log")]
    Number,
    #[error("a field is set that this kind does not have")]
    StrayField,
    #[error("its entries are not in order")]
    Entries,
    #[error("its snapshot: {0}")]
    Snapshot(#[from] BadConf),
    /// The leader must take one after the change that added this node.
    #[error("its snapshot is of a group without this node")]
    NotInSnapshot,
    /// A leader says that this node has acknowledged entries that it does not have: its log was rolled
    /// back. It must not vote; empty its directory and let it be refilled.
    #[error("it counts on entry {said}, and our log ends at {ours}: our log has lost its end")]
    BehindItself { said: LogIndex, ours: LogIndex },
    /// A follower says that it has entries that we never wrote.
    #[error("the peer says it has entry {said}, and our log ends at {ours}")]
    AheadOfLeader { said: LogIndex, ours: LogIndex },
    #[error("raft refuses it")]
    Refused,
}

/// What the validator must know of the node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    pub(super) id: NodeId,
    pub(super) term: Term,
    pub(super) last: LogIndex,
    pub(super) leads: bool,
}

impl RaftMessage {
    /// Checks everything whose absence makes raft-rs panic or overflow.
    pub(super) fn check(&self, ours: Ours) -> Result<(), BadMessage> {
        if self.to != ours.id {
            return Err(BadMessage::NotForUs(self.to));
        }
        if self.from == ours.id || self.from == NodeId(0) {
            return Err(BadMessage::Sender(self.from));
        }
        let numbers = [
            self.term.0,
            self.log_term.0,
            self.index.0,
            self.commit.0,
            self.commit_term.0,
            self.reject_hint.0,
            self.from.0,
        ];
        // Term 0 would make raft-rs take the message for one of its own.
        if self.term.0 == 0 || numbers.iter().any(|n| *n > NUMBER_MAX) {
            return Err(BadMessage::Number);
        }
        self.check_stray()?;
        self.check_kind(ours)
    }

    fn check_stray(&self) -> Result<(), BadMessage> {
        let entries = self.kind != MessageKind::Append && !self.entries.is_empty();
        let snapshot = (self.kind == MessageKind::Snapshot) != self.snapshot.is_some();
        let vote = self.kind == MessageKind::RequestVote && self.context == HANDED_OVER;
        if entries || snapshot || !(vote || self.context.is_empty()) {
            return Err(BadMessage::StrayField);
        }
        Ok(())
    }

    fn check_kind(&self, ours: Ours) -> Result<(), BadMessage> {
        let current = self.term >= ours.term;
        match self.kind {
            MessageKind::Append => self.check_entries(),
            MessageKind::Heartbeat if current && self.commit > ours.last => {
                Err(BadMessage::BehindItself { said: self.commit, ours: ours.last })
            }
            MessageKind::AppendResponse
                if ours.leads && self.term == ours.term && !self.reject && self.index > ours.last =>
            {
                Err(BadMessage::AheadOfLeader { said: self.index, ours: ours.last })
            }
            MessageKind::Snapshot => self.check_snapshot(ours),
            MessageKind::Heartbeat
            | MessageKind::AppendResponse
            | MessageKind::RequestVote
            | MessageKind::RequestVoteResponse
            | MessageKind::HeartbeatResponse
            | MessageKind::TimeoutNow
            | MessageKind::RequestPreVote
            | MessageKind::RequestPreVoteResponse => Ok(()),
        }
    }

    fn check_entries(&self) -> Result<(), BadMessage> {
        // Raft-rs takes every index beyond its log for one of term 0, and would append behind a gap.
        if (self.index.0 == 0) != (self.log_term.0 == 0) || self.log_term > self.term {
            return Err(BadMessage::Entries);
        }
        let (mut index, mut term) = (self.index, self.log_term);
        for entry in &self.entries {
            index = LogIndex(index.0 + 1);
            let terms = entry.term >= term && entry.term.0 > 0 && entry.term <= self.term;
            if entry.index != index || !terms || !is_sound(entry) {
                return Err(BadMessage::Entries);
            }
            term = entry.term;
        }
        Ok(())
    }

    fn check_snapshot(&self, ours: Ours) -> Result<(), BadMessage> {
        let Some(SnapshotOffer { id, conf }) = &self.snapshot else { return Err(BadMessage::StrayField) };
        let named = id.index.0 > 0 && id.index.0 <= NUMBER_MAX && id.term.0 > 0 && id.term <= self.term;
        if !named {
            return Err(BadMessage::Number);
        }
        check_conf(conf)?;
        let member = [&conf.voters, &conf.learners, &conf.voters_outgoing];
        if !member.iter().any(|set| set.contains(&ours.id)) {
            return Err(BadMessage::NotInSnapshot);
        }
        Ok(())
    }
}

/// Are the entry's contents of its kind?
pub(super) fn is_sound(entry: &LogEntry) -> bool {
    match entry.kind {
        EntryKind::Command => !entry.data.is_empty(),
        EntryKind::Election => entry.data.is_empty(),
        EntryKind::ConfChange => decode_changes(&entry.data).is_ok(),
    }
}

/// A message of a kind with nothing else set.
pub(super) fn blank(kind: MessageKind, to: NodeId, from: NodeId, term: Term) -> RaftMessage {
    RaftMessage {
        kind,
        to,
        from,
        term,
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(0),
        commit_term: Term(0),
        snapshot: None,
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new().to_vec(),
    }
}
