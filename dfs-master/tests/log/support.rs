//! What the log's tests share: a cluster, entries that can be told apart, and raw bytes of files.

use std::io::IoSlice;

use bytes::Bytes;
use dfs_disk::sim::SimDisk;
use dfs_disk::{Disk, DiskFile, Open};
use dfs_master::log::{
    EntryKind, HardState, Identity, LogConfig, LogEntry, LogWriter, NodeId, Options, Record, Recovered,
    SnapshotError, init, recover,
};
use dfs_proto::ids::{ClusterId, Generation, LogIndex, Term};
use dfs_proto::units::ChunkSize;

pub(crate) const CONFIG: LogConfig = LogConfig { segment_bytes: 4096 };

pub(crate) fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        generation: Generation(1),
        chunk_size: ChunkSize::DEFAULT,
        goal: 3,
        created: 1_700_000_000,
    }
}

/// A disk with an empty log.
pub(crate) fn fresh(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, 64 << 20);
    init(&disk, &identity(), CONFIG).unwrap();
    disk
}

/// The writer of a disk with an empty log, in term 1.
pub(crate) fn begun(disk: &SimDisk) -> LogWriter<SimDisk> {
    let mut writer = recover(disk, Options::default()).unwrap().into_writer(CONFIG).unwrap();
    writer.append(&[hard_state(1)]).unwrap();
    writer
}

pub(crate) fn hard_state(term: u64) -> Record {
    Record::HardState(HardState { term: Term(term), vote: Some(NodeId(1)), commit: LogIndex(0) })
}

/// A payload that its index, term and length determine.
pub(crate) fn payload(index: u64, term: u64) -> Bytes {
    let len = usize::try_from(index * 37 % 190).unwrap();
    let byte = |at: usize| u8::try_from((at as u64 * 7 + index * 13 + term * 101) % 251).unwrap();
    (0..=len).map(byte).collect::<Vec<u8>>().into()
}

pub(crate) fn command(index: u64, term: u64) -> LogEntry {
    LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Command,
        data: payload(index, term),
    }
}

pub(crate) fn entry(index: u64, term: u64) -> Record {
    Record::Entry(command(index, term))
}

pub(crate) fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Record> {
    range.map(|index| entry(index, term)).collect()
}

/// Index and term of every entry of the replay, whose contents are checked.
pub(crate) fn replayed(recovered: &Recovered<SimDisk>) -> Vec<(u64, u64)> {
    let check = |entry: LogEntry| {
        assert_eq!(entry, command(entry.index.0, entry.term.0));
        (entry.index.0, entry.term.0)
    };
    recovered.replay(recovered.base().index).map(|entry| check(entry.unwrap())).collect()
}

/// Reads the snapshot's blocks, if there is one.
pub(crate) fn load(recovered: &Recovered<SimDisk>) -> Result<Vec<Bytes>, SnapshotError> {
    let Some(mut reader) = recovered.open_snapshot()? else { return Ok(Vec::new()) };
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block()? {
        blocks.push(block.bytes);
    }
    Ok(blocks)
}

pub(crate) fn bytes_of(disk: &SimDisk, path: &str) -> Vec<u8> {
    dfs_disk::read_file(disk, path, 1 << 30).unwrap()
}

/// Puts `bytes` in the place of the file's contents, durably.
pub(crate) fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(path, Open::OrNew).unwrap();
    file.set_len(0).unwrap();
    file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
    file.sync_data().unwrap();
}

/// The segment files, oldest first.
pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names: Vec<String> = disk.list("log").unwrap().into_iter().map(|e| e.name).collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names.into_iter().map(|name| format!("log/{name}")).collect()
}
