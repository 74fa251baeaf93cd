//! What a server must never do, judged from what it was told and what it answers: I6 and I20. The account of the
//! lease is its own, so that a mistake in the core's shows.

use std::collections::BTreeSet;

use dfs_chunkserver::core::io::{CallToken, Input, Reply};
use dfs_proto::control::{COMMAND_BATCH, HeartbeatReply};
use dfs_proto::ids::{ChunkId, Term};
use dfs_proto::units::Micros;

/// A lease as its server's own clock has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lease {
    /// When the heartbeat was sent that it answers.
    sent: Micros,
    until: Micros,
}

/// The account of one process.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    lease: Option<Lease>,
    /// The highest that it registered at.
    term: Term,
    /// Commands of a master of an older term.
    late: BTreeSet<CallToken>,
    /// Replicas deleted on a master's word since somebody looked.
    pub(super) trashed: Vec<ChunkId>,
    /// Replicas that its disk had failed when somebody looked last.
    pub(super) failed: u64,
}

impl Oracle {
    pub(super) fn registered(&mut self, term: Term) {
        self.term = self.term.max(term);
    }

    /// A heartbeat was answered. With a full batch of events the lease waits for the rest of them.
    pub(super) fn heartbeat(&mut self, reply: &HeartbeatReply, lease_ms: u64) {
        let newer = self.lease.is_none_or(|lease| lease.sent < reply.t_send);
        if reply.granted && newer && reply.events.len() < COMMAND_BATCH {
            let sent = reply.t_send;
            self.lease = Some(Lease { sent, until: sent.plus_ms(lease_ms) });
        }
    }

    /// When the heartbeat was sent by whose answer the server may serve now.
    pub(super) fn serves_by(&self, now: Micros) -> Option<Micros> {
        self.lease.filter(|lease| now < lease.until).map(|lease| lease.sent)
    }

    pub(super) fn asked(&mut self, call: CallToken, input: &Input) {
        let term = match input {
            Input::Apply { body, .. } => body.term,
            Input::Fence { body, .. } => body.term,
            Input::Reconcile { body, .. } => body.term,
            Input::AddLearner { body, .. } => body.term,
            Input::Zero { body, .. } => body.term,
            Input::Withdraw { body, .. } => body.term,
            Input::Delete { body, .. } => body.term,
            _ => return,
        };
        if term < self.term {
            self.late.insert(call);
        }
    }

    /// What is wrong with an answer.
    pub(super) fn answers(
        &mut self,
        now: Micros,
        call: CallToken,
        reply: &Reply,
    ) -> Option<(&'static str, String)> {
        let late = self.late.remove(&call);
        match reply {
            Reply::Failed(_) => None,
            _ if late => Some(("I20", format!("obeys a master of a term before {}: {reply:?}", self.term))),
            Reply::Written { chunk, .. } => self.served(now, *chunk),
            _ => None,
        }
    }

    /// What is wrong with bytes that leave, or with the acknowledgement of some.
    pub(super) fn served(&self, now: Micros, chunk: ChunkId) -> Option<(&'static str, String)> {
        let lease = self.lease;
        let over = self.serves_by(now).is_none();
        over.then(|| ("I6", format!("serves {chunk} at {now:?} by the lease {lease:?}")))
    }
}
