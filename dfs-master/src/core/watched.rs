//! New directories whose names one client knows all of, because it made them and was told of every change by
//! others since. It answers its programs' look-ups of names that are not there by itself: before a program
//! makes a file its kernel asks for the name, and in a new tree that is half of what it asks.
//!
//! Soft, and of one connection: when that ends, so does what the client believes. A change by another client
//! ends it as well; the change does not wait for the holder, who hears of it within the time that an entry
//! may be old anyway (docs/semantics.md).

use std::collections::BTreeMap;

use dfs_proto::ids::Ino;
use dfs_proto::meta::DirChanged;

use super::Core;
use super::contract::ConnId;
use super::ops::NsCommand;

/// Directories watched at once: more than any tree has that is being made, and 4 MiB.
const WATCHED_MAX: usize = 1 << 16;

/// Who watches which directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    dirs: BTreeMap<Ino, ConnId>,
}

impl Watched {
    pub(super) fn end_conn(&mut self, conn: ConnId) {
        self.dirs.retain(|_, holder| *holder != conn);
    }

    /// The directory is gone.
    pub(super) fn forget(&mut self, dir: Ino) {
        self.dirs.remove(&dir);
    }
}

impl Core {
    /// A directory was made over this connection. Whether its client may take it for empty until it is told.
    /// A kept answer may come late: what counts is what is there now.
    pub(super) fn watch(&mut self, conn: ConnId, dir: Ino) -> bool {
        let is_empty =
            self.state.ns.readdir(dir, 0, 1, false).is_ok_and(|listing| listing.entries.is_empty());
        let room = self.soft.watched.dirs.len() < WATCHED_MAX;
        let watched = is_empty && room;
        if watched {
            self.soft.watched.dirs.insert(dir, conn);
        }
        watched
    }

    /// A name is about to be made in the directory.
    pub(super) fn name_comes(&mut self, conn: ConnId, dir: Ino) {
        let Some(holder) = self.soft.watched.dirs.get(&dir).copied().filter(|holder| *holder != conn) else {
            return;
        };
        self.soft.watched.dirs.remove(&dir);
        self.notify(holder, &DirChanged { dir });
    }

    /// The same for every directory that a command adds a name to.
    pub(super) fn names_come(&mut self, conn: ConnId, command: &NsCommand) {
        match command {
            NsCommand::Mkdir(op) => self.name_comes(conn, op.parent),
            NsCommand::Mknod(op) => self.name_comes(conn, op.parent),
            NsCommand::Symlink(op) => self.name_comes(conn, op.parent),
            NsCommand::Link(op) => self.name_comes(conn, op.parent),
            NsCommand::Create(op) => self.name_comes(conn, op.parent),
            NsCommand::Rename(op) => self.name_comes(conn, op.new_parent),
            // These take names away, or touch none: a name that is believed to be there is asked for.
            _ => {}
        }
    }
}
