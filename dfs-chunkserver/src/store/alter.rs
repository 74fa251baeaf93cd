//! Changes to a chunk that are no client's write: making a hole of a block, settling a torn one, and changes to
//! the header.

use std::sync::atomic::Ordering;

use dfs_disk::Disk;
use dfs_proto::checksum::crc32c;
use dfs_proto::ids::ChunkId;

use super::Store;
use super::chunk::{Holes, State};
use super::error::{Damage, StoreError};
use super::header::{Header, HeaderChange};
use super::layout::BLOCK;
use super::read::{ReadMode, fill, matches};
use super::table::{HOLE, entry_of, sector_of};
use super::write::write_sectors;

/// Whether a change is on disk when the call returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// With the chunk's next sync.
    Later,
    Synced,
}

impl<D: Disk> Store<D> {
    /// Writes the header, if the chunk has a file.
    pub(super) fn header_to_file(&self, state: &mut State<D::File>) -> Result<(), StoreError> {
        let Some(file) = state.body.as_ref().map(|body| body.file.clone()) else { return Ok(()) };
        match state.put_header(&file, self.label.cluster) {
            Ok(()) => Ok(()),
            Err(err) => Err(self.fail(state, "write a header", err)),
        }
    }

    /// Makes a block a hole that other members have as one, whatever its own checksum says.
    ///
    /// # Errors
    /// `Io`: failed for good.
    pub fn repair_hole(&self, id: ChunkId, block: u32) -> Result<(), StoreError> {
        let chunk = self.find(id)?;
        let mut state = chunk.write();
        state.usable()?;
        self.open_body(&chunk, &mut state)?;
        if state.body.as_ref().is_none_or(|body| body.table.get(block) == HOLE) {
            return Ok(());
        }
        self.counters.repaired_blocks.add(1);
        state.holes = Holes::Dirty;
        self.set_entry(&mut state, block, HOLE)
    }

    /// Rule B3: takes a block's bytes as they are and computes their checksum, because no member has a
    /// copy that matches. Only for chunks that may have been torn: the caller answers for that. False
    /// when the block matches already.
    ///
    /// # Errors
    /// `Corrupt` when the bytes can't be read (rule B4). `Io`: failed for good.
    pub fn resolve_torn(&self, id: ChunkId, block: u32) -> Result<bool, StoreError> {
        let chunk = self.find(id)?;
        let mut state = chunk.write();
        state.usable()?;
        self.open_body(&chunk, &mut state)?;
        let Some(body) = &state.body else { return Ok(false) };
        let mut bytes = [0; BLOCK];
        if !fill(body, block, &mut bytes, ReadMode::MayBlock)? {
            return Err(StoreError::Corrupt { chunk: id, block, damage: Damage::Unreadable });
        }
        if matches(body.table.get(block), &bytes).is_ok() {
            return Ok(false);
        }
        self.counters.torn_resolved.add(1);
        log::warn!("chunk {id}: block {block} was torn; its bytes are taken as they are");
        let entry = entry_of(crc32c(&bytes));
        self.set_entry(&mut state, block, entry)?;
        Ok(true)
    }

    fn set_entry(&self, state: &mut State<D::File>, block: u32, entry: u32) -> Result<(), StoreError> {
        let id = state.header.chunk;
        let Some(body) = &mut state.body else { return Ok(()) };
        let had = body.table.sectors();
        body.table.set(block, entry);
        let sector = sector_of(block);
        let changed: Vec<usize> = if sector < had { vec![sector] } else { (had..=sector).collect() };
        state.writes += 1;
        state.blocks = state.blocks.max(block + 1);
        if let Err(err) = write_sectors(&*body.file, id, &body.table, &changed) {
            return Err(self.fail(state, "write a chunk's checksums", err));
        }
        Ok(())
    }

    /// What the replica's header says now.
    ///
    /// # Errors
    /// When the chunk is not here. A failed replica's header can be read.
    pub fn header(&self, id: ChunkId) -> Result<Header, StoreError> {
        Ok(self.find(id)?.read().header.clone())
    }

    /// Changes the header, and the file's if there is one. What may be written later is not written to a disk that
    /// is suspect: the sync to come would take the replica out.
    ///
    /// # Errors
    /// `Older`, and nothing changed, when version or configuration would go backwards (I2).
    pub fn set_header(
        &self,
        id: ChunkId,
        change: &HeaderChange,
        durability: Durability,
    ) -> Result<Header, StoreError> {
        let chunk = self.find(id)?;
        let header = {
            let mut state = chunk.write();
            state.usable()?;
            let mut header = state.header.clone();
            if !change.apply(&mut header) {
                let Header { version, config, .. } = header;
                return Err(StoreError::Older { chunk: id, version, config });
            }
            if header != state.header && durability == Durability::Later && self.suspect() {
                state.header = header.clone();
            } else if header != state.header {
                self.open_body(&chunk, &mut state)?;
                header.extent = state.header.extent;
                state.header = header.clone();
                self.header_to_file(&mut state)?;
            }
            header
        };
        chunk.used.store(true, Ordering::Relaxed);
        if durability == Durability::Synced {
            self.sync(id, header.seq_synced)?;
        }
        self.limit_open_files();
        Ok(header)
    }
}
