//! The store against an array of bytes: whatever is written, zeroed, synced, closed, killed and opened
//! again in between, a read gives what the array has, with checksums that fit.

use std::collections::BTreeMap;

use dfs_chunkserver::store::{Durability, Header, HeaderChange, ReadMode, Store};
use dfs_disk::sim::SimDisk;
use dfs_proto::checksum::{Crc, crc32c};
use dfs_proto::chunk::Range;
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq, SizeEpoch};
use proptest::prelude::*;

use super::support::*;

/// Nine table sectors: sparse writes skip some.
const SIZE: u32 = 4 << 20;
const BLOCKS: u32 = SIZE / 4096;

#[derive(Clone, Debug)]
enum Step {
    Write { chunk: u64, parts: Vec<(u32, u32)>, fill: u8 },
    Zero { chunk: u64, from: u32, to: u32 },
    Punch { chunk: u64, parts: Vec<(u32, u32)> },
    Read { chunk: u64, offset: u32, len: u32, cached: bool },
    Sync { chunk: u64 },
    SyncAll,
    Trim { chunk: u64 },
    Fence { chunk: u64 },
    Header { chunk: u64 },
    Trash { chunk: u64 },
    Kill,
    Stop,
}

#[derive(Clone, Default)]
struct Model {
    bytes: BTreeMap<u32, [u8; BLOCK]>,
    epoch: u32,
    version: u32,
}

impl Model {
    fn clear(&mut self, from: u32, to: u32) {
        for (block, bytes) in &mut self.bytes {
            let start = from.saturating_sub(block * 4096).min(4096) as usize;
            let end = to.saturating_sub(block * 4096).min(4096) as usize;
            bytes[start..end.max(start)].fill(0);
        }
        let whole = from.div_ceil(4096)..to / 4096;
        self.bytes.retain(|block, _| !whole.contains(block));
    }
}

/// Offsets cluster at block and sector borders and near the start, where most of the cases are.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..40_000u32,
        2 => (0..BLOCKS).prop_map(|block| block * 4096),
        1 => (0..8u32, 0..9000u32).prop_map(|(sector, at)| (sector * 126 * 4096 + at).min(SIZE - 1)),
        1 => 0..SIZE,
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![1..100u32, Just(4096), 1..20_000u32, Just(65_536)]
}

/// Stretches in order, without common bytes.
fn parts() -> impl Strategy<Value = Vec<(u32, u32)>> {
    prop::collection::vec((offset(), len()), 1..4).prop_map(|mut parts| {
        parts.sort_unstable();
        let mut from = 0;
        for (offset, len) in &mut parts {
            *offset = (*offset).max(from);
            *len = (*len).min(SIZE.saturating_sub(*offset));
            from = *offset + *len;
        }
        parts.retain(|(_, len)| *len > 0);
        parts
    })
}

fn step() -> impl Strategy<Value = Step> {
    let chunk = 0..4u64;
    prop_oneof![
        10 => (chunk.clone(), parts(), 1..=255u8)
            .prop_map(|(chunk, parts, fill)| Step::Write { chunk, parts, fill }),
        4 => (chunk.clone(), parts()).prop_map(|(chunk, parts)| Step::Punch { chunk, parts }),
        2 => (chunk.clone(), offset(), prop_oneof![Just(SIZE), offset()])
            .prop_map(|(chunk, from, to)| Step::Zero { chunk, from, to }),
        10 => (chunk.clone(), offset(), len(), any::<bool>())
            .prop_map(|(chunk, offset, len, cached)| Step::Read { chunk, offset, len: len.min(SIZE - offset), cached }),
        3 => chunk.clone().prop_map(|chunk| Step::Sync { chunk }),
        1 => Just(Step::SyncAll),
        1 => chunk.clone().prop_map(|chunk| Step::Trim { chunk }),
        1 => chunk.clone().prop_map(|chunk| Step::Fence { chunk }),
        1 => chunk.clone().prop_map(|chunk| Step::Header { chunk }),
        1 => chunk.prop_map(|chunk| Step::Trash { chunk }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

struct World {
    disk: SimDisk,
    store: Option<Store<SimDisk>>,
    models: BTreeMap<ChunkId, Model>,
    /// Versions of replicas that went: one that comes back is not older, for fences may outlive it.
    gone: BTreeMap<ChunkId, u32>,
}

impl World {
    fn store(&self) -> &Store<SimDisk> {
        self.store.as_ref().unwrap()
    }

    fn model(&mut self, chunk: u64) -> &mut Model {
        let id = id(chunk);
        if !self.models.contains_key(&id) {
            let version = self.gone.get(&id).copied().unwrap_or(1);
            self.store().create(Header { version: ChunkVersion(version), ..header(id) }).unwrap();
            self.models.insert(id, Model { version, ..Model::default() });
        }
        self.models.get_mut(&id).unwrap()
    }

    fn reopen(&mut self, clean: bool) {
        if clean {
            self.store().mark_clean_shutdown().unwrap();
        }
        self.store = None;
        self.disk.crash_process();
        let (store, opened) = open(&self.disk, config(SIZE, 2));
        assert_eq!(opened.clean, clean);
        assert!(opened.quarantined.is_empty() && opened.damaged_slots == 0);
        // What never got a byte was known to the last process only.
        for (id, model) in &self.models {
            self.gone.insert(*id, model.version);
        }
        self.models.retain(|id, _| store.contains(*id));
        for header in &opened.replicas {
            let model = &self.models[&header.chunk];
            assert_eq!((header.version.0, header.size_epoch.0), (model.version, model.epoch));
        }
        self.store = Some(store);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write { chunk, parts, fill } => self.write(*chunk, parts, *fill),
            Step::Zero { chunk, from, to } => self.zero(*chunk, *from, *to),
            Step::Punch { chunk, parts } => self.punch(*chunk, parts),
            Step::Read { chunk, offset, len, cached } => self.read(*chunk, *offset, *len, *cached),
            Step::Sync { chunk } => {
                self.model(*chunk);
                self.store().sync(id(*chunk), Seq(1)).unwrap();
            }
            Step::SyncAll => {
                let all: Vec<_> =
                    self.store().ids().iter().map(|id| (*id, Seq(2))).cycle().take(16).collect();
                let all = if self.store().count() == 0 { Vec::new() } else { all };
                assert!(self.store().sync_many(&all).iter().all(Result::is_ok));
            }
            Step::Trim { chunk } => {
                self.model(*chunk);
                self.store().trim(id(*chunk)).unwrap();
            }
            Step::Fence { chunk } => {
                self.model(*chunk).version += 1;
                let to = ChunkVersion(self.model(*chunk).version);
                assert!(self.store().fence(&[(id(*chunk), to)]).unwrap()[0].is_ok());
            }
            Step::Header { chunk } => {
                self.model(*chunk).version += 1;
                let version = Some(ChunkVersion(self.model(*chunk).version));
                let change = HeaderChange { version, ..HeaderChange::default() };
                self.store().set_header(id(*chunk), &change, Durability::Later).unwrap();
            }
            Step::Trash { chunk } => {
                self.model(*chunk);
                self.store().trash(id(*chunk), 100).unwrap();
                let model = self.models.remove(&id(*chunk)).unwrap();
                self.gone.insert(id(*chunk), model.version);
                assert!(!self.store().contains(id(*chunk)));
            }
            Step::Kill => self.reopen(false),
            Step::Stop => self.reopen(true),
        }
    }

    fn write(&mut self, chunk: u64, parts: &[(u32, u32)], fill: u8) {
        if parts.is_empty() {
            return;
        }
        let model = self.model(chunk);
        let mut sent = Vec::new();
        for (offset, len) in parts {
            let bytes: Vec<u8> =
                (*offset..offset + len).map(|at| fill ^ at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
            for (at, byte) in (*offset..).zip(&bytes) {
                model.bytes.entry(at / 4096).or_insert([0; BLOCK])[at as usize % BLOCK] = *byte;
            }
            sent.push((*offset, bytes));
        }
        let parts: Vec<_> = sent.iter().map(|(offset, bytes)| (*offset, bytes.as_slice())).collect();
        write_all(self.store(), id(chunk), &parts).unwrap();
    }

    fn zero(&mut self, chunk: u64, from: u32, to: u32) {
        let (from, to) = (from.min(to), from.max(to));
        let model = self.model(chunk);
        model.epoch += 1;
        let epoch = SizeEpoch(model.epoch);
        model.clear(from, to);
        assert!(self.store().zero(id(chunk), from, to, epoch).unwrap());
        assert!(!self.store().zero(id(chunk), 0, SIZE, epoch).unwrap(), "an epoch counts once");
        if !self.store().has_file(id(chunk)).unwrap() {
            // The epoch of a chunk without a file lives as long as the process.
            self.models.get_mut(&id(chunk)).unwrap().epoch = epoch.0;
        }
    }

    fn punch(&mut self, chunk: u64, parts: &[(u32, u32)]) {
        let model = self.model(chunk);
        for (offset, len) in parts {
            model.clear(*offset, offset + len);
        }
        let ranges: Vec<Range> = parts.iter().map(|&(offset, len)| Range { offset, len }).collect();
        if ranges.is_empty() {
            assert!(self.store().punch(id(chunk), &ranges).is_err());
            return;
        }
        self.store().punch(id(chunk), &ranges).unwrap();
        assert!(self.store().has_file(id(chunk)).unwrap(), "a write of zeros makes the file, too");
    }

    fn read(&mut self, chunk: u64, offset: u32, len: u32, cached: bool) {
        self.model(chunk);
        let mode = if cached { ReadMode::CachedOnly } else { ReadMode::MayBlock };
        let found = match self.store().read(id(chunk), offset, len, mode) {
            Err(dfs_chunkserver::store::StoreError::WouldBlock) if cached => return,
            other => other.unwrap(),
        };
        let model = &self.models[&id(chunk)];
        let extent = model.bytes.last_key_value().map_or(0, |(block, _)| block + 1);
        assert_eq!(self.store().extent(id(chunk)).unwrap(), extent * 4096);
        let first = offset / 4096;
        let end = (offset + len).div_ceil(4096).min(extent);
        let count = if len == 0 { 0 } else { end.saturating_sub(first) as usize };
        assert_eq!((found.offset, found.crcs.len(), found.data.len()), (first * 4096, count, count * BLOCK));
        for ((block, bytes), crc) in (first..).zip(found.data.chunks(BLOCK)).zip(found.crcs) {
            match model.bytes.get(&block) {
                Some(expected) => {
                    assert_eq!(bytes, expected, "block {block}");
                    assert_eq!(crc, Some(crc32c(expected)));
                }
                None => assert!(crc.is_none() && bytes.iter().all(|&b| b == 0)),
            }
        }
    }

    fn check_all(&mut self) {
        for chunk in 0..4 {
            if self.models.contains_key(&id(chunk)) {
                self.read(chunk, 0, SIZE, false);
                let verified = self.store().verify(id(chunk)).unwrap();
                assert!(verified.bad.is_empty());
                let table = self.store().table(id(chunk)).unwrap();
                assert_eq!((table.digest, table.entries.len()), (verified.digest, verified.good as usize));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_an_array_of_bytes(steps in prop::collection::vec(step(), 1..60), seed: u64) {
        let disk = sim(seed);
        let (store, opened) = open(&disk, config(SIZE, 2));
        assert!(opened.clean && opened.replicas.is_empty());
        let mut world = World { disk, store: Some(store), models: BTreeMap::new(), gone: BTreeMap::new() };
        for step in &steps {
            world.apply(step);
        }
        world.check_all();
        world.reopen(true);
        world.check_all();
    }
}

/// A block whose CRC32C is `target`: the last four bytes are solved for, the checksum being affine in them.
fn block_with_crc(target: u32) -> Vec<u8> {
    let mut block: Vec<u8> = (0..BLOCK).map(|i| (i % 253).to_le_bytes()[0]).collect();
    block[BLOCK - 4..].fill(0);
    let base = crc32c(&block).0;
    let mut rows: Vec<(u32, u32)> = (0..32)
        .map(|bit| {
            let mut flipped = block.clone();
            flipped[BLOCK - 4 + bit / 8] ^= 1 << (bit % 8);
            (crc32c(&flipped).0 ^ base, 1u32 << bit)
        })
        .collect();
    let (mut want, mut tail) = (target ^ base, 0u32);
    for bit in 0..32 {
        let pivot = rows.iter().position(|(effect, _)| effect >> bit & 1 == 1).unwrap();
        let (effect, cause) = rows.swap_remove(pivot);
        for row in &mut rows {
            if row.0 >> bit & 1 == 1 {
                row.0 ^= effect;
                row.1 ^= cause;
            }
        }
        if want >> bit & 1 == 1 {
            want ^= effect;
            tail ^= cause;
        }
    }
    block[BLOCK - 4..].copy_from_slice(&tail.to_le_bytes());
    assert_eq!(crc32c(&block), Crc(target));
    block
}

#[test]
fn checksums_that_look_like_marks_are_checked_like_others() {
    let disk = sim(1);
    let (store, _) = open(&disk, small());
    store.create(header(id(1))).unwrap();
    for (n, target) in [0, 1, 2, 3, u32::MAX].into_iter().enumerate() {
        let offset = u32::try_from(n * BLOCK).unwrap();
        let block = block_with_crc(target);
        write(&store, id(1), offset, &block).unwrap();
        let found = read(&store, id(1), offset, 4096).unwrap();
        assert_eq!((&found.data[..], found.crcs[0]), (&block[..], Some(Crc(target))));
        assert!(disk.flip_bit(&path(id(1)), (128 << 10) + u64::from(offset) + 77, 3));
        assert!(read(&store, id(1), offset, 4096).is_err());
    }
}
