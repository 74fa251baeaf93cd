//! How long the kernel waits for each kind of request.
//!
//! A request's time begins on the thread that read it. Most are answered before that thread returns; one that is not
//! takes its beginning along ([`Waiting`]), and ends where it is answered. Two looks at the clock a request. What waits
//! is in a table meanwhile, for `dfs ops`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dfs_admin::Histogram;
use dfs_proto::meta::{Flight, Side};

use crate::clock;

macro_rules! kinds {
    ($($name:ident = $label:literal,)*) => {
        /// What the kernel asks.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Kind {
            $($name,)*
        }

        impl Kind {
            pub(crate) const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// As labels name it.
            pub(crate) fn label(self) -> &'static str {
                match self {
                    $(Kind::$name => $label,)*
                }
            }
        }
    };
}

kinds! {
    Lookup = "lookup",
    Forget = "forget",
    Getattr = "getattr",
    Setattr = "setattr",
    Readlink = "readlink",
    Mknod = "mknod",
    Mkdir = "mkdir",
    Unlink = "unlink",
    Rmdir = "rmdir",
    Symlink = "symlink",
    Rename = "rename",
    Link = "link",
    Open = "open",
    Create = "create",
    Read = "read",
    Write = "write",
    Flush = "flush",
    Release = "release",
    Fsync = "fsync",
    Fallocate = "fallocate",
    Opendir = "opendir",
    Readdir = "readdir",
    Releasedir = "releasedir",
    Fsyncdir = "fsyncdir",
    Statfs = "statfs",
    Setxattr = "setxattr",
    Getxattr = "getxattr",
    Listxattr = "listxattr",
    Removexattr = "removexattr",
}

/// All times, by kind.
#[derive(Debug)]
pub(crate) struct Stats {
    times: Vec<Histogram>,
    /// Held for one look at a map. No other lock is taken under it.
    waits: Mutex<Waits>,
}

/// Requests that are not answered.
#[derive(Debug, Default)]
struct Waits {
    next: u64,
    /// With the thread that waits.
    table: BTreeMap<u64, (Waiting, u32)>,
}

/// A request's place among those that wait.
#[derive(Debug)]
pub(crate) struct Place {
    waiting: Waiting,
    number: u64,
}

/// A request that the thread which read it has not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    kind: Kind,
    began: Instant,
}

thread_local! {
    /// The request that this thread is at.
    static AT: Cell<Option<Waiting>> = const { Cell::new(None) };
}

impl Default for Stats {
    fn default() -> Stats {
        Stats { times: Kind::ALL.iter().map(|_| Histogram::new()).collect(), waits: Mutex::default() }
    }
}

impl Stats {
    /// A request is taken up by this thread.
    pub(crate) fn begin(&self, kind: Kind) {
        AT.set(Some(Waiting { kind, began: clock::now() }));
    }

    /// The thread is done with it: it is answered, unless somebody took it along.
    pub(crate) fn leave(&self) {
        if let Some(answered) = AT.take() {
            self.answered(answered);
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is not answered on this thread: whoever answers it, for the thread `pid`, says so.
    pub(crate) fn take_along(&self, pid: u32) -> Option<Place> {
        let waiting = AT.take()?;
        let mut waits = self.waits();
        waits.next += 1;
        let number = waits.next;
        waits.table.insert(number, (waiting, pid));
        Some(Place { waiting, number })
    }

    /// What was taken along is answered.
    pub(crate) fn late_answer(&self, place: Place) {
        self.waits().table.remove(&place.number);
        self.answered(place.waiting);
    }

    /// What programs wait for: which call, since how many microseconds, which thread.
    pub(crate) fn waiting(&self) -> Vec<(Kind, u64, u32)> {
        let now = clock::now();
        let age = |began| u64::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX);
        let waits = self.waits();
        waits.table.values().map(|(waiting, pid)| (waiting.kind, age(waiting.began), *pid)).collect()
    }

    /// The same, as `dfs ops` shows it.
    pub(crate) fn flights(&self) -> Vec<Flight> {
        let flight = |(kind, age_us, pid): (Kind, u64, u32)| {
            let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Flight {
                side: Side::Program,
                op: kind.label().to_owned(),
                ino: None,
                chunk: None,
                peer: format!("process {pid} {}", program.trim_end()).trim_end().to_owned(),
                age_us,
                ended_ms: None,
            }
        };
        self.waiting().into_iter().map(flight).collect()
    }

    fn answered(&self, waiting: Waiting) {
        let took = clock::now().saturating_duration_since(waiting.began);
        if let Some(times) = self.times.get(waiting.kind as usize) {
            times.took_us(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Those kinds that were ever answered.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (Kind, &Histogram)> {
        Kind::ALL.iter().copied().zip(&self.times).filter(|(_, times)| times.count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(stats: &Stats) -> Vec<(Kind, u64)> {
        stats.seen().map(|(kind, times)| (kind, times.count())).collect()
    }

    #[test]
    fn each_request_counts_once_wherever_it_is_answered() {
        let stats = Stats::default();
        stats.begin(Kind::Read);
        stats.leave();
        assert_eq!(seen(&stats), [(Kind::Read, 1)]);
        stats.begin(Kind::Write);
        let place = stats.take_along(7).unwrap();
        stats.leave();
        let (kind, _, pid) = stats.waiting()[0];
        assert_eq!((kind, pid), (Kind::Write, 7));
        assert_eq!(seen(&stats), [(Kind::Read, 1)]);
        stats.late_answer(place);
        assert_eq!(stats.waiting(), []);
        assert_eq!(seen(&stats), [(Kind::Read, 1), (Kind::Write, 1)]);
    }
}
