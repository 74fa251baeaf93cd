//! Clean close: what is refused after it, what a restart keeps of it, and what it refuses to be.

use dfs_proto::chunk::{Capability, Range};
use dfs_proto::control::{Close, CloseAnswer, CloseChunk};
use dfs_proto::ids::{ChunkVersion, OpId, OpenNum, Seq, SizeEpoch};
use dfs_proto::note::FileNote;
use dfs_proto::status::Status;
use dfs_proto::units::ChunkSize;

use super::bench::{Bench, CHUNK, TERM, is_forward_to, num};
use crate::core::io::{Input, Reply};

const BLOCK0: Range = Range { offset: 0, len: 4096 };

fn close(bench: &mut Bench, at: u16, open_num: u32) -> CloseAnswer {
    let (version, open_num) = (ChunkVersion(1), OpenNum(open_num));
    let asked = CloseChunk { chunk: CHUNK, version, open_num, seq: None, note: None };
    let call = bench.ask(at, |call| Input::Close { call, body: Close { term: TERM, chunks: vec![asked] } });
    match &bench.replies[&call] {
        Reply::Closed(closed) => closed.answers[0],
        other => panic!("{other:?}"),
    }
}

fn of_opening(bench: &Bench, open_num: u32) -> Capability {
    Capability { open_num: OpenNum(open_num), ..bench.cap(1, 1) }
}

/// Digest and last write of a replica that closes.
fn closes(bench: &mut Bench, at: u16, open_num: u32) -> (u128, Seq) {
    match close(bench, at, open_num) {
        CloseAnswer::Closed { digest, seq } => (digest, seq),
        CloseAnswer::Refused(status) => panic!("{at} refuses: {status}"),
    }
}

#[test]
fn a_closed_opening_takes_no_write_and_the_next_does() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.pass(5, &[1, 2, 3]);
    let first = closes(&mut bench, 1, 1);
    assert_eq!([closes(&mut bench, 2, 1), closes(&mut bench, 3, 1)], [first; 2]);
    let told: Vec<_> = bench.nodes[&num(2)].core.inventory().iter().map(|replica| replica.closed).collect();
    assert_eq!(told, [Some(first.0)]);
    let late = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 9);
    assert_eq!(bench.replies[&late], Reply::Failed(Status::BadCapability));
    assert_eq!(bench.read(3, bench.cap(1, 1), 0), Ok(1), "what is read does not change");
    let cap = of_opening(&bench, 2);
    let next = bench.write(1, cap, 2, BLOCK0, 2);
    assert_eq!(bench.replies[&next], Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None });
    for n in [1, 2, 3] {
        let node = &bench.nodes[&num(n)];
        let header = node.store.header(CHUNK).unwrap();
        assert_eq!((header.open, header.open_num), (true, OpenNum(2)), "before the first byte changed");
        assert_eq!(node.core.inventory()[0].closed, None);
    }
    bench.assert_equal(&[1, 2, 3]);
    assert_eq!(close(&mut bench, 1, 1), CloseAnswer::Refused(Status::Stale), "a late message");
    let second = closes(&mut bench, 1, 2);
    assert!(second.0 != first.0 && second.1 == Seq(2));
}

#[test]
fn a_write_on_its_way_keeps_it_open() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.hold(|packet| is_forward_to(packet, 2));
    let call = bench.write(1, bench.cap(1, 1), 2, BLOCK0, 2);
    assert_eq!(close(&mut bench, 1, 1), CloseAnswer::Refused(Status::Recovering));
    bench.release();
    assert_eq!(bench.replies[&call], Reply::Written { chunk: CHUNK, seq: Seq(2), cut: None });
    let primary = closes(&mut bench, 1, 1);
    assert_eq!(closes(&mut bench, 2, 1), primary);
}

#[test]
fn a_restarted_member_counts_on_from_where_it_closed() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    for op in 2..6 {
        bench.write(1, bench.cap(1, 1), op, BLOCK0, 2);
    }
    let closed = [1, 2, 3].map(|at| closes(&mut bench, at, 1));
    assert_eq!(closed, [closed[0]; 3]);
    assert_eq!(closed[0].1, Seq(5));
    bench.pass(5, &[1, 2, 3]);
    bench.restart(num(1));
    bench.restart(num(2));
    for n in [1, 2] {
        assert_eq!(bench.nodes[&num(n)].core.inventory()[0].closed, Some(closed[0].0));
    }
    let members = bench.members(&[1, 2, 3]);
    bench.confirm_closed(&[1, 2, 3], members);
    assert_eq!(bench.read(2, bench.cap(1, 1), 0), Ok(2));
    let late = bench.write(1, bench.cap(1, 1), 7, BLOCK0, 9);
    assert_eq!(bench.replies[&late], Reply::Failed(Status::BadCapability), "closed over the restart too");
    // Numbered from 1 again, the third, which never stopped, would take it for one that it has.
    let cap = of_opening(&bench, 2);
    let next = bench.write(1, cap, 7, BLOCK0, 3);
    assert_eq!(bench.replies[&next], Reply::Written { chunk: CHUNK, seq: Seq(6), cut: None });
    bench.assert_equal(&[1, 2, 3]);
}

#[test]
fn replicas_keep_what_they_are_told_of_their_file() {
    let note = |path: &str, size| FileNote::new(path.as_bytes(), size, SizeEpoch(0), ChunkSize::DEFAULT);
    let mut bench = Bench::new(3);
    let create = bench.members(&[1, 2, 3]);
    let payload = bytes::Bytes::from(vec![1; 4096]);
    let crcs = vec![dfs_proto::checksum::crc32c(&payload).0];
    let meta = dfs_proto::chunk::WriteMeta {
        capability: super::bench::sealed(bench.cap(1, 1)),
        op: OpId(1),
        done: OpId(1),
        ranges: vec![BLOCK0],
        crcs,
        zeros: false,
        create,
        note: Some(note("/made/here", 0)),
    };
    let call = bench.ask(1, |call| Input::Write { call, meta, payload });
    assert!(matches!(bench.replies[&call], Reply::Written { .. }));
    for n in [1, 2, 3] {
        let header = bench.nodes[&num(n)].store.header(CHUNK).unwrap();
        assert_eq!(header.note, Some(note("/made/here", 0)), "{n}");
        assert_eq!((header.members, header.extent), (3, 4096));
    }
    bench.pass(5, &[1, 2, 3]);
    // What a close tells replaces it; of a file that lost its name, only the size.
    for (open_num, told) in [(1, "/moved"), (2, "")] {
        let asked = CloseChunk {
            chunk: CHUNK,
            version: ChunkVersion(1),
            open_num: OpenNum(open_num),
            seq: None,
            note: Some(note(told, 70 + u64::from(open_num))),
        };
        let body = Close { term: TERM, chunks: vec![asked] };
        let call = bench.ask(1, |call| Input::Close { call, body });
        assert!(matches!(bench.replies[&call], Reply::Closed(_)));
        let header = bench.nodes[&num(1)].store.header(CHUNK).unwrap();
        assert_eq!(header.note, Some(note("/moved", 70 + u64::from(open_num))));
    }
}
