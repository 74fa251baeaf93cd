//! Blocks that rot: mended from another member, or refused for good, and never a wrong byte in between.

use dfs_proto::chunk::{ForwardKind, Range};
use dfs_proto::control::FenceAnswer;
use dfs_proto::ids::Seq;
use dfs_proto::status::Status;

use super::bench::{Bench, CHUNK, CHUNK_SIZE, Packet, num};
use crate::core::io::{Input, Reply};
use crate::store::BadPart;

const DATA_AT: u64 = 128 << 10;
const TABLE_AT: u64 = 8192;

/// A part of block 3.
const PART: Range = Range { offset: 3 * 4096 + 100, len: 50 };

fn flip(bench: &Bench, server: u16, at: u64) {
    assert!(bench.nodes[&num(server)].disk.flip_bit(&format!("chunks/07/{CHUNK}.chunk"), at, 1));
}

fn flip_block(bench: &Bench, server: u16, block: u64) {
    flip(bench, server, DATA_AT + block * 4096 + 77);
}

fn three() -> Bench {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    // Until the others know that all have it, they serve none of it.
    bench.pass(2, &[]);
    bench
}

/// What was kept of bad bytes at a server: part, and place in the file.
fn kept(bench: &Bench, server: u16) -> Vec<(BadPart, u64)> {
    let all = bench.nodes[&num(server)].store.evidence().unwrap();
    all.iter().map(|evidence| (evidence.part, evidence.at)).collect()
}

fn is_mend(packet: &Packet) -> bool {
    matches!(packet, Packet::Peer { input: Input::Forward { meta, .. }, .. } if meta.kind == ForwardKind::Mend)
}

#[test]
fn a_block_is_mended_wherever_it_rots_and_its_bytes_are_kept() {
    for server in [1, 2, 3] {
        let mut bench = three();
        flip_block(&bench, server, 3);
        assert_eq!(bench.read(server, bench.cap(1, 1), 3), Err(Status::Corrupt));
        assert_eq!(bench.troubles.len(), 1, "the master is told");
        bench.pass(3, &[]);
        assert_eq!(bench.read(server, bench.cap(1, 1), 3), Ok(1), "server {server}");
        bench.assert_equal(&[1, 2, 3]);
        assert_eq!(kept(&bench, server), [(BadPart::Block, DATA_AT + 3 * 4096)]);
        let evidence = &bench.nodes[&num(server)].store.evidence().unwrap()[0];
        assert_eq!((evidence.bytes[77], evidence.bytes[78]), (1 ^ 2, 1), "as they were");
        let counts = bench.nodes[&num(server)].core.damage_counts();
        assert_eq!((counts.found, counts.mended), (1, 1));
        assert!([1, 2, 3].iter().all(|n| bench.nodes[&num(*n)].core.hopeless_blocks(9).is_empty()));
    }
}

#[test]
fn a_write_to_a_part_of_a_rotten_block_waits_until_it_is_mended() {
    for server in [1, 2, 3] {
        let mut bench = three();
        flip_block(&bench, server, 3);
        let call = bench.write(1, bench.cap(1, 1), 2, PART, 2);
        bench.pass(20, &[]);
        assert_eq!(
            bench.replies.get(&call),
            Some(&Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None }),
            "{server}"
        );
        bench.assert_equal(&[1, 2, 3]);
        let read = |at: u16| {
            bench.nodes[&num(at)].store.read(CHUNK, PART.offset, 1, crate::store::ReadMode::MayBlock)
        };
        assert_eq!(read(server).unwrap().data[99..101], [1, 2]);
        assert_eq!(kept(&bench, server).len(), 1);
    }
}

#[test]
fn a_zeroing_that_ends_in_a_rotten_block_waits_too() {
    for server in [1, 2] {
        let mut bench = three();
        flip_block(&bench, server, 3);
        let call = bench.zero(1, PART.offset, 1);
        bench.pass(20, &[]);
        assert_eq!(bench.replies.get(&call), Some(&Reply::Done), "{server}");
        bench.assert_equal(&[1, 2, 3]);
    }
}

#[test]
fn rot_on_several_members_is_mended_while_each_block_is_good_somewhere() {
    let mut bench = three();
    for (server, block) in [(1, 3), (2, 3), (2, 4), (3, 4), (1, 5), (3, 5)] {
        flip_block(&bench, server, block);
    }
    for server in [1, 2, 3] {
        for block in 3..6 {
            let _either = bench.read(server, bench.cap(1, 1), block);
        }
    }
    bench.pass(3_000, &[1, 2, 3]);
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn what_no_member_has_stays_as_it_is_and_is_said() {
    let mut bench = three();
    for server in [1, 2, 3] {
        flip_block(&bench, server, 3);
    }
    assert_eq!(bench.read(1, bench.cap(1, 1), 3), Err(Status::Corrupt));
    bench.pass(100, &[1, 2, 3]);
    assert_eq!(bench.nodes[&num(1)].core.hopeless_blocks(9), [(CHUNK, 3)]);
    for server in [1, 2, 3] {
        assert_eq!(bench.read(server, bench.cap(1, 1), 3), Err(Status::Corrupt));
        assert_eq!(bench.nodes[&num(server)].store.verify(CHUNK).unwrap().bad, [3], "nothing was made up");
        assert_eq!(kept(&bench, server), [], "nothing was replaced");
    }
    let part = bench.write(1, bench.cap(1, 1), 2, PART, 2);
    bench.pass(3_000, &[1, 2, 3]);
    assert_eq!(bench.replies.get(&part), Some(&Reply::Failed(Status::Corrupt)));
    let whole = bench.write(1, bench.cap(1, 1), 3, Range { offset: 3 * 4096, len: 4096 }, 3);
    assert!(matches!(bench.replies[&whole], Reply::Written { .. }));
    bench.pass(130_000, &[1, 2, 3]);
    assert_eq!(bench.nodes[&num(1)].core.hopeless_blocks(9), [], "a new block is a good one");
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn a_lone_replica_refuses_the_block_and_serves_the_others() {
    let mut bench = Bench::new(1);
    bench.create(&[1]);
    flip_block(&bench, 1, 3);
    let part = bench.write(1, bench.cap(1, 1), 2, PART, 2);
    bench.pass(20, &[1]);
    assert_eq!(bench.replies.get(&part), Some(&Reply::Failed(Status::Corrupt)));
    assert_eq!(bench.read(1, bench.cap(1, 1), 2), Ok(1));
    assert_eq!(bench.nodes[&num(1)].core.hopeless_blocks(9), [(CHUNK, 3)]);
}

#[test]
fn a_rotten_sector_of_the_table_is_mended_block_by_block() {
    for server in [1, 2] {
        let mut bench = three();
        flip(&bench, server, TABLE_AT + 40);
        bench.restart(num(server));
        let state = bench.fence(if server == 1 { 2 } else { 1 }, 2);
        let Some(FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
        let members = bench.members(&[1, 2, 3]);
        bench.active_with(&[1, 2, 3], 2, 2, members, state.ops, state.applied);
        let cap = bench.cap(2, 2);
        assert_eq!(bench.read(server, cap, 0), Err(Status::Corrupt));
        for _ in 0..CHUNK_SIZE / 4096 {
            for block in 0..CHUNK_SIZE / 4096 {
                let _either = bench.read(server, cap, block);
            }
            bench.pass(3, &[]);
        }
        bench.assert_equal(&[1, 2, 3]);
        assert_eq!(kept(&bench, server), [(BadPart::TableSector, TABLE_AT)], "the data was right all along");
    }
}

#[test]
fn a_mending_that_a_newer_version_overtook_changes_nothing() {
    let mut bench = three();
    flip_block(&bench, 2, 3);
    bench.hold(is_mend);
    assert_eq!(bench.read(2, bench.cap(1, 1), 3), Err(Status::Corrupt));
    bench.pass(3, &[]);
    assert_eq!(bench.held.len(), 1);
    let late = bench.held.remove(0);
    let state = bench.fence(2, 2);
    let Some(FenceAnswer::Holds(state)) = state else { panic!("{state:?}") };
    assert_eq!(state.bad_blocks, 1, "a recovery is told");
    bench.fence(3, 2);
    let members = bench.members(&[3, 2]);
    bench.active_with(&[2, 3], 2, 2, members, state.ops, state.applied);
    bench.deliver(late);
    bench.run();
    assert_eq!(bench.nodes[&num(2)].store.verify(CHUNK).unwrap().bad, [3]);
    bench.release();
    bench.pass(3_000, &[1, 2, 3]);
    bench.assert_equal(&[2, 3]);
    assert_eq!(bench.read(2, bench.cap(2, 2), 3), Ok(1));
}

#[test]
fn a_learner_fetches_from_another_what_one_has_rotten() {
    for rotten in [1, 2] {
        let mut bench = Bench::new(3);
        bench.create(&[1, 2]);
        flip_block(&bench, rotten, 3);
        bench.add_learner(1, 1, 1, 3);
        assert!(bench.learners[0].ready);
        assert_eq!(bench.filled, 0, "the primary had nothing to send");
        // Who was asked for it has found its rot, and had it mended.
        bench.pass(1_000, &[]);
        let found = bench.troubles.iter().any(|(server, _)| *server == num(rotten));
        assert_eq!(found, bench.nodes[&num(rotten)].store.verify(CHUNK).unwrap().bad.is_empty());
        assert!(bench.nodes[&num(3)].store.verify(CHUNK).unwrap().bad.is_empty());
    }
}

#[test]
fn a_fill_that_meets_rot_everywhere_fails() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    flip_block(&bench, 1, 3);
    flip_block(&bench, 2, 3);
    bench.add_learner(1, 1, 1, 3);
    assert!(!bench.learners[0].ready, "its block could not be read");
}

#[test]
fn a_member_that_is_away_is_asked_now_and_then() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2]);
    flip_block(&bench, 1, 3);
    bench.cut.push(num(2));
    // Its refusal comes at once, as that of a host whose server is down does.
    assert_eq!(bench.read(1, bench.cap(1, 1), 3), Err(Status::Corrupt));
    bench.run();
    bench.cut.clear();
    bench.pass(1_500, &[]);
    assert_eq!(bench.read(1, bench.cap(1, 1), 3), Ok(1));
}
