//! Taking replicas away: into the trash, from which they are unlinked later, or into quarantine, from
//! which only a person takes them. That they may go is the caller's knowledge (I17); nothing here infers.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_disk::{Disk, Space};
use dfs_proto::ids::ChunkId;

use super::Store;
use super::chunk::{Place, locked};
use super::error::StoreError;
use super::layout::{LOST, TRASH, chunk_dir, chunk_path, trash_name, trash_time};
use super::room::reserve_of;

/// Bytes of a disk as its owner sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreSpace {
    pub total: u64,
    /// Free now, the reserve included.
    pub free: u64,
    /// What the trash would give back.
    pub trash: u64,
    /// Kept for headers and repair: writes stop when `free` is down to this.
    pub reserve: u64,
}

#[derive(Debug, Default)]
pub(super) struct Trash {
    pub(super) bytes: AtomicU64,
    /// Keeps names of one process apart; the disk's boot counter keeps processes apart.
    next: AtomicU64,
}

impl<D: Disk> Store<D> {
    /// Moves the replica into the trash. `now_s`, a wall-clock time, only says when it may be unlinked.
    /// After a power cut it may be back: the deletion is then ordered again.
    ///
    /// # Errors
    /// When it is not here, or could not be moved: it then stays.
    pub fn trash(&self, id: ChunkId, now_s: u64) -> Result<(), StoreError> {
        let blocks = self.take_away(id, &format!("{TRASH}/{}", self.new_name(now_s, id)))?;
        self.trash
            .bytes
            .fetch_add(u64::from(blocks) * u64::from(dfs_proto::units::BLOCK_SIZE), Ordering::Relaxed);
        Ok(())
    }

    /// Unlinks the replica: others are as good, and enough.
    ///
    /// # Errors
    /// When it is not here, or could not be moved: it then stays. One that could be moved goes with the trash.
    pub fn discard(&self, id: ChunkId) -> Result<(), StoreError> {
        let name = format!("{TRASH}/{}", self.new_name(0, id));
        self.take_away(id, &name)?;
        // As in `empty_trash`.
        self.disk.sync_dir(TRASH).map_err(StoreError::io("sync the trash"))?;
        self.disk.remove(&name).map_err(StoreError::io("unlink a chunk"))
    }

    /// Moves the replica into `lost+found`, durably.
    ///
    /// # Errors
    /// When it is not here, or could not be moved: it then stays.
    pub fn quarantine(&self, id: ChunkId) -> Result<(), StoreError> {
        let name = self.new_name(0, id);
        self.take_away(id, &format!("{LOST}/{name}"))?;
        log::warn!("chunk {id} is in quarantine as {LOST}/{name}");
        self.disk.sync_dir(LOST).map_err(StoreError::io("sync lost+found"))
    }

    /// A name that no file that was taken away has.
    fn new_name(&self, at_s: u64, id: ChunkId) -> String {
        trash_name(at_s, id, self.hb_ctr() << 32 | self.trash.next.fetch_add(1, Ordering::Relaxed))
    }

    fn take_away(&self, id: ChunkId, to: &str) -> Result<u32, StoreError> {
        let chunk = self.find(id)?;
        let _one = locked(&chunk.syncing);
        let mut state = chunk.write();
        if state.place == Place::Gone {
            return Err(StoreError::NoChunk(id));
        }
        if state.place != Place::Unborn {
            self.disk.rename(&chunk_path(id), to).map_err(StoreError::io("move a chunk away"))?;
        }
        state.place = Place::Gone;
        state.body = None;
        state.synced = state.writes;
        self.shard(id).write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(state.blocks)
    }

    /// Unlinks what was put into the trash before `before_s`. Names that are not ours are left alone. Says
    /// how many files went.
    ///
    /// # Errors
    /// The first failure; the rest is left for the next time.
    pub fn empty_trash(&self, before_s: u64) -> Result<u64, StoreError> {
        // The moves first: a name unlinked here must not come back elsewhere after a power cut.
        self.disk.sync_dir(TRASH).map_err(StoreError::io("sync the trash"))?;
        let mut gone = 0;
        for entry in self.disk.list(TRASH).map_err(StoreError::io("list the trash"))? {
            if trash_time(&entry.name).is_some_and(|time| time < before_s) {
                self.disk
                    .remove(&format!("{TRASH}/{}", entry.name))
                    .map_err(StoreError::io("unlink a chunk"))?;
                let data = u64::from(super::chunk::blocks_of_len(entry.len))
                    * u64::from(dfs_proto::units::BLOCK_SIZE);
                let less = |bytes: u64| Some(bytes.saturating_sub(data));
                let _ = self.trash.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// The disk's space.
    ///
    /// # Errors
    /// When the filesystem can't say.
    pub fn space(&self) -> Result<StoreSpace, StoreError> {
        let space = self.disk.space().map_err(StoreError::io("ask for free space"))?;
        let Space { total, free } = space;
        Ok(StoreSpace {
            total,
            free,
            trash: self.trash.bytes.load(Ordering::Relaxed),
            reserve: reserve_of(space),
        })
    }

    /// Syncs the directory of a chunk that was moved away, for a caller that wants the move durable.
    ///
    /// # Errors
    /// When the sync fails.
    pub fn sync_removal(&self, id: ChunkId) -> Result<(), StoreError> {
        self.disk.sync_dir(TRASH).map_err(StoreError::io("sync the trash"))?;
        self.disk.sync_dir(&chunk_dir(id)).map_err(StoreError::io("sync a chunk directory"))
    }
}
