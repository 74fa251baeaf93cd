//! Reading: from what was fetched ahead, from the write-behind buffer, from the replicas.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_proto::ids::SizeEpoch;
use dfs_proto::units::ChunkSize;

use crate::ahead::Slot;
use crate::call::{Refused, Scope};
use crate::client::Client;
use crate::core::dirty::Held;
use crate::core::split::{Piece, pieces, window};
use crate::error::{Error, Result};
use crate::get::Source;
use crate::inode::{FileHandle, Inode, State};
use crate::maps::MapView;
use crate::net::Net;
use crate::shared::{Shared, Until, lock};

/// Bytes of one question about the map: far below what one answer can name, for any chunk size.
const THROUGH_MAX: u64 = 8 << 20;

/// What a read found out under the inode's lock.
struct Start {
    len: u64,
    size_epoch: SizeEpoch,
    /// [`State::cuts`] then.
    cuts: u64,
    held: Held,
    /// For each piece, the window that covers it, if one was fetched ahead.
    pieces: Vec<(Piece, Option<Arc<Slot>>)>,
}

impl<N: Net> Client<N> {
    /// At most `len` bytes from `offset`; fewer only at the end of the file.
    pub async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes> {
        let shared = &self.shared;
        if !handle.open.access.read {
            return Err(Error::BadHandle);
        }
        let until = shared.patience();
        let inode = &handle.open.inode;
        let mut renewed = false;
        loop {
            if inode.lock().dead {
                return Err(Error::Stale);
            }
            if !inode.lock().may_cache() {
                return shared.read_through(inode, offset, len, until).await;
            }
            if !renewed && shared.session.lease_left(shared.now()).is_zero() {
                // A grant counts only while the session's lease stands.
                shared.renew(until).await?;
                renewed = true;
                continue;
            }
            let Some(start) = shared.start_read(handle, offset, u64::from(len)) else { continue };
            match shared.finish_read(inode, offset, start, until).await {
                Err(Refused::OldEpoch) => {
                    until.check()?;
                    shared.learn_size(inode, until).await?;
                }
                read => return Ok(read?),
            }
        }
    }

    /// [`Client::read`] when all bytes are at hand.
    #[must_use]
    pub fn try_read(&self, handle: &FileHandle, offset: u64, len: u32) -> Option<Result<Bytes>> {
        let shared = &self.shared;
        if !handle.open.access.read || shared.session.lease_left(shared.now()).is_zero() {
            return None;
        }
        let inode = &handle.open.inode;
        let mut state = inode.lock();
        if !state.may_cache() {
            return None;
        }
        let len = u64::from(len).min(state.size.saturating_sub(offset));
        if len == 0 {
            return Some(Ok(Bytes::new()));
        }
        let step = window(shared.session.facts().chunk_size);
        let slot = state.ahead.get(&(offset / step)).filter(|slot| slot.spans(offset, len));
        let bytes = slot.and_then(|slot| slot.ready(offset, len))?;
        shared.follow(handle, &mut state, offset, len);
        Some(Ok(bytes))
    }
}

impl<N: Net> Shared<N> {
    /// Tells the handle's stream of a read, and fetches ahead as it says.
    fn follow(self: &Arc<Self>, handle: &FileHandle, state: &mut State, offset: u64, len: u64) {
        let plan = lock(&handle.open.stream).read(offset, len, state.size);
        if let Some(plan) = plan {
            self.run_ahead(&handle.open.inode, state, (offset, len), plan);
        }
    }

    /// None when the grant ended meanwhile.
    fn start_read(self: &Arc<Self>, handle: &FileHandle, offset: u64, len: u64) -> Option<Start> {
        let chunk = self.session.facts().chunk_size;
        let step = window(chunk);
        let mut state = handle.open.inode.lock();
        if !state.may_cache() {
            return None;
        }
        let len = len.min(state.size.saturating_sub(offset));
        // Now: whatever is acknowledged later than this need not be seen.
        let held = state.dirty.held(offset, len);
        self.follow(handle, &mut state, offset, len);
        let pieces = pieces(chunk, offset, len).into_iter().map(|piece| {
            let len = u64::from(piece.range.len);
            let slot = state.ahead.get(&(piece.offset / step)).filter(|slot| slot.spans(piece.offset, len));
            (piece, slot.map(Arc::clone))
        });
        let pieces = pieces.collect();
        Some(Start { len, size_epoch: state.size_epoch, cuts: state.cuts, held, pieces })
    }

    async fn finish_read(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        offset: u64,
        start: Start,
        until: Until,
    ) -> Result<Bytes, Refused> {
        let Start { len, size_epoch, cuts, held, pieces } = start;
        if held.covers(offset, len) {
            return Ok(assemble(Vec::new(), &held, offset, len));
        }
        let mut parts = Vec::with_capacity(pieces.len());
        for (piece, slot) in pieces {
            let ahead = match slot {
                Some(slot) => slot.wait(piece.offset, u64::from(piece.range.len)).await,
                None => None,
            };
            let bytes = match ahead {
                Some(bytes) => bytes,
                None => self.get(inode, piece, Source::Grant(size_epoch), until).await?,
            };
            parts.push(bytes);
        }
        not_cut_since(inode, cuts)?;
        Ok(assemble(parts, &held, offset, len))
    }

    /// A read met a place of after a truncation whose size has not come here.
    async fn learn_size(&self, inode: &Inode, until: Until) -> Result<(), Refused> {
        let request = dfs_proto::meta::Getattr { ino: inode.ino };
        let answer = self.ask_in(&request, Scope::Session(inode.incarnation), until).await?;
        let now = self.now();
        inode.lock().take_attr(&answer.body, answer.index, now);
        Ok(())
    }

    /// Without a grant: the master is asked for size and places, and nothing is remembered.
    async fn read_through(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        offset: u64,
        len: u32,
        until: Until,
    ) -> Result<Bytes> {
        let end = offset.saturating_add(u64::from(len));
        let mut at = offset;
        let mut runs = Vec::new();
        while at < end {
            let want = (end - at).min(THROUGH_MAX);
            let run = match self.read_stretch(inode, at, want, until).await {
                Err(Refused::OldEpoch) => {
                    until.check()?;
                    continue;
                }
                run => run?,
            };
            let got = u64::try_from(run.len()).unwrap_or(want);
            at += got;
            runs.push(run);
            if got < want {
                break;
            }
        }
        Ok(assemble(runs, &Held::default(), offset, at - offset))
    }

    async fn read_stretch(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        offset: u64,
        len: u64,
        until: Until,
    ) -> Result<Bytes, Refused> {
        let chunk = self.session.facts().chunk_size;
        // What a grant that is going back has left in the buffer, or on the replicas beyond the size that the
        // master knows.
        let (held, reach, under, cuts) = {
            let state = inode.lock();
            let acked = if state.acked_end > state.committed { state.acked_end } else { 0 };
            let reach = state.dirty.end().unwrap_or(0).max(acked);
            (state.dirty.held(offset, len), reach, state.size_epoch, state.cuts)
        };
        let (first, count) = stretch(chunk, offset, len);
        let map = self.ask_map(inode, first, count, until).await?;
        // Not what was cut since.
        let size = if map.size_epoch > under { map.size } else { map.size.max(reach) };
        let len = len.min(size.saturating_sub(offset));
        let view = MapView::new(&map);
        let mut parts = Vec::new();
        for piece in pieces(chunk, offset, len) {
            parts.push(self.get(inode, piece, Source::Map(view.clone()), until).await?);
        }
        not_cut_since(inode, cuts)?;
        Ok(assemble(parts, &held.below(offset + len), offset, len))
    }
}

/// How far a read may reach was looked up before: a cut by this mount of what only it had leaves the size epoch as it is, and
/// what lies there on the replicas after it can be of another mount's write, beyond a size that nobody has committed.
fn not_cut_since(inode: &Inode, cuts: u64) -> Result<(), Refused> {
    if inode.lock().cuts == cuts { Ok(()) } else { Err(Refused::OldEpoch) }
}

/// The chunks of a stretch: the first, and how many.
fn stretch(chunk: ChunkSize, offset: u64, len: u64) -> (dfs_proto::units::ChunkIndex, u32) {
    let (first, _) = chunk.locate(offset);
    let (last, _) = chunk.locate(offset.saturating_add(len.saturating_sub(1)));
    // A read of at most some megabytes touches a few chunks of the smallest size.
    (first, u32::try_from(last.0 - first.0 + 1).unwrap_or(u32::MAX))
}

/// One run of bytes: the parts joined, with what is held laid over them. Copies only where it must.
fn assemble(mut parts: Vec<Bytes>, held: &Held, offset: u64, len: u64) -> Bytes {
    if held.is_empty() && parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut out = BytesMut::with_capacity(len);
    for part in &parts {
        out.extend_from_slice(part);
    }
    out.resize(len, 0);
    held.lay(offset, &mut out);
    out.freeze()
}
