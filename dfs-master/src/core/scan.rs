//! A walk over the chunk map in slices, over and over: what needs a recovery, what needs a repair, and
//! how the cluster stands. Nothing on the way of a request depends on it.

use std::collections::BTreeSet;

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::ServerStake;
use dfs_proto::units::Micros;

use super::Core;
use super::balance::Offers;
use super::chunks::ChunkMeta;
use super::command::Command;
use super::recovery::MemberStanding;
use super::servers::live::{Inventory, Standing};

/// Chunks looked at in one tick: about two milliseconds.
const SLICE: usize = 4096;
/// A pass begins so long after the last one, unless something happened.
const REST_MS: u64 = 2_000;

/// What a pass counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) below_goal: u64,
    pub(super) recovering: u64,
    /// May hold bytes that are not on every member's disk.
    pub(super) open: u64,
    /// No member is alive.
    pub(super) unavailable: u64,
}

/// The walk.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// Where the pass under way goes on.
    cursor: Option<ChunkId>,
    next: Micros,
    woken: bool,
    counting: Counts,
    counted: Counts,
    /// Of each server, by its number.
    staking: Vec<ServerStake>,
    staked: Vec<ServerStake>,
    offers: Offers,
    passes: u64,
    /// Servers that have unconfirmed members, as far as the pass has come.
    unsettled: BTreeSet<ServerNum>,
    /// Chunks with more members than their goal, of the slice.
    above: BTreeSet<ChunkId>,
    /// Of them those whose file has a lower goal than before.
    lower: Vec<ChunkId>,
}

/// What a chunk needs.
enum Need {
    Recovery,
    Close,
    Repair {
        urgent: bool,
    },
    Learner,
    /// This one is not needed any more: the goal was lowered.
    NoLearner(ServerNum),
    /// This member should leave.
    Leave(ServerNum),
    /// A member is about to go.
    HandOver,
    Departure,
}

impl Scan {
    /// Something happened that a pass should look at soon.
    pub(super) fn wake(&mut self) {
        self.woken = true;
    }

    #[must_use]
    pub(super) fn counts(&self) -> Counts {
        self.counted
    }

    /// What hangs on a server, by the last pass; `None` before the first.
    #[must_use]
    pub(super) fn stake(&self, server: ServerNum) -> Option<ServerStake> {
        let known = self.staked.get(usize::from(server.0)).copied();
        (self.passes > 0).then(|| known.unwrap_or_default())
    }

    #[must_use]
    pub(super) fn passes(&self) -> u64 {
        self.passes
    }

    fn stake_mut(&mut self, server: ServerNum) -> &mut ServerStake {
        let at = usize::from(server.0);
        if self.staking.len() <= at {
            self.staking.resize(at + 1, ServerStake::default());
        }
        &mut self.staking[at]
    }
}

impl Core {
    pub(super) fn scan_slice(&mut self) {
        let now = self.now.mono;
        if self.soft.scan.cursor.is_none() {
            if !self.soft.scan.woken && now < self.soft.scan.next {
                return;
            }
            let Scan { counted, staked, passes, .. } = std::mem::take(&mut self.soft.scan);
            self.soft.goals.begin_pass();
            self.soft.scan =
                Scan { cursor: Some(ChunkId(0)), next: now, counted, staked, passes, ..Scan::default() };
        }
        let from = self.soft.scan.cursor.unwrap_or_default();
        let mut needs = Vec::new();
        let mut last = None;
        let all = self.state.servers.iter().map(|server| server.num);
        let takes_nothing = |server: &ServerNum| self.is_emptied(*server) || self.is_maintained(*server);
        let idle_up =
            all.filter(|server| takes_nothing(server) && self.soft.servers.is_up(*server, now)).count();
        let takers = self.soft.servers.up(now) - idle_up;
        let mut scan = std::mem::take(&mut self.soft.scan);
        let mut open = Vec::new();
        for (chunk, meta) in self.state.chunks.iter_from(from).take(SLICE) {
            last = Some(chunk);
            if scan.passes == 0 && meta.open {
                open.push((meta.ino, chunk));
            }
            if let Some(need) = self.look(chunk, &meta, takers, &mut scan) {
                needs.push((chunk, meta, need));
            }
        }
        std::mem::take(&mut scan.above).into_iter().for_each(|chunk| self.soft.load.is_above(chunk));
        let lower = std::mem::take(&mut scan.lower);
        self.soft.scan = scan;
        open.into_iter().for_each(|(ino, chunk)| self.unsettle_from_before(ino, chunk));
        self.goals_are_lower(&lower);
        for (chunk, meta, need) in needs {
            match need {
                Need::Recovery => self.recover_in_background(chunk, &meta),
                Need::Repair { urgent } => self.soft.repair.want(chunk, meta.members.len(), urgent),
                Need::Close => {
                    let due = self.now.mono.plus_ms(self.config.close_after_ms);
                    self.soft.closing.seen_idle(chunk, due);
                }
                Need::Learner => self.adopt_learner(chunk, &meta),
                Need::HandOver => self.recover_in_background(chunk, &meta),
                Need::NoLearner(server) => self.drop_learner(chunk, server),
                Need::Leave(server) => self.let_go(chunk, &meta, server),
                Need::Departure => self.adopt_departure(chunk, &meta),
            }
        }
        match last {
            Some(last) if last.0 < u64::MAX => self.soft.scan.cursor = Some(ChunkId(last.0 + 1)),
            Some(_) | None => self.end_pass(),
        }
    }

    fn look(&self, chunk: ChunkId, meta: &ChunkMeta, takers: usize, scan: &mut Scan) -> Option<Need> {
        let now = self.now.mono;
        let goal = self.state.goal_of(meta);
        let (mut gone, mut unconfirmed, mut overdue, mut kept) = (0, false, false, false);
        let mut serve = Vec::with_capacity(meta.members.len());
        for (at, server) in meta.members.iter().enumerate() {
            match self.member_standing(chunk, meta, at, server) {
                MemberStanding::Serving(_) => serve.push(server),
                MemberStanding::Waiting => {
                    scan.unsettled.insert(server);
                }
                MemberStanding::Unconfirmed => {
                    scan.unsettled.insert(server);
                    unconfirmed = true;
                }
                MemberStanding::Gone => {
                    gone += 1;
                    let live = self.soft.servers.get(server);
                    // One that is to be emptied is not expected back.
                    let late = self.state.servers.is_draining(server)
                        || live.is_none_or(|live| now.ms_since(live.heard) >= self.config.repair_delay_ms);
                    if self.is_maintained(server) {
                        kept |= late;
                    } else {
                        overdue |= late;
                    }
                }
            }
        }
        // What a server in maintenance has is waited for, as long as enough is elsewhere.
        overdue |= kept && meta.members.len() - gone < self.state.min_write(meta);
        let bytes = self.chunk_bytes(meta);
        self.note_stakes(meta, bytes, &serve, scan);
        self.note_space(chunk, meta, bytes, &mut scan.offers);
        let serving = serve.len();
        scan.counting.below_goal += u64::from(meta.members.len() - gone < goal);
        scan.counting.open += u64::from(meta.open && (meta.written || meta.synced));
        scan.counting.recovering += u64::from(!meta.is_active());
        scan.counting.unavailable += u64::from(serving == 0);
        let is_lower = self.soft.goals.contains(meta.ino);
        if is_lower && meta.members.len() > goal {
            scan.lower.push(chunk);
        }
        if !meta.is_active() || unconfirmed || overdue {
            return Some(Need::Recovery);
        }
        if let Some(learner) = meta.learners.first() {
            if is_lower && meta.members.len() >= goal && !self.soft.load.is_raising(chunk) {
                return Some(Need::NoLearner(*learner));
            }
            return (!self.soft.repair.is_running(chunk)).then_some(Need::Learner);
        }
        if meta.leaving.is_some() {
            return (!self.soft.leaving.is_running(chunk)).then_some(Need::Departure);
        }
        if meta.members.len() > goal {
            scan.above.insert(chunk);
        }
        let urgent = meta.members.len() < self.state.min_write(meta);
        let complete = serving == meta.members.len();
        if complete && self.should_hand_over(chunk, meta) {
            return Some(Need::HandOver);
        }
        if self.counting(chunk, meta) < goal.min(takers) {
            return Some(Need::Repair { urgent });
        }
        if complete && let Some(server) = self.surplus(chunk, meta) {
            return Some(Need::Leave(server));
        }
        if complete {
            self.offer_to_move(chunk, meta, bytes, &mut scan.offers);
        }
        (complete && self.is_idle(chunk, meta)).then_some(Need::Close)
    }

    /// Adds what of the chunk hangs on each of its members.
    fn note_stakes(&self, meta: &ChunkMeta, bytes: u64, serve: &[ServerNum], scan: &mut Scan) {
        for server in meta.members.iter() {
            // What is away itself is no help.
            let others =
                serve.iter().filter(|other| **other != server && !self.is_maintained(**other)).count();
            let stake = scan.stake_mut(server);
            stake.bytes += bytes;
            stake.sole += u64::from(others == 0);
            stake.thin += u64::from(others > 0 && others < self.state.min_write(meta));
        }
        let primary = meta.members.primary();
        let ready = meta.is_active() && primary.is_some_and(|primary| serve.contains(&primary));
        for server in meta.members.iter().filter(|server| self.state.servers.is_draining(*server)) {
            self.note_what_stays(meta, ready, scan.stake_mut(server));
        }
        for server in meta.learners.iter().filter(|server| self.state.servers.is_draining(**server)) {
            scan.stake_mut(*server).coming += 1;
        }
        let led = primary.filter(|server| self.is_maintained(*server));
        if let Some(server) = led.filter(|_| self.has_writer(meta)) {
            scan.stake_mut(server).leads += 1;
        }
    }

    fn end_pass(&mut self) {
        let now = self.now.mono;
        let unsettled = std::mem::take(&mut self.soft.scan.unsettled);
        let began = self.soft.scan.next;
        self.soft.scan.counted = self.soft.scan.counting;
        self.soft.scan.staked = std::mem::take(&mut self.soft.scan.staking);
        self.soft.scan.passes += 1;
        let offers = std::mem::take(&mut self.soft.scan.offers);
        self.balance(&offers);
        self.soft.scan.cursor = None;
        // A pass over many chunks takes a while, and then rests in proportion.
        self.soft.scan.next = now.plus_ms(REST_MS.max(2 * now.ms_since(began)));
        if self.soft.scan.woken {
            // Something changed behind the pass's back: the next one decides.
            return;
        }
        let settled = self.soft.servers.iter().filter_map(|(server, live)| {
            let known = self.state.servers.get(server)?;
            let boot = live.boot.filter(|boot| *boot == known.info.boot && !known.settled)?;
            let up = live.standing(now) == Standing::Up && live.inventory == Inventory::Complete;
            (up && !unsettled.contains(&server)).then_some((server, boot))
        });
        let settled: Vec<_> = settled.collect();
        for (server, boot) in settled {
            self.propose_own(Command::SettleServer { server, boot });
        }
    }
}
