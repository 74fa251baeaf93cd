//! The right, and the duty, to answer one request once.

use crate::conn::Conn;
use crate::frame::Outgoing;
use crate::header::{CallId, Flags};
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
}

impl Responder {
    pub(crate) fn new(conn: Conn, op: Op, call: CallId, flags: Flags, bytes: usize) -> Responder {
        let one_way = flags.contains(Flags::ONE_WAY);
        Responder { open: Some(Open { conn, op, call, bytes, one_way }) }
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
        self.conn.inner.done_serving(self.bytes);
        if !self.one_way {
            self.conn.inner.send_reply(self.op, self.call, out);
        }
    }
}
