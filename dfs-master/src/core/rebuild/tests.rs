//! Headers in, namespace out.

use dfs_proto::checksum::Digest;
use dfs_proto::ids::{ChunkVersion, ConfigNum, DiskId, OpenNum, Seq, SizeEpoch};
use dfs_proto::listing::{ListedFile, Text};
use dfs_proto::units::ChunkIndex;

use super::*;
use crate::core::image::ImageReader;

const CHUNK: u32 = 64 << 10;
const NOW: Timespec = Timespec { sec: 1000, nsec: 0 };

fn chunk_id(counter: u64) -> ChunkId {
    ChunkId::new(Generation(1), counter)
}

/// Servers of one disk each, with these replicas.
fn disks(replicas: &[Vec<ListedReplica>]) -> Vec<Disk> {
    let disk = |(at, replicas): (usize, &Vec<ListedReplica>)| Disk {
        disk: ListedDisk {
            path: format!("/d{at}"),
            cluster: ClusterId(7),
            server: ServerId(100 + at as u128),
            disk: DiskId(200 + at as u128),
            generation: Generation(1),
            max_term: Term(3),
            max_index: LogIndex(500),
            starts: 4,
        },
        replicas: replicas.clone(),
        unfit: Vec::new(),
        damaged_slots: 0,
    };
    replicas.iter().enumerate().map(disk).collect()
}

/// A closed replica that says of its file what the master knew.
fn replica(counter: u64, ino: u64, index: u64, path: &str, size: u64) -> ListedReplica {
    let size_here = size.saturating_sub(index * u64::from(CHUNK)).min(u64::from(CHUNK));
    ListedReplica {
        chunk: chunk_id(counter),
        version: ChunkVersion(1),
        config: ConfigNum(1),
        open_num: OpenNum(1),
        size_epoch: SizeEpoch(0),
        seq_synced: Seq(1),
        ino: Ino(ino),
        index: ChunkIndex(index),
        extent: u32::try_from(size_here).unwrap(),
        members: 2,
        learner: false,
        failed: false,
        digest: Some(Digest(u128::from(counter))),
        modified: Timespec { sec: 10, nsec: 0 },
        file: Some(ListedFile {
            path: Text::of(path.as_bytes().to_vec()),
            size,
            epoch: SizeEpoch(0),
            chunk_size: ChunkSize::try_from(CHUNK).unwrap(),
        }),
    }
}

fn open(replica: ListedReplica) -> ListedReplica {
    ListedReplica { digest: None, ..replica }
}

/// Told of the file under another size epoch.
fn told(mut replica: ListedReplica, size: u64, epoch: u32) -> ListedReplica {
    if let Some(file) = &mut replica.file {
        (file.size, file.epoch) = (size, SizeEpoch(epoch));
    }
    replica
}

/// What came of it, read back from the blocks of its image.
struct Made {
    report: Report,
    state: State,
}

impl Made {
    fn of(disks: &[Disk]) -> Made {
        let rebuilt = rebuild(disks, Options::default(), NOW).unwrap();
        let mut reader = ImageReader::new(&rebuilt.image.sections()).unwrap();
        rebuilt.image.write(&mut |section, block| reader.block(section, block)).unwrap();
        let state = reader.finish().unwrap().into_state();
        state.check().unwrap();
        Made { report: rebuilt.report, state }
    }

    fn ino(&self, path: &str) -> Option<Ino> {
        let mut parts = path.split('/').skip(1);
        parts.try_fold(Ino::ROOT, |at, part| Some(self.state.ns.child(at, part.as_bytes())?.0))
    }

    fn size(&self, path: &str) -> u64 {
        self.state.ns.getattr(self.ino(path).unwrap_or_else(|| panic!("no {path}"))).unwrap().size
    }

    /// Index and chunk of all that the file has.
    fn chunks(&self, path: &str) -> Vec<(u64, u64)> {
        let found = self.state.ns.chunks(self.ino(path).unwrap(), ChunkIndex(0), u64::MAX).unwrap();
        found.into_iter().map(|(index, chunk)| (index.0, chunk.counter())).collect()
    }
}

#[test]
fn files_are_where_they_were_and_nobody_gains_access() {
    let all = vec![
        replica(1, 5, 0, "/a/b/one", 10),
        replica(2, 6, 0, "/a/two", 100_000),
        replica(3, 6, 1, "/a/two", 100_000),
    ];
    let made = Made::of(&disks(&[all.clone(), all]));
    assert_eq!((made.ino("/a/b/one"), made.ino("/a/two")), (Some(Ino(5)), Some(Ino(6))));
    assert_eq!((made.size("/a/b/one"), made.size("/a/two")), (10, 100_000));
    assert_eq!(made.chunks("/a/two"), [(0, 2), (1, 3)]);
    for (path, mode) in [("/a", 0o700), ("/a/b", 0o700), ("/a/two", 0o600)] {
        let attr = made.state.ns.getattr(made.ino(path).unwrap()).unwrap();
        assert_eq!((attr.mode, attr.uid, attr.gid), (mode, 0, 0), "{path}");
    }
    assert_eq!(made.state.ns.getattr(Ino::ROOT).unwrap().mode, 0o700);
    assert!(made.state.ns.next_ino() > Ino(6));
    let cluster = made.state.cluster.unwrap();
    assert_eq!((cluster.generation, cluster.goal, cluster.ids_below), (Generation(2), 2, 4));
    assert_eq!(made.state.applied, LogIndex(501));
    let meta = made.state.chunks.get(chunk_id(2)).unwrap();
    assert!(!meta.open && meta.digest == 2 && meta.members.len() == 2, "{meta:?}");
    assert_eq!(made.report.remarks, []);
    assert_eq!((made.report.files, made.report.bytes, made.report.chunks), (2, 100_010, 3));
}

#[test]
fn of_two_files_with_one_path_the_later_one_keeps_it() {
    let all = vec![replica(1, 5, 0, "/f", 1), replica(2, 9, 0, "/f", 2), replica(3, 7, 0, "/f.dfs-5", 3)];
    let made = Made::of(&disks(&[all]));
    assert_eq!(made.ino("/f"), Some(Ino(9)));
    assert_eq!(made.ino("/f.dfs-5"), Some(Ino(7)), "whose it is");
    assert_eq!(made.ino("/lost+found/ino-5/f"), Some(Ino(5)));
    assert_eq!(made.report.count(RemarkKind::Renamed), 1);
}

#[test]
fn a_name_of_a_file_and_a_directory_is_the_directorys() {
    let all =
        vec![replica(1, 5, 0, "/a/f", 1), replica(2, 9, 0, "/a", 2), replica(3, 10, 0, "/lost+found", 3)];
    let made = Made::of(&disks(&[all]));
    assert_eq!((made.ino("/a/f"), made.ino("/a.dfs-9")), (Some(Ino(5)), Some(Ino(9))));
    assert_eq!(made.ino("/lost+found.dfs-10"), Some(Ino(10)));
}

#[test]
fn a_long_name_has_room_for_its_suffix() {
    let path = format!("/{}", "n".repeat(255));
    let made = Made::of(&disks(&[vec![replica(1, 5, 0, &path, 1), replica(2, 9, 0, &path, 2)]]));
    assert_eq!(made.ino(&path), Some(Ino(9)));
    assert_eq!(made.ino(&format!("/{}.dfs-5", "n".repeat(249))), Some(Ino(5)));
}

#[test]
fn what_has_no_whole_path_is_in_lost_and_found() {
    let mut bare = replica(4, 8, 0, "", 4);
    bare.file = None;
    let all = vec![
        replica(1, 5, 0, "", 1),
        replica(2, 6, 0, "nd/of/a/path", 2),
        replica(3, 7, 0, "/a/../b", 3),
        bare,
    ];
    let made = Made::of(&disks(&[all]));
    assert_eq!(made.ino("/lost+found/ino-5/file"), Some(Ino(5)));
    assert_eq!(made.ino("/lost+found/ino-6/nd/of/a/path"), Some(Ino(6)));
    assert_eq!(made.ino("/lost+found/ino-7/a/b"), Some(Ino(7)), "no name, no way out");
    assert_eq!((made.ino("/lost+found/ino-8/file"), made.size("/lost+found/ino-8/file")), (Some(Ino(8)), 4));
    assert_eq!(made.report.count(RemarkKind::LostAndFound), 4);
}

#[test]
fn the_path_that_was_told_last_counts() {
    let later =
        ListedReplica { modified: Timespec { sec: 11, nsec: 0 }, ..replica(2, 5, 1, "/new/f", 100_000) };
    let made = Made::of(&disks(&[vec![replica(1, 5, 0, "/old/f", 100_000), later]]));
    assert_eq!((made.ino("/new/f"), made.ino("/old")), (Some(Ino(5)), None));
}

#[test]
fn a_missing_chunk_is_a_hole_and_is_told() {
    let size = 4 * u64::from(CHUNK);
    let all = vec![replica(1, 5, 0, "/f", size), replica(4, 5, 3, "/f", size)];
    let made = Made::of(&disks(&[all.clone(), all]));
    assert_eq!((made.size("/f"), made.chunks("/f")), (size, vec![(0, 1), (3, 4)]));
    let holes: Vec<_> = made.report.remarks.iter().filter(|one| one.kind == RemarkKind::Hole).collect();
    assert_eq!(holes.len(), 1);
    assert!(holes[0].what.contains("1 to 2"), "{holes:?}");
}

#[test]
fn a_chunk_of_which_nobody_has_a_members_copy_is_lost_and_an_older_one_does_not_stand_in() {
    let old = replica(1, 5, 0, "/f", 10);
    let failed = ListedReplica { failed: true, ..replica(2, 5, 0, "/f", 10) };
    let learner = ListedReplica { learner: true, ..replica(2, 5, 0, "/f", 10) };
    let rest = replica(3, 5, 1, "/f", 100_000);
    let made = Made::of(&disks(&[vec![old, failed, rest], vec![learner]]));
    assert_eq!(made.chunks("/f"), [(1, 3)]);
    assert_eq!((made.report.count(RemarkKind::Lost), made.report.count(RemarkKind::Aside)), (1, 2));
    assert_eq!(made.report.count(RemarkKind::Left), 1);
}

#[test]
fn replicas_of_older_configurations_are_no_members() {
    let new = ListedReplica { config: ConfigNum(3), members: 1, ..open(replica(1, 5, 0, "/f", 10)) };
    // Fenced at a version that never became a configuration.
    let old = ListedReplica { version: ChunkVersion(9), ..open(replica(1, 5, 0, "/f", 4000)) };
    let made = Made::of(&disks(&[vec![old], vec![new]]));
    let meta = made.state.chunks.get(chunk_id(1)).unwrap();
    assert_eq!(meta.members.as_slice(), [ServerNum(2)]);
    assert_eq!((meta.version, meta.config), (ChunkVersion(9), ConfigNum(3)), "nobody is met by less");
    assert!(meta.open && meta.open_num > OpenNum(1));
    assert_eq!(made.size("/f"), 10);
    assert_eq!((made.report.count(RemarkKind::Aside), made.report.count(RemarkKind::Missing)), (1, 0));
}

#[test]
fn members_that_were_not_closed_together_are_compared_by_a_recovery() {
    for other in [
        open(replica(1, 5, 0, "/f", 10)),
        ListedReplica { digest: Some(Digest(99)), ..replica(1, 5, 0, "/f", 10) },
        ListedReplica { open_num: OpenNum(2), ..replica(1, 5, 0, "/f", 10) },
        ListedReplica { version: ChunkVersion(2), ..replica(1, 5, 0, "/f", 10) },
    ] {
        let made = Made::of(&disks(&[vec![replica(1, 5, 0, "/f", 10)], vec![other]]));
        let meta = made.state.chunks.get(chunk_id(1)).unwrap();
        assert!(meta.open && meta.digest == 0 && meta.members.len() == 2, "{meta:?}");
    }
}

#[test]
fn fewer_replicas_than_members_are_told() {
    let made = Made::of(&disks(&[vec![replica(1, 5, 0, "/f", 10)]]));
    assert_eq!(made.report.count(RemarkKind::Missing), 1);
    assert_eq!(made.report.goal, 2, "as the configuration says");
}

#[test]
fn what_a_truncation_cut_off_does_not_come_back() {
    let size = 3 * u64::from(CHUNK);
    // Written anew after a truncation to nothing; the chunks of before wait for their deletion.
    let old: Vec<_> = (0..3).map(|index| replica(1 + index, 5, index, "/f", size)).collect();
    let new = ListedReplica { size_epoch: SizeEpoch(1), extent: 7, ..open(replica(9, 5, 0, "/f", 0)) };
    let made = Made::of(&disks(&[[old.clone(), vec![told(new, 0, 1)]].concat()]));
    assert_eq!((made.size("/f"), made.chunks("/f")), (7, vec![(0, 9)]));
    assert_eq!(made.report.count(RemarkKind::Left), 3);
    // Cut within the second: the boundary chunk was zeroed, the first is as it was, the third is gone.
    let mut cut = old;
    cut[1] = told(
        ListedReplica { size_epoch: SizeEpoch(1), extent: 5, ..cut[1].clone() },
        u64::from(CHUNK) + 5,
        1,
    );
    let made = Made::of(&disks(&[cut.clone()]));
    assert_eq!((made.size("/f"), made.chunks("/f")), (u64::from(CHUNK) + 5, vec![(0, 1), (1, 2)]));
    // A file that grew since keeps all of it.
    cut[1] = told(cut[1].clone(), size, 1);
    let made = Made::of(&disks(&[cut]));
    assert_eq!((made.size("/f"), made.chunks("/f").len()), (size, 3));
}

#[test]
fn the_end_of_a_file_is_known_to_the_byte() {
    // A member that was filled from another knows the block only.
    let filled = ListedReplica { extent: 4096, ..replica(1, 5, 0, "/f", 10) };
    let made = Made::of(&disks(&[vec![filled.clone()], vec![filled.clone()]]));
    assert_eq!(made.size("/f"), 10, "the master's word at the close");
    let made = Made::of(&disks(&[vec![open(filled)], vec![open(replica(1, 5, 0, "/f", 10))]]));
    assert_eq!(made.size("/f"), 10, "the other member's");
    // Written since it was told.
    let grown = ListedReplica { extent: 5000, ..open(replica(1, 5, 0, "/f", 10)) };
    assert_eq!(Made::of(&disks(&[vec![grown]])).size("/f"), 5000);
    // Its end is a hole.
    let sparse = told(replica(1, 5, 0, "/f", 10), 1 << 40, 0);
    assert_eq!(Made::of(&disks(&[vec![sparse]])).size("/f"), 1 << 40);
}

#[test]
fn headers_that_make_no_sense_are_set_aside() {
    let mut all =
        vec![replica(1, 0, 0, "/a", 1), replica(2, 1, 0, "/b", 1), replica(3, u64::MAX, 0, "/c", 1)];
    all.push(ListedReplica { index: ChunkIndex(u64::MAX), ..replica(4, 5, 0, "/d", 1) });
    all.push(ListedReplica { extent: CHUNK + 1, ..replica(5, 6, 0, "/e", 1) });
    all.push(ListedReplica { extent: 0, ..told(replica(6, 7, 0, "/g", 0), 0, 0) });
    let made = Made::of(&disks(&[all]));
    assert_eq!((made.report.files, made.report.count(RemarkKind::Unfit)), (0, 5));
    assert_eq!(made.report.count(RemarkKind::Left), 1, "without a byte it is no file's chunk");
}

#[test]
fn disks_that_do_not_belong_together_are_refused() {
    let mut two = disks(&[Vec::new(), Vec::new()]);
    two[1].disk.cluster = ClusterId(8);
    assert!(matches!(rebuild(&two, Options::default(), NOW), Err(RebuildError::Clusters { .. })));
    let mut copy = disks(&[Vec::new(), Vec::new()]);
    copy[1].disk.disk = copy[0].disk.disk;
    assert!(matches!(rebuild(&copy, Options::default(), NOW), Err(RebuildError::SameDisk(..))));
    assert!(matches!(rebuild(&[], Options::default(), NOW), Err(RebuildError::NoDisks)));
    let empty = disks(&[Vec::new()]);
    assert!(matches!(rebuild(&empty, Options::default(), NOW), Err(RebuildError::NoChunkSize)));
    let options = Options { chunk_size: Some(ChunkSize::DEFAULT), goal: Some(3) };
    assert_eq!(rebuild(&empty, options, NOW).unwrap().report.files, 0);
}
