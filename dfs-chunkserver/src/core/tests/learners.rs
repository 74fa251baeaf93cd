//! Filling a learner while writes go on.

use dfs_proto::checksum::crc32c;
use dfs_proto::chunk::Range;
use dfs_proto::control::{Delete, DeleteChunk};
use dfs_proto::ids::{ChunkVersion, ConfigNum, LogIndex, Seq};
use dfs_proto::status::Status;
use dfs_proto::units::IO_MAX;

use super::bench::{Bench, CHUNK, CHUNK_SIZE, Packet, TERM, is_disk_of, is_forward_to, num};
use crate::core::io::{DiskOp, Input, PeerAnswer, Reply};
use crate::store::Write;

const BLOCK0: Range = Range { offset: 0, len: 4096 };

#[test]
fn filled_while_writes_go_on_it_ends_equal() {
    let mut bench = Bench::new(4);
    bench.create(&[1, 2, 3]);
    bench.hold(|packet| is_forward_to(packet, 4));
    bench.add_learner(1, 1, 1, 4);
    let before = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert!(bench.replies.contains_key(&before), "the learner has not begun: nobody waits for it");
    let mut op = 3;
    while bench.learners.is_empty() {
        // One message of the fill at a time, a write between each.
        let Some(packet) = (!bench.held.is_empty()).then(|| bench.held.remove(0)) else { break };
        bench.deliver(packet);
        let at = u32::try_from(op).unwrap() * 1000 % (CHUNK_SIZE - 3000);
        bench.write(1, bench.cap(1, 1), op, Range { offset: at, len: 3000 }, 7);
        op += 1;
    }
    let report = bench.learners[0];
    assert!(report.ready);
    assert_eq!(report.learner, bench.member(4));
    bench.release();
    bench.assert_equal(&[1, 2, 3, 4]);
    // From now on it is waited for.
    bench.hold(|packet| is_forward_to(packet, 4));
    let waits = bench.write(1, bench.cap(1, 1), op, BLOCK0, 9);
    assert!(!bench.replies.contains_key(&waits));
    bench.release();
    assert!(bench.replies.contains_key(&waits));
    let members = bench.members(&[1, 2, 3, 4]);
    assert_eq!(bench.read(4, bench.cap(1, 1), 0), Err(Status::NotServing));
    bench.active(&[1, 2, 3, 4], 1, 2, members);
    bench.pass(2, &[]);
    assert_eq!(bench.read(4, bench.cap(1, 2), 0), Ok(9));
    // It has the op table: as primary of the next version it knows a retry.
    let state = bench.fence(4, 2);
    let Some(dfs_proto::control::FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
    let members = bench.members(&[4]);
    bench.active_with(&[4], 2, 3, members, state.ops, state.applied);
    let retry = bench.write(4, bench.cap(2, 3), op, BLOCK0, 1);
    assert!(matches!(bench.replies[&retry], Reply::Written { .. }));
    assert_eq!(bench.read(4, bench.cap(2, 3), 0), Ok(9), "not done again");
}

#[test]
fn a_full_learner_that_was_not_told_yet_says_what_it_holds() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    bench.add_learner(1, 1, 1, 3);
    assert!(bench.learners[0].ready);
    // The log made it a member, or it would not be fenced.
    let state = bench.fence(3, 2);
    let Some(dfs_proto::control::FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
    assert_eq!(state.class, dfs_proto::control::ReplicaClass::Intact);
}

#[test]
fn a_learner_that_was_taken_in_is_not_dropped_by_a_second_answer() {
    for taken in [true, false] {
        let mut bench = Bench::new(3);
        bench.create(&[1, 2]);
        bench.add_learner(1, 1, 1, 3);
        let report = bench.learners[0];
        assert!(report.ready);
        // It was reported twice; the second report found that it is a member already.
        if taken {
            bench.step(num(1), Input::LearnerJudged { report, status: Status::Ok });
        }
        bench.step(num(1), Input::LearnerJudged { report, status: Status::NoChunk });
        bench.hold(|packet| is_forward_to(packet, 3));
        let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
        assert_eq!(bench.replies.contains_key(&call), !taken, "only the master's word lets it go");
        if taken {
            // A master that thinks better of it asks again, and gets another report.
            bench.learners.clear();
            bench.add_learner(1, 1, 1, 3);
            assert_eq!(bench.learners, [report]);
            bench.step(num(1), Input::LearnerJudged { report, status: Status::NoChunk });
            assert!(bench.replies.contains_key(&call));
        }
    }
}

#[test]
fn a_learner_that_fails_is_given_up_and_harms_nobody() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    bench.hold(|packet| matches!(packet, Packet::Peer { to, .. } if to.server == num(3)));
    bench.add_learner(1, 1, 1, 3);
    let begin = bench.held.remove(0);
    bench.deliver(begin);
    bench.run();
    let call = bench.write(1, bench.cap(1, 1), 2, Range { offset: 0, len: CHUNK_SIZE }, 2);
    assert!(!bench.replies.contains_key(&call), "behind the piece that is being copied");
    bench.cut.push(num(3));
    bench.release();
    bench.pass(100, &[]);
    assert_eq!(bench.replies[&call], Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None });
    assert!(bench.learners.iter().any(|report| !report.ready));
}

#[test]
fn a_learner_of_an_empty_replica_has_a_file() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    bench.punch(1, bench.cap(1, 1), 2, Range { offset: 0, len: CHUNK_SIZE });
    bench.add_learner(1, 1, 1, 3);
    assert!(bench.learners[0].ready);
    bench.assert_equal(&[1, 2, 3]);
    let members = bench.members(&[1, 2, 3]);
    bench.active(&[1, 2, 3], 1, 2, members);
    // Of what was synced no member may say that it has none of it: nobody could tell that from a loss.
    bench.restart(num(3));
    let state = bench.fence(3, 2);
    assert!(matches!(state, Some(dfs_proto::control::FenceAnswer::Holds(_))), "{state:?}");
}

/// The first half of the chunk, then servers 1 and 2 go on without server 3, under version 2.
fn left_behind() -> Bench {
    let mut bench = Bench::new(3);
    let members = bench.members(&[1, 2, 3]);
    let half = Range { offset: 0, len: CHUNK_SIZE / 2 };
    bench.write_new(1, bench.cap(1, 1), 1, half, 1, members);
    let state = bench.fence(1, 2);
    let Some(dfs_proto::control::FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
    bench.fence(2, 2);
    let members = bench.members(&[1, 2]);
    bench.active_with(&[1, 2], 2, 2, members, state.ops, state.applied);
    bench
}

#[test]
fn a_deposed_primary_begins_no_fill_over_a_newer_one() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    bench.hold(|packet| is_forward_to(packet, 3));
    bench.add_learner(1, 1, 1, 3);
    let late = bench.held.remove(0);
    bench.release();
    // Others went on without it, and filled the same server.
    let state = bench.fence(2, 2);
    let Some(dfs_proto::control::FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
    let members = bench.members(&[2]);
    bench.active_with(&[2], 2, 2, members, state.ops, state.applied);
    bench.write(2, bench.cap(2, 2), 2, BLOCK0, 9);
    bench.add_learner(2, 2, 2, 3);
    bench.pass(500, &[]);
    assert!(bench.learners.last().unwrap().ready);
    bench.deliver(late);
    bench.run();
    let members = bench.members(&[2, 3]);
    bench.active(&[2, 3], 2, 3, members);
    bench.pass(2, &[]);
    bench.assert_equal(&[2, 3]);
    assert_eq!(bench.read(3, bench.cap(2, 3), 0), Ok(9));
}

#[test]
fn a_learner_begins_when_what_was_there_is_gone() {
    let mut bench = left_behind();
    bench.hold(|packet| is_disk_of(packet, 3));
    let order = DeleteChunk {
        chunk: CHUNK,
        up_to: Some((ChunkVersion(1), ConfigNum(1))),
        tombstone: LogIndex(1),
        surplus: false,
    };
    let body = Delete { term: TERM, checkpoint: LogIndex(5), chunks: vec![order] };
    let deleted = bench.ask(3, |call| Input::Delete { call, body });
    assert!(!bench.replies.contains_key(&deleted), "the disk takes its time");
    bench.add_learner(1, 2, 2, 3);
    bench.pass(50, &[]);
    assert!(bench.nodes[&num(3)].core.inventory().is_empty());
    assert_eq!(bench.learners.iter().map(|report| report.ready).collect::<Vec<_>>(), [false], "given up");
    bench.release();
    assert_eq!(bench.replies[&deleted], Reply::Deleted(vec![Status::Ok]));
    bench.add_learner(1, 2, 2, 3);
    bench.pass(1_000, &[]);
    assert!(bench.learners.last().unwrap().ready);
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn an_old_replica_gets_only_what_it_missed() {
    let mut bench = left_behind();
    // Part of one block, a block that was a hole, and a block that this server alone has.
    bench.write(1, bench.cap(2, 2), 3, Range { offset: 5000, len: 10 }, 2);
    bench.write(1, bench.cap(2, 2), 4, Range { offset: CHUNK_SIZE - 4096, len: 4096 }, 3);
    let never_acked = vec![9; 4096];
    let write = Write {
        ranges: &[Range { offset: CHUNK_SIZE / 2 + 4096, len: 4096 }],
        data: &never_acked,
        crcs: &[crc32c(&never_acked).0],
    };
    bench.nodes[&num(3)].store.write(CHUNK, &write).unwrap();
    bench.restart(num(3));
    bench.add_learner(1, 2, 2, 3);
    assert!(bench.learners[0].ready);
    bench.assert_equal(&[1, 2, 3]);
    assert_eq!(bench.filled, 2 * 4096);
    let judged = Input::LearnerJudged { report: bench.learners[0], status: Status::NoChunk };
    bench.step(num(1), judged);
    let call = bench.write(1, bench.cap(2, 2), 5, BLOCK0, 3);
    assert!(bench.replies.contains_key(&call));
    assert_eq!(bench.read(3, bench.cap(2, 2), 0), Err(Status::NotServing), "refused: not a member");
}

#[test]
fn bytes_that_do_not_match_their_table_are_copied() {
    let mut bench = left_behind();
    bench.nodes[&num(3)].store.sync(CHUNK, Seq(1)).unwrap();
    let path = format!("chunks/07/{CHUNK}.chunk");
    assert!(bench.nodes[&num(3)].disk.flip_bit(&path, (128 << 10) + 4096 * 3, 1));
    bench.restart(num(3));
    assert_eq!(bench.nodes[&num(3)].store.verify(CHUNK).unwrap().bad, [3]);
    bench.add_learner(1, 2, 2, 3);
    assert!(bench.learners[0].ready);
    bench.assert_equal(&[1, 2, 3]);
    assert_eq!(bench.filled, 4096);
}

#[test]
fn what_a_fill_left_unfinished_is_filled_from_nothing() {
    let mut bench = left_behind();
    bench.restart(num(3));
    bench.hold(|packet| is_forward_to(packet, 3));
    bench.add_learner(1, 2, 2, 3);
    let begin = bench.held.remove(0);
    bench.deliver(begin);
    bench.run();
    bench.cut.push(num(3));
    bench.release();
    bench.pass(100, &[]);
    assert!(!bench.learners[0].ready);
    bench.cut.clear();
    bench.learners.clear();
    bench.add_learner(1, 2, 2, 3);
    assert!(bench.learners[0].ready);
    bench.assert_equal(&[1, 2, 3]);
    assert_eq!((bench.filled, bench.pulled), (0, CHUNK_SIZE as usize / 2));
}

#[test]
fn of_a_large_chunk_as_much_is_copied_as_was_missed() {
    let size = 64 << 20;
    let mut bench = Bench::with_chunks_of(size, 3);
    let members = bench.members(&[1, 2, 3]);
    bench.write_new(1, bench.cap(1, 1), 1, Range { offset: 0, len: IO_MAX }, 1, members);
    let mut op = 1;
    for offset in (IO_MAX..size).step_by(IO_MAX as usize) {
        op += 1;
        bench.write(1, bench.cap(1, 1), op, Range { offset, len: IO_MAX }, 1);
    }
    let state = bench.fence(1, 2);
    let Some(dfs_proto::control::FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
    bench.fence(2, 2);
    let members = bench.members(&[1, 2]);
    bench.active_with(&[1, 2], 2, 2, members, state.ops, state.applied);
    for (byte, missed) in [(2, 1), (3, 10), (4, 1000)] {
        for n in 0..missed {
            op += 1;
            let range = Range { offset: n * 16 * 4096 + 100, len: 1 };
            let call = bench.write(1, bench.cap(2, 2), op, range, byte);
            assert!(matches!(bench.replies[&call], Reply::Written { .. }));
        }
        bench.restart(num(3));
        (bench.filled, bench.pulled, bench.compared) = (0, 0, 0);
        bench.learners.clear();
        bench.add_learner(1, 2, 2, 3);
        assert!(bench.learners[0].ready);
        assert_eq!(bench.filled + bench.pulled, missed as usize * 4096);
        assert_eq!(bench.compared, 64 << 10, "a table of four bytes a block");
        bench.assert_equal(&[1, 2, 3]);
        bench.step(num(1), Input::LearnerJudged { report: bench.learners[0], status: Status::NoChunk });
    }
}

#[test]
fn a_learner_of_an_empty_chunk() {
    let mut bench = Bench::new(2);
    let members = bench.members(&[1]);
    bench.active(&[1], 1, 1, members);
    bench.add_learner(1, 1, 1, 2);
    assert!(bench.learners[0].ready, "{:?}", bench.learners);
}

/// Bytes on their way to the learner's disk.
fn is_write_on_3(packet: &Packet) -> bool {
    is_disk_of(packet, 3)
        && matches!(packet, Packet::Disk { task, .. } if matches!(task.op, DiskOp::Write { .. }))
}

/// What a member has, on its way to the learner.
fn is_stock_for_3(packet: &Packet) -> bool {
    matches!(packet, Packet::Answer { to, answer: PeerAnswer::Stock { .. }, .. } if *to == num(3))
}

#[test]
fn a_write_that_meets_pulled_bytes_waits_for_them() {
    for range in [BLOCK0, Range { offset: 100, len: 10 }] {
        let mut bench = Bench::new(3);
        bench.create(&[1, 2]);
        bench.hold(is_write_on_3);
        bench.add_learner(1, 1, 1, 3);
        let before = bench.held.len();
        assert!(before > 1, "pieces are being written");
        let call = bench.write(1, bench.cap(1, 1), 2, range, 2);
        assert_eq!(bench.held.len(), before, "it is not given to the disk beside them");
        assert!(!bench.replies.contains_key(&call));
        bench.release();
        assert!(bench.replies.contains_key(&call) && bench.learners[0].ready);
        bench.assert_equal(&[1, 2, 3]);
    }
}

#[test]
fn what_a_write_touched_is_not_pulled_over_it() {
    for range in [BLOCK0, Range { offset: 100, len: 10 }] {
        let mut bench = Bench::new(3);
        bench.create(&[1, 2]);
        bench.hold(is_stock_for_3);
        bench.add_learner(1, 1, 1, 3);
        assert!(!bench.held.is_empty(), "pieces are on their way");
        let call = bench.write(1, bench.cap(1, 1), 2, range, 2);
        assert!(bench.replies.contains_key(&call), "nothing is locked meanwhile");
        bench.release();
        assert!(bench.learners[0].ready);
        bench.assert_equal(&[1, 2, 3]);
    }
}

#[test]
fn a_learner_pulls_from_whoever_answers() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    bench.cut.push(num(2));
    bench.add_learner(1, 1, 1, 3);
    assert!(bench.learners[0].ready);
    assert_eq!((bench.filled, bench.pulled), (0, CHUNK_SIZE as usize));
    bench.assert_equal(&[1, 3]);
}

#[test]
fn a_learner_that_is_fenced_pulls_no_more() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    bench.hold(is_stock_for_3);
    bench.add_learner(1, 1, 1, 3);
    bench.fence(3, 2);
    bench.release();
    assert!(bench.learners.iter().all(|report| !report.ready), "{:?}", bench.learners);
    assert!(bench.nodes[&num(3)].store.table(CHUNK).is_ok_and(|table| table.entries.is_empty()));
}
