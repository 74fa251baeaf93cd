//! Each fault of the model by itself: failed syncs and writes, rotten bits, bad sectors, a full disk.

use dfs_chunkserver::store::{
    Damage, Durability, Expect, HeaderChange, ReadMode, Stock, Store, StoreError, Unfit,
};
use dfs_disk::Disk;
use dfs_disk::sim::{Call, SimDisk};
use dfs_proto::checksum::crc32c;
use dfs_proto::ids::{ChunkVersion, ConfigNum, OpenNum, OsBootId, Seq, SizeEpoch};

use super::support::*;

const DATA_AT: u64 = 128 << 10;
const TABLE_AT: u64 = 8192;

fn with_chunk(seed: u64) -> (SimDisk, Store<SimDisk>) {
    let disk = sim(seed);
    let (store, _) = open(&disk, small());
    store.create(header(id(1))).unwrap();
    write(&store, id(1), 0, &[7; 10_000]).unwrap();
    store.sync(id(1), Seq(1)).unwrap();
    (disk, store)
}

fn reopen(disk: &SimDisk, store: Store<SimDisk>) -> Store<SimDisk> {
    drop(store);
    disk.crash_process();
    open(disk, small()).0
}

#[test]
fn a_failed_sync_is_final() {
    for many in [false, true] {
        let (disk, store) = with_chunk(1);
        write(&store, id(1), 0, &[8; 100]).unwrap();
        disk.fail(Call::Sync, "chunks/01/");
        let sync = |store: &Store<SimDisk>| {
            if many {
                store.sync_many(&[(id(1), Seq(2)); 20]).pop().unwrap()
            } else {
                store.sync(id(1), Seq(2))
            }
        };
        assert!(matches!(sync(&store), Err(StoreError::Io { .. } | StoreError::Failed(_))));
        disk.heal();
        for _ in 0..2 {
            assert!(matches!(sync(&store), Err(StoreError::Failed(_))));
        }
        assert!(matches!(read(&store, id(1), 0, 10), Err(StoreError::Failed(_))));
        assert!(matches!(write(&store, id(1), 0, &[1]), Err(StoreError::Failed(_))));
        assert!(store.suspect() && store.header(id(1)).unwrap().failed);
        assert!(store.mark_clean_shutdown().is_err());
        let store = reopen(&disk, store);
        assert!(matches!(read(&store, id(1), 0, 10), Err(StoreError::Failed(_))), "for good");
        store.quarantine(id(1)).unwrap();
        store.create(header(id(1))).unwrap();
    }
}

/// What the kernel forgot with the error is in its cache, and a sync of another process is told nothing.
#[test]
fn a_failed_sync_is_known_until_the_kernel_is_gone() {
    let notes = |disk: &SimDisk| {
        let names = disk.list("").unwrap().into_iter().map(|entry| entry.name);
        names.filter(|name| name.starts_with("suspect-")).count()
    };
    // Told to a process that ended then, or to nobody before the next one syncs what it finds.
    for told in [true, false] {
        let (disk, store) = with_chunk(1);
        write(&store, id(1), 0, &[8; 100]).unwrap();
        disk.fail(Call::Sync, "chunks/01/");
        if told {
            store.sync(id(1), Seq(2)).unwrap_err();
        }
        drop(store);
        disk.crash_process();
        if told {
            disk.heal();
        }
        let (store, opened) = open(&disk, small());
        assert!(opened.suspect && store.suspect() && !opened.clean);
        disk.heal();
        assert!(matches!(store.sync(id(1), Seq(2)), Err(StoreError::Io { .. } | StoreError::Failed(_))));
        assert!(store.mark_clean_shutdown().is_err());
        assert_eq!(notes(&disk), 1);
        drop(store);
        disk.power_cut();
        let other = Expect { os_boot: OsBootId(8), ..EXPECT };
        let (store, opened) = Store::open(disk.clone(), other, small()).unwrap();
        assert!(!opened.suspect && !store.suspect());
        assert_eq!(notes(&disk), 0);
        // What was synced before is there, and of the rest what a crash leaves.
        assert_eq!(&read(&store, id(1), 5000, 4000).unwrap().data[..4000], [7; 4000]);
        match read(&store, id(1), 0, 100) {
            Ok(blocks) => assert!(matches!(blocks.data[..100].first(), Some(7 | 8))),
            Err(error) => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
        }
        store.sync(id(1), Seq(2)).unwrap();
        store.mark_clean_shutdown().unwrap();
    }
}

#[test]
fn a_failed_sync_of_the_directory_is_one_of_the_chunk() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    store.create(header(id(1))).unwrap();
    write(&store, id(1), 0, &[7; 10]).unwrap();
    disk.fail_nth(3);
    assert!(matches!(store.sync(id(1), Seq(1)), Err(StoreError::Io { .. })));
    assert!(matches!(store.sync(id(1), Seq(1)), Err(StoreError::Failed(_))));
}

#[test]
fn a_failed_write_fails_the_replica() {
    for nth in 1..=2 {
        let (disk, store) = with_chunk(1);
        disk.fail_nth(nth);
        assert!(matches!(write(&store, id(1), 0, &[8; 100]), Err(StoreError::Io { .. })), "operation {nth}");
        assert!(matches!(read(&store, id(1), 0, 10), Err(StoreError::Failed(_))));
    }
}

#[test]
fn every_rotten_bit_of_data_is_noticed_before_a_byte_leaves_or_is_merged() {
    let (disk, store) = with_chunk(1);
    for at in (0..12_288).step_by(5) {
        let bit = u32::try_from(at % 8).unwrap();
        assert!(disk.flip_bit(&path(id(1)), DATA_AT + at, bit));
        let expected = u32::try_from(at / 4096).unwrap();
        for mode in [ReadMode::CachedOnly, ReadMode::MayBlock] {
            match store.read(id(1), 0, 12_288, mode) {
                Err(StoreError::Corrupt { block, damage: Damage::Checksum, .. }) => {
                    assert_eq!(block, expected)
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
        let merge = write(&store, id(1), expected * 4096 + 5, &[9; 7]);
        assert!(matches!(merge, Err(StoreError::Corrupt { .. })), "byte {at}: {merge:?}");
        let zero = store.zero(id(1), expected * 4096 + 1, expected * 4096 + 2, SizeEpoch(1));
        assert!(matches!(zero, Err(StoreError::Corrupt { .. })), "byte {at}: {zero:?}");
        assert_eq!(store.verify(id(1)).unwrap().bad, [expected]);
        assert!(disk.flip_bit(&path(id(1)), DATA_AT + at, bit));
    }
    assert!(store.verify(id(1)).unwrap().bad.is_empty());
    assert_eq!(store.metrics().torn_resolved, 0);
}

#[test]
fn every_rotten_bit_of_the_table_is_noticed() {
    let (disk, mut store) = with_chunk(1);
    for at in 0..512 {
        assert!(disk.flip_bit(&path(id(1)), TABLE_AT + at, 1));
        store = reopen(&disk, store);
        assert!(matches!(read(&store, id(1), 0, 10), Err(StoreError::Corrupt { block: 0, .. })), "byte {at}");
        assert_eq!(store.verify(id(1)).unwrap().bad, [0, 1, 2]);
        assert!(disk.flip_bit(&path(id(1)), TABLE_AT + at, 1));
    }
    store = reopen(&disk, store);
    assert!(read(&store, id(1), 0, 12_288).is_ok());
}

#[test]
fn a_rotten_header_slot_costs_nothing_but_a_line_in_the_log_and_two_the_chunk_its_place() {
    let (disk, store) = with_chunk(1);
    let change = HeaderChange { config: Some(ConfigNum(2)), ..HeaderChange::default() };
    store.set_header(id(1), &change, Durability::Synced).unwrap();
    drop(store);
    for at in 0..512u64 {
        for slot in [0, 4096] {
            let disk = disk.fork(at);
            assert!(disk.flip_bit(&path(id(1)), slot + at, 6));
            let (store, opened) = open(&disk, small());
            assert_eq!((opened.damaged_slots, opened.quarantined.len()), (1, 0), "byte {at} of slot {slot}");
            assert!(read(&store, id(1), 0, 100).is_ok());
            // The next header mends it.
            let change = HeaderChange { config: Some(ConfigNum(3)), ..HeaderChange::default() };
            store.set_header(id(1), &change, Durability::Synced).unwrap();
            let store = reopen(&disk, store);
            assert_eq!(store.header(id(1)).unwrap().config, ConfigNum(3));
        }
        let disk = disk.fork(at);
        assert!(disk.flip_bit(&path(id(1)), at, 6) && disk.flip_bit(&path(id(1)), 4096 + at, 6));
        let (store, opened) = open(&disk, small());
        assert_eq!(opened.quarantined, [(path(id(1)), Unfit::Header)]);
        assert!(!store.contains(id(1)));
        assert_eq!(dfs_disk::Disk::list(&disk, "lost+found").unwrap().len(), 1, "moved, not deleted");
    }
}

#[test]
fn a_damaged_block_is_repaired_from_another_members_bytes() {
    let (disk, store) = with_chunk(1);
    disk.flip_bit(&path(id(1)), DATA_AT + 5000, 0);
    let good = [7; BLOCK];
    let given = |bytes: &[u8]| Stock { entries: vec![crc32c(&good).0], data: bytes.to_vec().into() };
    assert!(matches!(store.mend(id(1), 1, &given(&[8; BLOCK]), true), Err(StoreError::BadChecksum { .. })));
    store.mend(id(1), 1, &given(&good), true).unwrap();
    write(&store, id(1), 5000, &[9; 10]).unwrap();
    let store = reopen(&disk, store);
    assert_eq!(read(&store, id(1), 4096, 4096).unwrap().data[904..914], [9; 10]);

    // Of a damaged table sector too, one block after the other.
    disk.flip_bit(&path(id(1)), TABLE_AT, 0);
    let store = reopen(&disk, store);
    store.mend(id(1), 0, &given(&good), true).unwrap();
    let store = reopen(&disk, store);
    assert_eq!(store.verify(id(1)).unwrap().bad, [1, 2], "what is not repaired stays unknown");
    store.repair_hole(id(1), 1).unwrap();
    assert!(store.resolve_torn(id(1), 2).unwrap());
    assert!(!store.resolve_torn(id(1), 2).unwrap());
    assert_eq!(read(&store, id(1), 0, 12_288).unwrap().crcs[1], None);
    assert_eq!(store.metrics().torn_resolved, 1);
}

#[test]
fn a_bad_sector_is_named_and_neither_guessed_nor_settled() {
    let (disk, store) = with_chunk(1);
    disk.fail_range(Call::Read, &path(id(1)), DATA_AT + 4096 + 512..DATA_AT + 4096 + 1024);
    let unreadable = |result: Result<_, StoreError>| match result {
        Err(StoreError::Corrupt { block, damage, .. }) => (block, damage),
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert_eq!(unreadable(read(&store, id(1), 0, 12_288).map(|_| ())), (1, Damage::Unreadable));
    assert_eq!(unreadable(store.resolve_torn(id(1), 1).map(|_| ())), (1, Damage::Unreadable));
    assert_eq!(unreadable(write(&store, id(1), 4097, &[1])), (1, Damage::Unreadable));
    assert_eq!(store.verify(id(1)).unwrap().bad, [1]);
    assert!(read(&store, id(1), 0, 4096).is_ok());

    disk.heal();
    disk.fail_range(Call::Read, &path(id(1)), 0..512);
    let store = reopen(&disk, store);
    read(&store, id(1), 0, 4096).expect("the other slot serves");
}

#[test]
fn bytes_that_do_not_match_their_checksum_are_not_written() {
    let (_disk, store) = with_chunk(1);
    let ranges = [dfs_proto::chunk::Range { offset: 0, len: 4096 }];
    let write = dfs_chunkserver::store::Write { ranges: &ranges, data: &[9; 4096], crcs: &[1] };
    assert!(matches!(store.write(id(1), &write), Err(StoreError::BadChecksum { offset: 0, .. })));
    assert_eq!(read(&store, id(1), 0, 1).unwrap().data[0], 7);
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk = SimDisk::new(1, 2 << 20);
    Store::init(&disk, &LABEL).unwrap();
    let (store, _) = open(&disk, small());
    let mut n = 0;
    loop {
        n += 1;
        store.create(header(id(n))).unwrap();
        match write(&store, id(n), 0, &[3; 65_536]) {
            Ok(()) => {}
            Err(StoreError::NoSpace) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(n > 10 && !store.has_file(id(n)).unwrap());
    assert!(matches!(
        store.hold_room(id(n), &[dfs_proto::chunk::Range { offset: 0, len: 65_536 }]),
        Err(StoreError::NoSpace)
    ));
    let space = store.space().unwrap();
    assert!(space.free >= space.reserve / 2, "the reserve is kept: {space:?}");
    write(&store, id(1), 100, &[4; 5000]).unwrap();
    store
        .set_header(
            id(1),
            &HeaderChange { config: Some(ConfigNum(9)), ..HeaderChange::default() },
            Durability::Synced,
        )
        .unwrap();
    assert!(disk.flip_bit(&path(id(2)), DATA_AT, 0));
    let given = Stock { entries: vec![crc32c(&[3; BLOCK]).0], data: vec![3; BLOCK].into() };
    assert_eq!(store.mend(id(2), 0, &given, true).unwrap().mended, 1);
    assert!(read_whole(&store, id(2), 65_536).is_ok());

    store.trash(id(3), 50).unwrap();
    assert!(store.space().unwrap().trash >= 65_536);
    assert_eq!(store.empty_trash(50).unwrap(), 0, "not before its time");
    assert_eq!(store.empty_trash(51).unwrap(), 1);
    assert_eq!(store.space().unwrap().trash, 0);
    write(&store, id(n), 0, &[5; 4096]).unwrap();
}

#[test]
fn a_disk_fuller_than_it_said_leaves_the_chunk_as_it_was() {
    for free in 0..6 {
        let disk = SimDisk::new(1, 1 << 30);
        Store::init(&disk, &LABEL).unwrap();
        let (store, _) = open(&disk, small());
        store.create(header(id(1))).unwrap();
        write(&store, id(1), 0, &[1; 4096]).unwrap();
        store.create(header(id(2))).unwrap();
        let used = (1u64 << 30) - store.space().unwrap().free;
        disk.set_capacity(used + free * 4096);
        for (chunk, offset) in [(id(1), 8192), (id(2), 0)] {
            match write(&store, chunk, offset, &[2; 12_288]) {
                Ok(()) => assert!(free >= 3),
                Err(StoreError::NoSpace) => {
                    assert_eq!(read_whole(&store, id(1), 4096).unwrap(), [1; 4096]);
                    assert_eq!(store.extent(chunk).unwrap(), if chunk == id(1) { 4096 } else { 0 });
                }
                Err(other) => panic!("{other}"),
            }
        }
        disk.set_capacity(1 << 30);
        write(&store, id(2), 0, &[2; 12_288]).unwrap();
        assert_eq!(read_whole(&store, id(2), 12_288).unwrap(), [2; 12_288]);
    }
}

#[test]
fn a_full_disk_tears_no_write() {
    // Old blocks and new ones in one write; one whose checksums need room too.
    for (offset, len) in [(4096, 16_384), (5 << 20, 4096)] {
        let mut refused = 0;
        for free in 0..8 {
            let disk = SimDisk::new(1, 1 << 30);
            Store::init(&disk, &LABEL).unwrap();
            let (store, _) = open(&disk, config(8 << 20, 100));
            store.create(header(id(1))).unwrap();
            write(&store, id(1), 0, &[1; 8192]).unwrap();
            let used = (1u64 << 30) - store.space().unwrap().free;
            disk.set_capacity(used + free * 4096);
            match write(&store, id(1), offset, &vec![2; len]) {
                Ok(()) => {}
                Err(StoreError::NoSpace) => {
                    refused += 1;
                    assert_eq!(read_whole(&store, id(1), 8192).unwrap(), [1; 8192]);
                    assert_eq!(store.extent(id(1)).unwrap(), 8192);
                }
                Err(other) => panic!("{free} blocks free: {other}"),
            }
            disk.set_capacity(1 << 30);
            write(&store, id(1), offset, &vec![2; len]).unwrap();
            assert_eq!(read(&store, id(1), offset, 4096).unwrap().data[..], [2; 4096]);
        }
        assert!((1..8).contains(&refused));
    }
}

#[test]
fn nothing_cached_means_asking_again_elsewhere() {
    let (disk, store) = with_chunk(1);
    disk.set_cold(true);
    assert!(matches!(store.read(id(1), 0, 10, ReadMode::CachedOnly), Err(StoreError::WouldBlock)));
    assert!(store.read(id(1), 0, 10, ReadMode::MayBlock).is_ok());
    disk.set_cold(false);
    assert!(store.read(id(1), 0, 10, ReadMode::CachedOnly).is_ok());
    let store = reopen(&disk, store);
    assert!(
        matches!(store.read(id(1), 0, 10, ReadMode::CachedOnly), Err(StoreError::WouldBlock)),
        "not open"
    );
}

#[test]
fn a_header_that_was_overtaken_does_not_open_a_closed_chunk() {
    let (_, store) = with_chunk(1);
    let set = |open_num, open| {
        let change =
            HeaderChange { open_num: Some(OpenNum(open_num)), open: Some(open), ..HeaderChange::default() };
        store.set_header(id(1), &change, Durability::Later).unwrap();
        let header = store.header(id(1)).unwrap();
        (header.open_num, header.open)
    };
    let first = store.header(id(1)).unwrap().open_num.0;
    assert_eq!(set(first, false), (OpenNum(first), false));
    assert_eq!(set(first, true), (OpenNum(first), false));
    assert_eq!(set(first + 1, true), (OpenNum(first + 1), true));
    assert_eq!(set(first, false), (OpenNum(first + 1), true));
}

#[test]
fn versions_never_go_back_and_fences_hold() {
    let (disk, store) = with_chunk(1);
    assert!(store.fence(&[(id(1), ChunkVersion(5)), (id(9), ChunkVersion(5))]).unwrap()[1].is_err());
    let older = HeaderChange { version: Some(ChunkVersion(4)), ..HeaderChange::default() };
    let refused = store.set_header(id(1), &older, Durability::Later);
    assert!(matches!(refused, Err(StoreError::Older { version: ChunkVersion(5), .. })));
    assert!(store.fence(&[(id(1), ChunkVersion(5))]).unwrap()[0].is_ok());
    assert!(store.fence(&[(id(1), ChunkVersion(4))]).unwrap()[0].is_err());
    drop(store);
    disk.power_cut();
    let (store, opened) = open(&disk, small());
    assert_eq!(opened.replicas[0].version, ChunkVersion(5), "the log, not the header, has it");
    let store = reopen(&disk, store);
    assert_eq!(store.header(id(1)).unwrap().version, ChunkVersion(5));

    // On a disk that lost its good name they hold for this process, which is what they are for.
    disk.fail(Call::Sync, "fence.log");
    assert!(store.fence(&[(id(1), ChunkVersion(6))]).unwrap()[0].is_ok());
    assert!(store.suspect());
    disk.heal();
    assert!(store.fence(&[(id(1), ChunkVersion(7))]).unwrap()[0].is_ok());
    assert_eq!(store.header(id(1)).unwrap().version, ChunkVersion(7));
    assert!(store.fence(&[(id(1), ChunkVersion(6))]).unwrap()[0].is_err());
    assert!(store.suspect(), "it stays so");
}

#[test]
fn a_full_disk_takes_fences_as_long_as_room_is_kept_and_then_later() {
    let (disk, store) = with_chunk(1);
    let fence =
        |version| store.fence(&[(id(1), ChunkVersion(version))]).map(|results| assert!(results[0].is_ok()));
    disk.set_capacity(0);
    // Neither its own room nor a shorter log can be had when what was kept is used up.
    let last = (2..10_000).find(|version| fence(*version).is_err()).unwrap();
    assert!(last > 2000, "{last}");
    assert!(matches!(fence(last), Err(StoreError::NoSpace)));
    assert!(!store.suspect());
    disk.set_capacity(CAPACITY);
    fence(last + 1).unwrap();
    drop(store);
    disk.power_cut();
    let (_, opened) = open(&disk, small());
    assert_eq!(opened.replicas[0].version, ChunkVersion(last + 1));
}

#[test]
fn a_long_fence_log_is_made_short() {
    let (disk, store) = with_chunk(1);
    let many: Vec<_> = (2..200).map(id).collect();
    for chunk in &many {
        store.create(header(*chunk)).unwrap();
        write(&store, *chunk, 0, &[1; 10]).unwrap();
    }
    for version in 2..600 {
        let fences: Vec<_> = many.iter().map(|chunk| (*chunk, ChunkVersion(version))).collect();
        assert!(store.fence(&fences).unwrap().iter().all(Result::is_ok));
    }
    let len = dfs_disk::Disk::list(&disk, "").unwrap().iter().find(|e| e.name == "fence.log").unwrap().len;
    assert!(len <= 1 << 20, "{len}");
    drop(store);
    disk.crash_process();
    let (_, opened) = open(&disk, small());
    assert!(opened.replicas[1..].iter().all(|header| header.version == ChunkVersion(599)));
}

#[test]
fn few_files_stay_open_and_unsynced_ones_cost_one_sync_together() {
    let disk = sim(1);
    let (store, _) = open(&disk, config(64 << 10, 10));
    for n in 0..200 {
        store.create(header(id(n))).unwrap();
        write(&store, id(n), 0, &[1; 100]).unwrap();
    }
    let metrics = store.metrics();
    assert!(metrics.closed >= 170 && (1..=60).contains(&metrics.batch_syncs), "{metrics:?}");
    for n in 0..200 {
        assert_eq!(read(&store, id(n), 0, 100).unwrap().data[99], 1);
    }
}
