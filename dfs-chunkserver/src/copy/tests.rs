//! The copy against a master that is two maps of files: what is kept through power cuts, full and failing disks, damage,
//! and masters that come back wrong.

use std::collections::BTreeMap;

use dfs_disk::sim::{Call, SimDisk};
use dfs_disk::{Disk, DiskFile, Open, read_file};
use dfs_proto::checksum::crc32c;
use dfs_proto::control::{
    ClusterFacts, LOG_TAIL, ListedSegment, ListedSnapshot, LogBytes, LogFile, LogListing, ReadLog,
};
use dfs_proto::ids::{ClusterId, Generation, LogIndex};
use dfs_proto::units::{ChunkSize, Micros};

use super::shelf::{CopyError, Next};
use super::verify::Pass;
use super::{Shelf, is_file, name, survey};

const CLUSTER: ClusterId = ClusterId(77);

#[derive(Clone)]
struct Master {
    generation: u16,
    snapshots: BTreeMap<u64, Vec<u8>>,
    segments: BTreeMap<u64, Vec<u8>>,
    durable: u64,
    /// Tells one master's bytes from another's.
    salt: u8,
}

impl Master {
    fn new(salt: u8) -> Master {
        let mut master =
            Master { generation: 1, snapshots: BTreeMap::new(), segments: BTreeMap::new(), durable: 0, salt };
        master.segments.insert(1, Vec::new());
        master.append(100);
        master
    }

    /// Records of so many bytes at the end of the log.
    fn append(&mut self, len: usize) {
        self.durable += 1;
        let seed = self.durable * 31 + u64::from(self.salt) * 7;
        let bytes = (0..len as u64).map(|at| ((at * 13 + seed) % 255 + 1).to_le_bytes()[0]);
        self.segments.last_entry().unwrap().get_mut().extend(bytes);
    }

    fn roll(&mut self) {
        self.segments.insert(self.durable + 1, Vec::new());
        self.append(64);
    }

    /// A snapshot; the last two stay, and what the log needs from the older on.
    fn snapshot(&mut self, len: usize) {
        self.snapshots.insert(self.durable, vec![self.salt; len]);
        while self.snapshots.len() > 2 {
            self.snapshots.pop_first();
        }
        let oldest = *self.snapshots.first_key_value().unwrap().0;
        if self.snapshots.len() == 2 {
            let keep = self.segments.range(..=oldest).next_back().map_or(0, |(first, _)| *first);
            self.segments.retain(|first, _| *first >= keep);
        }
    }

    fn listing(&self) -> LogListing {
        let snapshots = self.snapshots.iter();
        let segments = self.segments.iter();
        LogListing {
            generation: Generation(self.generation),
            about: ClusterFacts {
                made_in: Generation(1),
                chunk_size: ChunkSize::DEFAULT,
                goal: 2,
                created: 5,
            },
            snapshots: snapshots
                .map(|(index, bytes)| ListedSnapshot { index: LogIndex(*index), len: bytes.len() as u64 })
                .collect(),
            segments: segments
                .map(|(first, bytes)| ListedSegment { first: *first, len: bytes.len() as u64 })
                .collect(),
            durable: LogIndex(self.durable),
        }
    }

    fn read(&self, read: &ReadLog) -> (LogBytes, Vec<u8>) {
        let bytes = match read.file {
            LogFile::Snapshot(index) => &self.snapshots[&index.0],
            LogFile::Segment(first) => &self.segments[&first],
        };
        let at = usize::try_from(read.offset).unwrap();
        let tail = usize::try_from(read.offset.min(LOG_TAIL)).unwrap();
        if read.before.is_some_and(|before| crc32c(&bytes[at - tail..at]) != before) {
            return (LogBytes { same: false, crc: crc32c(&[]) }, Vec::new());
        }
        let part = bytes[at..bytes.len().min(at + read.len as usize)].to_vec();
        (LogBytes { same: true, crc: crc32c(&part) }, part)
    }
}

fn shelf(disks: &[&SimDisk]) -> Shelf<SimDisk> {
    Shelf::open(disks.iter().map(|disk| (*disk).clone()).collect(), CLUSTER)
}

/// Fetches until the copy is whole, or `steps` are done.
fn follow(shelf: &mut Shelf<SimDisk>, master: &Master, steps: usize) -> Result<usize, CopyError> {
    let listing = master.listing();
    for step in 0..steps {
        let Next::Read(read) = shelf.next(&listing)?.1 else { return Ok(step) };
        let (answer, bytes) = master.read(&read);
        shelf.take(&listing, answer, &bytes)?;
    }
    Ok(steps)
}

fn file(disk: &SimDisk, path: &str) -> Vec<u8> {
    read_file(disk, path, 64 << 20).unwrap()
}

/// The copy in a directory is the master's, file by file.
fn assert_is(disk: &SimDisk, dir: &str, master: &Master) {
    let names = |sub: &str| -> Vec<String> {
        disk.list(&format!("{dir}/{sub}")).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    let segments: Vec<String> = master.segments.keys().map(|first| format!("{first:016x}.seg")).collect();
    let snapshots: Vec<String> = master.snapshots.keys().map(|index| format!("{index:016x}.snap")).collect();
    assert_eq!((names("log"), names("snapshot")), (segments, snapshots));
    for (first, bytes) in &master.segments {
        assert!(file(disk, &format!("{dir}/log/{first:016x}.seg")) == *bytes, "segment {first}");
    }
    for (index, bytes) in &master.snapshots {
        assert!(file(disk, &format!("{dir}/snapshot/{index:016x}.snap")) == *bytes, "snapshot {index}");
    }
}

fn dirs(disk: &SimDisk) -> Vec<(String, u16, bool)> {
    let of = |(dir, about): (String, dfs_proto::listing::CopyAbout)| (dir, about.generation.0, about.whole);
    survey(disk).unwrap().into_iter().map(of).collect()
}

const A: &str = "master-copy/a";
const B: &str = "master-copy/b";

#[test]
fn two_snapshots_and_the_log_since_the_older_are_kept() {
    let disk = SimDisk::new(1, 64 << 20);
    let mut master = Master::new(1);
    let mut shelf = shelf(&[&disk]);
    for round in 0..6 {
        (0..5).for_each(|n| master.append(700 * (n + 1)));
        if round % 2 == 0 {
            master.roll();
        }
        follow(&mut shelf, &master, 99).unwrap();
        assert_is(&disk, A, &master);
        // Longer than one piece.
        master.snapshot((2 << 20) + round);
        follow(&mut shelf, &master, 99).unwrap();
        assert_is(&disk, A, &master);
    }
    assert_eq!(master.snapshots.len(), 2);
    // Nothing is asked for twice.
    assert_eq!(follow(&mut shelf, &master, 9).unwrap(), 0);
    // Left behind until nothing of it is at the master any more: the newest snapshot comes before the log.
    master.roll();
    master.snapshot(100);
    master.roll();
    master.snapshot(100);
    assert_eq!(follow(&mut shelf, &master, 1).unwrap(), 1);
    let newest = format!("{:016x}.snap", master.durable);
    assert!(disk.list(&format!("{A}/snapshot")).unwrap().iter().any(|entry| entry.name == newest));
    follow(&mut shelf, &master, 99).unwrap();
    assert_is(&disk, A, &master);
    assert_eq!(dirs(&disk), [(A.to_owned(), 1, true)]);
}

#[test]
fn after_a_power_cut_at_any_operation_the_copy_goes_on_and_nothing_told_is_lost() {
    let mut master = Master::new(1);
    master.append(3000);
    let before = SimDisk::new(3, 64 << 20);
    follow(&mut shelf(&[&before]), &master, 99).unwrap();
    let older = master.clone();
    master.append(5000);
    master.roll();
    master.snapshot(9000);
    let last = {
        let disk = before.fork(4);
        let from = disk.ops();
        follow(&mut shelf(&[&disk]), &master, 99).unwrap();
        disk.ops() - from
    };
    assert!(last > 10, "{last}");
    for stop in 0..last {
        let disk = before.fork(100 + stop);
        disk.stop_after(stop);
        assert!(follow(&mut shelf(&[&disk]), &master, 99).is_err(), "stop {stop}");
        disk.power_cut();
        let disk = disk.reopen();
        // What was whole once is all there.
        let kept = file(&disk, &format!("{A}/log/{:016x}.seg", 1));
        assert!(kept.starts_with(&older.segments[&1]), "stop {stop}");
        follow(&mut shelf(&[&disk]), &master, 99).unwrap();
        assert_is(&disk, A, &master);
        assert_eq!(dirs(&disk).len(), 1, "stop {stop}: a torn tail is no other log");
    }
}

#[test]
fn zeros_of_a_power_cut_are_filled_and_other_bytes_are_another_log() {
    for torn in [true, false] {
        let disk = SimDisk::new(1, 64 << 20);
        let mut master = Master::new(1);
        master.append(9000);
        follow(&mut shelf(&[&disk]), &master, 99).unwrap();
        let path = format!("{A}/log/{:016x}.seg", 1);
        let opened = disk.open(&path, Open::Existing).unwrap();
        let fill = if torn { 0 } else { 0xff };
        opened.write_at(&[std::io::IoSlice::new(&[fill; 4096])], 4096).unwrap();
        master.append(10);
        follow(&mut shelf(&[&disk]), &master, 99).unwrap();
        if torn {
            assert_is(&disk, A, &master);
        } else {
            assert_is(&disk, B, &master);
            assert_eq!(
                file(&disk, &path)[4096],
                0xff,
                "what is damaged, or of another log, stays for a look"
            );
        }
    }
}

#[test]
fn a_new_generation_gets_a_copy_of_its_own_and_the_old_goes_when_that_has_two_snapshots() {
    let disk = SimDisk::new(1, 64 << 20);
    let mut old = Master::new(1);
    old.append(6000);
    old.snapshot(500);
    let mut on = shelf(&[&disk]);
    follow(&mut on, &old, 99).unwrap();
    // Rolled back, and accepted.
    let mut new = Master { generation: 2, ..Master::new(1) };
    new.snapshot(300);
    new.append(100);
    new.snapshot(300);
    new.append(100);
    follow(&mut on, &new, 99).unwrap();
    assert_is(&disk, A, &old);
    assert_is(&disk, B, &new);
    // One made since is not two.
    new.append(1);
    new.snapshot(300);
    follow(&mut on, &new, 99).unwrap();
    assert_eq!(dirs(&disk), [(A.to_owned(), 1, true), (B.to_owned(), 2, true)]);
    // A restart changes nothing.
    let mut on = shelf(&[&disk]);
    new.append(1);
    new.snapshot(300);
    follow(&mut on, &new, 99).unwrap();
    assert_eq!(dirs(&disk), [(B.to_owned(), 2, true)]);
    assert_is(&disk, B, &new);
    assert!(disk.list(&format!("{A}/log")).unwrap().is_empty());
}

#[test]
fn a_master_that_lost_records_or_has_others_gets_a_new_copy_and_spoils_none() {
    let mut good = Master::new(1);
    good.append(6000);
    good.append(6000);
    let mut shorter = Master::new(1);
    shorter.append(6000);
    // As long, and another one.
    let mut other = Master::new(2);
    other.append(6000);
    other.append(6000);
    other.append(100);
    for (wrong, restarted) in
        [(shorter.clone(), false), (shorter, true), (other.clone(), false), (other, true)]
    {
        let disk = SimDisk::new(1, 64 << 20);
        let mut on = shelf(&[&disk]);
        follow(&mut on, &good, 99).unwrap();
        if restarted {
            on = shelf(&[&disk]);
        }
        follow(&mut on, &wrong, 99).unwrap();
        assert_is(&disk, A, &good);
        assert_is(&disk, B, &wrong);
        // The right one is back: its copy begins anew, in place of the oldest, and there are two at most.
        follow(&mut on, &good, 99).unwrap();
        assert_is(&disk, A, &good);
        assert_eq!(dirs(&disk).len(), 2);
    }
}

#[test]
fn a_full_disk_ends_the_copying_with_room_to_spare_and_it_goes_on_later() {
    let disk = SimDisk::new(1, 20 << 20);
    let mut master = Master::new(1);
    let mut on = shelf(&[&disk]);
    follow(&mut on, &master, 99).unwrap();
    master.append(18 << 20);
    follow(&mut on, &master, 99).unwrap();
    master.roll();
    master.append((2 << 20) - 100);
    assert!(matches!(follow(&mut on, &master, 99), Err(CopyError::Full(_))));
    let space = disk.space().unwrap();
    assert!(space.free >= space.total / 20, "what is kept for repair is left: {space:?}");
    disk.set_capacity(64 << 20);
    on.reopen();
    follow(&mut on, &master, 99).unwrap();
    assert_is(&disk, A, &master);
    // Another disk has room: the copy moves there, and the old one stays until then.
    disk.set_capacity(24 << 20);
    master.append(3 << 20);
    let roomy = SimDisk::new(2, 64 << 20);
    let mut on = shelf(&[&disk, &roomy]);
    follow(&mut on, &master, 99).unwrap();
    assert_is(&roomy, A, &master);
    assert_eq!(dirs(&disk).len(), 1);
}

#[test]
fn a_disk_that_fails_is_left_for_another() {
    let (bad, good) = (SimDisk::new(1, 64 << 20), SimDisk::new(2, 32 << 20));
    let mut master = Master::new(1);
    let mut on = shelf(&[&bad, &good]);
    follow(&mut on, &master, 99).unwrap();
    bad.fail(Call::Write, "master-copy");
    master.append(10);
    let failed = follow(&mut on, &master, 99);
    assert!(matches!(failed, Err(CopyError::Io { on: 0, .. })), "{failed:?}");
    on.give_up_disk(0);
    follow(&mut on, &master, 99).unwrap();
    assert_is(&good, A, &master);
    on.give_up_disk(1);
    assert!(matches!(follow(&mut on, &master, 99), Err(CopyError::NoDisk)));
}

#[test]
fn bytes_that_come_or_are_written_damaged_are_not_kept() {
    let disk = SimDisk::new(1, 64 << 20);
    let mut master = Master::new(1);
    let mut on = shelf(&[&disk]);
    follow(&mut on, &master, 99).unwrap();
    master.append(50);
    let listing = master.listing();
    let Next::Read(read) = on.next(&listing).unwrap().1 else { panic!("nothing to read") };
    let (answer, mut bytes) = master.read(&read);
    bytes[3] ^= 1;
    assert!(matches!(on.take(&listing, answer, &bytes), Err(CopyError::Transit)));
    follow(&mut on, &master, 99).unwrap();
    // A snapshot that rots between its writing and its end.
    master.snapshot(3 << 20);
    follow(&mut on, &master, 2).unwrap();
    assert!(disk.flip_bit(&format!("{A}/snapshot/arriving.tmp"), 12_345, 3));
    assert!(matches!(follow(&mut on, &master, 99), Err(CopyError::ReadBack { .. })));
    assert!(!disk.list(&format!("{A}/snapshot")).unwrap().iter().any(|entry| entry.name.ends_with(".snap")));
    on.reopen();
    follow(&mut on, &master, 99).unwrap();
    assert_is(&disk, A, &master);
}

#[test]
fn what_a_copy_says_of_itself_is_fixed_and_its_damage_is_seen() {
    let disk = SimDisk::new(1, 64 << 20);
    follow(&mut shelf(&[&disk]), &Master::new(1), 99).unwrap();
    let path = format!("{A}/copy.json");
    let golden = include_str!("../../tests/fixtures/copy-v1.json");
    assert_eq!(String::from_utf8(file(&disk, &path)).unwrap(), golden);
    for at in 0..golden.len() as u64 {
        assert!(disk.flip_bit(&path, at, 1));
        assert!(survey(&disk).is_err(), "byte {at}");
        assert!(disk.flip_bit(&path, at, 1));
    }
    survey(&disk).unwrap();
}

/// Looks at everything; how many pieces that were, and whether another copy was begun.
fn look_at_all(shelf: &mut Shelf<SimDisk>, master: &Master) -> (u64, bool) {
    let listing = master.listing();
    let mut pass = Pass::new(1_000, Micros(0));
    let mut looked = 0;
    while let (Some(piece), pieces) = shelf.next_to_verify(&pass, &listing) {
        let (answer, bytes) = master.read(&piece);
        assert!(answer.same);
        looked += 1;
        if shelf.verify(&piece, &bytes, &listing).unwrap() {
            return (looked, true);
        }
        pass.looked_at(&piece, pieces, Micros(looked));
        assert!(looked <= pieces, "a piece twice");
    }
    (looked, false)
}

#[test]
fn a_bit_that_flips_in_any_file_of_it_has_it_copied_anew() {
    for which in 0..4 {
        let disk = SimDisk::new(3, 1 << 30);
        let mut master = Master::new(1);
        master.append(3 << 20);
        master.snapshot(100_000);
        master.roll();
        master.append(5_000);
        master.snapshot(2_000_000);
        let mut shelf = shelf(&[&disk]);
        follow(&mut shelf, &master, 1000).unwrap();
        assert_eq!(look_at_all(&mut shelf, &master), (4 + 1 + 1 + 2, false));
        // What has come since the listing that is looked at does not matter.
        let files = [
            format!("log/{:016x}.seg", master.segments.first_key_value().unwrap().0),
            format!("log/{:016x}.seg", master.segments.last_key_value().unwrap().0),
            format!("snapshot/{:016x}.snap", master.snapshots.first_key_value().unwrap().0),
            format!("snapshot/{:016x}.snap", master.snapshots.last_key_value().unwrap().0),
        ];
        let path = format!("master-copy/a/{}", files[which]);
        let len = file(&disk, &path).len() as u64;
        assert!(disk.flip_bit(&path, len - 2, 3));
        assert!(look_at_all(&mut shelf, &master).1, "{path}");
        follow(&mut shelf, &master, 1000).unwrap();
        assert_is(&disk, "master-copy/b", &master);
        assert_eq!(dirs(&disk).len(), 2, "it stays until the master wrote its state anew");
        assert!(!look_at_all(&mut shelf, &master).1);
        for _ in 0..2 {
            master.append(50);
            master.snapshot(1_000);
            follow(&mut shelf, &master, 1000).unwrap();
        }
        assert_eq!(dirs(&disk), [("master-copy/b".to_owned(), 1, true)]);
        // Of two that were set aside the damaged one goes first.
        let last = format!("master-copy/b/log/{:016x}.seg", master.segments.keys().last().unwrap());
        assert!(disk.flip_bit(&last, 1, 1));
        assert!(look_at_all(&mut shelf, &master).1);
    }
}

#[test]
fn a_look_takes_as_long_as_it_may() {
    let now = Micros(7_000_000);
    let mut pass = Pass::new(1_000_000, now);
    let piece =
        ReadLog { generation: Generation(1), file: LogFile::Segment(1), offset: 0, len: 1, before: None };
    assert!(!pass.is_due(now.plus_ms(899_000)) && pass.is_due(now.plus_ms(900_000)));
    pass.looked_at(&piece, 9, now);
    assert!(!pass.is_due(now.plus_ms(99_000)) && pass.is_due(now.plus_ms(100_000)));
    // Fourteen days are for the chunks.
    let day = Pass::new(14 * 24 * 3600 * 1000, now);
    assert!(day.is_due(now.plus_ms(24 * 3600 * 1000)));
}

#[test]
fn only_what_masters_read_is_given_to_a_tool() {
    let is = |path: &str| is_file(&name(path.to_owned()).unwrap());
    assert!(is("master-copy/a/log/00.seg") && is("master-copy/b/snapshot/00.snap"));
    for other in [
        "master-copy/a/copy.json",
        "master-copy/c/log/00.seg",
        "master-copy/a/log/x/y",
        "master-copy/a/log",
        "chunks/00/1.chunk",
        "label.json",
    ] {
        assert!(!is(other), "{other}");
    }
}
