//! The driver: hands what happens to the core and does what the core asks for. It decides nothing.
//!
//! One lock holds the core, the log's writer and what waits. Requests are stepped on the connection's own
//! reading task, so that an answer costs no hop between threads; everything in one step, the write to the
//! log included, takes microseconds. Only fdatasync and snapshots run elsewhere ([`sync`], [`snapshots`]).
//!
//! Lock order: the driver's lock is taken before nothing and holds nothing else while it waits.

mod copies;
mod held;
mod load_log;
mod ops;
mod service;
mod snapshots;
mod stats;
mod sync;
mod tool;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_disk::real::RealDisk;
use dfs_master::core::{After, CallNum, ConnId, Core, Effect, Input, Now, ReqId};
use dfs_master::log::{Identity, LogWriter, Record, RecordNum};
use dfs_proto::conn::{Conn, Responder};
use dfs_proto::frame::Outgoing;
use dfs_proto::ids::LogIndex;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::clock;
use crate::driver::held::Held;
use crate::driver::tool::Tool;

pub(crate) use load_log::LoadLog;
pub(crate) use service::Service;
pub(crate) use stats::Stats;

/// The driver, shared by the connections' tasks, the clock's task and the sync and snapshot threads.
#[derive(Debug)]
pub(crate) struct Driver {
    inner: Mutex<Inner>,
    /// Wakes the sync thread: there is something to sync.
    dirty: Condvar,
    disk: RealDisk,
    identity: Identity,
    runtime: tokio::runtime::Handle,
    copies: copies::Copies,
    load_log: Option<LoadLog>,
    stats: Stats,
}

#[derive(Debug)]
struct Inner {
    core: Core,
    log: LogWriter<RealDisk>,
    conns: HashMap<ConnId, Conn>,
    /// Requests that the core has not answered.
    waiting: HashMap<(ConnId, ReqId), Waiting>,
    /// Persist effects that are written and wait for a sync, with the last record of each.
    unsynced: VecDeque<(RecordNum, u64)>,
    /// Effects that wait for the log to be durable.
    held: Held,
    inputs: VecDeque<Input>,
    /// Requests by connection that were handed to the core, to number the next.
    next_req: u64,
    sync: sync::Want,
    snapshot_running: bool,
    /// Why the master can't go on.
    failed: Option<String>,
    stopping: bool,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    Peer {
        reply: Responder,
        op: Op,
        began: Micros,
    },
    /// This process itself.
    Here(Tool),
}

impl Driver {
    pub(crate) fn new(
        core: Core,
        log: LogWriter<RealDisk>,
        disk: RealDisk,
        identity: Identity,
        load_log: Option<LoadLog>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Driver> {
        let inner = Inner {
            core,
            log,
            conns: HashMap::new(),
            waiting: HashMap::new(),
            unsynced: VecDeque::new(),
            held: Held::default(),
            inputs: VecDeque::new(),
            next_req: 0,
            sync: sync::Want::Nothing,
            snapshot_running: false,
            failed: None,
            stopping: false,
        };
        let (inner, dirty, copies) = (Mutex::new(inner), Condvar::new(), copies::Copies::default());
        let stats = Stats::default();
        Arc::new(Driver { inner, dirty, disk, identity, runtime, copies, load_log, stats })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic inside a step is a bug in the core; the process aborts then (see main), so nobody sees a
        // half-made step through a poisoned lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Feeds one input and does all that follows from it.
    pub(crate) fn input(self: &Arc<Driver>, input: Input) {
        let mut inner = self.lock();
        inner.inputs.push_back(input);
        self.drive(&mut inner);
    }

    /// Hands a request over, with the means to answer it.
    fn request(
        self: &Arc<Driver>,
        conn: ConnId,
        (op, reply): (Op, Responder),
        build: impl FnOnce(ReqId) -> Input,
    ) {
        let mut inner = self.lock();
        let now = clock::now();
        let req = inner.number();
        inner.waiting.insert((conn, req), Waiting::Peer { reply, op, began: now.mono });
        inner.inputs.push_back(build(req));
        self.drive_from(&mut inner, Some(now));
    }

    fn drive(self: &Arc<Driver>, inner: &mut Inner) {
        self.drive_from(inner, None);
    }

    /// Feeds what there is; the first at `now`, if somebody has looked at the clock for it.
    fn drive_from(self: &Arc<Driver>, inner: &mut Inner, mut now: Option<Now>) {
        let mut effects = Vec::new();
        while let Some(input) = inner.inputs.pop_front() {
            if inner.failed.is_some() {
                return;
            }
            inner.core.step(now.take().unwrap_or_else(clock::now), input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(inner, effect);
            }
        }
    }

    fn perform(self: &Arc<Driver>, inner: &mut Inner, effect: Effect) {
        match effect {
            Effect::Persist { number, entries, hard_state, must_sync } => {
                // The hard state first: an entry of a new term follows the record of that term.
                let hard_state = hard_state.map(Record::HardState).into_iter();
                let batch: Vec<Record> = hard_state.chain(entries.into_iter().map(Record::Entry)).collect();
                self.persist(inner, number, &batch, must_sync);
            }
            Effect::Reply { conn, req, op, status, detail, body, dirs, words, after } => {
                let out = Outgoing { status, words, meta: body, ..Outgoing::new(op) }.with_payload(dirs);
                let send = Send::Reply { req, out, detail };
                self.send(inner, conn, after, send);
            }
            Effect::Call { conn, call, op, body, deadline_ms, after } => {
                let out = Outgoing::new(op).with_meta(body);
                let deadline = Duration::from_millis(u64::from(deadline_ms));
                self.send(inner, conn, after, Send::Call { call, out, deadline });
            }
            Effect::Notify { conn, op, body, after } => {
                self.send(inner, conn, after, Send::Notify { out: Outgoing::new(op).with_meta(body) });
            }
            Effect::Snapshot { index, term, image } => self.start_snapshot(inner, index, term, image),
            Effect::LogLoad { second } => {
                if let Some(log) = &self.load_log {
                    log.push(second);
                }
            }
            Effect::CloseConn { conn } => {
                if let Some(conn) = inner.conns.get(&conn) {
                    conn.close();
                }
            }
        }
    }

    fn persist(self: &Arc<Driver>, inner: &mut Inner, number: u64, batch: &[Record], must_sync: bool) {
        self.stats.records.add(batch.len() as u64);
        if let Err(error) = inner.log.append(batch) {
            self.fail(
                inner,
                &format!("cannot write the log: {error}; free space or replace the disk, then start again"),
            );
            return;
        }
        if must_sync {
            inner.unsynced.push_back((inner.log.written().record, number));
            self.want(inner, sync::Want::Now);
        } else {
            inner.inputs.push_back(Input::Persisted { number });
            self.want(inner, sync::Want::Soon);
        }
    }

    /// Sends now, or when the log is durable enough. What is held for a connection of a chunk server holds
    /// back what follows on it: its events have an order.
    fn send(self: &Arc<Driver>, inner: &mut Inner, conn: ConnId, after: After, send: Send) {
        let durable = inner.log.durable().entry.index;
        let index = match after {
            After::Durable(index) if index > durable => Some(index),
            After::Now | After::Durable(_) => None,
        };
        match inner.held.must_wait(conn, index, &send) {
            Some(index) => {
                inner.held.push(index, conn, send);
                self.want(inner, sync::Want::Now);
            }
            None => self.send_now(inner, conn, send),
        }
    }

    fn send_now(self: &Arc<Driver>, inner: &mut Inner, conn: ConnId, send: Send) {
        match send {
            Send::Reply { req, mut out, detail } => {
                let (reply, op, began) = match inner.waiting.remove(&(conn, req)) {
                    None => return,
                    Some(Waiting::Peer { reply, op, began }) => (reply, op, began),
                    Some(Waiting::Here(tool)) => return tool.answer(out, detail),
                };
                let took = clock::mono().0.saturating_sub(began.0);
                self.stats.ops.answered(op, took, out.status == Status::Ok);
                if out.status == Status::Ok {
                    reply.send(out);
                } else {
                    // The error's detail has a message of its own.
                    let words = out.words;
                    out = Outgoing { words, ..Outgoing::failure(out.op, out.status, &detail) };
                    reply.send(out);
                }
            }
            Send::Call { call, out, deadline } => {
                let Some(conn) = inner.conns.get(&conn).cloned() else {
                    inner.inputs.push_back(Input::Answer { call, result: Err(Status::Disconnected) });
                    return;
                };
                let driver = Arc::clone(self);
                self.runtime.spawn(async move {
                    let result = conn.call_frame(out, deadline).await;
                    let result = result.map(|frame| frame.meta).map_err(|error| error.status());
                    driver.input(Input::Answer { call, result });
                });
            }
            Send::Notify { out } => {
                if let Some(conn) = inner.conns.get(&conn)
                    && let Err(error) = conn.notify(out)
                {
                    log::debug!("{:?}: notify: {error}", conn.peer().addr);
                }
            }
        }
    }

    /// The log reached the disk up to `index`.
    fn durable(self: &Arc<Driver>, inner: &mut Inner, record: RecordNum, index: LogIndex) {
        while inner.unsynced.front().is_some_and(|(last, _)| *last <= record) {
            if let Some((_, number)) = inner.unsynced.pop_front() {
                inner.inputs.push_back(Input::Persisted { number });
            }
        }
        inner.inputs.push_back(Input::Durable { index });
        for (conn, send) in inner.held.release(index) {
            self.send_now(inner, conn, send);
        }
        self.drive(inner);
    }

    /// To be called about once a second: an idle log says that all of it is durable, so that damage to its last
    /// batch is not taken for a torn tail.
    pub(crate) fn note_idle(self: &Arc<Driver>) {
        let mut inner = self.lock();
        let before = inner.log.written();
        match inner.log.note_idle() {
            Ok(()) if inner.log.written() != before => self.want(&mut inner, sync::Want::Soon),
            Ok(()) => {}
            Err(error) => self.fail(&mut inner, &format!("cannot write the log: {error}")),
        }
    }

    /// The end: nothing that was not answered will be.
    fn fail(&self, inner: &mut Inner, why: &str) {
        log::error!("{why}");
        inner.failed.get_or_insert_with(|| why.to_owned());
        self.dirty.notify_all();
        for conn in inner.conns.values() {
            conn.close();
        }
    }

    /// Why the master can't go on, once it can't.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failed.clone()
    }
}

impl Inner {
    fn number(&mut self) -> ReqId {
        let req = ReqId(self.next_req);
        self.next_req += 1;
        req
    }
}

/// What goes to a peer.
#[derive(Debug)]
enum Send {
    Reply { req: ReqId, out: Outgoing, detail: String },
    Call { call: CallNum, out: Outgoing, deadline: Duration },
    Notify { out: Outgoing },
}

/// By index, then in order of arrival.
type Queue = BTreeMap<(LogIndex, u64), (ConnId, Send)>;
