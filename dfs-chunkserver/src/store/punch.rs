//! A write of zeros: what becomes a hole gives its space back, and the parts of blocks at its ends are zeros.
//!
//! Nothing is synced here, as with any write. The table says "hole" before the bytes go, so a process that ends in
//! between leaves zeros. A power cut may keep one without the other: bytes under a hole are not read, and a checksum
//! whose bytes are gone makes the block a torn one, whose sectors are old or zeros (rule B3). That is why
//! [`Holes`](super::chunk::Holes) stays as it is: a torn write that fills such a hole shows what a write that was never
//! synced may show. A truncation's zeros are durable, so its holes are another matter, see [`super::zero`].

use std::io;

use dfs_disk::Disk;
use dfs_proto::chunk::Range;
use dfs_proto::ids::ChunkId;

use super::Store;
use super::chunk::{Place, Shared, State};
use super::error::StoreError;
use super::layout::BLOCK;
use super::table::HOLE;
use super::zero::{holes_within, punch, ragged_ends, write_zeros};

impl<D: Disk> Store<D> {
    /// Makes ascending, disjoint ranges zeros. Durable only after [`Store::sync`].
    ///
    /// # Errors
    /// `Invalid`, `Corrupt` and `NoSpace` leave everything as it was. `Io` means that the replica has failed.
    pub fn punch(&self, id: ChunkId, ranges: &[Range]) -> Result<(), StoreError> {
        if ranges.last().is_none_or(|range| range.end() > self.config.chunk_size.bytes()) {
            return Err(StoreError::Invalid);
        }
        let chunk = self.find(id)?;
        {
            let mut state = chunk.write();
            state.usable()?;
            self.open_body(&chunk, &mut state)?;
            if state.place == Place::Unborn {
                // Members of a chunk are asked for its file from its first write on.
                self.bear_empty(&chunk, &mut state)?;
            } else {
                self.punch_ranges(&chunk, &mut state, ranges)?;
            }
        }
        self.counters.punches.add(1);
        self.limit_open_files();
        Ok(())
    }

    fn punch_ranges(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
        ranges: &[Range],
    ) -> Result<(), StoreError> {
        let Some(body) = &mut state.body else { return Ok(()) };
        let mut merged: Vec<(u32, Box<[u8; BLOCK]>)> = Vec::new();
        for (block, start, end) in ranges.iter().flat_map(|range| ragged_ends(range.offset, range.end())) {
            if body.table.get(block) == HOLE {
                continue;
            }
            if merged.last().is_none_or(|(last, _)| *last != block) {
                merged.push((block, self.old_block(chunk.id, Some(body), block)?));
            }
            if let Some((_, bytes)) = merged.last_mut() {
                bytes[start..end].fill(0);
            }
        }
        let holes: Vec<_> =
            ranges.iter().map(|range| holes_within(body, range.offset, range.end())).collect();
        state.writes += 1;
        if let Err(err) = write_zeros(chunk.id, body, &holes, &merged) {
            return Err(self.fail(state, "write zeros", err));
        }
        for run in holes.into_iter().filter(|run| !run.is_empty()) {
            if let Err(err) = punch(&*body.file, run) {
                return Err(self.fail(state, "punch a hole", err));
            }
        }
        Ok(())
    }

    /// Makes the file of a chunk that has nothing but holes.
    pub(super) fn bear_empty(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
    ) -> Result<(), StoreError> {
        self.create_file(chunk, state)?;
        let Some(file) = state.body.as_ref().map(|body| body.file.clone()) else { return Ok(()) };
        state.writes += 1;
        match self.write_birth(state, &file) {
            Err(err) if err.kind() == io::ErrorKind::StorageFull => Err(self.no_space(chunk, state, true)),
            Err(err) => Err(self.fail(state, "write a header", err)),
            Ok(()) => Ok(()),
        }
    }
}
