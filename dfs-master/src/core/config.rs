//! What the core is told at its start and never again.

use dfs_proto::ids::{ClusterId, Generation, LogIndex, Term};
use dfs_proto::units::ChunkSize;

use super::image::StateImage;
use crate::log::entry::{ConfState, HardState, LogEntry, NodeId};

/// When an answer may leave, seen from the log (`--metadata-sync` with `auto` resolved).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataSync {
    /// After fdatasync.
    Always,
    /// After write(2); the driver syncs within 10 ms, and [`super::contract::After::Durable`] waits for it.
    Interval,
}

/// The core's options. Times in milliseconds.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This node and, of an empty log, the group's only voter.
    pub node: NodeId,
    /// Used to begin an empty log, and checked against one that is not.
    pub cluster: ClusterId,
    pub generation: Generation,
    pub chunk_size: ChunkSize,
    /// Replicas of new files when the log is empty; afterwards the log says it.
    pub goal: u8,
    /// D of the lease rules.
    pub server_lease_ms: u64,
    pub heartbeat_ms: u64,
    pub session_lease_ms: u64,
    /// How long a dead server stays in the configs of idle chunks.
    pub repair_delay_ms: u64,
    /// How long a chunk is written no more before it is closed.
    pub close_after_ms: u64,
    /// How long a recovery that would lose acknowledged bytes waits for members that are away.
    pub lossy_wait_ms: u64,
    /// How long a tombstone waits before its replicas are deleted.
    pub gc_delay_ms: u64,
    pub metadata_sync: MetadataSync,
    /// A snapshot is taken when so much was logged since the last.
    pub snapshot_bytes: u64,
    pub snapshot_records: u64,
    /// Most mutations proposed and not yet applied; more are answered `Overloaded`.
    pub inflight_max: usize,
    /// Of every choice that is not determined otherwise.
    pub seed: u64,
    /// What the keys of chunk servers come from. New with each process; no other needs it.
    pub secret: [u8; 16],
    /// How long a key seals capabilities before the next one does.
    pub key_life_ms: u64,
    /// Whether each second of the policy comes out, as [`super::contract::Effect::LogLoad`].
    pub load_log: bool,
    /// This build, for people.
    pub version: String,
}

impl CoreConfig {
    /// The defaults of the protocol's numbers for `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId) -> CoreConfig {
        CoreConfig {
            node: NodeId(1),
            cluster,
            generation: Generation(1),
            chunk_size: ChunkSize::DEFAULT,
            goal: 3,
            server_lease_ms: 6_000,
            heartbeat_ms: 1_000,
            session_lease_ms: 30_000,
            repair_delay_ms: 25_000,
            close_after_ms: 30_000,
            // Half of the minute within which a cluster is to be of use again after a power cut.
            lossy_wait_ms: 30_000,
            gc_delay_ms: 3_600_000,
            metadata_sync: MetadataSync::Interval,
            snapshot_bytes: 256 << 20,
            snapshot_records: 1_000_000,
            inflight_max: 4096,
            seed: 1,
            secret: [0; 16],
            key_life_ms: 3_600_000,
            load_log: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What the disk holds when the process starts.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The newest snapshot, decoded.
    pub snapshot: Option<RecoveredSnapshot>,
    /// Every entry after it, in order.
    pub entries: Vec<LogEntry>,
    pub hard_state: HardState,
}

/// A snapshot with the place in the log that it stands for.
#[derive(Debug)]
pub struct RecoveredSnapshot {
    pub index: LogIndex,
    pub term: Term,
    pub conf: ConfState,
    pub image: StateImage,
}

/// Why a core cannot start from what was recovered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    #[error("the log is of cluster {found}, this master was started for {wanted}")]
    WrongCluster { found: ClusterId, wanted: ClusterId },
    #[error("the log begins at {first}, the snapshot ends at {snapshot}")]
    Gap { first: LogIndex, snapshot: LogIndex },
    #[error("record {index} of the log does not decode: {why}")]
    BadCommand { index: LogIndex, why: super::command::BadCommand },
    #[error("raft: {0}")]
    Raft(String),
}
