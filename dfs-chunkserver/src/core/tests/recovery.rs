//! Fences and new configs: nothing older gets through, nothing acknowledged is lost.

use dfs_proto::chunk::Range;
use dfs_proto::control::{
    Delete, DeleteChunk, FenceAnswer, Registered, ReplicaClass, ReplicaState, ServerEvent,
};
use dfs_proto::ids::{ChunkVersion, ClusterId, ConfigNum, Generation, LogIndex, Seq, SizeEpoch, Term};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkSize, MasterMs};

use super::bench::{Bench, CHUNK, TERM, is_disk_of, key, num};
use crate::core::io::{Input, Reply};

const BLOCK0: Range = Range { offset: 0, len: 4096 };

fn holds(answer: Option<FenceAnswer>) -> ReplicaState {
    match answer {
        Some(FenceAnswer::Holds(state)) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_primary_dies_and_its_write_is_rolled_forward_once() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.hold(|packet| is_disk_of(packet, 1));
    bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    // Server 1 is gone; both others have the write, and it was never acknowledged.
    let (a, b) = (holds(bench.fence(2, 2)), holds(bench.fence(3, 2)));
    assert_eq!((a.class, a.applied), (ReplicaClass::Intact, Seq(2)));
    assert_eq!(a.digest, b.digest);
    assert_eq!(bench.read(2, bench.cap(1, 1), 0), Err(Status::Recovering));
    let fenced = |bench: &Bench| bench.nodes[&num(2)].core.inventory()[0].fenced;
    assert!(fenced(&bench));
    let members = bench.members(&[2, 3]);
    bench.active_with(&[2, 3], 2, 2, members, a.ops, a.applied);
    assert!(!fenced(&bench));
    let cap = bench.cap(2, 2);
    let retry = bench.write(2, cap, 2, BLOCK0, 9);
    assert_eq!(
        bench.replies[&retry],
        Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None },
        "known from the base"
    );
    assert_eq!(bench.read(3, cap, 0), Ok(2));
    assert_eq!(bench.read(3, bench.cap(1, 1), 0), Err(Status::WrongChunkVersion));
    let next = bench.write(2, cap, 3, BLOCK0, 3);
    assert_eq!(bench.replies[&next], Reply::Written { chunk: CHUNK, seq: Seq(3), cut: None });
    bench.assert_equal(&[2, 3]);
    // The old primary comes to: its forwards are refused, its client is never told "written".
    bench.release();
    bench.pass(20, &[]);
    bench.assert_equal(&[2, 3]);
}

#[test]
fn the_primary_dies_after_a_truncation_and_the_next_knows_of_it() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    bench.zero(1, 0, 1);
    let state = holds(bench.fence(2, 2));
    holds(bench.fence(3, 2));
    let members = bench.members(&[2, 3]);
    bench.active_with(&[2, 3], 2, 2, members, state.ops, state.applied);
    let old = bench.cap(2, 2);
    let new = dfs_proto::chunk::Capability { size_epoch: SizeEpoch(1), ..old };
    // Its answer was lost with the primary: what it wrote is cut.
    let retry = bench.write(2, new, 2, BLOCK0, 2);
    let cut = Some(SizeEpoch(0));
    assert_eq!(bench.replies[&retry], Reply::Written { chunk: CHUNK, seq: Seq(2), cut });
    let late = bench.write(2, old, 3, BLOCK0, 3);
    assert_eq!(bench.replies[&late], Reply::Failed(Status::OldEpoch));
    assert_eq!(bench.read(3, new, 0), Ok(0));
}

#[test]
fn a_deposed_primary_acknowledges_nothing() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    holds(bench.fence(2, 2));
    let state = holds(bench.fence(3, 2));
    let members = bench.members(&[2, 3]);
    bench.active_with(&[2, 3], 2, 2, members, state.ops, state.applied);
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    bench.pass(3_000, &[1, 2, 3]);
    assert!(!bench.replies.contains_key(&call));
    bench.event(1, ServerEvent::NotMember { chunk: CHUNK, version: ChunkVersion(2), config: ConfigNum(2) });
    assert_eq!(bench.replies[&call], Reply::Failed(Status::WrongChunkVersion));
    assert_eq!(bench.read(1, bench.cap(1, 1), 1), Err(Status::WrongChunkVersion));
}

#[test]
fn a_secondary_is_lost_and_the_held_write_is_answered() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.cut.push(num(3));
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    let state = holds(bench.fence(1, 2));
    assert_eq!(state.applied, Seq(2));
    assert_eq!(bench.replies[&call], Reply::Failed(Status::Recovering), "so that the client comes again");
    let other = holds(bench.fence(2, 2));
    assert_eq!(other.digest, state.digest);
    let members = bench.members(&[1, 2]);
    bench.active_with(&[1, 2], 2, 2, members, state.ops, state.applied);
    let retry = bench.write(1, bench.cap(2, 2), 2, BLOCK0, 2);
    assert_eq!(bench.replies[&retry], Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None });
}

#[test]
fn a_fence_waits_for_the_disk() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.hold(|packet| is_disk_of(packet, 2));
    bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert_eq!(bench.fence(2, 2), None, "the disk still has a write");
    bench.release();
    let fenced = bench.replies.values().any(|reply| matches!(reply, Reply::Fenced(_)));
    assert!(fenced);
    // One that hangs is answered for after a while.
    bench.hold(|packet| is_disk_of(packet, 1));
    assert_eq!(bench.fence(1, 2), None);
    bench.pass(8_001, &[1, 2]);
    let refused = FenceAnswer::Refused(Status::Deadline);
    assert!(
        bench
            .replies
            .values()
            .any(|reply| matches!(reply, Reply::Fenced(fenced) if fenced.answers[0] == refused))
    );
}

#[test]
fn a_fence_that_found_no_room_leaves_a_good_replica() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    let disk = bench.nodes[&num(1)].disk.clone();
    disk.set_capacity(0);
    let refused = FenceAnswer::Refused(Status::NoSpace);
    // What the log has ahead goes first.
    let last = (2..10_000).find(|version| bench.fence(1, *version) == Some(refused.clone())).unwrap();
    assert_eq!(bench.fence(1, last), Some(refused));
    disk.set_capacity(1 << 30);
    let state = holds(bench.fence(1, last));
    assert_eq!((state.class, state.applied), (ReplicaClass::Intact, Seq(1)));
}

#[test]
fn fences_only_rise_and_stop_late_creations() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.fence(1, 5), Some(FenceAnswer::Missing));
    let members = bench.members(&[1, 2]);
    let call = bench.write_new(1, bench.cap(1, 1), 1, BLOCK0, 1, members.clone());
    assert_eq!(bench.replies[&call], Reply::Failed(Status::WrongChunkVersion));
    assert_eq!(bench.fence(1, 4), Some(FenceAnswer::Refused(Status::WrongChunkVersion)));
    bench.active(&[1], 4, 4, members);
    assert_eq!(bench.read(1, bench.cap(4, 4), 0), Err(Status::WrongChunkVersion), "of before the fence");
}

#[test]
fn who_was_left_out_before_the_first_write_makes_no_replica_by_it() {
    let mut bench = Bench::new(2);
    let members = bench.members(&[1, 2]);
    let out = ServerEvent::NotMember { chunk: CHUNK, version: ChunkVersion(2), config: ConfigNum(2) };
    bench.event(1, out);
    let call = bench.write_new(1, bench.cap(1, 1), 1, BLOCK0, 1, members);
    assert_eq!(bench.replies[&call], Reply::Failed(Status::WrongChunkVersion));
    assert_eq!(bench.nodes[&num(1)].core.serves(CHUNK), None);
}

#[test]
fn a_restarted_member_tells_what_its_disk_has() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.sync(1, bench.cap(1, 1));
    bench.restart(num(2));
    let state = holds(bench.fence(2, 2));
    assert_eq!((state.class, state.bad_blocks, state.good_blocks), (ReplicaClass::Restarted, 0, 16));
    assert_eq!(state.synced, Seq(1));
    assert_eq!(state.digest, holds(bench.fence(1, 2)).digest);
    // The old boot is not meant by a config that names it.
    let mut members = bench.members(&[1, 2]);
    members[1].boot.0 -= 1;
    bench.active(&[2], 2, 2, members);
    assert_eq!(bench.read(2, bench.cap(2, 2), 0), Err(Status::WrongChunkVersion));
}

#[test]
fn a_new_generation_begins_its_marks_anew_and_an_older_one_is_not_obeyed() {
    let mut bench = Bench::new(1);
    let (generation, term, _) = bench.nodes[&num(1)].core.high_water();
    let registered = |generation, term| Registered {
        num: num(1),
        cluster: ClusterId(1),
        generation,
        term,
        chunk_size: ChunkSize::try_from(64 << 10).unwrap(),
        lease_ms: 6_000,
        heartbeat_ms: 1_000,
        key: key(),
        given_since: MasterMs(0),
    };
    assert!(term > Term(0));
    bench.step(num(1), Input::Registered(registered(generation, Term(0))));
    assert_eq!(bench.nodes[&num(1)].core.high_water().1, term, "an older term of the same generation");
    let next = Generation(generation.0 + 1);
    bench.step(num(1), Input::Registered(registered(next, Term(1))));
    assert_eq!(bench.nodes[&num(1)].core.high_water(), (next, Term(1), LogIndex(0)));
    bench.step(num(1), Input::Registered(registered(generation, Term(50))));
    assert_eq!(bench.nodes[&num(1)].core.high_water(), (next, Term(1), LogIndex(0)));
}

#[test]
fn an_older_master_is_not_obeyed() {
    let mut bench = Bench::new(1);
    bench.create(&[1]);
    let chunks = vec![DeleteChunk { chunk: CHUNK, up_to: None, tombstone: LogIndex(1), surplus: false }];
    let old = Delete { term: Term(0), checkpoint: LogIndex(5), chunks: chunks.clone() };
    let call = bench.ask(1, |call| Input::Delete { call, body: old });
    assert_eq!(bench.replies[&call], Reply::Failed(Status::Behind));
    let early = Delete { term: TERM, checkpoint: LogIndex(0), chunks: chunks.clone() };
    let call = bench.ask(1, |call| Input::Delete { call, body: early });
    assert_eq!(bench.replies[&call], Reply::Deleted(vec![Status::Invalid]), "tombstone not in a checkpoint");
    let good = Delete { term: TERM, checkpoint: LogIndex(5), chunks };
    let call = bench.ask(1, |call| Input::Delete { call, body: good });
    assert_eq!(bench.replies[&call], Reply::Deleted(vec![Status::Ok]));
    assert!(!bench.nodes[&num(1)].store.contains(CHUNK));
}

#[test]
fn a_removed_replica_goes_only_at_its_version() {
    let mut bench = Bench::new(1);
    bench.create(&[1]);
    let delete = |config| DeleteChunk {
        chunk: CHUNK,
        up_to: Some((ChunkVersion(1), ConfigNum(config))),
        tombstone: LogIndex(1),
        surplus: false,
    };
    for (config, status) in [(0, Status::WrongChunkVersion), (1, Status::Ok)] {
        let body = Delete { term: TERM, checkpoint: LogIndex(5), chunks: vec![delete(config)] };
        let call = bench.ask(1, |call| Input::Delete { call, body });
        assert_eq!(bench.replies[&call], Reply::Deleted(vec![status]));
    }
}
