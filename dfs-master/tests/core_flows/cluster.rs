//! One core with its log, its servers and its clients; time moves only when told to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use dfs_master::core::image::ImageReader;
use dfs_master::core::{
    After, ConnId, Core, CoreConfig, Effect, Input, LoadSecond, Now, Peer, Recovered, RecoveredSnapshot,
    ReqId,
};
use dfs_master::log::entry::{ConfState, HardState, LogEntry, NodeId};
use dfs_master::log::snapshot::Section;
use dfs_proto::chunk::Member;
use dfs_proto::conn::Role;
use dfs_proto::control::{Heartbeat, HeartbeatReply, Inventory, LearnerReady, Registered};
use dfs_proto::header::Words;
use dfs_proto::ids::{
    ChunkId, ClusterId, Handle, Ino, KeyId, LogIndex, OsBootId, RequestId, ServerNum, SessionId, Term,
};
use dfs_proto::meta::{
    Access, Attr, ChunkPlace, Commit, Create, Created, Creds, KeepAlive, MapWrite, Open, OpenClaim,
    OpenSession, Opened, ResumeSession, SessionOpened, Setattr,
};
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, ChunkSize, Micros, Timespec};

use crate::fake::{FakeServer, encode};

pub(crate) const TICK_MS: u64 = 50;
pub(crate) const RW: Access = Access { read: true, write: true };
pub(crate) const RO: Access = Access { read: true, write: false };

type Blocks = (LogIndex, Term, Vec<Section>, Vec<(u16, Vec<u8>)>);

/// A client with one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
}

#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: Status,
    pub(crate) body: Bytes,
    pub(crate) words: Words,
    pub(crate) after: After,
}

pub(crate) struct Cluster {
    pub(crate) config: CoreConfig,
    pub(crate) core: Core,
    pub(crate) now_ms: u64,
    pub(crate) servers: Vec<FakeServer>,
    pub(crate) clients: Vec<Client>,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<Blocks>,
    pub(crate) notified: Vec<(ConnId, Op, Bytes)>,
    pub(crate) closed: Vec<ConnId>,
    pub(crate) loads: Vec<LoadSecond>,
    answers: BTreeMap<(ConnId, ReqId), Answered>,
    inputs: VecDeque<Input>,
    next: u64,
    rids: BTreeMap<SessionId, u64>,
    /// Clients say nothing by themselves.
    pub(crate) mute: Vec<SessionId>,
    /// Records are written and not reported durable.
    pub(crate) power_held: bool,
    /// A tick comes between any two writes.
    pub(crate) ticking: bool,
}

pub(crate) fn set_size(ino: Ino, size: u64) -> Setattr {
    Setattr {
        ino,
        handle: None,
        mode: None,
        uid: None,
        gid: None,
        size: Some(size),
        atime: None,
        mtime: None,
        creds: Creds::default(),
    }
}

/// A commit of nothing.
pub(crate) fn commit(ino: Ino) -> Commit {
    Commit {
        ino,
        size_epoch: dfs_proto::ids::SizeEpoch(0),
        size_at_least: None,
        mtime: None,
        atime: None,
        synced: Vec::new(),
        durable: false,
        unused: Vec::new(),
        set: None,
        hole: false,
    }
}

pub(crate) fn now_at(ms: u64) -> Now {
    Now {
        mono: Micros(ms * 1000),
        wall: Timespec { sec: 1_000_000 + i64::try_from(ms / 1000).unwrap(), nsec: 0 },
    }
}

impl Cluster {
    /// A master that leads, and `servers` servers that are up.
    pub(crate) fn new(servers: usize, goal: u8) -> Cluster {
        Cluster::with(servers, goal, |_| {})
    }

    pub(crate) fn with(servers: usize, goal: u8, change: impl FnOnce(&mut CoreConfig)) -> Cluster {
        let mut config = CoreConfig::new(ClusterId(77));
        config.goal = goal;
        config.chunk_size = ChunkSize::try_from(64 << 10).unwrap();
        config.gc_delay_ms = 5_000;
        change(&mut config);
        let core = Core::new(config.clone(), Recovered::default(), now_at(1000)).unwrap();
        let mut cluster = Cluster {
            config,
            core,
            now_ms: 1000,
            servers: Vec::new(),
            clients: Vec::new(),
            entries: Vec::new(),
            hard_state: HardState::default(),
            snapshot: None,
            notified: Vec::new(),
            closed: Vec::new(),
            loads: Vec::new(),
            answers: BTreeMap::new(),
            inputs: VecDeque::new(),
            next: 1,
            rids: BTreeMap::new(),
            mute: Vec::new(),
            power_held: false,
            ticking: false,
        };
        cluster.input(Input::Tick);
        assert!(cluster.core.is_leading());
        for id in 1..=servers {
            cluster.add_server(id as u128, &[]);
        }
        cluster.run(200);
        cluster
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let mut out = Vec::new();
            self.core.step(now_at(self.now_ms), input, &mut out);
            out.into_iter().for_each(|effect| self.perform(effect));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { number, entries, hard_state, .. } => {
                let last = entries.last().map(|entry| entry.index);
                self.entries.extend(entries);
                if let Some(hard_state) = hard_state {
                    self.hard_state = hard_state;
                }
                self.inputs.push_back(Input::Persisted { number });
                if self.ticking {
                    self.inputs.push_back(Input::Tick);
                }
                if let Some(index) = last.filter(|_| !self.power_held) {
                    self.inputs.push_back(Input::Durable { index });
                }
            }
            Effect::Reply { conn, req, status, body, words, after, .. } => {
                self.answers.insert((conn, req), Answered { status, body, words, after });
            }
            Effect::Call { conn, call, op, body, .. } => {
                let server = self
                    .servers
                    .iter_mut()
                    .find(|server| server.conn == conn && server.alive && !server.cut_off);
                let result = server.map_or(Err(Status::Disconnected), |server| server.serve(op, &body));
                self.inputs.push_back(Input::Answer { call, result });
            }
            Effect::Notify { conn, op, body, .. } => self.notified.push((conn, op, body)),
            Effect::Snapshot { index, term, image } => {
                let mut blocks = Vec::new();
                let written: Result<(), ()> = image.write(&mut |section, block| {
                    blocks.push((section, block.to_vec()));
                    Ok(())
                });
                written.unwrap();
                self.snapshot = Some((index, term, image.sections(), blocks));
                self.inputs.push_back(Input::SnapshotDone { index, term });
            }
            Effect::CloseConn { conn } => self.closed.push(conn),
            Effect::LogLoad { second } => self.loads.push(*second),
        }
    }

    /// Everything is on the disk.
    pub(crate) fn sync(&mut self) {
        self.power_held = false;
        let index = self.entries.last().unwrap().index;
        self.input(Input::Durable { index });
    }

    // ------------------------------------------------------------ time

    /// Lets time pass: ticks, heartbeats once a second, a keep-alive of every client that is not mute.
    pub(crate) fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += TICK_MS.min(until - self.now_ms);
            if self.now_ms % 1000 < TICK_MS {
                for at in 0..self.servers.len() {
                    if self.servers[at].alive && !self.servers[at].cut_off {
                        if self.closed.contains(&self.servers[at].conn) {
                            self.join(at).unwrap();
                        }
                        self.heartbeat(at);
                    }
                }
                for client in self.clients.clone() {
                    if !self.mute.contains(&client.session) {
                        let _ = self.ask(client.conn, &KeepAlive { servers_epoch: 0 });
                    }
                }
            }
            self.input(Input::Tick);
        }
    }

    /// Lets time pass until it is so.
    pub(crate) fn until(&mut self, limit_ms: u64, mut so: impl FnMut(&mut Cluster) -> bool) {
        let end = self.now_ms + limit_ms;
        while !so(self) {
            assert!(self.now_ms < end, "not so within {limit_ms} ms");
            self.run(TICK_MS);
        }
    }

    // ------------------------------------------------------------ requests

    pub(crate) fn connect(&mut self, role: Role) -> ConnId {
        let conn = ConnId(self.number());
        let peer = Peer { role, name: "peer".into(), server: None, boot: None };
        self.input(Input::Connected { conn, peer });
        conn
    }

    /// Sends a request under given ids; its reply may come later.
    pub(crate) fn send<R: Request>(&mut self, conn: ConnId, request: &R, rid: u64, done: u64) -> ReqId {
        let req = ReqId(self.number());
        let body = encode(request);
        self.input(Input::Request { conn, req, op: R::OP, rid: RequestId(rid), done: RequestId(done), body });
        req
    }

    /// Sends two requests at once: both arrive before a record of either is written. The second's id.
    pub(crate) fn send_both<A: Request, B: Request>(&mut self, client: Client, a: &A, b: &B) -> ReqId {
        let last = self.rids.entry(client.session).or_default();
        let (rid, done) = (RequestId(*last + 1), RequestId(*last + 1));
        *last += 2;
        let second = *last;
        let (op, req, body) = (A::OP, ReqId(self.number()), encode(a));
        self.inputs.push_back(Input::Request { conn: client.conn, req, op, rid, done, body });
        self.send(client.conn, b, second, done.0)
    }

    /// A request of a peer that has no session, which is there when what follows arrives, and no record of it is written.
    pub(crate) fn send_before<R: Request>(&mut self, conn: ConnId, request: &R) {
        let (op, req, body) = (R::OP, ReqId(self.number()), encode(request));
        let (rid, done) = (RequestId(0), RequestId(0));
        self.inputs.push_back(Input::Request { conn, req, op, rid, done, body });
    }

    /// A tick, and a request that is there before what the tick sets going is answered.
    pub(crate) fn tick_and_send<R: Request>(&mut self, client: Client, request: &R) -> ReqId {
        self.inputs.push_back(Input::Tick);
        self.send(client.conn, request, 0, 0)
    }

    /// The number of the last mutation.
    pub(crate) fn last_rid(&self, client: Client) -> u64 {
        self.rids[&client.session]
    }

    pub(crate) fn answer(&mut self, conn: ConnId, req: ReqId) -> Option<Answered> {
        self.answers.remove(&(conn, req))
    }

    /// Sends a request that is answered at once.
    pub(crate) fn ask<R: Request>(&mut self, conn: ConnId, request: &R) -> Result<R::Reply, Status> {
        let session = self.clients.iter().find(|client| client.conn == conn).map(|client| client.session);
        let rid = match session {
            Some(session) if R::MUTATION => {
                let rid = self.rids.entry(session).or_default();
                *rid += 1;
                *rid
            }
            _ => 0,
        };
        let req = self.send(conn, request, rid, rid);
        let answered = self.answer(conn, req).unwrap_or_else(|| panic!("{request:?} is not answered"));
        match answered.status {
            Status::Ok => Ok(rmp_serde::from_slice(&answered.body).unwrap()),
            status => Err(status),
        }
    }

    pub(crate) fn client(&mut self) -> Client {
        let conn = self.connect(Role::Client);
        let opened: SessionOpened = self
            .ask(conn, &OpenSession { name: "mnt".into(), os_boot: OsBootId(9), recover: false })
            .unwrap();
        let client = Client { conn, session: opened.session };
        self.clients.push(client);
        client
    }

    pub(crate) fn create(&mut self, client: Client, name: &str, handle: u64) -> Result<Created, Status> {
        let request = Create {
            parent: Ino::ROOT,
            name: name.as_bytes().to_vec().into(),
            mode: 0o644,
            handle: Handle(handle),
            access: RW,
            exclusive: false,
            truncate: false,
            creds: Creds::default(),
        };
        self.ask(client.conn, &request)
    }

    pub(crate) fn open(
        &mut self,
        client: Client,
        ino: Ino,
        handle: u64,
        access: Access,
    ) -> Result<Opened, Status> {
        let (handle, creds) = (Handle(handle), Creds::default());
        self.ask(client.conn, &Open { ino, handle, access, truncate: false, creds })
    }

    pub(crate) fn map_write(&mut self, client: Client, ino: Ino, index: u64) -> Result<ChunkPlace, Status> {
        self.ask(client.conn, &MapWrite { ino, index: ChunkIndex(index), failed: None, only: None })
    }

    /// The client commits `size` and that the chunk is on the disks of its members.
    pub(crate) fn commit_synced(&mut self, client: Client, attr: &Attr, place: &ChunkPlace, size: u64) {
        let commit = Commit {
            size_epoch: attr.size_epoch,
            size_at_least: Some(size),
            synced: vec![place.chunk()],
            durable: true,
            ..commit(attr.ino)
        };
        self.ask(client.conn, &commit).unwrap();
    }

    /// A file with one chunk that all of its members have written.
    pub(crate) fn written_file(&mut self, client: Client, name: &str) -> (Attr, ChunkPlace) {
        let created = self.create(client, name, self.next).unwrap();
        let place = created.opened.first.expect("servers are up");
        self.write(&place, 1, 11);
        (created.opened.attr, place)
    }

    /// A write reaches every member of the place.
    pub(crate) fn write(&mut self, place: &ChunkPlace, applied: u64, digest: u128) {
        let cap = place.capability;
        for member in &place.members {
            let server = self.server_mut(member.server);
            server.write(cap.chunk, cap.version, cap.config, applied, digest);
        }
    }

    // ------------------------------------------------------------ servers

    pub(crate) fn server(&self, num: ServerNum) -> &FakeServer {
        self.servers.iter().find(|server| server.num == num).unwrap()
    }

    pub(crate) fn server_mut(&mut self, num: ServerNum) -> &mut FakeServer {
        self.servers.iter_mut().find(|server| server.num == num).unwrap()
    }

    pub(crate) fn at(&self, num: ServerNum) -> usize {
        self.servers.iter().position(|server| server.num == num).unwrap()
    }

    pub(crate) fn add_server(&mut self, id: u128, labels: &[(&str, &str)]) -> ServerNum {
        let mut server = FakeServer::new(id, ConnId(0));
        server.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.servers.push(server);
        let at = self.servers.len() - 1;
        self.join(at).unwrap();
        self.servers[at].num
    }

    /// Connects, registers, tells its inventory, sends a heartbeat.
    pub(crate) fn join(&mut self, at: usize) -> Result<(), Status> {
        let conn = self.connect(Role::ChunkServer);
        self.servers[at].conn = conn;
        let register = self.servers[at].register();
        let registered: Registered = self.ask(conn, &register)?;
        let server = &mut self.servers[at];
        server.num = registered.num;
        server.generation = registered.generation;
        server.keys.push(registered.key);
        server.applied = 0;
        let (boot, replicas) = (server.boot, server.inventory());
        self.ask(conn, &Inventory { boot, replicas, last: true })?;
        self.heartbeat(at);
        Ok(())
    }

    pub(crate) fn heartbeat(&mut self, at: usize) -> Option<HeartbeatReply> {
        let server = &self.servers[at];
        let (conn, boot, applied, disks) = (server.conn, server.boot, server.applied, server.disks());
        let (load, hot, lost) = (server.load, server.hot.clone(), Vec::new());
        let key = server.keys.last().map_or(KeyId(0), |key| key.id);
        let t_send = Micros(self.now_ms * 1000);
        let (scrub, copy) = (server.scrub.clone(), server.copy.clone());
        let request = Heartbeat { boot, t_send, applied, load, disks, hot, lost, key, scrub, copy };
        let reply = self.ask(conn, &request).ok()?;
        self.servers[at].keys.extend(reply.key);
        for (number, event) in reply.events.clone() {
            if number > self.servers[at].applied {
                self.servers[at].take(number, event);
            }
        }
        if reply.granted {
            self.servers[at].lease_until_ms = self.now_ms + self.config.server_lease_ms;
        }
        Some(reply)
    }

    /// The process dies; its connection breaks.
    pub(crate) fn kill(&mut self, num: ServerNum) {
        let at = self.at(num);
        self.servers[at].alive = false;
        let conn = self.servers[at].conn;
        self.input(Input::Disconnected { conn });
    }

    /// It comes back as a new process; `reboot`: under a new kernel.
    pub(crate) fn revive(&mut self, num: ServerNum, reboot: bool) {
        let at = self.at(num);
        self.servers[at].alive = true;
        self.servers[at].restart(reboot);
        self.join(at).unwrap();
    }

    /// The primary has filled the learner that it was asked to.
    pub(crate) fn finish_learners(&mut self, primary: ServerNum) -> Vec<ServerNum> {
        let at = self.at(primary);
        let (conn, asked) = (self.servers[at].conn, std::mem::take(&mut self.servers[at].learners_asked));
        let mut done = Vec::new();
        for add in asked {
            let source = self.servers[at].replicas[&add.chunk].clone();
            let target = self.server_mut(add.learner.server);
            target.write(add.chunk, add.version, add.config, source.applied.0, source.digest);
            let (chunk, version, config, learner) = (add.chunk, add.version, add.config, add.learner);
            let ready = LearnerReady { chunk, version, config, learner, ready: true };
            if self.ask(conn, &ready).is_ok() {
                done.push(add.learner.server);
            }
        }
        done
    }

    /// The primary fills what it was asked to, unless something changed meanwhile.
    pub(crate) fn fill_some(&mut self, primary: ServerNum) {
        let at = self.at(primary);
        let (conn, asked) = (self.servers[at].conn, std::mem::take(&mut self.servers[at].learners_asked));
        for add in asked {
            let (chunk, version, config, learner) = (add.chunk, add.version, add.config, add.learner);
            let source = self.servers[at].replicas.get(&chunk);
            let current =
                source.filter(|here| here.active && (here.version, here.config) == (version, config));
            let Some(source) = current.cloned() else { continue };
            let target = self.server_mut(learner.server);
            let ready = target.alive && !target.cut_off && target.boot == learner.boot;
            if ready {
                target.write(chunk, version, config, source.applied.0, source.digest);
                if let Some(replica) = target.replicas.get_mut(&chunk) {
                    (replica.active, replica.synced) = (false, source.synced);
                }
            }
            let _ = self.ask(conn, &LearnerReady { chunk, version, config, learner, ready });
        }
    }

    /// A client comes back with what it has open.
    pub(crate) fn resume(&mut self, client: Client, opens: Vec<OpenClaim>) -> Client {
        let conn = self.connect(Role::Client);
        let (session, seen_term, seen_index) = (client.session, Term(0), LogIndex(0));
        self.ask(conn, &ResumeSession { session, seen_term, seen_index, opens, recover: false }).unwrap();
        let client = Client { conn, ..client };
        self.clients.push(client);
        client
    }

    // ------------------------------------------------------------ the master's restart

    /// The process dies and starts again from its snapshot and log; every connection breaks. The last
    /// `lost` records were not on the disk.
    pub(crate) fn restart(&mut self, lost: usize) {
        self.entries.truncate(self.entries.len() - lost);
        let recovered = self.recovered();
        self.core = Core::new(self.config.clone(), recovered, now_at(self.now_ms)).unwrap();
        self.clients.clear();
        self.answers.clear();
        self.input(Input::Tick);
        assert!(self.core.is_leading());
    }

    /// A process that starts from what is on the disk now has a state of this hash.
    pub(crate) fn snapshot_is_equal(&self, hash: u64) {
        let core = Core::new(self.config.clone(), self.recovered(), now_at(self.now_ms)).unwrap();
        assert_eq!(core.state().hash(), hash);
    }

    fn recovered(&self) -> Recovered {
        let snapshot = self.snapshot.as_ref().map(|(index, term, sections, blocks)| {
            let mut reader = ImageReader::new(sections).unwrap();
            blocks.iter().for_each(|(section, block)| reader.block(*section, block).unwrap());
            let conf = ConfState::of(&[NodeId(1)]);
            RecoveredSnapshot { index: *index, term: *term, conf, image: reader.finish().unwrap() }
        });
        let base = snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.index);
        let entries = self.entries.iter().filter(|entry| entry.index > base).cloned().collect();
        Recovered { snapshot, entries, hard_state: self.hard_state }
    }

    pub(crate) fn rejoin_all(&mut self) {
        for at in 0..self.servers.len() {
            if self.servers[at].alive && !self.servers[at].cut_off {
                self.join(at).unwrap();
            }
        }
    }

    pub(crate) fn meta(&self, chunk: ChunkId) -> dfs_master::core::chunks::ChunkMeta {
        self.core.state().chunks.get(chunk).unwrap()
    }

    pub(crate) fn epoch(&self, ino: Ino) -> dfs_proto::ids::SizeEpoch {
        self.core.state().ns.getattr(ino).unwrap().size_epoch
    }

    pub(crate) fn member(&self, num: ServerNum) -> Member {
        Member { server: num, boot: self.server(num).boot }
    }
}
