//! A primary's writes on their way: sent to every member and to the own disk at once, done when all have
//! applied them (I4), sent again where that may help, held where only the master can.
//!
//! A write that a member can't take stays un-acknowledged with its blocks locked, so its bytes are shown to
//! nobody, until a FENCE or a new config settles it.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_proto::chunk::{ForwardMeta, Member};
use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::{ChunkId, Seq, ServerNum};
use dfs_proto::meta::{SuspectReport, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskDone, DiskFault, DiskOp, Effect, PeerAnswer, Reply};
use crate::core::lead::{Ack, AckState, Flight, Lead, Local, Waiting};
use crate::core::read::wake_reads;
use crate::core::replica::{Blocks, Standing};
use crate::core::timers::Timer;
use crate::core::work::{AppliedOp, DiskWork, FlightId, PeerWork, Work};
use crate::core::write::Beginning;
use crate::core::{Core, answer, refuse};

/// How long a commit may wait for a FORWARD to ride on (section 5).
const COMMIT_DELAY_US: u64 = 1_000;
/// First pause before a write is sent again to a member that did not take it, and the longest.
const RESEND_MIN_MS: u64 = 2;
const RESEND_MAX_MS: u64 = 200;
/// A member that answers "not yet" is reported after so many tries, about half a second: configs reach
/// members at slightly different times.
const PATIENT_TRIES: u32 = 8;
/// A learner that does not take a write after so many is given up while that harms nobody.
const LEARNER_TRIES: u32 = 3;
/// How often what still stands is told to the master again.
const REMIND_MS: u64 = 1_000;

impl Core {
    /// Sends a write to all other members, then to the own disk.
    pub(crate) fn launch(
        &mut self,
        meta: ForwardMeta,
        payload: Bytes,
        blocks: Blocks,
        calls: Vec<CallToken>,
        op: DiskOp,
        out: &mut Vec<Effect>,
    ) {
        let Some(me) = self.me() else { return };
        let Some(replica) = self.replicas.get_mut(&meta.chunk) else { return };
        replica.begun.note(&blocks);
        replica.disk_ops += 1;
        let id = FlightId { chunk: meta.chunk, version: meta.version, seq: meta.seq };
        let work = DiskWork::Flight { id, op: AppliedOp::of(&meta) };
        let disk = replica.disk;
        let members = std::mem::take(&mut replica.members);
        let Some(lead) = replica.lead.as_mut() else { return };
        let learner = lead.fill.as_ref().filter(|fill| fill.takes_writes()).map(|fill| fill.learner);
        let others = members.iter().copied().filter(|member| *member != me).chain(learner);
        let mut acks = Vec::with_capacity(members.len());
        // The write itself has its number already but is on no member.
        let committed = lead.committed().min(Seq(meta.seq.0.saturating_sub(1)));
        for member in others {
            send(&mut self.work, lead, member, &meta, &payload, &members, committed, out);
            acks.push(Ack { member, state: AckState::Sent { tries: 1 } });
        }
        lead.told = committed;
        let seq = meta.seq;
        lead.flights.insert(seq, Flight { blocks, meta, payload, local: Local::Running, acks, calls });
        replica.members = members;
        self.work.disk(disk, work, op, out);
    }

    /// The own disk is done with a write.
    pub(crate) fn flight_on_disk(
        &mut self,
        now: Micros,
        id: FlightId,
        op: AppliedOp,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let FlightId { chunk, version, seq } = id;
        self.disk_op_over(chunk);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let fault = match done {
            DiskDone::Failed(fault) => Some(*fault),
            _ => None,
        };
        if fault.is_none() {
            replica.is_on_disk();
            if replica.version == version {
                replica.applied.mark(seq);
                self.note_op(chunk, op, seq);
            }
        }
        let flight = self
            .replicas
            .get_mut(&chunk)
            .filter(|replica| replica.version == version)
            .and_then(|replica| replica.lead.as_mut())
            .and_then(|lead| lead.flights.get_mut(&seq));
        match (fault, flight) {
            (None, Some(flight)) => flight.local = Local::Applied,
            // Nothing changed here; what it was elsewhere, the answers tell.
            (Some(fault @ (DiskFault::BadChecksum | DiskFault::NoSpace)), Some(flight)) => {
                flight.local = Local::Refused(fault);
            }
            // Nor here; others may have it. It is applied when the block is mended from one of them.
            (Some(DiskFault::Corrupt { .. }), Some(flight)) => flight.local = Local::Damaged,
            (Some(DiskFault::BadChecksum | DiskFault::NoSpace | DiskFault::Corrupt { .. }) | None, None) => {}
            (Some(fault), _) => self.fail_replica(chunk, fault, out),
        }
        if let Some(fault) = fault {
            self.fault_found(now, chunk, fault, out);
        }
        self.drained(chunk, out);
        self.settle(now, chunk, seq, out);
    }

    /// Another member answered, or did not.
    pub(crate) fn flight_answered(
        &mut self,
        now: Micros,
        id: FlightId,
        server: ServerNum,
        reply: &PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let FlightId { chunk, version, seq } = id;
        let Some(replica) = self.replicas.get_mut(&chunk).filter(|replica| replica.version == version) else {
            return;
        };
        let Some(lead) = replica.lead.as_mut() else { return };
        let Some(flight) = lead.flights.get_mut(&seq) else { return };
        let Some(ack) = flight.acks.iter_mut().find(|ack| ack.member.server == server) else { return };
        let AckState::Sent { tries } = ack.state else { return };
        ack.state = match reply {
            PeerAnswer::Ok
            | PeerAnswer::Compared(_)
            | PeerAnswer::Stock { .. }
            | PeerAnswer::Synced { .. } => {
                lead.unmade.remove(&server);
                AckState::Acked
            }
            PeerAnswer::Silent | PeerAnswer::Dead => again(now, tries, None),
            PeerAnswer::Refused(status) if is_passing(*status) => again(now, tries, Some(*status)),
            PeerAnswer::Refused(status) => AckState::Refused(*status),
        };
        let (member, state) = (ack.member, ack.state);
        if let AckState::Again { at, .. } = state {
            self.timers.add(at, Timer::Resend { chunk, seq });
        }
        let hopeless = tries >= LEARNER_TRIES || matches!(state, AckState::Refused(_));
        if state != AckState::Acked && hopeless && self.learner_failed(now, chunk, member, out) {
            return;
        }
        if let Some(what) = suspicion(reply, tries) {
            self.suspect(now, chunk, member, what, out);
        }
        if matches!(reply, PeerAnswer::Refused(Status::Corrupt)) {
            self.start_mending(now, chunk, false, out);
        }
        self.settle(now, chunk, seq, out);
    }

    /// Sends a write again to those whose pause is over.
    pub(crate) fn resend(&mut self, now: Micros, chunk: ChunkId, seq: Seq, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk).filter(|replica| replica.takes_part()) else {
            return;
        };
        let members = replica.members.clone();
        let Some(lead) = replica.lead.as_mut() else { return };
        let committed = lead.committed();
        let Some(mut flight) = lead.flights.remove(&seq) else { return };
        let refused_here = flight.refused_here().map(DiskFault::status);
        for ack in &mut flight.acks {
            // Who refused it as we did must not take it now: it is to be given up.
            let alike = refused_here.is_some() && ack.refused() == refused_here;
            if let AckState::Again { tries, at, .. } = ack.state
                && at <= now
                && !alike
            {
                ack.state = AckState::Sent { tries: tries.saturating_add(1) };
                send(
                    &mut self.work,
                    lead,
                    ack.member,
                    &flight.meta,
                    &flight.payload,
                    &members,
                    committed,
                    out,
                );
            }
        }
        lead.flights.insert(seq, flight);
    }

    /// Ends a write that is done, or that everyone refused alike.
    pub(crate) fn settle(&mut self, now: Micros, chunk: ChunkId, seq: Seq, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let Some(lead) = replica.lead.as_mut() else { return };
        let Some(flight) = lead.flights.get(&seq) else { return };
        if let Some(status) = flight.refused_by_all() {
            return self.abandon(now, chunk, seq, status, out);
        }
        if let Some(fault) = flight.refused_here()
            && flight.acks.iter().any(|ack| ack.state == AckState::Acked)
        {
            // Others have what this replica lacks: they go on without it.
            return self.fail_replica(chunk, fault, out);
        }
        if !flight.is_done() {
            return;
        }
        let Some(flight) = lead.flights.remove(&seq) else { return };
        let committed = lead.committed();
        let owed = committed > lead.told;
        replica.commit(committed);
        let zeroed = flight.meta.kind == dfs_proto::chunk::ForwardKind::Zero;
        // Without lease or confirmation others may have gone on without us; the retry finds the op.
        let serving = !self.stopped && self.lease.is_valid(now) && replica.standing == Standing::Active;
        let reply = match (serving, zeroed) {
            (true, true) => Reply::Done,
            (true, false) => Reply::Written { chunk, seq, cut: None },
            (false, _) => Reply::Failed(Status::NotServing),
        };
        for call in flight.calls {
            answer(call, reply.clone(), out);
        }
        if owed && replica.members.len() > 1 {
            self.owe_commit(now, chunk);
        }
        self.advance(now, chunk, out);
    }

    fn owe_commit(&mut self, now: Micros, chunk: ChunkId) {
        if self.owed_commits.is_empty() {
            self.timers.add(Micros(now.0 + COMMIT_DELAY_US), Timer::Committed);
        }
        self.owed_commits.insert(chunk);
    }

    /// Gives a write up that took effect nowhere.
    fn abandon(&mut self, now: Micros, chunk: ChunkId, seq: Seq, status: Status, out: &mut Vec<Effect>) {
        let flight = self
            .replicas
            .get_mut(&chunk)
            .and_then(|replica| replica.lead.as_mut())
            .and_then(|lead| lead.flights.remove(&seq));
        for call in flight.into_iter().flat_map(|flight| flight.calls) {
            refuse(call, status, out);
        }
        self.advance(now, chunk, out);
    }

    /// Lets on whoever waited for blocks that are free now.
    pub(crate) fn advance(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        loop {
            let Some(replica) = self.replicas.get_mut(&chunk) else { return };
            let Some(next) = replica.lead.as_mut().and_then(|lead| lead.next_runnable()) else { break };
            match next {
                Waiting::Write { calls, meta, payload, blocks } => {
                    self.begin_write(now, Beginning { meta: *meta, payload, blocks, calls }, out);
                }
                Waiting::Zero { call, offset, size_epoch, blocks } => {
                    self.begin_zero(chunk, call, offset, size_epoch, blocks, out);
                }
                Waiting::Fill { blocks, part } => self.fill_locked(now, chunk, part, blocks, out),
            }
        }
        if let Some(replica) = self.replicas.get_mut(&chunk) {
            wake_reads(replica, out);
        }
        self.start_mending(now, chunk, false, out);
    }

    /// Tells secondaries what is committed and no FORWARD has told them.
    pub(crate) fn tell_committed(&mut self, out: &mut Vec<Effect>) {
        let Some(me) = self.me() else { return };
        let mut told: BTreeMap<Member, Vec<_>> = BTreeMap::new();
        for chunk in std::mem::take(&mut self.owed_commits) {
            let Some(replica) = self.replicas.get_mut(&chunk).filter(|replica| replica.takes_part()) else {
                continue;
            };
            let entry = (chunk, replica.version, replica.committed);
            let Some(lead) = replica.lead.as_mut().filter(|lead| lead.told < entry.2) else { continue };
            lead.told = entry.2;
            for &member in replica.members.iter().filter(|member| **member != me) {
                told.entry(member).or_default().push(entry);
            }
        }
        out.extend(told.into_iter().map(|(to, chunks)| Effect::Committed { to, chunks }));
    }

    pub(crate) fn suspect(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        member: Member,
        what: Suspicion,
        out: &mut Vec<Effect>,
    ) {
        self.suspect_of(now, [chunk].into_iter(), member, what, out);
    }

    /// The same of several chunks.
    pub(crate) fn suspect_of(
        &mut self,
        now: Micros,
        chunks: impl Iterator<Item = ChunkId>,
        member: Member,
        what: Suspicion,
        out: &mut Vec<Effect>,
    ) {
        let Member { server, boot } = member;
        let report = |chunk| SuspectReport { server, boot, chunk: Some(chunk), what };
        let reports: Vec<SuspectReport> = chunks.map(report).collect();
        for chunk in reports.iter().filter_map(|report| report.chunk) {
            self.remind_later(now, chunk);
        }
        if !reports.is_empty() {
            out.push(Effect::Trouble(ReportTrouble { reports, failed: Vec::new() }));
        }
    }

    pub(crate) fn remind_later(&mut self, now: Micros, chunk: ChunkId) {
        if self.reminding.insert(chunk) {
            self.timers.add(now.plus_ms(REMIND_MS), Timer::Remind { chunk });
        }
    }

    /// Tells the master again of members that hold a chunk's writes up.
    pub(crate) fn remind(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        self.reminding.remove(&chunk);
        self.remind_learner(now, chunk, out);
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let Some(lead) = replica.lead.as_ref() else { return };
        let stuck = lead.flights.values().flat_map(|flight| flight.acks.iter()).find(|ack| match ack.state {
            AckState::Again { tries, .. } | AckState::Sent { tries } => tries > 1,
            AckState::Refused(_) => true,
            AckState::Acked => false,
        });
        if let Some(member) = stuck.map(|ack| ack.member) {
            self.suspect(now, chunk, member, Suspicion::Silent, out);
        }
    }

    /// Ends this server's part as a primary: whatever waits is answered `status`. The disk may still be at
    /// work; what it applies counts in FENCE's answer.
    pub(crate) fn step_down(&mut self, chunk: ChunkId, status: Status, out: &mut Vec<Effect>) {
        self.stop_pulling(chunk, status, out);
        let Some(lead) = self.replicas.get_mut(&chunk).and_then(|replica| replica.lead.take()) else {
            return;
        };
        let Lead { flights, queue, parked, .. } = *lead;
        let mut calls: Vec<CallToken> = flights.into_values().flat_map(|flight| flight.calls).collect();
        for waiting in queue {
            match waiting {
                Waiting::Write { calls: waited, .. } => calls.extend(waited),
                Waiting::Zero { call, .. } => calls.push(call),
                Waiting::Fill { .. } => {}
            }
        }
        for call in calls {
            refuse(call, status, out);
        }
        out.extend(parked.into_iter().map(|(call, _)| Effect::RetryRead { call }));
    }

    /// The members changed under the same version: writes wait for no one who left. A member is its server
    /// here: one that comes with another boot has not left, and owes its answer until a recovery (I4).
    pub(crate) fn members_changed(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let members = replica.members.clone();
        let Some(lead) = replica.lead.as_mut() else { return };
        let learner = lead.fill.as_ref().filter(|fill| fill.takes_writes()).map(|fill| fill.learner);
        // Who is new has not heard what is committed.
        lead.told = Seq(0);
        for flight in lead.flights.values_mut() {
            flight.acks.retain_mut(|ack| {
                let member = members.iter().find(|member| member.server == ack.member.server);
                if let Some(member) = member {
                    ack.member = *member;
                }
                member.is_some() || learner == Some(ack.member)
            });
        }
        let seqs: Vec<Seq> = lead.flights.keys().copied().collect();
        for seq in seqs {
            self.settle(now, chunk, seq, out);
        }
        if members.len() > 1 {
            self.owe_commit(now, chunk);
        }
    }
}

fn again(now: Micros, tries: u32, why: Option<Status>) -> AckState {
    let pause = RESEND_MIN_MS.saturating_mul(1 << tries.min(16)).min(RESEND_MAX_MS);
    AckState::Again { tries, at: now.plus_ms(pause), why }
}

/// Refusals that a short wait may end: the member does not know the config yet, has too much to do, its disk is
/// full, the bytes were damaged on the way, or a block there is damaged and will be mended.
fn is_passing(status: Status) -> bool {
    matches!(
        status,
        Status::NotServing
            | Status::Recovering
            | Status::Overloaded
            | Status::NoSpace
            | Status::BadChecksum
            | Status::Corrupt
            | Status::Deadline
    )
}

/// What the master is told at an answer: silence at once, for it judges by its own lease; "not yet" only
/// when it lasts. A member whose replica failed reports that itself.
fn suspicion(reply: &PeerAnswer, tries: u32) -> Option<Suspicion> {
    match reply {
        PeerAnswer::Ok | PeerAnswer::Compared(_) | PeerAnswer::Stock { .. } | PeerAnswer::Synced { .. } => {
            None
        }
        PeerAnswer::Dead => Some(Suspicion::RefusedUnix),
        PeerAnswer::Silent => Some(Suspicion::Silent),
        PeerAnswer::Refused(status) if is_passing(*status) && tries < PATIENT_TRIES => None,
        // It knows a newer version: the news is on its way to us as well.
        PeerAnswer::Refused(Status::WrongChunkVersion) => None,
        PeerAnswer::Refused(_) => Some(Suspicion::Silent),
    }
}

#[expect(clippy::too_many_arguments, reason = "borrows of one core's parts, called twice")]
fn send(
    work: &mut Work,
    lead: &Lead,
    to: Member,
    meta: &ForwardMeta,
    payload: &Bytes,
    members: &[Member],
    committed: Seq,
    out: &mut Vec<Effect>,
) {
    let unmade = lead.unmade.contains(&to.server);
    let create = if unmade { members.to_vec() } else { Vec::new() };
    let note = meta.note.as_ref().filter(|_| unmade).cloned();
    let id = FlightId { chunk: meta.chunk, version: meta.version, seq: meta.seq };
    let peer = PeerWork::Flight { id, server: to.server };
    let meta = ForwardMeta { committed, create, note, ..meta.clone() };
    work.forward(to, peer, meta, payload.clone(), out);
}
