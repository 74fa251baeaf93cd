//! The second of the policy: what servers say of load comes in, [`super::policy`] decides, and its decisions are carried out.
//! Copies go the way that repairs go (a learner, which the primary fills), replicas leave the way that those of a drained
//! server do: nothing here touches who may serve what.
//!
//! Keeps: a chunk has as many replicas as its goal besides; a writer does not pay for those that serve load alone, they leave
//! with its first write.

mod act;
mod heat;
mod history;
mod record;
mod report;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dfs_proto::control::ChunkHeat;
use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::{Micros, Timespec};

use super::Core;
use super::chunks::ChunkMeta;
use super::placement;
use super::policy::{
    CopyStep, CostRate, Held, Kind, Limits, Memory, Pace, Purse, Seconds, ServerView, Usual, decide, look,
};

pub use record::{ChunkSeen, LoadSecond, Rest};

use heat::Heat;
use history::History;
use record::Seen;

/// What a server was busy at most is forgotten by this part in a second: from full to five sixths in five.
const LATELY_PART: u16 = 32;
/// The policy's second.
const STEP_MS: u64 = 1_000;
/// A replica that was to leave and did not: the policy looks again.
const LOWER_MS: u64 = 30_000;

/// What is known of load, and what is being done about it.
#[derive(Debug, Default)]
pub(super) struct LoadPolicy {
    heat: Heat,
    chunks: BTreeMap<ChunkId, Watched>,
    /// Chunks that have more members than their goal, or had.
    above: BTreeSet<ChunkId>,
    usual: BTreeMap<ServerNum, Usual>,
    /// How busy servers were in the last seconds, at most.
    lately: BTreeMap<ServerNum, u16>,
    purse: Option<Purse>,
    pace: Pace,
    /// Copies to come, the first one under way.
    raises: BTreeMap<ChunkId, VecDeque<CopyStep>>,
    lowers: BTreeMap<ChunkId, Going>,
    /// Written, or their goal lowered, while they have more members than it says.
    shed: BTreeSet<ChunkId>,
    past: History,
    /// Of which the last second's record says that they had more members than their goal, or that they changed: the next one
    /// says what has become of them.
    told: BTreeSet<ChunkId>,
    next: Micros,
    seconds: Seconds,
}

/// What servers said of a chunk by the last second, and what the policy remembers of it.
#[derive(Debug, Default)]
struct Watched {
    read: CostRate,
    write: CostRate,
    memory: Memory,
    held: Option<Held>,
}

/// A replica that leaves because the load does not need it.
#[derive(Clone, Copy, Debug)]
struct Going {
    server: ServerNum,
    since: Micros,
}

impl Watched {
    fn note(&mut self, said: Option<&ChunkHeat>, replicas: usize, limits: &Limits, now: Micros) {
        self.read = CostRate(said.map_or(0, |heat| heat.read_milli));
        self.write = CostRate(said.map_or(0, |heat| heat.write_milli));
        self.memory = look(self.memory, self.read, replicas, limits, now);
        self.held = None;
    }
}

impl LoadPolicy {
    /// A server's heartbeat.
    pub(super) fn heard(&mut self, server: ServerNum, hot: Vec<ChunkHeat>, now: Micros) {
        self.heat.heard(server, hot, now);
    }

    /// The chunk has more members than its goal.
    pub(super) fn is_above(&mut self, chunk: ChunkId) {
        self.above.insert(chunk);
    }

    /// Whether the policy has decided that this replica goes.
    pub(super) fn is_lowering(&self, chunk: ChunkId, server: ServerNum) -> bool {
        self.lowers.get(&chunk).is_some_and(|going| going.server == server)
    }

    /// Whether a copy of the chunk is made, or to be made, for its load.
    pub(super) fn is_raising(&self, chunk: ChunkId) -> bool {
        self.raises.contains_key(&chunk)
    }

    /// What reading the chunk costs a second, as its servers say.
    pub(super) fn read_milli(&self, chunk: ChunkId) -> u64 {
        self.chunks.get(&chunk).map_or(0, |watched| watched.read.0)
    }

    /// Takes what a copy moves out of the budget. Whether it was there: decisions for the load come first, once a second.
    pub(super) fn pay(&mut self, bytes: u64) -> bool {
        let enough = self.purse.is_some_and(|purse| purse.bytes() >= bytes);
        if enough {
            self.purse = self.purse.map(|purse| purse.spend(bytes));
        }
        enough
    }

    /// How busy the server was in the last seconds, at most: a second ago counts a little less.
    fn busy_lately(&mut self, server: &ServerView, second: bool) -> u16 {
        let lately = self.lately.entry(server.server).or_default();
        let faded = if second { *lately / LATELY_PART } else { 0 };
        *lately = (*lately - faded).max(server.utilisation_permille);
        *lately
    }

    /// Something was decided or done about a chunk.
    pub(super) fn note(&mut self, chunk: ChunkId, wall: Timespec, what: String) {
        self.past.add(chunk, wall, what);
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

    /// At each second, and between two where a change that was carried out makes way for the next.
    fn decide_on_load(&mut self) {
        let now = self.now.mono;
        let second = self.soft.load.seconds.is_new(now);
        self.forget_the_past();
        self.note_usual_times();
        let thresholds = self.state.policy;
        let mut servers = self.server_views();
        for server in &mut servers {
            server.lately_permille = self.soft.load.busy_lately(server, second);
        }
        let limits = thresholds.limits(&servers);
        self.note_loads(&limits);
        let mut view = self.load_view(servers, &limits);
        let load = &mut self.soft.load;
        if second {
            load.pace = load.pace.observe(&view.chunks, &view.servers);
        }
        let first = load.purse.is_none();
        let purse = load.purse.unwrap_or_else(|| Purse::new(&limits, load.pace, now));
        let purse = purse.fill(&limits, load.pace, now);
        view.budget_bytes = purse.bytes();
        let outcome = decide(&view, &thresholds, now);
        load.purse = Some(purse.spend(outcome.copied_bytes));
        if self.config.load_log {
            let (decisions, held) = (outcome.decisions.clone(), outcome.held.clone());
            self.log_load(view, Seen { first, limits, decisions, held });
        }
        for (chunk, held) in outcome.held {
            self.soft.load.chunks.entry(chunk).or_default().held = Some(held);
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

    /// Takes in what every chunk's load is now. Those of which nothing is said, and nothing has to be remembered, are forgotten.
    fn note_loads(&mut self, limits: &Limits) {
        let now = self.now.mono;
        let load = &mut self.soft.load;
        for chunk in &load.above {
            load.chunks.entry(*chunk).or_default();
        }
        let mut sums = load.heat.sums(now).into_iter().peekable();
        let (mut new, chunks) = (Vec::new(), &self.state.chunks);
        let (above, raises) = (&load.above, &load.raises);
        load.chunks.retain(|chunk, watched| {
            while let Some(sum) = sums.next_if(|sum| sum.chunk < *chunk) {
                new.push(sum);
            }
            let said = sums.next_if(|sum| sum.chunk == *chunk);
            let Some(meta) = chunks.get(*chunk) else { return false };
            watched.note(said.as_ref(), meta.members.len(), limits, now);
            let idle = said.is_none() && watched.memory.is_forgettable(limits.cooldown_ms, now);
            !idle || above.contains(chunk) || raises.contains_key(chunk)
        });
        for sum in new.into_iter().chain(sums) {
            if let Some(meta) = chunks.get(sum.chunk) {
                let mut watched = Watched::default();
                watched.note(Some(&sum), meta.members.len(), limits, now);
                load.chunks.insert(sum.chunk, watched);
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

    /// Drops what has come to its end.
    fn forget_the_past(&mut self) {
        let now = self.now.mono;
        let state = &self.state;
        let chunks = &state.chunks;
        let load = &mut self.soft.load;
        let is_above = |meta: ChunkMeta| meta.members.len() > state.goal_of(&meta);
        load.above.retain(|chunk| chunks.get(*chunk).is_some_and(is_above));
        load.lowers.retain(|_, going| now.ms_since(going.since) < LOWER_MS);
        let above = &load.above;
        load.shed.retain(|chunk| above.contains(chunk));
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
