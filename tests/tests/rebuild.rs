//! All masters are gone, with real processes: the namespace comes back from the headers on chunk servers' disks, byte
//! for byte, and the cluster goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dfs_tests::cluster::{Cluster, binaries, refusal};
use serde_json::Value;

const SERVERS: [&str; 3] = ["cs1", "cs2", "cs3"];
const CHUNK: usize = 64 << 10;

type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 253 + seed * 31).to_le_bytes()[0]).collect()
}

fn make(cluster: &Cluster, tree: &mut Tree, name: &str, content: Vec<u8>) {
    let path = cluster.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&content).unwrap();
    file.sync_all().unwrap();
    tree.insert(PathBuf::from(name), content);
}

/// Every regular file below the mount.
fn read_tree(cluster: &Cluster) -> Tree {
    fn walk(root: &Path, dir: &Path, into: &mut Tree) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, into);
            } else {
                let name = path.strip_prefix(root).unwrap().to_path_buf();
                into.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut tree = Tree::new();
    walk(&cluster.mount(), &cluster.mount(), &mut tree);
    tree
}

fn assert_same(found: &Tree, expected: &Tree) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, content) in expected {
        let at = found[name].iter().zip(content).position(|(one, other)| one != other);
        assert!(
            found[name] == *content,
            "{}: {} bytes, differs at {at:?}",
            name.display(),
            found[name].len()
        );
    }
}

/// `dfs rebuild-namespace` of these servers' disks.
fn rebuild(cluster: &Cluster, servers: &[&str], args: &[&str]) -> Output {
    cluster.offline(&["rebuild-namespace"], servers, args)
}

/// Makes the master's directory anew; the report.
fn lose_master_and_rebuild(cluster: &Cluster, servers: &[&str], args: &[&str]) -> Value {
    let dir = cluster.master_dir();
    fs::remove_dir_all(&dir).unwrap();
    let to = dir.display().to_string();
    let output = rebuild(cluster, servers, &[&["--to", &to, "--json"], args].concat());
    assert!(output.status.success(), "{output:?}");
    let whole = fsck(Command::new(binaries().join("dfs")).args(["--json", "fsck", "--master-dir", &to]));
    assert!(whole.iter().all(|kind| kind == "below-goal"), "{whole:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The kinds of what a check found.
fn fsck(check: &mut Command) -> Vec<String> {
    let output = check.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), report["found"] == serde_json::json!([]), "{output:?}");
    report["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["kind"].as_str().unwrap().to_owned())
        .collect()
}

fn remarks<'a>(report: &'a Value, kind: &str) -> Vec<&'a Value> {
    report["remarks"].as_array().unwrap().iter().filter(|remark| remark["kind"] == kind).collect()
}

/// Files of many sizes, with a renamed directory, a file written over, and one that ends in a hole.
fn make_tree(cluster: &Cluster) -> Tree {
    let mut tree = Tree::new();
    for n in 0..20 {
        make(cluster, &mut tree, &format!("many/f{n}"), bytes(n * 7 + 1, n));
    }
    make(cluster, &mut tree, "a/b/c/big", bytes(5 * CHUNK + 77, 3));
    make(cluster, &mut tree, "a/first-name/in", bytes(CHUNK, 4));
    make(cluster, &mut tree, "a/rewritten", bytes(2 * CHUNK + 5, 5));
    // Written since the renaming, so that the next close tells its replicas.
    fs::rename(cluster.path("a/first-name"), cluster.path("a/moved")).unwrap();
    let content = tree.remove(Path::new("a/first-name/in")).unwrap();
    let mut file = OpenOptions::new().write(true).open(cluster.path("a/moved/in")).unwrap();
    file.write_all(&content[..1]).unwrap();
    file.sync_all().unwrap();
    tree.insert("a/moved/in".into(), content);
    file = OpenOptions::new().write(true).open(cluster.path("a/rewritten")).unwrap();
    file.seek(SeekFrom::Start(CHUNK as u64 - 100)).unwrap();
    file.write_all(&[0xee; 300]).unwrap();
    file.sync_all().unwrap();
    tree.get_mut(Path::new("a/rewritten")).unwrap()[CHUNK - 100..CHUNK + 200].fill(0xee);
    // Its end is a hole: only the master knew of it.
    file = OpenOptions::new().write(true).create_new(true).open(cluster.path("a/sparse")).unwrap();
    file.write_all(b"begins").unwrap();
    file.set_len(3 * CHUNK as u64 + 9).unwrap();
    file.sync_all().unwrap();
    tree.insert("a/sparse".into(), [b"begins".to_vec(), vec![0; 3 * CHUNK + 3]].concat());
    tree
}

/// What is refused, in one line, of a cluster that is stopped.
fn assert_refusals(cluster: &Cluster) {
    let elsewhere = cluster.local("elsewhere");
    let to = elsewhere.display().to_string();
    let lacking = refusal(&rebuild(cluster, &SERVERS[..2], &["--to", &to]));
    assert!(lacking.contains("--accept-missing-replicas"), "{lacking}");
    assert!(rebuild(cluster, &SERVERS, &["--to", &to, "--dry-run"]).status.success());
    assert!(!elsewhere.exists(), "nothing was to be written");
    let full = cluster.master_dir().display().to_string();
    let in_place = refusal(&rebuild(cluster, &SERVERS, &["--to", &full]));
    assert!(in_place.contains("not empty"), "{in_place}");
    let no_disk = Command::new(binaries().join("dfs"))
        .args(["rebuild-namespace", "--disk"])
        .arg(&full)
        .output()
        .unwrap();
    assert!(refusal(&no_disk).contains("disk.json"));
}

/// Old files are written, new ones come into old directories, through a kill of everything.
fn go_on(cluster: &Cluster, tree: &mut Tree) {
    let mut file = OpenOptions::new().append(true).open(cluster.path("a/b/c/big")).unwrap();
    file.write_all(&bytes(CHUNK, 8)).unwrap();
    file.sync_all().unwrap();
    drop(file);
    tree.get_mut(Path::new("a/b/c/big")).unwrap().extend(bytes(CHUNK, 8));
    for n in 0..5 {
        make(cluster, tree, &format!("a/b/new{n}"), bytes(CHUNK + n, 20 + n));
    }
    fs::remove_file(cluster.path("many/f0")).unwrap();
    tree.remove(Path::new("many/f0"));
    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("kill", &[member]);
    }
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
}

#[test]
fn a_tree_comes_back_and_the_cluster_goes_on() {
    let size = CHUNK.to_string();
    let cluster = Cluster::up(&["--chunk-size", &size, "--", "master", "--close-after", "1"]);
    let mut tree = make_tree(&cluster);
    let all_closed = |status: &Value| status["chunks_open"] == 0 && status["chunks_recovering"] == 0;
    // The count is of the last walk over all chunks, which may have been before.
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.wait_for("every chunk closed", all_closed);
    assert_same(&read_tree(&cluster), &tree);
    let running = refusal(&rebuild(&cluster, &SERVERS, &[]));
    assert!(running.contains("another process uses this disk"), "{running}");
    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("stop", &[member]);
    }
    assert_refusals(&cluster);

    let report = lose_master_and_rebuild(&cluster, &SERVERS, &[]);
    assert_eq!(report["files"].as_u64(), Some(tree.len() as u64));
    assert_eq!((&report["goal"], &report["generation"]), (&Value::from(2), &Value::from(2)));
    assert_eq!(report["chunk_size"].as_u64(), Some(CHUNK as u64));
    assert_eq!(remarks(&report, "hole").len(), 1, "{report}");
    assert_eq!(report["remarks"].as_array().unwrap().len(), 1, "{report}");
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert_same(&read_tree(&cluster), &tree);
    let mode = |name: &str| fs::metadata(cluster.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/rewritten"), mode("")), (0o700, 0o600, 0o700));
    cluster.wait_for("nothing to recover", |status| status["chunks_recovering"] == 0);
    let _ = cluster.dfs(&["fsck"]);
    go_on(&cluster, &mut tree);
    assert_same(&read_tree(&cluster), &tree);
    let _ = cluster.dfs(&["fsck"]);
}

#[test]
fn what_was_synced_just_before_comes_back_from_the_servers_that_are_left() {
    let size = CHUNK.to_string();
    let cluster = Cluster::up(&["--chunk-size", &size, "--", "master", "--close-after", "3600"]);
    let mut tree = Tree::new();
    for n in 0..12 {
        make(&cluster, &mut tree, &format!("d{}/f{n}", n % 3), bytes(n * 11_003 + 1, n));
    }
    // Longer before: what was cut off is on the disks still.
    make(&cluster, &mut tree, "cut", bytes(4 * CHUNK, 1));
    make(&cluster, &mut tree, "cut", bytes(100, 2));
    // In a kernel's page cache only: killed processes leave it there.
    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("kill", &[member]);
    }
    let left = &SERVERS[..2];
    let report = lose_master_and_rebuild(&cluster, left, &["--accept-missing-replicas"]);
    assert!(!remarks(&report, "missing").is_empty(), "{report}");
    // Each chunk has a replica on one of any two servers.
    assert_eq!(report["files"].as_u64(), Some(tree.len() as u64), "{report}");
    assert!(remarks(&report, "hole").is_empty(), "{report}");
    assert!(!remarks(&report, "left").is_empty(), "{report}");
    for member in ["master", "cs1", "cs2", "mount"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("two servers", |status| status["servers_up"] == 2 && status["hold"].is_null());
    assert_same(&read_tree(&cluster), &tree);
    cluster.wait_for("every chunk twice", |status| {
        status["chunks_below_goal"] == 0 && status["chunks_recovering"] == 0
    });
    // The third comes back: nothing of what it has is believed over what was rebuilt, and nothing stands still.
    cluster.dev("start", &["cs3"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    make(&cluster, &mut tree, "d0/more", bytes(3 * CHUNK, 9));
    assert_same(&read_tree(&cluster), &tree);
    // What was cut off has no place, and nothing deletes it.
    let master = cluster.dev("addr", &[]);
    let found =
        fsck(Command::new(binaries().join("dfs")).args(["--json", "fsck"]).env("DFS_MASTER", master.trim()));
    assert!(!found.is_empty() && found.iter().all(|kind| kind == "unknown"), "{found:?}");
}

#[test]
fn running_servers_that_have_lost_their_master_are_asked() {
    let size = CHUNK.to_string();
    let cluster = Cluster::up(&["--chunk-size", &size, "--", "master", "--close-after", "1"]);
    let mut tree = make_tree(&cluster);
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.wait_for("every chunk closed", |status| {
        status["chunks_open"] == 0 && status["chunks_recovering"] == 0
    });
    // More than one answer takes, of which some are open.
    for n in 0..600 {
        let path = cluster.path(&format!("few/f{n}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(&bytes(n, n)).unwrap();
        tree.insert(format!("few/f{n}").into(), bytes(n, n));
    }
    rustix::fs::syncfs(fs::File::open(cluster.mount()).unwrap()).unwrap();
    tree.retain(|name, content| !(name.starts_with("few") && content.is_empty()));
    let addrs = cluster.server_addrs();
    assert_eq!(addrs.len(), 3);
    let ask_servers =
        |addrs: &[String], args: &[&str]| cluster.ask_servers(&["rebuild-namespace"], addrs, args);
    let said = refusal(&ask_servers(&addrs, &[]));
    assert!(said.contains("has a master"), "{said}");
    cluster.dev("stop", &["mount"]);
    cluster.dev("kill", &["master"]);
    // Their leases end.
    std::thread::sleep(std::time::Duration::from_secs(7));
    let new = cluster.local("new").display().to_string();
    let nobody = [addrs.clone(), vec!["127.0.0.1:9".to_owned()]].concat();
    let said = refusal(&ask_servers(&nobody, &["--to", &new]));
    assert!(said.contains("127.0.0.1:9") && said.contains("--accept-missing-replicas"), "{said}");
    assert!(!Path::new(&new).exists(), "nothing was to be written");
    assert!(ask_servers(&nobody, &["--accept-missing-replicas"]).status.success());
    let made = ask_servers(&addrs, &["--json", "--to", &new]);
    assert!(made.status.success(), "{made:?}");
    let report: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(report["files"].as_u64(), Some(tree.len() as u64), "{}", report["remarks"]);
    assert_eq!((&report["servers"], &report["disks"]), (&Value::from(3), &Value::from(3)));
    // What the disks of the stopped servers say is the same.
    for member in SERVERS {
        cluster.dev("stop", &[member]);
    }
    let stopped = rebuild(&cluster, &SERVERS, &["--json"]);
    let again: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!(again, report);
    fs::remove_dir_all(cluster.master_dir()).unwrap();
    fs::rename(&new, cluster.master_dir()).unwrap();
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert_same(&read_tree(&cluster), &tree);
}
