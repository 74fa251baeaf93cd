//! What docs/operations.md says of disks, machines and mounts that are in trouble, done as it says, and what `dfs doctor`
//! finds: with real processes.
//! spread.rs adds a server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfs_tests::cluster::{Cluster, binaries, refusal, sh};
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

/// What `dfs doctor` says of a thing, by the level; `None` if it does not speak of it.
fn doctor(cluster: &Cluster, etc: &Path, what: &str) -> Option<(String, String)> {
    let master = cluster.dev("addr", &[]);
    let mut run = Command::new(binaries().join("dfs"));
    run.args(["--json", "doctor", "--etc"]).arg(etc).env("DFS_MASTER", master.trim());
    let output = run.output().unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let wrong = all.iter().any(|finding| finding["level"] == "wrong");
    assert_eq!(output.status.code(), Some(i32::from(wrong)), "{output:?}");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let finding = all.iter().find(|finding| finding["what"] == what)?;
    assert_eq!(text(finding, "level") == "good", finding["todo"] == "", "{finding}");
    Some((text(finding, "level"), text(finding, "found")))
}

#[test]
fn the_doctor_says_what_is_wrong() {
    let cluster = up();
    let etc = cluster.local("etc");
    let drop_ins = etc.join("systemd/system/dfs-chunkserver@a.service.d");
    fs::create_dir_all(etc.join("dfs")).unwrap();
    fs::create_dir_all(&drop_ins).unwrap();
    let write =
        |path: PathBuf, text: &str| fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    let file = etc.join("dfs/chunkserver-a.toml");
    let names = |what: &str| write(file.clone(), &format!("master = \"127.0.0.1:1\"\n{what}\n"));
    let disk = disk(&cluster, "cs1/disk").display().to_string();
    let (of_file, of_disk) = (file.display().to_string(), format!("disk {disk}"));
    let of_mount = format!("mount {}", cluster.mount().display());
    let said = |what: &str| doctor(&cluster, &etc, what).unwrap_or_else(|| panic!("nothing of {what}"));
    let level = |what: &str| said(what).0;

    names(&format!("disk = [\"{disk}\"]"));
    assert!(level(&of_file) == "good" && level("server cs1") == "good" && level(&of_mount) == "good");
    assert_eq!(said(&of_disk), ("wrong".to_owned(), "its unit must not write there".to_owned()));
    write(drop_ins.join("disks.conf"), &format!("[Service]\nReadWritePaths={disk}\n"));
    // On the machine's own file system, which works.
    assert_eq!(said(&of_disk), ("advice".to_owned(), "is no mount of its own".to_owned()));
    write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\ndfs-chunkserver:x:4711:4711::/:/bin/false\n");
    assert!(said(&of_disk).1.contains("belongs to user 0, not 4711"));
    fs::remove_file(etc.join("passwd")).unwrap();
    names("disk = [\"/dev/shm\"]");
    assert_eq!(said("disk /dev/shm"), ("wrong".to_owned(), "is on tmpfs".to_owned()));
    names("dsik = [\"/x\"]");
    assert!(level(&of_file) == "wrong" && said(&of_file).1.contains("dsik"));

    cluster.dev("kill", &["cs2"]);
    cluster.dev("kill", &["mount"]);
    cluster.wait_for("one down", |status| status["servers_up"] == 2);
    assert_eq!(said("server cs2"), ("wrong".to_owned(), "is down".to_owned()));
    assert_eq!(level(&of_mount), "wrong");
    cluster.dev("kill", &["master"]);
    assert_eq!(level("master"), "wrong");
    cluster.dev("start", &["master"]);
    cluster.dev("start", &["mount"]);
}

/// A mount that keeps others from a file: it loses what it has open, is told, and goes on.
#[test]
fn a_mount_is_evicted() {
    let cluster = Cluster::up(&["--", "master", "--session-lease-ms", "4000"]);
    let second = cluster.mount_again();
    let mut file = fs::File::create(cluster.path("kept")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    let sessions = || cluster.json(&["session", "list"])["sessions"].as_array().unwrap().clone();
    let before = sessions();
    assert_eq!(before.len(), 2);
    let evicted = before.iter().find(|session| session["open_files"] == 1).unwrap();
    let number = evicted["session"].to_string();
    let mut evict = Command::new(binaries().join("dfs"));
    evict.args(["--master", cluster.dev("addr", &[]).trim(), "session", "evict", &number]);
    let mut evict = evict.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut asked, mut answers) = (Vec::new(), evict.stdout.take().unwrap());
    while !asked.ends_with(b"): ") {
        let mut byte = [0];
        answers.read_exact(&mut byte).unwrap();
        asked.push(byte[0]);
    }
    // Not before: the start of a process closes its copy of the descriptor, which writes back.
    file.write_all(b", and not").unwrap();
    writeln!(evict.stdin.take().unwrap(), "{number}").unwrap();
    assert!(evict.wait().unwrap().success());
    // It is another one that the mount has now, if any; the other mount, which did nothing, kept its own.
    let left: Vec<String> = sessions().iter().map(|session| session["session"].to_string()).collect();
    let other =
        before.iter().map(|session| session["session"].to_string()).find(|other| *other != number).unwrap();
    assert!(left.contains(&other) && !left.contains(&number), "{left:?}");
    assert_eq!(fs::read(second.0.join("kept")).unwrap(), b"synced");
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(file.write_all(b"more").is_err(), "the descriptor is of a session that is no more");
    drop(file);
    fs::File::create(second.0.join("kept")).unwrap().write_all(b"theirs").unwrap();
    cluster.wait_for("the mount's new session", |status| status["sessions"] == 2);
    assert_eq!(fs::read(cluster.path("kept")).unwrap(), b"theirs");
    let unknown = refusal(&cluster.try_dfs(&["session", "evict", &number, "--yes"]));
    assert!(unknown.contains("dfs session list"), "{unknown}");
}

#[test]
fn what_a_helper_needs_is_in_one_file() {
    let cluster = up();
    let etc = cluster.local("etc");
    fs::create_dir_all(etc.join("dfs")).unwrap();
    let options = format!(
        "data = \"{}\"\nadmin = \"{}\"\n",
        cluster.master_dir().display(),
        cluster.dev("admin", &["master"]).trim()
    );
    fs::File::create(etc.join("dfs/master.toml")).unwrap().write_all(options.as_bytes()).unwrap();
    let bundle = |name: &str| {
        let file = cluster.local(name);
        let said =
            cluster.try_dfs(&["support-bundle", file.to_str().unwrap(), "--etc", etc.to_str().unwrap()]);
        (file, said)
    };
    let (file, said) = bundle("one.tar.gz");
    assert!(said.status.success(), "{said:?}");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let unpacked = cluster.local("unpacked");
    fs::create_dir(&unpacked).unwrap();
    sh(&unpacked, &format!("tar -xz --strip-components=1 -f {}", file.display()));
    let json =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(unpacked.join(name)).unwrap()).unwrap() };
    assert_eq!(json("cluster/servers.json")["servers"].as_array().unwrap().len(), 3);
    assert_eq!(json("cluster/status.json")["servers_up"], 3);
    assert!(json("doctor.json").as_array().unwrap().iter().any(|finding| finding["what"] == "master"));
    let text = |name: &str| fs::read_to_string(unpacked.join(name)).unwrap();
    assert!(text("daemons/master/metrics.txt").contains("dfs_master_"));
    assert!(text("daemons/master/options.toml").contains("admin"));
    assert!(text("machine/uname.txt").contains("Linux"));
    // What is there is not written over.
    assert!(refusal(&bundle("one.tar.gz").1).contains("exists"));
    // A master that is away is when it is needed most.
    cluster.dev("kill", &["master"]);
    let (_, said) = bundle("two.tar.gz");
    let words = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success() && words.contains("not in it: what the master says"), "{words}");
    assert!(words.contains("not in it: daemons/master/metrics.txt"), "{words}");
    cluster.dev("start", &["master"]);
}

#[test]
fn top_shows_what_is_moved_now() {
    let cluster = up();
    let looks = cluster.dfs(&["top", "--number", "2"]);
    assert_eq!(looks.matches("3 of 3 servers up").count(), 2, "{looks}");
    assert_eq!(looks.matches("cs2").count(), 2, "{looks}");
    let look = cluster.json(&["top"]);
    assert_eq!(look["servers"].as_array().unwrap().len(), 3);
    assert_eq!(look["status"]["servers_up"], 3);
    // Whoever is down comes first.
    cluster.dev("kill", &["cs2"]);
    cluster.wait_for("its end", |status| status["servers_up"] == 2);
    assert_eq!(cluster.json(&["top"])["servers"][0]["name"], "cs2");
}

/// Each process that `dfs ops` names, and what it is at; none of who does not answer.
fn ops(cluster: &Cluster, args: &[&str]) -> BTreeMap<String, Option<Vec<Value>>> {
    let report = cluster.json(&[&["ops"], args].concat());
    let daemons = report["daemons"].as_array().unwrap().iter();
    let at = |daemon: &Value| daemon["at"]["flights"].as_array().cloned();
    daemons.map(|daemon| (daemon["name"].as_str().unwrap().to_owned(), at(daemon))).collect()
}

#[test]
fn ops_shows_who_waits_for_whom() {
    let cluster = up();
    let at = cluster.path("f");
    sh(&cluster.mount(), "head -c 100000 /dev/urandom >f; sync f");
    let ino = fs::metadata(&at).unwrap().ino();
    let quiet = ops(&cluster, &["--min", "900"]);
    assert_eq!(quiet.len(), 5, "{quiet:?}");
    assert!(quiet.values().flatten().all(Vec::is_empty), "{quiet:?}");
    // A file has two of the three servers: with two of them stopped every one misses at least one.
    for server in ["cs1", "cs2"] {
        cluster.dev("pause", &[server]);
    }
    // A process of its own: from this one the start of `dfs` would close a copy of the descriptor, and wait as well.
    let mut writer =
        Command::new("sh").args(["-c", "echo more >>\"$0\" && sync \"$0\""]).arg(at).spawn().unwrap();
    // Each look waits for those that do not answer.
    let seen = (0..10).map(|_| ops(&cluster, &[])).find(|seen| {
        let mount = seen.iter().find(|(name, _)| name.starts_with("mount "));
        let flights = mount.and_then(|(_, flights)| flights.clone()).unwrap();
        let is = |flight: &Value, side: &str, op: &str| flight["side"] == side && flight["op"] == op;
        let program = flights.iter().any(|flight| {
            (is(flight, "program", "fsync") || is(flight, "program", "flush"))
                && flight["peer"].as_str().unwrap().starts_with("process ")
        });
        program && flights.iter().any(|flight| is(flight, "calls", "Write") && flight["ino"] == ino)
    });
    let seen = seen.expect("a program that waits, and what it waits for");
    let silent: Vec<&str> =
        seen.iter().filter(|(_, at)| at.is_none()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(silent, ["chunk server cs1", "chunk server cs2"]);
    let words = cluster.dfs(&["ops"]);
    assert!(words.contains("chunk server cs1 does not say") && words.contains("under way: "), "{words}");
    for server in ["cs1", "cs2"] {
        cluster.resume(server);
    }
    assert!(writer.wait().unwrap().success());
    let late = cluster.json(&["ops", "--number", "1000"]);
    let slow = |daemon: &Value| daemon["at"]["slow"].as_array().unwrap().clone();
    let slow: Vec<Value> = late["daemons"].as_array().unwrap().iter().flat_map(slow).collect();
    assert!(slow.iter().any(|flight| flight["op"] == "Write" && flight["ino"] == ino), "{late}");
}
