//! Identifiers. Each is a newtype, so that a session can never be passed where a chunk is meant.
//!
//! All are plain numbers on the wire and on disk (little-endian). 128-bit ids print as 32 hex digits,
//! chunk and boot ids as 16; so they do in JSON, whose readers take numbers for floating point.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty), $fmt:literal) => {
        id!(@shown $(#[$doc])* #[derive(Serialize, Deserialize)] #[serde(transparent)] $name($repr), $fmt);
    };
    (hex $(#[$doc:meta])* $name:ident($repr:ty), $fmt:literal) => {
        id!(@shown $(#[$doc])* $name($repr), $fmt);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <$repr>::deserialize(deserializer).map($name);
                }
                let text = String::deserialize(deserializer)?;
                <$repr>::from_str_radix(&text, 16).map($name).map_err(D::Error::custom)
            }
        }
    };
    (@shown $(#[$attr:meta])* $name:ident($repr:ty), $fmt:literal) => {
        $(#[$attr])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $fmt, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $fmt, ")"), self.0)
            }
        }
    };
}

id!(hex /// Minted once by the master's `init`; in every handshake, disk label and chunk header.
    ClusterId(u128), "{:032x}");
id!(/// Bumped only when an operator forces a new history; the high 16 bits of every chunk id.
    Generation(u16), "{}");
id!(hex /// A chunk server's lasting identity, minted with its first disk.
    ServerId(u128), "{:032x}");
id!(/// The short number that the master's log gave a [`ServerId`] at its first registration. Never reused.
    ServerNum(u16), "s{}");
id!(hex /// A disk's lasting identity, in its label.
    DiskId(u128), "{:032x}");
id!(hex /// Random, one per process start: tells two incarnations of a server apart.
    BootId(u64), "{:016x}");
id!(hex /// The kernel's boot id (folded to 128 bits): unchanged by kill -9, changed by a reboot.
    OsBootId(u128), "{:032x}");
id!(hex /// `generation << 48 | counter`, allocated by the master's log and never reused.
    ChunkId(u64), "{:016x}");
id!(/// An inode number. 1 is the root. Never reused.
    Ino(u64), "{}");
id!(/// A client's session with the master.
    SessionId(u64), "{}");
id!(/// A session's own number for a mutation; an answer is kept under it until the client says it has it.
    RequestId(u64), "{}");
id!(/// Unique per (session, chunk): a chunk write takes effect once under it, however often it is sent.
    OpId(u64), "{}");
id!(/// An open file or directory of a session, chosen by the client and unique in the session.
    Handle(u64), "{}");
id!(/// A cache grant on an inode, unique at the master since its start.
    GrantId(u64), "{}");
id!(/// A Raft term.
    Term(u64), "{}");
id!(/// An index in the master's log; the first record is 1.
    LogIndex(u64), "{}");
id!(/// A chunk's data version: raised by every unclean change, a fence against older writers and readers.
    ChunkVersion(u32), "v{}");
id!(/// A chunk's configuration number: raised by every change of its member set.
    ConfigNum(u32), "c{}");
id!(/// Which opening of a chunk for writing this is.
    OpenNum(u32), "o{}");
id!(/// An inode's truncation epoch: a size or a write issued under an older one is refused.
    SizeEpoch(u32), "e{}");
id!(/// The order in which a chunk's primary applied a write, counted from 1 within one version.
    Seq(u64), "{}");
id!(/// The key that a capability is sealed with; see [`crate::key`]. 0 is no key.
    KeyId(u32), "{}");

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

impl ChunkId {
    /// How many low bits are the counter; the rest is the generation.
    pub const COUNTER_BITS: u32 = 48;

    /// The id of `counter` in `generation`.
    ///
    /// # Panics
    /// When the counter has run out of its 48 bits: 2.8e14 chunks of one generation.
    #[must_use]
    pub fn new(generation: Generation, counter: u64) -> ChunkId {
        assert!(counter >> Self::COUNTER_BITS == 0, "chunk counter exhausted");
        ChunkId(u64::from(generation.0) << Self::COUNTER_BITS | counter)
    }

    #[must_use]
    pub fn generation(self) -> Generation {
        // What is left after the shift has 16 bits.
        Generation((self.0 >> Self::COUNTER_BITS) as u16)
    }

    /// The counter within the generation.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.0 & ((1 << Self::COUNTER_BITS) - 1)
    }
}

impl ChunkVersion {
    /// How many low bits count the changes within a generation.
    const COUNTER_BITS: u32 = 20;

    /// The version that an unclean change in `generation` gives a chunk of this one. Those of generations do not meet:
    /// when an operator accepted the loss of records, servers may hold versions that the log knows nothing of, and a
    /// number given a second time would be no fence against those.
    #[must_use]
    pub fn raised(self, generation: Generation) -> ChunkVersion {
        let first = u32::from(generation.0.saturating_sub(1)).saturating_mul(1 << Self::COUNTER_BITS);
        ChunkVersion((self.0 + 1).max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_as_hex_is_a_string_in_json_and_a_number_on_the_wire() {
        let ids = (ClusterId(u128::MAX - 1), ChunkId(1 << 48 | 7), Ino(9));
        let json = serde_json::to_string(&ids).unwrap();
        assert_eq!(json, "[\"fffffffffffffffffffffffffffffffe\",\"0001000000000007\",9]");
        assert_eq!(serde_json::from_str::<(ClusterId, ChunkId, Ino)>(&json).unwrap(), ids);
        let bytes = rmp_serde::to_vec(&ids.1).unwrap();
        assert_eq!(bytes, rmp_serde::to_vec(&ids.1.0).unwrap());
        assert_eq!(rmp_serde::from_slice::<ChunkId>(&bytes).unwrap(), ids.1);
    }
}
