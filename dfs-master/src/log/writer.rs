//! The log's one writer: appends batches, begins segments, says what must be synced and what may go.
//! It never syncs by itself and never reads; [`super::sync`] and [`mod@super::recover`] do.
//!
//! Invariant: an append is one write of whole records, numbered without a gap, each carrying a durable
//! number that some finished sync vouches for. After the first failed write the writer refuses all.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use dfs_disk::{Disk, DiskFile};
use dfs_proto::ids::{ClusterId, LogIndex};

use super::entry::{EntryId, HardState, Position, RecordNum};
use super::order::Shape;
use super::reader::Cut;
use super::record::{self, Marker, Record};
use super::segment::{self, Header, Spare, SparePlan};
use super::sync::{Latch, Place, SyncHandle, Synced};
use super::{DIR, LogConfig};

/// A segment that is there: its first record, and the last entry before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    pub(super) first: RecordNum,
    pub(super) before: LogIndex,
}

/// A segment that may hold records not yet durable.
#[derive(Debug)]
struct Unsynced<F> {
    file: Arc<F>,
    /// Its last record so far.
    last: RecordNum,
}

/// Appends to the log. One per directory.
#[derive(Debug)]
pub struct LogWriter<D: Disk> {
    disk: D,
    cluster: ClusterId,
    config: LogConfig,
    /// All segments, oldest first; the last is being written.
    segments: Vec<Known>,
    seed: u32,
    /// Where in the current segment the next record goes, and where the segment ends.
    at: u64,
    end: u64,
    shape: Shape,
    durable: Position,
    /// Where in the files that is.
    durable_end: Place,
    /// Entries replaced since the durable position, so that a sync begun before does not count them.
    cuts: Vec<Cut>,
    /// The last is the current segment.
    unsynced: VecDeque<Unsynced<D::File>>,
    /// The newest record before which a segment's name is not durable.
    unnamed: Option<RecordNum>,
    /// Files for the next segments: one, or two when an append could not wait for the one under way.
    spares: Vec<Spare<D::File>>,
    /// How many were begun; gives each its name.
    spares_begun: u64,
    /// The last marker of [`LogWriter::note_idle`].
    noted: RecordNum,
    latch: Arc<Latch>,
    buf: Vec<u8>,
}

/// Where a recovered log ends.
#[derive(Debug)]
pub(super) struct Tail<F> {
    pub(super) segments: Vec<Known>,
    pub(super) file: F,
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) shape: Shape,
}

impl<D: Disk> LogWriter<D> {
    /// Takes up a log whose records are all durable.
    pub(super) fn resume(
        disk: D,
        cluster: ClusterId,
        config: LogConfig,
        tail: Tail<D::File>,
    ) -> LogWriter<D> {
        let Tail { segments, file, at, len, shape } = tail;
        let first = segments.last().map_or(RecordNum(1), |known| known.first);
        LogWriter {
            disk,
            cluster,
            config,
            segments,
            seed: segment::seed(cluster, first),
            at,
            end: len,
            durable: Position { record: shape.record, entry: shape.last },
            durable_end: Place { segment: first, end: at },
            cuts: Vec::new(),
            unsynced: VecDeque::from([Unsynced { file: Arc::new(file), last: shape.record }]),
            unnamed: None,
            spares: Vec::new(),
            spares_begun: 0,
            noted: RecordNum(0),
            latch: Arc::default(),
            shape,
            buf: Vec::new(),
        }
    }

    /// Where the log ends, written but perhaps not durable.
    #[must_use]
    pub fn written(&self) -> Position {
        Position { record: self.shape.record, entry: self.shape.last }
    }

    /// Up to where the log is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The segments up to the one that the durable part ends in, oldest first, and where it ends there.
    #[must_use]
    pub fn durable_files(&self) -> (Vec<RecordNum>, Place) {
        let last = self.durable_end.segment;
        let firsts = self.segments.iter().map(|known| known.first);
        (firsts.filter(|first| *first <= last).collect(), self.durable_end)
    }

    /// The last hard state written.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.shape.hard
    }

    /// Has a write or sync failed? Then every later append and sync fails too, and only a restart helps.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.latch.check().is_err()
    }

    /// Writes the records behind the last one, in one write unless a segment ends among them. They are
    /// safe from a crash of the process when this returns, from a power cut after the next sync.
    ///
    /// # Errors
    /// `InvalidInput` for a record longer than a segment, and the error of a new segment that could not
    /// be made (a full disk): nothing was written then, and the same batch may be tried again. Any other
    /// error is final, see [`LogWriter::is_failed`].
    ///
    /// # Panics
    /// When the records may not follow those before: see [`super::order::Disorder`].
    pub fn append(&mut self, batch: &[Record]) -> io::Result<()> {
        self.latch.check()?;
        self.make_room(batch)?;
        for record in batch {
            let need = record::encoded_len(record) as u64;
            if self.at + self.buf.len() as u64 + need > self.end {
                self.write_out().and_then(|()| self.roll()).map_err(|error| self.latch.fail(error))?;
            }
            self.gather(record);
        }
        self.write_out().map_err(|error| self.latch.fail(error))
    }

    /// Checks what can be checked, and makes the segment that can be made, before anything is written.
    fn make_room(&mut self, batch: &[Record]) -> io::Result<()> {
        let hard_state = record::encoded_len(&Record::HardState(self.shape.hard));
        let segment = self.config.segment_bytes - segment::HEADER_LEN as u64 - hard_state as u64;
        let mut total = 0;
        for record in batch {
            let need = record::encoded_len(record) as u64;
            if need > segment || need > record::PAYLOAD_MAX as u64 {
                let why = format!("a record of {need} bytes does not fit a log segment");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            total += need;
        }
        if self.at + total > self.end && self.spares.is_empty() {
            let spare = self.spare_plan().run()?;
            self.spares.push(spare);
        }
        Ok(())
    }

    fn gather(&mut self, record: &Record) {
        let void = match self.shape.follow(record) {
            Ok(void) => void,
            Err(disorder) => panic!("log records out of order: {disorder}"),
        };
        // What an installed snapshot voids is in the snapshot, and that is durable.
        if let (Some(from), Record::Entry(_)) = (void, record) {
            self.cuts.push(Cut { by: self.shape.record, from });
            self.lower_durable(from);
        }
        record::encode(self.seed, self.shape.record, self.durable.record, record, &mut self.buf);
    }

    fn write_out(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let current = self.unsynced.back_mut().ok_or(io::ErrorKind::NotFound)?;
        current.file.write_at(&[IoSlice::new(&self.buf)], self.at)?;
        current.last = self.shape.record;
        self.at += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    /// Begins the next segment: the spare gets its name; its header and the hard state go out with the
    /// records that follow. The name becomes durable with the next sync.
    fn roll(&mut self) -> io::Result<()> {
        let spare = match self.spares.pop() {
            Some(spare) => spare,
            None => self.spare_plan().run()?,
        };
        let first = self.shape.record.next();
        self.disk.rename(&spare.path, &segment::path(first))?;
        let before = self.shape.last;
        let header = Header { cluster: self.cluster, first, before, durable: self.durable.record };
        self.segments.push(Known { first, before: before.index });
        self.unsynced.push_back(Unsynced { file: Arc::new(spare.file), last: self.shape.record });
        self.unnamed = Some(first);
        self.seed = segment::seed(self.cluster, first);
        (self.at, self.end) = (0, spare.len);
        self.buf.extend_from_slice(&header.encode());
        self.gather(&Record::HardState(self.shape.hard));
        Ok(())
    }

    /// What to run on another thread so that the next segment costs an append nothing; `None` when one
    /// is ready. Give the result to [`LogWriter::give_spare`], and run one at a time.
    #[must_use]
    pub fn wants_spare(&mut self) -> Option<SparePlan<D>> {
        self.spares.is_empty().then(|| self.spare_plan())
    }

    fn spare_plan(&mut self) -> SparePlan<D> {
        self.spares_begun += 1;
        SparePlan::new(self.disk.clone(), self.spares_begun, self.config.segment_bytes)
    }

    /// Takes the next segment's file.
    pub fn give_spare(&mut self, spare: Spare<D::File>) {
        self.spares.push(spare);
    }

    /// A sync of everything written so far, to be run on any thread.
    #[must_use]
    pub fn begin_sync(&self) -> SyncHandle<D> {
        let durable = self.durable.record;
        let dirty = |part: &&Unsynced<D::File>| part.last > durable;
        SyncHandle {
            disk: self.disk.clone(),
            files: self.unsynced.iter().filter(dirty).map(|part| part.file.clone()).collect(),
            names: self.unnamed.is_some(),
            position: self.written(),
            place: Place { segment: self.segments.last().map_or(RecordNum(1), |k| k.first), end: self.at },
            latch: self.latch.clone(),
        }
    }

    /// Notes a finished sync. Returns up to where the log is durable now.
    pub fn synced(&mut self, synced: Synced) -> Position {
        let Synced { position, place } = synced;
        if position.record > self.durable.record {
            self.durable = position;
            self.durable_end = place;
            self.cuts.retain(|cut| cut.by > position.record);
            for at in 0..self.cuts.len() {
                self.lower_durable(self.cuts[at].from);
            }
            while self.unsynced.len() > 1 && self.unsynced.front().is_some_and(|f| f.last <= position.record)
            {
                self.unsynced.pop_front();
            }
            self.unnamed = self.unnamed.filter(|first| *first > position.record);
        }
        self.durable
    }

    /// Entries from `from` on were replaced: what replaced them is not durable yet.
    fn lower_durable(&mut self, from: LogIndex) {
        if from <= self.durable.entry.index {
            // The term of the entry before is not at hand, and nobody may rest on the one that is gone.
            self.durable.entry = EntryId { index: LogIndex(from.0.saturating_sub(1)), ..EntryId::default() };
        }
    }

    /// Syncs on this thread.
    ///
    /// # Errors
    /// As [`SyncHandle::run`].
    pub fn sync(&mut self) -> io::Result<Position> {
        let synced = self.begin_sync().run()?;
        Ok(self.synced(synced))
    }

    /// To be called when the log has been idle for a second or so and all of it is durable: leaves a
    /// record that says so, unless the last one already does. Without it, damage to the last synced
    /// batch of an idle log looks like a torn tail.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn note_idle(&mut self) -> io::Result<()> {
        let written = self.shape.record;
        if self.durable.record == written && self.noted != written {
            self.append(&[Record::Marker(Marker::Synced)])?;
            self.noted = self.shape.record;
        }
        Ok(())
    }

    /// Takes the segments that hold nothing after entry `upto` out of the log; the files go when the
    /// result is run. `upto` is the index of the older of the two snapshots that are kept.
    #[must_use]
    pub fn prune(&mut self, upto: LogIndex) -> Prune<D> {
        // A segment may stand at the front only if a power cut cannot take it away again.
        let durable = self.durable.record;
        let keep = self.segments.iter().rposition(|s| s.before <= upto && s.first <= durable).unwrap_or(0);
        let paths = self.segments.drain(..keep).map(|known| segment::path(known.first)).collect();
        Prune { disk: self.disk.clone(), paths }
    }
}

/// Segments that are no longer part of the log.
#[derive(Debug)]
pub struct Prune<D> {
    disk: D,
    paths: Vec<String>,
}

impl<D: Disk> Prune<D> {
    /// Removes the files, on any thread; returns how many.
    ///
    /// # Errors
    /// The failing call's. What is left over is taken up by a prune after the next restart.
    pub fn run(self) -> io::Result<usize> {
        for path in &self.paths {
            self.disk.remove(path)?;
        }
        if !self.paths.is_empty() {
            self.disk.sync_dir(DIR)?;
        }
        Ok(self.paths.len())
    }
}
