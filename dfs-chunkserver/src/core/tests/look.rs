//! What a server says it has; and blocks that an operator gives up.

use dfs_disk::Disk;
use dfs_proto::chunk::Range;
use dfs_proto::control::{
    Examine, Examined, HeldState, Holdings, Look, Reconcile, Reconciled, ReplicaClass, Settle,
};
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, Term};
use dfs_proto::status::Status;

use super::bench::{Bench, CHUNK, TERM, num};
use crate::core::io::{Input, Reply};

const BLOCK0: Range = Range { offset: 0, len: 4096 };
const FILE: &str = "chunks/07/0000000000000007.chunk";
const DATA: u64 = 131_072;

fn look(bench: &mut Bench, from: ChunkId) -> Holdings {
    let call = bench.ask(1, |call| Input::Look { call, body: Look { term: TERM, from } });
    match bench.replies.remove(&call) {
        Some(Reply::Held(held)) => held,
        other => panic!("{other:?}"),
    }
}

fn examine(bench: &mut Bench, chunk: ChunkId) -> Examined {
    let call = bench.ask(1, |call| Input::Examine { call, body: Examine { term: TERM, chunk } });
    match bench.replies.remove(&call) {
        Some(Reply::Examined(examined)) => examined,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_look_asks_the_disk_and_needs_no_lease() {
    let mut bench = Bench::new(2);
    assert_eq!(look(&mut bench, ChunkId(0)), Holdings { replicas: vec![], next: None });
    bench.create(&[1, 2]);
    bench.pass(10_000, &[2]);
    assert_eq!(bench.read(1, bench.cap(1, 1), 0), Err(Status::NotServing));
    let held = look(&mut bench, ChunkId(0));
    let replica = held.replicas[0];
    assert_eq!((held.replicas.len(), held.next, replica.chunk), (1, None, CHUNK));
    let expected = (ChunkVersion(1), ConfigNum(1), Ino(2), HeldState::Present, false);
    let numbers = (replica.version, replica.config, replica.ino, replica.state, replica.learner);
    assert_eq!(numbers, expected);
    assert_eq!(look(&mut bench, ChunkId(CHUNK.0 + 1)).replicas, []);
    // Somebody removes the file under the server's open descriptor.
    bench.nodes[&num(1)].disk.remove(FILE).unwrap();
    assert_eq!(look(&mut bench, ChunkId(0)).replicas[0].state, HeldState::Gone);
    assert_eq!(examine(&mut bench, CHUNK).replica.unwrap().state, HeldState::Gone);
    // An older master is told nothing.
    let body = Look { term: Term(0), from: ChunkId(0) };
    let call = bench.ask(1, |call| Input::Look { call, body });
    assert!(matches!(bench.replies[&call], Reply::Failed(_)), "{:?}", bench.replies[&call]);
}

#[test]
fn rotten_blocks_become_zeros_when_they_are_given_up_and_no_others() {
    let mut bench = Bench::new(1);
    bench.create(&[1]);
    let examined = examine(&mut bench, CHUNK);
    assert_eq!((examined.good_blocks, examined.bad, examined.class), (16, vec![], ReplicaClass::Intact));
    assert_eq!(examine(&mut bench, ChunkId(99)).replica, None);
    for block in [3_u64, 4, 9] {
        assert!(bench.nodes[&num(1)].disk.flip_bit(FILE, DATA + block * 4096 + 5, 2));
    }
    assert_eq!(examine(&mut bench, CHUNK).bad, [(3, 2), (9, 1)]);
    let reconcile = |bench: &mut Bench, version, settle| {
        let body = Reconcile { term: TERM, chunk: CHUNK, version: ChunkVersion(version), settle };
        let call = bench.ask(1, |call| Input::Reconcile { call, body });
        bench.replies.remove(&call).unwrap()
    };
    // Nobody may use it meanwhile.
    assert_eq!(reconcile(&mut bench, 2, Settle::Zeros), Reply::Failed(Status::WrongChunkVersion));
    bench.fence(1, 2).unwrap();
    let settled = |reply| match reply {
        Reply::Reconciled(Reconciled { torn_resolved, .. }) => torn_resolved,
        other => panic!("{other:?}"),
    };
    let kept = reconcile(&mut bench, 2, Settle::Keep);
    assert_eq!((settled(kept), examine(&mut bench, CHUNK).bad.len()), (0, 2));
    let zeroed = reconcile(&mut bench, 2, Settle::Zeros);
    assert_eq!((settled(zeroed), examine(&mut bench, CHUNK).bad), (3, vec![]));
    let members = bench.members(&[1]);
    bench.active(&[1], 2, 2, members);
    let cap = bench.cap(2, 2);
    let bytes: Vec<u8> = (0..16).map(|block| bench.read(1, cap, block).unwrap()).collect();
    let expected: Vec<u8> = (0..16).map(|block| u8::from(![3, 4, 9].contains(&block))).collect();
    assert_eq!(bytes, expected);
    bench.write(1, cap, 2, BLOCK0, 7);
    assert_eq!(bench.read(1, cap, 0), Ok(7));
}
