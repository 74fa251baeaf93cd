//! The session: opening it, taking it up again on a new link, keeping it alive, and losing it.
//!
//! One task owns the link; whoever needs it waits on [`View`]. A session that the master ended is an
//! *incarnation* of the past: every inode that was open belongs to it and is dead, and what it had
//! buffered is lost and reported.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use dfs_proto::frame::Outgoing;
use dfs_proto::header::Header;
use dfs_proto::ids::{Handle, LogIndex, RequestId, SessionId, Term};
use dfs_proto::meta::{
    CloseSession, GetServers, KeepAlive, OpenClaim, OpenSession, ResumeSession, SessionOpened, SessionResumed,
};
use dfs_proto::request::Request;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkSize, MasterMs, Micros};
use tokio::sync::Notify;

use crate::core::clock::{MasterClock, Stamp, lease_until};
use crate::core::requests::RequestIds;
use crate::core::retry::Backoff;
use crate::net::{LinkId, Net, NetError, Notices, Peer};
use crate::shared::{Shared, lock};
use crate::view::{View, Watched};

/// How long a probe may take before the link counts as dead: far above a loaded master's answer, well
/// below the session's lease.
const PROBE: Duration = Duration::from_secs(3);
/// Mutations that may lie above the lowest unanswered one: the master keeps 1024 answers a session.
const REQUESTS_MAX: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
    pub(crate) view: Watched,
    /// The link went down, or is suspected.
    wake: Notify,
    answered: Notify,
}

#[derive(Debug)]
struct State {
    id: SessionId,
    clock: MasterClock,
    lease_until: Micros,
    last_sent: Micros,
    facts: Facts,
    term: Term,
    seen: LogIndex,
    durable: LogIndex,
    requests: RequestIds,
    next_handle: u64,
    /// Operation ids of chunks whose counters were forgotten lie at or below this.
    op_floor: u64,
    suspected: bool,
}

/// What the master told when the session was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) chunk_size: ChunkSize,
    pub(crate) lease_ms: u64,
    pub(crate) server_lease_ms: u64,
}

impl Session {
    /// As the master numbers it.
    pub(crate) fn id(&self) -> SessionId {
        lock(&self.state).id
    }

    pub(crate) fn new() -> Session {
        let facts = Facts { chunk_size: ChunkSize::DEFAULT, lease_ms: 0, server_lease_ms: 0 };
        let state = State {
            id: SessionId(0),
            clock: MasterClock::default(),
            lease_until: Micros(0),
            last_sent: Micros(0),
            facts,
            term: Term(0),
            seen: LogIndex(0),
            durable: LogIndex(0),
            requests: RequestIds::default(),
            next_handle: 0,
            op_floor: 0,
            suspected: false,
        };
        let view = Watched::new(View { link: None, incarnation: 0, closed: false });
        Session { state: Mutex::new(state), view, wake: Notify::new(), answered: Notify::new() }
    }

    pub(crate) fn facts(&self) -> Facts {
        lock(&self.state).facts
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.view.get().incarnation
    }

    pub(crate) fn handle(&self) -> Handle {
        let mut state = lock(&self.state);
        state.next_handle += 1;
        Handle(state.next_handle)
    }

    /// What is left of the session's lease; zero when it may be over.
    pub(crate) fn lease_left(&self, now: Micros) -> Duration {
        Duration::from_micros(lock(&self.state).lease_until.0.saturating_sub(now.0))
    }

    /// Whether an answer came to a question asked within this time.
    pub(crate) fn heard_within(&self, now: Micros, limit: Duration) -> bool {
        let since = now.0.saturating_sub(lock(&self.state).last_sent.0);
        Duration::from_micros(since) < limit
    }

    /// Upper bound of the master's clock.
    pub(crate) fn master_now(&self, now: Micros) -> Option<MasterMs> {
        lock(&self.state).clock.upper(now)
    }

    pub(crate) fn stamp(&self, term: u32, granted: MasterMs, now: Micros) -> Stamp {
        let state = lock(&self.state);
        state.clock.stamp(term, granted, state.facts.server_lease_ms, now)
    }

    pub(crate) fn op_floor(&self) -> u64 {
        lock(&self.state).op_floor
    }

    pub(crate) fn raise_op_floor(&self, used: u64) {
        let mut state = lock(&self.state);
        state.op_floor = state.op_floor.max(used);
    }

    /// The highest log index that an answer rested on, and the highest known to be on disk.
    pub(crate) fn log_seen(&self) -> (LogIndex, LogIndex) {
        let state = lock(&self.state);
        (state.seen, state.durable)
    }

    /// Learns from a reply to a request sent at `sent`.
    pub(crate) fn heard(&self, header: &Header, sent: Micros) {
        let words = header.words;
        let mut state = lock(&self.state);
        state.clock.observe(words.word2, MasterMs(words.word1), sent);
        state.lease_until = state.lease_until.max(lease_until(sent, state.facts.lease_ms));
        state.last_sent = state.last_sent.max(sent);
        let high = state.term.0 >> 32 << 32;
        state.term = state.term.max(Term(high | u64::from(words.word2)));
        state.seen = state.seen.max(LogIndex(words.word0));
        let durable = LogIndex(words.word0.saturating_sub(u64::from(words.word3)));
        state.durable = state.durable.max(durable);
    }

    pub(crate) async fn take_request_id(&self) -> Ticket<'_> {
        loop {
            let mut freed = std::pin::pin!(self.answered.notified());
            freed.as_mut().enable();
            {
                let mut state = lock(&self.state);
                let lowest = state.requests.lowest_unanswered().0;
                if state.requests.next().0 < lowest + REQUESTS_MAX {
                    return Ticket { session: self, id: state.requests.take() };
                }
            }
            freed.await;
        }
    }

    pub(crate) fn lowest_unanswered(&self) -> RequestId {
        lock(&self.state).requests.lowest_unanswered()
    }

    /// The link is of no use any more.
    pub(crate) fn link_down(&self, link: LinkId) -> bool {
        let mut was = false;
        self.view.modify(|view| {
            was = view.link == Some(link);
            if was {
                view.link = None;
            }
        });
        if was {
            self.wake.notify_one();
        }
        was
    }

    /// The link did not bring an answer: look whether it is alive.
    pub(crate) fn suspect_link(&self) {
        lock(&self.state).suspected = true;
        self.wake.notify_one();
    }

    pub(crate) fn close(&self) {
        self.view.modify(|view| view.closed = true);
        self.wake.notify_one();
    }

    fn opened(&self, opened: &SessionOpened, sent: Micros) {
        let mut state = lock(&self.state);
        state.id = opened.session;
        state.facts = Facts {
            chunk_size: opened.chunk_size,
            lease_ms: opened.lease_ms,
            server_lease_ms: opened.server_lease_ms,
        };
        state.term = opened.term;
        state.lease_until = lease_until(sent, opened.lease_ms);
        // Another master may count from another zero, and a new session has seen nothing.
        state.seen = LogIndex(0);
        state.durable = LogIndex(0);
        state.op_floor = 0;
    }

    fn resumed(&self, resumed: &SessionResumed, sent: Micros) -> bool {
        let mut state = lock(&self.state);
        let new_term = state.term != resumed.term;
        state.term = state.term.max(resumed.term);
        state.facts.lease_ms = resumed.lease_ms;
        state.lease_until = state.lease_until.max(lease_until(sent, resumed.lease_ms));
        if resumed.tail_lost {
            state.seen = LogIndex(0);
            state.durable = LogIndex(0);
        }
        new_term
    }
}

/// A mutation's id, unanswered until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    session: &'a Session,
    pub(crate) id: RequestId,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(&self.session.state).requests.answered(self.id);
        self.session.answered.notify_waiters();
    }
}

impl<N: Net> Shared<N> {
    /// The first session, on a first link.
    pub(crate) async fn first_session(&self, notices: Notices) -> Result<(), NetError> {
        let link = self.net.dial_master(notices).await?;
        let opened = self.open_session(link).await;
        if opened.is_err() {
            self.net.hang_up(link);
        }
        opened
    }

    /// Keeps the session until the client is shut down.
    pub(crate) async fn keep_session(self: Arc<Self>, notices: Notices) {
        loop {
            let View { link, closed, .. } = self.session.view.get();
            if closed {
                return;
            }
            let Some(link) = link else {
                self.new_link(&notices).await;
                continue;
            };
            let suspected = std::mem::take(&mut lock(&self.session.state).suspected);
            let keepalive = self.keepalive();
            if suspected || self.silent_for() >= keepalive {
                self.probe(link).await;
                continue;
            }
            let idle = keepalive.saturating_sub(self.silent_for());
            tokio::select! {
                biased;
                () = self.session.wake.notified() => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
    }

    /// After so much silence the master is asked something: a lease lives through two of these that were lost.
    fn keepalive(&self) -> Duration {
        let lease = Duration::from_millis(self.session.facts().lease_ms);
        self.config.keepalive.min(lease / 3)
    }

    fn silent_for(&self) -> Duration {
        let last = lock(&self.session.state).last_sent;
        Duration::from_micros(self.now().0.saturating_sub(last.0))
    }

    async fn probe(&self, link: LinkId) {
        let servers_epoch = lock(&self.servers).epoch();
        // On this link only: a question that waited for the next one would wait for this task, which makes it.
        let patience = PROBE.min(self.keepalive());
        let probed = match self.say(link, &KeepAlive { servers_epoch }, patience).await {
            Ok((alive, _sent)) if alive.servers_changed => {
                let servers = self.say(link, &GetServers {}, patience).await;
                servers.map(|(servers, _sent)| lock(&self.servers).replace(servers))
            }
            other => other.map(|_alive| ()),
        };
        match probed {
            Ok(()) => {}
            Err(NetError::Status(Status::Overloaded | Status::Recovering, _)) => {}
            Err(error) => {
                log::info!("link to the master: {error}");
                self.drop_link(link);
            }
        }
    }

    /// Ends a link that is of no use.
    pub(crate) fn drop_link(&self, link: LinkId) {
        self.session.link_down(link);
        self.forget_absent();
        self.net.hang_up(link);
    }

    /// Dials until a master took the session up, or opened a new one.
    async fn new_link(self: &Arc<Self>, notices: &Notices) {
        let mut backoff = Backoff::default();
        let mut told = false;
        while !self.session.view.get().closed {
            match self.net.dial_master(notices.clone()).await {
                Ok(link) => match self.resume_session(link).await {
                    Ok(()) => return,
                    Err(error) => {
                        log::info!("the master does not take the session up: {error}");
                        self.net.hang_up(link);
                    }
                },
                // What stays so until somebody does something about it.
                Err(error @ NetError::Status(..)) if !std::mem::replace(&mut told, true) => {
                    log::error!("no master: {error}");
                }
                Err(error) => log::debug!("no master: {error}"),
            }
            let wait = backoff.next(&mut lock(&self.rng));
            tokio::time::sleep(wait).await;
        }
    }

    /// One request on a link that is not published, or to see whether it works. No retries.
    async fn say<R: Request>(
        &self,
        link: LinkId,
        request: &R,
        deadline: Duration,
    ) -> Result<(R::Reply, Micros), NetError> {
        let out = Outgoing::request(request).map_err(|_| NetError::Malformed)?;
        let sent = self.now();
        let frame = self.net.call(&Peer::Master(link), out, deadline).await?;
        let reply = frame.decode().map_err(|_| NetError::Malformed)?;
        self.session.heard(&frame.header, sent);
        Ok((reply, sent))
    }

    async fn open_session(&self, link: LinkId) -> Result<(), NetError> {
        let crate::Config { name, os_boot, recover, .. } = &self.config;
        let request = OpenSession { name: name.clone(), os_boot: *os_boot, recover: *recover };
        let (opened, sent) = self.say(link, &request, self.config.master_deadline).await?;
        self.session.opened(&opened, sent);
        lock(&self.servers).replace(opened.servers);
        self.session.view.modify(|view| {
            view.link = Some(link);
            view.incarnation += 1;
        });
        Ok(())
    }

    async fn resume_session(self: &Arc<Self>, link: LinkId) -> Result<(), NetError> {
        let (session, seen_term, seen_index, durable) = {
            let state = lock(&self.session.state);
            (state.id, state.term, state.seen, state.durable)
        };
        let request = ResumeSession {
            session,
            seen_term,
            seen_index,
            opens: self.claims(),
            recover: self.config.recover,
        };
        match self.say(link, &request, self.config.master_deadline).await {
            Ok((resumed, sent)) => {
                let new_term = self.session.resumed(&resumed, sent);
                self.take_up(&resumed, durable, new_term);
                lock(&self.servers).replace(resumed.servers);
                self.session.view.modify(|view| view.link = Some(link));
                Ok(())
            }
            Err(NetError::Status(Status::NoSession, _)) => {
                log::warn!("the master ended the session: open files are lost");
                self.lose_everything();
                self.open_session(link).await
            }
            Err(error) => Err(error),
        }
    }

    /// What the session has open.
    fn claims(&self) -> Vec<OpenClaim> {
        let inodes: Vec<_> = lock(&self.inodes).values().cloned().collect();
        let mut claims = Vec::new();
        for inode in inodes {
            let state = inode.lock();
            claims.extend(state.handles.iter().map(|(handle, write)| OpenClaim {
                ino: inode.ino,
                handle: *handle,
                write: *write,
                grant: state.grant.kind,
            }));
        }
        claims
    }

    /// Says goodbye, so that the master need not wait for the lease. `settled`: all that was buffered was written.
    pub(crate) async fn close_session(&self, settled: bool, deadline: Duration) {
        let settled =
            settled && lock(&self.inodes).values().all(|inode| inode.lock().left_writes().is_none());
        let link = self.session.view.get().link;
        self.session.close();
        if let Some(link) = link {
            if let Err(error) = self.say(link, &CloseSession { settled }, deadline).await {
                log::info!("the session's end was not taken: {error}");
            }
            self.net.hang_up(link);
        }
    }
}
