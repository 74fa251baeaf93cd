//! What a client is told when it is made, and what it asks of the program around it.

use std::sync::Arc;
use std::time::Duration;

use dfs_proto::ids::{Ino, OsBootId};
use tokio::sync::oneshot;

/// How long operations are repeated while the cluster does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// For ever: `hard`.
    Hard,
    /// At most so long; then [`crate::Error::TimedOut`]: `soft,timeo=`.
    Soft(Duration),
}

/// A client's settings. [`Config::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host name and mount point, for people.
    pub name: String,
    /// The kernel's boot id: a chunk server with the same one is on this host.
    pub os_boot: OsBootId,
    /// Seed of the only randomness there is: which two replicas are compared, and jitter of waits.
    pub seed: u64,
    pub patience: Patience,
    /// Bytes that dirty data and read-ahead may hold together.
    pub memory_bytes: usize,
    /// Longest wait for the first session in [`crate::Client::connect`].
    pub connect_timeout: Duration,
    /// One try of a request to the master.
    pub master_deadline: Duration,
    /// One try of a request to a chunk server.
    pub chunk_deadline: Duration,
    /// How often an otherwise silent session speaks.
    pub keepalive: Duration,
    /// To read on hold too, when what there is may be old. Nothing can be written then.
    pub recover: bool,
    /// Grants of closed files that are kept; the oldest goes back when there are more.
    pub idle_grants: usize,
    pub hedging: Hedging,
}

/// When a slow read is asked of a second replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hedging {
    /// Not before so many reads of its size have shown what is slow.
    pub known_after: u32,
    /// One read in so many, at most.
    pub one_in: u32,
}

impl Default for Hedging {
    /// Fewer than 60 say nothing of their slowest twentieth, which is three of them; and a cluster that is slow as a
    /// whole gets a twentieth more to do, not twice as much.
    fn default() -> Hedging {
        Hedging { known_after: 60, one_in: 20 }
    }
}

impl Config {
    /// The defaults, with the names that have none.
    #[must_use]
    pub fn new(name: impl Into<String>, os_boot: OsBootId, seed: u64) -> Config {
        Config {
            name: name.into(),
            os_boot,
            seed,
            patience: Patience::Hard,
            memory_bytes: 256 << 20,
            connect_timeout: Duration::from_secs(10),
            master_deadline: Duration::from_secs(5),
            chunk_deadline: Duration::from_secs(5),
            keepalive: Duration::from_secs(5),
            recover: false,
            idle_grants: 4096,
            hedging: Hedging::default(),
        }
    }
}

/// What the library asks of the program around it. Calls come from tasks of the runtime and must not block.
pub trait Upcalls: Send + Sync + 'static {
    /// What the kernel cached of the inode, pages and attributes, is no longer backed by a grant. The
    /// grant goes back to the master once `done` was acknowledged or dropped.
    fn invalidate(&self, ino: Ino, done: Ack);

    /// The supplementary groups of a process; `None` when they cannot be found. Asked only when a
    /// permission check came to depend on them.
    fn groups(&self, pid: u32) -> Option<Vec<u32>>;
}

/// For programs without a kernel cache: nothing to invalidate, no groups.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoUpcalls;

impl Upcalls for NoUpcalls {
    fn invalidate(&self, _ino: Ino, done: Ack) {
        done.ack();
    }

    fn groups(&self, _pid: u32) -> Option<Vec<u32>> {
        None
    }
}

/// Says that an invalidation is done. Dropping it says so too.
#[derive(Debug)]
pub struct Ack {
    done: oneshot::Sender<()>,
}

impl Ack {
    /// One with its other end, which resolves, in whatever way, once the ack is used or dropped.
    #[must_use]
    pub fn new() -> (Ack, oneshot::Receiver<()>) {
        let (done, waiter) = oneshot::channel();
        (Ack { done }, waiter)
    }

    /// The kernel holds nothing of the inode any more.
    pub fn ack(self) {
        // Nobody waits any more when the session ended meanwhile.
        let _ = self.done.send(());
    }
}

/// The upcalls as the library keeps them.
pub type SharedUpcalls = Arc<dyn Upcalls>;

/// Who asks for an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// For [`Upcalls::groups`].
    pub pid: u32,
}
