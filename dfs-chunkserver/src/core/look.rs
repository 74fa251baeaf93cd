//! What is here, for the master's checks. Answered whatever the lease: it tells what there is, and serves none of it.

use std::collections::BTreeMap;

use dfs_proto::control::{
    Examine, Examined, HOLDINGS_MAX, HeldReplica, HeldState, Holdings, Look, ReplicaClass, runs_of,
};
use dfs_proto::ids::{ChunkId, Seq};
use dfs_proto::status::Status;

use crate::core::io::{CallToken, DiskDone, DiskFault, DiskIx, DiskOp, Effect, Reply};
use crate::core::replica::{Replica, Standing};
use crate::core::work::{DiskWork, Job, JobId, LookJob};
use crate::core::{Core, answer, refuse};

impl Core {
    pub(crate) fn look(&mut self, call: CallToken, body: &Look, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey(body.term) {
            return refuse(call, status, out);
        }
        let mut list = self.replicas.range(body.from..).map(|(_, replica)| replica);
        let part: Vec<&Replica> = list.by_ref().take(HOLDINGS_MAX).collect();
        let next = list.next().map(|replica| replica.chunk);
        let mut on_disk: BTreeMap<DiskIx, Vec<ChunkId>> = BTreeMap::new();
        for replica in part.iter().filter(|replica| state(replica) == HeldState::Present) {
            on_disk.entry(replica.disk).or_default().push(replica.chunk);
        }
        let held = Holdings { replicas: part.into_iter().map(held).collect(), next };
        let job = self.jobs.add(Job::Look(LookJob { call, held, waits: on_disk.len() }));
        for (disk, chunks) in on_disk {
            let work = DiskWork::Look { job, chunks: chunks.clone() };
            self.work.disk(disk, work, DiskOp::Look { chunks }, out);
        }
        self.settle_look(job, out);
    }

    pub(crate) fn looked_on_disk(
        &mut self,
        id: JobId,
        chunks: &[ChunkId],
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.look(id) else { return };
        job.waits -= 1;
        for (at, chunk) in chunks.iter().enumerate() {
            let there = matches!(done, DiskDone::Looked(there) if there.get(at) == Some(&true));
            // One that was deleted meanwhile is not missing: the master knows of it.
            let replica = self.replicas.get(chunk);
            if let Ok(at) = job.held.replicas.binary_search_by_key(chunk, |held| held.chunk) {
                job.held.replicas[at].state = match replica {
                    Some(replica) if there || !replica.made => state(replica),
                    Some(_) | None => HeldState::Gone,
                };
            }
        }
        self.settle_look(id, out);
    }

    fn settle_look(&mut self, id: JobId, out: &mut Vec<Effect>) {
        if self.jobs.look(id).is_none_or(|job| job.waits > 0) {
            return;
        }
        if let Some(Job::Look(job)) = self.jobs.remove(id) {
            answer(job.call, Reply::Held(job.held), out);
        }
    }

    pub(crate) fn examine(&mut self, call: CallToken, body: &Examine, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey(body.term) {
            return refuse(call, status, out);
        }
        let chunk = body.chunk;
        match self.replicas.get(&chunk) {
            Some(replica) if state(replica) == HeldState::Present => {
                let disk = replica.disk;
                self.work.disk(disk, DiskWork::Examine { call, chunk }, DiskOp::Examine { chunk }, out);
            }
            replica => answer(call, Reply::Examined(examined(replica)), out),
        }
    }

    pub(crate) fn examined_on_disk(
        &mut self,
        call: CallToken,
        chunk: ChunkId,
        done: DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let mut report = examined(self.replicas.get(&chunk));
        match done {
            DiskDone::Examined { synced, good, bad } => {
                (report.synced, report.good_blocks, report.bad) = (synced, good, runs_of(&bad));
            }
            DiskDone::Failed(DiskFault::Missing) => {
                report.replica = report.replica.map(|held| HeldReplica { state: HeldState::Gone, ..held });
            }
            DiskDone::Failed(DiskFault::Io) => {
                report.replica = report.replica.map(|held| HeldReplica { state: HeldState::Failed, ..held });
            }
            DiskDone::Failed(fault) => return refuse(call, fault.status(), out),
            _ => return refuse(call, Status::Io, out),
        }
        answer(call, Reply::Examined(report), out);
    }
}

fn state(replica: &Replica) -> HeldState {
    match (replica.standing, replica.made) {
        (Standing::Failed, _) => HeldState::Failed,
        (_, true) => HeldState::Present,
        (_, false) => HeldState::Empty,
    }
}

fn held(replica: &Replica) -> HeldReplica {
    HeldReplica {
        chunk: replica.chunk,
        version: replica.version,
        config: replica.config,
        learner: replica.learner,
        ino: replica.ino,
        index: replica.index,
        state: state(replica),
    }
}

fn examined(replica: Option<&Replica>) -> Examined {
    Examined {
        replica: replica.map(held),
        class: replica.map_or(ReplicaClass::Rebooted, Replica::class),
        applied: replica.map_or(Seq(0), |replica| replica.applied.highest()),
        synced: Seq(0),
        good_blocks: 0,
        bad: Vec::new(),
    }
}
