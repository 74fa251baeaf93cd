//! The quickest rows of the matrix of real faults; `scripts/show/replication-2.sh` runs all. As root, with network
//! namespaces, FUSE and nftables.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::time::Duration;

use dfs_tests::cluster::binaries;
use dfs_tests::real::matrix::{Options, ROWS, run};

/// What other tests beside this one may cost.
const SLACK: Duration = Duration::from_secs(4);

fn is_green(name: &str) {
    let row = ROWS.iter().find(|row| row.name == name).unwrap();
    let dir = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let report = run(row, &Options { seed: 1, dir, bin: binaries(), slack: SLACK }).unwrap();
    assert!(report.violations.is_empty(), "{report}\n{:#?}", report.violations);
    assert!(report.chunks > 0 && report.synced > 0, "{report}");
}

#[test]
fn a_killed_primary_that_comes_back_at_once() {
    is_green("restart-primary");
}

#[test]
fn a_killed_master() {
    is_green("kill-master");
}

#[test]
fn a_paused_primary() {
    is_green("pause-1");
}

#[test]
fn a_disk_whose_writes_fail() {
    is_green("eio-write");
}

#[test]
fn servers_that_reach_all_but_each_other() {
    is_green("cut-servers");
}

#[test]
fn disks_that_are_full_all_at_once() {
    is_green("full-all");
}

#[test]
fn a_server_that_is_left_out_while_disks_are_full() {
    is_green("full-pause");
}
