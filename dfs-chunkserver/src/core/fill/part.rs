//! A part of a chunk on its way to a learner. Under a lock of its blocks the primary's table goes to the learner, which
//! says what it lacks. Of much, the learner is told where else it is, and fetches it from all members at once while
//! writes go on; what is little, what it did not get, and what a write touched meanwhile the primary sends, a piece at a
//! time under a lock of that.

use bytes::Bytes;
use dfs_proto::checksum::LOST;
use dfs_proto::chunk::{ForwardKind, ForwardMeta, Member, RANGES_MAX, Range};
use dfs_proto::ids::ChunkId;
use dfs_proto::units::{BLOCK_SIZE, IO_MAX, Micros};

use crate::core::Core;
use crate::core::fill::{Stage, opening};
use crate::core::io::{BlockRun, DiskDone, DiskFault, DiskOp, Effect, PeerAnswer};
use crate::core::replica::Blocks;
use crate::core::work::{DiskWork, FillId, PeerWork};

/// A chunk is compared in so many parts, of 4 MiB and 4 KiB of checksums as a rule.
const PARTS_OF_CHUNK: u32 = 16;
const PART_MIN: u32 = 4 * BLOCK_SIZE;
/// Parts under way, so that no link waits for an answer.
const PARTS: usize = 4;
/// Of a part so much is worth telling the learner where it is: an eighth, and more than a block.
const PULL_SHARE: u32 = 8;

#[derive(Debug)]
pub(super) struct Part {
    range: Range,
    step: Step,
    locked: Option<Blocks>,
    /// The primary's table when it was compared.
    entries: Vec<u32>,
    /// One a block: the learner lacks it.
    missing: Vec<bool>,
    /// Messages on their way.
    waits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Waits for its blocks.
    Locking,
    /// The table is looked at.
    Looking,
    /// The learner compares.
    Asking,
    /// The learner fetches from members.
    Pulling,
    /// Waits for a piece's blocks.
    LockingPiece(Range),
    Reading(Range),
    Sending(Range),
}

impl Part {
    pub(super) fn locks(&self, blocks: &Blocks) -> bool {
        self.locked.as_ref().is_some_and(|locked| locked.overlaps(blocks))
    }

    fn block_at(&self, offset: u32) -> usize {
        (offset.saturating_sub(self.range.offset) / BLOCK_SIZE) as usize
    }

    fn is_missing(&self, offset: u32) -> bool {
        self.missing.get(self.block_at(offset)).copied().unwrap_or(true)
    }

    /// Takes the learner's word for what it lacks: a bit a block of `blocks`, and what it says nothing of.
    fn take_bits(&mut self, blocks: &[usize], bits: &[u8]) {
        for (at, block) in blocks.iter().enumerate() {
            if let Some(missing) = self.missing.get_mut(*block) {
                *missing = bits.get(at / 8).is_none_or(|byte| byte >> (at % 8) & 1 == 1);
            }
        }
    }

    /// What is missing, as many ranges as a message carries.
    fn missing_ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for offset in (self.range.offset..self.range.end()).step_by(BLOCK_SIZE as usize) {
            if !self.is_missing(offset) {
                continue;
            }
            let full = ranges.len() == RANGES_MAX;
            match ranges.last_mut() {
                Some(last) if last.end() == offset => last.len += BLOCK_SIZE,
                _ if full => break,
                _ => ranges.push(Range { offset, len: BLOCK_SIZE }),
            }
        }
        ranges
    }

    /// The blocks of `ranges`, as they are counted here.
    fn blocks_in(&self, ranges: &[Range]) -> Vec<usize> {
        let offsets =
            ranges.iter().flat_map(|range| (range.offset..range.end()).step_by(BLOCK_SIZE as usize));
        offsets.map(|offset| self.block_at(offset)).collect()
    }
}

impl Core {
    /// Begins parts, as many as may be under way; behind the last one the copying is over.
    pub(super) fn next_parts(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let chunk_size = self.chunk_size;
        loop {
            let Some(fill) = self.any_fill(chunk).filter(|fill| fill.stage == Stage::Copying) else { return };
            if fill.next >= chunk_size {
                if fill.parts.is_empty() {
                    self.all_copied(chunk, out);
                }
                return;
            }
            if fill.parts.len() >= PARTS {
                return;
            }
            let range = Range { offset: fill.next, len: part_len(chunk_size).min(chunk_size - fill.next) };
            fill.next = range.end();
            let (entries, missing) = (Vec::new(), Vec::new());
            fill.parts.push(Part { range, step: Step::Locking, locked: None, entries, missing, waits: 0 });
            self.lock_for_fill(now, chunk, Some(range.offset), Blocks::of(&[range]), out);
        }
    }

    fn part_of(&mut self, id: FillId) -> Option<&mut Part> {
        let at = id.part?;
        self.fill_of(id)?.parts.iter_mut().find(|part| part.range.offset == at)
    }

    /// The part has the blocks that it asked for.
    pub(super) fn part_locked(&mut self, chunk: ChunkId, at: u32, blocks: Blocks, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let disk = replica.disk;
        let Some(fill) = replica.lead.as_mut().and_then(|lead| lead.fill.as_mut()) else { return };
        let id = FillId { chunk, attempt: fill.attempt, part: Some(at) };
        let Some(part) = fill.parts.iter_mut().find(|part| part.range.offset == at) else { return };
        let op = match part.step {
            Step::Locking => {
                part.step = Step::Looking;
                DiskOp::Table { chunk, range: part.range }
            }
            Step::LockingPiece(piece) => {
                part.step = Step::Reading(piece);
                DiskOp::ReadBlocks { chunk, range: piece }
            }
            Step::Looking | Step::Asking | Step::Pulling | Step::Reading(_) | Step::Sending(_) => return,
        };
        part.locked = Some(blocks);
        self.work.disk(disk, DiskWork::FillRead(id), op, out);
    }

    /// The own disk has answered: with the table of a part, or the bytes of a piece.
    pub(crate) fn fill_read(&mut self, now: Micros, id: FillId, done: DiskDone, out: &mut Vec<Effect>) {
        let Some(part) = self.part_of(id) else { return };
        match (done, part.step) {
            (DiskDone::Table(entries), Step::Looking) => {
                let range = part.range;
                match (range.offset / BLOCK_SIZE..).zip(&entries).find(|(_, entry)| **entry == LOST) {
                    Some((block, _)) => {
                        self.fault_found(now, id.chunk, DiskFault::Corrupt { block }, out);
                        self.end_fill(now, id.chunk, out);
                    }
                    None => {
                        part.entries.clone_from(&entries);
                        part.step = Step::Asking;
                        self.ask(id, ForwardKind::Compare, vec![range], entries, out);
                    }
                }
            }
            (DiskDone::Blocks(runs), Step::Reading(piece)) => self.send_piece(now, id, piece, &runs, out),
            (DiskDone::Failed(fault), _) => {
                self.fault_found(now, id.chunk, fault, out);
                self.end_fill(now, id.chunk, out);
            }
            _ => self.end_fill(now, id.chunk, out),
        }
    }

    /// Sends the learner what is there in `ranges`.
    fn ask(
        &mut self,
        id: FillId,
        kind: ForwardKind,
        ranges: Vec<Range>,
        crcs: Vec<u32>,
        out: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get(&id.chunk) else { return };
        let Some(fill) = replica.lead.as_ref().and_then(|lead| lead.fill.as_ref()) else { return };
        let create: Vec<Member> =
            if kind == ForwardKind::Pull { replica.members.clone() } else { Vec::new() };
        let meta = ForwardMeta { kind, ranges, crcs, create, ..opening(replica, None) };
        self.work.forward(fill.learner, PeerWork::Fill(id), meta, Bytes::new(), out);
    }

    /// The learner answered for a part, or did not.
    pub(super) fn part_answered(
        &mut self,
        now: Micros,
        id: FillId,
        at: u32,
        reply: &PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let Some(part) = self.part_of(id) else { return };
        match (reply, part.step) {
            (PeerAnswer::Compared(bits), Step::Asking) => {
                part.missing = vec![true; part.entries.len()];
                let all: Vec<usize> = (0..part.missing.len()).collect();
                part.take_bits(&all, bits);
                part.locked = None;
                self.advance(now, id.chunk, out);
                self.pull(now, id, at, out);
            }
            (PeerAnswer::Compared(bits), Step::Pulling) => {
                let blocks = part.blocks_in(&part.missing_ranges());
                part.take_bits(&blocks, bits);
                self.next_piece(now, id, at, out);
            }
            (PeerAnswer::Ok, Step::Sending(piece)) => {
                part.waits = part.waits.saturating_sub(1);
                if part.waits == 0 {
                    self.piece_done(now, id, at, piece, out);
                }
            }
            _ => self.end_fill(now, id.chunk, out),
        }
    }

    /// Has the learner fetch what it lacks, if that is much.
    fn pull(&mut self, now: Micros, id: FillId, at: u32, out: &mut Vec<Effect>) {
        let Some(part) = self.part_of(id) else { return };
        let ranges = part.missing_ranges();
        let lacks: u32 = ranges.iter().map(|range| range.len).sum();
        if lacks <= BLOCK_SIZE || lacks < part.range.len / PULL_SHARE {
            return self.next_piece(now, id, at, out);
        }
        part.step = Step::Pulling;
        let blocks = part.blocks_in(&ranges);
        let entries = blocks.iter().filter_map(|block| part.entries.get(*block).copied()).collect();
        self.ask(id, ForwardKind::Pull, ranges, entries, out);
    }

    /// Asks for the blocks of the next piece that has something to send; behind the last one the part is done.
    fn next_piece(&mut self, now: Micros, id: FillId, at: u32, out: &mut Vec<Effect>) {
        let Some(part) = self.part_of(id) else { return };
        let mut offsets = (part.range.offset..part.range.end()).step_by(BLOCK_SIZE as usize);
        match offsets.find(|offset| part.is_missing(*offset)) {
            Some(offset) => {
                let piece = Range { offset, len: IO_MAX.min(part.range.end().saturating_sub(offset)) };
                part.step = Step::LockingPiece(piece);
                self.lock_for_fill(now, id.chunk, Some(at), Blocks::of(&[piece]), out);
            }
            None => {
                if let Some(fill) = self.fill_of(id) {
                    fill.parts.retain(|part| part.range.offset != at);
                }
                self.next_parts(now, id.chunk, out);
            }
        }
    }

    /// A piece was read here: what of it the learner lacks is sent. Where there are holes by now, it has made them with the
    /// writes that made them here.
    fn send_piece(
        &mut self,
        now: Micros,
        id: FillId,
        piece: Range,
        runs: &[BlockRun],
        out: &mut Vec<Effect>,
    ) {
        let Some(part) = self.part_of(id) else { return };
        let lacks = |offset: u32| part.is_missing(offset);
        let runs: Vec<BlockRun> = runs.iter().flat_map(|run| parts_of(run, lacks)).collect();
        part.step = Step::Sending(piece);
        part.waits = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        let at = part.range.offset;
        if runs.is_empty() {
            return self.piece_done(now, id, at, piece, out);
        }
        let Some(replica) = self.replicas.get(&id.chunk) else { return };
        let Some(fill) = replica.lead.as_ref().and_then(|lead| lead.fill.as_ref()) else { return };
        for BlockRun { range, crcs, data } in runs {
            let meta =
                ForwardMeta { kind: ForwardKind::Fill, ranges: vec![range], crcs, ..opening(replica, None) };
            self.work.forward(fill.learner, PeerWork::Fill(id), meta, data, out);
        }
    }

    fn piece_done(&mut self, now: Micros, id: FillId, at: u32, piece: Range, out: &mut Vec<Effect>) {
        let Some(part) = self.part_of(id) else { return };
        part.locked = None;
        for block in part.blocks_in(&[piece]) {
            part.missing[block] = false;
        }
        // Before others go on, so that a busy chunk's fill is not starved: its lock queues behind theirs.
        self.advance(now, id.chunk, out);
        self.next_piece(now, id, at, out);
    }
}

fn part_len(chunk_size: u32) -> u32 {
    (chunk_size / PARTS_OF_CHUNK).max(PART_MIN)
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
