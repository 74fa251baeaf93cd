//! Reading: every block that leaves here matched its stored checksum (I12), or is a hole.

use std::sync::atomic::Ordering;
use std::sync::{RwLockReadGuard, RwLockWriteGuard, TryLockError};

use bytes::Bytes;
use dfs_disk::{Disk, DiskFile};
use dfs_proto::checksum::{Crc, Digest, crc32c};
use dfs_proto::chunk::Range;
use dfs_proto::ids::ChunkId;
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::chunk::{Body, Place, Shared, State};
use super::error::{Damage, StoreError};
use super::layout::{BLOCK, data_at, index, small};
use super::table::{HOLE, Table, entry_of};

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// Answers `WouldBlock` rather than wait, for a disk or for a writer: for threads that must not.
    CachedOnly,
    MayBlock,
}

/// Whole blocks of a chunk.
#[derive(Clone, Debug)]
pub struct ReadBlocks {
    /// Where in the chunk `data` begins: a multiple of the block size.
    pub offset: u32,
    /// Shorter than asked for where the chunk's written extent ends; the rest reads as zeros.
    pub data: Bytes,
    /// One a block of `data`, as stored; `None` for a hole, whose bytes are zeros.
    pub crcs: Vec<Option<Crc>>,
}

/// A table of checksums as members compare it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableCopy {
    /// One a block up to the written extent: 0 a hole, 1 a lost checksum, else the checksum, at least 2.
    pub entries: Vec<u32>,
    pub digest: Digest,
}

/// What a comparison of all bytes with their checksums found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Blocks that match, holes included.
    pub good: u32,
    /// Blocks that do not, or can't be read.
    pub bad: Vec<u32>,
    /// Of the stored table, which is that of the data when `bad` is empty.
    pub digest: Digest,
}

/// Most blocks that [`Store::verify`] reads while it keeps writers out: 1 MiB.
const VERIFY_STEP: u32 = 256;

impl<D: Disk> Store<D> {
    /// The blocks that cover `len` bytes from `offset`, up to the written extent.
    ///
    /// # Errors
    /// `Corrupt` names the first block that does not match; nothing of a damaged range is returned.
    pub fn read(&self, id: ChunkId, offset: u32, len: u32, mode: ReadMode) -> Result<ReadBlocks, StoreError> {
        let chunk = self.find(id)?;
        let result = self.read_chunk(&chunk, offset, len, mode);
        match &result {
            Ok(blocks) => {
                self.counters.reads.add(1);
                self.counters.read_bytes.add(blocks.data.len() as u64);
            }
            Err(StoreError::WouldBlock) => self.counters.would_block.add(1),
            Err(_) => {}
        }
        if mode == ReadMode::MayBlock {
            self.limit_open_files();
        }
        result
    }

    fn read_chunk(
        &self,
        chunk: &Shared<D::File>,
        offset: u32,
        len: u32,
        mode: ReadMode,
    ) -> Result<ReadBlocks, StoreError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.config.chunk_size.bytes());
        let end = end.ok_or(StoreError::Invalid)?.div_ceil(BLOCK_SIZE);
        let first = offset / BLOCK_SIZE;
        let empty = ReadBlocks { offset: first * BLOCK_SIZE, data: Bytes::new(), crcs: Vec::new() };
        let state = self.with_body(chunk, mode)?;
        let Some(body) = &state.body else { return Ok(empty) };
        let end = end.min(body.table.extent());
        if len == 0 || first >= end {
            return Ok(empty);
        }
        let mut buffer = self.pool.take(index(end - first) * BLOCK);
        if !fill(body, first, buffer.as_mut(), mode)? {
            if mode == ReadMode::CachedOnly {
                return Err(StoreError::WouldBlock);
            }
            return self.find_unreadable(chunk, body, first, end);
        }
        let crcs = check(body, first, buffer.as_mut()).map_err(|block| self.corrupt(chunk.id, block))?;
        drop(state);
        Ok(ReadBlocks { data: buffer.freeze(), crcs, ..empty })
    }

    /// The chunk's state with its file open; without one only if the chunk has none yet.
    pub(super) fn with_body<'a>(
        &self,
        chunk: &'a Shared<D::File>,
        mode: ReadMode,
    ) -> Result<RwLockReadGuard<'a, State<D::File>>, StoreError> {
        let state = match mode {
            ReadMode::MayBlock => chunk.read(),
            ReadMode::CachedOnly => match chunk.state.try_read() {
                Ok(state) => state,
                Err(TryLockError::WouldBlock) => return Err(StoreError::WouldBlock),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            },
        };
        state.usable()?;
        if state.body.is_some() || state.place == Place::Unborn {
            if !chunk.used.load(Ordering::Relaxed) {
                chunk.used.store(true, Ordering::Relaxed);
            }
            return Ok(state);
        }
        if mode == ReadMode::CachedOnly {
            return Err(StoreError::WouldBlock);
        }
        drop(state);
        let mut state = chunk.write();
        state.usable()?;
        self.open_body(chunk, &mut state)?;
        Ok(RwLockWriteGuard::downgrade(state))
    }

    fn corrupt(&self, chunk: ChunkId, block: u32) -> StoreError {
        self.counters.corrupt_blocks.add(1);
        log::error!("chunk {chunk}: block {block} does not match its checksum");
        StoreError::Corrupt { chunk, block, damage: Damage::Checksum }
    }

    /// Reads one by one the blocks that could not be read together: the answer has to name the one.
    fn find_unreadable<R>(
        &self,
        chunk: &Shared<D::File>,
        body: &Body<D::File>,
        first: u32,
        end: u32,
    ) -> Result<R, StoreError> {
        let mut bytes = [0; BLOCK];
        let hit = (first..end)
            .find(|block| !matches!(fill(body, *block, &mut bytes, ReadMode::MayBlock), Ok(true)));
        let block = hit.unwrap_or(first);
        self.counters.corrupt_blocks.add(1);
        log::error!("chunk {}: block {block} can't be read", chunk.id);
        Err(StoreError::Corrupt { chunk: chunk.id, block, damage: Damage::Unreadable })
    }

    /// Bytes from the chunk's start to the end of its last block that is not a hole.
    ///
    /// # Errors
    /// When the chunk is not here or its table can't be read.
    pub fn extent(&self, id: ChunkId) -> Result<u32, StoreError> {
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        Ok(state.body.as_ref().map_or(0, |body| body.table.extent() * BLOCK_SIZE))
    }

    /// What the stored table says of the blocks of a range.
    ///
    /// # Errors
    /// When the chunk is not here or its table can't be read.
    pub fn entries(&self, id: ChunkId, range: Range) -> Result<Vec<u32>, StoreError> {
        let blocks = range.offset / BLOCK_SIZE..range.end() / BLOCK_SIZE;
        if blocks.end > self.config.chunk_size.blocks() {
            return Err(StoreError::Invalid);
        }
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        let entry = |block| state.body.as_ref().map_or(HOLE, |body| body.table.get(block));
        Ok(blocks.map(entry).collect())
    }

    /// The stored table and its digest.
    ///
    /// # Errors
    /// When the chunk is not here or its table can't be read.
    pub fn table(&self, id: ChunkId) -> Result<TableCopy, StoreError> {
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        let none = Table::default();
        let table = state.body.as_ref().map_or(&none, |body| &body.table);
        Ok(TableCopy { entries: table.used().to_vec(), digest: table.digest() })
    }

    /// Compares every block with its checksum. Writers get their turn in between.
    ///
    /// # Errors
    /// When the chunk is not here or its table can't be read; damaged blocks are no error.
    pub fn verify(&self, id: ChunkId) -> Result<Verified, StoreError> {
        let chunk = self.find(id)?;
        let mut bad = Vec::new();
        let mut good = 0;
        let mut first = 0;
        loop {
            let state = self.with_body(&chunk, ReadMode::MayBlock)?;
            let Some(body) = state.body.as_ref().filter(|body| first < body.table.extent()) else { break };
            let end = (first + VERIFY_STEP).min(body.table.extent());
            let mut buffer = self.pool.take(index(end - first) * BLOCK);
            let whole = fill(body, first, buffer.as_mut(), ReadMode::MayBlock).unwrap_or(false);
            for (block, bytes) in (first..end).zip(buffer.as_mut().chunks_exact_mut(BLOCK)) {
                let read = whole || fill(body, block, bytes, ReadMode::MayBlock).unwrap_or(false);
                if read && matches(body.table.get(block), bytes).is_ok() {
                    good += 1;
                } else {
                    bad.push(block);
                }
            }
            first = end;
        }
        self.counters.corrupt_blocks.add(bad.len() as u64);
        let digest = self.table(id)?.digest;
        Ok(Verified { good, bad, digest })
    }
}

/// Fills `buf` with the blocks from `first`; holes become zeros whatever the file holds there. False when
/// the device failed. What the file lacks becomes zeros, which no checksum of data that was there matches.
pub(super) fn fill<F: DiskFile>(
    body: &Body<F>,
    first: u32,
    buf: &mut [u8],
    mode: ReadMode,
) -> Result<bool, StoreError> {
    let blocks = first..first + small(buf.len() / BLOCK);
    if blocks.clone().any(|block| body.table.get(block) != HOLE) {
        let n = match mode {
            ReadMode::MayBlock => body.file.read_at(buf, data_at(first)),
            ReadMode::CachedOnly => match body.file.read_cached_at(buf, data_at(first)) {
                Ok(Some(n)) => Ok(n),
                Ok(None) => return Err(StoreError::WouldBlock),
                Err(err) => Err(err),
            },
        };
        let Ok(n) = n else { return Ok(false) };
        buf[n..].fill(0);
    }
    for (block, bytes) in blocks.zip(buf.chunks_exact_mut(BLOCK)) {
        if body.table.get(block) == HOLE {
            bytes.fill(0);
        }
    }
    Ok(true)
}

/// The checksums of blocks that all match; else the first that does not.
fn check<F>(body: &Body<F>, first: u32, bytes: &[u8]) -> Result<Vec<Option<Crc>>, u32> {
    let mut crcs = Vec::with_capacity(bytes.len() / BLOCK);
    for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK)) {
        crcs.push(matches(body.table.get(block), bytes).map_err(|Mismatch| block)?);
    }
    Ok(crcs)
}

/// The bytes of a block are not those that its entry stands for.
#[derive(Debug)]
pub(super) struct Mismatch;

/// A block's checksum, computed from its bytes, if its entry agrees; `None` for a hole.
pub(super) fn matches(entry: u32, bytes: &[u8]) -> Result<Option<Crc>, Mismatch> {
    if entry == HOLE {
        return Ok(None);
    }
    let crc = crc32c(bytes);
    if entry_of(crc) == entry { Ok(Some(crc)) } else { Err(Mismatch) }
}
