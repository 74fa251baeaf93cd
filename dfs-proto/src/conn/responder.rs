//! The right, and the duty, to answer one request once.

use tokio::time::Instant;

use crate::conn::Conn;
use crate::conn::flight::Entry;
use crate::frame::{Frame, Outgoing};
use crate::header::{CallId, Flags};
use crate::meta::Side;
use crate::request::Op;
use crate::status::Status;

/// Answers one request, from any thread. Dropped without an answer it sends [`Status::Io`], so that no
/// caller waits for nothing. For a one-way request it sends nothing.
#[must_use]
#[derive(Debug)]
pub struct Responder {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    conn: Conn,
    op: Op,
    call: CallId,
    /// What the request counts as against the connection's bound on bytes being served.
    bytes: usize,
    one_way: bool,
    /// Its place in the connection's table.
    slot: usize,
}

impl Responder {
    pub(crate) fn new(conn: Conn, frame: &Frame, bytes: usize) -> Responder {
        let header = &frame.header;
        let slot = conn.inner.serving_now.begin(Entry::new(header.op, &frame.meta, Instant::now()));
        let one_way = header.flags.contains(Flags::ONE_WAY);
        Responder { open: Some(Open { conn, op: header.op, call: header.call, bytes, one_way, slot }) }
    }

    /// Sends the answer. It does not block: what the socket does not take now is queued. On a broken
    /// connection the answer is dropped.
    pub fn send(mut self, out: Outgoing) {
        if let Some(open) = self.open.take() {
            open.answer(out);
        }
    }

    /// Sends an error.
    pub fn fail(mut self, status: Status, detail: &str) {
        if let Some(open) = self.open.take() {
            let out = Outgoing::failure(open.op, status, detail);
            open.answer(out);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            if !open.one_way {
                log::warn!("{:?} from {} was dropped without an answer", open.op, open.conn.peer().addr);
            }
            let out = Outgoing::failure(open.op, Status::Io, "the request was dropped without an answer");
            open.answer(out);
        }
    }
}

impl Open {
    fn answer(self, out: Outgoing) {
        let inner = &self.conn.inner;
        inner.done_serving(self.bytes);
        if let Some(entry) = inner.serving_now.end(self.slot) {
            entry.over(Side::Serves, &inner.peer);
        }
        if !self.one_way {
            self.conn.inner.send_reply(self.op, self.call, out);
        }
    }
}
