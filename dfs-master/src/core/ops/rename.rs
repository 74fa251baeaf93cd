//! Moves a name, over another or in exchange for it.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Name, RenameMode, Renamed};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

use super::node::may_add;
use super::removal::{Victim, lose_name};
use crate::core::namespace::{Caller, Inode, Namespace, SEARCH, WRITE, check_name, check_time};

/// Moves a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rename {
    pub parent: Ino,
    pub name: Name,
    pub new_parent: Ino,
    pub new_name: Name,
    pub mode: RenameMode,
    pub now: Timespec,
    pub by: Caller,
}

/// What a rename that is allowed will do.
#[derive(Clone, Copy)]
pub(super) enum Plan {
    /// Both names stand for one inode: POSIX wants nothing done.
    Nothing(Ino),
    Move {
        source: Victim,
        target: Option<Victim>,
    },
    Exchange {
        source: Victim,
        target: Victim,
    },
}

impl Rename {
    /// The order of the checks is the kernel's.
    pub(super) fn check(&self, ns: &Namespace) -> Result<Plan, Status> {
        check_time(self.now)?;
        check_name(&self.name)?;
        check_name(&self.new_name)?;
        let (dir, new_dir) = (ns.dir(self.parent)?, ns.dir(self.new_parent)?);
        self.by.may(&dir, SEARCH)?;
        self.by.may(&new_dir, SEARCH)?;
        let (source, _) = ns.child(self.parent, &self.name).ok_or(Status::NotFound)?;
        let target = ns.child(self.new_parent, &self.new_name).map(|(ino, _)| ino);
        let exchange = match self.mode {
            RenameMode::NoReplace if target.is_some() => return Err(Status::Exists),
            RenameMode::Exchange if target.is_none() => return Err(Status::NotFound),
            RenameMode::NoReplace | RenameMode::Replace => false,
            RenameMode::Exchange => true,
        };
        if is_or_holds(ns, source, self.new_parent) {
            return Err(Status::Invalid);
        }
        if target.is_some_and(|target| is_or_holds(ns, target, self.parent)) {
            return Err(if exchange { Status::Invalid } else { Status::NotEmpty });
        }
        if target == Some(source) {
            return Ok(Plan::Nothing(source));
        }
        let source = Victim::find(ns, self.parent, &self.name, &self.by)?;
        let Some(_) = target else {
            may_add(ns, self.new_parent, &new_dir, &self.new_name, &self.by)?;
            self.check_parents(source, None, &new_dir)?;
            return Ok(Plan::Move { source, target: None });
        };
        let target = Victim::find(ns, self.new_parent, &self.new_name, &self.by)?;
        if exchange {
            self.check_parents(source, Some(target), &new_dir)?;
            return Ok(Plan::Exchange { source, target });
        }
        match (source.is_dir(), target.is_dir()) {
            (true, false) => return Err(Status::NotDir),
            (false, true) => return Err(Status::IsDir),
            (true, true) | (false, false) => {}
        }
        self.check_parents(source, None, &new_dir)?;
        target.check_empty(ns)?;
        Ok(Plan::Move { source, target: Some(target) })
    }

    /// A directory that gets another parent has its `..` written, for which the caller needs the right;
    /// and the parents must be able to count it.
    fn check_parents(
        &self,
        source: Victim,
        exchanged: Option<Victim>,
        new_dir: &Inode,
    ) -> Result<(), Status> {
        if self.parent == self.new_parent {
            return Ok(());
        }
        for moved in [Some(source), exchanged].into_iter().flatten() {
            if moved.is_dir() {
                self.by.may(&moved.inode, WRITE)?;
            }
        }
        if new_dir.nlink == u32::MAX || source.dir.nlink == u32::MAX {
            return Err(Status::TooManyLinks);
        }
        Ok(())
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Renamed, Status> {
        match self.check(ns)? {
            Plan::Nothing(ino) => Ok(Renamed { ino, replaced: None }),
            Plan::Move { source, target } => Ok(self.move_name(ns, source, target)),
            Plan::Exchange { source, target } => Ok(self.exchange(ns, source, target)),
        }
    }

    fn move_name(&self, ns: &mut Namespace, source: Victim, target: Option<Victim>) -> Renamed {
        let (ino, kind) = (source.ino, source.inode.kind);
        ns.entries_mut(self.new_parent, |entries| match target {
            Some(_) => entries.replace(&self.new_name, ino, kind),
            None => entries.insert(&self.new_name, ino, kind),
        });
        ns.entries_mut(self.parent, |entries| entries.remove(&self.name));
        self.arrive(ns, ino, self.new_parent);
        let is_dir = u32::from(source.is_dir());
        ns.update(self.parent, |dir| {
            dir.touch(self.now);
            dir.nlink = dir.nlink.saturating_sub(is_dir);
        });
        let lost = u32::from(target.is_some_and(|target| target.is_dir()));
        ns.update(self.new_parent, |dir| {
            dir.touch(self.now);
            dir.nlink = (dir.nlink + is_dir).saturating_sub(lost);
        });
        let replaced = target.map(|target| lose_name(ns, target.ino, target.inode, self.now));
        Renamed { ino, replaced }
    }

    fn exchange(&self, ns: &mut Namespace, source: Victim, target: Victim) -> Renamed {
        ns.entries_mut(self.new_parent, |entries| {
            entries.replace(&self.new_name, source.ino, source.inode.kind);
        });
        ns.entries_mut(self.parent, |entries| entries.replace(&self.name, target.ino, target.inode.kind));
        self.arrive(ns, source.ino, self.new_parent);
        self.arrive(ns, target.ino, self.parent);
        let (gone, come) = (u32::from(source.is_dir()), u32::from(target.is_dir()));
        ns.update(self.parent, |dir| {
            dir.touch(self.now);
            dir.nlink = (dir.nlink + come).saturating_sub(gone);
        });
        ns.update(self.new_parent, |dir| {
            dir.touch(self.now);
            dir.nlink = (dir.nlink + gone).saturating_sub(come);
        });
        Renamed { ino: source.ino, replaced: None }
    }

    fn arrive(&self, ns: &mut Namespace, ino: Ino, parent: Ino) {
        ns.update(ino, |inode| {
            inode.ctime = self.now;
            inode.parent = parent;
        });
    }
}

/// Whether `dir` is `ino` or lies below it.
fn is_or_holds(ns: &Namespace, ino: Ino, dir: Ino) -> bool {
    let mut at = dir;
    // Deeper than there are directories would be a ring, which no command makes.
    for _ in 0..=ns.directory_count {
        if at == ino {
            return true;
        }
        match ns.inode(at) {
            // An orphan lies below nothing; its parent is the one that it had.
            Ok(inode) if at != Ino::ROOT && inode.nlink > 0 => at = inode.parent,
            Ok(_) | Err(_) => return false,
        }
    }
    true
}
