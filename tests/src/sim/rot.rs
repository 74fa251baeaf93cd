//! Disks that rot, once the cluster is healed: bits of members' files are flipped, in data, tables and headers, of
//! each chunk on one member at most. A scrub and the last reading have to find and mend them all.

use dfs_chunkserver::store::Scrubbed;
use dfs_proto::ids::ChunkId;
use dfs_proto::meta::{ChunkReport, FileReport};

use super::fabric::Node;
use super::world::World;

const HEADERS: [u64; 2] = [0, 4096];
const TABLE_AT: u64 = 8192;
const TABLE_SECTOR: u64 = 512;
const DATA_AT: u64 = 128 << 10;

/// Flips bits of a file's chunks.
pub(super) fn flip(world: &mut World, report: &FileReport) {
    for chunk in &report.chunks {
        if world.fabric.rng.coin() {
            flip_one(world, chunk);
        }
    }
}

fn flip_one(world: &mut World, chunk: &ChunkReport) {
    let which = usize::try_from(world.fabric.rng.below(chunk.members.len().max(1) as u64)).unwrap_or(0);
    let Some(member) = chunk.members.get(which) else { return };
    let Some(Node::Server(num)) = world.fabric.server_of(member.server) else { return };
    let server = &world.servers[usize::from(num)];
    let extent = server.store().and_then(|store| store.extent(chunk.chunk).ok()).unwrap_or(0);
    if extent == 0 {
        return;
    }
    let rng = &mut world.fabric.rng;
    let at = match rng.below(4) {
        0 => HEADERS[usize::from(rng.coin())] + rng.below(TABLE_SECTOR),
        1 => TABLE_AT + rng.below(TABLE_SECTOR),
        _ => DATA_AT + rng.below(u64::from(extent)),
    };
    let bit = u32::try_from(rng.below(8)).unwrap_or(0);
    let path = format!("chunks/{:02x}/{}.chunk", chunk.chunk.0 & 0xff, chunk.chunk);
    let flipped = world.servers[usize::from(num)].disk().flip_bit(&path, at, bit);
    world.note([70, chunk.chunk.0, at], || {
        format!("server {num}: bit {bit} at {at} of {path} flips: {flipped}")
    });
}

/// Whether a replica lies on its disk as it should.
pub(super) fn is_sound(world: &World, num: usize, chunk: ChunkId) -> Result<(), String> {
    use dfs_chunkserver::store::StoreError;
    let store = world.servers[num].store().ok_or_else(|| format!("server {num} is down"))?;
    let sound = |scrubbed: Scrubbed| match scrubbed {
        Scrubbed { rewritten: 0, bad, next, .. } if bad.is_empty() => Ok(next),
        other => Err(format!("server {num}: {other:?}")),
    };
    let mut next = match store.scrub_head(chunk) {
        Ok(scrubbed) => sound(scrubbed)?,
        // Nothing was ever written to it.
        Err(StoreError::NoChunk(_)) => None,
        Err(error) => return Err(format!("server {num}: {error}")),
    };
    while let Some(first) = next {
        let scrubbed = store.scrub_blocks(chunk, first).map_err(|error| format!("server {num}: {error}"))?;
        next = sound(scrubbed)?;
    }
    Ok(())
}
