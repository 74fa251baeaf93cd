//! The reference: a namespace of plain maps, slow and obviously right. Link counts, parents and block
//! counts are not kept but counted; groups are always known.

use std::collections::{BTreeMap, BTreeSet};

use dfs_master::core::namespace::Caller;
use dfs_master::core::ops::*;
use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};

use crate::support::CHUNK;

type Name = Vec<u8>;

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) kind: FileKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) size: u64,
    pub(crate) epoch: u32,
    pub(crate) atime: Timespec,
    pub(crate) mtime: Timespec,
    pub(crate) ctime: Timespec,
    pub(crate) btime: Timespec,
    pub(crate) target: Name,
    pub(crate) chunks: BTreeMap<u64, ChunkId>,
    pub(crate) xattrs: BTreeMap<Name, Vec<u8>>,
    pub(crate) intent: Option<(u64, Boundary)>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) names: BTreeMap<(u64, Name), u64>,
    pub(crate) next: u64,
}

fn ensure(condition: bool, status: Status) -> Result<(), Status> {
    if condition { Ok(()) } else { Err(status) }
}

fn in_group(by: &Caller, gid: u32) -> bool {
    by.gid == gid || by.groups.as_ref().unwrap().contains(&gid)
}

fn may(by: &Caller, node: &Node, rights: u16) -> Result<(), Status> {
    let class = if by.uid == node.uid {
        node.mode >> 6
    } else if in_group(by, node.gid) {
        node.mode >> 3
    } else {
        node.mode
    };
    let root = by.uid == 0 && (rights & 1 == 0 || node.kind == FileKind::Dir || node.mode & 0o111 != 0);
    ensure(root || class & rights == rights, Status::Access)
}

fn valid(times: &[Timespec]) -> Result<(), Status> {
    ensure(times.iter().all(|time| time.nsec < 1_000_000_000), Status::Invalid)
}

fn resolve(time: SetTime, now: Timespec) -> Timespec {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    }
}

fn later(old: Timespec, new: Timespec) -> Timespec {
    if new > old {
        new
    } else if old.nsec == 999_999_999 {
        Timespec { sec: old.sec + 1, nsec: 0 }
    } else {
        Timespec { sec: old.sec, nsec: old.nsec + 1 }
    }
}

fn check_name(name: &[u8]) -> Result<(), Status> {
    ensure(name.len() <= 255, Status::NameTooLong)?;
    let bad = name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
    ensure(!bad, Status::Invalid)
}

impl Node {
    fn new(kind: FileKind, mode: u16, by: &Caller, now: Timespec) -> Node {
        Node {
            kind,
            mode,
            uid: by.uid,
            gid: by.gid,
            rdev: 0,
            size: 0,
            epoch: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            target: Vec::new(),
            chunks: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            intent: None,
        }
    }

    fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    fn check_file(&self) -> Result<(), Status> {
        ensure(!self.is_dir(), Status::IsDir)?;
        ensure(self.kind == FileKind::File, Status::Invalid)
    }

    fn drop_privileges(&mut self, by: &Caller) {
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 || !(by.uid == 0 || in_group(by, self.gid)) {
            self.mode &= !0o2000;
        }
    }

    fn drop_capability(&mut self) {
        self.xattrs.remove(b"security.capability".as_slice());
    }

    fn set_size(&mut self, size: u64, now: Timespec) -> Vec<ChunkId> {
        let mut dropped = Vec::new();
        if size <= self.size {
            let kept = self.chunks.split_off(&size.div_ceil(CHUNK));
            dropped = kept.into_values().collect();
        }
        self.size = size;
        self.mtime = later(self.mtime, now);
        self.ctime = now;
        self.drop_capability();
        dropped
    }
}

impl Model {
    pub(crate) fn new(mode: u16, now: Timespec) -> Model {
        let root = Node::new(FileKind::Dir, mode, &Caller::default(), now);
        Model { nodes: BTreeMap::from([(1, root)]), names: BTreeMap::new(), next: 2 }
    }

    pub(crate) fn children(&self, dir: u64) -> BTreeMap<Name, u64> {
        let of_dir = self.names.iter().filter(|((parent, _), _)| *parent == dir);
        of_dir.map(|((_, name), ino)| (name.clone(), *ino)).collect()
    }

    /// All directories that name the inode.
    fn parents(&self, ino: u64) -> BTreeSet<u64> {
        self.names.iter().filter(|(_, named)| **named == ino).map(|((parent, _), _)| *parent).collect()
    }

    pub(crate) fn nlink(&self, ino: u64) -> u32 {
        let named = self.names.values().filter(|named| **named == ino).count();
        let node = &self.nodes[&ino];
        let links = if !node.is_dir() {
            named
        } else if named == 0 && ino != 1 {
            0
        } else {
            2 + self.children(ino).values().filter(|child| self.nodes[child].is_dir()).count()
        };
        u32::try_from(links).unwrap()
    }

    pub(crate) fn attr(&self, ino: u64) -> Attr {
        let node = &self.nodes[&ino];
        let used = |index: u64| node.size.saturating_sub(index * CHUNK).min(CHUNK).next_multiple_of(4096);
        let bytes: u64 = node.chunks.keys().map(|index| used(*index)).sum();
        Attr {
            ino: Ino(ino),
            kind: node.kind,
            mode: node.mode,
            nlink: self.nlink(ino),
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: if node.is_dir() { 4096 } else { node.intent.map_or(node.size, |(size, _)| size) },
            blocks: if node.is_dir() { 8 } else { bytes / 512 },
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
            btime: node.btime,
            size_epoch: SizeEpoch(node.epoch),
            xattrs: !node.xattrs.is_empty(),
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Status> {
        self.nodes.get(&ino.0).ok_or(Status::Stale)
    }

    fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino.0).unwrap()
    }

    fn dir(&self, ino: Ino) -> Result<&Node, Status> {
        let node = self.node(ino)?;
        ensure(node.is_dir(), Status::NotDir)?;
        Ok(node)
    }

    fn named(&self, dir: Ino, name: &[u8]) -> Option<u64> {
        self.names.get(&(dir.0, name.to_vec())).copied()
    }

    fn touch(&mut self, dir: Ino, now: Timespec) {
        let dir = self.node_mut(dir);
        dir.mtime = now;
        dir.ctime = now;
    }

    fn may_add(&self, parent: Ino, by: &Caller) -> Result<(), Status> {
        ensure(self.nlink(parent.0) > 0, Status::NotFound)?;
        may(by, self.dir(parent)?, 3)
    }

    fn check_new(&self, parent: Ino, name: &[u8], by: &Caller) -> Result<(), Status> {
        check_name(name)?;
        may(by, self.dir(parent)?, 1)?;
        ensure(self.named(parent, name).is_none(), Status::Exists)?;
        self.may_add(parent, by)
    }

    fn make(&mut self, parent: Ino, name: &[u8], node: Node, by: &Caller) -> Result<NsOutcome, Status> {
        let now = node.btime;
        valid(&[now])?;
        self.check_new(parent, name, by)?;
        let dir = self.dir(parent)?;
        let mut node = node;
        if dir.mode & 0o2000 != 0 {
            node.gid = dir.gid;
            if node.is_dir() {
                node.mode |= 0o2000;
            } else if node.mode & 0o2010 == 0o2010 && by.uid != 0 && !in_group(by, dir.gid) {
                node.mode &= !0o2000;
            }
        }
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        self.names.insert((parent.0, name.to_vec()), ino);
        self.touch(parent, now);
        Ok(NsOutcome::Attr(self.attr(ino)))
    }

    fn check_removal(&self, parent: Ino, name: &[u8], by: &Caller) -> Result<u64, Status> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        may(by, dir, 1)?;
        let ino = self.named(parent, name).ok_or(Status::NotFound)?;
        may(by, dir, 3)?;
        let own = by.uid == 0 || by.uid == dir.uid || by.uid == self.nodes[&ino].uid;
        ensure(own || dir.mode & 0o1000 == 0, Status::NotPermitted)?;
        Ok(ino)
    }

    fn remove(&mut self, parent: Ino, name: &[u8], now: Timespec) -> Removed {
        let ino = self.names.remove(&(parent.0, name.to_vec())).unwrap();
        self.touch(parent, now);
        self.node_mut(Ino(ino)).ctime = now;
        Removed { ino: Ino(ino), nlink: self.nlink(ino) }
    }

    fn unlink(&mut self, op: &Unlink) -> Result<NsOutcome, Status> {
        valid(&[op.now])?;
        let ino = self.check_removal(op.parent, &op.name, &op.by)?;
        ensure(!self.nodes[&ino].is_dir(), Status::IsDir)?;
        Ok(NsOutcome::Removed(self.remove(op.parent, &op.name, op.now)))
    }

    fn rmdir(&mut self, op: &Rmdir) -> Result<NsOutcome, Status> {
        valid(&[op.now])?;
        let ino = self.check_removal(op.parent, &op.name, &op.by)?;
        ensure(self.nodes[&ino].is_dir(), Status::NotDir)?;
        ensure(self.children(ino).is_empty(), Status::NotEmpty)?;
        Ok(NsOutcome::Removed(self.remove(op.parent, &op.name, op.now)))
    }

    fn link(&mut self, op: &Link) -> Result<NsOutcome, Status> {
        valid(&[op.now])?;
        let node = self.node(op.ino)?.clone();
        self.check_new(op.parent, &op.name, &op.by)?;
        ensure(!node.is_dir(), Status::NotPermitted)?;
        ensure(self.nlink(op.ino.0) > 0, Status::NotFound)?;
        self.names.insert((op.parent.0, op.name.to_vec()), op.ino.0);
        self.node_mut(op.ino).ctime = op.now;
        self.touch(op.parent, op.now);
        Ok(NsOutcome::Attr(self.attr(op.ino.0)))
    }

    /// Whether `dir` is `ino` or below it.
    fn below(&self, dir: u64, ino: u64) -> bool {
        dir == ino || self.parents(dir).iter().any(|parent| self.below(*parent, ino))
    }

    fn check_rename(&self, op: &Rename) -> Result<(u64, Option<u64>), Status> {
        valid(&[op.now])?;
        check_name(&op.name)?;
        check_name(&op.new_name)?;
        let (dir, new_dir) = (self.dir(op.parent)?, self.dir(op.new_parent)?);
        may(&op.by, dir, 1)?;
        may(&op.by, new_dir, 1)?;
        let source = self.named(op.parent, &op.name).ok_or(Status::NotFound)?;
        let target = self.named(op.new_parent, &op.new_name);
        ensure(op.mode != RenameMode::NoReplace || target.is_none(), Status::Exists)?;
        let exchange = op.mode == RenameMode::Exchange;
        ensure(!exchange || target.is_some(), Status::NotFound)?;
        ensure(!self.below(op.new_parent.0, source), Status::Invalid)?;
        if target.is_some_and(|target| self.below(op.parent.0, target)) {
            return Err(if exchange { Status::Invalid } else { Status::NotEmpty });
        }
        if target == Some(source) {
            return Ok((source, target));
        }
        self.check_removal(op.parent, &op.name, &op.by)?;
        let is_dir = |ino: u64| self.nodes[&ino].is_dir();
        match target {
            None => self.may_add(op.new_parent, &op.by)?,
            Some(target) => {
                self.check_removal(op.new_parent, &op.new_name, &op.by)?;
                ensure(exchange || !is_dir(source) || is_dir(target), Status::NotDir)?;
                ensure(exchange || is_dir(source) || !is_dir(target), Status::IsDir)?;
            }
        }
        if op.parent != op.new_parent {
            let moved = [Some(source), target.filter(|_| exchange)];
            for ino in moved.into_iter().flatten().filter(|ino| is_dir(*ino)) {
                may(&op.by, &self.nodes[&ino], 2)?;
            }
        }
        let empty = target.is_none_or(|target| self.children(target).is_empty());
        ensure(exchange || empty, Status::NotEmpty)?;
        Ok((source, target))
    }

    fn rename(&mut self, op: &Rename) -> Result<NsOutcome, Status> {
        let (source, target) = self.check_rename(op)?;
        let mut renamed = Renamed { ino: Ino(source), replaced: None };
        if target == Some(source) {
            return Ok(NsOutcome::Renamed(renamed));
        }
        self.names.remove(&(op.parent.0, op.name.to_vec()));
        self.names.insert((op.new_parent.0, op.new_name.to_vec()), source);
        self.node_mut(Ino(source)).ctime = op.now;
        if let Some(target) = target {
            self.node_mut(Ino(target)).ctime = op.now;
            if op.mode == RenameMode::Exchange {
                self.names.insert((op.parent.0, op.name.to_vec()), target);
            } else {
                renamed.replaced = Some(Removed { ino: Ino(target), nlink: self.nlink(target) });
            }
        }
        self.touch(op.parent, op.now);
        self.touch(op.new_parent, op.now);
        Ok(NsOutcome::Renamed(renamed))
    }

    fn setattr(&mut self, op: &Setattr) -> Result<NsOutcome, Status> {
        let old = self.node(op.ino)?.clone();
        let set = |time: Option<SetTime>, old| time.map_or(old, |time| resolve(time, op.now));
        let (atime, mtime) = (set(op.atime, old.atime), set(op.mtime, old.mtime));
        valid(&[op.now, atime, mtime])?;
        ensure(op.uid != Some(u32::MAX) && op.gid != Some(u32::MAX), Status::Invalid)?;
        let root = op.by.uid == 0;
        let owner = root || op.by.uid == old.uid;
        ensure(root || op.uid.is_none_or(|uid| owner && uid == old.uid), Status::NotPermitted)?;
        let group = |gid| owner && (gid == old.gid || in_group(&op.by, gid));
        ensure(root || op.gid.is_none_or(group), Status::NotPermitted)?;
        let mut new = Node { atime, mtime, ctime: op.now, ..old.clone() };
        if (op.uid.is_some() || op.gid.is_some()) && !old.is_dir() {
            new.drop_privileges(&op.by);
        }
        if let Some(mode) = op.mode {
            ensure(old.kind != FileKind::Symlink, Status::NotSupported)?;
            ensure(owner, Status::NotPermitted)?;
            new.mode = mode & 0o7777;
            if !root && !in_group(&op.by, op.gid.unwrap_or(old.gid)) {
                new.mode &= !0o2000;
            }
        }
        new.uid = op.uid.unwrap_or(old.uid);
        new.gid = op.gid.unwrap_or(old.gid);
        if op.uid.is_some() || op.gid.is_some() {
            new.drop_capability();
        }
        if op.atime.is_some() || op.mtime.is_some() {
            if op.atime == Some(SetTime::Now) && op.mtime == Some(SetTime::Now) && !owner {
                may(&op.by, &old, 2)?;
            } else {
                ensure(owner, Status::NotPermitted)?;
            }
        }
        if op.mode.is_some() || op.uid.is_some() || op.gid.is_some() || op.atime.or(op.mtime).is_some() {
            *self.node_mut(op.ino) = new;
        }
        Ok(NsOutcome::Attr(self.attr(op.ino.0)))
    }

    /// The file after its mode was cleared, the chunk that would be cut, and its index.
    fn check_truncate(
        &self,
        ino: Ino,
        size: u64,
        now: Timespec,
        by: &TruncateBy,
    ) -> Result<(Node, Option<(u64, ChunkId)>), Status> {
        valid(&[now])?;
        let mut node = self.node(ino)?.clone();
        node.check_file()?;
        if !by.by_handle {
            may(&by.caller, &node, 2)?;
        }
        if by.caller.uid != 0 {
            node.drop_privileges(&by.caller);
        }
        ensure(i64::try_from(size).is_ok(), Status::TooBig)?;
        ensure(node.intent.is_none(), Status::Recovering)?;
        let index = size / CHUNK;
        let cut = node.chunks.get(&index).filter(|_| size <= node.size && !size.is_multiple_of(CHUNK));
        let cut = cut.map(|chunk| (index, *chunk));
        Ok((node, cut))
    }

    fn truncate(&mut self, op: &Truncate) -> Result<NsOutcome, Status> {
        let (mut node, cut) = self.check_truncate(op.ino, op.size, op.now, &op.by)?;
        ensure(cut.is_none(), Status::Recovering)?;
        let shrinks = op.size < node.size;
        let dropped = node.set_size(op.size, op.now);
        node.epoch += u32::from(shrinks || !dropped.is_empty());
        *self.node_mut(op.ino) = node;
        Ok(NsOutcome::Truncated { attr: self.attr(op.ino.0), dropped })
    }

    fn truncate_intent(&mut self, op: &TruncateIntent) -> Result<NsOutcome, Status> {
        let (mut node, cut) = self.check_truncate(op.ino, op.size, op.now, &op.by)?;
        let (index, chunk) = cut.ok_or(Status::Recovering)?;
        node.epoch += 1;
        let boundary = Boundary {
            chunk,
            index: ChunkIndex(index),
            from: u32::try_from(op.size % CHUNK).unwrap(),
            size_epoch: SizeEpoch(node.epoch),
        };
        node.intent = Some((op.size, boundary));
        *self.node_mut(op.ino) = node;
        Ok(NsOutcome::Intended(boundary))
    }

    fn truncate_final(&mut self, op: &TruncateFinal) -> Result<NsOutcome, Status> {
        valid(&[op.now])?;
        let mut node = self.node(op.ino)?.clone();
        node.check_file()?;
        let intent = node.intent.take().filter(|(_, cut)| cut.size_epoch == op.size_epoch);
        let (size, _) = intent.ok_or(Status::OldEpoch)?;
        let dropped = node.set_size(size, op.now);
        *self.node_mut(op.ino) = node;
        Ok(NsOutcome::Truncated { attr: self.attr(op.ino.0), dropped })
    }

    fn commit(&mut self, op: &Commit) -> Result<NsOutcome, Status> {
        let times = [op.atime, op.mtime].into_iter().flatten().map(|time| resolve(time, op.now));
        valid(&times.chain([op.now]).collect::<Vec<_>>())?;
        let mut node = self.node(op.ino)?.clone();
        if let Some(atime) = op.atime {
            node.atime = resolve(atime, op.now);
        }
        if op.size_at_least.is_some() || op.mtime.is_some() || op.clear_privileges {
            node.check_file()?;
            ensure(op.size_epoch.0 >= node.epoch, Status::OldEpoch)?;
            ensure(op.size_epoch.0 == node.epoch, Status::Invalid)?;
            ensure(node.intent.is_none(), Status::Recovering)?;
            ensure(op.size_at_least.is_none_or(|size| i64::try_from(size).is_ok()), Status::TooBig)?;
            node.size = node.size.max(op.size_at_least.unwrap_or(0));
            if let Some(mtime) = op.mtime {
                node.mtime = later(node.mtime, resolve(mtime, op.now));
            }
            if op.clear_privileges {
                let gone = if node.mode & 0o010 != 0 { 0o6000 } else { 0o4000 };
                node.mode &= !gone;
                node.drop_capability();
            }
            node.ctime = op.now;
        }
        *self.node_mut(op.ino) = node;
        Ok(NsOutcome::Attr(self.attr(op.ino.0)))
    }

    fn set_chunk(&mut self, op: &SetChunk) -> Result<NsOutcome, Status> {
        let node = self.node(op.ino)?;
        node.check_file()?;
        ensure(node.intent.is_none(), Status::Recovering)?;
        ensure(op.index.0 < (1 << 63) / CHUNK, Status::TooBig)?;
        ensure(!node.chunks.contains_key(&op.index.0), Status::Exists)?;
        self.node_mut(op.ino).chunks.insert(op.index.0, op.chunk);
        Ok(NsOutcome::Done)
    }

    fn clear_chunk(&mut self, op: &ClearChunk) -> Result<NsOutcome, Status> {
        let node = self.node(op.ino)?;
        node.check_file()?;
        ensure(node.intent.is_none(), Status::Recovering)?;
        ensure(node.chunks.get(&op.index.0) == Some(&op.chunk), Status::NoChunk)?;
        self.node_mut(op.ino).chunks.remove(&op.index.0);
        Ok(NsOutcome::Freed { inos: Vec::new(), dropped: vec![op.chunk] })
    }

    fn check_xattr(&self, ino: Ino, name: &[u8], by: &Caller) -> Result<(), Status> {
        let node = &self.nodes[&ino.0];
        if !name.starts_with(b"user.") {
            return ensure(by.uid == 0, Status::NotPermitted);
        }
        let plain = node.is_dir() || node.kind == FileKind::File;
        let sticky = node.is_dir() && node.mode & 0o1000 != 0;
        ensure(plain && (!sticky || by.uid == 0 || by.uid == node.uid), Status::NotPermitted)?;
        may(by, node, 2)
    }

    fn check_xattr_name(name: &[u8]) -> Result<(), Status> {
        ensure(!name.is_empty() && name.len() <= 255, Status::Range)?;
        let known = ["user.", "trusted.", "security."];
        let prefix = known.iter().find(|prefix| name.starts_with(prefix.as_bytes()));
        let prefix = prefix.ok_or(Status::NotSupported)?;
        ensure(name.len() > prefix.len(), Status::Invalid)
    }

    fn setxattr(&mut self, op: &Setxattr) -> Result<NsOutcome, Status> {
        valid(&[op.now])?;
        self.node(op.ino)?;
        Self::check_xattr_name(&op.name)?;
        ensure(op.value.len() <= 65_536, Status::ValueTooBig)?;
        self.check_xattr(op.ino, &op.name, &op.by)?;
        let node = self.node_mut(op.ino);
        let there = node.xattrs.contains_key(op.name.as_slice());
        ensure(op.mode != SetxattrMode::Create || !there, Status::Exists)?;
        ensure(op.mode != SetxattrMode::Replace || there, Status::NoData)?;
        node.xattrs.insert(op.name.to_vec(), op.value.to_vec());
        node.ctime = op.now;
        Ok(NsOutcome::Done)
    }

    fn removexattr(&mut self, op: &Removexattr) -> Result<NsOutcome, Status> {
        valid(&[op.now])?;
        self.node(op.ino)?;
        Self::check_xattr_name(&op.name)?;
        self.check_xattr(op.ino, &op.name, &op.by)?;
        let node = self.node_mut(op.ino);
        ensure(node.xattrs.remove(op.name.as_slice()).is_some(), Status::NoData)?;
        node.ctime = op.now;
        Ok(NsOutcome::Done)
    }

    fn free(&mut self, op: &FreeInodes) -> NsOutcome {
        let (mut inos, mut dropped) = (Vec::new(), Vec::new());
        for ino in &op.inos {
            if self.nodes.contains_key(&ino.0) && self.nlink(ino.0) == 0 {
                let node = self.nodes.remove(&ino.0).unwrap();
                dropped.extend(node.chunks.into_values());
                inos.push(*ino);
            }
        }
        NsOutcome::Freed { inos, dropped }
    }

    fn mknod(&mut self, op: &Mknod) -> Result<NsOutcome, Status> {
        let device = matches!(op.kind, FileKind::BlockDev | FileKind::CharDev);
        ensure(!matches!(op.kind, FileKind::Dir | FileKind::Symlink), Status::Invalid)?;
        ensure(!device || op.by.uid == 0, Status::NotPermitted)?;
        let mut node = Node::new(op.kind, op.mode & 0o7777, &op.by, op.now);
        node.rdev = if device { op.rdev } else { 0 };
        self.make(op.parent, &op.name, node, &op.by)
    }

    fn symlink(&mut self, op: &Symlink) -> Result<NsOutcome, Status> {
        ensure(!op.target.is_empty(), Status::NotFound)?;
        ensure(op.target.len() <= 4095, Status::NameTooLong)?;
        ensure(!op.target.contains(&0), Status::Invalid)?;
        let mut node = Node::new(FileKind::Symlink, 0o777, &op.by, op.now);
        node.target = op.target.to_vec();
        node.size = op.target.len() as u64;
        self.make(op.parent, &op.name, node, &op.by)
    }

    pub(crate) fn apply(&mut self, command: &NsCommand) -> Result<NsOutcome, Status> {
        let plain = |kind, mode, by, now| Node::new(kind, mode, by, now);
        match command {
            NsCommand::Create(op) => {
                let node = plain(FileKind::File, op.mode & 0o7777, &op.by, op.now);
                self.make(op.parent, &op.name, node, &op.by)
            }
            NsCommand::Mkdir(op) => {
                let node = plain(FileKind::Dir, op.mode & 0o1777, &op.by, op.now);
                self.make(op.parent, &op.name, node, &op.by)
            }
            NsCommand::Mknod(op) => self.mknod(op),
            NsCommand::Symlink(op) => self.symlink(op),
            NsCommand::Link(op) => self.link(op),
            NsCommand::Unlink(op) => self.unlink(op),
            NsCommand::Rmdir(op) => self.rmdir(op),
            NsCommand::Rename(op) => self.rename(op),
            NsCommand::Setattr(op) => self.setattr(op),
            NsCommand::Truncate(op) => self.truncate(op),
            NsCommand::TruncateIntent(op) => self.truncate_intent(op),
            NsCommand::TruncateFinal(op) => self.truncate_final(op),
            NsCommand::Commit(op) => self.commit(op),
            NsCommand::SetChunk(op) => self.set_chunk(op),
            NsCommand::ClearChunk(op) => self.clear_chunk(op),
            NsCommand::Setxattr(op) => self.setxattr(op),
            NsCommand::Removexattr(op) => self.removexattr(op),
            NsCommand::FreeInodes(op) => Ok(self.free(op)),
        }
    }
}
