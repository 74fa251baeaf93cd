//! A disk whose syncs fail: what is whole there is read, fenced and copied from, and nothing is written to it.

use dfs_disk::sim::Call;
use dfs_proto::chunk::{Capability, Range};
use dfs_proto::control::{Close, CloseAnswer, CloseChunk, FenceAnswer};
use dfs_proto::ids::{ChunkId, ChunkVersion, OpenNum};
use dfs_proto::meta::Suspicion;
use dfs_proto::status::Status;

use super::bench::{Bench, CHUNK, TERM, num, sealed};
use crate::core::io::{Input, Reply};

const BLOCK0: Range = Range { offset: 0, len: 4096 };
/// The chunk whose sync fails.
const OTHER: ChunkId = ChunkId(8);

/// The chunk of these members is synced everywhere; then a sync of another one fails on `broken`'s disk.
fn broken(members: &[u16], broken: u16) -> Bench {
    let mut bench = Bench::new(3);
    bench.create(members);
    let call = bench.sync(members[0], bench.cap(1, 1));
    assert!(matches!(&bench.replies[&call], Reply::Synced { results, .. } if results == &[Status::Ok]));
    let cap = sealed(Capability { chunk: OTHER, ..bench.cap(1, 1) });
    let new = bench.members(&[broken]);
    let call = bench.write_new(broken, cap, 1, BLOCK0, 5, new);
    assert!(matches!(bench.replies[&call], Reply::Written { .. }));
    bench.nodes[&num(broken)].disk.fail(Call::Sync, "");
    bench.sync(broken, cap);
    assert!(bench.nodes[&num(broken)].store.suspect());
    bench.pass(5, &[1, 2, 3]);
    bench.troubles.clear();
    bench
}

/// What was said of chunks of read-only disks, and by whom.
fn told(bench: &Bench, what: Suspicion) -> Vec<(u16, ChunkId)> {
    let reports = bench.troubles.iter().flat_map(|(_, trouble)| &trouble.reports);
    let told = reports.filter(|report| report.what == what);
    told.map(|report| (report.server.0, report.chunk.unwrap())).collect()
}

/// Who refused a write for it.
fn said(bench: &Bench) -> Vec<u16> {
    told(bench, Suspicion::ReadOnly).into_iter().map(|(server, _)| server).collect()
}

fn failed(bench: &Bench) -> bool {
    bench.troubles.iter().any(|(_, trouble)| trouble.failed.contains(&CHUNK))
}

#[test]
fn a_primary_refuses_a_write_before_it_is_anywhere_and_is_read_on() {
    let mut bench = broken(&[1, 2], 1);
    let before = bench.nodes[&num(1)].store.table(CHUNK).unwrap();
    for op in [2, 2, 3] {
        let write = bench.write(1, bench.cap(1, 1), op, BLOCK0, 9);
        assert_eq!(bench.replies[&write], Reply::Failed(Status::DiskFailed));
    }
    assert_eq!(said(&bench), [1], "once a second");
    bench.assert_equal(&[1, 2]);
    assert_eq!(bench.nodes[&num(1)].store.table(CHUNK).unwrap(), before);
    let zero = bench.zero(1, 0, 5);
    assert_eq!(bench.replies[&zero], Reply::Failed(Status::DiskFailed));
    assert_eq!(bench.read(1, bench.cap(1, 1), 0), Ok(1));
    bench.pass(1_500, &[1, 2]);
    bench.write(1, bench.cap(1, 1), 2, BLOCK0, 9);
    assert_eq!(said(&bench), [1, 1]);
    assert!(!failed(&bench));
}

#[test]
fn a_secondary_takes_no_write_and_is_read_on() {
    let mut bench = broken(&[1, 2], 2);
    let write = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 9);
    assert_eq!(bench.replies.get(&write), None, "on one member of two");
    assert_eq!(said(&bench), [2]);
    assert_eq!(bench.read(2, bench.cap(1, 1), 0), Ok(1));
    assert!(!failed(&bench));
    // The chunk goes on without it.
    for n in [1, 2] {
        assert!(matches!(bench.fence(n, 2), Some(FenceAnswer::Holds(_))), "{n}");
    }
    bench.active(&[1], 2, 2, bench.members(&[1]));
    let again = bench.write(1, bench.cap(2, 2), 2, BLOCK0, 9);
    assert!(matches!(bench.replies[&again], Reply::Written { .. }));
}

#[test]
fn it_is_fenced_and_copied_from_and_its_files_stay_as_they_are() {
    let mut bench = broken(&[1], 1);
    let header = bench.nodes[&num(1)].disk.clone();
    let path = crate::store::chunk_file(CHUNK);
    let file = dfs_disk::read_file(&header, &path, 1 << 20).unwrap();
    let Some(FenceAnswer::Holds(held)) = bench.fence(1, 2) else { panic!("not held") };
    assert_eq!(held.bad_blocks, 0);
    bench.active(&[1], 2, 2, bench.members(&[1]));
    assert_eq!(bench.read(1, bench.cap(2, 2), 0), Ok(1));
    bench.add_learner(1, 2, 2, 3);
    bench.pass(500, &[1, 3]);
    assert!(bench.learners.iter().any(|report| report.ready && report.learner.server == num(3)));
    bench.assert_equal(&[1, 3]);
    let (version, open_num) = (ChunkVersion(2), OpenNum(1));
    let asked = CloseChunk { chunk: CHUNK, version, open_num, seq: None, note: None };
    bench.active(&[1], 2, 3, bench.members(&[1]));
    let call = bench.ask(1, |call| Input::Close { call, body: Close { term: TERM, chunks: vec![asked] } });
    let Reply::Closed(closed) = &bench.replies[&call] else { panic!("not answered") };
    assert!(matches!(closed.answers[0], CloseAnswer::Refused(_)));
    assert_eq!(dfs_disk::read_file(&header, &path, 1 << 20).unwrap(), file);
    assert!(!failed(&bench));
    // A new process of it is at the version that its disk says.
    bench.nodes[&num(1)].disk.heal();
    bench.restart(num(1));
    let told: Vec<_> = bench.nodes[&num(1)].core.inventory();
    let version = told.iter().find(|info| info.chunk == CHUNK).unwrap().version;
    assert_eq!(version, ChunkVersion(1));
}

#[test]
fn what_nobody_writes_to_is_named_now_and_later() {
    let mut bench = broken(&[1, 2], 1);
    bench.pass(1_500, &[1, 2]);
    assert_eq!(
        told(&bench, Suspicion::Stranded),
        [(1, CHUNK), (1, OTHER)],
        "and nothing of the other server"
    );
    bench.pass(20_000, &[1, 2]);
    assert_eq!(told(&bench, Suspicion::Stranded).len(), 2);
    bench.pass(15_000, &[1, 2]);
    assert_eq!(told(&bench, Suspicion::Stranded).len(), 4, "a new master has not heard it");
}
