//! Which disks are taken into use, and what is found on them.

use std::io::IoSlice;

use dfs_chunkserver::store::{Expect, Mhwm, OpenError, Store, Unfit, survey};
use dfs_disk::sim::SimDisk;
use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::ids::{ChunkVersion, ClusterId, Generation, LogIndex, Seq, ServerId, SizeEpoch, Term};

use super::support::*;

fn refused(disk: &SimDisk, expect: Expect) -> OpenError {
    Store::open(disk.clone(), expect, small()).unwrap_err()
}

#[test]
fn a_disk_of_others_is_refused() {
    let disk = sim(1);
    assert!(matches!(
        refused(&disk, Expect { cluster: ClusterId(9), ..EXPECT }),
        OpenError::ForeignCluster { .. }
    ));
    let server = Some(ServerId(9));
    assert!(matches!(refused(&disk, Expect { server, ..EXPECT }), OpenError::ForeignServer { .. }));
    assert!(matches!(Store::init(&disk, &LABEL), Err(OpenError::AlreadyInitialised(CLUSTER))));
    let (store, _) = Store::open(disk.clone(), Expect { server: None, ..EXPECT }, small()).unwrap();
    assert_eq!(*store.label(), LABEL);
    let other = disk.reopen();
    assert!(matches!(refused(&other, EXPECT), OpenError::Locked));
    assert!(matches!(Store::init(&other, &LABEL), Err(OpenError::Locked)));
}

#[test]
fn a_disk_without_a_label_is_no_disk_and_with_chunks_not_an_empty_one() {
    let disk = SimDisk::new(1, 1 << 30);
    assert!(matches!(refused(&disk, EXPECT), OpenError::NoLabel));
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    store.create(header(id(1))).unwrap();
    write(&store, id(1), 0, &[1]).unwrap();
    drop(store);
    disk.remove("disk.json").unwrap();
    assert!(matches!(Store::init(&disk, &LABEL), Err(OpenError::ChunksWithoutLabel)));
}

#[test]
fn damaged_small_files_refuse_the_disk() {
    for file in ["disk.json", "mhwm", "boot"] {
        let disk = sim(1);
        disk.flip_bit(file, 15, 0);
        assert!(matches!(refused(&disk, EXPECT), OpenError::Damaged { file: named } if named == file));
    }
    let disk = sim(1);
    let label = String::from_utf8(dfs_disk::read_file(&disk, "disk.json", 1000).unwrap()).unwrap();
    dfs_disk::replace_file(&disk, "disk.json", label.replace("\"cluster\"", "\"Cluster\"").as_bytes())
        .unwrap();
    assert!(matches!(refused(&disk, EXPECT), OpenError::Damaged { .. }));
}

#[test]
fn initialising_can_be_cut_short_anywhere_and_done_again() {
    for stop in (0..20).chain(250..300) {
        let disk = SimDisk::new(stop, 1 << 30);
        disk.stop_after(stop);
        let done = Store::init(&disk, &LABEL).is_ok();
        disk.power_cut();
        match Store::init(&disk, &LABEL) {
            Ok(()) => assert!(!done),
            Err(OpenError::AlreadyInitialised(_)) => {}
            Err(other) => panic!("stop {stop}: {other}"),
        }
        let (store, opened) = open(&disk, small());
        assert!(opened.clean);
        store.create(header(id(1))).unwrap();
        write(&store, id(1), 0, &[1]).unwrap();
        store.sync(id(1), Seq(1)).unwrap();
    }
}

#[test]
fn counters_grow_and_survive() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    let (first, mark) = (
        store.hb_ctr(),
        dfs_chunkserver::store::Mhwm {
            generation: Generation(1),
            max_term: Term(3),
            max_meta_index: LogIndex(9),
        },
    );
    store.set_mhwm(mark).unwrap();
    store
        .set_mhwm(dfs_chunkserver::store::Mhwm {
            generation: Generation(1),
            max_term: Term(2),
            max_meta_index: LogIndex(10),
        })
        .unwrap();
    assert_eq!(store.next_hb_ctr().unwrap(), first + 1);
    drop(store);
    disk.power_cut();
    let (store, opened) = open(&disk, small());
    assert!(!opened.clean && store.hb_ctr() == first + 2);
    assert_eq!((store.mhwm().max_term, store.mhwm().max_meta_index), (Term(3), LogIndex(10)));
    store.mark_clean_shutdown().unwrap();
    drop(store);
    disk.power_cut();
    assert!(open(&disk, small()).1.clean);
    disk.power_cut();
    assert!(!open(&disk, small()).1.clean, "the marker serves once");
}

#[test]
fn strange_files_are_set_apart_and_never_deleted() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    for n in [1, 2, 0x101] {
        store.create(header(id(n))).unwrap();
        write(&store, id(n), 0, &[1; 10]).unwrap();
    }
    drop(store);
    let put = |path: &str, bytes: &[u8]| {
        disk.open(path, Open::New).unwrap().write_at(&[IoSlice::new(bytes)], 0).unwrap();
    };
    put("chunks/07/notes.txt", b"hello");
    put(&path(id(7)), b"");
    put(&path(id(8)), &[1; 9000]);
    // Another chunk's file under this name.
    disk.rename(&path(id(0x101)), &path(id(0x201))).unwrap();
    disk.crash_process();
    let (store, opened) = open(&disk, small());
    assert_eq!(opened.replicas.iter().map(|header| header.chunk).collect::<Vec<_>>(), [id(1), id(2)]);
    let mut found: Vec<_> = opened.quarantined.iter().map(|(_, unfit)| *unfit).collect();
    found.sort_unstable_by_key(|unfit| format!("{unfit:?}"));
    assert_eq!(found, [Unfit::Header, Unfit::Header, Unfit::Name, Unfit::NoHeader]);
    assert_eq!(disk.list("lost+found").unwrap().len(), 4);
    store.create(header(id(7))).unwrap();
    write(&store, id(7), 0, &[1; 10]).unwrap();
}

#[test]
fn opening_reads_no_data_and_no_table() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    store.create(header(id(1))).unwrap();
    write(&store, id(1), 0, &[1; 10]).unwrap();
    drop(store);
    disk.crash_process();
    disk.fail_range(dfs_disk::sim::Call::Read, "chunks/", 4608..u64::MAX);
    assert_eq!(open(&disk, small()).1.replicas.len(), 1);
}

#[test]
fn a_replica_can_leave_and_come_back() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    for round in 0..3u8 {
        store.create(header(id(1))).unwrap();
        assert!(store.create(header(id(1))).is_err());
        write(&store, id(1), 0, &[round; 10]).unwrap();
        assert_eq!(read(&store, id(1), 0, 1).unwrap().data[0], round);
        store.sync(id(1), Seq(1)).unwrap();
        store.trash(id(1), 7).unwrap();
        assert!(store.trash(id(1), 7).is_err() && read(&store, id(1), 0, 1).is_err());
    }
    store.sync_removal(id(1)).unwrap();
    drop(store);
    disk.power_cut();
    let (store, opened) = open(&disk, small());
    assert!(opened.replicas.is_empty());
    assert_eq!(disk.list("trash").unwrap().len(), 3);
    assert!(store.space().unwrap().trash > 0);
    assert_eq!(store.empty_trash(8).unwrap(), 3);
}

#[test]
fn a_look_at_a_disk_finds_headers_fences_and_ends_and_changes_nothing() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    for (n, len) in [(1, 10), (2, 5000), (3, 4096)] {
        store.create(header(id(n))).unwrap();
        write(&store, id(n), 0, &vec![7; len]).unwrap();
    }
    // An end within a block that a sync told, one that a truncation made, and one that came after the last header.
    store.sync(id(1), Seq(1)).unwrap();
    store.zero(id(2), 4100, 64 << 10, SizeEpoch(1)).unwrap();
    write(&store, id(3), 4096, &[7; 100]).unwrap();
    store.fence(&[(id(1), ChunkVersion(8))]).unwrap().pop().unwrap().unwrap();
    store
        .set_mhwm(Mhwm { generation: Generation(2), max_term: Term(4), max_meta_index: LogIndex(99) })
        .unwrap();
    drop(store);
    disk.crash_process();
    let before = disk.list("chunks/01").unwrap();
    let found = survey(disk.clone()).unwrap();
    assert_eq!((found.whose.label, found.whose.starts), (LABEL, 1));
    assert_eq!((found.whose.mhwm.generation, found.whose.mhwm.max_meta_index), (Generation(2), LogIndex(99)));
    let extents: Vec<u32> = found.replicas.iter().map(|header| header.extent).collect();
    assert_eq!(extents, [10, 4100, 8192], "the last one is known to the block");
    assert_eq!(found.replicas[0].version, ChunkVersion(8), "the fence log's word counts");
    assert!(found.unfit.is_empty());
    assert_eq!(disk.list("chunks/01").unwrap(), before);
    let (store, _) = open(&disk, small());
    assert_eq!(store.hb_ctr(), 2, "a look is no start");
    // What is known of the end after a crash is what the next header says.
    write(&store, id(3), 0, &[8; 10]).unwrap();
    assert_eq!(store.header(id(3)).unwrap().extent, 8192);
}
