//! Damage: every bit of every kind of bytes, lost and foreign files. What was durable is never dropped
//! in silence: recovery refuses and says where, or has a whole copy to use instead.

use dfs_disk::Disk;
use dfs_disk::sim::SimDisk;
use dfs_master::log::record::{self, Fault};
use dfs_master::log::recover::Damage;
use dfs_master::log::segment::{Header, seed};
use dfs_master::log::{
    ConfState, EntryId, HardState, NodeId, Options, Record, RecordNum, RecoverError, Recovered, Section,
    SnapshotError, SnapshotStore, init, recover,
};
use dfs_proto::ids::{ClusterId, LogIndex, Term};

use crate::support::{
    CONFIG, begun, bytes_of, entries, entry, fresh, hard_state, identity, load, put, replayed, segments,
};

const LAST: u64 = 120;

/// A log of entries 1..=120 in batches of three, all synced, vouched for but for the last batch. Returns
/// where each record of the first segment starts.
fn long() -> (SimDisk, Vec<u64>) {
    let disk = fresh(3);
    let mut writer = begun(&disk);
    for first in (1..=LAST).step_by(3) {
        writer.append(&entries(first..=first + 2, 1)).unwrap();
        writer.sync().unwrap();
    }
    drop(writer);
    let bytes = bytes_of(&disk, &segments(&disk)[0]);
    let mut starts = Vec::new();
    let mut at = 64;
    while let Some(len) = record::wanted(&bytes[at..]).filter(|_| bytes[at..at + 16] != [0; 16]) {
        starts.push(at as u64);
        at += len;
    }
    (disk, starts)
}

fn fails(disk: &SimDisk) -> RecoverError {
    recover(disk, Options::default()).map(|recovered| replayed(&recovered)).unwrap_err()
}

/// The damage that recovery refuses to start from.
fn damage_of(disk: &SimDisk) -> Damage {
    let error = fails(disk);
    let RecoverError::Damage(damage) = error else { panic!("{error}") };
    *damage
}

fn flipped(disk: &SimDisk, path: &str, at: u64) -> SimDisk {
    let copy = disk.fork(at);
    assert!(copy.flip_bit(path, at, u32::try_from(at % 8).unwrap()), "{path} {at}");
    copy
}

#[test]
fn every_byte_of_a_durable_record() {
    let (disk, starts) = long();
    let path = &segments(&disk)[0];
    // Numbers 1 to 3 are the hard states and the opening; 4 is entry 1.
    for num in [1, 2, 3, 4, 7, 8] {
        let start = starts[num - 1];
        let length = u64::from(u32::from_le_bytes(
            bytes_of(&disk, path)[usize::try_from(start).unwrap()..][..4].try_into().unwrap(),
        ));
        for at in start..start + 48 + length {
            let damage = damage_of(&flipped(&disk, path, at));
            assert_eq!((&damage.segment, damage.offset), (path, start), "byte {at}");
            assert_eq!(damage.record, RecordNum(num as u64));
            assert_eq!(damage.last, LogIndex((num as u64).saturating_sub(4)));
            let text = damage.to_string();
            for part in [path, "offset", "Repair", "dfs recover --accept-metadata-loss"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}

#[test]
fn every_byte_of_a_record_that_nobody_vouches_for() {
    let (disk, _) = long();
    let path = segments(&disk).pop().unwrap();
    let bytes = bytes_of(&disk, &path);
    let end = bytes.iter().rposition(|b| *b != 0).unwrap();
    let last = crate::support::payload(LAST, 1).len();
    let start = (end + 1 - last - 48) / 8 * 8;
    for at in start..start + 48 + last {
        let disk = flipped(&disk, &path, at as u64);
        let recovered = recover(&disk, Options::default()).unwrap();
        assert_eq!(replayed(&recovered).len() as u64, LAST - 1, "byte {at}");
        let torn = recovered.torn().unwrap();
        assert_eq!((&torn.segment, torn.offset, torn.last), (&path, start as u64, LogIndex(LAST - 1)));
    }
}

#[test]
fn every_byte_of_a_segment_header() {
    let (disk, _) = long();
    let all = segments(&disk);
    assert!(all.len() > 3);
    for path in &all[1..all.len() - 1] {
        for at in 0..64 {
            let damage = damage_of(&flipped(&disk, path, at));
            assert_eq!((&damage.segment, damage.offset, damage.fault), (path, 0, Fault::SegmentHeader));
        }
    }
    // Nothing before the first says what came before it.
    for at in 0..64 {
        let error = fails(&flipped(&disk, &all[0], at));
        assert!(matches!(&error, RecoverError::Header { segment } if *segment == all[0]), "{error}");
    }
}

#[test]
fn a_zeroed_sector_in_the_middle() {
    let (disk, _) = long();
    let path = &segments(&disk)[1];
    let bytes = bytes_of(&disk, path);
    for sector in 0..6 {
        let disk = disk.fork(sector as u64);
        let mut zeroed = bytes.clone();
        zeroed[sector * 512..(sector + 1) * 512].fill(0);
        put(&disk, path, &zeroed);
        let error = fails(&disk);
        assert!(matches!(error, RecoverError::Damage(_)), "{error}");
    }
}

#[test]
fn a_lost_or_shortened_segment() {
    let (disk, _) = long();
    let all = segments(&disk);
    for (at, path) in all.iter().enumerate().take(all.len() - 1) {
        let lost = disk.fork(1);
        lost.remove(path).unwrap();
        lost.sync_dir("log").unwrap();
        match (at, fails(&lost)) {
            (0, RecoverError::Missing { need: LogIndex(1), .. }) => {}
            (_, RecoverError::Damage(damage)) => {
                assert_eq!((&damage.segment, damage.fault), (&all[at - 1], Fault::Missing));
            }
            (_, other) => panic!("{path}: {other}"),
        }
        for len in [0, 63, 64, 100, 2000, 3000] {
            let short = disk.fork(1);
            put(&short, path, &bytes_of(&disk, path)[..len]);
            let error = fails(&short);
            let named = matches!(error, RecoverError::Damage(_) | RecoverError::Header { .. });
            assert!(named, "{path} {len}: {error}");
        }
    }
}

#[test]
fn segments_in_each_others_place() {
    let (disk, _) = long();
    let all = segments(&disk);
    let (one, other) = (bytes_of(&disk, &all[1]), bytes_of(&disk, &all[2]));
    put(&disk, &all[1], &other);
    put(&disk, &all[2], &one);
    let error = fails(&disk);
    assert!(matches!(&error, RecoverError::Misnamed { file, .. } if *file == all[1]), "{error}");
}

#[test]
fn a_copied_segment() {
    let (disk, _) = long();
    let second = bytes_of(&disk, &segments(&disk)[1]);
    put(&disk, "log/0000000000000005.seg", &second);
    disk.sync_dir("log").unwrap();
    assert!(matches!(fails(&disk), RecoverError::Misnamed { .. }));
    // Even one that claims to be what its name says.
    let (cluster, first) = (identity().cluster, RecordNum(5));
    let header = Header { cluster, first, before: EntryId::default(), durable: RecordNum(0) };
    put(&disk, "log/0000000000000005.seg", &[&header.encode()[..], &second[64..]].concat());
    assert!(matches!(fails(&disk), RecoverError::Overlap(RecordNum(5)) | RecoverError::Damage(_)));
}

#[test]
fn an_accepted_loss_is_exactly_that() {
    let (disk, starts) = long();
    let path = segments(&disk)[0].clone();
    // Record 9 is entry 6.
    let disk = flipped(&disk, &path, starts[8] + 20);
    for wrong in [4, 6, LAST] {
        let options = Options { accept_loss: Some(LogIndex(wrong)) };
        assert!(matches!(recover(&disk, options), Err(RecoverError::Damage(_))));
    }
    let options = Options { accept_loss: Some(LogIndex(5)) };
    let recovered = recover(&disk, options).unwrap();
    assert_eq!(replayed(&recovered).len(), 5);
    let mut writer = recovered.into_writer(CONFIG).unwrap();
    writer.append(&[entry(6, 1)]).unwrap();
    writer.sync().unwrap();
    drop(writer);
    assert_eq!(replayed(&recover(&disk, Options::default()).unwrap()).len(), 6);
}

#[test]
fn an_emptied_directory() {
    let (disk, _) = long();
    for path in segments(&disk) {
        disk.remove(&path).unwrap();
    }
    assert!(matches!(fails(&disk), RecoverError::Empty));
    disk.remove("cluster.json").unwrap();
    assert!(matches!(fails(&disk), RecoverError::Identity(_)));
}

#[test]
fn a_file_of_another_cluster() {
    let (disk, _) = long();
    let mut identity = identity();
    identity.cluster = ClusterId(99);
    let theirs = SimDisk::new(1, 1 << 20);
    init(&theirs, &identity, CONFIG).unwrap();
    let store = SnapshotStore::new(theirs.clone(), &identity);
    store.begin(ID, ConfState::of(&[NodeId(1)]), Vec::new()).unwrap().finish().unwrap();
    let path = segments(&disk)[0].clone();
    let swapped = disk.fork(1);
    put(&swapped, &path, &bytes_of(&theirs, &path));
    assert!(matches!(fails(&swapped), RecoverError::Foreign { found: ClusterId(99), .. }));
    let path = dfs_master::log::snapshot::path(ID.index);
    put(&disk, &path, &bytes_of(&theirs, &path));
    assert!(matches!(fails(&disk), RecoverError::Snapshot(SnapshotError::Foreign { .. })));
}

/// Replaces the first segment by one of these records.
fn handmade(records: &[Record], spoil: impl FnOnce(&mut Vec<u8>)) -> RecoverError {
    let disk = fresh(1);
    let (cluster, first) = (identity().cluster, RecordNum(1));
    let header = Header { cluster, first, before: EntryId::default(), durable: RecordNum(0) };
    let mut bytes = header.encode().to_vec();
    for (record, num) in records.iter().zip(1..) {
        record::encode(seed(cluster, first), RecordNum(num), RecordNum(num - 1), record, &mut bytes);
    }
    spoil(&mut bytes);
    bytes.resize(4096, 0);
    put(&disk, &segments(&disk)[0], &bytes);
    fails(&disk)
}

#[test]
fn whole_records_out_of_order() {
    let voted =
        |id| Record::HardState(HardState { term: Term(2), vote: Some(NodeId(id)), commit: LogIndex(0) });
    let committed =
        |index| Record::HardState(HardState { term: Term(3), vote: None, commit: LogIndex(index) });
    let cases: [(&[Record], &str); 7] = [
        (&[hard_state(1), entry(1, 1), entry(3, 1)], "entry 3 where at most 2 is due"),
        (&[hard_state(1), entry(1, 1), entry(1, 1)], "a second time"),
        (&[hard_state(1), entry(1, 2)], "of term 2 outside"),
        (&[hard_state(2), entry(1, 2), entry(2, 1)], "of term 1 outside"),
        (&[hard_state(2), hard_state(1)], "goes back"),
        (&[voted(1), voted(2)], "votes twice"),
        (&[hard_state(2), entry(1, 2), committed(1), entry(1, 3)], "replaces one that was committed"),
    ];
    for (records, part) in cases {
        let error = handmade(records, |_| ());
        assert!(matches!(error, RecoverError::OutOfOrder { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_newer_version_wrote_it() {
    // A type of the future, with a checksum that matches.
    let newer = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - record::encoded_len(&entry(1, 1));
        bytes[at + 40] = 200;
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut first = seed(identity().cluster, RecordNum(1)).to_le_bytes().to_vec();
        first.extend_from_slice(&length.to_le_bytes());
        let end = at + 48 + length as usize;
        let crc = dfs_proto::checksum::crc32c_of_two(&first, &bytes[at + 8..end]).0;
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    };
    let error = handmade(&[hard_state(1), entry(1, 1)], newer);
    assert!(matches!(error, RecoverError::Newer { .. }), "{error}");
}

const ID: EntryId = EntryId { index: LogIndex(30), term: Term(1) };

/// Snapshots at 15 and 30 of that log.
fn with_snapshots() -> SimDisk {
    let (disk, _) = long();
    let store = SnapshotStore::new(disk.clone(), &identity());
    for index in [15u64, 30] {
        let id = EntryId { index: LogIndex(index), term: Term(1) };
        let sections = vec![Section { id: 1, version: 1 }];
        let mut writer = store.begin(id, ConfState::of(&[NodeId(1)]), sections).unwrap();
        for block in 0..3u8 {
            writer.block(1, &vec![block; usize::try_from(index).unwrap()]).unwrap();
        }
        writer.finish().unwrap();
    }
    assert_eq!(store.prune(LogIndex(30)).unwrap(), Some(LogIndex(15)));
    disk
}

/// Recovers as a master does: falls back from a snapshot whose blocks turn out damaged.
fn loaded(disk: &SimDisk) -> Recovered<SimDisk> {
    let recovered = recover(disk, Options::default()).unwrap();
    match load(&recovered) {
        Ok(_) => recovered,
        Err(error) => {
            assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
            let recovered = recovered.fall_back(error).unwrap();
            load(&recovered).unwrap();
            recovered
        }
    }
}

#[test]
fn every_byte_of_the_newest_snapshot() {
    let disk = with_snapshots();
    assert_eq!(loaded(&disk).base(), ID);
    let path = dfs_master::log::snapshot::path(ID.index);
    let bytes = bytes_of(&disk, &path);
    for at in 0..bytes.len() {
        let recovered = loaded(&flipped(&disk, &path, at as u64));
        assert_eq!(recovered.base().index, LogIndex(15), "byte {at}");
        assert_eq!(recovered.skipped().len(), 1);
        assert_eq!(replayed(&recovered).len() as u64, LAST - 15);
    }
    for len in 0..bytes.len() {
        let disk = disk.fork(1);
        put(&disk, &path, &bytes[..len]);
        assert_eq!(loaded(&disk).base().index, LogIndex(15), "{len} bytes");
    }
    put(&disk, &path, &[&bytes[..], b"x"].concat());
    assert_eq!(loaded(&disk).base().index, LogIndex(15));
}

#[test]
fn no_good_snapshot_and_no_log_behind_it() {
    let disk = with_snapshots();
    let first = segments(&disk)[0].clone();
    disk.remove(&first).unwrap();
    disk.sync_dir("log").unwrap();
    assert_eq!(loaded(&disk).base(), ID);
    for index in [15, 30] {
        disk.flip_bit(&dfs_master::log::snapshot::path(LogIndex(index)), 30, 1);
    }
    let error = fails(&disk);
    assert!(matches!(error, RecoverError::Missing { need: LogIndex(1), .. }), "{error}");
    assert!(error.to_string().contains("000000000000001e.snap is damaged"), "{error}");
}

#[test]
fn damage_before_the_snapshot_stops_nothing() {
    let disk = with_snapshots();
    let all = segments(&disk);
    let first = &all[0];
    disk.flip_bit(first, 500, 1);
    let recovered = loaded(&disk);
    assert_eq!((recovered.base(), replayed(&recovered).len() as u64), (ID, LAST - 30));
    // It does when the older snapshot is needed and the damage lies behind that.
    let path = dfs_master::log::snapshot::path(ID.index);
    disk.flip_bit(&path, 70, 1);
    disk.flip_bit(&all[1], 900, 1);
    disk.flip_bit(&all[2], 900, 1);
    let error = fails(&disk);
    assert!(matches!(error, RecoverError::Damage(_)), "{error}");
}

#[test]
fn a_damaged_snapshot_does_not_count_as_kept() {
    let disk = with_snapshots();
    let store = SnapshotStore::new(disk.clone(), &identity());
    disk.flip_bit(&dfs_master::log::snapshot::path(ID.index), 100, 1);
    let id = EntryId { index: LogIndex(45), term: Term(1) };
    store.begin(id, ConfState::of(&[NodeId(1)]), Vec::new()).unwrap().finish().unwrap();
    assert_eq!(store.prune(id.index).unwrap(), Some(LogIndex(15)));
    assert_eq!(store.list().unwrap(), [15, 30, 45].map(LogIndex));
}

#[test]
fn a_snapshot_and_a_log_that_disagree() {
    let disk = with_snapshots();
    let store = SnapshotStore::new(disk.clone(), &identity());
    let id = EntryId { index: LogIndex(40), term: Term(7) };
    store.begin(id, ConfState::of(&[NodeId(1)]), Vec::new()).unwrap().finish().unwrap();
    assert!(matches!(fails(&disk), RecoverError::SnapshotDisagrees { .. }));
}
