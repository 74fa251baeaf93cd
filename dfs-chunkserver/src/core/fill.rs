//! Filling a learner at the primary while writes go on (section 10). It gets every new write from the start;
//! what was there before is compared piece by piece with what the learner started from, each under a lock of
//! its blocks, and the blocks that differ are copied. Then it syncs, and with
//! all blocks locked for a moment it gets the op table and its digest is compared. From then on the primary
//! acknowledges nothing without it until the master has answered.
//!
//! It opens and closes with FORWARDs of kind Zero whose `create` names the learner alone: no client's write
//! looks like that.

use bytes::Bytes;
use dfs_proto::checksum::{Crc, HOLE, entry_of};
use dfs_proto::chunk::{ForwardKind, ForwardMeta, ForwardSyncChunk, Given, Member, Range};
use dfs_proto::control::{AddLearner, LearnerReady, OpRecord};
use dfs_proto::ids::{BootId, ChunkId, ChunkVersion, OpId, Seq, SessionId};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::{BLOCK_SIZE, IO_MAX, Micros};

use crate::core::io::{BlockRun, CallToken, DiskDone, DiskOp, Effect, PeerAnswer, Reply};
use crate::core::lead::{Lead, Waiting};
use crate::core::read::check_standing;
use crate::core::replica::{Blocks, Replica};
use crate::core::work::{DiskWork, PeerWork};
use crate::core::{Core, answer, refuse};

#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) learner: Member,
    /// Blocks that no write may change now.
    pub(crate) locked: Option<Blocks>,
    stage: Stage,
    /// Everything below was copied.
    copied: u32,
    /// Messages on their way.
    waits: u32,
    /// The piece that the learner compares with what it has.
    piece: Vec<BlockRun>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The learner makes room.
    Beginning,
    /// Waits for a piece's blocks.
    Locking,
    Reading,
    /// The learner compares.
    Asking,
    Sending,
    /// The learner syncs what it has.
    Syncing,
    /// Waits for all blocks.
    Closing,
    /// Everything is locked; the op table is sent and digests are fetched.
    Comparing {
        ours: Option<u128>,
        theirs: Option<u128>,
    },
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

    /// Only the master drops it now.
    fn is_reported(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Taken)
    }

    /// The learner once it has everything: syncs wait for it.
    pub(crate) fn mandatory(&self) -> Option<Member> {
        match self.stage {
            Stage::Beginning | Stage::Locking | Stage::Reading | Stage::Asking | Stage::Sending => None,
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
        let fill = Fill {
            learner: body.learner,
            locked: None,
            stage: Stage::Beginning,
            copied: 0,
            waits: 1,
            piece: Vec::new(),
        };
        lead.fill = Some(fill);
        let meta = opening(replica, None);
        let work = PeerWork::Fill { chunk: body.chunk, version: replica.version };
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
        chunk: ChunkId,
        version: ChunkVersion,
        reply: &PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let Some(fill) = self.fill_of(chunk, version) else { return };
        let (good, digest) = match reply {
            PeerAnswer::Compared(bits) if fill.stage == Stage::Asking => {
                return self.send_differing(now, chunk, version, bits, out);
            }
            PeerAnswer::Ok => (fill.stage != Stage::Asking, None),
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
            return self.end_fill(now, chunk, out);
        }
        fill.waits = fill.waits.saturating_sub(1);
        if let Stage::Comparing { theirs, .. } = &mut fill.stage {
            *theirs = theirs.or(digest);
        }
        if fill.waits > 0 {
            return;
        }
        match fill.stage {
            Stage::Beginning => self.next_piece(now, chunk, out),
            Stage::Sending => self.piece_done(now, chunk, out),
            Stage::Syncing => self.close_fill(now, chunk, out),
            Stage::Comparing { .. } => self.compare(now, chunk, out),
            Stage::Locking
            | Stage::Reading
            | Stage::Asking
            | Stage::Closing
            | Stage::Ready
            | Stage::Taken => {}
        }
    }

    fn fill_of(&mut self, chunk: ChunkId, version: ChunkVersion) -> Option<&mut Fill> {
        let replica = self.replicas.get_mut(&chunk).filter(|replica| replica.version == version)?;
        replica.lead.as_mut()?.fill.as_mut()
    }

    /// Asks for the blocks of the next piece, or ends the copying.
    fn next_piece(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let chunk_size = self.chunk_size;
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let made = replica.made;
        let Some(fill) = replica.lead.as_mut().and_then(|lead| lead.fill.as_mut()) else { return };
        if fill.copied >= chunk_size || !made || planted!(LearnerUnfilled) {
            fill.stage = Stage::Syncing;
            fill.waits = 1;
            return self.sync_learner(chunk, false, out);
        }
        fill.stage = Stage::Locking;
        let piece = piece(fill.copied, chunk_size);
        self.lock_for_fill(now, chunk, Blocks::of(&[piece]), out);
    }

    fn close_fill(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(fill) = self.any_fill(chunk) else { return };
        fill.stage = Stage::Closing;
        self.lock_for_fill(now, chunk, Blocks::all(), out);
    }

    fn any_fill(&mut self, chunk: ChunkId) -> Option<&mut Fill> {
        self.replicas.get_mut(&chunk)?.lead.as_mut()?.fill.as_mut()
    }

    fn lock_for_fill(&mut self, now: Micros, chunk: ChunkId, blocks: Blocks, out: &mut Vec<Effect>) {
        let Some(lead) = self.replicas.get_mut(&chunk).and_then(|replica| replica.lead.as_mut()) else {
            return;
        };
        if lead.must_wait(&blocks) {
            lead.queue.push_back(Waiting::Fill { blocks });
        } else {
            self.fill_locked(now, chunk, blocks, out);
        }
    }

    /// The fill has the blocks that it asked for.
    pub(crate) fn fill_locked(
        &mut self,
        _now: Micros,
        chunk: ChunkId,
        blocks: Blocks,
        out: &mut Vec<Effect>,
    ) {
        let chunk_size = self.chunk_size;
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let (disk, version) = (replica.disk, replica.version);
        let Some(fill) = replica.lead.as_mut().and_then(|lead| lead.fill.as_mut()) else { return };
        match fill.stage {
            Stage::Locking => {
                fill.locked = Some(blocks);
                fill.stage = Stage::Reading;
                let op = DiskOp::ReadBlocks { chunk, range: piece(fill.copied, chunk_size) };
                self.work.disk(disk, DiskWork::FillRead { chunk, version }, op, out);
            }
            Stage::Closing => {
                fill.locked = Some(blocks);
                fill.stage = Stage::Comparing { ours: None, theirs: None };
                self.start_comparing(chunk, out);
            }
            Stage::Beginning
            | Stage::Reading
            | Stage::Asking
            | Stage::Sending
            | Stage::Syncing
            | Stage::Comparing { .. }
            | Stage::Ready
            | Stage::Taken => {}
        }
    }

    /// A piece was read here: the learner is asked which of its blocks it lacks.
    pub(crate) fn fill_read(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        version: ChunkVersion,
        done: DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let runs = match done {
            DiskDone::Blocks(runs) => runs,
            DiskDone::Failed(fault) => {
                self.fault_found(now, chunk, fault, out);
                return self.end_fill(now, chunk, out);
            }
            _ => return self.end_fill(now, chunk, out),
        };
        let chunk_size = self.chunk_size;
        let Some(fill) = self.fill_of(chunk, version).filter(|fill| fill.stage == Stage::Reading) else {
            return;
        };
        fill.stage = Stage::Asking;
        fill.waits = 1;
        let range = piece(fill.copied, chunk_size);
        let crcs = entries_of(range, &runs);
        fill.piece = runs;
        let learner = fill.learner;
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let kind = ForwardKind::Compare;
        let meta = ForwardMeta { kind, ranges: vec![range], crcs, ..opening(replica, None) };
        self.work.forward(learner, PeerWork::Fill { chunk, version }, meta, Bytes::new(), out);
    }

    /// The learner has compared: what it lacks is sent. Holes it has made itself.
    fn send_differing(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        version: ChunkVersion,
        bits: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let Some(fill) = self.fill_of(chunk, version) else { return };
        let from = fill.copied;
        let differs = |offset: u32| {
            let block = (offset.saturating_sub(from) / BLOCK_SIZE) as usize;
            bits.get(block / 8).is_none_or(|byte| byte >> (block % 8) & 1 == 1)
        };
        let piece = std::mem::take(&mut fill.piece);
        let runs: Vec<BlockRun> = piece.iter().flat_map(|run| parts_of(run, differs)).collect();
        fill.stage = Stage::Sending;
        fill.waits = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        let learner = fill.learner;
        if runs.is_empty() {
            return self.piece_done(now, chunk, out);
        }
        let Some(replica) = self.replicas.get(&chunk) else { return };
        for BlockRun { range, crcs, data } in runs {
            let meta =
                ForwardMeta { kind: ForwardKind::Fill, ranges: vec![range], crcs, ..opening(replica, None) };
            self.work.forward(learner, PeerWork::Fill { chunk, version }, meta, data, out);
        }
    }

    fn piece_done(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(fill) = self.any_fill(chunk) else { return };
        fill.locked = None;
        fill.copied = fill.copied.saturating_add(IO_MAX);
        // Before others go on, so that a busy chunk's fill is not starved: its lock queues behind theirs.
        self.advance(now, chunk, out);
        self.next_piece(now, chunk, out);
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
        let work = PeerWork::Fill { chunk, version: replica.version };
        self.work.sync(fill.learner, work, vec![ask], digest, out);
    }

    /// No write is under way: the op table travels, and both digests are asked for.
    fn start_comparing(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let version = replica.version;
        let records = replica.ops.records();
        let Some(fill) = replica.lead.as_mut().and_then(|lead| lead.fill.as_mut()) else { return };
        let learner = fill.learner;
        fill.waits = u32::try_from(records.len()).unwrap_or(u32::MAX).saturating_add(1);
        let Some(replica) = self.replicas.get(&chunk) else { return };
        for record in records {
            let meta = ForwardMeta { create: vec![learner], ..opening(replica, Some(record)) };
            self.work.forward(learner, PeerWork::Fill { chunk, version }, meta, Bytes::new(), out);
        }
        self.work.disk(replica.disk, DiskWork::FillDigest { chunk, version }, DiskOp::Digest { chunk }, out);
        self.sync_learner(chunk, true, out);
    }

    /// The own digest is here.
    pub(crate) fn fill_digest(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        version: ChunkVersion,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let Some(fill) = self.fill_of(chunk, version) else { return };
        match (done, &mut fill.stage) {
            (DiskDone::Digest(digest), Stage::Comparing { ours, .. }) => {
                *ours = Some(*digest);
                self.compare(now, chunk, out);
            }
            _ => self.end_fill(now, chunk, out),
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
        fill.locked = None;
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

/// The next piece from `from`: as much as one message carries.
fn piece(from: u32, chunk_size: u32) -> Range {
    Range { offset: from, len: IO_MAX.min(chunk_size.saturating_sub(from)) }
}

/// A piece's blocks as a table of checksums has them.
fn entries_of(piece: Range, runs: &[BlockRun]) -> Vec<u32> {
    let mut entries = vec![HOLE; (piece.len / BLOCK_SIZE) as usize];
    for run in runs {
        let first = (run.range.offset.saturating_sub(piece.offset) / BLOCK_SIZE) as usize;
        for (entry, crc) in entries.iter_mut().skip(first).zip(&run.crcs) {
            *entry = entry_of(Crc(*crc));
        }
    }
    entries
}

/// The parts of a run whose blocks the learner lacks.
fn parts_of(run: &BlockRun, differs: impl Fn(u32) -> bool) -> Vec<BlockRun> {
    let offsets: Vec<u32> = (run.range.offset..run.range.end()).step_by(BLOCK_SIZE as usize).collect();
    let mut parts = Vec::new();
    let mut at = 0;
    for part in offsets.chunk_by(|left, right| differs(*left) == differs(*right)) {
        let (from, to) = (at, at + part.len());
        at = to;
        let (Some(&offset), Some(crcs)) = (part.first(), run.crcs.get(from..to)) else { continue };
        if differs(offset) {
            let block = BLOCK_SIZE as usize;
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX).saturating_mul(BLOCK_SIZE);
            let data = run.data.slice(from * block..to * block);
            parts.push(BlockRun { range: Range { offset, len }, crcs: crcs.to_vec(), data });
        }
    }
    parts
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
