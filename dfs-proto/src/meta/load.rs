//! What tools ask of the policy that makes the number of replicas follow the load, and tell it.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, Ino};
use crate::meta::request;
use crate::request::{Op, Request};
use crate::units::{ChunkIndex, Timespec};
use crate::words::path_in_words;

/// How the policy is set, after a change of the fields that are there. Thresholds and the budget as an operator writes
/// them: `auto`, or a number.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Cost a second of one replica, in units.
    pub max_threshold: Option<String>,
    pub min_threshold: Option<String>,
    pub max_replicas: Option<u64>,
    /// Bytes a second.
    pub replication_budget: Option<String>,
    pub raise_after_ms: Option<u64>,
    pub lower_after_ms: Option<u64>,
    pub cooldown_ms: Option<u64>,
    pub surplus_permille: Option<u64>,
}
request!(Policy => PolicyReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Why the change was not made; what follows is as before.
    pub refused: Option<String>,
    /// All fields are there.
    pub set: Policy,
    /// What the thresholds come to with the servers that are up, in thousandths of a unit a second.
    pub max_milli: u64,
    pub min_milli: u64,
    pub budget_bytes_per_s: u64,
    /// How much of the budget is used: less than 1000 while copies disturb others.
    pub pace_permille: u16,
    /// Copies to come, and replicas to go.
    pub raising: u64,
    pub lowering: u64,
}

/// The busiest chunks, or those of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heat {
    pub ino: Option<Ino>,
    pub most: u32,
}
request!(Heat => HeatReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeatReport {
    /// Busiest first; of one file, by their place in it.
    pub chunks: Vec<ChunkHeatReport>,
    /// What makes a replica hot, in thousandths of a unit a second.
    pub max_milli: u64,
}

/// What a chunk costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkHeatReport {
    pub chunk: ChunkId,
    pub ino: Ino,
    pub index: ChunkIndex,
    pub path: serde_bytes::ByteBuf,
    /// Cost a second in thousandths, over all replicas: the decayed measure, and what the last seconds come to.
    pub read_milli: u64,
    pub recent_milli: u64,
    pub write_milli: u64,
    pub goal: u8,
    /// Copies that are under way or to come.
    pub to_come: u8,
    /// By name, the primary first.
    pub replicas: Vec<String>,
}

/// A [`HeatReport`] as people and their programs read it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HeatShown {
    pub max_milli: u64,
    pub chunks: Vec<ChunkHeatShown>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChunkHeatShown {
    pub chunk: ChunkId,
    pub path: String,
    pub inode: Ino,
    pub index: ChunkIndex,
    pub read_milli: u64,
    pub recent_milli: u64,
    pub write_milli: u64,
    pub goal: u8,
    pub to_come: u8,
    pub replicas: Vec<String>,
}

impl HeatReport {
    #[must_use]
    pub fn shown(&self) -> HeatShown {
        let chunk = |chunk: &ChunkHeatReport| ChunkHeatShown {
            chunk: chunk.chunk,
            path: path_in_words(&chunk.path),
            inode: chunk.ino,
            index: chunk.index,
            read_milli: chunk.read_milli,
            recent_milli: chunk.recent_milli,
            write_milli: chunk.write_milli,
            goal: chunk.goal,
            to_come: chunk.to_come,
            replicas: chunk.replicas.clone(),
        };
        HeatShown { max_milli: self.max_milli, chunks: self.chunks.iter().map(chunk).collect() }
    }
}

/// What was decided and done about chunks for their load, the newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkChanges {
    pub most: u32,
}
request!(ChunkChanges => ChangeReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeReport {
    pub changes: Vec<ChunkChange>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkChange {
    pub chunk: ChunkId,
    /// From the root; empty when the chunk's file is gone.
    pub path: String,
    /// When, by the master's time of day.
    pub unix_s: i64,
    /// What, and why.
    pub what: String,
}

/// Why a chunk has the replicas that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ExplainChunk {
    Chunk(ChunkId),
    At(Ino, ChunkIndex),
}
request!(ExplainChunk => ChunkExplained);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkExplained {
    pub heat: ChunkHeatReport,
    /// Each replica's server: how busy it is, in permille.
    pub utilisation: Vec<u16>,
    pub max_milli: u64,
    pub min_milli: u64,
    /// What the policy says of it now; empty for a chunk that is neither hot nor above its goal.
    pub now: String,
    /// The master's time of day.
    pub wall: Timespec,
    /// What was decided and done, the oldest first, since this master leads and as far as is remembered.
    pub past: Vec<(Timespec, String)>,
    /// Most replicas that its load can bring about.
    #[serde(default)]
    pub max_replicas: u8,
}
