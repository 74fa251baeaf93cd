//! All masters are gone, with real processes: the copies of the master's log that chunk servers keep bring the namespace
//! back as it was, empty files, links, modes and attributes included; and a copy that lacks the last records leads to HOLD,
//! from which the operator is led out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dfs_tests::cluster::{Cluster, binaries, refusal, sh};
use serde_json::Value;

const SERVERS: [&str; 3] = ["cs1", "cs2", "cs3"];

/// What a program can tell of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    ino: u64,
    size: u64,
    mtime_ns: i64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The users' attributes of a name; those of a link are not theirs to set.
fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..n].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(n);
        (name.to_vec(), value)
    };
    names.map(value).collect()
}

fn set_xattr(path: &Path, name: &str, value: &str) {
    rustix::fs::setxattr(path, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
}

/// Every name below the mount.
fn tree(cluster: &Cluster) -> BTreeMap<PathBuf, Seen> {
    fn walk(root: &Path, dir: &Path, into: &mut BTreeMap<PathBuf, Seen>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                fs::read(&path).unwrap()
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            let seen = Seen {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                links: meta.nlink(),
                ino: meta.ino(),
                size: meta.size(),
                mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
                content,
                xattrs: xattrs(&path),
            };
            into.insert(path.strip_prefix(root).unwrap().to_path_buf(), seen);
            if meta.is_dir() {
                walk(root, &path, into);
            }
        }
    }
    let mut tree = BTreeMap::new();
    walk(&cluster.mount(), &cluster.mount(), &mut tree);
    tree
}

fn write(cluster: &Cluster, name: &str, content: &[u8]) {
    let mut file = fs::File::create(cluster.path(name)).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

/// Some of everything, `round` after `round`.
fn make(cluster: &Cluster, round: u32) {
    let at = |name: &str| cluster.path(&format!("r{round}/{name}"));
    fs::create_dir_all(at("deep/er")).unwrap();
    fs::create_dir(at("empty-dir")).unwrap();
    for n in 0..20 {
        fs::File::create(at(&format!("deep/empty{n}"))).unwrap();
    }
    write(cluster, &format!("r{round}/data"), &vec![u8::try_from(round).unwrap() + 1; 200_000]);
    fs::hard_link(at("data"), at("deep/other-name")).unwrap();
    symlink("../data", at("deep/er/link")).unwrap();
    fs::rename(at("deep/empty0"), at("renamed")).unwrap();
    fs::remove_file(at("deep/empty1")).unwrap();
    set_xattr(&at("data"), "user.colour", "blue");
    set_xattr(&at("empty-dir"), "user.of-dir", "yes");
    let script = "chmod 2751 deep/er; chmod 4711 renamed; chown 12:34 deep/empty2; mkfifo pipe";
    sh(&cluster.path(&format!("r{round}")), script);
}

/// What the servers of the cluster say that they lack of the log, all up and in this generation.
fn all_whole(status: &Value) -> bool {
    let copies = status["copies"].as_array().unwrap();
    status["servers_up"] == 3
        && copies.len() == 3
        && copies.iter().all(|copy| copy["behind"] == 0 && copy["index"].as_u64().unwrap() > 0)
}

fn recover(cluster: &Cluster, servers: &[&str], args: &[&str]) -> Output {
    cluster.offline(&["recover", "--from-servers"], servers, args)
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn start(cluster: &Cluster, members: &[&str]) {
    members.iter().for_each(|member| drop(cluster.dev("start", &[member])));
}

fn stop(cluster: &Cluster, members: &[&str]) {
    members.iter().for_each(|member| drop(cluster.dev("stop", &[member])));
}

fn kill(cluster: &Cluster, members: &[&str]) {
    members.iter().for_each(|member| drop(cluster.dev("kill", &[member])));
}

fn assert_clean(cluster: &Cluster) {
    cluster.wait_for("nothing to recover", |status| status["chunks_recovering"] == 0);
    assert!(cluster.dfs(&["fsck"]).contains("clean"));
}

#[test]
fn a_lost_master_comes_back_as_it_was() {
    let cluster = Cluster::up(&["--chunk-size", "65536", "--", "master", "--snapshot-records", "40"]);
    for round in 0..6 {
        make(&cluster, round);
    }
    // The last records go with the log, not with a snapshot.
    cluster.wait_for("two snapshots", |status| status["snapshot_index"].as_u64().unwrap() > 80);
    cluster.wait_for("copies of all", all_whole);
    let before = tree(&cluster);
    assert!(refusal(&recover(&cluster, &SERVERS, &[])).contains("another process uses this disk"));
    kill(&cluster, &["master"]);
    fs::remove_dir_all(cluster.master_dir()).unwrap();
    kill(&cluster, &["mount", "cs1", "cs2", "cs3"]);

    let looked = report(&recover(&cluster, &SERVERS, &["--json"]));
    assert_eq!(looked["copies"].as_array().unwrap().len(), 3, "{looked}");
    for copy in looked["copies"].as_array().unwrap() {
        assert!(copy["usable"]["snapshot"].as_u64().unwrap() > 0, "{looked}");
    }
    assert_eq!(looked["missing"], 0, "{looked}");
    assert!(!cluster.master_dir().exists(), "looking writes nothing");
    // Damage in the best one: another is as good.
    let best = PathBuf::from(looked["best"].as_str().unwrap());
    damage(&best);
    let to = cluster.master_dir().display().to_string();
    let made = recover(&cluster, &SERVERS, &["--to", &to]);
    let screen = String::from_utf8(made.stdout.clone()).unwrap();
    assert!(made.status.success() && screen.contains("can't be used"), "{made:?}");
    assert!(screen.contains("no disk here remembers a later record"), "{screen}");
    assert!(refusal(&recover(&cluster, &SERVERS, &["--to", &to])).contains("not empty"));

    start(&cluster, &["master", "cs1", "cs2", "cs3", "mount"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert_eq!(tree(&cluster), before);
    assert_clean(&cluster);
    // The copies follow the new master, the damaged one's server with another.
    make(&cluster, 6);
    cluster.wait_for("copies of all", all_whole);
    let after = tree(&cluster);
    kill(&cluster, &["mount", "cs1", "cs2", "cs3", "master"]);
    start(&cluster, &["master", "cs1", "cs2", "cs3", "mount"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert_eq!(tree(&cluster), after);
}

/// Flips a byte in the middle of what each segment and each snapshot of a copy holds: of the log it may need only a few
/// records at the end.
fn damage(copy: &Path) {
    let files = ["log", "snapshot"].map(|dir| fs::read_dir(copy.join(dir)).unwrap());
    for file in files.into_iter().flatten() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[used / 2] ^= 0x10;
        fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    }
}

#[test]
fn a_copy_without_the_last_records_leads_to_hold_and_out_of_it() {
    let cluster = Cluster::up(&["--chunk-size", "65536", "--", "master", "--close-after", "1"]);
    make(&cluster, 0);
    // Chunks that are open when a server dies are recovered to a version of which the copy does not know.
    cluster.wait_for("copies of all, of closed chunks", |status| {
        all_whole(status) && status["chunks_open"] == 0 && status["chunks"].as_u64().unwrap() > 0
    });
    // One server's copy stays as it is; the others hear of more, and their disks are lost with the master.
    kill(&cluster, &["cs3"]);
    let before = tree(&cluster);
    let known = cluster.json(&["status"])["last_index"].as_u64().unwrap();
    make(&cluster, 1);
    cluster.wait_for("the others go on", |status| {
        let ahead = |copy: &&Value| copy["index"].as_u64().unwrap() > known && copy["behind"] == 0;
        status["copies"].as_array().unwrap().iter().filter(ahead).count() == 2
    });
    // A server that stops keeps what it heard; a killed one may have heard of some seconds' records more than it kept.
    stop(&cluster, &["mount", "cs1", "cs2"]);
    kill(&cluster, &["master"]);
    fs::remove_dir_all(cluster.master_dir()).unwrap();
    for server in ["cs1", "cs2"] {
        fs::remove_dir_all(cluster.local("cluster").join(server).join("disk/master-copy")).unwrap();
    }
    let to = cluster.master_dir().display().to_string();
    let lacking = report(&recover(&cluster, &SERVERS, &["--json"]));
    assert!(lacking["missing"].as_u64().unwrap() > 20, "{lacking}");
    let made = recover(&cluster, &SERVERS, &["--to", &to]);
    let screen = String::from_utf8(made.stdout.clone()).unwrap();
    assert!(made.status.success() && screen.contains("will be on hold"), "{made:?}");

    start(&cluster, &["master"]);
    // Servers that know more are not served before somebody decides, so their start does not end.
    let dir = cluster.local("cluster").display().to_string();
    let dfs = binaries().join("dfs");
    let waiting: Vec<_> = SERVERS
        .iter()
        .map(|server| Command::new(&dfs).args(["dev", "start", "--dir", &dir, server]).spawn().unwrap())
        .collect();
    cluster.wait_for("on hold", |status| status["hold"].is_string());
    let last = cluster.json(&["recover"])["last_index"].as_u64().unwrap();
    let _ = cluster.dfs(&["recover", "--accept-metadata-loss", &last.to_string()]);
    waiting.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    start(&cluster, &["mount"]);
    assert_eq!(tree(&cluster), before);
    assert_eq!(cluster.json(&["status"])["generation"], 2);
    // The copies are of the new generation; the server's old one is set aside, not lost.
    make(&cluster, 2);
    cluster.wait_for("copies of all", all_whole);
    kill(&cluster, &["mount", "master", "cs1", "cs2", "cs3"]);
    let both = report(&recover(&cluster, &["cs3"], &["--json"]));
    let generations: Vec<&Value> =
        both["copies"].as_array().unwrap().iter().map(|copy| &copy["generation"]).collect();
    assert_eq!(generations, [1, 2], "{both}");
    assert!(both["best"].as_str().unwrap().ends_with("/b"), "{both}");
    let old = report(&recover(&cluster, &["cs3"], &["--json", "--generation", "1"]));
    assert!(old["best"].as_str().unwrap().ends_with("/a") && old["missing"].is_null(), "{old}");
    start(&cluster, &["master", "cs1", "cs2", "cs3", "mount"]);
}

#[test]
fn running_servers_that_have_lost_their_master_give_their_copies() {
    let cluster = Cluster::up(&["--chunk-size", "65536", "--", "master", "--snapshot-records", "40"]);
    for round in 0..3 {
        make(&cluster, round);
    }
    cluster.wait_for("copies of all, with a snapshot", |status| {
        all_whole(status) && status["snapshot_index"].as_u64().unwrap() > 0
    });
    let before = tree(&cluster);
    let addrs = cluster.server_addrs();
    let ask =
        |addrs: &[String], args: &[&str]| cluster.ask_servers(&["recover", "--from-servers"], addrs, args);
    let scratch = cluster.local("scratch");
    fs::create_dir(&scratch).unwrap();
    let scratch_arg = scratch.display().to_string();
    let said = refusal(&ask(&addrs, &["--scratch", &scratch_arg]));
    assert!(said.contains("has a master"), "{said}");
    kill(&cluster, &["mount", "master"]);
    fs::remove_dir_all(cluster.master_dir()).unwrap();
    // Until their leases are over they say that they have a master.
    let mut looked = ask(&addrs, &["--json", "--scratch", &scratch_arg]);
    for _ in 0..60 {
        if looked.status.success() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
        looked = ask(&addrs, &["--json", "--scratch", &scratch_arg]);
    }
    let looked = report(&looked);
    assert_eq!(looked["copies"].as_array().unwrap().len(), 3, "{looked}");
    assert_eq!(looked["missing"], 0, "{looked}");
    let nobody = [addrs.clone(), vec!["127.0.0.1:9".to_owned()]].concat();
    let to = cluster.master_dir().display().to_string();
    let said = refusal(&ask(&nobody, &["--to", &to]));
    assert!(said.contains("127.0.0.1:9") && said.contains("leave it out"), "{said}");
    assert!(!cluster.master_dir().exists(), "nothing was to be written");
    let made = ask(&addrs, &["--to", &to, "--scratch", &scratch_arg]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "what was fetched is removed");
    // The servers ran all the while.
    start(&cluster, &["master", "mount"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3 && status["hold"].is_null());
    assert_eq!(tree(&cluster), before);
    assert_clean(&cluster);
}
