//! The tables beside the inodes: chunk lists, link targets, attributes, goals, orphans, truncations under way. What
//! is in them has an inode that says so.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{FileKind, FindingKind};
use dfs_proto::units::{ChunkIndex, FILE_SIZE_MAX};

use super::book::Book;
use super::inodes::pointer;
use crate::core::namespace::{Payload, has_goal};
use crate::core::state::State;

/// The file and the index to go on from.
#[derive(Debug, Default)]
pub(super) struct ListAt {
    ino: u64,
    index: u64,
}

/// Whether all lists of chunks were looked at.
pub(super) fn lists(state: &State, book: &mut Book, at: &mut ListAt, left: &mut usize) -> bool {
    let (last, _) = state.ns.chunk_size.locate(FILE_SIZE_MAX - 1);
    while *left > 0 {
        let Some((ino, list)) = state.ns.chunk_lists.iter_from(at.ino).next() else { return true };
        if ino != at.ino {
            *at = ListAt { ino, index: 0 };
        }
        let inode = state.ns.inode(Ino(ino)).ok();
        if at.index == 0 {
            let what = match inode {
                None => Some("has a list of chunks, and there is no such inode"),
                Some(inode) if inode.payload != Payload::List => {
                    Some("has a list of chunks, and says that it has none")
                }
                // One chunk at index 0 belongs into the inode.
                Some(_) if list.is_empty() || (list.len() == 1 && list.contains(0)) => {
                    Some("has a list of chunks for what needs none")
                }
                Some(_) => None,
            };
            if let Some(what) = what {
                book.find_ino(&state.ns, FindingKind::File, Ino(ino), what.to_owned());
            }
        }
        let mut ended = true;
        for (index, chunk) in list.iter_from(at.index) {
            if *left == 0 {
                ended = false;
                break;
            }
            *left -= 1;
            at.index = index.saturating_add(1);
            if index > last.0 {
                let what = format!("has a chunk at index {index}, beyond every file's end");
                book.find_ino(&state.ns, FindingKind::File, Ino(ino), what);
            }
            match &inode {
                Some(inode) => pointer(state, book, (Ino(ino), inode), ChunkIndex(index), *chunk),
                None => book.pointed(*chunk),
            }
        }
        if ended {
            // An empty list costs a step too.
            *left = left.saturating_sub(1);
            let Some(next) = ino.checked_add(1) else { return true };
            *at = ListAt { ino: next, index: 0 };
        }
    }
    false
}

/// Which table, and from where.
#[derive(Debug, Default)]
pub(super) struct At {
    table: Table,
    ino: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Table {
    #[default]
    Symlinks,
    Xattrs,
    Goals,
    Orphans,
    Cuts,
}

/// Whether all these tables were looked at.
pub(super) fn step(state: &State, book: &mut Book, at: &mut At, left: &mut usize) -> bool {
    let ns = &state.ns;
    let next = match at.table {
        Table::Symlinks => {
            let ids = ns.symlinks.iter_from(at.ino).map(|(ino, _)| ino);
            walk(book, ids, &mut at.ino, left, |book, ino| {
                if ns.inode(ino).is_err() {
                    book.find_ino(
                        ns,
                        FindingKind::Names,
                        ino,
                        "a link's target without its inode".to_owned(),
                    );
                }
            })
            .then_some(Table::Xattrs)
        }
        Table::Xattrs => {
            let ids = ns.xattrs.iter_from(at.ino).map(|(ino, _)| ino);
            walk(book, ids, &mut at.ino, left, |book, ino| {
                if ns.inode(ino).is_err() {
                    book.find_ino(ns, FindingKind::Names, ino, "attributes without their inode".to_owned());
                }
            })
            .then_some(Table::Goals)
        }
        Table::Goals => {
            let ids = ns.goals.iter_from(at.ino).map(|(ino, _)| ino);
            walk(book, ids, &mut at.ino, left, |book, ino| goal(state, book, ino)).then_some(Table::Orphans)
        }
        Table::Orphans => {
            let ids = ns.orphans.iter_from(at.ino).map(|(ino, ())| ino);
            walk(book, ids, &mut at.ino, left, |book, ino| match ns.inode(ino) {
                Ok(inode) if inode.nlink == 0 => {}
                Ok(_) => {
                    book.find_ino(ns, FindingKind::Names, ino, "an orphan that counts links".to_owned());
                }
                Err(_) => {
                    book.find_ino(ns, FindingKind::Names, ino, "an orphan that is not there".to_owned());
                }
            })
            .then_some(Table::Cuts)
        }
        Table::Cuts => {
            // A few at a time.
            cuts(state, book);
            return true;
        }
    };
    if let Some(table) = next {
        *at = At { table, ino: 0 };
    }
    false
}

fn goal(state: &State, book: &mut Book, ino: Ino) {
    let goal = state.ns.goals.get(ino);
    if let Some(goals) = book.goals.get_mut(usize::from(goal.goal.unwrap_or(0))) {
        *goals += 1;
    }
    let what = match state.ns.inode(ino) {
        Err(_) => "has a goal, and there is no such inode".to_owned(),
        Ok(inode) if !has_goal(inode.kind) => format!("has a goal, and is {:?}", inode.kind),
        Ok(_) if goal.is_empty() => "has a goal that asks for nothing".to_owned(),
        Ok(_) if !goal.is_sound() => format!("has a goal that can't be: {goal:?}"),
        Ok(_) => return,
    };
    book.find_ino(&state.ns, FindingKind::File, ino, what);
}

/// Whether the ids ended before the budget did.
fn walk(
    book: &mut Book,
    ids: impl Iterator<Item = u64>,
    at: &mut u64,
    left: &mut usize,
    mut look: impl FnMut(&mut Book, Ino),
) -> bool {
    for ino in ids {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        look(book, Ino(ino));
        let Some(next) = ino.checked_add(1) else { return true };
        *at = next;
    }
    true
}

fn cuts(state: &State, book: &mut Book) {
    let ns = &state.ns;
    for (ino, intent) in ns.intents() {
        let boundary = intent.boundary;
        let what = match ns.inode(ino) {
            Err(_) => "is being cut, and there is no such inode".to_owned(),
            Ok(inode) if inode.kind != FileKind::File => "is being cut, and is no file".to_owned(),
            Ok(inode) if inode.size_epoch != boundary.size_epoch => {
                format!("is being cut at epoch {}, and is at {}", boundary.size_epoch, inode.size_epoch)
            }
            Ok(_) if ns.chunk_at(ino, boundary.index) != Ok(Some(boundary.chunk)) => {
                format!(
                    "is being cut in chunk {}, which is not at index {}",
                    boundary.chunk, boundary.index.0
                )
            }
            Ok(_) => continue,
        };
        book.find_ino(ns, FindingKind::File, ino, what);
    }
    for ino in state.cuts.keys() {
        if ns.intent(*ino).is_none() {
            let what = "somebody waits for its cut, and it is not being cut".to_owned();
            book.find_ino(ns, FindingKind::File, *ino, what);
        }
    }
}
