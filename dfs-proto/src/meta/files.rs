//! Open files, cache grants, and where chunks are; and what the master pushes back.

use serde::{Deserialize, Serialize};

use crate::chunk::{Capability, Member};
use crate::ids::{BootId, ChunkId, ChunkVersion, GrantId, Handle, Ino, ServerNum, SizeEpoch};
use crate::key::Seal;
use crate::meta::{Attr, Creds, Done, SetTime, request};
use crate::note::FileNote;
use crate::request::{Op, Request};
use crate::units::ChunkIndex;

/// What an open file may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Access {
    pub read: bool,
    pub write: bool,
}

/// What a session may cache of an inode's data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum GrantKind {
    /// Nothing: every read and write goes through, and every write commits size and mtime before it returns.
    None,
    /// Clean pages; many sessions may hold it.
    Read,
    /// Dirty bytes too; one session holds it, and nobody else any grant.
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    pub id: GrantId,
    pub kind: GrantKind,
}

/// Opens an inode: its true attributes, a grant, and the map of its first chunks.
/// `Recalling` while another session's conflicting grant is fetched back: the client repeats.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Open {
    pub ino: Ino,
    pub handle: Handle,
    pub access: Access,
    /// O_TRUNC
    pub truncate: bool,
    pub creds: Creds,
}
request!(mut Open => Opened);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opened {
    pub attr: Attr,
    pub grant: Grant,
    /// Index 0's place, if it has one or the file was opened for writing.
    pub first: Option<ChunkPlace>,
}

/// Closes handles; the grant stays with the session until it is recalled or given back. The answer is not waited for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Release {
    pub handles: Vec<(Ino, Handle)>,
    /// Of these, writes were given up that may still take effect: they are not to be cached before those are over.
    pub unsettled: Vec<Ino>,
}
request!(Release => Done);

/// A chunk's place: which replicas, at which version, and the right to use them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkPlace {
    pub index: ChunkIndex,
    /// The config's members with the boot each was confirmed for; the first is the primary.
    pub members: Vec<Member>,
    /// Not sealed: see [`ChunkPlace::capability_for`].
    pub capability: Capability,
    /// What makes the capability good at each member, in their order.
    pub seals: Vec<Seal>,
    /// No server has a file of this chunk yet: the first WRITE names the members and makes it.
    pub new: bool,
    /// With `new`, what that WRITE brings the replicas of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<FileNote>,
}

impl ChunkPlace {
    /// The chunk's id.
    #[must_use]
    pub fn chunk(&self) -> ChunkId {
        self.capability.chunk
    }

    /// The capability as that member takes it.
    #[must_use]
    pub fn capability_for(&self, server: ServerNum) -> Capability {
        let at = self.members.iter().position(|member| member.server == server);
        let seal = at.and_then(|at| self.seals.get(at));
        seal.map_or(self.capability, |seal| self.capability.sealed(*seal))
    }
}

/// Asks where chunks are, for reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapRead {
    pub ino: Ino,
    pub first: ChunkIndex,
    /// At most [`MAP_MAX`].
    pub count: u32,
}
request!(MapRead => ReadMap);

/// Most chunks of one map answer.
pub const MAP_MAX: u32 = 256;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadMap {
    pub size: u64,
    pub size_epoch: SizeEpoch,
    /// Those that exist; an index that is not named is a hole.
    pub places: Vec<ChunkPlace>,
}

/// Asks for the right to write a chunk, which is allocated if the index is a hole.
/// `Recovering` while its config is being changed: the client repeats.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapWrite {
    pub ino: Ino,
    pub index: ChunkIndex,
    /// The place that did not work, so that the master looks before it hands out the same again.
    pub failed: Option<FailedPlace>,
    /// The chunk that is meant: none is allocated, and where another lies or none the answer is `Stale`.
    pub only: Option<ChunkId>,
}
request!(mut MapWrite => ChunkPlace);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailedPlace {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub server: ServerNum,
}

/// Commits what a writer did: size, mtime, and which chunks are on the disks of all members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Commit {
    pub ino: Ino,
    /// The epoch that the writes were made under; an older one than the inode's is refused with `OldEpoch`.
    pub size_epoch: SizeEpoch,
    /// The file reaches at least to here; never shrinks it.
    pub size_at_least: Option<u64>,
    pub mtime: Option<SetTime>,
    pub atime: Option<SetTime>,
    /// Chunks that this session has synced on every member.
    pub synced: Vec<ChunkId>,
    /// Answer only when the record is on the master's disk (fsync).
    pub durable: bool,
    /// Indices whose allocated chunk was never written: the allocation is dropped.
    pub unused: Vec<(ChunkIndex, ChunkId)>,
    /// What was set on a file while it was being made, and is acknowledged with its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<CommitSet>,
    /// Nobody wrote up to `size_at_least`: what the file gains is a hole, also where it has a chunk. Nothing else but
    /// times may go with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hole: bool,
}
request!(mut Commit => Attr);

/// Attributes that go with a [`Commit`], and on whose behalf; what is `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitSet {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<SetTime>,
    /// Stands, whatever time the commit's own `mtime` gives.
    pub mtime: Option<SetTime>,
    pub creds: Creds,
}

/// Tells the master who did not answer. Never proof by itself but for `RefusedUnix`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suspect {
    pub reports: Vec<SuspectReport>,
}
request!(Suspect => Done);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SuspectReport {
    pub server: ServerNum,
    /// The incarnation that it is about.
    pub boot: BootId,
    pub chunk: Option<ChunkId>,
    pub what: Suspicion,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Suspicion {
    /// No connection, or no answer in time.
    Silent,
    /// ECONNREFUSED on its Unix socket, seen under the same kernel: that process is dead.
    RefusedUnix,
    /// It answered that a stored block is corrupt.
    Corrupt { block: u32 },
    /// It answered that it has no file of a chunk that was written, as far as the master knows.
    Missing,
    /// Its replica of a chunk that nobody wrote to meanwhile is not what the others' are, though each matches its
    /// own checksums.
    Diverged,
    /// It refused a write, because its disk takes none any more. Its replica can be read.
    ReadOnly,
    /// Nobody wrote to it, and its disk takes no writes any more: it should be elsewhere.
    Stranded,
}

/// Asks which chunks of a file may have bytes of other sessions that are not on the disks of all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenChunks {
    pub ino: Ino,
    pub first: ChunkIndex,
}
request!(OpenChunks => OpenChunkList);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenChunkList {
    pub chunks: Vec<(ChunkIndex, ChunkId)>,
    /// Where to go on; none at the file's end.
    pub next: Option<ChunkIndex>,
}

/// Chunks that one [`DropHoles`] names: 4 GiB of a file at the default size, and one record for all of them.
pub const DROP_MAX: usize = 64;

/// Asks that chunks which were made zeros leave their file's map, and waits for what becomes of them. One that has
/// anything but holes stays, whoever names it, so this may come twice, and late.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropHoles {
    pub ino: Ino,
    /// At most [`DROP_MAX`].
    pub chunks: Vec<HoleChunk>,
}
request!(DropHoles => Attr);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoleChunk {
    pub index: ChunkIndex,
    pub chunk: ChunkId,
    /// The zeros were acknowledged under this version: one of a later recovery may be empty for what it lost.
    pub version: ChunkVersion,
}

/// Gives grants back, after a [`Recall`] or of the client's own will; dirty bytes are committed first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantBack {
    pub grants: Vec<(Ino, GrantId)>,
    /// As of [`Release`].
    pub unsettled: Vec<Ino>,
}
request!(GrantBack => Done);

/// Master to client, one way, repeated each second until the grant came back: write what is dirty, drop what is cached, then
/// send [`GrantBack`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recall {
    pub ino: Ino,
    pub grant: GrantId,
}
request!(Recall => Done);

/// Master to client, one way: chunks whose config changed lately. A hint that saves a redirect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocationsChanged {
    pub chunks: Vec<ChunkId>,
}
request!(LocationsChanged => Done);
