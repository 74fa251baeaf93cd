//! Chunk server to master, and the master's commands to chunk servers.
//!
//! A chunk server dials the master and keeps one connection; commands come back over it. What a server
//! has to know of configs comes as numbered [`ServerEvent`]s, in order: pushed at once by [`Apply`], and
//! again in every heartbeat reply until the server says that it applied them, so that none is missed and
//! none is used late (L5).

mod copy;
mod headers;
mod look;
mod scrub;

pub use copy::*;
pub use headers::*;
pub use look::*;
pub use scrub::*;

use serde::{Deserialize, Serialize, Serializer};

use crate::chunk::Member;
use crate::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, Ino, KeyId, LogIndex, OpId,
    OpenNum, OsBootId, Seq, ServerId, ServerNum, SessionId, SizeEpoch, Term,
};
use crate::key::IssuedKey;
use crate::meta::{Done, SuspectReport, request};
use crate::note::FileNote;
use crate::request::{Op, Request};
use crate::status::Status;
use crate::units::{ChunkIndex, ChunkSize, MasterMs, Micros};

/// First message of a chunk server on a new connection to the master.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    /// `None` for a server whose disks are new: it joins the cluster that it dialled.
    pub cluster: Option<ClusterId>,
    pub generation: Generation,
    pub server: ServerId,
    pub boot: BootId,
    pub os_boot: OsBootId,
    /// Persisted on every disk, raised at each start: going backwards means a restored disk image.
    pub hb_ctr: u64,
    pub name: String,
    pub version: String,
    /// `HOST:PORT` that others reach it at.
    pub tcp: String,
    pub unix: Option<String>,
    pub labels: Vec<(String, String)>,
    pub disks: Vec<DiskReport>,
    /// The highest the server has ever seen, from any master.
    pub max_term: Term,
    pub max_meta_index: LogIndex,
    pub max_chunk: Option<ChunkId>,
}
request!(Register => Registered);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskReport {
    pub disk: DiskId,
    pub path: String,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub replicas: u64,
    /// `None` when it works; else what failed, in words.
    pub failed: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    pub num: ServerNum,
    pub cluster: ClusterId,
    pub generation: Generation,
    pub term: Term,
    pub chunk_size: ChunkSize,
    /// D: a lease lives this long from the heartbeat's sending.
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
    /// What capabilities are sealed with for this server from now on.
    pub key: IssuedKey,
    /// A capability that ends after this, on the master's clock, was given since: sessions' leases are this long.
    pub given_since: MasterMs,
}

/// What the server has, in parts, after every registration. The master answers each replica later by an
/// event or a command; inventory alone never entitles it to serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inventory {
    pub boot: BootId,
    pub replicas: Vec<ReplicaInfo>,
    /// Nothing follows: what the chunk map puts here and no part named is missing.
    pub last: bool,
}
request!(Inventory => Done);

/// Most replicas of one inventory part.
pub const INVENTORY_PART: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaInfo {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub disk: DiskId,
    /// Still being filled: not to be trusted.
    pub learner: bool,
    /// Fenced at `version`, and not told what the recovery came to: where its writes and their numbers go on from.
    #[serde(default)]
    pub fenced: bool,
    /// The digest of its clean close under `open_num`, on the disk, if nothing was written since.
    pub closed: Option<u128>,
    pub ino: Ino,
    pub index: ChunkIndex,
}

/// Once a second.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    pub boot: BootId,
    /// The server's clock when it sent this; the lease counts from here.
    pub t_send: Micros,
    /// The last event that it applied.
    pub applied: u64,
    pub load: ServerLoad,
    pub disks: Vec<DiskReport>,
    /// Busiest chunks with their decayed cost rates.
    pub hot: Vec<ChunkHeat>,
    /// Replicas lost since the last heartbeat (failed disk, file gone).
    pub lost: Vec<ChunkId>,
    /// The newest key that it has.
    pub key: KeyId,
    #[serde(default)]
    pub scrub: ScrubReport,
    #[serde(default)]
    pub copy: CopyReport,
}
request!(Heartbeat => HeartbeatReply);

/// A server's load. `utilisation` is the worst of network, disk, CPU and queue, in permille of capacity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServerLoad {
    pub utilisation_permille: u16,
    pub queue: u16,
    pub bytes_in_per_s: u64,
    pub bytes_out_per_s: u64,
    pub requests_per_s: u64,
    pub service_p50_us: u32,
    pub service_p99_us: u32,
    /// What the server can move; 0 from one that does not say.
    #[serde(default)]
    pub capacity_bytes_per_s: u64,
    /// Seen while it could move no more, and neither given nor assumed.
    #[serde(default)]
    pub capacity_learned: bool,
    /// Neither given nor seen yet.
    #[serde(default)]
    pub capacity_assumed: bool,
}

/// Cost per second, decayed with a half-life of 10 s: one unit a request plus one for each 64 KiB.
/// On the wire the three numbers, without names: 200 servers name a hundred thousand chunks a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct ChunkHeat {
    pub chunk: ChunkId,
    pub read_milli: u64,
    pub write_milli: u64,
}

impl Serialize for ChunkHeat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.chunk, self.read_milli, self.write_milli).serialize(serializer)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Echo of the request's: the lease is valid until `t_send + lease_ms` on the server's clock.
    pub t_send: Micros,
    /// False: no lease is granted (not registered with this master's term, or fenced): register again.
    pub granted: bool,
    /// The grant's stamp, which reads carry to clients.
    pub term: Term,
    pub now: MasterMs,
    /// Highest log index that is durable; the server remembers the highest that it was told.
    pub durable: LogIndex,
    /// All events after `applied`, to be applied before the lease is used.
    pub events: Vec<(u64, ServerEvent)>,
    /// A newer key than the server's; capabilities are sealed with it once the server says that it has it.
    pub key: Option<IssuedKey>,
}

/// Events pushed as they happen. The answer says up to which number they are applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Apply {
    pub term: Term,
    pub events: Vec<(u64, ServerEvent)>,
}
request!(Apply => Applied);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Applied {
    pub applied: u64,
}

/// What a server has to know about one of its replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServerEvent {
    /// The config is Active with this server (this boot) in it: it may serve. Positive confirmation (L5).
    Active(ActiveConfig),
    /// This server is not, or no longer, a member: it serves nothing of the chunk. The file stays until a
    /// logged decision says otherwise.
    NotMember { chunk: ChunkId, version: ChunkVersion, config: ConfigNum },
    /// A session ended: its capabilities are void and its op ids can be forgotten.
    SessionEnded { session: SessionId },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActiveConfig {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    /// The first is the primary.
    pub members: Vec<Member>,
    pub ino: Ino,
    pub index: ChunkIndex,
    /// The op table of the recovery's base; empty after a clean change.
    pub ops: Vec<OpRecord>,
    /// The base's sequence number: the primary counts on from here.
    pub seq: Seq,
    /// Nothing is written under `open_num` any more, only under a higher one.
    pub closed: bool,
    /// The last version that was recovered from a replica whose kernel had rebooted: what was acknowledged
    /// under an older one and not synced may be lost, and a sync that is owed for it says so.
    #[serde(default)]
    pub lossy: ChunkVersion,
}

/// An applied write, so that its retry is answered and not done twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpRecord {
    pub session: SessionId,
    pub op: OpId,
    pub seq: Seq,
    /// The size epoch that it was written under: a truncation since has cut it.
    pub size_epoch: SizeEpoch,
}

/// Master to chunk server: refuse everything of these chunks below the new version, durably (one record
/// of the disk's fence log), and say what the replica holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fence {
    pub term: Term,
    pub chunks: Vec<FenceChunk>,
}
request!(Fence => Fenced);

/// Most chunks of one FENCE, WITHDRAW, DELETE or event batch.
pub const COMMAND_BATCH: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FenceChunk {
    pub chunk: ChunkId,
    /// v', above every version that was Active.
    pub version: ChunkVersion,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fenced {
    /// In the order asked.
    pub answers: Vec<FenceAnswer>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FenceAnswer {
    Holds(ReplicaState),
    /// No file of this chunk.
    Missing,
    /// Fenced at a higher version already, or the disk failed.
    Refused(Status),
}

/// How far a replica's bytes can be trusted, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum ReplicaClass {
    /// The kernel rebooted since: unsynced bytes may be gone.
    Rebooted,
    /// The process restarted under the same kernel: the page cache was kept.
    Restarted,
    /// This process has held it since it joined the config or took the first write of this opening.
    Intact,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaState {
    pub class: ReplicaClass,
    pub version: ChunkVersion,
    pub applied: Seq,
    pub synced: Seq,
    /// Blocks whose checksum is valid, and blocks whose is not (torn or corrupt).
    pub good_blocks: u32,
    pub bad_blocks: u32,
    /// Hash of the CRC table; equal digests mean equal bytes.
    pub digest: u128,
    pub ops: Vec<OpRecord>,
}

/// Master to the chosen base after FENCE: sync what it has, because it will be alone with it; and if all
/// survivors report bad blocks, settle those first, by taking the bytes as they are (B3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reconcile {
    pub term: Term,
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub settle: Settle,
}
request!(Reconcile => Reconciled);

/// What becomes of blocks that do not match their checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Settle {
    /// They stay bad.
    Keep,
    /// Their bytes are taken as they are (B3).
    AsTheyAre,
    /// They become zeros: an operator gave them up.
    Zeros,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reconciled {
    pub digest: u128,
    /// Blocks that were settled.
    pub torn_resolved: u32,
}

/// Master to a primary: fill this server while writes go on, then report [`LearnerReady`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddLearner {
    pub term: Term,
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub learner: Member,
}
request!(AddLearner => Done);

/// Primary to master: the learner holds all, its disk has it, digests were equal. From here on the primary
/// acknowledges nothing without the learner until the answer: `Ok` with the next config to come as an event, or a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LearnerReady {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub learner: Member,
    /// False: filling it failed; the master drops the learner.
    pub ready: bool,
}
request!(LearnerReady => Done);

/// Master to a primary: the bytes from `offset` to the end of the chunk become zeros, on all members,
/// under the new epoch; answered done when the epoch is not above the chunk's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Zero {
    pub term: Term,
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub offset: u32,
    pub size_epoch: SizeEpoch,
}
request!(Zero => Done);

/// Master to chunk server, to the primaries first and then to the others: nobody writes the chunks any more. From its
/// answer on a member refuses writes under `open_num` and below; what it has is on its disk, its header says so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Close {
    pub term: Term,
    pub chunks: Vec<CloseChunk>,
}
request!(Close => Closed);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloseChunk {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub open_num: OpenNum,
    /// The last number that the primary gave out: from there all count on. `None` to the primary itself.
    pub seq: Option<Seq>,
    /// What the replica keeps of its file from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<FileNote>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// In the order asked.
    pub answers: Vec<CloseAnswer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CloseAnswer {
    /// Hash of the CRC table, and the last write that is in it; equal digests mean equal bytes.
    Closed { digest: u128, seq: Seq },
    /// Something of it is under way, or this server does not serve it as named.
    Refused(Status),
}

/// Master to a secondary that is chosen to leave while reads and writes go on (section 10): from its answer on it neither
/// serves nor applies anything of these chunks, until an [`ActiveConfig`] of `config` or above names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Withdraw {
    pub term: Term,
    pub chunks: Vec<WithdrawChunk>,
}
request!(Withdraw => Withdrawn);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WithdrawChunk {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    /// The configuration to come, without this server.
    pub config: ConfigNum,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Withdrawn {
    /// In the order asked: `Ok`, `NoChunk` where no file is, or why not.
    pub results: Vec<Status>,
}

/// Master to chunk server: the only way a replica goes away (D1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delete {
    pub term: Term,
    /// The leader's durable checkpoint: every tombstone named is at or below it.
    pub checkpoint: LogIndex,
    pub chunks: Vec<DeleteChunk>,
}
request!(Delete => Deleted);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteChunk {
    pub chunk: ChunkId,
    /// Replicas at this version or below go; `None` for a chunk's own tombstone: any.
    pub up_to: Option<(ChunkVersion, ConfigNum)>,
    pub tombstone: LogIndex,
    /// As many others as the goal hold the same, closed: its space comes back at once.
    #[serde(default)]
    pub surplus: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// `Ok` also when there was nothing.
    pub results: Vec<Status>,
}

/// Chunk server to master: who did not answer, what is corrupt, which replica failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportTrouble {
    pub reports: Vec<SuspectReport>,
    /// Replicas of this server that failed for good (EIO, failed fsync).
    pub failed: Vec<ChunkId>,
}
request!(ReportTrouble => Done);

/// Chunk server to master: it stops and serves nothing from here on; its lease is given back (L6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GracefulStop {
    pub boot: BootId,
}
request!(GracefulStop => Done);
