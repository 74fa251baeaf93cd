//! Names that are known not to be there: in directories that this mount made, of which the master tells it
//! when somebody else makes a name in them.
//!
//! Kept are the names that *may* be there, as hashes: every one that this mount ever tried to make. One that
//! is not among them is absent; one that is must be asked for, and so a hash that two names share costs a
//! question and no more.
//!
//! Invariant: nothing is absent by this unless the link that the directory was made over still stands and
//! brought an answer within the last second. So another mount's new name shows as late as any change of
//! a name may (docs/semantics.md), and no later, also when the master is gone and nobody noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_proto::ids::Ino;
use dfs_proto::units::NAME_MAX;

use crate::attrs::AttrCache;
use crate::client::Client;
use crate::net::{LinkId, Net};
use crate::shared::{Shared, lock};

/// Names remembered in all, some 16 MiB; beyond, everything is forgotten and learned anew.
const NAMES_MAX: usize = 1 << 20;
/// How long ago the master must have been heard.
const HEARD: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    /// Hashes of the names that may be there.
    dirs: BTreeMap<Ino, BTreeSet<u64>>,
    names: usize,
    /// Directories being made, whose answer may come after the news that they changed.
    making: usize,
    changed: BTreeSet<Ino>,
}

/// Counts a directory as being made.
pub(crate) struct Making<'a, N: Net>(&'a Shared<N>);

impl<N: Net> Drop for Making<'_, N> {
    fn drop(&mut self) {
        let mut absent = lock(&self.0.absent);
        absent.making -= 1;
        if absent.making == 0 {
            absent.changed.clear();
        }
    }
}

/// FNV-1a: short names, no adversary that could gain by a collision.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Absent {
    fn forget_all(&mut self) {
        self.dirs.clear();
        self.names = 0;
    }

    fn forget(&mut self, dir: Ino) {
        if let Some(names) = self.dirs.remove(&dir) {
            self.names -= names.len();
        }
    }
}

impl<N: Net> Client<N> {
    /// Whether it is known that there is no such name.
    #[must_use]
    pub fn is_absent(&self, parent: Ino, name: &[u8]) -> bool {
        // Names that can't be have an error of their own.
        if name.len() > NAME_MAX {
            return false;
        }
        let absent = lock(&self.shared.absent);
        let unknown = absent.dirs.get(&parent).is_some_and(|names| !names.contains(&hash(name)));
        unknown && self.shared.session.heard_within(self.shared.now(), HEARD)
    }
}

impl<N: Net> Shared<N> {
    /// A directory is going to be made.
    pub(crate) fn make_dir(&self) -> Making<'_, N> {
        lock(&self.absent).making += 1;
        Making(self)
    }

    /// It was made, is empty, and the master tells us over this link when that changes.
    pub(crate) fn made_dir(&self, dir: Ino, link: LinkId) {
        let mut absent = lock(&self.absent);
        // Under the lock: a link that goes later forgets what is put in now.
        if self.session.view.get().link == Some(link) && !absent.changed.contains(&dir) {
            absent.dirs.insert(dir, BTreeSet::new());
        }
    }

    /// The name may be there from now on.
    pub(crate) fn may_come(&self, parent: Ino, name: &[u8]) {
        let mut absent = lock(&self.absent);
        if let Some(names) = absent.dirs.get_mut(&parent)
            && names.insert(hash(name))
        {
            absent.names += 1;
            if absent.names > NAMES_MAX {
                absent.forget_all();
            }
        }
    }

    /// Somebody else made a name there.
    pub(crate) fn dir_changed(&self, dir: Ino) {
        let mut absent = lock(&self.absent);
        absent.forget(dir);
        if absent.making > 0 {
            absent.changed.insert(dir);
        }
    }

    /// The directory is gone.
    pub(crate) fn dir_gone(&self, dir: Ino) {
        lock(&self.absent).forget(dir);
    }

    /// The link is gone: nobody tells us of changes any more.
    pub(crate) fn forget_absent(&self) {
        lock(&self.absent).forget_all();
        *lock(&self.attrs) = AttrCache::default();
    }
}
