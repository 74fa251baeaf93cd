//! Whether the copy on the disk is still what it was: piece by piece, past the page cache, beside the master's bytes, while
//! the disk has nothing else to do. Where the two differ the copy is set aside as damaged and another begun. It goes when
//! the other is whole and has snapshots of its own time, as any that was set aside: if it was the master's file that
//! rotted, the right one is still there until the master has written its state anew twice.
//!
//! Where the look is, is not kept over a restart: what is looked at is small beside the chunks, so a whole look takes at
//! most a day.

use std::io;

use dfs_disk::Disk;
use dfs_proto::control::{LOG_READ_MAX, LogFile, LogListing, ReadLog};
use dfs_proto::units::Micros;

use super::plan::Held;
use super::shelf::{CopyError, Shelf};
use super::slot::Slot;

/// The longest that a look at everything takes.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// As the scrub of the chunks: the rest is for waiting until the disk is idle.
const PART: (u64, u64) = (9, 10);
/// Between two pieces, at least: the master gives its log to all servers.
const PAUSE_MIN_MS: u64 = 100;

/// A look at all pieces, again and again.
#[derive(Debug)]
pub(super) struct Pass {
    period_ms: u64,
    /// The last piece that was looked at.
    after: Option<(LogFile, u64)>,
    due: Micros,
}

impl Pass {
    pub(super) fn new(scrub_period_ms: u64, now: Micros) -> Pass {
        let mut pass = Pass { period_ms: scrub_period_ms.min(DAY_MS), after: None, due: now };
        pass.wait(now, 1);
        pass
    }

    pub(super) fn is_due(&self, now: Micros) -> bool {
        now >= self.due
    }

    /// The piece was looked at, one of so many.
    pub(super) fn looked_at(&mut self, piece: &ReadLog, pieces: u64, now: Micros) {
        self.after = Some((piece.file, piece.offset));
        self.wait(now, pieces);
    }

    /// Another look begins: all pieces were looked at, or the copy is another.
    pub(super) fn begin_anew(&mut self, now: Micros) {
        self.after = None;
        self.wait(now, 1);
    }

    fn wait(&mut self, now: Micros, pieces: u64) {
        let pause_ms = self.period_ms * PART.0 / PART.1 / pieces.max(1);
        self.due = now.plus_ms(pause_ms.max(PAUSE_MIN_MS));
    }

    /// The next piece of what is here and at the master, and how many there are.
    pub(super) fn next(&self, held: &Held, listing: &LogListing) -> (Option<ReadLog>, u64) {
        let snapshots = held.snapshots.iter().map(|(index, len)| (LogFile::Snapshot(*index), *len));
        let segments = held.segments.iter().map(|(first, len)| (LogFile::Segment(*first), *len));
        let listed = |file: &LogFile| match file {
            LogFile::Snapshot(index) => listing.snapshots.iter().any(|there| there.index == *index),
            LogFile::Segment(first) => listing.segments.iter().any(|there| there.first == *first),
        };
        let pieces = snapshots.chain(segments).filter(|(file, _)| listed(file)).flat_map(|(file, len)| {
            let offsets = (0..len).step_by(LOG_READ_MAX as usize);
            offsets.map(move |offset| (file, offset, (len - offset).min(u64::from(LOG_READ_MAX))))
        });
        let (mut next, mut count) = (None, 0);
        for (file, offset, len) in pieces {
            count += 1;
            if next.is_none() && self.after.is_none_or(|after| (file, offset) > after) {
                let len = u32::try_from(len).unwrap_or(LOG_READ_MAX);
                next = Some(ReadLog { generation: listing.generation, file, offset, len, before: None });
            }
        }
        (next, count)
    }
}

impl<D: Disk> Shelf<D> {
    /// The next piece to be looked at of the copy that follows the master, and of how many.
    pub(super) fn next_to_verify(&self, pass: &Pass, listing: &LogListing) -> (Option<ReadLog>, u64) {
        self.current_slot().map_or((None, 0), |slot| pass.next(slot.held(), listing))
    }

    /// Holds a piece of the copy against the master's. True when another copy had to be begun.
    ///
    /// # Errors
    /// When the disk fails, or another copy can't be begun.
    pub(super) fn verify(
        &mut self,
        piece: &ReadLog,
        theirs: &[u8],
        listing: &LogListing,
    ) -> Result<bool, CopyError> {
        let Some(slot) = self.current_slot() else { return Ok(false) };
        let why = match read_piece(slot, piece) {
            Ok(ours) if ours == theirs => return Ok(false),
            Ok(_) => format!("{:?} is damaged within {} bytes from {}", piece.file, piece.len, piece.offset),
            // What can't be read is as good as gone, and a disk that fails says so to who writes to it.
            Err(error) => format!("{:?} at {}: {error}", piece.file, piece.offset),
        };
        self.replace_damaged(&why, listing)?;
        Ok(true)
    }
}

fn read_piece<D: Disk>(slot: &Slot<D>, piece: &ReadLog) -> io::Result<Vec<u8>> {
    slot.read_past_cache(piece.file, piece.offset, u64::from(piece.len))
}
