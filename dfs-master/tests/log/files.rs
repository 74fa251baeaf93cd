//! The log as files to be copied: only what is durable is given out, a file is known again by its end, and a copy put back
//! is the log.

use dfs_disk::Disk;
use dfs_disk::sim::SimDisk;
use dfs_master::log::files::{self, Part, ReadError};
use dfs_master::log::{
    EntryId, Options, Place, RecordNum, SnapshotStore, init, prepare, recover, recover_as,
};
use dfs_proto::checksum::crc32c;
use dfs_proto::control::LogFile;
use dfs_proto::ids::{LogIndex, Term};

use crate::support::{CONFIG, begun, entries, fresh, identity, replayed};

const ALL: u32 = 1 << 20;

fn bytes(disk: &SimDisk, file: LogFile, end: Place, from: u64) -> Vec<u8> {
    match files::read(disk, file, end, (from, ALL), None).unwrap() {
        Part::Bytes(bytes) => bytes.to_vec(),
        Part::Differs => panic!("it is the same file"),
    }
}

/// Copies all that is listed into an empty disk, as a chunk server would.
fn copy(disk: &SimDisk, firsts: &[RecordNum], end: Place, verified: LogIndex) -> SimDisk {
    let to = SimDisk::new(9, 64 << 20);
    prepare(&to).unwrap();
    let listed = files::list(disk, firsts, end, verified).unwrap();
    let put = |path: String, bytes: Vec<u8>| {
        use dfs_disk::DiskFile;
        let file = to.open(&path, dfs_disk::Open::New).unwrap();
        file.write_at(&[std::io::IoSlice::new(&bytes)], 0).unwrap();
    };
    for segment in listed.segments {
        let read = bytes(disk, LogFile::Segment(segment.first), end, 0);
        assert_eq!(read.len() as u64, segment.len);
        put(format!("log/{:016x}.seg", segment.first), read);
    }
    for snapshot in listed.snapshots {
        let read = bytes(disk, LogFile::Snapshot(snapshot.index), end, 0);
        put(format!("snapshot/{:016x}.snap", snapshot.index.0), read);
    }
    to
}

fn write_snapshot(disk: &SimDisk, index: u64) {
    let store = SnapshotStore::new(disk.clone(), &identity());
    let id = EntryId { index: LogIndex(index), term: Term(1) };
    let conf = dfs_master::log::ConfState::of(&[dfs_master::log::NodeId(1)]);
    store.begin(id, conf, Vec::new()).unwrap().finish().unwrap();
}

#[test]
fn only_what_is_durable_is_given_out() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=60, 1)).unwrap();
    writer.sync().unwrap();
    let (firsts, end) = writer.durable_files();
    assert!(firsts.len() > 2, "several segments: {firsts:?}");
    // More is written, into other segments too, and not synced.
    writer.append(&entries(61..=120, 1)).unwrap();
    assert_eq!(writer.durable_files(), (firsts.clone(), end));
    let copied = copy(&disk, &firsts, end, LogIndex(0));
    let read = recover_as(&copied, identity(), Options::default()).unwrap();
    assert_eq!(read.last().entry.index, LogIndex(60));
    assert!(read.torn().is_none());
    assert_eq!(replayed(&read).len(), 60);
    let later = LogFile::Segment(end.segment.0 + 1);
    assert!(matches!(files::read(&disk, later, end, (0, ALL), None), Err(ReadError::Gone(_))));
    // The same once a sync took them in.
    writer.sync().unwrap();
    let (firsts, end) = writer.durable_files();
    let copied = copy(&disk, &firsts, end, LogIndex(0));
    assert_eq!(
        recover_as(&copied, identity(), Options::default()).unwrap().last().entry.index,
        LogIndex(120)
    );
}

#[test]
fn after_a_restart_all_that_was_recovered_is_given_out() {
    let disk = fresh(2);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=50, 1)).unwrap();
    drop(writer);
    disk.crash_process();
    let disk = disk.reopen();
    let writer = recover(&disk, Options::default()).unwrap().into_writer(CONFIG).unwrap();
    let (firsts, end) = writer.durable_files();
    let copied = copy(&disk, &firsts, end, LogIndex(0));
    assert_eq!(recover_as(&copied, identity(), Options::default()).unwrap().last().entry.index, LogIndex(50));
}

#[test]
fn a_file_is_known_again_by_what_is_before() {
    let disk = fresh(3);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=12, 1)).unwrap();
    writer.sync().unwrap();
    let (firsts, end) = writer.durable_files();
    let file = LogFile::Segment(firsts[0].0);
    let all = bytes(&disk, file, end, 0);
    let at = all.len() - 100;
    let ask = |before| files::read(&disk, file, end, (at as u64, ALL), Some(before)).unwrap();
    assert_eq!(ask(crc32c(&all[..at])), Part::Bytes(all[at..].to_vec().into()));
    let mut other = all[..at].to_vec();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(ask(crc32c(&other)), Part::Differs);
    // A copy that has more than is durable.
    assert_eq!(files::read(&disk, file, end, (end.end + 1, ALL), None).unwrap(), Part::Differs);
}

#[test]
fn a_copy_put_back_is_the_log_without_snapshots_that_are_damaged() {
    let disk = fresh(4);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=60, 1)).unwrap();
    writer.sync().unwrap();
    [20, 40, 55].iter().for_each(|index| write_snapshot(&disk, *index));
    let (firsts, end) = writer.durable_files();
    // The last one was not read back yet.
    let copied = copy(&disk, &firsts, end, LogIndex(40));
    assert_eq!(copied.list("snapshot").unwrap().len(), 2);
    assert!(copied.flip_bit("snapshot/0000000000000028.snap", 30, 2));
    let new = SimDisk::new(5, 64 << 20);
    prepare(&new).unwrap();
    files::put_back(&copied, &new, &identity()).unwrap();
    assert!(recover(&new, Options::default()).is_err(), "no master's directory before it has an identity");
    identity().store(&new).unwrap();
    assert_eq!(new.list("snapshot").unwrap().len(), 1);
    let read = recover(&new, Options::default()).unwrap();
    assert_eq!((read.base().index, read.last().entry.index), (LogIndex(20), LogIndex(60)));
    // It goes on, although its last segment ends where the copy did.
    let mut writer = read.into_writer(CONFIG).unwrap();
    writer.append(&entries(61..=70, 1)).unwrap();
    writer.sync().unwrap();
    drop(writer);
    assert_eq!(recover(&new, Options::default()).unwrap().last().entry.index, LogIndex(70));
    assert!(init(&new, &identity(), CONFIG).is_err());
}
