//! What damaged bytes looked like before they were replaced: a ring of records in one file of the disk, written
//! and synced before a repair writes anything. So a repair that was wrong can be undone by hand, and a disk
//! that rots can be judged.
//!
//! Nothing is decided by it, and nothing but a person reads it. It keeps the last [`RECORDS`] records.

use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::checksum::{Crc, crc32c};
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum};

use super::Store;
use super::chunk::locked;
use super::error::StoreError;
use super::layout::{BLOCK, EVIDENCE, SECTOR};

const MAGIC: [u8; 8] = *b"DFSEVID1";
/// Bytes of a record: a sector that says what it is, and room for the bytes, a block at most.
const RECORD: usize = SECTOR + BLOCK;
/// Records kept, 4.5 MiB: two of the largest repairs of one message, or a thousand single blocks.
const RECORDS: u64 = 1024;
/// Where the record's own checksum lies.
const CRC_AT: usize = 508;

/// What the damaged bytes were meant to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPart {
    Block,
    /// Of the table of checksums.
    TableSector,
    HeaderSlot,
}

/// Damaged bytes, and where they lay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// From 1; without gaps.
    pub number: u64,
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub part: BadPart,
    /// Offset in the chunk's file.
    pub at: u64,
    /// The entry of the table that a block did not match; of the others, nothing.
    pub stored: u32,
    /// Empty when they could not be read.
    pub bytes: Vec<u8>,
}

/// The ring, opened when the first record is written.
#[derive(Debug)]
pub(super) struct Ring<F> {
    file: Option<F>,
    next: u64,
}

impl<F> Default for Ring<F> {
    fn default() -> Ring<F> {
        Ring { file: None, next: 1 }
    }
}

impl BadPart {
    fn code(self) -> u32 {
        match self {
            BadPart::Block => 1,
            BadPart::TableSector => 2,
            BadPart::HeaderSlot => 3,
        }
    }

    fn from_code(code: u32) -> Option<BadPart> {
        [BadPart::Block, BadPart::TableSector, BadPart::HeaderSlot]
            .into_iter()
            .find(|part| part.code() == code)
    }
}

impl<D: Disk> Store<D> {
    /// Writes records, durably; their numbers are given here. Called with a chunk's state locked, so that what is
    /// written is what will be replaced.
    ///
    /// # Errors
    /// When they are not durable: nothing may be replaced then.
    pub(super) fn keep_evidence(&self, records: &mut [Evidence]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut ring = locked(&self.evidence);
        self.open_ring(&mut ring).map_err(failed)?;
        let first = ring.next;
        let Some(file) = &ring.file else { return Ok(()) };
        for (number, record) in (first..).zip(records.iter_mut()) {
            record.number = number;
            file.write_at(&[IoSlice::new(&encode(record))], place_of(number)).map_err(failed)?;
        }
        file.sync_data().map_err(failed)?;
        ring.next = first + records.len() as u64;
        self.counters.evidence.add(records.len() as u64);
        Ok(())
    }

    fn open_ring(&self, ring: &mut Ring<D::File>) -> io::Result<()> {
        if ring.file.is_some() {
            return Ok(());
        }
        let file = self.disk.open(EVIDENCE, Open::OrNew)?;
        self.disk.sync_dir("")?;
        ring.next = read_ring(&file)?.last().map_or(1, |last| last.number + 1);
        ring.file = Some(file);
        Ok(())
    }

    /// What is kept, the oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn evidence(&self) -> Result<Vec<Evidence>, StoreError> {
        let _ring = locked(&self.evidence);
        match self.disk.open(EVIDENCE, Open::Existing) {
            Ok(file) => read_ring(&file).map_err(failed),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(err) => Err(failed(err)),
        }
    }
}

fn failed(source: io::Error) -> StoreError {
    StoreError::full_or_io("keep damaged bytes in evidence.log")(source)
}

fn place_of(number: u64) -> u64 {
    number.wrapping_sub(1) % RECORDS * RECORD as u64
}

fn read_ring<F: DiskFile>(file: &F) -> io::Result<Vec<Evidence>> {
    let mut records = Vec::new();
    let mut bytes = vec![0; RECORD];
    for at in 0..file.len()?.div_ceil(RECORD as u64).min(RECORDS) {
        let n = file.read_at(&mut bytes, at * RECORD as u64)?;
        // One that a crash cut short, or that rotted itself, tells nothing.
        if n == RECORD
            && let Some(record) = decode(&bytes)
        {
            records.push(record);
        }
    }
    records.sort_unstable_by_key(|record| record.number);
    Ok(records)
}

fn encode(record: &Evidence) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&record.number.to_le_bytes());
    out.extend_from_slice(&record.chunk.0.to_le_bytes());
    out.extend_from_slice(&record.at.to_le_bytes());
    let len = u32::try_from(record.bytes.len()).expect("a block at most");
    for word in [record.version.0, record.config.0, record.part.code(), record.stored, len] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.resize(SECTOR, 0);
    out.extend_from_slice(&record.bytes);
    out.resize(RECORD, 0);
    let crc = crc32c(&out);
    out[CRC_AT..SECTOR].copy_from_slice(&crc.0.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Evidence> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut summed = bytes.to_vec();
    summed.get_mut(CRC_AT..SECTOR)?.fill(0);
    if bytes.get(..8)? != MAGIC || crc32c(&summed) != Crc(word(CRC_AT)?) {
        return None;
    }
    let len = usize::try_from(word(48)?).ok()?;
    Some(Evidence {
        number: long(8)?,
        chunk: ChunkId(long(16)?),
        at: long(24)?,
        version: ChunkVersion(word(32)?),
        config: ConfigNum(word(36)?),
        part: BadPart::from_code(word(40)?)?,
        stored: word(44)?,
        bytes: bytes.get(SECTOR..SECTOR.checked_add(len)?)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Evidence {
        Evidence {
            number: 0x0102_0304_0506_0708,
            chunk: ChunkId(0x0001_0000_0000_002a),
            version: ChunkVersion(3),
            config: ConfigNum(4),
            part: BadPart::HeaderSlot,
            at: 4096,
            stored: 0xaabb_ccdd,
            bytes: (0..=255).cycle().take(512).collect(),
        }
    }

    #[test]
    fn golden_evidence_record() {
        let golden = include_str!("../../tests/fixtures/evidence-v1.hex");
        let bytes = encode(&sample());
        let hex: String = bytes[..SECTOR].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
        assert_eq!(bytes.len(), RECORD);
        assert_eq!(decode(&bytes), Some(sample()));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let bytes = encode(&sample());
        for bit in (0..RECORD * 8).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(decode(&[0; RECORD]), None);
    }

    #[test]
    fn the_ring_begins_anew_when_it_is_full() {
        assert_eq!((place_of(1), place_of(2), place_of(RECORDS + 1)), (0, RECORD as u64, 0));
    }
}
