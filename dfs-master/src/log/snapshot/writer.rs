//! Writing a snapshot: block by block into a temporary file, which gets its name when it is whole.

use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open};

use super::format::{self, Head, Totals};
use super::{BLOCK_MAX, DIR, SnapshotError, SnapshotMeta, SnapshotStore, TEMP, path};

/// Written bytes are handed to the device in steps of this size: one sync of gigabytes at the end would
/// stall the log's own.
const WRITEBACK_STEP: u64 = 8 << 20;

/// A snapshot being written.
#[derive(Debug)]
pub struct SnapshotWriter<D: Disk> {
    store: SnapshotStore<D>,
    meta: SnapshotMeta,
    temp: String,
    file: D::File,
    at: u64,
    handed_over: u64,
    seed: u32,
    totals: Totals,
}

impl<D: Disk> SnapshotWriter<D> {
    pub(super) fn begin(
        store: SnapshotStore<D>,
        meta: SnapshotMeta,
    ) -> Result<SnapshotWriter<D>, SnapshotError> {
        let temp = format!("{DIR}/writing{TEMP}");
        let io = |source| SnapshotError::Io { path: temp.clone(), source };
        let (header, seed) = format::encode_header(store.cluster, &meta)
            .map_err(|error| io(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        if store.disk.exists(&temp).map_err(io)? {
            store.disk.remove(&temp).map_err(io)?;
        }
        let file = store.disk.open(&temp, Open::New).map_err(io)?;
        file.write_at(&[IoSlice::new(&header)], 0).map_err(io)?;
        let at = header.len() as u64;
        Ok(SnapshotWriter { store, meta, temp, file, at, handed_over: 0, seed, totals: Totals::default() })
    }

    /// Appends a block of `section`.
    ///
    /// # Errors
    /// The failing call's. Drop the writer then; the next snapshot begins anew.
    ///
    /// # Panics
    /// When the block is over [`BLOCK_MAX`] or of a section that was not declared.
    pub fn block(&mut self, section: u16, payload: &[u8]) -> Result<(), SnapshotError> {
        assert!(payload.len() <= BLOCK_MAX, "a snapshot block of {} bytes", payload.len());
        assert!(self.meta.sections.iter().any(|s| s.id == section), "undeclared section {section}");
        let head = Head::encode(self.seed, self.totals.blocks, section, false, payload);
        self.put(&head, payload)?;
        self.totals.add(payload.len(), super::super::record::u32_at(&head, 4));
        Ok(())
    }

    fn put(&mut self, head: &[u8], payload: &[u8]) -> Result<(), SnapshotError> {
        let io = |source| SnapshotError::Io { path: self.temp.clone(), source };
        self.file.write_at(&[IoSlice::new(head), IoSlice::new(payload)], self.at).map_err(io)?;
        self.at += (head.len() + payload.len()) as u64;
        if self.at - self.handed_over >= WRITEBACK_STEP {
            self.file.start_writeback(self.handed_over, self.at - self.handed_over).map_err(io)?;
            self.handed_over = self.at;
        }
        Ok(())
    }

    /// Makes the snapshot one: footer, sync, name, directory sync, and all of it read back. Then
    /// [`SnapshotStore::prune`] may run.
    ///
    /// # Errors
    /// The failing call's, or what the reading back found: the file then loses its name again.
    pub fn finish(mut self) -> Result<SnapshotMeta, SnapshotError> {
        let footer = self.totals.encode();
        let head = Head::encode(self.seed, self.totals.blocks, 0, true, &footer);
        self.put(&head, &footer)?;
        let SnapshotWriter { store, meta, temp, file, .. } = self;
        let path = path(meta.id.index);
        let io = |source| SnapshotError::Io { path: path.clone(), source };
        file.sync_data().map_err(io)?;
        store.disk.rename(&temp, &path).map_err(io)?;
        store.disk.sync_dir(DIR).map_err(io)?;
        match store.verify(meta.id.index) {
            Ok(meta) => Ok(meta),
            Err(error) => {
                store.disk.rename(&path, &temp).map_err(io)?;
                Err(error)
            }
        }
    }
}
