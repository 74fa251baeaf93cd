//! Errors of writes that were already answered: each is reported once by every handle that was open.
//!
//! As the kernel's errseq: the file counts its errors, a handle remembers how many it has reported. One that is
//! opened while nobody has heard of the last error reports that one too: else a program that closes and opens
//! between the loss and its report would take the next fsync for the word on what it wrote before.

use crate::error::Error;

/// A file's errors so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latch {
    count: u64,
    last: Option<Error>,
    /// Some handle has reported the last one.
    heard: bool,
}

/// How many errors a handle has reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen(u64);

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
        Seen(self.count - u64::from(self.is_unheard()))
    }

    /// Reports an error that the handle has not reported yet.
    pub(crate) fn check(&mut self, seen: &mut Seen) -> Result<(), Error> {
        match self.last {
            Some(error) if seen.0 < self.count => {
                seen.0 = self.count;
                self.heard = true;
                Err(error)
            }
            Some(_) | None => Ok(()),
        }
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
}
