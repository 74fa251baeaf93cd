//! Mending damaged blocks from other members: what a member asks of its primary, and how a range with holes
//! and damaged blocks in it travels. The messages that carry the bytes are FORWARDs.

use serde::{Deserialize, Serialize};

use super::{Member, Range};
use crate::checksum::{HOLE, LOST};
use crate::ids::{ChunkId, ChunkVersion};
use crate::meta::request;
use crate::request::{Op, Request};
use crate::units::BLOCK_SIZE;

/// Member to primary, one way, and again while it stands: these blocks do not match their checksums here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AskMend {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    /// Who asks.
    pub member: Member,
    /// Whole blocks; at most [`MEND_RANGES_MAX`] ranges.
    pub ranges: Vec<Range>,
}
request!(AskMend => crate::meta::Done);

/// Most ranges of one [`AskMend`]; what is left over is asked for when those are mended.
pub const MEND_RANGES_MAX: usize = 16;

/// Whether an entry stands for a block whose bytes travel.
#[must_use]
pub fn has_bytes(entry: u32) -> bool {
    entry != HOLE && entry != LOST
}

/// How many bytes travel with these entries.
#[must_use]
pub fn bytes_of_entries(entries: &[u32]) -> usize {
    entries.iter().filter(|entry| has_bytes(**entry)).count() * BLOCK_SIZE as usize
}

/// Entries as a reply's metadata.
#[must_use]
pub fn entries_to_bytes(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// Takes [`entries_to_bytes`] apart. `None` when the payload does not fit the entries.
#[must_use]
pub fn entries_from_bytes(bytes: &[u8], payload_len: usize) -> Option<Vec<u32>> {
    let (words, []) = bytes.as_chunks::<4>() else { return None };
    let entries: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    (bytes_of_entries(&entries) == payload_len).then_some(entries)
}
