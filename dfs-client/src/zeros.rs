//! fallocate(2): zeros that travel as their range alone, and a file that gets longer without a byte.
//!
//! Zeros are not buffered: they go to the replicas before the call returns, while nothing else of this mount is under
//! way for the file. Dirty bytes below them stay until all replicas have them, so that a refusal loses nothing, and are
//! dropped then. Where the file has no chunk there is nothing to be done, and beyond its end neither. A mount that has
//! the file alone then has the master drop the chunks that are holes now; others' are dropped when they are closed.

use std::sync::Arc;

use dfs_proto::meta::{ChunkPlace, DROP_MAX, DropHoles, HoleChunk, MAP_MAX};
use dfs_proto::units::{BLOCK_SIZE, ChunkIndex};
use tokio::task::JoinSet;

use crate::call::{Refused, Scope};
use crate::client::Client;
use crate::core::opids::OpIds;
use crate::core::retry::Backoff;
use crate::core::split::within;
use crate::error::{Error, Result};
use crate::inode::{FileHandle, Inode};
use crate::net::Net;
use crate::put::Put;
use crate::shared::{Shared, Until};
use crate::write::{FLIGHTS_MAX, note_unsynced};

impl<N: Net> Client<N> {
    /// What the file has of `len` bytes from `offset` is zeros on all replicas when this returns, and of whole blocks
    /// the space is given back. The file stays as long as it is.
    pub async fn punch(&self, handle: &FileHandle, offset: u64, len: u64) -> Result<()> {
        let shared = &self.shared;
        let inode = &handle.open.inode;
        let until = shared.patience();
        shared.check_writer(handle, offset, len, false)?;
        let end = offset.saturating_add(len);
        let cut = shared.close_gate(inode, until).await?;
        let emptied = shared.put_zeros(inode, offset, end, until).await?;
        let buffers = {
            let mut state = inode.lock();
            let reach = state.dirty.end();
            shared.memory.free(state.dirty.punch(offset, end));
            if reach > state.dirty.end() {
                // The file is as long as it was, and nothing dirty says so any more.
                state.acked_end = state.acked_end.max(reach.unwrap_or(0));
            }
            let buffers = state.may_buffer();
            if buffers {
                shared.wrote(&mut state);
                shared.write_back_later(inode, &mut state);
            }
            buffers
        };
        if buffers {
            shared.drop_holes(inode, emptied, until).await;
        } else {
            shared.commit_size(inode, None, until).await?;
        }
        drop(cut);
        Ok(())
    }

    /// The file is at least `size` bytes long when this returns; what it gains reads as zeros.
    pub async fn extend(&self, handle: &FileHandle, size: u64) -> Result<()> {
        let shared = &self.shared;
        let inode = &handle.open.inode;
        let until = shared.patience();
        shared.check_writer(handle, 0, size, false)?;
        let cut = shared.close_gate(inode, until).await?;
        if let Some(pending) = &mut inode.lock().pending {
            pending.written();
        }
        shared.commit_size(inode, Some(size), until).await?;
        drop(cut);
        Ok(())
    }

    /// Whether the cluster has room now for what `len` bytes from `offset` would add behind the file's end.
    ///
    /// # Errors
    /// `NoSpace` when it has not. Room is not set aside: replicas are as sparse as the file.
    pub async fn check_room(&self, handle: &FileHandle, offset: u64, len: u64) -> Result<()> {
        self.shared.check_writer(handle, offset, len, false)?;
        let size = self.getattr(handle.ino()).await?.size;
        let more = offset.saturating_add(len).saturating_sub(size.max(offset));
        if more > 0 && more > self.statfs().await?.free_bytes { Err(Error::NoSpace) } else { Ok(()) }
    }
}

impl<N: Net> Shared<N> {
    /// Makes what the file has of `offset..end` zeros on all replicas. Returns the chunks that have nothing else of it.
    async fn put_zeros(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        offset: u64,
        end: u64,
        until: Until,
    ) -> Result<Vec<HoleChunk>, Refused> {
        let chunk_size = self.session.facts().chunk_size;
        let mut emptied = Vec::new();
        let (mut next, _) = chunk_size.locate(offset);
        let mut backoff = Backoff::default();
        loop {
            // Also proves that the session stands, and with it a grant.
            let map = self.ask_map(inode, next, MAP_MAX, until).await?;
            if map.size_epoch > inode.size_epoch() {
                // Cut while an open of ours was under way, which brought a grant and the places of before: what is a hole
                // now is not one there.
                self.was_cut(inode, until).await?;
                self.pause(&mut backoff, until).await?;
                continue;
            }
            let (size, reach) = {
                let state = inode.lock();
                if state.may_buffer() {
                    let size = state.size.max(map.size);
                    // Nobody else has bytes in the rest of the file's last block: all of it becomes a hole.
                    (size, size.next_multiple_of(BLOCK_SIZE.into()))
                } else {
                    (map.size, map.size)
                }
            };
            let end = if offset < size && end >= size { reach } else { end.min(size) };
            let places: Vec<ChunkPlace> =
                map.places.into_iter().filter(|place| chunk_size.start_of(place.index) < end).collect();
            for group in places.chunks(FLIGHTS_MAX) {
                let mut tasks = JoinSet::new();
                for place in group {
                    let Some(range) = within(chunk_size, place.index, offset, end) else { continue };
                    let whole = Some(range) == within(chunk_size, place.index, 0, reach);
                    let (ranges, crcs, parts) = (vec![range], Vec::new(), Vec::new());
                    let put = Put { index: place.index, ranges, crcs, parts, zeros_in: Some(place.chunk()) };
                    let (shared, inode) = (Arc::clone(self), Arc::clone(inode));
                    let task = async move {
                        let place = shared.put_hole(&inode, put, until).await?;
                        Ok::<_, Refused>(place.filter(|_| whole))
                    };
                    tasks.spawn_on(task, &self.runtime);
                }
                while let Some(done) = tasks.join_next().await {
                    // A task that panicked has done nothing for certain.
                    emptied.extend(done.map_err(|_| Error::Io)??.map(|place| HoleChunk {
                        index: place.index,
                        chunk: place.chunk(),
                        version: place.capability.version,
                    }));
                }
            }
            next = ChunkIndex(next.0.saturating_add(u64::from(MAP_MAX)));
            if chunk_size.start_of(next) >= end {
                return Ok(emptied);
            }
        }
    }

    /// The place at which the zeros were acknowledged, unless their chunk is no more.
    async fn put_hole(
        self: &Arc<Self>,
        inode: &Inode,
        put: Put,
        until: Until,
    ) -> Result<Option<Arc<ChunkPlace>>, Refused> {
        let place = match self.put(inode, &put, until).await {
            // Truncated away: that left zeros, and what was written since is not ours to touch.
            Err(Refused::Final(Error::Stale)) if !inode.lock().dead => None,
            place => Some(place?),
        };
        let mut state = inode.lock();
        if let Some(place) = &place {
            note_unsynced(&mut state, place);
        }
        state.writes += 1;
        Ok(place)
    }

    /// Has chunks that are holes leave the file's map. What comes of it changes no byte, so a refusal is no failure.
    async fn drop_holes(&self, inode: &Inode, mut emptied: Vec<HoleChunk>, until: Until) {
        {
            // With a chunk goes the answer to a write that is still being repeated: it would take effect once more.
            let state = inode.lock();
            emptied.retain(|hole| state.ops.get(&hole.chunk).is_none_or(OpIds::are_answered));
        }
        for part in emptied.chunks(DROP_MAX) {
            let request = DropHoles { ino: inode.ino, chunks: part.to_vec() };
            let answer = match self.ask_in(&request, Scope::Session(inode.incarnation), until).await {
                Ok(answer) => answer,
                Err(refused) => {
                    log::debug!("inode {}: its holes are kept as chunks: {refused}", inode.ino);
                    return;
                }
            };
            let now = self.now();
            let mut state = inode.lock();
            for hole in part {
                state.places.remove(&hole.index);
            }
            state.attr_changes += 1;
            state.take_attr(&answer.body, answer.index, now);
        }
    }

    /// Commits a time of change, and how long the file is at least.
    async fn commit_size(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        size: Option<u64>,
        until: Until,
    ) -> Result<()> {
        let _turn = inode.turn.lock().await;
        loop {
            let epoch = inode.size_epoch();
            match self.commit_through(inode, size, size.is_some(), epoch, until).await {
                Ok(()) => return Ok(()),
                Err(Refused::OldEpoch) => self.was_cut(inode, until).await?,
                Err(refused) => return Err(refused.into()),
            }
            until.check()?;
        }
    }
}
