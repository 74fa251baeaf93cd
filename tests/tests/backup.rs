//! The master's state is backed up while programs work, and put back where its directory is lost: with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use dfs_tests::cluster::{Cluster, refusal, sh};
use serde_json::Value;

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::File::create(path).unwrap().write_all(bytes.as_ref()).unwrap();
}

fn up() -> Cluster {
    let options = ["--snapshot-records", "40", "--close-after", "1"];
    Cluster::up(&[&["--chunk-size", "65536", "--", "master"], &options[..]].concat())
}

fn make(cluster: &Cluster, round: u32) {
    let dir = cluster.path(&format!("r{round}"));
    fs::create_dir(&dir).unwrap();
    for n in 0..20 {
        write(dir.join(format!("f{n}")), vec![u8::try_from(n).unwrap(); 1000 * n]);
    }
    symlink("f1", dir.join("link")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    sh(&dir, "chmod 4751 f2; ln f3 f3-too; mv f4 empty/; sync -f .");
}

/// Names, modes, links and contents, in one text.
fn tree(cluster: &Cluster) -> String {
    let names = "find . -printf '%p %m %n %s %l\\n' | sort";
    sh(&cluster.mount(), &format!("{names}; find . -type f -print0 | sort -z | xargs -0 cksum"))
}

fn flip_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 0x10;
    write(path, bytes);
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_master_whose_directory_is_lost_comes_back_from_a_backup() {
    let cluster = up();
    for round in 0..3 {
        make(&cluster, round);
    }
    // Nothing that the master notes by itself follows the backup.
    cluster.wait_for("a snapshot, and closed chunks", |status| {
        status["snapshot_index"].as_u64().unwrap() > 0
            && status["chunks_open"] == 0
            && status["durable_index"] == status["last_index"]
    });
    let before = tree(&cluster);
    let dir = cluster.local("backup");
    let to = dir.display().to_string();
    let made = cluster.json(&["backup", &to]);
    assert_eq!(made["index"], cluster.json(&["status"])["last_index"]);
    assert!(refusal(&cluster.try_dfs(&["backup", &to])).contains("not empty"));

    for member in ["mount", "master"] {
        cluster.dev("kill", &[member]);
    }
    fs::remove_dir_all(cluster.master_dir()).unwrap();
    let looked = cluster.json(&["restore", &to]);
    assert_eq!(looked["best"], to.as_str(), "{looked}");
    assert!(!cluster.master_dir().exists(), "looking writes nothing");
    let master = cluster.master_dir().display().to_string();
    let said = cluster.dfs(&["restore", &to, "--to", &master]);
    assert!(said.contains("is a master's directory"), "{said}");
    assert!(refusal(&cluster.try_dfs(&["restore", &to, "--to", &master])).contains("not empty"));
    for member in ["master", "mount"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert_eq!(tree(&cluster), before);
    assert!(cluster.dfs(&["fsck"]).contains("clean"));
}

#[test]
fn a_backup_of_a_busy_master_is_of_one_moment() {
    let cluster = up();
    make(&cluster, 0);
    let (at, mount) = (cluster.local("backups"), cluster.mount());
    fs::create_dir(&at).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Snapshots come every 40 records, so files go while they are copied.
        scope.spawn(|| {
            let mut n = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                write(mount.join("busy"), [1]);
                fs::rename(mount.join("busy"), mount.join(format!("busy{}", n % 50))).unwrap();
                n += 1;
            }
        });
        let backups: Vec<Value> = (0..8)
            .map(|n| cluster.json(&["backup", &at.join(n.to_string()).display().to_string()]))
            .collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let indexes: Vec<u64> = backups.iter().map(|made| made["index"].as_u64().unwrap()).collect();
        assert!(indexes.is_sorted() && indexes[0] < indexes[7], "{indexes:?}");
    });
    for n in 0..8 {
        let from = at.join(n.to_string()).display().to_string();
        let to = cluster.local(&format!("made{n}")).display().to_string();
        let _ = cluster.dfs(&["restore", &from, "--to", &to]);
        // Reads it as a start does, and compares the state with itself.
        let _ = cluster.dfs(&["fsck", "--master-dir", &to]);
    }
}

#[test]
fn a_backup_that_is_damaged_or_not_finished_is_refused() {
    let cluster = up();
    make(&cluster, 0);
    let dir = cluster.local("backup");
    let to = dir.display().to_string();
    let _ = cluster.dfs(&["backup", &to]);
    fs::rename(dir.join("backup.json"), dir.join("away")).unwrap();
    assert!(refusal(&cluster.try_dfs(&["restore", &to])).contains("no backup, or one that was not finished"));
    fs::rename(dir.join("away"), dir.join("backup.json")).unwrap();
    let _ = cluster.dfs(&["restore", &to]);
    for path in [files(&dir.join("log")), files(&dir.join("snapshot"))].concat() {
        flip_in_the_middle(&path);
    }
    let master = cluster.local("new").display().to_string();
    let refused = cluster.try_dfs(&["restore", &to, "--to", &master]);
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && said.contains("can't be used"), "{refused:?}");
    assert!(!Path::new(&master).exists(), "nothing was to be written");
    // A master that is away: one line, and no directory that looks like a backup.
    cluster.dev("kill", &["master"]);
    let other = cluster.local("other").display().to_string();
    assert!(refusal(&cluster.try_dfs(&["backup", &other])).contains("no answer from the master"));
    assert!(!Path::new(&other).join("backup.json").exists());
    cluster.dev("start", &["master"]);
}
