//! What the log costs, on a real disk. `cargo test --release --test log -- --ignored --nocapture speed`
//! prints it; `DFS_BENCH_DIR` says where to write.

use std::time::Instant;

use dfs_disk::real::RealDisk;
use dfs_master::log::{LogConfig, Options, Record, init, recover};

use crate::support::{entry, hard_state, identity};

#[test]
#[ignore = "a measurement of some seconds and 200 MB"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn a_million_entries() {
    const ENTRIES: u64 = 1_000_000;
    const BATCH: u64 = 100;
    let parent = std::env::var("DFS_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let dir = std::path::Path::new(&parent).join(format!("log-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let disk = RealDisk::new(&dir).unwrap();
    init(&disk, &identity(), LogConfig::default()).unwrap();
    let mut writer = recover(&disk, Options::default()).unwrap().into_writer(LogConfig::default()).unwrap();
    writer.append(&[hard_state(1)]).unwrap();

    let batches: Vec<Vec<Record>> = (0..ENTRIES / BATCH)
        .map(|batch| (batch * BATCH + 1..=(batch + 1) * BATCH).map(|index| entry(index, 1)).collect())
        .collect();
    let begun = Instant::now();
    for batch in &batches {
        writer.append(batch).unwrap();
    }
    let appended = begun.elapsed();
    writer.sync().unwrap();
    println!("append: {:?} a record in batches of {BATCH}", appended / u32::try_from(ENTRIES).unwrap());

    let begun = Instant::now();
    let syncs = 200;
    for index in 1..=syncs {
        writer.append(&[entry(ENTRIES + index, 1)]).unwrap();
        writer.sync().unwrap();
    }
    println!("append and fdatasync: {:?}", begun.elapsed() / u32::try_from(syncs).unwrap());
    drop(writer);
    drop(disk);

    let disk = RealDisk::new(&dir).unwrap();
    let begun = Instant::now();
    let recovered = recover(&disk, Options::default()).unwrap();
    let scanned = begun.elapsed();
    let mut count = 0;
    for entry in recovered.replay(recovered.base().index) {
        count += u64::from(!entry.unwrap().data.is_empty());
    }
    println!("restart: {scanned:?} to check, {:?} in all, {count} entries", begun.elapsed());
    assert_eq!(count, ENTRIES + syncs);
    std::fs::remove_dir_all(&dir).unwrap();
}
