//! Frames to inputs, replies to frames. Who may ask what: clients and other chunk servers on the connections
//! that they dial, the master only on the one that this server dialled.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use dfs_proto::chunk::{
    AskMend, Committed, ForwardMeta, ForwardSync, Sync, Synced, WriteMeta, entries_to_bytes, written_words,
};
use dfs_proto::conn::{Conn, Handler, PeerAddr, PeerSaid, Responder, Role};
use dfs_proto::control::{
    AddLearner, Applied, Apply, Close, Delete, Deleted, Examine, Fence, Look, Reconcile, StartScrub,
    Withdraw, Zero,
};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::{Load, Words};
use dfs_proto::meta::Done;
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;

use crate::clock;
use crate::core::io::{CallToken, Input, Reply};
use crate::headers::network;
use crate::peers::WITH_DIGEST;
use crate::server::{OwedCall, Server};

/// Serves clients and other chunk servers.
#[derive(Debug)]
pub(crate) struct Public(pub(crate) Arc<Server>);

/// Serves the master, on the connection to it.
#[derive(Debug)]
pub(crate) struct FromMaster(pub(crate) Arc<Server>);

impl Handler for Public {
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder) {
        let from_server = match &conn.peer().said {
            PeerSaid::Hello(hello) => hello.role == Role::ChunkServer,
            PeerSaid::Welcome(_) => true,
        };
        match frame.header.op {
            Op::ListHeaders | Op::ListCopies | Op::ReadCopy => network::answer(&self.0, conn, &frame, reply),
            Op::Read => self.0.read(&frame, reply),
            Op::Write => self.write(frame, reply),
            Op::Sync => {
                self.message::<Sync>(&frame, reply, |call, body| Input::Sync { call, chunks: body.chunks })
            }
            Op::Forward | Op::ForwardSync | Op::Committed | Op::AskMend if !from_server => {
                reply.fail(Status::WrongRole, "only chunk servers forward");
            }
            Op::Forward => self.forward(frame, reply),
            Op::ForwardSync => {
                let digest = frame.header.words.word0 == WITH_DIGEST;
                self.message::<ForwardSync>(&frame, reply, |call, body| Input::ForwardSync {
                    call,
                    chunks: body.chunks,
                    digest,
                });
            }
            Op::Committed => match frame.decode::<Committed>() {
                Ok(body) => {
                    self.0.input(Input::Committed(body.chunks));
                    reply.send(Outgoing::reply(&frame.header, &Done {}));
                }
                Err(error) => reply.fail(Status::Malformed, &error.to_string()),
            },
            Op::AskMend => match frame.decode::<AskMend>() {
                Ok(ask) => {
                    self.0.input(Input::AskMend(ask));
                    reply.send(Outgoing::reply(&frame.header, &Done {}));
                }
                Err(error) => reply.fail(Status::Malformed, &error.to_string()),
            },
            _ => reply.fail(Status::WrongRole, "a chunk server does not serve this here"),
        }
    }

    fn count_sent(&self) -> Option<Arc<AtomicU64>> {
        Some(self.0.load.sent())
    }

    fn blocked(&self, conn: &Conn) {
        if is_read_over_network(conn) {
            self.0.load.socket_waits(true, clock::now);
        }
    }

    fn unblocked(&self, conn: &Conn) {
        if is_read_over_network(conn) {
            self.0.load.socket_waits(false, clock::now);
        }
    }
}

/// Whether what waits for this connection's socket are replies that wait for a network: not forwards, and not what a
/// mount on this host is slow to take.
fn is_read_over_network(conn: &Conn) -> bool {
    let peer = conn.peer();
    matches!(peer.said, PeerSaid::Hello(_)) && matches!(peer.addr, PeerAddr::Tcp(_))
}

impl Public {
    fn write(&self, frame: Frame, reply: Responder) {
        match WriteMeta::from_bytes(&frame.meta, frame.payload.len()) {
            Ok(meta) => {
                self.0.load.begin(frame.payload.len());
                let payload = frame.payload;
                self.0.request(reply, frame.header, |call| Input::Write { call, meta, payload });
            }
            Err(error) => reply.fail(Status::Malformed, &error.to_string()),
        }
    }

    fn forward(&self, frame: Frame, reply: Responder) {
        match ForwardMeta::from_bytes(&frame.meta, frame.payload.len()) {
            Ok(meta) => {
                self.0.load.begin(frame.payload.len());
                let payload = frame.payload;
                self.0.request(reply, frame.header, |call| Input::Forward { call, meta, payload });
            }
            Err(error) => reply.fail(Status::Malformed, &error.to_string()),
        }
    }

    fn message<R: Request>(
        &self,
        frame: &Frame,
        reply: Responder,
        input: impl FnOnce(CallToken, R) -> Input,
    ) {
        take_message(&self.0, frame, reply, input);
    }
}

impl Handler for FromMaster {
    fn handle(&self, _conn: &Conn, frame: Frame, reply: Responder) {
        let server = &self.0;
        match frame.header.op {
            Op::Apply => {
                take_message::<Apply>(server, &frame, reply, |call, body| Input::Apply { call, body })
            }
            Op::Fence => {
                take_message::<Fence>(server, &frame, reply, |call, body| Input::Fence { call, body })
            }
            Op::Reconcile => {
                take_message::<Reconcile>(server, &frame, reply, |call, body| Input::Reconcile {
                    call,
                    body,
                });
            }
            Op::AddLearner => {
                take_message::<AddLearner>(server, &frame, reply, |call, body| Input::AddLearner {
                    call,
                    body,
                });
            }
            Op::Zero => take_message::<Zero>(server, &frame, reply, |call, body| Input::Zero { call, body }),
            Op::Delete => {
                take_message::<Delete>(server, &frame, reply, |call, body| Input::Delete { call, body })
            }
            Op::Close => {
                take_message::<Close>(server, &frame, reply, |call, body| Input::Close { call, body })
            }
            Op::Withdraw => {
                take_message::<Withdraw>(server, &frame, reply, |call, body| Input::Withdraw { call, body })
            }
            Op::StartScrub => take_message::<StartScrub>(server, &frame, reply, |call, body| {
                Input::StartScrub { call, body }
            }),
            Op::Look => take_message::<Look>(server, &frame, reply, |call, body| Input::Look { call, body }),
            Op::Examine => {
                take_message::<Examine>(server, &frame, reply, |call, body| Input::Examine { call, body })
            }
            _ => reply.fail(Status::UnknownOp, "no command of a master to a chunk server"),
        }
    }
}

fn take_message<R: Request>(
    server: &Arc<Server>,
    frame: &Frame,
    reply: Responder,
    input: impl FnOnce(CallToken, R) -> Input,
) {
    match frame.decode::<R>() {
        Ok(body) => {
            server.load.begin(frame.meta.len());
            server.request(reply, frame.header, |call| input(call, body));
        }
        Err(error) => reply.fail(Status::Malformed, &error.to_string()),
    }
}

/// Answers a call as the core decided.
pub(crate) fn send_reply(call: OwedCall, reply: &Reply, load: Load) {
    let header = &call.header;
    let out = match reply {
        Reply::Failed(status) => Outgoing::error(header, *status, ""),
        Reply::Written { chunk, seq, cut } => {
            Outgoing::reply_to(header).with_words(written_words(*chunk, *seq, *cut))
        }
        Reply::Compared(bits) => Outgoing::reply_to(header).with_payload(bits.clone()),
        Reply::Stock { entries, data } => {
            let meta = Bytes::from(entries_to_bytes(entries));
            Outgoing::reply_to(header).with_meta(meta).with_payload(data.clone())
        }
        Reply::Done if header.op == Op::Forward => Outgoing::reply_to(header),
        Reply::Done => Outgoing::reply(header, &Done {}),
        Reply::Synced { results, digest } => {
            let out = Outgoing::reply(header, &Synced { results: results.clone() });
            match digest {
                Some(digest) => out.with_words(digest_words(*digest)),
                None => out,
            }
        }
        Reply::Applied { applied } => Outgoing::reply(header, &Applied { applied: *applied }),
        Reply::Fenced(body) => Outgoing::reply(header, body),
        Reply::Reconciled(body) => Outgoing::reply(header, body),
        Reply::Closed(body) => Outgoing::reply(header, body),
        Reply::Withdrawn(body) => Outgoing::reply(header, body),
        Reply::Deleted(results) => Outgoing::reply(header, &Deleted { results: results.clone() }),
        Reply::Held(body) => Outgoing::reply(header, body),
        Reply::Examined(body) => Outgoing::reply(header, body),
    };
    call.reply.send(out.with_load(load));
}

/// A digest in the first two words, low half first.
fn digest_words(digest: u128) -> Words {
    let low = digest & u128::from(u64::MAX);
    Words {
        word0: u64::try_from(low).unwrap_or(0),
        word1: u64::try_from(digest >> 64).unwrap_or(0),
        ..Words::default()
    }
}
