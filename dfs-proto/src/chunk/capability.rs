//! Capabilities: what a chunk server checks a client's request by, without asking the master.

use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, KeyId, OpenNum, SessionId, SizeEpoch};
use crate::units::{ChunkIndex, MasterMs};

/// What a capability allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
}

/// The master's word that a session may use a chunk at a version. Checked by the chunk server alone:
/// bound to chunk, version, rights, session and expiry. `mac` authenticates it under `key`, which the master shares
/// with the server that it is shown to; a place carries one seal for each member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    pub chunk: ChunkId,
    pub session: SessionId,
    pub ino: Ino,
    pub index: ChunkIndex,
    /// On the master's clock; no later than the session's lease.
    pub expires: MasterMs,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    pub rights: Rights,
    pub key: KeyId,
    pub mac: [u8; 16],
}

/// What tells when a capability was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Given {
    pub key: KeyId,
    pub expires: MasterMs,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawCapability {
    chunk: U64,
    session: U64,
    ino: U64,
    index: U64,
    expires: U64,
    version: U32,
    config: U32,
    open_num: U32,
    size_epoch: U32,
    rights: U32,
    key: U32,
    mac: [u8; 16],
}

/// Length of a capability on the wire.
pub const CAPABILITY_LEN: usize = size_of::<RawCapability>();

impl Capability {
    /// What tells when it was given.
    #[must_use]
    pub fn given(&self) -> Given {
        Given { key: self.key, expires: self.expires }
    }

    /// The capability as it travels: fixed, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CAPABILITY_LEN] {
        let raw = RawCapability {
            chunk: self.chunk.0.into(),
            session: self.session.0.into(),
            ino: self.ino.0.into(),
            index: self.index.0.into(),
            expires: self.expires.0.into(),
            version: self.version.0.into(),
            config: self.config.0.into(),
            open_num: self.open_num.0.into(),
            size_epoch: self.size_epoch.0.into(),
            rights: (u32::from(self.rights.read) | u32::from(self.rights.write) << 1).into(),
            key: self.key.0.into(),
            mac: self.mac,
        };
        zerocopy::transmute!(raw)
    }

    /// Reads a capability from the front of `bytes`; what follows is left.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<(Capability, &[u8])> {
        let (raw, rest) = RawCapability::read_from_prefix(bytes).ok()?;
        let cap = Capability {
            chunk: ChunkId(raw.chunk.get()),
            session: SessionId(raw.session.get()),
            ino: Ino(raw.ino.get()),
            index: ChunkIndex(raw.index.get()),
            expires: MasterMs(raw.expires.get()),
            version: ChunkVersion(raw.version.get()),
            config: ConfigNum(raw.config.get()),
            open_num: OpenNum(raw.open_num.get()),
            size_epoch: SizeEpoch(raw.size_epoch.get()),
            rights: Rights { read: raw.rights.get() & 1 != 0, write: raw.rights.get() & 2 != 0 },
            key: KeyId(raw.key.get()),
            mac: raw.mac,
        };
        Some((cap, rest))
    }
}

impl Serialize for Capability {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Capability, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        let (cap, _) =
            Capability::from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("capability too short"))?;
        Ok(cap)
    }
}
