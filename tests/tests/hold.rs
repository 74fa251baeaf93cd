//! A master whose metadata was rolled back or lost, and a disk that came back from an older image, with real
//! processes: nothing is deleted, the operator is told, and the way out works.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use dfs_tests::cluster::{Cluster, binaries, sh};

/// Every chunk file of every server, with its length.
fn chunk_files(cluster: &Cluster) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    for server in ["cs1", "cs2", "cs3"] {
        let chunks = cluster.local("cluster").join(server).join("disk/chunks");
        for dir in fs::read_dir(chunks).unwrap() {
            for file in fs::read_dir(dir.unwrap().path()).unwrap() {
                let file = file.unwrap();
                files.insert(file.path(), file.metadata().unwrap().len());
            }
        }
    }
    files
}

fn write(cluster: &Cluster, name: &str, byte: u8, len: usize) {
    let mut file = fs::File::create(cluster.path(name)).unwrap();
    file.write_all(&vec![byte; len]).unwrap();
    file.sync_all().unwrap();
}

/// `dfs recover ARGS`: its exit code and what it says.
fn recover(cluster: &Cluster, args: &[&str]) -> (bool, String) {
    let master = cluster.dev("addr", &[]);
    let mut run = Command::new(binaries().join("dfs"));
    let output = run.arg("recover").args(args).env("DFS_MASTER", master.trim()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// What the log knows can be seen meanwhile, by who asks for what may be old.
fn look_at_what_is_old(cluster: &Cluster) {
    let at = cluster.local("old-view");
    fs::create_dir(&at).unwrap();
    let master = fs::read_to_string(cluster.local("cluster/run/master.addr")).unwrap();
    let mount = |options: &str| {
        let run = Command::new(binaries().join("dfs-fuse"))
            .args(["--master", master.trim(), at.to_str().unwrap(), "-o", options])
            .output()
            .unwrap();
        (run.status.success(), String::from_utf8(run.stderr).unwrap())
    };
    let (mounted, why) = mount("ro");
    assert!(!mounted && why.contains("hold"), "{why}");
    let (mounted, why) = mount("ro,recover");
    assert!(mounted, "{why}");
    assert_eq!(fs::metadata(at.join("kept")).unwrap().len(), 3 << 20);
    let names: Vec<_> = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(fs::File::create(at.join("new")).unwrap_err().raw_os_error(), Some(libc::EROFS));
    sh(&at.with_file_name(""), "umount old-view");
}

#[test]
fn a_rolled_back_master_stands_still_and_the_operator_leads_it_out() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let dir = cluster.local("");
    write(&cluster, "kept", 1, 3 << 20);
    cluster.dev("stop", &["master"]);
    sh(&dir, "cp -a cluster/master old");
    cluster.dev("start", &["master"]);
    // Else what is written goes to those that are back, and is fewer files than these.
    cluster.wait_for("three servers", |status| status["servers_up"] == 3);
    write(&cluster, "later", 2, 3 << 20);
    cluster.dev("stop", &["mount"]);
    cluster.dev("stop", &["master"]);
    let files = chunk_files(&cluster);
    assert!(files.len() >= 12, "two files of three chunks, twice each: {files:?}");
    sh(&dir, "mv cluster/master newest && mv old cluster/master");
    cluster.dev("start", &["master"]);
    cluster.wait_for("on hold", |status| status["hold"].is_string());
    // By a server's marks if it heard of later records, else by a chunk that this log never gave out.
    let last = cluster.json(&["recover"])["last_index"].as_u64().unwrap();
    let (shown, screen) = recover(&cluster, &[]);
    assert!(
        shown
            && screen.contains("RECORDS LOST")
            && screen.contains(&format!("--accept-metadata-loss {last}")),
        "{screen}"
    );
    look_at_what_is_old(&cluster);
    // Not by a number that is not on the screen.
    let (went_on, why) = recover(&cluster, &["--accept-metadata-loss", &(last + 1).to_string()]);
    assert!(!went_on && why.contains(&last.to_string()), "{why}");
    let (went_on, why) = recover(&cluster, &["--accept-metadata-loss", &last.to_string()]);
    assert!(went_on, "{why}");
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    cluster.dev("start", &["mount"]);
    assert!(fs::read(cluster.path("kept")).unwrap() == vec![1; 3 << 20]);
    assert!(!cluster.path("later").exists());
    // New files do not run into what the lost records had made.
    for n in 0..4 {
        write(&cluster, &format!("new{n}"), 3 + n, 3 << 20);
    }
    let after = chunk_files(&cluster);
    for (file, len) in &files {
        assert_eq!(after.get(file), Some(len), "{}", file.display());
    }
    let status = cluster.json(&["status"]);
    assert_eq!(status["generation"], 2);
    assert_eq!(status["replicas_unknown"], 6, "three chunks of `later`, twice each");
    for member in ["cs1", "cs2", "cs3", "master"] {
        cluster.dev("stop", &[member]);
    }
    for member in ["master", "cs1", "cs2", "cs3"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    for n in 0..4 {
        assert!(fs::read(cluster.path(&format!("new{n}"))).unwrap() == vec![3 + n; 3 << 20]);
    }
}

#[test]
fn an_emptied_master_deletes_nothing_and_its_old_directory_brings_all_back() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let dir = cluster.local("");
    write(&cluster, "kept", 1, 3 << 20);
    cluster.dev("stop", &["mount"]);
    cluster.dev("stop", &["master"]);
    let files = chunk_files(&cluster);
    sh(&dir, "mv cluster/master newest");
    let init = Command::new(binaries().join("dfs-master"))
        .args(["init", "--data"])
        .arg(dir.join("cluster/master"))
        .output()
        .unwrap();
    assert!(init.status.success(), "{init:?}");
    cluster.dev("start", &["master"]);
    // The servers know that it is another cluster, and say so; they stay as they are.
    cluster.wait_for("the servers say so", |_| cluster.logs().contains("another cluster"));
    assert_eq!(cluster.json(&["status"])["servers_up"], 0);
    assert_eq!(chunk_files(&cluster), files);
    cluster.dev("stop", &["master"]);
    sh(&dir, "rm -r cluster/master && mv newest cluster/master");
    cluster.dev("start", &["master"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    cluster.dev("start", &["mount"]);
    assert!(fs::read(cluster.path("kept")).unwrap() == vec![1; 3 << 20]);
    assert_eq!(chunk_files(&cluster), files);
}

#[test]
fn a_disk_restored_from_an_older_image_serves_nothing_old() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let dir = cluster.local("");
    write(&cluster, "file", 1, 3 << 20);
    let holder = cluster.holders(&cluster.path("file")).remove(0);
    cluster.dev("stop", &[&holder]);
    sh(&dir, &format!("cp -a cluster/{holder}/disk old"));
    cluster.dev("start", &[&holder]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3);
    write(&cluster, "file", 2, 3 << 20);
    cluster.dev("stop", &[&holder]);
    sh(&dir, &format!("rm -r cluster/{holder}/disk && mv old cluster/{holder}/disk"));
    cluster.dev("start", &[&holder]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    for _ in 0..10 {
        sh(&dir, "echo 3 >/proc/sys/vm/drop_caches");
        assert!(fs::read(cluster.path("file")).unwrap() == vec![2; 3 << 20]);
    }
    cluster
        .wait_for("the goal", |status| status["chunks_below_goal"] == 0 && status["chunks_recovering"] == 0);
}

#[test]
fn records_that_only_names_tell_of_are_missed_after_a_kill_of_everything() {
    let cluster = Cluster::up(&["--chunk-size", "1048576"]);
    let dir = cluster.local("");
    write(&cluster, "kept", 1, 1 << 20);
    let whole = |status: &serde_json::Value| {
        status["servers_up"] == 3
            && status["copies"].as_array().is_some_and(|copies| {
                copies.len() == 3
                    && copies.iter().all(|copy| copy["behind"] == 0 && copy["whole_ms"].is_u64())
            })
    };
    cluster.dev("stop", &["master"]);
    sh(&dir, "cp -a cluster/master old");
    cluster.dev("start", &["master"]);
    // Whatever servers remember of it, they do a while after they registered.
    std::thread::sleep(std::time::Duration::from_secs(12));
    // One record more than a start adds, each without a chunk.
    for n in 0..40 {
        fs::create_dir(cluster.path(&format!("d{n}"))).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.wait_for("the log is on every server", whole);
    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("kill", &[member]);
    }
    sh(&dir, "mv cluster/master newest && mv old cluster/master");
    cluster.dev("start", &["master"]);
    for member in ["cs1", "cs2", "cs3"] {
        // It never says that it is ready: it is refused.
        let dfs = binaries().join("dfs").display().to_string();
        sh(&dir, &format!("({dfs} dev start --dir cluster {member} > /dev/null 2>&1 &)"));
    }
    cluster.wait_for("on hold", |status| status["hold"].is_string());
    let (_, said) = recover(&cluster, &[]);
    assert!(said.contains("record"), "{said}");
    // The right one is no reason to hold.
    for member in ["cs1", "cs2", "cs3", "master"] {
        cluster.dev("kill", &[member]);
    }
    sh(&dir, "rm -r cluster/master && mv newest cluster/master");
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert!(cluster.path("d39").is_dir());
}
