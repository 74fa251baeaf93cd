//! Making things durable. An error here is final: the kernel has dropped the bytes and takes their pages
//! for clean, so a second sync would lie. The replica is failed, and the disk is marked as suspect (I22).

use std::io;
use std::sync::Arc;

use dfs_disk::{Disk, DiskFile};
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq};
use dfs_proto::planted;

use super::Store;
use super::chunk::{Place, Shared, State, locked};
use super::error::StoreError;
use super::layout::chunk_dir;

/// From so many chunks on, one sync of the whole disk is cheaper than one for each: a small chunk's
/// fdatasync costs a journal commit, and a commit holds dozens.
const BATCH_MIN: usize = 16;

/// How far a chunk had come when a sync of it began.
#[derive(Clone, Copy, Debug)]
struct Mark {
    writes: u64,
    slot_gen: u64,
    version: ChunkVersion,
}

fn mark<F>(state: &State<F>) -> Mark {
    Mark { writes: state.writes, slot_gen: state.slots.slot_gen, version: state.slot_version }
}

/// A sync that was begun: its header is written, the rest waits for the disk.
struct Begun<F> {
    file: Arc<F>,
    named: bool,
    mark: Mark,
}

impl<D: Disk> Store<D> {
    /// Makes everything written to the chunk so far durable, and remembers in its header that this goes
    /// up to `seq`. The first sync of a new file covers its name.
    ///
    /// # Errors
    /// `Io` the first time a sync fails, `Failed` ever after.
    pub fn sync(&self, id: ChunkId, seq: Seq) -> Result<(), StoreError> {
        let chunk = self.find(id)?;
        let _one = locked(&chunk.syncing);
        let Some(Begun { file, named, mark }) = self.begin_sync(&chunk, seq)? else { return Ok(()) };
        self.counters.syncs.add(1);
        let mut result = if planted!(SkipDataSync) { Ok(()) } else { self.sync_file(&file) };
        if result.is_ok() && !named && !planted!(SkipDirSync) {
            result = self.disk.sync_dir(&chunk_dir(id));
        }
        let mut state = chunk.write();
        match result {
            Ok(()) => {
                // Another call on the same descriptor may have been told of the error instead.
                state.usable()?;
                self.finish_sync(&mut state, mark);
                Ok(())
            }
            Err(err) => {
                self.distrust();
                if planted!(SyncErrorForgotten) {
                    self.finish_sync(&mut state, mark);
                    return Err(StoreError::Io { what: "sync a chunk", source: err });
                }
                Err(self.fail(&mut state, "sync a chunk", err))
            }
        }
    }

    /// Writes the header that goes with the sync. `None` when there is nothing to sync.
    fn begin_sync(&self, chunk: &Shared<D::File>, seq: Seq) -> Result<Option<Begun<D::File>>, StoreError> {
        let mut state = chunk.write();
        state.usable()?;
        if state.place == Place::Unborn {
            return Ok(None);
        }
        if self.cache_alone {
            let source = io::ErrorKind::ReadOnlyFilesystem.into();
            return Err(StoreError::Io {
                what: "sync a chunk of which a sync may have failed before",
                source,
            });
        }
        if !state.dirty() && state.named {
            return Ok(None);
        }
        self.open_body(chunk, &mut state)?;
        let Some(file) = state.body.as_ref().map(|body| body.file.clone()) else { return Ok(None) };
        if state.header.seq_synced != seq || state.slot_version != state.header.version {
            state.header.seq_synced = seq;
            if let Err(err) = state.put_header(&file, self.label.cluster) {
                return Err(self.fail(&mut state, "write a header", err));
            }
        }
        Ok(Some(Begun { file, named: state.named, mark: mark(&state) }))
    }

    fn finish_sync(&self, state: &mut State<D::File>, mark: Mark) {
        if state.place != Place::Here {
            return;
        }
        state.named = true;
        state.durable_version = state.durable_version.max(mark.version);
        self.covered(state, mark.writes, mark.slot_gen);
    }

    /// A sync of the file covered everything up to `writes` and the header `slot_gen`.
    pub(super) fn covered(&self, state: &mut State<D::File>, writes: u64, slot_gen: u64) {
        state.synced = state.synced.max(writes);
        state.slots.synced(slot_gen);
    }

    /// [`Store::sync`] for many chunks, in the order asked; from a certain number on at the price of one.
    pub fn sync_many(&self, chunks: &[(ChunkId, Seq)]) -> Vec<Result<(), StoreError>> {
        if chunks.len() < BATCH_MIN {
            return chunks.iter().map(|(id, seq)| self.sync(*id, *seq)).collect();
        }
        let begun: Vec<_> = chunks
            .iter()
            .map(|(id, seq)| {
                let chunk = self.find(*id)?;
                let begun = self.begin_sync(&chunk, *seq)?;
                Ok(begun.map(|begun| (chunk, begun.mark)))
            })
            .collect();
        let synced = self.sync_disk();
        begun
            .into_iter()
            .map(|begun| match begun? {
                Some((chunk, mark)) => self.end_batch(&chunk, mark, &synced),
                None => Ok(()),
            })
            .collect()
    }

    /// Syncs one chunk's file. Whoever it fails for, the disk is trusted no more.
    pub(super) fn sync_file(&self, file: &D::File) -> io::Result<()> {
        file.sync_data().inspect_err(|_| self.distrust())
    }

    fn sync_disk(&self) -> io::Result<()> {
        let _one = locked(&self.syncing);
        self.counters.batch_syncs.add(1);
        self.disk.sync_all().inspect_err(|_| self.distrust())
    }

    fn end_batch(
        &self,
        chunk: &Shared<D::File>,
        mark: Mark,
        synced: &io::Result<()>,
    ) -> Result<(), StoreError> {
        // A sync of this one file that runs beside may be the one that is told of an error: let it end.
        let _one = locked(&chunk.syncing);
        let mut state = chunk.write();
        state.usable()?;
        match synced {
            Ok(()) => {
                self.finish_sync(&mut state, mark);
                Ok(())
            }
            Err(err) => Err(self.fail(&mut state, "sync the disk", copy(err))),
        }
    }

    /// Syncs everything that is open and unsynced, so that it can be closed.
    pub(super) fn sync_open_files(&self) -> Result<(), StoreError> {
        let mut dirty = Vec::new();
        for chunk in self.open.all() {
            let state = chunk.read();
            if state.place == Place::Here && state.dirty() {
                let mark = mark(&state);
                drop(state);
                dirty.push((chunk, mark));
            }
        }
        let synced = self.sync_disk();
        for (chunk, mark) in dirty {
            // One that failed says so to whoever asks for it next.
            let _ = self.end_batch(&chunk, mark, &synced);
        }
        synced.map_err(StoreError::io("sync the disk"))
    }
}

fn copy(err: &io::Error) -> io::Error {
    err.raw_os_error().map_or_else(|| err.kind().into(), io::Error::from_raw_os_error)
}
