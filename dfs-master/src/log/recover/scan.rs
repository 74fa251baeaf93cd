//! The pass over a log's segments that checks every record, and the verdict on where it stops. It
//! reads only; the repair is its parent's.

use std::io;

use dfs_disk::Disk;
use dfs_proto::ids::{ClusterId, LogIndex};

use super::super::entry::{EntryId, RecordNum};
use super::super::order::Shape;
use super::super::reader::{Cursor, Cut, Sweep};
use super::super::record::{Decoded, Fault, Record, Stored};
use super::super::segment::{self, BadHeader, Header};
use super::super::writer::Known;
use super::error::{Damage, RecoverError, Witness};

/// What is known of the segments, and after the walk of their records.
#[derive(Debug)]
pub(super) struct Scan {
    cluster: ClusterId,
    /// Names, oldest first, and what the files say of themselves.
    pub(super) firsts: Vec<RecordNum>,
    headers: Vec<Option<Header>>,
    pub(super) known: Vec<Known>,
    /// The first segment that was walked, and where the records end in each from there.
    pub(super) start: usize,
    pub(super) ends: Vec<u64>,
    pub(super) shape: Shape,
    pub(super) cuts: Vec<Cut>,
    /// The log's own entry at the snapshot's index.
    at_base: Option<EntryId>,
}

/// Where the walk came to an end: the first record that is due and not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) segment: usize,
    /// 0 when it is the segment's header that is bad.
    pub(super) offset: u64,
    /// `None` when the last segment ends in zeros.
    fault: Option<Fault>,
}

/// What the end is.
#[derive(Debug)]
pub(super) enum Verdict {
    Clean,
    /// Never durable: zeros up to `used_to` undo it.
    Torn {
        dropped: u64,
        used_to: u64,
    },
    Damaged(Box<Damage>),
}

fn io_at(path: &str) -> impl Fn(io::Error) -> RecoverError + '_ {
    move |source| RecoverError::Io { what: path.to_owned(), source }
}

impl Scan {
    /// Lists the segments and reads their headers.
    pub(super) fn open<D: Disk>(disk: &D, cluster: ClusterId) -> Result<Scan, RecoverError> {
        let firsts = segment::list(disk).map_err(io_at(super::DIR))?;
        if firsts.is_empty() {
            return Err(RecoverError::Empty);
        }
        let mut headers = Vec::with_capacity(firsts.len());
        for first in &firsts {
            headers.push(read_header(disk, cluster, *first)?);
        }
        Ok(Scan {
            cluster,
            firsts,
            headers,
            known: Vec::new(),
            start: 0,
            ends: Vec::new(),
            shape: Shape::default(),
            cuts: Vec::new(),
            at_base: None,
        })
    }

    pub(super) fn path(&self, segment: usize) -> String {
        segment::path(self.firsts[segment])
    }

    /// The last segment before whose start there is no entry after `after`.
    pub(super) fn start_for(&self, after: LogIndex) -> Result<usize, RecoverError> {
        let begins_by = |header: &Option<Header>| header.is_some_and(|h| h.before.index <= after);
        if let Some(start) = self.headers.iter().rposition(begins_by) {
            return Ok(start);
        }
        match self.headers[0] {
            None => Err(RecoverError::Header { segment: self.path(0) }),
            Some(header) => Err(RecoverError::Missing {
                need: LogIndex(after.0 + 1),
                have: LogIndex(header.before.index.0 + 1),
                skipped: String::new(),
            }),
        }
    }

    /// Reads every record from segment `start` on, up to the first that is not as it must be.
    pub(super) fn walk<D: Disk>(
        &mut self,
        disk: &D,
        start: usize,
        base: EntryId,
    ) -> Result<Stop, RecoverError> {
        self.start = start;
        self.known = self.firsts[..start]
            .iter()
            .zip(&self.headers)
            .map(|(first, header)| Known {
                first: *first,
                before: header.map_or(LogIndex(u64::MAX), |h| h.before.index),
            })
            .collect();
        for segment in start..self.firsts.len() {
            let first = self.firsts[segment];
            if segment == start {
                let before = self.headers[start].map_or(EntryId::default(), |h| h.before);
                self.shape = Shape::at_start(RecordNum(first.0.saturating_sub(1)), before);
            }
            let due = self.shape.record.next();
            if first < due {
                return Err(RecoverError::Overlap(first));
            }
            if first > due {
                let offset = self.ends.last().copied().unwrap_or(0);
                return Ok(Stop { segment: segment - 1, offset, fault: Some(Fault::Missing) });
            }
            let Some(header) = self.headers[segment] else {
                return Ok(Stop { segment, offset: 0, fault: Some(Fault::SegmentHeader) });
            };
            self.known.push(Known { first, before: header.before.index });
            let (offset, fault) = self.walk_segment(disk, segment, base)?;
            self.ends.push(offset);
            if fault.is_some() || segment + 1 == self.firsts.len() {
                return Ok(Stop { segment, offset, fault });
            }
        }
        Err(RecoverError::Empty)
    }

    /// Reads one segment's records; where and why it ended.
    fn walk_segment<D: Disk>(
        &mut self,
        disk: &D,
        segment: usize,
        base: EntryId,
    ) -> Result<(u64, Option<Fault>), RecoverError> {
        let path = self.path(segment);
        let mut cursor = Cursor::open(disk, self.cluster, self.firsts[segment]).map_err(io_at(&path))?;
        loop {
            let offset = cursor.at;
            let due = self.shape.record.next();
            let stored = match cursor.step().map_err(io_at(&path))? {
                Decoded::Nothing => return Ok((offset, None)),
                Decoded::Bad(Fault::Newer { kind, format }) => {
                    let what = format!("record type {kind}, format {format}");
                    return Err(RecoverError::Newer { file: path, offset, what });
                }
                Decoded::Bad(fault) => return Ok((offset, Some(fault))),
                Decoded::Record(stored, _) => stored,
            };
            // A record cannot vouch for itself, so such a one is no record of ours either.
            if stored.num != due || stored.durable >= due {
                return Ok((offset, Some(Fault::Misplaced { found: stored.num, due })));
            }
            self.take(&stored, base).map_err(|disorder| RecoverError::OutOfOrder {
                segment: path.clone(),
                offset,
                record: due,
                disorder,
            })?;
        }
    }

    fn take(&mut self, stored: &Stored, base: EntryId) -> Result<(), super::super::order::Disorder> {
        if let Some(from) = self.shape.follow(&stored.record)? {
            self.cuts.push(Cut { by: stored.num, from });
            self.at_base = self.at_base.filter(|id| id.index < from);
        }
        if let Record::Entry(entry) = &stored.record
            && entry.index == base.index
        {
            self.at_base = Some(entry.id());
        }
        Ok(())
    }

    /// Damage or a torn tail: looks at everything behind the stop for a record that vouches for it.
    pub(super) fn judge<D: Disk>(&self, disk: &D, stop: &Stop) -> Result<Verdict, RecoverError> {
        let due = self.shape.record.next();
        let (mut dropped, mut used_to, mut witness) = (0, stop.offset, None::<Witness>);
        for segment in stop.segment..self.firsts.len() {
            let path = self.path(segment);
            let mut cursor = Cursor::open(disk, self.cluster, self.firsts[segment]).map_err(io_at(&path))?;
            if segment == stop.segment {
                cursor.at = cursor.at.max(stop.offset);
            } else if let Some(header) = self.headers[segment] {
                vouch(&mut witness, &path, Some((0, header.durable)));
            }
            let sweep: Sweep = cursor.sweep(due).map_err(io_at(&path))?;
            vouch(&mut witness, &path, sweep.claim);
            dropped += sweep.records;
            if segment == stop.segment {
                used_to = sweep.used_to.unwrap_or(stop.offset);
            }
        }
        match witness.filter(|witness| witness.durable >= due) {
            Some(witness) => Ok(Verdict::Damaged(Box::new(Damage {
                segment: self.path(stop.segment),
                offset: stop.offset,
                record: due,
                fault: stop.fault.unwrap_or(Fault::Missing),
                last: self.shape.last.index,
                witness,
                later_records: dropped,
                used_to,
            }))),
            None if stop.fault.is_none() && used_to == stop.offset => Ok(Verdict::Clean),
            None => Ok(Verdict::Torn { dropped, used_to }),
        }
    }

    /// Forgets the segments from `keep` on and returns them.
    pub(super) fn drop_from(&mut self, keep: usize) -> Vec<RecordNum> {
        self.headers.truncate(keep);
        self.known.truncate(keep);
        self.ends.truncate(keep.saturating_sub(self.start));
        self.firsts.split_off(keep)
    }

    /// The log must continue the snapshot, and agree with it on the entry that it ends with.
    pub(super) fn check_against(&self, base: &EntryId) -> Result<(), RecoverError> {
        if self.shape.floor > base.index {
            let have = LogIndex(self.shape.floor.0 + 1);
            let need = LogIndex(base.index.0 + 1);
            return Err(RecoverError::Missing { need, have, skipped: String::new() });
        }
        match self.at_base {
            Some(log) if log != *base => Err(RecoverError::SnapshotDisagrees { snapshot: *base, log }),
            Some(_) | None => Ok(()),
        }
    }
}

fn vouch(witness: &mut Option<Witness>, path: &str, claim: Option<(u64, RecordNum)>) {
    if let Some((offset, durable)) = claim
        && witness.as_ref().is_none_or(|best| durable > best.durable)
    {
        *witness = Some(Witness { segment: path.to_owned(), offset, durable });
    }
}

/// The segment's header; `None` when it is damaged, which the walk judges.
fn read_header<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    first: RecordNum,
) -> Result<Option<Header>, RecoverError> {
    let path = segment::path(first);
    let cursor = Cursor::open(disk, cluster, first).map_err(io_at(&path))?;
    match cursor.header(cluster, first).map_err(io_at(&path))? {
        Ok(header) => Ok(Some(header)),
        Err(BadHeader::Damaged) => Ok(None),
        Err(BadHeader::Foreign(found)) => Err(RecoverError::Foreign { file: path, found, ours: cluster }),
        Err(BadHeader::Misnamed(found)) => Err(RecoverError::Misnamed { file: path, found }),
        Err(BadHeader::Newer(format)) => {
            Err(RecoverError::Newer { file: path, offset: 0, what: format!("segment format {format}") })
        }
    }
}
