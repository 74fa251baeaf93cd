//! A few power cuts of a cluster on real filesystems; `scripts/show/replication-2.sh` does hundreds. As root, with
//! loop devices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use dfs_tests::cluster::binaries;
use dfs_tests::real::power::{Options, Spread, run};
use dfs_tests::real::volume::FsKind;

fn three_cuts(fs: FsKind, spread: Spread) {
    let dir = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let options = Options { fs, spread, cuts: 3, seed: 1, dir, bin: binaries(), verbose: false };
    let report = run(&options).unwrap();
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert!(report.cuts >= 3 && report.synced > 0 && report.judged_bytes > 0, "{report}");
}

#[test]
fn what_was_synced_survives_cuts_of_everything_on_ext4() {
    three_cuts(FsKind::Ext4, Spread::One);
}

#[test]
fn what_was_synced_survives_cuts_of_everything_on_xfs() {
    three_cuts(FsKind::Xfs, Spread::One);
}

#[test]
fn what_was_synced_survives_cuts_of_one_host_or_all() {
    three_cuts(FsKind::Ext4, Spread::Each);
}
