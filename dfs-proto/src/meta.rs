//! Client to master: sessions, names, open files, chunk maps and grants; and what the master pushes back.
//!
//! Permission checks. The mount runs with `default_permissions`, so the kernel has checked already, from
//! attributes up to a second old; the master checks again from the truth with [`Creds`]. FUSE hands over no
//! supplementary groups, so they are sent only when the master answers `NeedGroups`: it does when a check
//! fails that another group could pass.
//!
//! Header words of a reply from the master: `word0` log index of the record that the answer rests on,
//! `word1` the master's time ([`MasterMs`]), `word2` the term's low 32 bits, `word3` how many records of
//! the log, up to that index, were not yet on disk.

use serde::{Deserialize, Serialize};

use crate::chunk::{Capability, Member};
use crate::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, Generation, GrantId, Handle, Ino, LogIndex, OpenNum,
    OsBootId, ServerId, ServerNum, SessionId, SizeEpoch, Term,
};
use crate::request::{Op, Request};
use crate::units::{ChunkIndex, ChunkSize, MasterMs, Timespec};

macro_rules! request {
    ($name:ident => $reply:ty) => {
        impl Request for $name {
            const OP: Op = Op::$name;
            type Reply = $reply;
        }
    };
    (mut $name:ident => $reply:ty) => {
        impl Request for $name {
            const OP: Op = Op::$name;
            const MUTATION: bool = true;
            type Reply = $reply;
        }
    };
}
pub(crate) use request;

/// A reply with nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {}

// ---------------------------------------------------------------- attributes

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum FileKind {
    File = 1,
    Dir = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    BlockDev = 6,
    CharDev = 7,
}

impl FileKind {
    /// The kind of a number from the wire or the log.
    #[must_use]
    pub fn from_code(code: u8) -> Option<FileKind> {
        Some(match code {
            1 => FileKind::File,
            2 => FileKind::Dir,
            3 => FileKind::Symlink,
            4 => FileKind::Fifo,
            5 => FileKind::Socket,
            6 => FileKind::BlockDev,
            7 => FileKind::CharDev,
            _ => return None,
        })
    }
}

/// An inode's attributes. Travels as one byte string (see [`Attr::to_bytes`]): listings carry thousands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0o7777`.
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it in 32 bits.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// When the inode was made.
    pub btime: Timespec,
    pub size_epoch: SizeEpoch,
    /// Whether the inode has any extended attribute.
    pub xattrs: bool,
}

/// Length of [`Attr::to_bytes`].
pub const ATTR_LEN: usize = 8 + 1 + 1 + 2 + 4 + 4 + 4 + 4 + 8 + 8 + 4 * 12 + 4;

impl Attr {
    /// The attributes as they travel: fixed, little-endian, in the order of the fields.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ATTR_LEN] {
        let mut out = [0; ATTR_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.ino.0.to_le_bytes());
        put(&[self.kind as u8, u8::from(self.xattrs)]);
        put(&self.mode.to_le_bytes());
        for word in [self.nlink, self.uid, self.gid, self.rdev] {
            put(&word.to_le_bytes());
        }
        put(&self.size.to_le_bytes());
        put(&self.blocks.to_le_bytes());
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            put(&time.sec.to_le_bytes());
            put(&time.nsec.to_le_bytes());
        }
        put(&self.size_epoch.0.to_le_bytes());
        out
    }

    /// Reads [`Attr::to_bytes`]; longer input is accepted, so that fields can be added at the end.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Attr> {
        let mut rest = bytes;
        fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
            let (head, tail) = rest.split_first_chunk::<N>()?;
            *rest = tail;
            Some(*head)
        }
        let ino = Ino(u64::from_le_bytes(take(&mut rest)?));
        let [kind, xattrs] = take::<2>(&mut rest)?;
        let mode = u16::from_le_bytes(take(&mut rest)?);
        let nlink = u32::from_le_bytes(take(&mut rest)?);
        let uid = u32::from_le_bytes(take(&mut rest)?);
        let gid = u32::from_le_bytes(take(&mut rest)?);
        let rdev = u32::from_le_bytes(take(&mut rest)?);
        let size = u64::from_le_bytes(take(&mut rest)?);
        let blocks = u64::from_le_bytes(take(&mut rest)?);
        let mut time = || -> Option<Timespec> {
            let sec = i64::from_le_bytes(take(&mut rest)?);
            let nsec = u32::from_le_bytes(take(&mut rest)?);
            Some(Timespec { sec, nsec })
        };
        let (atime, mtime, ctime, btime) = (time()?, time()?, time()?, time()?);
        let size_epoch = SizeEpoch(u32::from_le_bytes(take(&mut rest)?));
        let kind = FileKind::from_code(kind)?;
        let xattrs = xattrs != 0;
        Some(Attr {
            ino,
            kind,
            mode,
            nlink,
            uid,
            gid,
            rdev,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            btime,
            size_epoch,
            xattrs,
        })
    }
}

impl Serialize for Attr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Attr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Attr, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Attr::from_bytes(&bytes)
            .ok_or_else(|| serde::de::Error::custom("attributes too short or of an unknown kind"))
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Creds {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; `None` until the master asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<u32>>,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SetTime {
    /// The master's time of day when it takes the request.
    Now,
    At(Timespec),
}

// ---------------------------------------------------------------- sessions

/// Opens a session. Not a mutation in the sense of kept answers: the answer to a lost one is a session
/// that nobody uses and that ends with its lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenSession {
    /// Host name and mount point, for people.
    pub name: String,
    pub os_boot: OsBootId,
}
request!(OpenSession => SessionOpened);

/// What a client has to know for its work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionOpened {
    pub session: SessionId,
    pub cluster: ClusterId,
    pub generation: Generation,
    pub term: Term,
    pub chunk_size: ChunkSize,
    /// Replicas that new files get.
    pub goal: u8,
    /// How long the session lives after the last message that the master had from it.
    pub lease_ms: u64,
    /// How long a chunk server may serve after its heartbeat was sent (D of the lease rules).
    pub server_lease_ms: u64,
    pub servers: Servers,
}

/// Takes a session up again on a new connection, with all that it holds: opens and grants are not in the
/// master's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResumeSession {
    pub session: SessionId,
    /// The highest log position that any reply carried. A master whose log lacks it answers `tail_lost`.
    pub seen_term: Term,
    pub seen_index: LogIndex,
    pub opens: Vec<OpenClaim>,
}
request!(ResumeSession => SessionResumed);

/// An open file that a client had when its connection broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenClaim {
    pub ino: Ino,
    pub handle: Handle,
    pub write: bool,
    /// The grant that it held.
    pub grant: GrantKind,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionResumed {
    pub term: Term,
    pub lease_ms: u64,
    /// The master lost records that it had answered: the client drops every cached name, attribute, map
    /// and grant, and the next fsync and close of what it changed reports EIO.
    pub tail_lost: bool,
    /// Grants given again. What is not named here is no longer held.
    pub grants: Vec<(Ino, Grant)>,
    pub servers: Servers,
}

/// Ends a session: its opens, locks and grants end with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloseSession {}
request!(CloseSession => Done);

/// Renews the session's lease when nothing else did, and reads the master's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The directory epoch that the client knows; the reply says whether to ask for a new one.
    pub servers_epoch: u64,
}
request!(KeepAlive => Alive);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    pub servers_changed: bool,
}

/// Asks for the directory of chunk servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GetServers {}
impl Request for GetServers {
    const OP: Op = Op::Servers;
    type Reply = Servers;
}

/// How to reach every chunk server; replies elsewhere name servers by number only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Servers {
    /// Raised by every change.
    pub epoch: u64,
    pub list: Vec<ServerAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerAddr {
    pub num: ServerNum,
    pub id: ServerId,
    /// `HOST:PORT`
    pub tcp: String,
    /// Path of its Unix socket; usable by processes under the same kernel that can open it.
    pub unix: Option<String>,
    pub os_boot: OsBootId,
}

// ---------------------------------------------------------------- names

/// Bytes of a name: 1..=255, without `/` and NUL, not `.` or `..`.
pub type Name = serde_bytes::ByteBuf;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lookup {
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(Lookup => Attr);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Getattr {
    pub ino: Ino,
}
request!(Getattr => Attr);

/// Changes attributes; what is `None` stays. A new `size` goes through the truncation protocol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setattr {
    pub ino: Ino,
    /// Set when the change comes through an open descriptor, whose rights then decide about `size`.
    pub handle: Option<Handle>,
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub creds: Creds,
}
request!(mut Setattr => Attr);

/// Makes a regular file and opens it, or opens the one that is there: one round trip with the grant and,
/// for writers, the first chunk's place and capability.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Create {
    pub parent: Ino,
    pub name: Name,
    /// Permission bits, umask applied already.
    pub mode: u16,
    pub handle: Handle,
    pub access: Access,
    /// O_EXCL: fail with `Exists` when the name is taken.
    pub exclusive: bool,
    /// O_TRUNC
    pub truncate: bool,
    pub creds: Creds,
}
request!(mut Create => Created);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Created {
    pub opened: Opened,
    /// False when the file was there.
    pub new: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mkdir {
    pub parent: Ino,
    pub name: Name,
    pub mode: u16,
    pub creds: Creds,
}
request!(mut Mkdir => Attr);

/// Makes a node of any kind but directory and symlink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mknod {
    pub parent: Ino,
    pub name: Name,
    pub kind: FileKind,
    pub mode: u16,
    pub rdev: u32,
    pub creds: Creds,
}
request!(mut Mknod => Attr);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symlink {
    pub parent: Ino,
    pub name: Name,
    pub target: serde_bytes::ByteBuf,
    pub creds: Creds,
}
request!(mut Symlink => Attr);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Readlink {
    pub ino: Ino,
}
request!(Readlink => LinkTarget);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkTarget {
    pub target: serde_bytes::ByteBuf,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Link {
    pub ino: Ino,
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Link => Attr);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unlink {
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Unlink => Removed);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rmdir {
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Rmdir => Removed);

/// What a name stood for, and the links it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    pub ino: Ino,
    pub nlink: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    /// RENAME_NOREPLACE
    NoReplace,
    /// RENAME_EXCHANGE
    Exchange,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rename {
    pub parent: Ino,
    pub name: Name,
    pub new_parent: Ino,
    pub new_name: Name,
    pub mode: RenameMode,
    pub creds: Creds,
}
request!(mut Rename => Renamed);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renamed {
    pub ino: Ino,
    /// What the new name stood for before, if it was replaced.
    pub replaced: Option<Removed>,
}

/// Lists a directory from behind `cookie` (0: from the start). `.` and `..` are the client's to add.
/// Cookies are stable: entries made or removed meanwhile neither repeat nor hide another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Readdir {
    pub dir: Ino,
    pub cookie: u64,
    /// At most this many entries; the master's own bound is [`READDIR_MAX`].
    pub max: u32,
    /// With attributes.
    pub plus: bool,
}
request!(Readdir => Listing);

/// Most entries of one [`Listing`]: with attributes about 200 KiB.
pub const READDIR_MAX: u32 = 1024;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The directory's parent, for `..`.
    pub parent: Ino,
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirEntry {
    #[serde(rename = "n")]
    pub name: Name,
    #[serde(rename = "i")]
    pub ino: Ino,
    #[serde(rename = "k")]
    pub kind: FileKind,
    /// Listing goes on behind this entry from here.
    #[serde(rename = "c")]
    pub cookie: u64,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attr: Option<Attr>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Getxattr {
    pub ino: Ino,
    pub name: Name,
}
request!(Getxattr => XattrValue);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct XattrValue {
    pub value: serde_bytes::ByteBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SetxattrMode {
    /// Make or replace.
    Any,
    /// XATTR_CREATE
    Create,
    /// XATTR_REPLACE
    Replace,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setxattr {
    pub ino: Ino,
    pub name: Name,
    pub value: serde_bytes::ByteBuf,
    pub mode: SetxattrMode,
    pub creds: Creds,
}
request!(mut Setxattr => Done);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listxattr {
    pub ino: Ino,
}
request!(Listxattr => XattrNames);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct XattrNames {
    pub names: Vec<Name>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removexattr {
    pub ino: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Removexattr => Done);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statfs {}
request!(Statfs => FsStats);

/// Bytes are of replicas divided by the goal: what a user can still write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsStats {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

// ---------------------------------------------------------------- open files, maps, grants

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
}
request!(Release => Done);

/// A chunk's place: which replicas, at which version, and the right to use them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkPlace {
    pub index: ChunkIndex,
    /// The config's members with the boot each was confirmed for; the first is the primary.
    pub members: Vec<Member>,
    pub capability: Capability,
    /// No server has a file of this chunk yet: the first WRITE names the members and makes it.
    pub new: bool,
}

impl ChunkPlace {
    /// The chunk's id.
    #[must_use]
    pub fn chunk(&self) -> ChunkId {
        self.capability.chunk
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
}
request!(mut Commit => Attr);

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
    pub boot: crate::ids::BootId,
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
}

/// Gives a grant back, after a [`Recall`] or of the client's own will; dirty bytes are committed first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantBack {
    pub ino: Ino,
    pub grant: GrantId,
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

// ---------------------------------------------------------------- tools

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {}
request!(ClusterStatus => ClusterReport);

/// The cluster on one page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterReport {
    pub cluster: ClusterId,
    pub generation: Generation,
    pub version: String,
    pub term: Term,
    pub last_index: LogIndex,
    pub durable_index: LogIndex,
    pub snapshot_index: LogIndex,
    pub uptime_ms: u64,
    pub chunk_size: ChunkSize,
    pub goal: u8,
    /// Why the master is on hold, if it is.
    pub hold: Option<String>,
    pub inodes: u64,
    pub sessions: u64,
    pub servers_up: u32,
    pub servers_known: u32,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub chunks: u64,
    /// Fewer members than the goal.
    pub chunks_below_goal: u64,
    pub chunks_recovering: u64,
    /// No member is alive.
    pub chunks_unavailable: u64,
    pub tombstones: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerList {}
request!(ServerList => ServerReports);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerReports {
    pub servers: Vec<ServerReport>,
    pub now: MasterMs,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerReport {
    pub addr: ServerAddr,
    pub name: String,
    pub up: bool,
    /// Milliseconds since the last heartbeat; `None` if there was none since the master started.
    pub silent_ms: Option<u64>,
    pub labels: Vec<(String, String)>,
    pub version: String,
    pub disks: Vec<crate::control::DiskReport>,
    /// Replicas that the chunk map puts there.
    pub replicas: u64,
    pub utilisation_permille: u16,
    pub queue: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    pub ino: Ino,
}
request!(FileInfo => FileReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileReport {
    pub attr: Attr,
    /// Path from the root as the master has it; empty for a nameless inode.
    pub path: serde_bytes::ByteBuf,
    pub goal: u8,
    /// At most the first 10,000.
    pub chunks: Vec<ChunkReport>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkReport {
    pub index: ChunkIndex,
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub open: bool,
    pub recovering: bool,
    /// First is the primary.
    pub members: Vec<ReplicaReport>,
    pub learners: Vec<ReplicaReport>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub server: ServerNum,
    pub name: String,
    pub tcp: String,
    pub up: bool,
}
