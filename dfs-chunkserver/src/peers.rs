//! The other chunk servers: where they are, and one connection to each.
//!
//! Addresses come from the master. A server that this table does not know, or that does not answer where it
//! should be, has the table fetched again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::chunk::{
    AskMend, Committed, ForwardKind, ForwardMeta, ForwardSync, ForwardSyncChunk, Member, Synced,
    entries_from_bytes,
};
use dfs_proto::conn::{CallError, Conn, Handler, Hello, PeerAddr, Pool};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::{OsBootId, ServerNum};
use dfs_proto::meta::Servers;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use tokio::sync::Notify;

use crate::core::io::PeerAnswer;

/// How long a member may take for a FORWARD or a sync (the I/O deadline of one try).
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a learner may take to fetch a part from other members, while nobody waits for it.
const PULL_LIMIT: Duration = Duration::from_secs(30);
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// `word0` of a FORWARD_SYNC whose answer shall carry the chunk's digest in its first two words.
pub(crate) const WITH_DIGEST: u64 = 1;

/// The table and the connections.
#[derive(Debug)]
pub(crate) struct Peers {
    pool: Pool,
    os_boot: OsBootId,
    addrs: RwLock<BTreeMap<ServerNum, Addrs>>,
    /// Someone was not found.
    pub(crate) stale: Notify,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Addrs {
    /// Only for a process under the same kernel.
    unix: Option<PeerAddr>,
    tcp: Option<PeerAddr>,
}

/// A member's blocks, if what came is whole.
fn stock_of(frame: &Frame) -> PeerAnswer {
    match entries_from_bytes(&frame.meta, frame.payload.len()) {
        Some(entries) => PeerAnswer::Stock { entries, data: frame.payload.clone() },
        None => PeerAnswer::Refused(Status::Malformed),
    }
}

impl Peers {
    /// No peer is known yet.
    #[must_use]
    pub(crate) fn new(hello: Hello, handler: Arc<dyn Handler>, os_boot: OsBootId) -> Peers {
        let pool = Pool::new(hello, handler, DIAL_LIMIT);
        Peers { pool, os_boot, addrs: RwLock::default(), stale: Notify::new() }
    }

    /// Introduces itself so from the next dial on.
    pub(crate) fn set_hello(&self, hello: Hello) {
        self.pool.set_hello(hello);
    }

    /// Takes the master's table.
    pub(crate) fn set_servers(&self, servers: &Servers) {
        let table = servers.list.iter().map(|server| {
            let same_kernel = server.os_boot == self.os_boot;
            let unix = server.unix.as_ref().filter(|_| same_kernel);
            let addrs =
                Addrs { unix: unix.map(|path| PeerAddr::Unix(path.into())), tcp: server.tcp.parse().ok() };
            (server.num, addrs)
        });
        *self.addrs.write().unwrap_or_else(PoisonError::into_inner) = table.collect();
    }

    fn addrs(&self, server: ServerNum) -> Option<Addrs> {
        self.addrs.read().unwrap_or_else(PoisonError::into_inner).get(&server).cloned()
    }

    /// The connection that stands, without dialling.
    fn live(&self, server: ServerNum) -> Option<Conn> {
        let addrs = self.addrs(server)?;
        [addrs.unix, addrs.tcp].into_iter().flatten().find_map(|addr| self.pool.live(&addr))
    }

    /// A connection; the error says what a member's silence means.
    async fn conn(&self, server: ServerNum) -> Result<Conn, PeerAnswer> {
        if let Some(conn) = self.live(server) {
            return Ok(conn);
        }
        let found = self.dial(server).await;
        if found.is_err() {
            self.stale.notify_one();
        }
        found
    }

    async fn dial(&self, server: ServerNum) -> Result<Conn, PeerAnswer> {
        let addrs = self.addrs(server).ok_or(PeerAnswer::Silent)?;
        if let Some(unix) = &addrs.unix {
            match self.pool.get(unix).await {
                Ok(conn) => return Ok(conn),
                Err(error) if error.proves_death() => return Err(PeerAnswer::Dead),
                Err(error) => log::debug!("{error}"),
            }
        }
        let tcp = addrs.tcp.as_ref().ok_or(PeerAnswer::Silent)?;
        self.pool.get(tcp).await.map_err(|error| {
            log::debug!("{error}");
            PeerAnswer::Silent
        })
    }

    /// Sends a FORWARD and waits for its answer.
    pub(crate) async fn forward(&self, to: Member, meta: ForwardMeta, payload: Bytes) -> PeerAnswer {
        let words = Words {
            word0: meta.chunk.0,
            word1: dfs_proto::chunk::version_word(meta.version, meta.config),
            word2: meta.ranges.first().map_or(0, |range| range.offset),
            word3: 0,
        };
        let out = Outgoing::new(Op::Forward).with_words(words);
        let out = out.with_meta(Bytes::from(meta.to_bytes())).with_payload(payload);
        let limit = if meta.kind == ForwardKind::Pull { PULL_LIMIT } else { CALL_LIMIT };
        match self.call(to, out, limit).await {
            Ok(frame) if !frame.meta.is_empty() => stock_of(&frame),
            Ok(frame) if !frame.payload.is_empty() => PeerAnswer::Compared(frame.payload),
            Ok(_) => PeerAnswer::Ok,
            Err(answer) => answer,
        }
    }

    /// Has a member sync chunks.
    pub(crate) async fn sync(&self, to: Member, chunks: Vec<ForwardSyncChunk>, digest: bool) -> PeerAnswer {
        let Ok(out) = Outgoing::request(&ForwardSync { chunks }) else {
            return PeerAnswer::Refused(Status::Malformed);
        };
        let words = Words { word0: if digest { WITH_DIGEST } else { 0 }, ..Words::default() };
        let frame = match self.call(to, out.with_words(words), CALL_LIMIT).await {
            Ok(frame) => frame,
            Err(answer) => return answer,
        };
        match frame.decode::<Synced>() {
            Ok(Synced { results }) => {
                let Words { word0, word1, .. } = frame.header.words;
                let digest = digest.then_some(u128::from(word1) << 64 | u128::from(word0));
                PeerAnswer::Synced { results, digest }
            }
            Err(error) => {
                log::warn!("{error}");
                PeerAnswer::Refused(Status::Malformed)
            }
        }
    }

    async fn call(&self, to: Member, out: Outgoing, limit: Duration) -> Result<Frame, PeerAnswer> {
        let conn = self.conn(to.server).await?;
        conn.call_frame(out, limit).await.map_err(|error| match error {
            CallError::Status(status, _) => PeerAnswer::Refused(status),
            CallError::Deadline | CallError::Closed | CallError::Connect(_) => PeerAnswer::Silent,
            CallError::Decode(_) | CallError::Encode(_) | CallError::TooLong(_) => {
                PeerAnswer::Refused(Status::Malformed)
            }
        })
    }

    /// Tells a member what is committed, if a connection stands. A member that misses it learns with the
    /// next write.
    pub(crate) fn committed(&self, to: Member, message: Committed) {
        let Some(conn) = self.live(to.server) else { return };
        match Outgoing::request(&message) {
            Ok(out) => {
                if let Err(error) = conn.notify(out) {
                    log::debug!("commit to {}: {error}", to.server);
                }
            }
            Err(error) => log::error!("{error}"),
        }
    }

    /// Asks a primary for good blocks. What does not reach it is asked again.
    pub(crate) async fn ask_mend(&self, to: Member, ask: AskMend) {
        let Ok(conn) = self.conn(to.server).await else { return };
        match Outgoing::request(&ask).map(|out| conn.notify(out)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("ask of {}: {error}", to.server),
            Err(error) => log::error!("{error}"),
        }
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.pool.close_all();
    }
}
