//! Torn tails: a last batch of which any part reached the disk. What was synced before stays, what was
//! torn is gone for good, and the log goes on behind it.

use dfs_disk::sim::SimDisk;
use dfs_master::log::{Options, recover};

use crate::support::{CONFIG, begun, bytes_of, entries, entry, fresh, put, replayed, segments};

/// A log of ten synced entries and a batch of three in the same segment; the bytes of the segment before
/// and after the batch.
fn with_a_last_batch() -> (SimDisk, String, Vec<u8>, Vec<u8>) {
    let disk = fresh(7);
    let mut writer = begun(&disk);
    writer.append(&entries(1..=10, 1)).unwrap();
    writer.sync().unwrap();
    let path = segments(&disk).pop().unwrap();
    let before = bytes_of(&disk, &path);
    writer.append(&entries(11..=13, 1)).unwrap();
    assert_eq!(segments(&disk).pop().unwrap(), path);
    let after = bytes_of(&disk, &path);
    drop(writer);
    (disk, path, before, after)
}

/// Recovers, and checks that at least ten and at most `most` entries are there; writes one more and
/// recovers again.
fn goes_on(disk: &SimDisk, most: usize) {
    let first = recover(disk, Options::default()).unwrap();
    let found = replayed(&first);
    assert!((10..=most).contains(&found.len()), "{found:?}, most {most}");
    let again = recover(disk, Options::default()).unwrap();
    assert!(again.torn().is_none());
    assert_eq!(replayed(&again), found);
    let next = found.len() as u64 + 1;
    let mut writer = again.into_writer(CONFIG).unwrap();
    writer.append(&[entry(next, 1)]).unwrap();
    writer.sync().unwrap();
    drop(writer);
    disk.power_cut();
    assert_eq!(replayed(&recover(disk, Options::default()).unwrap()).len() as u64, next);
}

#[test]
fn torn_at_every_byte() {
    let (disk, path, before, after) = with_a_last_batch();
    let begin = before.iter().rposition(|b| *b != 0).unwrap();
    let end = after.iter().rposition(|b| *b != 0).unwrap() + 1;
    for at in begin..=end {
        let head = disk.fork(at as u64);
        put(&head, &path, &[&after[..at], &before[at..]].concat());
        goes_on(&head, 13);
        // The end may reach the disk without the beginning.
        let tail = disk.fork(at as u64);
        put(&tail, &path, &[&before[..at], &after[at..]].concat());
        goes_on(&tail, if at > begin + 1 + 7 { 10 } else { 13 });
    }
}

#[test]
fn a_dropped_tail_does_not_come_back() {
    let (disk, path, before, after) = with_a_last_batch();
    let begin = before.iter().rposition(|b| *b != 0).unwrap().next_multiple_of(8);
    // The first record of the batch is lost, the other two are whole.
    let lost = begin + 200;
    put(&disk, &path, &[&before[..lost], &after[lost..]].concat());
    let recovered = recover(&disk, Options::default()).unwrap();
    assert!(recovered.torn().is_some_and(|torn| torn.dropped > 0), "{:?}", recovered.torn());
    assert_eq!(replayed(&recovered).len(), 10);
    // What is written now has the numbers of what was dropped, and the same length.
    let mut writer = recovered.into_writer(CONFIG).unwrap();
    writer.append(&[entry(11, 1)]).unwrap();
    writer.sync().unwrap();
    drop(writer);
    assert_eq!(replayed(&recover(&disk, Options::default()).unwrap()).len(), 11);
}

#[test]
fn garbage_behind_the_end_is_a_torn_tail() {
    let (disk, path, _, after) = with_a_last_batch();
    for (at, byte) in [(0usize, 0xffu8), (8, 1), (100, 0x80), (500, 7)] {
        let disk = disk.fork(at as u64);
        let mut bytes = after.clone();
        let end = after.iter().rposition(|b| *b != 0).unwrap() + 9;
        let last = bytes.len() - 1;
        bytes[(end + at).min(last)] = byte;
        put(&disk, &path, &bytes);
        goes_on(&disk, 13);
    }
}

#[test]
fn a_torn_new_segment_is_dropped() {
    for seed in 0..200 {
        let disk = fresh(seed);
        let mut writer = begun(&disk);
        writer.append(&entries(1..=10, 1)).unwrap();
        writer.sync().unwrap();
        // Rolls at least twice, and none of it is synced.
        writer.append(&entries(11..=60, 1)).unwrap();
        drop(writer);
        disk.power_cut();
        goes_on(&disk, 60);
    }
}
