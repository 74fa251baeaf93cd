//! Mending damaged blocks from another member's: what a member has to give, and what takes the place of bytes
//! that do not match their checksum. Nothing is replaced that is not damaged, and nothing before the damaged
//! bytes are kept as evidence.
//!
//! Keeps I13: what is stored afterwards is another member's checksum with the bytes that match it, or the
//! own bytes where they match it.

use std::io::IoSlice;

use bytes::Bytes;
use dfs_disk::{Disk, DiskFile};
use dfs_proto::checksum::{LOST, crc32c};
use dfs_proto::chunk::has_bytes;
use dfs_proto::ids::ChunkId;
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::chunk::{Body, Holes, State};
use super::error::StoreError;
use super::evidence::{BadPart, Evidence};
use super::layout::{BLOCK, data_at, index, small};
use super::read::{ReadMode, fill, matches};
use super::table::{HOLE, UNKNOWN, entry_of, sector_of};
use super::write::write_sectors;

const _: () = assert!(LOST == UNKNOWN);

/// What a replica has in a range of blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stock {
    /// One a block, as the table holds them; 1 for a block that is damaged.
    pub entries: Vec<u32>,
    /// Of the blocks that are neither damaged nor holes, in order.
    pub data: Bytes,
}

/// What a mending came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mended {
    pub mended: u32,
    /// Blocks that are damaged and for which none were given.
    pub bad: Vec<u32>,
    /// Blocks that are damaged and for which others were given than the own checksum stands for.
    pub differ: Vec<u32>,
}

/// One block to be replaced.
struct Patch<'a> {
    block: u32,
    entry: u32,
    /// `None` for a hole, and where the own bytes are right and only their checksum was lost.
    bytes: Option<&'a [u8]>,
}

impl<D: Disk> Store<D> {
    /// What is here in `blocks` blocks from `first`, each checked.
    ///
    /// # Errors
    /// When the chunk is not here or its table can't be read; damaged blocks are no error.
    pub fn stock(&self, id: ChunkId, first: u32, blocks: u32) -> Result<Stock, StoreError> {
        let end = first.checked_add(blocks).filter(|end| *end <= self.config.chunk_size.blocks());
        let end = end.ok_or(StoreError::Invalid)?;
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        let mut entries = vec![HOLE; index(blocks)];
        let mut data = Vec::new();
        if let Some(body) = &state.body {
            let end = end.min(body.table.extent()).max(first);
            let mut buffer = self.pool.take(index(end - first) * BLOCK);
            let whole = fill(body, first, buffer.as_mut(), ReadMode::MayBlock).unwrap_or(false);
            let here = (first..end).zip(buffer.as_mut().chunks_exact_mut(BLOCK));
            for ((block, bytes), entry) in here.zip(&mut entries) {
                let own = body.table.get(block);
                let read = whole || fill(body, block, bytes, ReadMode::MayBlock).unwrap_or(false);
                *entry = if read && matches(own, bytes).is_ok() { own } else { UNKNOWN };
                if has_bytes(*entry) {
                    data.extend_from_slice(bytes);
                }
            }
        }
        drop(state);
        self.limit_open_files();
        Ok(Stock { entries, data: data.into() })
    }

    /// Replaces the damaged blocks among those from `first` by what another member has, and syncs. A block whose
    /// checksum here is known and not the other's is left, unless `insist`.
    ///
    /// # Errors
    /// `BadChecksum` when the bytes given do not match; `NoSpace` when the evidence found no room: nothing was
    /// changed. `Io`: failed for good, or the evidence could not be kept.
    pub fn mend(&self, id: ChunkId, first: u32, given: &Stock, insist: bool) -> Result<Mended, StoreError> {
        let blocks = small(given.entries.len());
        if first.checked_add(blocks).is_none_or(|end| end > self.config.chunk_size.blocks()) {
            return Err(StoreError::Invalid);
        }
        let good = good_blocks(id, first, given)?;
        let chunk = self.find(id)?;
        let mut state = chunk.write();
        state.usable()?;
        self.open_body(&chunk, &mut state)?;
        let mut mended = Mended::default();
        let Some(body) = &state.body else { return Ok(mended) };
        let mut patches: Vec<Patch<'_>> = Vec::new();
        let mut evidence = Vec::new();
        for ((block, entry), bytes) in (first..).zip(&given.entries).zip(good) {
            let Some(found) = damaged(body, block) else { continue };
            let own = body.table.get(block);
            if *entry == UNKNOWN {
                mended.bad.push(block);
            } else if own != UNKNOWN && own != *entry && !insist {
                mended.differ.push(block);
            } else {
                if own != UNKNOWN && own != *entry {
                    log::error!("chunk {id}: block {block} is taken from a member whose checksum is another");
                }
                let right = has_bytes(*entry) && matches(*entry, &found).is_ok();
                if !right {
                    evidence.push(evidence_of(&state, BadPart::Block, data_at(block), own, found));
                }
                patches.push(Patch { block, entry: *entry, bytes: bytes.filter(|_| !right) });
            }
        }
        self.keep_evidence(&mut evidence)?;
        self.apply_patches(&mut state, &patches)?;
        mended.mended = small(patches.len());
        let seq = state.header.seq_synced;
        drop(state);
        if mended.mended > 0 {
            self.counters.repaired_blocks.add(u64::from(mended.mended));
            let kept = evidence.first().zip(evidence.last());
            let kept = kept.map(|(first, last)| format!(", evidence {} to {}", first.number, last.number));
            log::warn!(
                "chunk {id}: {} damaged blocks from {} on were replaced by another member's{}",
                mended.mended,
                patches.first().map_or(first, |patch| patch.block),
                kept.unwrap_or_default()
            );
            self.sync(id, seq)?;
        }
        self.limit_open_files();
        Ok(mended)
    }

    fn apply_patches(&self, state: &mut State<D::File>, patches: &[Patch<'_>]) -> Result<(), StoreError> {
        if patches.is_empty() {
            return Ok(());
        }
        let id = state.header.chunk;
        state.writes += 1;
        let Some(body) = &mut state.body else { return Ok(()) };
        let had = body.table.sectors();
        let mut changed: Vec<usize> = Vec::new();
        for Patch { block, entry, bytes } in patches {
            if let Some(bytes) = bytes
                && let Err(err) = body.file.write_at(&[IoSlice::new(bytes)], data_at(*block))
            {
                return Err(self.fail(state, "mend a block", err));
            }
            body.table.set(*block, *entry);
            changed.push(sector_of(*block));
        }
        changed.extend(had..body.table.sectors());
        changed.sort_unstable();
        changed.dedup();
        if let Err(err) = write_sectors(&*body.file, id, &body.table, &changed) {
            return Err(self.fail(state, "write a chunk's checksums", err));
        }
        let end = patches.iter().map(|patch| patch.block + 1).max().unwrap_or(0);
        state.blocks = state.blocks.max(end);
        if patches.iter().any(|patch| patch.entry == HOLE) {
            state.holes = Holes::Dirty;
        }
        Ok(())
    }
}

/// A block's bytes if they do not match their checksum; empty ones if they can't be read.
fn damaged<F: DiskFile>(body: &Body<F>, block: u32) -> Option<Vec<u8>> {
    let entry = body.table.get(block);
    if entry == HOLE {
        return None;
    }
    let mut bytes = vec![0; BLOCK];
    if !fill(body, block, &mut bytes, ReadMode::MayBlock).unwrap_or(false) {
        return Some(Vec::new());
    }
    matches(entry, &bytes).is_err().then_some(bytes)
}

pub(super) fn evidence_of<F>(
    state: &State<F>,
    part: BadPart,
    at: u64,
    stored: u32,
    bytes: Vec<u8>,
) -> Evidence {
    let header = &state.header;
    let (chunk, version, config) = (header.chunk, header.version, header.config);
    Evidence { number: 0, chunk, version, config, part, at, stored, bytes }
}

/// The bytes of each block given, all of which match; `None` for holes and for blocks damaged there too.
fn good_blocks(id: ChunkId, first: u32, given: &Stock) -> Result<Vec<Option<&[u8]>>, StoreError> {
    let mut data = given.data.chunks_exact(BLOCK);
    let mut good = Vec::with_capacity(given.entries.len());
    for (block, entry) in (first..).zip(&given.entries) {
        let bytes = if has_bytes(*entry) { Some(data.next().ok_or(StoreError::Invalid)?) } else { None };
        if bytes.is_some_and(|bytes| entry_of(crc32c(bytes)) != *entry) {
            return Err(StoreError::BadChecksum { chunk: id, offset: block.saturating_mul(BLOCK_SIZE) });
        }
        good.push(bytes);
    }
    if data.next().is_some() { Err(StoreError::Invalid) } else { Ok(good) }
}
