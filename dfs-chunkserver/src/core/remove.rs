//! Replicas that go away: by DELETE, the only way (D1, I17).

use std::collections::BTreeSet;

use dfs_proto::control::{Delete, DeleteChunk};
use dfs_proto::ids::{ChunkId, LogIndex};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskDone, DiskFault, DiskOp, Effect, Reply};
use crate::core::work::{DeleteJob, DiskWork, Job, JobId};
use crate::core::{Core, answer, refuse};

/// Removals that are remembered, some 50 MiB of them. What would be beyond waits.
const DEPARTED_MAX: usize = 1 << 20;

impl Core {
    pub(crate) fn delete(&mut self, now: Micros, call: CallToken, body: &Delete, out: &mut Vec<Effect>) {
        let allowed = self.obey(body.term).and(if self.stopped { Err(Status::NotServing) } else { Ok(()) });
        if let Err(status) = allowed {
            return refuse(call, status, out);
        }
        let mut results = Vec::with_capacity(body.chunks.len());
        let mut goes = Vec::new();
        for asked in &body.chunks {
            let judged = self.may_delete(asked, body.checkpoint);
            results.push((asked.chunk, judged.err().unwrap_or(Status::Ok)));
            if judged == Ok(true) {
                goes.push((asked.chunk, asked.surplus));
            }
        }
        let waits: BTreeSet<ChunkId> = goes.iter().map(|(chunk, _)| *chunk).collect();
        let job = self.jobs.add(Job::Delete(DeleteJob { call, results, waits }));
        for (chunk, at_once) in goes {
            self.step_down(chunk, Status::NoChunk, out);
            self.fences.remove(&chunk);
            self.heat.forget(chunk);
            self.lost.remove(&chunk);
            self.told_read_only.remove(&chunk);
            self.damage.forget(chunk);
            if let Some(replica) = self.replicas.remove(&chunk) {
                self.departed.add(chunk, now);
                self.trashing.insert(chunk);
                let op = DiskOp::Trash { chunk, at_once };
                self.work.disk(replica.disk, DiskWork::Trash { job, chunk }, op, out);
            }
        }
        self.settle_delete(job, out);
    }

    /// Whether there is something that may go; an error when what is here may not.
    fn may_delete(&self, asked: &DeleteChunk, checkpoint: LogIndex) -> Result<bool, Status> {
        if asked.tombstone > checkpoint {
            return Err(Status::Invalid);
        }
        let Some(replica) = self.replicas.get(&asked.chunk) else { return Ok(false) };
        match asked.up_to {
            Some(up_to) if (replica.version, replica.config) > up_to => Err(Status::WrongChunkVersion),
            Some(_) | None if replica.disk_ops > 0 || self.departed.len() >= DEPARTED_MAX => {
                Err(Status::Busy)
            }
            Some(_) | None => Ok(true),
        }
    }

    pub(crate) fn trashed(&mut self, job: JobId, chunk: ChunkId, done: &DiskDone, out: &mut Vec<Effect>) {
        self.trashing.remove(&chunk);
        if let Some(delete) = self.jobs.delete(job) {
            delete.waits.remove(&chunk);
            if let DiskDone::Failed(fault) = done
                && *fault != DiskFault::Missing
            {
                let failed = delete.results.iter_mut().filter(|result| result.0 == chunk);
                failed.for_each(|result| result.1 = fault.status());
            }
        }
        self.settle_delete(job, out);
    }

    fn settle_delete(&mut self, job: JobId, out: &mut Vec<Effect>) {
        if self.jobs.delete(job).is_none_or(|delete| !delete.waits.is_empty()) {
            return;
        }
        if let Some(Job::Delete(delete)) = self.jobs.remove(job) {
            let results = delete.results.into_iter().map(|(_, status)| status).collect();
            answer(delete.call, Reply::Deleted(results), out);
        }
    }
}
