//! Chunks that no server can serve: which they are, and what an operator may decide about them.

use serde::{Deserialize, Serialize};

use crate::control::Examined;
use crate::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, ServerNum};
use crate::meta::{Done, request};
use crate::request::{Op, Request};
use crate::units::{ChunkIndex, ChunkSize};

/// Which chunks have no good replica, as far as the master knows now? Of one file, from the index `from` on; or of
/// all, from the chunk id `from` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damaged {
    pub ino: Option<Ino>,
    pub from: u64,
}
request!(Damaged => DamagedPart);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamagedPart {
    pub chunk_size: ChunkSize,
    pub chunks: Vec<DamagedChunk>,
    /// Where the next question goes on; `None` when nothing follows.
    pub next: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamagedChunk {
    pub ino: Ino,
    pub index: ChunkIndex,
    pub chunk: ChunkId,
    /// The highest version that a member may be fenced at, and the configuration: what [`RepairChunk`] names.
    pub version: ChunkVersion,
    pub config: ConfigNum,
    /// Of the file, in bytes.
    pub size: u64,
    /// Some commit named bytes in it.
    pub written: bool,
    /// Why none of its replicas is good.
    pub replicas: Vec<DamagedReplica>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamagedReplica {
    pub server: ServerNum,
    pub name: String,
    pub why: ReplicaFault,
}

/// What is wrong with a replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReplicaFault {
    /// Its server is down or out of reach, for so long if this master ever heard of it.
    Away { silent_ms: Option<u64> },
    /// Its server is there, and has no file of it.
    Missing,
    /// Its disk failed it.
    Failed,
    /// These blocks do not match their checksums; the others are good.
    Corrupt { blocks: Vec<u32> },
}

/// What is the replica of a chunk on this server worth? All its blocks are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExamineChunk {
    pub chunk: ChunkId,
    pub server: ServerNum,
}
request!(ExamineChunk => Examined);

/// Gives up what a chunk without a good replica held, so that it can be used again. Refused when it has one, or
/// when it is not at this version and configuration any more. No replica is deleted by this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepairChunk {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub way: RepairWay,
}
request!(RepairChunk => Done);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RepairWay {
    /// All of it becomes zeros, on other servers.
    Zeros,
    /// The blocks that do not match their checksums become zeros, where it is.
    BadBlocks,
    /// It goes on from the older replica that this server was left with.
    Stale(ServerNum),
}
