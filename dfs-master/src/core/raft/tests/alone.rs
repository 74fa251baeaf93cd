//! A group of one.

use bytes::Bytes;
use dfs_proto::ids::{LogIndex, Term};

use crate::core::raft::{RaftConfig, RaftNode, RaftStart, RaftStartError, Refused};
use crate::log::entry::{EntryId, EntryKind, HardState, LogEntry, NodeId};

const ME: NodeId = NodeId(1);

fn config() -> RaftConfig {
    RaftConfig::new(ME, 7)
}

/// A sole voter that leads, with its election persisted and committed.
fn leader() -> RaftNode {
    let mut node = RaftNode::new(&config(), RaftStart::empty(ME)).unwrap();
    node.campaign();
    let out = node.ready().unwrap();
    node.on_persisted(out.number);
    assert_eq!(node.committed().len(), 1);
    node
}

fn data(entries: &[LogEntry]) -> Vec<&[u8]> {
    entries.iter().map(|entry| &entry.data[..]).collect()
}

#[test]
fn an_election_then_a_command() {
    let mut node = RaftNode::new(&config(), RaftStart::empty(ME)).unwrap();
    assert_eq!(node.propose(&b"early"[..]), Err(Refused::NotLeader(None)));
    assert!(node.ready().is_none());
    node.campaign();
    assert!(node.leads() && !node.leads_safely());
    let out = node.ready().unwrap();
    assert_eq!(out.hard_state, Some(HardState { term: Term(1), vote: Some(ME), commit: LogIndex(0) }));
    assert_eq!((out.entries.len(), out.entries[0].kind), (1, EntryKind::Election));
    assert!(out.must_sync && node.committed().is_empty());
    node.on_persisted(out.number);
    assert_eq!(node.committed()[0].kind, EntryKind::Election);
    assert!(node.leads_safely());

    let id = node.propose(&b"one"[..]).unwrap();
    assert_eq!(id, EntryId { index: LogIndex(2), term: Term(1) });
    let out = node.ready().unwrap();
    // The commit that the election moved comes along with the next entries.
    assert_eq!(out.hard_state.map(|state| state.commit), Some(LogIndex(1)));
    assert_eq!(data(&out.entries), [b"one"]);
    assert!(node.ready().is_none() && node.committed().is_empty());
    node.on_persisted(out.number);
    let committed = node.committed();
    assert_eq!((committed[0].id(), data(&committed)), (id, vec![&b"one"[..]]));
    assert!(node.committed().is_empty() && node.ready().is_none() && node.take_messages().is_empty());
    assert_eq!((node.applied(), node.entries_held()), (LogIndex(2), 0));
}

#[test]
fn the_next_batch_gathers_while_one_is_persisted() {
    let mut node = leader();
    node.propose(&b"a"[..]).unwrap();
    let first = node.ready().unwrap();
    node.propose(&b"b"[..]).unwrap();
    node.propose(&b"c"[..]).unwrap();
    let second = node.ready().unwrap();
    assert_eq!(data(&second.entries), [b"b", b"c"]);
    node.propose(&b"d"[..]).unwrap();
    node.on_persisted(first.number);
    assert_eq!(data(&node.committed()), [b"a"]);
    // What came before the report and what comes after it leave in one batch.
    node.propose(&b"e"[..]).unwrap();
    let third = node.ready().unwrap();
    assert_eq!(data(&third.entries), [b"d", b"e"]);
    node.on_persisted(third.number);
    assert_eq!(data(&node.committed()), [b"b", b"c", b"d", b"e"]);
}

#[test]
fn a_restart_hands_out_what_was_recovered() {
    let entry = |index, term| LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Command,
        data: Bytes::from(index.to_string()),
    };
    let start = RaftStart {
        base: EntryId { index: LogIndex(10), term: Term(2) },
        entries: vec![entry(11, 2), entry(12, 3), entry(13, 3)],
        // The commit lags behind, as it does after a crash.
        hard_state: HardState { term: Term(3), vote: Some(ME), commit: LogIndex(10) },
        ..RaftStart::empty(ME)
    };
    let mut node = RaftNode::new(&config(), start.clone()).unwrap();
    assert_eq!(data(&node.committed()), [b"11", b"12", b"13"]);
    node.campaign();
    let out = node.ready().unwrap();
    assert_eq!(out.hard_state.map(|state| state.term), Some(Term(4)));
    assert_eq!(out.entries[0].id(), EntryId { index: LogIndex(14), term: Term(4) });
    node.on_persisted(out.number);
    assert_eq!(node.committed().len(), 1);

    // All of it applied already: the node starts from the last entry.
    let applied = RaftStart { base: entry(13, 3).id(), entries: Vec::new(), ..start.clone() };
    let mut node = RaftNode::new(&config(), applied).unwrap();
    assert!(node.committed().is_empty());
    node.campaign();
    assert_eq!(node.last(), LogIndex(14));

    let gap = RaftStart { entries: vec![entry(12, 3)], ..start.clone() };
    let error = RaftNode::new(&config(), gap).unwrap_err();
    assert_eq!(error, RaftStartError::Gap { found: LogIndex(12), last: LogIndex(10) });
    let back = RaftStart { entries: vec![entry(11, 3), entry(12, 2)], ..start };
    assert!(matches!(RaftNode::new(&config(), back), Err(RaftStartError::Term { .. })));
}

#[test]
fn ticks_alone_elect_a_sole_voter_too() {
    let mut node = RaftNode::new(&config(), RaftStart::empty(ME)).unwrap();
    for _ in 0..20 {
        node.tick();
    }
    assert!(node.leads());
    for _ in 0..100 {
        node.tick();
    }
    assert!(node.leads());
}

#[test]
fn a_leader_that_is_swamped_says_so() {
    let mut node = leader();
    let mut taken = 0;
    let refused = loop {
        match node.propose(vec![1; 1 << 20]) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((taken, refused), (64, Refused::Busy));
    let out = node.ready().unwrap();
    node.on_persisted(out.number);
    assert_eq!(node.committed().len(), 64);
    node.propose(&b"again"[..]).unwrap();
}

/// Prints what a proposal costs, from propose to commit. Run it in release mode.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn cost_of_a_proposal() {
    for batch in [1usize, 10, 100] {
        let mut node = leader();
        let command = vec![7u8; 150];
        let rounds = 300_000 / batch;
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            for _ in 0..batch {
                node.propose(command.clone()).unwrap();
            }
            let out = node.ready().unwrap();
            node.on_persisted(out.number);
            assert_eq!(node.committed().len(), batch);
        }
        let nanos = begun.elapsed().as_nanos() / (rounds * batch) as u128;
        println!("batches of {batch}: {nanos} ns a proposal");
    }
}
