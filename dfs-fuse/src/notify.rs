//! Telling the kernel to forget: one thread of its own, because the kernel answers such a call only when
//! it holds no lock on what is to be forgotten.
//!
//! The rules that keep this free of deadlock. Dropping pages waits for reads of those pages that are under
//! way, and writes dirty mapped pages back; both are requests to this very process. So: nothing is held
//! while the kernel is called, no request is answered by this thread, no request's answer waits for
//! pages to be dropped, and before pages are dropped the reads begun earlier are awaited, by a task, so
//! that one slow read does not hold up what concerns other inodes. Only attributes, whose invalidation
//! takes no lock, are waited for by a request: an open.

use std::io;
use std::sync::mpsc;

use dfs_client::Ack;
use dfs_proto::ids::Ino;
use tokio::sync::oneshot;

/// The kernel's caches of this mount.
pub(crate) trait KernelCache: Send + 'static {
    /// Attributes are asked for again before they are used. Takes no lock in the kernel.
    fn forget_attributes(&self, ino: Ino) -> io::Result<()>;
    /// And the pages are read again. Waits for requests that are under way on them.
    fn forget_pages(&self, ino: Ino) -> io::Result<()>;
}

/// The way to the notifying thread. When that thread is gone, there is no mount any more, and everything
/// counts as forgotten.
#[derive(Clone, Debug)]
pub(crate) struct Notify {
    /// Not bounded by itself: an open waits for its job, and the library has one invalidation at a time
    /// for an inode that it holds a grant of.
    jobs: mpsc::Sender<Job>,
}

/// The receiving end, before [`Jobs::serve`].
#[derive(Debug)]
pub(crate) struct Jobs(mpsc::Receiver<Job>);

#[derive(Debug)]
enum Job {
    Attributes { ino: Ino, done: oneshot::Sender<()> },
    Pages { ino: Ino, done: Ack },
}

/// Both ends. Jobs wait until they are served: there is no kernel to call before the mount is made.
pub(crate) fn channel() -> (Notify, Jobs) {
    let (jobs, receiver) = mpsc::channel();
    (Notify { jobs }, Jobs(receiver))
}

impl Notify {
    /// Has the attributes forgotten, and returns when they are.
    pub(crate) async fn attributes(&self, ino: Ino) {
        let (done, waiter) = oneshot::channel();
        if self.jobs.send(Job::Attributes { ino, done }).is_ok() {
            // The thread ended before it came to this job: so did the mount.
            let _ = waiter.await;
        }
    }

    /// Has pages and attributes forgotten, then acknowledges.
    pub(crate) fn pages(&self, ino: Ino, done: Ack) {
        // A job that cannot be sent is dropped, and its Ack says so.
        drop(self.jobs.send(Job::Pages { ino, done }));
    }
}

impl Jobs {
    /// Starts the thread. It ends with the last [`Notify`].
    pub(crate) fn serve(self, cache: impl KernelCache) -> io::Result<()> {
        std::thread::Builder::new().name("notify".into()).spawn(move || {
            for job in self.0 {
                run(&cache, job);
            }
        })?;
        Ok(())
    }
}

fn run(cache: &impl KernelCache, job: Job) {
    match job {
        Job::Attributes { ino, done } => {
            complain(ino, cache.forget_attributes(ino));
            // An open that was given up waits no more.
            let _ = done.send(());
        }
        Job::Pages { ino, done } => {
            complain(ino, cache.forget_pages(ino));
            done.ack();
        }
    }
}

fn complain(ino: Ino, result: io::Result<()>) {
    match result {
        Ok(()) => {}
        // Between the end of the mount and the end of this thread.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => log::warn!("inode {ino}: the kernel did not drop its cache: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Vec<String>>>);

    impl KernelCache for Fake {
        fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("attr {ino}"));
            Ok(())
        }

        fn forget_pages(&self, ino: Ino) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("pages {ino}"));
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    #[tokio::test]
    async fn jobs_are_done_in_order_and_acknowledged_even_on_error() {
        let (notify, jobs) = channel();
        let cache = Fake::default();
        let (ack, acked) = Ack::new();
        notify.pages(Ino(7), ack);
        jobs.serve(cache.clone()).unwrap();
        acked.await.unwrap();
        notify.attributes(Ino(8)).await;
        assert_eq!(*cache.0.lock().unwrap(), ["pages 7", "attr 8"]);
    }

    #[tokio::test]
    async fn without_a_mount_everything_is_forgotten() {
        let (notify, jobs) = channel();
        drop(jobs);
        notify.attributes(Ino(1)).await;
        let (ack, acked) = Ack::new();
        notify.pages(Ino(1), ack);
        assert!(acked.await.is_err());
    }
}
