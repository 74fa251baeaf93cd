//! A second of the policy, for whoever looks at loads later: what it saw, by what it was set, what it decided. The core only
//! hands it out; what becomes of it is its driver's affair.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::units::{ChunkIndex, Micros, Timespec};

use crate::core::Core;
use crate::core::contract::Effect;
use crate::core::policy::{ChunkView, CostRate, Decision, Held, Limits, Pace, ServerView, Thresholds, View};

/// Chunks that are told of because they are read or written, the busiest first: as many as one server reports. Those that the
/// policy has to look at come besides.
pub(super) const BUSIEST: usize = 512;

/// A second of the policy.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadSecond {
    pub at: Micros,
    pub wall: Timespec,
    /// Nothing is remembered of before: it is this leader's first.
    pub first: bool,
    pub thresholds: Thresholds,
    pub limits: Limits,
    pub pace: Pace,
    /// What copies might move before it decided.
    pub budget_bytes: u64,
    pub chunks: Vec<ChunkSeen>,
    pub rest: Rest,
    /// Chunks that are no more, of those with more replicas than their goal or changing ones.
    pub gone: Vec<ChunkId>,
    pub servers: Vec<ServerView>,
    pub decisions: Vec<Decision>,
}

/// A chunk as the policy saw it; its memory is left out, which follows from the seconds before.
#[derive(Clone, PartialEq, Debug)]
pub struct ChunkSeen {
    pub view: ChunkView,
    pub ino: Ino,
    pub index: ChunkIndex,
    /// [`Held::name`], if it was looked at and left alone.
    pub held: Option<String>,
}

/// Chunks that are read or written, and too many to be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rest {
    pub chunks: u64,
    pub read: CostRate,
    pub write: CostRate,
}

/// What is known before the decisions are carried out.
pub(super) struct Seen {
    pub(super) first: bool,
    pub(super) limits: Limits,
    pub(super) decisions: Vec<Decision>,
    pub(super) held: Vec<(ChunkId, Held)>,
}

impl Core {
    pub(super) fn log_load(&mut self, view: View, seen: Seen) {
        let named: BTreeSet<ChunkId> = view.chunks.iter().map(|chunk| chunk.chunk).collect();
        let special = |chunk: &&ChunkView| chunk.under_way.is_some() || chunk.replicas.len() > chunk.goal;
        let special = view.chunks.iter().filter(special).map(|chunk| chunk.chunk).collect();
        let told = std::mem::replace(&mut self.soft.load.told, special);
        let mut rest = Rest::default();
        for (_, watched) in self.soft.load.chunks.iter().filter(|(chunk, _)| !named.contains(chunk)) {
            let (read, write) = (watched.read, watched.write);
            rest.chunks += u64::from(read.0 > 0 || write.0 > 0);
            rest.read.0 = rest.read.0.saturating_add(read.0);
            rest.write.0 = rest.write.0.saturating_add(write.0);
        }
        let names: BTreeMap<ChunkId, &str> =
            seen.held.iter().map(|(chunk, held)| (*chunk, held.name())).collect();
        let chunk = |view: ChunkView| {
            let meta = self.state.chunks.get(view.chunk)?;
            let held = names.get(&view.chunk).map(|name| (*name).to_owned());
            Some(ChunkSeen { ino: meta.ino, index: meta.index, held, view })
        };
        let second = LoadSecond {
            at: self.now.mono,
            wall: self.now.wall,
            first: seen.first,
            thresholds: self.state.policy,
            limits: seen.limits,
            pace: self.soft.load.pace,
            budget_bytes: view.budget_bytes,
            chunks: view.chunks.into_iter().filter_map(chunk).collect(),
            rest,
            gone: told.difference(&named).copied().collect(),
            servers: view.servers,
            decisions: seen.decisions,
        };
        self.effects.push(Effect::LogLoad { second: Box::new(second) });
    }
}
