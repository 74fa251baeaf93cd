//! The one connection type: framed, multiplexed, the same at both ends.
//!
//! Either end may call and serve. [`Conn::connect`] and [`Listener::serve`] shake hands and start the
//! connection's tasks; [`Conn::call`] sends a request and waits for its reply; a [`Handler`] is given the
//! peer's requests, each with a [`Responder`] that must be used once. What the messages mean is not known
//! here. When a connection breaks, every waiting caller learns it at once; nothing is sent again.
//!
//! A connection lives until [`Conn::close`], until its peer closes it, or until it breaks; dropping the
//! last [`Conn`] does not end it, since its peer may still want to be served.

mod addr;
mod calls;
mod error;
mod flight;
mod handshake;
mod hello;
mod listen;
mod outbox;
mod pool;
mod reader;
mod responder;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

pub use addr::{BadPeerAddr, PeerAddr};
pub use error::{BindError, CallError, ConnError};
pub use flight::{in_flight, tell_more};
pub use handshake::{Acceptor, HANDSHAKE_MAX};
pub use hello::{FEATURES, Hello, Role, RoleSet, Welcome};
pub use listen::Listener;
pub use pool::Pool;
pub use responder::Responder;
pub use stream::Stream;

use crate::conn::calls::Calls;
use crate::conn::flight::{Entry, Serving};
use crate::conn::outbox::{Left, Outbox, Waiter};
use crate::conn::reader::Reader;
use crate::frame::wire::WireFrame;
use crate::frame::{Frame, Outgoing};
use crate::header::{CallId, Flags, Header, Words};
use crate::meta::Side;
use crate::request::{Op, Request};
use crate::status::Status;

/// Most requests of one peer that are served at once; more are answered with [`Status::Overloaded`].
pub const SERVING_MAX: usize = 1024;
/// Most bytes that they may hold together: 128 of the largest writes.
pub const SERVING_BYTES_MAX: usize = 160 << 20;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Serves the requests that arrive on a connection.
pub trait Handler: Send + Sync + 'static {
    /// Called for each request, in order of arrival, on the connection's reading task. It must not block;
    /// it answers at once or moves `reply` elsewhere.
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder);

    /// The handshake is done and requests will follow.
    fn opened(&self, _conn: &Conn) {}

    /// The connection is over; called once, after the last [`Handler::handle`].
    fn closed(&self, _conn: &Conn) {}

    /// Where the bytes that leave on the handler's connections are counted, as their sockets take them; asked for once
    /// a connection.
    fn count_sent(&self) -> Option<Arc<AtomicU64>> {
        None
    }

    /// What is to be sent waits: the socket takes no more for now. Each call is followed by one of
    /// [`Handler::unblocked`], also when the connection ends first. From a task of the connection.
    fn blocked(&self, _conn: &Conn) {}

    /// The socket has taken all that waited.
    fn unblocked(&self, _conn: &Conn) {}
}

/// A [`Handler`] for an end that only calls: every request is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallsOnly;

/// One end of a connection. Clones are the same connection.
#[derive(Clone)]
pub struct Conn {
    inner: Arc<Inner>,
}

/// What the clones of a [`Conn`] and its tasks share.
struct Inner {
    id: u64,
    peer: PeerInfo,
    outbox: Outbox,
    calls: Calls,
    /// Requests that arrived and are not answered.
    serving: AtomicUsize,
    /// Their bytes.
    serving_bytes: AtomicUsize,
    /// What they are.
    serving_now: Serving,
    closed: AtomicBool,
    over: Notify,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where it was reached, or called from.
    pub addr: PeerAddr,
    /// What it said about itself.
    pub said: PeerSaid,
}

/// What the peer said in the handshake.
#[derive(Clone, Debug)]
pub enum PeerSaid {
    /// It dialled us.
    Hello(Hello),
    /// We dialled it.
    Welcome(Welcome),
}

/// A successful reply.
#[derive(Clone, Debug)]
pub struct Reply<T> {
    /// The reply's header, with the operation's words and the server's load.
    pub header: Header,
    /// The decoded message.
    pub body: T,
    /// The reply's payload.
    pub payload: Bytes,
}

impl Conn {
    /// Dials, shakes hands within `limit`, and starts serving the peer's requests with `handler`.
    pub async fn connect(
        addr: &PeerAddr,
        hello: Hello,
        handler: Arc<dyn Handler>,
        limit: Duration,
    ) -> Result<(Conn, Welcome), ConnError> {
        let dialled = tokio::time::timeout(limit, handshake::dial(addr, &hello));
        let (shaken, welcome) =
            dialled.await.map_err(|_elapsed| ConnError::TimedOut { addr: addr.clone() })??;
        let peer = PeerInfo { addr: addr.clone(), said: PeerSaid::Welcome(welcome.clone()) };
        Ok((Conn::start(shaken, peer, handler), welcome))
    }

    /// Takes the listening side of the handshake on a stream that was just accepted.
    pub async fn accept(stream: Stream, acceptor: &Acceptor) -> Result<Conn, ConnError> {
        let addr = stream.peer_addr();
        let (shaken, hello) = handshake::receive(stream, &addr, acceptor).await?;
        let peer = PeerInfo { addr, said: PeerSaid::Hello(hello) };
        Ok(Conn::start(shaken, peer, Arc::clone(&acceptor.handler)))
    }

    fn start(shaken: handshake::Shaken, peer: PeerInfo, handler: Arc<dyn Handler>) -> Conn {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(Inner {
            id,
            peer,
            outbox: Outbox::new(id, shaken.write, handler.count_sent()),
            calls: Calls::new(),
            serving: AtomicUsize::new(0),
            serving_bytes: AtomicUsize::new(0),
            serving_now: Serving::default(),
            closed: AtomicBool::new(false),
            over: Notify::new(),
        });
        flight::enter(Arc::downgrade(&inner));
        let conn = Conn { inner };
        tokio::spawn(reader::flush(conn.clone(), Arc::clone(&handler)));
        tokio::spawn(reader::sweep(Arc::clone(&conn.inner)));
        let reader = Reader { conn: conn.clone(), read: shaken.read, decoder: shaken.decoder, handler };
        tokio::spawn(reader.run());
        conn
    }

    /// Sends a MessagePack request and waits for its reply, at most `deadline`.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<Reply<R::Reply>, CallError> {
        self.call_with(request, Words::default(), deadline).await
    }

    /// [`Conn::call`] with the operation's words in the request's header.
    pub async fn call_with<R: Request>(
        &self,
        request: &R,
        words: Words,
        deadline: Duration,
    ) -> Result<Reply<R::Reply>, CallError> {
        let out = Outgoing::request(request)?.with_words(words);
        let frame = self.call_frame(out, deadline).await?;
        let body = frame.decode()?;
        Ok(Reply { header: frame.header, body, payload: frame.payload })
    }

    /// Sends a request and waits for its reply, at most `deadline`; a reply other than `Ok` is an error.
    /// Waits before sending while much is queued. Dropping the future gives the call up.
    pub async fn call_frame(&self, out: Outgoing, deadline: Duration) -> Result<Frame, CallError> {
        let inner = &self.inner;
        let (began, until, deadline_ms) = calls::deadline_after(deadline);
        if inner.outbox.is_full(Waiter::Caller) {
            let room = tokio::time::timeout_at(until, inner.outbox.wait_room(Waiter::Caller));
            room.await.map_err(|_elapsed| CallError::Deadline)?;
        }
        let entry = Entry::new(out.op, &out.meta, began);
        let call = inner.calls.start(until, entry)?;
        inner.send(WireFrame::new(out, call.id, deadline_ms)?)?;
        let answer = call.reply().await;
        entry.over(Side::Calls, &inner.peer);
        let frame = answer?;
        let status = frame.header.status;
        if status == Status::Ok { Ok(frame) } else { Err(CallError::Status(status, frame.detail())) }
    }

    /// Sends a request that wants no reply. Never waits: [`Status::Overloaded`] when too much is queued.
    pub fn notify(&self, mut out: Outgoing) -> Result<(), CallError> {
        if !self.is_closed() && self.inner.outbox.is_full(Waiter::Caller) {
            return Err(CallError::Status(Status::Overloaded, "the peer does not keep up".into()));
        }
        out.flags = out.flags.with(Flags::ONE_WAY);
        self.inner.send(WireFrame::new(out, CallId::default(), 0)?)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.inner.peer
    }

    /// A number that no other connection of this process has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Ends the connection: callers at both ends learn it at once. What is queued and not yet written is
    /// dropped.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Returns once it is over.
    pub async fn wait_closed(&self) {
        let mut over = std::pin::pin!(self.inner.over.notified());
        over.as_mut().enable();
        if !self.is_closed() {
            over.await;
        }
    }
}

impl Inner {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.outbox.close();
            self.calls.close();
            self.over.notify_waiters();
        }
    }

    fn broken(&self, error: &std::io::Error) {
        log::debug!("{}: write: {error}", self.peer.addr);
        self.close();
    }

    fn send(&self, frame: WireFrame) -> Result<(), CallError> {
        if self.after(self.outbox.send(frame)) { Ok(()) } else { Err(CallError::Closed) }
    }

    /// Does what a send left to do. Whether the connection still stands.
    fn after(&self, left: Left) -> bool {
        match left {
            Left::Done => true,
            Left::Blocked => {
                self.outbox.wake_flusher();
                true
            }
            Left::Closed => false,
            Left::Broken(error) => {
                self.broken(&error);
                false
            }
        }
    }

    /// Sends a reply, or that it cannot be sent. On a closed connection nobody waits for either.
    fn send_reply(&self, op: Op, call: CallId, out: Outgoing) {
        let out = Outgoing { op, flags: out.flags.with(Flags::REPLY), ..out };
        let frame = WireFrame::new(out, call, 0).or_else(|error| {
            log::error!("{error}");
            WireFrame::new(Outgoing::failure(op, Status::Io, &error.to_string()), call, 0)
        });
        match frame {
            Ok(frame) => drop(self.send(frame)),
            Err(error) => log::error!("an error reply is too long: {error}"),
        }
    }

    /// Counts a request that arrived. Whether it may be served.
    fn start_serving(&self, bytes: usize) -> bool {
        let requests = self.serving.fetch_add(1, Ordering::Relaxed);
        let in_all = self.serving_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        requests < SERVING_MAX && in_all <= SERVING_BYTES_MAX
    }

    fn done_serving(&self, bytes: usize) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
        self.serving_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Handler for CallsOnly {
    fn handle(&self, _conn: &Conn, _frame: Frame, reply: Responder) {
        reply.fail(Status::NotSupported, "this end serves no requests");
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.inner.id).field("peer", &self.inner.peer).finish()
    }
}
