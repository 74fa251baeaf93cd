//! What must hold at every moment, judged with the whole cluster in view: I7, I17, and what a node was seen to break.

use dfs_proto::ids::{ChunkId, ChunkVersion, ServerNum};

use super::fabric::Node;
use super::world::World;

impl World {
    /// Something happened at `node`.
    pub(super) fn watch(&mut self, node: Node) {
        let broken = match node {
            Node::Master => self.outlived(),
            Node::Server(num) => {
                if self.servers[usize::from(num)].lost_replicas() {
                    self.history.server_lost_power(num);
                }
                self.wrongly_deleted(usize::from(num))
            }
            Node::Client(_) => None,
        };
        if let Some((invariant, what)) = self.fabric.broken.take().or(broken) {
            self.violate(invariant, what);
        }
    }

    /// A server that may serve a chunk under an older version than the one that the log has made active, or is no member
    /// of: it was left out, or left behind, before it was fenced.
    fn outlived(&mut self) -> Option<(&'static str, String)> {
        let state = self.master.state()?;
        if state.applied == self.watched {
            return None;
        }
        self.watched = state.applied;
        for (chunk, meta) in state.chunks.iter_from(ChunkId(0)).filter(|(_, meta)| meta.is_active()) {
            for server in &self.servers {
                let serves = server.serves(&self.fabric, chunk);
                let member = server.server_num().is_some_and(|num| meta.members.contains(num));
                let wrong =
                    |version: &ChunkVersion| *version < meta.version || (*version == meta.version && !member);
                if let Some(version) = serves.filter(wrong) {
                    let node = server.node();
                    return Some((
                        "I7",
                        format!("{node:?} may serve {chunk} at {version:?}, the log has {meta:?}"),
                    ));
                }
            }
        }
        None
    }

    /// A replica that went away although its chunk is in the log and counts on it, or although no tombstone says that
    /// its chunk is gone.
    fn wrongly_deleted(&mut self, at: usize) -> Option<(&'static str, String)> {
        let (server, trashed) = self.servers[at].take_trashed()?;
        let state = self.master.state()?;
        let wrong = |chunk: &ChunkId| match state.chunks.get(*chunk) {
            Some(meta) => meta.members.contains(server),
            None => state.tombstones.get(*chunk).is_none(),
        };
        let chunk = trashed.into_iter().find(wrong)?;
        Some(("I17", deleted(server, chunk)))
    }
}

fn deleted(server: ServerNum, chunk: ChunkId) -> String {
    format!("{server} deleted its replica of {chunk}, which is a member's or of a chunk without a tombstone")
}
