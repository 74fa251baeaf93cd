//! The events that wait for a server: numbered from 1 since its registration, in order, kept until the
//! server says that it applied them (L5).

use std::collections::VecDeque;

use dfs_proto::control::{COMMAND_BATCH, ServerEvent};
use dfs_proto::ids::LogIndex;

#[derive(Clone, Debug)]
struct Waiting {
    number: u64,
    /// The record that it tells of.
    index: LogIndex,
    event: ServerEvent,
}

/// Events to be sent, and the record that must be durable first.
#[derive(Clone, Debug)]
pub struct EventBatch {
    pub events: Vec<(u64, ServerEvent)>,
    pub index: LogIndex,
}

/// One server's events.
#[derive(Clone, Debug, Default)]
pub struct EventQueue {
    /// The last number given.
    last: u64,
    /// The last one that was pushed to the server.
    pushed: u64,
    waiting: VecDeque<Waiting>,
}

impl EventQueue {
    pub fn add(&mut self, index: LogIndex, event: ServerEvent) {
        self.last += 1;
        self.waiting.push_back(Waiting { number: self.last, index, event });
    }

    /// The server has applied everything up to `number`.
    pub fn applied(&mut self, number: u64) {
        while self.waiting.pop_front_if(|waiting| waiting.number <= number).is_some() {}
    }

    /// What has not been pushed yet, at most a batch.
    pub fn to_push(&mut self) -> Option<EventBatch> {
        let from = self.pushed;
        let batch = self.batch(from)?;
        self.pushed = batch.events.last().map_or(from, |(number, _)| *number);
        Some(batch)
    }

    /// Everything after `applied`, at most a batch: what a heartbeat's reply carries.
    #[must_use]
    pub fn after(&self, applied: u64) -> Option<EventBatch> {
        self.batch(applied)
    }

    fn batch(&self, after: u64) -> Option<EventBatch> {
        let from = self.waiting.partition_point(|waiting| waiting.number <= after);
        let taken: Vec<&Waiting> = self.waiting.iter().skip(from).take(COMMAND_BATCH).collect();
        let index = taken.iter().map(|waiting| waiting.index).max()?;
        let events = taken.iter().map(|waiting| (waiting.number, waiting.event.clone())).collect();
        Some(EventBatch { events, index })
    }

    /// The server registered and counts from 1 again. What it was to be told of configs is of before, and may be
    /// outdated: its inventory is answered with what is true now. Sessions that ended stay ended.
    pub fn renumber(&mut self) {
        (self.last, self.pushed) = (0, 0);
        self.waiting.retain(|waiting| matches!(waiting.event, ServerEvent::SessionEnded { .. }));
        for waiting in &mut self.waiting {
            self.last += 1;
            waiting.number = self.last;
        }
    }

    /// Drops everything: the server's process is dead, and its next is told afresh.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::SessionId;

    use super::*;

    fn numbers(batch: Option<EventBatch>) -> Vec<u64> {
        batch.map(|batch| batch.events.iter().map(|(number, _)| *number).collect()).unwrap_or_default()
    }

    #[test]
    fn none_is_missed_and_none_sent_twice_without_need() {
        let mut queue = EventQueue::default();
        for n in 1..=3 {
            queue.add(LogIndex(n), ServerEvent::SessionEnded { session: SessionId(n) });
        }
        assert_eq!(numbers(queue.to_push()), [1, 2, 3]);
        assert!(numbers(queue.to_push()).is_empty());
        queue.applied(1);
        assert_eq!(numbers(queue.after(1)), [2, 3]);
        assert_eq!(queue.after(0).unwrap().index, LogIndex(3));
        queue.renumber();
        assert_eq!(numbers(queue.to_push()), [1, 2]);
        queue.add(LogIndex(4), ServerEvent::SessionEnded { session: SessionId(4) });
        assert_eq!(numbers(queue.to_push()), [3]);
        queue.applied(3);
        assert!(queue.is_empty());
        assert!(numbers(queue.after(0)).is_empty());
    }
}
