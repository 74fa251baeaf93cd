//! What a test asked to go wrong. Decides; the disk acts.

use std::io;
use std::ops::Range;

/// The kinds of call that a fault can strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Read,
    Write,
    /// `sync_data`, or `sync_dir` when the path is a directory's.
    Sync,
    /// Everything else that changes the disk: create, rename, remove, set_len, allocate, punch.
    Change,
}

/// The range of a fault that strikes calls without a range too.
pub(super) const EVERYTHING: Range<u64> = 0..u64::MAX;

#[derive(Clone, Debug)]
struct Bad {
    call: Call,
    prefix: String,
    range: Range<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    bad: Vec<Bad>,
    /// Mutating operations so far.
    pub(super) ops: u64,
    fail_at: Option<u64>,
    stop_at: Option<u64>,
    pub(super) cold: bool,
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// What every call answers when the power is gone, or was since the handle was opened.
pub(super) fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

impl Faults {
    /// Counts the call and says whether it may go on. `range` is empty for calls without one.
    pub(super) fn check(&mut self, call: Call, path: &str, range: Range<u64>) -> io::Result<()> {
        if self.stop_at.is_some_and(|stop| self.ops >= stop) {
            return Err(gone());
        }
        match call {
            Call::Read => {}
            Call::Write | Call::Sync | Call::Change => {
                self.ops += 1;
                if self.fail_at == Some(self.ops) {
                    self.fail_at = None;
                    return Err(eio());
                }
            }
        }
        if self.hits(call, path, &range) { Err(eio()) } else { Ok(()) }
    }

    /// Whether a lasting fault strikes such a call.
    pub(super) fn hits(&self, call: Call, path: &str, range: &Range<u64>) -> bool {
        self.bad.iter().any(|bad| {
            bad.call == call
                && path.starts_with(&bad.prefix)
                && if range.is_empty() {
                    bad.range == EVERYTHING
                } else {
                    bad.range.start < range.end && range.start < bad.range.end
                }
        })
    }

    pub(super) fn fail(&mut self, call: Call, prefix: &str, range: Range<u64>) {
        self.bad.push(Bad { call, prefix: prefix.to_owned(), range });
    }

    pub(super) fn fail_nth(&mut self, n: u64) {
        self.fail_at = Some(self.ops + n);
    }

    pub(super) fn stop_after(&mut self, n: u64) {
        self.stop_at = Some(self.ops + n);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.ops >= stop)
    }

    pub(super) fn power_on(&mut self) {
        self.stop_at = None;
    }

    pub(super) fn heal(&mut self) {
        *self = Faults { ops: self.ops, cold: self.cold, stop_at: self.stop_at, ..Faults::default() };
    }
}
