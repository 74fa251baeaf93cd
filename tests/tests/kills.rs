//! kill -9 of real processes under a mount: what was acknowledged is there, and work goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_tests::cluster::{Cluster, sh};

/// A write and its sync may stall until a silent server is excluded: its lease (6 s) and the change of
/// config (2 s), and one more for a machine that is busy with other tests.
const STALL_MAX: Duration = Duration::from_secs(9);
/// A read that no write is in the way of may stall for a second, and one more for a busy machine.
const READ_STALL_MAX: Duration = Duration::from_secs(2);
/// Chunks of a file of which each server holds some.
const CHUNKS: u64 = 12;

/// 64 KiB of bytes that tell their place and round.
fn block(place: u64, round: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(65536);
    while bytes.len() < 65536 {
        bytes.extend_from_slice(&place.to_le_bytes());
        bytes.extend_from_slice(&round.to_le_bytes());
    }
    bytes
}

fn create(path: &Path) -> fs::File {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

fn drop_page_cache(path: &Path) {
    let file = fs::File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Whether every chunk of the file has two members that are up. The status counts what the master's last
/// pass over all chunks saw, which may be older than the last death.
fn is_whole(cluster: &Cluster, path: &Path) -> bool {
    let info = cluster.json(&["file", "info", &path.display().to_string()]);
    let chunks = info["chunks"].as_array().expect("chunks");
    chunks.iter().all(|chunk| {
        let members = chunk["members"].as_array().expect("members");
        members.iter().filter(|member| member["up"] == true).count() >= 2
    })
}

#[test]
fn reads_go_on_while_a_holder_is_killed() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let path = cluster.path("file");
    let file = create(&path);
    for place in 0..128 {
        file.write_all_at(&block(place, 0), place * 65536).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let holder = cluster.holders(&path).remove(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            let mut buf = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) || rounds < 2 {
                drop_page_cache(&path);
                let file = fs::File::open(&path).unwrap();
                for place in 0..128 {
                    file.read_exact_at(&mut buf, place * 65536).unwrap();
                    assert!(buf == block(place, 0), "block {place}");
                }
                rounds += 1;
            }
        });
        cluster.dev("kill", &[&holder]);
        cluster.dev("start", &[&holder]);
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn writes_go_on_after_each_server_is_killed_in_turn() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let path = cluster.path("file");
    let file = create(&path);
    let mut acknowledged = vec![0u64; 64];
    let mut round = 0;
    let mut write_all = |file: &fs::File, acknowledged: &mut Vec<u64>| {
        round += 1;
        for place in 0..64u64 {
            file.write_all_at(&block(place, round), place * 65536).unwrap();
        }
        file.sync_all().unwrap();
        acknowledged.fill(round);
    };
    write_all(&file, &mut acknowledged);
    for server in ["cs1", "cs2", "cs3"] {
        cluster.dev("kill", &[server]);
        write_all(&file, &mut acknowledged);
        cluster.dev("start", &[server]);
        write_all(&file, &mut acknowledged);
        // With two replicas only one may be missing at a time: the next goes when this one is filled again.
        cluster.wait_for("every chunk at its goal", |_| is_whole(&cluster, &path));
    }
    drop(file);
    drop_page_cache(&path);
    let file = fs::File::open(&path).unwrap();
    let mut buf = vec![0; 65536];
    for place in 0..64 {
        file.read_exact_at(&mut buf, place * 65536).unwrap();
        assert!(buf == block(place, acknowledged[usize::try_from(place).unwrap()]), "block {place}");
    }
}

#[test]
fn a_killed_master_loses_nothing_and_the_mount_waits() {
    let cluster = Cluster::up(&[]);
    let mount = cluster.mount();
    for round in 0..3 {
        sh(
            &mount,
            &format!("mkdir d{round} && for i in $(seq 200); do echo {round} $i > d{round}/f$i; done"),
        );
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut made = 0;
                while !stop.load(Ordering::Relaxed) || made < 20 {
                    let mut file = create(&mount.join(format!("w{round}-{made}")));
                    file.write_all(made.to_string().as_bytes()).unwrap();
                    made += 1;
                }
                made
            });
            cluster.dev("kill", &["master"]);
            cluster.dev("start", &["master"]);
            stop.store(true, Ordering::Relaxed);
            let made = worker.join().unwrap();
            for i in 0..made {
                assert_eq!(fs::read_to_string(mount.join(format!("w{round}-{i}"))).unwrap(), i.to_string());
            }
        });
        sh(&mount, &format!("for i in $(seq 200); do test \"$(cat d{round}/f$i)\" = \"{round} $i\"; done"));
    }
}

#[test]
fn all_servers_killed_at_once_come_back_with_everything_synced() {
    let cluster = Cluster::up(&["--chunk-size", "65536"]);
    let path = cluster.path("file");
    let file = create(&path);
    for place in 0..40 {
        file.write_all_at(&block(place, 1), place * 65536).unwrap();
    }
    file.sync_all().unwrap();
    for server in ["cs1", "cs2", "cs3"] {
        cluster.dev("kill", &[server]);
    }
    for server in ["cs1", "cs2", "cs3"] {
        cluster.dev("start", &[server]);
    }
    drop_page_cache(&path);
    let mut buf = vec![0; 65536];
    for place in 0..40 {
        file.read_exact_at(&mut buf, place * 65536).unwrap();
        assert!(buf == block(place, 1), "block {place}");
    }
    file.write_all_at(&block(3, 2), 3 * 65536).unwrap();
    file.sync_all().unwrap();
}

/// Writes to a file of one chunk and syncs, while the holder at `place` is paused.
fn write_past_a_paused_holder(place: usize) {
    let cluster = Cluster::up(&["--servers", "3"]);
    let path = cluster.path("file");
    let file = create(&path);
    file.write_all_at(&block(0, 1), 0).unwrap();
    file.sync_all().unwrap();
    let paused = cluster.holders(&path).remove(place);
    cluster.dev("pause", &[&paused]);
    let clock = stopwatch();
    file.write_all_at(&block(0, 2), 0).unwrap();
    file.sync_all().unwrap();
    let stalled = clock();
    cluster.dev("resume", &[&paused]);
    assert!(stalled < STALL_MAX, "stalled {stalled:?}");
    drop_page_cache(&path);
    let mut buf = vec![0; 65536];
    for _ in 0..200 {
        file.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == block(0, 2), "an old version after the pause");
    }
}

#[test]
fn a_paused_primary_stalls_writes_no_longer_than_its_lease() {
    write_past_a_paused_holder(0);
}

#[test]
fn a_paused_secondary_stalls_writes_no_longer_than_its_lease() {
    write_past_a_paused_holder(1);
}

#[test]
fn a_paused_server_stalls_a_sync_of_many_chunks_once() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let path = cluster.path("file");
    let file = create(&path);
    let write = |round| {
        for chunk in 0..CHUNKS {
            file.write_all_at(&block(chunk, round), chunk << 20).unwrap();
        }
    };
    write(1);
    file.sync_all().unwrap();
    let paused = cluster.holders(&path).remove(0);
    cluster.dev("pause", &[&paused]);
    let clock = stopwatch();
    write(2);
    file.sync_all().unwrap();
    let stalled = clock();
    cluster.dev("resume", &[&paused]);
    assert!(stalled < STALL_MAX, "stalled {stalled:?}");
    drop_page_cache(&path);
    let mut buf = vec![0; 65536];
    for chunk in 0..CHUNKS {
        file.read_exact_at(&mut buf, chunk << 20).unwrap();
        assert!(buf == block(chunk, 2), "chunk {chunk}");
    }
}

#[test]
fn a_paused_server_stalls_reads_only_shortly() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let path = cluster.path("file");
    let file = create(&path);
    for place in 0..CHUNKS * 16 {
        file.write_all_at(&block(place, 1), place * 65536).unwrap();
    }
    file.sync_all().unwrap();
    let mut buf = vec![0; 65536];
    for holder in cluster.holders(&path) {
        cluster.dev("pause", &[&holder]);
        drop_page_cache(&path);
        for place in 0..CHUNKS * 16 {
            let clock = stopwatch();
            file.read_exact_at(&mut buf, place * 65536).unwrap();
            let stalled = clock();
            assert!(stalled < READ_STALL_MAX, "{holder} paused: stalled {stalled:?} at block {place}");
            assert!(buf == block(place, 1), "block {place}");
        }
        cluster.dev("resume", &[&holder]);
    }
}

#[test]
fn a_killed_program_whose_servers_are_away_ends() {
    let cluster = Cluster::up(&["--servers", "2"]);
    let path = cluster.path("file");
    create(&path).write_all_at(&block(0, 1), 0).unwrap();
    sh(&cluster.mount(), "sync file");
    for server in ["cs1", "cs2"] {
        cluster.dev("pause", &[server]);
    }
    // It waits for its sync, and once that is let go for what closing the file asks for.
    let of = format!("of={}", path.display());
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=64k", "count=1", "conv=notrunc,fsync"]).arg(of).stderr(Stdio::null());
    let mut program = dd.spawn().unwrap();
    let clock = stopwatch();
    while clock() < Duration::from_secs(2) {
        assert!(program.try_wait().unwrap().is_none(), "no server took its bytes");
        std::thread::sleep(Duration::from_millis(50));
    }
    program.kill().unwrap();
    let clock = stopwatch();
    while program.try_wait().unwrap().is_none() {
        assert!(clock() < Duration::from_secs(8), "a killed program waits");
        std::thread::sleep(Duration::from_millis(50));
    }
    for server in ["cs1", "cs2"] {
        cluster.dev("resume", &[server]);
    }
}

#[test]
fn a_killed_mount_is_replaced_and_what_was_closed_is_there() {
    let cluster = Cluster::up(&[]);
    sh(&cluster.mount(), "for i in $(seq 50); do echo $i > f$i; done");
    cluster.dev("kill", &["mount"]);
    cluster.dev("start", &["mount"]);
    sh(
        &cluster.mount(),
        "for i in $(seq 50); do test \"$(cat f$i)\" = $i; done; echo new > f1; test \"$(cat f1)\" = new",
    );
}

/// Time since it was made, from the kernel's clock: tests may measure, cores may not.
fn stopwatch() -> impl Fn() -> Duration {
    let now = || {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(u64::try_from(t.tv_sec).unwrap(), u32::try_from(t.tv_nsec).unwrap())
    };
    let start = now();
    move || now() - start
}
