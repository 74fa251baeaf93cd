//! The fence log: versions below which chunks are refused, for many chunks at the price of one sync. The
//! headers follow with each chunk's next sync, or when the log is made short again.
//!
//! A record begins at a multiple of 512 bytes and is numbered; it is written only after the one before it
//! was synced. So a bad record with a good one behind it is damage, and a bad last one is a torn tail that
//! nobody was told of.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open, read_file, replace_file};
use dfs_proto::checksum::crc32c;
use dfs_proto::ids::{ChunkId, ChunkVersion};

use super::Store;
use super::chunk::locked;
use super::error::{OpenError, StoreError};
use super::header::{Header, HeaderChange};
use super::layout::{FENCES, SECTOR};

const MAGIC: [u8; 8] = *b"DFSFENCE";
/// Magic, number, count, checksum.
const HEAD: usize = 24;
const ENTRY: usize = 12;
/// Most chunks of one record: it stays under 50 KiB.
const RECORD_MAX: usize = 4096;
/// The log is made short again above this: some 80,000 fences in batches.
const LIMIT: u64 = 1 << 20;
/// A log longer than this was not written by us: the limit, doubled by entries that must be kept, and
/// much to spare.
const READ_MAX: usize = 256 << 20;

const WRITE: &str = "write the fence log";

/// The log's state in memory.
#[derive(Debug)]
pub(super) struct Fences<F> {
    file: F,
    len: u64,
    number: u64,
    /// What the log says and headers on disk may not say yet.
    kept: BTreeMap<ChunkId, ChunkVersion>,
    limit: u64,
    /// A write or sync of the log failed: a later Ok would prove nothing (I22).
    failed: bool,
}

fn encode(number: u64, entries: &[(ChunkId, ChunkVersion)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((HEAD + entries.len() * ENTRY).next_multiple_of(SECTOR));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&super::layout::small(entries.len()).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for (chunk, version) in entries {
        bytes.extend_from_slice(&chunk.0.to_le_bytes());
        bytes.extend_from_slice(&version.0.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    let crc = crc32c(&bytes).0;
    bytes[HEAD - 4..HEAD].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word))
}

/// A verified record.
struct Record {
    number: u64,
    entries: Vec<(ChunkId, ChunkVersion)>,
    /// In the log, padding included.
    len: usize,
}

/// The record at the front of `bytes`.
fn decode(bytes: &[u8]) -> Option<Record> {
    if bytes.len() < SECTOR || bytes[..8] != MAGIC {
        return None;
    }
    let count = usize::try_from(word(bytes, 16)).ok().filter(|count| *count <= RECORD_MAX)?;
    let len = (HEAD + count * ENTRY).next_multiple_of(SECTOR);
    let record = bytes.get(..len)?;
    let entries: Vec<_> = record[HEAD..HEAD + count * ENTRY]
        .chunks_exact(ENTRY)
        .map(|entry| (ChunkId(long(entry, 0)), ChunkVersion(word(entry, 8))))
        .collect();
    let number = long(record, 8);
    (encode(number, &entries) == record).then_some(Record { number, entries, len })
}

/// All entries of a log. The error is damage.
fn replay(bytes: &[u8]) -> Result<BTreeMap<ChunkId, ChunkVersion>, OpenError> {
    let mut kept = BTreeMap::new();
    let (mut at, mut number) = (0, 1);
    while let Some(record) = decode(&bytes[at..]).filter(|record| record.number == number) {
        for (chunk, version) in record.entries {
            let kept = kept.entry(chunk).or_insert(version);
            *kept = version.max(*kept);
        }
        at += record.len;
        number += 1;
    }
    let behind = bytes[at..].chunks(SECTOR).enumerate().skip(1);
    for (sector, _) in behind {
        if decode(&bytes[at + sector * SECTOR..]).is_some_and(|record| record.number > number) {
            return Err(OpenError::Damaged { file: FENCES });
        }
    }
    Ok(kept)
}

impl<F: DiskFile> Fences<F> {
    /// What the disk's log says.
    pub(super) fn read<D: Disk<File = F>>(disk: &D) -> Result<BTreeMap<ChunkId, ChunkVersion>, OpenError> {
        if !disk.exists(FENCES).map_err(OpenError::io("look for the fence log"))? {
            return Err(OpenError::Damaged { file: FENCES });
        }
        replay(&read_file(disk, FENCES, READ_MAX).map_err(OpenError::io("read the fence log"))?)
    }

    /// Replaces the log by one that says `kept`.
    pub(super) fn start<D: Disk<File = F>>(
        disk: &D,
        kept: BTreeMap<ChunkId, ChunkVersion>,
    ) -> io::Result<Fences<F>> {
        let entries: Vec<_> = kept.iter().map(|(chunk, version)| (*chunk, *version)).collect();
        let (mut bytes, mut number) = (Vec::new(), 0);
        for part in entries.chunks(RECORD_MAX) {
            number += 1;
            bytes.extend(encode(number, part));
        }
        replace_file(disk, FENCES, &bytes)?;
        let file = disk.open(FENCES, Open::Existing)?;
        let len = bytes.len() as u64;
        let limit = LIMIT.max(2 * len);
        // Chunks must be fenced on a full disk, too. Where the filesystem has none to give, fences are refused.
        if let Err(error) = file.allocate(len, limit - len) {
            log::debug!("no space is kept for fences: {error}");
        }
        Ok(Fences { file, len, number, kept, limit, failed: false })
    }

    /// `NoSpace` leaves the log as it was: what a part of the record left behind its end is written over by the
    /// next one, or is a torn tail.
    fn append(&mut self, entries: &[(ChunkId, ChunkVersion)]) -> Result<(), StoreError> {
        for part in entries.chunks(RECORD_MAX) {
            let bytes = encode(self.number + 1, part);
            let written = self.file.write_at(&[IoSlice::new(&bytes)], self.len);
            written.map_err(StoreError::full_or_io(WRITE))?;
            self.file.sync_data().map_err(StoreError::io(WRITE))?;
            self.number += 1;
            self.len += bytes.len() as u64;
        }
        self.kept.extend(entries.iter().copied());
        Ok(())
    }
}

impl<D: Disk> Store<D> {
    /// Raises the versions of many chunks, durably on return. A chunk that is at the version already is
    /// fenced again without harm. On a disk that is suspect, or turns so now, they are raised in memory alone: a
    /// new boot serves nothing until it is confirmed, so nothing is undone by it, and what is there can be read on.
    ///
    /// # Errors
    /// For each chunk by itself: `NoChunk`, `Failed`, `Older` when its version is above the one given. For all,
    /// when there is no room for it in the log; fences hold for this process all the same.
    pub fn fence(
        &self,
        fences: &[(ChunkId, ChunkVersion)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut log = locked(&self.fences);
        let mut entries = Vec::with_capacity(fences.len());
        let mut results = Vec::with_capacity(fences.len());
        for (id, version) in fences {
            let raised = self.raise(*id, *version);
            if raised.is_ok() {
                entries.push((*id, *version));
            }
            results.push(raised);
        }
        if log.failed || self.suspect() {
            return Ok(results);
        }
        match log.append(&entries).and_then(|()| self.shorten(&mut log)) {
            Ok(()) => Ok(results),
            Err(StoreError::NoSpace) => Err(StoreError::NoSpace),
            Err(error) => {
                log::error!("{error}; the disk is suspect");
                log.failed = true;
                self.distrust();
                Ok(results)
            }
        }
    }

    fn raise(&self, id: ChunkId, to: ChunkVersion) -> Result<(), StoreError> {
        let chunk = self.find(id)?;
        let mut state = chunk.write();
        state.usable()?;
        let change = HeaderChange { version: Some(to), ..HeaderChange::default() };
        if change.apply(&mut state.header) {
            return Ok(());
        }
        let Header { version, config, .. } = state.header;
        Err(StoreError::Older { chunk: id, version, config })
    }

    /// Drops what headers on disk say by now, once the log is long.
    fn shorten(&self, log: &mut Fences<D::File>) -> Result<(), StoreError> {
        if log.len <= log.limit {
            return Ok(());
        }
        let mut kept = log.kept.clone();
        kept.retain(|id, version| self.find(*id).is_ok_and(|chunk| chunk.read().durable_version < *version));
        match Fences::start(&self.disk, kept).map_err(StoreError::full_or_io(WRITE)) {
            Ok(short) => *log = short,
            // It stays long until there is room for another.
            Err(StoreError::NoSpace) => log.limit += LIMIT,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<u8> {
        let many: Vec<_> = (0..100).map(|n| (ChunkId(n), ChunkVersion(7))).collect();
        [
            encode(1, &many),
            encode(2, &[(ChunkId(5), ChunkVersion(9))]),
            encode(3, &[(ChunkId(6), ChunkVersion(8))]),
        ]
        .concat()
    }

    #[test]
    fn a_log_reads_back() {
        let kept = replay(&log()).unwrap();
        assert_eq!(
            (kept.len(), kept[&ChunkId(5)], kept[&ChunkId(4)]),
            (100, ChunkVersion(9), ChunkVersion(7))
        );
        assert!(replay(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_torn_tail_is_dropped_and_damage_before_it_refused() {
        let log = log();
        let tail = log.len() - SECTOR;
        for bit in (0..SECTOR * 8).step_by(37) {
            let mut torn = log.clone();
            torn[tail + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(replay(&torn).unwrap()[&ChunkId(6)], ChunkVersion(7));
            for sector in 0..tail / SECTOR {
                let mut damaged = log.clone();
                damaged[sector * SECTOR + bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(replay(&damaged), Err(OpenError::Damaged { file: FENCES })));
            }
        }
        assert_eq!(replay(&log[..tail]).unwrap()[&ChunkId(6)], ChunkVersion(7));
    }

    #[test]
    fn golden_fence_record() {
        let golden = include_str!("../../tests/fixtures/fence-v1.hex");
        let bytes = encode(2, &[(ChunkId(0x0001_0000_0000_002a), ChunkVersion(9))]);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
    }
}
