//! Operation ids of one chunk: each takes effect once, and at most [`WINDOW`] lie above the lowest that
//! is unanswered, because every member of the chunk keeps that many.

use std::collections::BTreeSet;

use dfs_proto::ids::OpId;

/// Ids in flight above the lowest unanswered one.
pub(crate) const WINDOW: u64 = 64;

/// The ids that a session uses on one chunk.
#[derive(Clone, Debug)]
pub(crate) struct OpIds {
    next: u64,
    unanswered: BTreeSet<u64>,
}

impl OpIds {
    /// Starts above `floor`: ids that this session may have used on the chunk before.
    pub(crate) fn above(floor: u64) -> OpIds {
        OpIds { next: floor + 1, unanswered: BTreeSet::new() }
    }

    /// A new id, or none while the window is full.
    pub(crate) fn take(&mut self) -> Option<OpId> {
        if self.next >= self.done().0 + WINDOW {
            return None;
        }
        let op = self.next;
        self.next += 1;
        self.unanswered.insert(op);
        Some(OpId(op))
    }

    /// A definite answer came, or the id will never be sent again.
    pub(crate) fn answered(&mut self, op: OpId) {
        self.unanswered.remove(&op.0);
    }

    /// No id will be sent again.
    pub(crate) fn are_answered(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The lowest id that is unanswered, or that will be used next.
    pub(crate) fn done(&self) -> OpId {
        OpId(self.unanswered.first().copied().unwrap_or(self.next))
    }

    /// All ids used are at or below this.
    pub(crate) fn used(&self) -> u64 {
        self.next - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_bounded_by_the_oldest() {
        let mut ids = OpIds::above(10);
        assert_eq!(ids.done(), OpId(11));
        let first = ids.take().unwrap();
        for _ in 1..WINDOW {
            let op = ids.take().unwrap();
            ids.answered(op);
        }
        assert_eq!(ids.take(), None);
        assert_eq!(ids.done(), first);
        ids.answered(first);
        assert_eq!(ids.done(), OpId(11 + WINDOW));
        assert!(ids.take().is_some());
        assert_eq!(ids.used(), 11 + WINDOW);
    }
}
