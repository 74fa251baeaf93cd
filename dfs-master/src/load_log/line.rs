//! A line, field by field. What is left out of one is as it was in the lines before it, but for reads and writes, which are
//! then none.

use dfs_proto::ids::{ChunkId, Ino, ServerNum};
use dfs_proto::meta::Policy;
use dfs_proto::units::ChunkIndex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::policy::{CopyStep, Reason, UnderWay};

/// Of the format: what a reader does not know it refuses.
pub const VERSION: u32 = 1;

/// Why a line begins anew, and leaves nothing out that a reader would need of the lines before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begins {
    /// A master leads from here on, and remembers nothing of before.
    Leader,
    /// The file before was large enough.
    Rotated,
    /// Seconds could not be written.
    Gap,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) begins: Option<Begins>,
    pub(super) unix_ms: i64,
    pub(super) at_us: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) lost_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limits: Option<LimitsLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pace_permille: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) budget_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) servers: Vec<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) chunks: Vec<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<ChunkId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rest: Option<RestLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) decisions: Vec<DecisionLine>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What the options come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct LimitsLine {
    pub(super) max_milli: u64,
    pub(super) min_milli: u64,
    pub(super) budget_bytes_per_s: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChunkLine {
    pub(super) chunk: ChunkId,
    #[serde(default)]
    pub(super) read_milli: u64,
    #[serde(default)]
    pub(super) write_milli: u64,
    pub(super) inode: Ino,
    pub(super) index: ChunkIndex,
    pub(super) bytes: u64,
    pub(super) on: Vec<ServerNum>,
    pub(super) goal: usize,
    pub(super) max_replicas: Option<usize>,
    pub(super) written: bool,
    pub(super) closed: bool,
    pub(super) under_way: Option<UnderWay>,
    pub(super) held: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct RestLine {
    pub(super) chunks: u64,
    pub(super) read_milli: u64,
    pub(super) write_milli: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DecisionLine {
    pub(super) chunk: ChunkId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) raise: Option<Vec<CopyStep>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lower: Option<ServerNum>,
    pub(super) reason: String,
    pub(super) inputs: Reason,
    pub(super) why: String,
}
