//! The copies on a server's disks: the one that follows the master, and one that was set aside because the master's log
//! became another. Two places on each disk, so that there is always one to begin in; at most two copies in all.
//!
//! A copy that was set aside goes when the one that follows is whole and both its snapshots were made after it began: by
//! then the master has gone on for a while with what it has.

use std::io;

use dfs_disk::{Disk, Space};
use dfs_proto::checksum::crc32c;
use dfs_proto::control::{CopyFile, CopyName, LogBytes, LogListing, ReadLog};
use dfs_proto::ids::ClusterId;
use dfs_proto::listing::CopyAbout;

use super::DIR;
use super::plan::{Fetch, Step};
use super::slot::{Slot, SlotError, clear, read_about};
use crate::store::reserve_of;

/// The places on a disk.
const PLACES: [&str; 2] = ["a", "b"];
/// Its directories that a master reads.
const READ_BY_MASTERS: [&str; 2] = ["log", "snapshot"];
/// Copies kept: the one that follows the master, and one set aside.
const COPIES_MAX: usize = 2;
/// The master's snapshots that a copy must have of its own time before others go: all that the master keeps.
const SNAPSHOTS: usize = 2;

/// Why the copying does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("no disk has room for it: {0} bytes are needed")]
    Full(u64),
    #[error("no disk can be used for it")]
    NoDisk,
    #[error("{dir}: {source}")]
    Io { on: usize, dir: String, source: io::Error },
    #[error("{dir}: {what}")]
    ReadBack { dir: String, what: String },
    #[error("bytes came damaged")]
    Transit,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Read(ReadLog),
    /// The copy has all that is listed.
    Whole,
}

/// See the module.
pub(crate) struct Shelf<D: Disk> {
    disks: Vec<D>,
    /// Disks that failed since the server started.
    failed: Vec<bool>,
    cluster: ClusterId,
    slots: Vec<Slot<D>>,
    /// Which of them follows the master; `None` before the first listing.
    current: Option<usize>,
    fetch: Option<Fetch>,
}

fn dir_of(place: &str) -> String {
    format!("{DIR}/{place}")
}

/// What the copies on a disk say of themselves, each with its directory.
///
/// # Errors
/// The first failing read's; damage of a copy's `copy.json` is one.
pub(crate) fn survey<D: Disk>(disk: &D) -> io::Result<Vec<(String, CopyAbout)>> {
    let mut found = Vec::new();
    for dir in PLACES.map(dir_of) {
        if let Some(about) = read_about(disk, &dir)? {
            found.push((dir, about));
        }
    }
    Ok(found)
}

/// What a master reads of the copy in `dir`.
///
/// # Errors
/// The failing call's.
pub(crate) fn files<D: Disk>(disk: &D, dir: &str) -> io::Result<Vec<CopyFile>> {
    let mut files = Vec::new();
    for sub in READ_BY_MASTERS {
        let dir = format!("{dir}/{sub}");
        // A snapshot that was arriving when the master went has another name.
        let entries = disk.list(&dir)?;
        for entry in entries.into_iter().filter(|entry| !entry.is_dir && !entry.name.ends_with(".tmp")) {
            files.push(CopyFile { name: name(format!("{dir}/{}", entry.name))?, len: entry.len });
        }
    }
    Ok(files)
}

/// Whether a master reads it, of whichever copy.
pub(crate) fn is_file(name: &CopyName) -> bool {
    let is_in = |dir: &str| {
        let below = name.as_str().strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
        let file = below.and_then(|rest| rest.split_once('/'));
        file.is_some_and(|(sub, file)| READ_BY_MASTERS.contains(&sub) && !file.contains('/'))
    };
    PLACES.iter().any(|place| is_in(&dir_of(place)))
}

/// As the wire has it.
///
/// # Errors
/// `InvalidData` for one that nothing of a copy has.
pub(crate) fn name(path: String) -> io::Result<CopyName> {
    CopyName::try_from(path).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))
}

impl<D: Disk> Shelf<D> {
    /// The copies that are on these disks.
    pub(crate) fn open(disks: Vec<D>, cluster: ClusterId) -> Shelf<D> {
        let failed = vec![false; disks.len()];
        let mut shelf = Shelf { disks, failed, cluster, slots: Vec::new(), current: None, fetch: None };
        shelf.reopen();
        shelf
    }

    /// Looks at the disks anew, after an error.
    pub(crate) fn reopen(&mut self) {
        (self.slots, self.current, self.fetch) = (Vec::new(), None, None);
        for (on, disk) in self.disks.iter().enumerate().filter(|(on, _)| !self.failed[*on]) {
            for dir in PLACES.map(dir_of) {
                match Slot::open(disk, on, &dir) {
                    Ok(slot) => self.slots.extend(slot.filter(|slot| slot.about.cluster == self.cluster)),
                    // It is begun in when a place is needed.
                    Err(error) => log::warn!("the copy in {dir} can't be used: {error}"),
                }
            }
        }
    }

    /// What to ask the master for next; whether all of the log that is listed is here comes first.
    pub(crate) fn next(&mut self, listing: &LogListing) -> Result<(bool, Next), CopyError> {
        let at = match self.following(listing) {
            Some(at) => at,
            None => self.begin(listing, None)?,
        };
        let plan = self.slots[at].held().plan(listing);
        let (log_is_here, step) = match plan.step {
            Step::Differs(why) => {
                let at = self.set_aside(at, &why, listing)?;
                let plan = self.slots[at].held().plan(listing);
                (plan.log_is_here, plan.step)
            }
            step @ (Step::Fetch(_) | Step::Whole) => (plan.log_is_here, step),
        };
        let at = self.current.unwrap_or(at);
        match step {
            Step::Fetch(fetch) => {
                let at = self.with_room(at, &fetch, listing)?;
                let fetch = match self.slots[at].held().plan(listing).step {
                    Step::Fetch(fetch) => fetch,
                    Step::Whole | Step::Differs(_) => return Ok((log_is_here, Next::Whole)),
                };
                let slot = &self.slots[at];
                let before = slot.before(&fetch).map_err(|source| io_error(slot, source))?;
                let Fetch { file, offset, len, .. } = fetch;
                self.fetch = Some(fetch);
                let read = ReadLog { generation: listing.generation, file, offset, len, before };
                Ok((log_is_here, Next::Read(read)))
            }
            Step::Whole => self.whole(at, listing).map(|()| (log_is_here, Next::Whole)),
            // A copy that was just begun has nothing that could differ.
            Step::Differs(_) => Err(CopyError::NoDisk),
        }
    }

    /// Takes the answer to what [`Shelf::next`] asked for.
    pub(crate) fn take(
        &mut self,
        listing: &LogListing,
        answer: LogBytes,
        bytes: &[u8],
    ) -> Result<(), CopyError> {
        let (Some(fetch), Some(at)) = (self.fetch.take(), self.current) else {
            return Err(CopyError::Transit);
        };
        if !answer.same {
            let why = format!("{:?} is another at the master", fetch.file);
            return self.set_aside(at, &why, listing).map(drop);
        }
        if crc32c(bytes) != answer.crc || bytes.len() > fetch.len as usize {
            return Err(CopyError::Transit);
        }
        let slot = &mut self.slots[at];
        match slot.take(&fetch, bytes) {
            Ok(()) => Ok(()),
            Err(SlotError::Io(source)) => Err(io_error(slot, source)),
            Err(SlotError::Differs(why)) => self.set_aside(at, &why, listing).map(drop),
            Err(error @ SlotError::ReadBack(_)) => {
                Err(CopyError::ReadBack { dir: slot.dir.clone(), what: error.to_string() })
            }
        }
    }

    /// A disk failed: it is not used again before the server starts anew.
    pub(crate) fn give_up_disk(&mut self, on: usize) {
        self.failed[on] = true;
        self.reopen();
    }

    /// The newest copy, if it is of the log that is listed.
    fn following(&mut self, listing: &LogListing) -> Option<usize> {
        let newest = self.slots.iter().enumerate().max_by_key(|(_, slot)| slot.about.serial);
        let fits =
            |slot: &Slot<D>| slot.about.generation == listing.generation && slot.about.facts == listing.about;
        self.current = newest.filter(|(_, slot)| fits(slot)).map(|(at, _)| at);
        self.current
    }

    /// Which disk the copy that follows the master is on.
    pub(super) fn current_disk(&self) -> Option<usize> {
        self.current_slot().map(|slot| slot.on)
    }

    pub(super) fn current_slot(&self) -> Option<&Slot<D>> {
        self.current.and_then(|at| self.slots.get(at))
    }

    /// Begins another copy, because this one is no longer what was copied.
    pub(super) fn replace_damaged(&mut self, why: &str, listing: &LogListing) -> Result<(), CopyError> {
        let Some(at) = self.current else { return Ok(()) };
        self.slots[at].damaged = true;
        self.fetch = None;
        self.set_aside(at, why, listing).map(drop)
    }

    fn set_aside(&mut self, at: usize, why: &str, listing: &LogListing) -> Result<usize, CopyError> {
        let kept = &self.slots[at];
        log::warn!("the copy in {} is set aside, another is begun: {why}", kept.dir);
        self.begin(listing, None)
    }

    /// Begins a copy where most room is, but on disk `not`, and makes it the one that follows.
    fn begin(&mut self, listing: &LogListing, not: Option<usize>) -> Result<usize, CopyError> {
        let lens = listing.snapshots.iter().map(|s| s.len).chain(listing.segments.iter().map(|s| s.len));
        let need = lens.sum();
        let usable = (0..self.disks.len()).filter(|on| !self.failed[*on] && Some(*on) != not);
        let room = usable.filter_map(|on| Some((room(&self.disks[on])?, on))).max();
        let (room, on) = room.ok_or(CopyError::NoDisk)?;
        if room < need {
            return Err(CopyError::Full(need));
        }
        self.make_place()?;
        let taken: Vec<&str> = self.slots.iter().filter(|s| s.on == on).map(|s| s.dir.as_str()).collect();
        let dir = PLACES.map(dir_of).into_iter().find(|dir| !taken.contains(&dir.as_str()));
        let dir = dir.ok_or(CopyError::NoDisk)?;
        let about = CopyAbout {
            cluster: self.cluster,
            generation: listing.generation,
            facts: listing.about,
            serial: self.slots.iter().map(|slot| slot.about.serial + 1).max().unwrap_or(1),
            began: listing.durable,
            whole: false,
        };
        let slot = Slot::begin(&self.disks[on], on, &dir, about).map_err(|source| CopyError::Io {
            on,
            dir,
            source,
        })?;
        self.slots.push(slot);
        self.current = Some(self.slots.len() - 1);
        Ok(self.slots.len() - 1)
    }

    /// Leaves one copy at most, the best: one that is not damaged, a whole one, and of such the last.
    fn make_place(&mut self) -> Result<(), CopyError> {
        self.slots.sort_by_key(|slot| (!slot.damaged, slot.about.whole, slot.about.serial));
        while self.slots.len() >= COPIES_MAX {
            let slot = self.slots.remove(0);
            self.remove(&slot)?;
        }
        Ok(())
    }

    fn remove(&self, slot: &Slot<D>) -> Result<(), CopyError> {
        log::info!("the copy in {} of generation {} is removed", slot.dir, slot.about.generation);
        clear(&self.disks[slot.on], &slot.dir).map_err(|source| io_error(slot, source))
    }

    /// A copy that can take `fetch`: the one at `at`, or a new one on a disk with more room.
    fn with_room(&mut self, at: usize, fetch: &Fetch, listing: &LogListing) -> Result<usize, CopyError> {
        let slot = &self.slots[at];
        let need = fetch.whole.saturating_sub(fetch.offset);
        if room(&self.disks[slot.on]).is_some_and(|room| room >= need) {
            return Ok(at);
        }
        let (on, full) = (slot.on, CopyError::Full(need));
        match self.begin(listing, Some(on)) {
            Ok(at) => Ok(at),
            Err(CopyError::Full(_) | CopyError::NoDisk) => Err(full),
            Err(error) => Err(error),
        }
    }

    fn whole(&mut self, at: usize, listing: &LogListing) -> Result<(), CopyError> {
        let slot = &mut self.slots[at];
        let done = slot.mark_whole().and_then(|()| slot.prune(listing));
        done.map_err(|source| io_error(slot, source))?;
        let began = slot.about.began;
        let own = listing.snapshots.iter().filter(|snapshot| snapshot.index >= began).count();
        if own >= SNAPSHOTS && self.slots.len() > 1 {
            let slot = self.slots.swap_remove(at);
            for other in std::mem::replace(&mut self.slots, vec![slot]) {
                self.remove(&other)?;
            }
            self.current = Some(0);
        }
        Ok(())
    }
}

fn io_error<D: Disk>(slot: &Slot<D>, source: io::Error) -> CopyError {
    CopyError::Io { on: slot.on, dir: slot.dir.clone(), source }
}

/// Bytes that a disk takes before it is down to what is kept for repair.
fn room<D: Disk>(disk: &D) -> Option<u64> {
    let space: Space = disk.space().ok()?;
    Some(space.free.saturating_sub(reserve_of(space)))
}
