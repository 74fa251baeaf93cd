//! The logged state: everything that applying the log makes, and nothing else. Equal logs give equal
//! states; time, liveness and connections have no place here.

mod apply;
mod membership;
mod trail;

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::ids::{ChunkId, ClusterId, Generation, Ino, LogIndex, ServerNum};
use dfs_proto::units::{ChunkSize, Timespec};
use serde::{Deserialize, Serialize};

use super::chunks::{ChunkMeta, Chunks, MEMBERS_MAX};
use super::command::Origin;
use super::namespace::{Namespace, RootSpec};
use super::policy::Thresholds;
use super::servers::Registry;
use super::sessions::Sessions;
use super::tombstones::Tombstones;

pub use apply::Outcome;
pub use trail::{EVERY as HASH_EVERY, Mark, Trail};

/// What the cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub generation: Generation,
    pub chunk_size: ChunkSize,
    /// Replicas that a chunk should have.
    pub goal: u8,
    /// Chunk ids below this counter may have been given out.
    pub ids_below: u64,
}

/// The state at one index.
#[derive(Clone, Debug)]
pub struct State {
    /// `None` before the first record.
    pub cluster: Option<Cluster>,
    pub ns: Namespace,
    pub chunks: Chunks,
    pub tombstones: Tombstones,
    pub sessions: Sessions,
    pub servers: Registry,
    /// Whose request a truncation is that is between its records.
    pub cuts: Arc<BTreeMap<Ino, Origin>>,
    /// Chunks whose members an operator gave up, and those members. No replica that is left of such a chunk is
    /// deleted or filled: it is for a person to look at.
    pub given_up: Arc<BTreeMap<ChunkId, Vec<ServerNum>>>,
    /// How the number of replicas follows the load.
    pub policy: Thresholds,
    /// The last record applied.
    pub applied: LogIndex,
    /// What all of them came to.
    pub trail: Trail,
}

impl State {
    /// The state before the first record.
    #[must_use]
    pub fn empty() -> State {
        State {
            cluster: None,
            ns: namespace(ChunkSize::DEFAULT, Timespec::default()),
            chunks: Chunks::default(),
            tombstones: Tombstones::default(),
            sessions: Sessions::default(),
            servers: Registry::default(),
            cuts: Arc::default(),
            policy: Thresholds::default(),
            given_up: Arc::default(),
            applied: LogIndex(0),
            trail: Trail::default(),
        }
    }

    /// Replicas that a chunk should have whose file has no goal of its own.
    #[must_use]
    pub fn goal(&self) -> usize {
        usize::from(self.cluster.map_or(1, |cluster| cluster.goal)).clamp(1, MEMBERS_MAX)
    }

    /// Replicas that the chunk should have.
    #[must_use]
    pub fn goal_of(&self, meta: &ChunkMeta) -> usize {
        self.goal_at(meta.ino)
    }

    /// Replicas that the file's chunks should have; of a directory, those of files made in it.
    #[must_use]
    pub fn goal_at(&self, ino: Ino) -> usize {
        self.ns.goals.get(ino).goal.map_or_else(|| self.goal(), usize::from)
    }

    /// The bound of the file's own, if it has one, of the replicas that load brings about.
    #[must_use]
    pub fn max_at(&self, ino: Ino) -> Option<usize> {
        self.ns.goals.get(ino).max.map(usize::from)
    }

    /// The highest goal of any chunk, or of the next.
    #[must_use]
    pub fn highest_goal(&self) -> usize {
        self.ns.goals.highest().map_or(0, usize::from).max(self.goal())
    }

    /// Fewest members of the chunk that may take writes.
    #[must_use]
    pub fn min_write(&self, meta: &ChunkMeta) -> usize {
        min_write_for(self.goal_of(meta))
    }

    /// Whether an id was within what could be given out.
    #[must_use]
    pub fn knows_id(&self, chunk: ChunkId) -> bool {
        self.cluster.is_some_and(|cluster| {
            chunk.0 >> ChunkId::COUNTER_BITS <= u64::from(cluster.generation.0)
                && chunk.counter() < cluster.ids_below
        })
    }
}

/// Fewest members that may take writes of a chunk with that goal.
pub(super) fn min_write_for(goal: usize) -> usize {
    if goal >= 3 { 2 } else { 1 }
}

/// A namespace with a root that everybody may use: who may mount decides who comes so far.
fn namespace(chunk_size: ChunkSize, now: Timespec) -> Namespace {
    Namespace::new(chunk_size, RootSpec { uid: 0, gid: 0, mode: 0o755, now })
}
