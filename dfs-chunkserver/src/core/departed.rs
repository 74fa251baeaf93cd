//! Replicas that were removed lately. Every heartbeat forgets what is over, and looks at nothing else.

use std::collections::{BTreeMap, VecDeque};

use dfs_proto::ids::ChunkId;
use dfs_proto::units::Micros;

#[derive(Debug, Default)]
pub(crate) struct Departed {
    since: BTreeMap<ChunkId, Micros>,
    /// The same in the order of time, and what was removed again since.
    order: VecDeque<(Micros, ChunkId)>,
}

impl Departed {
    pub(crate) fn add(&mut self, chunk: ChunkId, now: Micros) {
        self.since.insert(chunk, now);
        self.order.push_back((now, chunk));
    }

    pub(crate) fn contains(&self, chunk: ChunkId) -> bool {
        self.since.contains_key(&chunk)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Forgets those for which `lives` does not hold.
    pub(crate) fn forget(&mut self, lives: impl Fn(Micros) -> bool) {
        while let Some((at, chunk)) = self.order.pop_front_if(|(at, _)| !lives(*at)) {
            if self.since.get(&chunk) == Some(&at) {
                self.since.remove(&chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_twice_is_known_from_the_second_time_on() {
        let mut departed = Departed::default();
        departed.add(ChunkId(1), Micros(1));
        departed.add(ChunkId(2), Micros(2));
        departed.add(ChunkId(1), Micros(3));
        departed.forget(|at| at.0 > 2);
        assert!(departed.contains(ChunkId(1)) && !departed.contains(ChunkId(2)));
        departed.forget(|_| false);
        assert!(!departed.contains(ChunkId(1)) && departed.len() == 0);
    }
}
