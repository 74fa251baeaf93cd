//! Opening files: made or found, cut or not, with the grant and the first chunk's place in one answer.
//!
//! An open may take several records (make, cut, allocate). Each time one is applied the flow goes on
//! from the state as it is then. Making and cutting are kept under the request's id; the rest can be done
//! twice.

use dfs_proto::ids::{Handle, Ino, SessionId};
use dfs_proto::meta::{self, Access, Created, FileKind, Opened, Recall};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use super::{Client, Then};
use crate::core::command::{Answer, Command, NewChunk, Origin};
use crate::core::namespace::{self, Caller as By};
use crate::core::ops::{self, NsCommand, TruncateBy};
use crate::core::reply::Caller;
use crate::core::state::min_write_for;
use crate::core::unsettled::Settling;
use crate::core::{After, Core};

/// An open under way.
#[derive(Clone, Debug)]
pub(in crate::core) struct OpenFlow {
    pub(super) caller: Caller,
    session: SessionId,
    origin: Option<Origin>,
    handle: Handle,
    access: Access,
    by: By,
    /// What is still to be cut away.
    truncate: bool,
    /// A chunk for index 0 was asked for.
    allocated: bool,
    ino: Option<Ino>,
    /// The request, when it may make the file.
    create: Option<meta::Create>,
    made: bool,
}

impl OpenFlow {
    pub(super) fn of_open(client: &Client, request: &meta::Open) -> OpenFlow {
        OpenFlow {
            caller: client.caller,
            session: client.session,
            origin: client.origin,
            handle: request.handle,
            access: request.access,
            by: By::from(&request.creds),
            truncate: request.truncate,
            allocated: false,
            ino: Some(request.ino),
            create: None,
            made: false,
        }
    }

    pub(super) fn of_create(client: &Client, request: &meta::Create) -> OpenFlow {
        OpenFlow {
            caller: client.caller,
            session: client.session,
            origin: client.origin,
            handle: request.handle,
            access: request.access,
            by: By::from(&request.creds),
            truncate: request.truncate,
            allocated: false,
            ino: None,
            create: Some(request.clone()),
            made: false,
        }
    }

    pub(in crate::core) fn writes(&self) -> bool {
        self.access.write || self.truncate
    }

    pub(in crate::core) fn caller(&self) -> Caller {
        self.caller
    }

    pub(in crate::core) fn by(&self) -> &By {
        &self.by
    }

    pub(in crate::core) fn rights(&self) -> u16 {
        let read = if self.access.read { namespace::READ } else { 0 };
        let write = if self.access.write || self.truncate { namespace::WRITE } else { 0 };
        read | write
    }
}

impl Core {
    pub(super) fn open(&mut self, client: &Client, request: &meta::Open) -> Result<(), Status> {
        let flow = OpenFlow::of_open(client, request);
        if self.hold.stands() {
            return self.open_to_look(&flow, request.ino);
        }
        self.open_existing(flow, request.ino)
    }

    pub(super) fn create(&mut self, client: &Client, request: &meta::Create) -> Result<(), Status> {
        let mut flow = OpenFlow::of_create(client, request);
        match self.state.ns.child(request.parent, &request.name) {
            Some((ino, _)) if !request.exclusive => {
                // Whoever can't search the directory must not learn what is in it.
                self.state.ns.access(request.parent, namespace::SEARCH, &flow.by)?;
                self.open_existing(flow, ino)
            }
            Some(_) | None => {
                let meta::Create { parent, name, mode, .. } = request.clone();
                let create = ops::Create { parent, name, mode, now: self.now.wall, by: flow.by.clone() };
                let command = NsCommand::Create(create.clone());
                self.state.ns.check(&command)?;
                self.name_comes(client.caller.conn, request.parent);
                flow.caller.dirs[0] = request.parent;
                // Without servers the file is made all the same, and its first write asks again.
                // It begins with its directory's goal.
                let goal = self.state.goal_at(request.parent);
                let first = if request.access.write { self.new_chunk(goal).ok() } else { None };
                self.propose(client.origin, Command::Create { create, first }, Then::Open(Box::new(flow)))?;
                Ok(())
            }
        }
    }

    fn open_existing(&mut self, mut flow: OpenFlow, ino: Ino) -> Result<(), Status> {
        match self.state.ns.getattr(ino)?.kind {
            FileKind::File => {}
            FileKind::Dir if flow.access.write || flow.create.is_some() => return Err(Status::IsDir),
            FileKind::Symlink => return Err(Status::Loop),
            // The kernel opens these without us.
            FileKind::Dir | FileKind::Fifo | FileKind::Socket | FileKind::BlockDev | FileKind::CharDev => {
                return Err(Status::Invalid);
            }
        }
        self.state.ns.access(ino, flow.rights(), &flow.by)?;
        flow.ino = Some(ino);
        self.open_next(flow, ino)
    }

    /// A record of the flow was applied.
    pub(super) fn open_goes_on(&mut self, mut flow: OpenFlow, answer: &Answer) {
        let caller = flow.caller;
        let found = match (answer, &flow.create) {
            // Somebody else made it between the check and the record.
            (Answer::Failed(Status::Exists), Some(create)) if !create.exclusive && !flow.made => {
                self.state.ns.child(create.parent, &create.name).map(|(ino, _)| ino)
            }
            _ => None,
        };
        let result = match (answer, found) {
            (_, Some(ino)) => self.open_existing(flow, ino),
            (Answer::Failed(status), None) => Err(*status),
            (Answer::Created(attr), None) => {
                (flow.made, flow.truncate, flow.allocated) = (true, false, true);
                flow.ino = Some(attr.ino);
                self.open_next(flow, attr.ino)
            }
            // It was cut, now or when the request came first.
            (Answer::Attr(attr), None) => {
                flow.truncate = false;
                flow.ino = Some(attr.ino);
                self.open_next(flow, attr.ino)
            }
            (
                Answer::Done
                | Answer::Placed(_)
                | Answer::Removed(_)
                | Answer::Renamed(_)
                | Answer::Session(_)
                | Answer::Server(_)
                | Answer::Intended,
                None,
            ) => match flow.ino {
                Some(ino) => self.open_next(flow, ino),
                None => Err(Status::Stale),
            },
        };
        if let Err(status) = result {
            self.fail(caller, status);
        }
    }

    fn open_next(&mut self, mut flow: OpenFlow, ino: Ino) -> Result<(), Status> {
        self.session_goes_on(flow.session)?;
        let attr = self.state.ns.getattr(ino)?;
        let writes = flow.access.write || flow.truncate;
        if writes && self.state.ns.intent(ino).is_some() {
            return Err(Status::Recovering);
        }
        self.clear_grants(ino, flow.session, writes)?;
        // What is cut away is over with its chunks.
        let cache = flow.truncate || self.may_cache(ino, flow.session, flow.access.write)?;
        if flow.truncate {
            let by = TruncateBy { caller: flow.by.clone(), by_handle: false };
            let command = NsCommand::Truncate(ops::Truncate { ino, size: 0, now: self.now.wall, by });
            self.state.ns.check(&command)?;
            self.propose(flow.origin, Command::Ns(command), Then::Open(Box::new(flow)))?;
            return Ok(());
        }
        let empty = attr.size == 0 && self.state.ns.chunk_at(ino, ChunkIndex(0))?.is_none();
        if flow.access.write
            && empty
            && !flow.allocated
            && let Ok(chunk) = self.new_chunk(self.state.goal_at(ino))
        {
            flow.allocated = true;
            let command = Command::Allocate { ino, index: ChunkIndex(0), chunk };
            self.propose(None, command, Then::Open(Box::new(flow)))?;
            return Ok(());
        }
        self.finish_open(&flow, ino, attr, cache)
    }

    /// Whether a grant may be given.
    ///
    /// # Errors
    /// `Recalling` while writes that were left under way are waited for.
    fn may_cache(&mut self, ino: Ino, session: SessionId, write: bool) -> Result<bool, Status> {
        if !self.soft.grants.would_give(ino, session, write) {
            return Ok(true);
        }
        match self.settle(ino, write) {
            Settling::Settled => Ok(true),
            Settling::Wait => Err(Status::Recalling),
            Settling::InDoubt => Ok(false),
        }
    }

    fn finish_open(
        &mut self,
        flow: &OpenFlow,
        ino: Ino,
        attr: meta::Attr,
        cache: bool,
    ) -> Result<(), Status> {
        let write = flow.access.write;
        let grant = self.soft.grants.open(ino, flow.session, flow.handle, write, cache);
        let first = match self.state.ns.chunk_at(ino, ChunkIndex(0))? {
            Some(chunk) if write && self.after_opening(chunk) == After::Now => {
                self.place_to_write(flow.session, chunk).ok()
            }
            Some(_) if write => None,
            Some(chunk) => self.place_to_read(flow.session, chunk).filter(|place| !place.members.is_empty()),
            None => None,
        };
        let opened = Opened { attr, grant, first };
        if flow.create.is_some() {
            self.reply(flow.caller, &Created { opened, new: flow.made });
        } else {
            self.reply(flow.caller, &opened);
        }
        Ok(())
    }

    /// Makes sure that no other session's grant stands in the way; recalls those that do.
    ///
    /// # Errors
    /// `Recalling`: the client repeats.
    pub(in crate::core) fn clear_grants(
        &mut self,
        ino: Ino,
        session: SessionId,
        writes: bool,
    ) -> Result<(), Status> {
        // A session that has not come back yet may hold a grant on any inode of the time before.
        if ino < self.soft.grace_floor && !self.soft.sessions.all_spoke() {
            return Err(Status::Recalling);
        }
        let conflicts = self.soft.grants.conflicts(ino, session, writes);
        for recall in &conflicts {
            if !self.soft.grants.recall(recall, self.now.mono) {
                continue;
            }
            let holder = self.soft.sessions.get(recall.session).and_then(|live| live.conn);
            if let Some(conn) = holder {
                self.notify(conn, &Recall { ino, grant: recall.grant });
            }
        }
        if conflicts.is_empty() { Ok(()) } else { Err(Status::Recalling) }
    }

    /// A chunk that can be put on so many servers, or on enough for writing: its id and its place.
    ///
    /// # Errors
    /// `NoServers`, `NoSpace`; `Overloaded` while no id is free.
    pub(super) fn new_chunk(&mut self, goal: usize) -> Result<NewChunk, Status> {
        let members = self.soft.choose(&[], goal, min_write_for(goal))?;
        let counter = self.soft.ids.take(self.log.durable).ok_or(Status::Overloaded)?;
        self.reserve_ids();
        Ok(NewChunk { id: dfs_proto::ids::ChunkId::new(self.generation(), counter), members })
    }
}
