//! Members that leave a chunk while reads and writes go on (section 10): of a server that an operator drains, on a
//! disk that takes no writes, and those that the load needs no more.
//!
//! In the log: who leaves. Then that member says that it serves nothing more, or surely can't. Then, in the log, the
//! next configuration without it. What its primary had under way meanwhile waits, and is complete without it.
//!
//! Keeps I7 (nobody is left out who may still serve), I15 (as many as the goal stay, each confirmed now) and I16.

use std::collections::BTreeMap;

use dfs_proto::control::{COMMAND_BATCH, ServerEvent, Withdraw, WithdrawChunk, Withdrawn};
use dfs_proto::ids::{ChunkId, ConfigNum, LogIndex, Seq, ServerNum};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::Core;
use super::chunks::ChunkMeta;
use super::command::{Command, Departure};
use super::recovery::Process;
use super::reply::{Asked, CALL_DEADLINE_MS};

/// Members that leave at once: writers of these chunks wait for one more round trip.
const JOBS_MAX: usize = 256;
/// A member that does not say so in time is left out by a recovery, which asks all.
const WITHDRAW_MAX_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug)]
struct Job {
    server: ServerNum,
    /// Its place among the members.
    at: usize,
    since: Micros,
    /// The process that was asked and has not answered.
    asked: Option<Process>,
    /// The process that serves nothing of the chunk any more.
    withdrawn: Option<Process>,
    /// Its end is proposed.
    ending: bool,
}

/// Members that leave, and those that could.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving {
    wanted: BTreeMap<ChunkId, ServerNum>,
    jobs: BTreeMap<ChunkId, Job>,
}

impl Leaving {
    pub(super) fn want(&mut self, chunk: ChunkId, server: ServerNum) {
        if !self.jobs.contains_key(&chunk) {
            self.wanted.insert(chunk, server);
        }
    }

    #[must_use]
    pub(super) fn is_running(&self, chunk: ChunkId) -> bool {
        self.jobs.contains_key(&chunk)
    }

    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.wanted.remove(&chunk);
        self.jobs.remove(&chunk);
    }

    /// Follows the departure that the log names.
    fn begin(&mut self, chunk: ChunkId, meta: &ChunkMeta, since: Micros) {
        let Some(server) = meta.leaving else { return };
        let Some(at) = meta.members.iter().position(|member| member == server) else { return };
        let job = Job { server, at, since, asked: None, withdrawn: None, ending: false };
        self.jobs.insert(chunk, job);
    }
}

impl Core {
    /// Who should leave a chunk that has more members than its goal: whoever is drained, then whose place
    /// another has taken, then whom the load does not need.
    pub(super) fn surplus(&self, chunk: ChunkId, meta: &ChunkMeta) -> Option<ServerNum> {
        if meta.members.len() <= self.state.goal_of(meta) {
            return None;
        }
        let drained = meta.members.iter().filter(|server| self.should_leave(chunk, *server)).last();
        let moved = || self.moved_off(chunk, meta);
        drained.or_else(moved).or_else(|| self.leaves_for_load(chunk, meta))
    }

    /// A scan found that this member should leave. All members serve.
    pub(super) fn let_go(&mut self, chunk: ChunkId, meta: &ChunkMeta, server: ServerNum) {
        if meta.members.primary() == Some(server) {
            // Writes that it has numbered are known to it alone; the recovery goes on without it.
            self.recover_in_background(chunk, meta);
        } else {
            self.soft.leaving.want(chunk, server);
        }
    }

    /// A scan found a departure that nobody follows: the leader before had chosen it.
    pub(super) fn adopt_departure(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        self.soft.leaving.begin(chunk, meta, self.now.mono);
    }

    pub(super) fn leave_tick(&mut self) {
        self.begin_departures();
        self.ask_to_withdraw();
        self.end_departures();
    }

    fn begin_departures(&mut self) {
        let room = JOBS_MAX.saturating_sub(self.soft.leaving.jobs.len());
        let wanted = std::mem::take(&mut self.soft.leaving.wanted);
        let mut leaving = Vec::new();
        for (chunk, server) in wanted {
            match self.departure(chunk, server).filter(|_| !self.is_busy(chunk)) {
                Some(departure) if leaving.len() < room => leaving.push(departure),
                // The others have not heard of the last change yet, as a rule.
                None if self.soft.load.is_lowering(chunk, server) => self.soft.leaving.want(chunk, server),
                // A pass of the scan names the others again.
                Some(_) | None => {}
            }
        }
        if !leaving.is_empty() {
            self.propose_own(Command::Leave { leaving });
        }
    }

    fn is_busy(&self, chunk: ChunkId) -> bool {
        self.soft.recovery.is_running(chunk) || self.soft.repair.is_running(chunk)
    }

    /// What is logged of the member, if the others are as many as the goal and all serve.
    fn departure(&self, chunk: ChunkId, server: ServerNum) -> Option<Departure> {
        let meta = self.state.chunks.get(chunk).filter(ChunkMeta::is_active)?;
        let well =
            meta.members.len() > self.state.goal_of(&meta) && self.all_serve(chunk, &meta, Some(server));
        let ChunkMeta { version, config, .. } = meta;
        well.then_some(Departure { chunk, version, config, server })
    }

    /// The choice is in the log.
    pub(super) fn leave_applied(&mut self, leaving: &[Departure]) {
        for Departure { chunk, server, .. } in leaving {
            let meta = self.state.chunks.get(*chunk);
            if let Some(meta) = meta.filter(|meta| meta.leaving == Some(*server)) {
                // A close that was begun would wait for it.
                self.end_close(*chunk);
                self.soft.leaving.begin(*chunk, &meta, self.now.mono);
            }
        }
        self.ask_to_withdraw();
    }

    fn ask_to_withdraw(&mut self) {
        let mut asks: BTreeMap<ServerNum, Vec<WithdrawChunk>> = BTreeMap::new();
        for (chunk, job) in &self.soft.leaving.jobs {
            let waits = !self.has_withdrawn(job) && job.asked.is_none() && !job.ending;
            let meta = self.state.chunks.get(*chunk).filter(|meta| waits && meta.leaving == Some(job.server));
            if let Some(meta) = meta {
                let config = ConfigNum(meta.config.0 + 1);
                let ask = WithdrawChunk { chunk: *chunk, version: meta.version, config };
                asks.entry(job.server).or_default().push(ask);
            }
        }
        let term = self.term();
        for (server, all) in asks {
            let Some(process) = self.process(server) else { continue };
            for part in all.chunks(COMMAND_BATCH) {
                let request = Withdraw { term, chunks: part.to_vec() };
                let asked = Asked::Withdraw { process, chunks: part.to_vec() };
                if self.call(server, &request, asked, CALL_DEADLINE_MS, self.state.applied) {
                    for ask in part {
                        if let Some(job) = self.soft.leaving.jobs.get_mut(&ask.chunk) {
                            job.asked = Some(process);
                        }
                    }
                }
            }
        }
    }

    /// Whether the process that runs now serves nothing more.
    fn has_withdrawn(&self, job: &Job) -> bool {
        job.withdrawn.is_some() && job.withdrawn == self.process(job.server)
    }

    /// A member serves nothing of these chunks any more, or does not say so.
    pub(super) fn withdrew(
        &mut self,
        process: Process,
        chunks: &[WithdrawChunk],
        result: Result<Withdrawn, Status>,
    ) {
        let results = result.map(|withdrawn| withdrawn.results).unwrap_or_default();
        for (at, asked) in chunks.iter().enumerate() {
            let Some(meta) = self.state.chunks.get(asked.chunk) else { continue };
            let current = (meta.version, meta.config.0 + 1) == (asked.version, asked.config.0);
            let Some(job) = self.soft.leaving.jobs.get_mut(&asked.chunk) else { continue };
            if !current || job.asked != Some(process) {
                continue;
            }
            job.asked = None;
            match results.get(at) {
                Some(Status::Ok) => job.withdrawn = Some(process),
                // It has no file that it could refuse to write: a recovery goes on without it.
                Some(Status::NoChunk) => {
                    let server = job.server;
                    self.soft.leaving.forget(asked.chunk);
                    self.exclude(asked.chunk, server);
                }
                Some(_) | None => {}
            }
        }
        self.end_departures();
    }

    fn end_departures(&mut self) {
        let now = self.now.mono;
        let mut left = Vec::new();
        let mut late = Vec::new();
        for (chunk, job) in &self.soft.leaving.jobs {
            let meta = self.state.chunks.get(*chunk).filter(|meta| meta.leaving == Some(job.server));
            let Some(meta) = meta.filter(|_| !job.ending) else { continue };
            let gone = self.has_withdrawn(job)
                || self.is_fenced(*chunk, job.at, job.server)
                || planted!(LeaveUnfenced);
            match self.departure(*chunk, job.server).filter(|_| gone) {
                Some(departure) => left.push(departure),
                None if now.ms_since(job.since) > WITHDRAW_MAX_MS => late.push((*chunk, meta)),
                None => {}
            }
        }
        for (chunk, meta) in late {
            self.recover_anyway(chunk, &meta);
        }
        if !left.is_empty() && self.propose_own(Command::Left { left: left.clone() }) {
            for departure in left {
                if let Some(job) = self.soft.leaving.jobs.get_mut(&departure.chunk) {
                    job.ending = true;
                }
            }
        }
    }

    /// Members have left: the others are told, and then it.
    pub(super) fn left_applied(&mut self, index: LogIndex, left: &[Departure]) {
        for Departure { chunk, config, server, .. } in left {
            let Some(job) = self.soft.leaving.jobs.remove(chunk) else { continue };
            let meta = self.state.chunks.get(*chunk);
            // Passed over, if a recovery came first.
            let Some(meta) = meta.filter(|meta| {
                meta.is_active() && meta.config.0 == config.0 + 1 && !meta.members.contains(*server)
            }) else {
                continue;
            };
            self.soft.confirmed.leave(*chunk, &meta.members, job.at);
            let active = self.active_config(*chunk, &meta, Vec::new(), Seq(0));
            self.tell_confirmed(index, &active, &meta.members, None);
            let (chunk, version, config) = (*chunk, meta.version, meta.config);
            self.soft.servers.tell(*server, index, ServerEvent::NotMember { chunk, version, config });
            self.soft.gc.stale(*server, chunk, index, self.now.mono);
            self.soft.doubts.forget(chunk);
            self.lowered(chunk, &meta, *server);
        }
    }
}
