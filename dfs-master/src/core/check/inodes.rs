//! Every inode against what names it, and against the tables that hold the rest of it.

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::meta::{FileKind, FindingKind};
use dfs_proto::units::ChunkIndex;

use super::book::{Book, Seen};
use crate::core::namespace::{Inode, Namespace, Payload};
use crate::core::state::State;

/// Whether all inodes were looked at.
pub(super) fn step(state: &State, book: &mut Book, at: &mut u64, left: &mut usize) -> bool {
    for (ino, record) in state.ns.inodes.records_from(*at) {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        book.looked.inodes += 1;
        match Inode::decode(record) {
            Some(inode) => one(state, book, ino, &inode),
            None => book.find(FindingKind::Names, format!("inode {ino}"), "its record is not one".to_owned()),
        }
        let Some(next) = ino.0.checked_add(1) else { return true };
        *at = next;
    }
    true
}

fn one(state: &State, book: &mut Book, ino: Ino, inode: &Inode) {
    let ns = &state.ns;
    let seen = book.seen(ino);
    let mut wrong = Vec::new();
    if ino.0 == 0 || ino.0 >= ns.next_ino {
        let what = format!("its number is not below {}, the next to be given", ns.next_ino);
        book.find_ino(ns, FindingKind::Id, ino, what);
    }
    if inode.kind == FileKind::Dir {
        book.directories += 1;
        book.seen_mut(ino).is_dir = true;
        wrong.extend(directory(ns, ino, inode, seen));
    } else {
        wrong.extend(links(ns, ino, inode, seen));
    }
    wrong.extend(parts(ns, ino, inode));
    for what in wrong {
        book.find_ino(ns, FindingKind::Names, ino, what);
    }
    match inode.payload {
        Payload::First(chunk) => pointer(state, book, (ino, inode), ChunkIndex(0), chunk),
        Payload::Nothing | Payload::List | Payload::Device(_) => {}
    }
}

/// A directory has one name, and a link for each of its own directories.
fn directory(ns: &Namespace, ino: Ino, inode: &Inode, seen: Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let orphan = ns.is_orphan(ino);
    let names = u32::from(ino != Ino::ROOT && !orphan);
    if seen.names != names {
        wrong.push(format!("a directory with {} names, not {names}", seen.names));
    }
    let links = if orphan { 0 } else { seen.subdirs.saturating_add(2) };
    if inode.nlink != links {
        wrong.push(format!(
            "{} directories in it make {links} links, and it counts {}",
            seen.subdirs, inode.nlink
        ));
    }
    if ino == Ino::ROOT && (inode.parent != Ino::ROOT || orphan) {
        wrong.push(format!("the root has parent {}", inode.parent));
    }
    wrong
}

/// Anything else has as many names as it counts, and none exactly if it is an orphan.
fn links(ns: &Namespace, ino: Ino, inode: &Inode, seen: Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    if seen.names != inode.nlink {
        wrong.push(format!("has {} names, and counts {}", seen.names, inode.nlink));
    }
    if (inode.nlink == 0) != ns.is_orphan(ino) {
        let what = if inode.nlink == 0 { "no link, and is no orphan" } else { "links, and is an orphan" };
        wrong.push(format!("has {what}"));
    }
    if ino == Ino::ROOT {
        wrong.push("the root is no directory".to_owned());
    }
    wrong
}

/// What lies in other tables, and what must not.
fn parts(ns: &Namespace, ino: Ino, inode: &Inode) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_device = matches!(inode.kind, FileKind::BlockDev | FileKind::CharDev);
    let fits = match inode.payload {
        Payload::Nothing => true,
        Payload::First(_) | Payload::List => inode.kind == FileKind::File,
        Payload::Device(_) => is_device,
    };
    if !fits {
        wrong.push(format!("a {:?} holds {:?}", inode.kind, inode.payload));
    }
    if (inode.payload == Payload::List) != ns.chunk_lists.contains(ino.0) {
        wrong.push("its list of chunks is missing, or too much".to_owned());
    }
    if inode.xattrs != ns.xattrs.contains(ino.0) {
        wrong.push("its attributes are missing, or too many".to_owned());
    }
    match (inode.kind == FileKind::Symlink, ns.symlinks.get(ino.0)) {
        (true, Some(target)) if target.len() as u64 == inode.size => {}
        (false, None) => {}
        (true, Some(_)) => wrong.push(format!("a link whose target is not {} bytes long", inode.size)),
        (true, None) => wrong.push("a link without a target".to_owned()),
        (false, Some(_)) => wrong.push("a target, and is no link".to_owned()),
    }
    wrong
}

/// A file's pointer to a chunk, which must know it.
pub(super) fn pointer(
    state: &State,
    book: &mut Book,
    (ino, inode): (Ino, &Inode),
    index: ChunkIndex,
    chunk: ChunkId,
) {
    book.pointed(chunk);
    let mut find = |what: String| book.find_ino(&state.ns, FindingKind::File, ino, what);
    let Some(meta) = state.chunks.get(chunk) else {
        let buried = if state.tombstones.get(chunk).is_some() { "was deleted" } else { "is not in the map" };
        return find(format!("at index {} it points to chunk {chunk}, which {buried} (I18)", index.0));
    };
    if meta.refs == 1 && (meta.ino, meta.index) != (ino, index) {
        find(format!(
            "at index {} it points to chunk {chunk}, which is of inode {} at {} (I18)",
            index.0, meta.ino, meta.index.0
        ));
    }
    let beyond = index.0 >= state.ns.chunk_size.chunks_for(inode.size);
    if beyond && meta.written && state.ns.intent(ino).is_none() {
        find(format!(
            "chunk {chunk} at index {} was committed, and lies beyond the size of {} bytes",
            index.0, inode.size
        ));
    }
}
