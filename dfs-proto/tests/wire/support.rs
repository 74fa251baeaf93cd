//! A served address and a handler that does what the request's words ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::conn::{
    Acceptor, Conn, Handler, Hello, Listener, PeerAddr, Responder, Role, RoleSet, Welcome,
};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::{BootId, ClusterId};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use tokio::task::JoinHandle;

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What [`Echo`] does with a request: the request's `word0`.
pub(crate) mod act {
    /// Sends meta and payload back.
    pub(crate) const ECHO: u64 = 0;
    /// Sends them back from another task.
    pub(crate) const ECHO_LATER: u64 = 1;
    /// Drops the responder.
    pub(crate) const DROP: u64 = 2;
    /// Never answers.
    pub(crate) const HOLD: u64 = 3;
    /// Closes the connection.
    pub(crate) const CLOSE: u64 = 4;
    /// Panics.
    pub(crate) const PANIC: u64 = 5;
    /// Answers with `word2` bytes of payload.
    pub(crate) const FILL: u64 = 6;
    /// Fails.
    pub(crate) const FAIL: u64 = 7;
}

#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) held: std::sync::Mutex<Vec<Responder>>,
    pub(crate) opened: std::sync::Mutex<Vec<Conn>>,
    pub(crate) closed: AtomicUsize,
    pub(crate) served: AtomicUsize,
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) blocked: AtomicUsize,
    pub(crate) unblocked: AtomicUsize,
}

impl Handler for Echo {
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let out = Outgoing::reply_to(&frame.header).with_words(frame.header.words);
        match frame.header.words.word0 {
            act::ECHO => reply.send(out.with_meta(frame.meta).with_payload(frame.payload)),
            act::ECHO_LATER => {
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    reply.send(out.with_meta(frame.meta).with_payload(frame.payload));
                });
            }
            act::DROP => drop(reply),
            act::HOLD => self.held.lock().unwrap().push(reply),
            act::CLOSE => conn.close(),
            act::PANIC => panic!("asked to"),
            act::FILL => {
                reply.send(out.with_payload(Bytes::from(vec![7; frame.header.words.word2 as usize])));
            }
            act::FAIL => reply.fail(Status::NotFound, "nothing here"),
            other => panic!("no such act: {other}"),
        }
    }

    fn opened(&self, conn: &Conn) {
        self.opened.lock().unwrap().push(conn.clone());
    }

    fn closed(&self, _conn: &Conn) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    fn count_sent(&self) -> Option<Arc<AtomicU64>> {
        Some(Arc::clone(&self.sent))
    }

    fn blocked(&self, _conn: &Conn) {
        self.blocked.fetch_add(1, Ordering::Relaxed);
    }

    fn unblocked(&self, _conn: &Conn) {
        self.unblocked.fetch_add(1, Ordering::Relaxed);
    }
}

impl Echo {
    /// How often a socket was full, and how often that was over.
    pub(crate) fn waits(&self) -> (usize, usize) {
        (self.blocked.load(Ordering::Relaxed), self.unblocked.load(Ordering::Relaxed))
    }
}

pub(crate) struct Served {
    pub(crate) addr: PeerAddr,
    pub(crate) echo: Arc<Echo>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome::new("server", CLUSTER, BootId(7))
}

pub(crate) fn hello() -> Hello {
    Hello::new(Role::Client, "client", Some(CLUSTER))
}

pub(crate) async fn serve_at(addr: &PeerAddr) -> Served {
    let listener = Listener::bind(addr).await.unwrap();
    let addr = listener.local_addr().clone();
    let echo = Arc::new(Echo::default());
    let roles = RoleSet::of(&[Role::Client, Role::ChunkServer]);
    let acceptor = Acceptor { welcome: welcome(), roles, handler: echo.clone() };
    Served { addr, echo, task: tokio::spawn(listener.serve(acceptor)) }
}

pub(crate) async fn serve() -> Served {
    serve_at(&"127.0.0.1:0".parse().unwrap()).await
}

impl Served {
    pub(crate) async fn dial_with(&self, handler: Arc<dyn Handler>) -> Conn {
        Conn::connect(&self.addr, hello(), handler, SOON).await.unwrap().0
    }

    pub(crate) async fn dial(&self) -> Conn {
        self.dial_with(Arc::new(Echo::default())).await
    }

    /// The server's end of the only connection.
    pub(crate) async fn their_end(&self) -> Conn {
        until(|| !self.echo.opened.lock().unwrap().is_empty()).await;
        self.echo.opened.lock().unwrap()[0].clone()
    }
}

/// A request that makes [`Echo`] do `act`.
pub(crate) fn ask(act: u64) -> Outgoing {
    Outgoing::new(Op::Read).with_words(Words { word0: act, ..Words::default() })
}

pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 10 s for nothing");
}
