//! Which replica a recovery goes on from, and which others equal it. Pure.
//!
//! First the class: a process that held the replica all along has every acknowledged write; one that was
//! restarted under the same kernel too, but for what was on its way; one whose kernel went down has what
//! was synced. Then how much of it there is.

use std::cmp::Reverse;

use dfs_proto::control::{ReplicaClass, ReplicaState};
use dfs_proto::planted;

/// The choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Base {
    /// Its place among the holders.
    pub(super) at: usize,
    /// It has torn blocks, as all of its class have, and must settle them before it is copied from.
    pub(super) torn: bool,
}

/// How good a replica is; greater is better.
fn rank(state: &ReplicaState) -> (ReplicaClass, bool, u32, u64, u32) {
    let class = if planted!(BaseIgnoresClass) { ReplicaClass::Rebooted } else { state.class };
    let amount = match class {
        ReplicaClass::Intact => state.applied.0,
        ReplicaClass::Restarted | ReplicaClass::Rebooted => state.synced.0,
    };
    (class, state.bad_blocks == 0, state.version.0, amount, state.good_blocks)
}

/// The best of the holders, the earliest among equals. `None` when there are none.
pub(super) fn choose(holders: &[&ReplicaState]) -> Option<Base> {
    let best = holders.iter().enumerate().max_by_key(|(at, state)| (rank(state), Reverse(*at)));
    best.map(|(at, state)| {
        // A bad block under a process that never stopped is rot, and rot is not settled by belief.
        let torn = state.class != ReplicaClass::Intact && state.bad_blocks > 0;
        Base { at, torn }
    })
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::{ChunkVersion, Seq};

    use super::*;

    fn state(class: ReplicaClass, applied: u64, synced: u64, good: u32, bad: u32) -> ReplicaState {
        ReplicaState {
            class,
            version: ChunkVersion(1),
            applied: Seq(applied),
            synced: Seq(synced),
            good_blocks: good,
            bad_blocks: bad,
            digest: 0,
            ops: Vec::new(),
        }
    }

    fn best(holders: &[ReplicaState]) -> Option<(usize, bool)> {
        choose(&holders.iter().collect::<Vec<_>>()).map(|base| (base.at, base.torn))
    }

    #[test]
    fn by_the_table() {
        use ReplicaClass::{Intact, Rebooted, Restarted};
        assert_eq!(best(&[]), None);
        // The class counts before everything.
        let table = [
            (
                vec![state(Rebooted, 9, 9, 9, 0), state(Restarted, 1, 1, 1, 0), state(Intact, 0, 0, 0, 0)],
                (2, false),
            ),
            (vec![state(Rebooted, 9, 9, 9, 0), state(Restarted, 1, 1, 1, 0)], (1, false)),
            // Among the intact, what was applied.
            (vec![state(Intact, 4, 9, 9, 0), state(Intact, 5, 0, 1, 0)], (1, false)),
            // Among the others, what was synced, then the blocks.
            (vec![state(Rebooted, 9, 3, 1, 0), state(Rebooted, 0, 4, 1, 0)], (1, false)),
            (vec![state(Rebooted, 9, 3, 1, 0), state(Rebooted, 0, 3, 2, 0)], (1, false)),
            // Equals: the earliest, which is the old primary if it is there.
            (vec![state(Intact, 4, 0, 1, 0), state(Intact, 4, 0, 1, 0)], (0, false)),
            // A torn block is settled only when no other of the class is whole.
            (vec![state(Rebooted, 0, 9, 9, 1), state(Rebooted, 0, 3, 3, 0)], (1, false)),
            (vec![state(Rebooted, 0, 9, 9, 1), state(Rebooted, 0, 3, 3, 2)], (0, true)),
            (vec![state(Restarted, 0, 0, 9, 1), state(Rebooted, 0, 3, 3, 0)], (0, true)),
            // Rot is not settled.
            (vec![state(Intact, 7, 0, 9, 1), state(Rebooted, 0, 3, 3, 0)], (0, false)),
        ];
        for (holders, expected) in table {
            assert_eq!(best(&holders), Some(expected), "{holders:?}");
        }
    }
}
