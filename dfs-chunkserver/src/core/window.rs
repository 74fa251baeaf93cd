//! Which sequence numbers of a chunk were applied here, so that a FORWARD that comes twice is applied once.
//!
//! A primary has fewer numbers in flight than the window is wide, so one that fell out of it can't be a
//! write that is still wanted.

use dfs_proto::ids::Seq;

/// Numbers remembered below the highest.
pub(crate) const WINDOW: u64 = 1024;
const WORDS: usize = 16;

#[derive(Clone, Debug, Default)]
pub(crate) struct SeqWindow {
    highest: Seq,
    /// Everything at or below it counts as applied: where this replica joined the order.
    floor: Seq,
    bits: [u64; WORDS],
}

/// What is known of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    New,
    Applied,
    /// Too old to say.
    Forgotten,
}

impl SeqWindow {
    /// A replica that holds everything up to `seq`.
    pub(crate) fn starting_at(seq: Seq) -> SeqWindow {
        SeqWindow { highest: seq, floor: seq, bits: [0; WORDS] }
    }

    /// The highest number applied.
    pub(crate) fn highest(&self) -> Seq {
        self.highest
    }

    pub(crate) fn look(&self, seq: Seq) -> Seen {
        if seq <= self.floor {
            return Seen::Applied;
        }
        if seq > self.highest {
            return Seen::New;
        }
        if seq.0 + WINDOW <= self.highest.0 {
            return Seen::Forgotten;
        }
        let (word, bit) = place(seq);
        if self.bits[word] & bit != 0 { Seen::Applied } else { Seen::New }
    }

    /// Notes that `seq` is applied.
    pub(crate) fn mark(&mut self, seq: Seq) {
        if seq > self.highest {
            let from = (self.highest.0 + 1).max((seq.0 + 1).saturating_sub(WINDOW));
            for skipped in from..=seq.0 {
                let (word, bit) = place(Seq(skipped));
                self.bits[word] &= !bit;
            }
            self.highest = seq;
        }
        if seq.0 + WINDOW > self.highest.0 {
            let (word, bit) = place(seq);
            self.bits[word] |= bit;
        }
    }
}

fn place(seq: Seq) -> (usize, u64) {
    let slot = seq.0 % WINDOW;
    // The quotient is below WORDS.
    (usize::try_from(slot / 64).unwrap_or(0), 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_out_of_order() {
        let mut window = SeqWindow::starting_at(Seq(10));
        assert_eq!(window.look(Seq(10)), Seen::Applied);
        assert_eq!(window.look(Seq(11)), Seen::New);
        window.mark(Seq(13));
        assert_eq!(window.look(Seq(11)), Seen::New);
        assert_eq!(window.look(Seq(13)), Seen::Applied);
        window.mark(Seq(11));
        assert_eq!(window.look(Seq(11)), Seen::Applied);
        assert_eq!(window.look(Seq(12)), Seen::New);
        assert_eq!(window.highest(), Seq(13));
    }

    #[test]
    fn forgets_what_is_far_below() {
        let mut window = SeqWindow::default();
        window.mark(Seq(1));
        window.mark(Seq(1 + 5 * WINDOW));
        assert_eq!(window.look(Seq(2)), Seen::Forgotten);
        assert_eq!(window.look(Seq(5 * WINDOW)), Seen::New);
        assert_eq!(window.look(Seq(1 + 5 * WINDOW)), Seen::Applied);
    }
}
