//! A segment: the header in front of its records, its file's name, and the zero-filled file that it is
//! made from. It does not know records.
//!
//! Invariant: a segment file has its full length, written as zeros and synced, before it has its name.
//! So an fdatasync of the log moves data only, and what was never written reads as zeros.

use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::checksum::{crc32c, crc32c_of_two};
use dfs_proto::ids::{ClusterId, LogIndex, Term};

use super::DIR;
use super::entry::{EntryId, RecordNum};
use super::record::{u32_at, u64_at};

/// Bytes of the header; the first record follows.
pub const HEADER_LEN: usize = 64;

const MAGIC: &[u8; 8] = b"dfs-log\n";
const FORMAT: u32 = 1;
/// How the names of files end that become segments, and that recovery may remove.
pub(super) const TEMP: &str = ".tmp";
/// Zeros are written this many bytes at a time, and handed to the device as they go: a commit's
/// fdatasync then never waits behind 64 MiB of them.
const ZEROS_AT_ONCE: usize = 1 << 20;

/// What a segment says about itself.
///
/// | bytes | field |
/// |---|---|
/// | 0..8 | `dfs-log\n` |
/// | 8..12 | format, 1 |
/// | 12..16 | CRC32C of the other 60 bytes |
/// | 16..32 | cluster id |
/// | 32..40 | number of the first record |
/// | 40..48, 48..56 | index and term of the last entry before |
/// | 56..64 | the last record number known durable when the segment was begun |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub cluster: ClusterId,
    pub first: RecordNum,
    pub before: EntryId,
    pub durable: RecordNum,
}

/// Why a header is no header of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    Damaged,
    Foreign(ClusterId),
    Newer(u32),
    /// Whole and ours, but of the segment that begins with this record.
    Misnamed(RecordNum),
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster.0.to_le_bytes());
        let words = [self.first.0, self.before.index.0, self.before.term.0, self.durable.0];
        for (slot, word) in out[32..].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c_of_two(&out[..12], &out[16..]).0;
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header in `bytes`, if they are one of `cluster`, for the segment whose name says `first`.
    pub(super) fn decode(bytes: &[u8], cluster: ClusterId, first: RecordNum) -> Result<Header, BadHeader> {
        if bytes.len() < HEADER_LEN
            || &bytes[..8] != MAGIC
            || crc32c_of_two(&bytes[..12], &bytes[16..HEADER_LEN]).0 != u32_at(bytes, 12)
        {
            return Err(BadHeader::Damaged);
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(BadHeader::Newer(format));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        let found = ClusterId(u128::from_le_bytes(id));
        if found != cluster {
            return Err(BadHeader::Foreign(found));
        }
        let header = Header {
            cluster,
            first: RecordNum(u64_at(bytes, 32)),
            before: EntryId { index: LogIndex(u64_at(bytes, 40)), term: Term(u64_at(bytes, 48)) },
            durable: RecordNum(u64_at(bytes, 56)),
        };
        match header {
            Header { first: found, .. } if found != first => Err(BadHeader::Misnamed(found)),
            Header { durable, .. } if durable >= first => Err(BadHeader::Damaged),
            header => Ok(header),
        }
    }
}

/// What every record's checksum in a segment begins with. A record copied from another segment or
/// another cluster, or built by a user inside a payload, does not pass for one of this segment.
#[must_use]
pub fn seed(cluster: ClusterId, first: RecordNum) -> u32 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&cluster.0.to_le_bytes());
    bytes[16..].copy_from_slice(&first.0.to_le_bytes());
    crc32c(&bytes).0
}

/// The path of the segment whose first record is `first`.
#[must_use]
pub fn path(first: RecordNum) -> String {
    format!("{DIR}/{:016x}.seg", first.0)
}

/// The first record of the segment with this file name; `None` when it is not a segment's name.
pub(super) fn parse_name(name: &str) -> Option<RecordNum> {
    let hex = name.strip_suffix(".seg").filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok().map(RecordNum)
}

/// The segments there are, oldest first.
pub(super) fn list<D: Disk>(disk: &D) -> io::Result<Vec<RecordNum>> {
    let mut found: Vec<RecordNum> =
        disk.list(DIR)?.iter().filter(|e| !e.is_dir).filter_map(|e| parse_name(&e.name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// A zero-filled, synced file that only needs a name.
#[derive(Debug)]
pub struct Spare<F> {
    pub(super) file: F,
    pub(super) path: String,
    pub(super) len: u64,
}

/// Makes the [`Spare`]: up to seconds of disk time, so it runs on a thread of its own.
#[derive(Debug)]
pub struct SparePlan<D> {
    disk: D,
    path: String,
    len: u64,
}

impl<D: Disk> SparePlan<D> {
    /// The plan of the `number`th spare since the log was taken up: no two have the same file.
    pub(super) fn new(disk: D, number: u64, len: u64) -> SparePlan<D> {
        SparePlan { disk, path: format!("{DIR}/spare-{number}{TEMP}"), len }
    }

    /// Writes the zeros and syncs them.
    ///
    /// # Errors
    /// The first failing call's, often a full disk. The log is unharmed; try again later.
    pub fn run(self) -> io::Result<Spare<D::File>> {
        let SparePlan { disk, path, len } = self;
        if disk.exists(&path)? {
            disk.remove(&path)?;
        }
        let file = disk.open(&path, Open::New)?;
        match fill(&file, len) {
            Ok(()) => Ok(Spare { file, path, len }),
            Err(error) => {
                // Gives the space back; if even that fails, the next restart removes the file.
                disk.remove(&path).unwrap_or_default();
                Err(error)
            }
        }
    }
}

fn fill<F: DiskFile>(file: &F, len: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_AT_ONCE];
    let mut at = 0;
    while at < len {
        let n = usize::try_from(len - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_at(&[IoSlice::new(&zeros[..n])], at)?;
        file.start_writeback(at, n as u64)?;
        at += n as u64;
    }
    file.sync_data()
}
