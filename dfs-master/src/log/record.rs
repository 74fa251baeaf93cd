//! One record as bytes: the only encoder and the only decoder. It reads and writes no file and knows no
//! order; which record may follow which is the reader's business.
//!
//! Layout, little-endian, at a multiple of 8 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | length of the payload |
//! | 4..8 | CRC32C of the segment's seed, the length, and everything from byte 8 to the payload's end |
//! | 8..16 | record number |
//! | 16..24 | entry index (0 for a record that is no entry) |
//! | 24..32 | entry term (0 likewise) |
//! | 32..40 | the last record number known durable when this was written |
//! | 40 | type |
//! | 41 | format, 1 |
//! | 42..48 | zero |
//! | 48.. | payload, then zeros to a multiple of 8 |
//!
//! Invariant: a record that decodes is, but for a collision of 32-bit checksums, the record that was
//! written, into this very segment of this very cluster.

use bytes::Bytes;
use dfs_proto::checksum::crc32c_of_two;
use dfs_proto::ids::{LogIndex, Term};

use super::entry::{EntryId, EntryKind, HardState, LogEntry, NodeId, RecordNum};

/// Bytes of a record before its payload.
pub const HEADER_LEN: usize = 48;
/// Records begin at multiples of this, so that a search for the next one has few places to look.
pub const ALIGN: usize = 8;
/// The longest payload in bytes. The largest command is far below (an xattr value is 64 KiB); the bound
/// keeps a damaged length from being believed.
pub const PAYLOAD_MAX: usize = 16 << 20;

const FORMAT: u8 = 1;
const TYPE_COMMAND: u8 = 1;
const TYPE_ELECTION: u8 = 2;
const TYPE_CONF_CHANGE: u8 = 3;
const TYPE_HARD_STATE: u8 = 16;
const TYPE_OPENED: u8 = 32;
const TYPE_SYNCED: u8 = 33;
const TYPE_INSTALLED: u8 = 34;
/// Term, vote, commit.
const HARD_STATE_LEN: usize = 24;

/// What one record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    Entry(LogEntry),
    HardState(HardState),
    Marker(Marker),
}

/// Records that only the log itself needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marker {
    /// A process took up the log here, after it had synced all before.
    Opened,
    /// Written when a log falls idle after a sync: lets damage to the last synced batch be told from a
    /// torn tail.
    Synced,
    /// A snapshot replaced everything before; the next entry follows this one.
    Installed(EntryId),
}

/// A record as found in a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub num: RecordNum,
    /// All records up to this one were durable when this one was written.
    pub durable: RecordNum,
    pub record: Record,
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("its length runs past the end of the segment")]
    Length,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it is record {} where {} is due", found.0, due.0)]
    Misplaced { found: RecordNum, due: RecordNum },
    #[error("the segment's header is damaged")]
    SegmentHeader,
    #[error("nothing is there")]
    Missing,
    #[error("its checksum matches but its type {kind} or format {format} is not known to this version")]
    Newer { kind: u8, format: u8 },
    #[error("its checksum matches but its contents are not valid")]
    Contents,
}

/// What stands at a place in a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Zeros: no record was written here.
    Nothing,
    /// A record and how many bytes it takes, padding included.
    Record(Stored, usize),
    Bad(Fault),
}

/// Bytes that `record` will take, padding included.
#[must_use]
pub fn encoded_len(record: &Record) -> usize {
    (HEADER_LEN + payload_len(record)).next_multiple_of(ALIGN)
}

fn payload_len(record: &Record) -> usize {
    match record {
        Record::Entry(entry) => entry.data.len(),
        Record::HardState(_) => HARD_STATE_LEN,
        Record::Marker(_) => 0,
    }
}

fn type_of(record: &Record) -> u8 {
    match record {
        Record::Entry(entry) => match entry.kind {
            EntryKind::Command => TYPE_COMMAND,
            EntryKind::Election => TYPE_ELECTION,
            EntryKind::ConfChange => TYPE_CONF_CHANGE,
        },
        Record::HardState(_) => TYPE_HARD_STATE,
        Record::Marker(Marker::Opened) => TYPE_OPENED,
        Record::Marker(Marker::Synced) => TYPE_SYNCED,
        Record::Marker(Marker::Installed(_)) => TYPE_INSTALLED,
    }
}

fn entry_id(record: &Record) -> EntryId {
    match record {
        Record::Entry(entry) => entry.id(),
        Record::Marker(Marker::Installed(id)) => *id,
        Record::HardState(_) | Record::Marker(Marker::Opened | Marker::Synced) => EntryId::default(),
    }
}

/// Appends the encoding to `out`.
///
/// # Panics
/// When the payload is over [`PAYLOAD_MAX`].
pub fn encode(seed: u32, num: RecordNum, durable: RecordNum, record: &Record, out: &mut Vec<u8>) {
    let payload = payload_len(record);
    assert!(payload <= PAYLOAD_MAX, "a log payload of {payload} bytes");
    let length = u32::try_from(payload).unwrap_or(u32::MAX);
    let start = out.len();
    let id = entry_id(record);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for word in [num.0, id.index.0, id.term.0, durable.0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[type_of(record), FORMAT, 0, 0, 0, 0, 0, 0]);
    match record {
        Record::Entry(entry) => out.extend_from_slice(&entry.data),
        Record::HardState(state) => {
            for word in [state.term.0, state.vote.map_or(0, |id| id.0), state.commit.0] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        Record::Marker(_) => {}
    }
    let crc = checksum(seed, length, &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + encoded_len(record), 0);
}

fn checksum(seed: u32, length: u32, rest: &[u8]) -> u32 {
    let mut first = [0; 8];
    first[..4].copy_from_slice(&seed.to_le_bytes());
    first[4..].copy_from_slice(&length.to_le_bytes());
    crc32c_of_two(&first, rest).0
}

/// How many bytes from the start of `header` a decoder needs, if the length there is to be believed.
#[must_use]
pub fn wanted(header: &[u8]) -> Option<usize> {
    if header.len() < HEADER_LEN {
        return None;
    }
    let length = usize::try_from(u32_at(header, 0)).ok()?;
    (length <= PAYLOAD_MAX).then(|| (HEADER_LEN + length).next_multiple_of(ALIGN))
}

/// Decodes the record at the start of `bytes`, which must hold all of it or all that the segment has.
#[must_use]
pub fn decode(seed: u32, bytes: &Bytes) -> Decoded {
    if bytes.len() < HEADER_LEN {
        let zeros = bytes.iter().all(|b| *b == 0);
        return if zeros { Decoded::Nothing } else { Decoded::Bad(Fault::Length) };
    }
    if u64_at(bytes, 0) == 0 && bytes[8..HEADER_LEN].iter().all(|b| *b == 0) {
        return Decoded::Nothing;
    }
    let Some(size) = wanted(bytes).filter(|size| *size <= bytes.len()) else {
        return Decoded::Bad(Fault::Length);
    };
    let length = u32_at(bytes, 0);
    let end = HEADER_LEN + length as usize;
    if checksum(seed, length, &bytes[8..end]) != u32_at(bytes, 4) {
        return Decoded::Bad(Fault::Checksum);
    }
    match contents(bytes, end) {
        Ok(record) => {
            let stored =
                Stored { num: RecordNum(u64_at(bytes, 8)), durable: RecordNum(u64_at(bytes, 32)), record };
            Decoded::Record(stored, size)
        }
        Err(fault) => Decoded::Bad(fault),
    }
}

/// The typed record of bytes whose checksum matched.
fn contents(bytes: &Bytes, end: usize) -> Result<Record, Fault> {
    let (kind, format) = (bytes[40], bytes[41]);
    let newer = Fault::Newer { kind, format };
    if format != FORMAT || bytes[42..HEADER_LEN].iter().any(|b| *b != 0) {
        return Err(newer);
    }
    let id = EntryId { index: LogIndex(u64_at(bytes, 16)), term: Term(u64_at(bytes, 24)) };
    let payload = bytes.slice(HEADER_LEN..end);
    let entry =
        |kind| Record::Entry(LogEntry { index: id.index, term: id.term, kind, data: payload.clone() });
    let record = match kind {
        TYPE_COMMAND => entry(EntryKind::Command),
        TYPE_ELECTION => entry(EntryKind::Election),
        TYPE_CONF_CHANGE => entry(EntryKind::ConfChange),
        TYPE_HARD_STATE if payload.len() == HARD_STATE_LEN => Record::HardState(HardState {
            term: Term(u64_at(&payload, 0)),
            vote: Some(NodeId(u64_at(&payload, 8))).filter(|id| id.0 != 0),
            commit: LogIndex(u64_at(&payload, 16)),
        }),
        TYPE_OPENED => Record::Marker(Marker::Opened),
        TYPE_SYNCED => Record::Marker(Marker::Synced),
        TYPE_INSTALLED => Record::Marker(Marker::Installed(id)),
        TYPE_HARD_STATE => return Err(Fault::Contents),
        _ => return Err(newer),
    };
    let is_entry = matches!(record, Record::Entry(_) | Record::Marker(Marker::Installed(_)));
    let named = id.index.0 != 0 && id.term.0 != 0;
    let is_payload = matches!(record, Record::Entry(_) | Record::HardState(_));
    if is_entry != named || (!is_payload && !payload.is_empty()) {
        return Err(Fault::Contents);
    }
    Ok(record)
}

/// Could a record numbered in `from..` start at these bytes? Cheap, and never wrong about a "no".
#[must_use]
pub(super) fn plausible(header: &[u8], from: RecordNum) -> bool {
    wanted(header).is_some()
        && header[41] == FORMAT
        && header[42..HEADER_LEN].iter().all(|b| *b == 0)
        && u64_at(header, 8) >= from.0
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
