//! A session's life: opened, taken up again, kept alive, closed, expired.

use dfs_proto::control::ServerEvent;
use dfs_proto::ids::{ChunkId, Ino, LogIndex, SessionId};
use dfs_proto::meta::Done;
use dfs_proto::meta::{
    Alive, CloseSession, EvictSession, Grant, GrantBack, GrantKind, KeepAlive, OpenSession, Release,
    ResumeSession, SessionOpened, SessionResumed,
};
use dfs_proto::status::Status;

use super::{Client, Then};
use crate::core::Core;
use crate::core::command::{Answer, Command, Unused};
use crate::core::reply::{Caller, low_half};

impl Core {
    pub(super) fn open_session(&mut self, caller: Caller, request: &OpenSession) -> Result<(), Status> {
        let OpenSession { name, os_boot, recover } = request.clone();
        if let Some(link) = self.links.get_mut(&caller.conn) {
            link.recover = recover;
        }
        if recover && self.hold.stands() {
            self.look_only_session(caller);
            return Ok(());
        }
        self.propose(None, Command::OpenSession { name, os_boot }, Then::OpenSession(caller))?;
        Ok(())
    }

    /// Answers once the record is on the disk: a session number that a power cut takes back could be
    /// given to another client.
    pub(super) fn session_opened(&mut self, caller: Caller, answer: &Answer, index: LogIndex) {
        let Answer::Session(session) = answer else { return self.fail(caller, Status::NoSession) };
        let Some(link) = self.links.get_mut(&caller.conn) else {
            // Nobody will ever use it.
            self.propose_own(Command::EndSession { session: *session });
            return;
        };
        link.session = Some(*session);
        self.soft.sessions.opened(*session, caller.conn, self.now.mono);
        let after = self.after_durable(index);
        self.reply_at(caller, &self.opened(*session), index, after);
    }

    pub(in crate::core) fn opened(&self, session: SessionId) -> SessionOpened {
        SessionOpened {
            session,
            cluster: self.config.cluster,
            generation: self.generation(),
            term: self.term(),
            chunk_size: self.state.ns.chunk_size(),
            goal: u8::try_from(self.state.goal()).unwrap_or(u8::MAX),
            lease_ms: self.config.session_lease_ms,
            server_lease_ms: self.config.server_lease_ms,
            servers: self.state.servers.directory(),
        }
    }

    pub(super) fn resume_session(&mut self, caller: Caller, request: ResumeSession) -> Result<(), Status> {
        let session = request.session;
        self.state.sessions.get(session).ok_or(Status::NoSession)?;
        let resumed = self.soft.sessions.resumed(session, caller.conn, self.now.mono);
        let first = resumed.ok_or(Status::NoSession)?;
        if let Some(link) = self.links.get_mut(&caller.conn) {
            (link.session, link.recover) = (Some(session), request.recover);
        }
        let grants = if first { self.claim(session, &request) } else { self.reclaim(session, &request) };
        let resumed = SessionResumed {
            term: self.term(),
            lease_ms: self.config.session_lease_ms,
            tail_lost: self.lost_tail(&request),
            grants,
            servers: self.state.servers.directory(),
        };
        self.reply(caller, &resumed);
        Ok(())
    }

    /// Takes up what a session held under the leader before.
    fn claim(&mut self, session: SessionId, request: &ResumeSession) -> Vec<(Ino, Grant)> {
        for open in &request.opens {
            // An inode that the log lost with its tail can't be open.
            if self.state.ns.getattr(open.ino).is_ok() {
                self.soft.grants.claim(open.ino, session, open.handle, open.write, open.grant);
            }
        }
        self.held_grants(session, request)
    }

    /// A session whose connection broke, with this leader all along: what the client names is open, what
    /// it does not name it has closed, and grants are as this leader knows them.
    fn reclaim(&mut self, session: SessionId, request: &ResumeSession) -> Vec<(Ino, Grant)> {
        for ino in self.soft.grants.keep_opens(session, &request.opens) {
            // What it said of their writes when it closed them was lost with the connection.
            self.unsettle(ino);
        }
        self.held_grants(session, request)
    }

    fn held_grants(&self, session: SessionId, request: &ResumeSession) -> Vec<(Ino, Grant)> {
        let mut inos: Vec<Ino> = request.opens.iter().map(|open| open.ino).collect();
        inos.sort_unstable();
        inos.dedup();
        let held = inos.into_iter().map(|ino| (ino, self.soft.grants.held(ino, session)));
        held.filter(|(_, grant)| grant.kind != GrantKind::None).collect()
    }

    /// Whether the client saw a record that this log does not have.
    fn lost_tail(&self, request: &ResumeSession) -> bool {
        let (term, index) = (request.seen_term, request.seen_index);
        // What the leader of that term had there is there still, unless a later one has put something else in its
        // place, whose term is higher. Of what a snapshot covers, only that the terms up to it are not higher.
        index > self.raft.last() || low_half(self.log.term_at(index).0) > low_half(term.0)
    }

    pub(super) fn close_session(&mut self, client: &Client, request: CloseSession) -> Result<(), Status> {
        let session = client.session;
        self.propose(None, Command::EndSession { session }, Then::CloseSession(client.caller))?;
        if let Some(live) = self.soft.sessions.get_mut(session) {
            (live.ending, live.settled) = (true, request.settled);
        }
        Ok(())
    }

    pub(super) fn keep_alive(&mut self, client: &Client, request: &KeepAlive) -> Result<(), Status> {
        let servers_changed = request.servers_epoch != self.state.servers.epoch();
        self.reply(client.caller, &Alive { servers_changed });
        Ok(())
    }

    pub(super) fn release(&mut self, client: &Client, request: &Release) -> Result<(), Status> {
        request.unsettled.iter().for_each(|ino| self.unsettle(*ino));
        for (ino, handle) in &request.handles {
            self.soft.grants.release(*ino, client.session, *handle);
        }
        self.reply(client.caller, &Done {});
        Ok(())
    }

    pub(super) fn grant_back(&mut self, client: &Client, request: &GrantBack) -> Result<(), Status> {
        request.unsettled.iter().for_each(|ino| self.unsettle(*ino));
        for (ino, grant) in &request.grants {
            self.soft.grants.give_back(*ino, client.session, *grant);
        }
        self.reply(client.caller, &Done {});
        Ok(())
    }

    /// A request of several records may outlive its session: what it would still be given, nobody would ever
    /// give back.
    ///
    /// # Errors
    /// `NoSession` when it has ended.
    pub(super) fn session_goes_on(&self, session: SessionId) -> Result<(), Status> {
        self.soft.sessions.get(session).map(|_| ()).ok_or(Status::NoSession)
    }

    /// An operator has a session end: it hears no answer from here on, so that its lease runs out.
    pub(super) fn evict_session(&mut self, caller: Caller, request: EvictSession) -> Result<(), Status> {
        let session = request.session;
        let live = self.soft.sessions.get_mut(session).ok_or(Status::NotFound)?;
        live.evicted = true;
        log::info!("session {session} is evicted by an operator, and ends with its lease");
        self.reply(caller, &Done {});
        Ok(())
    }

    /// Ends sessions whose lease has run out.
    pub(in crate::core) fn expire_sessions(&mut self) {
        for session in self.soft.sessions.expired(self.now.mono, self.config.session_lease_ms) {
            if self.state.sessions.get(session).is_none() {
                self.soft.sessions.remove(session);
                continue;
            }
            if !self.propose_own(Command::EndSession { session }) {
                return;
            }
            log::info!("session {session} was silent for its whole lease and ends");
            if let Some(live) = self.soft.sessions.get_mut(session) {
                live.ending = true;
            }
        }
    }

    /// A session's end is in the log: what it had ends with it.
    pub(in crate::core) fn session_ended(&mut self, index: LogIndex, session: SessionId) {
        let live = self.soft.sessions.remove(session);
        if !live.as_ref().is_some_and(|live| live.settled) {
            self.unsettle_all_of(session);
        }
        self.soft.grants.end_session(session);
        for link in self.links.values_mut().filter(|link| link.session == Some(session)) {
            link.session = None;
        }
        let servers: Vec<_> = self.soft.servers.iter().map(|(server, _)| server).collect();
        for server in servers {
            self.soft.servers.tell(server, index, ServerEvent::SessionEnded { session });
        }
        let fresh = live.map(|live| live.fresh).unwrap_or_default();
        let chunks: Vec<Unused> =
            fresh.into_values().filter(|unused| self.is_unused(unused, session)).collect();
        if !chunks.is_empty() {
            let dropping: Vec<ChunkId> = chunks.iter().map(|unused| unused.chunk).collect();
            if self.propose_own(Command::DropUnused { chunks }) {
                self.soft.dropping.extend(dropping);
            }
        }
    }

    /// Whether nobody can have put, or put later, bytes that count into an allocation.
    pub(super) fn is_unused(&self, unused: &Unused, session: SessionId) -> bool {
        !self.soft.seen.contains(unused.chunk.0)
            && !self.soft.grants.is_open_by_other_writer(unused.ino, session)
            // A write grant outlives the last close, and places are remembered under it.
            && !self.soft.grants.kinds(unused.ino).iter().any(|(holder, kind)| {
                *holder != session && *kind == GrantKind::Write
            })
            && self.state.ns.intent(unused.ino).is_none()
    }
}
