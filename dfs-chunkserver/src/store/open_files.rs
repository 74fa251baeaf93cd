//! Which chunk files are open. Bounded: the least recently touched synced file is closed first. A file
//! with unsynced writes keeps its descriptor, because only that one is sure to be told of an error; when
//! all open files are of that kind, one sync of the whole disk makes them closable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, TryLockError};

use dfs_disk::Disk;

use super::Store;
use super::chunk::{Shared, locked};

#[derive(Debug)]
pub(super) struct OpenFiles<F> {
    /// In the order of their opening, or of their last pardon. Taken after a chunk's state by `add`; so
    /// `close_some` only tries the state's lock.
    ring: Mutex<VecDeque<Shared<F>>>,
    count: AtomicUsize,
    limit: usize,
    /// One thread closes at a time.
    closing: Mutex<()>,
    /// Nothing more can be closed before it is synced.
    must_sync: AtomicBool,
}

impl<F> OpenFiles<F> {
    pub(super) fn new(limit: usize) -> OpenFiles<F> {
        OpenFiles {
            ring: Mutex::new(VecDeque::new()),
            count: AtomicUsize::new(0),
            limit,
            closing: Mutex::new(()),
            must_sync: AtomicBool::new(false),
        }
    }

    /// Puts a chunk whose file was just opened on the list.
    pub(super) fn add(&self, chunk: &Shared<F>) {
        let mut ring = locked(&self.ring);
        ring.push_back(chunk.clone());
        self.count.store(ring.len(), Ordering::Relaxed);
    }

    fn over(&self, times: usize) -> bool {
        self.count.load(Ordering::Relaxed) > self.limit.saturating_mul(times)
    }

    pub(super) fn all(&self) -> Vec<Shared<F>> {
        locked(&self.ring).iter().cloned().collect()
    }

    /// Goes round until the number is within the limit, twice at most: the first round pardons the
    /// recently used. Says how many were closed.
    fn close_some(&self) -> u64 {
        let mut closed = 0;
        let mut left = 2 * self.count.load(Ordering::Relaxed);
        while left > 0 {
            left -= 1;
            let mut ring = locked(&self.ring);
            if ring.len() <= self.limit {
                break;
            }
            let Some(chunk) = ring.pop_front() else { break };
            if chunk.used.swap(false, Ordering::Relaxed) {
                ring.push_back(chunk);
                continue;
            }
            let keep = match chunk.state.try_write() {
                Ok(mut state) if !state.dirty() || state.body.is_none() => {
                    state.body = None;
                    closed += 1;
                    false
                }
                Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => true,
            };
            if keep {
                ring.push_back(chunk);
            }
            self.count.store(ring.len(), Ordering::Relaxed);
        }
        closed
    }
}

impl<D: Disk> Store<D> {
    /// Closes files while too many are open. Called with no lock held. What fails here concerns other
    /// chunks than the caller's; they say so when they are asked for next.
    ///
    /// Up to twice the limit only what is synced is closed, and [`Store::tidy`] is left to sync the rest in the
    /// background: a sync of the whole disk can take seconds, and the caller serves a connection. Above that
    /// the caller waits for it.
    pub(super) fn limit_open_files(&self) {
        if !self.open.over(1) {
            return;
        }
        if self.open.over(2) {
            return self.tidy();
        }
        if let Ok(_closing) = self.open.closing.try_lock()
            && !self.open.must_sync.load(Ordering::Relaxed)
        {
            self.counters.closed.add(self.open.close_some());
            self.open.must_sync.store(self.open.over(1), Ordering::Relaxed);
        }
    }

    /// Whether [`Store::tidy`] is due.
    #[must_use]
    pub fn wants_tidying(&self) -> bool {
        self.open.must_sync.load(Ordering::Relaxed)
    }

    /// Syncs what is open and closes as much as the limit asks for. May take as long as the disk needs for
    /// everything that it has not written yet.
    pub fn tidy(&self) {
        let _closing = locked(&self.open.closing);
        if self.open.over(1) {
            if let Err(err) = self.sync_open_files() {
                log::error!("{err}; the disk is suspect");
            }
            self.counters.closed.add(self.open.close_some());
        }
        self.open.must_sync.store(false, Ordering::Relaxed);
    }
}
