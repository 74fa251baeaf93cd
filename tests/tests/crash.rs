//! A few images that a power cut may leave; `scripts/show/replication-2.sh` looks at thousands. As root, with loop
//! devices and FUSE.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use dfs_tests::crash::{Options, run};

#[test]
fn images_of_a_cut_hold_what_was_synced() {
    let report = run(&Options { images: 50, seed: 1, dir: PathBuf::from("/dev/shm") }).unwrap();
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert_eq!((report.images, report.unmountable), (50, 0), "{report}");
    assert!(report.flushes > 100, "the work is too short to mean anything: {report}");
}
