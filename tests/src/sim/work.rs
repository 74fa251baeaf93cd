//! The programs: what runs on the clients during chaos, and the script of a whole run.
//!
//! Every operation is recorded with its outcome; what the outcome means is the models' business. A program
//! does one operation at a time on a file that it has open once.

pub(super) mod data;
pub(super) mod names;

use std::sync::Arc;
use std::time::Duration;

use dfs_client::net::NetError;
use dfs_client::{Caller, Client, Config, Hedging, NoUpcalls, Patience};
use dfs_disk::sim::Rng;
use dfs_proto::conn::Role;
use dfs_proto::ids::{Ino, ServerNum};
use dfs_proto::meta::Access;
use tokio::task::JoinSet;

use super::Shared;
use super::client::SimNet;
use super::fabric::Node;
use super::operator;
use super::verify;
use super::world::NewClient;
use crate::model::{Actor, FileNum};

/// All programs are root's.
pub(super) const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1 };
pub(super) const BOTH: Access = Access { read: true, write: true };
pub(super) const READ: Access = Access { read: true, write: false };
/// Programs end within this time after the faults did, or something hangs.
const END_LIMIT_US: u64 = 60_000_000;
/// The time that making the files may take, faults or not.
const SETUP_LIMIT_US: u64 = 120_000_000;

/// See [`Program::only_reads`].
const READ_CYCLE_US: u64 = 4_000_000;
const READ_ONLY_US: u64 = 2_700_000;

/// One program on a client.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client<SimNet>,
    pub(super) actor: Actor,
    pub(super) rng: Rng,
    pub(super) crowded: bool,
}

impl Program {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.shared.act(|world| world.quiet)
    }

    /// What is written gains no replicas: where load is followed, all programs leave off writing for some seconds, and
    /// begin again when there are some.
    pub(super) fn only_reads(&self) -> bool {
        self.shared.act(|world| world.shape.heat && world.fabric.now_us() % READ_CYCLE_US < READ_ONLY_US)
    }

    /// Between operations.
    pub(super) async fn rest(&mut self) {
        let us = match self.rng.below(8) {
            0 => self.rng.below(300_000),
            1..4 => self.rng.below(30_000),
            _ => self.rng.below(3_000),
        };
        let us = if self.crowded { us / 8 } else { us };
        self.shared.sleep_us(us).await;
    }
}

/// A client's settings: times in proportion to the cluster's short leases.
fn config_of(new: &NewClient, soft: bool) -> Config {
    Config {
        patience: if soft { Patience::Soft(Duration::from_secs(3)) } else { Patience::Hard },
        memory_bytes: 4 << 20,
        connect_timeout: Duration::from_secs(30),
        master_deadline: Duration::from_millis(1_500),
        chunk_deadline: Duration::from_millis(1_500),
        keepalive: Duration::from_millis(1_700),
        idle_grants: 4,
        // A run has a few dozen reads: hedges are to be among them.
        hedging: Hedging { known_after: 3, one_in: 2 },
        ..Config::new(format!("{:?}", new.node), new.os_boot, new.seed)
    }
}

/// The whole run: files, chaos, healing, verdicts.
pub(super) async fn script(shared: Arc<Shared>) {
    if let Err(late) = within(&shared, SETUP_LIMIT_US, setup(Arc::clone(&shared))).await {
        shared.act(|world| world.violate("alive", format!("no files could be made within {late} us")));
        return;
    }
    let (clients, chaos_us) = shared.act(|world| (world.shape.clients, world.shape.chaos_us));
    let mut slots = JoinSet::new();
    for slot in 0..clients {
        slots.spawn(run_slot(Arc::clone(&shared), slot));
    }
    let drains = shared.act(|world| world.fabric.one_in(3));
    let shape = shared.act(|world| world.shape);
    let super::world::Shape { heat, maintains, goals, evicts, .. } = shape;
    let duties = operator::Duties { drains, heat, maintains, goals, evicts };
    if drains || heat || maintains || goals || evicts {
        slots.spawn(operator::run(Arc::clone(&shared), duties));
    }
    let now_us = shared.act(|world| world.fabric.now_us());
    shared.sleep_us(chaos_us.saturating_sub(now_us)).await;
    shared.act(|world| {
        world.heal();
        world.quiet = true;
    });
    let ended = within(&shared, END_LIMIT_US, async { while slots.join_next().await.is_some() {} }).await;
    if let Err(late) = ended {
        let open = shared.act(|world| verify::unfinished(world));
        shared.act(|world| world.violate("alive", format!("programs hang {late} us after healing: {open}")));
        return;
    }
    // The others have to be as many as the goal, for what it has.
    let drained = shared.act(|world| {
        let (servers, goal) = (world.shape.servers, u16::from(world.shape.goal));
        let which = u16::try_from(world.fabric.rng.below(u64::from(servers))).unwrap_or(0);
        (drains && servers > goal && world.fabric.rng.coin()).then_some(ServerNum(1 + which))
    });
    if let Err(late) = within(&shared, END_LIMIT_US, operator::settle(&shared, drained)).await {
        shared.act(|world| world.violate("alive", format!("no order gets through for {late} us")));
        return;
    }
    verify::verify(&shared).await;
    shared.act(super::world::World::end);
}

/// Runs something for at most so long.
pub(super) async fn within<T>(
    shared: &Shared,
    limit_us: u64,
    what: impl Future<Output = T>,
) -> Result<T, u64> {
    tokio::select! {
        biased;
        done = what => Ok(done),
        () = shared.sleep_us(limit_us) => Err(limit_us),
    }
}

/// A client with its session; `None` when none could be had in time.
pub(super) async fn connect(shared: &Arc<Shared>, new: &NewClient, soft: bool) -> Option<Client<SimNet>> {
    let config = config_of(new, soft);
    let net = SimNet::new(Arc::clone(shared), new.node);
    match Client::connect(config, net, Arc::new(NoUpcalls)).await {
        Ok(client) => Some(client),
        Err(dfs_client::client::ConnectError::NoMaster(NetError::Malformed)) => {
            shared.act(|world| world.violate("connect", "a malformed session".to_owned()));
            None
        }
        Err(_) => None,
    }
}

/// Makes the shared files, durably.
async fn setup(shared: Arc<Shared>) {
    let files = shared.act(|world| world.shape.files);
    loop {
        let new = shared.act(|world| world.new_client(Role::Client, None));
        let (_alive, never) = tokio::sync::oneshot::channel();
        let NewClient { node, os_boot, mut killed, seed } = new;
        let new = NewClient { node, os_boot, killed: never, seed };
        let make = async {
            let client = connect(&shared, &new, false).await?;
            let made = make_files(&client, files).await?;
            Some((client, made))
        };
        let made = tokio::select! {
            biased;
            _ = &mut killed => None,
            made = make => made,
        };
        if let Some((client, made)) = made {
            // Its session may end as it likes: nothing is buffered.
            let _ = client.shutdown(Duration::from_secs(5)).await;
            shared.act(|world| {
                world.files = made;
                world.stop(node, false);
            });
            return;
        }
        shared.act(|world| world.stop(node, false));
    }
}

async fn make_files(client: &Client<SimNet>, count: u32) -> Option<Vec<(FileNum, Ino)>> {
    let mut files = Vec::new();
    for num in 0..count {
        let name = format!("file-{num}");
        let (attr, handle) =
            client.create(Ino::ROOT, name.as_bytes(), 0o644, BOTH, false, false, ROOT).await.ok()?;
        client.flush(&handle).await.ok()?;
        client.release(handle);
        files.push((FileNum(num), attr.ino));
    }
    client.fsyncdir(&client.opendir(Ino::ROOT)).await.ok()?;
    Some(files)
}

/// One place for a client: while there is chaos, a client that was killed is followed by a new one.
async fn run_slot(shared: Arc<Shared>, slot: u16) {
    while !shared.act(|world| world.quiet) {
        let new = shared.act(|world| {
            let servers = u64::from(world.shape.servers);
            let host = u16::try_from(world.fabric.rng.below(servers)).unwrap_or(0);
            // A host without power runs no client.
            let host = Some(host).filter(|host| world.fabric.has_kernel(Node::Server(*host)));
            let host = host.filter(|_| world.fabric.rng.coin());
            world.new_client(Role::Client, host)
        });
        run_client(&shared, slot, new).await;
        shared.sleep_us(100_000).await;
    }
}

async fn run_client(shared: &Arc<Shared>, slot: u16, new: NewClient) {
    let NewClient { node, os_boot, mut killed, seed } = new;
    let (_alive, never) = tokio::sync::oneshot::channel();
    let new = NewClient { node, os_boot, killed: never, seed };
    tokio::select! {
        biased;
        _ = &mut killed => {}
        () = run_programs(shared, slot, &new) => {}
    }
    shared.act(|world| world.is_alive(node).then(|| world.stop(node, false)));
}

async fn run_programs(shared: &Arc<Shared>, slot: u16, new: &NewClient) {
    let mut rng = Rng::new(new.seed ^ u64::from(slot));
    let soft = rng.below(4) == 0;
    let Some(client) = connect(shared, new, soft).await else { return };
    let Node::Client(number) = new.node else { return };
    let mut programs = JoinSet::new();
    let more = if shared.act(|world| world.shape.crowded) { 2 } else { 0 };
    for stream in 0..=u8::from(rng.coin()) + more {
        programs.spawn(data::run(program(shared, &client, number, stream, &mut rng)));
    }
    if rng.coin() {
        programs.spawn(names::run(program(shared, &client, number, 9, &mut rng)));
    }
    while programs.join_next().await.is_some() {}
    // What was flushed is safe; what could not be is on record as failed.
    let _ = client.shutdown(Duration::from_secs(20)).await;
}

fn program(shared: &Arc<Shared>, client: &Client<SimNet>, number: u16, stream: u8, rng: &mut Rng) -> Program {
    Program {
        shared: Arc::clone(shared),
        client: client.clone(),
        actor: Actor { client: number, stream },
        rng: Rng::new(rng.bits()),
        crowded: shared.act(|world| world.shape.crowded),
    }
}
