//! SYNC at the primary and FORWARD_SYNC at the others (F2): every member's disk, in parallel. A sync that
//! failed on a disk is final for that replica (I22); one that was not answered is asked again.

use std::collections::BTreeMap;

use dfs_proto::chunk::{ForwardSyncChunk, Member, SyncChunk};
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq, ServerNum};
use dfs_proto::meta::Suspicion;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskDone, DiskFault, DiskIx, DiskOp, Effect, PeerAnswer, Reply};
use crate::core::read::check_standing;
use crate::core::replica::Standing;
use crate::core::timers::Timer;
use crate::core::work::{DiskWork, ForwardSyncJob, Job, JobId, PeerWork, SyncJob, SyncPart};
use crate::core::{Core, answer, refuse};

/// How long members are asked again: a client waits five seconds.
const SYNC_LIMIT_MS: u64 = 4_500;
const SYNC_AGAIN_MS: u64 = 50;
/// Most chunks of one SYNC.
const SYNC_CHUNKS_MAX: usize = 4096;

impl Core {
    pub(crate) fn client_sync(
        &mut self,
        now: Micros,
        call: CallToken,
        chunks: &[SyncChunk],
        out: &mut Vec<Effect>,
    ) {
        if chunks.len() > SYNC_CHUNKS_MAX {
            return refuse(call, Status::TooLarge, out);
        }
        let mut parts = Vec::with_capacity(chunks.len());
        let mut local: BTreeMap<DiskIx, Vec<(ChunkId, Seq)>> = BTreeMap::new();
        let mut remote: BTreeMap<Member, Vec<ForwardSyncChunk>> = BTreeMap::new();
        for asked in chunks {
            let mut part = SyncPart { chunk: asked.capability.chunk, waits: 0, status: Status::Ok };
            match self.sync_targets(now, asked) {
                Err(status) => part.status = status,
                Ok(Targets { disk, others, ask }) => {
                    for member in others {
                        part.waits += 1;
                        remote.entry(member).or_default().push(ask);
                    }
                    if let Some(disk) = disk {
                        part.waits += 1;
                        local.entry(disk).or_default().push((ask.chunk, ask.seq));
                    }
                }
            }
            parts.push(part);
        }
        let until = now.plus_ms(SYNC_LIMIT_MS);
        let job = self.jobs.add(Job::Sync(SyncJob { call, chunks: parts, until, again: Vec::new() }));
        for (to, chunks) in remote {
            let chunks: Vec<_> =
                chunks.into_iter().map(|ask| ForwardSyncChunk { to: to.boot, ..ask }).collect();
            let work = PeerWork::Sync { job, to, chunks: chunks.clone() };
            self.work.sync(to, work, chunks, false, out);
        }
        for (disk, chunks) in local {
            let ids = chunks.iter().map(|(chunk, _)| *chunk).collect();
            self.work.disk(disk, DiskWork::Sync { job, chunks: ids }, DiskOp::Sync { chunks }, out);
        }
        self.settle_sync(job, out);
    }

    /// Who has to sync a chunk.
    fn sync_targets(&self, now: Micros, asked: &SyncChunk) -> Result<Targets, Status> {
        let cap = &asked.capability;
        if !self.lease.is_valid(now) {
            return Err(Status::NotServing);
        }
        // A right to read is enough: fsync is for whoever has the file open.
        self.check_capability(now, cap)?;
        let me = self.me().ok_or(Status::NotServing)?;
        let replica = self.replicas.get(&cap.chunk).ok_or_else(|| self.why_missing(cap))?;
        check_standing(replica, cap.version)?;
        if !replica.is_primary(me.server) {
            return Err(Status::Redirect);
        }
        if replica.lossy > asked.since {
            return Err(Status::Lost);
        }
        let learner = replica.mandatory_learner();
        let others = replica.members.iter().copied().filter(|member| *member != me).chain(learner).collect();
        let ask = ForwardSyncChunk {
            chunk: cap.chunk,
            version: replica.version,
            config: replica.config,
            seq: replica.applied.highest(),
            to: me.boot,
        };
        Ok(Targets { disk: replica.made.then_some(replica.disk), others, ask })
    }

    /// The own disk is done with a client's sync.
    pub(crate) fn sync_on_disk(
        &mut self,
        job: JobId,
        chunks: &[ChunkId],
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        for (chunk, result) in sync_results(chunks, done) {
            if let Err(fault) = result {
                self.fail_replica(chunk, fault, out);
            }
            let status = if result.is_ok() { Status::Ok } else { Status::NotServing };
            self.sync_part(job, chunk, status);
        }
        self.settle_sync(job, out);
    }

    /// Another member answered a client's sync, or did not.
    pub(crate) fn sync_answered(
        &mut self,
        now: Micros,
        job: JobId,
        to: Member,
        chunks: Vec<ForwardSyncChunk>,
        reply: &PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let failed = match reply {
            PeerAnswer::Synced { .. }
            | PeerAnswer::Ok
            | PeerAnswer::Compared(_)
            | PeerAnswer::Stock { .. } => Status::Ok,
            PeerAnswer::Refused(status) => *status,
            PeerAnswer::Silent | PeerAnswer::Dead => Status::Disconnected,
        };
        let results: &[Status] = match reply {
            PeerAnswer::Synced { results, .. } => results,
            _ => &[],
        };
        let mut again = Vec::new();
        for (at, ask) in chunks.into_iter().enumerate() {
            let status = results.get(at).copied().unwrap_or(failed);
            let over = self.jobs.sync(job).is_none_or(|job| now >= job.until);
            match status {
                Status::Ok => self.sync_part(job, ask.chunk, Status::Ok),
                // The version went on meanwhile: what has to be synced, and where, is another question.
                _ if self.version_of(ask.chunk) != Some(ask.version) => {
                    self.sync_part(job, ask.chunk, Status::WrongChunkVersion);
                }
                // It has left the chunk since: whoever reads, reads from those that stay.
                _ if !self.has_to_sync(ask.chunk, to.server) => self.sync_part(job, ask.chunk, Status::Ok),
                _ if over => self.sync_part(job, ask.chunk, Status::Recovering),
                _ => again.push(ask),
            }
        }
        if let Some(what) = silence(reply) {
            // Of each: the master leaves a member out chunk by chunk, and one after the other would take its time for each.
            let silent = again.iter().map(|ask| ask.chunk);
            self.suspect_of(now, silent, to, what, out);
        }
        if let (false, Some(sync)) = (again.is_empty(), self.jobs.sync(job)) {
            sync.again.push((to, again));
            self.timers.add(now.plus_ms(SYNC_AGAIN_MS), Timer::SyncAgain { job });
        }
        self.settle_sync(job, out);
    }

    /// Asks again who did not answer.
    pub(crate) fn sync_again(&mut self, job: JobId, out: &mut Vec<Effect>) {
        let Some(sync) = self.jobs.sync(job) else { return };
        for (to, chunks) in std::mem::take(&mut sync.again) {
            let work = PeerWork::Sync { job, to, chunks: chunks.clone() };
            self.work.sync(to, work, chunks, false, out);
        }
    }

    fn version_of(&self, chunk: ChunkId) -> Option<ChunkVersion> {
        self.replicas
            .get(&chunk)
            .filter(|replica| matches!(replica.standing, Standing::Active | Standing::Unsure))
            .map(|replica| replica.version)
    }

    fn has_to_sync(&self, chunk: ChunkId, server: ServerNum) -> bool {
        self.replicas.get(&chunk).is_some_and(|replica| {
            replica.members.iter().copied().chain(replica.mandatory_learner()).any(|to| to.server == server)
        })
    }

    fn sync_part(&mut self, job: JobId, chunk: ChunkId, status: Status) {
        let Some(sync) = self.jobs.sync(job) else { return };
        // A chunk named twice was asked for twice.
        if let Some(part) = sync.chunks.iter_mut().find(|part| part.chunk == chunk && part.waits > 0) {
            part.waits -= 1;
            if part.status == Status::Ok {
                part.status = status;
            }
        }
    }

    fn settle_sync(&mut self, job: JobId, out: &mut Vec<Effect>) {
        if self.jobs.sync(job).is_none_or(|sync| sync.chunks.iter().any(|part| part.waits > 0)) {
            return;
        }
        if let Some(Job::Sync(sync)) = self.jobs.remove(job) {
            let results = sync.chunks.into_iter().map(|part| part.status).collect();
            answer(sync.call, Reply::Synced { results, digest: None }, out);
        }
    }

    pub(crate) fn forward_sync(
        &mut self,
        call: CallToken,
        chunks: &[ForwardSyncChunk],
        digest: bool,
        out: &mut Vec<Effect>,
    ) {
        if chunks.len() > SYNC_CHUNKS_MAX {
            return refuse(call, Status::TooLarge, out);
        }
        let mut results = Vec::with_capacity(chunks.len());
        let mut local: BTreeMap<DiskIx, Vec<(ChunkId, Seq)>> = BTreeMap::new();
        for ask in chunks {
            let status = match self.admit_sync(ask) {
                Err(status) => status,
                Ok(None) => Status::Ok,
                Ok(Some(disk)) => {
                    local.entry(disk).or_default().push((ask.chunk, ask.seq));
                    Status::Ok
                }
            };
            results.push((ask.chunk, status));
        }
        let wants_digest = match (digest, chunks, results.first()) {
            (true, [ask], Some((_, Status::Ok))) => Some(ask.chunk),
            _ => None,
        };
        let waits = u32::try_from(local.len()).unwrap_or(u32::MAX) + u32::from(wants_digest.is_some());
        let job = self.jobs.add(Job::ForwardSync(ForwardSyncJob { call, results, digest: None, waits }));
        for (disk, chunks) in local {
            let ids = chunks.iter().map(|(chunk, _)| *chunk).collect();
            self.work.disk(disk, DiskWork::ForwardSync { job, chunks: ids }, DiskOp::Sync { chunks }, out);
        }
        if let Some(chunk) = wants_digest
            && let Some(replica) = self.replicas.get(&chunk)
        {
            let work = DiskWork::ForwardDigest { job };
            self.work.disk(replica.disk, work, DiskOp::Digest { chunk }, out);
        }
        self.settle_forward_sync(job, out);
    }

    /// The disk to sync; none if the replica has no file yet.
    fn admit_sync(&self, ask: &ForwardSyncChunk) -> Result<Option<DiskIx>, Status> {
        if ask.to != self.identity.boot || self.stopped {
            return Err(Status::NotServing);
        }
        let replica = self.replicas.get(&ask.chunk).ok_or(Status::NoChunk)?;
        if replica.version > ask.version {
            return Err(Status::WrongChunkVersion);
        }
        if replica.version < ask.version || !replica.takes_part() {
            return Err(if replica.standing == Standing::Failed {
                Status::DiskFailed
            } else {
                Status::NotServing
            });
        }
        Ok(replica.made.then_some(replica.disk))
    }

    pub(crate) fn forward_sync_on_disk(
        &mut self,
        job: JobId,
        chunks: &[ChunkId],
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        for (chunk, result) in sync_results(chunks, done) {
            let Err(fault) = result else { continue };
            self.fail_replica(chunk, fault, out);
            let parts = self.jobs.forward_sync(job).map(|job| job.results.as_mut_slice()).unwrap_or_default();
            for part in parts.iter_mut().filter(|part| part.0 == chunk) {
                part.1 = Status::DiskFailed;
            }
        }
        self.forward_sync_part(job, None, out);
    }

    pub(crate) fn forward_sync_part(&mut self, job: JobId, digest: Option<u128>, out: &mut Vec<Effect>) {
        if let Some(sync) = self.jobs.forward_sync(job) {
            sync.waits = sync.waits.saturating_sub(1);
            sync.digest = sync.digest.or(digest);
        }
        self.settle_forward_sync(job, out);
    }

    fn settle_forward_sync(&mut self, job: JobId, out: &mut Vec<Effect>) {
        if self.jobs.forward_sync(job).is_none_or(|sync| sync.waits > 0) {
            return;
        }
        if let Some(Job::ForwardSync(sync)) = self.jobs.remove(job) {
            let results = sync.results.into_iter().map(|(_, status)| status).collect();
            answer(sync.call, Reply::Synced { results, digest: sync.digest }, out);
        }
    }
}

struct Targets {
    disk: Option<DiskIx>,
    others: Vec<Member>,
    ask: ForwardSyncChunk,
}

/// One result a chunk, whatever the disk answered.
fn sync_results(chunks: &[ChunkId], done: &DiskDone) -> Vec<(ChunkId, Result<(), DiskFault>)> {
    let one = |at: usize| match done {
        DiskDone::Synced(results) => results.get(at).copied().unwrap_or(Err(DiskFault::Io)),
        DiskDone::Failed(fault) => Err(*fault),
        // No answer to a sync: nothing is known to be durable.
        _ => Err(DiskFault::Io),
    };
    chunks.iter().enumerate().map(|(at, &chunk)| (chunk, one(at))).collect()
}

fn silence(reply: &PeerAnswer) -> Option<Suspicion> {
    match reply {
        PeerAnswer::Silent => Some(Suspicion::Silent),
        PeerAnswer::Dead => Some(Suspicion::RefusedUnix),
        PeerAnswer::Ok
        | PeerAnswer::Compared(_)
        | PeerAnswer::Stock { .. }
        | PeerAnswer::Synced { .. }
        | PeerAnswer::Refused(_) => None,
    }
}
