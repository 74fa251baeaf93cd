//! Where files go: to their last known path, or beside it.
//!
//! - Two files of one path: the one with the higher inode has it, which was made later. The other is `NAME.dfs-INODE`.
//! - A name that is a file's and a directory's is the directory's, or its files had nowhere to go; the file is
//!   `NAME.dfs-INODE`.
//! - A file whose path is not known from the root on is in `/lost+found/ino-INODE`, with what is known of the path.

use std::collections::BTreeSet;

use dfs_proto::ids::Ino;
use dfs_proto::units::NAME_MAX;

use super::files::{File, Files};
use super::report::{RemarkKind, Remarks};
use crate::core::namespace::check_name;

const LOST: &[u8] = b"lost+found";
/// Of a file of whose path nothing is known.
const NAMELESS: &[u8] = b"file";

/// A path from the root: its parts.
pub(super) type Path = Vec<Vec<u8>>;

/// The path as people write it.
pub(super) fn shown(path: &[Vec<u8>]) -> String {
    path.iter().map(|part| format!("/{}", String::from_utf8_lossy(part))).collect()
}

/// The files' paths, in their order.
pub(super) fn place(files: &Files<'_>, remarks: &mut Remarks) -> Vec<Path> {
    let wanted: Vec<Path> = files.list.iter().map(wanted).collect();
    let mut taken = Taken::default();
    taken.dirs.insert(vec![LOST.to_vec()]);
    wanted.iter().for_each(|path| taken.make_way(path));
    let mut placed = vec![Path::new(); wanted.len()];
    // The highest inode first.
    for (at, file) in files.list.iter().enumerate().rev() {
        let path = taken.find(file.ino, &wanted[at]);
        if path != wanted[at] {
            let what = format!("inode {}: its path {} is taken", file.ino, shown(&wanted[at]));
            remarks.add(RemarkKind::Renamed, shown(&path), what);
        } else if path.first().is_some_and(|part| part == LOST) && !is_whole(file) {
            let what = match file.path {
                Some(end) => format!("only the end of its path is known, {}", String::from_utf8_lossy(end)),
                None => "its path is not known".to_owned(),
            };
            remarks.add(RemarkKind::LostAndFound, shown(&path), what);
        }
        for (first, last) in &file.holes {
            let what = format!("no replica of chunks {first} to {last}: they read as zeros");
            remarks.add(RemarkKind::Hole, shown(&path), what);
        }
        for index in &file.lost {
            let what = format!("no replica of chunk {} that can be used: it reads as zeros", index.0);
            remarks.add(RemarkKind::Lost, shown(&path), what);
        }
        for chunk in file.chunks.iter().filter(|chunk| chunk.members.len() < usize::from(chunk.named)) {
            let (found, named) = (chunk.members.len(), chunk.named);
            let what = format!("{found} of {named} replicas of chunk {}, {}", chunk.index.0, chunk.id);
            remarks.add(RemarkKind::Missing, shown(&path), what);
        }
        placed[at] = path;
    }
    placed
}

fn parts_of(path: &[u8]) -> Option<Path> {
    let parts: Path = path.strip_prefix(b"/")?.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    parts.iter().all(|part| check_name(part).is_ok()).then_some(parts)
}

fn is_whole(file: &File<'_>) -> bool {
    file.path.and_then(parts_of).is_some()
}

fn wanted(file: &File<'_>) -> Path {
    if let Some(parts) = file.path.and_then(parts_of) {
        return parts;
    }
    let known = file.path.unwrap_or_default().split(|byte| *byte == b'/');
    let known = known.filter(|part| check_name(part).is_ok()).map(<[u8]>::to_vec);
    let mut path: Path = vec![LOST.to_vec(), format!("ino-{}", file.ino).into_bytes()];
    path.extend(known);
    if path.len() == 2 {
        path.push(NAMELESS.to_vec());
    }
    path
}

/// Paths that are given out.
#[derive(Default)]
struct Taken {
    dirs: BTreeSet<Path>,
    files: BTreeSet<Path>,
}

impl Taken {
    fn make_way(&mut self, path: &[Vec<u8>]) {
        for end in 1..path.len() {
            self.dirs.insert(path[..end].to_vec());
        }
    }

    fn is_free(&self, path: &Path) -> bool {
        let blocked = (1..path.len()).any(|end| self.files.contains(&path[..end]));
        !blocked && !self.dirs.contains(path) && !self.files.contains(path)
    }

    fn find(&mut self, ino: Ino, wanted: &Path) -> Path {
        let name = wanted.last().map_or(NAMELESS, Vec::as_slice);
        let mut beside = wanted.clone();
        if let Some(last) = beside.last_mut() {
            *last = with_suffix(name, &format!(".dfs-{ino}"));
        }
        // Somebody may have called a file so. Each of these differs from all before, so one is free.
        let apart = (0_u64..).map(|n| {
            let dir = if n == 0 { format!("ino-{ino}") } else { format!("ino-{ino}.{n}") };
            vec![LOST.to_vec(), dir.into_bytes(), name.to_vec()]
        });
        let mut candidates = [wanted.clone(), beside].into_iter().chain(apart);
        let path = candidates.find(|path| self.is_free(path)).unwrap_or_else(|| wanted.clone());
        self.make_way(&path);
        self.files.insert(path.clone());
        path
    }
}

fn with_suffix(name: &[u8], suffix: &str) -> Vec<u8> {
    let keep = name.len().min(NAME_MAX - suffix.len());
    [&name[..keep], suffix.as_bytes()].concat()
}
