//! From the members' answers to the next configuration.

use std::collections::BTreeSet;

use dfs_proto::checksum::is_of_nothing;
use dfs_proto::chunk::Member;
use dfs_proto::control::{
    FenceAnswer, Reconcile, Reconciled, ReplicaClass, ReplicaState, ServerEvent, Settle,
};
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, LogIndex, Seq, ServerNum};
use dfs_proto::planted;
use dfs_proto::status::Status;

use super::{Asking, Base, Phase, Plan, Process, choose};
use crate::core::Core;
use crate::core::chunks::ChunkMeta;
use crate::core::command::Activation;
use crate::core::reply::{Asked, COMMAND_DEADLINE_MS};

/// How long a recovery waits for members that are fenced already but could still answer: their replicas
/// may be the better ones.
const ANSWER_WAIT_MS: u64 = 2_000;

/// The same for one whose lease is over: it has said nothing for seconds, and may be stopped with its
/// connection open. One that only lost its heartbeats answers at once.
const SILENT_WAIT_MS: u64 = 200;

/// The members' answers, sorted.
#[derive(Debug, Default)]
struct Tally<'a> {
    holders: Vec<(Process, &'a ReplicaState)>,
    missing: Vec<Process>,
    refused: Vec<Status>,
    /// Fenced, and silent.
    absent: usize,
    /// One of those may come back with bytes that nobody else has, and is given the time.
    missed: bool,
    /// A member that was there all along has no file: no write was ever acknowledged.
    untouched: bool,
    /// Might still answer, and is still waited for.
    pending: bool,
    /// Neither answered nor fenced.
    blocked: bool,
}

/// What follows from a tally.
enum Verdict {
    Wait,
    /// Fence again, higher.
    Again,
    Reconcile {
        base: Process,
        settle: Settle,
    },
    Go(Plan),
}

impl Core {
    /// Goes on with a recovery if its members have said enough.
    pub(super) fn decide(&mut self, chunk: ChunkId) {
        let Some(meta) = self.state.chunks.get(chunk) else { return self.soft.recovery.forget(chunk) };
        let Some(Phase::Asking(asking)) = self.soft.recovery.jobs.get(&chunk) else { return };
        match self.verdict(chunk, &meta, asking) {
            Verdict::Wait => {}
            Verdict::Again => self.soft.recovery.restart(chunk),
            Verdict::Reconcile { base, settle } => self.reconcile(chunk, base, settle),
            Verdict::Go(plan) => {
                let members: Vec<ServerNum> = plan.members.iter().map(|process| process.server).collect();
                self.goes_on_with(chunk, &members);
                let activation = Activation {
                    chunk,
                    version: plan.version,
                    config: ConfigNum(meta.config.0 + 1),
                    members,
                    lossy: plan.lossy,
                };
                self.soft.recovery.jobs.insert(chunk, Phase::Activating(plan));
                self.soft.recovery.decided.insert(chunk, activation);
            }
        }
    }

    fn tally<'a>(&self, chunk: ChunkId, meta: &ChunkMeta, asking: &'a Asking) -> Tally<'a> {
        let mut tally = Tally::default();
        for (at, server) in meta.members.iter().enumerate() {
            match asking.answers.get(&server) {
                Some((process, FenceAnswer::Holds(state))) => tally.holders.push((*process, state)),
                Some((process, FenceAnswer::Missing)) => {
                    tally.missing.push(*process);
                    tally.untouched |= self.held_all_along(chunk, at, server);
                }
                Some((_, FenceAnswer::Refused(status))) => tally.refused.push(*status),
                None => {
                    let reachable = self.soft.servers.get(server).is_some_and(|live| live.is_reachable());
                    let silent =
                        self.soft.servers.get(server).is_none_or(|live| live.lease.is_over(self.now.mono));
                    let wait_ms = if silent { SILENT_WAIT_MS } else { ANSWER_WAIT_MS };
                    tally.pending |= reachable && self.now.mono.ms_since(asking.since) < wait_ms;
                    tally.absent += 1;
                    let heard = self.soft.servers.get(server).map(|live| live.heard);
                    tally.missed |=
                        heard.is_some_and(|heard| self.now.mono.ms_since(heard) < self.config.lossy_wait_ms);
                    tally.blocked |= !self.is_fenced(chunk, at, server);
                }
            }
        }
        tally
    }

    fn verdict(&self, chunk: ChunkId, meta: &ChunkMeta, asking: &Asking) -> Verdict {
        let tally = self.tally(chunk, meta, asking);
        if tally.blocked || tally.pending {
            return Verdict::Wait;
        }
        let left_out = self.soft.recovery.left_out(chunk);
        if tally.holders.is_empty() {
            return self.verdict_without_file(chunk, meta, asking, &tally, &left_out);
        }
        let mut holders: Vec<(Process, &ReplicaState)> = tally
            .holders
            .iter()
            .filter(|(process, _)| !left_out.contains(&process.server))
            .copied()
            .collect();
        if holders.is_empty() {
            // A doubtful replica is better than none.
            holders.clone_from(&tally.holders);
        }
        let states: Vec<&ReplicaState> = holders.iter().map(|(_, state)| *state).collect();
        let Some(Base { at, torn }) = choose(&states) else { return Verdict::Wait };
        let (process, base) = holders[at];
        if base.class == ReplicaClass::Rebooted && tally.missed && !tally.untouched {
            // It lacks what was acknowledged and not synced; one whose kernel ran on has it.
            return Verdict::Wait;
        }
        let zeroing = self.soft.recovery.zeroing.contains(&chunk);
        if zeroing && asking.synced != Some(process) {
            return Verdict::Reconcile { base: process, settle: Settle::Zeros };
        }
        if torn {
            return Verdict::Reconcile { base: process, settle: Settle::AsTheyAre };
        }
        // The digest is of the stored checksums: a power cut can leave those without the bytes. What rots under a
        // process that never stopped is mended among members that are equal, and could not be from a learner.
        let equal = |(other, state): &&(Process, &ReplicaState)| {
            let whole = state.bad_blocks == 0 || state.class == ReplicaClass::Intact;
            *other != process && state.digest == base.digest && whole
        };
        let mut members = vec![process];
        members.extend(holders.iter().filter(equal).map(|(other, _)| *other));
        if is_of_nothing(base.digest) && base.bad_blocks == 0 && !meta.synced {
            // Who has no file has these bytes too. Not of a chunk that was synced: without the base nobody could tell
            // that from a loss, and would wait for ever.
            members.extend(tally.missing.iter().filter(|process| !left_out.contains(&process.server)));
        }
        self.put_drained_last(chunk, meta, &mut members);
        // Others had these bytes too and are left out: one power cut must not take the last copy of them.
        if members.len() < self.state.min_write(meta) && asking.synced != Some(process) {
            return Verdict::Reconcile { base: process, settle: Settle::Keep };
        }
        let stale = tally.holders.iter().map(|(other, _)| *other).filter(|other| !members.contains(other));
        Verdict::Go(Plan {
            version: asking.version,
            stale: stale.map(|other| other.server).collect(),
            filled: true,
            members,
            ops: base.ops.clone(),
            seq: base.applied,
            lossy: (base.class == ReplicaClass::Rebooted && !planted!(LossNotRecorded)) || zeroing,
        })
    }

    /// Members whose replicas are to be elsewhere go, where as many as the goal are left; else they lead nothing.
    fn put_drained_last(&self, chunk: ChunkId, meta: &ChunkMeta, members: &mut Vec<Process>) {
        let moved = self.moved_off(chunk, meta);
        let drained =
            |process: &Process| self.should_leave(chunk, process.server) || moved == Some(process.server);
        if members.iter().filter(|process| !drained(process)).count() >= self.state.goal_of(meta) {
            members.retain(|process| !drained(process));
        } else {
            members.sort_by_key(drained);
        }
        self.put_maintained_last(chunk, members, |process| process.server);
    }

    /// No member that answered has a file.
    fn verdict_without_file(
        &self,
        chunk: ChunkId,
        meta: &ChunkMeta,
        asking: &Asking,
        tally: &Tally<'_>,
        left_out: &BTreeSet<ServerNum>,
    ) -> Verdict {
        let mut members: Vec<Process> =
            tally.missing.iter().filter(|process| !left_out.contains(&process.server)).copied().collect();
        let fenced_higher = tally.refused.contains(&Status::WrongChunkVersion);
        if members.is_empty() && !fenced_higher {
            // All were to be left out, whose disks had failed them; there is nobody else.
            members.clone_from(&tally.missing);
        }
        if members.is_empty() {
            return if fenced_higher { Verdict::Again } else { Verdict::Wait };
        }
        // Nothing of it was ever synced. What was written and not synced may be lost with every member's
        // kernel; while a member is away that may still have it, it is waited for.
        let may_be_elsewhere = (meta.written && tally.absent > 0) || (tally.missed && !tally.untouched);
        if meta.synced || may_be_elsewhere {
            log::debug!("chunk {chunk}: no reachable member has its file; waiting for the others");
            return Verdict::Wait;
        }
        self.put_drained_last(chunk, meta, &mut members);
        Verdict::Go(Plan {
            version: asking.version,
            members,
            stale: Vec::new(),
            filled: false,
            ops: Vec::new(),
            seq: Seq(0),
            lossy: true,
        })
    }

    fn reconcile(&mut self, chunk: ChunkId, process: Process, settle: Settle) {
        let Some(Phase::Asking(asking)) = self.soft.recovery.jobs.get(&chunk) else { return };
        let asking = asking.clone();
        let (version, index) = (asking.version, asking.index);
        let request = Reconcile { term: self.term(), chunk, version, settle };
        let asked = Asked::Reconcile { process, chunk, version, settle };
        if self.call(process.server, &request, asked, COMMAND_DEADLINE_MS, index) {
            self.soft.recovery.jobs.insert(chunk, Phase::Reconciling { asking, base: process });
        }
    }

    /// The base has synced what it has, or could not.
    pub(in crate::core) fn reconciled(
        &mut self,
        process: Process,
        (chunk, version): (ChunkId, ChunkVersion),
        settle: Settle,
        result: Result<Reconciled, Status>,
    ) {
        let Some(Phase::Reconciling { asking, base }) = self.soft.recovery.jobs.get(&chunk) else { return };
        if asking.version != version || *base != process {
            return;
        }
        let mut asking = asking.clone();
        let server = process.server;
        match (result, asking.answers.get_mut(&server)) {
            (Ok(Reconciled { digest, torn_resolved }), Some((answered, FenceAnswer::Holds(state))))
                if *answered == process =>
            {
                asking.synced = Some(process);
                state.digest = digest;
                if settle != Settle::Keep {
                    let how = if settle == Settle::Zeros { "made zeros" } else { "taken as they are" };
                    log::info!("chunk {chunk}: {torn_resolved} bad blocks {how} on {server}");
                    state.bad_blocks = 0;
                }
            }
            // It is asked again, and answers what it is like now.
            (Ok(_) | Err(_), _) => {
                asking.answers.remove(&server);
            }
        }
        self.soft.recovery.jobs.insert(chunk, Phase::Asking(asking));
        self.decide(chunk);
    }

    /// Recoveries are through: members are told, those left out too.
    pub(in crate::core) fn activate_applied(&mut self, index: LogIndex, chunks: &[Activation]) {
        for activation in chunks {
            let chunk = activation.chunk;
            let Some(meta) = self.state.chunks.get(chunk) else { continue };
            if !meta.is_active() || meta.version != activation.version {
                continue;
            }
            let Some(Phase::Activating(plan)) = self.soft.recovery.jobs.remove(&chunk) else { continue };
            self.soft.recovery.excluded.remove(&chunk);
            self.soft.recovery.zeroing.remove(&chunk);
            self.soft.damage.forget(chunk);
            self.soft.doubts.forget(chunk);
            self.soft.unsettled.settled(chunk);
            if plan.filled {
                self.soft.seen.insert(chunk.0, ());
            }
            self.tell_activated(index, chunk, &meta, &plan);
            if meta.members.len() < self.state.goal_of(&meta) {
                let (members, urgent) =
                    (meta.members.len(), meta.members.len() < self.state.min_write(&meta));
                self.soft.repair.want(chunk, members, urgent);
            }
        }
    }

    fn tell_activated(&mut self, index: LogIndex, chunk: ChunkId, meta: &ChunkMeta, plan: &Plan) {
        let of = |server| plan.members.iter().find(|process| process.server == server).copied();
        self.soft
            .confirmed
            .set_all(chunk, &meta.members, |server| of(server).map(|process| process.incarnation));
        let mut config = self.active_config(chunk, meta, plan.ops.clone(), plan.seq);
        // The processes that answered, even if one of them has ended since.
        config.members = plan
            .members
            .iter()
            .map(|process| Member { server: process.server, boot: process.boot })
            .collect();
        for process in &plan.members {
            let same = self.soft.servers.get(process.server).and_then(|live| live.boot) == Some(process.boot);
            if same {
                self.soft.servers.tell(process.server, index, ServerEvent::Active(config.clone()));
            }
        }
        let (version, config) = (meta.version, meta.config);
        let now = self.now.mono;
        for server in &plan.stale {
            self.soft.servers.tell(*server, index, ServerEvent::NotMember { chunk, version, config });
            self.soft.gc.stale(*server, chunk, index, now);
        }
    }

    /// A new chunk's members are confirmed by its first capability.
    pub(in crate::core) fn allocated(&mut self, chunk: ChunkId) {
        // Without an entry, the place was taken by another chunk first, and this one is nowhere.
        let Some(members) = self.state.chunks.get(chunk).map(|meta| meta.members) else { return };
        let servers = &self.soft.servers;
        let incarnation = |server| servers.get(server).map(|live| live.incarnation);
        self.soft.confirmed.set_all(chunk, &members, incarnation);
    }
}
