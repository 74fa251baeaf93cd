//! One replica in memory: its header, whether its file is open, what of it is not yet synced. The file
//! operations on it that several others share are here; writing, reading and syncing have their own files.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::ids::{ChunkId, ChunkVersion, ClusterId};
use dfs_proto::units::BLOCK_SIZE;

use super::Store;
use super::error::StoreError;
use super::evidence::BadPart;
use super::header::{self, Header, Slots};
use super::layout::{BLOCK, DATA_AT, SECTOR, SLOTS, TABLE_AT, chunk_path, small};
use super::mend::evidence_of;
use super::table::Table;

/// Where a replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Known, but its file comes with the first write.
    Unborn,
    Here,
    /// A write or sync of it failed. For good.
    Failed,
    /// Moved away: to the trash or to quarantine. Only those who held the chunk before see this.
    Gone,
}

/// A replica. Lock order: `syncing`, then `state`.
#[derive(Debug)]
pub(super) struct Chunk<F> {
    pub(super) id: ChunkId,
    /// Touched since the list of open files last looked.
    pub(super) used: AtomicBool,
    /// One sync at a time: of two on one descriptor the kernel tells only one of an error.
    pub(super) syncing: Mutex<()>,
    /// Shared for reads, exclusive for writes: a block is never seen between its bytes and its checksum.
    pub(super) state: RwLock<State<F>>,
}

/// What the file has where the table has holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holes {
    /// Zeros, durably.
    Clean,
    /// Zeros, durable once a sync covers this many changes.
    Punched { writes: u64 },
    /// Anything: a crash or a full disk may have left bytes there.
    Dirty,
}

#[derive(Debug)]
pub(super) struct State<F> {
    pub(super) header: Header,
    pub(super) place: Place,
    pub(super) slots: Slots,
    /// Blocks of data that the file's length covers.
    pub(super) blocks: u32,
    pub(super) holes: Holes,
    /// Changes to the file so far, and how many of them a sync has covered.
    pub(super) writes: u64,
    pub(super) synced: u64,
    /// The file's name is durable.
    pub(super) named: bool,
    /// The version in the newest header written; a fence may be ahead of it.
    pub(super) slot_version: ChunkVersion,
    /// The version in the newest header that a sync covered.
    pub(super) durable_version: ChunkVersion,
    /// Damaged sectors of its table were kept as evidence.
    pub(super) sectors_kept: bool,
    pub(super) body: Option<Body<F>>,
}

/// What is kept of an open file.
#[derive(Debug)]
pub(super) struct Body<F> {
    pub(super) file: Arc<F>,
    pub(super) table: Table,
    pub(super) stream: Stream,
}

/// How far a sequential writer has come, in bytes of the chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    /// Where the next write continues the stream.
    pub(super) next: u32,
    pub(super) allocated: u32,
    pub(super) step: u32,
    /// Up to here the kernel was asked to write back.
    pub(super) started: u32,
}

pub(super) type Shared<F> = Arc<Chunk<F>>;

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F> Chunk<F> {
    pub(super) fn new(header: Header, place: Place, slots: Slots, blocks: u32) -> Chunk<F> {
        let state = State {
            place,
            slots,
            blocks,
            holes: Holes::Clean,
            writes: 0,
            synced: 0,
            named: place != Place::Unborn,
            slot_version: if place == Place::Unborn { ChunkVersion(0) } else { header.version },
            durable_version: if place == Place::Unborn { ChunkVersion(0) } else { header.version },
            sectors_kept: false,
            body: None,
            header,
        };
        Chunk {
            id: state.header.chunk,
            used: AtomicBool::new(false),
            syncing: Mutex::new(()),
            state: RwLock::new(state),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State<F>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State<F>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> State<F> {
    /// Refuses replicas that failed or went away.
    pub(super) fn usable(&self) -> Result<(), StoreError> {
        match self.place {
            Place::Unborn | Place::Here => Ok(()),
            Place::Failed => Err(StoreError::Failed(self.header.chunk)),
            Place::Gone => Err(StoreError::NoChunk(self.header.chunk)),
        }
    }

    pub(super) fn dirty(&self) -> bool {
        self.writes != self.synced
    }
}

impl<F: DiskFile> State<F> {
    /// Writes the header as it is now into the slot whose turn it is.
    pub(super) fn put_header(&mut self, file: &F, cluster: ClusterId) -> io::Result<()> {
        let (slot, slots) = self.slots.next();
        let bytes = header::encode(&self.header, cluster, slots.slot_gen);
        self.writes += 1;
        file.write_at(&[IoSlice::new(&bytes)], SLOTS[slot])?;
        self.slots = slots;
        self.slot_version = self.header.version;
        Ok(())
    }
}

impl<D: Disk> Store<D> {
    /// The replica, if this disk has it.
    pub(super) fn find(&self, id: ChunkId) -> Result<Shared<D::File>, StoreError> {
        let shard = self.shard(id).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&id).cloned().ok_or(StoreError::NoChunk(id))
    }

    /// Opens the chunk's file and reads its table, unless that is done or there is no file yet.
    pub(super) fn open_body(
        &self,
        chunk: &Shared<D::File>,
        state: &mut State<D::File>,
    ) -> Result<(), StoreError> {
        chunk.used.store(true, Ordering::Relaxed);
        if state.body.is_some() || state.place == Place::Unborn {
            return Ok(());
        }
        let path = chunk_path(chunk.id);
        let file = self.disk.open(&path, Open::Existing).map_err(StoreError::io("open a chunk"))?;
        let bytes = read_table(&file, state.blocks)?;
        let (table, damaged) = Table::load(&bytes, chunk.id, state.blocks);
        if damaged > 0 {
            self.counters.damaged_sectors.add(u64::from(damaged));
            log::error!("{path}: {damaged} damaged sectors in the table of checksums");
            self.keep_sectors(state, &bytes);
        }
        state.header.extent = extent_of(&state.header, &table);
        state.body = Some(Body { file: Arc::new(file), table, stream: Stream::default() });
        self.counters.opened.add(1);
        self.open.add(chunk);
        Ok(())
    }

    /// Keeps damaged sectors of a table before the next write to one of their blocks makes all others' entries
    /// "lost". Once in a process: a file that is opened often tells nothing new. One of zeros was never written.
    fn keep_sectors(&self, state: &mut State<D::File>, bytes: &[u8]) {
        if std::mem::replace(&mut state.sectors_kept, true) {
            return;
        }
        let mut evidence = Vec::new();
        for number in Table::damaged_sectors(bytes, state.header.chunk) {
            let sector = &bytes[number * SECTOR..(number + 1) * SECTOR];
            if sector.iter().any(|byte| *byte != 0) {
                let at = TABLE_AT + (number * SECTOR) as u64;
                evidence.push(evidence_of(state, BadPart::TableSector, at, 0, sector.to_vec()));
            }
        }
        // Reading goes on without: what is lost of the sector is known to be lost.
        if let Err(err) = self.keep_evidence(&mut evidence) {
            log::error!("chunk {}: {err}", state.header.chunk);
        }
    }

    /// Latches a replica as failed and says why. What the failed operation reached is not known, so
    /// nothing of the replica is believed from here on, after a restart either if the disk still takes
    /// a header. Another kernel reads what is there: to it this was a crash.
    pub(super) fn fail(
        &self,
        state: &mut State<D::File>,
        what: &'static str,
        source: io::Error,
    ) -> StoreError {
        log::error!("chunk {}: {what}: {source}; the replica has failed", state.header.chunk);
        if state.place != Place::Failed {
            self.counters.failed.add(1);
            state.place = Place::Failed;
            state.header.failed = true;
            state.header.os_boot = self.os_boot;
            if let Some(body) = state.body.take() {
                // The best that can be done for a disk that fails: neither outcome changes what is said.
                let _ = state.put_header(&body.file, self.label.cluster);
                let _ = body.file.sync_data();
            }
        }
        StoreError::Io { what, source }
    }
}

/// How far the bytes reach: as the header says, or to the end of the table's last block when blocks were written after
/// the header and a crash came before the next.
pub(super) fn extent_of(header: &Header, table: &Table) -> u32 {
    let ahead = table.extent() > header.extent.div_ceil(BLOCK_SIZE);
    if header.open && ahead { table.extent().saturating_mul(BLOCK_SIZE) } else { header.extent }
}

/// The table's bytes; a sector that can't be read, or lies beyond the end, stays zeros.
pub(super) fn read_table<F: DiskFile>(file: &F, blocks: u32) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; Table::bytes_for(blocks)];
    if file.read_at(&mut bytes, TABLE_AT).is_ok() {
        return Ok(bytes);
    }
    let mut failed = 0;
    let mut last = None;
    let sectors = bytes.len() / SECTOR;
    for (number, sector) in bytes.chunks_exact_mut(SECTOR).enumerate() {
        if let Err(err) = file.read_at(sector, TABLE_AT + (number * SECTOR) as u64) {
            sector.fill(0);
            failed += 1;
            last = Some(err);
        }
    }
    match last {
        // Not one sector: more likely the device than the platter.
        Some(source) if failed == sectors => {
            Err(StoreError::Io { what: "read a table of checksums", source })
        }
        Some(_) | None => Ok(bytes),
    }
}

/// How many blocks of data a chunk file of `len` bytes covers.
pub(super) fn blocks_of_len(len: u64) -> u32 {
    let blocks = len.saturating_sub(DATA_AT).div_ceil(BLOCK as u64);
    u32::try_from(blocks)
        .unwrap_or(u32::MAX)
        .min(small(super::layout::SECTORS_MAX * super::layout::SECTOR_ENTRIES))
}
