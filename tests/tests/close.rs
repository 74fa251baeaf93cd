//! Clean close with real processes: what nobody writes is closed, survives kills of everything without a recovery, and is
//! written again like any other file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;

use dfs_tests::cluster::Cluster;
use serde_json::Value;

const FILES: usize = 40;
const SERVERS: [&str; 3] = ["cs1", "cs2", "cs3"];

fn chunks(cluster: &Cluster, name: &str) -> Vec<Value> {
    let path = cluster.path(name).display().to_string();
    cluster.json(&["file", "info", &path])["chunks"].as_array().unwrap().clone()
}

fn contents(n: usize) -> Vec<u8> {
    (0..5000 + n * 70_001).map(|at| (at * 7 + n).to_le_bytes()[0]).collect()
}

fn is_closed(status: &Value) -> bool {
    status["servers_up"] == 3 && status["chunks_open"] == 0 && status["chunks_recovering"] == 0
}

#[test]
fn what_was_closed_outlives_every_process_without_a_recovery() {
    let cluster = Cluster::up(&["--chunk-size", "1048576", "--", "master", "--close-after", "1"]);
    for n in 0..FILES {
        let mut file = fs::File::create(cluster.path(&format!("f{n}"))).unwrap();
        file.write_all(&contents(n)).unwrap();
        file.sync_all().unwrap();
    }
    let names: Vec<String> = (0..FILES).map(|n| format!("f{n}")).collect();
    // The count is of the last walk over all chunks: the files are asked too.
    let all_closed = |status: &Value| {
        let of_files =
            || names.iter().flat_map(|name| chunks(&cluster, name)).all(|chunk| chunk["open"] == false);
        is_closed(status) && of_files()
    };
    cluster.wait_for("every chunk closed", all_closed);
    let before: Vec<Vec<Value>> = names.iter().map(|name| chunks(&cluster, name)).collect();
    SERVERS.iter().for_each(|server| drop(cluster.dev("kill", &[server])));
    cluster.dev("kill", &["master"]);
    cluster.dev("start", &["master"]);
    SERVERS.iter().for_each(|server| drop(cluster.dev("start", &[server])));
    cluster.wait_for("all servers", |status| status["servers_up"] == 3);
    for (n, name) in names.iter().enumerate() {
        assert!(fs::read(cluster.path(name)).unwrap() == contents(n), "{name}");
    }
    for (name, before) in names.iter().zip(&before) {
        for (now, then) in chunks(&cluster, name).iter().zip(before) {
            for field in ["version", "config", "open_num", "open"] {
                assert_eq!(now[field], then[field], "{name}: {field} of {now}");
            }
        }
    }
    // Written again, it is another opening, and closed again.
    let mut file = fs::OpenOptions::new().append(true).open(cluster.path("f7")).unwrap();
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(chunks(&cluster, "f7")[0]["open"], true);
    cluster.wait_for("every chunk closed again", all_closed);
    let chunk = &chunks(&cluster, "f7")[0];
    assert_eq!((&chunk["version"], &chunk["open_num"]), (&before[7][0]["version"], &Value::from(2)));
    SERVERS.iter().for_each(|server| drop(cluster.dev("kill", &[server])));
    SERVERS.iter().for_each(|server| drop(cluster.dev("start", &[server])));
    cluster.wait_for("all servers", |status| status["servers_up"] == 3);
    let whole = [contents(7), b"more".to_vec()].concat();
    assert!(fs::read(cluster.path("f7")).unwrap() == whole);
    assert_eq!(cluster.json(&["status"])["replicas_diverged"], 0);
}
