//! Goals of files and directories with real processes: what is written gets so many replicas, and they follow.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use dfs_tests::cluster::{Cluster, binaries, refusal};
use serde_json::Value;

const CHUNK: usize = 65_536;

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 7 + seed) % 251).unwrap()).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn write(path: &Path, seed: usize) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&bytes(seed, 2 * CHUNK + seed)).unwrap();
    file.sync_all().unwrap();
}

/// The replicas of each chunk of the file.
fn replicas(cluster: &Cluster, path: &Path) -> Vec<usize> {
    let info = cluster.json(&["file", "info", &text(path)]);
    let chunks = info["chunks"].as_array().unwrap().iter();
    chunks.map(|chunk| chunk["members"].as_array().unwrap().len()).collect()
}

/// Each of the file's three chunks gets so many replicas, much sooner than surplus of a load would go.
fn comes_to(cluster: &Cluster, path: &Path, count: usize) {
    for _ in 0..450 {
        if replicas(cluster, path) == [count; 3] {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{} has {:?} replicas, not {count}", path.display(), replicas(cluster, path));
}

fn run(cluster: &Cluster, args: &[&str]) -> Output {
    let mut dfs = Command::new(binaries().join("dfs"));
    dfs.args(args).env("DFS_MASTER", cluster.dev("addr", &[]).trim()).output().unwrap()
}

fn changed(report: &Value) -> (u64, u64) {
    (report["files"].as_u64().unwrap(), report["directories"].as_u64().unwrap())
}

#[test]
fn replicas_follow_the_goal_of_a_directory() {
    let cluster = Cluster::up(&["--servers", "4", "--replicas", "2", "--chunk-size", "65536"]);
    let (dir, sub) = (cluster.path("dir"), cluster.path("dir/sub"));
    fs::create_dir_all(&sub).unwrap();
    let (old, outside) = (sub.join("old"), cluster.path("outside"));
    write(&old, 1);
    write(&outside, 2);
    // What is made from here on begins with it, by directories made from here on too.
    let report = cluster.json(&["goal", "set", &text(&dir), "3", "--max", "4"]);
    assert_eq!(changed(&report), (0, 1), "{report}");
    fs::create_dir(dir.join("later")).unwrap();
    let new = dir.join("later/new");
    write(&new, 3);
    comes_to(&cluster, &new, 3);
    comes_to(&cluster, &old, 2);
    let explained = cluster.json(&["chunk", "explain", &format!("{}:1", text(&new))]);
    assert_eq!((&explained["goal"], &explained["max_replicas"]), (&3.into(), &4.into()), "{explained}");
    assert_eq!(explained["replicas"].as_array().unwrap().len(), 3);
    let shown = cluster.json(&["goal", "show", &text(&new)]);
    assert_eq!(
        (&shown["goal"], &shown["own_max"], &shown["cluster_goal"]),
        (&3.into(), &4.into(), &2.into())
    );
    assert!(cluster.dfs(&["goal", "show", &text(&outside)]).contains("2 (the cluster's)"));

    // All that is there, and a second time nothing.
    let report = cluster.json(&["goal", "set", &text(&dir), "4", "--recursive"]);
    assert_eq!(changed(&report), (2, 3), "{report}");
    assert_eq!(changed(&cluster.json(&["goal", "set", &text(&dir), "4", "--recursive"])), (0, 0));
    comes_to(&cluster, &old, 4);
    comes_to(&cluster, &new, 4);
    comes_to(&cluster, &outside, 2);
    let said = cluster.dfs(&["goal", "set", &text(&dir), "1", "--recursive"]);
    assert!(said.contains("2 files and 3 directories changed"), "{said}");
    comes_to(&cluster, &old, 1);
    comes_to(&cluster, &new, 1);
    let why = cluster.dfs(&["chunk", "explain", &text(&new)]);
    assert!(why.contains("its goal is 1 now: of 4 replicas those above it go"), "{why}");

    // It is in the master's log.
    cluster.dev("kill", &["master"]);
    cluster.dev("start", &["master"]);
    cluster.wait_for("the servers are back", |status| status["servers_up"] == 4);
    cluster.wait_for("all is well", |status| {
        status["chunks_below_goal"] == 0 && status["chunks_recovering"] == 0 && status["goals_own"] == 5
    });
    assert_eq!(cluster.json(&["goal", "show", &text(&sub)])["own_goal"], 1);
    let report = cluster.json(&["goal", "set", &text(&dir), "cluster", "--recursive"]);
    assert_eq!(changed(&report), (2, 3), "{report}");
    comes_to(&cluster, &old, 2);
    comes_to(&cluster, &new, 2);
    for (path, seed) in [(&old, 1), (&outside, 2), (&new, 3)] {
        assert!(fs::read(path).unwrap() == bytes(seed, 2 * CHUNK + seed), "{}", path.display());
    }
    assert!(!cluster.dfs(&["fsck"]).is_empty(), "and clean, or it had failed");
}

#[test]
fn what_can_not_be_is_refused_in_words() {
    let cluster = Cluster::up(&["--servers", "2", "--replicas", "1"]);
    let file = cluster.path("f");
    fs::File::create(&file).unwrap().write_all(b"x").unwrap();
    cluster.wait_for("both servers take replicas", |status| status["servers_up"] == 2);
    let path = text(&file);
    let refused = |args: &[&str]| refusal(&run(&cluster, &[&["goal", "set"], args].concat()));
    // One that is up takes replicas when its first heartbeat has told of its disks.
    let mut why = String::new();
    let both = (0..400).any(|_| {
        why = refused(&[&path, "3"]);
        let both = why.contains("2 servers that take replicas now, of 2 known: 1 to 2 works");
        if !both {
            thread::sleep(Duration::from_millis(50));
        }
        both
    });
    assert!(both, "{why}");
    assert!(refused(&[&path, "0"]).contains("1 to 2 works"));
    assert!(refused(&[&path, "2", "--max", "1"]).contains("2 to 16 works"));
    assert!(refused(&[&path, "many"]).contains("from 1 to 16, or cluster"));
    let nobody = text(&cluster.path("nobody"));
    assert!(refused(&[&nobody, "2"]).contains("No such file"));
    std::os::unix::fs::symlink("f", cluster.path("link")).unwrap();
    assert!(refused(&[&text(&cluster.path("link")), "2"]).contains("only files and directories have goals"));
    assert_eq!(cluster.json(&["status"])["goals_own"], 0);
}
