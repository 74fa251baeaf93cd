//! Making a disk, and taking one into use: what is on it is learned from names and headers alone. A file
//! that is no chunk of ours is moved to `lost+found`, never deleted, never served.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use dfs_disk::{Disk, DiskFile, Entry, Open, replace_file};
use dfs_proto::ids::{ChunkId, ChunkVersion, ClusterId, OsBootId, ServerId};
use dfs_proto::planted;

use super::chunk::{Chunk, Holes, Place, Shared, blocks_of_len};
use super::error::OpenError;
use super::fence::Fences;
use super::header::{self, Header, Slots};
use super::layout::{
    CHUNKS, FENCES, LOST, SECTOR, SLOTS, TRASH, chunk_of, chunk_path, trash_name, trash_time,
};
use super::metrics::Counters;
use super::open_files::OpenFiles;
use super::record::{self, Label, Mhwm};
use super::{Shards, Store, StoreConfig};

/// What a disk must be to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expect {
    pub cluster: ClusterId,
    /// `None` when this process learns its identity from its first disk.
    pub server: Option<ServerId>,
    /// The kernel that runs.
    pub os_boot: OsBootId,
}

/// What opening a disk found.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Every replica's header, in the order of their ids. Failed ones are marked so.
    pub replicas: Vec<Header>,
    /// Everything written before was synced: the last server said so when it ended.
    pub clean: bool,
    /// A sync failed under this kernel: what is read may be in its cache alone.
    pub suspect: bool,
    /// Files moved to `lost+found` just now, with why.
    pub quarantined: Vec<(String, Unfit)>,
    /// Header slots found damaged; the chunk's other slot served.
    pub damaged_slots: u32,
}

/// Why a file under `chunks/` is not a replica of this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Not named as a chunk, or in the wrong directory.
    #[error("not named as a chunk of its directory")]
    Name,
    /// No header was ever written: its creation was cut short.
    #[error("no header was ever written")]
    NoHeader,
    /// No slot has a header of this chunk and cluster.
    #[error("no header of this chunk and cluster")]
    Header,
    /// The device can't read the header.
    #[error("its header can't be read")]
    Unreadable,
}

/// Makes an empty disk of the directory. The label is written last: without it there is no dfs disk.
pub(super) fn init<D: Disk>(disk: &D, label: &Label) -> Result<(), OpenError> {
    take_lock(disk)?;
    match record::read_label(disk) {
        Err(OpenError::NoLabel) => {}
        Ok(found) => return Err(OpenError::AlreadyInitialised(found.cluster)),
        Err(other) => return Err(other),
    }
    for dir in [TRASH, LOST] {
        disk.create_dir_all(dir).map_err(OpenError::io("make a directory"))?;
    }
    for low in 0..=u8::MAX {
        let dir = format!("{CHUNKS}/{low:02x}");
        disk.create_dir_all(&dir).map_err(OpenError::io("make a directory"))?;
        if !disk.list(&dir).map_err(OpenError::io("list a directory"))?.is_empty() {
            return Err(OpenError::ChunksWithoutLabel);
        }
    }
    disk.sync_dir(CHUNKS).map_err(OpenError::io("sync a directory"))?;
    record::write_mhwm(disk, Mhwm::default()).map_err(OpenError::io("write mhwm"))?;
    record::write_hb_ctr(disk, 0).map_err(OpenError::io("write boot"))?;
    record::mark_clean(disk, 0).map_err(OpenError::io("write clean"))?;
    replace_file(disk, FENCES, &[]).map_err(OpenError::io("write the fence log"))?;
    record::write_label(disk, label)
}

pub(super) fn take_lock<D: Disk>(disk: &D) -> Result<(), OpenError> {
    disk.lock().map_err(|err| match err.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Io { what: "lock the disk", source: err },
    })
}

pub(super) fn open<D: Disk>(
    disk: D,
    expect: Expect,
    config: StoreConfig,
) -> Result<(Store<D>, Opened), OpenError> {
    take_lock(&disk)?;
    let label = record::read_label(&disk)?;
    if label.cluster != expect.cluster {
        return Err(OpenError::ForeignCluster { found: label.cluster, expected: expect.cluster });
    }
    if let Some(expected) = expect.server.filter(|server| *server != label.server) {
        return Err(OpenError::ForeignServer { found: label.server, expected });
    }
    let mhwm = Mhwm { generation: label.generation, ..Mhwm::default() }.raised_to(record::read_mhwm(&disk)?);
    let last = record::read_hb_ctr(&disk)?;
    let clean = record::was_clean(&disk, last);
    let noted = record::is_suspect(&disk, expect.os_boot).map_err(OpenError::io("look for notes"))?;
    let mut suspect = noted && !planted!(SuspectForgotten);
    // From here on the marker is void: a crash before the next one is an unclean end.
    record::write_hb_ctr(&disk, last + 1).map_err(OpenError::io("write boot"))?;
    if !clean {
        // What a killed process left in the page cache must not be taken for synced by this one.
        if let Err(error) = disk.sync_all() {
            log::error!("{error}: what the last process wrote is lost in part");
            record::mark_suspect(&disk, expect.os_boot).map_err(OpenError::io("note that a sync failed"))?;
            suspect = true;
        }
    }
    let mut scan = Scan::new(&disk, label.cluster, last + 1, Some(expect.os_boot));
    scan.run()?;
    let Scan { shards, mut replicas, quarantined, damaged_slots, .. } = scan;
    replicas.sort_unstable_by_key(|header| header.chunk);
    // Headers written since may say as much: those fences have served.
    let mut fences = Fences::read(&disk)?;
    let lags = |id: &ChunkId, version: &ChunkVersion| {
        let found = replicas.binary_search_by_key(id, |header| header.chunk);
        found.is_ok_and(|at| replicas[at].version < *version)
    };
    fences.retain(|id, version| lags(id, version));
    let trash = trash_bytes(&disk)?;
    let log = Fences::start(&disk, fences.clone()).map_err(OpenError::io("write the fence log"))?;
    let store = Store {
        chunks: shards,
        label,
        mhwm: Mutex::new(mhwm),
        hb_ctr: Mutex::new(last + 1),
        open: OpenFiles::new(config.open_files),
        fences: Mutex::new(log),
        room: Default::default(),
        pool: Default::default(),
        counters: Counters::default(),
        trash: Default::default(),
        evidence: Mutex::default(),
        suspect: AtomicBool::new(suspect),
        cache_alone: suspect,
        os_boot: expect.os_boot,
        syncing: Mutex::new(()),
        config,
        disk,
    };
    store.trash.bytes.store(trash, Ordering::Relaxed);
    if !clean {
        store.distrust_holes();
    }
    store.apply_fences(&fences, &mut replicas);
    Ok((store, Opened { replicas, clean, suspect, quarantined, damaged_slots }))
}

fn trash_bytes<D: Disk>(disk: &D) -> Result<u64, OpenError> {
    let entries = disk.list(TRASH).map_err(OpenError::io("list the trash"))?;
    let ours = entries.iter().filter(|entry| trash_time(&entry.name).is_some());
    Ok(ours.map(|entry| u64::from(blocks_of_len(entry.len)) * u64::from(dfs_proto::units::BLOCK_SIZE)).sum())
}

impl<D: Disk> Store<D> {
    /// After an unclean end: a write that was cut short may have left bytes where the tables have holes.
    fn distrust_holes(&self) {
        for id in self.ids() {
            if let Ok(chunk) = self.find(id) {
                chunk.write().holes = Holes::Dirty;
            }
        }
    }

    /// Brings the headers in memory up to what the fence log says. Their slots follow with the next sync.
    fn apply_fences(&self, fences: &BTreeMap<ChunkId, ChunkVersion>, replicas: &mut [Header]) {
        for header in replicas {
            let Some(version) = fences.get(&header.chunk) else { continue };
            header.version = *version;
            if let Ok(chunk) = self.find(header.chunk) {
                chunk.write().header.version = *version;
            }
        }
    }
}

/// The pass over all chunk files.
pub(super) struct Scan<'a, D: Disk> {
    disk: &'a D,
    cluster: ClusterId,
    hb_ctr: u64,
    /// Replicas that failed under another kernel are as a crash left them.
    os_boot: Option<OsBootId>,
    pub(super) shards: Shards<D::File>,
    replicas: Vec<Header>,
    pub(super) quarantined: Vec<(String, Unfit)>,
    pub(super) damaged_slots: u32,
}

impl<'a, D: Disk> Scan<'a, D> {
    pub(super) fn new(
        disk: &'a D,
        cluster: ClusterId,
        hb_ctr: u64,
        os_boot: Option<OsBootId>,
    ) -> Scan<'a, D> {
        Scan {
            disk,
            cluster,
            hb_ctr,
            os_boot,
            shards: (0..super::SHARDS).map(|_| RwLock::default()).collect(),
            replicas: Vec::new(),
            quarantined: Vec::new(),
            damaged_slots: 0,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), OpenError> {
        for low in 0..=u8::MAX {
            let dir = format!("{CHUNKS}/{low:02x}");
            for entry in self.disk.list(&dir).map_err(OpenError::io("list a directory"))? {
                let found = match chunk_of(low, &entry.name) {
                    Some(id) if !entry.is_dir => self.look(id, &entry)?,
                    Some(_) | None => Err(Unfit::Name),
                };
                match found {
                    Ok(chunk) => {
                        self.replicas.push(chunk.read().header.clone());
                        let shard = &mut self.shards[super::shard_of(chunk.id)];
                        shard
                            .get_mut()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .insert(chunk.id, chunk);
                    }
                    Err(unfit) => self.set_apart(&dir, &entry, unfit)?,
                }
            }
        }
        if !self.quarantined.is_empty() {
            self.disk.sync_dir(LOST).map_err(OpenError::io("sync lost+found"))?;
        }
        Ok(())
    }

    /// Reads a chunk file's header slots.
    fn look(&mut self, id: ChunkId, entry: &Entry) -> Result<Result<Shared<D::File>, Unfit>, OpenError> {
        let file = self.disk.open(&chunk_path(id), Open::Existing).map_err(OpenError::io("open a chunk"))?;
        let mut slots = Vec::with_capacity(SLOTS.len());
        let mut unreadable = 0;
        for at in SLOTS {
            let mut bytes = [0; SECTOR];
            if file.read_at(&mut bytes, at).is_ok() {
                slots.push(header::decode(&bytes, self.cluster, id));
            } else {
                unreadable += 1;
                slots.push(header::SlotContent::Damaged);
            }
        }
        let slots: [_; 2] = slots.try_into().expect("two slots were read");
        let empty = slots.iter().all(|slot| matches!(slot, header::SlotContent::Empty));
        let (found, damaged) = Slots::choose(slots);
        if damaged > 0 {
            log::error!("{}: {damaged} header slots are damaged", chunk_path(id));
            self.damaged_slots += damaged;
        }
        Ok(match found {
            Some((mut header, slots)) => {
                header.failed &= self.os_boot.is_none_or(|now| now == header.os_boot);
                let place = if header.failed { Place::Failed } else { Place::Here };
                Ok(Arc::new(Chunk::new(header, place, slots, blocks_of_len(entry.len))))
            }
            None if unreadable > 0 => Err(Unfit::Unreadable),
            None if empty => Err(Unfit::NoHeader),
            None => Err(Unfit::Header),
        })
    }

    fn set_apart(&mut self, dir: &str, entry: &Entry, unfit: Unfit) -> Result<(), OpenError> {
        let path = format!("{dir}/{}", entry.name);
        log::error!("{path}: not a replica of this server ({unfit:?})");
        if !entry.is_dir {
            let n = self.hb_ctr << 32 | self.quarantined.len() as u64;
            let to = format!("{LOST}/{}.{}", entry.name, trash_name(0, ChunkId(0), n));
            self.disk.rename(&path, &to).map_err(OpenError::io("move a file to lost+found"))?;
        }
        self.quarantined.push((path, unfit));
        Ok(())
    }
}
