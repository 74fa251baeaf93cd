//! Whole clusters in one thread from one seed: the cores, stores, logs and the client library that run in
//! production, over a network, disks and clocks that the seed controls.
//!
//! A run has two phases: chaos, in which programs work while faults strike, and healing, after which the
//! cluster must converge within a bound and have kept every promise. Nothing here decides what a promise
//! is: that is [`crate::model`]'s.
//!
//! Invariant: a run is a function of its seed and options. Nothing reads a clock, a thread's chance or a
//! hash map's order.
//!
//! Reading order: [`fabric`] (events, time, network), [`master`], [`server`], [`client`] (the nodes),
//! [`faults`], [`operator`], [`work`] (the programs), [`watch`] (at every moment), [`verify`] (after healing), [`trace`].

pub mod trace;
pub mod describe;
pub mod fabric;
pub mod master;
mod rot;
pub mod server;
pub mod client;
pub mod faults;
pub mod options;
pub mod operator;
pub mod work;
pub mod verify;
pub mod watch;
pub mod world;

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use options::Options;
pub use world::World;

use crate::model::{Violation, register};
use fabric::Node;

/// What one run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<Violation>,
    /// Equal for equal runs.
    pub hash: u64,
    pub events: u64,
    pub faults: u64,
    pub operations: u64,
    pub power_cuts: u64,
    pub simulated_us: u64,
    /// The last events, if text was asked for.
    pub tail: Vec<String>,
}

/// The world, and the means to say that something was added to it.
#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    wake: Notify,
    start: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Acts on the world at the present time.
    pub fn act<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.lock();
        world.fabric.advance(self.elapsed_us());
        let result = act(&mut world);
        drop(world);
        self.wake.notify_one();
        result
    }

    /// Lets simulated time pass.
    pub async fn sleep_us(&self, us: u64) {
        tokio::time::sleep(Duration::from_micros(us)).await;
    }

    /// Handles events as they fall due, until the run is over.
    async fn pump(&self) {
        loop {
            let due = {
                let mut world = self.lock();
                world.run_until(self.elapsed_us());
                if world.is_over() {
                    return;
                }
                world.fabric.next_due()
            };
            let Some(due) = due else { return self.wake.notified().await };
            let due = self.start + Duration::from_micros(due);
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }
}

/// The address that a node is known by.
#[must_use]
pub fn address_of(node: Node) -> String {
    match node {
        Node::Master => "master:1".to_owned(),
        Node::Server(num) => format!("server-{num}:1"),
        Node::Client(num) => format!("client-{num}:1"),
    }
}

/// The chunk server of an address.
#[must_use]
pub fn node_of_address(address: &str) -> Option<Node> {
    let num = address.strip_prefix("server-")?.strip_suffix(":1")?;
    num.parse().ok().map(Node::Server)
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}
static HOOK: Once = Once::new();

/// A panic anywhere in a run is a violation, also one in a task that nobody waits for.
fn note_panics() {
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let text = info.to_string();
            PANICS.with(|panics| panics.borrow_mut().push(text));
        }));
    });
    PANICS.with(|panics| panics.borrow_mut().clear());
}

/// Runs one seed.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    note_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    let world = World::new(seed, options);
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run_world(world))));
    // What the clients' tasks still hold must go before the outcome is read.
    drop(runtime);
    let mut outcome = ended.unwrap_or_default();
    outcome.seed = seed;
    let panics = PANICS.with(|panics| panics.borrow_mut().split_off(0));
    outcome.violations.splice(0..0, panics.into_iter().map(|text| Violation::new("panic", None, text)));
    outcome
}

async fn run_world(world: World) -> Outcome {
    let shared = Arc::new(Shared { world: Mutex::new(world), wake: Notify::new(), start: Instant::now() });
    let script = tokio::spawn(work::script(Arc::clone(&shared)));
    shared.pump().await;
    script.abort();
    let mut world = shared.lock();
    let min_write = world.min_write();
    let found = register::check(&world.history, min_write);
    world.violations.extend(found);
    world.outcome()
}
