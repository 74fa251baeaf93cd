//! Damage, with real processes: `dfs fsck` finds what is not as it has to be, `dfs damaged` names the bytes that are
//! lost, and `dfs repair-file` makes the file readable after asking.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dfs_tests::cluster::{Cluster, binaries, sh};
use serde_json::Value;

const CHUNK: usize = 65_536;
const BLOCK: usize = 4096;

/// `dfs ARGS`, told `answer` on its standard input: its exit code and what it says.
fn dfs(cluster: &Cluster, args: &[&str], answer: &str) -> (i32, String) {
    let master = cluster.dev("addr", &[]);
    let mut run = Command::new(binaries().join("dfs"));
    run.args(args).env("DFS_MASTER", master.trim());
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    // One that asks nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

/// Bytes that tell their place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at / 7 % 251 + 1).unwrap()).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// A mount that has nothing in memory.
fn remount(cluster: &Cluster) {
    cluster.dev("stop", &["mount"]);
    cluster.dev("start", &["mount"]);
}

/// The servers lose all that they have, and come back as new ones; the mount comes back with nothing in memory.
fn wipe(cluster: &Cluster, servers: &[&str]) {
    cluster.dev("stop", &["mount"]);
    for server in servers {
        cluster.dev("kill", &[server]);
        sh(&cluster.local(""), &format!("rm -r cluster/{server}/disk"));
        cluster.dev("start", &[server]);
    }
    cluster.dev("start", &["mount"]);
}

/// The names of the members of each chunk.
fn members(cluster: &Cluster, path: &Path) -> Vec<Vec<String>> {
    let info = cluster.json(&["file", "info", &path.display().to_string()]);
    let names = |chunk: &Value| {
        let members = chunk["members"].as_array().unwrap();
        members.iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect()
    };
    info["chunks"].as_array().unwrap().iter().map(names).collect()
}

fn damaged(cluster: &Cluster, args: &[&str]) -> (i32, Vec<Value>) {
    let all: Vec<&str> = ["--json", "damaged"].into_iter().chain(args.iter().copied()).collect();
    let (code, text) = dfs(cluster, &all, "");
    (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

/// Waits until a whole look at the damage is as it should be.
fn until_damaged(cluster: &Cluster, ready: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    for _ in 0..300 {
        let (_, found) = damaged(cluster, &[]);
        if ready(&found) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not within 30 s: {:?}", damaged(cluster, &[]));
}

/// Waits until fsck finds nothing wrong, but perhaps that servers with replicas are not there to be asked.
fn until_repaired(cluster: &Cluster) {
    let mut told = (0, String::new());
    for _ in 0..300 {
        told = dfs(cluster, &["fsck"], "");
        if told.0 != 1 {
            return;
        }
        // A chunk is below its goal until it is repaired.
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("not within a minute: {told:?}");
}

/// A read that does not hang; what it gave.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn read_at(path: &Path, at: usize, len: usize) -> std::io::Result<Vec<u8>> {
    let began = Instant::now();
    let mut buf = vec![0; len];
    let read = fs::File::open(path).and_then(|file| file.read_exact_at(&mut buf, at as u64));
    assert!(began.elapsed() < Duration::from_secs(30), "it hung for {:?}", began.elapsed());
    read.map(|()| buf)
}

/// The id of a chunk, as people see it.
fn chunk_name(info: &Value, index: usize) -> String {
    info["chunks"][index]["chunk"].as_str().unwrap().to_owned()
}

/// The file of a replica.
fn replica(cluster: &Cluster, server: &str, chunk: &str) -> PathBuf {
    let low = &chunk[chunk.len() - 2..];
    cluster.local("cluster").join(server).join(format!("disk/chunks/{low}/{chunk}.chunk"))
}

#[test]
fn what_lost_servers_held_is_named_and_given_up_by_name_only() {
    let cluster = Cluster::up(&[
        "--servers",
        "4",
        "--replicas",
        "2",
        "--chunk-size",
        "65536",
        "-o",
        "soft,timeo=30",
        "--",
        "master",
        "--lease-ms",
        "2000",
    ]);
    let path = cluster.path("precious");
    let name = path.display().to_string();
    let content = bytes(8 * CHUNK - 1000);
    write(&path, &content);
    assert_eq!(
        dfs(&cluster, &["damaged"], ""),
        (0, "no damage: every chunk has a good replica\n".to_owned())
    );
    let (code, text) = dfs(&cluster, &["repair-file", &name], "");
    assert!(code == 0 && text.contains("needs no repair"), "{text}");
    let holders = members(&cluster, &path);
    let (a, b) = (holders[0][0].clone(), holders[0][1].clone());
    let is_lost = |chunk: &Vec<String>| chunk.iter().all(|name| *name == a || *name == b);
    let lost: Vec<usize> = (0..holders.len()).filter(|at| is_lost(&holders[*at])).collect();
    wipe(&cluster, &[&a, &b]);
    let found = until_damaged(&cluster, |found| {
        found.len() == 1 && found[0]["damage"].as_array().unwrap().len() == lost.len()
    });
    assert_eq!((&found[0]["path"], &found[0]["size"]), (&"/precious".into(), &content.len().into()));
    for (damage, index) in found[0]["damage"].as_array().unwrap().iter().zip(&lost) {
        let (from, to) = (index * CHUNK, ((index + 1) * CHUNK).min(content.len()));
        assert_eq!(damage["ranges"], serde_json::json!([{ "from": from, "to": to }]), "{damage}");
    }
    assert_eq!(damaged(&cluster, &[&name]).0, 1);
    // Reading it is an error in time; what is not lost is there.
    read_at(&path, 10, 100).unwrap_err();
    for index in (0..holders.len()).filter(|index| !lost.contains(index)) {
        let (from, to) = (index * CHUNK, ((index + 1) * CHUNK).min(content.len()));
        assert!(read_at(&path, from, to - from).unwrap() == content[from..to], "chunk {index}");
    }
    // Anything but its name changes nothing.
    for answer in ["", "y\n", "Precious\n"] {
        let (code, text) = dfs(&cluster, &["repair-file", &name], answer);
        assert!(code == 1 && text.contains("nothing was changed"), "{answer:?}: {text}");
    }
    assert_eq!(damaged(&cluster, &[&name]).0, 1);
    let (code, text) = dfs(&cluster, &["repair-file", &name], "precious\n");
    assert!(code == 0 && text.contains("bytes 0-65535") && text.contains("can be read again"), "{text}");
    assert_eq!(damaged(&cluster, &[]), (0, Vec::new()));
    let mut expected = content;
    for index in &lost {
        let to = ((index + 1) * CHUNK).min(expected.len());
        expected[index * CHUNK..to].fill(0);
    }
    assert!(read_at(&path, 0, expected.len()).unwrap() == expected);
    // And it is a file like any other.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"once more", 5).unwrap();
    file.sync_all().unwrap();
    drop(file);
    expected[5..14].copy_from_slice(b"once more");
    remount(&cluster);
    assert!(read_at(&path, 0, expected.len()).unwrap() == expected);
    // The servers that are no more had replicas; nobody can look at those.
    until_repaired(&cluster);
}

#[test]
fn a_rotten_block_of_the_only_replica_costs_that_block() {
    let cluster =
        Cluster::up(&["--servers", "2", "--replicas", "1", "--chunk-size", "65536", "-o", "soft,timeo=30"]);
    let path = cluster.path("rotten");
    let name = path.display().to_string();
    let content = bytes(2 * CHUNK);
    write(&path, &content);
    let info = cluster.json(&["file", "info", &name]);
    let chunk = chunk_name(&info, 1);
    let holder = members(&cluster, &path)[1][0].clone();
    cluster.dev("stop", &["mount"]);
    let file =
        fs::OpenOptions::new().read(true).write(true).open(replica(&cluster, &holder, &chunk)).unwrap();
    for block in [5_u64, 6, 9] {
        let at = 131_072 + block * BLOCK as u64 + 17;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }
    cluster.dev("start", &["mount"]);
    read_at(&path, CHUNK + 5 * BLOCK, BLOCK).unwrap_err();
    let found = until_damaged(&cluster, |found| !found.is_empty());
    let from = CHUNK + 5 * BLOCK;
    let first = &found[0]["damage"][0]["ranges"][0];
    assert_eq!(first["from"], from, "{found:?}");
    // The repair looks at all of it, and shows all three.
    let (code, text) = dfs(&cluster, &["repair-file", "--yes", &name], "");
    let ranges =
        format!("bytes {from}-{}, {}-{}", from + 2 * BLOCK - 1, from + 4 * BLOCK, from + 5 * BLOCK - 1);
    assert!(code == 0 && text.contains(&ranges), "{text}");
    let mut expected = content;
    for block in [5, 6, 9] {
        expected[CHUNK + block * BLOCK..CHUNK + (block + 1) * BLOCK].fill(0);
    }
    assert!(read_at(&path, 0, expected.len()).unwrap() == expected);
    assert_eq!(damaged(&cluster, &[]), (0, Vec::new()));
}

#[test]
fn fsck_finds_a_file_that_somebody_removed_and_changes_nothing() {
    let cluster = Cluster::up(&["--chunk-size", "65536"]);
    let path = cluster.path("file");
    sh(&cluster.mount(), "mkdir -p a/b && ln -s a/b link && touch a/one && ln a/one a/two");
    write(&path, &bytes(5 * CHUNK));
    let (code, text) = dfs(&cluster, &["fsck", "--verbose"], "");
    assert!(code == 0 && text.contains("clean: ") && text.contains("10 replicas"), "{code}: {text}");
    let info = cluster.json(&["file", "info", &path.display().to_string()]);
    let chunk = chunk_name(&info, 2);
    let holder = members(&cluster, &path)[2][1].clone();
    let kept = cluster.local("kept");
    fs::rename(replica(&cluster, &holder, &chunk), &kept).unwrap();
    let (code, text) = dfs(&cluster, &["fsck"], "");
    let line = text.lines().find(|line| line.contains(&chunk)).unwrap_or_else(|| panic!("{text}"));
    assert!(code == 1 && line.starts_with("replica: ") && line.contains("gone from the disk"), "{text}");
    let (code, text) = dfs(&cluster, &["--json", "fsck"], "");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, report["found"].as_array().unwrap().len()), (1, 1), "{report}");
    fs::rename(&kept, replica(&cluster, &holder, &chunk)).unwrap();
    assert_eq!(dfs(&cluster, &["fsck"], "").0, 0);
    // The log, without its master; which has it locked while it runs.
    let data = cluster.local("cluster/master").display().to_string();
    let (code, text) = dfs(&cluster, &["fsck", "--master-dir", &data], "");
    assert!(code == 2 && text.contains("process"), "{code}: {text}");
    cluster.dev("stop", &["mount"]);
    cluster.dev("kill", &["master"]);
    let sums = "find . -type f ! -name .lock | sort | xargs sha256sum";
    let before = sh(Path::new(&data), sums);
    let (code, text) = dfs(&cluster, &["fsck", "--master-dir", &data], "");
    assert!(code == 0 && text.contains("clean: "), "{code}: {text}");
    assert_eq!(sh(Path::new(&data), sums), before);
    let (code, text) = dfs(&cluster, &["fsck", "--master-dir", "/nowhere"], "");
    assert!(code == 2 && text.contains("no master's directory"), "{code}: {text}");
    // Nobody to ask is no clean cluster.
    assert_eq!(dfs(&cluster, &["fsck"], "").0, 2);
}
