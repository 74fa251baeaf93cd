//! What replicas keep of their files: the path and the size that the master tells them with a new chunk's place and
//! with a close. Nothing rests on it while a master lives; it is for the day when none does.
//!
//! A directory finds an entry by its name and not by its inode, so names seen lately are remembered by inode. They are
//! hints: each is looked up in its directory before it is used, so a rename makes none wrong.

use std::collections::BTreeMap;

use dfs_proto::ids::Ino;
use dfs_proto::meta::{FileKind, Name};
use dfs_proto::note::{FileNote, NOTE_PATH_MAX};

use super::Core;
use super::command::{Answer, Command};
use super::namespace::Namespace;
use super::ops::{self, NsCommand};

/// Names remembered of directories, and as many of files: what is written within the half minute in which a close
/// may still want the name, and some 6 MiB.
const NAMES_MAX: u64 = 1 << 16;
/// Entries looked at for one whose name is not remembered: 10 us, as long as the record of a create takes.
const SCAN_MAX: usize = 256;

/// Each name has one place, which the next one of that place takes: nothing has to be thrown away.
#[derive(Clone, Debug, Default)]
struct Names(BTreeMap<u64, (Ino, Box<[u8]>)>);

impl Names {
    fn learn(&mut self, ino: Ino, name: &[u8]) {
        self.0.insert(ino.0 % NAMES_MAX, (ino, name.into()));
    }

    fn get(&self, ino: Ino) -> Option<&[u8]> {
        let (found, name) = self.0.get(&(ino.0 % NAMES_MAX))?;
        (*found == ino).then_some(name)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    dirs: Names,
    files: Names,
}

impl Paths {
    pub(super) fn learn(&mut self, kind: FileKind, ino: Ino, name: &[u8]) {
        match kind {
            FileKind::Dir => self.dirs.learn(ino, name),
            FileKind::File => self.files.learn(ino, name),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::BlockDev
            | FileKind::CharDev => {}
        }
    }

    /// The name of an inode in the directory that it lies in, if it has one there and is found soon.
    fn name_of(&mut self, ns: &Namespace, ino: Ino, kind: FileKind, dir: Ino) -> Option<Box<[u8]>> {
        let known = if kind == FileKind::Dir { self.dirs.get(ino) } else { self.files.get(ino) };
        if let Some(name) = known.filter(|name| ns.child(dir, name).is_some_and(|(found, _)| found == ino)) {
            return Some(name.into());
        }
        let found = ns.directories.get(dir.0)?.from(0).take(SCAN_MAX).find(|entry| entry.ino == ino)?;
        self.learn(kind, ino, found.name);
        Some(found.name.into())
    }

    /// The path from the root; its end, without the `/` in front, where the rest is not found soon or is too long.
    fn path_of(&mut self, ns: &Namespace, ino: Ino) -> Vec<u8> {
        let mut parts: Vec<Box<[u8]>> = Vec::new();
        let (mut at, mut len) = (ino, 0);
        while at != Ino::ROOT && len <= NOTE_PATH_MAX {
            let Ok(inode) = ns.inode(at) else { break };
            let Some(name) = self.name_of(ns, at, inode.kind, inode.parent) else { break };
            len += name.len() + 1;
            parts.push(name);
            at = inode.parent;
        }
        let mut path = Vec::with_capacity(len);
        for part in parts.iter().rev() {
            if at == Ino::ROOT || !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        path
    }
}

impl Core {
    /// What a replica of the file is to keep of it now.
    pub(super) fn note_of(&mut self, ino: Ino) -> Option<FileNote> {
        let attr = self.state.ns.getattr(ino).ok()?;
        let path = self.soft.paths.path_of(&self.state.ns, ino);
        Some(FileNote::new(&path, attr.size, attr.size_epoch, self.state.ns.chunk_size()))
    }

    /// A record may have given an inode a name.
    pub(super) fn learn_name(&mut self, command: &Command, answer: &Answer) {
        let (ino, name): (Ino, &Name) = match (command, answer) {
            (Command::Create { create, .. }, Answer::Created(attr)) => (attr.ino, &create.name),
            (Command::Ns(NsCommand::Mkdir(ops::Mkdir { name, .. })), Answer::Attr(attr)) => (attr.ino, name),
            (Command::Ns(NsCommand::Mknod(ops::Mknod { name, .. })), Answer::Attr(attr)) => (attr.ino, name),
            (Command::Ns(NsCommand::Rename(ops::Rename { new_name, .. })), Answer::Renamed(renamed)) => {
                (renamed.ino, new_name)
            }
            _ => return,
        };
        if let Ok(inode) = self.state.ns.inode(ino) {
            self.soft.paths.learn(inode.kind, ino, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::units::{ChunkSize, Timespec};

    use super::*;
    use crate::core::namespace::{Caller, RootSpec};
    use crate::core::ops::NsOutcome;

    const NOW: Timespec = Timespec { sec: 1, nsec: 0 };

    fn root() -> Caller {
        Caller { uid: 0, gid: 0, groups: None }
    }

    fn make(ns: &mut Namespace, parent: Ino, name: &str, dir: bool) -> Ino {
        let (name, by) = (Name::from(name.as_bytes().to_vec()), root());
        let command = if dir {
            NsCommand::Mkdir(ops::Mkdir { parent, name, mode: 0o755, now: NOW, by })
        } else {
            NsCommand::Create(ops::Create { parent, name, mode: 0o644, now: NOW, by })
        };
        match ns.apply(&command) {
            Ok(NsOutcome::Attr(attr)) => attr.ino,
            other => panic!("{other:?}"),
        }
    }

    fn tree() -> Namespace {
        Namespace::new(ChunkSize::DEFAULT, RootSpec { uid: 0, gid: 0, mode: 0o755, now: NOW })
    }

    #[test]
    fn a_path_is_found_with_hints_and_without_and_after_a_rename() {
        let mut ns = tree();
        let dir = make(&mut ns, Ino::ROOT, "dir", true);
        let file = make(&mut ns, dir, "file", false);
        let mut paths = Paths::default();
        assert_eq!(paths.path_of(&ns, file), b"/dir/file");
        let rename = ops::Rename {
            parent: Ino::ROOT,
            name: Name::from(b"dir".to_vec()),
            new_parent: Ino::ROOT,
            new_name: Name::from(b"moved".to_vec()),
            mode: dfs_proto::meta::RenameMode::Replace,
            now: NOW,
            by: root(),
        };
        ns.apply(&NsCommand::Rename(rename)).unwrap();
        assert_eq!(paths.path_of(&ns, file), b"/moved/file", "the remembered name is not believed");
    }

    #[test]
    fn what_is_not_found_soon_leaves_the_end_of_the_path() {
        let mut ns = tree();
        let mut dirs = Vec::new();
        for n in 0..2000 {
            dirs.push(make(&mut ns, Ino::ROOT, &format!("d{n}"), true));
        }
        let files: Vec<Ino> = dirs.iter().map(|dir| make(&mut ns, *dir, "f", false)).collect();
        let mut paths = Paths::default();
        let ends = files.iter().filter(|file| paths.path_of(&ns, **file) == b"f").count();
        assert!(ends > 1000, "{ends}");
        for (n, dir) in dirs.iter().enumerate() {
            paths.learn(FileKind::Dir, *dir, format!("d{n}").as_bytes());
        }
        assert_eq!(paths.path_of(&ns, files[1999]), b"/d1999/f");
    }

    #[test]
    fn a_nameless_file_has_no_path() {
        let mut ns = tree();
        let file = make(&mut ns, Ino::ROOT, "file", false);
        let mut paths = Paths::default();
        paths.learn(FileKind::File, file, b"file");
        let name = Name::from(b"file".to_vec());
        ns.apply(&NsCommand::Unlink(ops::Unlink { parent: Ino::ROOT, name, now: NOW, by: root() })).unwrap();
        assert_eq!(paths.path_of(&ns, file), b"");
    }
}
