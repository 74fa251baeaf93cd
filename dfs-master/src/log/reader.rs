//! Reading segments: record by record, searching behind damage, and the replay that feeds a restart.
//! It changes nothing on disk and judges nothing; [`mod@super::recover`] does.
//!
//! Memory: one read of 1 MiB (or one record, if longer) at a time, however long the log is. The entries
//! of a replay share that read's memory, so keep a copy of what is kept for long.

use std::io;

use bytes::Bytes;
use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::ids::{ClusterId, LogIndex};

use super::entry::{LogEntry, RecordNum};
use super::record::{self, Decoded, Fault, Record, Stored};
use super::segment::{self, BadHeader, Header};

/// One read: long enough that calls cost nothing next to the bytes.
const READ_AT_ONCE: usize = 1 << 20;

/// A place in one segment from which records are read.
#[derive(Debug)]
pub(super) struct Cursor<F> {
    file: F,
    seed: u32,
    len: u64,
    pub(super) at: u64,
    buf: Bytes,
    buf_at: u64,
}

impl<F: DiskFile> Cursor<F> {
    /// Opens the segment that starts with record `first`, standing at its first record.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        cluster: ClusterId,
        first: RecordNum,
    ) -> io::Result<Cursor<F>> {
        let file = disk.open(&segment::path(first), Open::Existing)?;
        let len = file.len()?;
        let seed = segment::seed(cluster, first);
        Ok(Cursor { file, seed, len, at: segment::HEADER_LEN as u64, buf: Bytes::new(), buf_at: 0 })
    }

    /// The segment's header, without moving.
    pub(super) fn header(
        &self,
        cluster: ClusterId,
        first: RecordNum,
    ) -> io::Result<Result<Header, BadHeader>> {
        let mut bytes = [0; segment::HEADER_LEN];
        let n = self.file.read_at(&mut bytes, 0)?;
        Ok(Header::decode(&bytes[..n], cluster, first))
    }

    /// At least `n` bytes from here on, fewer only at the segment's end.
    fn window(&mut self, n: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = n.min(left);
        if let Some(from) = self.at.checked_sub(self.buf_at).and_then(|from| usize::try_from(from).ok())
            && from.checked_add(n).is_some_and(|end| end <= self.buf.len())
        {
            return Ok(self.buf.slice(from..));
        }
        let mut bytes = vec![0; n.max(READ_AT_ONCE).min(left)];
        let got = self.file.read_at(&mut bytes, self.at)?;
        bytes.truncate(got);
        self.buf = Bytes::from(bytes);
        self.buf_at = self.at;
        Ok(self.buf.clone())
    }

    /// What stands here; moves past it when it is a record.
    pub(super) fn step(&mut self) -> io::Result<Decoded> {
        let mut bytes = self.window(record::HEADER_LEN)?;
        if let Some(wanted) = record::wanted(&bytes)
            && wanted > bytes.len()
        {
            bytes = self.window(wanted)?;
        }
        let decoded = record::decode(self.seed, &bytes);
        if let Decoded::Record(_, size) = &decoded {
            self.at += *size as u64;
        }
        Ok(decoded)
    }

    /// Looks at every byte from here to the segment's end for what is left there, records or not.
    pub(super) fn sweep(&mut self, from: RecordNum) -> io::Result<Sweep> {
        let mut sweep = Sweep::default();
        while self.at < self.len {
            let bytes = self.window(record::HEADER_LEN)?;
            if bytes.is_empty() {
                break;
            }
            let zeros = zeros_in_front(&bytes);
            if zeros > 0 {
                self.at += zeros as u64;
                continue;
            }
            let here = self.at;
            if record::plausible(&bytes, from)
                && let Decoded::Record(stored, _) = self.step()?
            {
                sweep.records += 1;
                if sweep.claim.is_none_or(|(_, best)| stored.durable > best) {
                    sweep.claim = Some((here, stored.durable));
                }
            } else {
                self.at = here + record::ALIGN as u64;
            }
            sweep.used_to = Some(self.at.min(self.len));
        }
        Ok(sweep)
    }
}

/// Whole words of zeros at the start of `bytes`; all of a short end.
fn zeros_in_front(bytes: &[u8]) -> usize {
    const WIDE: usize = 512;
    let wide = bytes.chunks(WIDE).take_while(|part| part.iter().all(|b| *b == 0)).count() * WIDE;
    let wide = wide.min(bytes.len());
    let words = bytes[wide..].chunks(record::ALIGN).take_while(|word| word.iter().all(|b| *b == 0)).count();
    (wide + words * record::ALIGN).min(bytes.len())
}

/// What [`Cursor::sweep`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    /// Where the last byte that is not zero ends, rounded up to a word.
    pub(super) used_to: Option<u64>,
    /// Offset and claim of the record that says that most was durable.
    pub(super) claim: Option<(u64, RecordNum)>,
    pub(super) records: u64,
}

/// Entries from `from` on that were written before record `by` are void.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) by: RecordNum,
    pub(super) from: LogIndex,
}

/// A record that recovery had found whole reads otherwise now.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("log/{:016x}.seg at {offset}: {source}", segment.0)]
    Io { segment: RecordNum, offset: u64, source: io::Error },
    #[error("log/{:016x}.seg at {offset}: record {} was whole a moment ago: {fault}", segment.0, record.0)]
    Changed { segment: RecordNum, offset: u64, record: RecordNum, fault: Fault },
}

/// The live entries after an index, in order. Each is checked again as it is read.
#[derive(Debug)]
pub struct Replay<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) cluster: ClusterId,
    /// Segments still to be read, the current one first.
    pub(super) segments: &'a [RecordNum],
    pub(super) cuts: &'a [Cut],
    pub(super) after: LogIndex,
    /// The next record, and the last.
    pub(super) due: RecordNum,
    pub(super) end: RecordNum,
    pub(super) cursor: Option<Cursor<D::File>>,
}

impl<D: Disk> Replay<'_, D> {
    fn advance(&mut self) -> Result<Option<LogEntry>, ReplayError> {
        while self.due <= self.end {
            let Some(segment) = self.segments.first().copied() else { return Ok(None) };
            let io = |offset| move |source| ReplayError::Io { segment, offset, source };
            let cursor = match &mut self.cursor {
                Some(cursor) => cursor,
                None => {
                    let opened = Cursor::open(self.disk, self.cluster, segment).map_err(io(0))?;
                    self.cursor.insert(opened)
                }
            };
            let offset = cursor.at;
            let fault = match cursor.step().map_err(io(offset))? {
                Decoded::Record(stored, _) if stored.num == self.due => {
                    self.due = self.due.next();
                    match self.live(stored) {
                        Some(entry) => return Ok(Some(entry)),
                        None => continue,
                    }
                }
                Decoded::Record(stored, _) => Fault::Misplaced { found: stored.num, due: self.due },
                Decoded::Nothing if self.segments.len() > 1 => {
                    self.segments = &self.segments[1..];
                    self.cursor = None;
                    continue;
                }
                Decoded::Nothing => Fault::Missing,
                Decoded::Bad(fault) => fault,
            };
            return Err(ReplayError::Changed { segment, offset, record: self.due, fault });
        }
        Ok(None)
    }

    fn live(&self, stored: Stored) -> Option<LogEntry> {
        let Record::Entry(entry) = stored.record else { return None };
        let void = |cut: &Cut| stored.num < cut.by && entry.index >= cut.from;
        (entry.index > self.after && !self.cuts.iter().any(void)).then_some(entry)
    }
}

impl<D: Disk> Iterator for Replay<'_, D> {
    type Item = Result<LogEntry, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            // An error ends the iteration: what follows a gap must not be applied.
            self.end = RecordNum(0);
        }
        item
    }
}
