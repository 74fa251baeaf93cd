//! The simulated disk: in memory, deterministic for a seed, and as forgetful as the contract of
//! [`Disk`] allows.
//!
//! - [`SimDisk::power_cut`]: of a file's unsynced bytes nothing is left, or some pages, or some sectors of them, the
//!   others are found as they were; each directory keeps a prefix of its unsynced changes, lengths likewise. Open
//!   handles die.
//! - [`SimDisk::crash_process`]: kill -9; everything written stays, handles and the lock go.
//! - Faults: calls that fail by kind, path and range, the nth operation, a full disk, rotten bits, and
//!   [`SimDisk::stop_after`], by which a test ends the world at each operation in turn.
//!
//! It is strictly weaker than ext4 or xfs, never stronger: what survives here survives there.

mod faults;
mod image;
mod names;
mod rng;

pub use faults::Call;
pub use rng::Rng;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::faults::{EVERYTHING, Faults, gone};
use self::image::Image;
use self::names::{Names, Node, Path, Target};
use crate::{Disk, DiskFile, Entry, Open, Space};

/// A disk in memory. Clones are the same disk as the same process sees it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    machine: Arc<Machine>,
    process: Arc<Process>,
}

#[derive(Debug)]
struct Machine {
    /// Taken before a file's own mutex, never after.
    state: Mutex<State>,
}

/// Who holds locks: dropped with the last clone of a disk, as descriptors are with a process.
#[derive(Debug)]
struct Process {
    machine: Arc<Machine>,
    id: u64,
}

#[derive(Debug)]
struct State {
    names: Names,
    faults: Faults,
    rng: Rng,
    capacity: u64,
    used: u64,
    /// Raised when all processes die: older handles answer nothing.
    life: u64,
    processes: u64,
    lock: Option<u64>,
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    machine: Arc<Machine>,
    node: Node,
    /// As it was when opened; faults go by it.
    path: String,
    life: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl SimDisk {
    /// An empty disk of `capacity` bytes. Equal seeds and equal calls give equal outcomes.
    #[must_use]
    pub fn new(seed: u64, capacity: u64) -> SimDisk {
        SimDisk::with_state(State {
            names: Names::new(),
            faults: Faults::default(),
            rng: Rng::new(seed),
            capacity,
            used: 0,
            life: 0,
            processes: 0,
            lock: None,
        })
    }

    fn with_state(state: State) -> SimDisk {
        let machine = Arc::new(Machine { state: Mutex::new(state) });
        SimDisk { process: Arc::new(Process { machine: machine.clone(), id: 0 }), machine }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.machine.state)
    }

    /// The same disk as another process of the machine opens it: with a lock identity of its own.
    #[must_use]
    pub fn reopen(&self) -> SimDisk {
        let mut state = self.state();
        state.processes += 1;
        let process = Arc::new(Process { machine: self.machine.clone(), id: state.processes });
        SimDisk { machine: self.machine.clone(), process }
    }

    /// A copy of the disk as it is now, unsynced bytes included, that goes its own way under `seed`.
    #[must_use]
    pub fn fork(&self, seed: u64) -> SimDisk {
        let state = self.state();
        SimDisk::with_state(State {
            names: state.names.deep_copy(),
            faults: state.faults.clone(),
            rng: Rng::new(seed),
            lock: None,
            ..*state
        })
    }

    /// The power fails and comes back: see the module's text. Ends [`SimDisk::stop_after`].
    pub fn power_cut(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.names.power_cut(&mut state.rng);
        state.used = 0;
        for (_, node) in state.names.files() {
            let mut image = locked(node);
            image.unlinked = false;
            image.power_cut(&mut state.rng);
            state.used += image.space();
        }
        state.faults.power_on();
        state.life += 1;
        state.lock = None;
    }

    /// kill -9 of every process on the disk: all bytes stay as they are, unsynced ones unsynced.
    pub fn crash_process(&self) {
        let mut state = self.state();
        state.faults.power_on();
        state.life += 1;
        state.lock = None;
    }

    /// Mutating operations so far: creates, writes, syncs, renames, removes and the like.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.state().faults.ops
    }

    /// Lets `n` more mutating operations through; then everything fails as if the power had gone, until
    /// [`SimDisk::power_cut`] or [`SimDisk::crash_process`].
    pub fn stop_after(&self, n: u64) {
        self.state().faults.stop_after(n);
    }

    /// Whether [`SimDisk::stop_after`] has struck.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.state().faults.stopped()
    }

    /// Fails the `n`th mutating operation from now (1 is the next) with EIO, once.
    pub fn fail_nth(&self, n: u64) {
        self.state().faults.fail_nth(n);
    }

    /// Fails every `call` on paths that begin with `prefix` with EIO until [`SimDisk::heal`]. A failed
    /// sync loses what it should have written.
    pub fn fail(&self, call: Call, prefix: &str) {
        self.state().faults.fail(call, prefix, EVERYTHING);
    }

    /// The same for calls that touch bytes of `range`: a bad sector.
    pub fn fail_range(&self, call: Call, prefix: &str, range: Range<u64>) {
        self.state().faults.fail(call, prefix, range);
    }

    /// Takes all asked-for failures back, but not their consequences.
    pub fn heal(&self) {
        self.state().faults.heal();
    }

    /// Whether [`DiskFile::read_cached_at`] finds nothing in memory.
    pub fn set_cold(&self, cold: bool) {
        self.state().faults.cold = cold;
    }

    /// Changes the capacity; below what is used, nothing can be added.
    pub fn set_capacity(&self, capacity: u64) {
        self.state().capacity = capacity;
    }

    /// Rots one bit of the file. False when there is no byte.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u32) -> bool {
        match self.state().names.get(&Path::new(path)) {
            Some(Target::File(node)) => locked(node).flip_bit(offset, bit),
            Some(Target::Dir) | None => false,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut state = locked(&self.machine.state);
        if state.lock == Some(self.id) {
            state.lock = None;
        }
    }
}

impl State {
    fn change(&mut self, path: &str) -> io::Result<()> {
        self.faults.check(Call::Change, path, 0..0)
    }

    fn take_space(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > 0 && self.used + bytes > self.capacity {
            return Err(errno(libc::ENOSPC));
        }
        self.used += bytes;
        Ok(())
    }

    fn unlink(&mut self, node: &Node) {
        let mut image = locked(node);
        self.used -= image.space();
        image.unlinked = true;
    }

    fn file(&self, path: &Path) -> io::Result<Node> {
        match self.names.get(path) {
            Some(Target::File(node)) => Ok(node.clone()),
            Some(Target::Dir) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn create(&mut self, text: &str, path: Path) -> io::Result<Node> {
        self.change(text)?;
        if self.names.dir(&path.dir).is_none() {
            return Err(errno(libc::ENOENT));
        }
        let node: Node = Arc::new(Mutex::new(Image::default()));
        self.names.add(path, Target::File(node.clone()));
        Ok(node)
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &str, how: Open) -> io::Result<SimFile> {
        let mut state = self.state();
        if state.faults.stopped() {
            return Err(gone());
        }
        let name = Path::new(path);
        let node = match (state.file(&name), how) {
            (Ok(_), Open::New) => return Err(errno(libc::EEXIST)),
            (Ok(node), Open::Existing | Open::OrNew) => node,
            (Err(err), Open::New | Open::OrNew) if err.kind() == io::ErrorKind::NotFound => {
                state.create(path, name)?
            }
            (Err(err), Open::New | Open::OrNew | Open::Existing) => return Err(err),
        };
        Ok(SimFile { machine: self.machine.clone(), node, path: path.to_owned(), life: state.life })
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let name = Path::new(&path[..end]);
            match state.names.get(&name) {
                Some(Target::Dir) => {}
                Some(Target::File(_)) => return Err(errno(libc::ENOTDIR)),
                None => {
                    state.change(path)?;
                    state.names.add(name, Target::Dir);
                }
            }
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut state = self.state();
        state.faults.check(Call::Read, dir, 0..0)?;
        let entries = state.names.dir(dir).ok_or_else(|| errno(libc::ENOENT))?;
        let entry = |(name, target): (&String, &Target)| {
            let (is_dir, len) = match target {
                Target::Dir => (true, 0),
                Target::File(node) => (false, locked(node).len()),
            };
            Entry { name: name.clone(), is_dir, len }
        };
        Ok(entries.iter().map(entry).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change(from)?;
        let (from, to) = (Path::new(from), Path::new(to));
        let moved = state.file(&from)?;
        if state.names.dir(&to.dir).is_none() {
            return Err(errno(libc::ENOENT));
        }
        match state.names.get(&to).cloned() {
            Some(Target::File(old)) if Arc::ptr_eq(&old, &moved) => return Ok(()),
            Some(Target::File(old)) => state.unlink(&old),
            Some(Target::Dir) => return Err(errno(libc::EISDIR)),
            None => {}
        }
        state.names.rename(from, to);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change(path)?;
        let name = Path::new(path);
        let node = state.file(&name)?;
        state.unlink(&node);
        state.names.remove(name);
        Ok(())
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        let mut state = self.state();
        state.faults.check(Call::Read, path, 0..0)?;
        Ok(path.is_empty() || state.names.get(&Path::new(path)).is_some())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        state.faults.check(Call::Sync, dir, 0..0)?;
        if state.names.dir(dir).is_none() {
            return Err(errno(libc::ENOENT));
        }
        state.names.sync_dir(dir);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        state.faults.check(Call::Sync, "", 0..0)?;
        let mut result = Ok(());
        for (path, node) in state.names.files() {
            let mut image = locked(node);
            if !image.is_dirty() {
                continue;
            }
            if state.faults.hits(Call::Sync, &path, &(0..0)) {
                let before = image.space();
                image.fail_sync(&mut state.rng);
                state.used = state.used + image.space() - before;
                result = Err(errno(libc::EIO));
            } else {
                image.sync();
            }
        }
        state.names.sync_all();
        result
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        if state.faults.stopped() {
            return Err(gone());
        }
        Ok(Space { total: state.capacity, free: state.capacity.saturating_sub(state.used) })
    }

    fn lock(&self) -> io::Result<()> {
        let mut state = self.state();
        match state.lock {
            Some(holder) if holder != self.process.id => Err(errno(libc::EAGAIN)),
            Some(_) => Ok(()),
            None => {
                state.lock = Some(self.process.id);
                Ok(())
            }
        }
    }
}

impl SimFile {
    /// The machine's and the file's state for one call, if the process that opened it still lives.
    fn enter<R>(
        &self,
        call: Call,
        range: Range<u64>,
        act: impl FnOnce(&mut State, &mut Image) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut state = locked(&self.machine.state);
        if state.life != self.life {
            return Err(gone());
        }
        let checked = state.faults.check(call, &self.path, range);
        let mut image = locked(&self.node);
        if let Err(err) = checked {
            if call == Call::Sync && !state.faults.stopped() {
                let before = image.space();
                image.fail_sync(&mut state.rng);
                state.used = state.used + image.space() - before;
            }
            return Err(err);
        }
        act(&mut state, &mut image)
    }

    /// A call that may free space.
    fn shrink(&self, act: impl FnOnce(&mut Image, &mut Rng)) -> io::Result<()> {
        self.enter(Call::Change, 0..0, |state, image| {
            let before = image.space();
            act(image, &mut state.rng);
            state.used = state.used + image.space() - before;
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let range = offset..offset + buf.len() as u64;
        self.enter(Call::Read, range, |_, image| Ok(image.read(buf, offset)))
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let range = offset..offset + buf.len() as u64;
        self.enter(Call::Read, range, |state, image| {
            Ok(if state.faults.cold { None } else { Some(image.read(buf, offset)) })
        })
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let len: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        if len == 0 {
            return Ok(());
        }
        let end = offset.checked_add(len).ok_or_else(|| errno(libc::EFBIG))?;
        self.enter(Call::Write, offset..end, |state, image| {
            state.take_space(image.space_for(offset, len))?;
            image.write(bufs, offset, &mut state.rng);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.enter(Call::Sync, 0..0, |_, image| {
            image.sync();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.enter(Call::Read, 0..0, |_, image| Ok(image.len()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shrink(|image, rng| image.set_len(len, rng))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.enter(Call::Change, 0..0, |state, image| {
            state.take_space(image.space_for(offset, len))?;
            image.allocate(offset, len);
            Ok(())
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.shrink(|image, rng| image.punch(offset, len, rng))
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
