//! Members whose disks take no writes any more, and what a writer of their chunks gets: members that can, where there
//! are servers for it; else an error, and the chunk stays as it is, for readers.
//!
//! What is known of them is soft: a server says it of its disks, and when it refuses a write; its next process may find
//! the disk well. So nothing is tried again until a server changes, but what costs a writer's question.

use std::collections::BTreeMap;

use dfs_proto::ids::{BootId, ChunkId, ServerNum};
use dfs_proto::meta::ReplicaFault;
use dfs_proto::status::Status;

use super::Core;
use super::chunks::ChunkMeta;
use super::chunks::confirm::Incarnation;
use super::servers::live::LiveServer;
use super::soft::forget_members;

/// Notes kept; a server whose note was dropped refuses the next write, and is noted again.
const NOTES_MAX: usize = 65_536;

/// Which members' disks are read-only, as the incarnation said that refused a write.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadOnly {
    noted: BTreeMap<(ChunkId, ServerNum), Incarnation>,
}

impl ReadOnly {
    pub(super) fn forget(&mut self, chunk: ChunkId) {
        forget_members(&mut self.noted, chunk);
    }
}

/// What can be done for who wants to write to a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writable {
    /// Every member takes writes, as far as is known.
    Yes,
    /// It goes on without those that don't.
    Soon,
    /// No member does, and there is no other server.
    No,
}

impl Core {
    /// A server refused a write, because its disk takes none. Of the disk of its next process that says nothing.
    pub(super) fn refused_by_disk(&mut self, chunk: ChunkId, server: ServerNum, boot: BootId) {
        if self.soft.servers.get(server).is_none_or(|live| live.boot != Some(boot)) {
            return;
        }
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        if meta.learners.contains(&server) {
            return self.drop_learner(chunk, server);
        }
        let Some(live) = self.soft.servers.get(server).filter(|_| meta.members.contains(server)) else {
            return;
        };
        let incarnation = live.incarnation;
        if self.note(chunk, server, incarnation) {
            log::warn!("chunk {chunk}: the disk of {server} takes no writes");
        }
        self.leave_read_only(chunk, &meta);
    }

    /// A server has a replica on a disk that takes no writes, and nobody writes to it: it is copied elsewhere, and leaves.
    pub(super) fn stranded(&mut self, chunk: ChunkId, server: ServerNum, boot: BootId) {
        let Some(live) = self.soft.servers.get(server).filter(|live| live.boot == Some(boot)) else { return };
        let incarnation = live.incarnation;
        if self.is_member(chunk, server) && self.note(chunk, server, incarnation) {
            self.soft.scan.wake();
        }
    }

    fn is_member(&self, chunk: ChunkId, server: ServerNum) -> bool {
        self.state.chunks.get(chunk).is_some_and(|meta| meta.members.contains(server))
    }

    /// Whether that is news.
    fn note(&mut self, chunk: ChunkId, server: ServerNum, incarnation: Incarnation) -> bool {
        if self.soft.read_only.noted.len() >= NOTES_MAX {
            let mut noted = std::mem::take(&mut self.soft.read_only.noted);
            noted.retain(|&(chunk, server), _| self.is_member(chunk, server));
            // Those that are dropped are told again.
            let most = noted.keys().nth(NOTES_MAX / 2).copied();
            most.into_iter().for_each(|most| drop(noted.split_off(&most)));
            self.soft.read_only.noted = noted;
        }
        self.soft.read_only.noted.insert((chunk, server), incarnation) != Some(incarnation)
    }

    /// Whether the server's replica is to go elsewhere: an operator drains it, or its disk takes no writes.
    pub(super) fn should_leave(&self, chunk: ChunkId, server: ServerNum) -> bool {
        self.is_emptied(server) || self.is_noted(chunk, server)
    }

    fn is_noted(&self, chunk: ChunkId, server: ServerNum) -> bool {
        let Some(then) = self.soft.read_only.noted.get(&(chunk, server)) else { return false };
        self.soft.servers.get(server).is_some_and(|live| live.is_of_boot(*then))
    }

    /// Whether the disk of the server's replica takes no writes, by its word; or none of its disks does.
    fn is_read_only(&self, chunk: ChunkId, server: ServerNum) -> bool {
        self.soft.servers.get(server).is_some_and(LiveServer::is_read_only) || self.is_noted(chunk, server)
    }

    /// Has a chunk go on without members that take no writes. Where none takes any, one of them is left to be copied
    /// from, if there is a server to copy to.
    fn leave_read_only(&mut self, chunk: ChunkId, meta: &ChunkMeta) -> Writable {
        let can_be_read = |server: &ServerNum| !self.has_failed(chunk, meta, *server);
        let (stuck, rest): (Vec<ServerNum>, Vec<ServerNum>) = meta
            .members
            .iter()
            .partition(|server| self.is_read_only(chunk, *server) || self.has_failed(chunk, meta, *server));
        let Some(source) = stuck.iter().copied().find(can_be_read).or(stuck.first().copied()) else {
            return Writable::Yes;
        };
        if rest.is_empty() {
            let holders: Vec<ServerNum> = meta.members.iter().collect();
            if self.has_failed(chunk, meta, source) || self.soft.choose(&holders, 1, 1).is_err() {
                return Writable::No;
            }
        }
        let others = stuck.into_iter().filter(|server| !rest.is_empty() || *server != source);
        others.collect::<Vec<_>>().into_iter().for_each(|server| self.exclude(chunk, server));
        if rest.is_empty() && meta.members.len() == 1 {
            self.soft.repair.want(chunk, 1, true);
        }
        Writable::Soon
    }

    /// Before a place to write to is given out, or a record logged that a write must follow.
    ///
    /// # Errors
    /// `Recovering` while members that take writes are sought, `DiskFailed` when there are none to be found.
    pub(super) fn check_disks(&mut self, chunk: ChunkId, meta: &ChunkMeta) -> Result<(), Status> {
        let read_only = meta.members.iter().any(|server| self.is_read_only(chunk, server));
        if !read_only && self.soft.damage.is_empty() && meta.is_active() {
            return Ok(());
        }
        match self.leave_read_only(chunk, meta) {
            Writable::Yes => Ok(()),
            Writable::Soon => Err(Status::Recovering),
            Writable::No => Err(Status::DiskFailed),
        }
    }

    /// Whether every member is there, and none has a replica that its disk did not fail: to wait is of no use.
    pub(super) fn is_failed_everywhere(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        let known = !self.soft.damage.is_empty() || !meta.is_active();
        known
            && !meta.members.is_empty()
            && meta.members.iter().all(|server| self.has_failed(chunk, meta, server))
    }

    fn has_failed(&self, chunk: ChunkId, meta: &ChunkMeta, server: ServerNum) -> bool {
        let Some(at) = meta.members.iter().position(|member| member == server) else { return false };
        self.fault(chunk, meta, at, server) == Some(ReplicaFault::Failed)
    }
}
