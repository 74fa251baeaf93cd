//! A secondary leaves while reads and writes go on.

use dfs_proto::chunk::Range;
use dfs_proto::control::{Delete, DeleteChunk, ServerEvent, Withdraw, WithdrawChunk};
use dfs_proto::ids::{ChunkVersion, ConfigNum, LogIndex, Seq};
use dfs_proto::status::Status;

use super::bench::{Bench, CHUNK, TERM, num};
use crate::core::io::{Input, Reply};

const BLOCK0: Range = Range { offset: 0, len: 4096 };

fn withdraw(bench: &mut Bench, at: u16, version: u32, config: u32) -> Status {
    let asked = WithdrawChunk { chunk: CHUNK, version: ChunkVersion(version), config: ConfigNum(config) };
    let call =
        bench.ask(at, |call| Input::Withdraw { call, body: Withdraw { term: TERM, chunks: vec![asked] } });
    match &bench.replies[&call] {
        Reply::Withdrawn(withdrawn) => withdrawn.results[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_that_it_refuses_is_complete_without_it() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    let cap = bench.cap(1, 1);
    bench.pass(10, &[]);
    assert_eq!(bench.read(3, cap, 0), Ok(1));
    assert_eq!(withdraw(&mut bench, 3, 1, 2), Status::Ok);
    assert_eq!(bench.read(3, cap, 0), Err(Status::WrongChunkVersion), "it serves nothing");
    assert_eq!(bench.read(2, cap, 0), Ok(1));
    let write = bench.write(1, cap, 2, BLOCK0, 2);
    let sync = bench.sync(1, cap);
    assert!(
        !bench.replies.contains_key(&write) && !bench.replies.contains_key(&sync),
        "as long as it is a member"
    );
    let members = bench.members(&[1, 2]);
    bench.active(&[1, 2], 1, 2, members);
    bench.pass(200, &[1, 2]);
    assert_eq!(bench.replies[&write], Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None });
    assert!(matches!(&bench.replies[&sync], Reply::Synced { results, .. } if results == &[Status::Ok]));
    bench.assert_equal(&[1, 2]);
    assert_eq!(bench.read(1, bench.cap(1, 2), 0), Ok(2));
}

#[test]
fn a_confirmation_from_before_comes_too_late() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    assert_eq!(withdraw(&mut bench, 3, 1, 2), Status::Ok);
    assert_eq!(withdraw(&mut bench, 3, 1, 2), Status::Ok, "asked again");
    let all = bench.members(&[1, 2, 3]);
    bench.active(&[3], 1, 1, all.clone());
    assert_eq!(bench.read(3, bench.cap(1, 1), 0), Err(Status::WrongChunkVersion));
    // A recovery took the place of the departure, and kept it.
    let state = bench.fence(3, 2);
    assert!(matches!(state, Some(dfs_proto::control::FenceAnswer::Holds(_))), "{state:?}");
    bench.active_with(&[3], 2, 2, all, Vec::new(), Seq(1));
    assert_eq!(bench.read(3, bench.cap(2, 2), 0), Ok(1));
}

/// A reader's place of before may say that nothing was ever written, and "no chunk" would be zeros to it.
#[test]
fn who_left_and_was_removed_does_not_say_that_nothing_was_written() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    let cap = bench.cap(1, 1);
    bench.pass(10, &[]);
    assert_eq!(withdraw(&mut bench, 3, 1, 2), Status::Ok);
    bench.event(3, ServerEvent::NotMember { chunk: CHUNK, version: ChunkVersion(1), config: ConfigNum(2) });
    let up_to = Some((ChunkVersion(1), ConfigNum(1)));
    let order = DeleteChunk { chunk: CHUNK, up_to, tombstone: LogIndex(1), surplus: true };
    let body = Delete { term: TERM, checkpoint: LogIndex(5), chunks: vec![order] };
    let call = bench.ask(3, |call| Input::Delete { call, body });
    bench.pass(10, &[]);
    assert_eq!(bench.replies[&call], Reply::Deleted(vec![Status::Ok]));
    assert_eq!(bench.read(3, cap, 0), Err(Status::WrongChunkVersion));
    let sync = bench.sync(3, cap);
    assert_eq!(
        bench.replies[&sync],
        Reply::Synced { results: vec![Status::WrongChunkVersion], digest: None }
    );
    // It is forgotten when no capability of before can be valid any more.
    for _ in 0..13 {
        bench.pass(10_000, &[]);
        bench.beat(num(3));
    }
    assert_eq!(bench.read(3, bench.cap(1, 1), 0), Err(Status::NoChunk));
}

#[test]
fn who_may_not_leave_stays() {
    let mut bench = Bench::new(4);
    bench.create(&[1, 2, 3]);
    assert_eq!(withdraw(&mut bench, 1, 1, 2), Status::Recovering, "the primary");
    assert_eq!(withdraw(&mut bench, 3, 2, 2), Status::WrongChunkVersion, "of another version");
    assert_eq!(withdraw(&mut bench, 4, 1, 2), Status::NoChunk);
    bench.event(3, ServerEvent::NotMember { chunk: CHUNK, version: ChunkVersion(1), config: ConfigNum(2) });
    assert_eq!(withdraw(&mut bench, 3, 1, 2), Status::Ok, "it has left");
    bench.register(num(2));
    bench.beat(num(2));
    assert_eq!(withdraw(&mut bench, 2, 1, 2), Status::Ok, "one that waits for its confirmation takes writes");
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert!(!bench.replies.contains_key(&call));
}
