//! Space evens out with real processes on disks of their own: a server is added to three that are a third full, and gets its
//! share while a program writes and reads; nobody notices. As root, with FUSE and loop devices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dfs_tests::cluster::binaries;
use dfs_tests::real::clock;
use dfs_tests::real::daemon::Host;
use dfs_tests::real::nodes::{Nodes, Place, Shape, Who};
use dfs_tests::real::volume::{FsKind, Volume};

const MIB: usize = 1 << 20;
const DISK_MIB: usize = 320;
const FILES: usize = 150;
const MOUNT: Who = Who::Mount(0);
const NEW: Who = Who::Server(3);
/// What is promised: points between the fullest and the emptiest.
const POINTS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(120);

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 3 + seed) % 251).unwrap()).collect()
}

fn cluster(root: &Path) -> Nodes {
    let shape = Shape {
        servers: 4,
        mounts: 1,
        replicas: 2,
        chunk_size: u32::try_from(MIB).unwrap(),
        unix: false,
        master_options: ["--close-after", "1"].map(str::to_owned).to_vec(),
        server_options: Vec::new(),
    };
    let place = |who: Who| Place {
        host: Host { netns: None, boot_id: None },
        listen: "127.0.0.1:0".to_owned(),
        at: root.join("at").join(who.to_string()),
    };
    Nodes::new(root, &binaries(), shape, place).unwrap()
}

/// Replicas of each server that is up. All are of one MiB, but for what the busy program has.
fn replicas(nodes: &Nodes) -> BTreeMap<String, u64> {
    let list = nodes.tool(MOUNT, &["server", "list"]).unwrap();
    let servers = list["servers"].as_array().unwrap().iter();
    servers
        .map(|server| (server["name"].as_str().unwrap().to_owned(), server["replicas"].as_u64().unwrap()))
        .collect()
}

fn points(replicas: &BTreeMap<String, u64>) -> u64 {
    let (most, least) = (replicas.values().max().unwrap(), replicas.values().min().unwrap());
    (most - least) * 100 / DISK_MIB as u64
}

/// Writes a file anew and reads it back, over and over, with a sync each time.
fn churn(path: &Path, stop: &AtomicBool, rounds: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let expected = bytes(usize::try_from(rounds.load(Ordering::Relaxed)).unwrap(), 3 * MIB / 2);
        let mut file = fs::File::create(path).unwrap();
        file.write_all(&expected).unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert!(fs::read(path).unwrap() == expected);
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_server_that_is_added_gets_its_share() {
    let dir = tempfile::TempDir::with_prefix_in("dfs-spread.", "/var/tmp").unwrap();
    let root = dir.path();
    let mut nodes = cluster(root);
    let mut volumes = Vec::new();
    for server in (0..4).map(Who::Server) {
        let (image, at) = (root.join(format!("{server}.image")), nodes.at(server));
        volumes.push(Volume::create(FsKind::Ext4, &image, (DISK_MIB * MIB) as u64, &at).unwrap());
    }
    for who in nodes.all().into_iter().filter(|who| *who != NEW) {
        nodes.start(who).unwrap();
    }
    let mount = nodes.at(MOUNT);
    for n in 0..FILES {
        let mut file = fs::File::create(mount.join(format!("f{n}"))).unwrap();
        file.write_all(&bytes(n, MIB)).unwrap();
        file.sync_all().unwrap();
    }
    nodes.start(NEW).unwrap();
    let before = replicas(&nodes);
    assert!(points(&before) > 20, "{before:?}");

    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let even = std::thread::scope(|scope| {
        scope.spawn(|| churn(&mount.join("busy"), &stop, &rounds));
        let even = clock::poll(PATIENCE, || {
            let status = nodes.tool(MOUNT, &["status"])?;
            let whole = status["moving"] == 0 && status["chunks_below_goal"] == 0;
            Ok((whole && points(&replicas(&nodes)) <= POINTS).then_some(()))
        });
        stop.store(true, Ordering::Relaxed);
        even
    });
    assert!(even.unwrap().is_some(), "{:?}\n{}", replicas(&nodes), nodes.logs(15));
    assert!(rounds.load(Ordering::Relaxed) > 0);
    println!("{before:?} became {:?}", replicas(&nodes));
    for n in 0..FILES {
        assert!(fs::read(mount.join(format!("f{n}"))).unwrap() == bytes(n, MIB), "f{n}");
    }
    // What was left behind is deleted, and nothing of it is missed.
    nodes.tool(MOUNT, &["fsck"]).unwrap();
    nodes.unmount(MOUNT).unwrap();
    drop(nodes);
}
