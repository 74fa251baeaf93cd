//! The tasks of a connection: the reader, which takes frames in and hands them on, the flusher, which
//! writes what a full socket left over, and the sweeper, which ends overdue calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until, timeout};

use crate::conn::calls::Sweep;
use crate::conn::flight::in_flight;
use crate::conn::outbox::{Cork, Left, Waiter};
use crate::conn::stream::ReadHalf;
use crate::conn::{Conn, Handler, Inner, Responder};
use crate::frame::{Decoder, Frame, Outgoing};
use crate::header::{CallId, Flags, FrameError};
use crate::request::Op;
use crate::status::Status;

/// A peer that takes no byte for so long is gone, or waits for us as we wait for it.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a refused peer has to read why, before the socket is closed under it.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a refused peer that are read and thrown away, so that closing does not reset the connection
/// before the peer has read why.
const LINGER_BYTES: usize = 4 << 20;

/// The reading task's own state.
pub(crate) struct Reader {
    pub(crate) conn: Conn,
    pub(crate) read: ReadHalf,
    pub(crate) decoder: Decoder,
    pub(crate) handler: Arc<dyn Handler>,
}

/// How far the reader got with what it had read.
#[derive(PartialEq, Eq)]
enum Taken {
    /// The next frame is not whole yet.
    All,
    /// The peer has to take replies first.
    UntilFull,
}

/// Ends the connection however the reader ends: by return, panic of a handler, or end of the runtime.
struct Over {
    conn: Conn,
    handler: Arc<dyn Handler>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.conn.close();
        self.handler.closed(&self.conn);
    }
}

impl Reader {
    pub(crate) async fn run(mut self) {
        let over = Over { conn: self.conn.clone(), handler: Arc::clone(&self.handler) };
        self.handler.opened(&self.conn);
        if let Err(error) = self.read_all().await {
            log::info!("{}: {error}", self.conn.peer().addr);
            self.refuse(&error).await;
        }
        drop(over);
    }

    /// Until the stream ends or breaks. An error is the peer's, and it should be told.
    async fn read_all(&mut self) -> Result<(), FrameError> {
        loop {
            while self.take_frames()? == Taken::UntilFull {
                self.conn.inner.outbox.wait_room(Waiter::Reader).await;
            }
            match self.read.read_buf(&mut self.decoder.space()).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    log::debug!("{}: read: {error}", self.conn.peer().addr);
                    return Ok(());
                }
            }
        }
    }

    /// Hands on the whole frames that are here. What is answered meanwhile leaves together at the end.
    fn take_frames(&mut self) -> Result<Taken, FrameError> {
        let inner = Arc::clone(&self.conn.inner);
        let cork = Cork::new(inner.id);
        let result = loop {
            // One read may hold a thousand requests for a megabyte each: asking once a read is too late.
            if inner.outbox.is_full(Waiter::Reader) && !inner.is_closed() {
                break Ok(Taken::UntilFull);
            }
            match self.decoder.next_frame() {
                Ok(Some(frame)) => self.take(frame),
                Ok(None) => break Ok(Taken::All),
                Err(error) => break Err(error),
            }
        };
        drop(cork);
        inner.after(inner.outbox.flush());
        result
    }

    fn take(&self, frame: Frame) {
        let header = &frame.header;
        if header.flags.contains(Flags::CLOSING) {
            log::info!("{} closes: {}: {:?}", self.conn.peer().addr, header.status, frame.detail());
            self.conn.close();
        } else if header.is_reply() {
            self.conn.inner.calls.complete(frame);
        } else {
            self.serve(frame);
        }
    }

    fn serve(&self, frame: Frame) {
        let header = &frame.header;
        let bytes = frame.meta.len() + frame.payload.len();
        let admitted = self.conn.inner.start_serving(bytes);
        let reply = Responder::new(self.conn.clone(), &frame, bytes);
        if !admitted {
            reply.fail(Status::Overloaded, "too many requests in flight on this connection");
        } else if header.op == Op::Hello {
            reply.fail(Status::Malformed, "the handshake is done");
        } else if header.op == Op::Ping {
            reply.send(Outgoing::reply_to(header));
        } else if header.op == Op::InFlight {
            match frame.decode() {
                Ok(asked) => reply.send(Outgoing::reply(header, &in_flight(&asked))),
                Err(error) => reply.fail(Status::Malformed, &error.to_string()),
            }
        } else {
            self.handler.handle(&self.conn, frame, reply);
        }
    }

    /// Tells the peer what was wrong with its bytes, and gives it time to read that.
    async fn refuse(&mut self, error: &FrameError) {
        let mut out = Outgoing::failure(Op::Hello, error.status(), &error.to_string());
        out.flags = out.flags.with(Flags::CLOSING);
        self.conn.inner.send_reply(Op::Hello, CallId::default(), out);
        self.conn.inner.after(self.conn.inner.outbox.end());
        linger(&mut self.read).await;
    }
}

/// Reads and throws away until the peer closes, but not for long.
pub(super) async fn linger(read: &mut ReadHalf) {
    let drain = async {
        let mut sink = [0u8; 16 << 10];
        let mut left = LINGER_BYTES;
        while let Ok(n @ 1..) = read.read(&mut sink).await {
            left = left.saturating_sub(n);
            if left == 0 {
                break;
            }
        }
    };
    // Either way the socket is closed now.
    drop(timeout(LINGER, drain).await);
}

/// A time in which bytes wait for the socket, told to the handler when it begins and however it ends.
struct Blocked<'a> {
    conn: &'a Conn,
    handler: &'a dyn Handler,
}

impl<'a> Blocked<'a> {
    fn new(conn: &'a Conn, handler: &'a dyn Handler) -> Blocked<'a> {
        handler.blocked(conn);
        Blocked { conn, handler }
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.handler.unblocked(self.conn);
    }
}

/// Writes what a full socket left over. A peer that takes nothing for [`STALL_MAX`] loses its connection.
pub(crate) async fn flush(conn: Conn, handler: Arc<dyn Handler>) {
    let inner = &conn.inner;
    loop {
        inner.outbox.flusher_wanted().await;
        let _blocked = Blocked::new(&conn, &*handler);
        loop {
            if inner.is_closed() {
                return;
            }
            match timeout(STALL_MAX, inner.outbox.writable()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return inner.broken(&error),
                Err(_elapsed) => {
                    log::warn!("{}: took nothing for {STALL_MAX:?}", inner.peer.addr);
                    return inner.close();
                }
            }
            match inner.outbox.resume() {
                Left::Done => break,
                Left::Blocked => {}
                Left::Closed => return,
                Left::Broken(error) => return inner.broken(&error),
            }
        }
    }
}

/// Ends overdue calls until the connection is closed.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        match inner.calls.sweep(Instant::now()) {
            Sweep::Over => return,
            Sweep::Idle => inner.calls.sweep_wanted().await,
            Sweep::At(next) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = inner.calls.sweep_wanted() => {}
                }
            }
        }
    }
}
