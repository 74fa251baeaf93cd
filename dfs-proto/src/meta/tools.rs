//! What operators' tools ask.

use serde::{Deserialize, Serialize};

use crate::control::DiskReport;
use crate::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, Generation, Ino, LogIndex, OpenNum, ServerNum, Term,
};
use crate::meta::{Attr, ServerAddr, request};
use crate::request::{Op, Request};
use crate::units::{ChunkIndex, ChunkSize, MasterMs};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {}
request!(ClusterStatus => ClusterReport);

/// The cluster on one page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterReport {
    pub cluster: ClusterId,
    pub generation: Generation,
    pub version: String,
    pub term: Term,
    pub last_index: LogIndex,
    pub durable_index: LogIndex,
    pub snapshot_index: LogIndex,
    pub uptime_ms: u64,
    pub chunk_size: ChunkSize,
    pub goal: u8,
    /// Why the master is on hold, if it is.
    pub hold: Option<String>,
    pub inodes: u64,
    pub sessions: u64,
    pub servers_up: u32,
    /// That ever registered, but for those that were drained and are down.
    pub servers_known: u32,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub chunks: u64,
    /// Fewer members than the goal.
    pub chunks_below_goal: u64,
    pub chunks_recovering: u64,
    /// Written, and not closed since: a restart of a server that has them costs a recovery.
    #[serde(default)]
    pub chunks_open: u64,
    /// Replicas found to differ although their servers called them whole, since this leader began.
    #[serde(default)]
    pub replicas_diverged: u64,
    /// No member is alive.
    pub chunks_unavailable: u64,
    pub tombstones: u64,
    /// Replicas of chunks that neither a file nor a tombstone names: left alone.
    pub replicas_unknown: u64,
    /// Blocks that are damaged on some server, as the servers last said, and those of which no member of their chunk
    /// has a good copy.
    #[serde(default)]
    pub blocks_damaged: u64,
    #[serde(default)]
    pub blocks_hopeless: u64,
    /// What each server has of the master's own log.
    #[serde(default)]
    pub copies: Vec<LogCopy>,
    /// Servers that are away on purpose, or about to be.
    #[serde(default)]
    pub maintained: Vec<Maintained>,
    /// Replicas that are on their way from fuller servers to emptier ones.
    #[serde(default)]
    pub moving: u64,
    /// Files and directories with a goal or a bound of their own, and the highest goal that there is.
    #[serde(default)]
    pub goals_own: u64,
    #[serde(default)]
    pub goal_highest: u8,
}

/// A server in maintenance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Maintained {
    pub server: String,
    pub up: bool,
    /// When it ends by itself.
    pub left_ms: u64,
}

/// A server's copy of the master's snapshots and log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogCopy {
    pub server: String,
    pub up: bool,
    /// The last record of this generation that is on the server's disk, as it last said.
    pub index: LogIndex,
    /// Records that are durable at the master and not there.
    pub behind: u64,
    /// How long ago, when it last said, the copy had all that the master had; `None` if it never did in this
    /// generation and since the server started.
    pub whole_ms: Option<u64>,
    /// Why it does not go on.
    pub trouble: Option<String>,
}

/// Why the master is on hold, and what going on would cost. With `accept`, which names the last record of its
/// log as the report gave it, it goes on: what later records said is lost. The cluster's generation rises, so
/// that no id is given twice, and replicas that the log does not know are left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recover {
    pub accept: Option<LogIndex>,
}
request!(Recover => RecoverReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoverReport {
    pub generation: Generation,
    pub hold: Option<String>,
    pub last_index: LogIndex,
    /// Chunk ids below this counter are known to the log.
    pub ids_below: u64,
    /// The servers that have seen more.
    pub ahead: Vec<ServerAhead>,
}

/// A server that was refused because it has seen more than this log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerAhead {
    pub name: String,
    pub why: String,
    pub generation: Generation,
    pub term: Term,
    pub index: LogIndex,
    pub max_chunk: Option<ChunkId>,
    pub replicas: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerList {}
request!(ServerList => ServerReports);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerReports {
    pub servers: Vec<ServerReport>,
    pub now: MasterMs,
    /// Walks over all chunks since this master leads: what [`ServerReport::stake`] says is of the last one.
    #[serde(default)]
    pub passes: u64,
}

/// What of the cluster's chunks hangs on one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServerStake {
    /// Of its replicas, by their files' sizes.
    pub bytes: u64,
    /// Chunks of which no other server has a good replica that can be reached.
    pub sole: u64,
    /// Chunks that would have fewer replicas than a write needs without it, and one at least.
    pub thin: u64,
    /// Chunks that are being written, whose writes it numbers; of a server in maintenance.
    pub leads: u64,
    /// Of a server that is drained, chunks that no other server could take: since all that take replicas have them, since
    /// the others have no room, since no disk of the others takes writes; and chunks that are being recovered or wait for
    /// their servers.
    #[serde(default)]
    pub no_server: u64,
    #[serde(default)]
    pub no_space: u64,
    #[serde(default)]
    pub no_disk: u64,
    #[serde(default)]
    pub unready: u64,
    /// Of such a server, chunks that are being copied to it still.
    #[serde(default)]
    pub coming: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerReport {
    pub addr: ServerAddr,
    pub name: String,
    pub up: bool,
    /// Milliseconds since the last heartbeat; `None` if there was none since the master started.
    pub silent_ms: Option<u64>,
    pub labels: Vec<(String, String)>,
    pub version: String,
    pub disks: Vec<DiskReport>,
    /// Replicas that the chunk map puts there.
    pub replicas: u64,
    pub utilisation_permille: u16,
    pub queue: u16,
    /// What it can move, as it last said; 0 if it did not.
    #[serde(default)]
    pub capacity_bytes_per_s: u64,
    /// Seen while it could move no more, and neither given nor assumed.
    #[serde(default)]
    pub capacity_learned: bool,
    /// An operator wants it empty: it gets nothing new, and gives away what it has.
    #[serde(default)]
    pub draining: bool,
    /// It is away on purpose, or about to be, for so much longer.
    #[serde(default)]
    pub maintenance_ms: Option<u64>,
    /// As the last walk over the chunks found it; `None` before the first one.
    #[serde(default)]
    pub stake: Option<ServerStake>,
    /// It is drained, and durably no chunk counts on it: it can go.
    #[serde(default)]
    pub removable: bool,
    /// Replicas there of chunks that were given up: nothing counts on them, and only a person removes them.
    #[serde(default)]
    pub given_up: u64,
    /// As it last said.
    #[serde(default)]
    pub traffic: Traffic,
}

impl ServerReport {
    /// It was emptied on purpose and is down: it is not waited for.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.removable && !self.up && self.given_up == 0
    }
}

/// What a server did in the second before its last heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    pub bytes_in_per_s: u64,
    pub bytes_out_per_s: u64,
    pub requests_per_s: u64,
    /// From a request's arrival to its answer.
    pub service_p50_us: u32,
    pub service_p99_us: u32,
}

/// An operator wants a server empty, or no longer. Answered when that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainServer {
    pub server: ServerNum,
    pub drain: bool,
    /// Although not all that it has can be elsewhere as it should be.
    #[serde(default)]
    pub force: bool,
}
request!(DrainServer => OrderReport);

/// A server will be away for a while on purpose: meanwhile its chunks are not made anew elsewhere, and it gets none.
/// Answered when that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MaintainServer {
    pub server: ServerNum,
    /// For how long; `None` ends it.
    pub for_ms: Option<u64>,
    /// Although chunks can't be read meanwhile, or not be written.
    #[serde(default)]
    pub force: bool,
}
request!(MaintainServer => OrderReport);

/// What came of an operator's order about a server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OrderReport {
    /// Why nothing was changed, and what would work.
    #[serde(default)]
    pub refused: Option<String>,
    /// What it means for the chunks, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    pub ino: Ino,
    /// Chunks from this index on.
    #[serde(default)]
    pub from: ChunkIndex,
}
request!(FileInfo => FileReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileReport {
    pub attr: Attr,
    /// Path from the root as the master has it; empty for a nameless inode.
    pub path: serde_bytes::ByteBuf,
    pub goal: u8,
    /// Some; the next question goes on at `more`.
    pub chunks: Vec<ChunkReport>,
    #[serde(default)]
    pub more: Option<ChunkIndex>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkReport {
    pub index: ChunkIndex,
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub open: bool,
    pub recovering: bool,
    /// First is the primary.
    pub members: Vec<ReplicaReport>,
    pub learners: Vec<ReplicaReport>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub server: ServerNum,
    pub name: String,
    pub tcp: String,
    pub up: bool,
}
