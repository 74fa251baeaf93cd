//! For how long at least so many of a kind wait at once: connections whose replies wait for their sockets, requests
//! that wait for a disk. Time is only asked for when that begins or ends, so that what never waits costs nothing.

use dfs_proto::units::Micros;

/// See the module.
#[derive(Debug)]
pub(crate) struct Waits {
    enough: usize,
    waiting: usize,
    /// Since when enough wait, or since that was last taken.
    since: Option<Micros>,
    /// What was counted before that.
    us: u64,
}

impl Waits {
    /// Counts the time in which at least `enough` wait.
    #[must_use]
    pub(crate) fn of(enough: usize) -> Waits {
        Waits { enough, waiting: 0, since: None, us: 0 }
    }

    /// One more waits.
    pub(crate) fn begin(&mut self, now: impl FnOnce() -> Micros) {
        self.set(self.waiting + 1, now);
    }

    /// One waits no more.
    pub(crate) fn end(&mut self, now: impl FnOnce() -> Micros) {
        self.set(self.waiting.saturating_sub(1), now);
    }

    /// So many wait.
    pub(crate) fn set(&mut self, waiting: usize, now: impl FnOnce() -> Micros) {
        self.waiting = waiting;
        match self.since {
            None if waiting >= self.enough => self.since = Some(now()),
            Some(since) if waiting < self.enough => {
                self.us += now().0.saturating_sub(since.0);
                self.since = None;
            }
            None | Some(_) => {}
        }
    }

    /// Microseconds since this was last asked.
    #[must_use]
    pub(crate) fn take(&mut self, now: Micros) -> u64 {
        if let Some(since) = &mut self.since {
            self.us += now.0.saturating_sub(since.0);
            *since = now;
        }
        std::mem::take(&mut self.us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_in_which_enough_wait_at_once_counts() {
        let mut waits = Waits::of(2);
        waits.begin(|| Micros(100));
        waits.begin(|| Micros(200));
        waits.begin(|| Micros(250));
        waits.end(|| Micros(300));
        assert_eq!(waits.take(Micros(450)), 250);
        waits.end(|| Micros(500));
        waits.end(|| Micros(800));
        assert_eq!(waits.take(Micros(1000)), 50);
        assert_eq!(waits.take(Micros(2000)), 0);
    }

    #[test]
    fn the_clock_is_left_alone_while_nothing_begins_or_ends() {
        let mut waits = Waits::of(2);
        let never = || -> Micros { panic!("asked for the time") };
        waits.begin(never);
        waits.end(never);
        waits.set(2, || Micros(5));
        waits.set(7, never);
        assert_eq!(waits.take(Micros(6)), 1);
    }
}
