//! A server is stopped on purpose while a program writes and reads, and comes back: nobody waits, and nothing is copied.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "real processes take real time, and programs write as they like"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dfs_tests::cluster::{Cluster, binaries, refusal};

const CHUNK: usize = 65_536;

/// Writes over a file with a sync each time; how often, and the longest time that one took, in ms.
fn churn(path: &Path, stop: &AtomicBool, rounds: &AtomicU64) -> u128 {
    let mut file = fs::File::create(path).unwrap();
    let mut slowest = 0;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        file.write_all(b"a line of a log\n").unwrap();
        file.sync_data().unwrap();
        slowest = slowest.max(began.elapsed().as_millis());
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    slowest
}

#[test]
fn a_server_goes_and_comes_back_and_nothing_is_made_anew() {
    let cluster = Cluster::up(&["--servers", "4", "--replicas", "3", "--chunk-size", "65536"]);
    for n in 0..20 {
        fs::write(cluster.path(&format!("f{n}")), vec![7_u8; 2 * CHUNK + n]).unwrap();
    }
    let path = cluster.path("busy");
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let slowest = std::thread::scope(|scope| {
        let program = scope.spawn(|| churn(&path, &stop, &rounds));
        while rounds.load(Ordering::Relaxed) < 3 && !program.is_finished() {
            std::thread::yield_now();
        }
        // The primary of what is written.
        let name = cluster.holders(&path)[0].clone();
        let text = cluster.dfs(&["server", "maintenance", &name, "--for", "10m"]);
        assert!(text.contains("it can be stopped now"), "{text}");
        assert!(cluster.dfs(&["status"]).contains(&format!("{name} (up), 9 min")));
        let replicas = |name: &str| {
            let list = cluster.json(&["server", "list"]);
            let all = list["servers"].as_array().unwrap().clone();
            all.iter().find(|server| server["name"] == name).unwrap()["replicas"].as_u64().unwrap()
        };
        let had = replicas(&name);
        assert!(had > 5, "{had}");
        // Killed, and silent for longer than a lease.
        cluster.dev("kill", &[&name]);
        std::thread::sleep(Duration::from_secs(8));
        assert_eq!(replicas(&name), had, "what it has is kept");
        assert!(cluster.dfs(&["server", "list"]).contains("down, maintenance for 9 min"));
        cluster.dev("start", &[&name]);
        cluster.wait_for("the server is back", |status| status["servers_up"] == 4);
        let text = cluster.dfs(&["server", "maintenance", &name, "--end"]);
        assert!(text.contains("no longer in maintenance"), "{text}");
        cluster.wait_for("all as it was", |status| status["chunks_below_goal"] == 0);
        stop.store(true, Ordering::Relaxed);
        program.join().unwrap()
    });
    assert!(slowest < 3_000, "a write waited {slowest} ms for a lease");
    assert!(!cluster.dfs(&["fsck"]).is_empty());
}

#[test]
fn the_only_replica_is_not_let_go_unasked() {
    let cluster = Cluster::up(&["--servers", "3", "--replicas", "1", "--chunk-size", "65536"]);
    let path = cluster.path("f");
    fs::write(&path, b"x").unwrap();
    let name = cluster.holders(&path)[0].clone();
    cluster.wait_for("it is known", |_| {
        let list = cluster.json(&["server", "list"]);
        let all = list["servers"].as_array().unwrap().clone();
        all.iter().any(|server| server["name"] == name.as_str() && server["stake"]["sole"].as_u64() > Some(0))
    });
    let mut order = Command::new(binaries().join("dfs"));
    order.args(["server", "maintenance", &name]).env("DFS_MASTER", cluster.dev("addr", &[]).trim());
    let said = refusal(&order.output().unwrap());
    assert!(said.contains("only good replica is there"), "{said}");
    let text = cluster.dfs(&["server", "maintenance", &name, "--force"]);
    assert!(text.contains("can't be read while it is away"), "{text}");
}
