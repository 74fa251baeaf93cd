//! From a record to what a power cut may leave of it.
//!
//! What lies before the last flush that was asked for before the cut is there. Of the writes after it, each may be
//! there or not, whatever came behind it, and each may be torn at any sector. Two things that filesystems rest on
//! are left to them: a sector is written whole or not at all, and so is the superblock's block, which they write in
//! place.

use dfs_disk::sim::Rng;

use super::device::Event;

const SECTOR: usize = 512;
/// Not torn: the block of the superblock.
const SUPERBLOCK: usize = 4096;

/// A cut to look at: after so many events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CutAt(pub usize);

/// Cuts behind every flush of the record, `count` in all, or as many as there are flushes if that is more; in order.
#[must_use]
pub fn cuts(events: &[Event], count: usize, rng: &mut Rng) -> Vec<CutAt> {
    let mut starts = vec![0];
    starts
        .extend(events.iter().enumerate().filter(|(_, event)| **event == Event::Flush).map(|(at, _)| at + 1));
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([events.len()]);
    let windows: Vec<(usize, usize)> = starts.iter().copied().zip(ends).collect();
    let mut cuts = Vec::new();
    for number in 0..count.max(windows.len()) {
        let (start, end) = windows[number % windows.len()];
        let span = u64::try_from(end - start).unwrap_or(0);
        // The whole window first, then any part of it.
        let behind = if number < windows.len() { span } else { rng.below(span + 1) };
        cuts.push(CutAt(start + usize::try_from(behind).unwrap_or(0)));
    }
    cuts.sort_unstable();
    cuts
}

/// Makes images of a record, for cuts in their order.
#[derive(Debug)]
pub struct Maker<'a> {
    events: &'a [Event],
    /// What every image of the cuts still to come has, and how many events that takes in.
    durable: Vec<u8>,
    upto: usize,
}

impl<'a> Maker<'a> {
    /// `base` are the device's bytes before the first event.
    #[must_use]
    pub fn new(base: Vec<u8>, events: &'a [Event]) -> Maker<'a> {
        Maker { events, durable: base, upto: 0 }
    }

    /// One of the images that a cut there may leave.
    ///
    /// # Panics
    /// When an earlier call was for a later cut.
    pub fn image(&mut self, cut: CutAt, rng: &mut Rng) -> Vec<u8> {
        let before = &self.events[..cut.0];
        let flushed = before.iter().rposition(|event| *event == Event::Flush).map_or(0, |at| at + 1);
        assert!(flushed >= self.upto, "cuts are asked for in order");
        for event in &self.events[self.upto..flushed] {
            if let Event::Write { offset, data } = event {
                self.durable[*offset..*offset + data.len()].copy_from_slice(data);
            }
        }
        self.upto = flushed;
        let mut image = self.durable.clone();
        let how = How::choose(rng, cut.0 - flushed);
        for (number, event) in self.events[flushed..cut.0].iter().enumerate() {
            if let Event::Write { offset, data } = event {
                how.apply(rng, number, *offset, data, &mut image);
            }
        }
        image
    }
}

/// What becomes of the writes behind the flush.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Each is kept with so many chances in 8, and torn with one in 8.
    Each(u64),
    /// All but one.
    Without(usize),
    /// Only one.
    Only(usize),
}

impl How {
    fn choose(rng: &mut Rng, count: usize) -> How {
        let one = usize::try_from(rng.below(u64::try_from(count).unwrap_or(1))).unwrap_or(0);
        match rng.below(8) {
            0 => How::Each(0),
            1 => How::Each(8),
            2 => How::Without(one),
            3 => How::Only(one),
            _ => How::Each(1 + rng.below(7)),
        }
    }

    fn apply(self, rng: &mut Rng, number: usize, offset: usize, data: &[u8], image: &mut [u8]) {
        let (kept, torn) = match self {
            How::Each(chance) => (rng.below(8) < chance, (1..8).contains(&chance) && rng.below(8) == 0),
            How::Without(one) => (number != one, false),
            How::Only(one) => (number == one, false),
        };
        if torn && offset >= SUPERBLOCK {
            for (at, sector) in data.chunks(SECTOR).enumerate() {
                if rng.coin() {
                    let first = offset + at * SECTOR;
                    image[first..first + sector.len()].copy_from_slice(sector);
                }
            }
        } else if kept {
            image[offset..offset + data.len()].copy_from_slice(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: usize, byte: u8) -> Event {
        Event::Write { offset, data: vec![byte; 1024] }
    }

    #[test]
    fn what_lies_before_a_flush_is_there_and_what_follows_in_any_part() {
        let events = vec![write(8192, 1), Event::Flush, write(8192, 2), write(16384, 3), Event::Flush];
        let mut rng = Rng::new(1);
        let cuts = cuts(&events, 6000, &mut rng);
        assert_eq!(cuts.len(), 6000);
        let mut maker = Maker::new(vec![0; 32768], &events);
        let mut seen = std::collections::BTreeSet::new();
        for cut in cuts {
            let image = maker.image(cut, &mut rng);
            let found = (image[8192], image[8192 + SECTOR], image[16384], image[16384 + SECTOR]);
            match cut.0 {
                0 => assert_eq!(found, (0, 0, 0, 0)),
                2 => assert_eq!(found, (1, 1, 0, 0)),
                5 => assert_eq!(found, (2, 2, 3, 3)),
                _ => drop(seen.insert((cut.0, found))),
            }
        }
        // The second without the first, a torn one, all and none.
        for found in [(1, 1, 3, 3), (2, 1, 3, 3), (2, 2, 3, 3), (1, 1, 0, 0)] {
            assert!(seen.contains(&(4, found)), "{found:?} of {seen:?}");
        }
    }
}
