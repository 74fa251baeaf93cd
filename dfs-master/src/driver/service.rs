//! The connections' side of the driver: frames become inputs.

use std::sync::Arc;

use dfs_master::core::{ConnId, Input, Peer};
use dfs_proto::conn::{Conn, Handler, PeerSaid, Responder};
use dfs_proto::frame::Frame;
use dfs_proto::ids::RequestId;
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use crate::driver::Driver;

/// Serves every connection of the master.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) driver: Arc<Driver>,
}

impl Handler for Service {
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder) {
        if frame.header.op == Op::Ops {
            // Before the log's failure: what hangs then is worth knowing.
            self.driver.ops_request(&frame, reply);
            return;
        }
        if self.driver.failure().is_some() {
            reply.fail(Status::Io, "the master's log failed");
            return;
        }
        if matches!(frame.header.op, Op::ListLog | Op::ReadLog) {
            self.driver.copy_request(conn, &frame, reply);
            return;
        }
        let words = frame.header.words;
        let id = ConnId(conn.id());
        let op = frame.header.op;
        self.driver.request(id, (op, reply), |req| Input::Request {
            conn: id,
            req,
            op,
            rid: RequestId(words.word0),
            done: RequestId(words.word1),
            body: frame.meta,
        });
    }

    fn opened(&self, conn: &Conn) {
        let PeerSaid::Hello(hello) = &conn.peer().said else { return };
        let peer =
            Peer { role: hello.role, name: hello.name.clone(), server: hello.server, boot: hello.boot };
        let id = ConnId(conn.id());
        self.driver.lock().conns.insert(id, conn.clone());
        self.driver.input(Input::Connected { conn: id, peer });
    }

    fn closed(&self, conn: &Conn) {
        let id = ConnId(conn.id());
        {
            let mut inner = self.driver.lock();
            inner.conns.remove(&id);
            inner.waiting.retain(|(of, _), _| *of != id);
        }
        self.driver.input(Input::Disconnected { conn: id });
    }
}
