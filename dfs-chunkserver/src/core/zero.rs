//! Truncation's zeroing of a chunk's tail (section 11): an ordered write of zeros to the chunk's end under a
//! size epoch, told by the master to the primary. Repeated, it is done already.

use bytes::Bytes;
use dfs_proto::chunk::{ForwardKind, ForwardMeta, Given, Range};
use dfs_proto::control::Zero;
use dfs_proto::ids::{BootId, ChunkId, OpId, Seq, SessionId, SizeEpoch};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskOp, Effect, Reply};
use crate::core::lead::{FLIGHTS_MAX, Lead, Waiting};
use crate::core::read::check_standing;
use crate::core::replica::Blocks;
use crate::core::{Core, answer, refuse};

impl Core {
    pub(crate) fn zero(&mut self, now: Micros, call: CallToken, body: &Zero, out: &mut Vec<Effect>) {
        if let Err(status) = self.admit_zero(now, body) {
            return self.refuse_write(now, call, body.chunk, status, out);
        }
        let len = self.chunk_size.saturating_sub(body.offset);
        let Some(replica) = self.replicas.get_mut(&body.chunk) else {
            return refuse(call, Status::NoChunk, out);
        };
        replica.reopen(body.open_num);
        if body.size_epoch <= replica.size_epoch || len == 0 {
            // Applied here; elsewhere too, unless it is on its way or another try waits.
            let under_way = replica.lead.as_ref().is_some_and(|lead| {
                lead.flights.values().any(|flight| flight.meta.kind == ForwardKind::Zero)
            });
            let status = if under_way { Reply::Failed(Status::Recovering) } else { Reply::Done };
            return answer(call, status, out);
        }
        let seq = replica.applied.highest();
        let lead = replica.lead.get_or_insert_with(|| Box::new(Lead::starting_at(seq)));
        let blocks = Blocks::of(&[Range { offset: body.offset, len }]);
        if lead.must_wait(&blocks) {
            if lead.queue.len() >= FLIGHTS_MAX {
                return refuse(call, Status::Overloaded, out);
            }
            let Zero { offset, size_epoch, .. } = *body;
            lead.queue.push_back(Waiting::Zero { call, offset, size_epoch, blocks });
        } else {
            self.begin_zero(body.chunk, call, body.offset, body.size_epoch, blocks, out);
        }
    }

    fn admit_zero(&mut self, now: Micros, body: &Zero) -> Result<(), Status> {
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
        self.check_writable(body.chunk)
    }

    /// Gives the zeroing its number. From here on writes of older epochs are refused.
    pub(crate) fn begin_zero(
        &mut self,
        chunk: ChunkId,
        call: CallToken,
        offset: u32,
        size_epoch: SizeEpoch,
        blocks: Blocks,
        out: &mut Vec<Effect>,
    ) {
        let chunk_size = self.chunk_size;
        let Some(replica) = self.replicas.get_mut(&chunk) else { return refuse(call, Status::NoChunk, out) };
        if size_epoch <= replica.size_epoch {
            // The same zeroing waited behind itself and is done now.
            return answer(call, Reply::Done, out);
        }
        let Some(lead) = replica.lead.as_mut() else { return refuse(call, Status::NotServing, out) };
        lead.last = Seq(lead.last.0 + 1);
        let seq = lead.last;
        replica.size_epoch = size_epoch;
        let range = Range { offset, len: chunk_size.saturating_sub(offset) };
        let meta = ForwardMeta {
            kind: ForwardKind::Zero,
            chunk,
            session: SessionId(0),
            ino: replica.ino,
            index: replica.index,
            op: OpId(0),
            done: OpId(0),
            seq,
            committed: Seq(0),
            to: BootId(0),
            version: replica.version,
            config: replica.config,
            open_num: replica.open_num,
            size_epoch,
            ranges: vec![range],
            crcs: Vec::new(),
            create: Vec::new(),
            note: None,
            given: Given::default(),
        };
        let create = replica.due_header();
        let op = DiskOp::Zero { chunk, create, range, size_epoch };
        self.launch(meta, Bytes::new(), blocks, vec![call], op, out);
    }
}
