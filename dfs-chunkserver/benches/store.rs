//! What one disk's store costs on this machine's filesystem, the page cache warm: the price of the store
//! itself, not of the device. Set `TMPDIR` to the disk in question.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dfs_chunkserver::store::{Expect, Header, Label, ReadMode, Store, StoreConfig, Write};
use dfs_disk::real::RealDisk;
use dfs_proto::checksum::block_crcs;
use dfs_proto::chunk::Range;
use dfs_proto::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, OpenNum, OsBootId, Seq, ServerId,
};

fn open(dir: &tempfile::TempDir) -> Store<RealDisk> {
    let disk = RealDisk::new(dir.path()).expect("a temporary directory");
    let cluster = ClusterId(1);
    let label = Label { cluster, generation: Generation(1), disk: DiskId(2), server: ServerId(3) };
    Store::init(&disk, &label).expect("an empty disk");
    let expect = Expect { cluster, server: None, os_boot: OsBootId(1) };
    Store::open(disk, expect, StoreConfig::default()).expect("the disk just made").0
}

struct Payload {
    data: Vec<u8>,
    crcs: Vec<u32>,
}

impl Payload {
    fn new(len: usize) -> Payload {
        let data: Vec<u8> = (0..len).map(|i| (i * 31 % 251).to_le_bytes()[0]).collect();
        let crcs = block_crcs(&data).map(|crc| crc.0).collect();
        Payload { data, crcs }
    }

    fn write(&self, store: &Store<RealDisk>, id: ChunkId, offset: u32) {
        let len = u32::try_from(self.data.len()).expect("small");
        let ranges = [Range { offset, len }];
        store.write(id, &Write { ranges: &ranges, data: &self.data, crcs: &self.crcs }).expect("written");
    }
}

fn create(store: &Store<RealDisk>, id: ChunkId) {
    store.create(Header::new(id, ChunkVersion(1), ConfigNum(1), OpenNum(1))).expect("a new chunk");
}

fn small_files(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let payload = Payload::new(4096);
    let mut next = 0;
    c.bench_function("create a chunk and write 4 KiB", |b| {
        b.iter(|| {
            next += 1;
            create(&store, ChunkId(next));
            payload.write(&store, ChunkId(next), 0);
        });
    });
    c.bench_function("create a chunk, write 4 KiB, sync", |b| {
        b.iter(|| {
            next += 1;
            create(&store, ChunkId(next));
            payload.write(&store, ChunkId(next), 0);
            store.sync(ChunkId(next), Seq(1)).expect("synced");
        });
    });
}

fn data_path(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let id = ChunkId(1);
    create(&store, id);
    let large = Payload::new(1 << 20);
    for mib in 0..64 {
        large.write(&store, id, mib << 20);
    }
    for (name, len) in [("4 KiB", 4096u32), ("1 MiB", 1 << 20)] {
        let payload = Payload::new(usize::try_from(len).expect("small"));
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(u64::from(len)));
        let mut at = 0u32;
        group.bench_function("overwrite", |b| {
            b.iter(|| {
                at = (at + 37 * len) % (64 << 20);
                payload.write(&store, id, at);
            });
        });
        group.bench_function("read", |b| {
            b.iter(|| {
                at = (at + 37 * len) % (64 << 20);
                black_box(store.read(id, at, len, ReadMode::CachedOnly).expect("read"));
            });
        });
        group.finish();
    }
}

criterion_group!(benches, small_files, data_path);
criterion_main!(benches);
