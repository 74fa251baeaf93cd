//! What is under way outside the core: disk operations, messages to peers, and the calls that are answered
//! when several of them are done. A token is used once; what comes back twice is nobody's.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::chunk::{ForwardKind, ForwardMeta, ForwardSyncChunk, Member, Range};
use dfs_proto::control::{CloseAnswer, FenceAnswer, Holdings};
use dfs_proto::ids::{ChunkId, ChunkVersion, OpId, OpenNum, Seq, ServerNum, SessionId, SizeEpoch};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use bytes::Bytes;

use crate::core::io::{CallToken, DiskIx, DiskOp, DiskTask, DiskToken, Effect, PeerToken};

/// A call that several parts answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct JobId(u64);

#[derive(Debug, Default)]
pub(crate) struct Work {
    next: u64,
    disk: BTreeMap<DiskToken, DiskWork>,
    peer: BTreeMap<PeerToken, PeerWork>,
}

/// What a disk operation was for.
#[derive(Debug)]
pub(crate) enum DiskWork {
    /// Nobody waits.
    Nothing,
    /// A write or zeroing of a primary.
    Flight {
        id: FlightId,
        op: AppliedOp,
    },
    /// A FORWARD at a secondary or learner.
    Forward {
        chunk: ChunkId,
        version: ChunkVersion,
        seq: Seq,
        op: AppliedOp,
    },
    /// A piece for a learner, at the learner.
    Fill {
        chunk: ChunkId,
        version: ChunkVersion,
        call: CallToken,
    },
    /// A comparison, at the learner.
    Compare {
        chunk: ChunkId,
        call: CallToken,
    },
    /// The start of a learner, at the learner.
    Begin {
        chunk: ChunkId,
        call: CallToken,
    },
    /// The local part of a client's sync.
    Sync {
        job: JobId,
        chunks: Vec<ChunkId>,
    },
    /// All of a primary's sync.
    ForwardSync {
        job: JobId,
        chunks: Vec<ChunkId>,
    },
    /// The digest that goes with it.
    ForwardDigest {
        job: JobId,
    },
    Fence {
        job: JobId,
        chunks: Vec<ChunkId>,
    },
    Reconcile {
        call: CallToken,
        chunk: ChunkId,
    },
    /// What a learner pulled from a member, at the learner.
    Pulled(Pulled),
    /// What a part of a fill is or holds, at the primary.
    FillRead(FillId),
    /// The primary's own digest, to compare with the learner's.
    FillDigest(FillId),
    Close {
        job: JobId,
        chunks: Vec<ChunkId>,
    },
    /// Blocks for a primary whose own are damaged.
    Stock {
        chunk: ChunkId,
        range: Range,
        call: CallToken,
    },
    /// Blocks for a member whose own are damaged, read at the primary.
    MendRead {
        chunk: ChunkId,
        version: ChunkVersion,
    },
    /// A primary's damaged blocks.
    MendOwn {
        chunk: ChunkId,
        version: ChunkVersion,
        range: Range,
    },
    /// Those of another member, at that member.
    Mended {
        chunk: ChunkId,
        range: Range,
        call: CallToken,
    },
    Scrub {
        disk: DiskIx,
        chunk: ChunkId,
        from: Option<u32>,
    },
    /// The primary's own digest, to compare with the members'.
    Agree {
        chunk: ChunkId,
        version: ChunkVersion,
    },
    Trash {
        job: JobId,
        chunk: ChunkId,
    },
    Look {
        job: JobId,
        chunks: Vec<ChunkId>,
    },
    Examine {
        call: CallToken,
        chunk: ChunkId,
    },
}

/// Which write of a primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlightId {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    pub(crate) seq: Seq,
}

/// Which fill of a primary, and which part of it; `None` for what concerns all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FillId {
    pub(crate) chunk: ChunkId,
    /// Of one process: what comes back for an earlier fill is nobody's.
    pub(crate) attempt: u64,
    pub(crate) part: Option<u32>,
}

/// Which piece of a learner's pull.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pulled {
    pub(crate) chunk: ChunkId,
    pub(crate) pull: u64,
    pub(crate) range: Range,
    /// Who was asked, as the learner counts its sources.
    pub(crate) from: usize,
    /// Who was asked for it so far, a bit each.
    pub(crate) tried: u32,
}

/// Whose write it was, for the op table once it is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AppliedOp {
    pub(crate) session: SessionId,
    pub(crate) op: OpId,
    pub(crate) done: OpId,
    pub(crate) size_epoch: SizeEpoch,
    /// The truncation that a zeroing belongs to.
    pub(crate) cut: Option<SizeEpoch>,
}

impl AppliedOp {
    pub(crate) fn of(meta: &ForwardMeta) -> AppliedOp {
        // Only a record of a fill names an operation with a Zero; it has no `done` of its own.
        let (done, size_epoch) = match meta.kind {
            ForwardKind::Zero => (OpId(0), SizeEpoch(u32::try_from(meta.done.0).unwrap_or(u32::MAX))),
            _ => (meta.done, meta.size_epoch),
        };
        let cut = (meta.kind == ForwardKind::Zero).then_some(meta.size_epoch);
        AppliedOp { session: meta.session, op: meta.op, done, size_epoch, cut }
    }
}

/// What a message to a peer was for.
#[derive(Debug)]
pub(crate) enum PeerWork {
    Flight {
        id: FlightId,
        server: ServerNum,
    },
    Sync {
        job: JobId,
        to: Member,
        chunks: Vec<ForwardSyncChunk>,
    },
    Fill(FillId),
    /// A learner's, to a member that has what it lacks.
    Pull(Pulled),
    /// To mend the own blocks.
    Fetch {
        chunk: ChunkId,
        version: ChunkVersion,
    },
    /// To mend a member's.
    Mend {
        chunk: ChunkId,
        version: ChunkVersion,
    },
    /// A member's digest.
    Agree {
        chunk: ChunkId,
        version: ChunkVersion,
        member: Member,
    },
}

impl Work {
    /// A number that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn disk(&mut self, disk: DiskIx, work: DiskWork, op: DiskOp, out: &mut Vec<Effect>) {
        let token = DiskToken(self.number());
        self.disk.insert(token, work);
        out.push(Effect::Disk(DiskTask { disk, token, op }));
    }

    pub(crate) fn forward(
        &mut self,
        to: Member,
        work: PeerWork,
        meta: ForwardMeta,
        payload: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let token = PeerToken(self.number());
        self.peer.insert(token, work);
        let meta = ForwardMeta { to: to.boot, ..meta };
        out.push(Effect::Forward { to, token, meta, payload });
    }

    pub(crate) fn sync(
        &mut self,
        to: Member,
        work: PeerWork,
        chunks: Vec<ForwardSyncChunk>,
        digest: bool,
        out: &mut Vec<Effect>,
    ) {
        let token = PeerToken(self.number());
        self.peer.insert(token, work);
        out.push(Effect::ForwardSync { to, token, chunks, digest });
    }

    pub(crate) fn disk_done(&mut self, token: DiskToken) -> Option<DiskWork> {
        self.disk.remove(&token)
    }

    pub(crate) fn peer_done(&mut self, token: PeerToken) -> Option<PeerWork> {
        self.peer.remove(&token)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    next: u64,
    jobs: BTreeMap<JobId, Job>,
}

#[derive(Debug)]
pub(crate) enum Job {
    Sync(SyncJob),
    ForwardSync(ForwardSyncJob),
    Fence(FenceJob),
    Close(CloseJob),
    Delete(DeleteJob),
    Look(LookJob),
}

/// A client's SYNC.
#[derive(Debug)]
pub(crate) struct SyncJob {
    pub(crate) call: CallToken,
    pub(crate) chunks: Vec<SyncPart>,
    /// When it is given up.
    pub(crate) until: Micros,
    /// Members to ask again, with what.
    pub(crate) again: Vec<(Member, Vec<ForwardSyncChunk>)>,
}

/// One chunk of a [`SyncJob`].
#[derive(Debug)]
pub(crate) struct SyncPart {
    pub(crate) chunk: ChunkId,
    /// Answers still to come.
    pub(crate) waits: u32,
    pub(crate) status: Status,
}

/// A primary's FORWARD_SYNC.
#[derive(Debug)]
pub(crate) struct ForwardSyncJob {
    pub(crate) call: CallToken,
    pub(crate) results: Vec<(ChunkId, Status)>,
    pub(crate) digest: Option<u128>,
    /// Disk answers still to come.
    pub(crate) waits: u32,
}

#[derive(Debug)]
pub(crate) struct FenceJob {
    pub(crate) call: CallToken,
    pub(crate) chunks: Vec<FencePart>,
}

/// One chunk of a [`FenceJob`].
#[derive(Debug)]
pub(crate) struct FencePart {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    pub(crate) state: FenceState,
}

#[derive(Debug)]
pub(crate) enum FenceState {
    /// Until the disk is done with what it had of the chunk.
    Draining,
    /// The disk has the fence.
    Fencing,
    Answered(FenceAnswer),
}

#[derive(Debug)]
pub(crate) struct CloseJob {
    pub(crate) call: CallToken,
    pub(crate) chunks: Vec<ClosePart>,
}

/// One chunk of a [`CloseJob`].
#[derive(Debug)]
pub(crate) struct ClosePart {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    pub(crate) open_num: OpenNum,
    pub(crate) seq: Seq,
    /// None while the disk has it.
    pub(crate) answer: Option<CloseAnswer>,
}

#[derive(Debug)]
pub(crate) struct DeleteJob {
    pub(crate) call: CallToken,
    pub(crate) results: Vec<(ChunkId, Status)>,
    pub(crate) waits: BTreeSet<ChunkId>,
}

/// A LOOK whose files are being looked up.
#[derive(Debug)]
pub(crate) struct LookJob {
    pub(crate) call: CallToken,
    pub(crate) held: Holdings,
    /// Disks still to answer.
    pub(crate) waits: usize,
}

impl Jobs {
    pub(crate) fn add(&mut self, job: Job) -> JobId {
        self.next += 1;
        let id = JobId(self.next);
        self.jobs.insert(id, job);
        id
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
        self.jobs.remove(&id)
    }

    pub(crate) fn sync(&mut self, id: JobId) -> Option<&mut SyncJob> {
        match self.jobs.get_mut(&id) {
            Some(Job::Sync(job)) => Some(job),
            _ => None,
        }
    }

    pub(crate) fn forward_sync(&mut self, id: JobId) -> Option<&mut ForwardSyncJob> {
        match self.jobs.get_mut(&id) {
            Some(Job::ForwardSync(job)) => Some(job),
            _ => None,
        }
    }

    pub(crate) fn fence(&mut self, id: JobId) -> Option<&mut FenceJob> {
        match self.jobs.get_mut(&id) {
            Some(Job::Fence(job)) => Some(job),
            _ => None,
        }
    }

    pub(crate) fn close(&mut self, id: JobId) -> Option<&mut CloseJob> {
        match self.jobs.get_mut(&id) {
            Some(Job::Close(job)) => Some(job),
            _ => None,
        }
    }

    pub(crate) fn delete(&mut self, id: JobId) -> Option<&mut DeleteJob> {
        match self.jobs.get_mut(&id) {
            Some(Job::Delete(job)) => Some(job),
            _ => None,
        }
    }

    pub(crate) fn look(&mut self, id: JobId) -> Option<&mut LookJob> {
        match self.jobs.get_mut(&id) {
            Some(Job::Look(job)) => Some(job),
            _ => None,
        }
    }

    /// Fences that wait for the disk to be done with `chunk`.
    pub(crate) fn draining(&self, chunk: ChunkId) -> Vec<JobId> {
        let mut waiting = Vec::new();
        for (&id, job) in &self.jobs {
            if let Job::Fence(fence) = job
                && fence
                    .chunks
                    .iter()
                    .any(|part| part.chunk == chunk && matches!(part.state, FenceState::Draining))
            {
                waiting.push(id);
            }
        }
        waiting
    }
}
