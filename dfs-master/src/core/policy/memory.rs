//! What has to be remembered of a chunk: since when it is hot, how much it was read at most, which way it was changed.
//!
//! Bounded: the past is kept as the highest load of each tenth of the time after which replicas are taken away.

use dfs_proto::units::Micros;

use super::{ChunkView, CostRate, Direction, Limits};

/// Parts of the time that is looked back on, and one that is under way.
const SLOTS: usize = 11;
/// Heartbeats come once a second: a look sooner than this sees the same ones.
const STEP_MS: u64 = 500;
/// After so long without a look nothing is known of what was between.
const GAP_MS: u64 = 5_000;
/// What is left of a measured load without requests, in permille, after so many seconds: its half-life is 10 s.
const LEFT_PERMILLE: [u64; 6] = [1000, 933, 871, 812, 758, 707];
/// The load of the last few seconds is told from the whole of what was measured by a look that long ago.
const RECENT_MS: u64 = 2_500;
/// A load that falls by more than this in a second is not there any more. Without requests it falls by
/// 67 permille: this is what a quarter of the requests leaves.
const FALLING_PERMILLE: u64 = 50;

/// What was seen of a chunk, second by second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    seen: Option<Seen>,
    /// The looks before the last one, the newest first.
    before: [Option<(Micros, CostRate)>; 4],
    hot_since: Option<Micros>,
    peaks: [CostRate; SLOTS],
    last: Option<Change>,
    /// When the last change went against the one before.
    reversed: Option<Micros>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    at: Micros,
    read: CostRate,
    replicas: usize,
    /// Without a gap.
    since: Micros,
    /// When the first of the peaks began.
    slot: Micros,
}

/// A change that was decided on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub direction: Direction,
    pub at: Micros,
}

/// What steps once a second does so however often the policy looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seconds {
    last: Option<Micros>,
}

impl Seconds {
    /// Whether this look is the first of its second.
    pub fn is_new(&mut self, now: Micros) -> bool {
        let new = self.last.is_none_or(|last| now.ms_since(last) >= STEP_MS);
        if new {
            self.last = Some(now);
        }
        new
    }
}

/// Takes in what a chunk's load is now. To be called once a second.
#[must_use]
pub fn observe(memory: Memory, chunk: &ChunkView, limits: &Limits, now: Micros) -> Memory {
    look(memory, chunk.read, chunk.replicas.len(), limits, now)
}

/// [`observe`], of one of whom no more has to be known: there are many that are read, and few that matter.
#[must_use]
pub fn look(memory: Memory, read: CostRate, replicas: usize, limits: &Limits, now: Micros) -> Memory {
    let begins = Seen { at: now, read, replicas, since: now, slot: now };
    let Some(seen) = memory.seen.filter(|seen| now.ms_since(seen.at) <= GAP_MS) else {
        let mut peaks = [CostRate(0); SLOTS];
        peaks[0] = read;
        let hot_since = read.exceeds(limits.max, replicas).then_some(now);
        return Memory { seen: Some(begins), before: [None; 4], hot_since, peaks, ..memory };
    };
    let past_ms = now.ms_since(seen.at);
    if past_ms < STEP_MS {
        // A change that was carried out is looked at once more. The looks that the recent load is told from stay apart.
        let hot_since = memory.hot_since.filter(|_| seen.replicas == replicas);
        return Memory { seen: Some(Seen { replicas, ..seen }), hot_since, ..memory };
    }
    let since = memory.hot_since.filter(|_| seen.replicas == replicas).unwrap_or(now);
    let mut before = memory.before;
    before.rotate_right(1);
    before[0] = Some((seen.at, seen.read));
    let recent = recent(&before, begins).unwrap_or(read);
    // The measured load takes seconds to follow a crowd that has come.
    let hot = recent.max(read).exceeds(limits.max, replicas) && !falls(seen.read, read, past_ms);
    let (peaks, slot) = peaks(memory.peaks, seen.slot, recent, limits, now);
    let seen = Seen { slot, since: seen.since, ..begins };
    Memory { seen: Some(seen), before, hot_since: hot.then_some(since), peaks, ..memory }
}

fn falls(before: CostRate, now: CostRate, past_ms: u64) -> bool {
    // Both sides times a million.
    let kept = 1_000_000_u64.saturating_sub(FALLING_PERMILLE * past_ms);
    u128::from(now.0) * 1_000_000 < u128::from(before.0) * u128::from(kept)
}

/// What was read in the last three seconds, told from the measure now and then.
fn recent(before: &[Option<(Micros, CostRate)>; 4], seen: Seen) -> Option<CostRate> {
    let looks = before.iter().flatten();
    let then = looks.map(|(at, read)| (seen.at.ms_since(*at), read)).find(|(ms, _)| *ms >= RECENT_MS);
    then.filter(|(ms, _)| *ms <= GAP_MS).map(|(ms, read)| {
        let left = left_permille(ms);
        let came = (u128::from(seen.read.0) * 1000).saturating_sub(u128::from(read.0) * u128::from(left));
        CostRate(u64::try_from(came / u128::from(1000 - left)).unwrap_or(u64::MAX))
    })
}

/// Between whole seconds as on a straight line; of [`RECENT_MS`] to [`GAP_MS`] never all.
fn left_permille(ms: u64) -> u64 {
    let at = usize::try_from(ms / 1000).unwrap_or(usize::MAX).min(LEFT_PERMILLE.len() - 1);
    let (from, to) = (LEFT_PERMILLE[at], LEFT_PERMILLE[(at + 1).min(LEFT_PERMILLE.len() - 1)]);
    from - (from - to) * (ms % 1000) / 1000
}

fn peaks(
    mut peaks: [CostRate; SLOTS],
    slot: Micros,
    read: CostRate,
    limits: &Limits,
    now: Micros,
) -> ([CostRate; SLOTS], Micros) {
    let length = slot_ms(limits);
    let begun = now.ms_since(slot) / length;
    for _ in 0..begun.min(SLOTS as u64) {
        peaks.rotate_right(1);
        peaks[0] = CostRate(0);
    }
    peaks[0] = peaks[0].max(read);
    (peaks, slot.plus_ms(begun * length))
}

fn slot_ms(limits: &Limits) -> u64 {
    limits.lower_after_ms.div_ceil(SLOTS as u64 - 1).max(1)
}

impl Memory {
    /// Notes a decision on the chunk.
    #[must_use]
    pub fn changed(self, direction: Direction, now: Micros) -> Memory {
        let turned = self.last.is_some_and(|last| last.direction != direction);
        let reversed = if turned { Some(now) } else { self.reversed };
        Memory { last: Some(Change { direction, at: now }), reversed, hot_since: None, ..self }
    }

    /// The last decision on it.
    #[must_use]
    pub fn last(&self) -> Option<Change> {
        self.last
    }

    /// How long it is hot, without a break.
    #[must_use]
    pub fn hot_ms(&self, now: Micros) -> u64 {
        self.hot_since.map_or(0, |since| now.ms_since(since))
    }

    /// What it was read in the last three seconds, where that is more than the measured load, which follows it slowly: else
    /// a sudden crowd would get its replicas bit by bit.
    #[must_use]
    pub fn load(&self) -> CostRate {
        let Some(seen) = self.seen else { return CostRate(0) };
        self.recent().max(seen.read)
    }

    /// What it was read in the last three seconds; what is measured, where nobody looked for so long.
    #[must_use]
    pub fn recent(&self) -> CostRate {
        let Some(seen) = self.seen else { return CostRate(0) };
        recent(&self.before, seen).unwrap_or(seen.read)
    }

    /// The same of a chunk that may not be watched yet, of which `read` is measured.
    #[must_use]
    pub fn now(&self, read: CostRate) -> CostRate {
        self.seen.map_or(read, |_| self.recent())
    }

    /// How long its load is watched, without a break.
    #[must_use]
    pub fn watched_ms(&self, now: Micros) -> u64 {
        self.seen.map_or(0, |seen| now.ms_since(seen.since))
    }

    /// The highest load of three seconds since replicas may be taken away for the lack of it, or since it is watched. Not of
    /// the measure, which tells for minutes of a crowd that has gone.
    #[must_use]
    pub fn peak(&self) -> CostRate {
        self.peaks.iter().copied().max().unwrap_or_default()
    }

    /// How long it can't be changed in this direction any more; 0 if it can.
    #[must_use]
    pub fn cools_ms(&self, direction: Direction, cooldown_ms: u64, now: Micros) -> u64 {
        let reverses = self.last.is_some_and(|last| last.direction != direction);
        let until = self.reversed.filter(|_| reverses).map(|at| at.plus_ms(cooldown_ms));
        until.map_or(0, |until| until.ms_since(now))
    }

    /// Whether nothing has to be remembered of a chunk that is at its goal and not read.
    #[must_use]
    pub fn is_forgettable(&self, cooldown_ms: u64, now: Micros) -> bool {
        self.peak() == CostRate(0) && self.last.is_none_or(|last| now.ms_since(last.at) >= cooldown_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::tests::{chunk, limits, secs, whole};

    fn watch(memory: Memory, read: u64, replicas: u16, from: u64, to: u64) -> Memory {
        let chunk = chunk(1, read, &(1..=replicas).collect::<Vec<_>>());
        (from..=to).fold(memory, |memory, at| observe(memory, &chunk, &limits(300, 100), secs(at)))
    }

    #[test]
    fn a_second_is_new_once() {
        let mut seconds = Seconds::default();
        let new: Vec<u64> = [0, 300, 499, 1_000, 1_300, 2_000]
            .into_iter()
            .filter(|ms| seconds.is_new(secs(1).plus_ms(*ms)))
            .collect();
        assert_eq!(new, [0, 1_000, 2_000]);
    }

    #[test]
    fn a_look_after_a_change_leaves_what_is_known_of_the_recent_load() {
        // A crowd has gone: the measure falls by its half-life, and nothing was read in the last three seconds.
        let mut memory = Memory::default();
        for (at, read) in [(10, 1000), (11, 933), (12, 871), (13, 812), (14, 758)] {
            memory = observe(memory, &chunk(1, read, &[1, 2, 3]), &limits(300, 100), secs(at));
        }
        let before = memory.recent();
        assert!(before.0 < 20_000, "{before:?}");
        for ms in [100, 200, 300, 400] {
            memory = observe(memory, &chunk(1, 700, &[1, 2]), &limits(300, 100), secs(14).plus_ms(ms));
        }
        assert_eq!(memory.recent(), before);
    }

    #[test]
    fn heat_is_without_a_break_and_of_one_set_of_replicas() {
        let hot = watch(Memory::default(), 1000, 3, 10, 14);
        assert_eq!(hot.hot_ms(secs(14)), 4_000);
        assert_eq!(watch(hot, 1000, 2, 15, 16).hot_ms(secs(16)), 1_000, "other replicas");
        assert_eq!(watch(hot, 800, 3, 15, 16).hot_ms(secs(16)), 0, "less");
        assert_eq!(watch(hot, 1000, 3, 30, 31).hot_ms(secs(31)), 1_000, "nobody looked");
        assert_eq!(hot.changed(Direction::Up, secs(14)).hot_ms(secs(14)), 0);
    }

    #[test]
    fn a_load_that_only_decays_is_no_heat() {
        let (mut memory, mut read) = (watch(Memory::default(), 10_000, 3, 0, 1), 10_000.0_f64);
        for at in 2..6 {
            read *= 0.933;
            memory = watch(memory, whole(read), 3, at, at);
            assert_eq!(memory.hot_ms(secs(at)), 0);
        }
    }

    #[test]
    fn a_crowd_that_has_gone_is_no_peak_although_the_measure_tells_of_it() {
        let limits = limits(300, 100);
        let (mut memory, mut read) = (watch(Memory::default(), 10_000, 3, 0, 20), 10_000.0_f64);
        let mut cold = None;
        for at in 21..=21 + limits.lower_after_ms / 1000 + 70 {
            read *= 0.933;
            memory = watch(memory, whole(read), 3, at, at);
            if memory.peak() < CostRate::per_second(100) {
                cold = cold.or(Some(at - 20));
            }
        }
        let after_s = limits.lower_after_ms / 1000;
        // The time is looked back on in tenths.
        assert!(cold.is_some_and(|s| s > after_s && s <= after_s + after_s / 10 + 5), "{cold:?}");
    }

    #[test]
    fn the_load_of_a_crowd_is_known_before_it_is_all_in_the_measure() {
        let mut memory = watch(Memory::default(), 100, 3, 0, 1);
        let mut read = 100.0_f64;
        for at in 2..=6 {
            read = read * 0.933 + 4000.0 * 0.067;
            memory = watch(memory, whole(read), 3, at, at);
        }
        assert!(read < 1300.0 && (3_900..=4_100).contains(&(memory.load().0 / 1000)), "{}", memory.load());
        assert_eq!(watch(memory, 800, 3, 7, 20).load(), CostRate::per_second(800));
    }

    #[test]
    fn looks_sooner_than_heartbeats_see_nothing_new() {
        let memory = watch(Memory::default(), 1000, 3, 0, 3);
        let chunk = chunk(1, 0, &[1, 2, 3]);
        assert_eq!(observe(memory, &chunk, &limits(300, 100), secs(3).plus_ms(400)), memory);
    }

    #[test]
    fn a_peak_is_remembered_for_as_long_as_asked() {
        let memory = watch(watch(Memory::default(), 900, 3, 0, 10), 30, 3, 11, 610);
        assert_eq!(memory.peak(), CostRate::per_second(900));
        let memory = watch(memory, 30, 3, 611, 671);
        assert_eq!((memory.peak(), memory.watched_ms(secs(671))), (CostRate::per_second(30), 671_000));
        assert_eq!(watch(memory, 30, 3, 700, 700).watched_ms(secs(700)), 0);
    }

    #[test]
    fn what_is_turned_round_rests() {
        let up = Memory::default().changed(Direction::Up, secs(0));
        assert_eq!(up.cools_ms(Direction::Down, 60_000, secs(1)), 0, "the first time");
        let down = up.changed(Direction::Down, secs(10));
        assert_eq!(down.cools_ms(Direction::Up, 60_000, secs(20)), 50_000);
        assert_eq!(down.cools_ms(Direction::Down, 60_000, secs(20)), 0, "on");
        let on = down.changed(Direction::Down, secs(20));
        assert_eq!(on.cools_ms(Direction::Up, 60_000, secs(70)), 0);
        assert!(!on.is_forgettable(60_000, secs(70)) && on.is_forgettable(60_000, secs(80)));
    }
}
