//! Chunks without a good replica: what is wrong with each, as far as is known, and the operator's way to give up
//! what they held. Nothing here is done by the master on its own: a chunk that nobody can serve waits.
//!
//! Keeps what is left of a chunk that was given up: such replicas are neither deleted nor filled.

use std::collections::BTreeMap;

use dfs_proto::control::{Examine, Examined, FenceAnswer, ServerEvent};
use dfs_proto::ids::{ChunkId, ChunkVersion, LogIndex, ServerNum, SessionId};
use dfs_proto::meta::{
    Damaged, DamagedChunk, DamagedPart, DamagedReplica, Done, ExamineChunk, RepairChunk, RepairWay,
    ReplicaFault,
};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use super::Core;
use super::chunks::ChunkMeta;
use super::chunks::confirm::Incarnation;
use super::command::{Answer, Command, GiveUp};
use super::dispatch::Then;
use super::recovery::MemberStanding;
use super::reply::{Asked, COMMAND_DEADLINE_MS, Caller};
use super::soft::forget_members;

/// Chunks looked at in one question.
const SLICE: usize = 4096;
/// Chunks named in one answer.
const NAMED_MAX: usize = 512;
/// Notes kept. More damage than this needs no longer list; what is still there is reported again.
const NOTES_MAX: usize = 65_536;

/// Replicas that their servers said failed, of the chunk's version then: a recovery since may have gone on without
/// them. Soft: a server says it again after it registered, or when the replica is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage {
    failed: BTreeMap<(ChunkId, ServerNum), (ChunkVersion, Incarnation)>,
}

impl Damage {
    fn note(&mut self, chunk: ChunkId, server: ServerNum, said: (ChunkVersion, Incarnation)) {
        if self.failed.len() < NOTES_MAX || self.failed.contains_key(&(chunk, server)) {
            self.failed.insert((chunk, server), said);
        }
    }

    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    /// As which incarnation of the server said of this version.
    fn failed(&self, chunk: ChunkId, version: ChunkVersion, server: ServerNum) -> Option<Incarnation> {
        let said = self.failed.get(&(chunk, server)).filter(|said| said.0 == version);
        said.map(|said| said.1)
    }

    /// The chunk has other members, or a new version.
    pub(super) fn forget(&mut self, chunk: ChunkId) {
        forget_members(&mut self.failed, chunk);
    }
}

impl Core {
    /// A server says that a replica of its own failed, or is gone.
    pub(super) fn lost_at(&mut self, chunk: ChunkId, server: ServerNum) {
        let live = self.soft.servers.get(server).map(|live| live.incarnation);
        if let Some(meta) = self.state.chunks.get(chunk).filter(|meta| meta.members.contains(server))
            && let Some(incarnation) = live
        {
            self.soft.damage.note(chunk, server, (meta.version, incarnation));
        }
        self.exclude(chunk, server);
    }

    /// Servers whose old replica of a chunk is kept for a person.
    pub(super) fn keeps_given_up(&self, chunk: ChunkId) -> Vec<ServerNum> {
        let Some(given_up) = self.state.given_up.get(&chunk) else { return Vec::new() };
        given_up.iter().copied().chain(self.soft.gc.stale_holders(chunk)).collect()
    }

    /// What is wrong with each member; `None` when some member is good, or may be.
    fn faults(&self, chunk: ChunkId, meta: &ChunkMeta) -> Option<Vec<DamagedReplica>> {
        let fault = |server: ServerNum, why| {
            let name = self.state.servers.get(server).map(|server| server.info.name.clone());
            DamagedReplica { server, name: name.unwrap_or_default(), why }
        };
        // A server says so of blocks that no member has.
        let hopeless = meta.members.iter().filter_map(|server| {
            let blocks = self.hopeless(chunk, server);
            (!blocks.is_empty()).then(|| fault(server, ReplicaFault::Corrupt { blocks }))
        });
        let hopeless: Vec<DamagedReplica> = hopeless.collect();
        if !hopeless.is_empty() {
            return Some(hopeless);
        }
        let members = meta.members.iter().enumerate();
        members.map(|(at, server)| Some(fault(server, self.fault(chunk, meta, at, server)?))).collect()
    }

    /// Blocks that a server which is up serves to nobody, because no member has them.
    fn hopeless(&self, chunk: ChunkId, server: ServerNum) -> Vec<u32> {
        let up = self.soft.servers.is_up(server, self.now.mono);
        let live = self.soft.servers.get(server).filter(|_| up);
        let blocks = live.into_iter().flat_map(|live| &live.scrub.blocks);
        let mut blocks: Vec<u32> = blocks.filter(|(of, _)| *of == chunk).map(|(_, block)| *block).collect();
        blocks.sort_unstable();
        blocks
    }

    pub(super) fn fault(
        &self,
        chunk: ChunkId,
        meta: &ChunkMeta,
        at: usize,
        server: ServerNum,
    ) -> Option<ReplicaFault> {
        let standing = self.member_standing(chunk, meta, at, server);
        // What an earlier process said, its next one may see otherwise.
        let said = self.soft.damage.failed(chunk, meta.version, server);
        let live = self.soft.servers.get(server);
        let failed = said.is_some_and(|then| live.is_some_and(|live| live.is_of_boot(then)));
        if standing != MemberStanding::Gone && failed {
            return Some(ReplicaFault::Failed);
        }
        let answer = self.soft.recovery.answer_of(chunk, server);
        match answer.filter(|(process, _)| self.process(server).as_ref() == Some(*process)) {
            Some((_, FenceAnswer::Missing)) => return Some(ReplicaFault::Missing),
            Some((_, FenceAnswer::Refused(Status::DiskFailed | Status::Io))) => {
                return Some(ReplicaFault::Failed);
            }
            Some((_, FenceAnswer::Holds(_))) => return None,
            Some((_, FenceAnswer::Refused(_))) | None => {}
        }
        match standing {
            // It serves, or may come, or says soon what it has.
            MemberStanding::Serving(_) | MemberStanding::Waiting | MemberStanding::Unconfirmed => None,
            MemberStanding::Gone => {
                let live = self.soft.servers.get(server).filter(|live| live.spoke);
                let silent_ms = live.map(|live| self.now.mono.ms_since(live.heard));
                Some(ReplicaFault::Away { silent_ms })
            }
        }
    }

    /// Which chunks have no good replica, a slice of all or of one file's.
    pub(super) fn damaged(&self, request: Damaged) -> Result<DamagedPart, Status> {
        let chunk_size = self.state.ns.chunk_size();
        let mut part = DamagedPart { chunk_size, chunks: Vec::new(), next: None };
        match request.ino {
            Some(ino) => {
                let all = self.state.ns.chunks(ino, ChunkIndex(request.from), u64::MAX)?;
                let looked = all.into_iter().enumerate().filter_map(|(at, (index, chunk))| {
                    Some((at, index.0, chunk, self.state.chunks.get(chunk)?))
                });
                self.name_damaged(&mut part, looked);
            }
            None => {
                let all = self.state.chunks.iter_from(ChunkId(request.from)).enumerate();
                let looked = all.map(|(at, (chunk, meta))| (at, chunk.0, chunk, meta));
                self.name_damaged(&mut part, looked);
            }
        }
        Ok(part)
    }

    fn name_damaged(
        &self,
        part: &mut DamagedPart,
        chunks: impl Iterator<Item = (usize, u64, ChunkId, ChunkMeta)>,
    ) {
        for (at, key, chunk, meta) in chunks {
            if at >= SLICE || part.chunks.len() >= NAMED_MAX {
                part.next = Some(key);
                return;
            }
            let Some(replicas) = self.faults(chunk, &meta) else { continue };
            part.chunks.push(DamagedChunk {
                ino: meta.ino,
                index: meta.index,
                chunk,
                version: meta.fence(),
                config: meta.config,
                size: self.state.ns.getattr(meta.ino).map_or(0, |attr| attr.size),
                written: meta.written,
                replicas,
            });
        }
    }

    /// Has a server read and compare the blocks of a replica.
    pub(super) fn examine_chunk(&mut self, caller: Caller, request: ExamineChunk) -> Result<(), Status> {
        let ExamineChunk { chunk, server } = request;
        let request = Examine { term: self.term(), chunk };
        let asked = Asked::Examine { caller };
        if self.call(server, &request, asked, COMMAND_DEADLINE_MS, self.state.applied) {
            Ok(())
        } else {
            Err(Status::Disconnected)
        }
    }

    pub(super) fn examined(&mut self, caller: Caller, result: Result<Examined, Status>) {
        match result {
            Ok(examined) => self.reply(caller, &examined),
            Err(status) => self.fail(caller, status),
        }
    }

    /// An operator gives up what a chunk held.
    pub(super) fn repair_chunk(&mut self, caller: Caller, request: RepairChunk) -> Result<(), Status> {
        let RepairChunk { chunk, version, config, way } = request;
        let meta = self.state.chunks.get(chunk).ok_or(Status::NoChunk)?;
        if (meta.fence(), meta.config) != (version, config) {
            return Err(Status::WrongChunkVersion);
        }
        // Not what somebody can still serve.
        let faults = self.faults(chunk, &meta).ok_or(Status::Busy)?;
        if self.hold.stands() {
            return Err(Status::Hold);
        }
        let corrupt = |fault: &DamagedReplica| matches!(fault.why, ReplicaFault::Corrupt { .. });
        // One that has corrupt blocks serves the others: it is not given up while it may.
        if faults.iter().any(corrupt) != (way == RepairWay::BadBlocks) {
            return Err(Status::Invalid);
        }
        let members = match way {
            RepairWay::BadBlocks => {
                log::warn!("an operator gives up the bad blocks of chunk {chunk}");
                self.soft.recovery.zero_bad_blocks(chunk);
                self.recover_anyway(chunk, &meta);
                self.reply(caller, &Done {});
                return Ok(());
            }
            RepairWay::Zeros => self.empty_members(chunk, &meta, &faults)?,
            RepairWay::Stale(server) => {
                let gc = &self.soft.gc;
                if !gc.has_stale(server, chunk) || !self.soft.servers.is_up(server, self.now.mono) {
                    return Err(Status::NotFound);
                }
                if gc.is_deleting(server, chunk) {
                    return Err(Status::Busy);
                }
                vec![server]
            }
        };
        let filled = matches!(way, RepairWay::Stale(_));
        let give_up = GiveUp { chunk, version, config, members, filled };
        self.propose(None, Command::GiveUp(give_up), Then::ReplyDurable(caller))?;
        Ok(())
    }

    /// Servers that a chunk can begin anew on: none with a replica that would be taken for it.
    fn empty_members(
        &mut self,
        chunk: ChunkId,
        meta: &ChunkMeta,
        faults: &[DamagedReplica],
    ) -> Result<Vec<ServerNum>, Status> {
        let kept = self.keeps_given_up(chunk);
        let now = self.now.mono;
        let bare = |fault: &&DamagedReplica| {
            fault.why == ReplicaFault::Missing
                && self.soft.servers.is_up(fault.server, now)
                && !kept.contains(&fault.server)
        };
        let mut members: Vec<ServerNum> = faults.iter().filter(bare).map(|fault| fault.server).collect();
        let mut holders = kept;
        holders.extend(meta.members.iter().chain(meta.learners.iter().copied()));
        holders.extend(self.soft.gc.stale_holders(chunk));
        let want = self.state.goal_of(meta).saturating_sub(members.len());
        match self.soft.choose(&holders, want, 1) {
            Ok(more) => members.extend(more),
            Err(status) if members.is_empty() => return Err(status),
            Err(_) => {}
        }
        Ok(members)
    }

    /// The chunk has its new members: they are asked, and the others told.
    pub(super) fn chunk_given_up(&mut self, index: LogIndex, give_up: &GiveUp, answer: &Answer) {
        let chunk = give_up.chunk;
        let Some(meta) = self.state.chunks.get(chunk).filter(|_| *answer == Answer::Done) else { return };
        log::warn!("an operator gives up what chunk {chunk} held; it goes on with {:?}", meta.members);
        self.soft.forget_chunk(chunk);
        for server in &give_up.members {
            self.soft.gc.not_stale(*server, chunk);
        }
        let (version, config) = (meta.version, meta.config);
        for server in self.state.given_up.get(&chunk).cloned().unwrap_or_default() {
            self.soft.servers.tell(server, index, ServerEvent::NotMember { chunk, version, config });
        }
        self.recover_anew(chunk);
        // What mounts have cached of it is no longer what the file holds. Nobody waits for them: who has to write
        // first can do so only after this.
        if self.clear_grants(meta.ino, SessionId(0), true).is_err() {
            log::info!("inode {}: grants are recalled", meta.ino);
        }
    }
}
