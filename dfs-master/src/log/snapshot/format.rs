//! A snapshot's bytes: the header, a block's head, the footer. No files.
//!
//! Little-endian. Header: `dfs-snp\n`, format u32 = 1, CRC32C u32 of all other header bytes, body length
//! u32, zero u32, body (postcard). Then blocks, then one footer, and the file ends there. Block or
//! footer, at any offset:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | length of the payload |
//! | 4..8 | CRC32C of the header's CRC, the length, and everything from byte 8 to the payload's end |
//! | 8..16 | number, counted from 0 |
//! | 16..18 | section |
//! | 18 | 1 block, 2 footer |
//! | 19..24 | zero |
//! | 24.. | payload |
//!
//! The footer's payload: how many blocks u64, how many payload bytes u64, a chain over the blocks' CRCs u32
//! (each link the CRC32C of the chain so far and the block's CRC, from 0), zero u32.

use dfs_proto::checksum::{crc32c, crc32c_of_two};
use dfs_proto::ids::{ClusterId, Generation};
use serde::{Deserialize, Serialize};

use super::super::entry::{ConfState, EntryId};
use super::super::record::{u32_at, u64_at};
use super::{BLOCK_MAX, SnapshotMeta};

const MAGIC: &[u8; 8] = b"dfs-snp\n";
const FORMAT: u32 = 1;
/// Bytes of the header before its body.
pub(super) const PREFIX_LEN: usize = 24;
/// Longest body: seven masters and a hundred sections take 600 bytes.
pub(super) const BODY_MAX: usize = 64 << 10;
/// Bytes of a block before its payload.
pub(super) const HEAD_LEN: usize = 24;
/// Bytes of the footer's payload.
pub(super) const FOOTER_LEN: usize = 24;

const KIND_BLOCK: u8 = 1;
const KIND_FOOTER: u8 = 2;

/// A table of the state machine, and the version in which its blocks are encoded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Section {
    pub id: u16,
    pub version: u16,
}

/// The header's body, format 1. Fields are only ever added under a new format.
#[derive(Serialize, Deserialize)]
struct Body {
    cluster: ClusterId,
    generation: Generation,
    id: EntryId,
    conf: ConfState,
    sections: Vec<Section>,
}

/// Why bytes are no header of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    Damaged,
    Foreign(ClusterId),
    Newer(u32),
}

/// The header's bytes, and what every block's checksum begins with.
pub(super) fn encode_header(
    cluster: ClusterId,
    meta: &SnapshotMeta,
) -> Result<(Vec<u8>, u32), postcard::Error> {
    let SnapshotMeta { id, conf, generation, sections } = meta.clone();
    let body = postcard::to_stdvec(&Body { cluster, generation, id, conf, sections })?;
    let mut out = Vec::with_capacity(PREFIX_LEN + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&body);
    let crc = crc32c_of_two(&out[..12], &out[16..]).0;
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok((out, crc))
}

/// How long the body is, if `prefix` is to be believed so far.
pub(super) fn body_len(prefix: &[u8]) -> Option<usize> {
    let len = usize::try_from(u32_at(prefix, 16)).ok()?;
    (&prefix[..8] == MAGIC && len <= BODY_MAX).then_some(len)
}

/// The meta data and the seed of a whole header.
pub(super) fn decode_header(bytes: &[u8], cluster: ClusterId) -> Result<(SnapshotMeta, u32), BadHeader> {
    let crc = u32_at(bytes, 12);
    if crc32c_of_two(&bytes[..12], &bytes[16..]).0 != crc {
        return Err(BadHeader::Damaged);
    }
    let format = u32_at(bytes, 8);
    if format != FORMAT {
        return Err(BadHeader::Newer(format));
    }
    let body: Body = postcard::from_bytes(&bytes[PREFIX_LEN..]).map_err(|_invalid| BadHeader::Damaged)?;
    if body.cluster != cluster {
        return Err(BadHeader::Foreign(body.cluster));
    }
    let Body { generation, id, conf, sections, .. } = body;
    Ok((SnapshotMeta { id, conf, generation, sections }, crc))
}

/// What a head says of the payload behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) crc: u32,
    pub(super) number: u64,
    pub(super) section: u16,
    pub(super) footer: bool,
}

impl Head {
    /// The head of `payload`.
    pub(super) fn encode(
        seed: u32,
        number: u64,
        section: u16,
        footer: bool,
        payload: &[u8],
    ) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[..4].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        out[8..16].copy_from_slice(&number.to_le_bytes());
        out[16..18].copy_from_slice(&section.to_le_bytes());
        out[18] = if footer { KIND_FOOTER } else { KIND_BLOCK };
        let crc = checksum(seed, &out, payload);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a head; whether to believe it, [`Head::covers`] says.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Option<Head> {
        let len = usize::try_from(u32_at(bytes, 0)).ok()?;
        let footer = bytes[18] == KIND_FOOTER;
        let known = footer || bytes[18] == KIND_BLOCK;
        let zeros = bytes[19..].iter().all(|b| *b == 0);
        let section = u16::from_le_bytes([bytes[16], bytes[17]]);
        (known && zeros && len <= BLOCK_MAX).then(|| Head {
            len,
            crc: u32_at(bytes, 4),
            number: u64_at(bytes, 8),
            section,
            footer,
        })
    }

    /// Does the checksum of head and payload match?
    pub(super) fn covers(&self, seed: u32, bytes: &[u8; HEAD_LEN], payload: &[u8]) -> bool {
        checksum(seed, bytes, payload) == self.crc
    }
}

fn checksum(seed: u32, head: &[u8; HEAD_LEN], payload: &[u8]) -> u32 {
    let mut first = [0; HEAD_LEN];
    first.copy_from_slice(head);
    first[..4].copy_from_slice(&seed.to_le_bytes());
    first[4..8].copy_from_slice(&head[..4]);
    crc32c_of_two(&first, payload).0
}

/// What the footer counts: it tells a file cut between two blocks from a whole one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    chain: u32,
}

impl Totals {
    /// Counts one block.
    pub(super) fn add(&mut self, len: usize, crc: u32) {
        self.blocks += 1;
        self.bytes += len as u64;
        let mut both = [0; 8];
        both[..4].copy_from_slice(&self.chain.to_le_bytes());
        both[4..].copy_from_slice(&crc.to_le_bytes());
        self.chain = crc32c(&both).0;
    }

    /// The footer's payload.
    pub(super) fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut out = [0; FOOTER_LEN];
        out[..8].copy_from_slice(&self.blocks.to_le_bytes());
        out[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.chain.to_le_bytes());
        out
    }
}
