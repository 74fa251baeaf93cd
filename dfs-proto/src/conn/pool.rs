//! One live connection per address.
//!
//! Who asks for an address at the same time shares one dial. After a failed dial the address rests for a
//! while, longer each time, and who asks meanwhile is told so at once instead of waiting: it may have
//! another address to try.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::conn::{Conn, ConnError, Handler, Hello, PeerAddr};

/// Rest after the first failed dial.
const REST_MIN: Duration = Duration::from_millis(20);
/// Longest rest: a server that came back is found within it.
const REST_MAX: Duration = Duration::from_secs(1);

/// Dials on demand and keeps what lives.
pub struct Pool {
    handler: Arc<dyn Handler>,
    limit: Duration,
    hello: Mutex<Hello>,
    /// As many entries as the cluster has addresses. Held for look-ups only, never together with another.
    peers: Mutex<HashMap<PeerAddr, Arc<Peer>>>,
}

struct Peer {
    link: Mutex<Link>,
    /// Held while dialling.
    dial: Arc<tokio::sync::Mutex<Failures>>,
}

enum Link {
    None,
    /// Perhaps broken by now.
    Made(Conn),
    /// The pool has dropped the address: a dial that still runs is in vain.
    Forgotten,
}

/// What dialling an address came to lately.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    last: Option<Failure>,
}

struct Failure {
    at: Instant,
    rest: Duration,
    error: ConnError,
}

impl Pool {
    /// A pool whose connections introduce themselves with `hello` and serve with `handler`; each dial may
    /// take `limit`.
    #[must_use]
    pub fn new(hello: Hello, handler: Arc<dyn Handler>, limit: Duration) -> Pool {
        Pool { handler, limit, hello: Mutex::new(hello), peers: Mutex::new(HashMap::new()) }
    }

    /// Says something else from the next dial on.
    pub fn set_hello(&self, hello: Hello) {
        *lock(&self.hello) = hello;
    }

    /// The live connection to `addr`, or a new one.
    pub async fn get(&self, addr: &PeerAddr) -> Result<Conn, ConnError> {
        let peer = self.peer(addr);
        if let Some(conn) = peer.live() {
            return Ok(conn);
        }
        let asked = Instant::now();
        let failures = Arc::clone(&peer.dial).lock_owned().await;
        if let Some(conn) = peer.live() {
            return Ok(conn);
        }
        if let Some(error) = failures.stands(asked) {
            return Err(error);
        }
        // In a task of its own: a caller that gives up must not take the dial, and what it would teach the
        // next caller, with it.
        let dialling = tokio::spawn(peer.dial(failures, addr.clone(), self.introduction(), self.limit));
        dialling.await.unwrap_or_else(|_ended| Err(ConnError::Closed { addr: addr.clone() }))
    }

    fn introduction(&self) -> (Hello, Arc<dyn Handler>) {
        (lock(&self.hello).clone(), Arc::clone(&self.handler))
    }

    /// The live connection to `addr`, without dialling.
    #[must_use]
    pub fn live(&self, addr: &PeerAddr) -> Option<Conn> {
        let peer = lock(&self.peers).get(addr).map(Arc::clone);
        peer.and_then(|peer| peer.live())
    }

    /// Closes and forgets the connection to `addr`, and its failures.
    pub fn forget(&self, addr: &PeerAddr) {
        let peer = lock(&self.peers).remove(addr);
        if let Some(peer) = peer {
            peer.forget();
        }
    }

    /// Closes and forgets all connections.
    pub fn close_all(&self) {
        let peers = std::mem::take(&mut *lock(&self.peers));
        for peer in peers.values() {
            peer.forget();
        }
    }

    fn peer(&self, addr: &PeerAddr) -> Arc<Peer> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(addr) {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer { link: Mutex::new(Link::None), dial: Arc::default() });
        peers.insert(addr.clone(), Arc::clone(&peer));
        peer
    }
}

impl Peer {
    fn live(&self) -> Option<Conn> {
        match &*lock(&self.link) {
            Link::Made(conn) if !conn.is_closed() => Some(conn.clone()),
            Link::None | Link::Made(_) | Link::Forgotten => None,
        }
    }

    fn forget(&self) {
        let link = std::mem::replace(&mut *lock(&self.link), Link::Forgotten);
        if let Link::Made(conn) = link {
            conn.close();
        }
    }

    /// Dials and keeps the outcome.
    async fn dial(
        self: Arc<Self>,
        mut failures: OwnedMutexGuard<Failures>,
        addr: PeerAddr,
        (hello, handler): (Hello, Arc<dyn Handler>),
        limit: Duration,
    ) -> Result<Conn, ConnError> {
        match Conn::connect(&addr, hello, handler, limit).await {
            Ok((conn, _welcome)) => {
                *failures = Failures::default();
                self.made(conn.clone()).map(|()| conn).ok_or(ConnError::Closed { addr })
            }
            Err(error) => {
                failures.add(error.clone());
                Err(error)
            }
        }
    }

    /// Keeps the connection, or closes it if nobody is going to ask for it any more.
    fn made(&self, conn: Conn) -> Option<()> {
        let mut link = lock(&self.link);
        match &*link {
            Link::None | Link::Made(_) => {
                *link = Link::Made(conn);
                Some(())
            }
            Link::Forgotten => {
                drop(link);
                conn.close();
                None
            }
        }
    }
}

impl Failures {
    fn add(&mut self, error: ConnError) {
        let rest = REST_MIN.saturating_mul(1 << self.in_a_row.min(16)).min(REST_MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = Some(Failure { at: Instant::now(), rest, error });
    }

    /// The error of one who asked at `asked`, if no new dial is due: the last failure itself where it came
    /// after the question.
    fn stands(&self, asked: Instant) -> Option<ConnError> {
        let last = self.last.as_ref()?;
        if last.at >= asked {
            return Some(last.error.clone());
        }
        let retry_in = last.rest.saturating_sub(last.at.elapsed());
        (!retry_in.is_zero()).then(|| ConnError::BackedOff { retry_in, last: Box::new(last.error.clone()) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("limit", &self.limit).finish_non_exhaustive()
    }
}
