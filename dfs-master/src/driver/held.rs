//! Effects that wait until the log is durable up to what they rest on.
//!
//! Invariant: on a connection whose order matters (one that calls or notifications are held for), nothing
//! overtakes what is held; replies to clients may pass each other, since each is to a request of its own.

use std::collections::HashMap;

use dfs_master::core::ConnId;
use dfs_proto::ids::LogIndex;

use crate::driver::{Queue, Send};

#[derive(Debug, Default)]
pub(super) struct Held {
    queue: Queue,
    /// Order of arrival, to keep it among effects of one index.
    arrived: u64,
    /// Of each connection that has ordered effects held: the highest index, and how many.
    ordered: HashMap<ConnId, (LogIndex, usize)>,
}

impl Held {
    /// The index to wait for, if `send` has to wait: its own, or that of something ordered before it.
    pub(super) fn must_wait(&self, conn: ConnId, own: Option<LogIndex>, send: &Send) -> Option<LogIndex> {
        if matches!(send, Send::Reply { .. }) {
            return own;
        }
        let before = self.ordered.get(&conn).map(|(index, _)| *index);
        own.max(before)
    }

    pub(super) fn push(&mut self, index: LogIndex, conn: ConnId, send: Send) {
        if !matches!(send, Send::Reply { .. }) {
            let held = self.ordered.entry(conn).or_insert((index, 0));
            held.0 = held.0.max(index);
            held.1 += 1;
        }
        self.arrived += 1;
        self.queue.insert((index, self.arrived), (conn, send));
    }

    /// Everything that waited for `durable` or less, in order.
    pub(super) fn release(&mut self, durable: LogIndex) -> Vec<(ConnId, Send)> {
        let later = self.queue.split_off(&(LogIndex(durable.0.saturating_add(1)), 0));
        let ready: Vec<(ConnId, Send)> = std::mem::replace(&mut self.queue, later).into_values().collect();
        for (conn, send) in &ready {
            if !matches!(send, Send::Reply { .. })
                && let Some(held) = self.ordered.get_mut(conn)
            {
                held.1 -= 1;
                if held.1 == 0 {
                    self.ordered.remove(conn);
                }
            }
        }
        ready
    }
}
