//! A chunk server's process: the production core over the production store on a simulated disk. It does
//! what the binary's driver does; disk operations take effect at times drawn by chance, in any order, as
//! they do on a disk's threads.

mod master_link;
mod oracle;
mod requests;

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_chunkserver::core::io::{
    CallToken, DiskDone, DiskIx, DiskOp, DiskSetup, DiskTask, DiskToken, Effect, Identity, Input, PeerAnswer,
    PeerToken,
};
use dfs_chunkserver::core::{Core, ReadRequest, ReadTicket};
use dfs_chunkserver::exec::{self, Context};
use dfs_chunkserver::store::{Expect, Label, ReadBlocks, Store, StoreConfig};
use dfs_disk::sim::{Call, SimDisk};
use dfs_proto::chunk::{Committed, ForwardKind, ForwardSync, Member, Synced, entries_from_bytes};
use dfs_proto::conn::Role;
use dfs_proto::frame::Outgoing;
use dfs_proto::header::{Header, Words};
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, DiskId, Generation, OsBootId, ServerId, ServerNum,
};
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkSize, Micros};

use super::fabric::{CallEnd, CallRef, ConnRef, Fabric, Happening, Links, Node, Who};
use master_link::MasterLink;
use oracle::Oracle;

/// One try of a message to another server.
const PEER_DEADLINE_US: u64 = 2_000_000;
/// That of a learner which fetches from members.
const PULL_DEADLINE_US: u64 = 8_000_000;

/// What never changes about a server.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub num: u16,
    pub cluster: ClusterId,
    pub chunk_size: ChunkSize,
}

/// A chunk server across its restarts.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    node: Node,
    id: ServerId,
    disk: SimDisk,
    os_boot: OsBootId,
    running: Option<Box<Running>>,
}

#[derive(Debug)]
struct Running {
    node: Node,
    who: Who,
    core: Core,
    store: Store<SimDisk>,
    /// Syncs of its disk fail.
    failing: bool,
    told_read_only: bool,
    context: Context,
    disk_id: DiskId,
    server: ServerId,
    cluster: ClusterId,
    boot: BootId,
    master: MasterLink,
    peers: Links,
    peer_calls: BTreeMap<CallRef, PeerCall>,
    /// Requests that are owed a reply.
    calls: BTreeMap<CallToken, (ConnRef, Header)>,
    next: u64,
    reads: BTreeMap<CallToken, ReadRequest>,
    todo: BTreeMap<u64, Todo>,
    /// When the core is woken next.
    wake: Option<Micros>,
    oracle: Oracle,
}

/// What a timer is for.
#[derive(Debug)]
enum Todo {
    Disk(DiskTask),
    DiskDone(DiskToken, DiskDone),
    Read(CallToken, ReadTicket),
    ReadEnd(CallToken, ReadTicket, Result<ReadBlocks, dfs_chunkserver::core::io::DiskFault>),
    Wake,
    Heartbeat,
    Redial,
}

#[derive(Debug)]
enum PeerCall {
    Forward(PeerToken),
    Sync(PeerToken),
}

impl Server {
    /// A server with an empty disk, made and not yet started.
    ///
    /// # Errors
    /// When the disk can't be made.
    pub fn init(setup: Setup, disk: SimDisk, fabric: &mut Fabric) -> Result<Server, String> {
        let id = ServerId(u128::from(setup.num) + 1);
        let label = Label {
            cluster: setup.cluster,
            generation: Generation(1),
            disk: DiskId(0x1000 + u128::from(setup.num)),
            server: id,
        };
        Store::init(&disk, &label).map_err(|error| error.to_string())?;
        // The process that made it is gone, and its lock with it.
        disk.crash_process();
        let os_boot = OsBootId(u128::from(fabric.rng.bits()));
        Ok(Server { setup, node: Node::Server(setup.num), id, disk, os_boot, running: None })
    }

    /// The same server on another disk, which holds what was just made of an equal setup.
    #[must_use]
    pub fn with_disk(setup: Setup, disk: SimDisk, fabric: &mut Fabric) -> Server {
        let os_boot = OsBootId(u128::from(fabric.rng.bits()));
        let id = ServerId(u128::from(setup.num) + 1);
        Server { setup, node: Node::Server(setup.num), id, disk, os_boot, running: None }
    }

    #[must_use]
    pub fn node(&self) -> Node {
        self.node
    }

    #[must_use]
    pub fn os_boot(&self) -> OsBootId {
        self.os_boot
    }

    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The store of the running process, for oracles.
    #[must_use]
    pub fn store(&self) -> Option<&Store<SimDisk>> {
        self.running.as_ref().map(|running| &running.store)
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The version at which clients are served of a chunk now, by a lease that is valid; `None` too where the machine
    /// stood still since that was asked for, which only R4 makes up for.
    #[must_use]
    pub fn serves(&self, fabric: &Fabric, chunk: ChunkId) -> Option<ChunkVersion> {
        let running = self.running.as_ref()?;
        let asked = running.oracle.serves_by(running.now(fabric))?;
        running.core.serves(chunk).filter(|_| !fabric.stood_still(self.node, asked))
    }

    /// Its number, while it runs and once a master gave it one.
    #[must_use]
    pub fn server_num(&self) -> Option<ServerNum> {
        self.running.as_ref()?.core.server_num()
    }

    /// Its number, and the replicas that it deleted since this was asked last.
    pub fn take_trashed(&mut self) -> Option<(ServerNum, Vec<ChunkId>)> {
        let running = self.running.as_mut()?;
        Some((running.core.server_num()?, std::mem::take(&mut running.oracle.trashed)))
    }

    /// Whether its disk failed replicas since this was asked last: with them went what of them was not synced.
    pub fn lost_replicas(&mut self) -> bool {
        let Some(running) = self.running.as_mut() else { return false };
        let failed = running.store.metrics().failed;
        std::mem::replace(&mut running.oracle.failed, failed) < failed
    }

    /// From now on every sync of its disk fails, until its next process starts.
    pub fn fail_syncs(&mut self) {
        self.disk.fail(Call::Sync, "");
        if let Some(running) = &mut self.running {
            running.failing = true;
        }
    }

    /// Whether its process, or one before it under the same kernel, saw a sync fail, or may see it.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.failing || running.store.suspect())
    }

    /// Whether its disk stopped under it, as a fault had it.
    #[must_use]
    pub fn struck(&self) -> bool {
        self.running.is_some() && self.disk.stopped()
    }

    /// Opens the disk and starts the process.
    ///
    /// # Errors
    /// When the disk is refused.
    pub fn start(&mut self, fabric: &mut Fabric) -> Result<(), String> {
        let clock = match fabric.has_kernel(self.node) {
            true => fabric.clock(self.node),
            false => fabric.new_clock(),
        };
        let expect = Expect { cluster: self.setup.cluster, server: Some(self.id), os_boot: self.os_boot };
        let config = StoreConfig { chunk_size: self.setup.chunk_size, ..StoreConfig::default() };
        let (store, opened) = Store::open(self.disk.reopen(), expect, config)
            .map_err(|error| format!("{}: {error}", self.num()))?;
        fabric.start(self.node, clock);
        let marks = store.mhwm();
        let boot = BootId(fabric.rng.bits());
        let (generation, max_term, max_index) = (marks.generation, marks.max_term, marks.max_meta_index);
        let identity = Identity { boot, generation, max_term, max_index };
        let disk_id = store.label().disk;
        let space = store.space().map_err(|error| error.to_string())?;
        let scrub = exec::scrub_mark(&store, fabric.now_us() / 1_000_000);
        let disks = vec![DiskSetup { id: disk_id, free_bytes: space.free, scrub }];
        let core = Core::new(identity, disks, &exec::found(&opened, DiskIx(0), self.os_boot));
        let who = Who {
            node: self.node,
            role: Role::ChunkServer,
            name: self.num(),
            server: None,
            boot: Some(boot),
        };
        self.running = Some(Box::new(Running {
            node: self.node,
            who,
            core,
            store,
            failing: false,
            told_read_only: false,
            context: Context { os_boot: self.os_boot, now_s: fabric.now_us() / 1_000_000 },
            disk_id,
            server: self.id,
            cluster: self.setup.cluster,
            boot,
            master: MasterLink::default(),
            peers: Links::default(),
            peer_calls: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
            reads: BTreeMap::new(),
            todo: BTreeMap::new(),
            wake: None,
            oracle: Oracle::default(),
        }));
        if let Some(running) = &mut self.running {
            running.look_at_disk(fabric);
            running.step(
                fabric,
                Input::DiskSpace { disk: DiskIx(0), total_bytes: space.total, free_bytes: space.free },
            );
            running.dial_master(fabric);
        }
        Ok(())
    }

    fn num(&self) -> String {
        format!("server-{}", self.setup.num)
    }

    /// kill -9, or the power fails.
    pub fn stop(&mut self, fabric: &mut Fabric, power: bool) {
        fabric.stop(self.node, !power);
        self.running = None;
        if power {
            self.disk.power_cut();
            self.os_boot = OsBootId(u128::from(fabric.rng.bits()));
        } else {
            self.disk.crash_process();
        }
    }

    /// Something happened to the process.
    pub fn happening(&mut self, fabric: &mut Fabric, what: Happening) {
        let Some(running) = &mut self.running else { return };
        match what {
            Happening::Opened { conn, .. } => fabric.welcome(self.node, conn),
            Happening::Dialled { dial, conn, refused } => {
                if !running.master_dialled(fabric, dial, conn) {
                    running.peers.dialled(fabric, self.node, dial, conn, refused);
                }
            }
            Happening::Frame { conn, frame } => running.request(fabric, conn, frame),
            Happening::Answered { call, end } => running.answered(fabric, call, end),
            Happening::Closed { conn } => {
                running.peers.closed(conn);
                running.master_closed(fabric, conn);
                running.calls.retain(|_, (of, _)| *of != conn);
            }
            Happening::Timer(number) => {
                if let Some(todo) = running.todo.remove(&number) {
                    running.due(fabric, todo);
                }
            }
        }
    }
}

impl Running {
    fn now(&self, fabric: &Fabric) -> Micros {
        fabric.clock_of(self.node)
    }

    fn later(&mut self, fabric: &mut Fabric, delay_us: u64, todo: Todo) {
        self.next += 1;
        self.todo.insert(self.next, todo);
        fabric.timer(self.node, delay_us, self.next);
    }

    fn step(&mut self, fabric: &mut Fabric, input: Input) {
        let now = self.now(fabric);
        let mut effects = Vec::new();
        self.core.step(now, input, &mut effects);
        for effect in effects {
            self.perform(fabric, effect);
        }
        if let Some(at) = self.core.next_wake()
            && self.wake.is_none_or(|wake| at < wake)
        {
            self.wake = Some(at);
            let delay = fabric.clock(self.node).until(at, fabric.now_us());
            self.later(fabric, delay, Todo::Wake);
        }
    }

    fn look_at_disk(&mut self, fabric: &mut Fabric) {
        if self.store.suspect() && !std::mem::replace(&mut self.told_read_only, true) {
            self.step(fabric, Input::DiskReadOnly { disk: DiskIx(0) });
        }
    }

    fn due(&mut self, fabric: &mut Fabric, todo: Todo) {
        match todo {
            Todo::Disk(task) => {
                let done = exec::execute(&self.store, self.context, &task.op);
                if let (DiskOp::Trash { chunk, .. }, DiskDone::Done) = (&task.op, &done) {
                    self.oracle.trashed.push(*chunk);
                }
                let delay = if fabric.rng.coin() { 0 } else { fabric.between(1, 500) };
                self.later(fabric, delay, Todo::DiskDone(task.token, done));
            }
            Todo::DiskDone(token, done) => {
                self.look_at_disk(fabric);
                self.step(fabric, Input::Disk { token, done });
            }
            Todo::Read(call, ticket) => self.read_disk(fabric, call, ticket),
            Todo::ReadEnd(call, ticket, read) => self.end_read(fabric, call, &ticket, read),
            Todo::Wake => {
                self.wake = None;
                self.step(fabric, Input::Tick);
            }
            Todo::Heartbeat => self.heartbeat(fabric),
            Todo::Redial => self.dial_master(fabric),
        }
    }

    fn perform(&mut self, fabric: &mut Fabric, effect: Effect) {
        match effect {
            Effect::Disk(task) => {
                let delay = disk_delay_us(fabric);
                self.later(fabric, delay, Todo::Disk(task));
            }
            Effect::Forward { to, token, meta, payload } => {
                let words = Words { word0: meta.chunk.0, ..Words::default() };
                let out =
                    Outgoing::new(Op::Forward).with_words(words).with_meta(Bytes::from(meta.to_bytes()));
                let limit = if meta.kind == ForwardKind::Pull { PULL_DEADLINE_US } else { PEER_DEADLINE_US };
                self.call_peer(fabric, to, out.with_payload(payload), PeerCall::Forward(token), limit);
            }
            Effect::ForwardSync { to, token, chunks, digest } => {
                // Whether the digest is wanted, and the digest, travel in the words of this driver.
                let words = Words { word2: u32::from(digest), ..Words::default() };
                let out = encoded(&ForwardSync { chunks }).with_words(words);
                self.call_peer(fabric, to, out, PeerCall::Sync(token), PEER_DEADLINE_US);
            }
            Effect::Committed { to, chunks } => {
                if let Some(node) = fabric.server_of(to.server) {
                    self.peers.notify(fabric, &self.who, node, encoded(&Committed { chunks }));
                }
            }
            Effect::AskMend { to, ask } => {
                if let Some(node) = fabric.server_of(to.server) {
                    self.peers.notify(fabric, &self.who, node, encoded(&ask));
                }
            }
            Effect::Reply { call, reply } => self.reply(fabric, call, reply),
            Effect::RetryRead { call } => {
                if let Some(request) = self.reads.get(&call).copied() {
                    self.begin_read(fabric, call, request);
                }
            }
            Effect::Trouble(report) => self.tell_master(fabric, encoded(&report)),
            Effect::LearnerReady(ready) => self.learner_ready(fabric, ready),
            Effect::Reregister => self.register(fabric),
        }
    }

    fn call_peer(&mut self, fabric: &mut Fabric, to: Member, out: Outgoing, what: PeerCall, limit_us: u64) {
        let Some(node) = fabric.server_of(to.server) else {
            let token = match what {
                PeerCall::Forward(token) | PeerCall::Sync(token) => token,
            };
            self.step(fabric, Input::Peer { token, answer: PeerAnswer::Silent });
            return;
        };
        let call = self.peers.call(fabric, &self.who, node, out, limit_us);
        self.peer_calls.insert(call, what);
    }

    fn answered(&mut self, fabric: &mut Fabric, call: CallRef, end: CallEnd) {
        let Some(what) = self.peer_calls.remove(&call) else {
            self.master_answered(fabric, call, end);
            return;
        };
        let (token, answer) = match (what, end) {
            (PeerCall::Forward(token), CallEnd::Reply(frame)) => (
                token,
                match frame.header.status {
                    Status::Ok if !frame.meta.is_empty() => stock_of(&frame),
                    Status::Ok if !frame.payload.is_empty() => PeerAnswer::Compared(frame.payload),
                    Status::Ok => PeerAnswer::Ok,
                    status => PeerAnswer::Refused(status),
                },
            ),
            (PeerCall::Sync(token), CallEnd::Reply(frame)) => (token, synced(&frame)),
            (PeerCall::Forward(token) | PeerCall::Sync(token), CallEnd::Unreachable { dead: true }) => {
                (token, PeerAnswer::Dead)
            }
            (
                PeerCall::Forward(token) | PeerCall::Sync(token),
                CallEnd::Deadline | CallEnd::Closed | CallEnd::Unreachable { dead: false },
            ) => (token, PeerAnswer::Silent),
        };
        self.step(fabric, Input::Peer { token, answer });
    }
}

/// A member's blocks, if what came is whole.
fn stock_of(frame: &dfs_proto::frame::Frame) -> PeerAnswer {
    match entries_from_bytes(&frame.meta, frame.payload.len()) {
        Some(entries) => PeerAnswer::Stock { entries, data: frame.payload.clone() },
        None => PeerAnswer::Refused(Status::Malformed),
    }
}

fn synced(frame: &dfs_proto::frame::Frame) -> PeerAnswer {
    if frame.header.status != Status::Ok {
        return PeerAnswer::Refused(frame.header.status);
    }
    let Ok(Synced { results }) = frame.decode() else { return PeerAnswer::Refused(Status::Malformed) };
    let words = frame.header.words;
    let digest = (words.word2 == 1).then(|| u128::from(words.word0) << 64 | u128::from(words.word1));
    PeerAnswer::Synced { results, digest }
}

/// A message as it travels. Messages of this process always encode.
fn encoded<R: Request>(request: &R) -> Outgoing {
    Outgoing::request(request).expect("a message of our own encodes")
}

/// How long a disk takes: mostly its cache, now and then the platter, seldom a stall.
fn disk_delay_us(fabric: &mut Fabric) -> u64 {
    match fabric.rng.below(400) {
        0 => fabric.between(20_000, 400_000),
        1..40 => fabric.between(1_000, 15_000),
        _ => fabric.between(10, 300),
    }
}

/// The highest of a server's chunks.
fn max_chunk(core: &Core) -> Option<ChunkId> {
    core.inventory().iter().map(|replica| replica.chunk).max()
}
