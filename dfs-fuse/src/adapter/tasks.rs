//! Running what can't be answered at once, so that every request is answered exactly once and in time.
//!
//! The kernel waits for an answer without letting signals through (fuser refuses FUSE_INTERRUPT, and the
//! kernel then stops sending it), so it is on this side that a waiting program is let go: when it was
//! killed, and on a `soft` mount when its time is up. The operation itself is not cut off in the middle
//! then: it runs to its end, unheard, and its effect is unknown to the program, as with NFS.
//!
//! An operation begins on the thread that read it: most send a request to a server at their first step, and a
//! hand-over to another thread before that costs as much as the request's own way there. What then waits is
//! kept in [`parked`] and goes on on the runtime.
//!
//! A panic in an operation or a handler is answered with EIO (fuser does so for an answer that is dropped)
//! and the mount goes on: ending the process would take the buffered bytes of every other program with
//! it. Operations share only maps, whose locks are held for map operations alone, so that a panic
//! elsewhere leaves none of them half changed.

mod parked;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use dfs_client::Error;
use fuser::Errno;
use tokio::runtime::Handle;

use crate::config::Patience;
use crate::errno::errno;
use crate::procfs;
use crate::stats::Stats;
use parked::{Parked, Started, begin};

/// How often it is checked whether a waiting program was killed. Most operations are long over by then.
const CHECK: Duration = Duration::from_secs(1);

/// How much longer than the library's own limit a `soft` mount waits: the library's answer says more, and
/// this is for what it fails to bound.
const GRACE: Duration = Duration::from_secs(5);

/// Where operations run.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    patience: Patience,
    parked: Arc<Parked>,
    stats: Arc<Stats>,
}

/// Why an operation has no result yet.
#[derive(Clone, Copy, Debug)]
enum GaveUp {
    Killed,
    TimedOut,
}

impl Tasks {
    /// Runs on `runtime`.
    pub(crate) fn new(runtime: Handle, patience: Patience, stats: Arc<Stats>) -> Tasks {
        let parked = Arc::new(Parked::default());
        // From then on somebody looks whether its program was killed.
        runtime.spawn(Arc::clone(&parked).resume_old(CHECK));
        Tasks { runtime, patience, parked, stats }
    }

    /// Runs `operation` for the thread `pid` and hands its outcome to `answer`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        pid: u32,
        operation: impl Future<Output = Result<T, Error>> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        self.run_or_undo(pid, operation, answer, drop);
    }

    /// [`Tasks::run`]; `undo` gets the result that came when the program had been let go already.
    pub(crate) fn run_or_undo<T: Send + 'static>(
        &self,
        pid: u32,
        operation: impl Future<Output = Result<T, Error>> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) {
        let patience = self.patience;
        let _entered = self.runtime.enter();
        let (operation, parking) = match begin(Box::pin(operation)) {
            Started::Done(result) => return answer(result.map_err(code)),
            Started::Waits(operation, parking) => (operation, parking),
        };
        let (stats, place) = (Arc::clone(&self.stats), self.stats.take_along(pid));
        let answered = move || place.into_iter().for_each(|place| stats.late_answer(place));
        let rest = async move {
            let mut operation = operation;
            let waited = tokio::select! {
                // The result first: it is what most were woken for, and then no timer is made.
                biased;
                result = &mut operation => Ok(result),
                reason = let_go(pid, patience) => Err(reason),
            };
            match waited {
                Ok(result) => {
                    answer(result.map_err(code));
                    answered();
                }
                Err(reason) => {
                    answer(Err(reason.code()));
                    answered();
                    if let Ok(late) = operation.await {
                        undo(late);
                    }
                }
            }
        };
        self.parked.park(parking, Box::pin(rest), &self.runtime);
    }
}

/// Returns when the program need not wait any longer.
async fn let_go(pid: u32, patience: Patience) -> GaveUp {
    let killed = async {
        loop {
            tokio::time::sleep(CHECK).await;
            if procfs::killed(pid) {
                return GaveUp::Killed;
            }
        }
    };
    match patience {
        Patience::Hard => killed.await,
        Patience::Soft { timeo } => {
            tokio::time::timeout(timeo + GRACE, killed).await.unwrap_or(GaveUp::TimedOut)
        }
    }
}

impl GaveUp {
    fn code(self) -> Errno {
        match self {
            GaveUp::Killed => Errno::EINTR,
            GaveUp::TimedOut => Errno::ETIMEDOUT,
        }
    }
}

/// The errno of a failed operation.
pub(crate) fn code(error: Error) -> Errno {
    Errno::from_i32(errno(error.status()))
}

/// Runs a handler on fuser's own thread, which a panic would end.
pub(crate) fn guarded(handler: impl FnOnce()) {
    // The panic hook has logged it; the handler's reply was dropped, which answered EIO.
    drop(catch_unwind(AssertUnwindSafe(handler)));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_soft_mount_lets_go_and_undoes_what_came_late() {
        let patience = Patience::Soft { timeo: Duration::from_secs(2) };
        let tasks = Tasks::new(Handle::current(), patience, Arc::default());
        let (answers, answered) = mpsc::channel();
        let (undone, undo) = tokio::sync::oneshot::channel();
        let slow = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(7)
        };
        let answer = move |result: Result<i32, Errno>| answers.send(result).unwrap();
        tasks.run_or_undo(0, slow, answer, move |late| undone.send(late).unwrap());
        assert_eq!(undo.await.unwrap(), 7);
        assert_eq!(answered.recv().unwrap(), Err(Errno::ETIMEDOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hard_mount_waits() {
        let tasks = Tasks::new(Handle::current(), Patience::Hard, Arc::default());
        let (answers, answered) = tokio::sync::oneshot::channel();
        let slow = async {
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            Err::<(), Error>(Error::NoSpace)
        };
        tasks.run(std::process::id(), slow, |result| answers.send(result).unwrap());
        assert_eq!(answered.await.unwrap(), Err(Errno::ENOSPC));
    }

    #[test]
    fn a_panic_stays_in_the_handler() {
        guarded(|| panic!("expected by this test"));
    }
}
