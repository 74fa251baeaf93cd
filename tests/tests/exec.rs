//! A program that executes another closes files on the way, and the kernel asks the mount to flush them while it holds a lock of
//! that program. Alone in its process: every other test's new processes would have the file too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use dfs_tests::cluster::Cluster;

/// Readers of `/proc/PID/stat` wait for that lock. A mount that looked there while it was asked to flush waited for itself, and
/// everybody for it.
#[test]
fn an_exec_that_closes_a_file_goes_on_once_the_servers_do() {
    let cluster = Cluster::up(&["--servers", "2"]);
    let path = cluster.path("file");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&[1; 65536], 0).unwrap();
    file.sync_all().unwrap();
    for server in ["cs1", "cs2"] {
        cluster.dev("pause", &[server]);
    }
    file.write_all_at(&[2; 65536], 0).unwrap();
    // It has the descriptor until it executes.
    let mut child = Command::new("true").spawn().unwrap();
    // Long enough for the mount to look at it, which it does each second.
    for _ in 0..60 {
        assert!(child.try_wait().unwrap().is_none(), "what it closes is on no server");
        thread::sleep(Duration::from_millis(50));
    }
    for server in ["cs1", "cs2"] {
        cluster.resume(server);
    }
    assert!(child.wait().unwrap().success());
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [2; 65536]);
}
