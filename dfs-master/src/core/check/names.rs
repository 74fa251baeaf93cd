//! Directories' entries: each names an inode that is there and of its kind, and is found by its name.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{FileKind, FindingKind};

use super::book::Book;
use crate::core::namespace::{Directory, NameEntry, check_name};
use crate::core::state::State;

/// The directory and the cookie to go on from, and the entries of it so far.
#[derive(Debug, Default)]
pub(super) struct At {
    dir: u64,
    cookie: u64,
    entries: u64,
}

/// Whether all directories were looked at.
pub(super) fn step(state: &State, book: &mut Book, at: &mut At, left: &mut usize) -> bool {
    while *left > 0 {
        let Some((dir, directory)) = state.ns.directories.iter_from(at.dir).next() else { return true };
        if dir != at.dir || at.cookie == 0 {
            *at = At { dir, cookie: 0, entries: 0 };
            begin(state, book, Ino(dir), directory);
        }
        let ended = entries(state, book, at, directory, left);
        if ended {
            if at.entries != directory.len() {
                let what = format!("has {} entries and counts {}", at.entries, directory.len());
                book.find_ino(&state.ns, FindingKind::Names, Ino(dir), what);
            }
            let Some(next) = dir.checked_add(1) else { return true };
            *at = At { dir: next, cookie: 0, entries: 0 };
        }
    }
    false
}

fn begin(state: &State, book: &mut Book, dir: Ino, directory: &Directory) {
    book.looked.directories += 1;
    let what = match state.ns.inode(dir) {
        Err(_) => "has entries, and there is no such inode",
        Ok(inode) if inode.kind != FileKind::Dir => "has entries, and is no directory",
        Ok(inode) if inode.nlink == 0 => "has entries, and was removed",
        Ok(_) if directory.is_empty() => "has a list of entries without any",
        Ok(_) => return,
    };
    book.find_ino(&state.ns, FindingKind::Names, dir, what.to_owned());
}

/// Whether the directory's last entry was looked at.
fn entries(state: &State, book: &mut Book, at: &mut At, directory: &Directory, left: &mut usize) -> bool {
    let dir = Ino(at.dir);
    for entry in directory.from(at.cookie) {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        at.cookie = entry.cookie + 1;
        at.entries += 1;
        book.looked.names += 1;
        one(state, book, dir, directory, &entry);
    }
    // An empty directory costs a step too.
    *left = left.saturating_sub(1);
    true
}

fn one(state: &State, book: &mut Book, dir: Ino, directory: &Directory, entry: &NameEntry<'_>) {
    let name = String::from_utf8_lossy(entry.name);
    let mut find = |what: String| book.find_ino(&state.ns, FindingKind::Names, dir, what);
    if check_name(entry.name).is_err() {
        find(format!("its entry {name:?} is no name"));
    } else if directory.find(entry.name).is_none_or(|found| found.cookie != entry.cookie) {
        find(format!("its entry {name:?} is not found by its name"));
    }
    match state.ns.inode(entry.ino) {
        Err(_) => find(format!("its entry {name:?} names inode {}, which is not there", entry.ino)),
        Ok(inode) if inode.kind != entry.kind => {
            find(format!(
                "its entry {name:?} says {:?}, and inode {} is {:?}",
                entry.kind, entry.ino, inode.kind
            ));
        }
        Ok(inode) if inode.kind == FileKind::Dir && inode.parent != dir => {
            find(format!(
                "its entry {name:?} is directory {}, whose parent is inode {}",
                entry.ino, inode.parent
            ));
        }
        Ok(_) => {}
    }
    let seen = book.seen_mut(entry.ino);
    seen.names = seen.names.saturating_add(1);
    if entry.kind == FileKind::Dir {
        let above = book.seen_mut(dir);
        above.subdirs = above.subdirs.saturating_add(1);
    }
}
