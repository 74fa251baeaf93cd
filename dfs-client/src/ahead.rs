//! Read-ahead: windows of a file that are fetched before they are asked for, under a grant.
//!
//! A write or a truncation drops them all, so that a window that is there never lacks a byte written. While a file is
//! being cut or zeroed there are none: the servers are done with parts of that before its caller has an answer, and who
//! reads from them then must not be followed by somebody who reads what was fetched before.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dfs_proto::ids::SizeEpoch;
use tokio::sync::Notify;

use crate::core::ahead::Plan;
use crate::core::split::{pieces, window};
use crate::get::Source;
use crate::inode::{Gate, Inode, State};
use crate::net::Net;
use crate::shared::{Shared, lock};

/// Most windows of one file that are held: what two streams need.
const SLOTS_MAX: usize = 24;

/// A window that is being fetched, or was.
#[derive(Debug)]
pub(crate) struct Slot {
    start: u64,
    len: u64,
    state: Mutex<Fetched>,
    done: Notify,
}

#[derive(Clone, Debug)]
enum Fetched {
    Pending,
    Ready(Bytes),
    Failed,
}

impl Slot {
    fn new(start: u64, len: u64) -> Slot {
        Slot { start, len, state: Mutex::new(Fetched::Pending), done: Notify::new() }
    }

    /// What it counts against the budget.
    pub(crate) fn charged(&self) -> u64 {
        self.len
    }

    /// The bytes from `offset`, at most `len`, if they are there.
    pub(crate) fn ready(&self, offset: u64, len: u64) -> Option<Bytes> {
        match &*lock(&self.state) {
            Fetched::Ready(bytes) => Some(self.cut(bytes, offset, len)),
            Fetched::Pending | Fetched::Failed => None,
        }
    }

    /// The same, once they are there; none when the fetch failed.
    pub(crate) async fn wait(&self, offset: u64, len: u64) -> Option<Bytes> {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            done.as_mut().enable();
            match &*lock(&self.state) {
                Fetched::Ready(bytes) => return Some(self.cut(bytes, offset, len)),
                Fetched::Failed => return None,
                Fetched::Pending => {}
            }
            done.await;
        }
    }

    /// Whether all of a stretch lies in the window as it was fetched.
    pub(crate) fn spans(&self, offset: u64, len: u64) -> bool {
        offset >= self.start && offset + len <= self.start + self.len
    }

    fn cut(&self, bytes: &Bytes, offset: u64, len: u64) -> Bytes {
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(bytes.len());
        let to = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(from).min(bytes.len());
        bytes.slice(from..to)
    }

    fn set(&self, fetched: Fetched) {
        *lock(&self.state) = fetched;
        self.done.notify_waiters();
    }
}

/// Marks the slot as failed if the fetch is dropped before its end.
struct Fetching(Arc<Slot>);

impl Drop for Fetching {
    fn drop(&mut self) {
        let pending = matches!(*lock(&self.0.state), Fetched::Pending);
        if pending {
            self.0.set(Fetched::Failed);
        }
    }
}

impl<N: Net> Shared<N> {
    /// Fetches what a stream will want after the `len` bytes that are read now, and drops what it has left
    /// behind. A window that the reader wants whole, a small file above all, it fetches itself: a task would
    /// only be one more thread to wake.
    pub(crate) fn run_ahead(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        state: &mut State,
        (offset, len): (u64, u64),
        plan: Plan,
    ) {
        let read_end = offset.saturating_add(len);
        let step = window(self.session.facts().chunk_size);
        let behind = plan.behind / step;
        let kept = state.ahead.split_off(&behind);
        let left = std::mem::replace(&mut state.ahead, kept);
        self.memory.free(left.values().map(|slot| slot.charged()).sum());
        if state.gate == Gate::Cutting {
            return;
        }
        let mut at = offset / step;
        while at * step < plan.ahead_to && state.ahead.len() < SLOTS_MAX {
            let start = at * step;
            let len = step.min(state.size.saturating_sub(start));
            let read_now = start >= offset && start + len <= read_end;
            let wanted =
                len > 0 && !read_now && !state.ahead.contains_key(&at) && !state.dirty.overlaps(start, len);
            if wanted {
                if !self.memory.has_spare(len) {
                    return;
                }
                self.memory.add(len);
                let slot = Arc::new(Slot::new(start, len));
                state.ahead.insert(at, Arc::clone(&slot));
                let (shared, inode) = (Arc::clone(self), Arc::clone(inode));
                let size_epoch = state.size_epoch;
                self.spawn(async move { shared.fetch_slot(&inode, slot, size_epoch).await });
            }
            at += 1;
        }
    }

    async fn fetch_slot(self: Arc<Self>, inode: &Inode, slot: Arc<Slot>, size_epoch: SizeEpoch) {
        let fetching = Fetching(Arc::clone(&slot));
        let until = self.patience();
        for piece in pieces(self.session.facts().chunk_size, slot.start, slot.len) {
            // A slot is one window, and that is one piece.
            match self.get(inode, piece, Source::Grant(size_epoch), until).await {
                Ok(bytes) => slot.set(Fetched::Ready(bytes)),
                Err(error) => log::debug!("inode {}: read ahead: {error}", inode.ino),
            }
        }
        drop(fetching);
    }
}
