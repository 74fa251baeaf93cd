//! What docs/operations.md says of disks and machines that break, done as it says: with real processes. spread.rs adds a server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use dfs_tests::cluster::{Cluster, sh};
use serde_json::Value;

fn up() -> Cluster {
    let shape = ["--disks", "2", "--chunk-size", "65536"];
    let cluster = Cluster::up(&[&shape[..], &["--", "master", "--close-after", "1"]].concat());
    for n in 0..20_u8 {
        let mut file = fs::File::create(cluster.path(&format!("f{n}"))).unwrap();
        file.write_all(&vec![n; 200_000]).unwrap();
    }
    sh(&cluster.mount(), "sync -f .");
    cluster
}

fn assert_whole(cluster: &Cluster) {
    for n in 0..20_u8 {
        let path = cluster.path(&format!("f{n}"));
        rustix::fs::fadvise(fs::File::open(&path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert!(fs::read(&path).unwrap() == vec![n; 200_000], "f{n}");
    }
    assert!(cluster.dfs(&["fsck"]).contains("clean"));
}

fn servers(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&["server", "list"])["servers"].as_array().unwrap().clone()
}

/// Nothing is below its goal, by a look that began after now.
fn wait_whole(cluster: &Cluster) {
    let passes = || cluster.json(&["server", "list"])["passes"].as_u64().unwrap();
    let begun = passes();
    cluster.wait_for("every chunk at its goal", |status| {
        passes() > begun + 1
            && status["chunks_below_goal"] == 0
            && status["chunks_recovering"] == 0
            && status["chunks_open"] == 0
    });
}

fn disk(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.local("cluster").join(name)
}

fn empty(dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir(dir).unwrap();
}

#[test]
fn a_disk_is_replaced() {
    let cluster = up();
    let on = |server: &Value| -> Vec<u64> {
        let disks = server["disks"].as_array().unwrap();
        disks.iter().map(|disk| disk["replicas"].as_u64().unwrap()).collect()
    };
    cluster.wait_for("closed chunks", |status| status["chunks_open"] == 0);
    cluster.dev("stop", &["cs2"]);
    empty(&disk(&cluster, "cs2/disk2"));
    cluster.dev("start", &["cs2"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3);
    wait_whole(&cluster);
    // It is the server that it was, with one disk more.
    let list = servers(&cluster);
    assert_eq!(list.len(), 3);
    let cs2 = list.iter().find(|server| server["name"] == "cs2").unwrap();
    assert_eq!(on(cs2).len(), 2, "{cs2}");
    assert_whole(&cluster);
}

#[test]
fn a_server_is_replaced() {
    let cluster = up();
    cluster.wait_for("closed chunks", |status| status["chunks_open"] == 0);
    cluster.dev("kill", &["cs3"]);
    for name in ["cs3/disk", "cs3/disk2"] {
        empty(&disk(&cluster, name));
    }
    cluster.dev("start", &["cs3"]);
    cluster.wait_for("the new one beside the old", |status| {
        status["servers_up"] == 3 && status["servers_known"] == 4
    });
    let list = servers(&cluster);
    let old = list.iter().find(|server| server["name"] == "cs3" && server["up"] == false).unwrap();
    let number = format!("s{}", old["addr"]["num"]);
    let _ = cluster.dfs(&["server", "drain", &number]);
    cluster.wait_for("nobody to miss", |status| status["servers_up"] == 3 && status["servers_known"] == 3);
    wait_whole(&cluster);
    assert!(cluster.dfs(&["server", "list"]).contains("drained, gone"));
    assert_eq!(cluster.json(&["status"])["copies"].as_array().unwrap().len(), 3);
    assert_whole(&cluster);
}
