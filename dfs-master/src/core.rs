//! All decisions of the master: a state machine without I/O. It reads no clock, no randomness, no socket
//! and no file; [`Core::step`] turns an input and the time into effects, and the same inputs always give
//! the same effects.
//!
//! Two halves. [`state`] is what the log makes: names, chunks, sessions, servers; it changes only by
//! applying a record. [`soft`] is what this leader knows besides: who is alive, who has what open, what
//! is under way; it is lost with the process. A request is checked against the state, proposed as a
//! [`command`], applied when it is committed, and answered from what applying it gave.
//!
//! Reading order: [`contract`] and [`config`] (the border), [`command`] and [`state`] (the log), `pump`
//! (from a proposal to its effects), `dispatch` (requests), then the concerns, each in its file:
//! [`grants`], [`lease`], [`placement`], [`policy`], `recovery`, `read_only`, `repair`, `leave`, `drain`, `maintenance`, `balance`, `load`, `close`, `holes`, `truncate`, `gc`, `scan`, [`check`]
//! and `fsck`, `damage`, `paths` and [`rebuild`].

pub mod contract;
pub mod config;
pub mod command;
pub mod state;
pub mod image;
pub mod namespace;
pub mod ops;
pub mod table;
pub mod chunks;
pub mod tombstones;
pub mod sessions;
pub mod servers;
pub mod raft;
pub mod soft;
pub mod grants;
pub mod lease;
pub mod placement;
pub mod policy;
pub mod check;
pub mod rebuild;

mod start;
mod pump;
mod reply;
mod dispatch;
mod recovery;
mod read_only;
mod repair;
mod leave;
mod drain;
mod maintenance;
mod balance;
mod load;
mod goal;
mod close;
mod holes;
mod truncate;
mod unsettled;
mod watched;
mod paths;
mod gc;
mod hold;
mod scan;
mod scrub;
mod fsck;
mod damage;
mod reports;

use self::hold::Hold;
use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_proto::ids::{LogIndex, RequestId, ServerNum, SessionId, Term};
use dfs_proto::units::{MasterMs, Micros};

pub use config::{CoreConfig, MetadataSync, Recovered, RecoveredSnapshot, StartError};
pub use contract::{After, CallNum, ConnId, Effect, Input, Now, Peer, ReqId};
pub use hold::Copyable;
pub use load::{ChunkSeen, LoadSecond, Rest};

use pump::{LogProgress, Pending};
use raft::RaftNode;
use reply::Asked;
use soft::Soft;
use state::State;

/// The master's core.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    raft: RaftNode,
    state: State,
    log: LogProgress,
    /// Proposed and not applied.
    pending: BTreeMap<LogIndex, Pending>,
    /// Clients' mutations among them.
    inflight: BTreeMap<(SessionId, RequestId), LogIndex>,
    links: BTreeMap<ConnId, Link>,
    /// Calls that are not answered.
    calls: BTreeMap<CallNum, Asked>,
    last_call: CallNum,
    /// Requests that came while this node, which leads without doubt, was still taking over.
    early: Vec<Early>,
    /// This node leads, and has applied everything that was committed before.
    leading: bool,
    soft: Soft,
    /// Why nothing may change: a server knows a newer history.
    hold: Hold,
    /// When this process began: the zero of the master's clock.
    started: Micros,
    now: Now,
    effects: Vec<Effect>,
}

/// A connection, and what its peer turned out to be.
#[derive(Clone, Debug)]
struct Link {
    peer: Peer,
    session: Option<SessionId>,
    server: Option<ServerNum>,
    /// Its client reads on hold, too.
    recover: bool,
}

/// A request that waits for the leader's first record.
#[derive(Clone, Debug)]
struct Early {
    caller: reply::Caller,
    rid: RequestId,
    done: RequestId,
    body: Bytes,
}

/// Early requests kept: more than all servers and mounts of a cluster that come back together.
const EARLY_MAX: usize = 4096;

impl Core {
    /// Takes one input and appends what has to be done to `out`.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        // Inputs are stamped by several threads; time still never goes back in here.
        self.now = Now { mono: now.mono.max(self.now.mono), wall: now.wall };
        if !self.raft.leads() && self.raft.conf().is_sole_voter(self.config.node) {
            // Nobody else could; the others' votes need not be waited for.
            self.raft.campaign();
        }
        match input {
            Input::Connected { conn, peer } => {
                self.links.insert(conn, Link { peer, session: None, server: None, recover: false });
            }
            Input::Disconnected { conn } => self.disconnected(conn),
            Input::Request { conn, req, op, rid, done, body } => {
                let caller = reply::Caller::new(conn, req, op);
                if !self.leading && self.raft.leads() && self.early.len() < EARLY_MAX {
                    self.early.push(Early { caller, rid, done, body });
                } else {
                    self.request(caller, rid, done, &body);
                }
            }
            Input::Answer { call, result } => self.answered(call, result),
            Input::Persisted { number } => self.persisted(number),
            Input::Durable { index } => self.durable(index),
            Input::SnapshotDone { index, term } => self.snapshot_done(index, term),
            Input::SnapshotFailed { index } => self.snapshot_failed(index),
            Input::Tick => self.tick(),
        }
        self.pump();
        out.append(&mut self.effects);
    }

    /// The logged state, for tests and tools.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this node leads and serves.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Why the core is on hold, if it is.
    #[must_use]
    pub fn hold(&self) -> Option<&str> {
        self.hold.why()
    }

    fn term(&self) -> Term {
        self.raft.term()
    }

    /// The master's clock.
    fn clock(&self) -> MasterMs {
        MasterMs(self.now.mono.ms_since(self.started))
    }

    fn tick(&mut self) {
        self.raft.tick();
        if !self.leading {
            return;
        }
        self.expire_sessions();
        self.refresh_candidates();
        self.settle_lost_servers();
        self.maintenance_tick();
        self.scan_slice();
        self.recovery_tick();
        self.load_tick();
        self.repair_tick();
        self.balance_tick();
        self.leave_tick();
        self.close_tick();
        self.truncate_tick();
        self.scrub_tick();
        self.gc_tick();
        self.snapshot_tick();
    }

    fn disconnected(&mut self, conn: ConnId) {
        let Some(link) = self.links.remove(&conn) else { return };
        self.soft.watched.end_conn(conn);
        self.soft.checks.end_conn(conn);
        if let Some(session) = link.session
            && let Some(live) = self.soft.sessions.get_mut(session)
            && live.conn == Some(conn)
        {
            live.conn = None;
        }
        if let Some(server) = link.server
            && let Some(live) = self.soft.servers.get_mut(server)
            && live.conn == Some(conn)
        {
            live.conn = None;
            self.soft.scan.wake();
        }
    }
}
