//! Which replicas of a chunk are its members, by their headers.
//!
//! A configuration's number rises with every change of members, and every member of the newest has every acknowledged
//! write: the replicas of the highest number count, and of a closed chunk whoever hashes to the same. Versions differ
//! within a configuration while a recovery is under way, so they choose nobody; the new state's is the highest of all.

use std::collections::BTreeMap;

use dfs_proto::checksum::Digest;
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, OpenNum, ServerNum, SizeEpoch};
use dfs_proto::listing::{ListedFile, ListedReplica};
use dfs_proto::units::{BLOCK_SIZE, ChunkIndex, Timespec};

use super::report::{RemarkKind, Remarks};
use crate::core::chunks::MEMBERS_MAX;

/// A replica, and where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    pub(super) server: ServerNum,
    pub(super) disk: &'a str,
    pub(super) replica: &'a ListedReplica,
}

/// A chunk that can be used.
#[derive(Clone, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) id: ChunkId,
    pub(super) ino: Ino,
    pub(super) index: ChunkIndex,
    pub(super) version: ChunkVersion,
    pub(super) config: ConfigNum,
    pub(super) open_num: OpenNum,
    /// What every member hashes to, if they were closed together.
    pub(super) digest: Option<Digest>,
    /// The primary first.
    pub(super) members: Vec<ServerNum>,
    /// How many members the headers speak of; 0 if they don't.
    pub(super) named: u8,
    pub(super) size_epoch: SizeEpoch,
    pub(super) extent: u32,
    pub(super) modified: Timespec,
    /// What the members keep of the file, and when each was written.
    pub(super) notes: Vec<(Timespec, &'a ListedFile)>,
}

/// A chunk of which only replicas are left that are no member's copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) id: ChunkId,
    pub(super) ino: Ino,
    pub(super) index: ChunkIndex,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Chosen<'a> {
    /// By rising id.
    pub(super) chunks: Vec<Chunk<'a>>,
    pub(super) lost: Vec<Lost>,
}

pub(super) fn all<'a>(chunks: &BTreeMap<ChunkId, Vec<Held<'a>>>, remarks: &mut Remarks) -> Chosen<'a> {
    let mut chosen = Chosen::default();
    for (id, held) in chunks {
        match one(*id, held, remarks) {
            Some(chunk) => chosen.chunks.push(chunk),
            None => {
                let (ino, index) =
                    held.first().map_or_else(Default::default, |held| (held.replica.ino, held.replica.index));
                chosen.lost.push(Lost { id: *id, ino, index });
            }
        }
    }
    chosen
}

fn one<'a>(id: ChunkId, held: &[Held<'a>], remarks: &mut Remarks) -> Option<Chunk<'a>> {
    let aside = |remarks: &mut Remarks, held: &Held<'_>, what: &str| {
        remarks.add(RemarkKind::Aside, format!("chunk {id} on {}", held.disk), what.to_owned());
    };
    let mut usable: Vec<Held<'a>> = Vec::with_capacity(held.len());
    for held in held {
        if held.replica.failed {
            aside(remarks, held, "its disk failed it");
        } else if held.replica.learner {
            aside(remarks, held, "it was not filled to the end");
        } else if usable.iter().any(|other| other.server == held.server) {
            aside(remarks, held, "its server has another one");
        } else {
            usable.push(*held);
        }
    }
    let best = usable.iter().max_by_key(|held| (held.replica.config, held.replica.version))?.replica;
    let is_member = |held: &Held<'_>| {
        let replica = held.replica;
        let equal =
            replica.digest.is_some() && (replica.digest, replica.open_num) == (best.digest, best.open_num);
        (replica.config == best.config || equal) && (replica.ino, replica.index) == (best.ino, best.index)
    };
    let (mut members, older): (Vec<_>, Vec<_>) = usable.into_iter().partition(is_member);
    for held in &older {
        aside(remarks, held, "it is older than another one");
    }
    members.truncate(MEMBERS_MAX);
    let named = members.iter().filter(|held| held.replica.config == best.config);
    let named = named.map(|held| held.replica.members).max().unwrap_or(0);
    // Primaries have more to do, so not all on one server.
    let turn = usize::try_from(id.counter() % members.len() as u64).unwrap_or(0);
    members.rotate_left(turn);
    Some(chunk_of(id, held, &members, best, named))
}

fn chunk_of<'a>(
    id: ChunkId,
    all: &[Held<'a>],
    members: &[Held<'a>],
    best: &ListedReplica,
    named: u8,
) -> Chunk<'a> {
    // Whoever was fenced or told of more must not be met by less (I2).
    let version = all.iter().map(|held| held.replica.version).max().unwrap_or_default();
    let config = all.iter().map(|held| held.replica.config).max().unwrap_or_default();
    let newest = all.iter().map(|held| held.replica.open_num).max().unwrap_or_default();
    let together = members.iter().all(|held| {
        let replica = held.replica;
        replica.version == version && replica.open_num == newest && replica.digest == best.digest
    });
    let digest = best.digest.filter(|_| together);
    // Some of its members may have closed an opening that others have not.
    let open_num = if digest.is_some() { newest } else { OpenNum(newest.0 + 1) };
    let notes = members.iter().filter_map(|held| Some((held.replica.modified, held.replica.file.as_ref()?)));
    Chunk {
        id,
        ino: best.ino,
        index: best.index,
        version: version.max(ChunkVersion(1)),
        config: config.max(ConfigNum(1)),
        open_num: open_num.max(OpenNum(1)),
        digest,
        members: members.iter().map(|held| held.server).collect(),
        named,
        size_epoch: members.iter().map(|held| held.replica.size_epoch).max().unwrap_or_default(),
        extent: extent(members),
        modified: members.iter().map(|held| held.replica.modified).max().unwrap_or_default(),
        notes: notes.collect(),
    }
}

/// A member that was filled from another knows its end only to the block.
fn extent(members: &[Held<'_>]) -> u32 {
    let extents = || members.iter().map(|held| held.replica.extent);
    let blocks = extents().map(|extent| extent.div_ceil(BLOCK_SIZE)).max().unwrap_or(0);
    extents().filter(|extent| extent.div_ceil(BLOCK_SIZE) == blocks).min().unwrap_or(0)
}
