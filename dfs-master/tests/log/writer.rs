//! The writer's promises: what is durable when, and that a failure is for ever.

use dfs_disk::Disk;
use dfs_disk::sim::{Call, SimDisk};
use dfs_master::log::{
    EntryId, LogConfig, LogWriter, Marker, Options, Record, RecordNum, RecoverError, init, recover,
};
use dfs_proto::ids::{LogIndex, Term};

use crate::support::{
    CONFIG, begun, command, entries, entry, fresh, hard_state, identity, replayed, segments,
};

fn reopened(disk: &SimDisk) -> Vec<(u64, u64)> {
    disk.crash_process();
    replayed(&recover(disk, Options::default()).unwrap())
}

#[test]
fn what_is_appended_is_replayed() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    for index in 1..=200 {
        writer.append(&[entry(index, 1)]).unwrap();
    }
    assert_eq!(writer.written().entry, command(200, 1).id());
    assert!(segments(&disk).len() > 5);
    drop(writer);
    let expected: Vec<(u64, u64)> = (1..=200).map(|index| (index, 1)).collect();
    assert_eq!(reopened(&disk), expected);
    let recovered = recover(&disk, Options::default()).unwrap();
    let after: Vec<u64> = recovered.replay(LogIndex(150)).map(|e| e.unwrap().index.0).collect();
    assert_eq!(after, (151..=200).collect::<Vec<u64>>());
}

#[test]
fn durable_is_what_a_finished_sync_covered() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=3, 1)).unwrap();
    let first = writer.begin_sync();
    writer.append(&entries(4..=60, 1)).unwrap();
    let second = writer.begin_sync();
    assert_eq!(writer.durable().entry.index, LogIndex(0));
    let (second, first) = (second.run().unwrap(), first.run().unwrap());
    assert_eq!(writer.synced(second).entry.index, LogIndex(60));
    // The earlier sync ends later and takes nothing back.
    assert_eq!(writer.synced(first).entry.index, LogIndex(60));
    writer.append(&entries(61..=61, 1)).unwrap();
    drop(writer);
    disk.power_cut();
    let recovered = recover(&disk, Options::default()).unwrap();
    assert!(recovered.last().entry.index >= LogIndex(60));
}

#[test]
fn a_sync_covers_a_new_segments_name() {
    for seed in 0..50 {
        let disk = fresh(seed);
        let mut writer = begun(&disk);
        for index in 1..=100 {
            writer.append(&[entry(index, 1)]).unwrap();
        }
        let synced = writer.begin_sync().run().unwrap();
        assert_eq!(writer.synced(synced).entry.index, LogIndex(100));
        drop(writer);
        disk.power_cut();
        assert_eq!(replayed(&recover(&disk, Options::default()).unwrap()).len(), 100);
    }
}

#[test]
fn a_failed_write_is_for_ever() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&[entry(1, 1)]).unwrap();
    let begun_before = writer.begin_sync();
    disk.fail(Call::Write, "log/");
    writer.append(&[entry(2, 1)]).unwrap_err();
    disk.heal();
    assert!(writer.is_failed());
    let again = writer.append(&[entry(2, 1)]).unwrap_err();
    assert!(again.to_string().contains("failed earlier"), "{again}");
    begun_before.run().unwrap_err();
    writer.sync().unwrap_err();
}

#[test]
fn a_failed_sync_is_for_ever() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&[entry(1, 1)]).unwrap();
    let (one, other) = (writer.begin_sync(), writer.begin_sync());
    disk.fail(Call::Sync, "log/");
    one.run().unwrap_err();
    disk.heal();
    other.run().unwrap_err();
    writer.sync().unwrap_err();
    writer.append(&[entry(2, 1)]).unwrap_err();
    assert_eq!(writer.durable().entry.index, LogIndex(0));
}

#[test]
fn a_full_disk_before_a_new_segment_can_be_waited_out() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    disk.set_capacity(4096 + 200);
    let mut next = 1;
    let error = loop {
        match writer.append(&[entry(next, 1)]) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(!writer.is_failed() && next > 10);
    disk.set_capacity(1 << 20);
    writer.append(&[entry(next, 1)]).unwrap();
    writer.sync().unwrap();
    assert_eq!(reopened(&disk).len() as u64, next);
}

#[test]
fn a_spare_made_ahead_becomes_the_next_segment() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    let early = writer.wants_spare().unwrap();
    let other = writer.wants_spare().unwrap();
    writer.give_spare(early.run().unwrap());
    assert!(writer.wants_spare().is_none());
    let before = disk.ops();
    writer.append(&entries(1..=40, 1)).unwrap();
    // A write to each of two segments, and the rename in between.
    assert_eq!((segments(&disk).len(), disk.ops() - before), (2, 3));
    // One that comes late is used later.
    writer.give_spare(other.run().unwrap());
    writer.append(&entries(41..=70, 1)).unwrap();
    assert_eq!(segments(&disk).len(), 3);
    assert_eq!(reopened(&disk).len(), 70);
    let writer = recover(&disk, Options::default()).unwrap().into_writer(CONFIG).unwrap();
    drop(writer);
    assert!(disk.list("log").unwrap().iter().all(|e| e.name.ends_with(".seg")));
}

#[test]
fn a_batch_may_span_segments() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=100, 1)).unwrap();
    assert!(segments(&disk).len() > 3);
    assert_eq!(reopened(&disk).len(), 100);
}

#[test]
fn a_record_longer_than_a_segment_is_refused_alone() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    let mut long = command(1, 1);
    long.data = vec![1; 5000].into();
    let error = writer.append(&[Record::Entry(long)]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    writer.append(&[entry(1, 1)]).unwrap();
    assert_eq!(reopened(&disk), [(1, 1)]);
}

#[test]
fn a_later_term_replaces_a_tail() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=40, 1)).unwrap();
    writer.sync().unwrap();
    writer.append(&[entry(41, 1)]).unwrap();
    let pending = writer.begin_sync();
    writer.append(&[hard_state(2), entry(31, 2), entry(32, 2)]).unwrap();
    assert_eq!(writer.durable().entry.index, LogIndex(30));
    // That sync was begun before: it must not bring back what was replaced.
    let pending = pending.run().unwrap();
    assert_eq!(writer.synced(pending).entry.index, LogIndex(30));
    assert_eq!(writer.sync().unwrap().entry, EntryId { index: LogIndex(32), term: Term(2) });
    writer.append(&[hard_state(3), entry(32, 3), entry(33, 3)]).unwrap();
    let expected: Vec<(u64, u64)> = (1..=30).map(|i| (i, 1)).chain([(31, 2), (32, 3), (33, 3)]).collect();
    assert_eq!(reopened(&disk), expected);
}

#[test]
#[should_panic(expected = "second time")]
fn the_same_term_replaces_nothing() {
    let mut writer = begun(&fresh(1));
    writer.append(&[entry(1, 1), entry(1, 1)]).unwrap();
}

#[test]
#[should_panic(expected = "at most 2 is due")]
fn a_gap_is_a_fault_of_the_program() {
    let mut writer = begun(&fresh(1));
    writer.append(&[entry(1, 1), entry(3, 1)]).unwrap();
}

#[test]
#[should_panic(expected = "votes twice")]
fn a_second_vote_is_a_fault_of_the_program() {
    let mut writer = begun(&fresh(1));
    let mut other = hard_state(1);
    if let Record::HardState(state) = &mut other {
        state.vote = Some(dfs_master::log::NodeId(2));
    }
    writer.append(&[other]).unwrap();
}

#[test]
fn an_idle_log_is_vouched_for_once() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&[entry(1, 1)]).unwrap();
    writer.note_idle().unwrap();
    let before = writer.written().record;
    writer.sync().unwrap();
    writer.note_idle().unwrap();
    assert_eq!(writer.written().record, before.next());
    for _ in 0..3 {
        writer.sync().unwrap();
        writer.note_idle().unwrap();
    }
    assert_eq!(writer.written().record, before.next());
    drop(writer);
    // Now damage to the last entry is damage, not a torn tail.
    let path = segments(&disk).pop().unwrap();
    let at = crate::support::bytes_of(&disk, &path).iter().rposition(|b| *b != 0).unwrap() as u64;
    disk.flip_bit(&path, at - 60, 1);
    assert!(matches!(recover(&disk, Options::default()), Err(RecoverError::Damage(_))));
}

#[test]
fn an_installed_snapshot_begins_the_log_anew() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=5, 1)).unwrap();
    let id = EntryId { index: LogIndex(100), term: Term(1) };
    writer.append(&[Record::Marker(Marker::Installed(id)), entry(101, 1)]).unwrap();
    writer.sync().unwrap();
    drop(writer);
    // Without the snapshot the log has a hole.
    match recover(&disk, Options::default()) {
        Err(RecoverError::Missing { need, have, .. }) => {
            assert_eq!((need, have), (LogIndex(1), LogIndex(101)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pruning_keeps_what_the_older_snapshot_needs() {
    let disk = fresh(1);
    let mut writer = begun(&disk);
    for index in 1..=200 {
        writer.append(&[entry(index, 1)]).unwrap();
    }
    let all = segments(&disk).len();
    // Nothing of it is durable, and a power cut may take the later segments away.
    assert_eq!(writer.prune(LogIndex(100)).run().unwrap(), 0);
    writer.sync().unwrap();
    let removed = writer.prune(LogIndex(100)).run().unwrap();
    assert!(removed > 2 && segments(&disk).len() == all - removed);
    writer.append(&[entry(201, 1)]).unwrap();
    drop(writer);
    match recover(&disk, Options::default()) {
        Err(RecoverError::Missing { need, have, .. }) => {
            assert!(need == LogIndex(1) && have > LogIndex(1) && have <= LogIndex(101));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_process_at_a_time() {
    let disk = fresh(1);
    let other = disk.reopen();
    assert!(matches!(recover(&other, Options::default()), Err(RecoverError::InUse)));
    drop(disk);
    recover(&other, Options::default()).unwrap();
}

#[test]
fn init_only_once() {
    let disk = fresh(1);
    init(&disk, &identity(), CONFIG).unwrap_err();
    assert_eq!(LogConfig::with_segments_of(1), CONFIG);
    let writer: LogWriter<SimDisk> = begun(&disk);
    assert!(writer.durable().record >= RecordNum(1));
}
