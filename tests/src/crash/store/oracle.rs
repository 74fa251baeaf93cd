//! What a chunk store may hold after a cut, told from the steps that were acknowledged before it and the one that was
//! under way.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use dfs_chunkserver::store::{Damage, Mhwm, ReadMode, Store, StoreError};
use dfs_disk::real::RealDisk;
use dfs_proto::ids::{ChunkId, Seq};

use super::{BLOCK, EXPECT, SECTOR, SIZE, StoreStep, config, write};
use crate::crash::Step;

const BYTES: usize = SIZE as usize;
const BLOCKS: usize = BYTES / BLOCK;

/// What a chunk may look like.
#[derive(Debug)]
struct Chunk {
    /// Its bytes after every change, the first being what the last sync made durable.
    states: Vec<Vec<u8>>,
    /// Blocks that some change since then touched.
    touched: [bool; BLOCKS],
    /// The table's one sector is on disk; before, no block's checksum need be, a hole's neither.
    table: bool,
    /// A sync has ended well, so the chunk must be there.
    durable: bool,
    version: u32,
    durable_version: u32,
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk {
            states: vec![vec![0; BYTES]],
            touched: [false; BLOCKS],
            table: false,
            durable: false,
            version: 1,
            durable_version: 0,
        }
    }
}

impl Chunk {
    fn change(&mut self, offset: u32, bytes: &[u8]) {
        let from = usize::try_from(offset).unwrap_or(BYTES);
        let mut next = self.states.last().cloned().unwrap_or_default();
        next[from..from + bytes.len()].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.touched[from / BLOCK..=(from + bytes.len() - 1) / BLOCK].fill(true);
        }
        self.states.push(next);
    }

    /// All bytes so far are durable.
    fn bytes_synced(&mut self) {
        self.states.drain(..self.states.len() - 1);
        self.touched.fill(false);
        self.table = true;
    }

    fn synced(&mut self) {
        self.bytes_synced();
        self.durable = true;
        self.durable_version = self.durable_version.max(self.version);
    }

    fn unsettled(&self, block: usize) -> bool {
        self.touched[block] || !self.table
    }
}

/// What the whole store may look like.
#[derive(Debug, Default)]
struct Oracle {
    chunks: BTreeMap<ChunkId, Chunk>,
    marks: Mhwm,
    hb_ctr: u64,
}

impl Oracle {
    /// After a cut behind `at` events.
    fn at(steps: &[Step<StoreStep>], at: usize) -> Oracle {
        let mut oracle = Oracle::default();
        for step in steps.iter().filter(|step| step.begin <= at) {
            oracle.may(&step.what);
            if step.end <= at {
                oracle.must(&step.what);
            }
        }
        oracle
    }

    fn chunk(&mut self, id: ChunkId) -> &mut Chunk {
        self.chunks.entry(id).or_default()
    }

    /// A step has begun.
    fn may(&mut self, step: &StoreStep) {
        match step {
            StoreStep::Write { chunk, offset, bytes } => self.chunk(*chunk).change(*offset, bytes),
            StoreStep::Zero { chunk, from, .. } => {
                let zeros = vec![0; BYTES - usize::try_from(*from).unwrap_or(BYTES)];
                self.chunk(*chunk).change(*from, &zeros);
            }
            StoreStep::Fence { chunk, version } | StoreStep::Version { chunk, version } => {
                self.chunk(*chunk).version = version.0;
            }
            StoreStep::Sync { .. } | StoreStep::SyncAll | StoreStep::Marks(_) | StoreStep::Restart { .. } => {
            }
        }
    }

    /// It was acknowledged.
    fn must(&mut self, step: &StoreStep) {
        match step {
            StoreStep::Write { .. } | StoreStep::Version { .. } => {}
            // Zeros are durable on return, and with them all other bytes. The file's name need not be.
            StoreStep::Zero { chunk, .. } => self.chunk(*chunk).bytes_synced(),
            StoreStep::Sync { chunk } => self.chunk(*chunk).synced(),
            StoreStep::Fence { chunk, version } => self.chunk(*chunk).durable_version = version.0,
            StoreStep::Marks(marks) => self.marks = *marks,
            StoreStep::SyncAll => self.chunks.values_mut().for_each(Chunk::synced),
            StoreStep::Restart { hb_ctr } => {
                self.chunks.values_mut().for_each(Chunk::synced);
                self.hb_ctr = *hb_ctr;
            }
        }
    }
}

/// Opens what a cut after `at` events left, and holds it against the work.
///
/// # Errors
/// What does not hold.
pub fn judge(disk: &RealDisk, steps: &[Step<StoreStep>], at: usize) -> anyhow::Result<()> {
    let oracle = Oracle::at(steps, at);
    let (store, opened) = Store::open(disk.clone(), EXPECT, config()?).context("the disk does not open")?;
    ensure!(opened.damaged_slots == 0, "{} header slots are damaged", opened.damaged_slots);
    ensure!(store.hb_ctr() > oracle.hb_ctr, "boot counter {}, was {}", store.hb_ctr(), oracle.hb_ctr);
    ensure!(store.mhwm().max_term >= oracle.marks.max_term, "{:?} were {:?}", store.mhwm(), oracle.marks);
    for (id, chunk) in &oracle.chunks {
        judge_chunk(&store, *id, chunk).with_context(|| format!("chunk {id}"))?;
    }
    let known = |id: &ChunkId| oracle.chunks.contains_key(id);
    ensure!(store.ids().iter().all(known), "chunks that nobody wrote: {:?}", store.ids());
    go_on(&store, &oracle)
}

fn judge_chunk(store: &Store<RealDisk>, id: ChunkId, chunk: &Chunk) -> anyhow::Result<()> {
    let Ok(header) = store.header(id) else {
        ensure!(!chunk.durable, "it is gone, and was synced");
        return Ok(());
    };
    let version = header.version.0;
    ensure!(version >= chunk.durable_version, "version {version}, {} was durable", chunk.durable_version);
    ensure!(version <= chunk.version, "version {version}, only {} was given", chunk.version);
    for block in 0..BLOCKS {
        judge_block(store, id, chunk, block).with_context(|| format!("block {block}"))?;
    }
    let bad = store.verify(id)?.bad;
    ensure!(bad.is_empty(), "verifying finds {bad:?} after all were settled");
    Ok(())
}

fn judge_block(store: &Store<RealDisk>, id: ChunkId, chunk: &Chunk, block: usize) -> anyhow::Result<()> {
    let range = block * BLOCK..(block + 1) * BLOCK;
    let (at, number) = (u32::try_from(range.start)?, u32::try_from(block)?);
    let read = || store.read(id, at, u32::try_from(BLOCK).unwrap_or(0), ReadMode::MayBlock);
    let mut result = read();
    if let Err(StoreError::Corrupt { damage: Damage::Checksum, .. }) = result {
        ensure!(chunk.unsettled(block), "it is called corrupt, and was synced");
        store.resolve_torn(id, number)?;
        result = read();
    }
    let mut found = result?.data.to_vec();
    found.resize(BLOCK, 0);
    let last = chunk.states.last().map_or(&[][..], Vec::as_slice);
    if !chunk.unsettled(block) {
        ensure!(found == last[range], "it has changed since it was synced");
        return Ok(());
    }
    for (sector, first) in found.chunks(SECTOR).zip(range.step_by(SECTOR)) {
        let mut written = chunk.states.iter().map(|state| &state[first..first + SECTOR]);
        if !written.any(|state| state == sector) {
            bail!("its sector at {first} was never written so");
        }
    }
    Ok(())
}

/// The store takes writes and syncs as before.
fn go_on(store: &Store<RealDisk>, oracle: &Oracle) -> anyhow::Result<()> {
    for id in oracle.chunks.keys().filter(|id| store.contains(**id)) {
        write(store, *id, 100, &[9; 5000]).with_context(|| format!("chunk {id} takes no write"))?;
        store.sync(*id, Seq(2000)).with_context(|| format!("chunk {id} does not sync"))?;
    }
    Ok(store.mark_clean_shutdown()?)
}
