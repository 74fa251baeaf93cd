//! Grants that end: recalled by the master, not given again after its restart, or lost with the session.
//!
//! Order of a recall: no write enters the buffer, what is dirty is written and committed, reads and writes
//! go through, the kernel's pages go, and only then the master hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::frame::Frame;
use dfs_proto::ids::{ChunkId, GrantId, Ino, LogIndex};
use dfs_proto::meta::{DirChanged, Grant, GrantBack, GrantKind, LocationsChanged, Recall, SessionResumed};
use dfs_proto::planted;
use dfs_proto::request::Op;
use tokio::sync::mpsc;

use crate::call::{Refused, Scope};
use crate::config::Ack;
use crate::error::Error;
use crate::inode::{Gate, Inode, Mapped, State};
use crate::net::{Net, Notice};
use crate::shared::{Given, Shared, Until, lock};

/// A grant that goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Back {
    pub(crate) ino: Ino,
    pub(crate) grant: GrantId,
    /// The count of writes given up, if the master has not heard of them all.
    pub(crate) left: Option<u64>,
}

const NO_GRANT: Grant = Grant { id: GrantId(0), kind: GrantKind::None };

impl<N: Net> Shared<N> {
    /// Serves what the master sends unasked, until the network is gone.
    pub(crate) async fn serve_notices(self: Arc<Self>, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Closed(link) => {
                    self.drop_link(link);
                }
                Notice::Frame(link, frame) => {
                    if self.session.view.get().link == Some(link) {
                        self.notice(&frame);
                    }
                }
            }
            if self.session.view.get().closed {
                return;
            }
        }
    }

    fn notice(self: &Arc<Self>, frame: &Frame) {
        match frame.header.op {
            Op::Recall => match frame.decode::<Recall>() {
                Ok(recall) => self.recalled(recall.ino, recall.grant),
                Err(error) => log::warn!("{error}"),
            },
            Op::DirChanged => match frame.decode::<DirChanged>() {
                Ok(changed) => self.dir_changed(changed.dir),
                Err(error) => log::warn!("{error}"),
            },
            Op::LocationsChanged => match frame.decode::<LocationsChanged>() {
                Ok(changed) => self.relocated(&changed.chunks),
                Err(error) => log::warn!("{error}"),
            },
            other => log::debug!("the master sent {other:?}, which is not known here"),
        }
    }

    /// Places of these chunks are old; a hint, so that only those who write learn it the hard way.
    fn relocated(&self, chunks: &[ChunkId]) {
        let inodes: Vec<_> = lock(&self.inodes).values().cloned().collect();
        for inode in inodes {
            inode.lock().places.retain(|_, mapped| match mapped {
                Mapped::Place(place) => place.new || !chunks.contains(&place.chunk()),
                Mapped::Hole => true,
            });
        }
    }

    /// The master wants a grant back.
    pub(crate) fn recalled(self: &Arc<Self>, ino: Ino, id: GrantId) {
        let Some(inode) = self.inode(ino) else {
            self.recalled_unknown(ino, id);
            return;
        };
        let mut state = inode.lock();
        if state.returning == Some(id) {
            return;
        }
        // One that was held before is given back all the same: the opens that are under way may wait for just that.
        if id > state.last_grant {
            drop(state);
            self.recalled_unknown(ino, id);
            return;
        }
        state.returning = Some(id);
        self.drain_grant(&inode, &mut state, Some(id));
    }

    /// A grant that is not held: an open under way may be about to bring it, or it went back already.
    fn recalled_unknown(self: &Arc<Self>, ino: Ino, id: GrantId) {
        let mut early = lock(&self.early);
        if early.opens > 0 {
            early.recalls.insert(ino, id);
            return;
        }
        // The message that says so, with what it says of writes, may still be under way.
        let left = early.given.get(&ino).and_then(|given| given.left);
        drop(early);
        let shared = Arc::clone(self);
        let incarnation = self.session.incarnation();
        self.spawn(async move { shared.send_back(vec![Back { ino, grant: id, left }], incarnation).await });
    }

    /// Gives a grant up, by its recall or because it ended by itself, as soon as no truncation is under way.
    pub(crate) fn drain_grant(self: &Arc<Self>, inode: &Arc<Inode>, state: &mut State, id: Option<GrantId>) {
        state.drains += 1;
        if state.gate == Gate::Open {
            state.gate = Gate::Draining;
        }
        let (shared, inode) = (Arc::clone(self), Arc::clone(inode));
        self.spawn(async move {
            inode
                .until(|state| {
                    // A truncation under way may itself wait for this. There is nothing to write, also where another open
                    // of ours was answered meanwhile that no grant stands any more.
                    let clean = state.grant.kind != GrantKind::Write && state.is_settled();
                    (state.dead || state.gate != Gate::Cutting || clean).then_some(())
                })
                .await;
            shared.hand_back(&inode, id).await;
        });
    }

    /// See the module. The gate is closed, or there is nothing to write.
    async fn hand_back(self: &Arc<Self>, inode: &Arc<Inode>, id: Option<GrantId>) {
        let clean = inode.lock().is_settled() || planted!(GrantBackUnflushed);
        let settled = if clean { Ok(()) } else { self.settle(inode, self.patience()).await };
        if let Err(error) = settled {
            log::error!("inode {}: not written back at its recall: {error}", inode.ino);
            self.memory.free(inode.lock().lose_dirty());
            inode.changed.notify_waiters();
            // Whoever has the file next writes over nothing that comes later.
            inode.until(|state| (state.dead || state.dirty.flights() == 0).then_some(())).await;
        }
        let (left, unused) = {
            let mut state = inode.lock();
            let left = state.left_writes();
            if let Some(id) = id {
                self.note_given(inode.ino, id, left);
            }
            let unused = state.take_unused();
            if id.is_none_or(|id| id == state.grant.id) {
                state.grant = NO_GRANT;
            }
            self.memory.free(state.drop_ahead());
            state.places.clear();
            state.attr = None;
            state.attr_changes += 1;
            state.drains = state.drains.saturating_sub(1);
            if state.gate == Gate::Draining && state.drains == 0 {
                state.gate = Gate::Open;
            }
            (left, unused)
        };
        inode.changed.notify_waiters();
        self.drop_unused(inode, unused).await;
        self.invalidate(inode.ino).await;
        if let Some(id) = id {
            self.send_back(vec![Back { ino: inode.ino, grant: id, left }], inode.incarnation).await;
            let mut state = inode.lock();
            if state.returning == Some(id) {
                state.returning = None;
            }
            if state.last_grant == id {
                state.last_grant = GrantId(0);
            }
        }
    }

    /// Has the kernel's pages dropped, and waits for it: no longer than the session's lease, behind which
    /// the kernel was told to believe nothing.
    pub(crate) async fn invalidate(&self, ino: Ino) {
        let (ack, done) = Ack::new();
        self.upcalls.invalidate(ino, ack);
        let limit = Duration::from_millis(self.session.facts().lease_ms);
        if tokio::time::timeout(limit, done).await.is_err() {
            log::error!("inode {ino}: the kernel's pages were not dropped in time");
        }
    }

    /// An open may still be answered with this grant.
    pub(crate) fn note_given(&self, ino: Ino, id: GrantId, left: Option<u64>) {
        lock(&self.early).given.insert(ino, Given { id, answered: false, left });
    }

    /// Whether this grant, or one that came after it, was given up.
    pub(crate) fn is_on_its_way_back(&self, ino: Ino, id: GrantId) -> bool {
        lock(&self.early).given.get(&ino).is_some_and(|gone| id <= gone.id)
    }

    /// Tells the master that grants are given up.
    pub(crate) async fn send_back(&self, back: Vec<Back>, incarnation: u64) {
        let left: Vec<_> = back.iter().filter_map(|back| back.left.map(|left| (back.ino, left))).collect();
        let request = GrantBack {
            grants: back.iter().map(|back| (back.ino, back.grant)).collect(),
            unsettled: left.iter().map(|(ino, _)| *ino).collect(),
        };
        match self.ask_in(&request, Scope::Session(incarnation), Until::NEVER).await {
            Ok(_) => self.master_knows_of(left),
            Err(Refused::SessionLost) => {}
            Err(error) => log::warn!("{} grants not given back: {error}", request.grants.len()),
        }
        let mut early = lock(&self.early);
        for (ino, grant) in &request.grants {
            if early.opens == 0 {
                early.given.remove(ino);
            } else if let Some(given) = early.given.get_mut(ino)
                && given.id == *grant
            {
                given.answered = true;
            }
        }
    }

    /// The session goes on with another master, or the same one restarted. `durable`: what was known to
    /// be on its disk.
    pub(crate) fn take_up(self: &Arc<Self>, resumed: &SessionResumed, durable: LogIndex, new_term: bool) {
        let grants: BTreeMap<Ino, Grant> = resumed.grants.iter().copied().collect();
        let inodes: Vec<_> = lock(&self.inodes).values().cloned().collect();
        if resumed.tail_lost {
            log::error!("the master lost its last records: unsynced changes may be gone");
            lock(&self.dir_changes).tail_lost(durable);
            lock(&self.owed).tail_lost(durable);
            *lock(&self.attrs) = crate::attrs::AttrCache::default();
        }
        for inode in inodes {
            let mut state = inode.lock();
            if new_term || resumed.tail_lost {
                // Capabilities end on a clock that is not the new master's.
                state.places.clear();
                state.attr = None;
            }
            if resumed.tail_lost {
                self.memory.free(state.drop_ahead());
                state.synced.clear();
                state.rewound = true;
                state.tails_lost += 1;
                if state.last_change > durable {
                    state.latch.set(Error::Io);
                }
            }
            // The master answered before it had heard that a grant is given back.
            match grants.get(&inode.ino).filter(|grant| !self.is_on_its_way_back(inode.ino, grant.id)) {
                Some(grant) if grant.kind >= state.grant.kind => state.take_grant(*grant),
                Some(_) | None if state.grant.kind == GrantKind::None => {}
                Some(_) | None => {
                    if state.gate == Gate::Open {
                        state.grant = NO_GRANT;
                    }
                    // During a truncation what is buffered is cut, or leaves afterwards.
                    self.drain_grant(&inode, &mut state, None);
                }
            }
        }
    }

    /// The session ended without us: whatever it had open is dead.
    pub(crate) fn lose_everything(&self) {
        let inodes = std::mem::take(&mut *lock(&self.inodes));
        lock(&self.dirty).clear();
        lock(&self.idle).clear();
        // Its session may have gone with the master's last records.
        let durable = self.session.log_seen().1;
        lock(&self.dir_changes).tail_lost(durable);
        {
            let mut early = lock(&self.early);
            early.recalls.clear();
            early.given.clear();
        }
        for inode in inodes.values() {
            let mut state = inode.lock();
            let freed = state.lose_dirty() + state.drop_ahead();
            state.dead = true;
            state.gate = Gate::Open;
            state.grant = NO_GRANT;
            state.places.clear();
            lock(&self.owed).keep(inode.ino, &mut state, durable);
            drop(state);
            self.memory.free(freed);
            inode.changed.notify_waiters();
            let (ack, _) = Ack::new();
            self.upcalls.invalidate(inode.ino, ack);
        }
        lock(&self.owed).tail_lost(durable);
    }
}

impl State {
    pub(crate) fn take_grant(&mut self, grant: Grant) {
        self.grant = grant;
        if grant.kind != GrantKind::None {
            self.last_grant = self.last_grant.max(grant.id);
        }
    }

    /// What is buffered or not committed is lost, and every handle will say so. Returns the bytes freed.
    fn lose_dirty(&mut self) -> u64 {
        if !self.is_settled() {
            self.latch.set(Error::Io);
        }
        self.acked_end = 0;
        self.touched = false;
        self.pending = None;
        self.dirty.drop_dirty()
    }
}
