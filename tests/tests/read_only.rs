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

fn up(servers: &str, disks: &str) -> Cluster {
    let size = CHUNK.to_string();
    Cluster::up(&[
        "--servers",
        servers,
        "--disks",
        disks,
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

/// From here on the disk of this name of these servers can be broken.
fn on_faulty(cluster: Cluster, servers: &[&str], name: &str) -> Rig {
    let mut disks = Vec::new();
    for server in servers {
        cluster.dev("stop", &[server]);
        let disk = cluster.local("cluster").join(server).join(name);
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
    let cluster = up("2", "1");
    ["kept", "first", "second"].iter().for_each(|name| make(&cluster, name));
    until_closed(&cluster);
    let rig = on_faulty(cluster, &["cs1", "cs2"], "disk");
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
    // A program that starts another while it writes: its copy of the descriptor is closed, and nobody asks what
    // that close said.
    let file = OpenOptions::new().write(true).open(cluster.path("second")).unwrap();
    file.write_at(b"over", 0).unwrap();
    drop(file.try_clone().unwrap());
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    drop(file);
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
    // What this kernel has in its cache may not be on the disks, and a process of theirs knows.
    assert_eq!(write_over(&cluster.path("second")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(fs::read(cluster.path("kept")).unwrap() == bytes(10_000));
    // An operator mounts them anew and says so.
    for server in ["cs1", "cs2"] {
        cluster.dev("kill", &[server]);
        let disk = cluster.local("cluster").join(server).join("disk");
        let notes = fs::read_dir(disk).unwrap().map(|entry| entry.unwrap().path());
        let notes = notes.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("suspect-"));
        let notes: Vec<_> = notes.collect();
        assert_eq!(notes.len(), 1);
        fs::remove_file(&notes[0]).unwrap();
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
    let cluster = up("3", "1");
    let names: Vec<String> = (0..24).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| make(&cluster, name));
    until_closed(&cluster);
    let rig = on_faulty(cluster, &["cs1", "cs2"], "disk");
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

#[test]
fn what_is_on_one_broken_disk_of_a_server_goes_elsewhere() {
    let cluster = up("3", "2");
    let names: Vec<String> = (0..64).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| make(&cluster, name));
    until_closed(&cluster);
    let rig = on_faulty(cluster, &["cs1"], "disk2");
    let cluster = &rig.cluster;
    until_closed(cluster);
    let chunks = cluster.local("cluster/cs1/under/chunks");
    let on_it = |name: &String| {
        let info = cluster.json(&["file", "info", &cluster.path(name).display().to_string()]);
        let id = info["chunks"][0]["chunk"].as_str().unwrap();
        chunks.join(&id[14..]).join(format!("{id}.chunk")).exists()
    };
    let stranded: Vec<&String> = names.iter().filter(|name| on_it(name)).collect();
    let holds = |name: &String| cluster.holders(&cluster.path(name)).contains(&"cs1".to_owned());
    let well: Vec<&String> = names.iter().filter(|name| holds(name) && !stranded.contains(name)).collect();
    assert!(stranded.len() > 1 && well.len() > 1, "{stranded:?}, {well:?}");
    rig.set(Fault::Sync);
    // The disk is found out by this one; the other replica takes the write, and a new one may be on the good disk.
    write_over(&cluster.path(stranded[0])).unwrap();
    let began = Instant::now();
    while stranded[1..].iter().any(|name| holds(name)) {
        assert!(began.elapsed() < PATIENCE, "{:?}", cluster.json(&["status"]));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(well.iter().all(|name| holds(name)), "nothing else moves");
    // Those that were idle had all their replicas all the time; the other gets its own back.
    cluster.wait_for("the goal", |status| status["chunks_below_goal"] == 0);
    remount(cluster);
    for name in &stranded[1..] {
        assert_eq!(cluster.holders(&cluster.path(name)).len(), 2);
        assert!(fs::read(cluster.path(name)).unwrap() == bytes(10_000), "{name}");
    }
    rig.set(Fault::None);
    rig.end();
}
