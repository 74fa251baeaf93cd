//! Between our types and raft-rs's generated ones, field by field. Everything that goes in was validated;
//! everything that comes out was made by raft-rs here, so its protobuf decoder reads only what this
//! process encoded.

use bytes::Bytes;
use dfs_proto::ids::{LogIndex, Term};
use protobuf::Message as _;
use raft::eraftpb as pb;

use super::member::{MemberChange, decode_changes, encode_changes};
use super::message::{self, MessageKind, RaftMessage, SnapshotOffer};
use crate::log::entry::{ConfState, EntryId, EntryKind, HardState, LogEntry, NodeId};

/// raft-rs's entry; a conf change gets the protobuf body that raft-rs looks into.
pub(super) fn entry_in(entry: LogEntry) -> pb::Entry {
    let mut out = pb::Entry { term: entry.term.0, index: entry.index.0, ..pb::Entry::default() };
    match entry.kind {
        EntryKind::Command | EntryKind::Election => out.data = entry.data,
        EntryKind::ConfChange => {
            out.set_entry_type(pb::EntryType::EntryConfChangeV2);
            // The validator and the recovery have decoded it before.
            out.data = changes_in(&decode_changes(&entry.data).unwrap_or_default());
        }
    }
    out
}

/// Our entry.
pub(super) fn entry_out(entry: &pb::Entry) -> LogEntry {
    let (kind, data) = match entry.get_entry_type() {
        pb::EntryType::EntryNormal if entry.data.is_empty() => (EntryKind::Election, Bytes::new()),
        pb::EntryType::EntryNormal => (EntryKind::Command, entry.data.clone()),
        pb::EntryType::EntryConfChange | pb::EntryType::EntryConfChangeV2 => {
            let changes = encode_changes(&changes_out(&entry.data)).unwrap_or_default();
            (EntryKind::ConfChange, Bytes::from(changes))
        }
    };
    LogEntry { index: LogIndex(entry.index), term: Term(entry.term), kind, data }
}

/// The body of a conf change; empty to leave a joint state.
pub(super) fn changes_in(changes: &[MemberChange]) -> Bytes {
    if changes.is_empty() {
        return Bytes::new();
    }
    let bytes = change_v2(changes).write_to_bytes();
    Bytes::from(bytes.unwrap_or_default())
}

/// raft-rs's form of the changes.
pub(super) fn change_v2(changes: &[MemberChange]) -> pb::ConfChangeV2 {
    let single = |change: &MemberChange| {
        let (kind, id) = match change {
            MemberChange::AddVoter(id) => (pb::ConfChangeType::AddNode, id),
            MemberChange::AddLearner(id) => (pb::ConfChangeType::AddLearnerNode, id),
            MemberChange::Remove(id) => (pb::ConfChangeType::RemoveNode, id),
        };
        pb::ConfChangeSingle { change_type: kind, node_id: id.0, ..pb::ConfChangeSingle::default() }
    };
    let mut out = pb::ConfChangeV2::default();
    out.set_changes(changes.iter().map(single).collect());
    out
}

fn changes_out(data: &[u8]) -> Vec<MemberChange> {
    let mut change = pb::ConfChangeV2::default();
    if change.merge_from_bytes(data).is_err() {
        return Vec::new();
    }
    let single = |change: &pb::ConfChangeSingle| {
        let id = NodeId(change.node_id);
        match change.change_type {
            pb::ConfChangeType::AddNode => MemberChange::AddVoter(id),
            pb::ConfChangeType::AddLearnerNode => MemberChange::AddLearner(id),
            pb::ConfChangeType::RemoveNode => MemberChange::Remove(id),
        }
    };
    change.get_changes().iter().map(single).collect()
}

pub(super) fn hard_state_in(state: HardState) -> pb::HardState {
    pb::HardState {
        term: state.term.0,
        vote: state.vote.map_or(0, |id| id.0),
        commit: state.commit.0,
        ..pb::HardState::default()
    }
}

pub(super) fn hard_state_out(state: &pb::HardState) -> HardState {
    HardState { term: Term(state.term), vote: node_out(state.vote), commit: LogIndex(state.commit) }
}

/// 0 is nobody.
pub(super) fn node_out(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

pub(super) fn conf_in(conf: &ConfState) -> pb::ConfState {
    let ids = |set: &[NodeId]| set.iter().map(|id| id.0).collect();
    pb::ConfState {
        voters: ids(&conf.voters),
        learners: ids(&conf.learners),
        voters_outgoing: ids(&conf.voters_outgoing),
        learners_next: ids(&conf.learners_next),
        auto_leave: conf.auto_leave,
        ..pb::ConfState::default()
    }
}

/// Sorted: raft-rs gives its sets in the order of a hash.
pub(super) fn conf_out(conf: &pb::ConfState) -> ConfState {
    let ids = |set: &[u64]| {
        let mut ids: Vec<NodeId> = set.iter().map(|id| NodeId(*id)).collect();
        ids.sort_unstable();
        ids
    };
    ConfState {
        voters: ids(&conf.voters),
        learners: ids(&conf.learners),
        voters_outgoing: ids(&conf.voters_outgoing),
        learners_next: ids(&conf.learners_next),
        auto_leave: conf.auto_leave,
    }
}

pub(super) fn snapshot_in(offer: &SnapshotOffer) -> pb::Snapshot {
    let mut out = pb::Snapshot::default();
    let meta = out.mut_metadata();
    meta.index = offer.id.index.0;
    meta.term = offer.id.term.0;
    meta.set_conf_state(conf_in(&offer.conf));
    out
}

pub(super) fn snapshot_out(snapshot: &pb::Snapshot) -> SnapshotOffer {
    let meta = snapshot.get_metadata();
    SnapshotOffer {
        id: EntryId { index: LogIndex(meta.index), term: Term(meta.term) },
        conf: conf_out(meta.get_conf_state()),
    }
}

pub(super) fn message_in(message: RaftMessage) -> pb::Message {
    let kind = match message.kind {
        MessageKind::Append => pb::MessageType::MsgAppend,
        MessageKind::AppendResponse => pb::MessageType::MsgAppendResponse,
        MessageKind::RequestVote => pb::MessageType::MsgRequestVote,
        MessageKind::RequestVoteResponse => pb::MessageType::MsgRequestVoteResponse,
        MessageKind::Snapshot => pb::MessageType::MsgSnapshot,
        MessageKind::Heartbeat => pb::MessageType::MsgHeartbeat,
        MessageKind::HeartbeatResponse => pb::MessageType::MsgHeartbeatResponse,
        MessageKind::TimeoutNow => pb::MessageType::MsgTimeoutNow,
        MessageKind::RequestPreVote => pb::MessageType::MsgRequestPreVote,
        MessageKind::RequestPreVoteResponse => pb::MessageType::MsgRequestPreVoteResponse,
    };
    let mut out = pb::Message {
        msg_type: kind,
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: Bytes::from(message.context),
        ..pb::Message::default()
    };
    let entries: Vec<pb::Entry> = message.entries.into_iter().map(entry_in).collect();
    out.set_entries(entries.into());
    if let Some(offer) = &message.snapshot {
        out.set_snapshot(snapshot_in(offer));
    }
    out
}

/// Our message; `None` for the kinds that only raft-rs itself knows, which it never sends from here.
pub(super) fn message_out(message: &pb::Message) -> Option<RaftMessage> {
    let kind = match message.get_msg_type() {
        pb::MessageType::MsgAppend => MessageKind::Append,
        pb::MessageType::MsgAppendResponse => MessageKind::AppendResponse,
        pb::MessageType::MsgRequestVote => MessageKind::RequestVote,
        pb::MessageType::MsgRequestVoteResponse => MessageKind::RequestVoteResponse,
        pb::MessageType::MsgSnapshot => MessageKind::Snapshot,
        pb::MessageType::MsgHeartbeat => MessageKind::Heartbeat,
        pb::MessageType::MsgHeartbeatResponse => MessageKind::HeartbeatResponse,
        pb::MessageType::MsgTimeoutNow => MessageKind::TimeoutNow,
        pb::MessageType::MsgRequestPreVote => MessageKind::RequestPreVote,
        pb::MessageType::MsgRequestPreVoteResponse => MessageKind::RequestPreVoteResponse,
        pb::MessageType::MsgHup
        | pb::MessageType::MsgBeat
        | pb::MessageType::MsgPropose
        | pb::MessageType::MsgUnreachable
        | pb::MessageType::MsgSnapStatus
        | pb::MessageType::MsgCheckQuorum
        | pb::MessageType::MsgTransferLeader
        | pb::MessageType::MsgReadIndex
        | pb::MessageType::MsgReadIndexResp => return None,
    };
    let mut out = message::blank(kind, NodeId(message.to), NodeId(message.from), Term(message.term));
    out.log_term = Term(message.log_term);
    out.index = LogIndex(message.index);
    out.entries = message.get_entries().iter().map(entry_out).collect();
    out.commit = LogIndex(message.commit);
    out.commit_term = Term(message.commit_term);
    out.snapshot = message.snapshot.as_ref().map(snapshot_out);
    out.reject = message.reject;
    out.reject_hint = LogIndex(message.reject_hint);
    out.context = message.context.to_vec();
    Some(out)
}
