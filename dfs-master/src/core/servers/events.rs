//! The events that wait for a server: numbered, in order, kept until the server says that it applied
//! them (L5).

use std::collections::VecDeque;

use dfs_proto::control::{COMMAND_BATCH, ServerEvent};
use dfs_proto::ids::{LogIndex, Term};

/// Numbers of a later term are above all of an earlier one, so a server that kept its count over a
/// change of leaders misses nothing.
const TERM_SHIFT: u32 = 32;

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
#[derive(Clone, Debug)]
pub struct EventQueue {
    next: u64,
    /// The last one that was pushed to the server.
    pushed: u64,
    waiting: VecDeque<Waiting>,
}

impl EventQueue {
    /// An empty queue of a leader of `term`.
    #[must_use]
    pub fn new(term: Term) -> EventQueue {
        let base = term.0 << TERM_SHIFT;
        EventQueue { next: base + 1, pushed: base, waiting: VecDeque::new() }
    }

    pub fn add(&mut self, index: LogIndex, event: ServerEvent) {
        self.waiting.push_back(Waiting { number: self.next, index, event });
        self.next += 1;
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

    /// A push failed: what the server has not applied is pushed again.
    pub fn push_again(&mut self) {
        self.pushed = self.waiting.front().map_or(self.pushed, |waiting| waiting.number - 1);
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
        batch
            .map(|batch| batch.events.iter().map(|(number, _)| *number & 0xFFFF).collect())
            .unwrap_or_default()
    }

    #[test]
    fn none_is_missed_and_none_sent_twice_without_need() {
        let mut queue = EventQueue::new(Term(3));
        let base = 3 << 32;
        for n in 1..=3 {
            queue.add(LogIndex(n), ServerEvent::SessionEnded { session: SessionId(n) });
        }
        assert_eq!(numbers(queue.to_push()), [1, 2, 3]);
        assert!(numbers(queue.to_push()).is_empty());
        queue.applied(base + 1);
        assert_eq!(numbers(queue.after(base + 1)), [2, 3]);
        // A server that starts from nothing gets all that is left.
        assert_eq!(numbers(queue.after(0)), [2, 3]);
        queue.push_again();
        assert_eq!(numbers(queue.to_push()), [2, 3]);
        assert_eq!(queue.after(0).unwrap().index, LogIndex(3));
        queue.applied(base + 3);
        assert!(queue.is_empty());
        assert!(numbers(queue.after(0)).is_empty());
    }
}
