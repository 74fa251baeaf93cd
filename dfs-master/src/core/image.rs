//! A frozen copy of the state, written as a snapshot's blocks while the core goes on, and read back.
//!
//! One section a table, each with a version of its own. Equal states give equal blocks, on which
//! [`State::hash`] rests.

use std::sync::Arc;

use dfs_proto::checksum::crc32c;
use dfs_proto::ids::{ChunkId, Ino, LogIndex, ServerNum, SessionId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::chunks::{ChunkMeta, Chunks};
use super::command::Origin;
use super::namespace::{LoadError, NamespaceReader};
use super::policy::Thresholds;
use super::servers::{Maintenance, Server};
use super::sessions::Session;
use super::state::{Cluster, State, Trail};
use super::tombstones::Tombstone;
use crate::log::entry::ConfState;
use crate::log::snapshot::Section;

const HEAD: u16 = 1;
const NAMESPACE: u16 = 2;
const CHUNKS: u16 = 3;
const TOMBSTONES: u16 = 4;
const SESSIONS: u16 = 5;
const SERVERS: u16 = 6;
const TRAIL: u16 = 7;
/// Absent from what builds wrote that had no policy, and empty while nobody has set it.
const POLICY: u16 = 8;
/// Absent from what builds wrote that had no maintenance, and empty while no server is in it. 9 is left for tables that
/// are being made elsewhere.
const MAINTENANCE: u16 = 10;
/// Of every section as this build writes it.
const VERSION: u16 = 1;
const ALL: [u16; 9] = [HEAD, NAMESPACE, CHUNKS, TOMBSTONES, SESSIONS, SERVERS, TRAIL, POLICY, MAINTENANCE];
/// Later builds made these: a snapshot without them is an older one.
const LATER: [u16; 2] = [POLICY, MAINTENANCE];

/// A block is closed when it has grown to this: far below a block's limit, whatever one entry takes.
const BLOCK_BYTES: usize = 128 << 10;

/// The state at one index, and the group's members then. Cheap to take: tables are shared until they
/// are written.
#[derive(Clone, Debug)]
pub struct StateImage {
    state: Box<State>,
    conf: ConfState,
}

/// What there is one of.
#[derive(Serialize, Deserialize)]
struct Head {
    applied: LogIndex,
    cluster: Option<Cluster>,
    last_session: SessionId,
    servers_epoch: u64,
    cuts: Vec<(Ino, Origin)>,
    given_up: Vec<(ChunkId, Vec<ServerNum>)>,
}

/// Why blocks are no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("section {id} has version {version}, which this build does not know")]
    Newer { id: u16, version: u16 },
    #[error("a block of section {0} does not decode: {1}")]
    Block(u16, postcard::Error),
    #[error("section {0} is missing")]
    Missing(u16),
    #[error(transparent)]
    Namespace(#[from] LoadError),
}

impl StateImage {
    pub(super) fn new(state: State, conf: ConfState) -> StateImage {
        StateImage { state: Box::new(state), conf }
    }

    /// The group's members.
    #[must_use]
    pub fn conf(&self) -> ConfState {
        self.conf.clone()
    }

    /// The sections that [`StateImage::write`] gives blocks of.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        ALL.map(|id| Section { id, version: VERSION }).to_vec()
    }

    /// Gives every block to `sink`, section by section.
    ///
    /// # Errors
    /// The sink's first.
    pub fn write<E>(&self, sink: &mut impl FnMut(u16, &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.state.write(sink)
    }

    pub(super) fn into_state(self) -> State {
        *self.state
    }
}

/// Gathers entries into blocks.
struct Blocks<'a, S> {
    section: u16,
    bytes: Vec<u8>,
    sink: &'a mut S,
}

impl<'a, E, S: FnMut(u16, &[u8]) -> Result<(), E>> Blocks<'a, S> {
    fn new(section: u16, sink: &'a mut S) -> Blocks<'a, S> {
        Blocks { section, bytes: Vec::new(), sink }
    }

    fn put<T: Serialize>(&mut self, entry: &T) -> Result<(), E> {
        // Serialising into memory fails only for types without a length, of which a state has none.
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(entry, bytes).expect("an entry serialises");
        if self.bytes.len() >= BLOCK_BYTES {
            (self.sink)(self.section, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    fn end(self) -> Result<(), E> {
        if self.bytes.is_empty() { Ok(()) } else { (self.sink)(self.section, &self.bytes) }
    }
}

impl State {
    fn write<E>(&self, sink: &mut impl FnMut(u16, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut head = Blocks::new(HEAD, sink);
        head.put(&Head {
            applied: self.applied,
            cluster: self.cluster,
            last_session: self.sessions.last(),
            servers_epoch: self.servers.epoch(),
            cuts: self.cuts.iter().map(|(ino, origin)| (*ino, *origin)).collect(),
            given_up: self.given_up.iter().map(|(chunk, servers)| (*chunk, servers.clone())).collect(),
        })?;
        head.end()?;
        let mut failed = Ok(());
        self.ns.write_sections(&mut |block| {
            if failed.is_ok() {
                failed = sink(NAMESPACE, block);
            }
        });
        failed?;
        let mut chunks = Blocks::new(CHUNKS, sink);
        for (id, meta) in self.chunks.iter_from(ChunkId(0)) {
            chunks.put(&(id, ChunkEntry::from(&meta)))?;
        }
        chunks.end()?;
        let mut tombstones = Blocks::new(TOMBSTONES, sink);
        for entry in self.tombstones.iter_from(ChunkId(0)) {
            tombstones.put(&entry)?;
        }
        tombstones.end()?;
        let mut sessions = Blocks::new(SESSIONS, sink);
        for entry in self.sessions.iter() {
            sessions.put(&entry)?;
        }
        sessions.end()?;
        let mut servers = Blocks::new(SERVERS, sink);
        for server in self.servers.iter() {
            servers.put(server)?;
        }
        servers.end()?;
        let mut trail = Blocks::new(TRAIL, sink);
        trail.put(&self.trail)?;
        trail.end()?;
        let mut policy = Blocks::new(POLICY, sink);
        if self.policy != Thresholds::default() {
            policy.put(&self.policy)?;
        }
        policy.end()?;
        let mut maintained = Blocks::new(MAINTENANCE, sink);
        for entry in self.servers.maintained() {
            maintained.put(&entry)?;
        }
        maintained.end()
    }

    /// A number that equal states share.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let written: Result<(), std::convert::Infallible> = self.write(&mut |section, block| {
            for word in [u64::from(section), u64::from(crc32c(block).0), block.len() as u64] {
                hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
            }
            Ok(())
        });
        match written {
            Ok(()) => hash,
        }
    }
}

/// A chunk's entry as a snapshot stores it. Fields are only ever appended, under a new version.
#[derive(Serialize, Deserialize)]
struct ChunkEntry {
    version: dfs_proto::ids::ChunkVersion,
    config: dfs_proto::ids::ConfigNum,
    open_num: dfs_proto::ids::OpenNum,
    state: super::chunks::ChunkState,
    members: Vec<ServerNum>,
    learners: Vec<ServerNum>,
    open: bool,
    synced: bool,
    written: bool,
    refs: u8,
    ino: Ino,
    index: dfs_proto::units::ChunkIndex,
    lossy: dfs_proto::ids::ChunkVersion,
    digest: u128,
    leaving: Option<ServerNum>,
}

impl From<&ChunkMeta> for ChunkEntry {
    fn from(meta: &ChunkMeta) -> ChunkEntry {
        ChunkEntry {
            version: meta.version,
            config: meta.config,
            open_num: meta.open_num,
            state: meta.state,
            members: meta.members.iter().collect(),
            learners: meta.learners.clone(),
            open: meta.open,
            synced: meta.synced,
            written: meta.written,
            refs: meta.refs,
            ino: meta.ino,
            index: meta.index,
            lossy: meta.lossy,
            digest: meta.digest,
            leaving: meta.leaving,
        }
    }
}

impl From<ChunkEntry> for ChunkMeta {
    fn from(entry: ChunkEntry) -> ChunkMeta {
        ChunkMeta {
            version: entry.version,
            config: entry.config,
            open_num: entry.open_num,
            state: entry.state,
            members: super::chunks::Members::of(&entry.members),
            learners: entry.learners,
            leaving: entry.leaving,
            open: entry.open,
            synced: entry.synced,
            written: entry.written,
            refs: entry.refs,
            ino: entry.ino,
            index: entry.index,
            lossy: entry.lossy,
            digest: entry.digest,
        }
    }
}

/// Builds an image from a snapshot's blocks, in their order.
#[derive(Debug)]
pub struct ImageReader {
    state: State,
    namespace: NamespaceReader,
    has_head: bool,
}

impl ImageReader {
    /// A reader for a snapshot of these sections.
    ///
    /// # Errors
    /// When a section is of a newer build.
    pub fn new(sections: &[Section]) -> Result<ImageReader, ImageError> {
        for Section { id, version } in sections {
            if *version != VERSION || !ALL.contains(id) {
                return Err(ImageError::Newer { id: *id, version: *version });
            }
        }
        let mut needed = ALL.into_iter().filter(|id| !LATER.contains(id));
        if let Some(missing) = needed.find(|id| !sections.iter().any(|section| section.id == *id)) {
            return Err(ImageError::Missing(missing));
        }
        Ok(ImageReader { state: State::empty(), namespace: NamespaceReader::new(), has_head: false })
    }

    /// Takes the next block.
    ///
    /// # Errors
    /// When it is not what [`StateImage::write`] gives.
    pub fn block(&mut self, section: u16, bytes: &[u8]) -> Result<(), ImageError> {
        let state = &mut self.state;
        match section {
            HEAD => {
                self.has_head = true;
                each(section, bytes, |head: Head| {
                    state.applied = head.applied;
                    state.cluster = head.cluster;
                    state.sessions.restore_last(head.last_session);
                    state.servers.restore_epoch(head.servers_epoch);
                    state.cuts = Arc::new(head.cuts.into_iter().collect());
                    state.given_up = Arc::new(head.given_up.into_iter().collect());
                })
            }
            NAMESPACE => Ok(self.namespace.block(bytes)?),
            CHUNKS => each(section, bytes, |(id, entry): (ChunkId, ChunkEntry)| {
                restore_chunk(&mut state.chunks, id, entry);
            }),
            TOMBSTONES => each(section, bytes, |(id, tombstone): (ChunkId, Tombstone)| {
                state.tombstones.insert(id, tombstone);
            }),
            SESSIONS => each(section, bytes, |(id, session): (SessionId, Session)| {
                state.sessions.restore(id, session);
            }),
            SERVERS => each(section, bytes, |server: Server| state.servers.restore(server)),
            TRAIL => each(section, bytes, |trail: Trail| state.trail = trail),
            POLICY => each(section, bytes, |policy: Thresholds| state.policy = policy),
            MAINTENANCE => each(section, bytes, |(server, maintenance): (ServerNum, Maintenance)| {
                state.servers.restore_maintenance(server, maintenance);
            }),
            id => Err(ImageError::Newer { id, version: VERSION }),
        }
    }

    /// The image, after the last block. The group's members are the snapshot's own affair.
    ///
    /// # Errors
    /// When blocks are missing.
    pub fn finish(self) -> Result<StateImage, ImageError> {
        if !self.has_head {
            return Err(ImageError::Missing(HEAD));
        }
        let state = State { ns: self.namespace.finish()?, ..self.state };
        Ok(StateImage::new(state, ConfState::default()))
    }
}

fn restore_chunk(chunks: &mut Chunks, id: ChunkId, entry: ChunkEntry) {
    chunks.insert(id, &ChunkMeta::from(entry));
}

/// Reads the entries of a block.
fn each<T: DeserializeOwned>(section: u16, bytes: &[u8], mut take: impl FnMut(T)) -> Result<(), ImageError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (entry, after) =
            postcard::take_from_bytes(rest).map_err(|error| ImageError::Block(section, error))?;
        take(entry);
        rest = after;
    }
    Ok(())
}
