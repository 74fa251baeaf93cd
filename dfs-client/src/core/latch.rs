//! Errors of writes that were already answered: each is reported once by every handle that was open.
//!
//! As the kernel's errseq: the file counts its errors, a handle remembers how many it has reported.

use crate::error::Error;

/// A file's errors so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latch {
    count: u64,
    last: Option<Error>,
}

/// How many errors a handle has reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen(u64);

impl Latch {
    pub(crate) fn set(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
    }

    /// What a handle opened now has to do with: nothing that came before.
    pub(crate) fn now(&self) -> Seen {
        Seen(self.count)
    }

    /// Reports an error that the handle has not reported yet.
    pub(crate) fn check(&self, seen: &mut Seen) -> Result<(), Error> {
        match self.last {
            Some(error) if seen.0 < self.count => {
                seen.0 = self.count;
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
        let mut late = latch.now();
        assert_eq!(latch.check(&mut a), Err(Error::Io));
        assert_eq!(latch.check(&mut a), Ok(()));
        assert_eq!(latch.check(&mut b), Err(Error::Io));
        assert_eq!(latch.check(&mut late), Ok(()));
    }
}
