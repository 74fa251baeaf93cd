//! The chunk map as logged: every chunk's version, configuration and members. It changes only by
//! `apply`; who is alive and who is confirmed is not known here.
//!
//! Keeps I2 (v and c never decrease), I3 (the members of a configuration are fixed: every change of them
//! raises c) and the floor of I15 and I16 by refusing, in release builds too, what would break them.

pub mod confirm;
mod packed;

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, OpenNum, ServerNum};
use dfs_proto::units::ChunkIndex;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::table::CowTable;
use packed::{Packed, Rest};

/// Most members of a configuration: the goal's and the surplus replicas' bound.
pub const MEMBERS_MAX: usize = dfs_proto::meta::GOAL_MAX as usize;

/// A configuration's members; the first is the primary.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Members {
    len: u8,
    list: [ServerNum; MEMBERS_MAX],
}

impl Members {
    /// The members of `list`.
    ///
    /// # Panics
    /// When there are more than [`MEMBERS_MAX`]: placement and repair never ask for so many.
    #[must_use]
    pub fn of(list: &[ServerNum]) -> Members {
        let mut members = Members::default();
        for server in list {
            members.push(*server);
        }
        members
    }

    /// Appends a member.
    ///
    /// # Panics
    /// As [`Members::of`].
    pub fn push(&mut self, server: ServerNum) {
        assert!(self.len() < MEMBERS_MAX, "a configuration of more than {MEMBERS_MAX} members");
        self.list[self.len()] = server;
        self.len += 1;
    }

    #[must_use]
    pub fn as_slice(&self) -> &[ServerNum] {
        &self.list[..self.len()]
    }

    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn contains(&self, server: ServerNum) -> bool {
        self.as_slice().contains(&server)
    }

    #[must_use]
    pub fn primary(&self) -> Option<ServerNum> {
        self.as_slice().first().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = ServerNum> + '_ {
        self.as_slice().iter().copied()
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Whether the chunk may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChunkState {
    /// Under its version and configuration.
    Active,
    /// Members are fenced up to this version; the configuration is still the last active one.
    Recovering(ChunkVersion),
}

/// What the log knows of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkMeta {
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub state: ChunkState,
    pub members: Members,
    pub learners: Vec<ServerNum>,
    /// A member that is chosen to leave, and may serve nothing any more.
    pub leaving: Option<ServerNum>,
    /// May hold unsynced or unequal bytes.
    pub open: bool,
    /// Some fsync of it was acknowledged.
    pub synced: bool,
    /// Some commit named bytes in it, so a file of it exists.
    pub written: bool,
    /// What every replica hashes to; means nothing while `open`.
    pub digest: u128,
    /// The last version recovered from a base that may lack what was not synced; 0 if none was.
    pub lossy: ChunkVersion,
    /// Pointers to it.
    pub refs: u8,
    pub ino: Ino,
    pub index: ChunkIndex,
}

impl ChunkMeta {
    /// A chunk that was just allocated.
    #[must_use]
    pub fn new(ino: Ino, index: ChunkIndex, members: Members) -> ChunkMeta {
        ChunkMeta {
            version: ChunkVersion(1),
            config: ConfigNum(1),
            open_num: OpenNum(1),
            state: ChunkState::Active,
            members,
            learners: Vec::new(),
            leaving: None,
            open: true,
            synced: false,
            written: false,
            digest: 0,
            lossy: ChunkVersion(0),
            refs: 1,
            ino,
            index,
        }
    }

    /// The highest version that any member may be fenced at.
    #[must_use]
    pub fn fence(&self) -> ChunkVersion {
        match self.state {
            ChunkState::Active => self.version,
            ChunkState::Recovering(version) => version,
        }
    }

    /// Lets it be written again after a clean close.
    pub fn reopen(&mut self) {
        if !self.open {
            (self.open, self.digest) = (true, 0);
            self.open_num = OpenNum(self.open_num.0 + 1);
        }
    }

    /// Whether a close under this version and opening is of the chunk as it is now.
    #[must_use]
    pub fn closes_at(&self, version: ChunkVersion, open_num: OpenNum) -> bool {
        let current = self.is_active() && self.version == version && self.open_num == open_num;
        current && self.open && self.learners.is_empty()
    }

    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == ChunkState::Active
    }

    fn hash(&self, id: ChunkId) -> u64 {
        let flags = u64::from(self.open) | u64::from(self.synced) << 1 | u64::from(self.written) << 2;
        let words = [
            id.0,
            u64::from(self.version.0) << 32 | u64::from(self.fence().0),
            u64::from(self.config.0) << 32 | u64::from(self.open_num.0),
            u64::from(self.lossy.0) << 32 | u64::from(self.refs) << 8 | flags,
            self.ino.0,
            self.index.0,
        ];
        let mut bytes = [0; 64];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[48..].copy_from_slice(&self.digest.to_le_bytes());
        let others = self.learners.iter().copied().chain(self.leaving.map(|server| ServerNum(!server.0)));
        let servers = self.members.iter().chain([ServerNum(0)]).chain(others);
        servers.fold(xxh3_64(&bytes), |hash, server| {
            (hash.rotate_left(23) ^ u64::from(server.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }
}

/// The chunk map.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    table: CowTable<Packed>,
    /// What few chunks have: learners, a fence, more members than fit, an index past 32 bits.
    rest: Arc<BTreeMap<ChunkId, Rest>>,
    /// Replicas that the map puts on each server.
    replicas: Arc<BTreeMap<ServerNum, u64>>,
    /// The entries' hashes, added up.
    sum: u64,
}

impl Chunks {
    #[must_use]
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    #[must_use]
    pub fn contains(&self, id: ChunkId) -> bool {
        self.table.contains(id.0)
    }

    #[must_use]
    pub fn get(&self, id: ChunkId) -> Option<ChunkMeta> {
        self.table.get(id.0).map(|packed| packed.unpack(self.rest.get(&id)))
    }

    /// A number that equal maps share, kept from change to change.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Replicas that the map puts on `server`.
    #[must_use]
    pub fn replicas_on(&self, server: ServerNum) -> u64 {
        self.replicas.get(&server).copied().unwrap_or(0)
    }

    /// The same for every server that ever had one.
    pub fn replica_counts(&self) -> impl Iterator<Item = (ServerNum, u64)> + '_ {
        self.replicas.iter().map(|(server, count)| (*server, *count))
    }

    /// The chunks from `from` on, by rising id.
    pub fn iter_from(&self, from: ChunkId) -> impl Iterator<Item = (ChunkId, ChunkMeta)> + '_ {
        self.table.iter_from(from.0).map(|(id, packed)| {
            let id = ChunkId(id);
            (id, packed.unpack(self.rest.get(&id)))
        })
    }

    /// Adds a chunk.
    ///
    /// # Panics
    /// When the id is taken (I1).
    pub fn insert(&mut self, id: ChunkId, meta: &ChunkMeta) {
        assert!(!self.contains(id), "I1: chunk {id} allocated twice");
        self.count(&meta.members, 1);
        self.sum = self.sum.wrapping_add(meta.hash(id));
        self.put(id, meta);
    }

    /// Changes a chunk.
    ///
    /// # Panics
    /// When there is no such chunk, or the change breaks I2 or I3.
    pub fn update(&mut self, id: ChunkId, change: impl FnOnce(&mut ChunkMeta)) {
        let old = self.get(id).expect("only a chunk that is there is changed");
        let mut new = old.clone();
        change(&mut new);
        assert!(
            new.version >= old.version && new.config >= old.config,
            "I2: {id} goes back: {old:?} to {new:?}"
        );
        assert!(new.fence() >= old.fence(), "I2: the fence of {id} goes back: {old:?} to {new:?}");
        assert!(new.open_num >= old.open_num, "I2: the opening of {id} goes back: {old:?} to {new:?}");
        assert!(
            old.open || !new.open || new.open_num > old.open_num,
            "I10: {id} is written again under the opening that was closed"
        );
        let same = new.members == old.members;
        assert!(same || new.config.0 == old.config.0 + 1, "I3: {id} has other members under the same config");
        if !same {
            self.count(&old.members, -1);
            self.count(&new.members, 1);
        }
        self.sum = self.sum.wrapping_sub(old.hash(id)).wrapping_add(new.hash(id));
        self.put(id, &new);
    }

    /// Takes a chunk out.
    pub fn remove(&mut self, id: ChunkId) -> Option<ChunkMeta> {
        let meta = self.get(id)?;
        self.table.remove(id.0);
        if self.rest.contains_key(&id) {
            Arc::make_mut(&mut self.rest).remove(&id);
        }
        self.count(&meta.members, -1);
        self.sum = self.sum.wrapping_sub(meta.hash(id));
        Some(meta)
    }

    /// Puts a chunk there that no record could have made.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, id: ChunkId, meta: &ChunkMeta) {
        self.put(id, meta);
    }

    /// Makes a counter wrong.
    #[cfg(test)]
    pub(crate) fn plant_count(&mut self, server: ServerNum, count: u64) {
        Arc::make_mut(&mut self.replicas).insert(server, count);
    }

    fn put(&mut self, id: ChunkId, meta: &ChunkMeta) {
        let (packed, rest) = Packed::pack(meta);
        self.table.insert(id.0, packed);
        match rest {
            Some(rest) => {
                Arc::make_mut(&mut self.rest).insert(id, rest);
            }
            None if self.rest.contains_key(&id) => {
                Arc::make_mut(&mut self.rest).remove(&id);
            }
            None => {}
        }
    }

    fn count(&mut self, members: &Members, by: i64) {
        let replicas = Arc::make_mut(&mut self.replicas);
        for server in members.iter() {
            let count = replicas.entry(server).or_default();
            *count = count.saturating_add_signed(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(nums: &[u16]) -> Members {
        Members::of(&nums.iter().map(|n| ServerNum(*n)).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_put_comes_back() {
        let mut chunks = Chunks::default();
        let mut meta = ChunkMeta::new(Ino(1 << 40), ChunkIndex(7), servers(&[1, 2, 3]));
        chunks.insert(ChunkId(9), &meta);
        assert_eq!(chunks.get(ChunkId(9)), Some(meta.clone()));
        meta.members = servers(&[9, 8, 7, 6, 5, 4]);
        meta.config = ConfigNum(2);
        meta.learners = vec![ServerNum(3)];
        meta.leaving = Some(ServerNum(8));
        meta.state = ChunkState::Recovering(ChunkVersion(4));
        meta.synced = true;
        let wide = meta.clone();
        chunks.update(ChunkId(9), |m| *m = wide);
        assert_eq!(chunks.get(ChunkId(9)), Some(meta));
        assert_eq!(chunks.replicas_on(ServerNum(1)), 0);
        assert_eq!(chunks.replicas_on(ServerNum(9)), 1);
        let far = ChunkMeta::new(Ino(5), ChunkIndex(1 << 35), servers(&[1]));
        chunks.insert(ChunkId(10), &far);
        assert_eq!(chunks.get(ChunkId(10)), Some(far));
        assert!(chunks.remove(ChunkId(9)).is_some());
        assert!(chunks.remove(ChunkId(9)).is_none());
        assert_eq!(chunks.len(), 1);
    }

    #[test]
    #[should_panic(expected = "I1")]
    fn an_id_is_given_once() {
        let mut chunks = Chunks::default();
        let meta = ChunkMeta::new(Ino(2), ChunkIndex(0), servers(&[1]));
        chunks.insert(ChunkId(1), &meta);
        chunks.insert(ChunkId(1), &meta);
    }

    #[test]
    #[should_panic(expected = "I2")]
    fn a_version_never_falls() {
        let mut chunks = Chunks::default();
        let mut meta = ChunkMeta::new(Ino(2), ChunkIndex(0), servers(&[1]));
        meta.version = ChunkVersion(3);
        chunks.insert(ChunkId(1), &meta);
        chunks.update(ChunkId(1), |m| m.version = ChunkVersion(2));
    }

    #[test]
    #[should_panic(expected = "I3")]
    fn members_change_with_the_config() {
        let mut chunks = Chunks::default();
        chunks.insert(ChunkId(1), &ChunkMeta::new(Ino(2), ChunkIndex(0), servers(&[1, 2])));
        chunks.update(ChunkId(1), |m| m.members = servers(&[1]));
    }
}
