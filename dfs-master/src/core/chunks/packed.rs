//! A chunk's entry as it lies in memory: 52 bytes for nearly every chunk, and a side entry for the few
//! that do not fit.

use dfs_proto::ids::{ChunkVersion, ConfigNum, Ino, OpenNum, ServerNum};
use dfs_proto::units::ChunkIndex;

use super::{ChunkMeta, ChunkState, Members};

/// Members in the entry itself: goals above 4 are rare.
const INLINE: usize = 4;

const OPEN: u8 = 1;
const SYNCED: u8 = 1 << 1;
const WRITTEN: u8 = 1 << 2;

/// No server has number 0: it marks a free place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    /// As two halves, so that the entry is aligned to 4 bytes.
    ino: [u32; 2],
    version: ChunkVersion,
    config: ConfigNum,
    open_num: OpenNum,
    index: u32,
    members: [ServerNum; INLINE],
    /// As quarters, for the same reason.
    digest: [u32; 4],
    flags: u8,
    refs: u8,
}

const _: () = assert!(size_of::<Packed>() == 52);

/// What does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    fence: Option<ChunkVersion>,
    learners: Vec<ServerNum>,
    leaving: Option<ServerNum>,
    /// Members after the first four.
    members: Vec<ServerNum>,
    /// The upper half of the index.
    index: u32,
    lossy: ChunkVersion,
}

/// The halves of a 64-bit number, low first.
fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_le_bytes();
    [
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    ]
}

/// The quarters of a digest, low first.
fn quarters(digest: u128) -> [u32; 4] {
    let bytes = digest.to_le_bytes();
    std::array::from_fn(|at| {
        u32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
    })
}

fn joined(quarters: [u32; 4]) -> u128 {
    quarters.iter().rev().fold(0, |digest, quarter| digest << 32 | u128::from(*quarter))
}

fn whole(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Packed {
    pub(super) fn pack(meta: &ChunkMeta) -> (Packed, Option<Rest>) {
        let [index, index_high] = halves(meta.index.0);
        let list = meta.members.as_slice();
        let (near, far) = list.split_at(list.len().min(INLINE));
        let mut members = [ServerNum(0); INLINE];
        members[..near.len()].copy_from_slice(near);
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let packed = Packed {
            ino: halves(meta.ino.0),
            version: meta.version,
            config: meta.config,
            open_num: meta.open_num,
            index,
            members,
            digest: quarters(meta.digest),
            flags: flag(meta.open, OPEN) | flag(meta.synced, SYNCED) | flag(meta.written, WRITTEN),
            refs: meta.refs,
        };
        let rest = Rest {
            fence: match meta.state {
                ChunkState::Active => None,
                ChunkState::Recovering(version) => Some(version),
            },
            learners: meta.learners.clone(),
            leaving: meta.leaving,
            members: far.to_vec(),
            index: index_high,
            lossy: meta.lossy,
        };
        (packed, (rest != Rest::default()).then_some(rest))
    }

    pub(super) fn unpack(&self, rest: Option<&Rest>) -> ChunkMeta {
        let mut members = Members::default();
        for server in self.members.iter().filter(|server| server.0 != 0) {
            members.push(*server);
        }
        for server in rest.iter().flat_map(|rest| &rest.members) {
            members.push(*server);
        }
        ChunkMeta {
            version: self.version,
            config: self.config,
            open_num: self.open_num,
            state: match rest.and_then(|rest| rest.fence) {
                None => ChunkState::Active,
                Some(version) => ChunkState::Recovering(version),
            },
            members,
            learners: rest.map(|rest| rest.learners.clone()).unwrap_or_default(),
            leaving: rest.and_then(|rest| rest.leaving),
            open: self.flags & OPEN != 0,
            synced: self.flags & SYNCED != 0,
            written: self.flags & WRITTEN != 0,
            digest: joined(self.digest),
            lossy: rest.map_or(ChunkVersion(0), |rest| rest.lossy),
            refs: self.refs,
            ino: Ino(whole(self.ino[0], self.ino[1])),
            index: ChunkIndex(whole(self.index, rest.map_or(0, |rest| rest.index))),
        }
    }
}
