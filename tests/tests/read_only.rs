//! Disks whose syncs fail, under real processes on a mount of `hard` kind: what is whole there can be read, its writer
//! gets an error or another server, nothing is tried for ever, and a server that starts again on a disk that is well goes
//! on. As root, with FUSE.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test measures time")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dfs_tests::cluster::Cluster;
use dfs_tests::real::faulty::{Fault, Faulty};

const CHUNK: usize = 65_536;
/// Longer than leases and sessions last: nobody waits for one of them.
const PATIENCE: Duration = Duration::from_secs(45);

fn up(servers: &str) -> Cluster {
    let size = CHUNK.to_string();
    Cluster::up(&[
        "--servers",
        servers,
        "--replicas",
        "2",
        "--chunk-size",
        &size,
        "--",
        "master",
        "--close-after",
        "1",
    ])
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at / 7 % 251 + 1).unwrap()).collect()
}

/// A file that is synced and closed on every member.
fn make(cluster: &Cluster, name: &str) {
    let mut file = File::create(cluster.path(name)).unwrap();
    file.write_all(&bytes(10_000)).unwrap();
    file.sync_all().unwrap();
}

fn until_closed(cluster: &Cluster) {
    std::thread::sleep(Duration::from_secs(4));
    cluster.wait_for("every chunk closed", |status| {
        status["chunks_open"] == 0 && status["chunks_recovering"] == 0
    });
}

/// A cluster, and disks of it that can be broken. The servers end before their disks do.
struct Rig {
    cluster: Cluster,
    disks: Vec<Faulty>,
}

impl Rig {
    fn set(&self, fault: Fault) {
        self.disks.iter().for_each(|disk| disk.set(fault));
    }

    fn end(mut self) {
        for member in ["mount", "cs1", "cs2"] {
            self.cluster.dev("stop", &[member]);
        }
        self.disks.clear();
    }
}

/// From here on these servers' disks can be broken.
fn on_faulty(cluster: Cluster, servers: &[&str]) -> Rig {
    let mut disks = Vec::new();
    for server in servers {
        cluster.dev("stop", &[server]);
        let disk = cluster.local("cluster").join(server).join("disk");
        let under = disk.with_file_name("under");
        fs::rename(&disk, &under).unwrap();
        fs::create_dir(&disk).unwrap();
        disks.push(Faulty::new(&under, &disk).unwrap());
        cluster.dev("start", &[server]);
    }
    cluster.wait_for("the servers", |status| {
        status["servers_up"] == status["servers_known"] && status["hold"].is_null()
    });
    Rig { cluster, disks }
}

/// Writes to the file's first block and syncs it.
fn write_over(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_at(b"over", 0)?;
    file.sync_all()
}

fn remount(cluster: &Cluster) {
    cluster.dev("stop", &["mount"]);
    cluster.dev("start", &["mount"]);
}

#[test]
fn with_every_disk_broken_writers_get_errors_and_readers_what_is_there() {
    let cluster = up("2");
    ["kept", "first", "second"].iter().for_each(|name| make(&cluster, name));
    until_closed(&cluster);
    let rig = on_faulty(cluster, &["cs1", "cs2"]);
    let cluster = &rig.cluster;
    rig.set(Fault::Sync);
    let began = Instant::now();
    // The disks are found out by this one, whose chunk is lost: it says so.
    let error = write_over(&cluster.path("first")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    for _ in 0..2 {
        let error = write_over(&cluster.path("second")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    }
    let cut = OpenOptions::new().write(true).open(cluster.path("second")).unwrap().set_len(77);
    assert_eq!(cut.unwrap_err().raw_os_error(), Some(libc::EIO));
    let new = File::create(cluster.path("new")).and_then(|mut file| {
        file.write_all(b"new")?;
        file.sync_all()
    });
    assert_eq!(new.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // What nobody could write to is there, on disk, not only in caches.
    remount(cluster);
    for name in ["kept", "second"] {
        assert!(fs::read(cluster.path(name)).unwrap() == bytes(10_000), "{name}");
    }
    assert_eq!(fs::read(cluster.path("first")).unwrap_err().raw_os_error(), Some(libc::EIO));
    // With the next heartbeat.
    std::thread::sleep(Duration::from_secs(3));
    let list = cluster.json(&["server", "list"]);
    for server in list["servers"].as_array().unwrap() {
        assert!(server["disks"][0]["failed"].is_string(), "{server}");
    }
    // Nothing goes on by itself.
    let records = |cluster: &Cluster| cluster.json(&["status"])["last_index"].as_u64().unwrap();
    let before = records(cluster);
    std::thread::sleep(Duration::from_secs(10));
    assert!(records(cluster) < before + 20, "{before}, then {}", records(cluster));
    // The disks are well again, and their servers' next processes find them so.
    rig.set(Fault::None);
    for server in ["cs1", "cs2"] {
        cluster.dev("kill", &[server]);
        cluster.dev("start", &[server]);
    }
    cluster.wait_for("the servers", |status| status["servers_up"] == 2);
    write_over(&cluster.path("second")).unwrap();
    write_over(&cluster.path("kept")).unwrap();
    assert!(fs::read(cluster.path("second")).unwrap().starts_with(b"over"));
    rig.end();
}

#[test]
fn a_chunk_whose_disks_are_all_broken_goes_to_another_server() {
    let cluster = up("3");
    let names: Vec<String> = (0..24).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| make(&cluster, name));
    until_closed(&cluster);
    let rig = on_faulty(cluster, &["cs1", "cs2"]);
    let cluster = &rig.cluster;
    let held = |name: &&String| cluster.holders(&cluster.path(name)).iter().all(|server| server != "cs3");
    let [first, kept] = names.iter().filter(held).take(2).collect::<Vec<_>>()[..] else {
        panic!("24 files, and the good server has a part of all but one")
    };
    rig.set(Fault::Sync);
    // The disks are found out by this one.
    let error = write_over(&cluster.path(first)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let began = Instant::now();
    write_over(&cluster.path(kept)).unwrap();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(cluster.holders(&cluster.path(kept)), ["cs3"]);
    remount(cluster);
    let mut expected = bytes(10_000);
    expected[..4].copy_from_slice(b"over");
    assert!(fs::read(cluster.path(kept)).unwrap() == expected);
    rig.set(Fault::None);
    rig.end();
}
