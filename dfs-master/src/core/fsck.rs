//! Checks that an operator asked for: of the state, a slice a question, and of what servers have. They change
//! nothing, take no part in any decision, and work on hold too.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::{Holdings, Look};
use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::{FINDINGS_MAX, Finding, FindingKind, Fsck, FsckHeld, FsckPart, FsckServer};
use dfs_proto::status::Status;

use super::Core;
use super::check::{Checker, Held};
use super::contract::ConnId;
use super::reply::{Asked, COMMAND_DEADLINE_MS, Caller};
use super::state::State;

/// Entries looked at in one question: about two milliseconds in which nobody else is served.
const SLICE: usize = 4096;
/// Checks at a time: each counts every inode in memory of its own.
const CHECKS_MAX: usize = 4;

/// Checks under way, by the connection that asks. They end with it.
#[derive(Debug, Default)]
pub(super) struct Checks {
    table: BTreeMap<ConnId, Checker>,
}

impl Checks {
    pub(super) fn end_conn(&mut self, conn: ConnId) {
        self.table.remove(&conn);
    }
}

/// A server that was asked what it has.
#[derive(Clone, Debug)]
pub(super) struct Looking {
    caller: Caller,
    server: ServerNum,
    from: ChunkId,
    /// What it should have had then.
    before: State,
}

impl Core {
    pub(super) fn fsck(&mut self, caller: Caller, request: Fsck) -> Result<(), Status> {
        let checks = &mut self.soft.checks.table;
        if request.begin {
            if checks.len() >= CHECKS_MAX && !checks.contains_key(&caller.conn) {
                return Err(Status::Overloaded);
            }
            checks.insert(caller.conn, Checker::new(self.state.clone()));
        }
        let checker = checks.get_mut(&caller.conn).ok_or(Status::Invalid)?;
        let ended = checker.step(SLICE);
        let (mut found, more) = checker.take(FINDINGS_MAX);
        let part = FsckPart {
            index: checker.index(),
            done: ended && !checker.has_found(),
            more,
            looked: checker.looked(),
            found: Vec::new(),
        };
        if part.done {
            checks.remove(&caller.conn);
            found.extend(self.check_opens());
        }
        self.reply(caller, &FsckPart { found, ..part });
        Ok(())
    }

    /// What sessions have open, against the sessions and inodes that are there.
    fn check_opens(&self) -> Vec<Finding> {
        let mut gone = BTreeSet::new();
        for (session, ino) in self.soft.grants.opens() {
            if self.state.sessions.get(session).is_none() {
                gone.insert((session, ino, "the session has ended"));
            }
            if self.state.ns.getattr(ino).is_err() {
                gone.insert((session, ino, "the inode is gone"));
            }
        }
        let finding = |(session, ino, why)| Finding {
            kind: FindingKind::Session,
            object: format!("session {session}"),
            what: format!("has inode {ino} open, and {why}"),
        };
        gone.into_iter().take(FINDINGS_MAX).map(finding).collect()
    }

    pub(super) fn fsck_server(&mut self, caller: Caller, request: FsckServer) -> Result<(), Status> {
        let FsckServer { server, from } = request;
        if self.state.servers.get(server).is_none() {
            return Err(Status::NotFound);
        }
        let term = self.term();
        let looking = Looking { caller, server, from, before: self.state.clone() };
        let asked = Asked::Look(Box::new(looking));
        if self.call(server, &Look { term, from }, asked, COMMAND_DEADLINE_MS, self.state.applied) {
            Ok(())
        } else {
            Err(Status::Disconnected)
        }
    }

    /// A server has told what it has.
    pub(super) fn looked(&mut self, looking: &Looking, result: Result<Holdings, Status>) {
        let Looking { caller, server, from, before } = looking;
        let Holdings { replicas, next } = match result {
            Ok(holdings) => holdings,
            Err(status) => return self.fail(*caller, status),
        };
        let held = Held { server: *server, from: *from, to: next, replicas: &replicas };
        let now = held.compare(&self.state);
        // The answer is of some moment in between: what is wrong by both states was wrong by that one's.
        let then: BTreeSet<Finding> = held.compare(before).into_iter().collect();
        let found: Vec<Finding> =
            now.into_iter().filter(|finding| then.contains(finding)).take(FINDINGS_MAX).collect();
        self.reply(*caller, &FsckHeld { found, replicas: replicas.len() as u64, next });
    }
}
