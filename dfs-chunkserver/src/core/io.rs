//! The words between the core and whoever drives it: what goes in ([`Input`]), what has to be done
//! ([`Effect`]), and the work for one disk ([`DiskOp`], answered by a [`DiskDone`]).
//!
//! A driver hands every effect to its place and brings each answer back as an input, once, in any order.
//! Nothing here performs anything.

use bytes::Bytes;
use dfs_proto::chunk::{AskMend, ForwardMeta, ForwardSyncChunk, Member, Range, SyncChunk, WriteMeta};
use dfs_proto::control::{
    AddLearner, Apply, Close, Closed, Delete, Examine, Examined, Fence, Fenced, HeartbeatReply, Holdings,
    LearnerReady, Look, Reconcile, Reconciled, Registered, ReportTrouble, Settle, StartScrub, Withdraw,
    Withdrawn, Zero,
};
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ConfigNum, DiskId, Generation, Ino, LogIndex, OpenNum, Seq, SizeEpoch,
    Term,
};
use dfs_proto::note::FileNote;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, MasterMs};

/// A request that is owed a reply, numbered by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CallToken(pub u64);

/// A disk operation that is owed an [`Input::Disk`], numbered by the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DiskToken(pub u64);

/// A message to another chunk server that is owed an [`Input::Peer`], numbered by the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PeerToken(pub u64);

/// A disk of this server: its place in the list that the core was made with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DiskIx(pub u16);

/// A disk as the core has to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskSetup {
    pub id: DiskId,
    pub free_bytes: u64,
    /// How far the last process's scrub was.
    pub scrub: ScrubMark,
}

/// How far a disk's scrub is, as the disk keeps it for the next process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubMark {
    /// Passes that ended.
    pub passes: u64,
    /// How long this pass has taken, and how long the one before took.
    pub elapsed_ms: u64,
    pub last_ms: u64,
    /// The last replica that this pass looked at; 0 when it has looked at none.
    pub cursor: ChunkId,
    /// How many it looked at.
    pub done: u64,
    /// Damaged blocks, [`DAMAGED_KEPT`] at most.
    pub damaged: Vec<(ChunkId, u32)>,
}

/// Most damaged blocks that a disk keeps for the next process.
pub const DAMAGED_KEPT: usize = 256;

/// What a disk holds of a chunk at start, from its header and fence log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundReplica {
    pub disk: DiskIx,
    pub chunk: ChunkId,
    /// The higher of header and fence log.
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    pub ino: Ino,
    pub index: ChunkIndex,
    pub synced: Seq,
    /// The digest of its clean close, if nothing was written since.
    pub closed: Option<u128>,
    pub learner: bool,
    /// A write or sync of it failed under an earlier process.
    pub failed: bool,
    /// The kernel has not rebooted since the replica joined its config: the page cache was kept. True as
    /// well after a clean shutdown.
    pub same_kernel: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The master took this server in. All memberships wait for a new confirmation.
    Registered(Registered),
    /// The connection to the master is gone, or a new registration is about to be sent. Events count from 1
    /// after it, so none is taken until [`Input::Registered`]. The lease runs on.
    MasterLost,
    Heartbeat(HeartbeatReply),
    /// A client's WRITE, as decoded.
    Write {
        call: CallToken,
        meta: WriteMeta,
        payload: Bytes,
    },
    Sync {
        call: CallToken,
        chunks: Vec<SyncChunk>,
    },
    Forward {
        call: CallToken,
        meta: ForwardMeta,
        payload: Bytes,
    },
    ForwardSync {
        call: CallToken,
        chunks: Vec<ForwardSyncChunk>,
        /// The asker wants the digest of the only chunk named.
        digest: bool,
    },
    Committed(Vec<(ChunkId, ChunkVersion, Seq)>),
    /// A member has damaged blocks of a chunk that this server leads.
    AskMend(AskMend),
    Apply {
        call: CallToken,
        body: Apply,
    },
    Fence {
        call: CallToken,
        body: Fence,
    },
    Reconcile {
        call: CallToken,
        body: Reconcile,
    },
    AddLearner {
        call: CallToken,
        body: AddLearner,
    },
    Zero {
        call: CallToken,
        body: Zero,
    },
    Delete {
        call: CallToken,
        body: Delete,
    },
    Close {
        call: CallToken,
        body: Close,
    },
    Withdraw {
        call: CallToken,
        body: Withdraw,
    },
    /// The master wants every replica scrubbed now.
    StartScrub {
        call: CallToken,
        body: StartScrub,
    },
    Look {
        call: CallToken,
        body: Look,
    },
    Examine {
        call: CallToken,
        body: Examine,
    },
    /// A disk finished what it was given.
    Disk {
        token: DiskToken,
        done: DiskDone,
    },
    /// Another server answered, or it is known that it did not.
    Peer {
        token: PeerToken,
        answer: PeerAnswer,
    },
    /// The master answered an [`Effect::LearnerReady`]: `Ok` takes the learner in (the config follows as an event).
    LearnerJudged {
        report: LearnerReady,
        status: Status,
    },
    /// A disk's free space, measured.
    DiskSpace {
        disk: DiskIx,
        total_bytes: u64,
        free_bytes: u64,
    },
    /// A sync of a disk failed: nothing more is written to it, by this process.
    DiskReadOnly {
        disk: DiskIx,
    },
    /// Time passed; due whenever `Core::next_wake` says.
    Tick,
    /// This process stops: nothing is served from here on.
    Stop,
}

/// What has to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    Disk(DiskTask),
    /// Send a FORWARD; answer with [`Input::Peer`]. Not sent again by the driver.
    Forward {
        to: Member,
        token: PeerToken,
        meta: ForwardMeta,
        payload: Bytes,
    },
    ForwardSync {
        to: Member,
        token: PeerToken,
        chunks: Vec<ForwardSyncChunk>,
        digest: bool,
    },
    /// One way.
    Committed {
        to: Member,
        chunks: Vec<(ChunkId, ChunkVersion, Seq)>,
    },
    /// One way; asked again while it stands.
    AskMend {
        to: Member,
        ask: AskMend,
    },
    /// Answer a request. Every call that came in is answered exactly once.
    Reply {
        call: CallToken,
        reply: Reply,
    },
    /// A parked read can be tried again with `Core::begin_read`.
    RetryRead {
        call: CallToken,
    },
    /// Tell the master; no answer is needed. What still stands is told again each second.
    Trouble(ReportTrouble),
    /// Tell the master; its answer comes back as [`Input::LearnerJudged`]. Repeated each second until then.
    LearnerReady(LearnerReady),
    /// The master does not grant a lease any more: register again.
    Reregister,
}

/// One operation for one disk.
#[derive(Clone, PartialEq, Debug)]
pub struct DiskTask {
    pub disk: DiskIx,
    pub token: DiskToken,
    pub op: DiskOp,
}

/// A replica's header, as the core decides it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaHeader {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    pub ino: Ino,
    pub index: ChunkIndex,
    pub learner: bool,
    /// Written under this opening, or may be.
    pub open: bool,
    /// How many members the config has; 0 when that is not known.
    pub members: u8,
    /// What a replica that is being made keeps of its file.
    pub note: Option<Box<FileNote>>,
}

/// Work for a disk. Operations of one chunk that touch the same blocks are never given out together.
#[derive(Clone, PartialEq, Debug)]
pub enum DiskOp {
    /// Verifies the payload against `crcs` and writes it, merging partial blocks. Answer: `Done`.
    Write {
        chunk: ChunkId,
        /// Make the file first; one that is there already is kept.
        create: Option<ReplicaHeader>,
        ranges: Vec<Range>,
        crcs: Vec<u32>,
        payload: Bytes,
    },
    /// The ranges become zeros; blocks wholly inside give their space back. Answer: `Done`.
    Punch { chunk: ChunkId, create: Option<ReplicaHeader>, ranges: Vec<Range> },
    /// A truncation's: the range becomes zeros, durably. Answer: `Done`.
    Zero { chunk: ChunkId, create: Option<ReplicaHeader>, range: Range, size_epoch: SizeEpoch },
    /// Makes everything written so far durable. Answer: `Synced`, one result a chunk.
    Sync { chunks: Vec<(ChunkId, Seq)> },
    /// Replaces the header, not necessarily durably. Answer: `Done`.
    Header(ReplicaHeader),
    /// Durably refuses everything below the versions, then says what the replicas hold. Answer: `Fenced`.
    Fence { chunks: Vec<FenceItem> },
    /// Answer: `Digest`.
    Digest { chunk: ChunkId },
    /// Reads the written blocks of a range. Answer: `Blocks`.
    ReadBlocks { chunk: ChunkId, range: Range },
    /// What the table of checksums says of a range. Answer: `Table`.
    Table { chunk: ChunkId, range: Range },
    /// Makes durable what is there, and settles blocks with invalid checksums. Answer: `Resolved`.
    Reconcile { chunk: ChunkId, settle: Settle },
    /// Which of these chunks have their files on the disk. Answer: `Looked`.
    Look { chunks: Vec<ChunkId> },
    /// Compares every block with its checksum. Answer: `Examined`.
    Examine { chunk: ChunkId },
    /// Makes a replica to be filled: from the one that is here if it is to be kept, durably marked as no
    /// member's copy; else an empty one, and an old one goes to the trash. Answer: `Done`.
    BeginLearner { header: ReplicaHeader, keep: bool },
    /// Compares the blocks from `offset` with another replica's table, their bytes read, and makes holes where
    /// that one has some. Answer: `Differ`.
    Compare { chunk: ChunkId, offset: u32, entries: Vec<u32> },
    /// Makes everything durable, and then headers that say so with the digest. Answer: `Closed`, one result a chunk.
    Close { chunks: Vec<CloseItem> },
    /// Reads whole blocks for a member whose own are damaged, damaged ones and holes named. Answer: `Stock`.
    Stock { chunk: ChunkId, range: Range },
    /// Replaces damaged blocks by a member's, the bad bytes kept as evidence first. Answer: `Mended`.
    Mend { chunk: ChunkId, offset: u32, entries: Vec<u32>, data: Bytes, insist: bool },
    /// Looks at a replica past the page cache: at its head, or at the next blocks from one on. Not hurried, it is
    /// done when the disk has nothing else to do. Answer: `Scrubbed`.
    Scrub { chunk: ChunkId, from: Option<u32>, hurried: bool },
    /// Remembers how far the scrub is. Answer: `Done`.
    KeepScrub(ScrubMark),
    /// Moves the file to the trash, if there is one, or unlinks it at once. Answer: `Done`.
    Trash { chunk: ChunkId, at_once: bool },
    /// Remembers the highest term and durable log index seen. Answer: `Done`.
    HighWater { generation: Generation, term: Term, index: LogIndex },
}

/// One chunk of a [`DiskOp::Fence`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceItem {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    /// Check every block against its checksum: this process has not held the replica all the time.
    pub verify: bool,
}

/// One chunk of a [`DiskOp::Close`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseItem {
    pub chunk: ChunkId,
    pub open_num: OpenNum,
    /// The last write that is in it.
    pub seq: Seq,
    /// What the replica keeps of its file from now on.
    pub note: Option<FileNote>,
}

/// How a disk operation ended.
#[derive(Clone, PartialEq, Debug)]
pub enum DiskDone {
    Done,
    Failed(DiskFault),
    Synced(Vec<Result<(), DiskFault>>),
    Fenced(Vec<Result<FencedReplica, DiskFault>>),
    Digest(u128),
    /// The digest, or none when the chunk was written again meanwhile.
    Closed(Vec<Result<Option<u128>, DiskFault>>),
    /// Runs of whole blocks, in order.
    Blocks(Vec<BlockRun>),
    /// One entry a block.
    Table(Vec<u32>),
    /// One a block compared, and whether it has to be copied.
    Differ(Vec<bool>),
    Resolved {
        digest: u128,
        torn: u32,
    },
    /// One entry a block, as a table of checksums holds them, and the bytes of those that are checksums.
    Stock {
        entries: Vec<u32>,
        data: Bytes,
    },
    Mended(MendDone),
    Scrubbed(ScrubDone),
    Looked(Vec<bool>),
    Examined {
        synced: Seq,
        good: u32,
        bad: Vec<u32>,
    },
}

/// What a step of a scrub found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubDone {
    /// Read from the disk.
    pub bytes: u64,
    /// Slots, sectors and blocks that were right in memory and are written anew.
    pub rewritten: u32,
    /// Blocks that do not match.
    pub bad: Vec<u32>,
    /// Where the next step begins; `None` behind the last block.
    pub next: Option<u32>,
}

/// How far a mending got.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MendDone {
    pub mended: u32,
    /// Blocks still damaged: the member's are too.
    pub bad: Vec<u32>,
    /// Blocks still damaged: the member has others than the own checksums stand for.
    pub differ: Vec<u32>,
}

/// Why a disk operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskFault {
    /// The bytes given do not match their checksums; nothing was written.
    #[error("the bytes do not match their checksums")]
    BadChecksum,
    /// A stored block that had to be read does not match its checksum; nothing was written.
    #[error("stored block {block} does not match its checksum")]
    Corrupt { block: u32 },
    #[error("no space left on the disk")]
    NoSpace,
    #[error("no file of this chunk")]
    Missing,
    /// The system failed it, or the disk failed before.
    #[error("the disk failed")]
    Io,
}

impl DiskFault {
    /// What a caller in another process is told.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            DiskFault::BadChecksum => Status::BadChecksum,
            DiskFault::Corrupt { .. } => Status::Corrupt,
            DiskFault::NoSpace => Status::NoSpace,
            DiskFault::Missing => Status::NoChunk,
            DiskFault::Io => Status::DiskFailed,
        }
    }
}

/// What a fenced replica holds on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FencedReplica {
    pub synced: Seq,
    pub good_blocks: u32,
    pub bad_blocks: u32,
    pub digest: u128,
}

/// Blocks that follow one another, with their stored checksums.
#[derive(Clone, PartialEq, Debug)]
pub struct BlockRun {
    pub range: Range,
    pub crcs: Vec<u32>,
    pub data: Bytes,
}

/// What another server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerAnswer {
    Ok,
    /// To a comparison or a pull: a bit a block, the lowest first, set where the block has to be copied.
    Compared(Bytes),
    /// To a fetch.
    Stock {
        entries: Vec<u32>,
        data: Bytes,
    },
    Synced {
        results: Vec<Status>,
        digest: Option<u128>,
    },
    /// It answered with an error.
    Refused(Status),
    /// No connection, or no answer in time; it may or may not have acted.
    Silent,
    /// Its Unix socket refused the connection: that process is dead.
    Dead,
}

/// The reply to a call.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    Failed(Status),
    Written {
        chunk: ChunkId,
        seq: Seq,
        /// An earlier try was applied under this size epoch, and cut by a truncation since.
        cut: Option<SizeEpoch>,
    },
    /// To FORWARD, AddLearner and Zero.
    Done,
    /// To a FORWARD that compares, or has a learner pull.
    Compared(Bytes),
    /// To a FORWARD that fetches.
    Stock {
        entries: Vec<u32>,
        data: Bytes,
    },
    Synced {
        results: Vec<Status>,
        digest: Option<u128>,
    },
    Applied {
        applied: u64,
    },
    Fenced(Fenced),
    Reconciled(Reconciled),
    Closed(Closed),
    Withdrawn(Withdrawn),
    Deleted(Vec<Status>),
    Held(Holdings),
    Examined(Examined),
}

/// The lease grant that a read rests on; the client checks it (R4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub term: Term,
    pub now: MasterMs,
}

/// Who this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub boot: BootId,
    /// The newest generation that its disks remember, and the highest term and durable index of it.
    pub generation: Generation,
    pub max_term: Term,
    pub max_index: LogIndex,
}
