//! Errors of writes that were already answered: each is reported once by every handle that was open.
//!
//! A close says it too, and takes it from nobody: a program that starts another has it close its copies of the
//! descriptors, of which it hears nothing, and its own fsync has to say it still.
//!
//! As the kernel's errseq: the file counts its errors, a handle remembers how many it has reported. One that is
//! opened while nobody has heard of the last error reports that one too: else a program that closes and opens
//! between the loss and its report would take the next fsync for the word on what it wrote before.

use dfs_proto::planted;

use crate::error::Error;

/// A file's errors so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latch {
    count: u64,
    last: Option<Error>,
    /// Some handle has reported the last one, or was released after its close had.
    heard: bool,
}

/// How many of the file's errors a handle has reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    reported: u64,
    /// As of its last close: of one copy of the descriptor, and not necessarily the last.
    at_close: u64,
}

impl Latch {
    pub(crate) fn set(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
        self.heard = false;
    }

    /// Whether an error was set that no handle has reported.
    pub(crate) fn is_unheard(&self) -> bool {
        self.last.is_some() && !self.heard
    }

    /// What a handle opened now has to do with: nothing that was reported before.
    pub(crate) fn now(&self) -> Seen {
        let before = self.count - u64::from(self.is_unheard());
        Seen { reported: before, at_close: before }
    }

    /// What the handle has not reported yet.
    fn due(&self, seen: Seen) -> Result<(), Error> {
        self.last.filter(|_| seen.reported < self.count).map_or(Ok(()), Err)
    }

    /// Reports an error that the handle has not reported yet.
    pub(crate) fn check(&mut self, seen: &mut Seen) -> Result<(), Error> {
        let due = self.due(*seen);
        self.heard |= due.is_err();
        seen.reported = self.count;
        due
    }

    /// What a close says: an error that the handle has not reported yet, which it still has to.
    pub(crate) fn at_close(&self, seen: &mut Seen) -> Result<(), Error> {
        let due = self.due(*seen);
        seen.at_close = self.count;
        if planted!(CloseTakesError) {
            seen.reported = self.count;
        }
        due
    }

    /// There is no copy of the descriptor any more: what its last close said was heard.
    pub(crate) fn released(&mut self, seen: Seen) {
        self.heard |= seen.at_close == self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_per_handle() {
        let mut latch = Latch::default();
        let (mut a, mut b) = (latch.now(), latch.now());
        latch.set(Error::NoSpace);
        latch.set(Error::Io);
        let mut unheard = latch.now();
        assert_eq!(latch.check(&mut a), Err(Error::Io));
        assert_eq!(latch.check(&mut a), Ok(()));
        let mut late = latch.now();
        assert_eq!(latch.check(&mut b), Err(Error::Io));
        assert_eq!(latch.check(&mut late), Ok(()));
        assert_eq!(latch.check(&mut unheard), Err(Error::Io));
        assert_eq!(latch.check(&mut unheard), Ok(()));
    }

    #[test]
    fn a_close_takes_it_from_nobody() {
        let mut latch = Latch::default();
        let (mut first, mut second) = (latch.now(), latch.now());
        latch.set(Error::Io);
        assert_eq!(latch.at_close(&mut first), Err(Error::Io));
        assert_eq!(latch.at_close(&mut first), Err(Error::Io), "another copy's");
        assert_eq!(latch.check(&mut latch.now()), Err(Error::Io), "it may not have been the last");
        assert_eq!(latch.check(&mut first), Err(Error::Io));
        assert_eq!(latch.at_close(&mut first), Ok(()));
        latch.set(Error::NoSpace);
        latch.released(first);
        assert!(latch.is_unheard(), "it came after the close");
        assert_eq!(latch.at_close(&mut second), Err(Error::NoSpace));
        latch.released(second);
        assert!(!latch.is_unheard());
        assert_eq!(latch.check(&mut latch.now()), Ok(()));
    }
}
