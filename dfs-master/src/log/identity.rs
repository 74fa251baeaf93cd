//! `cluster.json`: which cluster a master's directory belongs to. Written once, last of all files at
//! init, so that a directory that has one was made completely.
//!
//! It reads no log. Its id is what every segment and snapshot is checked against.

use std::io;

use dfs_disk::{Disk, read_file, replace_file};
use dfs_proto::ids::{ClusterId, Generation};
use dfs_proto::units::ChunkSize;
use serde::{Deserialize, Serialize};

/// The file's path.
pub const PATH: &str = "cluster.json";
const FORMAT: u32 = 1;
/// A whole identity takes 200 bytes; more than this is some other file.
const LEN_MAX: usize = 4096;

/// A cluster's identity and what is fixed at its making.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub generation: Generation,
    pub chunk_size: ChunkSize,
    /// Replicas that new files get.
    pub goal: u8,
    /// Seconds since 1970 when it was made, for people.
    pub created: i64,
}

/// Why there is no identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{PATH}: {0}")]
    Io(#[from] io::Error),
    #[error("{PATH} is missing: this directory was never initialised, or it was emptied")]
    Missing,
    #[error("{PATH} is already there: this directory belongs to a cluster")]
    Exists,
    #[error("{PATH} is not a cluster identity: {0}")]
    Invalid(serde_json::Error),
    #[error("{PATH} has format {found}, this version knows {FORMAT}")]
    Newer { found: u32 },
}

/// The file's contents. The id is hex text, because JSON readers round large numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    #[serde(with = "hex")]
    cluster_id: u128,
    generation: u16,
    chunk_size: ChunkSize,
    goal: u8,
    created: i64,
}

impl Identity {
    /// The identity in the disk's root.
    ///
    /// # Errors
    /// When there is none, or not one that this version can read.
    pub fn load<D: Disk>(disk: &D) -> Result<Identity, IdentityError> {
        if !disk.exists(PATH)? {
            return Err(IdentityError::Missing);
        }
        let bytes = read_file(disk, PATH, LEN_MAX)?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(&bytes).map_err(IdentityError::Invalid)?;
        if format != FORMAT {
            return Err(IdentityError::Newer { found: format });
        }
        let file: File = serde_json::from_slice(&bytes).map_err(IdentityError::Invalid)?;
        Ok(Identity {
            cluster: ClusterId(file.cluster_id),
            generation: Generation(file.generation),
            chunk_size: file.chunk_size,
            goal: file.goal,
            created: file.created,
        })
    }

    /// Writes the identity, durably. Replacing one is for a new generation of the same cluster only.
    ///
    /// # Errors
    /// The failing call's.
    pub fn store<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        let file = File {
            format: FORMAT,
            cluster_id: self.cluster.0,
            generation: self.generation.0,
            chunk_size: self.chunk_size,
            goal: self.goal,
            created: self.created,
        };
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(IdentityError::Invalid)?;
        bytes.push(b'\n');
        Ok(replace_file(disk, PATH, &bytes)?)
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{id:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        if text.len() != 32 {
            return Err(D::Error::custom("a cluster id has 32 hex digits"));
        }
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
