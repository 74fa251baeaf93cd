//! What all parts of a client share: settings, network, session, the table of inodes, and memory.
//!
//! Lock order: the table, then an inode's state, then any of the others, which are leaves: held for a
//! look-up and never together.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_proto::ids::{GrantId, Ino};
use dfs_proto::units::Micros;
use tokio::sync::Notify;

use crate::absent::Absent;
use crate::attrs::AttrCache;
use crate::changes::DirChanges;
use crate::config::{Config, Patience, SharedUpcalls};
use crate::core::retry::Backoff;
use crate::core::rng::Rng;
use crate::counts::Counters;
use crate::error::{Error, Result};
use crate::files::Releases;
use crate::inode::Inode;
use crate::net::Net;
use crate::owed::Owed;
use crate::servers::Directory;
use crate::session::Session;

/// See the module.
pub(crate) struct Shared<N: Net> {
    pub(crate) config: Config,
    pub(crate) net: N,
    pub(crate) upcalls: SharedUpcalls,
    /// Threads outside the runtime start tasks too.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) session: Session,
    pub(crate) inodes: Mutex<BTreeMap<Ino, Arc<Inode>>>,
    /// Inodes with bytes to write or sizes to commit.
    pub(crate) dirty: Mutex<BTreeMap<Ino, Arc<Inode>>>,
    pub(crate) attrs: Mutex<AttrCache>,
    pub(crate) memory: Memory,
    pub(crate) servers: Mutex<Directory>,
    pub(crate) rng: Mutex<Rng>,
    pub(crate) counts: Counters,
    pub(crate) releases: Releases,
    /// Recalls and returns of grants that an open under way may be about to bring.
    pub(crate) early: Mutex<EarlyRecalls>,
    /// Inodes without open handles whose grant is kept, oldest first by number.
    pub(crate) idle: Mutex<BTreeMap<u64, Arc<Inode>>>,
    pub(crate) counter: AtomicU64,
    /// What is owed for inodes that were forgotten. Taken after `inodes` and an inode's state.
    pub(crate) owed: Mutex<Owed>,
    pub(crate) dir_changes: Mutex<DirChanges>,
    /// Names known not to be there. A leaf, but for a look at the link.
    pub(crate) absent: Mutex<Absent>,
}

/// See [`Shared::early`].
#[derive(Debug, Default)]
pub(crate) struct EarlyRecalls {
    /// Opens under way.
    pub(crate) opens: usize,
    /// Recalls of grants that are not known here yet.
    pub(crate) recalls: BTreeMap<Ino, GrantId>,
    /// The grant of each inode that is going back: an open may still be answered with it.
    pub(crate) given: BTreeMap<Ino, Given>,
}

/// A grant that is going back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) id: GrantId,
    /// The master has it.
    pub(crate) answered: bool,
    /// Of [`Back`](crate::recall::Back).
    pub(crate) left: Option<u64>,
}

impl<N: Net> std::fmt::Debug for Shared<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<N: Net> Shared<N> {
    pub(crate) fn now(&self) -> Micros {
        self.net.now()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// A number that was never given before.
    pub(crate) fn number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn patience(&self) -> Until {
        Until(match self.config.patience {
            Patience::Hard => None,
            Patience::Soft(limit) => Some(tokio::time::Instant::now() + limit),
        })
    }

    /// Sleeps before another try, unless patience ends first.
    pub(crate) async fn pause(&self, backoff: &mut Backoff, until: Until) -> Result<()> {
        self.counts.retries.one_more();
        let wait = backoff.next(&mut lock(&self.rng));
        until.check()?;
        tokio::time::sleep(wait).await;
        until.check()
    }

    pub(crate) fn inode(&self, ino: Ino) -> Option<Arc<Inode>> {
        lock(&self.inodes).get(&ino).cloned()
    }
}

/// When an operation gives up; never, on a `hard` mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until(Option<tokio::time::Instant>);

impl Until {
    pub(crate) const NEVER: Until = Until(None);

    pub(crate) fn check(self) -> Result<()> {
        match self.0 {
            Some(at) if tokio::time::Instant::now() >= at => Err(Error::TimedOut),
            Some(_) | None => Ok(()),
        }
    }

    /// One try's deadline: no longer than what is left.
    pub(crate) fn cap(self, limit: Duration) -> Duration {
        match self.0 {
            // A try of no length could never succeed.
            Some(at) => limit.min(at - tokio::time::Instant::now()).max(Duration::from_millis(1)),
            None => limit,
        }
    }

    pub(crate) async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T> {
        match self.0 {
            Some(at) => tokio::time::timeout_at(at, work).await.map_err(|_elapsed| Error::TimedOut),
            None => Ok(work.await),
        }
    }
}

/// The budget of dirty data and read-ahead.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: u64,
    used: AtomicU64,
    pub(crate) freed: Notify,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Memory {
        // Below a few requests' worth nothing could move at all.
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(4 << 20);
        Memory { limit, used: AtomicU64::new(0), freed: Notify::new() }
    }

    /// Whether a writer may buffer so much more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit
    }

    /// Whether there is room for what is only a guess: read-ahead leaves half to writers.
    pub(crate) fn has_spare(&self, bytes: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit / 2
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn free(&self, bytes: u64) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A poisoned lock means that another thread panicked between two assignments; its data is still the best
/// there is, and a mount that stops answering helps nobody.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
