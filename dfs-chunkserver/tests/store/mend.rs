//! Mending and scrubbing on a disk that can stop anywhere: nothing is replaced before the bad bytes are kept, and
//! nothing that is not bad.

use bytes::Bytes;
use dfs_chunkserver::store::{BadPart, Evidence, Mended, Stock, Store, StoreError};
use dfs_disk::Disk;
use dfs_disk::sim::{Call, SimDisk};
use dfs_proto::ids::Seq;

use super::support::*;

const DATA_AT: u64 = 128 << 10;
const TABLE_AT: u64 = 8192;
/// Block 2 is a hole.
const BLOCKS: u32 = 4;

/// A synced chunk, and the same on another disk.
fn two() -> (SimDisk, Store<SimDisk>, Store<SimDisk>) {
    let make = |seed| {
        let disk = sim(seed);
        let (store, _) = open(&disk, small());
        store.create(header(id(1))).unwrap();
        write_all(&store, id(1), &[(0, &[7; 8192]), (12_288, &[8; 4096])]).unwrap();
        store.sync(id(1), Seq(1)).unwrap();
        (disk, store)
    };
    let (disk, store) = make(1);
    (disk, store, make(2).1)
}

fn flip(disk: &SimDisk, at: u64) {
    assert!(disk.flip_bit(&path(id(1)), at, 0));
}

fn reopen(disk: &SimDisk, store: Store<SimDisk>) -> Store<SimDisk> {
    drop(store);
    disk.crash_process();
    open(disk, small()).0
}

fn places(kept: &[Evidence]) -> Vec<(u64, BadPart, u64)> {
    kept.iter().map(|evidence| (evidence.number, evidence.part, evidence.at)).collect()
}

#[test]
fn only_what_is_damaged_is_replaced() {
    let (disk, store, other) = two();
    let good = other.stock(id(1), 0, BLOCKS).unwrap();
    assert_eq!((good.entries[2], good.data.len()), (0, 3 * BLOCK));
    flip(&disk, DATA_AT + 4096 + 10);
    let mine = store.stock(id(1), 0, BLOCKS).unwrap();
    assert_eq!(mine.entries, [good.entries[0], 1, 0, good.entries[3]]);
    assert_eq!(mine.data.len(), 2 * BLOCK);

    write(&other, id(1), 0, &[9; 4096]).unwrap();
    let newer = other.stock(id(1), 0, BLOCKS).unwrap();
    assert_eq!(store.mend(id(1), 0, &newer, true).unwrap(), Mended { mended: 1, ..Mended::default() });
    let bytes = read(&store, id(1), 0, 16_384).unwrap().data;
    assert!(bytes[..8192].iter().all(|byte| *byte == 7), "block 0 was good, block 1 is again");
    let kept = store.evidence().unwrap();
    assert_eq!(places(&kept), [(1, BadPart::Block, DATA_AT + 4096)]);
    assert_eq!((kept[0].bytes[10], kept[0].bytes[11], kept[0].stored), (6, 7, good.entries[1]));
    assert_eq!(store.mend(id(1), 0, &newer, true).unwrap(), Mended::default(), "nothing is bad");
}

#[test]
fn a_block_that_another_has_otherwise_is_taken_only_if_there_is_no_other() {
    let (disk, store, other) = two();
    flip(&disk, DATA_AT + 10);
    write(&other, id(1), 0, &[9; 4096]).unwrap();
    let given = other.stock(id(1), 0, 1).unwrap();
    let left = store.mend(id(1), 0, &given, false).unwrap();
    assert_eq!(left, Mended { differ: vec![0], ..Mended::default() });
    assert_eq!(store.verify(id(1)).unwrap().bad, [0]);
    let none = Stock { entries: vec![1], data: Bytes::new() };
    assert_eq!(store.mend(id(1), 0, &none, true).unwrap().bad, [0], "the other's is damaged, too");
    assert_eq!(store.mend(id(1), 0, &given, true).unwrap().mended, 1);
    assert_eq!(read(&store, id(1), 0, 1).unwrap().data[0], 9);
}

#[test]
fn what_does_not_match_or_fit_is_not_taken() {
    let (disk, store, other) = two();
    flip(&disk, DATA_AT + 10);
    let good = other.stock(id(1), 0, 1).unwrap();
    let wrong = Stock { data: vec![3; BLOCK].into(), ..good.clone() };
    assert!(matches!(store.mend(id(1), 0, &wrong, true), Err(StoreError::BadChecksum { offset: 0, .. })));
    let short = Stock { data: Bytes::new(), ..good.clone() };
    assert!(matches!(store.mend(id(1), 0, &short, true), Err(StoreError::Invalid)));
    assert!(matches!(store.mend(id(1), 16, &good, true), Err(StoreError::Invalid)));
    assert_eq!(store.verify(id(1)).unwrap().bad, [0]);
}

#[test]
fn nothing_is_replaced_while_the_evidence_can_not_be_kept() {
    for call in [Call::Write, Call::Sync] {
        let (disk, store, other) = two();
        flip(&disk, DATA_AT + 10);
        disk.fail(call, "evidence.log");
        let given = other.stock(id(1), 0, 1).unwrap();
        assert!(store.mend(id(1), 0, &given, true).is_err());
        assert_eq!(store.verify(id(1)).unwrap().bad, [0]);
        disk.heal();
        assert_eq!(store.mend(id(1), 0, &given, true).unwrap().mended, 1);
        assert!(store.verify(id(1)).unwrap().bad.is_empty());
    }
}

/// Stops the disk after each operation of `work`, and looks at it before and after a power cut.
fn stopped_anywhere(flips: &[u64], work: impl Fn(&Store<SimDisk>)) {
    for after in 0.. {
        let (disk, store, _) = two();
        flips.iter().for_each(|at| flip(&disk, *at));
        let before: Vec<u8> = flips.iter().map(|at| byte_of(&disk, *at)).collect();
        disk.stop_after(after);
        work(&store);
        let ended = !disk.stopped();
        drop(store);
        disk.power_cut();
        let disk = disk.reopen();
        let changed = flips.iter().zip(&before).filter(|(at, byte)| byte_of(&disk, **at) != **byte);
        let changed: Vec<u64> = changed.map(|(at, _)| *at).collect();
        let store = open(&disk, small()).0;
        let kept = store.evidence().unwrap();
        for at in changed {
            let holds =
                |evidence: &Evidence| (evidence.at..evidence.at + evidence.bytes.len() as u64).contains(&at);
            assert!(kept.iter().any(holds), "byte {at} was replaced and not kept, after {after} operations");
        }
        // Whatever is left is still refused.
        let bytes = read(&store, id(1), 0, 8192);
        assert!(bytes.is_err() || bytes.unwrap().data.iter().all(|byte| *byte == 7));
        if ended {
            return;
        }
    }
}

fn byte_of(disk: &SimDisk, at: u64) -> u8 {
    use dfs_disk::{DiskFile, Open};
    let file = disk.open(&path(id(1)), Open::Existing).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    byte[0]
}

#[test]
fn a_mending_can_be_cut_short_anywhere() {
    let given = two().2.stock(id(1), 0, BLOCKS).unwrap();
    stopped_anywhere(&[DATA_AT + 10, DATA_AT + 4096 + 700], |store| {
        let _cut = store.mend(id(1), 0, &given, true);
    });
}

#[test]
fn a_scrub_of_a_head_can_be_cut_short_anywhere() {
    for slot in [0, 4096] {
        stopped_anywhere(&[slot + 50, TABLE_AT + 9], |store| {
            let _cut = store.scrub_head(id(1));
        });
    }
}

#[test]
fn a_scrub_names_bad_blocks_and_writes_the_head_anew() {
    let (disk, store, _) = two();
    assert_eq!(store.scrub_head(id(1)).unwrap().rewritten, 0);
    let clean = store.scrub_blocks(id(1), 0).unwrap();
    assert_eq!((clean.bytes, clean.bad.len(), clean.next), (3 * BLOCK as u64, 0, None), "a hole is not read");
    for at in [100, 4096 + 100, TABLE_AT + 3, DATA_AT + 12_288] {
        flip(&disk, at);
    }
    assert_eq!(store.scrub_head(id(1)).unwrap().rewritten, 3, "both slots are in memory, too");
    assert_eq!(store.scrub_blocks(id(1), 0).unwrap().bad, [3]);
    let kept = places(&store.evidence().unwrap());
    let expected =
        [(1, BadPart::HeaderSlot, 0), (2, BadPart::HeaderSlot, 4096), (3, BadPart::TableSector, TABLE_AT)];
    assert_eq!(kept, expected);
    let store = reopen(&disk, store);
    assert_eq!(store.scrub_head(id(1)).unwrap().rewritten, 0);
    assert_eq!(store.header(id(1)).unwrap().seq_synced, Seq(1));
}

#[test]
fn a_slot_that_went_back_in_time_is_written_anew() {
    use dfs_disk::{DiskFile, Open};
    let (disk, store, _) = two();
    let file = disk.open(&path(id(1)), Open::Existing).unwrap();
    let mut slots = vec![0; 8192];
    file.read_at(&mut slots, 0).unwrap();
    let change = dfs_chunkserver::store::HeaderChange {
        config: Some(dfs_proto::ids::ConfigNum(2)),
        ..Default::default()
    };
    store.set_header(id(1), &change, dfs_chunkserver::store::Durability::Synced).unwrap();
    assert_eq!(store.scrub_head(id(1)).unwrap().rewritten, 0);
    // Both slots as they were, each with a good checksum: the write was lost.
    file.write_at(&[std::io::IoSlice::new(&slots)], 0).unwrap();
    assert_eq!(store.scrub_head(id(1)).unwrap().rewritten, 1);
    let store = reopen(&disk, store);
    assert_eq!(store.header(id(1)).unwrap().config, dfs_proto::ids::ConfigNum(2));
}

#[test]
fn a_file_that_is_gone_is_noticed_though_it_is_open() {
    let (disk, store, _) = two();
    disk.remove(&path(id(1))).unwrap();
    assert!(read(&store, id(1), 0, 10).is_ok(), "its descriptor still works");
    assert!(matches!(store.scrub_head(id(1)), Err(StoreError::NoChunk(_))));
}
