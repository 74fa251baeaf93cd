//! Where chunks are, and the right to use them.
//!
//! Keeps I11: a capability to write is made only for a chunk that is Active, open in the log, and whose
//! members are all confirmed.

use dfs_proto::chunk::{Capability, Member, Rights};
use dfs_proto::ids::{ChunkId, Ino, KeyId, LogIndex, OpenNum, SessionId};
use dfs_proto::meta::{ChunkPlace, MAP_MAX, MapRead, MapWrite, OpenChunkList, OpenChunks, ReadMap};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, MasterMs};

use super::{Client, Then};
use crate::core::Core;
use crate::core::chunks::ChunkMeta;
use crate::core::command::Command;
use crate::core::recovery::MemberStanding;
use crate::core::reply::Caller;

/// Chunks of a file that one answer about open ones is of: 256 GiB of it.
const LOOKED_AT: usize = 4096;

impl Core {
    pub(super) fn map_read(&mut self, client: &Client, request: &MapRead) -> Result<(), Status> {
        let MapRead { ino, first, count } = *request;
        let attr = self.state.ns.getattr(ino)?;
        let mut chunks = self.state.ns.chunks(ino, first, u64::from(count.min(MAP_MAX)))?;
        if let Some(intent) = self.state.ns.intent(ino) {
            // Like the size, the map is that of the new epoch: whoever cuts the file keeps its grant, and remembers what
            // a map of that epoch says for longer than the cut takes.
            let end = self.state.ns.chunk_size().chunks_for(intent.size);
            chunks.retain(|(index, _)| index.0 < end);
        }
        let mut places = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks {
            // What the log's file table names is in the chunk map (I18).
            let place = self.place_to_read(client.session, chunk).ok_or(Status::Io)?;
            if index == first {
                let failed = |meta: ChunkMeta| self.is_failed_everywhere(chunk, &meta);
                if self.state.chunks.get(chunk).is_some_and(failed) {
                    return Err(Status::DiskFailed);
                }
                if place.members.is_empty() {
                    return Err(Status::Recovering);
                }
            }
            places.push(place);
        }
        let map = ReadMap { size: attr.size, size_epoch: attr.size_epoch, places };
        self.reply(client.caller, &map);
        Ok(())
    }

    /// F3: what an fsync has to sync besides what its own mount wrote.
    pub(super) fn open_chunks(&mut self, client: &Client, request: &OpenChunks) -> Result<(), Status> {
        let OpenChunks { ino, first } = *request;
        let found = self.state.ns.chunks_after(ino, first, LOOKED_AT + 1)?;
        let next = found.get(LOOKED_AT).map(|(index, _)| *index);
        let mut chunks = Vec::new();
        for (index, chunk) in found.into_iter().take(LOOKED_AT) {
            let Some(meta) = self.state.chunks.get(chunk).filter(|meta| meta.open) else { continue };
            if !self.soft.closing.others_wrote(chunk, client.session) {
                continue;
            }
            chunks.push((index, chunk));
            // Every member has to sync.
            if self.serving(chunk, &meta).len() < meta.members.len() {
                self.recover_on_demand(chunk, &meta);
            }
        }
        self.reply(client.caller, &OpenChunkList { chunks, next });
        Ok(())
    }

    pub(super) fn map_write(&mut self, client: &Client, request: &MapWrite) -> Result<(), Status> {
        let MapWrite { ino, index, failed, only } = *request;
        let session = client.session;
        let grant = self.soft.grants.held(ino, session);
        if !self.soft.grants.is_open(ino, session, true) && grant.kind != dfs_proto::meta::GrantKind::Write {
            self.state.ns.getattr(ino)?;
            return Err(Status::BadHandle);
        }
        if self.state.ns.intent(ino).is_some() {
            return Err(Status::Recovering);
        }
        let there = self.state.ns.chunk_at(ino, index)?;
        if only.is_some() && there != only {
            return Err(Status::Stale);
        }
        match there {
            Some(chunk) => {
                if let Some(failed) = failed.filter(|failed| failed.chunk == chunk) {
                    self.place_failed(&failed);
                }
                self.write_place(client.caller, session, ino, (index, only), self.state.applied)
            }
            None => {
                let chunk = self.new_chunk(self.state.goal_at(ino))?;
                let then = Then::Place { caller: client.caller, session, ino, index, only };
                self.propose(client.origin, Command::Allocate { ino, index, chunk }, then)?;
                Ok(())
            }
        }
    }

    /// Answers with the place of the chunk that is at `at` now, if it is the one that is meant.
    pub(super) fn write_place(
        &mut self,
        caller: Caller,
        session: SessionId,
        ino: Ino,
        (at, only): (ChunkIndex, Option<ChunkId>),
        index: LogIndex,
    ) -> Result<(), Status> {
        self.session_goes_on(session)?;
        if self.state.ns.intent(ino).is_some() {
            return Err(Status::Recovering);
        }
        let chunk = self.state.ns.chunk_at(ino, at)?.ok_or(Status::Recovering)?;
        if only.is_some_and(|only| only != chunk) {
            return Err(Status::Stale);
        }
        let meta = self.state.chunks.get(chunk).ok_or(Status::NoChunk)?;
        self.check_disks(chunk, &meta)?;
        self.shed(chunk, &meta);
        if self.must_reopen(chunk, &meta) {
            if !meta.open {
                self.soft.closing.all_is_synced(chunk);
            }
            let open_num = OpenNum(meta.open_num.0 + 1);
            let then = Then::Place { caller, session, ino, index: at, only };
            self.propose(None, Command::Reopen { chunk, open_num }, then)?;
            return Ok(());
        }
        let place = self.place_to_write(session, chunk)?;
        let after = self.after_opening(chunk);
        self.reply_at(caller, &place, index, after);
        Ok(())
    }

    /// A place to read from: the members that serve now, which may be none. `None` for no chunk.
    pub(super) fn place_to_read(&mut self, session: SessionId, chunk: ChunkId) -> Option<ChunkPlace> {
        let meta = self.state.chunks.get(chunk)?;
        let mut members = if meta.is_active() { self.serving(chunk, &meta) } else { Vec::new() };
        members.retain(|member| meta.leaving != Some(member.server));
        if members.is_empty() {
            self.recover_on_demand(chunk, &meta);
        }
        Some(self.place(session, chunk, &meta, members, Rights { read: true, write: false }))
    }

    /// A place to write to. What it is given out after, [`Core::after_opening`] says.
    ///
    /// # Errors
    /// `Recovering` while it is closed, or the members are not all there; `NoServers` when there are too few.
    pub(super) fn place_to_write(
        &mut self,
        session: SessionId,
        chunk: ChunkId,
    ) -> Result<ChunkPlace, Status> {
        let meta = self.state.chunks.get(chunk).ok_or(Status::NoChunk)?;
        if self.soft.dropping.contains(&chunk) || self.must_reopen(chunk, &meta) {
            return Err(Status::Recovering);
        }
        self.soft.closing.touched(chunk, session);
        let mut members = self.serving(chunk, &meta);
        if !meta.is_active() || members.len() < meta.members.len() {
            self.recover_on_demand(chunk, &meta);
            return Err(Status::Recovering);
        }
        if members.len() < self.state.min_write(&meta) {
            return Err(self.repair_on_demand(chunk, &meta));
        }
        assert!(meta.open && meta.refs == 1, "I11, I19: a capability for {chunk}, which may not be written");
        members.retain(|member| meta.leaving != Some(member.server));
        let rights = Rights { read: true, write: true };
        let mut place = self.place(session, chunk, &meta, members, rights);
        if place.new {
            place.note = self.note_of(meta.ino);
            if let Some(live) = self.soft.sessions.get_mut(session) {
                live.allocated(meta.ino, meta.index, chunk);
            }
        }
        Ok(place)
    }

    /// The members that serve now, each with the boot it is confirmed for; the primary first if it does.
    fn serving(&self, chunk: ChunkId, meta: &ChunkMeta) -> Vec<Member> {
        let standing = meta.members.iter().enumerate().map(|(at, server)| {
            let standing = self.member_standing(chunk, meta, at, server);
            (server, standing)
        });
        let serving = standing.filter_map(|(server, standing)| match standing {
            MemberStanding::Serving(boot) => Some(Member { server, boot }),
            MemberStanding::Waiting | MemberStanding::Unconfirmed | MemberStanding::Gone => None,
        });
        serving.collect()
    }

    fn place(
        &self,
        session: SessionId,
        chunk: ChunkId,
        meta: &ChunkMeta,
        members: Vec<Member>,
        rights: Rights,
    ) -> ChunkPlace {
        let size_epoch = self.state.ns.getattr(meta.ino).map(|attr| attr.size_epoch).unwrap_or_default();
        let heard = self.soft.sessions.get(session).map_or(self.now.mono, |live| live.heard);
        let capability = Capability {
            chunk,
            session,
            ino: meta.ino,
            index: meta.index,
            // The client's lease counts from when it sent the message that was heard then, so it ends first.
            expires: MasterMs(heard.ms_since(self.started) + self.config.session_lease_ms),
            version: meta.version,
            config: meta.config,
            open_num: meta.open_num,
            size_epoch,
            rights,
            key: KeyId(0),
            mac: [0; 16],
        };
        // Whoever serves has registered, and so has a key.
        let key = |member: &Member| self.soft.servers.get(member.server)?.key;
        let seals = members.iter().filter_map(|member| Some(key(member)?.seal(&capability))).collect();
        let new = self.is_new(chunk, meta);
        ChunkPlace { index: meta.index, members, capability, seals, new, note: None }
    }

    /// Whether no file of the chunk is known anywhere.
    pub(super) fn is_new(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        !meta.synced && !meta.written && !self.soft.seen.contains(chunk.0)
    }
}
