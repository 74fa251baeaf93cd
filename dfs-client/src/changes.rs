//! Directories that this mount changed by records that may not be on the master's disk yet. When the master
//! turns out to have lost them, the next fsync of such a directory says so, once, as that of a file does.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{Ino, LogIndex};

/// Directories looked through for what has become durable.
const TIDY_AT: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DirChanges {
    /// The last change of each.
    last: BTreeMap<Ino, LogIndex>,
    lost: BTreeSet<Ino>,
}

impl DirChanges {
    /// A change of the directory was answered. What is durable need not be remembered.
    pub(crate) fn note(&mut self, dir: Ino, index: LogIndex, durable: LogIndex) {
        if self.last.len() >= TIDY_AT {
            self.last.retain(|_, last| *last > durable);
        }
        let last = self.last.entry(dir).or_default();
        *last = index.max(*last);
    }

    /// The master's log lacks what came after `durable`.
    pub(crate) fn tail_lost(&mut self, durable: LogIndex) {
        let last = std::mem::take(&mut self.last);
        self.lost.extend(last.into_iter().filter(|(_, last)| *last > durable).map(|(dir, _)| dir));
    }

    /// Whether a change of the directory was lost, and not reported yet.
    pub(crate) fn report(&mut self, dir: Ino) -> bool {
        self.lost.remove(&dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_change_is_reported_once() {
        let mut changes = DirChanges::default();
        changes.note(Ino(2), LogIndex(5), LogIndex(4));
        changes.note(Ino(3), LogIndex(9), LogIndex(4));
        changes.tail_lost(LogIndex(7));
        assert!(!changes.report(Ino(2)));
        assert!(changes.report(Ino(3)));
        assert!(!changes.report(Ino(3)));
    }
}
