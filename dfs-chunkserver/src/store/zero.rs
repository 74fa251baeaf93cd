//! Zeroing behind a truncation, and what a hole's bytes in the file may be.
//!
//! A hole is never read from the file, so what lies there matters only once: when a write fills the hole
//! and a power cut tears that write, the sectors that did not make it show what lay there before. So
//! before a hole is filled, the file is known to have zeros there, durably. Only what a crash, a full disk
//! or a truncation left behind makes that cost anything; a file that only grows never pays.

use std::io::{self, IoSlice};
use std::ops::Range;

use dfs_disk::{Disk, DiskFile};
use dfs_proto::checksum::crc32c;
use dfs_proto::ids::{ChunkId, SizeEpoch};
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::chunk::{Body, Holes, Place, Shared, State, locked};
use super::error::StoreError;
use super::layout::{BLOCK, data_at, index};
use super::table::{HOLE, entry_of, sector_of};
use super::write::write_sectors;

impl<D: Disk> Store<D> {
    /// Makes the bytes `from..to` zeros under `epoch`; blocks wholly inside become holes and give their
    /// space back. False, and nothing done, when the chunk has seen `epoch` or a later one.
    ///
    /// On return the zeros are durable: the epoch in the header, which makes a repetition a no-op, must
    /// never be found on disk without them.
    ///
    /// # Errors
    /// `Corrupt` when a block at the ends is damaged: it has to be repaired first. `Io`: failed for good.
    pub fn zero(&self, id: ChunkId, from: u32, to: u32, epoch: SizeEpoch) -> Result<bool, StoreError> {
        let to = to.min(self.config.chunk_size.bytes());
        let chunk = self.find(id)?;
        let _one = locked(&chunk.syncing);
        let mut state = chunk.write();
        state.usable()?;
        if epoch <= state.header.size_epoch {
            return Ok(false);
        }
        self.open_body(&chunk, &mut state)?;
        if state.place == Place::Here {
            self.zero_blocks(&chunk, &mut state, from, to)?;
        }
        state.header.size_epoch = epoch;
        if to >= state.header.extent {
            state.header.extent = state.header.extent.min(from);
        }
        self.header_to_file(&mut state)?;
        Ok(true)
    }

    fn zero_blocks(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
        from: u32,
        to: u32,
    ) -> Result<(), StoreError> {
        let Some(body) = &mut state.body else { return Ok(()) };
        let mut merged = Vec::new();
        for (block, start, end) in ragged_ends(from, to) {
            if body.table.get(block) != HOLE {
                let mut bytes = self.old_block(chunk.id, Some(body), block)?;
                bytes[start..end].fill(0);
                merged.push((block, bytes));
            }
        }
        state.writes += 1;
        let holes = holes_within(body, from, to);
        let written = write_zeros(chunk.id, body, std::slice::from_ref(&holes), &merged);
        if let Err(err) = written.and_then(|()| self.sync_file(&body.file)) {
            return Err(self.fail(state, "zero behind a truncation", err));
        }
        let (writes, slot_gen) = (state.writes, state.slots.slot_gen);
        self.covered(state, writes, slot_gen);
        if !holes.is_empty() {
            // Not before the table is durable: a power cut must not leave checksums without their bytes.
            self.punch_holes(state, holes)?;
        }
        Ok(())
    }

    /// Takes the bytes of new holes out of the file. Durable with the next sync.
    fn punch_holes(&self, state: &mut State<D::File>, holes: Range<u32>) -> Result<(), StoreError> {
        let Some(body) = &state.body else { return Ok(()) };
        if let Err(err) = punch(&*body.file, holes) {
            return Err(self.fail(state, "punch a hole", err));
        }
        state.writes += 1;
        state.holes = match state.holes {
            Holes::Clean | Holes::Punched { .. } => Holes::Punched { writes: state.writes },
            Holes::Dirty => Holes::Dirty,
        };
        Ok(())
    }

    /// Sees to it that the file has zeros, durably, wherever the table has holes.
    pub(super) fn clean_holes(&self, state: &mut State<D::File>) -> Result<(), StoreError> {
        let Some(body) = &state.body else { return Ok(()) };
        let dirty = match state.holes {
            Holes::Clean => return Ok(()),
            Holes::Punched { writes } if writes <= state.synced => false,
            Holes::Punched { .. } => true,
            Holes::Dirty => {
                let holes: Vec<u32> =
                    (0..state.blocks).filter(|block| body.table.get(*block) == HOLE).collect();
                for run in holes.chunk_by(|left, right| left + 1 == *right) {
                    if let Err(err) = punch(&*body.file, run[0]..run[run.len() - 1] + 1) {
                        return Err(self.fail(state, "punch a hole", err));
                    }
                }
                true
            }
        };
        if dirty && let Err(err) = self.sync_file(&body.file) {
            return Err(self.fail(state, "sync a chunk", err));
        }
        state.holes = Holes::Clean;
        Ok(())
    }
}

/// Writes merged blocks, and then the table with the holes in it.
pub(super) fn write_zeros<F: DiskFile>(
    chunk: ChunkId,
    body: &mut Body<F>,
    holes: &[Range<u32>],
    merged: &[(u32, Box<[u8; BLOCK]>)],
) -> io::Result<()> {
    let mut changed = Vec::new();
    for block in holes.iter().cloned().flatten() {
        if body.table.get(block) != HOLE {
            body.table.set(block, HOLE);
            changed.push(sector_of(block));
        }
    }
    for (block, bytes) in merged {
        body.table.set(*block, entry_of(crc32c(&bytes[..])));
        changed.push(sector_of(*block));
        body.file.write_at(&[IoSlice::new(&bytes[..])], data_at(*block))?;
    }
    changed.sort_unstable();
    changed.dedup();
    write_sectors(&*body.file, chunk, &body.table, &changed)
}

/// Makes blocks of the file zeros; by writing them where the filesystem can't punch.
pub(super) fn punch<F: DiskFile>(file: &F, blocks: Range<u32>) -> io::Result<()> {
    match file.punch(data_at(blocks.start), data_at(blocks.end) - data_at(blocks.start)) {
        Err(err) if err.kind() == io::ErrorKind::Unsupported => {
            let zeros = [0; BLOCK];
            blocks.into_iter().try_for_each(|block| file.write_at(&[IoSlice::new(&zeros)], data_at(block)))
        }
        other => other,
    }
}

/// The blocks wholly inside `from..to` that may be none yet.
pub(super) fn holes_within<F>(body: &Body<F>, from: u32, to: u32) -> Range<u32> {
    whole_blocks(from, to.min(body.table.extent().saturating_mul(BLOCK_SIZE)))
}

/// Blocks as a range of indices; for callers that speak of bytes.
fn whole_blocks(from: u32, to: u32) -> Range<u32> {
    from.div_ceil(BLOCK_SIZE)..(to / BLOCK_SIZE).max(from.div_ceil(BLOCK_SIZE))
}

/// The parts of blocks at the ends of `from..to`: block, start and end within it.
pub(super) fn ragged_ends(from: u32, to: u32) -> Vec<(u32, usize, usize)> {
    let whole = whole_blocks(from, to);
    let mut ends = Vec::with_capacity(2);
    if from < to && !from.is_multiple_of(BLOCK_SIZE) {
        let block = from / BLOCK_SIZE;
        let end = (to - block * BLOCK_SIZE).min(BLOCK_SIZE);
        ends.push((block, index(from % BLOCK_SIZE), index(end)));
    }
    if from < to && !to.is_multiple_of(BLOCK_SIZE) && to / BLOCK_SIZE >= whole.start {
        ends.push((to / BLOCK_SIZE, 0, index(to % BLOCK_SIZE)));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_its_ends_and_its_whole_blocks() {
        assert_eq!((whole_blocks(0, 8192), ragged_ends(0, 8192)), (0..2, vec![]));
        assert_eq!((whole_blocks(1, 8193), ragged_ends(1, 8193)), (1..2, vec![(0, 1, 4096), (2, 0, 1)]));
        assert_eq!((whole_blocks(5, 10), ragged_ends(5, 10)), (1..1, vec![(0, 5, 10)]));
        assert_eq!((whole_blocks(4096, 4100), ragged_ends(4096, 4100)), (1..1, vec![(1, 0, 4)]));
        assert_eq!((whole_blocks(4000, 4096), ragged_ends(4000, 4096)), (1..1, vec![(0, 4000, 4096)]));
        assert_eq!((whole_blocks(7, 7), ragged_ends(7, 7)), (1..1, vec![]));
    }
}
