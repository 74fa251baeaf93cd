//! A server is emptied with real processes, while a program writes and reads, and turned off: nobody notices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dfs_tests::cluster::{Cluster, binaries, refusal};

const CHUNK: usize = 65_536;

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 5 + seed) % 251).unwrap()).collect()
}

fn server<'a>(list: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    list["servers"].as_array().unwrap().iter().find(|server| server["name"] == name).unwrap()
}

/// Writes a file anew and reads it back, over and over, with a sync each time. How often it did.
fn churn(path: &Path, stop: &AtomicBool, rounds: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let round = usize::try_from(rounds.load(Ordering::Relaxed)).unwrap();
        let expected = bytes(round, 3 * CHUNK + 77);
        let mut file = fs::File::create(path).unwrap();
        file.write_all(&expected).unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert!(fs::read(path).unwrap() == expected, "round {round}");
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_drained_server_can_be_turned_off() {
    let cluster = Cluster::up(&["--servers", "4", "--replicas", "2", "--chunk-size", "65536"]);
    for n in 0..20 {
        fs::File::create(cluster.path(&format!("f{n}")))
            .unwrap()
            .write_all(&bytes(n, 2 * CHUNK + n))
            .unwrap();
    }
    let names = cluster.json(&["server", "list"]);
    let name = names["servers"][1]["name"].as_str().unwrap().to_owned();
    assert!(server(&names, &name)["replicas"].as_u64().unwrap() > 5, "{names}");
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let path = cluster.path("busy");
    std::thread::scope(|scope| {
        let program = scope.spawn(|| churn(&path, &stop, &rounds));
        let three_more = || {
            let then = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < then + 3 && !program.is_finished() {
                std::thread::yield_now();
            }
        };
        let text = cluster.dfs(&["server", "drain", &name, "--wait"]);
        assert!(text.contains("safe to remove"), "{text}");
        // New chunks go elsewhere.
        three_more();
        let list = cluster.json(&["server", "list"]);
        assert_eq!(server(&list, &name)["replicas"], 0, "{list}");
        assert_eq!(server(&list, &name)["draining"], true);
        // What it had is on others, as often as it should be: it can go.
        cluster.dev("kill", &[&name]);
        three_more();
        stop.store(true, Ordering::Relaxed);
    });
    let status = cluster.json(&["status"]);
    assert_eq!(
        (&status["chunks_below_goal"], &status["chunks_recovering"]),
        (&0.into(), &0.into()),
        "{status}"
    );
    for n in 0..20 {
        assert!(fs::read(cluster.path(&format!("f{n}"))).unwrap() == bytes(n, 2 * CHUNK + n), "f{n}");
    }
    cluster.dev("start", &[&name]);
    cluster.wait_for("the server is back", |status| status["servers_up"] == 4);
    let text = cluster.dfs(&["server", "undrain", &name]);
    assert!(text.contains("takes replicas again"), "{text}");
    assert!(!cluster.dfs(&["fsck"]).is_empty());
}

#[test]
fn the_last_that_take_replicas_are_not_drained() {
    let cluster = Cluster::up(&["--servers", "2", "--replicas", "2"]);
    let path = cluster.path("f");
    fs::File::create(&path).unwrap().write_all(b"x").unwrap();
    // A server that joined last gets its replica later.
    cluster.wait_for("two replicas", |_| cluster.holders(&path).len() == 2);
    let names = cluster.json(&["server", "list"]);
    let [one, other] = [0, 1].map(|at| names["servers"][at]["name"].as_str().unwrap());
    let refused = |server: &str| {
        let mut drain = Command::new(binaries().join("dfs"));
        drain.args(["server", "drain", server]).env("DFS_MASTER", cluster.dev("addr", &[]).trim());
        refusal(&drain.output().unwrap())
    };
    let said = refused(one);
    assert!(said.contains("1 other servers take replicas, and the goal is 2"), "{said}");
    let said = cluster.dfs(&["server", "drain", one, "--force"]);
    assert!(said.contains("is being drained: 1 replicas left"), "{said}");
    let said = refused(other);
    assert!(said.contains("is not drained: 0 other servers"), "nobody would be left to write to: {said}");
    let list = cluster.json(&["server", "list"]);
    assert_eq!(
        (&server(&list, one)["draining"], &server(&list, other)["draining"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        server(&list, one)["replicas"],
        server(&list, other)["replicas"],
        "what has no other place stays"
    );
}
