//! What all nodes stand on: the queue of events, the clock, chance, and the network between them. It knows
//! frames, but not what they mean.
//!
//! Invariants: events are handled in the order of (time, number), so a seed gives one run; what two ends
//! sent on one connection in one direction arrives in that order, once, or not at all.

mod conns;
mod cuts;
mod links;

pub use conns::{CallEnd, CallRef, ConnRef, DialRef, Transit, Who};
pub use cuts::Cuts;
pub use links::Links;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use dfs_disk::sim::Rng;
use dfs_proto::frame::Frame;
use dfs_proto::ids::ServerNum;
use dfs_proto::units::Micros;

use super::trace::Trace;
use conns::Conns;

/// A process's place in the cluster. It keeps it across restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Node {
    Master,
    Server(u16),
    /// Never restarted: a new client takes a new number.
    Client(u16),
}

/// Which start of a node's process: what was meant for an earlier one is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Life(pub u32);

/// What happens to a process.
#[derive(Debug)]
pub enum Happening {
    /// A connection that another node dialled stands.
    Opened {
        conn: ConnRef,
        who: Who,
    },
    /// A dial of this node ended.
    Dialled {
        dial: DialRef,
        conn: Option<ConnRef>,
        refused: bool,
    },
    /// A request or a one-way message.
    Frame {
        conn: ConnRef,
        frame: Frame,
    },
    /// A call of this node ended.
    Answered {
        call: CallRef,
        end: CallEnd,
    },
    Closed {
        conn: ConnRef,
    },
    /// A timer of the node's own; it knows what for.
    Timer(u64),
}

/// What is due at some time.
#[derive(Debug)]
pub enum Event {
    To {
        node: Node,
        life: Life,
        what: Happening,
    },
    Net(Transit),
    /// The plan of faults goes on.
    Fault(usize),
}

#[derive(Debug, Default)]
struct Process {
    life: Life,
    up: bool,
    /// Its machine runs, with or without the process.
    kernel: bool,
    /// Stopped: what happens to it waits here.
    backlog: Option<Vec<Happening>>,
    /// To be stopped when it is next in the middle of something.
    stop_at_work: bool,
    /// Since when its whole machine stands still, its clock included.
    stalled_us: Option<u64>,
    /// What its clock showed when it last went on after that.
    went_on: Micros,
    /// Its clock against the simulation's.
    clock: Clock,
    /// Longer way to and from it: a slow link.
    slow_us: u64,
}

/// A clock with its own zero and its own rate, within the fault model's 1 %.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    zero_us: u64,
    /// Parts of a million that it runs fast (or slow, below zero).
    drift_ppm: i64,
    /// How long it stood still.
    stood_us: u64,
}

impl Clock {
    /// What it shows at `now_us` of the simulation.
    #[must_use]
    pub fn read(&self, now_us: u64) -> Micros {
        let now = i128::from(now_us.saturating_sub(self.stood_us));
        let shown = i128::from(self.zero_us) + now + now * i128::from(self.drift_ppm) / 1_000_000;
        Micros(u64::try_from(shown).unwrap_or(0))
    }

    /// How long until it shows `at`, rounded up.
    #[must_use]
    pub fn until(&self, at: Micros, now_us: u64) -> u64 {
        let left = i128::from(at.0) - i128::from(self.read(now_us).0);
        let real = left * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        u64::try_from(real + 1).unwrap_or(0)
    }
}

/// The ground of the simulation.
#[derive(Debug)]
pub struct Fabric {
    now_us: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    pub rng: Rng,
    pub trace: Trace,
    processes: BTreeMap<Node, Process>,
    conns: Conns,
    pub cuts: Cuts,
    /// Which clients run on a server's host.
    hosts: BTreeMap<Node, u16>,
    /// The numbers that the master gave to servers: every node can look them up.
    numbers: BTreeMap<ServerNum, Node>,
    /// Servers call themselves busy.
    pub heat: bool,
    /// Servers say that they have disks of so many bytes, and twice as many every other one: what files have there is a
    /// good part of it, and replicas move.
    pub disks_of: Option<u64>,
    /// An invariant that a node was seen to break, and how: the world ends the run.
    pub broken: Option<(&'static str, String)>,
}

impl Fabric {
    #[must_use]
    pub fn new(seed: u64, trace: Trace) -> Fabric {
        Fabric {
            now_us: 0,
            queue: BTreeMap::new(),
            next: 0,
            rng: Rng::new(seed),
            trace,
            processes: BTreeMap::new(),
            conns: Conns::default(),
            cuts: Cuts::default(),
            hosts: BTreeMap::new(),
            numbers: BTreeMap::new(),
            heat: false,
            disks_of: None,
            broken: None,
        }
    }

    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The time of the simulation as the node's own clock shows it.
    #[must_use]
    pub fn clock_of(&self, node: Node) -> Micros {
        self.processes.get(&node).map_or(Micros(self.now_us), |process| process.clock.read(self.now_us))
    }

    /// A node's process starts, with a clock from `clock`. What was meant for an earlier one is void.
    pub fn start(&mut self, node: Node, clock: Clock) -> Life {
        let process = self.processes.entry(node).or_default();
        process.life.0 += 1;
        process.up = true;
        process.kernel = true;
        process.backlog = None;
        process.clock = clock;
        process.went_on = Micros(0);
        // A machine that was down when it was to stand still.
        process.stalled_us = None;
        process.stop_at_work = false;
        process.life
    }

    /// A clock of a kernel that started lately.
    pub fn new_clock(&mut self) -> Clock {
        // Half the fault model's 1 %, so that two clocks together keep to it.
        let drift_ppm = i64::try_from(self.rng.below(10_001)).unwrap_or(0) - 5000;
        Clock { zero_us: 1_000_000 + self.rng.below(1 << 40), drift_ppm, stood_us: 0 }
    }

    #[must_use]
    pub fn clock(&self, node: Node) -> Clock {
        self.processes.get(&node).map(|process| process.clock).unwrap_or_default()
    }

    /// The process is gone. With its kernel alive, peers learn it at once.
    pub fn stop(&mut self, node: Node, kernel_alive: bool) {
        self.go_on(node);
        if let Some(process) = self.processes.get_mut(&node) {
            process.up = false;
            process.kernel = kernel_alive;
            process.backlog = None;
        }
        self.close_all(node, kernel_alive);
        if let Some(process) = self.processes.get_mut(&node) {
            process.life.0 += 1;
        }
    }

    #[must_use]
    pub fn has_kernel(&self, node: Node) -> bool {
        self.processes.get(&node).is_some_and(|process| process.kernel)
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: Node, to: Node) {
        self.cuts.cut(from, to);
    }

    /// Heals one direction; what was held on it goes on.
    pub fn heal(&mut self, from: Node, to: Node) {
        self.cuts.heal(from, to);
        self.release(from, to);
    }

    #[must_use]
    pub fn is_up(&self, node: Node) -> bool {
        self.processes.get(&node).is_some_and(|process| process.up)
    }

    #[must_use]
    pub fn is_paused(&self, node: Node) -> bool {
        self.processes.get(&node).is_some_and(|process| process.backlog.is_some())
    }

    /// SIGSTOP: from here on what happens to the process waits.
    pub fn pause(&mut self, node: Node) {
        if let Some(process) = self.processes.get_mut(&node) {
            process.backlog.get_or_insert_with(Vec::new);
        }
    }

    /// The same, but in the middle of the next thing that it does in two steps.
    pub fn pause_at_work(&mut self, node: Node) {
        if let Some(process) = self.processes.get_mut(&node) {
            process.stop_at_work = true;
        }
    }

    /// The node is between two steps.
    pub fn at_work(&mut self, node: Node) {
        let stops = |process: &mut Process| std::mem::take(&mut process.stop_at_work);
        if self.processes.get_mut(&node).is_some_and(stops) {
            self.pause(node);
        }
    }

    /// A virtual machine that is stopped: as [`Fabric::pause`], and its clock stands still.
    pub fn stall(&mut self, node: Node) {
        let now_us = self.now_us;
        if let Some(process) = self.processes.get_mut(&node).filter(|process| process.backlog.is_none()) {
            process.backlog = Some(Vec::new());
            process.stalled_us = Some(now_us);
        }
    }

    /// A machine that stood still goes on, without knowing.
    fn go_on(&mut self, node: Node) {
        let now_us = self.now_us;
        let Some(process) = self.processes.get_mut(&node) else { return };
        if let Some(since) = process.stalled_us.take() {
            process.clock.stood_us += now_us - since;
            process.went_on = process.clock.read(now_us);
        }
    }

    /// Whether the node's machine stood still since its clock showed `since`.
    #[must_use]
    pub fn stood_still(&self, node: Node, since: Micros) -> bool {
        let process = self.processes.get(&node);
        process.is_some_and(|process| process.stalled_us.is_some() || process.went_on >= since)
    }

    /// SIGCONT: what waited happens now, in order.
    pub fn resume(&mut self, node: Node) {
        self.go_on(node);
        let Some(process) = self.processes.get_mut(&node) else { return };
        process.stop_at_work = false;
        let life = process.life;
        for what in process.backlog.take().unwrap_or_default() {
            self.at(0, Event::To { node, life, what });
        }
    }

    pub fn set_slow(&mut self, node: Node, slow_us: u64) {
        self.processes.entry(node).or_default().slow_us = slow_us;
    }

    /// Puts a client on a server's host: a Unix socket away, and gone with its power.
    pub fn place(&mut self, client: Node, host: u16) {
        self.hosts.insert(client, host);
    }

    /// Whether both run under one kernel.
    #[must_use]
    pub fn same_host(&self, a: Node, b: Node) -> bool {
        let host = |node: Node| match node {
            Node::Server(num) => Some(num),
            Node::Client(_) => self.hosts.get(&node).copied(),
            Node::Master => None,
        };
        host(a).is_some() && host(a) == host(b)
    }

    /// A server learned its number.
    pub fn name_server(&mut self, num: ServerNum, node: Node) {
        self.numbers.insert(num, node);
    }

    #[must_use]
    pub fn server_of(&self, num: ServerNum) -> Option<Node> {
        self.numbers.get(&num).copied()
    }

    /// Adds an event.
    pub fn at(&mut self, delay_us: u64, event: Event) {
        self.next += 1;
        self.queue.insert((self.now_us + delay_us, self.next), event);
    }

    /// A timer of a node that is up.
    pub fn timer(&mut self, node: Node, delay_us: u64, what: u64) {
        let life = self.life(node);
        self.at(delay_us, Event::To { node, life, what: Happening::Timer(what) });
    }

    #[must_use]
    pub fn life(&self, node: Node) -> Life {
        self.processes.get(&node).map(|process| process.life).unwrap_or_default()
    }

    /// When the next event is due.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next event that is due by `until`, and moves the time to it.
    pub fn pop(&mut self, until_us: u64) -> Option<Event> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= until_us)?;
        let ((at, _), event) = entry.remove_entry();
        self.now_us = self.now_us.max(at);
        Some(event)
    }

    /// Moves the time on, with nothing due before.
    pub fn advance(&mut self, to_us: u64) {
        self.now_us = self.now_us.max(to_us);
    }

    /// Whether the happening reaches the process now: it is of this life and not paused.
    pub fn admit(&mut self, node: Node, life: Life, what: Happening) -> Option<Happening> {
        match self.processes.entry(node) {
            Entry::Vacant(_) => None,
            Entry::Occupied(mut process) => {
                let process = process.get_mut();
                if !process.up || process.life != life {
                    return None;
                }
                match &mut process.backlog {
                    Some(backlog) => {
                        backlog.push(what);
                        None
                    }
                    None => Some(what),
                }
            }
        }
    }

    /// A number from `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.rng.below(high.saturating_sub(low))
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }
}
