//! Every directory that has a name is reached from the root, and none from itself: from each one the way up
//! is followed to what is known already.

use dfs_proto::ids::Ino;
use dfs_proto::meta::FindingKind;

use super::book::{Book, Reached};
use crate::core::state::State;

/// The directory to begin with next, and the way up that is being followed.
#[derive(Debug, Default)]
pub(super) struct At {
    next: u64,
    way: Vec<Ino>,
    /// Where the way goes on; `None` between two ways.
    up: Option<Ino>,
}

/// Whether all directories were looked at.
pub(super) fn step(state: &State, book: &mut Book, at: &mut At, left: &mut usize) -> bool {
    while *left > 0 {
        *left -= 1;
        match at.up {
            Some(ino) => follow(state, book, at, ino),
            None => {
                let Some((ino, seen)) = book.seen.iter_from(at.next).next() else { return true };
                let begins = seen.is_dir && seen.reached == Reached::Unknown && !state.ns.is_orphan(Ino(ino));
                at.up = begins.then_some(Ino(ino));
                let Some(next) = ino.checked_add(1) else { return true };
                at.next = next;
            }
        }
    }
    false
}

fn follow(state: &State, book: &mut Book, at: &mut At, ino: Ino) {
    let seen = book.seen(ino);
    let verdict = match seen.reached {
        Reached::Yes => Some(Reached::Yes),
        Reached::No => Some(Reached::No),
        Reached::OnWay => {
            let what = "a directory that lies in itself".to_owned();
            book.find(FindingKind::Names, format!("inode {ino}"), what);
            Some(Reached::No)
        }
        Reached::Unknown if ino == Ino::ROOT => {
            at.way.push(ino);
            Some(Reached::Yes)
        }
        Reached::Unknown => match state.ns.inode(ino) {
            Ok(inode) if seen.is_dir && inode.nlink > 0 => {
                book.seen_mut(ino).reached = Reached::OnWay;
                at.way.push(ino);
                at.up = Some(inode.parent);
                None
            }
            Ok(_) | Err(_) => {
                let from = at.way.last().copied().unwrap_or(ino);
                let what = format!("the way to the root ends at inode {ino}, which is no directory in use");
                book.find(FindingKind::Names, format!("inode {from}"), what);
                Some(Reached::No)
            }
        },
    };
    if let Some(verdict) = verdict {
        // As many steps as the way took.
        for ino in at.way.drain(..) {
            book.seen_mut(ino).reached = verdict;
        }
        at.up = None;
    }
}
