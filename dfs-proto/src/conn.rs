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
mod handshake;
mod listen;
mod outbox;
mod pool;
mod reader;
mod responder;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use addr::{BadPeerAddr, PeerAddr};
pub use error::{BindError, CallError, ConnError};
pub use handshake::{Acceptor, FEATURES, Hello, Role, RoleSet, Welcome};
pub use listen::Listener;
pub use pool::Pool;
pub use responder::Responder;
pub use stream::Stream;

use crate::frame::{Frame, Outgoing};
use crate::header::{Header, Words};
use crate::request::Request;

/// Serves the requests that arrive on a connection.
pub trait Handler: Send + Sync + 'static {
    /// Called for each request, in order of arrival, on the connection's reading task. It must not block;
    /// it answers at once or moves `reply` elsewhere.
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder);

    /// The handshake is done and requests will follow.
    fn opened(&self, _conn: &Conn) {}

    /// The connection is over; called once, after the last [`Handler::handle`].
    fn closed(&self, _conn: &Conn) {}
}

/// A [`Handler`] for an end that only calls: every request is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallsOnly;

/// One end of a connection. Clones are the same connection.
#[derive(Clone)]
pub struct Conn {
    inner: Arc<Inner>,
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
        unimplemented!()
    }

    /// Takes the listening side of the handshake on a stream that was just accepted.
    pub async fn accept(stream: Stream, acceptor: &Acceptor) -> Result<Conn, ConnError> {
        unimplemented!()
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

    /// Sends a request and waits for its reply, at most `deadline`. Waits for room while much is queued.
    pub async fn call_frame(&self, out: Outgoing, deadline: Duration) -> Result<Frame, CallError> {
        unimplemented!()
    }

    /// Sends a request that wants no reply. Never waits: [`Status::Overloaded`](crate::status::Status)
    /// when too much is queued.
    pub fn notify(&self, out: Outgoing) -> Result<(), CallError> {
        unimplemented!()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        unimplemented!()
    }

    /// A number that no other connection of this process has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        unimplemented!()
    }

    /// Ends the connection: callers at both ends learn it at once.
    pub fn close(&self) {
        unimplemented!()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }

    /// Returns once it is over.
    pub async fn wait_closed(&self) {
        unimplemented!()
    }
}

struct Inner;
impl Inner {
    fn done_serving(&self, _: usize) {}
    fn send_reply(&self, _: crate::request::Op, _: crate::header::CallId, _: Outgoing) {}
}
impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("Conn") }
}
