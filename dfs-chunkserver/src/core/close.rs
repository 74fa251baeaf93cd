//! Clean close (section 9): from the answer on nothing is written under the opening that the master names; all
//! that was is on the disk, and a header with the digest of it. Nobody writes when the master asks, so a chunk
//! of which anything is under way is refused rather than waited for.

use std::collections::BTreeMap;

use dfs_proto::checksum::digest_of;
use dfs_proto::control::{COMMAND_BATCH, Close, CloseAnswer, CloseChunk, Closed};
use dfs_proto::ids::{ChunkId, Seq};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, CloseItem, DiskDone, DiskFault, DiskIx, DiskOp, Effect, Reply};
use crate::core::read::check_standing;
use crate::core::window::SeqWindow;
use crate::core::work::{CloseJob, ClosePart, DiskWork, Job, JobId};
use crate::core::{Core, answer, refuse};

/// What a chunk's close takes.
enum Step {
    Done(CloseAnswer),
    Disk(DiskIx),
}

impl Core {
    pub(crate) fn close(&mut self, now: Micros, call: CallToken, body: &Close, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey_while_serving(now, body.term) {
            return refuse(call, status, out);
        }
        if body.chunks.len() > COMMAND_BATCH {
            return refuse(call, Status::TooLarge, out);
        }
        let mut chunks = Vec::with_capacity(body.chunks.len());
        let mut work: BTreeMap<DiskIx, Vec<CloseItem>> = BTreeMap::new();
        for asked in &body.chunks {
            let CloseChunk { chunk, version, open_num, seq: _, note: _ } = *asked;
            let step = self.close_chunk(asked).unwrap_or_else(|why| Step::Done(CloseAnswer::Refused(why)));
            let seq = self.replicas.get(&chunk).map(|replica| replica.applied.highest()).unwrap_or_default();
            let answer = match step {
                Step::Done(answer) => Some(answer),
                Step::Disk(disk) => {
                    work.entry(disk).or_default().push(CloseItem {
                        chunk,
                        open_num,
                        seq,
                        note: asked.note.clone(),
                    });
                    None
                }
            };
            chunks.push(ClosePart { chunk, version, open_num, seq, answer });
        }
        let job = self.jobs.add(Job::Close(CloseJob { call, chunks }));
        for (disk, items) in work {
            let chunks = items.iter().map(|item| item.chunk).collect();
            self.work.disk(disk, DiskWork::Close { job, chunks }, DiskOp::Close { chunks: items }, out);
        }
        self.settle_close(job, out);
    }

    /// Refuses everything of the opening from now on.
    fn close_chunk(&mut self, asked: &CloseChunk) -> Result<Step, Status> {
        // What its bytes must hash to is for bytes that are there.
        let hurt = self.damage.is_hurt(asked.chunk);
        let writable = self.check_writable(asked.chunk);
        let replica = self.replicas.get_mut(&asked.chunk).ok_or(Status::NoChunk)?;
        check_standing(replica, asked.version)?;
        if asked.open_num < replica.open_num {
            return Err(Status::Stale);
        }
        let led = |lead: &crate::core::lead::Lead| {
            !lead.flights.is_empty() || !lead.queue.is_empty() || lead.fill.is_some()
        };
        let busy = hurt || replica.disk_ops > 0 || !replica.applying.is_empty();
        if busy || replica.lead.as_deref().is_some_and(led) {
            log::debug!(
                "chunk {}: not closed: {} disk operations, {} forwards, damaged: {hurt}",
                asked.chunk,
                replica.disk_ops,
                replica.applying.len()
            );
            return Err(Status::Recovering);
        }
        // Numbers that were given out and took effect nowhere count too: a member that was filled since has them.
        let last = replica.lead.as_ref().map_or(Seq(0), |lead| lead.last).max(replica.applied.highest());
        let seq = asked.seq.unwrap_or(last);
        if seq < last {
            return Err(Status::Stale);
        }
        replica.applied = SeqWindow::starting_at(seq);
        replica.commit(seq);
        if asked.open_num == replica.open_num
            && let Some(digest) = replica.digest
        {
            replica.closed = true;
            return Ok(Step::Done(CloseAnswer::Closed { digest, seq }));
        }
        // To write the header of the close would take a replica out that can be read.
        writable?;
        replica.open_num = asked.open_num;
        if !replica.made {
            // All of its bytes were lost with every member's power before a sync: there is nothing to write down.
            let digest = digest_of(&[]).0;
            (replica.closed, replica.digest) = (true, Some(digest));
            return Ok(Step::Done(CloseAnswer::Closed { digest, seq }));
        }
        (replica.closed, replica.digest) = (true, None);
        // A fence waits for the disk, so that the header of this close is not written over a later one.
        replica.disk_ops += 1;
        Ok(Step::Disk(replica.disk))
    }

    pub(crate) fn closed_on_disk(
        &mut self,
        job: JobId,
        chunks: &[ChunkId],
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        for (at, &chunk) in chunks.iter().enumerate() {
            let result = match done {
                DiskDone::Closed(results) => results.get(at).copied().unwrap_or(Err(DiskFault::Io)),
                DiskDone::Failed(fault) => Err(*fault),
                _ => Err(DiskFault::Io),
            };
            self.disk_op_over(chunk);
            let reply = match result {
                Ok(digest) => self.close_ended(job, chunk, digest),
                Err(fault) => {
                    self.fail_replica(chunk, fault, out);
                    CloseAnswer::Refused(fault.status())
                }
            };
            if let Some(close) = self.jobs.close(job) {
                for part in close.chunks.iter_mut().filter(|part| part.chunk == chunk) {
                    part.answer = Some(reply);
                }
            }
            self.drained(chunk, out);
        }
        self.settle_close(job, out);
    }

    /// What became of a close, unless the chunk went on meanwhile.
    fn close_ended(&mut self, job: JobId, chunk: ChunkId, digest: Option<u128>) -> CloseAnswer {
        let part =
            self.jobs.close(job).and_then(|close| close.chunks.iter().find(|part| part.chunk == chunk));
        let (Some(part), Some(digest)) = (part, digest) else {
            return CloseAnswer::Refused(Status::Recovering);
        };
        let (version, open_num, seq) = (part.version, part.open_num, part.seq);
        match self.replicas.get_mut(&chunk) {
            Some(replica)
                if check_standing(replica, version).is_ok()
                    && replica.closed
                    && replica.open_num == open_num
                    && replica.applied.highest() == seq =>
            {
                replica.digest = Some(digest);
                CloseAnswer::Closed { digest, seq }
            }
            Some(_) | None => CloseAnswer::Refused(Status::Recovering),
        }
    }

    fn settle_close(&mut self, job: JobId, out: &mut Vec<Effect>) {
        if self.jobs.close(job).is_none_or(|close| close.chunks.iter().any(|part| part.answer.is_none())) {
            return;
        }
        if let Some(Job::Close(close)) = self.jobs.remove(job) {
            let answers = close.chunks.into_iter().filter_map(|part| part.answer).collect();
            answer(close.call, Reply::Closed(Closed { answers }), out);
        }
    }
}
