//! Writing: into the buffer under a write grant, through to all replicas without one.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::ids::{ChunkId, SizeEpoch};
use dfs_proto::meta::{ChunkPlace, Commit, SetTime};
use dfs_proto::planted;
use dfs_proto::units::{ChunkIndex, FILE_SIZE_MAX};

use crate::call::{Refused, Scope};
use crate::client::Client;
use crate::core::dirty::Batch;
use crate::core::split::{part_crcs, pieces};
use crate::error::{Error, Result};
use crate::inode::{FileHandle, Gate, Inode, State};
use crate::net::Net;
use crate::put::Put;
use crate::shared::{Shared, Until, lock};

/// Requests of one file under way at once: with the largest size, 8 MiB cover a gigabyte a second at 8 ms.
pub(crate) const FLIGHTS_MAX: usize = 8;
/// Dirty bytes of one file, scattered over windows that do not fill, that are sent without being asked for.
const SCATTERED_MAX: u64 = 8 << 20;
/// What may be buffered behind a flush before writers wait for it, so that every flush ends.
const BEHIND_FLUSH_MAX: u64 = 32 << 20;

/// What became of a write that may not wait.
enum Buffered {
    Done,
    /// No room, or a gate is closed.
    Wait,
    /// The session's lease may be over: the grant counts only once it was renewed.
    Renew,
    /// There is no write grant.
    Through,
}

/// How far a write that goes through has come.
#[derive(Debug, Default)]
struct Placed {
    at: u64,
    pieces: BTreeMap<ChunkIndex, PutPiece>,
}

/// A piece that all members of a chunk have.
#[derive(Clone, Copy, Debug)]
struct PutPiece {
    chunk: ChunkId,
    /// A cut of a later epoch came after it.
    epoch: SizeEpoch,
    end: u64,
}

impl Placed {
    /// How long the file is at least, of what no cut up to `epoch` came after. A higher one is of records that the
    /// master has lost.
    fn end(&self, epoch: SizeEpoch) -> Option<u64> {
        self.pieces.values().filter(|piece| piece.epoch >= epoch).map(|piece| piece.end).max()
    }
}

impl<N: Net> Client<N> {
    /// Writes all of `data`, at the end of the file if `append`. Buffered under a write grant, else on
    /// all replicas and with its size committed when this returns.
    pub async fn write(&self, handle: &FileHandle, offset: u64, data: Bytes, append: bool) -> Result<usize> {
        let shared = &self.shared;
        let inode = &handle.open.inode;
        let until = shared.patience();
        shared.check_writer(handle, offset, len_of(data.len())?, append)?;
        loop {
            let mut changed = std::pin::pin!(inode.changed.notified());
            changed.as_mut().enable();
            let mut freed = std::pin::pin!(shared.memory.freed.notified());
            freed.as_mut().enable();
            match shared.buffer(inode, offset, &data, append)? {
                Buffered::Done => return Ok(data.len()),
                Buffered::Renew => shared.renew(until).await?,
                Buffered::Through => {
                    if shared.write_through(inode, offset, &data, append, until).await? {
                        return Ok(data.len());
                    }
                }
                Buffered::Wait => {
                    shared.relieve();
                    until
                        .bound(async {
                            tokio::select! {
                                biased;
                                () = changed => {}
                                () = freed => {}
                            }
                        })
                        .await?;
                }
            }
        }
    }

    /// [`Client::write`] when it only takes a copy into the buffer. `None`: call [`Client::write`].
    #[must_use]
    pub fn try_write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: &[u8],
        append: bool,
    ) -> Option<Result<usize>> {
        let shared = &self.shared;
        let checked = len_of(data.len()).and_then(|len| shared.check_writer(handle, offset, len, append));
        if let Err(error) = checked {
            return Some(Err(error));
        }
        match shared.buffer(&handle.open.inode, offset, data, append) {
            Ok(Buffered::Done) => Some(Ok(data.len())),
            Ok(Buffered::Wait | Buffered::Renew | Buffered::Through) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl<N: Net> Shared<N> {
    pub(crate) fn check_writer(
        &self,
        handle: &FileHandle,
        offset: u64,
        len: u64,
        append: bool,
    ) -> Result<()> {
        let open = &handle.open;
        if !open.access.write {
            return Err(Error::BadHandle);
        }
        let mut state = open.inode.lock();
        state.latch.check(&mut lock(&open.seen))?;
        if state.dead {
            return Err(Error::Stale);
        }
        let at = if append { state.size } else { offset };
        match at.checked_add(len) {
            Some(end) if end <= FILE_SIZE_MAX => Ok(()),
            Some(_) | None => Err(Error::TooBig),
        }
    }

    fn buffer(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        offset: u64,
        data: &[u8],
        append: bool,
    ) -> Result<Buffered> {
        let now = self.now();
        let lease_stands = self.session.lease_left(now) > Duration::ZERO;
        let len = len_of(data.len())?;
        let mut state = inode.lock();
        if state.dead {
            return Err(Error::Stale);
        }
        if state.gate != Gate::Open {
            return Ok(Buffered::Wait);
        }
        if !state.may_buffer() {
            return Ok(Buffered::Through);
        }
        if !lease_stands {
            return Ok(Buffered::Renew);
        }
        let behind = state.flushing > 0 && state.since_flush > BEHIND_FLUSH_MAX;
        if behind || !self.memory.has_room(len) {
            self.pump(inode, &mut state);
            return Ok(Buffered::Wait);
        }
        let at = if append { state.size } else { offset };
        let grown = state.dirty.write(at, data);
        self.memory.add(grown);
        state.size = state.size.max(at + len);
        state.since_flush += len;
        self.wrote(&mut state);
        if state.dirty.full_windows() > 0 || state.dirty.bytes() > SCATTERED_MAX {
            self.pump(inode, &mut state);
        }
        self.write_back_later(inode, &mut state);
        Ok(Buffered::Done)
    }

    /// Has what the inode owes the cluster written back in time.
    pub(crate) fn write_back_later(&self, inode: &Arc<Inode>, state: &mut State) {
        if state.dirty_since.is_none() {
            state.dirty_since = Some(self.now());
            lock(&self.dirty).insert(inode.ino, Arc::clone(inode));
        }
    }

    /// What every write changes of the inode.
    pub(crate) fn wrote(&self, state: &mut State) {
        state.touched = true;
        if let Some(pending) = &mut state.pending {
            pending.written();
        }
        state.writes += 1;
        state.attr_changes += 1;
        if !state.ahead.is_empty() {
            self.memory.free(state.drop_ahead());
        }
    }

    /// Sends what is due, as many requests as may be under way.
    pub(crate) fn pump(self: &Arc<Self>, inode: &Arc<Inode>, state: &mut State) {
        loop {
            let all = state.flushing > 0 || state.dirty.bytes() > SCATTERED_MAX || !self.memory.has_spare(0);
            let Some(batch) = state.next_batch(all) else { return };
            self.send(inode, batch);
        }
    }

    /// Sends what is dirty although nobody asks for it yet, as many requests as may be under way.
    pub(crate) fn pump_all(self: &Arc<Self>, inode: &Arc<Inode>, state: &mut State) {
        while let Some(batch) = state.next_batch(true) {
            self.send(inode, batch);
        }
    }

    fn send(self: &Arc<Self>, inode: &Arc<Inode>, batch: Batch) {
        let (shared, inode) = (Arc::clone(self), Arc::clone(inode));
        self.spawn(async move { shared.fly(&inode, batch).await });
    }

    /// Memory is short: sends everything that is dirty anywhere.
    fn relieve(self: &Arc<Self>) {
        if self.memory.has_spare(0) {
            return;
        }
        let inodes: Vec<_> = lock(&self.dirty).values().cloned().collect();
        for inode in inodes {
            self.pump(&inode, &mut inode.lock());
        }
    }

    /// Brings one batch to its end. Must not be dropped before: the batch is nobody else's.
    pub(crate) async fn fly(self: Arc<Self>, inode: &Arc<Inode>, batch: Batch) {
        let Batch { flight, index, end, .. } = batch;
        let crcs = batch.crcs();
        let put = Put { index, ranges: batch.ranges, crcs, parts: batch.parts, zeros_in: None };
        // Buffered bytes are kept as long as it takes, on a soft mount too as long as its patience.
        let answer = tokio::select! {
            biased;
            answer = self.put(inode, &put, self.patience()) => answer,
            () = inode.until(|state| state.dirty.is_given_up(flight).then_some(())) => Err(Error::Io.into()),
        };
        drop(put);
        let mut state = inode.lock();
        let bytes = state.dirty.landed(flight);
        match answer {
            Ok(place) => note_ack(&mut state, &place, end),
            Err(refused) => {
                let error = Error::from(refused);
                log::error!("inode {}: {bytes} buffered bytes are lost: {error}", inode.ino);
                if !state.dead && !planted!(LossNotLatched) {
                    state.latch.set(error);
                }
            }
        }
        self.pump(inode, &mut state);
        drop(state);
        self.memory.free(bytes);
        inode.changed.notify_waiters();
    }

    /// Writes on all replicas and commits. False when the grant came back meanwhile: buffer instead.
    async fn write_through(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        offset: u64,
        data: &Bytes,
        append: bool,
        until: Until,
    ) -> Result<bool> {
        let turn = if append { Some(inode.append_turn.lock().await) } else { None };
        let mut done = Placed::default();
        loop {
            let tails_lost = {
                let mut state = inode.lock();
                // What is on the replicas stays: somebody may have read it, and somebody else written over it.
                if state.may_buffer() && (append || done.pieces.is_empty()) {
                    // It reaches as far as it does: a truncation has to know.
                    for put in done.pieces.values() {
                        note_end(&mut state, put.epoch, put.end);
                    }
                    return Ok(false);
                }
                state.tails_lost
            };
            if append && done.pieces.is_empty() {
                done.at = self.ask_map(inode, ChunkIndex(0), 1, until).await?.size;
            } else if !append {
                done.at = offset;
            }
            let Some(epoch) = self.put_pieces(inode, &mut done, data, append, until).await? else {
                inode.lock().places.clear();
                continue;
            };
            match self.commit_through(inode, done.end(epoch), false, epoch, until).await {
                Ok(()) if inode.lock().tails_lost == tails_lost => break,
                // What lies in chunks that the master knows nothing of any more is written again.
                Ok(()) => {}
                // Truncated by another mount in between: what lay in chunks that were dropped is written again.
                Err(Refused::OldEpoch) => inode.lock().places.clear(),
                Err(refused) => return Err(refused.into()),
            }
        }
        drop(turn);
        if inode.lock().may_cache() {
            // And the kernel may have pages of it.
            self.invalidate(inode.ino).await;
        }
        Ok(true)
    }

    /// Puts `data` on all replicas, but for the pieces whose chunks have them. The epoch that all pieces were
    /// written under; none if they differ.
    ///
    /// A piece is not put twice into a chunk: if the file was cut meanwhile and the chunk is still there, the
    /// write came before the cut, and another mount's write may be over it by now.
    async fn put_pieces(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        done: &mut Placed,
        data: &Bytes,
        append: bool,
        until: Until,
    ) -> Result<Option<SizeEpoch>> {
        let len = len_of(data.len())?;
        let mut epoch: Option<SizeEpoch> = None;
        let mut from = 0;
        for piece in pieces(self.session.facts().chunk_size, done.at, len) {
            let stop = from + usize::try_from(piece.range.len).map_err(|_| Error::TooBig)?;
            let part = data.slice(from..stop);
            from = stop;
            let place = match done.pieces.get(&piece.index) {
                Some(put) => {
                    let place = self.write_place(inode, piece.index, None, None, until).await?;
                    let kept = place.chunk() == put.chunk;
                    if append && !kept {
                        // Cut away: it goes to where the file ends now.
                        *done = Placed::default();
                        return Ok(None);
                    }
                    kept.then_some(place)
                }
                None => None,
            };
            let place = match place {
                Some(place) => place,
                None => {
                    let mut crcs = Vec::new();
                    part_crcs(piece.range.offset, std::slice::from_ref(&part), &mut crcs);
                    let (index, ranges, parts) = (piece.index, vec![piece.range], vec![part]);
                    let put = Put { index, ranges, crcs, parts, zeros_in: None };
                    let place = self.put(inode, &put, until).await?;
                    let end = piece.offset + u64::from(piece.range.len);
                    let put = PutPiece { chunk: place.chunk(), epoch: place.capability.size_epoch, end };
                    done.pieces.insert(piece.index, put);
                    place
                }
            };
            let mut state = inode.lock();
            note_unsynced(&mut state, &place);
            // Under a grant that came meanwhile somebody may have fetched what was there before.
            state.writes += 1;
            self.memory.free(state.drop_ahead());
            let under = place.capability.size_epoch;
            if epoch.is_some_and(|before| before != under) {
                return Ok(None);
            }
            epoch = Some(under);
        }
        Ok(Some(epoch.unwrap_or(inode.size_epoch())))
    }

    /// `hole`: up to `end` nothing was written.
    pub(crate) async fn commit_through(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        end: Option<u64>,
        hole: bool,
        epoch: SizeEpoch,
        until: Until,
    ) -> Result<(), Refused> {
        let request = Commit {
            ino: inode.ino,
            size_epoch: epoch,
            size_at_least: end,
            mtime: Some(SetTime::Now),
            atime: None,
            synced: Vec::new(),
            durable: false,
            unused: Vec::new(),
            set: None,
            hole,
        };
        let answer = self.ask_in(&request, Scope::Session(inode.incarnation), until).await?;
        let now = self.now();
        let mut state = inode.lock();
        state.last_change = state.last_change.max(answer.index);
        state.attr_changes += 1;
        state.take_attr(&answer.body, answer.index, now);
        Ok(())
    }
}

fn len_of(len: usize) -> Result<u64> {
    u64::try_from(len).map_err(|_| Error::TooBig)
}

impl State {
    /// What is to be sent next, of all that is dirty or of what is due, if another request may be under way.
    pub(crate) fn next_batch(&mut self, all: bool) -> Option<Batch> {
        let may = self.gate != Gate::Cutting && self.dirty.flights() < FLIGHTS_MAX;
        if may { self.dirty.take(all) } else { None }
    }
}

/// A buffered write is on all members.
fn note_ack(state: &mut State, place: &ChunkPlace, end: u64) {
    note_end(state, place.capability.size_epoch, end);
    note_unsynced(state, place);
}

/// What was written under `epoch` reaches to `end`.
fn note_end(state: &mut State, epoch: SizeEpoch, end: u64) {
    match epoch.cmp(&state.size_epoch) {
        // It was cut with the rest before it got here.
        Ordering::Less => {}
        Ordering::Equal => state.acked_end = state.acked_end.max(end),
        // What the master knew of the size is of before the cut.
        Ordering::Greater => (state.size_epoch, state.acked_end, state.committed) = (epoch, end, 0),
    }
}

pub(crate) fn note_unsynced(state: &mut State, place: &ChunkPlace) {
    state.owe_sync(place.chunk(), place.index, place.capability.version);
}
