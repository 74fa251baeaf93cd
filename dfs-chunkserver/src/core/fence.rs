//! FENCE and RECONCILE (sections 4 and 9): from the fence on nothing older is served or applied; the answer
//! waits until the disk is done with what it had, so that it tells all that is here.

use std::collections::BTreeMap;

use dfs_proto::control::{Fence, FenceAnswer, Fenced, Reconcile, Reconciled, ReplicaState};
use dfs_proto::ids::{ChunkId, ChunkVersion};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{
    CallToken, DiskDone, DiskFault, DiskIx, DiskOp, Effect, FenceItem, FencedReplica, Reply,
};
use crate::core::replica::{Origin, Standing};
use crate::core::timers::Timer;
use crate::core::work::{DiskWork, FenceJob, FencePart, FenceState, Job, JobId};
use crate::core::{Core, answer, refuse};

/// A FENCE is answered with what is known by then; the master waits ten seconds.
const FENCE_LIMIT_MS: u64 = 8_000;

impl Core {
    pub(crate) fn fence(&mut self, now: Micros, call: CallToken, body: &Fence, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey(body.term) {
            return refuse(call, status, out);
        }
        if self.stopped {
            return refuse(call, Status::NotServing, out);
        }
        self.keep_high_water(out);
        let mut parts = Vec::with_capacity(body.chunks.len());
        for asked in &body.chunks {
            let state = self.fence_chunk(asked.chunk, asked.version, out);
            parts.push(FencePart { chunk: asked.chunk, version: asked.version, state });
        }
        let job = self.jobs.add(Job::Fence(FenceJob { call, chunks: parts }));
        self.timers.add(now.plus_ms(FENCE_LIMIT_MS), Timer::FenceOver { job });
        self.start_fencing(job, out);
        self.settle_fence(job, out);
    }

    /// Refuses everything of the chunk below `version` from now on.
    fn fence_chunk(&mut self, chunk: ChunkId, version: ChunkVersion, out: &mut Vec<Effect>) -> FenceState {
        let refused = |status| FenceState::Answered(FenceAnswer::Refused(status));
        if self.fences.get(&chunk).is_some_and(|&fence| fence > version) {
            return refused(Status::WrongChunkVersion);
        }
        let Some(replica) = self.replicas.get_mut(&chunk) else {
            self.fences.insert(chunk, version);
            return FenceState::Answered(FenceAnswer::Missing);
        };
        let serves = matches!(replica.standing, Standing::Active | Standing::Unsure | Standing::Learner);
        if replica.version > version || (replica.version == version && serves && !planted!(SameVersion)) {
            return refused(Status::WrongChunkVersion);
        }
        self.fences.insert(chunk, version);
        if replica.standing == Standing::Failed {
            return refused(Status::DiskFailed);
        }
        // Only members are fenced. One that was being filled is a member once it was full and the log said so:
        // it has all that was acknowledged, though it was not told yet.
        replica.standing = Standing::Fenced;
        self.step_down(chunk, Status::Recovering, out);
        FenceState::Draining
    }

    /// Gives the disks what has drained.
    fn start_fencing(&mut self, job: JobId, out: &mut Vec<Effect>) {
        let mut items: BTreeMap<DiskIx, Vec<FenceItem>> = BTreeMap::new();
        let Some(fence) = self.jobs.fence(job) else { return };
        for part in fence.chunks.iter_mut().filter(|part| matches!(part.state, FenceState::Draining)) {
            match self.replicas.get(&part.chunk) {
                None => part.state = FenceState::Answered(FenceAnswer::Missing),
                Some(replica) if replica.standing == Standing::Failed => {
                    part.state = FenceState::Answered(FenceAnswer::Refused(Status::DiskFailed));
                }
                Some(replica) if replica.disk_ops > 0 => {}
                Some(replica) if !replica.made => part.state = FenceState::Answered(FenceAnswer::Missing),
                Some(replica) => {
                    part.state = FenceState::Fencing;
                    let verify = replica.origin != Origin::Held;
                    let item = FenceItem { chunk: part.chunk, version: part.version, verify };
                    items.entry(replica.disk).or_default().push(item);
                }
            }
        }
        for (disk, chunks) in items {
            let ids = chunks.iter().map(|item| item.chunk).collect();
            self.work.disk(disk, DiskWork::Fence { job, chunks: ids }, DiskOp::Fence { chunks }, out);
        }
    }

    /// The disk is done with something of `chunk`: a fence may have waited for that.
    pub(crate) fn drained(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let waits = self.replicas.get(&chunk).is_none_or(|replica| {
            replica.disk_ops == 0 && matches!(replica.standing, Standing::Fenced | Standing::Failed)
        });
        if !waits {
            return;
        }
        for job in self.jobs.draining(chunk) {
            self.start_fencing(job, out);
            self.settle_fence(job, out);
        }
    }

    pub(crate) fn fenced_on_disk(
        &mut self,
        job: JobId,
        chunks: &[ChunkId],
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        for (at, &chunk) in chunks.iter().enumerate() {
            let result = match done {
                DiskDone::Fenced(results) => results.get(at).copied().unwrap_or(Err(DiskFault::Io)),
                DiskDone::Failed(fault) => Err(*fault),
                _ => Err(DiskFault::Io),
            };
            let reply = match result {
                Ok(held) => self.state_of(chunk, held),
                // It is as good as before, and fenced in memory: the master asks again.
                Err(DiskFault::NoSpace) => FenceAnswer::Refused(Status::NoSpace),
                Err(fault) => {
                    self.fail_replica(chunk, fault, out);
                    FenceAnswer::Refused(fault.status())
                }
            };
            if let Some(fence) = self.jobs.fence(job) {
                for part in fence.chunks.iter_mut().filter(|part| part.chunk == chunk) {
                    part.state = FenceState::Answered(reply.clone());
                }
            }
        }
        self.settle_fence(job, out);
    }

    fn state_of(&self, chunk: ChunkId, held: FencedReplica) -> FenceAnswer {
        let Some(replica) = self.replicas.get(&chunk) else { return FenceAnswer::Missing };
        FenceAnswer::Holds(ReplicaState {
            class: replica.class(),
            version: replica.version,
            applied: replica.applied.highest(),
            synced: held.synced,
            good_blocks: held.good_blocks,
            // Where every block was compared just now, that is what counts.
            bad_blocks: match replica.origin {
                Origin::Held => held.bad_blocks.max(self.damage.count(chunk)),
                Origin::Found { .. } => held.bad_blocks,
            },
            digest: held.digest,
            ops: replica.ops.records(),
        })
    }

    /// Time is up: what has not answered by now counts as failed this time.
    pub(crate) fn fence_over(&mut self, job: JobId, out: &mut Vec<Effect>) {
        if let Some(fence) = self.jobs.fence(job) {
            for part in &mut fence.chunks {
                if !matches!(part.state, FenceState::Answered(_)) {
                    part.state = FenceState::Answered(FenceAnswer::Refused(Status::Deadline));
                }
            }
        }
        self.settle_fence(job, out);
    }

    fn settle_fence(&mut self, job: JobId, out: &mut Vec<Effect>) {
        let Some(fence) = self.jobs.fence(job) else { return };
        if fence.chunks.iter().any(|part| !matches!(part.state, FenceState::Answered(_))) {
            return;
        }
        if let Some(Job::Fence(fence)) = self.jobs.remove(job) {
            let answers = fence.chunks.into_iter().filter_map(|part| match part.state {
                FenceState::Answered(reply) => Some(reply),
                FenceState::Draining | FenceState::Fencing => None,
            });
            answer(fence.call, Reply::Fenced(Fenced { answers: answers.collect() }), out);
        }
    }

    /// Syncs a replica that goes on without enough others, and settles blocks that no survivor has whole. Only of a
    /// fenced one: nobody reads or writes it now.
    pub(crate) fn reconcile(&mut self, call: CallToken, body: &Reconcile, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey(body.term) {
            return refuse(call, status, out);
        }
        let fenced = self.fences.get(&body.chunk) == Some(&body.version);
        let Some(replica) = self.replicas.get(&body.chunk) else { return refuse(call, Status::NoChunk, out) };
        if !fenced || replica.standing != Standing::Fenced {
            return refuse(call, Status::WrongChunkVersion, out);
        }
        let work = DiskWork::Reconcile { call, chunk: body.chunk };
        self.work.disk(replica.disk, work, DiskOp::Reconcile { chunk: body.chunk, settle: body.settle }, out);
    }

    pub(crate) fn reconciled_on_disk(
        &mut self,
        call: CallToken,
        chunk: ChunkId,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        match done {
            DiskDone::Resolved { digest, torn } => {
                if *torn > 0 {
                    // What was found damaged is settled; what is not, the next read or scrub finds again.
                    self.damage.forget(chunk);
                }
                answer(call, Reply::Reconciled(Reconciled { digest: *digest, torn_resolved: *torn }), out);
            }
            DiskDone::Failed(fault) => {
                // Without room to keep what was damaged nothing was changed.
                if *fault != DiskFault::NoSpace {
                    self.fail_replica(chunk, *fault, out);
                }
                refuse(call, fault.status(), out);
            }
            _ => refuse(call, Status::Io, out),
        }
    }
}
