//! One copy's files: `copy.json`, which says what it is of, and `log/` and `snapshot/` as in a master's directory.
//!
//! Invariants: a snapshot has its name only when it was synced and read back; a directory without `copy.json` is empty
//! to everybody, so that one goes first and comes before anything else.

use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open, read_file, replace_file};
use dfs_proto::checksum::{Crc, crc32c};
use dfs_proto::control::{LOG_TAIL, LogFile, LogListing};
use dfs_proto::ids::LogIndex;
use dfs_proto::listing::CopyAbout;
use serde::{Deserialize, Serialize};

use super::plan::{Fetch, Held};

const ABOUT: &str = "copy.json";
/// A whole one takes 400 bytes.
const ABOUT_MAX: usize = 4096;
const FORMAT: u32 = 1;
const ARRIVING: &str = "snapshot/arriving.tmp";
/// One read when a snapshot is read back.
const READ_AT_ONCE: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AboutFile {
    format: u32,
    copy: CopyAbout,
    /// Of the file as it is with a checksum of 0.
    crc: Crc,
}

fn render(about: &CopyAbout) -> io::Result<Vec<u8>> {
    let text = |crc| {
        let mut text = serde_json::to_vec_pretty(&AboutFile { format: FORMAT, copy: *about, crc })?;
        text.push(b'\n');
        Ok::<_, io::Error>(text)
    };
    text(crc32c(&text(Crc::default())?))
}

/// What the copy in `dir` says of itself; `None` when there is none.
pub(super) fn read_about<D: Disk>(disk: &D, dir: &str) -> io::Result<Option<CopyAbout>> {
    let path = format!("{dir}/{ABOUT}");
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let bytes = read_file(disk, &path, ABOUT_MAX)?;
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{path} is damaged, or of a newer version"));
    let file: AboutFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    // Byte for byte what we would write.
    if file.format != FORMAT || render(&file.copy)? != bytes {
        return Err(damaged());
    }
    Ok(Some(file.copy))
}

/// Why a file of a copy does not come to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What is here is of another log.
    #[error("{0}")]
    Differs(String),
    #[error("the snapshot at {0} does not read back as it was written")]
    ReadBack(LogIndex),
}

struct Arriving<F> {
    file: F,
    crc: Crc,
}

/// One copy.
pub(super) struct Slot<D: Disk> {
    disk: D,
    /// Which of the server's disks that is.
    pub(super) on: usize,
    pub(super) dir: String,
    pub(super) about: CopyAbout,
    /// It was found to be other than what was copied.
    pub(super) damaged: bool,
    held: Held,
    arriving: Option<Arriving<D::File>>,
}

impl<D: Disk> Slot<D> {
    /// The copy that is in `dir`.
    pub(super) fn open(disk: &D, on: usize, dir: &str) -> io::Result<Option<Slot<D>>> {
        let Some(about) = read_about(disk, dir)? else { return Ok(None) };
        let mut held = Held::default();
        for entry in disk.list(&format!("{dir}/log"))? {
            if let Some(first) = hex_name(&entry.name, ".seg") {
                held.segments.insert(first, entry.len);
            }
        }
        for entry in disk.list(&format!("{dir}/snapshot"))? {
            if let Some(index) = hex_name(&entry.name, ".snap") {
                held.snapshots.insert(LogIndex(index), entry.len);
            }
        }
        let slot =
            Slot { disk: disk.clone(), on, dir: dir.to_owned(), about, damaged: false, held, arriving: None };
        Ok(Some(slot))
    }

    /// Begins a copy in `dir`, of which nothing is kept.
    pub(super) fn begin(disk: &D, on: usize, dir: &str, about: CopyAbout) -> io::Result<Slot<D>> {
        clear(disk, dir)?;
        for sub in ["log", "snapshot"] {
            disk.create_dir_all(&format!("{dir}/{sub}"))?;
        }
        disk.sync_dir(dir)?;
        disk.sync_dir(super::DIR)?;
        disk.sync_dir("")?;
        replace_file(disk, &format!("{dir}/{ABOUT}"), &render(&about)?)?;
        // Nothing is here that a power cut could have touched.
        let held = Held { compared: true, ..Held::default() };
        Ok(Slot { disk: disk.clone(), on, dir: dir.to_owned(), about, damaged: false, held, arriving: None })
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Notes, once, that all that the master had was here.
    pub(super) fn mark_whole(&mut self) -> io::Result<()> {
        if !self.about.whole {
            let about = CopyAbout { whole: true, ..self.about };
            replace_file(&self.disk, &self.path(ABOUT), &render(&about)?)?;
            self.about = about;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// The checksum by which the master knows the file again at `fetch`'s offset.
    pub(super) fn before(&self, fetch: &Fetch) -> io::Result<Option<Crc>> {
        let LogFile::Segment(first) = fetch.file else { return Ok(None) };
        let tail = fetch.offset.min(LOG_TAIL);
        if tail == 0 {
            return Ok(None);
        }
        let file = self.disk.open(&self.path(&segment(first)), Open::Existing)?;
        Ok(Some(crc32c(&read(&file, fetch.offset - tail, tail)?)))
    }

    /// Bytes as they are on the device, where the filesystem can tell.
    pub(super) fn read_past_cache(&self, file: LogFile, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let name = match file {
            LogFile::Segment(first) => segment(first),
            LogFile::Snapshot(index) => snapshot(index),
        };
        read(&self.disk.open_past_cache(&self.path(&name))?, offset, len)
    }

    /// Takes what came for `fetch`. What it returns Ok for is on the disk.
    pub(super) fn take(&mut self, fetch: &Fetch, bytes: &[u8]) -> Result<(), SlotError> {
        match fetch.file {
            LogFile::Segment(first) => self.take_segment(first, fetch.offset, bytes),
            LogFile::Snapshot(index) => self.take_snapshot(index, fetch, bytes),
        }
    }

    fn take_segment(&mut self, first: u64, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        let here = self.held.segments.get(&first).copied();
        let path = self.path(&segment(first));
        let file = self.disk.open(&path, if here.is_some() { Open::Existing } else { Open::OrNew })?;
        let overlap = here.unwrap_or(0).saturating_sub(offset);
        let ours = read(&file, offset, overlap)?;
        if bytes.len() < ours.len() {
            return Err(SlotError::Differs(format!("{path} is longer than the master's")));
        }
        let (known, new) = bytes.split_at(ours.len());
        if ours == known {
            file.write_at(&[IoSlice::new(new)], offset + overlap)?;
        } else if ours.iter().zip(known).all(|(ours, theirs)| ours == theirs || *ours == 0) {
            // A power cut took pages of it: its length was on the disk already.
            file.write_at(&[IoSlice::new(bytes)], offset)?;
        } else {
            return Err(SlotError::Differs(format!("{path} is another than the master's at its end")));
        }
        file.sync_data()?;
        if here.is_none() {
            self.disk.sync_dir(&self.path("log"))?;
        }
        self.held.segments.insert(first, offset + bytes.len() as u64);
        self.held.compared = true;
        Ok(())
    }

    fn take_snapshot(&mut self, index: LogIndex, fetch: &Fetch, bytes: &[u8]) -> Result<(), SlotError> {
        let temp = self.path(ARRIVING);
        if fetch.offset == 0 {
            (self.held.arriving, self.arriving) = (None, None);
            if self.disk.exists(&temp)? {
                self.disk.remove(&temp)?;
            }
            self.arriving = Some(Arriving { file: self.disk.open(&temp, Open::New)?, crc: Crc::default() });
        }
        let Some(arriving) = &mut self.arriving else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        arriving.file.write_at(&[IoSlice::new(bytes)], fetch.offset)?;
        arriving.crc = match fetch.offset {
            0 => crc32c(bytes),
            _ => arriving.crc.followed_by(crc32c(bytes), bytes.len() as u64),
        };
        let at = fetch.offset + bytes.len() as u64;
        self.held.arriving = Some((index, at));
        if at < fetch.whole {
            return Ok(());
        }
        arriving.file.sync_data()?;
        let crc = arriving.crc;
        (self.held.arriving, self.arriving) = (None, None);
        if checksum_of(&self.disk, &temp, at)? != crc {
            return Err(SlotError::ReadBack(index));
        }
        self.disk.rename(&temp, &self.path(&snapshot(index)))?;
        self.disk.sync_dir(&self.path("snapshot"))?;
        self.held.snapshots.insert(index, at);
        Ok(())
    }

    /// Removes what the master has no more. Only for a copy that has all of `listing`.
    pub(super) fn prune(&mut self, listing: &LogListing) -> io::Result<()> {
        let oldest = listing.segments.first().map_or(0, |segment| segment.first);
        let segments: Vec<u64> = self.held.segments.range(..oldest).map(|(first, _)| *first).collect();
        let oldest = listing.snapshots.first().map(|snapshot| snapshot.index).unwrap_or_default();
        let snapshots: Vec<LogIndex> = self.held.snapshots.range(..oldest).map(|(index, _)| *index).collect();
        for first in segments {
            self.disk.remove(&self.path(&segment(first)))?;
            self.held.segments.remove(&first);
        }
        for index in snapshots {
            self.disk.remove(&self.path(&snapshot(index)))?;
            self.held.snapshots.remove(&index);
        }
        Ok(())
    }
}

/// Empties a copy's directory. A crash within leaves one that nobody takes for a copy.
pub(super) fn clear<D: Disk>(disk: &D, dir: &str) -> io::Result<()> {
    let about = format!("{dir}/{ABOUT}");
    if disk.exists(&about)? {
        disk.remove(&about)?;
        disk.sync_dir(dir)?;
    }
    for sub in ["log", "snapshot"] {
        let sub = format!("{dir}/{sub}");
        if disk.exists(&sub)? {
            for entry in disk.list(&sub)?.into_iter().filter(|entry| !entry.is_dir) {
                disk.remove(&format!("{sub}/{}", entry.name))?;
            }
        }
    }
    Ok(())
}

fn segment(first: u64) -> String {
    format!("log/{first:016x}.seg")
}

fn snapshot(index: LogIndex) -> String {
    format!("snapshot/{:016x}.snap", index.0)
}

fn hex_name(name: &str, ends: &str) -> Option<u64> {
    let hex = name.strip_suffix(ends).filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok()
}

fn read<F: DiskFile>(file: &F, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let n = file.read_at(&mut bytes, offset)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Of the file as it is on the device, where the filesystem can tell.
fn checksum_of<D: Disk>(disk: &D, path: &str, len: u64) -> io::Result<Crc> {
    let file = disk.open_past_cache(path)?;
    let (mut at, mut crc) = (0, None::<Crc>);
    while at < len {
        let bytes = read(&file, at, (len - at).min(READ_AT_ONCE as u64))?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let next = crc32c(&bytes);
        crc = Some(crc.map_or(next, |crc| crc.followed_by(next, bytes.len() as u64)));
        at += bytes.len() as u64;
    }
    Ok(crc.unwrap_or_else(|| crc32c(&[])))
}
