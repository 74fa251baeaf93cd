//! A member's side of mending: it says what it has when a primary's own blocks are damaged, and takes what the primary
//! gives for its own.

use bytes::Bytes;
use dfs_proto::chunk::{ForwardMeta, Range};
use dfs_proto::ids::{ChunkId, Seq};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskDone, DiskOp, Effect, Reply};
use crate::core::mend::{damaged_of, is_whole};
use crate::core::work::DiskWork;
use crate::core::{Core, answer, refuse};

impl Core {
    /// A primary wants what is here, to mend its own.
    pub(crate) fn take_fetch(&mut self, call: CallToken, meta: &ForwardMeta, out: &mut Vec<Effect>) {
        let chunk = meta.chunk;
        let range = meta.ranges.first().copied().filter(|range| is_whole(*range, self.chunk_size));
        let (Some(range), Some(replica)) = (range, self.replicas.get(&chunk)) else {
            return refuse(call, Status::Invalid, out);
        };
        let work = DiskWork::Stock { chunk, range, call };
        self.work.disk(replica.disk, work, DiskOp::Stock { chunk, range }, out);
    }

    pub(crate) fn stock_on_disk(
        &mut self,
        now: Micros,
        (chunk, range, call): (ChunkId, Range, CallToken),
        done: DiskDone,
        out: &mut Vec<Effect>,
    ) {
        match done {
            DiskDone::Stock { entries, data } => {
                let seq = self.replicas.get(&chunk).map_or(Seq(0), |replica| replica.applied.highest());
                self.damage_found(now, chunk, &damaged_of(range, &entries), seq, out);
                answer(call, Reply::Stock { entries, data }, out);
            }
            DiskDone::Failed(fault) => refuse(call, fault.status(), out),
            _ => refuse(call, Status::Invalid, out),
        }
    }

    /// The primary gives what it has for damaged blocks here.
    pub(crate) fn take_mend(
        &mut self,
        call: CallToken,
        meta: ForwardMeta,
        data: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let chunk = meta.chunk;
        let range = meta.ranges.first().copied().filter(|range| is_whole(*range, self.chunk_size));
        let Some(range) = range else { return refuse(call, Status::Invalid, out) };
        if self.damage.is_older(chunk, range, meta.version, meta.seq) {
            return refuse(call, Status::Stale, out);
        }
        let Some(replica) = self.replicas.get_mut(&chunk) else {
            return refuse(call, Status::NoChunk, out);
        };
        replica.disk_ops += 1;
        let (offset, entries) = (range.offset, meta.crcs);
        let op = DiskOp::Mend { chunk, offset, entries, data, insist: true };
        self.work.disk(replica.disk, DiskWork::Mended { chunk, range, call }, op, out);
    }

    pub(crate) fn mended_on_disk(
        &mut self,
        (chunk, range, call): (ChunkId, Range, CallToken),
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        self.disk_op_over(chunk);
        self.note_mended(chunk, range, done, out);
        match done {
            DiskDone::Failed(fault) => refuse(call, fault.status(), out),
            _ => answer(call, Reply::Done, out),
        }
        self.drained(chunk, out);
    }
}
