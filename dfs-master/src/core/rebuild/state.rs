//! The state of a master that has the files and nothing else: no sessions, no tombstones, nobody registered.

use std::collections::BTreeMap;

use dfs_proto::ids::{BootId, ChunkVersion, ClusterId, Ino, OsBootId, ServerId, ServerNum, SessionId};
use dfs_proto::meta::FileKind;

use super::choose::Chunk;
use super::files::{File, Files};
use super::names::Path;
use super::{Disk, Frame, RebuildError};
use crate::core::chunks::{ChunkMeta, ChunkState, Members};
use crate::core::config::CoreConfig;
use crate::core::image::StateImage;
use crate::core::namespace::{INO_END, Inode, Namespace, RootSpec};
use crate::core::servers::{Server, ServerInfo};
use crate::core::state::{Cluster, State};
use crate::log::entry::ConfState;

/// Nobody may gain access that he did not have: root gives it out again.
const DIR_MODE: u16 = 0o700;
const FILE_MODE: u16 = 0o600;
/// Directories, links and empty files had inodes too, above those that headers name. New ones begin so far above, for
/// programs that remember numbers.
const INO_GAP: u64 = 1 << 20;
/// Sessions of a generation are numbered from here on, so that none is taken for one of before.
const SESSION_SHIFT: u32 = 32;

pub(super) fn build(
    frame: &Frame,
    files: &Files<'_>,
    names: &[Path],
    servers: &BTreeMap<ServerId, ServerNum>,
    disks: &[Disk],
) -> Result<State, RebuildError> {
    let mut state = State::empty();
    state.applied = frame.at.index;
    state.cluster = Some(Cluster {
        id: frame.cluster,
        generation: frame.generation,
        chunk_size: frame.chunk_size,
        goal: frame.goal,
        ids_below: frame.ids_below,
    });
    state.sessions.restore_last(SessionId(u64::from(frame.generation.0) << SESSION_SHIFT));
    for (id, num) in servers {
        state.servers.restore(server(*id, *num, disks));
    }
    state.servers.restore_epoch(1);
    let root = RootSpec { uid: 0, gid: 0, mode: DIR_MODE, now: frame.now };
    let mut tree = Tree { ns: Namespace::new(frame.chunk_size, root), dirs: BTreeMap::new(), frame };
    tree.ns.next_ino = files.last.0.max(Ino::ROOT.0).saturating_add(INO_GAP);
    for (file, path) in files.list.iter().zip(names) {
        tree.add(file, path)?;
        for chunk in &file.chunks {
            state.chunks.insert(chunk.id, &meta_of(chunk));
        }
    }
    state.ns = tree.ns;
    Ok(state)
}

/// The state as a snapshot holds it, of a group of one.
pub(super) fn image(cluster: ClusterId, state: State) -> StateImage {
    StateImage::new(state, ConfState::of(&[CoreConfig::new(cluster).node]))
}

/// What is known of a server until it registers.
fn server(id: ServerId, num: ServerNum, disks: &[Disk]) -> Server {
    let starts = disks.iter().filter(|disk| disk.disk.server == id).map(|disk| disk.disk.starts).max();
    let info = ServerInfo {
        id,
        boot: BootId(0),
        os_boot: OsBootId(0),
        hb_ctr: starts.unwrap_or_default(),
        name: format!("{id}"),
        tcp: String::new(),
        unix: None,
        labels: Vec::new(),
        version: String::new(),
    };
    Server { num, info, settled: false, draining: false }
}

fn meta_of(chunk: &Chunk<'_>) -> ChunkMeta {
    ChunkMeta {
        version: chunk.version,
        config: chunk.config,
        open_num: chunk.open_num,
        state: ChunkState::Active,
        members: Members::of(&chunk.members),
        learners: Vec::new(),
        leaving: None,
        open: chunk.digest.is_none(),
        // A file of it exists, and for all that is known somebody was promised its bytes.
        synced: true,
        written: true,
        digest: chunk.digest.unwrap_or_default().0,
        lossy: ChunkVersion(0),
        refs: 1,
        ino: chunk.ino,
        index: chunk.index,
    }
}

struct Tree<'a> {
    ns: Namespace,
    dirs: BTreeMap<Path, Ino>,
    frame: &'a Frame,
}

impl Tree<'_> {
    fn add(&mut self, file: &File<'_>, path: &Path) -> Result<(), RebuildError> {
        let Some((name, dir)) = path.split_last() else { return Ok(()) };
        let parent = self.dir(dir)?;
        let mut inode = Inode {
            mode: FILE_MODE,
            size: file.size,
            size_epoch: file.size_epoch,
            parent,
            ..Inode::new(FileKind::File).born(file.modified)
        };
        for chunk in &file.chunks {
            self.ns.put_chunk(file.ino, &mut inode, chunk.index, chunk.id);
        }
        self.ns.inodes.set(file.ino, &inode);
        self.ns.entries_mut(parent, |entries| entries.insert(name, file.ino, FileKind::File));
        Ok(())
    }

    /// The directory of that path, made with all above it.
    fn dir(&mut self, path: &[Vec<u8>]) -> Result<Ino, RebuildError> {
        let Some((name, above)) = path.split_last() else { return Ok(Ino::ROOT) };
        if let Some(ino) = self.dirs.get(path) {
            return Ok(*ino);
        }
        let parent = self.dir(above)?;
        let ino = Ino(self.ns.next_ino);
        if ino.0 >= INO_END {
            return Err(RebuildError::Inodes(Ino(INO_END - 1)));
        }
        self.ns.next_ino += 1;
        let inode =
            Inode { mode: DIR_MODE, nlink: 2, parent, ..Inode::new(FileKind::Dir).born(self.frame.now) };
        self.ns.inodes.set(ino, &inode);
        self.ns.entries_mut(parent, |entries| entries.insert(name, ino, FileKind::Dir));
        self.ns.update(parent, |dir| dir.nlink += 1);
        self.ns.directory_count += 1;
        self.dirs.insert(path.to_vec(), ino);
        Ok(ino)
    }
}
