//! What goes wrong, and when: drawn before the run from the fault model, so that a seed names a plan. Each
//! run has its own mix; some runs have one kind of fault only, often.

use super::fabric::{Event, Fabric, Node};
use super::world::{Shape, World};

/// A way between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Both,
    There,
    Back,
}

/// A process that ends in the middle of its disk's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strike {
    pub after_ops: u64,
    pub power: bool,
    pub down_us: u64,
}

/// One step of a plan: a fault, or the end of one.
#[derive(Clone, Debug)]
pub enum Fault {
    Kill(Node, u64),
    Power(Node, u64),
    Strike(Node, Strike),
    /// Syncs of its disk fail until it is killed, so much later, and starts again.
    FailSyncs(Node, u64),
    /// All chunk servers, and the master too perhaps, at once.
    KillServers(u64),
    PowerAll(u64),
    Pause(Node, u64),
    /// A virtual machine is stopped, and its clock with it.
    Stall(Node, u64),
    Cut(Node, Node, Way, u64),
    /// From everybody.
    Isolate(Node, u64),
    Break(Node, Node),
    Slow(Node, u64),
    KillClient(u64),
    PauseClient(u64, u64),
    /// A client from one node, one way or both.
    CutClient(u64, Node, Way, u64),

    Start(Node),
    Resume(Node),
    Heal(Node, Node),
    Fast(Node),
}

/// The kinds that a plan draws from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    KillServer,
    PowerServer,
    StrikeServer,
    KillServers,
    PowerAll,
    PauseServer,
    StallServer,
    Cut,
    Isolate,
    Break,
    Slow,
    KillMaster,
    PowerMaster,
    StrikeMaster,
    PauseMaster,
    KillClient,
    PauseClient,
    CutClient,
}

const KINDS: [Kind; 18] = [
    Kind::KillServer,
    Kind::PowerServer,
    Kind::StrikeServer,
    Kind::KillServers,
    Kind::PowerAll,
    Kind::PauseServer,
    Kind::StallServer,
    Kind::Cut,
    Kind::Isolate,
    Kind::Break,
    Kind::Slow,
    Kind::KillMaster,
    Kind::PowerMaster,
    Kind::StrikeMaster,
    Kind::PauseMaster,
    Kind::KillClient,
    Kind::PauseClient,
    Kind::CutClient,
];

/// When the first fault may strike: after the programs made their files.
const FIRST_US: u64 = 300_000;

/// The faults of a run.
#[derive(Debug, Default)]
pub struct Plan {
    steps: Vec<(u64, Option<Fault>)>,
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(fabric: &mut Fabric, shape: Shape) -> Plan {
        let kinds = match fabric.rng.below(10) {
            // One kind, all the time.
            0..3 => vec![KINDS[pick(fabric, KINDS.len())]],
            3..7 => KINDS.into_iter().filter(|_| fabric.one_in(3)).collect(),
            _ => KINDS.to_vec(),
        };
        let mut steps = Vec::new();
        // Replicas come for the load's sake while their servers are there for some seconds.
        let rate_us = (200_000 + fabric.rng.below(2_000_000)) * if shape.heat { 3 } else { 1 };
        let mut at = FIRST_US + fabric.rng.below(rate_us);
        while at < shape.chaos_us && !kinds.is_empty() {
            let kind = kinds[pick(fabric, kinds.len())];
            steps.push((at, Some(draw(fabric, shape, kind))));
            at += 1 + fabric.rng.below(2 * rate_us);
        }
        if shape.bad_disk {
            for _ in 0..=fabric.rng.below(2) {
                let at = FIRST_US + fabric.rng.below(shape.chaos_us);
                for num in 0..if shape.bad_disks { shape.servers } else { 1 } {
                    let fault = Fault::FailSyncs(Node::Server(num), 500_000 + lasting(fabric));
                    steps.push((at + fabric.rng.below(100_000), Some(fault)));
                }
            }
            steps.sort_by_key(|step| step.0);
        }
        Plan { steps }
    }

    /// Puts the plan into the queue.
    pub fn schedule(&self, fabric: &mut Fabric) {
        for (which, (at, _)) in self.steps.iter().enumerate() {
            fabric.at(*at, Event::Fault(which));
        }
    }

    /// Adds a step.
    pub fn add(&mut self, fabric: &mut Fabric, delay_us: u64, fault: Fault) {
        self.steps.push((fabric.now_us() + delay_us, Some(fault)));
        fabric.at(delay_us, Event::Fault(self.steps.len() - 1));
    }

    pub fn take(&mut self, which: usize) -> Option<Fault> {
        self.steps.get_mut(which)?.1.take()
    }

    /// Drops everything that has not happened.
    pub fn clear(&mut self) {
        for step in &mut self.steps {
            step.1 = None;
        }
    }
}

fn pick(fabric: &mut Fabric, len: usize) -> usize {
    usize::try_from(fabric.rng.below(len as u64)).unwrap_or(0)
}

fn server(fabric: &mut Fabric, shape: Shape) -> Node {
    Node::Server(u16::try_from(fabric.rng.below(u64::from(shape.servers))).unwrap_or(0))
}

fn server_or_master(fabric: &mut Fabric, shape: Shape) -> Node {
    if fabric.one_in(3) { Node::Master } else { server(fabric, shape) }
}

fn way(fabric: &mut Fabric) -> Way {
    [Way::Both, Way::Both, Way::There, Way::Back][pick(fabric, 4)]
}

/// How long a fault lasts: around the leases, which are two and ten seconds.
fn lasting(fabric: &mut Fabric) -> u64 {
    match fabric.rng.below(6) {
        0 => fabric.between(1_000, 50_000),
        1..4 => fabric.between(50_000, 2_000_000),
        4 => fabric.between(1_500_000, 4_000_000),
        _ => fabric.between(4_000_000, 12_000_000),
    }
}

fn draw(fabric: &mut Fabric, shape: Shape, kind: Kind) -> Fault {
    let down_us = lasting(fabric);
    match kind {
        Kind::KillServer => Fault::Kill(server(fabric, shape), down_us),
        Kind::PowerServer => Fault::Power(server(fabric, shape), down_us),
        Kind::StrikeServer => {
            let strike = Strike { after_ops: fabric.rng.below(40), power: fabric.rng.coin(), down_us };
            Fault::Strike(server(fabric, shape), strike)
        }
        Kind::KillServers => Fault::KillServers(down_us),
        Kind::PowerAll => Fault::PowerAll(down_us),
        Kind::PauseServer => Fault::Pause(server(fabric, shape), down_us),
        Kind::StallServer => Fault::Stall(server(fabric, shape), down_us),
        Kind::Cut => {
            let (a, b) = (server(fabric, shape), server_or_master(fabric, shape));
            let b = if a == b { Node::Master } else { b };
            Fault::Cut(a, b, way(fabric), down_us)
        }
        Kind::Isolate => Fault::Isolate(server_or_master(fabric, shape), down_us),
        Kind::Break => {
            let (a, b) = (server(fabric, shape), server_or_master(fabric, shape));
            Fault::Break(a, b)
        }
        Kind::Slow => Fault::Slow(server_or_master(fabric, shape), fabric.rng.below(200_000)),
        Kind::KillMaster => Fault::Kill(Node::Master, down_us),
        Kind::PowerMaster => Fault::Power(Node::Master, down_us),
        Kind::StrikeMaster => {
            let strike = Strike { after_ops: fabric.rng.below(40), power: fabric.rng.coin(), down_us };
            Fault::Strike(Node::Master, strike)
        }
        Kind::PauseMaster => Fault::Pause(Node::Master, down_us),
        Kind::KillClient => Fault::KillClient(fabric.rng.bits()),
        Kind::PauseClient => Fault::PauseClient(fabric.rng.bits(), down_us),
        Kind::CutClient => {
            Fault::CutClient(fabric.rng.bits(), server_or_master(fabric, shape), way(fabric), down_us)
        }
    }
}

impl Fault {
    /// Not the end of one.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        !matches!(self, Fault::Start(_) | Fault::Resume(_) | Fault::Heal(..) | Fault::Fast(_))
    }

    /// Makes it happen.
    pub fn strike(self, world: &mut World) {
        match self {
            Fault::Kill(node, down_us) => go_down(world, node, false, down_us),
            Fault::Power(node, down_us) => go_down(world, node, true, down_us),
            Fault::Strike(node, strike) => world.arm(node, strike),
            Fault::FailSyncs(node, for_us) => {
                if let Node::Server(num) = node {
                    world.servers[usize::from(num)].fail_syncs();
                }
                world.plan.add(&mut world.fabric, for_us, Fault::Kill(node, 100_000));
            }
            Fault::KillServers(down_us) => all_servers(world).into_iter().for_each(|node| {
                go_down(world, node, false, down_us);
            }),
            Fault::PowerAll(down_us) => {
                let mut nodes = all_servers(world);
                nodes.push(Node::Master);
                nodes.into_iter().for_each(|node| go_down(world, node, true, down_us));
            }
            Fault::Pause(node, for_us) => pause(world, node, for_us),
            Fault::Stall(node, for_us) => stall(world, node, for_us),
            Fault::Cut(a, b, way, for_us) => cut(world, a, b, way, for_us),
            Fault::Isolate(node, for_us) => {
                let mut others = all_servers(world);
                others.push(Node::Master);
                others.extend(world.live_clients());
                for other in others.into_iter().filter(|other| *other != node) {
                    cut(world, node, other, Way::Both, for_us);
                }
            }
            Fault::Break(a, b) => world.fabric.break_between(a, b, 300_000),
            Fault::Slow(node, slow_us) => {
                world.fabric.set_slow(node, slow_us);
                world.plan.add(&mut world.fabric, 1_000_000 + slow_us * 20, Fault::Fast(node));
            }
            Fault::KillClient(which) => {
                if let Some(client) = client(world, which) {
                    world.stop(client, false);
                }
            }
            Fault::PauseClient(which, for_us) => {
                if let Some(client) = client(world, which) {
                    pause(world, client, for_us);
                }
            }
            Fault::CutClient(which, node, way, for_us) => {
                if let Some(client) = client(world, which) {
                    cut(world, client, node, way, for_us);
                }
            }
            Fault::Start(node) => world.start(node),
            Fault::Resume(node) => world.fabric.resume(node),
            Fault::Heal(from, to) => world.fabric.heal(from, to),
            Fault::Fast(node) => world.fabric.set_slow(node, 0),
        }
    }
}

fn all_servers(world: &World) -> Vec<Node> {
    world.servers.iter().map(super::server::Server::node).collect()
}

fn client(world: &World, which: u64) -> Option<Node> {
    let live = world.live_clients();
    let at = usize::try_from(which % (live.len() as u64).max(1)).ok()?;
    live.get(at).copied()
}

fn go_down(world: &mut World, node: Node, power: bool, down_us: u64) {
    world.stop(node, power);
    let jitter = world.fabric.rng.below(down_us / 4 + 1);
    world.plan.add(&mut world.fabric, down_us + jitter, Fault::Start(node));
}

fn pause(world: &mut World, node: Node, for_us: u64) {
    // What is checked before and not after is found by a stop in between.
    if matches!(node, Node::Server(_)) && world.fabric.rng.coin() {
        world.fabric.pause_at_work(node);
    } else {
        world.fabric.pause(node);
    }
    world.plan.add(&mut world.fabric, for_us, Fault::Resume(node));
}

fn stall(world: &mut World, node: Node, for_us: u64) {
    // With clients on the same machine it is outside of the fault model.
    let alone = world.live_clients().into_iter().all(|client| !world.fabric.same_host(client, node));
    if alone {
        world.fabric.stall(node);
    } else {
        world.fabric.pause(node);
    }
    world.plan.add(&mut world.fabric, for_us, Fault::Resume(node));
}

fn cut(world: &mut World, a: Node, b: Node, way: Way, for_us: u64) {
    if world.fabric.same_host(a, b) {
        return;
    }
    let ways = match way {
        Way::Both => vec![(a, b), (b, a)],
        Way::There => vec![(a, b)],
        Way::Back => vec![(b, a)],
    };
    for (from, to) in ways {
        world.fabric.cut(from, to);
        world.plan.add(&mut world.fabric, for_us, Fault::Heal(from, to));
    }
    // TCP gives up on some of what it can't get through.
    if world.fabric.rng.coin() {
        world.fabric.break_between(a, b, for_us);
    }
}
