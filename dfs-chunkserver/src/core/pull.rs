//! A learner's fetching: what its primary told it to have, it takes from all members that have it, as many pieces at once
//! as keep their links busy, and keeps only blocks that are what the primary's table said. Writes go on meanwhile: what one
//! of them touches is left to the primary, and one that meets bytes on their way to the disk waits for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use dfs_proto::checksum::{HOLE, LOST};
use dfs_proto::chunk::{ForwardKind, ForwardMeta, Member, Range};
use dfs_proto::ids::ChunkId;
use dfs_proto::status::Status;
use dfs_proto::units::{BLOCK_SIZE, Micros};

use crate::core::fill::opening;
use crate::core::io::{CallToken, DiskDone, DiskFault, DiskOp, Effect, PeerAnswer, Reply};
use crate::core::learner::bits_of;
use crate::core::replica::{Blocks, Standing};
use crate::core::work::{DiskWork, PeerWork, Pulled};
use crate::core::{Core, answer, charge, refuse};

/// A chunk is fetched in so many pieces, of 512 KiB as a rule.
const FETCHES_OF_CHUNK: u32 = 128;
/// Fetches that a member has at once: enough for a link of 1 Gbit/s and 16 ms.
const FETCHES: usize = 4;

/// What a learner has under way.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    /// Blocks that writes have touched since they were compared.
    written: BTreeSet<u32>,
    /// Told by the primary, and not answered.
    pulls: BTreeMap<u64, Pull>,
    /// Pieces that somebody has to be asked for.
    todo: VecDeque<Pulled>,
    sources: Vec<Source>,
    /// Pieces that the disk is writing.
    writing: Vec<(Pulled, Blocks)>,
    /// Writes that wait for them.
    held: Vec<(CallToken, ForwardMeta, Bytes)>,
}

/// One message of the primary.
#[derive(Debug)]
struct Pull {
    call: CallToken,
    /// The blocks asked for, and what the primary's table says of each.
    entries: BTreeMap<u32, u32>,
    got: BTreeSet<u32>,
    /// Pieces that are not done with.
    left: usize,
}

#[derive(Debug)]
struct Source {
    member: Member,
    asked: usize,
    /// It did not answer, or had nothing.
    failed: bool,
}

impl Filling {
    /// Whether pulled bytes of these blocks are on their way to the disk.
    pub(crate) fn is_writing(&self, blocks: &Blocks) -> bool {
        self.writing.iter().any(|(_, writing)| writing.overlaps(blocks))
    }

    /// Keeps a write until they are there.
    pub(crate) fn hold(&mut self, call: CallToken, meta: ForwardMeta, payload: Bytes) {
        self.held.push((call, meta, payload));
    }

    /// A write touches these blocks.
    pub(crate) fn written(&mut self, blocks: &Blocks) {
        self.written.extend(blocks.each());
    }

    /// They are compared anew, under the primary's lock.
    pub(crate) fn compared(&mut self, range: Range) {
        let blocks = range.offset / BLOCK_SIZE..range.end() / BLOCK_SIZE;
        self.written.retain(|block| !blocks.contains(block));
    }

    /// The member that is asked next for a piece: of those with room that were not asked the one that has least to do. `None`
    /// when no one is left, a number when one has room.
    fn next_source(&self, tried: u32) -> Option<Option<usize>> {
        let left = || {
            let open = |(at, source): &(usize, &Source)| !source.failed && tried & bit(*at) == 0;
            self.sources.iter().enumerate().filter(open)
        };
        left().next()?;
        let free = left().filter(|(_, source)| source.asked < FETCHES);
        Some(free.min_by_key(|(_, source)| source.asked).map(|(at, _)| at))
    }

    /// Whether something of a piece is neither here nor left to the primary.
    fn lacks(&self, pulled: Pulled) -> bool {
        let blocks = pulled.range.offset / BLOCK_SIZE..pulled.range.end() / BLOCK_SIZE;
        self.pulls.get(&pulled.pull).is_some_and(|pull| {
            blocks.into_iter().any(|block| !pull.got.contains(&block) && !self.written.contains(&block))
        })
    }

    /// The parts of what a member has that are wanted, and their bytes.
    fn wanted(&self, pulled: Pulled, entries: &[u32], data: &Bytes) -> Option<(Vec<Range>, Vec<u32>, Bytes)> {
        let pull = self.pulls.get(&pulled.pull)?;
        let block_size = BLOCK_SIZE as usize;
        let (mut ranges, mut crcs, mut parts): (Vec<Range>, Vec<u32>, Vec<Bytes>) = Default::default();
        let mut at = 0;
        for (offset, entry) in (pulled.range.offset..).step_by(block_size).zip(entries) {
            if matches!(*entry, HOLE | LOST) {
                continue;
            }
            let bytes = at..at + block_size;
            at = bytes.end;
            let block = offset / BLOCK_SIZE;
            if pull.entries.get(&block) != Some(entry) || self.written.contains(&block) {
                continue;
            }
            crcs.push(*entry);
            parts.push(data.get(bytes.clone()).map(|_| data.slice(bytes))?);
            match ranges.last_mut() {
                Some(last) if last.end() == offset => last.len += BLOCK_SIZE,
                _ => ranges.push(Range { offset, len: BLOCK_SIZE }),
            }
        }
        let bytes = if crcs.len() * block_size == data.len() { data.clone() } else { parts.concat().into() };
        Some((ranges, crcs, bytes))
    }

    /// A piece is done with. The answer to the primary, if it was the last.
    fn piece_over(&mut self, id: u64) -> Option<(CallToken, Bytes)> {
        let pull = self.pulls.get_mut(&id)?;
        pull.left = pull.left.saturating_sub(1);
        if pull.left > 0 {
            return None;
        }
        let pull = self.pulls.remove(&id)?;
        let lacks = |block: &u32| !pull.got.contains(block) || self.written.contains(block);
        let missing: Vec<bool> = pull.entries.keys().map(lacks).collect();
        Some((pull.call, bits_of(&missing)))
    }
}

impl Core {
    /// The primary says what is where.
    pub(crate) fn take_pull(&mut self, call: CallToken, meta: &ForwardMeta, out: &mut Vec<Effect>) {
        let chunk = meta.chunk;
        let me = self.me();
        let id = self.work.number();
        let piece = (self.chunk_size / FETCHES_OF_CHUNK).max(BLOCK_SIZE);
        let Some(replica) = self.replicas.get_mut(&chunk) else {
            return refuse(call, Status::NoChunk, out);
        };
        let learner = replica.standing == Standing::Learner;
        let Some(filling) = replica.filling.as_mut().filter(|_| learner) else {
            return refuse(call, Status::WrongRole, out);
        };
        let whole = |n: u32| n.is_multiple_of(BLOCK_SIZE);
        if !meta.ranges.iter().all(|range| whole(range.offset) && whole(range.len)) {
            return refuse(call, Status::Invalid, out);
        }
        for member in meta.create.iter().filter(|member| Some(**member) != me) {
            if !filling.sources.iter().any(|source| source.member == *member) {
                filling.sources.push(Source { member: *member, asked: 0, failed: false });
            }
        }
        let blocks = meta.ranges.iter().flat_map(|r| r.offset / BLOCK_SIZE..r.end() / BLOCK_SIZE);
        let entries: BTreeMap<u32, u32> = blocks.zip(meta.crcs.iter().copied()).collect();
        let mut left = 0;
        for range in &meta.ranges {
            for offset in (range.offset..range.end()).step_by(piece as usize) {
                let range = Range { offset, len: piece.min(range.end() - offset) };
                filling.todo.push_back(Pulled { chunk, pull: id, range, from: 0, tried: 0 });
                left += 1;
            }
        }
        filling.pulls.insert(id, Pull { call, entries, got: BTreeSet::new(), left });
        self.fetch_on(chunk, out);
    }

    /// Asks members for what is left, as long as one of them has room.
    fn fetch_on(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let mut given_up = Vec::new();
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let meta = opening(replica, None);
        let Some(filling) = replica.filling.as_mut() else { return };
        while let Some(piece) = filling.todo.pop_front() {
            match filling.next_source(piece.tried) {
                Some(Some(from)) => {
                    let source = &mut filling.sources[from];
                    source.asked += 1;
                    let pulled = Pulled { from, tried: piece.tried | bit(from), ..piece };
                    let ranges = vec![piece.range];
                    let meta = ForwardMeta { kind: ForwardKind::Fetch, ranges, ..meta.clone() };
                    self.work.forward(source.member, PeerWork::Pull(pulled), meta, Bytes::new(), out);
                }
                Some(None) => {
                    filling.todo.push_front(piece);
                    break;
                }
                None => given_up.push(piece),
            }
        }
        for piece in given_up {
            self.piece_over(chunk, piece.pull, out);
        }
    }

    /// A member answered a fetch, or did not.
    pub(crate) fn pull_answered(&mut self, pulled: Pulled, reply: PeerAnswer, out: &mut Vec<Effect>) {
        let Pulled { chunk, range, .. } = pulled;
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let (disk, create) = (replica.disk, (!replica.made).then(|| replica.header()));
        let filling = replica.filling.as_mut().filter(|filling| filling.pulls.contains_key(&pulled.pull));
        let Some(filling) = filling else { return };
        let Some(source) = filling.sources.get_mut(pulled.from) else { return };
        source.asked = source.asked.saturating_sub(1);
        let usable = match reply {
            PeerAnswer::Stock { entries, data } if entries.len() == (range.len / BLOCK_SIZE) as usize => {
                filling.wanted(pulled, &entries, &data).filter(|(ranges, ..)| !ranges.is_empty())
            }
            _ => {
                source.failed = true;
                None
            }
        };
        match usable {
            Some((ranges, crcs, payload)) => {
                filling.writing.push((pulled, Blocks::of(&ranges)));
                replica.disk_ops += 1;
                charge(&mut self.disks, disk, &payload);
                let op = DiskOp::Write { chunk, create, ranges, crcs, payload };
                self.work.disk(disk, DiskWork::Pulled(pulled), op, out);
            }
            None => filling.todo.push_front(pulled),
        }
        self.fetch_on(chunk, out);
    }

    /// The disk is done with pulled bytes.
    pub(crate) fn pulled_on_disk(
        &mut self,
        now: Micros,
        pulled: Pulled,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let chunk = pulled.chunk;
        self.disk_op_over(chunk);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let Some(filling) = replica.filling.as_mut() else { return self.drained(chunk, out) };
        let at = filling.writing.iter().position(|(writing, _)| *writing == pulled);
        let Some((_, blocks)) = at.map(|at| filling.writing.swap_remove(at)) else {
            return self.drained(chunk, out);
        };
        match done {
            // The primary sends what is missing, and learns what is wrong.
            DiskDone::Failed(DiskFault::BadChecksum | DiskFault::NoSpace) => {}
            DiskDone::Failed(fault) => self.fail_replica(chunk, *fault, out),
            _ => {
                replica.made = true;
                if let Some(pull) = filling.pulls.get_mut(&pulled.pull) {
                    pull.got.extend(blocks.each());
                }
            }
        }
        self.let_held_on(now, chunk, out);
        let filling = self.replicas.get_mut(&chunk).and_then(|replica| replica.filling.as_mut());
        match filling.filter(|filling| filling.lacks(pulled)) {
            Some(filling) => filling.todo.push_front(pulled),
            None => self.piece_over(chunk, pulled.pull, out),
        }
        self.fetch_on(chunk, out);
        self.drained(chunk, out);
    }

    /// Takes up the writes that waited for pulled bytes, in their order.
    fn let_held_on(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let filling = self.replicas.get_mut(&chunk).and_then(|replica| replica.filling.as_mut());
        let held = filling.map(|filling| std::mem::take(&mut filling.held)).unwrap_or_default();
        for (call, meta, payload) in held {
            self.forward(now, call, meta, payload, out);
        }
    }

    fn piece_over(&mut self, chunk: ChunkId, pull: u64, out: &mut Vec<Effect>) {
        let filling = self.replicas.get_mut(&chunk).and_then(|replica| replica.filling.as_mut());
        if let Some((call, bits)) = filling.and_then(|filling| filling.piece_over(pull)) {
            answer(call, Reply::Compared(bits), out);
        }
    }

    /// The replica is a learner no more, or another one: what is on its way is nobody's.
    pub(crate) fn stop_pulling(&mut self, chunk: ChunkId, status: Status, out: &mut Vec<Effect>) {
        let filling = self.replicas.get_mut(&chunk).and_then(|replica| replica.filling.take());
        let Some(filling) = filling else { return };
        let calls = filling.pulls.into_values().map(|pull| pull.call);
        for call in calls.chain(filling.held.into_iter().map(|(call, _, _)| call)) {
            refuse(call, status, out);
        }
    }
}

/// Of the set of sources that were asked; who is beyond it is not asked.
fn bit(source: usize) -> u32 {
    u32::try_from(source).ok().and_then(|source| 1u32.checked_shl(source)).unwrap_or(u32::MAX)
}
