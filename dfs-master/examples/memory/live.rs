//! A master in this process: the real core over the real log and snapshots, driven as the binary drives
//! it, on one thread and without sockets. Its three servers and its client are only the messages that they
//! would send.
//!
//! Every step is timed by itself; the log's writes and syncs are timed apart from it.

use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs_disk::real::RealDisk;
use dfs_master::core::{ConnId, Core, Effect, Input, Now, Peer, ReqId};
use dfs_master::log::{EntryId, Identity, LogWriter, Record, SnapshotError, SnapshotStore};
use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, LogIndex, OsBootId, RequestId, SessionId};
use dfs_proto::meta::{KeepAlive, OpenSession};
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;
use rustix::time::{ClockId, clock_gettime};

use crate::clock;
use crate::meter::{Cost, Samples};
use crate::servers::Servers;
use crate::start::Started;

/// As the binary ticks.
const TICK: Duration = Duration::from_millis(50);
/// How often servers and client are heard of.
const BEAT: Duration = Duration::from_secs(1);
/// The time of day runs ahead so that stamps use all their digits: one step of it a request.
const WALL_STEP_NS: u64 = 1_234_567;

/// Steps that were taken while a snapshot was taken and written.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    pub(crate) wall: Samples,
    /// The same in the thread's own time on a processor, without what else the machine did.
    pub(crate) cpu: Samples,
}

/// What becomes of a snapshot that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Snapshots {
    Write,
    /// Never written: the process is about to end.
    Lose,
}

type Written = (LogIndex, Result<EntryId, SnapshotError>);

#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) core: Core,
    log: LogWriter<RealDisk>,
    disk: RealDisk,
    identity: Identity,
    inputs: VecDeque<Input>,
    reply: Option<(ReqId, Status, Bytes)>,
    servers: Servers,
    client: ConnId,
    session: SessionId,
    last_rid: u64,
    /// Answers that the client has not acknowledged.
    pub(crate) unacknowledged: u64,
    next: u64,
    wall_steps: u64,
    core_time: Duration,
    log_time: Duration,
    pub(crate) pause: Option<Pause>,
    pub(crate) snapshots: Snapshots,
    writing: Option<JoinHandle<Written>>,
    /// Snapshots asked for.
    pub(crate) due: u32,
    pub(crate) snapshot_at: LogIndex,
    ticked: Instant,
    beaten: Instant,
}

impl Live {
    /// Takes up what was started, until it leads.
    pub(crate) fn new(started: Started) -> Live {
        let Started { core, log, disk, identity } = started;
        let mut live = Live {
            core,
            log,
            disk,
            identity,
            inputs: VecDeque::new(),
            reply: None,
            servers: Servers::default(),
            client: ConnId(0),
            session: SessionId(0),
            last_rid: 0,
            unacknowledged: 0,
            next: 0,
            wall_steps: 0,
            core_time: Duration::ZERO,
            log_time: Duration::ZERO,
            pause: None,
            snapshots: Snapshots::Write,
            writing: None,
            due: 0,
            snapshot_at: LogIndex(0),
            ticked: Instant::now(),
            beaten: Instant::now(),
        };
        while !live.core.is_leading() {
            live.input(Input::Tick);
        }
        live
    }

    /// Connects three servers and a client.
    pub(crate) fn populate(&mut self) {
        for id in 1..=3 {
            let conn = self.connect(Role::ChunkServer);
            let num = self.ask(conn, &Servers::register(id)).num;
            self.servers.add(conn, id, num);
            self.ask(conn, &Servers::inventory(id));
        }
        self.beat();
        self.client = self.connect(Role::Client);
        let open = OpenSession { name: "host:/mnt".into(), os_boot: OsBootId(9), recover: false };
        self.session = self.ask(self.client, &open).session;
        self.tick();
    }

    /// Servers that hold every chunk come back to a master that started anew; gives each part's step.
    pub(crate) fn come_back(&mut self) -> Samples {
        let mut steps = Samples::default();
        for id in 1..=3 {
            let conn = self.connect(Role::ChunkServer);
            let num = self.ask(conn, &Servers::register(id)).num;
            self.servers.add(conn, id, num);
            let mut from = Some(ChunkId(0));
            while let Some(next) = from {
                let (part, last) = Servers::inventory_of(id, self.core.state().chunks.iter_from(next));
                self.core_time = Duration::ZERO;
                self.ask(conn, &part);
                steps.add(self.core_time);
                from = last.map(|last| ChunkId(last.0 + 1));
                self.housekeeping();
            }
            self.beat();
        }
        steps
    }

    fn connect(&mut self, role: Role) -> ConnId {
        let conn = ConnId(self.number());
        let peer = Peer { role, name: "peer".into(), server: None, boot: None };
        self.input(Input::Connected { conn, peer });
        conn
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A client's request, answered before this returns; its cost goes to `cost`.
    pub(crate) fn client<R: Request>(&mut self, cost: &mut Cost, request: &R) -> R::Reply {
        self.housekeeping();
        (self.core_time, self.log_time) = (Duration::ZERO, Duration::ZERO);
        let reply = self.ask(self.client, request);
        cost.add(self.core_time, self.log_time);
        reply
    }

    fn ask<R: Request>(&mut self, conn: ConnId, request: &R) -> R::Reply {
        let body = Bytes::from(rmp_serde::to_vec_named(request).expect("a request serialises"));
        let (rid, done) = if R::MUTATION {
            self.last_rid += 1;
            (self.last_rid, self.last_rid.saturating_sub(self.unacknowledged).max(1))
        } else {
            (0, 0)
        };
        let req = ReqId(self.number());
        self.wall_steps += 1;
        self.input(Input::Request { conn, req, op: R::OP, rid: RequestId(rid), done: RequestId(done), body });
        match self.reply.take() {
            Some((to, Status::Ok, body)) if to == req => {
                rmp_serde::from_slice(&body).expect("a reply of its kind")
            }
            other => panic!("{:?} came to {other:?}", R::OP),
        }
    }

    fn now(&self) -> Now {
        let Now { mono, mut wall } = clock::now();
        let ns = self.wall_steps * WALL_STEP_NS + u64::from(wall.nsec);
        wall.sec += i64::try_from(ns / 1_000_000_000).unwrap_or(0);
        wall.nsec = u32::try_from(ns % 1_000_000_000).unwrap_or(0);
        Now { mono, wall }
    }

    fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        let mut effects = Vec::new();
        while let Some(input) = self.inputs.pop_front() {
            let now = self.now();
            let cpu = self.pause.is_some().then(thread_time);
            let start = Instant::now();
            self.core.step(now, input, &mut effects);
            let took = start.elapsed();
            self.core_time += took;
            if let (Some(pause), Some(cpu)) = (&mut self.pause, cpu) {
                pause.wall.add(took);
                pause.cpu.add(thread_time().saturating_sub(cpu));
            }
            for effect in effects.drain(..) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { number, entries, hard_state, must_sync } => {
                let start = Instant::now();
                let hard_state = hard_state.map(Record::HardState).into_iter();
                let batch: Vec<Record> = hard_state.chain(entries.into_iter().map(Record::Entry)).collect();
                self.log.append(&batch).expect("the log is written");
                self.log_time += start.elapsed();
                self.inputs.push_back(Input::Persisted { number });
                if must_sync {
                    self.sync();
                }
            }
            Effect::Reply { req, status, body, .. } => self.reply = Some((req, status, body)),
            Effect::Call { conn, call, op, body, .. } => {
                let result = match op {
                    Op::Apply => Ok(self.servers.apply(conn, &body)),
                    _ => Err(Status::Deadline),
                };
                self.inputs.push_back(Input::Answer { call, result });
            }
            Effect::Notify { .. } | Effect::CloseConn { .. } | Effect::LogLoad { .. } => {}
            Effect::Snapshot { index, term, image } => {
                self.due += 1;
                if self.snapshots == Snapshots::Lose {
                    return;
                }
                let id = EntryId { index, term };
                let store = SnapshotStore::new(self.disk.clone(), &self.identity);
                self.writing = Some(std::thread::spawn(move || {
                    let write = || {
                        let mut writer = store.begin(id, image.conf(), image.sections())?;
                        image.write(&mut |section, block| writer.block(section, block))?;
                        writer.finish()?;
                        store.prune(index)
                    };
                    let older = write();
                    drop(image);
                    (older.as_ref().ok().copied().flatten().unwrap_or_default(), older.map(|_| id))
                }));
            }
        }
    }

    fn sync(&mut self) {
        let position = self.log.sync().expect("the log is synced");
        self.inputs.push_back(Input::Durable { index: position.entry.index });
        if let Some(plan) = self.log.wants_spare() {
            self.log.give_spare(plan.run().expect("room for the next segment"));
        }
    }

    /// What other threads of the binary do between requests.
    fn housekeeping(&mut self) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end_snapshot();
        }
        if self.ticked.elapsed() >= TICK {
            self.tick();
        }
        if self.beaten.elapsed() >= BEAT {
            self.beat();
        }
    }

    fn tick(&mut self) {
        self.ticked = Instant::now();
        self.sync();
        self.input(Input::Tick);
    }

    fn beat(&mut self) {
        self.beaten = Instant::now();
        for (conn, heartbeat) in self.servers.heartbeats(self.now().mono) {
            let reply = self.ask(conn, &heartbeat);
            self.servers.applied(conn, &reply.events);
        }
        if self.session != SessionId(0) {
            self.ask(self.client, &KeepAlive { servers_epoch: 0 });
        }
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Waits for the snapshot that is being written, if one is.
    pub(crate) fn end_snapshot(&mut self) {
        let Some(thread) = self.writing.take() else { return };
        let (older, written) = thread.join().expect("the snapshot's thread");
        let EntryId { index, term } = written.expect("the snapshot is written");
        if older != LogIndex(0) {
            self.log.prune(older).run().expect("old segments go");
        }
        self.snapshot_at = index;
        self.input(Input::SnapshotDone { index, term });
    }

    /// Ends as a crash does. What is left: nothing but the files.
    pub(crate) fn crash(mut self) -> Core {
        self.sync();
        self.core
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (sec, nsec) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(sec, nsec)
}
