//! Plants in what a server says it has.

use dfs_proto::control::{HeldReplica, HeldState};
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, ServerNum};
use dfs_proto::units::ChunkIndex;

use super::{chunk, sample};
use crate::core::check::Held;

fn held(counter: u64) -> HeldReplica {
    HeldReplica {
        chunk: chunk(counter),
        version: ChunkVersion(1),
        config: ConfigNum(1),
        learner: false,
        ino: Ino(5),
        index: ChunkIndex(0),
        state: HeldState::Present,
    }
}

/// What server 1 should have.
fn right() -> Vec<HeldReplica> {
    // The last is of a deleted chunk, on its way to the trash.
    vec![held(1), held(3), held(4), held(5)]
}

fn compare(replicas: &[HeldReplica], from: ChunkId, to: Option<ChunkId>) -> Vec<String> {
    let held = Held { server: ServerNum(1), from, to, replicas };
    let found = held.compare(&sample().state);
    found.into_iter().map(|finding| format!("{}: {}", finding.object, finding.what)).collect()
}

#[test]
fn what_a_server_should_have_is_right() {
    assert_eq!(compare(&right(), ChunkId(0), None), [] as [String; 0]);
    // A replica that it was left behind with is not a finding either.
    let mut more = right();
    more.insert(1, held(2));
    assert_eq!(compare(&more, ChunkId(0), None), [] as [String; 0]);
}

#[test]
fn every_plant_is_found() {
    type Change = fn(&mut Vec<HeldReplica>);
    let table: [(Change, &str); 8] = [
        (
            |list| list.retain(|held| held.chunk != chunk(3)),
            "0003 on s1: the server has no replica, and is a member",
        ),
        (|list| list[0].state = HeldState::Gone, "0001 on s1: its file is gone from the disk"),
        (|list| list[0].state = HeldState::Failed, "0001 on s1: its disk failed it"),
        (
            |list| list.push(held(50)),
            "0032 on s1: no file and no tombstone names it; its header says inode 5",
        ),
        (|list| list[0].version = ChunkVersion(3), "0001 on s1: is at v3 c1, above the map's v1 c1"),
        (|list| list[0].config = ConfigNum(2), "0001 on s1: is at v1 c2, above the map's v1 c1"),
        (|list| list[0].config = ConfigNum(0), "0001 on s1: is at v1 c0, below the map's v1 c1"),
        (|list| list[0].learner = true, "0001 on s1: is at v1 c1 and not filled, below the map's v1 c1"),
    ];
    for (change, says) in table {
        let mut list = right();
        change(&mut list);
        let found = compare(&list, ChunkId(0), None);
        assert_eq!(found.len(), 1, "{says}: {found:?}");
        assert!(found[0].contains(says), "{says}: {found:?}");
    }
}

#[test]
fn a_part_is_compared_with_its_range_only() {
    let list = right();
    assert_eq!(compare(&list[..2], ChunkId(0), Some(chunk(4))), [] as [String; 0]);
    assert_eq!(compare(&list[2..], chunk(4), None), [] as [String; 0]);
    assert_eq!(compare(&[], chunk(4), None).len(), 1);
}
