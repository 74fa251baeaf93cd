//! What must hold of every state, checked whole: for tests, tools and whoever doubts. The parts that can
//! be checked where a change is made are asserted there, in release builds too.

use dfs_proto::ids::ChunkId;
use dfs_proto::units::ChunkIndex;

use super::state::State;

/// A broken invariant, with its number in the protocol's table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("I18: {ino} points to {chunk} at {index:?}, which is {what}")]
    Pointer { ino: dfs_proto::ids::Ino, index: ChunkIndex, chunk: ChunkId, what: &'static str },
    #[error("I18: {0} has a tombstone and is in the map")]
    Buried(ChunkId),
    #[error("I18: no file points to {0}")]
    Unreachable(ChunkId),
    #[error("I1: {0} lies outside the reserved ids")]
    Id(ChunkId),
    #[error("{chunk} is on {server}, which never registered")]
    Server { chunk: ChunkId, server: dfs_proto::ids::ServerNum },
    #[error("{0} has no members")]
    Empty(ChunkId),
}

impl State {
    /// Checks every chunk against the namespace, the tombstones and the registry.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(&self) -> Result<(), Broken> {
        for (chunk, meta) in self.chunks.iter_from(ChunkId(0)) {
            if !self.knows_id(chunk) {
                return Err(Broken::Id(chunk));
            }
            if self.tombstones.get(chunk).is_some() {
                return Err(Broken::Buried(chunk));
            }
            if meta.members.is_empty() {
                return Err(Broken::Empty(chunk));
            }
            if self.ns.chunk_at(meta.ino, meta.index) != Ok(Some(chunk)) {
                return Err(Broken::Unreachable(chunk));
            }
            let mut holders = meta.members.iter().chain(meta.learners.iter().copied());
            if let Some(server) = holders.find(|server| self.servers.get(*server).is_none()) {
                return Err(Broken::Server { chunk, server });
            }
        }
        Ok(())
    }
}
