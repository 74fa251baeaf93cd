//! How long the kernel waits for each kind of request.
//!
//! A request's time begins on the thread that read it. Most are answered before that thread returns; one that is not
//! takes its beginning along ([`Waiting`]), and ends where it is answered. Two looks at the clock a request.

use std::cell::Cell;
use std::time::Instant;

use dfs_admin::Histogram;

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
        Stats { times: Kind::ALL.iter().map(|_| Histogram::new()).collect() }
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

    /// It is not answered on this thread: whoever answers it says so.
    pub(crate) fn take_along() -> Option<Waiting> {
        AT.take()
    }

    pub(crate) fn answered(&self, waiting: Waiting) {
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
        let waiting = Stats::take_along().unwrap();
        stats.leave();
        assert_eq!(seen(&stats), [(Kind::Read, 1)]);
        stats.answered(waiting);
        assert_eq!(seen(&stats), [(Kind::Read, 1), (Kind::Write, 1)]);
    }
}
