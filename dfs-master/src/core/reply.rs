//! What leaves the core: replies with their header words, calls to peers, notifications.

use bytes::Bytes;
use dfs_proto::chunk::Member;
use dfs_proto::control::{Applied, Apply, HeartbeatReply, Settle, WithdrawChunk};
use dfs_proto::header::Words;
use dfs_proto::ids::{ChunkId, ChunkVersion, Ino, LogIndex, ServerNum, SizeEpoch};
use dfs_proto::meta::Attr;
use dfs_proto::planted;
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;
use serde::Serialize;

use super::Core;
use super::chunks::confirm::Incarnation;
use super::close::Opening;
use super::contract::{After, CallNum, ConnId, Effect, ReqId};
use super::fsck::Looking;
use super::recovery::Process;

/// Who waits for a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Caller {
    pub(super) conn: ConnId,
    pub(super) req: ReqId,
    pub(super) op: Op,
    /// Directories that the request changes, whose attributes go with the answer; 0 for none.
    pub(super) dirs: [Ino; 2],
}

impl Caller {
    pub(super) fn new(conn: ConnId, req: ReqId, op: Op) -> Caller {
        Caller { conn, req, op, dirs: [Ino(0); 2] }
    }
}

/// What a call that the core made was about.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Apply { server: ServerNum, incarnation: Incarnation },
    Fence { process: Process, chunks: Vec<(ChunkId, ChunkVersion)> },
    Reconcile { process: Process, chunk: ChunkId, version: ChunkVersion, settle: Settle },
    AddLearner { chunk: ChunkId, learner: Member },
    Delete { server: ServerNum, chunks: Vec<ChunkId> },
    Zero { ino: Ino, size_epoch: SizeEpoch },
    Close { server: ServerNum, chunks: Vec<(ChunkId, Opening)> },
    Withdraw { process: Process, chunks: Vec<WithdrawChunk> },
    StartScrub { server: ServerNum },
    Look(Box<Looking>),
    Examine { caller: Caller },
}

/// How long servers have for commands that read or write a lot, in milliseconds.
pub(super) const COMMAND_DEADLINE_MS: u32 = 10_000;
/// And for all others.
pub(super) const CALL_DEADLINE_MS: u32 = 5_000;

/// A message as it travels.
fn encode<T: Serialize>(message: &T) -> Bytes {
    // Fails only for types without a length and for maps with odd keys, of which messages have none.
    Bytes::from(rmp_serde::to_vec_named(message).expect("a message serialises"))
}

impl Core {
    /// What a reply that rests on `index` waits for, when it must not be taken back.
    pub(super) fn after_durable(&self, index: LogIndex) -> After {
        if index <= self.log.durable || planted!(ReplyBeforeDurable) {
            After::Now
        } else {
            After::Durable(index)
        }
    }

    fn words(&self, index: LogIndex, after: After) -> Words {
        let lag = match after {
            After::Now => index.0.saturating_sub(self.log.durable.0),
            After::Durable(_) => 0,
        };
        Words {
            word0: index.0,
            word1: self.clock().0,
            word2: low_half(self.term().0),
            word3: u32::try_from(lag).unwrap_or(u32::MAX),
        }
    }

    /// Answers a read, from the state as it is applied.
    pub(super) fn reply<T: Serialize>(&mut self, to: Caller, message: &T) {
        self.reply_at(to, message, self.state.applied, After::Now);
    }

    /// Answers what rests on the record at `index`.
    pub(super) fn reply_at<T: Serialize>(&mut self, to: Caller, message: &T, index: LogIndex, after: After) {
        let words = self.words(index, after);
        let Caller { conn, req, op, .. } = to;
        let (status, detail, body, dirs) = (Status::Ok, String::new(), encode(message), self.dirs_of(to));
        self.effects.push(Effect::Reply { conn, req, op, status, detail, body, dirs, words, after });
    }

    fn dirs_of(&self, to: Caller) -> Bytes {
        if to.dirs == [Ino(0); 2] {
            return Bytes::new();
        }
        let attrs: Vec<Attr> = to.dirs.iter().filter_map(|dir| self.state.ns.getattr(*dir).ok()).collect();
        encode(&attrs)
    }

    /// Refuses.
    pub(super) fn fail(&mut self, to: Caller, status: Status) {
        self.fail_with(to, status, status.text().to_owned());
    }

    /// Refuses, and tells people more.
    pub(super) fn fail_with(&mut self, to: Caller, status: Status, detail: String) {
        let after = After::Now;
        let words = self.words(self.state.applied, after);
        let Caller { conn, req, op, .. } = to;
        let (body, dirs) = (Bytes::new(), Bytes::new());
        self.effects.push(Effect::Reply { conn, req, op, status, detail, body, dirs, words, after });
    }

    /// Calls a server, once the log is durable up to `index`. False when it is out of reach.
    pub(super) fn call<R: Request>(
        &mut self,
        server: ServerNum,
        request: &R,
        asked: Asked,
        deadline_ms: u32,
        index: LogIndex,
    ) -> bool {
        let conn =
            self.soft.servers.get(server).filter(|live| live.is_reachable()).and_then(|live| live.conn);
        let Some(conn) = conn else { return false };
        self.last_call = CallNum(self.last_call.0 + 1);
        let call = self.last_call;
        self.calls.insert(call, asked);
        let (op, body, after) = (R::OP, encode(request), self.after_durable(index));
        self.effects.push(Effect::Call { conn, call, op, body, deadline_ms, after });
        true
    }

    pub(super) fn notify<R: Request>(&mut self, conn: ConnId, request: &R) {
        let (op, body, after) = (R::OP, encode(request), After::Now);
        self.effects.push(Effect::Notify { conn, op, body, after });
    }

    /// Hands an answer to whoever asked.
    pub(super) fn answered(&mut self, call: CallNum, result: Result<Bytes, Status>) {
        let Some(asked) = self.calls.remove(&call) else { return };
        if !self.leading {
            return;
        }
        match asked {
            Asked::Apply { server, incarnation } => {
                self.events_applied(server, incarnation, decode(result));
            }
            Asked::Fence { process, chunks } => self.fenced(process, &chunks, decode(result)),
            Asked::Reconcile { process, chunk, version, settle } => {
                self.reconciled(process, (chunk, version), settle, decode(result));
            }
            Asked::AddLearner { chunk, learner } => self.learner_taken(chunk, learner, decode(result)),
            Asked::Delete { server, chunks } => self.deleted(server, &chunks, decode(result)),
            Asked::Close { server, chunks } => self.closed(server, &chunks, decode(result)),
            Asked::Zero { ino, size_epoch } => self.zeroed(ino, size_epoch, decode(result)),
            Asked::Withdraw { process, chunks } => self.withdrew(process, &chunks, decode(result)),
            Asked::StartScrub { server } => self.scrub_ordered(server, decode(result)),
            Asked::Examine { caller } => self.examined(caller, decode(result)),
            Asked::Look(looking) => self.looked(&looking, decode(result)),
        }
    }

    /// Pushes events that servers have not been sent yet.
    pub(super) fn push_events(&mut self) {
        let term = self.term();
        let mut batches = Vec::new();
        for server in self.soft.servers.take_untold() {
            let live = self.soft.servers.get_mut(server).filter(|live| !live.pushing && live.is_reachable());
            let Some(live) = live else { continue };
            if let Some(batch) = live.events.to_push() {
                live.pushing = true;
                batches.push((server, live.incarnation, batch));
            }
        }
        for (server, incarnation, batch) in batches {
            let apply = Apply { term, events: batch.events };
            self.call(server, &apply, Asked::Apply { server, incarnation }, CALL_DEADLINE_MS, batch.index);
        }
    }

    fn events_applied(
        &mut self,
        server: ServerNum,
        incarnation: Incarnation,
        result: Result<Applied, Status>,
    ) {
        let Some(live) = self.soft.servers.get_mut(server) else { return };
        if live.incarnation != incarnation {
            // It has registered since, and counts from 1 again.
            return;
        }
        live.pushing = false;
        // What was not applied comes again with the next heartbeat's reply.
        if let Ok(answer) = result {
            live.events.applied(answer.applied);
            self.soft.servers.push_soon(server);
        }
    }

    /// Answers a heartbeat, when what it tells is durable.
    pub(super) fn reply_heartbeat(&mut self, to: Caller, reply: &HeartbeatReply, index: LogIndex) {
        let after = self.after_durable(index);
        self.reply_at(to, reply, index, after);
    }
}

/// The message of an answer.
fn decode<T: serde::de::DeserializeOwned>(result: Result<Bytes, Status>) -> Result<T, Status> {
    result.and_then(|bytes| rmp_serde::from_slice(&bytes).map_err(|_bad| Status::Malformed))
}

/// The low 32 bits.
pub(super) fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}
