//! Filling a learner at the primary while writes go on (section 10). It gets every new write from the start;
//! what was there before is compared part by part with what the learner started from (`part`), and what differs is
//! copied: by the learner, from all members at once, and what it did not get by the primary. Then it syncs, and with
//! all blocks locked for a moment it gets the op table and its digest is compared. From then on the primary
//! acknowledges nothing without it until the master has answered.
//!
//! It opens and closes with FORWARDs of kind Zero whose `create` names the learner alone: no client's write
//! looks like that.

mod part;

use bytes::Bytes;
use dfs_proto::chunk::{ForwardKind, ForwardMeta, ForwardSyncChunk, Given, Member, Range};
use dfs_proto::control::{AddLearner, LearnerReady, OpRecord};
use dfs_proto::ids::{BootId, ChunkId, OpId, Seq, SessionId};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::{BLOCK_SIZE, Micros};

use crate::core::fill::part::Part;
use crate::core::io::{CallToken, DiskDone, DiskOp, Effect, PeerAnswer, Reply};
use crate::core::lead::{Lead, Waiting};
use crate::core::read::check_standing;
use crate::core::replica::{Blocks, Replica};
use crate::core::work::{DiskWork, FillId, PeerWork};
use crate::core::{Core, answer, refuse};

#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) learner: Member,
    attempt: u64,
    stage: Stage,
    /// Where the next part begins.
    next: u32,
    /// Parts under way.
    parts: Vec<Part>,
    /// No write may change anything now.
    locked: bool,
    /// Messages on their way that concern no part.
    waits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The learner makes room.
    Beginning,
    /// Parts are compared and copied.
    Copying,
    /// The learner syncs what it has.
    Syncing,
    /// Waits for all blocks.
    Closing,
    /// Everything is locked; the op table is sent and digests are fetched.
    Comparing { ours: Option<u128>, theirs: Option<u128> },
    /// The master has it.
    Ready,
    /// It is a member, as soon as the config that says so arrives.
    Taken,
}

impl Fill {
    /// Whether new writes go to the learner.
    pub(crate) fn takes_writes(&self) -> bool {
        self.stage != Stage::Beginning
    }

    /// Whether no write may change these blocks now.
    pub(crate) fn locks(&self, blocks: &Blocks) -> bool {
        self.locked || self.parts.iter().any(|part| part.locks(blocks))
    }

    /// Only the master drops it now.
    fn is_reported(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Taken)
    }

    /// The learner once it has everything: syncs wait for it.
    pub(crate) fn mandatory(&self) -> Option<Member> {
        match self.stage {
            Stage::Beginning | Stage::Copying => None,
            Stage::Syncing | Stage::Closing | Stage::Comparing { .. } | Stage::Ready | Stage::Taken => {
                Some(self.learner)
            }
        }
    }
}

impl Core {
    pub(crate) fn add_learner(
        &mut self,
        now: Micros,
        call: CallToken,
        body: &AddLearner,
        out: &mut Vec<Effect>,
    ) {
        if let Err(status) = self.admit_learner(now, body) {
            return refuse(call, status, out);
        }
        let Some(replica) = self.replicas.get_mut(&body.chunk) else {
            return refuse(call, Status::NoChunk, out);
        };
        let seq = replica.applied.highest();
        let lead = replica.lead.get_or_insert_with(|| Box::new(Lead::starting_at(seq)));
        match &mut lead.fill {
            Some(fill) if fill.learner == body.learner => {
                // What it was told of an answer before is not so any more.
                if fill.is_reported() {
                    fill.stage = Stage::Ready;
                    self.report_learner(now, body.chunk, out);
                }
                return answer(call, Reply::Done, out);
            }
            Some(_) => return refuse(call, Status::Busy, out),
            None => {}
        }
        let attempt = self.work.number();
        lead.fill = Some(Fill {
            learner: body.learner,
            attempt,
            stage: Stage::Beginning,
            next: 0,
            parts: Vec::new(),
            locked: false,
            waits: 1,
        });
        let meta = opening(replica, None);
        let work = PeerWork::Fill(FillId { chunk: body.chunk, attempt, part: None });
        let meta = ForwardMeta { create: vec![body.learner], ..meta };
        self.work.forward(body.learner, work, meta, Bytes::new(), out);
        answer(call, Reply::Done, out);
    }

    fn admit_learner(&mut self, now: Micros, body: &AddLearner) -> Result<(), Status> {
        self.obey_while_serving(now, body.term)?;
        let me = self.me().ok_or(Status::NotServing)?;
        let replica = self.replicas.get(&body.chunk).ok_or(Status::NoChunk)?;
        check_standing(replica, body.version)?;
        if !replica.is_primary(me.server) {
            return Err(Status::Redirect);
        }
        if body.config > replica.config {
            return Err(Status::Recovering);
        }
        if replica.members.iter().any(|member| member.server == body.learner.server) {
            return Err(Status::Exists);
        }
        Ok(())
    }

    /// The learner answered a message of the fill, or did not.
    pub(crate) fn fill_answered(
        &mut self,
        now: Micros,
        id: FillId,
        reply: &PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        if let Some(part) = id.part {
            return self.part_answered(now, id, part, reply, out);
        }
        let Some(fill) = self.fill_of(id) else { return };
        let (good, digest) = match reply {
            PeerAnswer::Ok => (true, None),
            PeerAnswer::Synced { results, digest } => {
                (results.iter().all(|status| *status == Status::Ok), *digest)
            }
            PeerAnswer::Compared(_)
            | PeerAnswer::Stock { .. }
            | PeerAnswer::Refused(_)
            | PeerAnswer::Silent
            | PeerAnswer::Dead => (false, None),
        };
        if !good {
            return self.end_fill(now, id.chunk, out);
        }
        fill.waits = fill.waits.saturating_sub(1);
        if let Stage::Comparing { theirs, .. } = &mut fill.stage {
            *theirs = theirs.or(digest);
        }
        if fill.waits > 0 {
            return;
        }
        match fill.stage {
            Stage::Beginning => self.start_copying(now, id.chunk, out),
            Stage::Syncing => self.close_fill(now, id.chunk, out),
            Stage::Comparing { .. } => self.compare(now, id.chunk, out),
            Stage::Copying | Stage::Closing | Stage::Ready | Stage::Taken => {}
        }
    }

    /// The fill that `id` names, if it is still under way.
    fn fill_of(&mut self, id: FillId) -> Option<&mut Fill> {
        self.any_fill(id.chunk).filter(|fill| fill.attempt == id.attempt)
    }

    fn any_fill(&mut self, chunk: ChunkId) -> Option<&mut Fill> {
        self.replicas.get_mut(&chunk)?.lead.as_mut()?.fill.as_mut()
    }

    fn start_copying(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let chunk_size = self.chunk_size;
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let made = replica.made;
        let Some(fill) = replica.lead.as_mut().and_then(|lead| lead.fill.as_mut()) else { return };
        fill.stage = Stage::Copying;
        if !made || planted!(LearnerUnfilled) {
            fill.next = chunk_size;
        }
        self.next_parts(now, chunk, out);
    }

    /// Every part is copied.
    fn all_copied(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(fill) = self.any_fill(chunk) else { return };
        fill.stage = Stage::Syncing;
        fill.waits = 1;
        self.sync_learner(chunk, false, out);
    }

    fn close_fill(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(fill) = self.any_fill(chunk) else { return };
        fill.stage = Stage::Closing;
        self.lock_for_fill(now, chunk, None, Blocks::all(), out);
    }

    fn lock_for_fill(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        part: Option<u32>,
        blocks: Blocks,
        out: &mut Vec<Effect>,
    ) {
        let Some(lead) = self.replicas.get_mut(&chunk).and_then(|replica| replica.lead.as_mut()) else {
            return;
        };
        if lead.must_wait(&blocks) {
            lead.queue.push_back(Waiting::Fill { blocks, part });
        } else {
            self.fill_locked(now, chunk, part, blocks, out);
        }
    }

    /// The fill has the blocks that it asked for.
    pub(crate) fn fill_locked(
        &mut self,
        _now: Micros,
        chunk: ChunkId,
        part: Option<u32>,
        blocks: Blocks,
        out: &mut Vec<Effect>,
    ) {
        if let Some(part) = part {
            return self.part_locked(chunk, part, blocks, out);
        }
        let Some(fill) = self.any_fill(chunk).filter(|fill| fill.stage == Stage::Closing) else { return };
        fill.locked = true;
        fill.stage = Stage::Comparing { ours: None, theirs: None };
        self.start_comparing(chunk, out);
    }

    fn sync_learner(&mut self, chunk: ChunkId, digest: bool, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let Some(fill) = replica.lead.as_ref().and_then(|lead| lead.fill.as_ref()) else { return };
        let ask = ForwardSyncChunk {
            chunk,
            version: replica.version,
            config: replica.config,
            seq: replica.applied.highest(),
            to: fill.learner.boot,
        };
        let work = PeerWork::Fill(FillId { chunk, attempt: fill.attempt, part: None });
        self.work.sync(fill.learner, work, vec![ask], digest, out);
    }

    /// No write is under way: the op table travels, and both digests are asked for.
    fn start_comparing(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let records = replica.ops.records();
        let Some(fill) = replica.lead.as_mut().and_then(|lead| lead.fill.as_mut()) else { return };
        let (learner, id) = (fill.learner, FillId { chunk, attempt: fill.attempt, part: None });
        fill.waits = u32::try_from(records.len()).unwrap_or(u32::MAX).saturating_add(1);
        let Some(replica) = self.replicas.get(&chunk) else { return };
        for record in records {
            let meta = ForwardMeta { create: vec![learner], ..opening(replica, Some(record)) };
            self.work.forward(learner, PeerWork::Fill(id), meta, Bytes::new(), out);
        }
        self.work.disk(replica.disk, DiskWork::FillDigest(id), DiskOp::Digest { chunk }, out);
        self.sync_learner(chunk, true, out);
    }

    /// The own digest is here.
    pub(crate) fn fill_digest(&mut self, now: Micros, id: FillId, done: &DiskDone, out: &mut Vec<Effect>) {
        let Some(fill) = self.fill_of(id) else { return };
        match (done, &mut fill.stage) {
            (DiskDone::Digest(digest), Stage::Comparing { ours, .. }) => {
                *ours = Some(*digest);
                self.compare(now, id.chunk, out);
            }
            _ => self.end_fill(now, id.chunk, out),
        }
    }

    fn compare(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(fill) = self.any_fill(chunk) else { return };
        let Stage::Comparing { ours: Some(ours), theirs } = fill.stage else { return };
        if fill.waits > 0 {
            return;
        }
        if theirs != Some(ours) && !planted!(LearnerUnfilled) {
            return self.end_fill(now, chunk, out);
        }
        fill.stage = Stage::Ready;
        fill.locked = false;
        self.report_learner(now, chunk, out);
        self.advance(now, chunk, out);
    }

    fn report_learner(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let Some(fill) = replica.lead.as_ref().and_then(|lead| lead.fill.as_ref()) else { return };
        out.push(Effect::LearnerReady(ready(replica, fill.learner, true)));
        self.remind_later(now, chunk);
    }

    /// Reports a learner again that the master has not answered for.
    pub(crate) fn remind_learner(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        if self.any_fill(chunk).is_some_and(|fill| fill.stage == Stage::Ready) {
            self.report_learner(now, chunk, out);
        }
    }

    /// The master's word on a report. Another than of the fill that is here came late.
    pub(crate) fn learner_judged(
        &mut self,
        now: Micros,
        report: &LearnerReady,
        status: Status,
        out: &mut Vec<Effect>,
    ) {
        let chunk = report.chunk;
        let config = self.replicas.get(&chunk).map(|replica| replica.config);
        let fill = self
            .any_fill(chunk)
            .filter(|fill| report.ready && fill.learner == report.learner && config == Some(report.config));
        let Some(fill) = fill.filter(|fill| fill.stage == Stage::Ready) else { return };
        match status {
            // A report that was sent again is of no more use, whatever its answer.
            Status::Ok => fill.stage = Stage::Taken,
            Status::NoChunk
            | Status::WrongChunkVersion
            | Status::Invalid
            | Status::Exists
            | Status::NotFound => self.drop_fill(now, chunk, out),
            // It is asked again.
            _ => {}
        }
    }

    /// Gives a learner up, if that harms nobody. True when it did.
    pub(crate) fn learner_failed(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        member: Member,
        out: &mut Vec<Effect>,
    ) -> bool {
        let ours = self.any_fill(chunk).is_some_and(|fill| fill.learner == member && !fill.is_reported());
        if ours {
            self.end_fill(now, chunk, out);
        }
        ours
    }

    /// The fill failed; the master may begin another.
    fn end_fill(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let Some(fill) = replica.lead.as_ref().and_then(|lead| lead.fill.as_ref()) else { return };
        out.push(Effect::LearnerReady(ready(replica, fill.learner, false)));
        self.drop_fill(now, chunk, out);
    }

    fn drop_fill(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        if let Some(lead) = self.replicas.get_mut(&chunk).and_then(|replica| replica.lead.as_mut()) {
            lead.fill = None;
            lead.queue.retain(|waiting| !matches!(waiting, Waiting::Fill { .. }));
        }
        self.members_changed(now, chunk, out);
        self.advance(now, chunk, out);
    }
}

fn ready(replica: &Replica, learner: Member, ready: bool) -> LearnerReady {
    LearnerReady { chunk: replica.chunk, version: replica.version, config: replica.config, learner, ready }
}

/// A message of the fill, with one record of the op table if there is one, its size epoch in `done`. Other messages of
/// a primary about what it had already begin with it, too.
pub(crate) fn opening(replica: &Replica, record: Option<OpRecord>) -> ForwardMeta {
    let last = replica.lead.as_ref().map_or(replica.applied.highest(), |lead| lead.last);
    let (session, op, done, seq) = record.map_or((SessionId(0), OpId(0), OpId(0), last), |record| {
        (record.session, record.op, OpId(record.size_epoch.0.into()), record.seq)
    });
    ForwardMeta {
        kind: ForwardKind::Zero,
        chunk: replica.chunk,
        session,
        ino: replica.ino,
        index: replica.index,
        op,
        done,
        seq,
        committed: Seq(0),
        to: BootId(0),
        version: replica.version,
        config: replica.config,
        open_num: replica.open_num,
        size_epoch: replica.size_epoch,
        ranges: vec![Range { offset: 0, len: BLOCK_SIZE }],
        crcs: Vec::new(),
        create: Vec::new(),
        note: None,
        given: Given::default(),
    }
}
