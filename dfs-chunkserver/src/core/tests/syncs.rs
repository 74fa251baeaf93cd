//! Syncs reach every disk, and an error of one is final.

use std::collections::BTreeSet;

use dfs_disk::sim::Call;
use dfs_proto::chunk::{Capability, Range, SyncChunk};
use dfs_proto::ids::{ChunkId, ChunkVersion};
use dfs_proto::status::Status;

use super::bench::{Bench, CHUNK, is_disk_of, num, sealed};
use crate::core::io::{CallToken, Input, Reply};

fn result(bench: &Bench, call: CallToken) -> Option<Status> {
    match bench.replies.get(&call)? {
        Reply::Synced { results, .. } => Some(results[0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn done_when_every_disk_has_it() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.hold(|packet| is_disk_of(packet, 3));
    let call = bench.sync(1, bench.cap(1, 1));
    assert_eq!(result(&bench, call), None);
    bench.release();
    assert_eq!(result(&bench, call), Some(Status::Ok));
    for n in 1..=3 {
        bench.nodes[&num(n)].disk.power_cut();
    }
    for n in 1..=3 {
        bench.restart(num(n));
    }
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn a_sync_error_fails_the_replica_for_good() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.nodes[&num(1)].disk.fail(Call::Sync, "");
    let call = bench.sync(1, bench.cap(1, 1));
    assert_ne!(result(&bench, call), Some(Status::Ok));
    bench.nodes[&num(1)].disk.heal();
    let again = bench.sync(1, bench.cap(1, 1));
    assert_eq!(result(&bench, again), Some(Status::NotServing));
    assert!(bench.troubles.iter().any(|(_, report)| report.failed == [CHUNK]));
    let now = bench.now;
    assert_eq!(bench.nodes.get_mut(&num(1)).unwrap().core.lost(now), [CHUNK]);
    let write = bench.write(1, bench.cap(1, 1), 2, Range { offset: 0, len: 1 }, 1);
    assert_eq!(bench.replies[&write], Reply::Failed(Status::NotServing));
}

#[test]
fn a_member_that_does_not_answer_is_asked_again_but_not_for_ever() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.cut.push(num(2));
    let call = bench.sync(1, bench.cap(1, 1));
    bench.pass(1_000, &[1, 2]);
    assert_eq!(result(&bench, call), None);
    bench.cut.clear();
    bench.pass(100, &[1, 2]);
    assert_eq!(result(&bench, call), Some(Status::Ok));
    bench.cut.push(num(2));
    let call = bench.sync(1, bench.cap(1, 1));
    bench.pass(5_000, &[1, 2]);
    assert_eq!(result(&bench, call), Some(Status::Recovering));
    let stale = Capability { version: ChunkVersion(0), ..bench.cap(1, 1) };
    let call = bench.sync(1, stale);
    assert_eq!(result(&bench, call), Some(Status::WrongChunkVersion));
}

#[test]
fn a_silent_member_is_told_of_for_each_chunk_that_it_holds_up() {
    let mut bench = Bench::new(2);
    let caps = [1, 2, 3].map(|n| {
        let cap = Capability { chunk: ChunkId(CHUNK.0 + n), ..bench.cap(1, 1) };
        let create = bench.members(&[1, 2]);
        bench.write_new(1, cap, 1, Range { offset: 0, len: 4096 }, 1, create);
        cap
    });
    bench.cut.push(num(2));
    let chunks: Vec<SyncChunk> =
        caps.iter().map(|cap| SyncChunk { capability: sealed(*cap), since: cap.version }).collect();
    bench.ask(1, |call| Input::Sync { call, chunks });
    bench.troubles.clear();
    bench.pass(300, &[1, 2]);
    let doubted: BTreeSet<ChunkId> = bench
        .troubles
        .iter()
        .flat_map(|(_, trouble)| &trouble.reports)
        .filter(|report| report.server == num(2))
        .filter_map(|report| report.chunk)
        .collect();
    assert_eq!(doubted, caps.iter().map(|cap| cap.chunk).collect());
}
