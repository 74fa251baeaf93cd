//! Where a file's chunks are: what is remembered of it under a grant, and asking the master.

use std::sync::Arc;

use dfs_proto::ids::{ChunkId, SizeEpoch};
use dfs_proto::meta::{ChunkPlace, FailedPlace, MAP_MAX, MapRead, MapWrite, ReadMap};
use dfs_proto::planted;
use dfs_proto::units::ChunkIndex;

use crate::call::{Refused, Scope};
use crate::core::retry::Backoff;
use crate::inode::{Inode, Mapped, State};
use crate::net::Net;
use crate::shared::{Shared, Until};

/// A capability is renewed when it has less than this left: one try at a chunk server may take as long.
const EXPIRY_MARGIN_MS: u64 = 5000;
/// Chunks asked for at once: 4 GiB of a sequential read at the default size.
const MAP_AHEAD: u32 = 64;

/// A stretch of a file's map, as true as the answer it came with.
#[derive(Clone, Debug)]
pub(crate) struct MapView {
    pub(crate) places: Vec<Arc<ChunkPlace>>,
    pub(crate) size_epoch: SizeEpoch,
}

impl MapView {
    pub(crate) fn at(&self, index: ChunkIndex) -> Mapped {
        let place = self.places.iter().find(|place| place.index == index);
        place.map_or(Mapped::Hole, |place| Mapped::Place(Arc::clone(place)))
    }
}

impl<N: Net> Shared<N> {
    fn is_fresh(&self, place: &ChunkPlace) -> bool {
        let now = self.session.master_now(self.now());
        now.is_none_or(|now| now.0.saturating_add(EXPIRY_MARGIN_MS) < place.capability.expires.0)
    }

    /// The place to write an index at, not the one that failed. With `only`, `Stale` unless that chunk is there: to ask
    /// for a chunk and then not write it would leave one that the next commit says is written.
    pub(crate) async fn write_place(
        &self,
        inode: &Inode,
        index: ChunkIndex,
        failed: Option<FailedPlace>,
        only: Option<ChunkId>,
        until: Until,
    ) -> Result<Arc<ChunkPlace>, Refused> {
        // One that is known can be of before a truncation by another mount.
        let known = |state: &State| {
            let place = self.known_write_place(state, index, failed);
            place.filter(|place| only.is_none_or(|only| only == place.chunk()))
        };
        if let Some(place) = known(&inode.lock()) {
            return Ok(place);
        }
        // An index has one chunk, however often it is asked for.
        let request = MapWrite { ino: inode.ino, index, failed, only };
        let mut backoff = Backoff::default();
        loop {
            // Held for one question: another chunk's recovery is no reason to wait.
            let turn = inode.map_turn(index).await;
            if let Some(place) = known(&inode.lock()) {
                return Ok(place);
            }
            let answer = self.ask_once(&request, Scope::Session(inode.incarnation), until).await?;
            if let Some(place) = answer {
                let place = Arc::new(place);
                let mut state = inode.lock();
                if place.new {
                    // The record that put the chunk there may be lost, and with it what is written to it.
                    state.last_change = state.last_change.max(self.session.log_seen().0);
                }
                if state.take_place(&place) {
                    return Ok(place);
                }
            }
            drop(turn);
            self.pause(&mut backoff, until).await?;
        }
    }

    pub(crate) fn known_write_place(
        &self,
        state: &State,
        index: ChunkIndex,
        failed: Option<FailedPlace>,
    ) -> Option<Arc<ChunkPlace>> {
        let Some(Mapped::Place(place)) = state.places.get(&index) else { return None };
        let cap = &place.capability;
        let failed_here = failed.is_some_and(|f| f.chunk == cap.chunk && f.version >= cap.version);
        (cap.rights.write && !failed_here && self.is_fresh(place)).then(|| Arc::clone(place))
    }

    /// The place to read an index at, from what a grant lets us remember, and the size epoch of the map that says so.
    pub(crate) async fn read_place(
        &self,
        inode: &Inode,
        index: ChunkIndex,
        until: Until,
    ) -> Result<(Mapped, SizeEpoch), Refused> {
        if let Some(known) = self.known(&inode.lock(), index) {
            return Ok(known);
        }
        let _turn = inode.map_turn(index).await;
        let count = {
            let state = inode.lock();
            if let Some(known) = self.known(&state, index) {
                return Ok(known);
            }
            let chunks = self.session.facts().chunk_size.chunks_for(state.size);
            u32::try_from(chunks.saturating_sub(index.0)).unwrap_or(MAP_AHEAD).clamp(1, MAP_AHEAD)
        };
        let map = self.ask_map(inode, index, count, until).await?;
        let view = MapView::new(&map);
        let mut state = inode.lock();
        if state.may_cache() && map.size_epoch == state.size_epoch {
            for at in index.0..index.0.saturating_add(u64::from(count)) {
                let at = ChunkIndex(at);
                let known = state.places.get(&at);
                // A right to write is worth more than the same place without.
                let better = matches!(known, Some(Mapped::Place(old))
                    if old.capability.rights.write && self.is_fresh(old));
                if !better {
                    state.places.insert(at, view.at(at));
                }
            }
        }
        Ok((view.at(index), view.size_epoch))
    }

    fn known(&self, state: &State, index: ChunkIndex) -> Option<(Mapped, SizeEpoch)> {
        if !state.may_cache() {
            return None;
        }
        let mapped = match state.places.get(&index)? {
            Mapped::Hole => Some(Mapped::Hole),
            Mapped::Place(place) => self.is_fresh(place).then(|| Mapped::Place(Arc::clone(place))),
        };
        mapped.map(|mapped| (mapped, state.size_epoch))
    }

    /// The master's map of now.
    pub(crate) async fn ask_map(
        &self,
        inode: &Inode,
        first: ChunkIndex,
        count: u32,
        until: Until,
    ) -> Result<ReadMap, Refused> {
        let request = MapRead { ino: inode.ino, first, count: count.min(MAP_MAX) };
        let map = self.ask_in(&request, Scope::Session(inode.incarnation), until).await?.body;
        inode.lock().see_cut(&map);
        Ok(map)
    }
}

impl MapView {
    pub(crate) fn new(map: &ReadMap) -> MapView {
        MapView { places: map.places.iter().cloned().map(Arc::new).collect(), size_epoch: map.size_epoch }
    }
}

impl State {
    /// Another mount's truncation shows in a map first: from now on nothing is written at places from before it.
    fn see_cut(&mut self, map: &ReadMap) {
        if map.size_epoch > self.size_epoch && !self.may_cache() {
            self.places.clear();
            (self.size_epoch, self.acked_end, self.committed) = (map.size_epoch, 0, map.size);
        }
    }

    /// Remembers a place, but for one that was given before the file was cut: its chunk may be none of the file's any
    /// more, and a server that has not heard of that takes writes to it.
    pub(crate) fn take_place(&mut self, place: &Arc<ChunkPlace>) -> bool {
        let holds =
            place.capability.size_epoch >= self.size_epoch || self.rewound || planted!(PlaceFromBeforeCut);
        if holds {
            self.places.insert(place.index, Mapped::Place(Arc::clone(place)));
        }
        holds
    }
}

impl Inode {
    /// This place is out of date: whoever needs the index asks the master.
    pub(crate) fn forget_place(&self, place: &ChunkPlace) {
        let mut state = self.lock();
        let known = state.places.get(&place.index);
        if matches!(known, Some(Mapped::Place(known)) if known.capability == place.capability) {
            state.places.remove(&place.index);
        }
    }

    /// A file of the chunk exists now: later writes need not name its members.
    pub(crate) fn no_longer_new(&self, place: &ChunkPlace) {
        if !place.new {
            return;
        }
        let mut state = self.lock();
        if let Some(Mapped::Place(known)) = state.places.get_mut(&place.index)
            && known.chunk() == place.chunk()
            && known.new
        {
            Arc::make_mut(known).new = false;
        }
    }

    /// The epoch under which sizes are committed.
    pub(crate) fn size_epoch(&self) -> SizeEpoch {
        self.lock().size_epoch
    }
}
