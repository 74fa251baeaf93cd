//! The buffer against an array of bytes.

use super::*;
use dfs_proto::units::{BLOCK_SIZE, CHUNK_SIZE_MIN};
use proptest::prelude::*;

const FILE: usize = 200_000;

fn small() -> ChunkSize {
    ChunkSize::try_from(CHUNK_SIZE_MIN).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: usize, len: usize, byte: u8 },
    Take { all: bool },
    Land { which: usize },
    Truncate { size: usize },
    Punch { from: usize, len: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..FILE - 70_000, prop_oneof![1usize..200, 3000usize..9000, 60_000usize..70_000], any::<u8>())
            .prop_map(|(offset, len, byte)| Step::Write { offset, len, byte }),
        3 => any::<bool>().prop_map(|all| Step::Take { all }),
        2 => (0usize..8).prop_map(|which| Step::Land { which }),
        1 => (0..FILE).prop_map(|size| Step::Truncate { size }),
        2 => (0..FILE - 70_000, prop_oneof![1usize..200, 1usize..70_000])
            .prop_map(|(from, len)| Step::Punch { from, len }),
    ]
}

/// Puts a batch on the "servers", checking its form.
fn land(store: &mut [u8], batch: &Batch) {
    let mut parts = batch.parts.concat().into_iter();
    let base = usize::try_from(batch.index.0).unwrap() * usize::try_from(CHUNK_SIZE_MIN).unwrap();
    let mut last_end = None;
    let mut crcs = 0;
    for range in &batch.ranges {
        assert!(last_end.is_none_or(|end| end < range.offset));
        assert!(range.end() <= CHUNK_SIZE_MIN);
        last_end = Some(range.end());
        crcs += range.blocks();
        for at in range.offset..range.end() {
            store[base + usize::try_from(at).unwrap()] = parts.next().unwrap();
        }
    }
    assert_eq!(parts.next(), None);
    assert_eq!(usize::try_from(crcs).unwrap(), batch.crcs().len());
}

fn run(steps: Vec<Step>) {
    let mut dirty = Dirty::new(small());
    let (mut model, mut store) = (vec![0u8; FILE], vec![0u8; FILE]);
    let mut air: Vec<Batch> = Vec::new();
    for step in steps {
        match step {
            Step::Write { offset, len, byte } => {
                let data: Vec<u8> = (0u8..7).cycle().take(len).map(|i| byte.wrapping_add(i)).collect();
                dirty.write(u64::try_from(offset).unwrap(), &data);
                model[offset..offset + len].copy_from_slice(&data);
            }
            Step::Take { all } => air.extend(dirty.take(all)),
            Step::Land { which } => {
                if !air.is_empty() {
                    let batch = air.swap_remove(which % air.len());
                    land(&mut store, &batch);
                    assert_eq!(dirty.landed(batch.flight), batch.bytes);
                }
            }
            Step::Punch { from, len } => {
                for batch in air.drain(..) {
                    land(&mut store, &batch);
                    dirty.landed(batch.flight);
                }
                let bytes = dirty.bytes();
                let to = from + len;
                let dropped = dirty.punch(u64::try_from(from).unwrap(), u64::try_from(to).unwrap());
                assert_eq!(dirty.bytes() + dropped, bytes);
                assert!(!dirty.overlaps(u64::try_from(from).unwrap(), u64::try_from(len).unwrap()));
                model[from..to].fill(0);
                store[from..to].fill(0);
            }
            Step::Truncate { size } => {
                for batch in air.drain(..) {
                    land(&mut store, &batch);
                    dirty.landed(batch.flight);
                }
                dirty.truncate(u64::try_from(size).unwrap());
                model[size..].fill(0);
                store[size..].fill(0);
            }
        }
        let mut seen = store.clone();
        dirty.held(0, u64::try_from(FILE).unwrap()).lay(0, &mut seen);
        assert!(seen == model, "overlay differs");
        assert_eq!(dirty.bytes, dirty.extents.values().map(|e| len_of(e)).sum::<u64>());
        assert_eq!(dirty.full, dirty.windows.values().filter(|len| **len == dirty.window).count());
    }
    for batch in air.drain(..) {
        land(&mut store, &batch);
        dirty.landed(batch.flight);
    }
    while let Some(batch) = dirty.take(true) {
        land(&mut store, &batch);
        dirty.landed(batch.flight);
    }
    assert!(dirty.is_clean());
    assert_eq!((dirty.bytes, dirty.flying_bytes), (0, 0));
    assert!(store == model, "stored bytes differ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn like_an_array(steps in proptest::collection::vec(step(), 1..60)) {
        run(steps);
    }
}

#[test]
fn a_sequential_stream_goes_out_by_windows() {
    let mut dirty = Dirty::new(ChunkSize::DEFAULT);
    let block = vec![1u8; 128 << 10];
    for i in 0..9u64 {
        assert!(i == 8 || dirty.take(false).is_none());
        dirty.write(i * (128 << 10), &block);
    }
    let batch = dirty.take(false).unwrap();
    assert_eq!((batch.bytes, batch.end, batch.ranges.len()), (1 << 20, 1 << 20, 1));
    assert_eq!(batch.crcs().len(), 256);
    assert!(batch.parts.len() <= 5, "{}", batch.parts.len());
    assert!(dirty.take(false).is_none());
    let rest = dirty.take(true).unwrap();
    assert_eq!(rest.bytes, 128 << 10);
}

#[test]
fn scattered_writes_share_a_request() {
    let mut dirty = Dirty::new(ChunkSize::DEFAULT);
    for i in 0..300u64 {
        dirty.write(i * 3 * u64::from(BLOCK_SIZE), &[5; 4096]);
    }
    let (a, b) = (dirty.take(true).unwrap(), dirty.take(true).unwrap());
    assert_eq!(a.ranges.len(), RANGES_MAX);
    assert_eq!(b.ranges.len(), 300 - RANGES_MAX);
}

#[test]
fn a_byte_under_way_is_not_sent_twice() {
    let mut dirty = Dirty::new(ChunkSize::DEFAULT);
    dirty.write(0, &[1; 100]);
    let first = dirty.take(true).unwrap();
    dirty.write(50, &[2; 100]);
    assert!(dirty.take(true).is_none());
    let mut out = vec![0; 150];
    let held = dirty.held(0, 150);
    held.lay(0, &mut out);
    assert!(held.covers(0, 150) && !dirty.held(0, 151).covers(0, 151));
    assert!(dirty.held(10, 20).covers(10, 20));
    assert_eq!((out[49], out[50], out[149]), (1, 2, 2));
    dirty.landed(first.flight);
    assert_eq!(dirty.take(true).unwrap().bytes, 100);
    assert!(dirty.overlaps(149, 10) && !dirty.overlaps(150, 10));
}
