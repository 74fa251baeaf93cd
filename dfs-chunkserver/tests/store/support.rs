//! What every test of the store needs: a disk, a store on it, a write with its checksums.

use dfs_chunkserver::store::{
    Expect, Header, Label, Opened, ReadBlocks, ReadMode, Store, StoreConfig, StoreError, Write,
};
use dfs_disk::Disk;
use dfs_disk::sim::SimDisk;
use dfs_proto::checksum::crc32c;
use dfs_proto::chunk::Range;
use dfs_proto::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, OpenNum, OsBootId, ServerId,
};
use dfs_proto::units::ChunkSize;

pub(crate) const BLOCK: usize = 4096;
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const LABEL: Label =
    Label { cluster: CLUSTER, generation: Generation(1), disk: DiskId(0xd1), server: ServerId(0x51) };
pub(crate) const EXPECT: Expect =
    Expect { cluster: CLUSTER, server: Some(ServerId(0x51)), os_boot: OsBootId(7) };

pub(crate) fn config(chunk_size: u32, open_files: usize) -> StoreConfig {
    StoreConfig { chunk_size: ChunkSize::try_from(chunk_size).unwrap(), open_files }
}

/// Enough for 64 KiB chunks.
pub(crate) fn small() -> StoreConfig {
    config(64 << 10, 100)
}

pub(crate) const CAPACITY: u64 = 1 << 30;

pub(crate) fn sim(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, CAPACITY);
    Store::init(&disk, &LABEL).unwrap();
    disk
}

pub(crate) fn open<D: Disk>(disk: &D, config: StoreConfig) -> (Store<D>, Opened) {
    Store::open(disk.clone(), EXPECT, config).unwrap()
}

pub(crate) fn id(n: u64) -> ChunkId {
    ChunkId(1 << 48 | n)
}

pub(crate) fn path(id: ChunkId) -> String {
    format!("chunks/{:02x}/{id}.chunk", id.0 & 0xff)
}

pub(crate) fn header(id: ChunkId) -> Header {
    Header::new(id, ChunkVersion(1), ConfigNum(1), OpenNum(1))
}

/// Writes several stretches at once, each with the checksums of its parts.
pub(crate) fn write_all<D: Disk>(
    store: &Store<D>,
    id: ChunkId,
    parts: &[(u32, &[u8])],
) -> Result<(), StoreError> {
    let (mut ranges, mut data, mut crcs) = (Vec::new(), Vec::new(), Vec::new());
    for (offset, bytes) in parts {
        ranges.push(Range { offset: *offset, len: u32::try_from(bytes.len()).unwrap() });
        data.extend_from_slice(bytes);
        let first = (BLOCK - *offset as usize % BLOCK).min(bytes.len());
        crcs.push(crc32c(&bytes[..first]).0);
        crcs.extend(bytes[first..].chunks(BLOCK).map(|part| crc32c(part).0));
    }
    store.write(id, &Write { ranges: &ranges, data: &data, crcs: &crcs })
}

pub(crate) fn write<D: Disk>(
    store: &Store<D>,
    id: ChunkId,
    offset: u32,
    bytes: &[u8],
) -> Result<(), StoreError> {
    write_all(store, id, &[(offset, bytes)])
}

pub(crate) fn read<D: Disk>(
    store: &Store<D>,
    id: ChunkId,
    offset: u32,
    len: u32,
) -> Result<ReadBlocks, StoreError> {
    store.read(id, offset, len, ReadMode::MayBlock)
}

/// The whole chunk, what lies beyond its extent as zeros.
pub(crate) fn read_whole<D: Disk>(store: &Store<D>, id: ChunkId, size: u32) -> Result<Vec<u8>, StoreError> {
    let mut bytes = read(store, id, 0, size)?.data.to_vec();
    bytes.resize(size as usize, 0);
    Ok(bytes)
}
