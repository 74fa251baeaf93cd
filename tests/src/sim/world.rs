//! The cluster of one run and everything recorded about it. It hands events to their nodes and carries out
//! the faults that were planned.

use std::collections::BTreeMap;

use dfs_disk::sim::SimDisk;
use dfs_master::core::{CoreConfig, MetadataSync};
use dfs_proto::conn::Role;
use dfs_proto::ids::{ClusterId, Ino, LogIndex, OsBootId, ServerNum};
use dfs_proto::units::ChunkSize;
use tokio::sync::oneshot;

use super::client::ClientNode;
use super::describe;
use super::fabric::{Event, Fabric, Happening, Node};
use super::faults::{Fault, Plan, Strike};
use super::master::Master;
use super::server::{Server, Setup};
use super::trace::Trace;
use super::{Options, Outcome};
use crate::model::history::History;
use crate::model::names::Directory;
use crate::model::{Actor, FileNum, Tick, Violation};

/// Small, so that a run crosses chunk borders often.
pub const CHUNK_BYTES: u32 = 64 << 10;
/// Far more than a run writes: full disks are a fault of their own.
const DISK_BYTES: u64 = 1 << 30;

/// What the seed chose of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub servers: u16,
    pub goal: u8,
    pub clients: u16,
    pub files: u32,
    pub chaos_us: u64,
    pub metadata_sync: MetadataSync,
    /// Several programs of each client hurry on one file and cut it often: what is under way together is much.
    pub crowded: bool,
    /// The syncs of one server's disk fail now and then.
    pub bad_disk: bool,
    /// Those of all servers' disks do, at about the same time.
    pub bad_disks: bool,
    /// Servers call themselves busy, and little is enough to make a chunk hot: replicas come and go all the time.
    pub heat: bool,
    /// Disks are so small that replicas move between them.
    pub small_disks: bool,
    /// An operator has servers away on purpose, and stops them.
    pub maintains: bool,
    /// The operator changes the goals of files and of the root directory.
    pub goals: bool,
    /// The operator evicts mounts that are well.
    pub evicts: bool,
}

/// A client that was just made.
#[derive(Debug)]
pub struct NewClient {
    pub node: Node,
    pub os_boot: OsBootId,
    /// Resolves when the client is killed.
    pub killed: oneshot::Receiver<()>,
    pub seed: u64,
}

/// Everything of one run.
#[derive(Debug)]
pub struct World {
    pub fabric: Fabric,
    pub shape: Shape,
    pub master: Master,
    pub servers: Vec<Server>,
    clients: BTreeMap<Node, ClientNode>,
    next_client: u16,
    /// Programs end: the faults are over.
    pub quiet: bool,
    /// Each actor's directory.
    pub homes: BTreeMap<Actor, Ino>,
    /// The shared files.
    pub files: Vec<(FileNum, Ino)>,
    /// What the master said of the cluster last.
    pub last_look: String,
    /// Looks since the last one that saw a replica move.
    pub still_looks: u32,
    /// How many passes each server's scrub has to have made.
    pub scrubs_due: BTreeMap<ServerNum, u64>,
    pub history: History,
    /// The names that each actor has in a directory of its own.
    pub directories: BTreeMap<Actor, Directory>,
    pub violations: Vec<Violation>,
    pub plan: Plan,
    /// What to do when a disk stops in the middle of something.
    strikes: BTreeMap<Node, Strike>,
    pub operations: u64,
    faults: u64,
    power_cuts: u64,
    /// How often the master lost records with its power.
    pub tails_lost: u64,
    over: bool,
    /// The master's last record that the oracles looked at.
    pub(super) watched: LogIndex,
}

fn shape_of(seed: u64, fabric: &mut Fabric, options: &Options) -> Shape {
    let crowded = seed.is_multiple_of(4);
    let servers = u16::try_from(3 + fabric.rng.below(3)).unwrap_or(3);
    let goal = if fabric.one_in(4) { 2 } else { 3 };
    let chaos_ms = options.chaos_ms.unwrap_or_else(|| 3_000 + fabric.rng.below(9_000));
    // Replicas above the goal need servers to be on, and time to come and go.
    let heat = seed % 3 == 1;
    let (servers, chaos_ms) =
        if heat { (servers.max(goal.into()) + 1, chaos_ms * 2) } else { (servers, chaos_ms) };
    let clients = u16::try_from(1 + fabric.rng.below(3)).unwrap_or(1);
    let files = u32::try_from(1 + fabric.rng.below(3)).unwrap_or(1);
    Shape {
        servers,
        goal,
        clients,
        files: if crowded { 1 } else { files },
        chaos_us: if crowded { chaos_ms * 500 } else { chaos_ms * 1000 },
        metadata_sync: if fabric.rng.coin() { MetadataSync::Always } else { MetadataSync::Interval },
        crowded,
        // With fewer a chunk may go on with this disk's replica alone.
        bad_disk: seed % 16 == 9 && goal == 3,
        bad_disks: seed % 64 == 41,
        heat,
        small_disks: seed % 4 == 2,
        maintains: seed % 5 == 3,
        goals: seed % 5 == 2,
        evicts: seed % 7 == 4,
    }
}

fn core_config(fabric: &mut Fabric, shape: Shape) -> CoreConfig {
    CoreConfig {
        chunk_size: ChunkSize::try_from(CHUNK_BYTES).unwrap_or(ChunkSize::DEFAULT),
        goal: shape.goal,
        // A third of the defaults, so that a run has three times as many of everything that ends.
        server_lease_ms: 2_000,
        heartbeat_ms: 333,
        session_lease_ms: 10_000,
        repair_delay_ms: 1_500 + fabric.rng.below(3_000),
        key_life_ms: 1_000 + fabric.rng.below(8_000),
        close_after_ms: 200 + fabric.rng.below(2_000),
        gc_delay_ms: 1_000 + fabric.rng.below(3_000),
        metadata_sync: shape.metadata_sync,
        snapshot_records: 20 + fabric.rng.below(300),
        ..CoreConfig::new(ClusterId(0x0df5))
    }
}

impl World {
    #[must_use]
    pub fn new(seed: u64, options: &Options) -> World {
        let mut fabric = Fabric::new(seed, Trace::new(options.text, options.echo));
        let shape = shape_of(seed, &mut fabric, options);
        fabric.heat = shape.heat;
        fabric.disks_of = shape.small_disks.then_some(16 * u64::from(CHUNK_BYTES));
        let config = core_config(&mut fabric, shape);
        let cluster = config.cluster;
        let chunk_size = config.chunk_size;
        let mut violations = Vec::new();
        let disk = SimDisk::new(fabric.rng.bits(), DISK_BYTES);
        let master = Master::init(disk, config).expect("an empty disk takes a cluster");
        let mut servers = Vec::new();
        for num in 0..shape.servers {
            let disk = SimDisk::new(fabric.rng.bits(), DISK_BYTES);
            let setup = Setup { num, cluster, chunk_size };
            match Server::init(setup, disk, &mut fabric) {
                Ok(server) => servers.push(server),
                Err(why) => violations.push(Violation::new("start", None, why)),
            }
        }
        let plan = if options.faults { Plan::draw(&mut fabric, shape) } else { Plan::default() };
        let mut world = World {
            fabric,
            shape,
            master,
            servers,
            clients: BTreeMap::new(),
            next_client: 0,
            quiet: false,
            homes: BTreeMap::new(),
            files: Vec::new(),
            last_look: String::new(),
            still_looks: 0,
            scrubs_due: BTreeMap::new(),
            history: History::default(),
            directories: BTreeMap::new(),
            violations,
            plan,
            strikes: BTreeMap::new(),
            operations: 0,
            faults: 0,
            power_cuts: 0,
            tails_lost: 0,
            over: false,
            watched: LogIndex(0),
        };
        world.note([0, 0, 0], || format!("{shape:?}"));
        world.start_all();
        world.plan.schedule(&mut world.fabric);
        world
    }

    /// How many servers have every write that was acknowledged.
    #[must_use]
    pub fn min_write(&self) -> usize {
        if self.shape.goal >= 3 { 2 } else { 1 }
    }

    /// Notes an event in the trace.
    pub fn note(&mut self, numbers: [u64; 3], text: impl FnOnce() -> String) {
        let now = self.fabric.now_us();
        self.fabric.trace.event(now, numbers, text);
    }

    /// A promise was broken; the run ends.
    pub fn violate(&mut self, oracle: &'static str, what: String) {
        let at = self.history.now();
        self.note([99, 0, 0], || format!("VIOLATION {oracle}: {what}"));
        self.violations.push(Violation::new(oracle, Some(at), what));
        self.over = true;
    }

    pub fn end(&mut self) {
        self.over = true;
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Handles everything due by `until_us`.
    pub fn run_until(&mut self, until_us: u64) {
        while !self.over
            && let Some(event) = self.fabric.pop(until_us)
        {
            self.handle(event);
        }
        self.fabric.advance(until_us);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Net(transit) => self.fabric.transit(transit),
            Event::Fault(which) => self.fault_due(which),
            Event::To { node, life, what } => {
                if let Some(what) = self.fabric.admit(node, life, what) {
                    self.note_happening(node, &what);
                    self.happening(node, what);
                    self.watch(node);
                }
            }
        }
    }

    fn happening(&mut self, node: Node, what: Happening) {
        match node {
            Node::Master => {
                let tick = self.history.now();
                self.master.happening(&mut self.fabric, tick, what);
                if self.master.struck() {
                    self.struck(node);
                }
            }
            Node::Server(num) => {
                let Some(server) = self.servers.get_mut(usize::from(num)) else { return };
                server.happening(&mut self.fabric, what);
                if server.struck() {
                    self.struck(node);
                }
            }
            Node::Client(_) => {
                if let Some(client) = self.clients.get_mut(&node) {
                    client.happening(&mut self.fabric, what);
                }
            }
        }
    }

    fn note_happening(&mut self, node: Node, what: &Happening) {
        let number = match node {
            Node::Master => 1,
            Node::Server(num) => 100 + u64::from(num),
            Node::Client(num) => 1000 + u64::from(num),
        };
        let (kind, detail) = match what {
            Happening::Opened { conn, .. } => (1, conn.0),
            Happening::Dialled { dial, conn, .. } => (2, dial.0 << 1 | u64::from(conn.is_some())),
            Happening::Frame { frame, .. } => {
                (3, frame.header.words.word0 ^ u64::from(frame.header.op as u16))
            }
            Happening::Answered { call, .. } => (4, call.0),
            Happening::Closed { conn } => (5, conn.0),
            Happening::Timer(number) => (6, *number),
        };
        self.note([number, kind, detail], || describe::happening(node, what));
    }

    /// Starts what is down.
    pub fn start_all(&mut self) {
        if !self.master.is_running() {
            self.start_master();
        }
        for num in 0..self.servers.len() {
            if !self.servers[num].is_running() {
                self.start_server(num);
            }
        }
    }

    fn start_master(&mut self) {
        if self.master.is_running() {
            return;
        }
        self.note([20, 0, 0], || "master starts".to_owned());
        if let Err(error) = self.master.start(&mut self.fabric) {
            if self.master.disk().stopped() {
                return self.struck(Node::Master);
            }
            self.violate("start", format!("the master does not start: {error}"));
        }
    }

    fn start_server(&mut self, num: usize) {
        if self.servers[num].is_running() {
            return;
        }
        self.note([21, num as u64, 0], || format!("server {num} starts"));
        // Another process, another day: its disk's syncs work until they fail again.
        self.servers[num].disk().heal();
        if let Err(error) = self.servers[num].start(&mut self.fabric) {
            let node = self.servers[num].node();
            if self.servers[num].disk().stopped() {
                return self.struck(node);
            }
            self.violate("start", format!("server {num} does not start: {error}"));
        }
    }

    /// Starts a node's process again.
    pub fn start(&mut self, node: Node) {
        match node {
            Node::Master => self.start_master(),
            Node::Server(num) => self.start_server(usize::from(num)),
            Node::Client(_) => {}
        }
    }

    /// Ends a node's process, with its machine's power if `power`.
    pub fn stop(&mut self, node: Node, power: bool) {
        self.note([22, u64::from(power), 0], || {
            format!("{node:?} {}", if power { "loses power" } else { "is killed" })
        });
        self.strikes.remove(&node);
        match node {
            Node::Master => {
                if let Some(since) = self.master.stop(&mut self.fabric, power) {
                    self.tail_lost(since);
                }
            }
            Node::Server(num) => {
                self.servers[usize::from(num)].stop(&mut self.fabric, power);
                self.history.server_ended(num);
                if power {
                    self.history.server_lost_power(num);
                    let here: Vec<Node> = self
                        .clients
                        .keys()
                        .copied()
                        .filter(|client| self.fabric.same_host(*client, node))
                        .collect();
                    here.into_iter().for_each(|client| self.stop(client, true));
                }
            }
            Node::Client(_) => {
                self.clients.remove(&node);
                self.fabric.stop(node, !power);
            }
        }
        self.power_cuts += u64::from(power);
    }

    fn tail_lost(&mut self, since: Tick) {
        self.note([23, since.0, 0], || format!("the master lost what it logged after tick {}", since.0));
        self.tails_lost += 1;
        self.history.tail_lost(since);
        for directory in self.directories.values_mut() {
            directory.tail_lost(since);
        }
    }

    /// Has a node's disk stop after some more operations; the process and perhaps the power go then.
    pub fn arm(&mut self, node: Node, strike: Strike) {
        let disk = match node {
            Node::Master => self.master.disk(),
            Node::Server(num) => self.servers[usize::from(num)].disk(),
            Node::Client(_) => return,
        };
        disk.stop_after(strike.after_ops);
        self.strikes.insert(node, strike);
    }

    fn struck(&mut self, node: Node) {
        let Some(strike) = self.strikes.remove(&node) else { return };
        self.note([24, strike.after_ops, 0], || {
            format!("{node:?} is struck in the middle of its disk's work")
        });
        self.stop(node, strike.power);
        self.plan.add(&mut self.fabric, strike.down_us, Fault::Start(node));
    }

    fn fault_due(&mut self, which: usize) {
        let Some(fault) = self.plan.take(which) else { return };
        self.faults += u64::from(fault.is_trouble());
        self.note([25, which as u64, 0], || format!("FAULT {fault:?}"));
        fault.strike(self);
    }

    /// Ends every fault: all nodes up, all ways whole. Nothing strikes from here on.
    pub fn heal(&mut self) {
        // Nobody is busy any more.
        self.fabric.heat = false;
        self.note([26, 0, 0], || "HEAL".to_owned());
        self.plan.clear();
        for (from, to) in self.fabric.cuts.all() {
            self.fabric.heal(from, to);
        }
        let mut nodes: Vec<Node> = self.servers.iter().map(Server::node).collect();
        nodes.extend(self.clients.keys().copied());
        nodes.push(Node::Master);
        for (node, strike) in std::mem::take(&mut self.strikes) {
            // A disk that was to stop goes on as if after a crash of its process.
            self.stop(node, strike.power);
        }
        for node in nodes {
            self.fabric.set_slow(node, 0);
            self.fabric.resume(node);
        }
        self.start_all();
        // An operator has the machine of a disk whose sync failed boot again, which puts an end to what its kernel believes.
        let ill: Vec<Node> =
            self.servers.iter().filter(|server| server.is_failing()).map(Server::node).collect();
        for node in ill {
            self.stop(node, true);
            self.start(node);
        }
    }

    /// A new client, on a server's host perhaps. It is known to the fabric from here on.
    pub fn new_client(&mut self, role: Role, host: Option<u16>) -> NewClient {
        let node = Node::Client(self.next_client);
        self.next_client += 1;
        let clock = match host {
            Some(num) => self.fabric.clock(Node::Server(num)),
            None => self.fabric.new_clock(),
        };
        self.fabric.start(node, clock);
        if let Some(num) = host {
            self.fabric.place(node, num);
        }
        let (client, killed) = ClientNode::new(node, role);
        self.clients.insert(node, client);
        let os_boot = match host {
            Some(num) => self.servers[usize::from(num)].os_boot(),
            None => OsBootId(u128::from(self.fabric.rng.bits())),
        };
        NewClient { node, os_boot, killed, seed: self.fabric.rng.bits() }
    }

    /// The clients that live.
    #[must_use]
    pub fn live_clients(&self) -> Vec<Node> {
        self.clients.keys().copied().collect()
    }

    #[must_use]
    pub fn is_alive(&self, client: Node) -> bool {
        self.clients.contains_key(&client)
    }

    pub(super) fn with_client<R>(
        &mut self,
        node: Node,
        act: impl FnOnce(&mut ClientNode, &mut Fabric) -> R,
    ) -> Option<R> {
        self.clients.get_mut(&node).map(|client| act(client, &mut self.fabric))
    }

    /// What the run came to.
    pub fn outcome(&mut self) -> Outcome {
        Outcome {
            seed: 0,
            violations: std::mem::take(&mut self.violations),
            hash: self.fabric.trace.hash(),
            events: self.fabric.trace.events(),
            faults: self.faults,
            operations: self.operations,
            power_cuts: self.power_cuts,
            simulated_us: self.fabric.now_us(),
            tail: self.fabric.trace.tail(usize::MAX),
        }
    }
}
