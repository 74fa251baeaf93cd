//! Golden bytes. A fixture that no longer matches means that logs of older versions no longer load: a
//! change needs a new format number, and the old fixture stays readable.

use bytes::Bytes;
use dfs_disk::Disk;
use dfs_master::log::record::{self, Decoded, Stored};
use dfs_master::log::segment::{Header, seed};
use dfs_master::log::{
    ConfState, EntryId, EntryKind, HardState, Identity, LogEntry, Marker, NodeId, Options, Record, RecordNum,
    Section, SnapshotStore, recover,
};
use dfs_proto::ids::{LogIndex, Term};

use crate::support::{bytes_of, fresh, identity};

/// Checks `bytes` against the fixture, hex in lines of 32 bytes.
fn golden(name: &str, fixture: &str, bytes: &[u8]) {
    let hex: String = bytes
        .chunks(32)
        .map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
        .collect();
    assert_eq!(hex, fixture, "tests/fixtures/{name}");
}

fn conf() -> ConfState {
    ConfState { voters: vec![NodeId(1), NodeId(2)], learners: vec![NodeId(9)], ..ConfState::default() }
}

/// One record of every type.
fn records() -> Vec<Record> {
    let entry = |index, kind, data: &'static [u8]| {
        Record::Entry(LogEntry {
            index: LogIndex(index),
            term: Term(3),
            kind,
            data: Bytes::from_static(data),
        })
    };
    vec![
        Record::HardState(HardState { term: Term(3), vote: Some(NodeId(2)), commit: LogIndex(7) }),
        entry(8, EntryKind::Election, b""),
        entry(9, EntryKind::Command, b"create a file"),
        entry(10, EntryKind::ConfChange, b"change"),
        Record::Marker(Marker::Opened),
        Record::Marker(Marker::Synced),
        Record::Marker(Marker::Installed(EntryId { index: LogIndex(900), term: Term(3) })),
    ]
}

#[test]
fn records_and_segment_header() {
    let (cluster, first) = (identity().cluster, RecordNum(0x2a));
    let before = EntryId { index: LogIndex(7), term: Term(2) };
    let header = Header { cluster, first, before, durable: RecordNum(0x28) };
    golden("segment-header.hex", include_str!("../fixtures/segment-header.hex"), &header.encode());

    let seed = seed(cluster, first);
    let mut bytes = Vec::new();
    for (record, num) in records().iter().zip(0x2a..) {
        record::encode(seed, RecordNum(num), RecordNum(0x29), record, &mut bytes);
    }
    golden("records.hex", include_str!("../fixtures/records.hex"), &bytes);

    let mut rest = Bytes::from(bytes);
    for (record, num) in records().into_iter().zip(0x2a..) {
        let len = record::encoded_len(&record);
        let stored = Stored { num: RecordNum(num), durable: RecordNum(0x29), record };
        assert_eq!(record::decode(seed, &rest), Decoded::Record(stored, len));
        rest = rest.slice(len..);
    }
    assert!(rest.is_empty());
}

#[test]
fn snapshot_file() {
    let disk = fresh(1);
    let store = SnapshotStore::new(disk.clone(), &identity());
    let id = EntryId { index: LogIndex(0x1234), term: Term(5) };
    let sections = vec![Section { id: 1, version: 1 }, Section { id: 2, version: 3 }];
    let mut writer = store.begin(id, conf(), sections.clone()).unwrap();
    writer.block(1, b"inodes").unwrap();
    writer.block(2, b"").unwrap();
    let meta = writer.finish().unwrap();
    assert_eq!((meta.id, &meta.conf, &meta.sections), (id, &conf(), &sections));
    let bytes = bytes_of(&disk, "snapshot/0000000000001234.snap");
    golden("snapshot.hex", include_str!("../fixtures/snapshot.hex"), &bytes);
}

#[test]
fn an_empty_log_and_its_identity() {
    let disk = fresh(1);
    let json = String::from_utf8(bytes_of(&disk, "cluster.json")).unwrap();
    assert_eq!(json, include_str!("../fixtures/cluster.json"));
    assert_eq!(Identity::load(&disk).unwrap(), identity());
    let segment = bytes_of(&disk, "log/0000000000000001.seg");
    assert_eq!(segment.len(), 4096);
    golden("first-segment.hex", include_str!("../fixtures/first-segment.hex"), &segment[..160]);
    assert!(segment[136..].iter().all(|b| *b == 0));
    let recovered = recover(&disk, Options::default()).unwrap();
    assert_eq!((recovered.last().record, recovered.last().entry), (RecordNum(1), EntryId::default()));
    assert!(disk.reopen().lock().is_err());
}
