//! The link as those see it who wait for it. Waiters are woken in the order in which they came, so that a
//! simulated client runs the same way each time; tokio's watch channel wakes them in a random one.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::net::LinkId;
use crate::shared::lock;

/// What there is to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) link: Option<LinkId>,
    pub(crate) incarnation: u64,
    pub(crate) closed: bool,
}

/// A [`View`] that can be waited for.
#[derive(Debug)]
pub(crate) struct Watched {
    view: Mutex<View>,
    changed: Notify,
}

impl Watched {
    pub(crate) fn new(view: View) -> Watched {
        Watched { view: Mutex::new(view), changed: Notify::new() }
    }

    pub(crate) fn get(&self) -> View {
        *lock(&self.view)
    }

    pub(crate) fn modify(&self, change: impl FnOnce(&mut View)) {
        change(&mut lock(&self.view));
        self.changed.notify_waiters();
    }

    /// Waits until `pick` finds what it looks for, at once if it is there.
    pub(crate) async fn wait<T>(&self, pick: impl Fn(&View) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(found) = pick(&self.get()) {
                return found;
            }
            changed.await;
        }
    }
}
