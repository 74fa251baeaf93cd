//! The chunk store: one disk's replicas. It owns every byte under the disk's root, verifies whatever
//! enters or leaves, and knows what of it is durable. It does not know who may read or write, orders
//! nothing between servers, and deletes nothing on its own.
//!
//! All calls are synchronous and may be made from any number of threads; calls on different chunks run
//! in parallel, reads of one chunk too. Calls may wait for the disk, but for a read with
//! [`ReadMode::CachedOnly`].
//!
//! Lock order: a chunk's `syncing`, the fence log, a chunk's `state`, the evidence, then any of the small ones
//! (a shard of the index, the list of open files, the pool), which are held for a moment and under which nothing
//! is locked.
//!
//! Invariants kept here: I2 (versions), I12 and I13 (checksums), I22 (failed syncs).

mod zero;
mod alter;
mod chunk;
mod close;
mod compare;
mod error;
mod evidence;
mod fence;
mod header;
mod layout;
mod mend;
mod metrics;
mod open_files;
mod pieces;
mod pool;
mod progress;
mod punch;
mod read;
mod record;
mod recover;
mod room;
mod scrub;
mod survey;
mod sync;
mod table;
mod trash;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dfs_disk::Disk;
use dfs_proto::ids::{ChunkId, OsBootId};
use dfs_proto::units::ChunkSize;

pub use self::alter::Durability;
pub use self::close::ToClose;
pub use self::error::{Damage, OpenError, StoreError};
pub use self::evidence::{BadPart, Evidence};
pub use self::header::{Header, HeaderChange};
pub use self::layout::chunk_path as chunk_file;
pub use self::mend::{Mended, Stock};
pub use self::metrics::Metrics;
pub use self::pieces::Write;
pub use self::progress::Progress;
pub use self::read::{ReadBlocks, ReadMode, TableCopy, Verified};
pub use self::record::{Label, Mhwm};
pub use self::recover::{Expect, Opened, Unfit};
pub(crate) use self::room::reserve_of;
pub use self::scrub::Scrubbed;
pub use self::survey::{Survey, Whose, survey, survey_label};
pub use self::trash::StoreSpace;

use self::chunk::{Chunk, Place, Shared, locked};
use self::evidence::Ring;
use self::fence::Fences;
use self::header::Slots;
use self::metrics::Counters;
use self::open_files::OpenFiles;
use self::pool::Pool;
use self::room::Room;
use self::trash::Trash;

/// What an operator can choose about a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    pub chunk_size: ChunkSize,
    /// Chunk files kept open. For a moment there may be twice as many: leave room under the limit of
    /// descriptors.
    pub open_files: usize,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        // A table of a small chunk is 512 bytes and of a full one 64 KiB: between 4 and 512 MiB. Fewer would
        // have the disk synced more often than the kernel would by itself, while many small files are made.
        StoreConfig { chunk_size: ChunkSize::DEFAULT, open_files: 8192 }
    }
}

/// Parts of the index with a lock each, so that threads seldom meet at one.
const SHARDS: usize = 64;
type Shards<F> = Vec<RwLock<BTreeMap<ChunkId, Shared<F>>>>;

fn shard_of(id: ChunkId) -> usize {
    usize::try_from(id.0 % SHARDS as u64).expect("below the number of shards")
}

/// One disk's replicas.
pub struct Store<D: Disk> {
    disk: D,
    label: Label,
    config: StoreConfig,
    chunks: Shards<D::File>,
    open: OpenFiles<D::File>,
    fences: Mutex<Fences<D::File>>,
    mhwm: Mutex<Mhwm>,
    hb_ctr: Mutex<u64>,
    room: Room,
    pool: Arc<Pool>,
    counters: Counters,
    trash: Trash,
    evidence: Mutex<Ring<D::File>>,
    /// A sync failed: what this disk says is durable may not be.
    suspect: AtomicBool,
    /// One failed before this process began. The kernel tells nobody twice: no sync can be believed any more.
    cache_alone: bool,
    os_boot: OsBootId,
    /// One sync of the whole disk at a time.
    syncing: Mutex<()>,
}

impl<D: Disk> std::fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("label", &self.label)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Store<D> {
    /// Makes an empty disk: label, directories, counters. [`Store::open`] follows.
    ///
    /// # Errors
    /// When the directory is a dfs disk already, or was one.
    pub fn init(disk: &D, label: &Label) -> Result<(), OpenError> {
        recover::init(disk, label)
    }

    /// Takes the disk's lock, checks whose it is, raises its boot counter and lists its replicas, by
    /// reading headers only.
    ///
    /// # Errors
    /// Every one refuses the disk; none has changed a chunk.
    pub fn open(disk: D, expect: Expect, config: StoreConfig) -> Result<(Store<D>, Opened), OpenError> {
        recover::open(disk, expect, config)
    }

    #[must_use]
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Makes a replica known. Its file comes with the first write, or not at all.
    ///
    /// # Errors
    /// `Exists` when there is one.
    pub fn create(&self, header: Header) -> Result<(), StoreError> {
        let id = header.chunk;
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        if shard.contains_key(&id) {
            return Err(StoreError::Exists(id));
        }
        shard.insert(id, Arc::new(Chunk::new(header, Place::Unborn, Slots::NONE, 0)));
        Ok(())
    }

    /// Whether the replica is known here, with or without a file.
    #[must_use]
    pub fn contains(&self, id: ChunkId) -> bool {
        self.find(id).is_ok()
    }

    /// Whether the replica has a file: something was written to it.
    ///
    /// # Errors
    /// When the chunk is not here, or failed.
    pub fn has_file(&self, id: ChunkId) -> Result<bool, StoreError> {
        let chunk = self.find(id)?;
        let state = chunk.read();
        state.usable()?;
        Ok(state.place == Place::Here)
    }

    /// Whether the replica's file is where it has to be, asked of the filesystem: an open descriptor of a file
    /// that somebody removed does not count. One that only zeros were written to needs none.
    #[must_use]
    pub fn is_on_disk(&self, id: ChunkId) -> bool {
        match self.has_file(id) {
            Ok(true) => self.disk.exists(&layout::chunk_path(id)).unwrap_or(false),
            Ok(false) => true,
            Err(_) => false,
        }
    }

    /// How many replicas there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.chunks
            .iter()
            .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
            .sum()
    }

    /// The ids of all replicas, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<ChunkId> {
        let mut ids = Vec::new();
        for shard in &self.chunks {
            ids.extend(shard.read().unwrap_or_else(PoisonError::into_inner).keys());
        }
        ids.sort_unstable();
        ids
    }

    /// Highest term and index heard of.
    #[must_use]
    pub fn mhwm(&self) -> Mhwm {
        *locked(&self.mhwm)
    }

    /// Raises the marks, durably; within a generation none ever goes down.
    ///
    /// # Errors
    /// When they could not be written: the old ones are still there.
    pub fn set_mhwm(&self, to: Mhwm) -> Result<(), StoreError> {
        let mut mhwm = locked(&self.mhwm);
        let new = mhwm.raised_to(to);
        if new != *mhwm {
            record::write_mhwm(&self.disk, new).map_err(StoreError::io("write mhwm"))?;
            *mhwm = new;
        }
        Ok(())
    }

    /// The boot counter: raised by every open and by [`Store::next_hb_ctr`], never lower than before
    /// unless the disk was restored from an old image.
    #[must_use]
    pub fn hb_ctr(&self) -> u64 {
        *locked(&self.hb_ctr)
    }

    /// Raises the boot counter, durably, for another registration of the same process.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn next_hb_ctr(&self) -> Result<u64, StoreError> {
        let mut hb_ctr = locked(&self.hb_ctr);
        record::write_hb_ctr(&self.disk, *hb_ctr + 1).map_err(StoreError::io("write boot"))?;
        *hb_ctr += 1;
        Ok(*hb_ctr)
    }

    /// Syncs everything and says so on the disk. Nothing may be written afterwards.
    ///
    /// # Errors
    /// When something could not be synced, or a sync failed before: the end is then not a clean one.
    pub fn mark_clean_shutdown(&self) -> Result<(), StoreError> {
        if self.suspect() {
            let source = std::io::ErrorKind::ReadOnlyFilesystem.into();
            return Err(StoreError::Io { what: "end cleanly after a failed sync", source });
        }
        self.sync_open_files()?;
        record::mark_clean(&self.disk, self.hb_ctr()).map_err(StoreError::io("write clean"))
    }

    /// Whether a sync has failed on this disk: nothing more is to be written to it.
    #[must_use]
    pub fn suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// A sync failed: nothing more is written. The next process under this kernel must know as well.
    fn distrust(&self) {
        if self.suspect.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = record::mark_suspect(&self.disk, self.os_boot) {
            log::error!(
                "can't note that a sync failed: {error}; don't start this server again before a reboot"
            );
        }
    }

    /// The counters since the disk was opened.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.counters.snapshot()
    }

    fn shard(&self, id: ChunkId) -> &RwLock<BTreeMap<ChunkId, Shared<D::File>>> {
        &self.chunks[shard_of(id)]
    }
}
