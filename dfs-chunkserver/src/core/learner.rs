//! The learner's side of a fill: it starts from the replica that is here, or from an empty one, says which
//! blocks of each piece it lacks, takes them, and the primary's op table. It serves nothing until a config
//! names it as a member.

use bytes::Bytes;
use dfs_proto::chunk::{ForwardKind, ForwardMeta};
use dfs_proto::ids::{ChunkId, ChunkVersion};
use dfs_proto::planted;
use dfs_proto::status::Status;

use crate::core::io::{CallToken, DiskDone, DiskFault, DiskIx, DiskOp, Effect, Reply};
use crate::core::replica::{Origin, Replica, Standing};
use crate::core::window::SeqWindow;
use crate::core::work::{AppliedOp, DiskWork};
use crate::core::{Core, answer, charge, refuse};

impl Core {
    /// Whether it is a fill's opening or closing message.
    pub(crate) fn begins_learner(&self, meta: &ForwardMeta) -> bool {
        meta.kind == ForwardKind::Zero && self.me().is_some_and(|me| meta.create == [me])
    }

    pub(crate) fn begin_learner(&mut self, call: CallToken, meta: &ForwardMeta, out: &mut Vec<Effect>) {
        let chunk = meta.chunk;
        if self.fences.get(&chunk).is_some_and(|&fence| fence > meta.version) {
            return refuse(call, Status::WrongChunkVersion, out);
        }
        let there = self.replicas.get(&chunk);
        if meta.op.0 != 0 {
            let fits =
                there.is_some_and(|old| old.standing == Standing::Learner && old.version == meta.version);
            if !fits {
                return refuse(call, Status::NoChunk, out);
            }
            self.note_op(chunk, AppliedOp::of(meta), meta.seq);
            return answer(call, Reply::Done, out);
        }
        let member = there.is_some_and(|old| {
            old.version >= meta.version
                && matches!(old.standing, Standing::Active | Standing::Unsure | Standing::Fenced)
        });
        // Also a learner that a newer primary has filled: a config may count on it before this server hears of that.
        let newer = there.is_some_and(|old| old.version > meta.version);
        let disk = match there {
            _ if member => Err(Status::Exists),
            _ if newer => Err(Status::WrongChunkVersion),
            Some(old) if old.disk_ops > 0 => Err(Status::Overloaded),
            None if self.trashing.contains(&chunk) && !planted!(BegunOnTrash) => Err(Status::Overloaded),
            Some(old) if self.takes_new(old.disk) => Ok(old.disk),
            // Elsewhere it would leave the old file behind.
            Some(old) if old.made && !self.has_failed(old.disk) => Err(Status::NoSpace),
            Some(_) | None => self.disk_for_new(),
        };
        match disk {
            Ok(disk) => self.start_learner(call, meta, disk, out),
            Err(status) => refuse(call, status, out),
        }
    }

    fn start_learner(&mut self, call: CallToken, meta: &ForwardMeta, disk: DiskIx, out: &mut Vec<Effect>) {
        let chunk = meta.chunk;
        let old = self.replicas.get(&chunk).filter(|old| old.disk == disk);
        let keep = old.is_some_and(may_start_from);
        self.step_down(chunk, Status::WrongChunkVersion, out);
        self.lost.remove(&chunk);
        self.damage.forget(chunk);
        let mut replica = Replica::empty(chunk, disk);
        replica.version = meta.version;
        replica.config = meta.config;
        replica.open_num = meta.open_num;
        replica.size_epoch = meta.size_epoch;
        replica.ino = meta.ino;
        replica.index = meta.index;
        replica.learner = true;
        replica.made = keep;
        replica.standing = Standing::Learner;
        replica.applied = SeqWindow::starting_at(meta.seq);
        replica.filling = Some(Box::default());
        replica.disk_ops = 1;
        let header = replica.header();
        self.replicas.insert(chunk, replica);
        self.work.disk(disk, DiskWork::Begin { chunk, call }, DiskOp::BeginLearner { header, keep }, out);
    }

    pub(crate) fn has_failed(&self, disk: DiskIx) -> bool {
        self.disks.get(usize::from(disk.0)).is_none_or(|disk| disk.read_only)
    }

    pub(crate) fn learner_begun(
        &mut self,
        call: CallToken,
        chunk: ChunkId,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        self.disk_op_over(chunk);
        match done {
            DiskDone::Failed(fault) => {
                self.fail_replica(chunk, *fault, out);
                refuse(call, fault.status(), out);
            }
            _ => answer(call, Reply::Done, out),
        }
        self.drained(chunk, out);
    }

    /// A piece of what the primary had already.
    pub(crate) fn take_fill(
        &mut self,
        call: CallToken,
        meta: ForwardMeta,
        payload: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get_mut(&meta.chunk) else {
            return refuse(call, Status::NoChunk, out);
        };
        if replica.standing != Standing::Learner {
            return refuse(call, Status::WrongRole, out);
        }
        replica.disk_ops += 1;
        charge(&mut self.disks, replica.disk, &payload);
        let work = DiskWork::Fill { chunk: meta.chunk, version: meta.version, call };
        let op = DiskOp::Write {
            chunk: meta.chunk,
            create: (!replica.made).then(|| replica.header()),
            ranges: meta.ranges,
            crcs: meta.crcs,
            payload,
        };
        self.work.disk(replica.disk, work, op, out);
    }

    /// What the primary has of a piece: the blocks that are not the same here are asked for.
    pub(crate) fn take_compare(&mut self, call: CallToken, meta: ForwardMeta, out: &mut Vec<Effect>) {
        let chunk = meta.chunk;
        let (Some(replica), [range]) = (self.replicas.get_mut(&chunk), meta.ranges.as_slice()) else {
            return refuse(call, Status::Invalid, out);
        };
        if replica.standing != Standing::Learner {
            return refuse(call, Status::WrongRole, out);
        }
        if let Some(filling) = replica.filling.as_mut() {
            filling.compared(*range);
        }
        replica.disk_ops += 1;
        let op = DiskOp::Compare { chunk, offset: range.offset, entries: meta.crcs };
        self.work.disk(replica.disk, DiskWork::Compare { chunk, call }, op, out);
    }

    pub(crate) fn compared_on_disk(
        &mut self,
        chunk: ChunkId,
        call: CallToken,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        self.disk_op_over(chunk);
        match done {
            DiskDone::Differ(differ) => {
                let learner = self.replicas.get_mut(&chunk);
                if let Some(learner) = learner.filter(|replica| replica.standing == Standing::Learner) {
                    learner.made = true;
                }
                answer(call, Reply::Compared(bits_of(differ)), out);
            }
            DiskDone::Failed(fault) => {
                if *fault == DiskFault::Io {
                    self.fail_replica(chunk, *fault, out);
                }
                refuse(call, fault.status(), out);
            }
            _ => refuse(call, Status::Invalid, out),
        }
        self.drained(chunk, out);
    }

    pub(crate) fn fill_on_disk(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        call: CallToken,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        self.disk_op_over(chunk);
        match done {
            DiskDone::Failed(fault) => {
                // Of a checksum or a full disk the primary learns; nothing was applied.
                if !matches!(fault, DiskFault::BadChecksum | DiskFault::NoSpace) {
                    self.fail_replica(chunk, *fault, out);
                }
                refuse(call, fault.status(), out);
            }
            _ => {
                if let Some(replica) =
                    self.replicas.get_mut(&chunk).filter(|replica| replica.version == version)
                {
                    replica.made = true;
                }
                answer(call, Reply::Done, out);
            }
        }
        self.drained(chunk, out);
    }
}

/// Whether a fill may start from what is here: not from a replica that its disk failed, and not from what an
/// earlier fill of this process left unfinished, which may have failed for what it started from.
fn may_start_from(old: &Replica) -> bool {
    let left = old.learner && old.origin == Origin::Held;
    old.made && !left && old.standing != Standing::Failed
}

/// A bit a block, the lowest first.
pub(crate) fn bits_of(differ: &[bool]) -> Bytes {
    let byte = |part: &[bool]| part.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
    differ.chunks(8).map(byte).collect()
}
