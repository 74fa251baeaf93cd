//! fallocate(2) on a mount, with real processes: holes that give their space back, zeros in their order, files that
//! grow.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use dfs_tests::cluster::{Cluster, sh};
use rustix::fs::{FallocateFlags, fallocate};

const SMALL_CHUNKS: [&str; 2] = ["--chunk-size", "65536"];
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Bytes without a zero among them.
fn noise(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 7 + usize::from(seed)) % 251).unwrap() + 1).collect()
}

fn read(file: &File, len: usize) -> Vec<u8> {
    let mut found = vec![0xff; len];
    file.read_exact_at(&mut found, 0).unwrap();
    found
}

fn file(path: &Path) -> File {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// What the servers' disks hold in chunk files, in bytes.
fn on_disks(cluster: &Cluster) -> u64 {
    let text = sh(
        &cluster.local("cluster"),
        "find cs*/ -name '*.chunk' -printf '%b\\n' | awk '{ sum += $1 } END { print sum + 0 }'",
    );
    text.trim().parse::<u64>().unwrap() * 512
}

#[test]
fn a_hole_reads_as_zeros_gives_its_space_back_and_stays() {
    let cluster = Cluster::up(&SMALL_CHUNKS);
    let path = cluster.path("file");
    let open = file(&path);
    let mut model = noise(4 << 20, 1);
    open.write_all_at(&model, 0).unwrap();
    open.sync_all().unwrap();
    let before = on_disks(&cluster);
    let (from, len) = (100_001, 3_000_000);
    // Some of it only just written: the bytes are in the mount's buffer.
    open.write_all_at(&noise(300_000, 9), 90_000).unwrap();
    model[90_000..390_000].copy_from_slice(&noise(300_000, 9));
    fallocate(&open, PUNCH, from, len).unwrap();
    model[100_001..3_100_001].fill(0);
    let mut found = vec![0xff; model.len()];
    open.read_exact_at(&mut found, 0).unwrap();
    assert!(found == model, "through the descriptor that punched");
    assert_eq!(open.metadata().unwrap().len(), 4 << 20);
    let freed = before - on_disks(&cluster);
    let replicas = before / (4 << 20);
    // At the ends partial blocks stay.
    assert!(replicas >= 2 && freed > replicas * (len - 3 * 4096), "{freed} of {before} bytes were freed");
    open.sync_all().unwrap();
    drop(open);
    let second = cluster.mount_again();
    assert!(fs::read(second.0.join("file")).unwrap() == model, "on another mount");
    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("stop", &[member]);
    }
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    assert!(fs::read(&path).unwrap() == model, "after a restart of everything");
    // Filled again, within and beyond.
    let open = file(&path);
    open.write_all_at(&noise(10_000, 3), 1_000_003).unwrap();
    model[1_000_003..1_010_003].copy_from_slice(&noise(10_000, 3));
    fallocate(&open, PUNCH, 4_190_000, 1 << 30).unwrap();
    model[4_190_000..].fill(0);
    drop(open);
    assert!(fs::read(&path).unwrap() == model, "filled again");
}

/// Replicas on the servers' disks, but for those in the trash.
fn chunk_files(cluster: &Cluster) -> u64 {
    let text = sh(&cluster.local("cluster"), "find cs*/ -name '*.chunk' -not -path '*/trash/*' | wc -l");
    text.trim().parse().unwrap()
}

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

#[test]
fn chunks_punched_whole_leave_the_file() {
    let cluster = Cluster::up(&[&SMALL_CHUNKS[..], &["--", "master", "--gc-delay", "2"]].concat());
    let path = cluster.path("file");
    let open = file(&path);
    let chunk = 65_536;
    // Eight chunks and a part of one.
    let mut model = noise(8 * chunk + 5_000, 1);
    open.write_all_at(&model, 0).unwrap();
    open.sync_all().unwrap();
    let (before, replicas) = (open.metadata().unwrap().blocks(), chunk_files(&cluster));
    assert!(before >= 8 * 128 && replicas >= 9 * 2, "{before} blocks, {replicas} replicas");
    // Of the second and the last the rest: the seven others whole, the last to the end of the file.
    let from = 2 * chunk - 10;
    open.write_all_at(&noise(10_000, 5), 3 * chunk as u64).unwrap();
    fallocate(&open, PUNCH, from as u64, 1 << 30).unwrap();
    model[from..].fill(0);
    let after = open.metadata().unwrap();
    assert_eq!((after.blocks(), after.len()), (2 * 128, model.len() as u64), "two chunks are left");
    assert!(read(&open, model.len()) == model);
    // Written again at once, in a new chunk.
    open.write_all_at(b"again", 4 * chunk as u64 + 7).unwrap();
    model[4 * chunk + 7..4 * chunk + 12].copy_from_slice(b"again");
    open.sync_all().unwrap();
    assert!(read(&open, model.len()) == model);
    assert_eq!(open.metadata().unwrap().blocks(), 3 * 128);
    let second = cluster.mount_again();
    let there = second.0.join("file");
    assert!(fs::read(&there).unwrap() == model, "on another mount");
    assert_eq!(blocks(&there), 3 * 128);
    let left = replicas / 9 * 3;
    cluster.wait_for("the replicas go", |_| chunk_files(&cluster) <= left);
    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("stop", &[member]);
    }
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    assert!(fs::read(&path).unwrap() == model, "after a restart of everything");
    assert_eq!(blocks(&path), 3 * 128);
}

#[test]
fn beside_another_mount_chunks_leave_when_nobody_writes_the_file() {
    let cluster = Cluster::up(&[&SMALL_CHUNKS[..], &["--", "master", "--close-after", "1"]].concat());
    let second = cluster.mount_again();
    let (path, there) = (cluster.path("file"), second.0.join("file"));
    let open = file(&path);
    let mut model = noise(200_000, 1);
    open.write_all_at(&model, 0).unwrap();
    let other = file(&there);
    fallocate(&open, PUNCH, 65_536, 65_536).unwrap();
    model[65_536..131_072].fill(0);
    assert_eq!(open.metadata().unwrap().blocks(), 200_000_u64.next_multiple_of(4096) / 512);
    assert!(read(&other, model.len()) == model);
    // Only what has nothing in it goes.
    fallocate(&open, PUNCH, 0, 65_536).unwrap();
    other.write_all_at(b"kept", 100).unwrap();
    model[..65_536].fill(0);
    model[100..104].copy_from_slice(b"kept");
    open.sync_all().unwrap();
    drop((open, other));
    let expected = 200_000_u64.next_multiple_of(4096) / 512 - 128;
    cluster.wait_for("the chunk goes", |_| blocks(&path) == expected);
    assert!(fs::read(&path).unwrap() == model && fs::read(&there).unwrap() == model);
}

#[test]
fn zeros_of_one_mount_are_in_order_with_writes_of_another() {
    let cluster = Cluster::up(&SMALL_CHUNKS);
    let second = cluster.mount_again();
    let (here, there) = (file(&cluster.path("file")), file(&second.0.join("file")));
    let mut model = vec![0; 200_000];
    for round in 0..60u8 {
        let (writer, puncher) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let at = usize::from(round) * 2_500;
        writer.write_all_at(&noise(40_000, round), at as u64).unwrap();
        model[at..at + 40_000].copy_from_slice(&noise(40_000, round));
        fallocate(puncher, PUNCH, at as u64 + 1_000, 20_000).unwrap();
        model[at + 1_000..at + 21_000].fill(0);
        let mut found = vec![0xff; 40_000];
        writer.read_exact_at(&mut found, at as u64).unwrap();
        assert!(found == model[at..at + 40_000], "round {round}");
    }
    drop((here, there));
}

#[test]
fn files_grow_without_bytes_and_what_moves_bytes_is_refused() {
    let cluster = Cluster::up(&SMALL_CHUNKS);
    let path = cluster.path("file");
    let open = file(&path);
    open.write_all_at(&noise(70_000, 1), 0).unwrap();
    let size = || open.metadata().unwrap().len();
    fallocate(&open, FallocateFlags::KEEP_SIZE, 0, 500_000).unwrap();
    assert_eq!(size(), 70_000);
    fallocate(&open, FallocateFlags::empty(), 10, 99_990).unwrap();
    assert_eq!(size(), 100_000);
    fallocate(&open, FallocateFlags::empty(), 0, 10).unwrap();
    assert_eq!(size(), 100_000, "it never shrinks");
    fallocate(&open, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 60_000, 1_000_000).unwrap();
    assert_eq!(size(), 100_000);
    fallocate(&open, FallocateFlags::ZERO_RANGE, 50_000, 150_000).unwrap();
    assert_eq!(size(), 200_000);
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        let refused = fallocate(&open, mode, 0, 65_536).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::OPNOTSUPP, "{mode:?}");
    }
    let read_only = File::open(&path).unwrap();
    assert_eq!(fallocate(&read_only, PUNCH, 0, 10), Err(rustix::io::Errno::BADF));
    let mut model = noise(70_000, 1);
    model.resize(200_000, 0);
    model[50_000..].fill(0);
    assert!(fs::read(&path).unwrap() == model);
    drop(open);
    assert_eq!(fs::metadata(&path).unwrap().len(), 200_000);
    // More than there is room for: told now, not at some write.
    let open = file(&cluster.path("huge"));
    let room = sh(&cluster.mount(), "echo $(($(stat -f -c '%a * %S' .)))");
    let more = room.trim().parse::<u64>().unwrap() * 2;
    assert_eq!(fallocate(&open, FallocateFlags::empty(), 0, more), Err(rustix::io::Errno::NOSPC));
    assert_eq!(open.metadata().unwrap().size(), 0);
}
