//! What is left to give out while decisions are made, in one call: each decision counts for the next, so that not every
//! hot chunk goes to the one server that is idle.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::ServerNum;
use dfs_proto::units::Micros;

use super::thresholds::permille_of;
use super::{
    COPIES_IN, COPIES_OUT, ChunkView, CostRate, Decision, Direction, Held, Kind, Lack, Limits, Outcome,
    ROOM_PERMILLE, Reason, ServerView, UnderWay, View,
};

/// Servers whose utilisation differs by less are equally busy.
const NOISE_PERMILLE: u64 = 50;

/// A server, with what was decided in this call.
pub(super) struct Desk<'a> {
    pub(super) view: &'a ServerView,
    /// With the load that decided copies bring and take, once they serve.
    pub(super) permille: u64,
    pub(super) free_bytes: u64,
    pub(super) copies_in: usize,
    /// Copies out, by wave.
    copies_out: Vec<usize>,
}

impl<'a> Desk<'a> {
    fn new(view: &'a ServerView) -> Desk<'a> {
        Desk {
            view,
            permille: u64::from(view.utilisation_permille),
            free_bytes: view.free_bytes,
            copies_in: view.copies_in,
            copies_out: vec![view.copies_out],
        }
    }

    /// How busy it is, but for noise.
    pub(super) fn busy(&self) -> u64 {
        self.permille / NOISE_PERMILLE
    }

    pub(super) fn used_permille(&self) -> u64 {
        let total = u128::from(self.view.total_bytes.max(1));
        let used = u128::from(self.view.total_bytes.saturating_sub(self.free_bytes));
        u64::try_from(used * 1000 / total).unwrap_or(1000)
    }

    /// Whether it has room for a chunk, and its share is still free then.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let keep = permille_of(self.view.total_bytes, ROOM_PERMILLE);
        self.free_bytes.checked_sub(bytes).is_some_and(|left| left >= keep) && self.view.total_bytes > 0
    }

    pub(super) fn takes_copies(&self) -> bool {
        self.copies_in < COPIES_IN
    }

    pub(super) fn gives_copies(&self, wave: usize) -> bool {
        self.copies_out(wave) < COPIES_OUT
    }

    pub(super) fn copies_out(&self, wave: usize) -> usize {
        self.copies_out.get(wave).copied().unwrap_or(0)
    }

    fn gives(&mut self, wave: usize) {
        if self.copies_out.len() <= wave {
            self.copies_out.resize(wave + 1, 0);
        }
        self.copies_out[wave] += 1;
    }

    /// What a load is of what it can serve.
    fn permille_of_load(&self, load: CostRate) -> u64 {
        let capacity = CostRate::of_capacity(self.view.capacity_bytes_per_s).0.max(1);
        u64::try_from(u128::from(load.0) * 1000 / u128::from(capacity)).unwrap_or(u64::MAX)
    }
}

pub(super) struct Planner<'a> {
    pub(super) limits: Limits,
    pub(super) now: Micros,
    pub(super) desks: BTreeMap<ServerNum, Desk<'a>>,
    budget_bytes: u64,
    surplus_used: u64,
    surplus_allowed: u64,
    pub(super) outcome: Outcome,
}

impl<'a> Planner<'a> {
    pub(super) fn new(view: &'a View, limits: Limits, now: Micros) -> Planner<'a> {
        let desks: BTreeMap<_, _> =
            view.servers.iter().map(|server| (server.server, Desk::new(server))).collect();
        let surplus_used =
            view.chunks.iter().fold(0, |sum: u64, chunk| sum.saturating_add(surplus_of(chunk)));
        let serving = view.servers.iter().filter(|server| server.is_serving());
        // What would be free without them.
        let free = serving.fold(surplus_used, |sum, server| sum.saturating_add(server.free_bytes));
        let surplus_allowed = permille_of(free, limits.surplus_permille);
        let budget_bytes = view.budget_bytes;
        Planner {
            limits,
            now,
            desks,
            budget_bytes,
            surplus_used,
            surplus_allowed,
            outcome: Outcome::default(),
        }
    }

    /// How many replicas the chunk may have: a directory can ask for less than the cluster allows, nobody for less than the
    /// goal.
    pub(super) fn bound(&self, chunk: &ChunkView) -> usize {
        chunk.max_replicas.unwrap_or(usize::MAX).min(self.limits.max_replicas).max(chunk.goal)
    }

    pub(super) fn is_hot(&self, chunk: &ChunkView) -> bool {
        let n = chunk.replicas.len();
        // The measured load tells of a crowd that has gone for a while yet.
        let gone = n > chunk.goal && chunk.memory.now(chunk.read).is_under(self.limits.min, n - 1);
        n <= self.bound(chunk) && chunk.read.exceeds(self.limits.max, n) && !gone
    }

    /// Why its replicas can't be changed at all.
    pub(super) fn is_unsettled(&self, chunk: &ChunkView) -> Option<Held> {
        let (replicas, goal) = (chunk.replicas.len(), chunk.goal);
        let serves = |server: &ServerNum| self.desks.get(server).is_some_and(|desk| desk.view.is_serving());
        if chunk.under_way.is_some() {
            return Some(Held::UnderWay);
        }
        if replicas < goal {
            return Some(Held::BelowGoal { replicas, goal });
        }
        let unfit = chunk.replicas.iter().find(|server| !serves(server));
        unfit.map(|server| Held::Unsettled { server: *server })
    }

    pub(super) fn cools(&self, chunk: &ChunkView, direction: Direction) -> Option<Held> {
        let left_ms = chunk.memory.cools_ms(direction, self.limits.cooldown_ms, self.now);
        (left_ms > 0).then_some(Held::Cooldown { left_ms })
    }

    pub(super) fn busiest(&self, chunk: &ChunkView) -> Option<&Desk<'a>> {
        self.holders(&chunk.replicas)
            .max_by_key(|desk| (desk.view.utilisation_permille, Reverse(desk.view.server)))
    }

    pub(super) fn holders(&self, replicas: &[ServerNum]) -> impl Iterator<Item = &Desk<'a>> {
        replicas.iter().filter_map(|server| self.desks.get(server))
    }

    /// Copies of the chunk that can be paid for, and what ends them.
    pub(super) fn affordable(&self, chunk: &ChunkView) -> (usize, Lack) {
        let bytes = chunk.bytes.max(1);
        let paid = self.budget_bytes / bytes;
        let room = self.surplus_allowed.saturating_sub(self.surplus_used) / bytes;
        let lack = if paid <= room {
            Lack::Budget { left_bytes: self.budget_bytes, bytes: chunk.bytes }
        } else {
            Lack::Surplus { used_bytes: self.surplus_used, allowed_bytes: self.surplus_allowed }
        };
        (usize::try_from(paid.min(room)).unwrap_or(usize::MAX), lack)
    }

    /// One more copy of the chunk counts from here on.
    pub(super) fn begin_copy(&mut self, chunk: &ChunkView, step: super::CopyStep) {
        self.budget_bytes = self.budget_bytes.saturating_sub(chunk.bytes);
        self.surplus_used = self.surplus_used.saturating_add(chunk.bytes);
        self.outcome.copied_bytes = self.outcome.copied_bytes.saturating_add(chunk.bytes);
        if let Some(source) = self.desks.get_mut(&step.source) {
            source.gives(step.wave);
        }
        if let Some(target) = self.desks.get_mut(&step.target) {
            target.copies_in += 1;
            target.free_bytes = target.free_bytes.saturating_sub(chunk.bytes);
        }
    }

    /// The chunk's load is shared by others from here on.
    pub(super) fn shift(&mut self, read: CostRate, before: &[ServerNum], after: &[ServerNum]) {
        let (old, new) = (read.spread_over(before.len()), read.spread_over(after.len()));
        let all: BTreeSet<ServerNum> = before.iter().chain(after).copied().collect();
        for server in all {
            let Some(desk) = self.desks.get_mut(&server) else { continue };
            if before.contains(&server) {
                desk.permille = desk.permille.saturating_sub(desk.permille_of_load(old));
            }
            if after.contains(&server) {
                desk.permille = desk.permille.saturating_add(desk.permille_of_load(new));
            }
        }
    }

    pub(super) fn hold(&mut self, chunk: &ChunkView, held: Held) {
        self.outcome.held.push((chunk.chunk, held));
    }

    pub(super) fn decide(&mut self, chunk: &ChunkView, kind: Kind, reason: Reason) {
        self.outcome.decisions.push(Decision { chunk: chunk.chunk, kind, reason });
    }
}

/// Bytes of replicas above the goal, those to come with them.
fn surplus_of(chunk: &ChunkView) -> u64 {
    let to_come = match chunk.under_way {
        Some(UnderWay::Raise { to_come }) => to_come,
        Some(UnderWay::Lower | UnderWay::Other) | None => 0,
    };
    let surplus = (chunk.replicas.len() + to_come).saturating_sub(chunk.goal);
    chunk.bytes.saturating_mul(surplus as u64)
}
