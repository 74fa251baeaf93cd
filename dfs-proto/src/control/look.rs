//! The master's questions about what is on a chunk server's disks. They change nothing.

use serde::{Deserialize, Serialize};

use super::ReplicaClass;
use crate::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, Seq, Term};
use crate::meta::request;
use crate::request::{Op, Request};
use crate::units::ChunkIndex;

/// Which replicas are here, of chunks from `from` on? Files are looked up on the disks, not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Look {
    pub term: Term,
    pub from: ChunkId,
}
request!(Look => Holdings);

/// Replicas of one [`Holdings`].
pub const HOLDINGS_MAX: usize = 2048;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holdings {
    /// By rising id.
    pub replicas: Vec<HeldReplica>,
    /// Where the next question goes on; `None` when nothing follows.
    pub next: Option<ChunkId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldReplica {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    /// Being filled: no member's copy.
    pub learner: bool,
    pub ino: Ino,
    pub index: ChunkIndex,
    pub state: HeldState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HeldState {
    /// There is a file.
    Present,
    /// Nothing was written to it: no file is needed.
    Empty,
    /// There was a file, and it is not there any more.
    Gone,
    /// A write or a sync of it failed, or its disk.
    Failed,
}

/// What is a chunk's replica worth? Every block is read and compared with its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Examine {
    pub term: Term,
    pub chunk: ChunkId,
}
request!(Examine => Examined);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Examined {
    /// `None` when there is none.
    pub replica: Option<HeldReplica>,
    pub class: ReplicaClass,
    pub applied: Seq,
    pub synced: Seq,
    pub good_blocks: u32,
    /// Blocks that do not match their checksums: first, and how many.
    pub bad: Vec<(u32, u32)>,
}

/// Rising block numbers as runs: each the first, and how many.
#[must_use]
pub fn runs_of(blocks: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == *block => *count += 1,
            _ => runs.push((*block, 1)),
        }
    }
    runs
}
