//! Client to chunk server and chunk server to chunk server. READ, WRITE and FORWARD carry fixed binary
//! metadata, because they are the hot path; the rest is MessagePack.
//!
//! Header words of a request: `word0` chunk id, `word1` version `<< 32 |` config, `word2` offset in the
//! chunk, `word3` length in bytes (READ only). Of a READ's reply: `word0` chunk id, `word1` the
//! [`MasterMs`] of the lease grant that the answer rests on, `word2` that grant's term (low 32 bits).
//! Of a WRITE's reply: `word1` the sequence number.
//!
//! Checksums. A READ's reply carries whole 4 KiB blocks, from the block that holds `offset`, and in its
//! metadata one CRC32C a block, as stored. It ends early at the chunk's written extent: what lies beyond
//! reads as zeros. A WRITE carries one CRC32C for every part of a block that its ranges cover, in order; one of
//! zeros carries its ranges alone.

mod capability;
mod mend;

pub use capability::*;
pub use mend::*;

use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::Words;
use crate::ids::{
    BootId, ChunkId, ChunkVersion, ConfigNum, Ino, KeyId, OpId, OpenNum, Seq, ServerNum, SessionId, SizeEpoch,
};
use crate::meta::request;
use crate::note::FileNote;
use crate::request::{Op, Request};
use crate::status::Status;
use crate::units::{BLOCK_SIZE, ChunkIndex, MasterMs};

/// A server and the incarnation of it that is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct Member {
    #[serde(rename = "s")]
    pub server: ServerNum,
    #[serde(rename = "b")]
    pub boot: BootId,
}

/// `version << 32 | config`, the header's `word1` of chunk requests.
#[must_use]
pub fn version_word(version: ChunkVersion, config: ConfigNum) -> u64 {
    u64::from(version.0) << 32 | u64::from(config.0)
}

/// Takes [`version_word`] apart.
#[must_use]
pub fn split_version_word(word: u64) -> (ChunkVersion, ConfigNum) {
    let low = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    let high = u32::try_from(word >> 32).unwrap_or(0);
    (ChunkVersion(high), ConfigNum(low))
}

/// A stretch of a chunk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct Range {
    pub offset: u32,
    pub len: u32,
}

impl Range {
    /// First byte behind the range.
    #[must_use]
    pub fn end(self) -> u32 {
        self.offset.saturating_add(self.len)
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub fn overlaps(self, other: Range) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// How many blocks the range touches: the number of checksums it carries.
    #[must_use]
    pub fn blocks(self) -> u32 {
        if self.len == 0 { 0 } else { (self.end() - 1) / BLOCK_SIZE - self.offset / BLOCK_SIZE + 1 }
    }
}

/// Most ranges of one WRITE.
pub const RANGES_MAX: usize = 256;

/// A WRITE's metadata. The payload is the ranges' bytes, one behind the other; none of zeros.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteMeta {
    pub capability: Capability,
    pub op: OpId,
    /// The lowest op id of this session on this chunk that is still unanswered.
    pub done: OpId,
    /// Not empty; in ascending order, disjoint.
    pub ranges: Vec<Range>,
    /// One for each part of a block that a range covers; none of zeros.
    pub crcs: Vec<u32>,
    /// The ranges become zeros, and blocks wholly inside holes.
    pub zeros: bool,
    /// All members, the primary first, when the chunk is new; else empty.
    pub create: Vec<Member>,
    /// What the replicas of a new chunk keep of its file.
    pub note: Option<FileNote>,
}

/// What a FORWARD does at a secondary or learner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardKind {
    /// A client's write.
    Write,
    /// The ranges become zeros, under the size epoch given; no payload, no checksums.
    Zero,
    /// Bytes that the primary had already, for a learner: whole blocks with their stored checksums.
    Fill,
    /// What the primary has in a range, for a learner to compare: the checksums as a table of checksums holds
    /// them, 0 for a hole, and no payload. The learner makes holes where the primary has some, and its reply's
    /// payload says with one bit a block which blocks it needs.
    Compare,
    /// Asks a member for what it has in a range, to mend the primary's own. No payload, no checksums; the
    /// reply's metadata is an entry a block as a table of checksums holds them, 1 for a block that is damaged
    /// there too, and its payload the bytes of the blocks that are neither that nor holes.
    Fetch,
    /// What the primary has in a range, for a member whose blocks there are damaged: entries and payload as in
    /// the reply to a Fetch. Only damaged blocks are replaced, and none that was written after `seq`.
    Mend,
    /// A client's write of zeros: no payload, no checksums.
    Punch,
    /// What the primary has in ranges that a learner lacks, as in a Compare: it fetches them from the members that
    /// `create` names, and its reply's payload says, as that to a Compare, which blocks it still needs.
    Pull,
}

/// What a message carries besides its ranges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    BytesAndChecksums,
    Checksums,
    /// An entry a block, and the bytes of those that are checksums.
    Entries,
    Nothing,
}

/// A FORWARD's metadata: a write with its place in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardMeta {
    pub kind: ForwardKind,
    pub chunk: ChunkId,
    pub session: SessionId,
    pub ino: Ino,
    pub index: ChunkIndex,
    pub op: OpId,
    pub done: OpId,
    pub seq: Seq,
    /// Every write up to here is on all members.
    pub committed: Seq,
    /// The incarnation of the receiver that is meant.
    pub to: BootId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    pub ranges: Vec<Range>,
    pub crcs: Vec<u32>,
    pub create: Vec<Member>,
    /// With `create`, what a client's write brought.
    pub note: Option<FileNote>,
    /// Of the capability that a client's write came with; nothing in others.
    pub given: Given,
}

/// Set in a WRITE's number of ranges when they become zeros. A FORWARD's kind says it.
const ZEROS: u16 = 1 << 15;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawWrite {
    op: U64,
    done: U64,
    /// How many; in a WRITE with [`ZEROS`] or without.
    ranges: U16,
    create: U16,
    crcs: U16,
    /// Bytes of the note; 0 when there is none.
    note: U16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawForward {
    chunk: U64,
    session: U64,
    ino: U64,
    index: U64,
    seq: U64,
    committed: U64,
    to: U64,
    version: U32,
    config: U32,
    open_num: U32,
    size_epoch: U32,
    kind: U32,
    key: U32,
    expires: U64,
    write: RawWrite,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRange {
    offset: U32,
    len: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawMember {
    boot: U64,
    server: U32,
}

/// Why write metadata was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMeta {
    #[error("metadata is too short or has bytes left over")]
    Length,
    #[error("ranges are empty, too many, overlapping, out of order or reach past the largest chunk")]
    Ranges,
    #[error("the number of checksums does not fit the ranges")]
    Checksums,
    #[error("the payload does not fit the ranges")]
    Payload,
    #[error("unknown kind of forward")]
    Kind,
}

fn put_lists(out: &mut Vec<u8>, ranges: &[Range], crcs: &[u32], create: &[Member], note: Option<&FileNote>) {
    for range in ranges {
        out.extend_from_slice(RawRange { offset: range.offset.into(), len: range.len.into() }.as_bytes());
    }
    for member in create {
        let raw = RawMember { boot: member.boot.0.into(), server: u32::from(member.server.0).into() };
        out.extend_from_slice(raw.as_bytes());
    }
    for crc in crcs {
        out.extend_from_slice(&crc.to_le_bytes());
    }
    if let Some(note) = note {
        note.put(out);
    }
}

fn raw_write(
    op: OpId,
    done: OpId,
    ranges: &[Range],
    crcs: &[u32],
    create: &[Member],
    note: Option<&FileNote>,
) -> RawWrite {
    // The bounds hold for every message this process builds: RANGES_MAX, 16 members, a CRC for each block of IO_MAX
    // and two more for each range, a short note.
    RawWrite {
        op: op.0.into(),
        done: done.0.into(),
        ranges: u16::try_from(ranges.len()).unwrap_or(u16::MAX).into(),
        create: u16::try_from(create.len()).unwrap_or(u16::MAX).into(),
        crcs: u16::try_from(crcs.len()).unwrap_or(u16::MAX).into(),
        note: note.map_or(0, FileNote::wire_len).into(),
    }
}

struct Lists {
    ranges: Vec<Range>,
    crcs: Vec<u32>,
    create: Vec<Member>,
    note: Option<FileNote>,
}

/// Checks the counts against the bytes at hand before anything is allocated (I26).
fn take_lists(raw: &RawWrite, rest: &[u8], payload_len: usize, carries: Carries) -> Result<Lists, BadMeta> {
    let (nr, nm) = (usize::from(raw.ranges.get()), usize::from(raw.create.get()));
    let (nc, note) = (usize::from(raw.crcs.get()), usize::from(raw.note.get()));
    if rest.len() != nr * size_of::<RawRange>() + nm * size_of::<RawMember>() + nc * 4 + note {
        return Err(BadMeta::Length);
    }
    let (rest, note_bytes) = rest.split_at(rest.len() - note);
    let note = match note_bytes {
        [] => None,
        bytes => Some(FileNote::from_bytes(bytes).ok_or(BadMeta::Length)?),
    };
    if nr == 0 || nr > RANGES_MAX {
        return Err(BadMeta::Ranges);
    }
    let (range_bytes, rest) = rest.split_at(nr * size_of::<RawRange>());
    let (member_bytes, crc_bytes) = rest.split_at(nm * size_of::<RawMember>());
    let raws = <[RawRange]>::ref_from_bytes(range_bytes).map_err(|_| BadMeta::Length)?;
    let ranges: Vec<Range> =
        raws.iter().map(|r| Range { offset: r.offset.get(), len: r.len.get() }).collect();
    let mut bytes = 0usize;
    let mut blocks = 0usize;
    let mut from = 0u32;
    for range in &ranges {
        let end = range.offset.checked_add(range.len).ok_or(BadMeta::Ranges)?;
        if range.len == 0 || range.offset < from || end > crate::units::CHUNK_SIZE_MAX {
            return Err(BadMeta::Ranges);
        }
        from = end;
        bytes += usize::try_from(range.len).map_err(|_| BadMeta::Ranges)?;
        blocks += usize::try_from(range.blocks()).map_err(|_| BadMeta::Ranges)?;
    }
    let (words, _) = crc_bytes.as_chunks::<4>();
    let crcs: Vec<u32> = words.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let (blocks, bytes) = match carries {
        Carries::BytesAndChecksums => (blocks, bytes),
        Carries::Checksums => (blocks, 0),
        Carries::Entries => (blocks, bytes_of_entries(&crcs)),
        Carries::Nothing => (0, 0),
    };
    if nc != blocks && carries != Carries::Nothing {
        return Err(BadMeta::Checksums);
    }
    if nc != blocks || payload_len != bytes {
        return Err(BadMeta::Payload);
    }
    let members = <[RawMember]>::ref_from_bytes(member_bytes).map_err(|_| BadMeta::Length)?;
    let mut create = Vec::with_capacity(nm);
    for m in members {
        let server = ServerNum(u16::try_from(m.server.get()).map_err(|_| BadMeta::Length)?);
        create.push(Member { server, boot: BootId(m.boot.get()) });
    }
    Ok(Lists { ranges, crcs, create, note })
}

impl WriteMeta {
    /// The metadata as it travels.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(CAPABILITY_LEN + 24 + self.ranges.len() * 8 + self.crcs.len() * 4 + 64);
        out.extend_from_slice(&self.capability.to_bytes());
        let mut raw =
            raw_write(self.op, self.done, &self.ranges, &self.crcs, &self.create, self.note.as_ref());
        if self.zeros {
            raw.ranges = (raw.ranges.get() | ZEROS).into();
        }
        out.extend_from_slice(raw.as_bytes());
        put_lists(&mut out, &self.ranges, &self.crcs, &self.create, self.note.as_ref());
        out
    }

    /// The one validator: counts, order and bounds are right afterwards, and fit a payload of `payload_len` bytes.
    ///
    /// # Errors
    /// What is wrong.
    pub fn from_bytes(bytes: &[u8], payload_len: usize) -> Result<WriteMeta, BadMeta> {
        let (capability, rest) = Capability::from_bytes(bytes).ok_or(BadMeta::Length)?;
        let (mut raw, rest) = RawWrite::read_from_prefix(rest).map_err(|_| BadMeta::Length)?;
        let zeros = raw.ranges.get() & ZEROS != 0;
        raw.ranges = (raw.ranges.get() & !ZEROS).into();
        let carries = if zeros { Carries::Nothing } else { Carries::BytesAndChecksums };
        let Lists { ranges, crcs, create, note } = take_lists(&raw, rest, payload_len, carries)?;
        let (op, done) = (OpId(raw.op.get()), OpId(raw.done.get()));
        Ok(WriteMeta { capability, op, done, ranges, crcs, zeros, create, note })
    }
}

impl ForwardMeta {
    /// The metadata as it travels.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = RawForward {
            chunk: self.chunk.0.into(),
            session: self.session.0.into(),
            ino: self.ino.0.into(),
            index: self.index.0.into(),
            seq: self.seq.0.into(),
            committed: self.committed.0.into(),
            to: self.to.0.into(),
            version: self.version.0.into(),
            config: self.config.0.into(),
            open_num: self.open_num.0.into(),
            size_epoch: self.size_epoch.0.into(),
            kind: match self.kind {
                ForwardKind::Write => 1,
                ForwardKind::Zero => 2,
                ForwardKind::Fill => 3,
                ForwardKind::Compare => 4,
                ForwardKind::Fetch => 5,
                ForwardKind::Mend => 6,
                ForwardKind::Punch => 7,
                ForwardKind::Pull => 8,
            }
            .into(),
            key: self.given.key.0.into(),
            expires: self.given.expires.0.into(),
            write: raw_write(self.op, self.done, &self.ranges, &self.crcs, &self.create, self.note.as_ref()),
        };
        let mut out =
            Vec::with_capacity(size_of::<RawForward>() + self.ranges.len() * 8 + self.crcs.len() * 4 + 64);
        out.extend_from_slice(raw.as_bytes());
        put_lists(&mut out, &self.ranges, &self.crcs, &self.create, self.note.as_ref());
        out
    }

    /// The one validator, as for [`WriteMeta::from_bytes`].
    ///
    /// # Errors
    /// What is wrong.
    pub fn from_bytes(bytes: &[u8], payload_len: usize) -> Result<ForwardMeta, BadMeta> {
        let (raw, rest) = RawForward::read_from_prefix(bytes).map_err(|_| BadMeta::Length)?;
        let kind = match raw.kind.get() {
            1 => ForwardKind::Write,
            2 => ForwardKind::Zero,
            3 => ForwardKind::Fill,
            4 => ForwardKind::Compare,
            5 => ForwardKind::Fetch,
            6 => ForwardKind::Mend,
            7 => ForwardKind::Punch,
            8 => ForwardKind::Pull,
            _ => return Err(BadMeta::Kind),
        };
        let carries = match kind {
            ForwardKind::Write | ForwardKind::Fill => Carries::BytesAndChecksums,
            ForwardKind::Compare | ForwardKind::Pull => Carries::Checksums,
            ForwardKind::Mend => Carries::Entries,
            ForwardKind::Zero | ForwardKind::Fetch | ForwardKind::Punch => Carries::Nothing,
        };
        let Lists { ranges, crcs, create, note } = take_lists(&raw.write, rest, payload_len, carries)?;
        Ok(ForwardMeta {
            kind,
            chunk: ChunkId(raw.chunk.get()),
            session: SessionId(raw.session.get()),
            ino: Ino(raw.ino.get()),
            index: ChunkIndex(raw.index.get()),
            op: OpId(raw.write.op.get()),
            done: OpId(raw.write.done.get()),
            seq: Seq(raw.seq.get()),
            committed: Seq(raw.committed.get()),
            to: BootId(raw.to.get()),
            version: ChunkVersion(raw.version.get()),
            config: ConfigNum(raw.config.get()),
            open_num: OpenNum(raw.open_num.get()),
            size_epoch: SizeEpoch(raw.size_epoch.get()),
            ranges,
            crcs,
            create,
            note,
            given: Given { key: KeyId(raw.key.get()), expires: MasterMs(raw.expires.get()) },
        })
    }
}

/// Makes writes durable on every member of each chunk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sync {
    pub chunks: Vec<SyncChunk>,
}
request!(Sync => Synced);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncChunk {
    pub capability: Capability,
    /// The lowest version under which a write since the last sync was acknowledged.
    pub since: ChunkVersion,
}

/// One status a chunk, in the order asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Synced {
    pub results: Vec<Status>,
}

/// Primary to secondary: make everything applied so far durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForwardSync {
    pub chunks: Vec<ForwardSyncChunk>,
}
request!(ForwardSync => Synced);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForwardSyncChunk {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    /// Everything up to here has to be on disk.
    pub seq: Seq,
    pub to: BootId,
}

/// Primary to secondaries, one way, within 1 ms when no other message carries it: every write up to
/// `seq` is on all members, so its range is no longer pending.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Committed {
    pub chunks: Vec<(ChunkId, ChunkVersion, Seq)>,
}
request!(Committed => crate::meta::Done);

/// The words of a reply to WRITE.
#[must_use]
pub fn written_words(chunk: ChunkId, seq: Seq, cut: Option<SizeEpoch>) -> Words {
    Words {
        word0: chunk.0,
        word1: seq.0,
        word2: cut.map_or(0, |epoch| epoch.0),
        word3: u32::from(cut.is_some()),
    }
}

/// The size epoch of an earlier try that was applied and cut by a truncation since, out of such words.
#[must_use]
pub fn cut_of(words: &Words) -> Option<SizeEpoch> {
    (words.word3 == 1).then_some(SizeEpoch(words.word2))
}
