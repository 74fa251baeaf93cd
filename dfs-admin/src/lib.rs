//! The admin port of a daemon: an HTTP server on a thread of its own that says whether the daemon is alive
//! (`/healthz`), whether it does its work (`/readyz`), and its figures (`/metrics`). What else a daemon shows there it
//! brings as routes.
//!
//! Invariants. No route changes anything: whoever reaches the port can look, and no more. The thread waits for the
//! daemon with a bound, so that a daemon that hangs is said to hang and not waited for. What a daemon counts on its hot
//! paths, [`Histogram`] and [`Count`], is relaxed atomics: no lock, no allocation, no clock.

mod args;
mod count;
mod histogram;
mod ops;
mod inside;
mod page;
mod host;
mod listen;
mod serve;

use std::future::Future;
use std::pin::Pin;

pub use args::{AdminArgs, BadAdmin};
pub use count::Count;
pub use histogram::{Histogram, Tally};
pub use inside::Inside;
pub use ops::{OpTimes, op_name};
pub use page::{Figures, Page, number, state};
pub use serve::{Bound, secured};

/// What a daemon answers, on its own runtime; an error is in words, for people.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// A daemon, as its admin port sees it. The futures run on the daemon's own runtime: that they are answered at all is
/// what `/healthz` asks.
pub trait Daemon: Send + Sync + 'static {
    /// Whether its main loop goes on; why not.
    fn alive(&self) -> Answer<()>;

    /// Whether it does its work; why not, and what to do.
    fn ready(&self) -> Answer<()>;

    /// Its figures at this moment.
    fn figures(&self) -> Answer<Figures>;
}
