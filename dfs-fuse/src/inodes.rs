//! What the kernel knows of inodes: how often it looked each up, what it was last told of it, how many of
//! its descriptors are open, which reads into its pages are under way, and which inodes were changed
//! through this mount a moment ago.
//!
//! Nothing here is true of the file system; it only says what the kernel may believe. Every answer that
//! carries attributes is noted here before it is sent, so that the kernel never knows more than this.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dfs_proto::ids::Ino;
use dfs_proto::meta::Attr;
use dfs_proto::units::Timespec;
use tokio::sync::mpsc;

use crate::clock;

/// How long attributes and names are believed by the kernel: what a program on another mount can at most
/// be behind with names and attributes of files that it has not open.
pub(crate) const BELIEF: Duration = Duration::from_secs(1);

/// How long it is remembered that an inode was changed here: at least as long as attributes of a listing are
/// shown after the master gave them, which is a second in the library and a part of one here.
const CHANGE_MEMORY: Duration = Duration::from_secs(2);

/// See the module. One lock, held for map operations only and never together with another.
#[derive(Debug)]
pub(crate) struct Inodes {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: HashMap<Ino, Known>,
    /// Changed since `turned`.
    changed: HashSet<Ino>,
    /// Changed in the [`CHANGE_MEMORY`] before.
    changed_before: HashSet<Ino>,
    turned: Instant,
}

#[derive(Debug, Default)]
struct Known {
    lookups: u64,
    opens: u32,
    /// What, and when.
    told: Option<(Told, Instant)>,
    /// It was told different things a moment ago, and of answers that were under way together it keeps the one that
    /// it took in first: which, is not known here.
    mixed: bool,
    /// The permission bits that the kernel was told last.
    mode: u16,
    /// Each read under way into the page cache holds a sender; made by the first one.
    reads: Option<(mpsc::Sender<Infallible>, mpsc::Receiver<Infallible>)>,
}

/// What makes attributes differ: every change of an inode moves its ctime, and the kernel caches pages by
/// size and mtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    size: u64,
    mtime: Timespec,
    ctime: Timespec,
}

impl Known {
    fn tell(&mut self, attr: &Attr) {
        let (now, new) = (clock::now(), Told::from(attr));
        self.mixed |= self.told.is_some_and(|(old, at)| old != new && now.duration_since(at) < CHANGE_MEMORY);
        self.told = Some((new, now));
        self.mode = attr.mode;
    }
}

impl From<&Attr> for Told {
    fn from(attr: &Attr) -> Told {
        Told { size: attr.size, mtime: attr.mtime, ctime: attr.ctime }
    }
}

/// A read into the page cache is under way as long as this lives.
#[derive(Debug)]
pub(crate) struct ReadToken(#[expect(dead_code, reason = "its end is what counts")] mpsc::Sender<Infallible>);

/// Resolves once the reads that were under way are over.
#[derive(Debug)]
pub(crate) struct ReadsOver(mpsc::Receiver<Infallible>);

impl ReadsOver {
    /// Waits.
    pub(crate) async fn wait(mut self) {
        // Nothing can be sent; this is the end of the last sender.
        let None = self.0.recv().await;
    }
}

/// How the kernel's belief stands to attributes from the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Belief {
    /// It has no attributes that it would use without asking, or these same ones.
    Right,
    /// It may still use others.
    Wrong { size_differs: bool },
}

impl Inodes {
    /// Knows nothing.
    pub(crate) fn new() -> Inodes {
        let state = State {
            known: HashMap::new(),
            changed: HashSet::new(),
            changed_before: HashSet::new(),
            turned: clock::now(),
        };
        Inodes { state: Mutex::new(state) }
    }

    /// An entry is about to be answered: the kernel takes a reference and believes `attr`.
    pub(crate) fn entry(&self, attr: &Attr) {
        let mut state = self.lock();
        let known = state.known.entry(attr.ino).or_default();
        known.lookups += 1;
        known.tell(attr);
    }

    /// Attributes are about to be answered.
    pub(crate) fn attributes(&self, attr: &Attr) {
        // Not noted for the root, which is never looked up and never opened as a file.
        if let Some(known) = self.lock().known.get_mut(&attr.ino) {
            known.tell(attr);
        }
    }

    /// The kernel is about to be made to ask again, also for answers that it has not taken in yet.
    pub(crate) fn forgets_attributes(&self, ino: Ino) {
        if let Some(known) = self.lock().known.get_mut(&ino) {
            (known.told, known.mixed) = (None, false);
        }
    }

    /// The kernel gives references back.
    pub(crate) fn forget(&self, ino: Ino, lookups: u64) {
        let mut state = self.lock();
        if let Some(known) = state.known.get_mut(&ino) {
            known.lookups = known.lookups.saturating_sub(lookups);
            state.drop_if_unused(ino);
        }
    }

    /// A descriptor is about to be answered.
    pub(crate) fn opened(&self, ino: Ino) {
        self.lock().known.entry(ino).or_default().opens += 1;
    }

    /// The kernel released a descriptor.
    pub(crate) fn released(&self, ino: Ino) {
        let mut state = self.lock();
        if let Some(known) = state.known.get_mut(&ino) {
            known.opens = known.opens.saturating_sub(1);
            state.drop_if_unused(ino);
        }
    }

    /// What the kernel believes, compared with what is so. `None`: what is so is not known here.
    pub(crate) fn belief(&self, ino: Ino, fresh: Option<&Attr>) -> Belief {
        let state = self.lock();
        let Some(known) = state.known.get(&ino) else { return Belief::Right };
        if known.mixed {
            return Belief::Wrong { size_differs: true };
        }
        let Some((told, _)) = known.told else { return Belief::Right };
        match fresh {
            Some(attr) if Told::from(attr) == told => Belief::Right,
            Some(attr) => Belief::Wrong { size_differs: attr.size != told.size },
            None => Belief::Wrong { size_differs: true },
        }
    }

    /// The permission bits that the kernel was told last; none of an inode that it does not know.
    pub(crate) fn mode(&self, ino: Ino) -> u16 {
        self.lock().known.get(&ino).map_or(0, |known| known.mode)
    }

    /// An inode was changed through this mount, and the kernel is about to be told that it was done.
    pub(crate) fn changed(&self, ino: Ino) {
        let mut state = self.lock();
        state.turn();
        state.changed.insert(ino);
    }

    /// Like [`Inodes::changed`], by a write: the kernel by itself asks again for what a write changes.
    pub(crate) fn written(&self, ino: Ino) {
        let mut state = self.lock();
        state.turn();
        state.changed.insert(ino);
        if let Some(known) = state.known.get_mut(&ino) {
            known.told = None;
        }
    }

    /// Whether attributes that came with a listing, less than [`CHANGE_MEMORY`] ago, may be shown: not when this
    /// mount has changed the inode meanwhile, or may hold bytes of it that nobody else has seen.
    pub(crate) fn listing_holds(&self, ino: Ino) -> bool {
        let mut state = self.lock();
        state.turn();
        !state.changed.contains(&ino)
            && !state.changed_before.contains(&ino)
            && state.known.get(&ino).is_none_or(|known| known.opens == 0)
    }

    /// A read whose answer goes into the page cache begins.
    pub(crate) fn read_begins(&self, ino: Ino) -> ReadToken {
        let mut state = self.lock();
        let known = state.known.entry(ino).or_default();
        let (sender, _) = known.reads.get_or_insert_with(|| mpsc::channel(1));
        ReadToken(sender.clone())
    }

    /// The reads begun so far; `None` when none can be under way.
    pub(crate) fn reads(&self, ino: Ino) -> Option<ReadsOver> {
        let (sender, receiver) = self.lock().known.get_mut(&ino)?.reads.take()?;
        // Later reads take a token of a new channel, so that they can't keep the wait from ending.
        let others = sender.strong_count() > 1;
        drop(sender);
        others.then_some(ReadsOver(receiver))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_if_unused(&mut self, ino: Ino) {
        if self.known.get(&ino).is_some_and(|known| known.lookups == 0 && known.opens == 0) {
            self.known.remove(&ino);
        }
    }

    /// Lets changes age. They are remembered for one to two times [`CHANGE_MEMORY`].
    fn turn(&mut self) {
        let age = clock::now().duration_since(self.turned);
        if age < CHANGE_MEMORY {
            return;
        }
        self.changed_before = std::mem::take(&mut self.changed);
        if age >= 2 * CHANGE_MEMORY {
            self.changed_before.clear();
        }
        self.turned += age;
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::SizeEpoch;
    use dfs_proto::meta::FileKind;

    use super::*;

    const INO: Ino = Ino(7);

    fn attr(size: u64) -> Attr {
        let time = Timespec { sec: 1, nsec: 0 };
        Attr {
            ino: INO,
            kind: FileKind::File,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            size_epoch: SizeEpoch(0),
            xattrs: false,
        }
    }

    #[test]
    fn an_inode_is_forgotten_when_the_kernel_gave_all_back() {
        let inodes = Inodes::new();
        inodes.entry(&attr(1));
        inodes.entry(&attr(1));
        inodes.opened(INO);
        inodes.forget(INO, 2);
        assert_eq!(inodes.belief(INO, None), Belief::Wrong { size_differs: true });
        inodes.released(INO);
        assert_eq!(inodes.belief(INO, None), Belief::Right);
        assert!(inodes.lock().known.is_empty());
    }

    #[test]
    fn belief_is_compared_until_the_kernel_asks_by_itself() {
        let inodes = Inodes::new();
        inodes.entry(&attr(1));
        assert_eq!(inodes.belief(INO, Some(&attr(1))), Belief::Right);
        assert_eq!(inodes.belief(INO, Some(&attr(2))), Belief::Wrong { size_differs: true });
        inodes.written(INO);
        assert_eq!(inodes.belief(INO, Some(&attr(2))), Belief::Right);
    }

    #[test]
    fn two_answers_that_differ_leave_it_open_what_is_believed() {
        let inodes = Inodes::new();
        inodes.entry(&attr(1));
        inodes.attributes(&attr(1));
        assert_eq!(inodes.belief(INO, Some(&attr(1))), Belief::Right);
        inodes.attributes(&attr(2));
        assert_eq!(inodes.belief(INO, Some(&attr(2))), Belief::Wrong { size_differs: true });
        inodes.written(INO);
        assert_eq!(inodes.belief(INO, Some(&attr(2))), Belief::Wrong { size_differs: true });
        inodes.forgets_attributes(INO);
        inodes.attributes(&attr(3));
        assert_eq!(inodes.belief(INO, Some(&attr(3))), Belief::Right);
        inodes.lock().known.get_mut(&INO).unwrap().told.as_mut().unwrap().1 -= CHANGE_MEMORY;
        inodes.attributes(&attr(4));
        assert_eq!(inodes.belief(INO, Some(&attr(4))), Belief::Right);
    }

    #[test]
    fn a_listing_does_not_hold_against_own_changes() {
        let inodes = Inodes::new();
        assert!(inodes.listing_holds(INO));
        inodes.changed(INO);
        assert!(!inodes.listing_holds(INO));
        inodes.lock().turned -= CHANGE_MEMORY;
        assert!(!inodes.listing_holds(INO), "a change is remembered for that long at least");
        inodes.lock().turned -= CHANGE_MEMORY;
        assert!(inodes.listing_holds(INO));
        inodes.opened(INO);
        assert!(!inodes.listing_holds(INO));
    }

    #[tokio::test]
    async fn a_recall_waits_for_earlier_reads_only() {
        let inodes = Inodes::new();
        assert!(inodes.reads(INO).is_none());
        let first = inodes.read_begins(INO);
        let over = inodes.reads(INO).unwrap();
        let later = inodes.read_begins(INO);
        let wait = tokio::spawn(over.wait());
        tokio::task::yield_now().await;
        assert!(!wait.is_finished());
        drop(first);
        wait.await.unwrap();
        drop(later);
        assert!(inodes.reads(INO).is_none());
    }
}
