//! The driver: takes requests, answers and timers to the core, and its effects to disks, peers, callers and
//! the master. The core's lock is held for one step at a time, never across I/O or a send.
//!
//! Effects are carried out in their order on the thread that brought the input, so a FORWARD leaves before
//! the own disk is written.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use dfs_proto::chunk::Committed;
use dfs_proto::conn::Responder;
use dfs_proto::control::{LearnerReady, ReportTrouble};
use dfs_proto::header::Header;
use dfs_proto::units::Micros;
use tokio::sync::{Notify, mpsc};

use crate::clock;
use crate::core::Core;
use crate::core::io::{CallToken, DiskOp, DiskTask, Effect, Input, PeerAnswer, PeerToken, Reply};
use crate::disks::{DiskHandle, Inline};
use crate::load::LoadMeter;
use crate::peers::Peers;
use crate::reads::ReadCall;

/// Most reports to the master that wait to be sent; what stands is reported again.
pub(crate) const REPORTS_MAX: usize = 1024;

/// One chunk server process.
pub(crate) struct Server {
    state: Mutex<State>,
    pub(crate) disks: Vec<Arc<DiskHandle>>,
    /// Set once, before anything is served: the pool's handler is the server itself.
    peers: OnceLock<Peers>,
    pub(crate) load: LoadMeter,
    reports: mpsc::Sender<Report>,
    /// The master has to be registered with again.
    pub(crate) reregister: AtomicBool,
    pub(crate) runtime: tokio::runtime::Handle,
    /// When the timer task wakes by itself.
    armed: AtomicU64,
    rearm: Notify,
}

/// What the core wants the master to know.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Report {
    Trouble(ReportTrouble),
    Learner(LearnerReady),
}

struct State {
    core: Core,
    next_call: u64,
    calls: HashMap<CallToken, Owed>,
}

/// A request that the core has.
pub(crate) enum Owed {
    Call(OwedCall),
    Read(ReadCall),
}

/// What is needed to answer.
pub(crate) struct OwedCall {
    pub(crate) reply: Responder,
    pub(crate) header: Header,
    pub(crate) began: Micros,
}

impl Server {
    pub(crate) fn new(
        core: Core,
        disks: Vec<Arc<DiskHandle>>,
        load: LoadMeter,
        reports: mpsc::Sender<Report>,
        runtime: tokio::runtime::Handle,
    ) -> Server {
        Server {
            state: Mutex::new(State { core, next_call: 0, calls: HashMap::new() }),
            disks,
            peers: OnceLock::new(),
            load,
            reports,
            reregister: AtomicBool::new(false),
            runtime,
            armed: AtomicU64::new(u64::MAX),
            rearm: Notify::new(),
        }
    }

    pub(crate) fn set_peers(&self, peers: Peers) {
        drop(self.peers.set(peers));
    }

    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.peers.get()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the core something.
    pub(crate) fn with_core<T>(&self, ask: impl FnOnce(&mut Core) -> T) -> T {
        ask(&mut self.state().core)
    }

    /// Takes a request to the core.
    pub(crate) fn request(
        self: &Arc<Self>,
        reply: Responder,
        header: Header,
        input: impl FnOnce(CallToken) -> Input,
    ) {
        let began = clock::now();
        let mut effects = Vec::new();
        let owed = {
            let mut state = self.state();
            let call = state.own(Owed::Call(OwedCall { reply, header, began }));
            state.step(began, input(call), &mut effects)
        };
        self.perform_all(effects, owed);
    }

    /// Takes anything else to the core.
    pub(crate) fn input(self: &Arc<Self>, input: Input) {
        let mut effects = Vec::new();
        let owed = self.state().step(clock::now(), input, &mut effects);
        self.perform_all(effects, owed);
    }

    /// Carries out effects, and what follows from those that were done at once.
    pub(crate) fn perform_all(self: &Arc<Self>, effects: Vec<Effect>, owed: Vec<Owed>) {
        self.arm();
        let mut inputs = Vec::new();
        self.perform(effects, owed, &mut inputs);
        while !inputs.is_empty() {
            let (mut effects, mut owed) = (Vec::new(), Vec::new());
            {
                let mut state = self.state();
                for input in inputs.drain(..) {
                    owed.append(&mut state.step(clock::now(), input, &mut effects));
                }
            }
            self.arm();
            self.perform(effects, owed, &mut inputs);
        }
    }

    fn perform(self: &Arc<Self>, effects: Vec<Effect>, owed: Vec<Owed>, inputs: &mut Vec<Input>) {
        let mut owed = owed.into_iter();
        for effect in effects {
            match effect {
                Effect::Disk(task) => inputs.extend(self.disk(task)),
                Effect::Forward { to, token, meta, payload } => {
                    let server = Arc::clone(self);
                    let call = async move {
                        match server.peers() {
                            Some(peers) => peers.forward(to, meta, payload).await,
                            None => PeerAnswer::Silent,
                        }
                    };
                    inputs.extend(self.ask_peer(token, Box::pin(call)));
                }
                Effect::ForwardSync { to, token, chunks, digest } => {
                    let server = Arc::clone(self);
                    let call = async move {
                        match server.peers() {
                            Some(peers) => peers.sync(to, chunks, digest).await,
                            None => PeerAnswer::Silent,
                        }
                    };
                    inputs.extend(self.ask_peer(token, Box::pin(call)));
                }
                Effect::Committed { to, chunks } => {
                    if let Some(peers) = self.peers() {
                        peers.committed(to, Committed { chunks });
                    }
                }
                Effect::AskMend { to, ask } => {
                    let server = Arc::clone(self);
                    self.runtime.spawn(async move {
                        if let Some(peers) = server.peers() {
                            peers.ask_mend(to, ask).await;
                        }
                    });
                }
                Effect::Reply { call: _, reply } => match owed.next() {
                    Some(Owed::Call(call)) => self.reply(call, &reply),
                    Some(Owed::Read(read)) => self.refuse_read(read, &reply),
                    None => {}
                },
                Effect::RetryRead { call: _ } => match owed.next() {
                    Some(Owed::Read(read)) => self.serve_read(read),
                    Some(Owed::Call(_)) | None => {}
                },
                Effect::Trouble(report) => self.report(Report::Trouble(report)),
                Effect::LearnerReady(report) => self.report(Report::Learner(report)),
                Effect::Reregister => self.reregister.store(true, Ordering::Relaxed),
            }
        }
    }

    fn report(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            log::warn!("the master is not told of trouble: too many reports wait");
        }
    }

    /// Tells the core of disks that turned read-only by what it did not ask for: closing files.
    pub(crate) fn look_at_disks(self: &Arc<Self>) {
        for (at, disk) in self.disks.iter().enumerate() {
            if disk.turned_read_only() {
                self.input(Input::DiskReadOnly { disk: crate::startup::disk_ix(at) });
            }
        }
    }

    /// Does the operation now if it is quick, else on the disk's threads.
    fn disk(self: &Arc<Self>, task: DiskTask) -> Option<Input> {
        let DiskTask { disk: at, token, op } = task;
        let disk = self.disks.get(usize::from(at.0))?;
        let then = {
            let (server, handle) = (Arc::clone(self), Arc::clone(disk));
            move |done| {
                // Before what follows from the operation that found out.
                if handle.turned_read_only() {
                    server.input(Input::DiskReadOnly { disk: at });
                }
                server.input(Input::Disk { token, done });
            }
        };
        if matches!(op, DiskOp::Scrub { hurried: false, .. }) {
            disk.submit_idle(op, then);
            return None;
        }
        match disk.try_inline(op) {
            Inline::Done(done) => Some(Input::Disk { token, done }),
            Inline::NotNow(op) => {
                disk.submit(op, then);
                None
            }
        }
    }

    /// Sends at once, on this thread; a task only waits for the answer.
    fn ask_peer(
        self: &Arc<Self>,
        token: PeerToken,
        mut call: Pin<Box<dyn Future<Output = PeerAnswer> + Send>>,
    ) -> Option<Input> {
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(Input::Peer { token, answer }),
            Poll::Pending => {
                let server = Arc::clone(self);
                self.runtime.spawn(async move {
                    let answer = call.await;
                    server.input(Input::Peer { token, answer });
                });
                None
            }
        }
    }

    fn reply(&self, call: OwedCall, reply: &Reply) {
        let took = Micros(clock::now().0.saturating_sub(call.began.0));
        self.load.end(call.header.op, took, !matches!(reply, Reply::Failed(_)));
        if let Reply::Stock { data, .. } = reply {
            self.load.copy_leaves(clock::now(), data.len());
        }
        crate::dispatch::send_reply(call, reply, self.load.header());
    }

    /// Keeps a read that waits for a write; gives it back when too many do.
    pub(crate) fn park(&self, read: ReadCall) -> Option<ReadCall> {
        let mut state = self.state();
        let request = read.request;
        let call = state.own(Owed::Read(read));
        if state.core.park_read(call, &request) {
            return None;
        }
        match state.calls.remove(&call) {
            Some(Owed::Read(read)) => Some(read),
            Some(Owed::Call(_)) | None => None,
        }
    }

    fn arm(&self) {
        let next = self.state().core.next_wake().map_or(u64::MAX, |at| at.0);
        if next < self.armed.fetch_min(next, Ordering::Relaxed) {
            self.rearm.notify_one();
        }
    }

    /// Ticks the core when it is due, for ever.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self.state().core.next_wake();
            self.armed.store(next.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
            let now = clock::now();
            match next {
                Some(at) if at <= now => self.input(Input::Tick),
                Some(at) => {
                    let pause = std::time::Duration::from_micros(at.0 - now.0);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.rearm.notified() => {}
                    }
                }
                None => self.rearm.notified().await,
            }
        }
    }
}

impl State {
    fn own(&mut self, owed: Owed) -> CallToken {
        self.next_call += 1;
        let call = CallToken(self.next_call);
        self.calls.insert(call, owed);
        call
    }

    /// One step of the core, with whoever its effects answer, in their order.
    fn step(&mut self, now: Micros, input: Input, effects: &mut Vec<Effect>) -> Vec<Owed> {
        let from = effects.len();
        self.core.step(now, input, effects);
        let mut owed = Vec::new();
        for effect in &effects[from..] {
            if let Effect::Reply { call, .. } | Effect::RetryRead { call } = effect {
                // Every call is answered once, so its entry is there.
                owed.extend(self.calls.remove(call));
            }
        }
        owed
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("disks", &self.disks).finish_non_exhaustive()
    }
}
