//! HOLD: a chunk server has seen a newer history than this log has. Then the log was lost or rolled back, and
//! whatever the master did next could be wrong for good: ids would be given twice, files deleted that a later
//! record had kept. So it only answers questions, until its log is back or an operator accepts the loss (I20).
//!
//! The same when this state is not the one that the log's own numbers speak of (I25).

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::Register;
use dfs_proto::ids::{ChunkId, Generation, GrantId, Ino, LogIndex, ServerId, ServerNum, SessionId};
use dfs_proto::meta::{Grant, GrantKind, Opened, Recover, RecoverReport, ServerAhead};
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use super::Core;
use super::command::Command;
use super::contract::Effect;
use super::dispatch::Then;
use super::dispatch::open::OpenFlow;
use super::reply::Caller;

/// Session ids that no log gives out.
const LOOK_ONLY: u64 = 1 << 63;
/// Replicas of unknown chunks that are told apart.
const UNKNOWN_MAX: usize = 1 << 20;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    why: Option<String>,
    ahead: BTreeMap<ServerId, ServerAhead>,
    /// Replicas of chunks that neither a file nor a tombstone names (D4).
    unknown: BTreeSet<(ServerNum, ChunkId)>,
}

impl Hold {
    pub(super) fn stands(&self) -> bool {
        self.why.is_some()
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(super) fn unknown(&self) -> u64 {
        self.unknown.len() as u64
    }

    pub(super) fn set(&mut self, why: String) {
        if self.why.is_none() {
            log::error!(
                "on hold: {why}; put the newest copy of the master's directory back, or see `dfs recover`"
            );
            self.why = Some(why);
        }
    }

    /// A server was refused for having seen more.
    pub(super) fn ahead(&mut self, server: &Register, why: String) {
        self.set(format!("server {} {why}", server.name));
        let ahead = ServerAhead {
            name: server.name.clone(),
            why,
            generation: server.generation,
            term: server.max_term,
            index: server.max_meta_index,
            max_chunk: server.max_chunk,
            replicas: server.disks.iter().map(|disk| disk.replicas).sum(),
        };
        self.ahead.insert(server.server, ahead);
    }

    /// A replica that nobody knows stays where it is, and is counted.
    pub(super) fn left_alone(&mut self, server: ServerNum, chunk: ChunkId) {
        if self.unknown.len() < UNKNOWN_MAX && self.unknown.insert((server, chunk)) {
            log::warn!("{server} has chunk {chunk}, which no file and no tombstone names; it is left alone");
        }
    }

    fn newest_generation(&self) -> Option<Generation> {
        self.ahead.values().map(|server| server.generation).max()
    }
}

/// What of the log may be copied by servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copyable {
    pub generation: Generation,
    /// The last snapshot that was read back.
    pub snapshot: LogIndex,
}

impl Core {
    /// `None` on hold: a server's copy may be the better log, and must not follow this one.
    #[must_use]
    pub fn copyable(&self) -> Option<Copyable> {
        (!self.hold.stands()).then(|| Copyable { generation: self.generation(), snapshot: self.log.snapshot })
    }

    /// Raised by each acceptance of a loss; the high bits of every new chunk id.
    pub(super) fn generation(&self) -> Generation {
        self.state.cluster.map_or(self.config.generation, |cluster| cluster.generation)
    }

    /// Servers that came in before the new generation would go on counting its records as those of the one before, which
    /// mean nothing to it: a log that lost some would not be noticed.
    pub(super) fn register_anew(&mut self) {
        self.end_look_only_sessions();
        let conns: Vec<_> = self.soft.servers.iter().filter_map(|(_, live)| live.conn).collect();
        for conn in conns {
            self.disconnected(conn);
            self.effects.push(Effect::CloseConn { conn });
        }
    }

    /// Sessions that are in no log end with the hold that they were opened on.
    pub(super) fn end_look_only_sessions(&mut self) {
        let all: Vec<SessionId> = self.soft.sessions.iter().map(|(session, _)| session).collect();
        for session in all.into_iter().filter(|session| self.state.sessions.get(*session).is_none()) {
            self.soft.sessions.remove(session);
            for link in self.links.values_mut().filter(|link| link.session == Some(session)) {
                link.session = None;
            }
        }
    }

    /// A client that is to read on hold has a session that no record makes: the log is to stay as it is.
    pub(super) fn look_only_session(&mut self, caller: Caller) {
        let session = SessionId(LOOK_ONLY | caller.conn.0);
        if let Some(link) = self.links.get_mut(&caller.conn) {
            link.session = Some(session);
        }
        self.soft.sessions.opened(session, caller.conn, self.now.mono);
        let opened = self.opened(session);
        self.reply(caller, &opened);
    }

    /// On hold what is known may be old, so nobody is told but who asked to be; to all others it is as if no master were
    /// there.
    pub(super) fn check_hold(&self, caller: Caller) -> Result<(), Status> {
        let looks = self.links.get(&caller.conn).is_some_and(|link| link.recover);
        match caller.op {
            _ if !self.hold.stands() => Ok(()),
            Op::KeepAlive | Op::Release | Op::GrantBack | Op::Suspect => Ok(()),
            Op::Lookup
            | Op::Getattr
            | Op::Readlink
            | Op::Getxattr
            | Op::Listxattr
            | Op::Readdir
            | Op::Statfs
            | Op::Open
            | Op::MapRead
                if looks =>
            {
                Ok(())
            }
            _ => Err(Status::Hold),
        }
    }

    /// No grant: nothing is cached of what may be old.
    pub(super) fn open_to_look(&mut self, flow: &OpenFlow, ino: Ino) -> Result<(), Status> {
        if flow.writes() {
            return Err(Status::Hold);
        }
        let attr = self.state.ns.getattr(ino)?;
        self.state.ns.access(ino, flow.rights(), flow.by())?;
        self.reply(
            flow.caller(),
            &Opened { attr, grant: Grant { id: GrantId(0), kind: GrantKind::None }, first: None },
        );
        Ok(())
    }

    pub(super) fn hold_if_it_differs(&mut self) {
        if let Some(index) = self.state.trail.differs() {
            self.hold.set(format!(
                "up to record {index} the log came to another state before than now: this build takes a record \
                 differently, or memory is bad"
            ));
        }
    }

    pub(super) fn recover_report(&self) -> RecoverReport {
        RecoverReport {
            generation: self.generation(),
            hold: self.hold.why.clone(),
            last_index: self.raft.last(),
            ids_below: self.state.cluster.map_or(0, |cluster| cluster.ids_below),
            ahead: self.hold.ahead.values().cloned().collect(),
        }
    }

    pub(super) fn recover(&mut self, caller: Caller, request: Recover) -> Result<(), Status> {
        let Some(accepted) = request.accept else {
            let report = self.recover_report();
            self.reply(caller, &report);
            return Ok(());
        };
        // The operator says which log: not one that changed since the screen was read.
        if !self.hold.stands() || accepted != self.raft.last() {
            return Err(Status::Invalid);
        }
        let newest = self.hold.newest_generation().unwrap_or_default().max(self.generation());
        let generation = Generation(newest.0.checked_add(1).ok_or(Status::TooBig)?);
        let unknown = self.hold.unknown.clone();
        let was = std::mem::replace(&mut self.hold, Hold { unknown, ..Hold::default() });
        match self.propose(None, Command::NewGeneration { generation }, Then::Recovered(caller)) {
            Ok(index) => {
                log::warn!(
                    "an operator accepts the loss of what came after record {accepted}: generation {generation} from record {index}"
                );
                Ok(())
            }
            Err(status) => {
                self.hold = was;
                Err(status)
            }
        }
    }
}
