//! From a recalled grant to the kernel's caches: what the library calls, and what the notifying thread calls.

use std::io;
use std::sync::Arc;

use dfs_client::{Ack, Upcalls};
use dfs_proto::ids::Ino;
use tokio::runtime::Handle;

use super::attr::Numbers;
use crate::inodes::Inodes;
use crate::notify::{KernelCache, Notify};
use crate::procfs;

/// What the library asks of the mount. Exists before the mount does.
#[derive(Clone, Debug)]
pub(crate) struct Recalls {
    pub(crate) inodes: Arc<Inodes>,
    pub(crate) notify: Notify,
    pub(crate) runtime: Handle,
}

impl Upcalls for Recalls {
    fn invalidate(&self, ino: Ino, done: Ack) {
        match self.inodes.reads(ino) {
            None => self.notify.pages(ino, done),
            Some(over) => {
                let notify = self.notify.clone();
                self.runtime.spawn(async move {
                    over.wait().await;
                    notify.pages(ino, done);
                });
            }
        }
    }

    fn groups(&self, pid: u32) -> Option<Vec<u32>> {
        procfs::groups(pid)
    }
}

/// fuser's way to the kernel's caches.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(super) notifier: fuser::Notifier,
    pub(super) numbers: Numbers,
}

impl KernelCache for Kernel {
    fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
        // A negative offset stands for no pages.
        self.notifier.inval_inode(self.numbers.number(ino), -1, 0)
    }

    fn forget_pages(&self, ino: Ino) -> io::Result<()> {
        // Length 0 stands for the rest of the file.
        self.notifier.inval_inode(self.numbers.number(ino), 0, 0)
    }
}
