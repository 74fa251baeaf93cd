//! What a server says it has, against the map. Nothing here has a consequence: a replica that is missing or too
//! much is named, and stays as it is.

use std::collections::BTreeMap;

use dfs_proto::control::{HeldReplica, HeldState};
use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::{Finding, FindingKind};

use crate::core::chunks::ChunkMeta;
use crate::core::state::State;

/// A server's replicas of chunks in a range of ids.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Held<'a> {
    pub(in crate::core) server: ServerNum,
    /// From here on, inclusive.
    pub(in crate::core) from: ChunkId,
    /// To here, exclusive; `None` for all that follow.
    pub(in crate::core) to: Option<ChunkId>,
    pub(in crate::core) replicas: &'a [HeldReplica],
}

impl Held<'_> {
    /// What is not as the map says.
    #[must_use]
    pub(in crate::core) fn compare(&self, state: &State) -> Vec<Finding> {
        let within = |chunk: ChunkId| chunk >= self.from && self.to.is_none_or(|to| chunk < to);
        let here: BTreeMap<ChunkId, &HeldReplica> =
            self.replicas.iter().map(|replica| (replica.chunk, replica)).collect();
        let mut found = Vec::new();
        let mut find = |kind, chunk: ChunkId, what: String| {
            let object = format!("chunk {chunk} on {}", self.server);
            found.push(Finding { kind, object, what });
        };
        for (chunk, replica) in here.iter().filter(|(chunk, _)| within(**chunk)) {
            match state.chunks.get(*chunk) {
                Some(meta) => {
                    if let Some(what) = self.known(&meta, replica) {
                        find(FindingKind::Replica, *chunk, what);
                    }
                }
                None if state.tombstones.get(*chunk).is_some() => {}
                None => find(
                    FindingKind::Unknown,
                    *chunk,
                    format!("no file and no tombstone names it; its header says inode {}", replica.ino),
                ),
            }
        }
        for (chunk, meta) in state.chunks.iter_from(self.from).take_while(|(chunk, _)| within(*chunk)) {
            // A chunk that was never written has no file anywhere.
            let expected = meta.is_active() && meta.written && meta.members.contains(self.server);
            if expected && !here.contains_key(&chunk) {
                let what = format!("the server has no replica, and is a member{}", of(&meta));
                find(FindingKind::Replica, chunk, what);
            }
        }
        found
    }

    /// What is wrong with a replica of a chunk in the map.
    fn known(&self, meta: &ChunkMeta, replica: &HeldReplica) -> Option<String> {
        let (v, c) = (replica.version, replica.config);
        if v > meta.fence() || (meta.is_active() && v == meta.version && c > meta.config) {
            return Some(format!("is at {v} {c}, above the map's {} {}", meta.fence(), meta.config));
        }
        if !meta.is_active() || !meta.members.contains(self.server) {
            // Being recovered or filled, or left behind and on its way to the trash.
            return None;
        }
        match replica.state {
            HeldState::Failed => Some(format!("its disk failed it{}", of(meta))),
            HeldState::Gone => Some(format!("its file is gone from the disk{}", of(meta))),
            HeldState::Present | HeldState::Empty => {
                (replica.learner || (v, c) < (meta.version, meta.config)).then(|| {
                    let filling = if replica.learner { " and not filled" } else { "" };
                    format!("is at {v} {c}{filling}, below the map's {} {}", meta.version, meta.config)
                })
            }
        }
    }
}

fn of(meta: &ChunkMeta) -> String {
    format!("; inode {}, index {}", meta.ino, meta.index.0)
}
