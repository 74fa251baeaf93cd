//! Removes a name of anything but a directory.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Name, Removed};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

use super::removal::{Victim, lose_name};
use crate::core::namespace::{Caller, Namespace, check_time};

/// Removes a name of anything but a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unlink {
    pub parent: Ino,
    pub name: Name,
    pub now: Timespec,
    pub by: Caller,
}

impl Unlink {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Victim, Status> {
        check_time(self.now)?;
        let victim = Victim::find(ns, self.parent, &self.name, &self.by)?;
        if victim.is_dir() { Err(Status::IsDir) } else { Ok(victim) }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Removed, Status> {
        let victim = self.check(ns)?;
        ns.entries_mut(self.parent, |entries| entries.remove(&self.name));
        ns.update(self.parent, |dir| dir.touch(self.now));
        Ok(lose_name(ns, victim.ino, victim.inode, self.now))
    }
}
