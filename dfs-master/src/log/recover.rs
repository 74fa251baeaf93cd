//! From the files of a log to a state to start from: which snapshot, which entries, which hard state;
//! or the reason why not. It decides between damage and a torn tail, and repairs the tail only.
//!
//! Invariant: a record that some later record vouches for as durable is never dropped, unless the
//! operator says so; and running again, also after a power cut in the middle, gives the same result.

mod error;
mod scan;

pub use error::{Damage, RecoverError, Witness};

use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::ids::LogIndex;

use self::scan::{Scan, Stop, Verdict};
use super::entry::{EntryId, HardState, Position, RecordNum};
use super::identity::Identity;
use super::reader::Replay;
use super::record::{Marker, Record};
use super::segment;
use super::snapshot::{SnapshotError, SnapshotMeta, SnapshotReader, SnapshotStore};
use super::writer::{LogWriter, Tail};
use super::{DIR, LogConfig};

/// What an operator may allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Treat damage that leaves entries up to exactly this index as a torn tail. What follows is lost.
    pub accept_loss: Option<LogIndex>,
}

/// A tail that a crash tore, and that is gone now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// Where it began.
    pub segment: String,
    pub offset: u64,
    /// The first record that is missing, and the last entry that is not.
    pub record: RecordNum,
    pub last: LogIndex,
    /// Whole records behind the tear, dropped with it: none was durable.
    pub dropped: u64,
}

/// A log that can be replayed and then written.
#[derive(Debug)]
pub struct Recovered<D: Disk> {
    disk: D,
    identity: Identity,
    options: Options,
    /// Snapshots not to be used, and why.
    skipped: Vec<(LogIndex, SnapshotError)>,
    snapshot: Option<SnapshotMeta>,
    scan: Scan,
    torn: Option<TornTail>,
    /// The last segment's end of records, and its length.
    at: u64,
    len: u64,
}

/// Recovers the log in `disk`. Takes the directory's lock, drops a torn tail, and syncs the rest, so that
/// all that it returns is durable.
///
/// # Errors
/// See [`RecoverError`]; each says what to do.
pub fn recover<D: Disk>(disk: &D, options: Options) -> Result<Recovered<D>, RecoverError> {
    disk.lock().map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            RecoverError::InUse
        } else {
            RecoverError::Io { what: "the lock".to_owned(), source }
        }
    })?;
    let identity = Identity::load(disk)?;
    recover_as(disk, identity, options)
}

/// Recovers the log in `disk`, a directory that is no master's (it has no identity) or whose lock is held. The caller
/// sees to it that nobody writes there.
///
/// # Errors
/// As [`recover`].
pub fn recover_as<D: Disk>(
    disk: &D,
    identity: Identity,
    options: Options,
) -> Result<Recovered<D>, RecoverError> {
    recover_without(disk, identity, options, Vec::new())
}

fn recover_without<D: Disk>(
    disk: &D,
    identity: Identity,
    options: Options,
    mut skipped: Vec<(LogIndex, SnapshotError)>,
) -> Result<Recovered<D>, RecoverError> {
    let snapshot = newest_usable(disk, &identity, &mut skipped)?;
    let base = snapshot.as_ref().map_or(EntryId::default(), |meta| meta.id);
    let mut scan = Scan::open(disk, identity.cluster)?;
    let start = scan.start_for(base.index).map_err(|error| error.with_skipped(&skipped))?;
    let stop = scan.walk(disk, start, base)?;
    let torn = match scan.judge(disk, &stop)? {
        Verdict::Clean => None,
        Verdict::Torn { dropped, used_to } => Some(repair(disk, &mut scan, &stop, dropped, used_to)?),
        Verdict::Damaged(damage) if options.accept_loss == Some(damage.last) => {
            Some(repair(disk, &mut scan, &stop, damage.later_records, damage.used_to)?)
        }
        Verdict::Damaged(damage) => return Err(RecoverError::Damage(damage)),
    };
    scan.check_against(&base).map_err(|error| error.with_skipped(&skipped))?;
    let (at, len) = settle(disk, &scan)?;
    Ok(Recovered { disk: disk.clone(), identity, options, skipped, snapshot, scan, torn, at, len })
}

/// The newest snapshot that looks whole and was not found wanting.
fn newest_usable<D: Disk>(
    disk: &D,
    identity: &Identity,
    skipped: &mut Vec<(LogIndex, SnapshotError)>,
) -> Result<Option<SnapshotMeta>, RecoverError> {
    let store = SnapshotStore::new(disk.clone(), identity);
    let io = |source| RecoverError::Io { what: "the snapshots".to_owned(), source };
    for index in store.list().map_err(io)?.into_iter().rev() {
        if skipped.iter().any(|(bad, _)| *bad == index) {
            continue;
        }
        match store.check(index) {
            Ok(meta) => return Ok(Some(meta)),
            Err(error @ (SnapshotError::Foreign { .. } | SnapshotError::Newer { .. })) => {
                return Err(RecoverError::Snapshot(error));
            }
            Err(error @ (SnapshotError::Damaged { .. } | SnapshotError::Io { .. })) => {
                skipped.push((index, error));
            }
        }
    }
    Ok(None)
}

/// Takes the torn tail away: later segments, and the rest of the one it began in. If the power fails
/// before [`settle`] has made that durable, whatever part is left is a torn tail again.
fn repair<D: Disk>(
    disk: &D,
    scan: &mut Scan,
    stop: &Stop,
    dropped: u64,
    used_to: u64,
) -> Result<TornTail, RecoverError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| RecoverError::Io { what, source }
    };
    let path = scan.path(stop.segment);
    let torn = TornTail {
        segment: path.clone(),
        offset: stop.offset,
        record: scan.shape.record.next(),
        last: scan.shape.last.index,
        dropped,
    };
    // A segment with a torn header has not begun; the tail then starts at the end of the one before.
    let keep = if stop.offset == 0 { stop.segment } else { stop.segment + 1 };
    for later in scan.drop_from(keep).into_iter().rev() {
        let path = segment::path(later);
        disk.remove(&path).map_err(io(&path))?;
    }
    if stop.offset > 0 && used_to > stop.offset {
        let file = disk.open(&path, Open::Existing).map_err(io(&path))?;
        let zeros = vec![0; usize::try_from(used_to - stop.offset).unwrap_or(usize::MAX)];
        file.write_at(&[IoSlice::new(&zeros)], stop.offset).map_err(io(&path))?;
    }
    Ok(torn)
}

/// Makes durable the repair, and what a killed process may have left in memory only. Returns the end of the records in
/// the last segment, and its length.
fn settle<D: Disk>(disk: &D, scan: &Scan) -> Result<(u64, u64), RecoverError> {
    let mut len = 0;
    for at in 0..scan.known.len() {
        let path = scan.path(at);
        let io = |source| RecoverError::Io { what: path.clone(), source };
        let file = disk.open(&path, Open::Existing).map_err(io)?;
        file.sync_data().map_err(io)?;
        len = file.len().map_err(io)?;
    }
    disk.sync_dir(DIR).map_err(|source| RecoverError::Io { what: DIR.to_owned(), source })?;
    let at = scan.ends.last().copied().unwrap_or(0);
    Ok((at, len))
}

impl<D: Disk> Recovered<D> {
    /// Which cluster this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The snapshot to load before the replay; `None` to start from nothing.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    /// Opens the snapshot's blocks. Each is verified as it is read; if one is damaged, throw away what
    /// was loaded and go on with [`Recovered::fall_back`].
    ///
    /// # Errors
    /// As [`SnapshotReader::next_block`].
    pub fn open_snapshot(&self) -> Result<Option<SnapshotReader<D>>, SnapshotError> {
        let store = SnapshotStore::new(self.disk.clone(), &self.identity);
        self.snapshot.as_ref().map(|meta| store.open(meta.id.index)).transpose()
    }

    /// The same log without its present snapshot, which turned out to be damaged.
    ///
    /// # Errors
    /// As [`recover`]; `Missing` when the log does not reach back to an older snapshot.
    pub fn fall_back(self, why: SnapshotError) -> Result<Recovered<D>, RecoverError> {
        let mut skipped = self.skipped;
        skipped.extend(self.snapshot.map(|meta| (meta.id.index, why)));
        recover_without(&self.disk, self.identity, self.options, skipped)
    }

    /// Snapshots that were passed over, newest first: for the log and the status page.
    #[must_use]
    pub fn skipped(&self) -> &[(LogIndex, SnapshotError)] {
        &self.skipped
    }

    /// The tail that was dropped, if one was.
    #[must_use]
    pub fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The entry that the replay continues from: the snapshot's.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.snapshot.as_ref().map_or(EntryId::default(), |meta| meta.id)
    }

    /// Where the log ends. All of it is durable.
    #[must_use]
    pub fn last(&self) -> Position {
        let (base, last) = (self.base(), self.scan.shape.last);
        let entry = if base.index > last.index { base } else { last };
        Position { record: self.scan.shape.record, entry }
    }

    /// Term, vote and commit, brought into line with the snapshot and the entries that are there.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        let (hard, base, last) = (self.scan.shape.hard, self.base(), self.last().entry);
        let commit = hard.commit.min(last.index).max(base.index);
        // Only a sole voter that syncs at intervals can have a snapshot ahead of its hard state, and it
        // has nobody else to vote for.
        if base.term > hard.term {
            HardState { term: base.term, vote: None, commit }
        } else {
            HardState { commit, ..hard }
        }
    }

    /// The entries after `after` (at least the snapshot's index), in order, read as they are asked for.
    ///
    /// # Panics
    /// When `after` is before the snapshot: those entries may be gone.
    #[must_use]
    pub fn replay(&self, after: LogIndex) -> Replay<'_, D> {
        assert!(after >= self.base().index, "a replay from before the snapshot");
        let start = self.scan.start_for(after).unwrap_or(self.scan.start).max(self.scan.start);
        Replay {
            disk: &self.disk,
            cluster: self.identity.cluster,
            segments: &self.scan.firsts[start..],
            cuts: &self.scan.cuts,
            after,
            due: self.scan.firsts[start],
            end: self.scan.shape.record,
            cursor: None,
        }
    }

    /// Goes over to writing. Leaves a record that says that all before is durable.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn into_writer(self, config: LogConfig) -> Result<LogWriter<D>, RecoverError> {
        let io = |source| RecoverError::Io { what: "the log".to_owned(), source };
        remove_temps(&self.disk).map_err(io)?;
        let (hard, last, base) = (self.hard_state(), self.last().entry, self.base());
        let Recovered { disk, identity, scan, at, len, .. } = self;
        let file = disk.open(&scan.path(scan.known.len() - 1), Open::Existing).map_err(io)?;
        let mut opening = vec![Record::Marker(Marker::Opened)];
        if hard != scan.shape.hard {
            opening.push(Record::HardState(hard));
        }
        if last == base && scan.shape.last != base {
            opening.push(Record::Marker(Marker::Installed(base)));
        }
        let tail = Tail { segments: scan.known, file, at, len, shape: scan.shape };
        let mut writer = LogWriter::resume(disk, identity.cluster, config, tail);
        writer.append(&opening).map_err(io)?;
        Ok(writer)
    }
}

/// Removes files that were to become segments: nothing was ever written into them.
fn remove_temps<D: Disk>(disk: &D) -> io::Result<()> {
    for entry in disk.list(DIR)? {
        if !entry.is_dir && entry.name.ends_with(segment::TEMP) {
            disk.remove(&format!("{DIR}/{}", entry.name))?;
        }
    }
    Ok(())
}
