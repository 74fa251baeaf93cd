//! The table of plants in the logged state.

use std::sync::Arc;

use dfs_proto::ids::{ChunkVersion, ConfigNum, Ino, LogIndex, OpenNum, ServerNum, SessionId, SizeEpoch};
use dfs_proto::meta::{FileKind, FindingKind, Goal};
use dfs_proto::units::{ChunkIndex, ChunkSize};

use super::{Sample, chunk, findings, sample, server};
use crate::core::chunks::{ChunkMeta, ChunkState, Members};
use crate::core::namespace::{Directory, Payload};
use crate::core::ops::{Boundary, Intent};
use crate::core::servers::Server;
use crate::core::state::State;
use crate::core::tombstones::Tombstone;

struct Plant {
    what: &'static str,
    plant: fn(&mut Sample),
    kind: FindingKind,
    /// In the object and the words of a finding.
    says: &'static [&'static str],
}

fn entry(sample: &mut Sample, dir: Ino, change: impl FnOnce(&mut Directory)) {
    sample.state.ns.entries_mut(dir, change);
}

fn meta(sample: &mut Sample, counter: u64, change: impl FnOnce(&mut ChunkMeta)) {
    let mut meta = sample.state.chunks.get(chunk(counter)).unwrap();
    change(&mut meta);
    sample.state.chunks.plant(chunk(counter), &meta);
}

fn goal(goal: u8) -> Goal {
    Goal { goal: Some(goal), max: None }
}

fn tombstone() -> Tombstone {
    let servers = Box::new([ServerNum(1)]);
    Tombstone { index: LogIndex(3), sec: 0, version: ChunkVersion(1), servers, done: false }
}

const NAMES: &[Plant] = &[
    Plant {
        what: "an entry without an inode",
        plant: |s| {
            let dir = s.dir;
            entry(s, dir, |d| d.insert(b"nobody", Ino(3000), FileKind::File));
        },
        kind: FindingKind::Names,
        says: &["/dir", "nobody", "inode 3000", "not there"],
    },
    Plant {
        what: "an inode without an entry",
        plant: |s| {
            let sub = s.sub;
            entry(s, sub, |d| d.remove(b"small"));
        },
        kind: FindingKind::Names,
        says: &["has 0 names, and counts 1"],
    },
    Plant {
        what: "an entry of another kind",
        plant: |s| {
            let (sub, small) = (s.sub, s.small);
            entry(s, sub, |d| d.replace(b"small", small, FileKind::Fifo));
        },
        kind: FindingKind::Names,
        says: &["small", "says Fifo", "is File"],
    },
    Plant {
        what: "a link count too high",
        plant: |s| s.state.ns.update(s.linked, |inode| inode.nlink = 3),
        kind: FindingKind::Names,
        says: &["has 2 names, and counts 3"],
    },
    Plant {
        what: "a directory's links do not count its directories",
        plant: |s| s.state.ns.update(s.dir, |inode| inode.nlink = 2),
        kind: FindingKind::Names,
        says: &["/dir", "1 directories in it make 3 links, and it counts 2"],
    },
    Plant {
        what: "a directory's parent is another one",
        plant: |s| s.state.ns.update(s.sub, |inode| inode.parent = Ino::ROOT),
        kind: FindingKind::Names,
        says: &["sub", "whose parent is inode 1"],
    },
    Plant {
        what: "a directory with two names",
        plant: |s| {
            let sub = s.sub;
            entry(s, Ino::ROOT, |d| d.insert(b"twice", sub, FileKind::Dir));
        },
        kind: FindingKind::Names,
        says: &["a directory with 2 names, not 1"],
    },
    Plant {
        what: "two directories that lie in each other",
        plant: |s| {
            let (dir, sub) = (s.dir, s.sub);
            entry(s, Ino::ROOT, |d| d.remove(b"dir"));
            entry(s, sub, |d| d.insert(b"dir", dir, FileKind::Dir));
            s.state.ns.update(dir, |inode| inode.parent = sub);
            s.state.ns.update(sub, |inode| inode.nlink = 3);
            s.state.ns.update(Ino::ROOT, |inode| inode.nlink = 2);
        },
        kind: FindingKind::Names,
        says: &["a directory that lies in itself"],
    },
    Plant {
        what: "a way up that ends",
        plant: |s| {
            let dir = s.dir;
            entry(s, Ino::ROOT, |d| d.remove(b"dir"));
            s.state.ns.update(dir, |inode| inode.parent = Ino(3000));
        },
        kind: FindingKind::Names,
        says: &["the way to the root ends at inode 3000"],
    },
    Plant {
        what: "entries of what is no directory",
        plant: |s| {
            let big = s.big;
            entry(s, big, |d| d.insert(b"in a file", Ino(3000), FileKind::File));
        },
        kind: FindingKind::Names,
        says: &["has entries, and is no directory"],
    },
    Plant {
        what: "entries of nobody",
        plant: |s| entry(s, Ino(3000), |d| d.insert(b"lost", Ino(3001), FileKind::File)),
        kind: FindingKind::Names,
        says: &["inode 3000", "has entries, and there is no such inode"],
    },
    Plant {
        what: "a nameless inode that is no orphan",
        plant: |s| {
            s.state.ns.orphans.remove(s.orphan.0);
        },
        kind: FindingKind::Names,
        says: &["has no link, and is no orphan"],
    },
    Plant {
        what: "an orphan with a name",
        plant: |s| {
            s.state.ns.orphans.insert(s.small.0, ());
        },
        kind: FindingKind::Names,
        says: &["an orphan that counts links"],
    },
    Plant {
        what: "an orphan that is not there",
        plant: |s| {
            s.state.ns.orphans.insert(3000, ());
        },
        kind: FindingKind::Names,
        says: &["inode 3000", "an orphan that is not there"],
    },
    Plant {
        what: "a symlink without a target",
        plant: |s| {
            s.state.ns.symlinks.remove(s.symlink.0);
        },
        kind: FindingKind::Names,
        says: &["a link without a target"],
    },
    Plant {
        what: "a symlink of another length",
        plant: |s| s.state.ns.update(s.symlink, |inode| inode.size = 3),
        kind: FindingKind::Names,
        says: &["a link whose target is not 3 bytes long"],
    },
    Plant {
        what: "attributes that an inode does not know of",
        plant: |s| {
            s.state.ns.xattrs.insert(s.small.0, Default::default());
        },
        kind: FindingKind::Names,
        says: &["its attributes are missing, or too many"],
    },
    Plant {
        what: "a goal of nobody",
        plant: |s| s.state.ns.goals.set(Ino(3000), goal(2)),
        kind: FindingKind::File,
        says: &["inode 3000", "has a goal, and there is no such inode"],
    },
    Plant {
        what: "a goal of a link",
        plant: |s| s.state.ns.goals.set(s.symlink, goal(2)),
        kind: FindingKind::File,
        says: &["has a goal, and is Symlink"],
    },
    Plant {
        what: "a goal that can't be",
        plant: |s| s.state.ns.goals.set(s.small, goal(0)),
        kind: FindingKind::File,
        says: &["/dir/sub/small", "has a goal that can't be"],
    },
    Plant {
        what: "a goal that was not counted",
        plant: |s| s.state.ns.goals.plant(s.dir, goal(1)),
        kind: FindingKind::Counter,
        says: &["goals", "counter [0, 0,", "counted [0, 1,"],
    },
    Plant {
        what: "no root",
        plant: |s| s.state.ns.inodes.remove(Ino::ROOT),
        kind: FindingKind::Names,
        says: &["has no root directory"],
    },
];

const FILES: &[Plant] = &[
    Plant {
        what: "a pointer to a chunk that is not there",
        plant: |s| s.state.ns.update(s.small, |inode| inode.payload = Payload::First(chunk(77))),
        kind: FindingKind::File,
        says: &["at index 0", "000100000000004d", "not in the map"],
    },
    Plant {
        what: "a pointer to a chunk that was deleted",
        plant: |s| s.state.ns.update(s.small, |inode| inode.payload = Payload::First(chunk(5))),
        kind: FindingKind::File,
        says: &["which was deleted (I18)"],
    },
    Plant {
        what: "a pointer to another file's chunk",
        plant: |s| s.state.ns.update(s.small, |inode| inode.payload = Payload::First(chunk(2))),
        kind: FindingKind::File,
        says: &["which is of inode"],
    },
    Plant {
        what: "a committed chunk beyond the size",
        plant: |s| s.state.ns.update(s.big, |inode| inode.size = 65_536),
        kind: FindingKind::File,
        says: &["/dir/big", "lies beyond the size of 65536 bytes"],
    },
    Plant {
        what: "a list of chunks that the inode does not know of",
        plant: |s| s.state.ns.update(s.big, |inode| inode.payload = Payload::Nothing),
        kind: FindingKind::File,
        says: &["has a list of chunks, and says that it has none"],
    },
    Plant {
        what: "a list of chunks of nobody",
        plant: |s| {
            s.state.ns.chunk_lists.insert(3000, [(1, chunk(2))].into_iter().collect());
        },
        kind: FindingKind::File,
        says: &["has a list of chunks, and there is no such inode"],
    },
    Plant {
        what: "a truncation of a chunk that is not there",
        plant: |s| {
            let size_epoch = s.state.ns.getattr(s.small).unwrap().size_epoch;
            let boundary = Boundary { chunk: chunk(9), index: ChunkIndex(0), from: 5, size_epoch };
            s.state.ns.intents.insert(s.small, Intent { size: 5, boundary });
        },
        kind: FindingKind::File,
        says: &["is being cut in chunk"],
    },
    Plant {
        what: "a truncation of another epoch",
        plant: |s| {
            let boundary =
                Boundary { chunk: chunk(1), index: ChunkIndex(0), from: 5, size_epoch: SizeEpoch(9) };
            s.state.ns.intents.insert(s.small, Intent { size: 5, boundary });
        },
        kind: FindingKind::File,
        says: &["is being cut at epoch e9"],
    },
];

const CHUNKS: &[Plant] = &[
    Plant {
        what: "a count of pointers too high",
        plant: |s| meta(s, 1, |meta| meta.refs = 2),
        kind: FindingKind::Chunk,
        says: &["1 pointers, and it counts 2 (I18)"],
    },
    Plant {
        what: "a chunk that nobody points to",
        plant: |s| s.state.ns.update(s.small, |inode| inode.payload = Payload::Nothing),
        kind: FindingKind::Chunk,
        says: &["chunk 0001000000000001", "no file points to it"],
    },
    Plant {
        what: "a tombstone of a chunk in use",
        plant: |s| s.state.tombstones.insert(chunk(1), tombstone()),
        kind: FindingKind::Tombstone,
        says: &["chunk 0001000000000001", "has a tombstone, and is in the map"],
    },
    Plant {
        what: "the same member twice",
        plant: |s| meta(s, 1, |meta| meta.members = Members::of(&[ServerNum(1), ServerNum(1)])),
        kind: FindingKind::Chunk,
        says: &["has s1 for a member twice"],
    },
    Plant {
        what: "a member that never registered",
        plant: |s| meta(s, 1, |meta| meta.members = Members::of(&[ServerNum(1), ServerNum(9)])),
        kind: FindingKind::Chunk,
        says: &["is on s9, which never registered"],
    },
    Plant {
        what: "no members",
        plant: |s| meta(s, 1, |meta| meta.members = Members::default()),
        kind: FindingKind::Chunk,
        says: &["has no members"],
    },
    Plant {
        what: "a learner that is a member",
        plant: |s| meta(s, 1, |meta| meta.learners = vec![ServerNum(2)]),
        kind: FindingKind::Chunk,
        says: &["fills s2, which it has already"],
    },
    Plant {
        what: "a learner during a recovery",
        plant: |s| {
            meta(s, 1, |meta| {
                meta.state = ChunkState::Recovering(ChunkVersion(2));
                meta.learners = vec![ServerNum(3)];
            });
        },
        kind: FindingKind::Chunk,
        says: &["fills a learner while it is being recovered (I16)"],
    },
    Plant {
        what: "a primary that leaves",
        plant: |s| meta(s, 1, |meta| meta.leaving = Some(ServerNum(1))),
        kind: FindingKind::Chunk,
        says: &["lets s1 go, which is no member that can"],
    },
    Plant {
        what: "a member that leaves during a recovery",
        plant: |s| {
            meta(s, 1, |meta| {
                meta.state = ChunkState::Recovering(ChunkVersion(2));
                meta.leaving = Some(ServerNum(2));
            });
        },
        kind: FindingKind::Chunk,
        says: &["lets s2 go while another change is under way (I16)"],
    },
    Plant {
        what: "a fence at the version",
        plant: |s| meta(s, 1, |meta| meta.state = ChunkState::Recovering(ChunkVersion(1))),
        kind: FindingKind::Chunk,
        says: &["fenced at v1, not above its version v1"],
    },
    Plant {
        what: "losses of a version to come",
        plant: |s| meta(s, 1, |meta| meta.lossy = ChunkVersion(4)),
        kind: FindingKind::Chunk,
        says: &["lost writes at v4, above its version v1"],
    },
    Plant {
        what: "a configuration 0",
        plant: |s| meta(s, 1, |meta| meta.config = ConfigNum(0)),
        kind: FindingKind::Chunk,
        says: &["do not all count from 1"],
    },
    Plant {
        what: "an opening 0",
        plant: |s| meta(s, 1, |meta| meta.open_num = OpenNum(0)),
        kind: FindingKind::Chunk,
        says: &["o0 do not all count from 1"],
    },
    Plant {
        what: "synced without being written",
        plant: |s| meta(s, 1, |meta| meta.written = false),
        kind: FindingKind::Chunk,
        says: &["was synced, and never written"],
    },
];

const CLOSED: &[Plant] = &[
    Plant {
        what: "an open chunk with a digest",
        plant: |s| meta(s, 1, |meta| meta.digest = 7),
        kind: FindingKind::Chunk,
        says: &["is open for writing, and the log says what it hashes to"],
    },
    Plant {
        what: "a recovery of a closed chunk",
        plant: |s| {
            meta(s, 1, |meta| {
                (meta.open, meta.digest) = (false, 7);
                meta.state = ChunkState::Recovering(ChunkVersion(2));
            });
        },
        kind: FindingKind::Chunk,
        says: &["is closed while it is being recovered"],
    },
];

const REST: &[Plant] = &[
    Plant {
        what: "a given-up replica of a server that never registered",
        plant: |s| s.state.given_up = Arc::new([(chunk(1), vec![ServerNum(9)])].into_iter().collect()),
        kind: FindingKind::Chunk,
        says: &["chunk 0001000000000001", "was given up on s9, which never registered"],
    },
    Plant {
        what: "a given-up chunk that nothing names",
        plant: |s| s.state.given_up = Arc::new([(chunk(70), vec![ServerNum(1)])].into_iter().collect()),
        kind: FindingKind::Chunk,
        says: &["was given up, and neither a file nor a tombstone names it"],
    },
    Plant {
        what: "a chunk id that was never given out",
        plant: |s| {
            let index = ChunkIndex(1);
            let meta = ChunkMeta::new(s.big, index, Members::of(&[ServerNum(1), ServerNum(2)]));
            s.state.chunks.insert(chunk(5000), &meta);
            let list = s.state.ns.chunk_lists.get_mut(s.big.0).unwrap();
            list.insert(index.0, chunk(5000));
        },
        kind: FindingKind::Id,
        says: &["lies outside those that were given out"],
    },
    Plant {
        what: "a tombstone of a record to come",
        plant: |s| s.state.tombstones.insert(chunk(6), Tombstone { index: LogIndex(999), ..tombstone() }),
        kind: FindingKind::Tombstone,
        says: &["is of record 999, after the last"],
    },
    Plant {
        what: "a tombstone for a server that never registered",
        plant: |s| {
            let servers = Box::new([ServerNum(9)]);
            s.state.tombstones.insert(chunk(6), Tombstone { servers, ..tombstone() });
        },
        kind: FindingKind::Tombstone,
        says: &["names s9, which never registered"],
    },
    Plant {
        what: "a tombstone outside the ids given out",
        plant: |s| s.state.tombstones.insert(chunk(5000), tombstone()),
        kind: FindingKind::Id,
        says: &["its tombstone's id lies outside"],
    },
    Plant {
        what: "an inode number that is still to be given",
        plant: |s| s.state.ns.next_ino = s.small.0,
        kind: FindingKind::Id,
        says: &["its number is not below"],
    },
    Plant {
        what: "a session number that is still to be given",
        plant: |s| s.state.sessions.restore_last(SessionId(0)),
        kind: FindingKind::Id,
        says: &["session 1", "above the last one given"],
    },
    Plant {
        what: "two servers of one identity",
        plant: |s| {
            s.state.servers.restore(Server {
                num: ServerNum(4),
                info: server(1),
                settled: false,
                draining: false,
            })
        },
        kind: FindingKind::Id,
        says: &["server s1", "is not found by its identity"],
    },
    Plant {
        what: "two sizes of chunks",
        plant: |s| s.state.ns.chunk_size = ChunkSize::DEFAULT,
        kind: FindingKind::Id,
        says: &["has two sizes of chunks"],
    },
    Plant {
        what: "a count of directories",
        plant: |s| s.state.ns.directory_count = 9,
        kind: FindingKind::Counter,
        says: &["directories", "counter 9, counted 3"],
    },
    Plant {
        what: "a count of a server's replicas",
        plant: |s| s.state.chunks.plant_count(ServerNum(2), 7),
        kind: FindingKind::Counter,
        says: &["replicas on s2", "counter 7, counted 2"],
    },
    Plant {
        what: "a count of replicas of nobody",
        plant: |s| s.state.chunks.plant_count(ServerNum(9), 1),
        kind: FindingKind::Counter,
        says: &["replicas on s9", "counter 1, counted 0"],
    },
    Plant {
        what: "records of a cluster that was never made",
        plant: |s| s.state = State { cluster: None, ..s.state.clone() },
        kind: FindingKind::Id,
        says: &["was never made"],
    },
    Plant {
        what: "a log that came to another state before",
        plant: |s| s.state.trail.plant(LogIndex(10_000)),
        kind: FindingKind::Counter,
        says: &["the log", "another state up to record 10000"],
    },
];

#[test]
fn every_plant_is_found() {
    let mut planted = 0;
    for plant in [NAMES, FILES, CHUNKS, CLOSED, REST].into_iter().flatten() {
        let mut sample = sample();
        (plant.plant)(&mut sample);
        let found = findings(&sample.state, 1 << 20);
        let hit = found.iter().find(|finding| {
            let line = format!("{} {}", finding.object, finding.what);
            finding.kind == plant.kind && plant.says.iter().all(|word| line.contains(word))
        });
        assert!(hit.is_some(), "{}: not found in {found:#?}", plant.what);
        assert_eq!(found, findings(&sample.state, 1), "{}: in small steps", plant.what);
        assert!(sample.state.check().is_err(), "{}", plant.what);
        planted += 1;
    }
    assert!(planted >= 50, "{planted}");
}
