//! Several threads at one store on a real filesystem: a reader never sees half a write, and is never told
//! that a block being written is corrupt.

use std::sync::atomic::{AtomicBool, Ordering};

use dfs_chunkserver::store::{ReadMode, Store, StoreError};
use dfs_disk::real::RealDisk;
use dfs_proto::ids::Seq;

use super::support::*;

const ROUNDS: u8 = 120;

fn real(open_files: usize) -> (tempfile::TempDir, Store<RealDisk>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    Store::init(&disk, &LABEL).unwrap();
    let (store, _) = open(&disk, config(1 << 20, open_files));
    (dir, store)
}

#[test]
fn readers_see_whole_writes() {
    let (_dir, store) = real(4);
    for n in 0..6 {
        store.create(header(id(n))).unwrap();
        write(&store, id(n), 0, &[1; 64 << 10]).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        for n in [2 * thread, 2 * thread + 1] {
                            write(store, id(n), 0, &[round; 64 << 10]).unwrap();
                        }
                        if round % 40 == 0 {
                            store.sync(id(2 * thread), Seq(u64::from(round))).unwrap();
                        }
                    }
                })
            })
            .collect();
        for reader in 0..3u64 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mode = if reader == 0 { ReadMode::CachedOnly } else { ReadMode::MayBlock };
                let mut n = reader;
                while !done.load(Ordering::Relaxed) {
                    n = (n + 1) % 6;
                    match store.read(id(n), 0, 64 << 10, mode) {
                        Ok(blocks) => {
                            assert_eq!(blocks.data.len(), 64 << 10);
                            assert!(blocks.data.iter().all(|&b| b == blocks.data[0]), "torn");
                        }
                        Err(StoreError::WouldBlock) if reader == 0 => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    for n in 0..6 {
        assert_eq!(read_whole(&store, id(n), 64 << 10).unwrap(), vec![ROUNDS; 64 << 10]);
    }
}

#[test]
fn a_real_disk_keeps_what_a_process_leaves() {
    let (dir, store) = real(100);
    for n in 0..20 {
        store.create(header(id(n))).unwrap();
        for part in 0..8u32 {
            write(&store, id(n), part * 100_000, &[u8::try_from(n).unwrap() + 1; 100_000]).unwrap();
        }
    }
    let chunks: Vec<_> = (0..20).map(|n| (id(n), Seq(1))).collect();
    assert!(store.sync_many(&chunks).iter().all(Result::is_ok));
    store.trim(id(0)).unwrap();
    store.zero(id(1), 5000, 1 << 20, dfs_proto::ids::SizeEpoch(1)).unwrap();
    store.mark_clean_shutdown().unwrap();
    drop(store);
    let disk = RealDisk::new(dir.path()).unwrap();
    let (store, opened) = open(&disk, config(1 << 20, 100));
    assert!(opened.clean && opened.replicas.len() == 20);
    for n in 0..20 {
        assert!(store.verify(id(n)).unwrap().bad.is_empty());
        assert_eq!(store.header(id(n)).unwrap().seq_synced, Seq(1));
    }
    assert_eq!(read_whole(&store, id(5), 800_000).unwrap()[..800_000], vec![6; 800_000]);
    let zeroed = read_whole(&store, id(1), 10_000).unwrap();
    assert!(zeroed[..5000].iter().all(|&b| b == 2) && zeroed[5000..].iter().all(|&b| b == 0));
}
