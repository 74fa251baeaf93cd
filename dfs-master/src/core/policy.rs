//! Replicas follow the load: which chunks get more replicas, and which lose some. A pure function, [`decide`], of
//! the cluster as it was last seen; `docs/load.md` has its table, and a test walks every row of it.
//!
//! Owns the rules and what they have to remember of a chunk ([`Memory`]), of the copies that were paid for
//! ([`Purse`]) and of how much they disturb ([`Pace`]). Does not look at the cluster, copy or remove: whoever calls
//! it fills in the [`View`], carries out the decisions and keeps what is to be remembered.
//!
//! Keeps: no decision leaves a chunk with fewer members than its goal, or gives it more than its bound; no chunk is
//! turned round twice within a cooldown.
//!
//! Once a second: [`observe`] for every chunk of the view, then [`decide`], then [`Memory::changed`] for every chunk that
//! something is done about, and the bytes of the copies from the purse.

mod budget;
mod lower;
mod memory;
mod planner;
mod raise;
mod reason;
mod settings;
mod thresholds;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::Micros;
use serde::{Deserialize, Serialize};

use super::placement::Site;

pub use budget::{Pace, Purse, Usual};
pub use memory::{Memory, Seconds, look, observe};
pub use reason::{Held, Lack, Reason};
pub(super) use thresholds::median;
pub use thresholds::{BadThreshold, BadThresholds, CopyBudget, Limits, Threshold, Thresholds};

use planner::Planner;

/// Copies that a server takes in at once for the sake of load (3-load.md): repairs come beside them.
pub const COPIES_IN: usize = 2;
/// And that it gives out.
pub const COPIES_OUT: usize = 2;
/// Heat without saturation gains nothing from copies: one holder is busier than this.
pub const BUSY_PERMILLE: u16 = 600;
/// Share of a disk that is left free by what serves load only: at less, surplus replicas go. Free is what is left beside
/// the reserve for repairs, where writes are refused.
pub const RESERVE_PERMILLE: u64 = 50;
/// Share that is free after a copy came: a copy must not be what makes surplus replicas go.
pub const ROOM_PERMILLE: u64 = 100;

/// Bytes that cost as much as a request.
const BYTES_PER_UNIT: u64 = 65_536;

/// Cost a second, in thousandths: one unit a request, one for each 64 KiB moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CostRate(pub u64);

impl CostRate {
    #[must_use]
    pub fn per_second(units: u64) -> CostRate {
        CostRate(units.saturating_mul(1000))
    }

    /// What `bytes_per_s` cost at least: in requests so large that they don't count.
    #[must_use]
    pub fn of_capacity(bytes_per_s: u64) -> CostRate {
        let milli = u128::from(bytes_per_s) * 1000 / u128::from(BYTES_PER_UNIT);
        CostRate(u64::try_from(milli).unwrap_or(u64::MAX))
    }

    /// The share of one of `n`, who share it equally; of nobody, all.
    #[must_use]
    pub fn spread_over(self, n: usize) -> CostRate {
        CostRate(self.0 / (n.max(1) as u64))
    }

    /// Whether one of `n` who share it has more than `limit`.
    #[must_use]
    pub fn exceeds(self, limit: CostRate, n: usize) -> bool {
        u128::from(self.0) > u128::from(limit.0) * (n as u128)
    }

    /// Whether one of `n` who share it has less than `limit`.
    #[must_use]
    pub fn is_under(self, limit: CostRate, n: usize) -> bool {
        u128::from(self.0) < u128::from(limit.0) * (n as u128)
    }
}

impl fmt::Display for CostRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            milli @ 1..10_000 if milli % 1000 != 0 => write!(f, "{}.{}/s", milli / 1000, milli % 1000 / 100),
            milli => write!(f, "{}/s", milli / 1000),
        }
    }
}

/// The cluster as it was last seen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// All that are hot, that have more replicas than their goal, or whose replicas change. Others may be among them, and are
    /// of no consequence.
    pub chunks: Vec<ChunkView>,
    /// All of them.
    pub servers: Vec<ServerView>,
    /// What copies may move now: of the [`Purse`].
    pub budget_bytes: u64,
}

/// A chunk, and what it costs to serve it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkView {
    pub chunk: ChunkId,
    /// What a copy moves.
    pub bytes: u64,
    /// Summed over its replicas, as all writes are.
    pub read: CostRate,
    pub write: CostRate,
    /// Its members; the first is the primary.
    pub replicas: Vec<ServerNum>,
    pub goal: usize,
    /// Of its directory, if that has one; the cluster's bound holds besides.
    pub max_replicas: Option<usize>,
    /// A write capability lives.
    pub written: bool,
    /// Closed: it can be copied from any replica, else from the primary alone.
    pub closed: bool,
    pub under_way: Option<UnderWay>,
    pub memory: Memory,
}

/// A change of a chunk's members that is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnderWay {
    /// So many replicas are still to come, for the load's sake.
    Raise { to_come: usize },
    /// A replica leaves.
    Lower,
    /// A repair, a recovery, a close.
    Other,
}

/// What a server can be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Up, and takes replicas.
    Serving,
    /// An operator wants it empty.
    Draining,
    /// None of its disks takes writes.
    ReadOnly,
    /// Out of reach or without a lease.
    Down,
}

/// A server, as its last heartbeat described it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerView {
    pub server: ServerNum,
    /// The label `rack`, if it has one.
    pub rack: Option<String>,
    pub host: String,
    pub condition: Condition,
    /// The worst of network, disk, CPU and queue.
    pub utilisation_permille: u16,
    /// Requests in flight there.
    pub queue: u16,
    /// What it can serve, configured or learned.
    pub capacity_bytes_per_s: u64,
    /// Neither configured nor learned yet: what others of the cluster can says more.
    pub capacity_assumed: bool,
    pub total_bytes: u64,
    /// Its reserve for repairs left out, and what copies under way to it will take.
    pub free_bytes: u64,
    /// Of replicas that leave it or wait to be deleted: will be free without another decision.
    pub freeing_bytes: u64,
    pub copies_in: usize,
    pub copies_out: usize,
    /// Of foreground requests: now, and the median of the last five minutes ([`Usual`]).
    pub p99_us: u32,
    pub usual_p99_us: u32,
    /// How busy it was in the last seconds, at most: what is taken for a server that copies go to.
    #[serde(default)]
    pub lately_permille: u16,
}

impl ServerView {
    pub(super) fn site(&self) -> Site<'_> {
        Site { rack: self.rack.as_deref(), host: &self.host }
    }

    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.condition == Condition::Serving
    }

    /// Bytes that are wanted back from what serves load only.
    #[must_use]
    pub fn short_bytes(&self) -> u64 {
        let reserve = self.total_bytes / 1000 * RESERVE_PERMILLE;
        reserve.saturating_sub(self.free_bytes.saturating_add(self.freeing_bytes))
    }
}

/// Which way a chunk's number of replicas goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Direction {
    Up,
    Down,
}

/// One copy of a raise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyStep {
    /// A member or, from wave 1 on, the target of an earlier wave: it serves when that copy is done.
    pub source: ServerNum,
    pub target: ServerNum,
    /// Wave 0 begins now; the others as soon as their source has the chunk and a copy to spare.
    pub wave: usize,
}

/// What to do about a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Raise { copies: Vec<CopyStep> },
    Lower { server: ServerNum },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    pub chunk: ChunkId,
    pub kind: Kind,
    pub reason: Reason,
}

impl Decision {
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self.kind {
            Kind::Raise { .. } => Direction::Up,
            Kind::Lower { .. } => Direction::Down,
        }
    }
}

/// What [`decide`] comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    pub decisions: Vec<Decision>,
    /// Chunks that were looked at, being hot or above their goal, and left alone.
    pub held: Vec<(ChunkId, Held)>,
    /// What the copies decided on move.
    pub copied_bytes: u64,
}

/// What to do now, the most pressing first: surplus replicas on full disks, those above a bound, hot chunks by how hot
/// they are, and cold ones.
#[must_use]
pub fn decide(view: &View, thresholds: &Thresholds, now: Micros) -> Outcome {
    let limits = thresholds.limits(&view.servers);
    let mut planner = Planner::new(view, limits, now);
    let mut seen = BTreeSet::new();
    // A chunk that is named twice would be decided on twice.
    let mut chunks: Vec<&ChunkView> =
        view.chunks.iter().filter(|chunk| !chunk.replicas.is_empty() && seen.insert(chunk.chunk)).collect();
    let each = |chunk: &ChunkView| chunk.read.spread_over(chunk.replicas.len());
    chunks.sort_by(|a, b| each(b).cmp(&each(a)).then(a.chunk.cmp(&b.chunk)));

    let freed = lower::for_space(&mut planner, &chunks);
    chunks.retain(|chunk| !freed.contains(&chunk.chunk));
    let (hot, rest): (Vec<&ChunkView>, Vec<&ChunkView>) =
        chunks.into_iter().partition(|chunk| planner.is_hot(chunk));
    hot.into_iter().for_each(|chunk| raise::hot(&mut planner, chunk));
    // The coldest has the most to give back.
    rest.into_iter().rev().for_each(|chunk| lower::cold(&mut planner, chunk));
    planner.outcome
}
