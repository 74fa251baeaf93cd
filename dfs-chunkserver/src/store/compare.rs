//! Comparing a part of a replica with another's table of checksums, for a fill that starts from an old replica.

use dfs_disk::Disk;
use dfs_proto::ids::ChunkId;
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::chunk::Place;
use super::error::StoreError;
use super::layout::{BLOCK, index, small};
use super::read::{ReadMode, fill, matches};
use super::table::HOLE;

impl<D: Disk> Store<D> {
    /// Which blocks from `offset` are not what `entries`, of another replica's table, say. The bytes are read:
    /// a table that they do not match proves nothing. Where the other has a hole, one is made here. The other has a
    /// file, so there is one here too afterwards, if nothing but holes: members are asked for it.
    ///
    /// # Errors
    /// When the chunk is not here, its table can't be read, or a hole can't be made. A block that can't be
    /// read differs.
    pub fn compare(&self, id: ChunkId, offset: u32, entries: &[u32]) -> Result<Vec<bool>, StoreError> {
        let first = offset / BLOCK_SIZE;
        let blocks = first..first.saturating_add(small(entries.len()));
        if blocks.end > self.config.chunk_size.blocks() {
            return Err(StoreError::Invalid);
        }
        let chunk = self.find(id)?;
        if chunk.read().place == Place::Unborn {
            let mut state = chunk.write();
            if state.place == Place::Unborn {
                self.bear_empty(&chunk, &mut state)?;
            }
        }
        let mut differ: Vec<bool> = entries.iter().map(|entry| *entry != HOLE).collect();
        let mut holes = Vec::new();
        let state = self.with_body(&chunk, ReadMode::MayBlock)?;
        if let Some(body) = &state.body {
            let end = blocks.end.min(body.table.extent()).max(first);
            let mut buffer = self.pool.take(index(end - first) * BLOCK);
            let whole = fill(body, first, buffer.as_mut(), ReadMode::MayBlock).unwrap_or(false);
            let here = (first..end).zip(buffer.as_mut().chunks_exact_mut(BLOCK));
            for ((block, bytes), (entry, differs)) in here.zip(entries.iter().zip(&mut differ)) {
                let own = body.table.get(block);
                if *entry == HOLE && own != HOLE {
                    holes.push(block);
                } else if own == *entry && own != HOLE {
                    let read = whole || fill(body, block, bytes, ReadMode::MayBlock).unwrap_or(false);
                    *differs = !read || matches(own, bytes).is_err();
                }
            }
        }
        drop(state);
        for block in holes {
            self.repair_hole(id, block)?;
        }
        self.limit_open_files();
        Ok(differ)
    }
}
