//! Writes: acknowledged only by all, done once, refused when stale.

use dfs_proto::chunk::Range;
use dfs_proto::control::ServerEvent;
use dfs_proto::ids::{BootId, ChunkVersion, ConfigNum, OpId, Seq, SessionId, SizeEpoch};
use dfs_proto::status::Status;
use dfs_proto::units::MasterMs;

use super::bench::{Bench, CHUNK, is_disk_of, is_forward_to, num, sealed};
use crate::core::io::{CallToken, Input, Reply};

const BLOCK0: Range = Range { offset: 0, len: 4096 };

fn written(seq: u64) -> Reply {
    Reply::Written { chunk: CHUNK, seq: Seq(seq), cut: None }
}

fn failed(bench: &Bench, call: CallToken) -> Status {
    match &bench.replies[&call] {
        Reply::Failed(status) => *status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn acknowledged_only_after_all() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.assert_equal(&[1, 2, 3]);
    bench.hold(|packet| is_forward_to(packet, 3));
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert!(!bench.replies.contains_key(&call), "one member has not answered");
    bench.release();
    assert_eq!(bench.replies[&call], written(2));
    bench.hold(|packet| is_disk_of(packet, 1));
    let call = bench.write(1, bench.cap(1, 1), 3, BLOCK0, 3);
    assert!(!bench.replies.contains_key(&call), "the own disk has not answered");
    bench.release();
    assert_eq!(bench.replies[&call], written(3));
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn a_retry_takes_effect_once() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.hold(|packet| is_forward_to(packet, 2));
    let first = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    let retry = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert_eq!(bench.held.len(), 1, "a retry joins the write under way");
    bench.release();
    assert_eq!((&bench.replies[&first], &bench.replies[&retry]), (&written(2), &written(2)));
    let late = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 9);
    assert_eq!(bench.replies[&late], written(2));
    assert_eq!(bench.read(1, bench.cap(1, 1), 0), Ok(2));
}

#[test]
fn zeros_are_ordered_acknowledged_and_retried_like_bytes() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.hold(|packet| is_forward_to(packet, 3));
    let zeros = bench.punch(1, bench.cap(1, 1), 2, Range { offset: 0, len: 8192 });
    let retry = bench.punch(1, bench.cap(1, 1), 2, Range { offset: 0, len: 8192 });
    let behind = bench.write(1, bench.cap(1, 1), 3, Range { offset: 4096, len: 4096 }, 3);
    assert!(!bench.replies.contains_key(&zeros), "one member has not answered");
    assert_eq!(bench.held.len(), 1, "the retry joins, and the write waits for its block");
    bench.release();
    assert_eq!((&bench.replies[&zeros], &bench.replies[&retry]), (&written(2), &written(2)));
    assert_eq!(bench.replies[&behind], written(3));
    bench.assert_equal(&[1, 2, 3]);
    assert_eq!(bench.read(2, bench.cap(1, 1), 0), Ok(0));
    // Answered, not applied once more.
    let late = bench.punch(1, bench.cap(1, 1), 2, Range { offset: 0, len: 8192 });
    assert_eq!(bench.replies[&late], written(2));
    assert_eq!(bench.read(1, bench.cap(1, 1), 1), Ok(3));
    let old = dfs_proto::chunk::Capability { version: ChunkVersion(0), ..bench.cap(1, 1) };
    let stale = bench.punch(1, old, 4, BLOCK0);
    assert_eq!(failed(&bench, stale), Status::WrongChunkVersion);
}

#[test]
fn a_member_told_with_another_boot_still_owes_its_answer() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.hold(|packet| is_forward_to(packet, 3));
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    let mut members = bench.members(&[1, 2, 3]);
    members[2].boot = BootId(0);
    bench.active(&[1], 1, 1, members);
    assert!(!bench.replies.contains_key(&call), "the third member has not answered");
    let members = bench.members(&[1, 2, 3]);
    bench.active(&[1], 1, 1, members);
    bench.release();
    assert_eq!(bench.replies[&call], written(2));
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn overlapping_writes_go_one_after_the_other() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.hold(|packet| is_forward_to(packet, 2));
    let first = bench.write(1, bench.cap(1, 1), 2, Range { offset: 100, len: 10 }, 2);
    let other = bench.write(1, bench.cap(1, 1), 3, Range { offset: 8192, len: 10 }, 3);
    let second = bench.write(1, bench.cap(1, 1), 4, Range { offset: 4000, len: 200 }, 4);
    assert_eq!(bench.held.len(), 2, "the third shares a block with the first");
    bench.release();
    for call in [first, other, second] {
        assert!(matches!(bench.replies[&call], Reply::Written { .. }));
    }
    bench.assert_equal(&[1, 2]);
}

#[test]
fn a_forward_that_comes_twice_is_applied_once() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.hold(|packet| is_forward_to(packet, 2));
    bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    let twice = bench.held[0].clone();
    bench.release();
    let call = bench.write(1, bench.cap(1, 1), 3, BLOCK0, 3);
    assert_eq!(bench.replies[&call], written(3));
    bench.deliver(twice);
    bench.run();
    bench.assert_equal(&[1, 2]);
    assert_eq!(bench.read(1, bench.cap(1, 1), 0), Ok(3));
}

#[test]
fn stale_and_foreign_capabilities_are_refused() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    let good = bench.cap(1, 1);
    let mut refused = |cap, status| {
        let call = bench.write(1, cap, 2, BLOCK0, 2);
        assert_eq!(failed(&bench, call), status);
    };
    refused(dfs_proto::chunk::Capability { version: ChunkVersion(0), ..good }, Status::WrongChunkVersion);
    refused(dfs_proto::chunk::Capability { version: ChunkVersion(2), ..good }, Status::Recovering);
    refused(dfs_proto::chunk::Capability { config: ConfigNum(2), ..good }, Status::Recovering);
    refused(dfs_proto::chunk::Capability { expires: MasterMs(999), ..good }, Status::BadCapability);
    let read_only = dfs_proto::chunk::Rights { read: true, write: false };
    refused(dfs_proto::chunk::Capability { rights: read_only, ..good }, Status::BadCapability);
    let at_secondary = bench.write(2, good, 2, BLOCK0, 2);
    assert_eq!(failed(&bench, at_secondary), Status::Redirect);
    // What no master sealed is worth nothing.
    let forged = dfs_proto::chunk::SyncChunk { capability: good, since: good.version };
    let call = bench.ask(1, |call| Input::Sync { call, chunks: vec![forged] });
    assert_eq!(bench.replies[&call], Reply::Synced { results: vec![Status::BadCapability], digest: None });
    bench.event(1, ServerEvent::SessionEnded { session: SessionId(1) });
    let ended = bench.write(1, good, 2, BLOCK0, 2);
    assert_eq!(failed(&bench, ended), Status::BadCapability);
}

#[test]
fn another_boot_creates_nothing() {
    let mut bench = Bench::new(2);
    let mut members = bench.members(&[1, 2]);
    members[0].boot = BootId(1);
    let call = bench.write_new(1, bench.cap(1, 1), 1, BLOCK0, 1, members);
    assert_eq!(failed(&bench, call), Status::NotServing);
    let mut members = bench.members(&[1, 2]);
    members[1].boot = BootId(1);
    let call = bench.write_new(1, bench.cap(1, 1), 1, BLOCK0, 1, members);
    bench.pass(50, &[]);
    assert!(!bench.replies.contains_key(&call), "the second member is another boot: held");
    assert!(!bench.nodes[&num(2)].store.contains(CHUNK));
}

#[test]
fn ops_outside_the_window_are_refused() {
    let mut bench = Bench::new(1);
    bench.create(&[1]);
    let far = bench.write(1, bench.cap(1, 1), 500, BLOCK0, 2);
    assert!(matches!(bench.replies[&far], Reply::Written { .. }), "done rose with it");
    let below = bench.write(1, bench.cap(1, 1), 3, BLOCK0, 2);
    assert_eq!(failed(&bench, below), Status::Invalid);
}

#[test]
fn a_truncation_refuses_older_writes() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    let call = bench.zero(1, 5000, 1);
    assert_eq!(bench.replies[&call], Reply::Done);
    bench.assert_equal(&[1, 2, 3]);
    let old = bench.cap(1, 1);
    let call = bench.write(1, old, 2, BLOCK0, 2);
    assert_eq!(failed(&bench, call), Status::OldEpoch);
    let new = dfs_proto::chunk::Capability { size_epoch: SizeEpoch(1), ..old };
    let call = bench.write(1, new, 3, BLOCK0, 3);
    assert_eq!(bench.replies[&call], written(3));
    let again = bench.zero(1, 0, 1);
    assert_eq!(bench.replies[&again], Reply::Done);
    assert_eq!(bench.read(2, new, 0), Err(Status::Redirect), "not known to be on all yet");
    bench.pass(2, &[]);
    assert_eq!(bench.read(2, new, 0), Ok(3), "a zeroing of an old epoch does nothing");
    assert_eq!(bench.read(2, new, 2), Ok(0));
}

#[test]
fn a_retry_of_what_was_cut_since_says_so() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    let old = bench.cap(1, 1);
    bench.write(1, old, 2, BLOCK0, 2);
    bench.zero(1, 0, 1);
    let new = dfs_proto::chunk::Capability { size_epoch: SizeEpoch(1), ..old };
    let call = bench.write(1, new, 2, BLOCK0, 2);
    let cut = Some(SizeEpoch(0));
    assert_eq!(bench.replies[&call], Reply::Written { chunk: CHUNK, seq: Seq(2), cut });
    assert_eq!(bench.read(1, new, 0), Ok(0));
    bench.write(1, new, 3, BLOCK0, 3);
    let again = bench.write(1, new, 3, BLOCK0, 3);
    assert_eq!(bench.replies[&again], written(4));
}

#[test]
fn every_member_refuses_reads_of_before_a_truncation() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.zero(1, 5000, 1);
    bench.pass(2, &[]);
    let old = bench.cap(1, 1);
    let new = dfs_proto::chunk::Capability { size_epoch: SizeEpoch(1), ..old };
    for member in 1..=3 {
        assert_eq!(bench.read(member, old, 2), Err(Status::OldEpoch), "member {member}");
        assert_eq!(bench.read(member, new, 2), Ok(0), "member {member}");
    }
}

#[test]
fn a_capability_of_before_a_registration_makes_no_replica() {
    let mut bench = Bench::new(2);
    let old = bench.cap(1, 1);
    let members = bench.members(&[1, 2]);
    bench.given_since = old.expires;
    bench.register(num(1));
    bench.beat(num(1));
    let call = bench.write_new(1, old, 1, BLOCK0, 1, members.clone());
    assert_eq!(failed(&bench, call), Status::BadCapability);
    let new = dfs_proto::chunk::Capability { expires: MasterMs(old.expires.0 + 1), ..old };
    // The other one registered later still.
    bench.given_since = new.expires;
    bench.register(num(2));
    bench.beat(num(2));
    let call = bench.write_new(1, new, 2, BLOCK0, 1, members);
    assert!(!bench.replies.contains_key(&call), "only one of them has it");
    assert_eq!(bench.read(2, new, 0), Err(Status::BadCapability), "what was here may be gone");
    let newer = dfs_proto::chunk::Capability { expires: MasterMs(new.expires.0 + 1), ..new };
    assert_eq!(bench.read(2, newer, 0), Err(Status::NoChunk));
}

#[test]
fn a_write_that_waited_for_a_truncation_is_checked_again() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.hold(|packet| is_forward_to(packet, 2));
    let first = bench.write(1, bench.cap(1, 1), 2, Range { offset: 8192, len: 10 }, 2);
    let zero = bench.zero(1, 4096, 1);
    let behind = bench.write(1, bench.cap(1, 1), 3, Range { offset: 8192, len: 10 }, 3);
    bench.release();
    assert_eq!(bench.replies[&first], written(2));
    assert_eq!(bench.replies[&zero], Reply::Done);
    assert_eq!(failed(&bench, behind), Status::OldEpoch);
    bench.assert_equal(&[1, 2]);
}

#[test]
fn bytes_damaged_on_the_way_are_refused_by_all_and_applied_by_none() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    let meta = dfs_proto::chunk::WriteMeta {
        capability: sealed(bench.cap(1, 1)),
        op: OpId(2),
        done: OpId(1),
        ranges: vec![BLOCK0],
        crcs: vec![1234],
        zeros: false,
        create: Vec::new(),
        note: None,
    };
    let payload = bytes::Bytes::from(vec![5; 4096]);
    let call = bench.ask(1, |call| crate::core::io::Input::Write { call, meta, payload });
    bench.pass(100, &[]);
    assert_eq!(failed(&bench, call), Status::BadChecksum);
    let good = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert!(matches!(bench.replies[&good], Reply::Written { .. }), "the op did not happen before");
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn a_silent_member_is_reported_and_the_write_held() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.cut.push(num(3));
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    bench.pass(500, &[1, 2, 3]);
    assert!(!bench.replies.contains_key(&call));
    assert!(bench.troubles.iter().any(|(from, report)| {
        *from == num(1) && report.reports.iter().any(|report| report.server == num(3))
    }));
    bench.cut.clear();
    bench.pass(500, &[1, 2, 3]);
    assert_eq!(bench.replies[&call], written(2), "it came back before anyone excluded it");
    bench.assert_equal(&[1, 2, 3]);
}

/// Leaves a disk no room for another block.
fn fill_up(bench: &Bench, servers: &[u16]) {
    servers.iter().for_each(|n| bench.nodes[&num(*n)].disk.set_capacity(0));
}

#[test]
fn a_write_that_no_disk_has_room_for_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(3);
    let create = bench.members(&[1, 2, 3]);
    bench.write_new(1, bench.cap(1, 1), 1, BLOCK0, 1, create);
    fill_up(&bench, &[1, 2, 3]);
    let block1 = Range { offset: 4096, len: 4096 };
    let call = bench.write(1, bench.cap(1, 1), 2, block1, 2);
    bench.pass(100, &[]);
    assert_eq!(failed(&bench, call), Status::NoSpace);
    assert_eq!(bench.read(1, bench.cap(1, 1), 0), Ok(1));
    (1..=3).for_each(|n| bench.nodes[&num(n)].disk.set_capacity(1 << 30));
    let again = bench.write(1, bench.cap(1, 1), 2, block1, 2);
    assert!(matches!(bench.replies[&again], Reply::Written { .. }));
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn a_full_disk_among_others_is_reported_or_gives_way() {
    let mut bench = Bench::new(2);
    let create = bench.members(&[1, 2]);
    bench.write_new(1, bench.cap(1, 1), 1, BLOCK0, 1, create);
    fill_up(&bench, &[2]);
    let block1 = Range { offset: 4096, len: 4096 };
    let call = bench.write(1, bench.cap(1, 1), 2, block1, 2);
    bench.pass(2_000, &[1, 2]);
    assert!(!bench.replies.contains_key(&call), "only a new config helps, or room");
    assert!(
        bench.troubles.iter().any(|(_, report)| report.reports.iter().any(|report| report.server == num(2)))
    );
    bench.nodes[&num(2)].disk.set_capacity(1 << 30);
    bench.pass(500, &[1, 2]);
    assert!(matches!(bench.replies[&call], Reply::Written { .. }));
    fill_up(&bench, &[1]);
    let call = bench.write(1, bench.cap(1, 1), 3, Range { offset: 40960, len: 4096 }, 3);
    assert_eq!(failed(&bench, call), Status::NotServing, "the other has it: this one is behind");
    assert!(bench.troubles.iter().any(|(_, report)| report.failed == [CHUNK]));
}
