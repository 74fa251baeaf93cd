//! What a file costs in memory, how long a clone takes, and how fast a snapshot is written and loaded.
//!
//! `cargo run --release -p dfs-master --example memory [FILES] [FILES_PER_DIRECTORY]`
//!
//! Each file has a 12-byte name, one chunk, and times as a file has that was written after it was made.
//! A record of 40 bytes a chunk stands for the chunk map. Exits 1 above 160 bytes a file.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dfs_master::core::namespace::{Caller, Namespace, NamespaceReader, RootSpec};
use dfs_master::core::ops::{Commit, Create, Mkdir, NsCommand, NsOutcome, SetChunk};
use dfs_master::core::table::CowTable;
use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::SetTime;
use dfs_proto::units::{ChunkIndex, ChunkSize, Timespec};

/// The promise of the design, in bytes a file.
const LIMIT: usize = 160;

/// Counts the bytes that are allocated now.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn argument(at: usize, default: u64) -> u64 {
    std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Milliseconds apart, with all nanoseconds in use.
fn time(step: u64) -> Timespec {
    let ns = step * 1_234_567;
    let nsec = u32::try_from(ns % 1_000_000_000).unwrap_or(0);
    Timespec { sec: 1_795_000_000 + i64::try_from(ns / 1_000_000_000).unwrap_or(0), nsec }
}

fn made(ns: &mut Namespace, command: &NsCommand) -> Ino {
    match ns.apply(command) {
        Ok(NsOutcome::Attr(attr)) => attr.ino,
        other => panic!("{command:?}: {other:?}"),
    }
}

fn build(files: u64, per_dir: u64, chunk_map: &mut CowTable<[u64; 5]>) -> Namespace {
    let root = RootSpec { uid: 0, gid: 0, mode: 0o755, now: time(0) };
    let mut ns = Namespace::new(ChunkSize::DEFAULT, root);
    let by = Caller { uid: 0, gid: 1000, groups: None };
    let mut parent = Ino::ROOT;
    for n in 0..files {
        if n % per_dir == 0 {
            let name = format!("dir{:09}", n / per_dir).into_bytes().into();
            let mkdir = Mkdir { parent: Ino::ROOT, name, mode: 0o755, now: time(n), by: by.clone() };
            parent = made(&mut ns, &NsCommand::Mkdir(mkdir));
        }
        let name = format!("file{n:08}").into_bytes().into();
        let create = Create { parent, name, mode: 0o644, now: time(n), by: by.clone() };
        let ino = made(&mut ns, &NsCommand::Create(create));
        let chunk = ChunkId(1 << 48 | n);
        let set = SetChunk { ino, index: ChunkIndex(0), chunk };
        ns.apply(&NsCommand::SetChunk(set)).expect("a new file has a hole");
        chunk_map.insert(chunk.0, [n; 5]);
        let commit = Commit {
            ino,
            size_epoch: SizeEpoch(0),
            size_at_least: Some(n % 1_000_000 + 1),
            mtime: Some(SetTime::Now),
            atime: None,
            clear_privileges: false,
            now: time(n + 1000),
        };
        ns.apply(&NsCommand::Commit(commit)).expect("the epoch is the first");
    }
    ns
}

fn main() {
    let (files, per_dir) = (argument(1, 1_000_000).max(1), argument(2, 1000).max(1));
    let count = usize::try_from(files).expect("so many files fit no memory");

    let (before, start) = (ALLOCATED.load(Ordering::Relaxed), Instant::now());
    let mut chunk_map = CowTable::new();
    let mut ns = build(files, per_dir, &mut chunk_map);
    let built = start.elapsed();
    let all = ALLOCATED.load(Ordering::Relaxed) - before;
    println!("{files} files, {per_dir} in each directory, built in {:.2} s", built.as_secs_f64());
    println!("{} bytes a file all in", all / count);

    let start = Instant::now();
    let clone = ns.clone();
    println!("clone: {:.4} ms", start.elapsed().as_secs_f64() * 1e3);

    let start = Instant::now();
    let mkdir = Mkdir {
        parent: Ino::ROOT,
        name: b"after".to_vec().into(),
        mode: 0o755,
        now: time(0),
        by: Caller::default(),
    };
    made(&mut ns, &NsCommand::Mkdir(mkdir));
    println!("first change after the clone: {:.4} ms", start.elapsed().as_secs_f64() * 1e3);

    let (mut blocks, mut bytes) = (Vec::new(), 0);
    let start = Instant::now();
    clone.write_sections(&mut |block: &[u8]| {
        bytes += block.len();
        blocks.push(block.to_vec());
    });
    println!("encoded {bytes} bytes in {:.3} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let mut reader = NamespaceReader::new();
    for block in &blocks {
        reader.block(block).expect("its own blocks");
    }
    let loaded = reader.finish().expect("its own blocks");
    println!("loaded in {:.3} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    assert_eq!(loaded.state_hash(), clone.state_hash(), "a snapshot changes nothing");
    println!("hashed twice in {:.3} s", start.elapsed().as_secs_f64());

    // Last, so that the allocator's tidying up falls into no measurement.
    let with_map = ALLOCATED.load(Ordering::Relaxed);
    drop(chunk_map);
    let of_map = with_map - ALLOCATED.load(Ordering::Relaxed);
    println!("of those {} in the namespace and {} in the chunk map", (all - of_map) / count, of_map / count);

    if all / count > LIMIT {
        eprintln!("above {LIMIT} bytes a file");
        std::process::exit(1);
    }
}
