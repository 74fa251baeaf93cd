//! Keys that the master shares with one chunk server each, and the seals that it puts on capabilities with them. A
//! server checks a capability by itself, and nobody else can make one that it takes.

use serde::{Deserialize, Serialize};
use siphasher::sip128::SipHasher24;

use crate::chunk::Capability;
use crate::ids::{KeyId, ServerNum};

/// A secret of the master and one chunk server.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKey(#[serde(with = "serde_bytes")] [u8; 16]);

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerKey(..)")
    }
}

/// Bits of a key's number that count turns; above them is the master's term. With an hour a turn, half a year's fit.
pub const KEY_TURN_BITS: u32 = 12;

impl KeyId {
    /// Whether masters of one term issued both.
    #[must_use]
    pub fn same_term(self, other: KeyId) -> bool {
        self.0 >> KEY_TURN_BITS == other.0 >> KEY_TURN_BITS
    }
}

/// A key and its number. Numbers rise, over the masters' restarts too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IssuedKey {
    pub id: KeyId,
    pub key: ServerKey,
}

/// What makes a capability good at one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seal {
    pub key: KeyId,
    #[serde(with = "serde_bytes")]
    pub mac: [u8; 16],
}

impl IssuedKey {
    /// The key of a number for a server, out of the master's own secret.
    #[must_use]
    pub fn derive(secret: &[u8; 16], server: ServerNum, id: KeyId) -> IssuedKey {
        let mut input = [0; 6];
        input[..2].copy_from_slice(&server.0.to_le_bytes());
        input[2..].copy_from_slice(&id.0.to_le_bytes());
        IssuedKey { id, key: ServerKey(SipHasher24::new_with_key(secret).hash(&input).as_bytes()) }
    }

    /// The seal of a capability for the server that has this key.
    #[must_use]
    pub fn seal(&self, capability: &Capability) -> Seal {
        let bare = Capability { key: self.id, mac: [0; 16], ..*capability };
        let mac = SipHasher24::new_with_key(&self.key.0).hash(&bare.to_bytes()).as_bytes();
        Seal { key: self.id, mac }
    }

    /// Whether the capability was sealed with this key, for whoever holds it.
    #[must_use]
    pub fn verifies(&self, capability: &Capability) -> bool {
        let Seal { key, mac } = self.seal(capability);
        // Not ended early by the first byte that differs: how long it takes says nothing.
        let differ = mac.iter().zip(&capability.mac).fold(0, |differ, (a, b)| differ | (a ^ b));
        key == capability.key && differ == 0
    }
}

impl Capability {
    /// The capability with a server's seal on it.
    #[must_use]
    pub fn sealed(self, seal: Seal) -> Capability {
        Capability { key: seal.key, mac: seal.mac, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Rights;
    use crate::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, OpenNum, SessionId, SizeEpoch};
    use crate::units::{ChunkIndex, MasterMs};

    fn capability() -> Capability {
        Capability {
            chunk: ChunkId(7),
            session: SessionId(1),
            ino: Ino(2),
            index: ChunkIndex(3),
            expires: MasterMs(4),
            version: ChunkVersion(5),
            config: ConfigNum(6),
            open_num: OpenNum(1),
            size_epoch: SizeEpoch(0),
            rights: Rights { read: true, write: false },
            key: KeyId(0),
            mac: [0; 16],
        }
    }

    #[test]
    fn no_bit_of_a_sealed_capability_can_change() {
        let key = IssuedKey::derive(&[9; 16], ServerNum(1), KeyId(4));
        let sealed = capability().sealed(key.seal(&capability()));
        assert!(key.verifies(&sealed));
        let bytes = sealed.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let (other, _) = Capability::from_bytes(&changed).unwrap();
            // Some bits of the rights mean nothing, and are not kept.
            assert!(other == sealed || !key.verifies(&other), "bit {bit}");
        }
    }

    #[test]
    fn each_server_and_each_number_has_a_key_of_its_own() {
        let key = |server, id| IssuedKey::derive(&[9; 16], ServerNum(server), KeyId(id));
        let sealed = capability().sealed(key(1, 4).seal(&capability()));
        assert!(!key(2, 4).verifies(&sealed));
        assert!(!key(1, 5).verifies(&sealed));
        assert!(!IssuedKey::derive(&[8; 16], ServerNum(1), KeyId(4)).verifies(&sealed));
        assert!(!format!("{:?}", key(1, 4)).contains("16"), "a key is not for logs");
    }

    #[test]
    fn golden_seal() {
        let key = IssuedKey::derive(&[1; 16], ServerNum(1), KeyId(1));
        let hex: String = key.seal(&capability()).mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/fixtures/seal.hex").trim());
    }
}
