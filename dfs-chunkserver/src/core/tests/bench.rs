//! The bench itself.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use dfs_disk::sim::SimDisk;
use dfs_proto::checksum::crc32c;
use dfs_proto::chunk::{Capability, ForwardKind, Member, Range, Rights, SyncChunk, WriteMeta};
use dfs_proto::control::{
    ActiveConfig, AddLearner, Apply, Fence, FenceAnswer, FenceChunk, HeartbeatReply, LearnerReady, OpRecord,
    Registered, ReportTrouble, ServerEvent, Zero,
};
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, Ino, KeyId, LogIndex, OpId,
    OpenNum, OsBootId, Seq, ServerId, ServerNum, SessionId, SizeEpoch, Term,
};
use dfs_proto::key::IssuedKey;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, ChunkSize, MasterMs, Micros};

use crate::core::io::{
    CallToken, DiskIx, DiskSetup, DiskTask, Effect, Identity, Input, PeerAnswer, PeerToken, Reply, Stamp,
};
use crate::core::{Core, ReadEnd, ReadRequest, ReadStart};
use crate::exec::{self, Context};
use crate::store::{Expect, Label, ReadMode, Store, StoreConfig};

pub(crate) const CHUNK: ChunkId = ChunkId(7);
pub(crate) const CHUNK_SIZE: u32 = 64 << 10;
pub(crate) const TERM: Term = Term(1);
const CLUSTER: ClusterId = ClusterId(1);
const LEASE_MS: u64 = 6_000;
const CONTEXT: Context = Context { os_boot: OsBootId(5), now_s: 0 };

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) store: Store<SimDisk>,
    pub(crate) disk: SimDisk,
    pub(crate) boot: BootId,
    events: u64,
    told_read_only: bool,
}

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Disk {
        on: ServerNum,
        task: DiskTask,
    },
    /// Any message between servers; `call` is what it is at the receiver.
    Peer {
        from: ServerNum,
        to: Member,
        token: PeerToken,
        input: Input,
    },
    Committed {
        to: Member,
        input: Input,
    },
    Answer {
        to: ServerNum,
        token: PeerToken,
        answer: PeerAnswer,
    },
}

pub(crate) struct Bench {
    chunk_size: ChunkSize,
    pub(crate) now: Micros,
    pub(crate) nodes: BTreeMap<ServerNum, Node>,
    queue: VecDeque<Packet>,
    pub(crate) held: Vec<Packet>,
    hold: Option<fn(&Packet) -> bool>,
    /// Whose messages reach nobody.
    pub(crate) cut: Vec<ServerNum>,
    next_call: u64,
    /// Peer calls at their receiver.
    calls: BTreeMap<CallToken, (ServerNum, PeerToken)>,
    pub(crate) replies: BTreeMap<CallToken, Reply>,
    pub(crate) retry_reads: Vec<CallToken>,
    pub(crate) troubles: Vec<(ServerNum, ReportTrouble)>,
    pub(crate) learners: Vec<LearnerReady>,
    /// What registrations say: capabilities that end by then are of before.
    pub(crate) given_since: MasterMs,
    /// Bytes that fills sent.
    pub(crate) filled: usize,
    /// Bytes that learners fetched.
    pub(crate) pulled: usize,
    /// Bytes of checksums that fills sent to be compared.
    pub(crate) compared: usize,
}

/// The same of all servers here; that each has its own, other tests see to.
pub(crate) fn key() -> IssuedKey {
    IssuedKey::derive(&[3; 16], ServerNum(1), KeyId(1))
}

pub(crate) fn sealed(cap: Capability) -> Capability {
    cap.sealed(key().seal(&cap))
}

fn active(version: u32, config: u32, members: Vec<Member>) -> ActiveConfig {
    ActiveConfig {
        chunk: CHUNK,
        version: ChunkVersion(version),
        config: ConfigNum(config),
        open_num: OpenNum(1),
        size_epoch: SizeEpoch(0),
        members,
        ino: Ino(2),
        index: ChunkIndex(0),
        ops: Vec::new(),
        seq: Seq(0),
        closed: false,
        lossy: ChunkVersion(0),
    }
}

pub(crate) fn num(n: u16) -> ServerNum {
    ServerNum(n)
}

impl Bench {
    /// `n` servers, numbered from 1, registered and with a lease.
    pub(crate) fn new(n: u16) -> Bench {
        Bench::with_chunks_of(CHUNK_SIZE, n)
    }

    pub(crate) fn with_chunks_of(chunk_size: u32, n: u16) -> Bench {
        let mut bench = Bench {
            chunk_size: ChunkSize::try_from(chunk_size).unwrap(),
            now: Micros(1_000_000),
            nodes: BTreeMap::new(),
            queue: VecDeque::new(),
            held: Vec::new(),
            hold: None,
            cut: Vec::new(),
            next_call: 0,
            calls: BTreeMap::new(),
            replies: BTreeMap::new(),
            retry_reads: Vec::new(),
            troubles: Vec::new(),
            learners: Vec::new(),
            given_since: MasterMs(0),
            filled: 0,
            pulled: 0,
            compared: 0,
        };
        for n in 1..=n {
            bench.start(num(n), SimDisk::new(u64::from(n), 1 << 30), BootId(u64::from(n) * 100), true);
        }
        bench
    }

    fn start(&mut self, server: ServerNum, disk: SimDisk, boot: BootId, fresh: bool) {
        let label = Label {
            cluster: CLUSTER,
            generation: Generation(1),
            disk: DiskId(u128::from(server.0)),
            server: ServerId(u128::from(server.0)),
        };
        if fresh {
            Store::init(&disk, &label).unwrap();
        }
        let config = StoreConfig { chunk_size: self.chunk_size, open_files: 100 };
        let expect = Expect { cluster: CLUSTER, server: None, os_boot: CONTEXT.os_boot };
        let (store, opened) = Store::open(disk.clone(), expect, config).unwrap();
        let found = exec::found(&opened, DiskIx(0), CONTEXT.os_boot);
        let identity =
            Identity { boot, generation: Generation(1), max_term: Term(0), max_index: LogIndex(0) };
        let scrub = exec::scrub_mark(&store, CONTEXT.now_s);
        let setup = DiskSetup { id: label.disk, free_bytes: 1 << 30, scrub };
        let core = Core::new(identity, vec![setup], &found);
        self.nodes.insert(server, Node { core, store, disk, boot, events: 0, told_read_only: false });
        self.register(server);
        self.beat(server);
    }

    /// Kills the process and starts another on the same disk.
    pub(crate) fn restart(&mut self, server: ServerNum) {
        let old = self.nodes.remove(&server).unwrap();
        old.disk.crash_process();
        let (disk, boot) = (old.disk.reopen(), BootId(old.boot.0 + 1));
        drop(old);
        self.queue.retain(|packet| !matches!(packet, Packet::Disk { on, .. } if *on == server));
        self.start(server, disk, boot, false);
    }

    pub(crate) fn register(&mut self, server: ServerNum) {
        let body = Registered {
            num: server,
            cluster: CLUSTER,
            generation: Generation(1),
            term: TERM,
            chunk_size: self.chunk_size,
            lease_ms: LEASE_MS,
            heartbeat_ms: 1000,
            key: key(),
            given_since: self.given_since,
        };
        self.nodes.get_mut(&server).unwrap().events = 0;
        self.step(server, Input::Registered(body));
    }

    /// A heartbeat, answered.
    pub(crate) fn beat(&mut self, server: ServerNum) {
        let body = HeartbeatReply {
            t_send: self.now,
            granted: true,
            term: TERM,
            now: MasterMs(self.now.as_ms()),
            durable: LogIndex(1),
            events: Vec::new(),
            key: None,
        };
        self.step(server, Input::Heartbeat(body));
    }

    pub(crate) fn member(&self, n: u16) -> Member {
        Member { server: num(n), boot: self.nodes[&num(n)].boot }
    }

    pub(crate) fn members(&self, list: &[u16]) -> Vec<Member> {
        list.iter().map(|n| self.member(*n)).collect()
    }

    pub(crate) fn cap(&self, version: u32, config: u32) -> Capability {
        Capability {
            chunk: CHUNK,
            session: SessionId(1),
            ino: Ino(2),
            index: ChunkIndex(0),
            expires: MasterMs(self.now.as_ms() + 30_000),
            version: ChunkVersion(version),
            config: ConfigNum(config),
            open_num: OpenNum(1),
            size_epoch: SizeEpoch(0),
            rights: Rights { read: true, write: true },
            key: KeyId(0),
            mac: [0; 16],
        }
    }

    fn call(&mut self) -> CallToken {
        self.next_call += 1;
        CallToken(self.next_call)
    }

    /// Sends something that is answered, and lets everything run.
    pub(crate) fn ask(&mut self, server: u16, input: impl FnOnce(CallToken) -> Input) -> CallToken {
        let call = self.call();
        self.step(num(server), input(call));
        self.run();
        call
    }

    /// A write of one byte value, with its op id.
    pub(crate) fn write(&mut self, at: u16, cap: Capability, op: u64, range: Range, byte: u8) -> CallToken {
        self.write_new(at, cap, op, range, byte, Vec::new())
    }

    pub(crate) fn write_new(
        &mut self,
        at: u16,
        cap: Capability,
        op: u64,
        range: Range,
        byte: u8,
        create: Vec<Member>,
    ) -> CallToken {
        let payload = Bytes::from(vec![byte; range.len as usize]);
        let crcs = part_crcs(range, &payload);
        let done = OpId(op.saturating_sub(8).max(1));
        let meta = WriteMeta {
            capability: sealed(cap),
            op: OpId(op),
            done,
            ranges: vec![range],
            crcs,
            zeros: false,
            create,
            note: None,
        };
        self.ask(at, |call| Input::Write { call, meta, payload })
    }

    /// A write of zeros, with its op id.
    pub(crate) fn punch(&mut self, at: u16, cap: Capability, op: u64, range: Range) -> CallToken {
        let meta = WriteMeta {
            capability: sealed(cap),
            op: OpId(op),
            done: OpId(op.saturating_sub(8).max(1)),
            ranges: vec![range],
            crcs: Vec::new(),
            zeros: true,
            create: Vec::new(),
            note: None,
        };
        self.ask(at, |call| Input::Write { call, meta, payload: Bytes::new() })
    }

    /// The first write of a chunk on these servers.
    pub(crate) fn create(&mut self, members: &[u16]) {
        let create = self.members(members);
        let call =
            self.write_new(members[0], self.cap(1, 1), 1, Range { offset: 0, len: CHUNK_SIZE }, 1, create);
        assert_eq!(self.replies[&call], Reply::Written { chunk: CHUNK, seq: Seq(1), cut: None });
    }

    pub(crate) fn sync(&mut self, at: u16, cap: Capability) -> CallToken {
        let chunks = vec![SyncChunk { capability: sealed(cap), since: cap.version }];
        self.ask(at, |call| Input::Sync { call, chunks })
    }

    pub(crate) fn fence(&mut self, at: u16, version: u32) -> Option<FenceAnswer> {
        let chunks = vec![FenceChunk { chunk: CHUNK, version: ChunkVersion(version) }];
        let call = self.ask(at, |call| Input::Fence { call, body: Fence { term: TERM, chunks } });
        match self.replies.get(&call) {
            Some(Reply::Fenced(fenced)) => Some(fenced.answers[0].clone()),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    pub(crate) fn active(&mut self, to: &[u16], version: u32, config: u32, members: Vec<Member>) {
        self.active_with(to, version, config, members, Vec::new(), Seq(0));
    }

    /// The members are what they were, and the chunk is closed.
    pub(crate) fn confirm_closed(&mut self, to: &[u16], members: Vec<Member>) {
        let body = ActiveConfig { closed: true, ..active(1, 1, members) };
        for n in to {
            self.event(*n, ServerEvent::Active(body.clone()));
        }
    }

    pub(crate) fn active_with(
        &mut self,
        to: &[u16],
        version: u32,
        config: u32,
        members: Vec<Member>,
        ops: Vec<OpRecord>,
        seq: Seq,
    ) {
        let body = ActiveConfig { ops, seq, ..active(version, config, members) };
        for n in to {
            self.event(*n, ServerEvent::Active(body.clone()));
        }
    }

    pub(crate) fn event(&mut self, to: u16, event: ServerEvent) {
        let node = self.nodes.get_mut(&num(to)).unwrap();
        node.events += 1;
        let events = vec![(node.events, event)];
        let applied = node.events;
        let call = self.ask(to, |call| Input::Apply { call, body: Apply { term: TERM, events } });
        assert_eq!(self.replies[&call], Reply::Applied { applied });
    }

    pub(crate) fn add_learner(&mut self, at: u16, version: u32, config: u32, learner: u16) {
        let body = AddLearner {
            term: TERM,
            chunk: CHUNK,
            version: ChunkVersion(version),
            config: ConfigNum(config),
            learner: self.member(learner),
        };
        let call = self.ask(at, |call| Input::AddLearner { call, body });
        assert_eq!(self.replies[&call], Reply::Done);
    }

    pub(crate) fn zero(&mut self, at: u16, offset: u32, epoch: u32) -> CallToken {
        let body = Zero {
            term: TERM,
            chunk: CHUNK,
            version: ChunkVersion(1),
            config: ConfigNum(1),
            open_num: OpenNum(1),
            offset,
            size_epoch: SizeEpoch(epoch),
        };
        self.ask(at, |call| Input::Zero { call, body })
    }

    /// A whole read of a block: its first byte, or why not.
    pub(crate) fn read(&mut self, at: u16, cap: Capability, block: u32) -> Result<u8, Status> {
        let request = read_of(cap, block);
        let now = self.now;
        let node = self.nodes.get_mut(&num(at)).unwrap();
        match node.core.begin_read(now, &request) {
            ReadStart::Refused(status) => Err(status),
            ReadStart::Nothing(_) => Ok(0),
            ReadStart::Wait => Err(Status::Busy),
            ReadStart::Go(ticket) => {
                let Range { offset, len } = ticket.range;
                let blocks = node.store.read(CHUNK, offset, len, ReadMode::MayBlock);
                let result = blocks.as_ref().map(|_| ()).map_err(exec::fault_of);
                let mut effects = Vec::new();
                let end = node.core.end_read(now, &ticket, result, &mut effects);
                effects.into_iter().for_each(|effect| self.effect(num(at), effect));
                match end {
                    ReadEnd::Send(Stamp { .. }) => Ok(blocks.unwrap().data.first().copied().unwrap_or(0)),
                    ReadEnd::Again => Err(Status::Overloaded),
                    ReadEnd::Refused(status) => Err(status),
                }
            }
        }
    }

    /// Keeps back what fits, from now on.
    pub(crate) fn hold(&mut self, what: fn(&Packet) -> bool) {
        self.hold = Some(what);
    }

    /// Lets what was kept back go.
    pub(crate) fn release(&mut self) {
        self.hold = None;
        let held = std::mem::take(&mut self.held);
        self.queue.extend(held);
        self.run();
    }

    /// Lets time pass, with heartbeats for these.
    pub(crate) fn pass(&mut self, ms: u64, beating: &[u16]) {
        for _ in 0..ms {
            self.now = self.now.plus_ms(1);
            if self.now.as_ms().is_multiple_of(1000) {
                beating.iter().for_each(|n| self.beat(num(*n)));
            }
            let due: Vec<ServerNum> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.core.next_wake().is_some_and(|at| at <= self.now))
                .map(|(server, _)| *server)
                .collect();
            due.into_iter().for_each(|server| self.step(server, Input::Tick));
            self.run();
        }
    }

    pub(crate) fn step(&mut self, server: ServerNum, input: Input) {
        let mut effects = Vec::new();
        let now = self.now;
        self.nodes.get_mut(&server).unwrap().core.step(now, input, &mut effects);
        for effect in effects {
            self.effect(server, effect);
        }
    }

    fn effect(&mut self, from: ServerNum, effect: Effect) {
        match effect {
            Effect::Disk(task) => self.queue.push_back(Packet::Disk { on: from, task }),
            Effect::Forward { to, token, meta, payload } => {
                if meta.kind == ForwardKind::Fill {
                    self.filled += payload.len();
                }
                if meta.kind == ForwardKind::Compare {
                    self.compared += meta.crcs.len() * 4;
                }
                let call = self.peer_call(from, token);
                let input = Input::Forward { call, meta, payload };
                self.queue.push_back(Packet::Peer { from, to, token, input });
            }
            Effect::ForwardSync { to, token, chunks, digest } => {
                let call = self.peer_call(from, token);
                let input = Input::ForwardSync { call, chunks, digest };
                self.queue.push_back(Packet::Peer { from, to, token, input });
            }
            Effect::Committed { to, chunks } => {
                self.queue.push_back(Packet::Committed { to, input: Input::Committed(chunks) });
            }
            Effect::AskMend { to, ask } => {
                self.queue.push_back(Packet::Committed { to, input: Input::AskMend(ask) });
            }
            Effect::Reply { call, reply } => self.reply(call, reply),
            Effect::RetryRead { call } => self.retry_reads.push(call),
            Effect::Trouble(report) => self.troubles.push((from, report)),
            Effect::LearnerReady(report) => self.learners.push(report),
            Effect::Reregister => {}
        }
    }

    fn peer_call(&mut self, from: ServerNum, token: PeerToken) -> CallToken {
        let call = self.call();
        self.calls.insert(call, (from, token));
        call
    }

    fn reply(&mut self, call: CallToken, reply: Reply) {
        let Some((to, token)) = self.calls.remove(&call) else {
            assert!(self.replies.insert(call, reply).is_none(), "answered twice");
            return;
        };
        let answer = match reply {
            Reply::Failed(status) => PeerAnswer::Refused(status),
            Reply::Synced { results, digest } => PeerAnswer::Synced { results, digest },
            Reply::Compared(bits) => PeerAnswer::Compared(bits),
            Reply::Stock { entries, data } => {
                self.pulled += data.len();
                PeerAnswer::Stock { entries, data }
            }
            _ => PeerAnswer::Ok,
        };
        self.queue.push_back(Packet::Answer { to, token, answer });
    }

    /// Until nothing is on its way but what is held.
    pub(crate) fn run(&mut self) {
        while let Some(packet) = self.queue.pop_front() {
            if self.hold.is_some_and(|hold| hold(&packet)) {
                self.held.push(packet);
            } else {
                self.deliver(packet);
            }
        }
    }

    pub(crate) fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::Disk { on, task } => {
                let node = self.nodes.get_mut(&on).unwrap();
                let done = exec::execute(&node.store, CONTEXT, &task.op);
                if node.store.suspect() && !std::mem::replace(&mut node.told_read_only, true) {
                    self.step(on, Input::DiskReadOnly { disk: DiskIx(0) });
                }
                self.step(on, Input::Disk { token: task.token, done });
            }
            Packet::Peer { from, to, token, input } => {
                if self.cut.contains(&from)
                    || self.cut.contains(&to.server)
                    || !self.nodes.contains_key(&to.server)
                {
                    self.step(from, Input::Peer { token, answer: PeerAnswer::Silent });
                } else {
                    self.step(to.server, input);
                }
            }
            Packet::Committed { to, input } => {
                if !self.cut.contains(&to.server) {
                    self.step(to.server, input);
                }
            }
            Packet::Answer { to, token, answer } => self.step(to, Input::Peer { token, answer }),
        }
    }

    /// All replicas of these servers, byte for byte.
    pub(crate) fn assert_equal(&self, servers: &[u16]) {
        let tables: Vec<_> =
            servers.iter().map(|n| self.nodes[&num(*n)].store.table(CHUNK).unwrap()).collect();
        for table in &tables {
            assert_eq!(table, &tables[0]);
        }
        for n in servers {
            assert!(self.nodes[&num(*n)].store.verify(CHUNK).unwrap().bad.is_empty());
        }
    }
}

pub(crate) fn read_of(cap: Capability, block: u32) -> ReadRequest {
    ReadRequest { capability: sealed(cap), range: Range { offset: block * 4096, len: 4096 } }
}

fn part_crcs(range: Range, data: &[u8]) -> Vec<u32> {
    let mut crcs = Vec::new();
    let mut at = range.offset;
    while at < range.end() {
        let end = (at / 4096 * 4096 + 4096).min(range.end());
        let (from, to) = ((at - range.offset) as usize, (end - range.offset) as usize);
        crcs.push(crc32c(&data[from..to]).0);
        at = end;
    }
    crcs
}

pub(crate) fn is_forward_to(packet: &Packet, server: u16) -> bool {
    matches!(packet, Packet::Peer { to, .. } if to.server == num(server))
}

pub(crate) fn is_disk_of(packet: &Packet, server: u16) -> bool {
    matches!(packet, Packet::Disk { on, .. } if *on == num(server))
}
