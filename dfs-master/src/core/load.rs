//! The second of the policy: what servers say of load comes in, [`super::policy`] decides, and its decisions are carried out.
//! Copies go the way that repairs go (a learner, which the primary fills), replicas leave the way that those of a drained
//! server do: nothing here touches who may serve what.
//!
//! Keeps: a chunk has as many replicas as its goal besides; a writer does not pay for those that serve load alone, they leave
//! with its first write.

mod act;
mod history;
mod report;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dfs_proto::control::ChunkHeat;
use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::Micros;

use super::Core;
use super::chunks::ChunkMeta;
use super::placement;
use super::policy::{CopyStep, CostRate, Held, Kind, Memory, Pace, Purse, Usual, decide, observe};

use history::History;

/// The policy's second.
const STEP_MS: u64 = 1_000;
/// A report is good for so long: one more heartbeat may be late.
const REPORT_MS: u64 = 2_500;
/// A replica that was to leave and did not: the policy looks again.
const LOWER_MS: u64 = 30_000;

/// What is known of load, and what is being done about it.
#[derive(Debug, Default)]
pub(super) struct LoadPolicy {
    chunks: BTreeMap<ChunkId, Watched>,
    /// Chunks that have more members than their goal, or had.
    above: BTreeSet<ChunkId>,
    usual: BTreeMap<ServerNum, Usual>,
    purse: Option<Purse>,
    pace: Pace,
    /// Copies to come, the first one under way.
    raises: BTreeMap<ChunkId, VecDeque<CopyStep>>,
    lowers: BTreeMap<ChunkId, Going>,
    /// Written, or their goal lowered, while they have more members than it says.
    shed: BTreeSet<ChunkId>,
    past: History,
    next: Micros,
}

/// What servers said of a chunk, and what the policy remembers of it.
#[derive(Debug, Default)]
struct Watched {
    reports: BTreeMap<ServerNum, Report>,
    memory: Memory,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    at: Micros,
    read: CostRate,
    write: CostRate,
}

/// A replica that leaves because the load does not need it.
#[derive(Clone, Copy, Debug)]
struct Going {
    server: ServerNum,
    since: Micros,
}

impl Watched {
    fn sum(&self, of: impl Fn(&Report) -> CostRate) -> CostRate {
        CostRate(self.reports.values().fold(0, |sum: u64, report| sum.saturating_add(of(report).0)))
    }

    fn read(&self) -> CostRate {
        self.sum(|report| report.read)
    }

    fn write(&self) -> CostRate {
        self.sum(|report| report.write)
    }
}

impl LoadPolicy {
    /// A server's heartbeat.
    pub(super) fn heard(&mut self, server: ServerNum, hot: &[ChunkHeat], now: Micros) {
        for heat in hot {
            let report =
                Report { at: now, read: CostRate(heat.read_milli), write: CostRate(heat.write_milli) };
            self.chunks.entry(heat.chunk).or_default().reports.insert(server, report);
        }
    }

    /// The chunk has more members than its goal.
    pub(super) fn is_above(&mut self, chunk: ChunkId) {
        self.above.insert(chunk);
    }

    /// Whether a copy of the chunk is made, or to be made, for its load.
    pub(super) fn is_raising(&self, chunk: ChunkId) -> bool {
        self.raises.contains_key(&chunk)
    }

    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.chunks.remove(&chunk);
        self.above.remove(&chunk);
        self.raises.remove(&chunk);
        self.lowers.remove(&chunk);
        self.shed.remove(&chunk);
    }
}

impl Core {
    pub(super) fn load_tick(&mut self) {
        let now = self.now.mono;
        if now >= self.soft.load.next {
            self.soft.load.next = now.plus_ms(STEP_MS);
            self.decide_on_load();
        }
        self.raise_on();
    }

    fn decide_on_load(&mut self) {
        let now = self.now.mono;
        self.forget_the_cold();
        self.note_usual_times();
        let mut view = self.load_view();
        let thresholds = self.state.policy;
        let limits = thresholds.limits(&view.servers);
        let load = &mut self.soft.load;
        load.pace = load.pace.observe(&view.chunks, &view.servers);
        let purse = load.purse.unwrap_or_else(|| Purse::new(&limits, load.pace, now));
        let purse = purse.fill(&limits, load.pace, now);
        view.budget_bytes = purse.bytes();
        for chunk in &mut view.chunks {
            chunk.memory = observe(chunk.memory, chunk, &limits, now);
        }
        let outcome = decide(&view, &thresholds, now);
        load.purse = Some(purse.spend(outcome.copied_bytes));
        for chunk in &view.chunks {
            let watched = load.chunks.entry(chunk.chunk).or_default();
            (watched.memory, watched.held) = (chunk.memory, None);
        }
        for (chunk, held) in outcome.held {
            load.chunks.entry(chunk).or_default().held = Some(held);
        }
        for decision in outcome.decisions {
            let (chunk, direction) = (decision.chunk, decision.direction());
            let watched = self.soft.load.chunks.entry(chunk).or_default();
            watched.memory = watched.memory.changed(direction, now);
            let what = match &decision.kind {
                Kind::Raise { copies } => {
                    let targets: Vec<String> =
                        copies.iter().map(|copy| self.server_name(copy.target)).collect();
                    format!("raise, to {}: {}", targets.join(" "), decision.reason)
                }
                Kind::Lower { server } => {
                    format!("lower, on {}: {}", self.server_name(*server), decision.reason)
                }
            };
            log::info!("chunk {chunk}: {what}");
            self.soft.load.past.add(chunk, self.now.wall, what);
            match decision.kind {
                Kind::Raise { copies } => drop(self.soft.load.raises.insert(chunk, copies.into())),
                Kind::Lower { server } => {
                    self.soft.load.lowers.insert(chunk, Going { server, since: now });
                    self.soft.leaving.want(chunk, server);
                }
            }
        }
    }

    /// What each server's service time is as a rule.
    fn note_usual_times(&mut self) {
        let now = self.now.mono;
        for (server, live) in self.soft.servers.iter() {
            let usual = self.soft.load.usual.entry(server).or_default();
            *usual = std::mem::take(usual).observe(live.load.service_p99_us, now);
        }
    }

    /// Drops reports that are old, and chunks of which nothing has to be remembered.
    fn forget_the_cold(&mut self) {
        let now = self.now.mono;
        let cooldown_ms = self.state.policy.cooldown_ms;
        let state = &self.state;
        let chunks = &state.chunks;
        let load = &mut self.soft.load;
        let is_above = |meta: ChunkMeta| meta.members.len() > state.goal_of(&meta);
        load.above.retain(|chunk| chunks.get(*chunk).is_some_and(is_above));
        load.lowers.retain(|_, going| now.ms_since(going.since) < LOWER_MS);
        let (above, raises) = (&load.above, &load.raises);
        load.shed.retain(|chunk| above.contains(chunk));
        load.chunks.retain(|chunk, watched| {
            watched.reports.retain(|_, report| now.ms_since(report.at) <= REPORT_MS);
            let idle = watched.reports.is_empty() && watched.memory.is_forgettable(cooldown_ms, now);
            chunks.get(*chunk).is_some() && (!idle || above.contains(chunk) || raises.contains_key(chunk))
        });
    }

    /// Who should leave of the members that a chunk has for its load.
    pub(super) fn leaves_for_load(&self, chunk: ChunkId, meta: &ChunkMeta) -> Option<ServerNum> {
        let decided = self.soft.load.lowers.get(&chunk).map(|going| going.server);
        let member =
            |server: &ServerNum| meta.members.contains(*server) && meta.members.primary() != Some(*server);
        let shed = || {
            let sheds = self.soft.load.shed.contains(&chunk);
            let goes = || placement::least_useful(&self.soft.candidates, meta.members.as_slice());
            sheds.then(goes).flatten()
        };
        decided.filter(member).or_else(shed)
    }
}
