//! The network of a running system: dfs connections over TCP and Unix sockets, and CLOCK_BOOTTIME.
//!
//! A chunk server under the same kernel is reached over its Unix socket when its path can be opened: it
//! is faster, and a refused connection there proves that the process is dead, which TCP never does.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dfs_proto::conn::{
    CallError, CallsOnly, Conn, ConnError, Handler, Hello, PeerAddr, Pool, Responder, Role,
};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::ids::{ClusterId, OsBootId, ServerNum};
use dfs_proto::meta::ServerAddr;
use dfs_proto::units::Micros;
use rustix::time::{ClockId, clock_gettime};

use crate::net::{LinkId, Net, NetError, Notice, Notices, Peer};

/// How the network is set up.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// `HOST:PORT` or `unix:PATH` of every master.
    pub masters: Vec<String>,
    /// Host name and mount point, for people.
    pub name: String,
    pub os_boot: OsBootId,
    /// Refuse masters of other clusters; `None` takes the first that answers, and from then on no other: its address
    /// may come to another cluster, whose files this mount's programs must not take for theirs.
    pub cluster: Option<ClusterId>,
    /// Whether chunk servers of this host may be reached over their Unix sockets.
    pub unix: bool,
    /// Longest wait for a connection.
    pub dial_timeout: Duration,
}

/// Clones share connections.
#[derive(Clone, Debug)]
pub struct TcpNet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: TcpConfig,
    /// Master links by number, until hung up or closed. Held for look-ups only.
    links: Mutex<BTreeMap<LinkId, Conn>>,
    next_master: AtomicUsize,
    /// The cluster of the first master that answered.
    found: OnceLock<ClusterId>,
    servers: Pool,
    /// Resolved addresses of chunk servers. Held for look-ups only.
    resolved: Mutex<BTreeMap<ServerNum, (String, Vec<PeerAddr>)>>,
}

impl TcpNet {
    #[must_use]
    pub fn new(config: TcpConfig) -> TcpNet {
        let hello = Hello::new(Role::Client, config.name.clone(), config.cluster);
        let servers = Pool::new(hello, Arc::new(CallsOnly), config.dial_timeout);
        TcpNet {
            inner: Arc::new(Inner {
                config,
                links: Mutex::default(),
                next_master: AtomicUsize::new(0),
                found: OnceLock::new(),
                servers,
                resolved: Mutex::default(),
            }),
        }
    }
}

impl Net for TcpNet {
    fn now(&self) -> Micros {
        let now = clock_gettime(ClockId::Boottime);
        // Neither is negative: the clock counts from the machine's start.
        let sec = u64::try_from(now.tv_sec).unwrap_or(0);
        let nsec = u64::try_from(now.tv_nsec).unwrap_or(0);
        Micros(sec * 1_000_000 + nsec / 1000)
    }

    async fn dial_master(&self, notices: Notices) -> Result<LinkId, NetError> {
        let inner = &self.inner;
        let masters = &inner.config.masters;
        let unreachable = NetError::Unreachable { dead: false };
        if masters.is_empty() {
            return Err(unreachable);
        }
        let turn = inner.next_master.fetch_add(1, Ordering::Relaxed) % masters.len();
        let addrs = resolve(&masters[turn]).await.map_err(|error| {
            log::warn!("master {}: {error}", masters[turn]);
            NetError::Unreachable { dead: false }
        })?;
        let mut last = unreachable;
        for addr in addrs {
            let cluster = inner.config.cluster.or_else(|| inner.found.get().copied());
            let hello = Hello::new(Role::Client, inner.config.name.clone(), cluster);
            let handler = Arc::new(MasterHandler { notices: notices.clone() });
            match Conn::connect(&addr, hello, handler, inner.config.dial_timeout).await {
                Ok((conn, welcome)) => {
                    // Who came first stays.
                    let _ = inner.found.set(welcome.cluster);
                    let link = LinkId(conn.id());
                    lock(&inner.links).insert(link, conn);
                    return Ok(link);
                }
                Err(error) => {
                    log::debug!("master: {error}");
                    last = dial_error(&error);
                }
            }
        }
        Err(last)
    }

    fn hang_up(&self, link: LinkId) {
        if let Some(conn) = lock(&self.inner.links).remove(&link) {
            conn.close();
        }
    }

    async fn call(&self, to: &Peer, out: Outgoing, deadline: Duration) -> Result<Frame, NetError> {
        let conn = match to {
            Peer::Master(link) => lock(&self.inner.links).get(link).cloned().ok_or(NetError::Closed)?,
            Peer::Server(addr) => self.inner.server(addr).await?,
        };
        conn.call_frame(out, deadline).await.map_err(call_error)
    }
}

impl Inner {
    async fn server(&self, addr: &ServerAddr) -> Result<Conn, NetError> {
        if let Some(path) = &addr.unix
            && self.config.unix
            && addr.os_boot == self.config.os_boot
        {
            let path = PeerAddr::Unix(path.into());
            match self.servers.get(&path).await {
                Ok(conn) => return Ok(conn),
                // Only this very dial proves anything: a refusal a moment ago may have been of the process
                // before the one that is meant now.
                Err(error) if error.proves_death() => return Err(NetError::Unreachable { dead: true }),
                // The path may be of another container, or not ours to open: TCP reaches it all the same.
                Err(error) => log::debug!("chunk server {}: {error}", addr.num),
            }
        }
        self.over_tcp(addr).await
    }

    async fn over_tcp(&self, addr: &ServerAddr) -> Result<Conn, NetError> {
        let known = lock(&self.resolved).get(&addr.num).filter(|known| known.0 == addr.tcp).cloned();
        let addrs = match known {
            Some((_, addrs)) => addrs,
            None => {
                let addrs = resolve(&addr.tcp).await.map_err(|_| NetError::Unreachable { dead: false })?;
                lock(&self.resolved).insert(addr.num, (addr.tcp.clone(), addrs.clone()));
                addrs
            }
        };
        let mut last = NetError::Unreachable { dead: false };
        for peer in addrs {
            match self.servers.get(&peer).await {
                Ok(conn) => return Ok(conn),
                Err(error) => {
                    log::debug!("chunk server {}: {error}", addr.num);
                    last = dial_error(&error);
                }
            }
        }
        Err(last)
    }
}

/// Hands what the master sends to the library.
struct MasterHandler {
    notices: Notices,
}

impl Handler for MasterHandler {
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder) {
        let op = frame.header.op;
        if self.notices.try_send(Notice::Frame(LinkId(conn.id()), frame)).is_err() {
            log::warn!("{op:?} from the master was dropped: too many are waiting");
        }
        drop(reply);
    }

    fn closed(&self, conn: &Conn) {
        // Dropped when full: the next call on the link finds out.
        let _ = self.notices.try_send(Notice::Closed(LinkId(conn.id())));
    }
}

/// The addresses of `HOST:PORT` or `unix:PATH`.
///
/// # Errors
/// As the resolver failed.
pub async fn resolve(text: &str) -> io::Result<Vec<PeerAddr>> {
    if let Ok(addr) = text.parse::<PeerAddr>() {
        return Ok(vec![addr]);
    }
    Ok(tokio::net::lookup_host(text).await?.map(PeerAddr::Tcp).collect())
}

fn dial_error(error: &ConnError) -> NetError {
    match error {
        ConnError::Handshake { status, detail, .. } => NetError::Status(*status, detail.clone()),
        ConnError::WrongCluster { .. } => {
            NetError::Status(dfs_proto::status::Status::WrongCluster, error.to_string())
        }
        other => NetError::Unreachable { dead: other.proves_death() },
    }
}

fn call_error(error: CallError) -> NetError {
    match error {
        CallError::Status(status, detail) => NetError::Status(status, detail),
        CallError::Deadline => NetError::Deadline,
        CallError::Closed => NetError::Closed,
        CallError::Connect(error) => dial_error(&error),
        CallError::Decode(_) | CallError::Encode(_) | CallError::TooLong(_) => NetError::Malformed,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
