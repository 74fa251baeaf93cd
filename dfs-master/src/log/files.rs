//! The log and the snapshots as files to be copied elsewhere: which there are, and bytes of them; and a copy put back. Of
//! the segments of a master that runs it reads only what the writer calls durable, so that no copy has a record that the
//! master could still lose.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use bytes::Bytes;
use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::checksum::{Crc, crc32c};
use dfs_proto::control::{LOG_FILES_MAX, LOG_READ_MAX, LOG_TAIL, ListedSegment, ListedSnapshot, LogFile};
use dfs_proto::ids::LogIndex;

use super::entry::RecordNum;
use super::identity::Identity;
use super::snapshot::{SnapshotError, SnapshotStore};
use super::sync::Place;
use super::{DIR, segment, snapshot};

/// What may be copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    pub snapshots: Vec<ListedSnapshot>,
    pub segments: Vec<ListedSegment>,
}

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} is not there, or no longer")]
    Gone(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Bytes of a file, or that it is not the one that the copy is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    Bytes(Bytes),
    Differs,
}

/// The files of `segments`, whose durable part ends at `end`, and snapshots up to the verified one.
///
/// # Errors
/// The failing call's; `InvalidData` when there are more than a listing takes.
pub fn list<D: Disk>(disk: &D, segments: &[RecordNum], end: Place, verified: LogIndex) -> io::Result<Files> {
    let entries = disk.list(DIR)?;
    let lens: BTreeMap<RecordNum, u64> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| Some((segment::parse_name(&entry.name)?, entry.len)))
        .collect();
    let listed = |first: &RecordNum| {
        let len = if *first == end.segment { end.end } else { *lens.get(first)? };
        Some(ListedSegment { first: first.0, len })
    };
    // One that a prune took meanwhile is the oldest.
    let segments: Vec<ListedSegment> = segments.iter().filter_map(listed).collect();
    let snapshots: Vec<ListedSnapshot> = disk
        .list(snapshot::DIR)?
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| {
            Some(ListedSnapshot { index: snapshot::parse_name(&entry.name)?, len: entry.len })
        })
        .filter(|snapshot| snapshot.index <= verified)
        .collect();
    if segments.len().max(snapshots.len()) > LOG_FILES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many files to list"));
    }
    Ok(Files { snapshots, segments })
}

/// Up to `len` bytes at `offset`, if what is before them has the checksum `before`.
///
/// # Errors
/// See [`ReadError`].
pub fn read<D: Disk>(
    disk: &D,
    file: LogFile,
    end: Place,
    (offset, len): (u64, u32),
    before: Option<Crc>,
) -> Result<Part, ReadError> {
    let path = match file {
        LogFile::Snapshot(index) => snapshot::path(index),
        LogFile::Segment(first) => segment::path(RecordNum(first)),
    };
    // A segment that is begun, and not durable, is not there yet.
    if matches!(file, LogFile::Segment(first) if first > end.segment.0) {
        return Err(ReadError::Gone(path));
    }
    let opened = match disk.open(&path, Open::Existing) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Gone(path)),
        Err(error) => return Err(error.into()),
    };
    let whole = if file == LogFile::Segment(end.segment.0) { end.end } else { opened.len()? };
    if offset > whole {
        return Ok(Part::Differs);
    }
    if let Some(before) = before {
        let tail = offset.min(LOG_TAIL);
        if crc32c(&bytes_at(&opened, offset - tail, tail)?) != before {
            return Ok(Part::Differs);
        }
    }
    Ok(Part::Bytes(bytes_at(&opened, offset, u64::from(len.min(LOG_READ_MAX)).min(whole - offset))?))
}

/// Puts the segments and the good snapshots of a copy into a directory that [`super::prepare`] made.
///
/// # Errors
/// The first failing call's.
pub fn put_back<F: Disk, T: Disk>(from: &F, to: &T, identity: &Identity) -> Result<(), SnapshotError> {
    let io = |path: &str| {
        let path = path.to_owned();
        move |source| SnapshotError::Io { path, source }
    };
    for first in segment::list(from).map_err(io(DIR))? {
        let path = segment::path(first);
        copy_file(from, to, &path).map_err(io(&path))?;
    }
    let store = SnapshotStore::new(from.clone(), identity);
    for index in store.list().map_err(io(snapshot::DIR))? {
        // One that is damaged is not put back: the other, and the log behind it, stand in.
        if store.verify(index).is_ok() {
            let path = snapshot::path(index);
            copy_file(from, to, &path).map_err(io(&path))?;
        }
    }
    to.sync_dir(DIR).map_err(io(DIR))?;
    to.sync_dir(snapshot::DIR).map_err(io(snapshot::DIR))
}

fn copy_file<F: Disk, T: Disk>(from: &F, to: &T, path: &str) -> io::Result<()> {
    let from = from.open(path, Open::Existing)?;
    let to = to.open(path, Open::New)?;
    let (mut at, len) = (0, from.len()?);
    while at < len {
        let bytes = bytes_at(&from, at, (len - at).min(u64::from(LOG_READ_MAX)))?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(&[IoSlice::new(&bytes)], at)?;
        at += bytes.len() as u64;
    }
    to.sync_data()
}

fn bytes_at<F: DiskFile>(file: &F, offset: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let n = file.read_at(&mut bytes, offset)?;
    bytes.truncate(n);
    Ok(bytes.into())
}
