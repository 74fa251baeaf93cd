//! Work on a chunk store, and what must hold of it after a cut: what was synced is there, byte for byte, and is
//! never called corrupt; each sector of what was not synced is one that was written there since, or the one before;
//! fences, versions and marks are where their acknowledgement said.

mod oracle;

use std::collections::BTreeMap;

use dfs_chunkserver::store::{
    Durability, Expect, Header, HeaderChange, Label, Mhwm, Store, StoreConfig, StoreError, Write,
};
use dfs_disk::real::RealDisk;
use dfs_disk::sim::Rng;
use dfs_proto::checksum::crc32c;
use dfs_proto::chunk::Range;
use dfs_proto::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, LogIndex, OpenNum, OsBootId, Seq,
    ServerId, SizeEpoch, Term,
};
use dfs_proto::units::ChunkSize;

use super::Step;
use super::device::Device;

pub use self::oracle::judge;

/// Bytes of a chunk: the smallest size, so that a block is hit more than once.
const SIZE: u32 = 64 << 10;
const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Chunks that are written; a sync of all takes the way of a whole disk's.
const CHUNKS: u64 = 20;
/// Most of the work is on so many of them.
const BUSY: u64 = 4;

const LABEL: Label =
    Label { cluster: ClusterId(0xc1), generation: Generation(1), disk: DiskId(0xd1), server: ServerId(0x51) };
const EXPECT: Expect = Expect { cluster: LABEL.cluster, server: Some(LABEL.server), os_boot: OsBootId(1) };

/// What was asked of the store.
#[derive(Clone, Debug)]
pub enum StoreStep {
    /// The first write makes the chunk.
    Write {
        chunk: ChunkId,
        offset: u32,
        bytes: Vec<u8>,
    },
    Zero {
        chunk: ChunkId,
        from: u32,
        epoch: SizeEpoch,
    },
    Sync {
        chunk: ChunkId,
    },
    SyncAll,
    Fence {
        chunk: ChunkId,
        version: ChunkVersion,
    },
    Version {
        chunk: ChunkId,
        version: ChunkVersion,
    },
    Marks(Mhwm),
    /// A clean end, and a start; with the boot counter of the start.
    Restart {
        hb_ctr: u64,
    },
}

fn config() -> anyhow::Result<StoreConfig> {
    // Fewer than the chunks: files are closed and opened again.
    Ok(StoreConfig { chunk_size: ChunkSize::try_from(SIZE)?, open_files: 3 })
}

/// An empty disk.
///
/// # Errors
/// The failing call's.
pub fn prepare(disk: &RealDisk) -> anyhow::Result<()> {
    Ok(Store::init(disk, &LABEL)?)
}

/// The work under way.
struct Work<'a> {
    disk: RealDisk,
    device: &'a Device,
    store: Option<Store<RealDisk>>,
    /// Version and size epoch of each chunk that was made.
    chunks: BTreeMap<ChunkId, (u32, u32)>,
    steps: Vec<Step<StoreStep>>,
    rng: Rng,
}

impl Work<'_> {
    fn step(
        &mut self,
        what: StoreStep,
        work: impl FnOnce(&Store<RealDisk>) -> Result<(), StoreError>,
    ) -> anyhow::Result<()> {
        let Some(store) = &self.store else { anyhow::bail!("the store is closed") };
        let begin = self.device.position();
        work(store)?;
        self.steps.push(Step { begin, end: self.device.position(), what });
        Ok(())
    }

    fn write(&mut self, chunk: ChunkId) -> anyhow::Result<()> {
        let make = !self.chunks.contains_key(&chunk);
        self.chunks.entry(chunk).or_insert((1, 0));
        let at = u32::try_from(self.rng.below(u64::from(SIZE)))?;
        let offset = if self.rng.coin() { at / 4096 * 4096 } else { at };
        let len = (1 + u32::try_from(self.rng.below(5 * 4096))?).min(SIZE - offset);
        let fill = self.rng.bits();
        let bytes: Vec<u8> = (0..u64::from(len)).map(|at| (fill ^ (at >> 7)).to_le_bytes()[0]).collect();
        let what = StoreStep::Write { chunk, offset, bytes: bytes.clone() };
        self.step(what, |store| {
            if make {
                store.create(Header::new(chunk, ChunkVersion(1), ConfigNum(1), OpenNum(1)))?;
            }
            write(store, chunk, offset, &bytes)
        })
    }

    fn raise(&mut self, chunk: ChunkId, fence: bool) -> anyhow::Result<()> {
        let Some((version, _)) = self.chunks.get_mut(&chunk) else { return Ok(()) };
        *version += 1;
        let version = ChunkVersion(*version);
        if fence {
            let fence = [(chunk, version)];
            let what = StoreStep::Fence { chunk, version };
            return self
                .step(what, |store| store.fence(&fence)?.into_iter().try_for_each(|one| one.map(drop)));
        }
        let change = HeaderChange {
            version: Some(version),
            config: Some(ConfigNum(version.0)),
            ..HeaderChange::default()
        };
        let what = StoreStep::Version { chunk, version };
        self.step(what, |store| store.set_header(chunk, &change, Durability::Later).map(drop))
    }

    fn zero(&mut self, chunk: ChunkId) -> anyhow::Result<()> {
        let from = u32::try_from(self.rng.below(u64::from(SIZE)))?;
        let Some((_, epoch)) = self.chunks.get_mut(&chunk) else { return Ok(()) };
        *epoch += 1;
        let epoch = SizeEpoch(*epoch);
        let what = StoreStep::Zero { chunk, from, epoch };
        self.step(what, |store| store.zero(chunk, from, SIZE, epoch).map(drop))
    }

    fn sync_all(&mut self) -> anyhow::Result<()> {
        let seq = Seq(self.rng.below(1000));
        let all: Vec<(ChunkId, Seq)> = self.chunks.keys().map(|chunk| (*chunk, seq)).collect();
        self.step(StoreStep::SyncAll, |store| store.sync_many(&all).into_iter().collect())
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        let begin = self.device.position();
        if let Some(store) = self.store.take() {
            store.mark_clean_shutdown()?;
        }
        let (store, _) = Store::open(self.disk.clone(), EXPECT, config()?)?;
        let what = StoreStep::Restart { hb_ctr: store.hb_ctr() };
        self.store = Some(store);
        self.steps.push(Step { begin, end: self.device.position(), what });
        Ok(())
    }

    fn one(&mut self, round: u64) -> anyhow::Result<()> {
        let among = if self.rng.below(4) == 0 { CHUNKS } else { BUSY };
        let chunk = ChunkId(1 << ChunkId::COUNTER_BITS | self.rng.below(among));
        self.write(chunk)?;
        match self.rng.below(16) {
            0..6 => {
                let seq = Seq(self.rng.below(1000));
                self.step(StoreStep::Sync { chunk }, |store| store.sync(chunk, seq))
            }
            6 | 7 => self.zero(chunk),
            8 => self.raise(chunk, true),
            9 => self.raise(chunk, false),
            10 => {
                let marks = Mhwm {
                    generation: Generation(1),
                    max_term: Term(round),
                    max_meta_index: LogIndex(round),
                };
                self.step(StoreStep::Marks(marks), |store| store.set_mhwm(marks))
            }
            11 => self.sync_all(),
            12 if round.is_multiple_of(5) => self.restart(),
            _ => Ok(()),
        }
    }
}

/// A write with the checksums of its parts.
fn write(store: &Store<RealDisk>, chunk: ChunkId, offset: u32, bytes: &[u8]) -> Result<(), StoreError> {
    let len = u32::try_from(bytes.len()).map_err(|_| StoreError::Invalid)?;
    let first = (BLOCK - usize::try_from(offset).map_err(|_| StoreError::Invalid)? % BLOCK).min(bytes.len());
    let mut crcs = vec![crc32c(&bytes[..first]).0];
    crcs.extend(bytes[first..].chunks(BLOCK).map(|part| crc32c(part).0));
    store.write(chunk, &Write { ranges: &[Range { offset, len }], data: bytes, crcs: &crcs })
}

/// `rounds` of writes, syncs, truncations, fences and restarts.
///
/// # Errors
/// The failing call's.
pub fn work(
    disk: &RealDisk,
    device: &Device,
    rounds: u64,
    rng: &mut Rng,
) -> anyhow::Result<Vec<Step<StoreStep>>> {
    let (disk, rng) = (disk.clone(), Rng::new(rng.bits()));
    let mut work = Work { disk, device, store: None, chunks: BTreeMap::new(), steps: Vec::new(), rng };
    work.restart()?;
    for round in 0..rounds {
        work.one(round)?;
    }
    work.sync_all()?;
    Ok(work.steps)
}
