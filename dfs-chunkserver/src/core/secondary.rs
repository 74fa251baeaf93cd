//! FORWARDs at a secondary or learner: applied once, in whatever order they arrive (the primary never has two
//! overlapping ones under way), and pending until the primary says that all members have them.

use bytes::Bytes;
use dfs_proto::chunk::{ForwardKind, ForwardMeta};
use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::heat::Access;
use crate::core::io::{CallToken, DiskDone, DiskFault, Effect, Reply};
use crate::core::ops::Done;
use crate::core::replica::{Applying, Blocks, Standing};
use crate::core::window::Seen;
use crate::core::work::{AppliedOp, DiskWork};
use crate::core::write::{NewChunk, disk_op};
use crate::core::{Core, answer, charge, refuse};

impl Core {
    pub(crate) fn forward(
        &mut self,
        now: Micros,
        call: CallToken,
        meta: ForwardMeta,
        payload: Bytes,
        out: &mut Vec<Effect>,
    ) {
        if meta.to != self.identity.boot || self.stopped {
            return refuse(call, Status::NotServing, out);
        }
        if self.begins_learner(&meta) {
            return self.begin_learner(call, &meta, out);
        }
        if let Err(status) = self.admit_forward(&meta) {
            return self.refuse_write(now, call, meta.chunk, status, out);
        }
        match meta.kind {
            ForwardKind::Fill => self.take_fill(call, meta, payload, out),
            ForwardKind::Compare => self.take_compare(call, meta, out),
            ForwardKind::Pull => self.take_pull(call, &meta, out),
            ForwardKind::Fetch => self.take_fetch(call, &meta, out),
            ForwardKind::Mend => self.take_mend(call, meta, payload, out),
            ForwardKind::Write | ForwardKind::Zero | ForwardKind::Punch => {
                let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                self.heat.note(now, meta.chunk, Access::Write, bytes);
                self.take_forward(call, meta, payload, out);
            }
        }
    }

    /// The checks of a secondary. Not the lease: a primary that others have left behind can't get a write
    /// acknowledged, because whom they kept was fenced; and a write applied here in vain does no harm.
    fn admit_forward(&mut self, meta: &ForwardMeta) -> Result<(), Status> {
        if meta.ranges.last().is_none_or(|range| range.end() > self.chunk_size) {
            return Err(Status::Invalid);
        }
        if self.fences.get(&meta.chunk).is_some_and(|&fence| fence > meta.version) {
            return Err(Status::WrongChunkVersion);
        }
        if !meta.create.is_empty() && meta.kind != ForwardKind::Pull {
            self.make_replica(&NewChunk {
                chunk: meta.chunk,
                version: meta.version,
                config: meta.config,
                open_num: meta.open_num,
                size_epoch: meta.size_epoch,
                ino: meta.ino,
                index: meta.index,
                members: &meta.create,
                given: meta.given,
                note: meta.note.as_ref(),
            })?;
        }
        let replica = self.replicas.get(&meta.chunk).ok_or(Status::NoChunk)?;
        if replica.version > meta.version {
            return Err(Status::WrongChunkVersion);
        }
        // Fenced, or of another version: the config that says more is on its way.
        if replica.version < meta.version || replica.standing == Standing::Fenced {
            return Err(Status::Recovering);
        }
        match replica.standing {
            Standing::Failed => Err(Status::DiskFailed),
            Standing::Removed => Err(Status::WrongChunkVersion),
            _ if !replica.takes_part() => Err(Status::NotServing),
            // What is here can be fetched, and nothing else be done.
            _ if meta.kind != ForwardKind::Fetch && self.is_read_only(meta.chunk) => Err(Status::DiskFailed),
            Standing::Learner if matches!(meta.kind, ForwardKind::Fetch | ForwardKind::Mend) => {
                Err(Status::WrongRole)
            }
            Standing::Learner => Ok(()),
            // From any member, the primary too: its learner pulls.
            _ if meta.kind == ForwardKind::Fetch => Ok(()),
            _ if fills(meta.kind) || replica.lead.is_some() => Err(Status::WrongRole),
            _ => Ok(()),
        }
    }

    fn take_forward(&mut self, call: CallToken, meta: ForwardMeta, payload: Bytes, out: &mut Vec<Effect>) {
        let chunk = meta.chunk;
        let Some(replica) = self.replicas.get_mut(&chunk) else { return refuse(call, Status::NoChunk, out) };
        if replica.is_over(meta.open_num) {
            return refuse(call, Status::BadCapability, out);
        }
        replica.reopen(meta.open_num);
        replica.commit(meta.committed);
        match replica.applied.look(meta.seq) {
            Seen::Applied => return answer(call, Reply::Done, out),
            Seen::Forgotten => return refuse(call, Status::Stale, out),
            Seen::New => {}
        }
        if let Some(applying) = replica.applying.iter_mut().find(|applying| applying.seq == meta.seq) {
            applying.calls.push(call);
            return;
        }
        let blocks = Blocks::of(&meta.ranges);
        if let Some(filling) = replica.filling.as_mut() {
            if filling.is_writing(&blocks) {
                return filling.hold(call, meta, payload);
            }
            filling.written(&blocks);
        }
        replica.begun.note(&blocks);
        self.damage.written(chunk, &blocks, (meta.version, meta.seq));
        replica.pending.push((meta.seq, blocks));
        replica.applying.push(Applying { seq: meta.seq, calls: vec![call] });
        replica.disk_ops += 1;
        charge(&mut self.disks, replica.disk, &payload);
        let work =
            DiskWork::Forward { chunk, version: meta.version, seq: meta.seq, op: AppliedOp::of(&meta) };
        let op = disk_op(replica.due_header(), meta, payload);
        self.work.disk(replica.disk, work, op, out);
    }

    /// The disk is done with a FORWARD.
    pub(crate) fn forward_on_disk(
        &mut self,
        now: Micros,
        (chunk, version, seq): (ChunkId, ChunkVersion, Seq),
        op: AppliedOp,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        self.disk_op_over(chunk);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let at = replica.applying.iter().position(|applying| applying.seq == seq);
        let calls = at.map(|at| replica.applying.swap_remove(at).calls).unwrap_or_default();
        let reply = match done {
            DiskDone::Failed(fault @ (DiskFault::BadChecksum | DiskFault::NoSpace)) => {
                // Nothing changed here; the primary decides what becomes of the write.
                replica.pending.retain(|(pending, _)| *pending != seq);
                Reply::Failed(fault.status())
            }
            DiskDone::Failed(fault @ DiskFault::Corrupt { block })
                if replica.standing != Standing::Learner =>
            {
                // It comes again when the block is mended.
                replica.pending.retain(|(pending, _)| *pending != seq);
                self.damage_found(now, chunk, &[*block], seq, out);
                Reply::Failed(fault.status())
            }
            DiskDone::Failed(fault) => {
                self.fail_replica(chunk, *fault, out);
                Reply::Failed(fault.status())
            }
            _ => {
                replica.is_on_disk();
                // Here as at the primary nobody reads any more under the size of before, and should this be the primary
                // next, nobody writes under it, and what is asked for again was before the cut.
                replica.size_epoch = replica.size_epoch.max(op.cut.unwrap_or_default());
                if replica.version == version {
                    replica.applied.mark(seq);
                    self.note_op(chunk, op, seq);
                }
                Reply::Done
            }
        };
        for call in calls {
            answer(call, reply.clone(), out);
        }
        self.drained(chunk, out);
    }

    /// The primary says what is on all members.
    pub(crate) fn committed(&mut self, chunks: &[(ChunkId, ChunkVersion, Seq)]) {
        for &(chunk, version, seq) in chunks {
            if let Some(replica) = self.replicas.get_mut(&chunk).filter(|replica| replica.version == version)
            {
                replica.commit(seq);
            }
        }
    }

    pub(crate) fn disk_op_over(&mut self, chunk: ChunkId) {
        if let Some(replica) = self.replicas.get_mut(&chunk) {
            replica.disk_ops = replica.disk_ops.saturating_sub(1);
        }
    }

    /// Notes an applied write in the op table.
    pub(crate) fn note_op(&mut self, chunk: ChunkId, op: AppliedOp, seq: Seq) {
        if op.op.0 == 0 {
            return;
        }
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let done = Done { seq, size_epoch: op.size_epoch };
        if replica.ops.insert(op.session, op.op, op.done, done) {
            self.session_chunks.entry(op.session).or_default().insert(chunk);
        }
    }

    /// The replica can't be trusted any more: it serves nothing, and the master hears of it now and with the
    /// next heartbeat (I22).
    pub(crate) fn fail_replica(&mut self, chunk: ChunkId, fault: DiskFault, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        if replica.standing == Standing::Failed {
            return;
        }
        log::error!("chunk {chunk}: the replica has failed: {fault}");
        self.damage.forget(chunk);
        replica.standing = Standing::Failed;
        self.lost.insert(chunk, None);
        out.push(Effect::Trouble(ReportTrouble { reports: Vec::new(), failed: vec![chunk] }));
        self.step_down(chunk, Status::NotServing, out);
    }
}

/// What only a learner takes.
fn fills(kind: ForwardKind) -> bool {
    matches!(kind, ForwardKind::Fill | ForwardKind::Compare | ForwardKind::Pull)
}
