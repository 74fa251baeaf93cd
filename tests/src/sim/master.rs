//! The master's process: the production core over the production log on a simulated disk. It does what the
//! binary's driver does, with each delay drawn by chance.

use std::collections::{BTreeMap, VecDeque};

use dfs_disk::sim::SimDisk;
use dfs_master::core::image::{ImageReader, StateImage};
use dfs_master::core::state::State;
use dfs_master::core::{
    After, CallNum, ConnId, Core, CoreConfig, Effect, Input, MetadataSync, Now, Peer, Recovered,
    RecoveredSnapshot, ReqId,
};
use dfs_master::log::{
    self, EntryId, Identity, LogConfig, LogWriter, Options, Record, RecordNum, SnapshotStore,
};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::CallId;
use dfs_proto::ids::{LogIndex, RequestId, Term};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;

use super::fabric::{CallEnd, CallRef, ConnRef, Fabric, Happening, Node};
use crate::model::Tick;

const ME: Node = Node::Master;
/// Records of up to a batch of recoveries fit; small, so that a run crosses segments.
const SEGMENT_BYTES: u64 = 128 << 10;
const TICK_US: u64 = 100_000;
/// How long an answer given after write(2) may run ahead of the disk.
const INTERVAL_US: u64 = 10_000;

const TIMER_TICK: u64 = 0;
const TIMER_SYNC: u64 = 1;
const TIMER_SNAPSHOT: u64 = 2;

/// The log's settings in every run.
#[must_use]
pub fn log_config() -> LogConfig {
    LogConfig::with_segments_of(SEGMENT_BYTES)
}

/// The master across its restarts.
#[derive(Debug)]
pub struct Master {
    disk: SimDisk,
    config: CoreConfig,
    running: Option<Running>,
    /// What a killed process had not synced was written from here on.
    unsynced_since: Option<Tick>,
    /// Wall-clock seconds at the start of the run.
    wall_zero: i64,
}

#[derive(Debug)]
struct Running {
    core: Core,
    log: LogWriter<SimDisk>,
    identity: Identity,
    waiting: BTreeMap<(ConnRef, ReqId), CallId>,
    next_req: u64,
    calls: BTreeMap<CallRef, CallNum>,
    unsynced: VecDeque<(RecordNum, u64)>,
    held: Vec<Held>,
    sync: Sync,
    snapshot: Option<(LogIndex, Term, StateImage)>,
    inputs: VecDeque<Input>,
    /// When each record that may not be on the disk was written.
    written: VecDeque<(LogIndex, Tick)>,
}

#[derive(Debug)]
struct Held {
    index: LogIndex,
    conn: ConnId,
    send: Send,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Sync {
    Idle,
    Soon,
    Running,
    /// Wanted again while one runs.
    Again,
}

#[derive(Debug)]
enum Send {
    Reply { req: ReqId, out: Outgoing, detail: String },
    Call { call: CallNum, out: Outgoing, deadline_us: u64 },
    Notify { out: Outgoing },
}

impl Send {
    fn is_reply(&self) -> bool {
        matches!(self, Send::Reply { .. })
    }
}

/// Why the master cannot start: each is a violation.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    #[error("the log: {0}")]
    Log(String),
    #[error("the core: {0}")]
    Core(String),
}

impl Master {
    /// A cluster's master, made and not yet started.
    ///
    /// # Errors
    /// When its directory can't be made.
    pub fn init(disk: SimDisk, config: CoreConfig) -> Result<Master, MasterError> {
        let identity = Identity {
            cluster: config.cluster,
            generation: config.generation,
            chunk_size: config.chunk_size,
            goal: config.goal,
            created: 0,
        };
        log::init(&disk, &identity, log_config()).map_err(|error| MasterError::Log(error.to_string()))?;
        // The process that made it is gone, and its lock with it.
        disk.crash_process();
        Ok(Master { disk, config, running: None, unsynced_since: None, wall_zero: 1_700_000_000 })
    }

    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// What the log says now, while the process runs.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.running.as_ref().map(|running| running.core.state())
    }

    /// Recovers the log and starts the process.
    ///
    /// # Errors
    /// When the log or the core refuses what the disk holds.
    pub fn start(&mut self, fabric: &mut Fabric) -> Result<(), MasterError> {
        let clock = match fabric.has_kernel(ME) {
            true => fabric.clock(ME),
            false => fabric.new_clock(),
        };
        fabric.start(ME, clock);
        let disk = self.disk.reopen();
        let log_error = |error: &dyn std::fmt::Display| MasterError::Log(error.to_string());
        let mut recovered = log::recover(&disk, Options::default()).map_err(|error| log_error(&error))?;
        let snapshot = loop {
            match load(&recovered) {
                Ok(snapshot) => break snapshot,
                Err(error @ log::SnapshotError::Io { .. }) => return Err(log_error(&error)),
                Err(error) => recovered = recovered.fall_back(error).map_err(|error| log_error(&error))?,
            }
        };
        let identity = *recovered.identity();
        let entries = recovered.replay(recovered.base().index).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|error| log_error(&error))?;
        let hard_state = recovered.hard_state();
        let log = recovered.into_writer(log_config()).map_err(|error| log_error(&error))?;
        let config = CoreConfig { seed: fabric.rng.bits(), ..self.config.clone() };
        let recovered = Recovered { snapshot, entries, hard_state };
        let now = self.now(fabric);
        let core = Core::new(config, recovered, now).map_err(|error| MasterError::Core(error.to_string()))?;
        self.running = Some(Running {
            core,
            log,
            identity,
            waiting: BTreeMap::new(),
            next_req: 0,
            calls: BTreeMap::new(),
            unsynced: VecDeque::new(),
            held: Vec::new(),
            sync: Sync::Idle,
            snapshot: None,
            inputs: VecDeque::new(),
            written: VecDeque::new(),
        });
        // Recovery synced what it found.
        self.unsynced_since = None;
        fabric.timer(ME, 0, TIMER_TICK);
        Ok(())
    }

    /// kill -9, or the power fails. Returns since when what was logged is lost, if anything is.
    pub fn stop(&mut self, fabric: &mut Fabric, power: bool) -> Option<Tick> {
        fabric.stop(ME, !power);
        let ended = self.running.take();
        let lost =
            ended.and_then(|running| running.written.front().map(|(_, tick)| *tick)).or(self.unsynced_since);
        self.unsynced_since = lost.filter(|_| !power);
        if power {
            self.disk.power_cut();
            lost.filter(|_| self.config.metadata_sync == MetadataSync::Interval)
        } else {
            self.disk.crash_process();
            None
        }
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its disk stopped under it, as a fault had it.
    #[must_use]
    pub fn struck(&self) -> bool {
        self.running.is_some() && self.disk.stopped()
    }

    fn now(&self, fabric: &Fabric) -> Now {
        let wall = fabric.now_us();
        let sec = self.wall_zero + i64::try_from(wall / 1_000_000).unwrap_or(0);
        let nsec = u32::try_from(wall % 1_000_000).unwrap_or(0) * 1000;
        Now { mono: fabric.clock_of(ME), wall: Timespec { sec, nsec } }
    }

    /// Something happened to the process. `tick` is the model's time.
    pub fn happening(&mut self, fabric: &mut Fabric, tick: Tick, what: Happening) {
        let now = self.now(fabric);
        let Some(running) = &mut self.running else { return };
        match what {
            Happening::Opened { conn, who } => {
                let peer = Peer { role: who.role, name: who.name, server: who.server, boot: who.boot };
                fabric.welcome(ME, conn);
                running.inputs.push_back(Input::Connected { conn: ConnId(conn.0), peer });
            }
            Happening::Frame { conn, frame } => running.request(fabric, conn, frame),
            Happening::Answered { call, end } => {
                let Some(call) = running.calls.remove(&call) else { return };
                running.inputs.push_back(Input::Answer { call, result: result_of(end) });
            }
            Happening::Closed { conn } => {
                running.waiting.retain(|(of, _), _| *of != conn);
                running.inputs.push_back(Input::Disconnected { conn: ConnId(conn.0) });
            }
            Happening::Timer(TIMER_TICK) => {
                fabric.timer(ME, TICK_US, TIMER_TICK);
                running.inputs.push_back(Input::Tick);
            }
            Happening::Timer(TIMER_SYNC) => running.sync_due(fabric),
            Happening::Timer(TIMER_SNAPSHOT) => running.write_snapshot(&self.disk),
            Happening::Timer(_) | Happening::Dialled { .. } => {}
        }
        running.drive(fabric, now, tick, &self.disk);
    }
}

impl Running {
    fn request(&mut self, fabric: &mut Fabric, conn: ConnRef, frame: Frame) {
        let header = frame.header;
        if header.op == Op::Ping {
            fabric.reply(ME, conn, header.call, Outgoing::reply_to(&header));
            return;
        }
        let req = ReqId(self.next_req);
        self.next_req += 1;
        self.waiting.insert((conn, req), header.call);
        self.inputs.push_back(Input::Request {
            conn: ConnId(conn.0),
            req,
            op: header.op,
            rid: RequestId(header.words.word0),
            done: RequestId(header.words.word1),
            body: frame.meta,
        });
    }

    fn drive(&mut self, fabric: &mut Fabric, now: Now, tick: Tick, disk: &SimDisk) {
        let mut effects = Vec::new();
        while let Some(input) = self.inputs.pop_front() {
            if disk.stopped() {
                return;
            }
            self.core.step(now, input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(fabric, tick, effect);
            }
        }
    }

    fn perform(&mut self, fabric: &mut Fabric, tick: Tick, effect: Effect) {
        match effect {
            Effect::Persist { number, entries, hard_state, must_sync } => {
                if let Some(last) = entries.last() {
                    self.written.push_back((last.index, tick));
                }
                // The hard state first: an entry of a new term follows the record of that term.
                let state = hard_state.map(Record::HardState).into_iter();
                let batch: Vec<Record> = state.chain(entries.into_iter().map(Record::Entry)).collect();
                self.persist(fabric, number, &batch, must_sync);
            }
            Effect::Reply { conn, req, op, status, detail, body, dirs, words, after } => {
                let out = Outgoing { status, words, meta: body, ..Outgoing::new(op) }.with_payload(dirs);
                self.send(fabric, conn, after, Send::Reply { req, out, detail });
            }
            Effect::Call { conn, call, op, body, deadline_ms, after } => {
                let out = Outgoing::new(op).with_meta(body);
                let deadline_us = u64::from(deadline_ms) * 1000;
                self.send(fabric, conn, after, Send::Call { call, out, deadline_us });
            }
            Effect::Notify { conn, op, body, after } => {
                self.send(fabric, conn, after, Send::Notify { out: Outgoing::new(op).with_meta(body) });
            }
            Effect::Snapshot { index, term, image } => {
                if self.snapshot.is_some() {
                    self.inputs.push_back(Input::SnapshotFailed { index });
                    return;
                }
                self.snapshot = Some((index, term, image));
                let delay = fabric.between(100, 100_000);
                fabric.timer(ME, delay, TIMER_SNAPSHOT);
            }
            Effect::CloseConn { conn } => fabric.close(ME, ConnRef(conn.0)),
            // Nothing rests on it.
            Effect::LogLoad { .. } => {}
        }
    }

    fn persist(&mut self, fabric: &mut Fabric, number: u64, batch: &[Record], must_sync: bool) {
        if self.log.append(batch).is_err() {
            // Its disk stopped, and the world is about to notice.
            return;
        }
        if must_sync {
            self.unsynced.push_back((self.log.written().record, number));
            self.want_now(fabric);
        } else {
            self.inputs.push_back(Input::Persisted { number });
            if self.sync == Sync::Idle {
                self.sync = Sync::Soon;
                fabric.timer(ME, INTERVAL_US, TIMER_SYNC);
            }
        }
    }

    fn want_now(&mut self, fabric: &mut Fabric) {
        match self.sync {
            Sync::Idle | Sync::Soon => {
                self.sync = Sync::Running;
                let delay = match fabric.one_in(50) {
                    true => fabric.between(5_000, 100_000),
                    false => fabric.between(50, 1_500),
                };
                fabric.timer(ME, delay, TIMER_SYNC);
            }
            Sync::Running => self.sync = Sync::Again,
            Sync::Again => {}
        }
    }

    fn sync_due(&mut self, fabric: &mut Fabric) {
        let again = match self.sync {
            Sync::Idle => return,
            Sync::Soon | Sync::Running => false,
            Sync::Again => true,
        };
        self.sync = Sync::Idle;
        let Ok(synced) = self.log.begin_sync().run() else { return };
        let position = self.log.synced(synced);
        while self.unsynced.front().is_some_and(|(last, _)| *last <= position.record) {
            if let Some((_, number)) = self.unsynced.pop_front() {
                self.inputs.push_back(Input::Persisted { number });
            }
        }
        let index = position.entry.index;
        while self.written.front().is_some_and(|(last, _)| *last <= index) {
            self.written.pop_front();
        }
        self.inputs.push_back(Input::Durable { index });
        let (ready, held) =
            std::mem::take(&mut self.held).into_iter().partition(|held: &Held| held.index <= index);
        self.held = held;
        let ready: Vec<Held> = ready;
        for held in ready {
            self.send_now(fabric, held.conn, held.send);
        }
        if let Some(plan) = self.log.wants_spare()
            && let Ok(spare) = plan.run()
        {
            self.log.give_spare(spare);
        }
        if again {
            self.want_now(fabric);
        }
    }

    fn send(&mut self, fabric: &mut Fabric, conn: ConnId, after: After, send: Send) {
        let durable = self.log.durable().entry.index;
        let own = match after {
            After::Durable(index) if index > durable => Some(index),
            After::Now | After::Durable(_) => None,
        };
        // What is held for a peer holds back what follows; replies may pass each other.
        let before = self.held.iter().filter(|held| held.conn == conn && !held.send.is_reply());
        let before = if send.is_reply() { None } else { before.map(|held| held.index).max() };
        match own.max(before) {
            Some(index) => {
                self.held.push(Held { index, conn, send });
                self.want_now(fabric);
            }
            None => self.send_now(fabric, conn, send),
        }
    }

    fn send_now(&mut self, fabric: &mut Fabric, conn: ConnId, send: Send) {
        let at = ConnRef(conn.0);
        match send {
            Send::Reply { req, out, detail } => {
                let Some(call) = self.waiting.remove(&(at, req)) else { return };
                let words = out.words;
                let out = match out.status {
                    Status::Ok => out,
                    status => Outgoing { words, ..Outgoing::failure(out.op, status, &detail) },
                };
                fabric.reply(ME, at, call, out);
            }
            Send::Call { call, out, deadline_us } => {
                let reference = fabric.call(ME, at, out, deadline_us);
                self.calls.insert(reference, call);
            }
            Send::Notify { out } => fabric.notify(ME, at, out),
        }
    }

    fn write_snapshot(&mut self, disk: &SimDisk) {
        let Some((index, term, image)) = self.snapshot.take() else { return };
        let input = match self.try_snapshot(disk, EntryId { index, term }, &image) {
            Ok(()) => Input::SnapshotDone { index, term },
            Err(_) => Input::SnapshotFailed { index },
        };
        self.inputs.push_back(input);
    }

    fn try_snapshot(
        &mut self,
        disk: &SimDisk,
        id: EntryId,
        image: &StateImage,
    ) -> Result<(), log::SnapshotError> {
        let store = SnapshotStore::new(disk.clone(), &self.identity);
        let mut writer = store.begin(id, image.conf(), image.sections())?;
        image.write(&mut |section, block| writer.block(section, block))?;
        writer.finish()?;
        if let Some(older) = store.prune(id.index)? {
            // A segment that could not be removed is tried again with the next snapshot.
            let _ = self.log.prune(older).run();
        }
        Ok(())
    }
}

fn result_of(end: CallEnd) -> Result<bytes::Bytes, Status> {
    match end {
        CallEnd::Reply(frame) if frame.header.status == Status::Ok => Ok(frame.meta),
        CallEnd::Reply(frame) => Err(frame.header.status),
        CallEnd::Deadline => Err(Status::Deadline),
        CallEnd::Closed | CallEnd::Unreachable { .. } => Err(Status::Disconnected),
    }
}

fn load(recovered: &log::Recovered<SimDisk>) -> Result<Option<RecoveredSnapshot>, log::SnapshotError> {
    let Some(mut blocks) = recovered.open_snapshot()? else { return Ok(None) };
    let meta = blocks.meta().clone();
    let broken = |error: &dyn std::fmt::Display| log::SnapshotError::Io {
        path: "snapshot".into(),
        source: std::io::Error::other(error.to_string()),
    };
    let mut image = ImageReader::new(&meta.sections).map_err(|error| broken(&error))?;
    while let Some(block) = blocks.next_block()? {
        image.block(block.section, &block.bytes).map_err(|error| broken(&error))?;
    }
    let image = image.finish().map_err(|error| broken(&error))?;
    Ok(Some(RecoveredSnapshot { index: meta.id.index, term: meta.id.term, conf: meta.conf, image }))
}
