//! Requests: who may send which, what has been answered before, and which file serves it.
//!
//! A mutation is looked up among the kept answers and the proposals under way before anything else, so
//! a repeated one takes effect once. What fails its check is answered at once and never logged.

mod commit;
mod names;
pub(super) mod open;
mod place;
mod servers;
mod sessions;
mod suspect;
mod tools;

use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, Ino, LogIndex, RequestId, SessionId};
use dfs_proto::meta::{self, Done, OrderReport};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;
use serde::de::DeserializeOwned;

use super::Core;
use super::command::{Answer, Origin};
use super::reply::Caller;
use super::sessions::{KEPT_MAX, Known};
use super::state::Outcome;
use super::truncate::Cut;

pub(super) use open::OpenFlow;
pub(super) use servers::{Promotion, Registration};
pub(super) use suspect::Doubts;

/// What follows when a proposal was applied.
#[derive(Debug)]
pub(super) enum Then {
    /// Nobody waits.
    Nothing,
    /// The answer is the reply.
    Reply(Caller),
    /// The same, when it is on the disk.
    ReplyDurable(Caller),
    /// Opens what was made, or goes on opening.
    Open(Box<OpenFlow>),
    /// Tells the place of the chunk that is there now.
    Place {
        caller: Caller,
        session: SessionId,
        ino: Ino,
        index: ChunkIndex,
        only: Option<ChunkId>,
    },
    OpenSession(Caller),
    CloseSession(Caller),
    Recovered(Caller),
    Policy(Caller),
    /// An order about a server, which means this for chunks.
    Ordered(Caller, Vec<String>),
    /// Goals are set: what that came to.
    Goal(Caller, Box<meta::GoalSet>),
    Register(Box<Registration>),
    Promote(Promotion),
    /// The next step of a truncation.
    Cut(Box<Cut>),
}

impl Then {
    /// Who waits.
    fn caller_mut(&mut self) -> Option<&mut Caller> {
        match self {
            Then::Nothing => None,
            Then::Reply(caller)
            | Then::ReplyDurable(caller)
            | Then::Place { caller, .. }
            | Then::OpenSession(caller)
            | Then::CloseSession(caller)
            | Then::Recovered(caller)
            | Then::Policy(caller)
            | Then::Ordered(caller, _)
            | Then::Goal(caller, _) => Some(caller),
            Then::Open(flow) => Some(&mut flow.caller),
            Then::Register(registration) => Some(&mut registration.caller),
            Then::Promote(promotion) => Some(&mut promotion.caller),
            Then::Cut(cut) => cut.caller.as_mut(),
        }
    }
}

/// A client's request that passed the gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) caller: Caller,
    pub(super) session: SessionId,
    /// For mutations that carry a request id.
    pub(super) origin: Option<Origin>,
}

/// Reads a message.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    rmp_serde::from_slice(body).map_err(|_bad| Status::Malformed)
}

/// Who may call an operation.
#[expect(clippy::too_many_lines, reason = "a table; a new operation has to take its place in it")]
fn role_of(op: Op) -> Option<Role> {
    match op {
        Op::Hello | Op::Ping | Op::InFlight => None,
        Op::OpenSession
        | Op::ResumeSession
        | Op::CloseSession
        | Op::KeepAlive
        | Op::Servers
        | Op::Lookup
        | Op::Getattr
        | Op::Setattr
        | Op::Create
        | Op::Mkdir
        | Op::Mknod
        | Op::Symlink
        | Op::Readlink
        | Op::Link
        | Op::Unlink
        | Op::Rmdir
        | Op::Rename
        | Op::Readdir
        | Op::Getxattr
        | Op::Setxattr
        | Op::Listxattr
        | Op::Removexattr
        | Op::Statfs
        | Op::Open
        | Op::Release
        | Op::MapRead
        | Op::MapWrite
        | Op::Commit
        | Op::Suspect
        | Op::GrantBack
        | Op::OpenChunks
        | Op::DropHoles => Some(Role::Client),
        Op::Register
        | Op::Inventory
        | Op::Heartbeat
        | Op::ReportTrouble
        | Op::LearnerReady
        | Op::GracefulStop => Some(Role::ChunkServer),
        Op::ClusterStatus
        | Op::ServerList
        | Op::FileInfo
        | Op::Recover
        | Op::ScrubStatus
        | Op::ScrubNow
        | Op::Fsck
        | Op::FsckServer
        | Op::Damaged
        | Op::RepairChunk
        | Op::ExamineChunk
        | Op::DrainServer
        | Op::Policy
        | Op::Heat
        | Op::ExplainChunk
        | Op::MaintainServer
        | Op::SetGoal
        | Op::ShowGoal
        | Op::SessionList
        | Op::EvictSession
        | Op::ChunkChanges => Some(Role::Tool),
        // The driver answers these three: two are of files, and one asks other processes.
        Op::ListLog
        | Op::ReadLog
        | Op::Ops
        | Op::Recall
        | Op::LocationsChanged
        | Op::DirChanged
        | Op::Read
        | Op::Write
        | Op::Sync
        | Op::Forward
        | Op::Committed
        | Op::ForwardSync
        | Op::AskMend
        | Op::Apply
        | Op::Fence
        | Op::Reconcile
        | Op::AddLearner
        | Op::Delete
        | Op::Zero
        | Op::Close
        | Op::Withdraw
        | Op::StartScrub
        | Op::Look
        | Op::Examine
        | Op::ListHeaders
        | Op::ListCopies
        | Op::ReadCopy => None,
    }
}

impl Core {
    /// Serves a request, now or when its record is applied.
    pub(super) fn request(&mut self, caller: Caller, rid: RequestId, done: RequestId, body: &[u8]) {
        let Some(link) = self.links.get(&caller.conn) else { return };
        let (peer, session) = (link.peer.role, link.session);
        let result = match role_of(caller.op) {
            None => Err(Status::UnknownOp),
            _ if !self.leading => Err(Status::NotLeader),
            // Who is where is for everybody.
            _ if caller.op == Op::Servers => {
                let directory = self.state.servers.directory();
                self.reply(caller, &directory);
                Ok(())
            }
            // Tools look at everything, and so may anybody.
            Some(Role::Tool) => self.tool_request(caller, body),
            Some(Role::ChunkServer) if peer == Role::ChunkServer => self.server_request(caller, body),
            // The directory and a look at names are for the operator's tools too.
            Some(Role::Client) if peer == Role::Client || peer == Role::Tool => {
                self.client_request(caller, session, rid, done, body)
            }
            Some(Role::Client | Role::ChunkServer | Role::Master) => Err(Status::WrongRole),
        };
        if let Err(status) = result {
            self.fail(caller, status);
        }
    }

    fn client_request(
        &mut self,
        caller: Caller,
        session: Option<SessionId>,
        rid: RequestId,
        done: RequestId,
        body: &[u8],
    ) -> Result<(), Status> {
        match caller.op {
            Op::OpenSession => return self.open_session(caller, &decode(body)?),
            Op::ResumeSession => return self.resume_session(caller, decode(body)?),
            _ => {}
        }
        let session = session.ok_or(Status::NoSession)?;
        self.check_hold(caller)?;
        let live =
            self.soft.sessions.get_mut(session).filter(|live| live.goes_on()).ok_or(Status::NoSession)?;
        live.heard = self.now.mono;
        let origin = (rid.0 != 0).then_some(Origin { session, rid, done });
        let client = Client { caller, session, origin };
        if let Some(origin) = origin
            && self.asked_before(&client, origin, body)?
        {
            return Ok(());
        }
        self.serve(&client, body)
    }

    /// Whether a mutation was seen before; then it is answered, or will be.
    fn asked_before(&mut self, client: &Client, origin: Origin, body: &[u8]) -> Result<bool, Status> {
        let session = self.state.sessions.get(client.session).ok_or(Status::NoSession)?;
        let answer = match session.known(origin.rid) {
            // Attributes as of the record that the reply will name: by them clients tell newer from older.
            Known::Answered(Answer::Attr(attr)) => {
                Answer::Attr(self.state.ns.getattr(attr.ino).unwrap_or(*attr))
            }
            Known::Answered(answer) => answer.clone(),
            // The client has had its answer; this copy was late, and nobody waits for it.
            Known::Over => return Err(Status::Invalid),
            Known::New => {
                if let Some(pending) =
                    self.inflight.get(&(origin.session, origin.rid)).and_then(|at| self.pending.get_mut(at))
                {
                    if let Some(caller) = pending.then.caller_mut() {
                        *caller = client.caller;
                    }
                    return Ok(true);
                }
                if self.soft.truncate.adopt(origin, client.caller) {
                    return Ok(true);
                }
                return if origin.rid.0 >= origin.done.0.saturating_add(KEPT_MAX) {
                    Err(Status::Overloaded)
                } else {
                    Ok(false)
                };
            }
        };
        let then = self.then_of(client, body)?;
        let outcome = Outcome { answer, dropped: Vec::new() };
        self.then(self.state.applied, client.origin, then, &outcome);
        Ok(true)
    }

    /// What follows a mutation's record, for an answer that was kept.
    fn then_of(&mut self, client: &Client, body: &[u8]) -> Result<Then, Status> {
        Ok(match client.caller.op {
            Op::Open => Then::Open(Box::new(OpenFlow::of_open(client, &decode(body)?))),
            Op::Create => Then::Open(Box::new(OpenFlow::of_create(client, &decode(body)?))),
            Op::MapWrite => {
                let meta::MapWrite { ino, index, only, .. } = decode(body)?;
                Then::Place { caller: client.caller, session: client.session, ino, index, only }
            }
            Op::Commit if decode::<meta::Commit>(body)?.durable => Then::ReplyDurable(client.caller),
            _ => Then::Reply(client.caller),
        })
    }

    fn serve(&mut self, client: &Client, body: &[u8]) -> Result<(), Status> {
        match client.caller.op {
            Op::CloseSession => self.close_session(client, decode(body)?),
            Op::KeepAlive => self.keep_alive(client, &decode(body)?),
            Op::Open => self.open(client, &decode(body)?),
            Op::Create => self.create(client, &decode(body)?),
            Op::Release => self.release(client, &decode(body)?),
            Op::GrantBack => self.grant_back(client, &decode(body)?),
            Op::MapRead => self.map_read(client, &decode(body)?),
            Op::MapWrite => self.map_write(client, &decode(body)?),
            Op::Commit => self.commit(client, decode(body)?),
            Op::OpenChunks => self.open_chunks(client, &decode(body)?),
            Op::DropHoles => self.drop_holes(client, &decode(body)?),
            Op::Setattr => self.setattr(client, &decode(body)?),
            Op::Suspect => {
                let meta::Suspect { reports } = decode(body)?;
                self.suspected(&reports);
                self.reply(client.caller, &Done {});
                Ok(())
            }
            _ => self.name_request(client, body),
        }
    }

    /// Goes on after a record was applied.
    pub(super) fn then(&mut self, index: LogIndex, origin: Option<Origin>, then: Then, outcome: &Outcome) {
        let answer = &outcome.answer;
        match then {
            Then::Nothing => {}
            Then::Reply(caller) => self.answer(caller, answer, index, false),
            Then::ReplyDurable(caller) => self.answer(caller, answer, index, true),
            Then::Open(flow) => self.open_goes_on(*flow, answer),
            Then::Place { caller, session, ino, index: at, only } => {
                let result = match answer {
                    // Its chunk went while the record was under way: the next question finds what is there now.
                    Answer::Failed(Status::NoChunk) => Err(Status::Recovering),
                    Answer::Failed(status) => Err(*status),
                    _ => self.write_place(caller, session, ino, (at, only), index),
                };
                if let Err(status) = result {
                    self.fail(caller, status);
                }
            }
            Then::OpenSession(caller) => self.session_opened(caller, answer, index),
            Then::CloseSession(caller) => self.reply_at(caller, &Done {}, index, super::After::Now),
            Then::Recovered(caller) => {
                let (report, after) = (self.recover_report(), self.after_durable(index));
                self.reply_at(caller, &report, index, after);
            }
            Then::Policy(caller) => self.reply_policy(caller, None),
            Then::Ordered(caller, notes) => {
                let after = self.after_durable(index);
                self.reply_at(caller, &OrderReport { refused: None, notes }, index, after);
            }
            Then::Goal(caller, set) => self.reply_goal(caller, &set),
            Then::Register(registration) => self.server_logged(*registration, answer, index),
            Then::Promote(promotion) => self.promoted(&promotion, answer, index),
            Then::Cut(cut) => self.cut_goes_on(*cut, origin, answer, index),
        }
    }

    /// The reply that is the answer itself.
    pub(super) fn answer(&mut self, caller: Caller, answer: &Answer, index: LogIndex, durable: bool) {
        let after = if durable { self.after_durable(index) } else { super::After::Now };
        match answer {
            Answer::Failed(status) => self.fail(caller, *status),
            Answer::Attr(attr) if caller.op == Op::Mkdir => {
                let watched = self.watch(caller.conn, attr.ino);
                self.reply_at(caller, &meta::MadeDir { attr: *attr, watched }, index, after);
            }
            Answer::Attr(attr) | Answer::Created(attr) => self.reply_at(caller, attr, index, after),
            Answer::Removed(removed) => {
                self.soft.watched.forget(removed.ino);
                self.reply_at(caller, removed, index, after);
            }
            Answer::Renamed(renamed) => self.reply_at(caller, renamed, index, after),
            Answer::Done | Answer::Placed(_) | Answer::Session(_) | Answer::Server(_) | Answer::Intended => {
                self.reply_at(caller, &Done {}, index, after);
            }
        }
    }

    /// A proposal was overtaken by another leader's record.
    pub(super) fn not_taken(&mut self, mut then: Then) {
        if let Some(caller) = then.caller_mut() {
            let caller = *caller;
            self.fail(caller, Status::NotLeader);
        }
    }
}
