//! What writers commit: size, times, what is on the disks, what was not used.

use dfs_proto::ids::ChunkId;
use dfs_proto::meta::{Commit, CommitSet};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use super::{Client, Then};
use crate::core::Core;
use crate::core::command::{Answer, Command, CommitFile, Origin, Unused};
use crate::core::namespace::Caller as By;
use crate::core::ops::{self, NsCommand};

impl Core {
    pub(super) fn commit(&mut self, client: &Client, request: Commit) -> Result<(), Status> {
        let Commit { ino, size_epoch, size_at_least, mtime, atime, synced, durable, unused, set, hole } =
            request;
        if self.state.ns.intent(ino).is_some() {
            return Err(Status::Recovering);
        }
        // The kernel takes setuid and setgid away itself before it writes.
        let (clear_privileges, now) = (false, self.now.wall);
        let commit = ops::Commit { ino, size_epoch, size_at_least, mtime, atime, clear_privileges, now };
        self.state.ns.check(&NsCommand::Commit(commit.clone()))?;
        let set = set.map(|set| {
            let CommitSet { mode, uid, gid, atime, mtime, creds } = set;
            ops::Setattr { ino, mode, uid, gid, atime, mtime, now, by: By::from(&creds) }
        });
        if let Some(set) = &set {
            self.state.ns.check(&NsCommand::Setattr(set.clone()))?;
        }
        // While the session has the file open for writing, an answer on its way may name the chunk again.
        let writes = self.soft.grants.is_open(ino, client.session, true);
        let droppable = |(index, chunk): &(ChunkIndex, ChunkId)| {
            !writes && self.is_unused(&Unused { ino, index: *index, chunk: *chunk }, client.session)
        };
        let unused: Vec<_> = unused.into_iter().filter(droppable).collect();
        let nothing = size_at_least.is_none() && mtime.is_none() && atime.is_none() && set.is_none();
        if nothing && unused.is_empty() && synced.iter().all(|chunk| self.is_synced(*chunk)) {
            // An fsync of what is committed already waits for the disk alone.
            let attr = self.state.ns.getattr(ino)?;
            self.answer(client.caller, &Answer::Attr(attr), self.state.applied, durable);
            return Ok(());
        }
        let then = if durable { Then::ReplyDurable(client.caller) } else { Then::Reply(client.caller) };
        if hole {
            if !(synced.is_empty() && unused.is_empty() && set.is_none()) {
                return Err(Status::Invalid);
            }
            // A file's size alone: a commit of bytes would say that the chunk which holds the last one is written.
            self.propose(client.origin, Command::Ns(NsCommand::Commit(commit)), then)?;
            return Ok(());
        }
        let dropping: Vec<ChunkId> = unused.iter().map(|(_, chunk)| *chunk).collect();
        self.propose(client.origin, Command::Commit(CommitFile { commit, synced, unused, set }), then)?;
        self.soft.dropping.extend(dropping);
        Ok(())
    }

    fn is_synced(&self, chunk: ChunkId) -> bool {
        self.state.chunks.get(chunk).is_none_or(|meta| meta.synced && meta.written)
    }

    /// Allocations that turned out to be used are no longer remembered as the session's, nor those that were not as
    /// being dropped.
    pub(in crate::core) fn committed_sizes(&mut self, origin: Option<Origin>, file: &CommitFile) {
        for (_, chunk) in &file.unused {
            self.soft.dropping.remove(chunk);
        }
        let Some(origin) = origin else { return };
        for chunk in &file.synced {
            self.soft.sessions.used(origin.session, *chunk);
        }
        if let Some(last) = file.commit.size_at_least.and_then(|size| size.checked_sub(1)) {
            let (index, _) = self.state.ns.chunk_size().locate(last);
            if let Ok(Some(chunk)) = self.state.ns.chunk_at(file.commit.ino, index) {
                self.soft.sessions.used(origin.session, chunk);
            }
        }
    }
}
