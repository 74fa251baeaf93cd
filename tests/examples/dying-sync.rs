//! Why power cuts do not count a sync that returns while a filesystem is being shut down: nothing of dfs runs here, four
//! threads write and fdatasync, and after a mount some of what was acknowledged is not there.
//!
//! `cargo run --release -p dfs-tests --example dying-sync -- ext4 25`, as root.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use dfs_tests::real::threads;
use dfs_tests::real::volume::{FsKind, SharedDir, Volume};

const THREADS: u64 = 4;
const BLOCK: u64 = 8192;
const BLOCKS: u64 = 4096;

/// Where the write of that number goes: each to a place that was never written.
const fn place(number: u64) -> u64 {
    number * 1531 % BLOCKS * BLOCK
}

fn bytes(number: u64) -> Vec<u8> {
    (0..BLOCK / 8).flat_map(|_| (number + 1).to_le_bytes()).collect()
}

/// Writes and syncs until that fails: how many syncs were acknowledged before the end began, and how many in all.
fn work(path: &Path, dying: &AtomicBool) -> (u64, u64) {
    let made = File::options().write(true).create_new(true).open(path);
    let Ok(file) = made.and_then(|file| file.sync_all().map(|()| file)) else { return (0, 0) };
    let mut before = 0;
    for number in 0..BLOCKS {
        if file.write_all_at(&bytes(number), place(number)).and_then(|()| file.sync_data()).is_err() {
            return (before, number);
        }
        if !dying.load(Ordering::SeqCst) {
            before = number + 1;
        }
    }
    (before, BLOCKS)
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let kind: FsKind =
        args.next().context("ext4 or xfs?")?.parse().map_err(|text: String| anyhow::anyhow!(text))?;
    let runs: u64 = args.next().map_or(Ok(10), |text| text.parse())?;
    let (mut early, mut early_lost, mut late, mut late_lost) = (0, 0, 0, 0);
    for run in 0..runs {
        let dir = tempfile::TempDir::with_prefix_in("dfs-dying.", "/var/tmp")?;
        let under = SharedDir::new(&dir.path().join("under"))?;
        let at = dir.path().join("under/fs");
        let mut volume = Volume::create(kind, &dir.path().join("image"), 1 << 30, &at)?;
        let dying = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for number in 0..THREADS {
            let (path, dying) = (at.join(number.to_string()), Arc::clone(&dying));
            workers.push(threads::spawn("worker".to_owned(), move || work(&path, &dying))?);
        }
        std::thread::sleep(Duration::from_millis(20 + run * 37 % 200));
        dying.store(true, Ordering::SeqCst);
        volume.cut()?;
        let mut acknowledged = Vec::new();
        for worker in workers {
            acknowledged.push(worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
        }
        volume.unmount()?;
        volume.mount()?;
        for (name, (before, all)) in acknowledged.into_iter().enumerate() {
            let file = File::open(at.join(name.to_string()));
            let lost = |number: u64| {
                let mut found = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
                let read =
                    file.as_ref().is_ok_and(|file| file.read_exact_at(&mut found, place(number)).is_ok());
                !read || found != bytes(number)
            };
            early += before;
            late += all - before;
            early_lost += (0..before).filter(|number| lost(*number)).count();
            late_lost += (before..all).filter(|number| lost(*number)).count();
        }
        drop((volume, under));
    }
    println!(
        "{kind}, {runs} runs: of {early} syncs acknowledged before the shutdown {early_lost} are lost, of {late} acknowledged while it began {late_lost}"
    );
    Ok(())
}
