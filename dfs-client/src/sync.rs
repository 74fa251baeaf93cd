//! Writing back: draining the buffer, committing size and mtime, and fsync.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::chunk::{Sync, SyncChunk, Synced};
use dfs_proto::frame::Outgoing;
use dfs_proto::ids::{ChunkId, ChunkVersion, Ino, ServerNum};
use dfs_proto::meta::{ChunkPlace, Commit, FailedPlace, OpenChunkList, OpenChunks, SetTime, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;
use tokio::task::JoinSet;

use crate::call::{Refused, Scope};
use crate::client::Client;
use crate::core::retry::{Backoff, ChunkNext, after_chunk};
use crate::error::{Error, Result};
use crate::inode::{FileHandle, Inode, Mapped, State, Unsynced};
use crate::making::Pending;
use crate::net::{Net, NetError};
use crate::shared::{Shared, Until, lock};

/// How long bytes may stay buffered, and a size uncommitted, when nobody asks.
const WRITE_BACK_AFTER_US: u64 = 1_000_000;
/// How often that is looked at.
const WRITE_BACK_TICK: Duration = Duration::from_millis(250);
/// Chunks of one SYNC: an answer in time also where each costs the disk some ten milliseconds.
const SYNC_BATCH: usize = 64;

/// A disk may take this many times longer to sync than to read or write.
const SYNC_PATIENCE: u32 = 3;

/// What a commit has to bring besides size and mtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) durable: bool,
    pub(crate) synced: Vec<(ChunkId, ChunkVersion)>,
}

/// What became of a chunk's sync; `None` when the chunk went on to a newer version before there was an answer.
type Outcome = (Unsynced, Arc<ChunkPlace>, Option<Result<(), NetError>>);

/// The master has refused a commit. Attributes that went with it are refused for good: their program is told,
/// and bytes that come later must not fail with them.
fn not_committed(inode: &Inode, pending: Option<Pending>, refused: Refused) -> Error {
    let error = Error::from(refused);
    let mut state = inode.lock();
    if pending.is_some() && state.pending == pending && error != Error::TimedOut {
        state.pending = None;
        state.latch.set(error);
    }
    error
}

/// Counts a flush as under way.
struct Flushing<'a>(&'a Inode);

impl<'a> Flushing<'a> {
    fn begin(inode: &'a Inode) -> Flushing<'a> {
        let mut state = inode.lock();
        if state.flushing == 0 {
            state.since_flush = 0;
        }
        state.flushing += 1;
        Flushing(inode)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.lock().flushing -= 1;
        self.0.changed.notify_waiters();
    }
}

impl<N: Net> Client<N> {
    /// close(2) of one copy of a descriptor: everything buffered is on all replicas, size and mtime are committed;
    /// says what went wrong with earlier writes and no write or fsync of the handle has reported, which they still do.
    pub async fn flush(&self, handle: &FileHandle) -> Result<()> {
        let until = self.shared.patience();
        let settled = self.shared.settle(&handle.open.inode, until).await;
        handle.open.inode.lock().making = false;
        handle.at_close()?;
        settled
    }

    /// [`Client::flush`] when there is nothing to do.
    #[must_use]
    pub fn try_flush(&self, handle: &FileHandle) -> Option<Result<()>> {
        let settled = {
            let mut state = handle.open.inode.lock();
            let settled = state.is_settled();
            // Its program has closed it: whatever is set from now on is the master's to know.
            state.making &= !settled;
            settled
        };
        settled.then(|| handle.at_close())
    }

    /// [`Client::flush`], and then all of it on the disks of all replicas and of the masters.
    pub async fn fsync(&self, handle: &FileHandle, datasync: bool) -> Result<()> {
        let until = self.shared.patience();
        let synced = self.shared.sync_inode(&handle.open.inode, datasync, until).await;
        handle.report()?;
        synced
    }
}

impl FileHandle {
    fn report(&self) -> Result<()> {
        self.open.inode.lock().latch.check(&mut lock(&self.open.seen))
    }

    fn at_close(&self) -> Result<()> {
        self.open.inode.lock().latch.at_close(&mut lock(&self.open.seen))
    }
}

impl<N: Net> Shared<N> {
    /// Sends what is dirty and waits until all of it is on all replicas.
    pub(crate) async fn drain(self: &Arc<Self>, inode: &Arc<Inode>, until: Until) -> Result<()> {
        if inode.lock().dirty.is_clean() {
            return Ok(());
        }
        let _flushing = Flushing::begin(inode);
        // One batch is ours to send, which for a small file is all there is: a task for it would cost more
        // than the way to the server.
        let own = {
            let mut state = inode.lock();
            let own = state.next_batch(true);
            self.pump(inode, &mut state);
            own
        };
        if let Some(batch) = own {
            Arc::clone(self).fly(inode, batch).await;
        }
        until.bound(inode.until(|state| (state.dead || state.dirty.is_clean()).then_some(()))).await
    }

    /// Drains, and commits what the master does not know yet.
    pub(crate) async fn settle(self: &Arc<Self>, inode: &Arc<Inode>, until: Until) -> Result<()> {
        self.drain(inode, until).await?;
        self.commit(inode, Extra::default(), until).await
    }

    /// Commits the size that is on the replicas, and the mtime of what was written.
    pub(crate) async fn commit(&self, inode: &Arc<Inode>, extra: Extra, until: Until) -> Result<()> {
        let _turn = inode.turn.lock().await;
        let (answer, writes, pending) = loop {
            let (request, writes, pending) = {
                let state = inode.lock();
                if state.dead || !(state.must_commit() || extra.durable) {
                    return Ok(());
                }
                (state.to_commit(inode.ino, &extra), state.writes, state.pending)
            };
            match self.ask_in(&request, Scope::Session(inode.incarnation), until).await {
                Ok(answer) => break (answer, writes, pending),
                Err(Refused::OldEpoch) => self.was_cut(inode, until).await?,
                // Everything of the session is lost, and latched.
                Err(Refused::SessionLost) => return Ok(()),
                Err(refused) => return Err(not_committed(inode, pending, refused)),
            }
        };
        let now = self.now();
        let mut state = inode.lock();
        state.last_change = state.last_change.max(answer.index);
        state.attr_changes += 1;
        if state.writes == writes {
            state.touched = false;
        }
        if state.pending == pending {
            state.pending = None;
        }
        state.making = false;
        state.synced.extend(extra.synced);
        state.take_attr(&answer.body, answer.index, now);
        if state.is_settled() {
            state.dirty_since = None;
            lock(&self.dirty).remove(&inode.ino);
        }
        Ok(())
    }

    /// The file was truncated before a commit: by another mount after our grant ended, or by an open of ours. What
    /// was to be committed is cut with the rest. What was written after the cut, under its epoch, still is to be.
    pub(crate) async fn was_cut(&self, inode: &Inode, until: Until) -> Result<()> {
        let request = dfs_proto::meta::Getattr { ino: inode.ino };
        let answer = self.ask_in(&request, Scope::Session(inode.incarnation), until).await?;
        let now = self.now();
        let mut state = inode.lock();
        if answer.body.size_epoch > state.size_epoch {
            state.places.clear();
            state.touched = false;
        }
        state.take_attr(&answer.body, answer.index, now);
        Ok(())
    }

    /// F1 to F4 of the specification.
    pub(crate) async fn sync_inode(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        datasync: bool,
        until: Until,
    ) -> Result<()> {
        let synced = self.sync_open(inode, datasync, until).await;
        // With the session its capabilities ended: whatever was owed was not synced through this handle.
        if inode.lock().dead { Err(Error::Io) } else { synced }
    }

    async fn sync_open(self: &Arc<Self>, inode: &Arc<Inode>, datasync: bool, until: Until) -> Result<()> {
        self.drain(inode, until).await?;
        let (seen_durable, chunks, known, grows, touched, shared) = {
            let state = inode.lock();
            let (_, durable) = self.session.log_seen();
            let chunks: Vec<Unsynced> = state.unsynced.values().copied().collect();
            let known = chunks.iter().all(|c| state.synced.contains(&(c.chunk, c.since)));
            let grows = state.acked_end > state.committed;
            let shared = state.is_shared();
            (state.last_change <= durable, chunks, known, grows, state.attrs_wait(), shared)
        };
        let own: BTreeSet<ChunkId> = chunks.iter().map(|owed| owed.chunk).collect();
        let others = async { if shared { self.sync_others(inode, own, until).await } else { Ok(()) } };
        // What others have committed, we may not have seen the number of.
        let metadata = grows || shared || !seen_durable || (touched && !datasync);
        if known && !grows {
            // The master's record says nothing about these bytes, so the three need not wait for each other.
            let durable = Extra { durable: true, synced: Vec::new() };
            let commit = async { if metadata { self.commit(inode, durable, until).await } else { Ok(()) } };
            let sync = self.sync_chunks(inode, chunks, until);
            let (synced, committed, others) = tokio::join!(biased; sync, commit, others);
            return synced.map(drop).and(committed).and(others);
        }
        let (synced, others) = tokio::join!(biased; self.sync_chunks(inode, chunks, until), others);
        others?;
        self.commit(inode, Extra { durable: true, synced: synced? }, until).await
    }

    /// F3: syncs what other mounts wrote and have not synced. The chunks in `own` are synced by the caller.
    async fn sync_others(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        own: BTreeSet<ChunkId>,
        until: Until,
    ) -> Result<()> {
        let grant = inode.lock().grant.id;
        let mut chunks = Vec::new();
        let mut first = Some(ChunkIndex(0));
        while let Some(from) = first {
            let request = OpenChunks { ino: inode.ino, first: from };
            let answer = self.ask_in(&request, Scope::Session(inode.incarnation), until).await?;
            let OpenChunkList { chunks: found, next } = answer.body;
            chunks.extend(found.into_iter().filter(|(_, chunk)| !own.contains(chunk)));
            first = next;
        }
        {
            // A place of before a truncation by another mount says nothing of the chunk that is there now.
            let places = &mut inode.lock().places;
            for (index, chunk) in &chunks {
                if matches!(places.get(index), Some(Mapped::Place(place)) if place.chunk() != *chunk) {
                    places.remove(index);
                }
            }
        }
        // What was lost of theirs is not ours to report.
        let owed = |(index, chunk)| Unsynced { chunk, index, since: ChunkVersion(u32::MAX), last: 0 };
        let others = chunks.into_iter().map(owed).collect();
        self.sync_chunks(inode, others, until).await?;
        let mut state = inode.lock();
        if state.may_buffer() && state.grant.id == grant {
            state.alone = Some(grant);
        }
        Ok(())
    }

    /// Syncs chunks on all their members, each primary asked once for all of its own.
    async fn sync_chunks(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        chunks: Vec<Unsynced>,
        until: Until,
    ) -> Result<Vec<(ChunkId, ChunkVersion)>> {
        let mut left = chunks;
        let mut done = Vec::new();
        let mut failed: BTreeMap<ChunkId, FailedPlace> = BTreeMap::new();
        let mut backoff = Backoff::default();
        loop {
            let mut groups: BTreeMap<ServerNum, Vec<(Unsynced, Arc<ChunkPlace>)>> = BTreeMap::new();
            let asked = std::mem::take(&mut left);
            for (unsynced, place) in self.sync_places(inode, asked, &mut failed, until).await? {
                if place.chunk() != unsynced.chunk {
                    // Truncated away since: there is nothing left to keep.
                    inode.lock().unsynced.remove(&unsynced.chunk);
                    continue;
                }
                let primary = place.members.first().ok_or(Error::Io)?.server;
                groups.entry(primary).or_default().push((unsynced, place));
            }
            let mut tasks = JoinSet::new();
            for (server, group) in groups {
                for part in group.chunks(SYNC_BATCH) {
                    let (shared, inode, part) = (Arc::clone(self), Arc::clone(inode), part.to_vec());
                    let sync = async move { shared.sync_group(&inode, server, part, until).await };
                    tasks.spawn_on(sync, &self.runtime);
                }
            }
            while let Some(results) = tasks.join_next().await {
                // A task that panicked has synced nothing.
                for (unsynced, place, result) in results.map_err(|_| Error::Io)? {
                    let Some(result) = result else {
                        left.push(unsynced);
                        continue;
                    };
                    match self.after_sync(inode, &unsynced, &place, &result)? {
                        Some(again) => {
                            left.push(unsynced);
                            failed.extend(again.map(|place| (unsynced.chunk, place)));
                        }
                        // What was lost is nowhere, and the master must not look for it.
                        None if result.is_err() => {}
                        None => done.push((unsynced.chunk, place.capability.version)),
                    }
                }
            }
            if left.is_empty() {
                return Ok(done);
            }
            self.pause(&mut backoff, until).await?;
        }
    }

    /// The chunks' places. All are asked for at once: each question makes the master begin what the chunk
    /// may be waiting for.
    async fn sync_places(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        chunks: Vec<Unsynced>,
        failed: &mut BTreeMap<ChunkId, FailedPlace>,
        until: Until,
    ) -> Result<Vec<(Unsynced, Arc<ChunkPlace>)>> {
        let mut found = Vec::with_capacity(chunks.len());
        let mut tasks = JoinSet::new();
        for unsynced in chunks {
            let was = failed.remove(&unsynced.chunk);
            let (known, writes) = {
                let state = inode.lock();
                let writes = state.may_buffer() || state.handles.values().any(|write| *write);
                (self.known_write_place(&state, unsynced.index, was), writes)
            };
            if let Some(place) = known {
                found.push((unsynced, place));
                continue;
            }
            let (shared, inode) = (Arc::clone(self), Arc::clone(inode));
            let ask = async move {
                if writes {
                    let only = Some(unsynced.chunk);
                    return match shared.write_place(&inode, unsynced.index, was, only, until).await {
                        // Truncated away since: there is nothing left to keep.
                        Err(Refused::Final(Error::Stale)) if !inode.lock().dead => {
                            inode.lock().unsynced.remove(&unsynced.chunk);
                            Ok(None)
                        }
                        place => Ok(Some((unsynced, place?))),
                    };
                }
                if was.is_some() {
                    // The question makes the master look at the chunk's members.
                    let request = OpenChunks { ino: inode.ino, first: unsynced.index };
                    shared.ask_in(&request, Scope::Session(inode.incarnation), until).await?;
                }
                let (mapped, _) = shared.read_place(&inode, unsynced.index, until).await?;
                Ok::<_, Error>(match mapped {
                    Mapped::Place(place) => Some((unsynced, place)),
                    Mapped::Hole => None,
                })
            };
            tasks.spawn_on(ask, &self.runtime);
        }
        while let Some(place) = tasks.join_next().await {
            found.extend(place.map_err(|_| Error::Io)??);
        }
        Ok(found)
    }

    async fn sync_group(
        &self,
        inode: &Inode,
        server: ServerNum,
        group: Vec<(Unsynced, Arc<ChunkPlace>)>,
        until: Until,
    ) -> Vec<Outcome> {
        let chunks = group
            .iter()
            .map(|(unsynced, place)| SyncChunk {
                capability: place.capability_for(server),
                since: unsynced.since,
            })
            .collect();
        let places: Vec<_> = group.iter().map(|(_, place)| Arc::clone(place)).collect();
        let answer = match Outgoing::request(&Sync { chunks }) {
            Ok(out) => {
                let call = self.call_server(server, out, self.config.chunk_deadline * SYNC_PATIENCE);
                match self.unless_moved(inode, &places, call, until).await {
                    Some(answer) => answer,
                    None => return group.into_iter().map(|(u, place)| (u, place, None)).collect(),
                }
            }
            Err(_) => Err(NetError::Malformed),
        };
        let synced = answer.and_then(|frame| frame.decode::<Synced>().map_err(|_| NetError::Malformed));
        let result_of = |nth: usize| match &synced {
            Err(error) => Err(error.clone()),
            Ok(synced) => match synced.results.get(nth) {
                Some(Status::Ok) => Ok(()),
                Some(status) => Err(NetError::Status(*status, String::new())),
                None => Err(NetError::Malformed),
            },
        };
        group.into_iter().enumerate().map(|(nth, (u, place))| (u, place, Some(result_of(nth)))).collect()
    }

    /// Whether a chunk has to be synced again, and with which place named as failed.
    fn after_sync(
        self: &Arc<Self>,
        inode: &Inode,
        unsynced: &Unsynced,
        place: &Arc<ChunkPlace>,
        result: &Result<(), NetError>,
    ) -> Result<Option<Option<FailedPlace>>> {
        let version = place.capability.version;
        let Err(error) = result else {
            inode.lock().sync_ended(unsynced, version);
            return Ok(None);
        };
        log::debug!("sync of {}: {error}", unsynced.chunk);
        if *error == NetError::Status(Status::Lost, String::new()) {
            let mut state = inode.lock();
            state.sync_ended(unsynced, version);
            state.latch.set(Error::Io);
            return Ok(None);
        }
        if *error == NetError::Status(Status::NoChunk, String::new()) && place.new && unsynced.last == 0 {
            // Another mount was about to write it.
            return Ok(None);
        }
        let cap = place.capability;
        let server = place.members.first().ok_or(Error::Io)?;
        let failed = FailedPlace { chunk: cap.chunk, version: cap.version, server: server.server };
        match after_chunk(error) {
            ChunkNext::Again => Ok(Some(None)),
            ChunkNext::Fail(error) => Err(error),
            ChunkNext::OldEpoch => {
                inode.forget_place(place);
                Ok(Some(None))
            }
            ChunkNext::Suspect { dead } => {
                let what = if dead { Suspicion::RefusedUnix } else { Suspicion::Silent };
                self.report(*server, cap.chunk, what);
                inode.forget_place(place);
                Ok(Some(Some(failed)))
            }
            ChunkNext::Elsewhere | ChunkNext::Primary | ChunkNext::Corrupt | ChunkNext::NewPlace => {
                inode.forget_place(place);
                Ok(Some(Some(failed)))
            }
        }
    }

    /// Writes back what nobody asked for in time, until the client is shut down.
    pub(crate) async fn write_back(self: Arc<Self>) {
        while !self.session.view.get().closed {
            tokio::time::sleep(WRITE_BACK_TICK).await;
            let now = self.now();
            let inodes: Vec<_> = lock(&self.dirty).values().cloned().collect();
            for inode in inodes {
                let mut state = inode.lock();
                if state.dead || state.is_settled() {
                    state.dirty_since = None;
                    lock(&self.dirty).remove(&inode.ino);
                    continue;
                }
                let since = *state.dirty_since.get_or_insert(now);
                if now.0.saturating_sub(since.0) < WRITE_BACK_AFTER_US || state.flushing > 0 {
                    continue;
                }
                state.dirty_since = Some(now);
                drop(state);
                let shared = Arc::clone(&self);
                self.spawn(async move {
                    // What stays unsettled is tried again, and close tells the program.
                    if let Err(error) = shared.settle(&inode, shared.patience()).await {
                        log::warn!("inode {}: not written back: {error}", inode.ino);
                    }
                });
            }
        }
    }
}

impl State {
    fn to_commit(&self, ino: Ino, extra: &Extra) -> Commit {
        Commit {
            ino,
            size_epoch: self.size_epoch,
            size_at_least: (self.acked_end > self.committed).then_some(self.acked_end),
            mtime: self.touched.then_some(SetTime::Now),
            atime: None,
            synced: extra.synced.iter().map(|(chunk, _)| *chunk).collect(),
            durable: extra.durable,
            unused: Vec::new(),
            set: self.pending.map(Pending::to_commit),
            hole: false,
        }
    }
}
