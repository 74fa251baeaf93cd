//! What a peer can send and must not kill us with.

use bytes::Bytes;
use dfs_disk::sim::Rng;
use dfs_proto::ids::{LogIndex, Term};

use crate::core::raft::message::blank;
use crate::core::raft::{
    BadConf, BadMessage, MessageKind, RaftConfig, RaftMessage, RaftNode, RaftStart, SnapshotOffer,
};
use crate::log::entry::{ConfState, EntryId, EntryKind, HardState, LogEntry, NodeId};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Command,
        data: Bytes::from_static(b"command"),
    }
}

/// A follower of three with entries 1..=5 of terms 1 and 2, three of them committed.
fn follower() -> RaftNode {
    let start = RaftStart {
        base: EntryId::default(),
        conf: ConfState::of(&[ME, PEER, NodeId(3)]),
        entries: vec![entry(1, 1), entry(2, 1), entry(3, 2), entry(4, 2), entry(5, 2)],
        hard_state: HardState { term: Term(2), vote: None, commit: LogIndex(3) },
    };
    RaftNode::new(&RaftConfig::new(ME, 1), start).unwrap()
}

fn message(kind: MessageKind) -> RaftMessage {
    blank(kind, ME, PEER, Term(2))
}

fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
    let ids = |set: &[u64]| set.iter().map(|id| NodeId(*id)).collect();
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

#[test]
fn each_kind_of_nonsense_has_a_name() {
    use MessageKind::{Append, Heartbeat, RequestVote, Snapshot, TimeoutNow};
    let append = |entries: Vec<LogEntry>| RaftMessage {
        index: LogIndex(5),
        log_term: Term(2),
        entries,
        ..message(Append)
    };
    let offer = |index, term, conf| {
        let id = EntryId { index: LogIndex(index), term: Term(term) };
        RaftMessage { snapshot: Some(SnapshotOffer { id, conf }), ..message(Snapshot) }
    };
    let change = LogEntry { kind: EntryKind::ConfChange, ..entry(6, 2) };
    let empty = LogEntry { data: Bytes::new(), ..entry(6, 2) };
    let half = ConfState { learners_next: vec![NodeId(7)], ..conf(&[1, 2], &[]) };
    let cases = [
        (RaftMessage { to: PEER, ..message(Heartbeat) }, BadMessage::NotForUs(PEER)),
        (RaftMessage { from: ME, ..message(Heartbeat) }, BadMessage::Sender(ME)),
        (RaftMessage { from: NodeId(0), ..message(Heartbeat) }, BadMessage::Sender(NodeId(0))),
        (RaftMessage { term: Term(0), ..message(Heartbeat) }, BadMessage::Number),
        (RaftMessage { term: Term(u64::MAX), ..message(RequestVote) }, BadMessage::Number),
        (RaftMessage { index: LogIndex(u64::MAX), ..message(Append) }, BadMessage::Number),
        (RaftMessage { entries: vec![entry(1, 1)], ..message(Heartbeat) }, BadMessage::StrayField),
        (RaftMessage { context: vec![1], ..message(Heartbeat) }, BadMessage::StrayField),
        (RaftMessage { context: vec![1], ..message(RequestVote) }, BadMessage::StrayField),
        (message(Snapshot), BadMessage::StrayField),
        (
            RaftMessage { snapshot: offer(9, 2, conf(&[1], &[])).snapshot, ..message(TimeoutNow) },
            BadMessage::StrayField,
        ),
        (append(vec![entry(7, 2)]), BadMessage::Entries),
        (append(vec![entry(6, 3)]), BadMessage::Entries),
        (append(vec![entry(6, 1)]), BadMessage::Entries),
        (append(vec![entry(6, 2), entry(6, 2)]), BadMessage::Entries),
        (append(vec![change]), BadMessage::Entries),
        (append(vec![empty]), BadMessage::Entries),
        (
            RaftMessage { commit: LogIndex(6), ..message(Heartbeat) },
            BadMessage::BehindItself { said: LogIndex(6), ours: LogIndex(5) },
        ),
        (offer(0, 1, conf(&[1], &[])), BadMessage::Number),
        (offer(9, 3, conf(&[1], &[])), BadMessage::Number),
        (offer(9, 2, conf(&[], &[1])), BadMessage::Snapshot(BadConf::Empty)),
        (offer(9, 2, conf(&[1, 0], &[])), BadMessage::Snapshot(BadConf::Nobody)),
        (offer(9, 2, conf(&[1, 1], &[])), BadMessage::Snapshot(BadConf::Twice(ME))),
        (offer(9, 2, conf(&[1, 2], &[1])), BadMessage::Snapshot(BadConf::Twice(ME))),
        (offer(9, 2, half), BadMessage::Snapshot(BadConf::HalfJoint)),
        (offer(9, 2, conf(&[2, 3], &[])), BadMessage::NotInSnapshot),
        (RaftMessage { index: LogIndex(9), ..message(Append) }, BadMessage::Entries),
        (RaftMessage { log_term: Term(1), ..message(Append) }, BadMessage::Entries),
    ];
    let mut node = follower();
    for (message, expected) in cases {
        assert_eq!(node.step(message.clone()), Err(expected), "{message:?}");
        assert!(node.ready().is_none());
    }
    // A leader that would count on an answer to what it never wrote.
    let mut leader = RaftNode::new(&RaftConfig::new(ME, 1), RaftStart::empty(ME)).unwrap();
    leader.campaign();
    let answer =
        RaftMessage { index: LogIndex(9), ..blank(MessageKind::AppendResponse, ME, PEER, leader.term()) };
    let ahead = BadMessage::AheadOfLeader { said: LogIndex(9), ours: LogIndex(1) };
    assert_eq!(leader.step(answer), Err(ahead));
}

const KINDS: [MessageKind; 10] = [
    MessageKind::Append,
    MessageKind::AppendResponse,
    MessageKind::RequestVote,
    MessageKind::RequestVoteResponse,
    MessageKind::Snapshot,
    MessageKind::Heartbeat,
    MessageKind::HeartbeatResponse,
    MessageKind::TimeoutNow,
    MessageKind::RequestPreVote,
    MessageKind::RequestPreVoteResponse,
];

/// A message whose numbers are near those that matter.
fn random(rng: &mut Rng) -> RaftMessage {
    let small = |rng: &mut Rng| if rng.below(20) == 0 { rng.bits() } else { rng.below(9) };
    let kind = KINDS[usize::try_from(rng.below(KINDS.len() as u64)).unwrap()];
    let mut message = blank(kind, ME, NodeId(rng.below(5)), Term(small(rng)));
    message.log_term = Term(small(rng));
    message.index = LogIndex(small(rng));
    message.commit = LogIndex(small(rng));
    message.commit_term = Term(small(rng));
    message.reject = rng.coin();
    message.reject_hint = LogIndex(small(rng));
    if kind == MessageKind::Append {
        let term = message.log_term.0;
        let next = |at| message.index.0.saturating_add(at);
        message.entries = (1..=rng.below(4)).map(|at| entry(next(at), term + rng.below(2))).collect();
    }
    if kind == MessageKind::Snapshot {
        let id = EntryId { index: LogIndex(small(rng)), term: Term(small(rng)) };
        let ids: Vec<u64> = (1..=rng.below(4)).collect();
        let mut conf = conf(&ids, &[5]);
        if rng.below(3) == 0 {
            conf.voters_outgoing = vec![NodeId(1), NodeId(6)];
            conf.learners_next = vec![NodeId(6)];
        }
        message.snapshot = Some(SnapshotOffer { id, conf });
    }
    message
}

#[test]
fn no_message_panics() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut node = follower();
        let mut accepted = 0u32;
        for _ in 0..400 {
            if rng.below(10) == 0 {
                node.tick();
            }
            accepted += u32::from(node.step(random(&mut rng)).is_ok());
            if node.leads() {
                node.propose(&b"x"[..]).unwrap_or_default();
            }
            while let Some(out) = node.ready() {
                if rng.coin() {
                    node.on_persisted(out.number);
                }
            }
            node.take_messages();
            node.committed();
        }
        assert!(accepted > 20, "seed {seed}: {accepted}");
    }
}
