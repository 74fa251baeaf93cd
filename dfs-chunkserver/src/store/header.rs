//! A chunk's header: what is known of a replica besides its bytes, and how it lies in its slot.
//!
//! A slot is one 512-byte sector, so a drive writes it whole or not at all; there are two, and the one
//! that the last sync covered is never the one written next. It carries enough (inode, index, path) to
//! rebuild a namespace from the servers alone. It decides nothing.

use dfs_proto::checksum::{Digest, crc32c};
use dfs_proto::control::ReplicaInfo;
use dfs_proto::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Ino, OpenNum, OsBootId, Seq, SizeEpoch,
};
use dfs_proto::note::{FileNote, NOTE_PATH_MAX};
use dfs_proto::units::{ChunkIndex, ChunkSize};
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::SECTOR;

const MAGIC: [u8; 8] = *b"DFSCHUNK";
/// Raised when a build writes what an older one would misread.
const FORMAT: u32 = 1;

const FLAG_OPEN: u32 = 1;
const FLAG_LEARNER: u32 = 1 << 1;
const FLAG_FAILED: u32 = 1 << 2;
const FLAG_NOTE: u32 = 1 << 3;

/// What a replica's header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    /// May hold bytes that other members lack, or lack some.
    pub open: bool,
    /// Still being filled: not to be trusted.
    pub learner: bool,
    /// A write or sync of it failed: not to be trusted.
    pub failed: bool,
    /// Every write up to here was durable when this was written, or was becoming so in the same sync.
    pub seq_synced: Seq,
    /// The kernel under which the replica joined its config or took the first write of this opening.
    pub os_boot: OsBootId,
    pub ino: Ino,
    pub index: ChunkIndex,
    /// The table's digest at the last clean close; means nothing while `open`.
    pub digest: Digest,
    /// One above the last byte that was written, as of this header. Rounded up to a block where blocks came from
    /// another replica.
    pub extent: u32,
    /// Members of the configuration; 0 when that is not known.
    pub members: u8,
    /// The file as the master last told of it, for people and rescue.
    pub note: Option<FileNote>,
}

impl Header {
    /// The header of a new replica.
    #[must_use]
    pub fn new(chunk: ChunkId, version: ChunkVersion, config: ConfigNum, open_num: OpenNum) -> Header {
        Header {
            chunk,
            version,
            config,
            open_num,
            size_epoch: SizeEpoch(0),
            open: true,
            learner: false,
            failed: false,
            seq_synced: Seq(0),
            os_boot: OsBootId(0),
            ino: Ino(0),
            index: ChunkIndex(0),
            digest: Digest(0),
            extent: 0,
            members: 0,
            note: None,
        }
    }

    /// What the master is told of the replica.
    #[must_use]
    pub fn info(&self, disk: DiskId) -> ReplicaInfo {
        ReplicaInfo {
            chunk: self.chunk,
            version: self.version,
            config: self.config,
            open_num: self.open_num,
            disk,
            learner: self.learner,
            fenced: false,
            closed: (!self.open).then_some(self.digest.0),
            ino: self.ino,
            index: self.index,
        }
    }
}

/// Changes to a header; `None` leaves a field as it is. Version and configuration can only grow (I2).
#[derive(Clone, Debug, Default)]
pub struct HeaderChange {
    pub version: Option<ChunkVersion>,
    pub config: Option<ConfigNum>,
    pub open_num: Option<OpenNum>,
    pub size_epoch: Option<SizeEpoch>,
    pub seq_synced: Option<Seq>,
    pub open: Option<bool>,
    pub learner: Option<bool>,
    pub os_boot: Option<OsBootId>,
    pub digest: Option<Digest>,
    pub members: Option<u8>,
}

impl HeaderChange {
    /// Applies it. False, and nothing changed, when version or configuration would go backwards.
    pub(super) fn apply(&self, header: &mut Header) -> bool {
        if self.version.is_some_and(|v| v < header.version) || self.config.is_some_and(|c| c < header.config)
        {
            return false;
        }
        // A change that a slow disk overtook: an opening does not come back, and one that was closed is not open again.
        let overtaken = |opening| opening < header.open_num || (opening == header.open_num && !header.open);
        let same_version = self.version.is_none_or(|version| version == header.version);
        if !(same_version && self.open_num.is_some_and(overtaken)) {
            header.open_num = self.open_num.unwrap_or(header.open_num);
            header.open = self.open.unwrap_or(header.open);
            header.digest = self.digest.unwrap_or(header.digest);
        }
        header.version = self.version.unwrap_or(header.version);
        header.config = self.config.unwrap_or(header.config);
        header.size_epoch = self.size_epoch.unwrap_or(header.size_epoch);
        header.seq_synced = self.seq_synced.unwrap_or(header.seq_synced);
        header.learner = self.learner.unwrap_or(header.learner);
        header.os_boot = self.os_boot.unwrap_or(header.os_boot);
        header.members = self.members.unwrap_or(header.members);
        true
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    format: U32,
    flags: U32,
    cluster: U128,
    chunk: U64,
    version: U32,
    config: U32,
    open_num: U32,
    size_epoch: U32,
    seq_synced: U64,
    os_boot: U128,
    ino: U64,
    index: U64,
    digest: U128,
    slot_gen: U64,
    extent: U32,
    path_len: U16,
    members: u8,
    chunk_shift: u8,
    size: U64,
    size_as_of: U32,
    path: [u8; NOTE_PATH_MAX],
    crc: U32,
}

const _: () = assert!(size_of::<RawHeader>() == SECTOR);

/// What a slot holds.
#[derive(Debug)]
pub(super) enum SlotContent {
    /// Only zeros: never written.
    Empty,
    /// Not a header of this cluster and chunk. A sector is never torn, so this is rot or a stray write.
    Damaged,
    Valid {
        header: Header,
        slot_gen: u64,
    },
}

/// A chunk size is a power of two.
fn shift_of(size: ChunkSize) -> u8 {
    u8::try_from(size.bytes().trailing_zeros()).unwrap_or(0)
}

/// The slot's bytes.
pub(super) fn encode(header: &Header, cluster: ClusterId, slot_gen: u64) -> [u8; SECTOR] {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(header.open, FLAG_OPEN)
        | flag(header.learner, FLAG_LEARNER)
        | flag(header.failed, FLAG_FAILED)
        | flag(header.note.is_some(), FLAG_NOTE);
    let note = header.note.as_ref();
    let tail = note.map_or(&[][..], |note| &note.path[note.path.len().saturating_sub(NOTE_PATH_MAX)..]);
    let mut path = [0; NOTE_PATH_MAX];
    path[..tail.len()].copy_from_slice(tail);
    let mut raw = RawHeader {
        magic: MAGIC,
        format: FORMAT.into(),
        flags: flags.into(),
        cluster: cluster.0.into(),
        chunk: header.chunk.0.into(),
        version: header.version.0.into(),
        config: header.config.0.into(),
        open_num: header.open_num.0.into(),
        size_epoch: header.size_epoch.0.into(),
        seq_synced: header.seq_synced.0.into(),
        os_boot: header.os_boot.0.into(),
        ino: header.ino.0.into(),
        index: header.index.0.into(),
        digest: header.digest.0.into(),
        slot_gen: slot_gen.into(),
        extent: header.extent.into(),
        path_len: u16::try_from(tail.len()).unwrap_or(0).into(),
        members: header.members,
        chunk_shift: note.map_or(0, |note| shift_of(note.chunk_size)),
        size: note.map_or(0, |note| note.size).into(),
        size_as_of: note.map_or(0, |note| note.epoch.0).into(),
        path,
        crc: 0.into(),
    };
    raw.crc = crc32c(&raw.as_bytes()[..SECTOR - 4]).0.into();
    zerocopy::transmute!(raw)
}

/// The one validator of a slot's bytes.
pub(super) fn decode(bytes: &[u8; SECTOR], cluster: ClusterId, chunk: ChunkId) -> SlotContent {
    if bytes.iter().all(|&b| b == 0) {
        return SlotContent::Empty;
    }
    let raw: RawHeader = zerocopy::transmute!(*bytes);
    let path_len = usize::from(raw.path_len.get());
    let ours = raw.magic == MAGIC
        && raw.format.get() == FORMAT
        && raw.crc.get() == crc32c(&bytes[..SECTOR - 4]).0
        && raw.cluster.get() == cluster.0
        && raw.chunk.get() == chunk.0
        && path_len <= NOTE_PATH_MAX;
    if !ours {
        return SlotContent::Damaged;
    }
    let flags = raw.flags.get();
    let size_of = |shift: u8| ChunkSize::try_from(1_u32.checked_shl(shift.into()).unwrap_or(0)).ok();
    let note = match (flags & FLAG_NOTE != 0, size_of(raw.chunk_shift)) {
        (true, Some(chunk_size)) => Some(FileNote {
            path: raw.path[..path_len].to_vec().into(),
            size: raw.size.get(),
            epoch: SizeEpoch(raw.size_as_of.get()),
            chunk_size,
        }),
        // The checksum matches, so a build wrote it that knows no such note.
        (true, None) | (false, _) => None,
    };
    let header = Header {
        chunk,
        version: ChunkVersion(raw.version.get()),
        config: ConfigNum(raw.config.get()),
        open_num: OpenNum(raw.open_num.get()),
        size_epoch: SizeEpoch(raw.size_epoch.get()),
        open: flags & FLAG_OPEN != 0,
        learner: flags & FLAG_LEARNER != 0,
        failed: flags & FLAG_FAILED != 0,
        seq_synced: Seq(raw.seq_synced.get()),
        os_boot: OsBootId(raw.os_boot.get()),
        ino: Ino(raw.ino.get()),
        index: ChunkIndex(raw.index.get()),
        digest: Digest(raw.digest.get()),
        extent: raw.extent.get(),
        members: raw.members,
        note,
    };
    SlotContent::Valid { header, slot_gen: raw.slot_gen.get() }
}

/// The two slots of a file that is being written, and which of them may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    /// The generation in the newest slot; 0 before the first.
    pub(super) slot_gen: u64,
    current: usize,
    /// The newest slot was written after the last sync.
    unsynced: bool,
    /// No sync has covered either slot yet.
    fresh: bool,
}

impl Slots {
    /// A file without a header.
    pub(super) const NONE: Slots = Slots { slot_gen: 0, current: 1, unsynced: false, fresh: true };

    /// What the two slots of a file say: the newest header, and how many are damaged.
    pub(super) fn choose(slots: [SlotContent; 2]) -> (Option<(Header, Slots)>, u32) {
        let mut best: Option<(Header, Slots)> = None;
        let mut damaged = 0;
        for (current, slot) in slots.into_iter().enumerate() {
            match slot {
                SlotContent::Empty => {}
                SlotContent::Damaged => damaged += 1,
                SlotContent::Valid { header, slot_gen } => {
                    if best.as_ref().is_none_or(|(_, slots)| slot_gen > slots.slot_gen) {
                        best = Some((header, Slots { slot_gen, current, unsynced: false, fresh: false }));
                    }
                }
            }
        }
        (best, damaged)
    }

    /// Which slot the next header goes to. One that no sync has covered is written again rather than the
    /// other, once a sync has covered that: it is all that a power cut is sure to leave.
    pub(super) fn next(self) -> (usize, Slots) {
        let current = if self.unsynced && !self.fresh { self.current } else { 1 - self.current };
        let slot_gen = self.slot_gen + 1;
        (current, Slots { slot_gen, current, unsynced: true, fresh: self.fresh })
    }

    /// Whether what a slot of the file has can't be what was written to it last.
    pub(super) fn is_lost(self, slot: usize, slot_gen: u64) -> bool {
        if slot == self.current { slot_gen != self.slot_gen } else { slot_gen >= self.slot_gen }
    }

    /// A sync covered everything up to `slot_gen`.
    pub(super) fn synced(&mut self, slot_gen: u64) {
        self.fresh = false;
        if self.slot_gen == slot_gen {
            self.unsynced = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            version: ChunkVersion(0x0102_0304),
            config: ConfigNum(5),
            open_num: OpenNum(6),
            size_epoch: SizeEpoch(7),
            learner: true,
            seq_synced: Seq(0x1122_3344_5566_7788),
            os_boot: OsBootId(0xaabb),
            ino: Ino(9),
            index: ChunkIndex(10),
            digest: Digest(0xccdd),
            extent: 0x0102_0304,
            members: 3,
            note: Some(FileNote::new(b"/a/b", 0x0506_0708, SizeEpoch(6), ChunkSize::DEFAULT)),
            ..Header::new(ChunkId(0x0001_0000_0000_002a), ChunkVersion(0), ConfigNum(0), OpenNum(0))
        }
    }

    const CLUSTER: ClusterId = ClusterId(0x00ff);

    #[test]
    fn golden_header_slot() {
        let golden = include_str!("../../tests/fixtures/header-v1.hex");
        let bytes = encode(&sample(), CLUSTER, 3);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
        let SlotContent::Valid { header, slot_gen } = decode(&bytes, CLUSTER, sample().chunk) else {
            panic!("not valid")
        };
        assert_eq!((header, slot_gen), (sample(), 3));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(&sample(), CLUSTER, 3);
        for bit in 0..SECTOR * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&flipped, CLUSTER, sample().chunk), SlotContent::Damaged), "bit {bit}");
        }
        assert!(matches!(decode(&bytes, ClusterId(1), sample().chunk), SlotContent::Damaged));
        assert!(matches!(decode(&bytes, CLUSTER, ChunkId(1)), SlotContent::Damaged));
        assert!(matches!(decode(&[0; SECTOR], CLUSTER, ChunkId(1)), SlotContent::Empty));
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        let path: Vec<u8> = (0..=255).chain(0..=255).collect();
        let note =
            FileNote { path: path.clone().into(), ..FileNote::new(b"", 0, SizeEpoch(0), ChunkSize::DEFAULT) };
        let header = Header { note: Some(note), ..sample() };
        let SlotContent::Valid { header: back, .. } =
            decode(&encode(&header, CLUSTER, 1), CLUSTER, header.chunk)
        else {
            panic!("not valid")
        };
        assert_eq!(back.note.unwrap().path[..], path[512 - NOTE_PATH_MAX..]);
    }

    #[test]
    fn the_synced_slot_is_never_overwritten() {
        let (first, mut slots) = Slots::NONE.next();
        assert_eq!(first, 0);
        slots.synced(1);
        let (second, slots) = slots.next();
        let (third, mut slots) = slots.next();
        assert_eq!((second, third), (1, 1));
        slots.synced(2);
        assert_eq!(slots.next().0, 1, "an older sync covers nothing newer");
        slots.synced(3);
        assert_eq!(slots.next().0, 0);
    }

    #[test]
    fn versions_never_go_back() {
        let mut header = sample();
        let older = HeaderChange { config: Some(ConfigNum(4)), open: Some(false), ..HeaderChange::default() };
        assert!(!older.apply(&mut header));
        assert_eq!(header, sample());
        let newer = HeaderChange { config: Some(ConfigNum(8)), ..HeaderChange::default() };
        assert!(newer.apply(&mut header));
        assert_eq!(header.config, ConfigNum(8));
    }
}
