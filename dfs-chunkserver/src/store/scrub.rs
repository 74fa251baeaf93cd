//! Looking at a replica as it lies on the disk, past the page cache: its header slots and its table against what
//! is known of them, its blocks against their checksums. What is right in memory and wrong on the disk is written
//! anew, the bad bytes kept first; blocks that are wrong in both are named, for another member to mend.
//!
//! Keeps I13: what is written anew was verified the moment before, or is the table and header that were verified
//! when they were read and kept since.

use std::io;

use dfs_disk::{Disk, DiskFile};
use dfs_proto::ids::ChunkId;
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::chunk::{Body, Place, Shared, State};
use super::error::StoreError;
use super::evidence::{BadPart, Evidence};
use super::header::{self, SlotContent};
use super::layout::{BLOCK, SECTOR, SECTOR_ENTRIES, SLOTS, TABLE_AT, chunk_path, data_at, index};
use super::mend::evidence_of;
use super::read::{ReadMode, fill, matches};
use super::table::{HOLE, UNKNOWN};
use super::write::write_sectors;

/// Blocks that are looked at while writers of the chunk wait: 1 MiB.
const STEP: u32 = 256;

/// What one step of a scrub found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// Read from the disk.
    pub bytes: u64,
    /// Slots, sectors and blocks written anew from memory.
    pub rewritten: u32,
    /// Blocks that do not match, or can't be read.
    pub bad: Vec<u32>,
    /// Where the next step begins; `None` behind the last block.
    pub next: Option<u32>,
}

/// What is wrong with a file's head.
#[derive(Default)]
struct BadHead {
    slots: Vec<(usize, Vec<u8>)>,
    sectors: Vec<(usize, Vec<u8>)>,
}

impl BadHead {
    fn count(&self) -> usize {
        self.slots.len() + self.sectors.len()
    }
}

impl<D: Disk> Store<D> {
    /// Compares header slots and table on the disk with what is known of them, and writes anew what differs.
    ///
    /// # Errors
    /// `NoChunk` when the file is gone. `Io` when it can't be read at all, or failed for good.
    pub fn scrub_head(&self, id: ChunkId) -> Result<Scrubbed, StoreError> {
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        let Some(body) = &state.body else { return Ok(Scrubbed::default()) };
        let bytes = (SLOTS.len() + body.table.sectors()) * SECTOR;
        let bad = self.bad_head(&state, body)?;
        drop(state);
        self.limit_open_files();
        let mut scrubbed = Scrubbed { bytes: bytes as u64, next: Some(0), ..Scrubbed::default() };
        if bad.count() > 0 {
            scrubbed.rewritten = self.rewrite_head(&chunk)?;
        }
        Ok(scrubbed)
    }

    fn bad_head(&self, state: &State<D::File>, body: &Body<D::File>) -> Result<BadHead, StoreError> {
        let id = state.header.chunk;
        let file = self.open_past_cache(id)?;
        let mut bad = BadHead::default();
        for (slot, at) in SLOTS.into_iter().enumerate() {
            let bytes = read_or_none(&file, at, SECTOR);
            let decoded = bytes.as_deref().and_then(|bytes| bytes.try_into().ok());
            let decoded = decoded.map(|bytes| header::decode(bytes, self.label.cluster, id));
            let newest = match decoded {
                Some(SlotContent::Valid { slot_gen, .. }) => Some(slot_gen),
                Some(SlotContent::Empty | SlotContent::Damaged) | None => None,
            };
            if newest.is_none_or(|slot_gen| state.slots.is_lost(slot, slot_gen)) {
                bad.slots.push((slot, bytes.unwrap_or_default()));
            }
        }
        let table = read_or_none(&file, TABLE_AT, body.table.sectors() * SECTOR).unwrap_or_default();
        for number in 0..body.table.sectors() {
            let entries = number * SECTOR_ENTRIES..(number + 1) * SECTOR_ENTRIES;
            let lost = entries.clone().any(|block| body.table.get(super::layout::small(block)) == UNKNOWN);
            // What is lost of it is mended block by block.
            if lost {
                continue;
            }
            let mut expected = Vec::with_capacity(SECTOR);
            body.table.encode_sector(number, id, &mut expected);
            // One by one where not all could be read together.
            let found = table.get(number * SECTOR..(number + 1) * SECTOR).map(<[u8]>::to_vec);
            let found = found.or_else(|| read_or_none(&file, TABLE_AT + (number * SECTOR) as u64, SECTOR));
            if found.as_deref() != Some(&expected) {
                bad.sectors.push((number, found.unwrap_or_default()));
            }
        }
        Ok(bad)
    }

    /// Looks again with writers kept out, and writes anew what is wrong.
    fn rewrite_head(&self, chunk: &Shared<D::File>) -> Result<u32, StoreError> {
        let mut state = chunk.write();
        state.usable()?;
        self.open_body(chunk, &mut state)?;
        let Some(body) = &state.body else { return Ok(0) };
        let bad = self.bad_head(&state, body)?;
        let mut evidence: Vec<Evidence> = Vec::with_capacity(bad.count());
        for (slot, bytes) in &bad.slots {
            evidence.push(evidence_of(&state, BadPart::HeaderSlot, SLOTS[*slot], 0, bytes.clone()));
        }
        for (number, bytes) in &bad.sectors {
            let at = TABLE_AT + (number * SECTOR) as u64;
            evidence.push(evidence_of(&state, BadPart::TableSector, at, 0, bytes.clone()));
        }
        self.keep_evidence(&mut evidence)?;
        self.counters.damaged_sectors.add(bad.sectors.len() as u64);
        let numbers: Vec<usize> = bad.sectors.iter().map(|(number, _)| *number).collect();
        if let Err(err) = write_sectors(&*body.file, chunk.id, &body.table, &numbers) {
            return Err(self.fail(&mut state, "write a chunk's checksums anew", err));
        }
        state.writes += 1;
        let seq = state.header.seq_synced;
        log::error!(
            "chunk {}: {} header slots and {} sectors of its table were damaged and are written anew",
            chunk.id,
            bad.slots.len(),
            bad.sectors.len()
        );
        drop(state);
        // One slot after the other, each with its sync: until the first is durable the other may be all there is.
        for _ in &SLOTS[..if bad.slots.is_empty() { 0 } else { SLOTS.len() }] {
            self.header_to_file(&mut chunk.write())?;
            self.sync(chunk.id, seq)?;
        }
        self.sync(chunk.id, seq)?;
        self.counters.rewritten.add(bad.count() as u64);
        Ok(super::layout::small(bad.count()))
    }

    /// Compares the next blocks from `first` with their checksums.
    ///
    /// # Errors
    /// `NoChunk` when the file is gone. `Io` when its table can't be read, or failed for good.
    pub fn scrub_blocks(&self, id: ChunkId, first: u32) -> Result<Scrubbed, StoreError> {
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        let mut scrubbed = Scrubbed::default();
        let Some(body) = state.body.as_ref().filter(|body| first < body.table.extent()) else {
            return Ok(scrubbed);
        };
        let end = first.saturating_add(STEP).min(body.table.extent());
        let file = self.open_past_cache(id)?;
        let mut buffer = self.pool.take(index(end - first) * BLOCK);
        let whole = read_full(&file, data_at(first), buffer.as_mut());
        let mut only_on_disk = Vec::new();
        for (block, bytes) in (first..end).zip(buffer.as_mut().chunks_exact_mut(BLOCK)) {
            let entry = body.table.get(block);
            if entry == HOLE {
                continue;
            }
            scrubbed.bytes += u64::from(BLOCK_SIZE);
            let read = whole || read_full(&file, data_at(block), bytes);
            if read && matches(entry, bytes).is_ok() {
                continue;
            }
            if is_good(body, block).is_some() {
                only_on_disk.push((block, if read { bytes.to_vec() } else { Vec::new() }));
            } else {
                self.counters.corrupt_blocks.add(1);
                scrubbed.bad.push(block);
            }
        }
        scrubbed.next = (end < body.table.extent()).then_some(end);
        drop(state);
        scrubbed.rewritten = self.rewrite_blocks(&chunk, only_on_disk)?;
        self.limit_open_files();
        Ok(scrubbed)
    }

    /// Writes blocks anew that are right in the page cache, which would forget them one day.
    fn rewrite_blocks(
        &self,
        chunk: &Shared<D::File>,
        blocks: Vec<(u32, Vec<u8>)>,
    ) -> Result<u32, StoreError> {
        let mut rewritten = 0;
        let mut seq = None;
        for (block, on_disk) in blocks {
            let mut state = chunk.write();
            state.usable()?;
            let Some(body) = state.body.as_ref().filter(|_| state.place == Place::Here) else { break };
            // A write since then has done it.
            let Some(good) = is_good(body, block) else { continue };
            let entry = body.table.get(block);
            let kept = evidence_of(&state, BadPart::Block, data_at(block), entry, on_disk);
            self.keep_evidence(&mut [kept])?;
            let written = body.file.write_at(&[io::IoSlice::new(&good)], data_at(block));
            if let Err(err) = written {
                return Err(self.fail(&mut state, "write a block anew", err));
            }
            state.writes += 1;
            rewritten += 1;
            seq = Some(state.header.seq_synced);
            log::error!("chunk {}: block {block} was damaged on the disk only and is written anew", chunk.id);
        }
        self.counters.rewritten.add(u64::from(rewritten));
        if let Some(seq) = seq {
            self.sync(chunk.id, seq)?;
        }
        Ok(rewritten)
    }

    fn open_past_cache(&self, id: ChunkId) -> Result<D::File, StoreError> {
        self.disk.open_past_cache(&chunk_path(id)).map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => StoreError::NoChunk(id),
            _ => StoreError::Io { what: "open a chunk", source: err },
        })
    }
}

/// A block's bytes as the page cache has them, if they match.
fn is_good<F: DiskFile>(body: &Body<F>, block: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; BLOCK];
    let read = fill(body, block, &mut bytes, ReadMode::MayBlock).unwrap_or(false);
    (read && matches(body.table.get(block), &bytes).is_ok()).then_some(bytes)
}

/// Fills `buf`; what the file lacks becomes zeros. False when the device failed.
fn read_full<F: DiskFile>(file: &F, at: u64, buf: &mut [u8]) -> bool {
    let Ok(n) = file.read_at(buf, at) else { return false };
    buf[n..].fill(0);
    true
}

fn read_or_none<F: DiskFile>(file: &F, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    read_full(file, at, &mut bytes).then_some(bytes)
}
