//! The 64 bytes in front of every frame: as they lie on the wire, and as checked Rust types.
//!
//! [`RawHeader::check`] is the only way from the first to the second, and it allocates nothing. What the
//! four words mean is each operation's own matter; its message module reads and writes them.
//!
//! ```text
//!  0 magic u32 "DFS1" | 4 version u8 | 5 header length u8 | 6 op u16 | 8 call id u64
//! 16 word0 u64 | 24 word1 u64
//! 32 word2 u32 | 36 word3 u32 | 40 meta length u32 | 44 payload length u32
//! 48 deadline ms u32 | 52 flags u16 | 54 status u16 | 56 utilisation u16 | 58 queue u16 | 60 crc u32
//! ```
//! All little-endian. The checksum is the CRC32C of bytes 0..60 followed by the meta bytes. The payload is
//! not under it: data travels with checksums of its own blocks, which the disk keeps as well.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{Crc, crc32c_of_two};
use crate::request::Op;
use crate::status::Status;

/// "DFS1" as bytes on the wire.
pub const MAGIC: u32 = u32::from_le_bytes(*b"DFS1");
/// The protocol this build speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// Bytes of a header.
pub const HEADER_LEN: usize = 64;
/// `HEADER_LEN` as it stands in the header.
const HEADER_LEN_BYTE: u8 = 64;
/// Bytes under the header's own checksum: all before the field itself.
const CHECKED_LEN: usize = 60;

/// Most bytes of meta: a page of directory entries with attributes stays well below it.
pub const META_MAX: u32 = 1 << 20;
/// Most bytes of payload: [`crate::units::IO_MAX`] of data, and 128 KiB for what rides with it.
pub const PAYLOAD_MAX: u32 = (1 << 20) + (128 << 10);
/// Most bytes of meta before the handshake: a HELLO is some hundred bytes, and a stranger gets no more.
pub const HANDSHAKE_META_MAX: u32 = 16 << 10;

/// A header as it lies on the wire. Any 64 bytes are one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    magic: U32,
    version: u8,
    header_len: u8,
    op: U16,
    call: U64,
    word0: U64,
    word1: U64,
    word2: U32,
    word3: U32,
    meta_len: U32,
    payload_len: U32,
    deadline_ms: U32,
    flags: U16,
    status: U16,
    utilisation: U16,
    queue: U16,
    crc: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LEN);

/// A checked header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The operation; a reply carries its request's.
    pub op: Op,
    /// What kind of frame it is.
    pub flags: Flags,
    /// How the request ended; `Ok` in requests.
    pub status: Status,
    /// Which call of the connection this is, or answers.
    pub call: CallId,
    /// The operation's own numbers.
    pub words: Words,
    /// How long the caller still waits, in milliseconds from sending; 0 says nothing about it.
    pub deadline_ms: u32,
    /// The load of the server that replies.
    pub load: Load,
    /// Bytes of meta after the header.
    pub meta_len: u32,
    /// Bytes of payload after the meta.
    pub payload_len: u32,
}

/// A call's number on its connection, chosen by the caller; its reply carries it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CallId(pub u64);

/// Four numbers whose meaning the operation gives:
///
/// | | word0 | word1 | word2 | word3 |
/// |---|---|---|---|---|
/// | request to the master | request id | lowest unanswered request id | 0 | 0 |
/// | the master's reply | log index | [`MasterMs`](crate::units::MasterMs) | low half of the term | index minus durable index |
/// | the reply to WRITE | chunk id | sequence number | size epoch, if word3 is 1 | 1: applied before, and cut since |
/// | chunk operations | chunk id | version in the high half, configuration in the low | offset | length |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Words {
    /// See the table.
    pub word0: u64,
    /// See the table.
    pub word1: u64,
    /// See the table.
    pub word2: u32,
    /// See the table.
    pub word3: u32,
}

/// How busy a server is, told with every reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// The worst of network, disk, processor and queue, in thousandths of its capacity.
    pub utilisation: u16,
    /// Requests in flight there.
    pub queue: u16,
}

/// Bits of a frame. Unknown ones are ignored, so that an older build can talk to a newer one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// No bit.
    pub const NONE: Flags = Flags(0);
    /// It answers a call. Without it the frame is a request.
    pub const REPLY: Flags = Flags(1);
    /// A request that wants no reply.
    pub const ONE_WAY: Flags = Flags(1 << 1);
    /// The sender closes the connection after this frame; status and detail say why.
    pub const CLOSING: Flags = Flags(1 << 2);
    /// Bits whose meaning the operation gives; the others belong to the connection.
    pub const OPERATION: Flags = Flags(0xff00);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` as well.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// What a receiver accepts in length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most bytes of meta.
    pub meta_max: u32,
    /// Most bytes of payload.
    pub payload_max: u32,
}

impl Limits {
    /// From a peer that has not said who it is.
    pub const HANDSHAKE: Limits = Limits { meta_max: HANDSHAKE_META_MAX, payload_max: 0 };
    /// From a peer whose HELLO was accepted.
    pub const NORMAL: Limits = Limits { meta_max: META_MAX, payload_max: PAYLOAD_MAX };
}

/// Bytes that are no frame of this protocol. The connection they came on is of no more use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not [`MAGIC`].
    #[error("not a dfs peer: the frame starts with {0:#010x}")]
    BadMagic(u32),
    /// The peer's build speaks another protocol.
    #[error("the peer speaks protocol {0}, this build speaks {PROTOCOL_VERSION}")]
    WrongVersion(u8),
    /// The header is not [`HEADER_LEN`] long.
    #[error("header of {0} bytes, expected {HEADER_LEN}")]
    BadHeaderLen(u8),
    /// No such operation here.
    #[error("operation {0} is not known to this build")]
    UnknownOp(u16),
    /// No such status here.
    #[error("status {0} is not known to this build")]
    UnknownStatus(u16),
    /// The meta is longer than accepted.
    #[error("meta of {len} bytes, at most {max} are accepted")]
    MetaTooLarge {
        /// As announced.
        len: u32,
        /// The limit in force.
        max: u32,
    },
    /// The payload is longer than accepted.
    #[error("payload of {len} bytes, at most {max} are accepted")]
    PayloadTooLarge {
        /// As announced.
        len: u32,
        /// The limit in force.
        max: u32,
    },
    /// Header or meta were changed on the way.
    #[error("frame checksum is {got}, expected {want}")]
    BadCrc {
        /// As carried by the header.
        want: Crc,
        /// As computed from what arrived.
        got: Crc,
    },
}

impl FrameError {
    /// The status that tells the peer.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            FrameError::BadMagic(_)
            | FrameError::BadHeaderLen(_)
            | FrameError::UnknownStatus(_)
            | FrameError::BadCrc { .. } => Status::Malformed,
            FrameError::WrongVersion(_) => Status::WrongVersion,
            FrameError::UnknownOp(_) => Status::UnknownOp,
            FrameError::MetaTooLarge { .. } | FrameError::PayloadTooLarge { .. } => Status::TooLarge,
        }
    }
}

impl RawHeader {
    /// The header of the first [`HEADER_LEN`] bytes, if there are so many.
    #[must_use]
    pub fn at_start_of(bytes: &[u8]) -> Option<RawHeader> {
        RawHeader::read_from_prefix(bytes).ok().map(|(raw, _rest)| raw)
    }

    /// Checks every field but the checksum, which needs the meta as well ([`RawHeader::check_crc`]).
    pub fn check(&self, limits: Limits) -> Result<Header, FrameError> {
        if self.magic.get() != MAGIC {
            return Err(FrameError::BadMagic(self.magic.get()));
        }
        if self.version != PROTOCOL_VERSION {
            return Err(FrameError::WrongVersion(self.version));
        }
        if self.header_len != HEADER_LEN_BYTE {
            return Err(FrameError::BadHeaderLen(self.header_len));
        }
        let (meta_len, payload_len) = (self.meta_len.get(), self.payload_len.get());
        if meta_len > limits.meta_max {
            return Err(FrameError::MetaTooLarge { len: meta_len, max: limits.meta_max });
        }
        if payload_len > limits.payload_max {
            return Err(FrameError::PayloadTooLarge { len: payload_len, max: limits.payload_max });
        }
        let op = self.op.get();
        let status = self.status.get();
        Ok(Header {
            op: Op::from_code(op).ok_or(FrameError::UnknownOp(op))?,
            flags: Flags(self.flags.get()),
            status: Status::from_code(status).ok_or(FrameError::UnknownStatus(status))?,
            call: CallId(self.call.get()),
            words: Words {
                word0: self.word0.get(),
                word1: self.word1.get(),
                word2: self.word2.get(),
                word3: self.word3.get(),
            },
            deadline_ms: self.deadline_ms.get(),
            load: Load { utilisation: self.utilisation.get(), queue: self.queue.get() },
            meta_len,
            payload_len,
        })
    }

    /// Checks that header and `meta` are what the sender summed.
    pub fn check_crc(&self, meta: &[u8]) -> Result<(), FrameError> {
        let (want, got) = (Crc(self.crc.get()), self.compute_crc(meta));
        if want == got { Ok(()) } else { Err(FrameError::BadCrc { want, got }) }
    }

    fn compute_crc(&self, meta: &[u8]) -> Crc {
        crc32c_of_two(&self.as_bytes()[..CHECKED_LEN], meta)
    }
}

impl Header {
    /// The header on the wire, with the checksum over it and `meta`.
    ///
    /// # Panics
    /// When `meta_len` is not the length of `meta`.
    #[must_use]
    pub fn to_wire(&self, meta: &[u8]) -> RawHeader {
        assert_eq!(usize::try_from(self.meta_len), Ok(meta.len()), "meta length in header");
        let mut raw = RawHeader {
            magic: U32::new(MAGIC),
            version: PROTOCOL_VERSION,
            header_len: HEADER_LEN_BYTE,
            op: U16::new(self.op.code()),
            call: U64::new(self.call.0),
            word0: U64::new(self.words.word0),
            word1: U64::new(self.words.word1),
            word2: U32::new(self.words.word2),
            word3: U32::new(self.words.word3),
            meta_len: U32::new(self.meta_len),
            payload_len: U32::new(self.payload_len),
            deadline_ms: U32::new(self.deadline_ms),
            flags: U16::new(self.flags.0),
            status: U16::new(self.status.into()),
            utilisation: U16::new(self.load.utilisation),
            queue: U16::new(self.load.queue),
            crc: U32::new(0),
        };
        raw.crc = U32::new(raw.compute_crc(meta).0);
        raw
    }

    /// Whether it answers a call.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags.contains(Flags::REPLY)
    }
}
