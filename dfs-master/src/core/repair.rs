//! Chunks below their goal get a learner, which the primary fills while writes go on, and which becomes
//! a member when it holds all.
//!
//! Keeps I16: one change of a chunk's members at a time. Bounded by what a server takes in and gives out.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::chunk::Member;
use dfs_proto::control::{AddLearner, ServerEvent};
use dfs_proto::ids::{ChunkId, LogIndex, Seq, ServerNum};
use dfs_proto::meta::Done;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::Core;
use super::chunks::ChunkMeta;
use super::command::{Command, LearnerChange};
use super::placement;
use super::recovery::MemberStanding;
use super::reply::{Asked, CALL_DEADLINE_MS};

/// Copies that a server takes in, and gives out, at once, while it has time for them.
const COPIES_PER_SERVER: usize = 4;
/// And while it is busier than this, in permille: whom it serves comes first, and the repair still ends.
const BUSY_PERMILLE: u16 = 700;
const COPIES_WHILE_BUSY: usize = 1;
/// A copy that takes longer is given up: a whole chunk at less than 120 kB/s.
const COPY_MAX_MS: u64 = 600_000;
/// A primary is told again so often: one that has forgotten, over a new registration for one, takes it up;
/// one that has not says so at once.
const ASK_AGAIN_MS: u64 = 10_000;
/// Copies begun in one tick, in one record.
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Copy {
    source: ServerNum,
    target: ServerNum,
    since: Micros,
    /// When the primary was told last.
    asked: Micros,
    /// Its end is proposed.
    ending: bool,
}

impl Copy {
    fn new(source: ServerNum, target: ServerNum, now: Micros) -> Copy {
        Copy { source, target, since: now, asked: now, ending: false }
    }
}

/// Repairs under way and wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Repair {
    /// In their order: those that can't be written or are waited for, then those with the fewest members.
    wanted: BTreeSet<(usize, ChunkId)>,
    ranks: BTreeMap<ChunkId, usize>,
    copies: BTreeMap<ChunkId, Copy>,
}

impl Repair {
    pub(super) fn want(&mut self, chunk: ChunkId, members: usize, urgent: bool) {
        let rank = if urgent { 0 } else { members };
        match self.ranks.insert(chunk, rank) {
            Some(old) if old != rank => drop(self.wanted.remove(&(old, chunk))),
            Some(_) | None => {}
        }
        self.wanted.insert((rank, chunk));
    }

    fn is_wanted_no_more(&mut self, chunk: ChunkId) {
        if let Some(rank) = self.ranks.remove(&chunk) {
            self.wanted.remove(&(rank, chunk));
        }
    }

    #[must_use]
    pub(super) fn is_running(&self, chunk: ChunkId) -> bool {
        self.copies.contains_key(&chunk)
    }

    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.is_wanted_no_more(chunk);
        self.copies.remove(&chunk);
    }

    /// Notes a copy, so that it counts: one that is about to begin, or that a leader before this one has begun.
    pub(super) fn begin(&mut self, chunk: ChunkId, source: ServerNum, target: ServerNum, now: Micros) {
        self.copies.insert(chunk, Copy::new(source, target, now));
    }

    fn copies_of(&self, server: ServerNum) -> usize {
        self.copies.values().filter(|copy| copy.source == server || copy.target == server).count()
    }

    /// Copies under way to each server.
    pub(super) fn copies_to(&self) -> BTreeMap<ServerNum, usize> {
        let mut counts = BTreeMap::new();
        self.copies.values().for_each(|copy| *counts.entry(copy.target).or_insert(0) += 1);
        counts
    }

    fn next(&self, skip: &BTreeSet<ChunkId>) -> Option<ChunkId> {
        self.wanted.iter().map(|(_, chunk)| *chunk).find(|chunk| !skip.contains(chunk))
    }
}

impl Core {
    /// A writer waits for the chunk to have members enough. What it is told.
    pub(super) fn repair_on_demand(&mut self, chunk: ChunkId, meta: &ChunkMeta) -> Status {
        self.soft.repair.want(chunk, meta.members.len(), true);
        let holders: Vec<ServerNum> = meta.members.iter().collect();
        match self.soft.choose(&holders, 1, 1) {
            Ok(_) => Status::Recovering,
            Err(status) => status,
        }
    }

    pub(super) fn repair_tick(&mut self) {
        self.end_dead_copies();
        self.ask_again();
        let mut learners = Vec::new();
        let mut skip = BTreeSet::new();
        while learners.len() < BATCH
            && let Some(chunk) = self.soft.repair.next(&skip)
        {
            match self.repair_step(chunk) {
                Step::Begin(server) => {
                    learners.push(LearnerChange { chunk, server });
                    skip.insert(chunk);
                }
                Step::Later => {
                    skip.insert(chunk);
                }
                Step::Done => self.soft.repair.is_wanted_no_more(chunk),
            }
            if skip.len() >= 4 * BATCH {
                break;
            }
        }
        if self.add_learners(&learners) {
            learners.iter().for_each(|learner| self.soft.repair.is_wanted_no_more(learner.chunk));
        }
    }

    /// What can be done for a chunk now. A copy that begins is noted at once, so that it counts.
    fn repair_step(&mut self, chunk: ChunkId) -> Step {
        let Some(meta) = self.state.chunks.get(chunk) else { return Step::Done };
        if self.counting(chunk, &meta) >= self.state.goal_of(&meta) || !meta.learners.is_empty() {
            return Step::Done;
        }
        if !meta.is_active()
            || meta.leaving.is_some()
            || self.soft.recovery.is_running(chunk)
            || self.soft.repair.is_running(chunk)
        {
            return Step::Later;
        }
        let Some(source) = meta.members.primary() else { return Step::Done };
        let serving = matches!(self.member_standing(chunk, &meta, 0, source), MemberStanding::Serving(_));
        if !serving || self.is_copying_enough(source) {
            return Step::Later;
        }
        let mut holders: Vec<ServerNum> = meta.members.iter().collect();
        let busy = self.soft.candidates.iter().map(|candidate| candidate.server);
        // An order to delete an old replica that is under way would hit the new one.
        let unfit =
            |server: &ServerNum| self.is_copying_enough(*server) || self.soft.gc.is_deleting(*server, chunk);
        let busy: Vec<ServerNum> = busy.filter(|server| unfit(server) && !holders.contains(server)).collect();
        holders.extend(busy);
        holders.extend(self.keeps_given_up(chunk));
        match self.repair_target(chunk, &holders) {
            Some(target) => {
                self.soft.repair.begin(chunk, source, target, self.now.mono);
                Step::Begin(target)
            }
            None => Step::Later,
        }
    }

    /// Begins copies that are noted. Whether the log takes them; else nothing is noted of them any more.
    pub(super) fn add_learners(&mut self, learners: &[LearnerChange]) -> bool {
        let begun =
            learners.is_empty() || self.propose_own(Command::AddLearners { learners: learners.to_vec() });
        if !begun {
            learners.iter().for_each(|learner| self.soft.repair.forget(learner.chunk));
        }
        begun
    }

    /// Whether the server takes replicas, and this one now. An order to delete an old replica that is under way would hit
    /// the new one.
    pub(super) fn can_get(&self, server: ServerNum, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        self.soft.candidates.iter().any(|candidate| candidate.server == server)
            && !meta.members.contains(server)
            && !self.soft.gc.is_deleting(server, chunk)
    }

    fn is_copying_enough(&self, server: ServerNum) -> bool {
        let load = self.soft.servers.get(server).map_or(0, |live| live.load.utilisation_permille);
        let most = if load > BUSY_PERMILLE { COPIES_WHILE_BUSY } else { COPIES_PER_SERVER };
        self.soft.repair.copies_of(server) >= most
    }

    /// A server that has an old replica needs only what changed since.
    fn repair_target(&mut self, chunk: ChunkId, holders: &[ServerNum]) -> Option<ServerNum> {
        let candidates = &self.soft.candidates;
        let servers = candidates.iter().map(|candidate| candidate.server);
        let old: Vec<ServerNum> = servers.filter(|server| self.soft.gc.has_stale(*server, chunk)).collect();
        placement::prefer(candidates, holders, &old)
            .or_else(|| self.soft.choose(holders, 1, 1).ok().and_then(|chosen| chosen.first().copied()))
    }

    /// Learners are in the log: their primaries begin to fill them.
    pub(super) fn learners_applied(&mut self, index: LogIndex, learners: &[LearnerChange]) {
        for LearnerChange { chunk, server } in learners {
            let meta = self.state.chunks.get(*chunk).filter(|meta| meta.learners.contains(server));
            match meta {
                Some(meta) => {
                    // A close that was begun does not know of the member to come.
                    self.end_close(*chunk);
                    self.begin_copy(index, *chunk, &meta, *server);
                }
                None => self.soft.repair.forget(*chunk),
            }
        }
    }

    fn begin_copy(&mut self, index: LogIndex, chunk: ChunkId, meta: &ChunkMeta, target: ServerNum) {
        let boot = self.soft.servers.get(target).and_then(|live| live.boot);
        let (Some(boot), Some(source)) = (boot, meta.members.primary()) else {
            return self.drop_learner(chunk, target);
        };
        let learner = Member { server: target, boot };
        let (version, config) = (meta.version, meta.config);
        let request = AddLearner { term: self.term(), chunk, version, config, learner };
        let asked = Asked::AddLearner { chunk, learner };
        if !self.call(source, &request, asked, CALL_DEADLINE_MS, index) {
            self.drop_learner(chunk, target);
        }
    }

    /// The primary has taken a learner on, or has not.
    pub(super) fn learner_taken(&mut self, chunk: ChunkId, learner: Member, result: Result<Done, Status>) {
        if let Err(status) = result
            && self.soft.repair.copies.get(&chunk).is_some_and(|copy| copy.target == learner.server)
        {
            log::info!("chunk {chunk}: its primary does not fill {}: {status}", learner.server);
            self.drop_learner(chunk, learner.server);
            // Nothing was ever written to it, so its members have not heard of it: a recovery tells them.
            if status == Status::NoChunk
                && let Some(meta) = self.state.chunks.get(chunk)
            {
                self.recover_anyway(chunk, &meta);
            }
        }
    }

    pub(super) fn drop_learner(&mut self, chunk: ChunkId, server: ServerNum) {
        let learners = vec![LearnerChange { chunk, server }];
        if self.propose_own(Command::DropLearners { learners })
            && let Some(copy) = self.soft.repair.copies.get_mut(&chunk)
        {
            copy.ending = true;
        }
    }

    pub(super) fn learners_dropped(&mut self, learners: &[LearnerChange]) {
        for LearnerChange { chunk, .. } in learners {
            self.learner_lost(*chunk);
            self.soft.scan.wake();
        }
    }

    /// A copy ended without a new member.
    pub(super) fn learner_lost(&mut self, chunk: ChunkId) {
        let Some(copy) = self.soft.repair.copies.remove(&chunk) else { return };
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        let (version, config, index) = (meta.version, meta.config, self.state.applied);
        self.soft.servers.tell(copy.target, index, ServerEvent::NotMember { chunk, version, config });
        self.soft.gc.stale(copy.target, chunk, index, self.now.mono);
        self.not_raised(chunk, copy.target);
    }

    /// A learner is a member now.
    pub(super) fn learner_committed(&mut self, index: LogIndex, chunk: ChunkId) {
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        let Some(copy) = self.soft.repair.copies.get(&chunk).copied() else { return };
        if meta.members.as_slice().last() != Some(&copy.target) {
            return;
        }
        self.soft.repair.copies.remove(&chunk);
        self.soft.closing.may_be_opened(chunk, index);
        self.soft.seen.insert(chunk.0, ());
        // It registered with the boot that the primary named: that was checked before this was proposed,
        // and a boot since then takes the confirmation back.
        if let Some(live) = self.soft.servers.get(copy.target) {
            self.soft.confirmed.set(chunk, meta.members.len() - 1, live.incarnation);
        }
        let config = self.active_config(chunk, &meta, Vec::new(), Seq(0));
        self.tell_confirmed(index, &config, &meta.members, None);
        self.soft.gc.not_stale(copy.target, chunk);
        self.raised(chunk, &meta, copy.target);
        let goal = self.state.goal_of(&meta);
        if meta.members.len() > goal {
            self.soft.scan.wake();
        }
        if meta.members.len() < goal {
            let (members, urgent) = (meta.members.len(), meta.members.len() < self.state.min_write(&meta));
            self.soft.repair.want(chunk, members, urgent);
        }
    }

    /// A scan found a learner that nobody fills: the leader before had chosen it.
    pub(super) fn adopt_learner(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        let (Some(source), Some(target)) = (meta.members.primary(), meta.learners.first().copied()) else {
            return;
        };
        let now = self.now.mono;
        let serving = matches!(self.member_standing(chunk, meta, 0, source), MemberStanding::Serving(_));
        if serving && self.soft.servers.is_up(target, now) {
            self.soft.repair.begin(chunk, source, target, now);
            self.begin_copy(self.state.applied, chunk, meta, target);
        } else if self.soft.servers.get(target).is_some_and(|live| live.lease.is_over(now)) {
            self.drop_learner(chunk, target);
        }
    }

    /// A server has a new boot: what was being copied to the one before is lost.
    pub(super) fn end_copies_to(&mut self, server: ServerNum) {
        let to = self.soft.repair.copies.iter().filter(|(_, copy)| copy.target == server && !copy.ending);
        let chunks: Vec<ChunkId> = to.map(|(chunk, _)| *chunk).collect();
        chunks.into_iter().for_each(|chunk| self.drop_learner(chunk, server));
    }

    fn ask_again(&mut self) {
        let now = self.now.mono;
        let due = |copy: &Copy| !copy.ending && now.ms_since(copy.asked) >= ASK_AGAIN_MS;
        let copies = self.soft.repair.copies.iter_mut().filter(|(_, copy)| due(copy));
        let due: Vec<(ChunkId, ServerNum)> = copies
            .map(|(chunk, copy)| {
                copy.asked = now;
                (*chunk, copy.target)
            })
            .collect();
        for (chunk, target) in due {
            let meta = self.state.chunks.get(chunk).filter(|meta| meta.learners.contains(&target));
            match meta {
                Some(meta) => self.begin_copy(self.state.applied, chunk, &meta, target),
                None => self.soft.repair.forget(chunk),
            }
        }
    }

    fn end_dead_copies(&mut self) {
        let now = self.now.mono;
        let servers = &self.soft.servers;
        let dead = |copy: &Copy| {
            let gone = |server| servers.get(server).is_none_or(|live| live.lease.is_over(now));
            !copy.ending && (gone(copy.target) || gone(copy.source) || now.ms_since(copy.since) > COPY_MAX_MS)
        };
        let ended: Vec<(ChunkId, ServerNum)> = self
            .soft
            .repair
            .copies
            .iter()
            .filter(|(_, copy)| dead(copy))
            .map(|(chunk, copy)| (*chunk, copy.target))
            .collect();
        ended.iter().for_each(|(chunk, target)| self.drop_learner(*chunk, *target));
    }
}

/// What can be done for a chunk.
enum Step {
    /// A learner on this server.
    Begin(ServerNum),
    Later,
    Done,
}
