//! What a program calls: making a client and ending it. The operations are methods of [`Client`] in the
//! modules of their kind; names are bytes, errors those of POSIX.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use crate::attrs::SetAttrs;
pub use crate::dirs::{DirHandle, DirPage};
pub use crate::inode::FileHandle;

use crate::attrs::AttrCache;
use crate::config::{Config, Upcalls};
use crate::core::retry::Backoff;
use crate::core::rng::Rng;
use crate::counts::{Counters, Counts};
use crate::error::{Error, Result};
use crate::files::Releases;
use crate::net::{NOTICES_MAX, Net, NetError};
use crate::servers::Directory;
use crate::session::Session;
use crate::shared::{EarlyRecalls, Memory, Shared, lock};

/// A session with a cluster. Clones are the same session. Must be made and used within a tokio runtime;
/// the `try_` methods and [`Client::release`] may be called from any thread.
pub struct Client<N: Net> {
    pub(crate) shared: Arc<Shared<N>>,
}

/// What a kernel may remember of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheState {
    /// A grant is held: pages and size are true for this long, unless [`Upcalls::invalidate`] comes first.
    Granted(Duration),
    /// It is open, without a grant: nothing may be remembered.
    Shared,
    /// It is not open here and no grant is held: attributes as usual, no pages.
    Unopened,
}

/// Why there is no client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No master answered in time; the last failure.
    #[error("no master could be reached: {0}")]
    NoMaster(NetError),
}

impl<N: Net> Clone for Client<N> {
    fn clone(&self) -> Self {
        Client { shared: Arc::clone(&self.shared) }
    }
}

impl<N: Net> std::fmt::Debug for Client<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("shared", &self.shared).finish()
    }
}

impl<N: Net> Client<N> {
    /// Opens a session. Fails when no master answers within the time configured.
    pub async fn connect(
        config: Config,
        net: N,
        upcalls: Arc<dyn Upcalls>,
    ) -> Result<Client<N>, ConnectError> {
        let (notices, incoming) = mpsc::channel(NOTICES_MAX);
        let until = tokio::time::Instant::now() + config.connect_timeout;
        let shared = Arc::new(Shared {
            memory: Memory::new(config.memory_bytes),
            servers: Mutex::new(Directory::new(config.os_boot, config.hedging)),
            rng: Mutex::new(Rng::new(config.seed)),
            counts: Counters::default(),
            config,
            net,
            upcalls,
            runtime: tokio::runtime::Handle::current(),
            session: Session::new(),
            inodes: Mutex::new(BTreeMap::new()),
            dirty: Mutex::new(BTreeMap::new()),
            attrs: Mutex::new(AttrCache::default()),
            releases: Releases::default(),
            early: Mutex::new(EarlyRecalls::default()),
            idle: Mutex::new(BTreeMap::new()),
            counter: AtomicU64::new(0),
            owed: Mutex::default(),
            absent: Mutex::default(),
            dir_changes: Mutex::default(),
        });
        let mut backoff = Backoff::default();
        while let Err(error) = shared.first_session(notices.clone()).await {
            log::info!("no session: {error}");
            let wait = backoff.next(&mut lock(&shared.rng));
            if tokio::time::Instant::now() + wait >= until {
                return Err(ConnectError::NoMaster(error));
            }
            tokio::time::sleep(wait).await;
        }
        shared.spawn(Arc::clone(&shared).keep_session(notices));
        shared.spawn(Arc::clone(&shared).serve_notices(incoming));
        shared.spawn(Arc::clone(&shared).write_back());
        shared.spawn(Arc::clone(&shared).send_releases());
        Ok(Client { shared })
    }

    /// Bytes that dirty data and read-ahead hold now.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        self.shared.memory.used()
    }

    /// What was counted of slow, silent and repeated requests.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts.now()
    }

    /// How much longer the session lives for sure; `None` while no master has it.
    #[must_use]
    pub fn session_left(&self) -> Option<Duration> {
        let linked = self.shared.session.view.get().link.is_some();
        linked.then(|| self.shared.session.lease_left(self.shared.now()))
    }

    /// Writes everything back, closes the session and stops, within `deadline`. What could not be written
    /// by then is lost, and that is the error.
    pub async fn shutdown(&self, deadline: Duration) -> Result<()> {
        let shared = &self.shared;
        let mut tasks = JoinSet::new();
        for inode in lock(&shared.dirty).values() {
            let (shared, inode) = (Arc::clone(shared), Arc::clone(inode));
            tasks.spawn(async move { shared.settle(&inode, shared.patience()).await });
        }
        let all = async {
            let mut outcome = Ok(());
            while let Some(settled) = tasks.join_next().await {
                outcome = outcome.and(settled.unwrap_or(Err(Error::Io)));
            }
            outcome
        };
        // A quarter is left for saying goodbye.
        let settled = tokio::time::timeout(deadline * 3 / 4, all).await.unwrap_or(Err(Error::TimedOut));
        shared.close_session(settled.is_ok(), deadline / 4).await;
        shared.releases.stop();
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Caller;
    use crate::net::tcp::TcpNet;
    use dfs_proto::ids::Ino;
    use dfs_proto::meta::{Access, SetxattrMode};

    fn send<T: Send>(future: T) -> T {
        future
    }

    /// Never run: programs spawn these futures on other threads.
    #[allow(dead_code)]
    async fn futures_can_move_between_threads(client: Client<TcpNet>, file: FileHandle) {
        let who = Caller::default();
        let access = Access { read: true, write: true };
        let _ = send(client.lookup(Ino(1), b"x", who)).await;
        let _ = send(client.create(Ino(1), b"x", 0, access, true, true, who)).await;
        let _ = send(client.open(Ino(1), access, true, who)).await;
        let _ = send(client.write(&file, 0, bytes::Bytes::new(), false)).await;
        let _ = send(client.read(&file, 0, 1)).await;
        let _ = send(client.fsync(&file, false)).await;
        let _ = send(client.setattr(Ino(1), Some(&file), SetAttrs::default(), who)).await;
        let _ = send(client.setxattr(Ino(1), b"x", b"y", SetxattrMode::Any, who)).await;
        let _ = send(client.readdir(&client.opendir(Ino(1)), 0, true)).await;
        let _ = send(client.shutdown(Duration::ZERO)).await;
    }
}
