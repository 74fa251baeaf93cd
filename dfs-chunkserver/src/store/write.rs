//! Writing: bytes first, then their checksums, both in the page cache when a write returns.
//!
//! A stored checksum is the client's own, or computed from bytes that were verified the moment before:
//! the client's against its checksum, the old ones of a merged block against theirs (I13, rule B2). A
//! block is always written whole, so that a torn write leaves every sector old or new (rule B1).

use std::io::{self, IoSlice};
use std::sync::Arc;

use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::checksum::{Crc, crc32c};
use dfs_proto::chunk::Range;
use dfs_proto::ids::ChunkId;
use dfs_proto::planted;
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::chunk::{Body, Holes, Place, Shared, State, Stream};
use super::error::{Damage, StoreError};
use super::header;
use super::layout::{BLOCK, DATA_AT, SECTOR, SLOTS, TABLE_AT, chunk_path, data_at};
use super::pieces::{Piece, Write};
use super::read::{ReadMode, fill, matches};
use super::table::{HOLE, Table, entry_of, sector_of};

/// Largest step by which a sequential chunk is allocated ahead: the design's, an eighth of a chunk.
const STEP_MAX: u32 = 8 << 20;
/// How much of a stream is gathered before the kernel is asked to write it back: enough for one long
/// extent, little enough that a later sync finds most of the chunk on disk.
const WRITEBACK: u32 = 8 << 20;
/// Most buffers handed to one call; [`dfs_disk`] takes more, but a write seldom has them.
type Bufs<'a> = Vec<IoSlice<'a>>;

/// A block of which a write brings parts: the old bytes with the new ones over them.
struct Merged {
    block: u32,
    bytes: Box<[u8; BLOCK]>,
}

impl<D: Disk> Store<D> {
    /// Applies a write. Durable only after [`Store::sync`].
    ///
    /// # Errors
    /// `BadChecksum`, `Invalid`, `Corrupt` and `NoSpace` leave everything as it was. `Io` means that the
    /// replica has failed.
    pub fn write(&self, id: ChunkId, write: &Write<'_>) -> Result<(), StoreError> {
        let pieces = write.pieces(id, self.config.chunk_size.bytes())?;
        let chunk = self.find(id)?;
        {
            let mut state = chunk.write();
            state.usable()?;
            self.open_body(&chunk, &mut state)?;
            // Before, because the header of a new file is written with its first bytes.
            let extent = state.header.extent;
            state.header.extent = write.ranges.iter().map(|range| range.end()).fold(extent, u32::max);
            if let Err(error) = self.apply(&chunk, &mut state, &pieces) {
                state.header.extent = extent;
                return Err(error);
            }
            self.follow_stream(&mut state, write.ranges);
        }
        self.counters.writes.add(1);
        self.counters.written_bytes.add(write.data.len() as u64);
        self.limit_open_files();
        Ok(())
    }

    fn apply(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
        pieces: &[Piece<'_>],
    ) -> Result<(), StoreError> {
        let old = state.body.as_ref();
        let merged = self.merge(chunk.id, old, pieces)?;
        let (new, overwritten) = count(old.map(|body| &body.table), pieces);
        let new_bytes = u64::from(new) * u64::from(BLOCK_SIZE);
        self.room.take(&self.disk, new_bytes).inspect_err(|_| self.counters.no_space.add(1))?;
        let born = state.place == Place::Unborn;
        if born {
            self.create_file(chunk, state)?;
        } else if state.holes != Holes::Clean && fills_hole(state, pieces) {
            self.clean_holes(state)?;
        }
        if let Some(body) = &state.body
            && !born
            && new > 0
        {
            hold_space(body, pieces, overwritten > 0).inspect_err(|_| self.counters.no_space.add(1))?;
        }
        let Some(body) = &mut state.body else { return Err(StoreError::NoChunk(chunk.id)) };
        state.writes += 1;
        if let Err(err) = write_data(&*body.file, pieces, &merged) {
            // Holes are never read from the file, so bytes that reached only holes are as if unwritten.
            if err.kind() == io::ErrorKind::StorageFull && overwritten == 0 {
                return Err(self.no_space(chunk, state, born));
            }
            return Err(self.fail(state, "write a chunk's data", err));
        }
        let changed = set_entries(&mut body.table, pieces, &merged);
        let file = body.file.clone();
        let written = if born {
            self.write_birth(state, &file)
        } else {
            write_sectors(&*file, chunk.id, &body.table, &changed)
        };
        if let Err(err) = written {
            if err.kind() == io::ErrorKind::StorageFull && born {
                return Err(self.no_space(chunk, state, born));
            }
            return Err(self.fail(state, "write a chunk's checksums", err));
        }
        let end = pieces.iter().map(|piece| piece.block() + piece.blocks()).max().unwrap_or(0);
        state.blocks = state.blocks.max(end);
        Ok(())
    }

    /// The blocks of which `pieces` bring parts, old bytes verified before new ones go over them.
    fn merge(
        &self,
        chunk: ChunkId,
        body: Option<&Body<D::File>>,
        pieces: &[Piece<'_>],
    ) -> Result<Vec<Merged>, StoreError> {
        let mut merged: Vec<Merged> = Vec::new();
        for piece in pieces {
            let Piece::Part { block, start, bytes } = *piece else { continue };
            if merged.last().is_none_or(|last| last.block != block) {
                merged.push(Merged { block, bytes: self.old_block(chunk, body, block)? });
                self.counters.merges.add(1);
            }
            if let Some(last) = merged.last_mut() {
                last.bytes[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
        Ok(merged)
    }

    /// A block's bytes, verified; zeros for a hole.
    pub(super) fn old_block(
        &self,
        chunk: ChunkId,
        body: Option<&Body<D::File>>,
        block: u32,
    ) -> Result<Box<[u8; BLOCK]>, StoreError> {
        let mut bytes = Box::new([0; BLOCK]);
        let Some(body) = body else { return Ok(bytes) };
        let damage = if !fill(body, block, &mut bytes[..], ReadMode::MayBlock)? {
            Damage::Unreadable
        } else if matches(body.table.get(block), &bytes[..]).is_err() && !planted!(MergeUnverified) {
            Damage::Checksum
        } else {
            return Ok(bytes);
        };
        self.counters.corrupt_blocks.add(1);
        log::error!(
            "chunk {chunk}: block {block} is damaged ({damage:?}); a write to a part of it is refused"
        );
        Err(StoreError::Corrupt { chunk, block, damage })
    }

    /// Makes the chunk's file. Its header and table follow in one write, after the data.
    pub(super) fn create_file(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
    ) -> Result<(), StoreError> {
        let created = self.disk.open(&chunk_path(chunk.id), Open::New);
        let file = created.map_err(StoreError::full_or_io("create a chunk"))?;
        state.body = Some(Body { file: Arc::new(file), table: Table::default(), stream: Stream::default() });
        state.place = Place::Here;
        state.named = false;
        self.counters.chunks_created.add(1);
        self.open.add(chunk);
        Ok(())
    }

    /// The disk was fuller than it said. A file made for this write is taken back.
    pub(super) fn no_space(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
        born: bool,
    ) -> StoreError {
        self.counters.no_space.add(1);
        if born {
            self.uncreate(chunk, state);
        } else {
            state.holes = Holes::Dirty;
        }
        StoreError::NoSpace
    }

    fn uncreate(&self, chunk: &Shared<D::File>, state: &mut State<D::File>) {
        state.body = None;
        match self.disk.remove(&chunk_path(chunk.id)) {
            Ok(()) => {
                state.place = Place::Unborn;
                state.writes = state.synced;
            }
            Err(err) => log::error!("chunk {}: {err}; its empty file stays", chunk.id),
        }
    }

    /// Header, twice, and table of a new file, in one call: a small file costs three.
    pub(super) fn write_birth(&self, state: &mut State<D::File>, file: &D::File) -> io::Result<()> {
        let Some(body) = &state.body else { return Ok(()) };
        let mut bytes = vec![0; index_of(TABLE_AT)];
        bytes.reserve(body.table.sectors() * SECTOR);
        let mut slots = state.slots;
        for _ in SLOTS {
            let (slot, next) = slots.next();
            let at = index_of(SLOTS[slot]);
            let head = header::encode(&state.header, self.label.cluster, next.slot_gen);
            bytes[at..at + SECTOR].copy_from_slice(&head);
            slots = next;
        }
        for number in 0..body.table.sectors() {
            body.table.encode_sector(number, state.header.chunk, &mut bytes);
        }
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        state.slots = slots;
        state.slot_version = state.header.version;
        Ok(())
    }

    /// Allocates ahead of a sequential writer and starts write-back behind it. All of it is help that
    /// may fail without harm.
    fn follow_stream(&self, state: &mut State<D::File>, ranges: &[Range]) {
        let (Some(body), [range]) = (&mut state.body, ranges) else { return };
        let stream = &mut body.stream;
        if range.offset != stream.next || stream.next == 0 {
            // Perhaps the first of a stream. A file that fits one write is left alone.
            *stream =
                Stream { next: range.end(), allocated: range.end(), step: range.len, started: range.offset };
            return;
        }
        stream.next = range.end();
        if stream.next > stream.allocated {
            stream.step = stream.step.saturating_mul(2).min(STEP_MAX);
            let upto = stream.next.saturating_add(stream.step).min(self.config.chunk_size.bytes());
            let len = u64::from(upto - stream.next);
            let roomy = len > 0 && self.room.take(&self.disk, len).is_ok();
            if roomy && body.file.allocate(DATA_AT + u64::from(stream.next), len).is_err() {
                log::debug!("chunk {}: could not allocate ahead", state.header.chunk);
            }
            stream.allocated = upto;
        }
        if stream.next - stream.started >= WRITEBACK {
            let len = u64::from(stream.next - stream.started);
            // A hint; what goes wrong in write-back shows at the sync.
            let _ = body.file.start_writeback(DATA_AT + u64::from(stream.started), len);
            stream.started = stream.next;
        }
    }
}

fn index_of(offset: u64) -> usize {
    usize::try_from(offset).expect("within a chunk file's head")
}

/// How many blocks of `pieces` were holes, and how many were not.
fn count(table: Option<&Table>, pieces: &[Piece<'_>]) -> (u32, u32) {
    let (mut new, mut old) = (0, 0);
    let mut last = None;
    for block in pieces.iter().flat_map(|piece| piece.block()..piece.block() + piece.blocks()) {
        if last == Some(block) {
            continue;
        }
        last = Some(block);
        if table.is_none_or(|table| table.get(block) == HOLE) {
            new += 1;
        } else {
            old += 1;
        }
    }
    (new, old)
}

/// Has the disk set aside what the write needs where a lack found halfway could not be taken back: sectors for the
/// checksums of data that is on the disk by then, and new blocks, if old ones are overwritten with them.
fn hold_space<F: DiskFile>(body: &Body<F>, pieces: &[Piece<'_>], overwrites: bool) -> Result<(), StoreError> {
    let page = u64::from(BLOCK_SIZE);
    let end = pieces.iter().map(|piece| piece.block() + piece.blocks()).max().unwrap_or(0);
    let pages = |table_bytes: usize| (TABLE_AT + table_bytes as u64).next_multiple_of(page);
    let (has, needs) = (pages(body.table.sectors() * SECTOR), pages(Table::bytes_for(end)));
    if needs > has {
        set_aside(&*body.file, has, needs - has)?;
    }
    if !overwrites || end * BLOCK_SIZE <= body.stream.allocated {
        return Ok(());
    }
    let blocks = pieces.iter().flat_map(|piece| piece.block()..piece.block() + piece.blocks());
    let mut holes = blocks.filter(|block| body.table.get(*block) == HOLE);
    let Some(first) = holes.next() else { return Ok(()) };
    let after = holes.max().unwrap_or(first) + 1;
    set_aside(&*body.file, data_at(first), u64::from(after - first) * page)
}

/// What else goes wrong than that the disk is full, the write itself will meet.
fn set_aside<F: DiskFile>(file: &F, offset: u64, len: u64) -> Result<(), StoreError> {
    match file.allocate(offset, len) {
        Err(err) if err.kind() == io::ErrorKind::StorageFull => Err(StoreError::NoSpace),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a piece goes to a hole that the file covers.
fn fills_hole<F>(state: &State<F>, pieces: &[Piece<'_>]) -> bool {
    let Some(body) = &state.body else { return false };
    let mut blocks = pieces.iter().flat_map(|piece| piece.block()..piece.block() + piece.blocks());
    blocks.any(|block| block < state.blocks && body.table.get(block) == HOLE)
}

/// Writes all blocks, neighbours in one call.
fn write_data<F: DiskFile>(file: &F, pieces: &[Piece<'_>], merged: &[Merged]) -> io::Result<()> {
    let mut merged = merged.iter().peekable();
    let mut run: Bufs<'_> = Vec::with_capacity(pieces.len());
    let (mut start, mut next) = (0, 0);
    for piece in pieces {
        let (block, bytes) = match *piece {
            Piece::Whole { block, bytes, .. } => (block, bytes),
            Piece::Part { block, .. } => match merged.next_if(|merged| merged.block == block) {
                Some(merged) => (block, &merged.bytes[..]),
                // An earlier part brought the whole merged block.
                None => continue,
            },
        };
        if block != next && !run.is_empty() {
            file.write_at(&run, data_at(start))?;
            run.clear();
        }
        if run.is_empty() {
            start = block;
        }
        run.push(IoSlice::new(bytes));
        next = block + piece.blocks();
    }
    file.write_at(&run, data_at(start))
}

/// Puts the checksums of what was written into the table. Returns the sectors that changed, in order,
/// those included that the file now has and had not.
fn set_entries(table: &mut Table, pieces: &[Piece<'_>], merged: &[Merged]) -> Vec<usize> {
    let had = table.sectors();
    let mut changed = Vec::new();
    let mut note = |block| {
        let sector = sector_of(block);
        if sector < had && changed.last() != Some(&sector) {
            changed.push(sector);
        }
    };
    for piece in pieces {
        if let Piece::Whole { block, crcs, .. } = *piece {
            for (block, crc) in (block..).zip(crcs) {
                table.set(block, entry_of(Crc(*crc)));
                note(block);
            }
        }
    }
    for merged in merged {
        table.set(merged.block, entry_of(crc32c(&merged.bytes[..])));
        note(merged.block);
    }
    changed.sort_unstable();
    changed.dedup();
    changed.extend(had..table.sectors());
    changed
}

/// Writes the table's sectors named in `changed`, neighbours in one call.
pub(super) fn write_sectors<F: DiskFile>(
    file: &F,
    chunk: ChunkId,
    table: &Table,
    changed: &[usize],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(changed.len() * SECTOR);
    for run in changed.chunk_by(|left, right| left + 1 == *right) {
        bytes.clear();
        for number in run {
            table.encode_sector(*number, chunk, &mut bytes);
        }
        file.write_at(&[IoSlice::new(&bytes)], TABLE_AT + (run[0] * SECTOR) as u64)?;
    }
    Ok(())
}

impl<D: Disk> Store<D> {
    /// Whether the disk takes what a write to `ranges` would add, its reserve aside. Applies nothing.
    ///
    /// # Errors
    /// `NoSpace` when it does not.
    pub fn hold_room(&self, id: ChunkId, ranges: &[Range]) -> Result<(), StoreError> {
        let chunk = self.find(id)?;
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        let table = state.body.as_ref().map(|body| &body.table);
        let mut new = 0;
        for range in ranges {
            let first = range.offset / BLOCK_SIZE;
            let blocks = first..first + range.blocks();
            new += blocks.filter(|block| table.is_none_or(|table| table.get(*block) == HOLE)).count();
        }
        let bytes = (new as u64) * u64::from(BLOCK_SIZE);
        self.room.take(&self.disk, bytes).inspect_err(|_| self.counters.no_space.add(1))
    }

    /// Gives back what was allocated ahead and not written, for a chunk that is being closed.
    ///
    /// # Errors
    /// When the chunk is not here; that the disk could not is none.
    pub fn trim(&self, id: ChunkId) -> Result<(), StoreError> {
        let chunk = self.find(id)?;
        let mut state = chunk.write();
        let chunk_size = self.config.chunk_size.bytes();
        let Some(body) = &mut state.body else { return Ok(()) };
        let extent = body.table.extent() * BLOCK_SIZE;
        if body.stream.allocated > extent && extent < chunk_size {
            let _ = body.file.punch(DATA_AT + u64::from(extent), u64::from(chunk_size - extent));
        }
        body.stream = Stream::default();
        Ok(())
    }
}
