//! Blocks that were found not to match their checksums, until they are mended. A bounded table in memory: what it
//! has no room for, or a restart forgets, the next read or scrub finds again.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::chunk::Range;
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq};
use dfs_proto::units::{BLOCK_SIZE, IO_MAX};

use crate::core::replica::Blocks;

/// Most blocks remembered: 16 MiB of damage. A disk with more of it is one to be replaced, not mended.
const BLOCKS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Damage {
    chunks: BTreeMap<ChunkId, Hurt>,
    /// Blocks in the table.
    blocks: usize,
    pub(crate) counts: DamageCounts,
}

/// Since this process began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DamageCounts {
    /// Blocks found not to match.
    pub found: u64,
    /// Blocks replaced by another member's.
    pub mended: u64,
}

#[derive(Debug, Default)]
struct Hurt {
    spots: BTreeMap<u32, Spot>,
    /// Since something was mended last.
    tries: u32,
    /// A timer will have it looked at.
    waits: bool,
}

#[derive(Clone, Copy, Debug)]
struct Spot {
    /// The last write that may have changed the block before it was found, or that was refused for it since.
    since: (ChunkVersion, Seq),
    /// No member has the block.
    hopeless: bool,
    /// Someone did not answer: asked again when the timer is due, and not before.
    later: bool,
}

impl Damage {
    /// Notes blocks; which of them are new.
    pub(crate) fn add(&mut self, chunk: ChunkId, blocks: &[u32], since: (ChunkVersion, Seq)) -> Vec<u32> {
        let mut fresh = Vec::new();
        for &block in blocks {
            let hurt = self.chunks.entry(chunk).or_default();
            if let Some(spot) = hurt.spots.get_mut(&block) {
                spot.since = spot.since.max(since);
            } else if self.blocks < BLOCKS_MAX {
                hurt.spots.insert(block, Spot { since, hopeless: false, later: false });
                hurt.tries = 0;
                self.blocks += 1;
                fresh.push(block);
            }
        }
        self.drop_healed(chunk);
        self.counts.found += fresh.len() as u64;
        fresh
    }

    /// A write of these blocks begins.
    pub(crate) fn written(&mut self, chunk: ChunkId, blocks: &Blocks, at: (ChunkVersion, Seq)) {
        let Some(hurt) = self.chunks.get_mut(&chunk) else { return };
        for spot in hurt.spots.iter_mut().filter(|(block, _)| blocks.contains(**block)).map(|(_, spot)| spot)
        {
            spot.since = spot.since.max(at);
        }
    }

    /// Whether a write of the same version that came after `seq` may have changed a damaged block of the range.
    pub(crate) fn is_older(&self, chunk: ChunkId, range: Range, version: ChunkVersion, seq: Seq) -> bool {
        let Some(hurt) = self.chunks.get(&chunk) else { return false };
        hurt.spots.range(blocks_of(range)).any(|(_, spot)| spot.since.0 == version && spot.since.1 > seq)
    }

    /// What of a range is mended: all but these.
    pub(crate) fn mended(&mut self, chunk: ChunkId, range: Range, count: u32, left: &BTreeSet<u32>) {
        self.counts.mended += u64::from(count);
        let Some(hurt) = self.chunks.get_mut(&chunk) else { return };
        let before = hurt.spots.len();
        hurt.spots.retain(|block, _| left.contains(block) || !blocks_of(range).contains(block));
        let gone = before - hurt.spots.len();
        if gone > 0 {
            hurt.tries = 0;
            self.blocks -= gone;
        }
        self.drop_healed(chunk);
    }

    fn drop_healed(&mut self, chunk: ChunkId) {
        if self.chunks.get(&chunk).is_some_and(|hurt| hurt.spots.is_empty()) {
            self.chunks.remove(&chunk);
        }
    }

    /// No member has what is left of the range; how many blocks that was not known of.
    pub(crate) fn give_up(&mut self, chunk: ChunkId, range: Range) -> usize {
        let Some(hurt) = self.chunks.get_mut(&chunk) else { return 0 };
        let mut news = 0;
        for (_, spot) in hurt.spots.range_mut(blocks_of(range)) {
            news += usize::from(!std::mem::replace(&mut spot.hopeless, true));
        }
        news
    }

    /// Blocks that a member may have which did not answer.
    pub(crate) fn put_off(&mut self, chunk: ChunkId, range: Range) {
        let spots = self.chunks.get_mut(&chunk).map(|hurt| hurt.spots.range_mut(blocks_of(range)));
        spots.into_iter().flatten().for_each(|(_, spot)| spot.later = true);
    }

    /// The chunk's bytes here are nobody's concern any more.
    pub(crate) fn forget(&mut self, chunk: ChunkId) {
        if let Some(hurt) = self.chunks.remove(&chunk) {
            self.blocks -= hurt.spots.len();
        }
    }

    pub(crate) fn is_hurt(&self, chunk: ChunkId) -> bool {
        self.chunks.contains_key(&chunk)
    }

    /// How many blocks of a chunk are damaged.
    pub(crate) fn count(&self, chunk: ChunkId) -> u32 {
        let hurt = self.chunks.get(&chunk).map_or(0, |hurt| hurt.spots.len());
        u32::try_from(hurt).unwrap_or(u32::MAX)
    }

    /// How many are damaged, and of how many of them no member has a good copy.
    pub(crate) fn standing(&self) -> (u64, u64) {
        let spots = self.chunks.values().flat_map(|hurt| hurt.spots.values());
        (self.blocks as u64, spots.filter(|spot| spot.hopeless).count() as u64)
    }

    /// The first blocks of which no member has a good copy.
    pub(crate) fn hopeless(&self, most: usize) -> Vec<(ChunkId, u32)> {
        let mut blocks = Vec::new();
        for (&chunk, hurt) in &self.chunks {
            blocks.extend(
                hurt.spots.iter().filter(|(_, spot)| spot.hopeless).map(|(&block, _)| (chunk, block)),
            );
            if blocks.len() >= most {
                break;
            }
        }
        blocks.truncate(most);
        blocks
    }

    /// The first damaged blocks, for the next process.
    pub(crate) fn first(&self, most: usize) -> Vec<(ChunkId, u32)> {
        let all =
            self.chunks.iter().flat_map(|(&chunk, hurt)| hurt.spots.keys().map(move |&block| (chunk, block)));
        all.take(most).collect()
    }

    /// Damaged blocks that follow one another, as much as one message carries in each range. Those of which no
    /// member has a good copy, and those that were put off, only if they are to be tried again.
    pub(crate) fn runs(&self, chunk: ChunkId, again: bool) -> Vec<Range> {
        let mut runs: Vec<Range> = Vec::new();
        let Some(hurt) = self.chunks.get(&chunk) else { return runs };
        for (&block, _) in hurt.spots.iter().filter(|(_, spot)| again || !(spot.hopeless || spot.later)) {
            let offset = block.saturating_mul(BLOCK_SIZE);
            match runs.last_mut() {
                Some(last) if last.end() == offset && last.len < IO_MAX => last.len += BLOCK_SIZE,
                _ => runs.push(Range { offset, len: BLOCK_SIZE }),
            }
        }
        runs
    }

    /// A damaged block among these, and whether no member has it.
    pub(crate) fn among(&self, chunk: ChunkId, blocks: &Blocks) -> Option<(u32, bool)> {
        let spots = self.chunks.get(&chunk)?.spots.iter().filter(|(block, _)| blocks.contains(**block));
        let mut found: Vec<(u32, bool)> = spots.map(|(&block, spot)| (block, spot.hopeless)).collect();
        found.sort_unstable_by_key(|(_, hopeless)| !hopeless);
        found.first().copied()
    }

    /// Whether the chunk is damaged and no timer is set for it; one is from now on.
    pub(crate) fn wants_timer(&mut self, chunk: ChunkId) -> bool {
        self.chunks.get_mut(&chunk).is_some_and(|hurt| !std::mem::replace(&mut hurt.waits, true))
    }

    /// The timer is due.
    pub(crate) fn timer_due(&mut self, chunk: ChunkId) {
        if let Some(hurt) = self.chunks.get_mut(&chunk) {
            hurt.waits = false;
        }
    }

    /// Counts a try; how many there were before it.
    pub(crate) fn tried(&mut self, chunk: ChunkId) -> u32 {
        let Some(hurt) = self.chunks.get_mut(&chunk) else { return 0 };
        hurt.tries = hurt.tries.saturating_add(1);
        hurt.tries - 1
    }
}

fn blocks_of(range: Range) -> std::ops::Range<u32> {
    range.offset / BLOCK_SIZE..range.end().div_ceil(BLOCK_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: ChunkId = ChunkId(1);
    const V: ChunkVersion = ChunkVersion(2);

    fn blocks(from: u32, count: u32) -> Range {
        Range { offset: from * BLOCK_SIZE, len: count * BLOCK_SIZE }
    }

    #[test]
    fn runs_follow_blocks_and_are_no_longer_than_a_message() {
        let mut damage = Damage::default();
        let many: Vec<u32> = (10..10 + IO_MAX / BLOCK_SIZE + 1).chain([3]).collect();
        assert_eq!(damage.add(CHUNK, &many, (V, Seq(1))).len(), many.len());
        let full = IO_MAX / BLOCK_SIZE;
        assert_eq!(damage.runs(CHUNK, false), [blocks(3, 1), blocks(10, full), blocks(10 + full, 1)]);
        assert!(damage.add(CHUNK, &[3], (V, Seq(1))).is_empty(), "known");
        damage.mended(CHUNK, blocks(10, full), full, &BTreeSet::from([11]));
        assert_eq!(damage.runs(CHUNK, false), [blocks(3, 1), blocks(11, 1), blocks(10 + full, 1)]);
        assert_eq!(damage.give_up(CHUNK, blocks(0, 12)), 2);
        assert_eq!(damage.give_up(CHUNK, blocks(0, 12)), 0);
        assert_eq!(damage.runs(CHUNK, false), [blocks(10 + full, 1)]);
        damage.put_off(CHUNK, blocks(10 + full, 1));
        assert_eq!((damage.runs(CHUNK, false).len(), damage.runs(CHUNK, true).len()), (0, 3));
        assert_eq!((damage.standing(), damage.hopeless(1)), ((3, 2), vec![(CHUNK, 3)]));
        damage.forget(CHUNK);
        assert_eq!((damage.standing(), damage.is_hurt(CHUNK)), ((0, 0), false));
    }

    #[test]
    fn a_mending_must_not_be_older_than_a_write_of_the_block() {
        let mut damage = Damage::default();
        damage.add(CHUNK, &[4], (V, Seq(7)));
        assert!(
            damage.is_older(CHUNK, blocks(0, 9), V, Seq(6))
                && !damage.is_older(CHUNK, blocks(0, 9), V, Seq(7))
        );
        damage.written(CHUNK, &Blocks::of(&[blocks(4, 1)]), (V, Seq(9)));
        assert!(
            damage.is_older(CHUNK, blocks(4, 1), V, Seq(8))
                && !damage.is_older(CHUNK, blocks(5, 4), V, Seq(1))
        );
        assert!(
            !damage.is_older(CHUNK, blocks(4, 1), ChunkVersion(3), Seq(1)),
            "another version counts anew"
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let mut damage = Damage::default();
        for chunk in 0..BLOCKS_MAX as u64 {
            assert_eq!(damage.add(ChunkId(chunk), &[0], (V, Seq(0))), [0]);
        }
        assert!(damage.add(ChunkId(u64::MAX), &[0], (V, Seq(0))).is_empty());
        assert!(!damage.is_hurt(ChunkId(u64::MAX)));
    }
}
