//! This process as a tool of its own: it asks the core what `dfs` asks over the network, and is answered under the same
//! rules, that a report which rests on the log waits for the disk among them.

use std::sync::Arc;

use bytes::Bytes;
use dfs_master::core::{ConnId, Input, Peer};
use dfs_proto::conn::Role;
use dfs_proto::frame::Outgoing;
use dfs_proto::ids::RequestId;
use dfs_proto::request::Request;
use dfs_proto::status::Status;
use tokio::sync::oneshot;

use crate::driver::{Driver, Stats, Waiting};

/// No connection of the network has this number.
const CONN: ConnId = ConnId(0);

/// What a question came to.
type Answer = Result<Bytes, (Status, String)>;

/// Where the answer goes.
#[derive(Debug)]
pub(super) struct Tool(oneshot::Sender<Answer>);

impl Tool {
    pub(super) fn answer(self, out: Outgoing, detail: String) {
        let answer = if out.status == Status::Ok { Ok(out.meta) } else { Err((out.status, detail)) };
        // Whoever asked has given up.
        let _late = self.0.send(answer);
    }
}

impl Driver {
    /// Lets [`Driver::ask`] be used.
    pub(crate) fn open_tool(self: &Arc<Driver>) {
        let peer = Peer { role: Role::Tool, name: "admin port".to_owned(), server: None, boot: None };
        self.input(Input::Connected { conn: CONN, peer });
    }

    /// Asks what a tool may ask.
    ///
    /// # Errors
    /// What the master answers instead, in words.
    pub(crate) async fn ask<R: Request>(self: &Arc<Driver>, request: &R) -> Result<R::Reply, String> {
        if let Some(why) = self.failure() {
            return Err(why);
        }
        let body = Outgoing::request(request).map_err(|error| error.to_string())?.meta;
        let (tell, told) = oneshot::channel();
        {
            let mut inner = self.lock();
            let req = inner.number();
            inner.waiting.insert((CONN, req), Waiting::Here(Tool(tell)));
            let (rid, done) = (RequestId(0), RequestId(0));
            inner.inputs.push_back(Input::Request { conn: CONN, req, op: R::OP, rid, done, body });
            self.drive(&mut inner);
        }
        match told.await {
            Ok(Ok(body)) => rmp_serde::from_slice(&body).map_err(|error| error.to_string()),
            Ok(Err((Status::NotLeader, _))) => {
                Err("this master does not lead: it still takes over".to_owned())
            }
            Ok(Err((status, detail))) => Err(format!("{status}: {detail}").trim_end_matches(": ").to_owned()),
            Err(_dropped) => Err("the master stops".to_owned()),
        }
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Requests that are not answered.
    pub(crate) fn queue(&self) -> usize {
        self.lock().waiting.len()
    }
}
