//! What a [`DiskOp`] of the core does to a chunk [`Store`]. The same for the real server, which calls it on a
//! disk's threads, and for a simulator. It may wait for the disk; it decides nothing.

use bytes::Bytes;
use dfs_disk::Disk;
use dfs_proto::checksum::{Crc, Digest, LOST, digest_of};
use dfs_proto::chunk::Range;
use dfs_proto::control::Settle;
use dfs_proto::ids::{ChunkId, OsBootId, Seq};
use dfs_proto::units::BLOCK_SIZE;

use crate::core::io::{
    BlockRun, CloseItem, DiskDone, DiskFault, DiskIx, DiskOp, FenceItem, FencedReplica, FoundReplica,
    MendDone, ReplicaHeader, ScrubDone, ScrubMark,
};
use crate::store::{
    Durability, Header, HeaderChange, Mended, Mhwm, Opened, Progress, ReadBlocks, ReadMode, Scrubbed, Stock,
    Store, StoreError, ToClose, Write,
};

/// Where and when an operation happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// The kernel that runs now.
    pub os_boot: OsBootId,
    /// Wall-clock seconds: only says when the trash may be emptied.
    pub now_s: u64,
}

fn or_fault(done: Result<DiskDone, StoreError>) -> DiskDone {
    done.unwrap_or_else(|error| DiskDone::Failed(fault_of(&error)))
}

/// Does one operation.
pub fn execute<D: Disk>(store: &Store<D>, context: Context, op: &DiskOp) -> DiskDone {
    let done = |result: Result<(), StoreError>| match result {
        Ok(()) => DiskDone::Done,
        Err(error) => DiskDone::Failed(fault_of(&error)),
    };
    match op {
        DiskOp::Write { chunk, create, ranges, crcs, payload } => done(
            make(store, context, create.as_ref())
                .and_then(|()| store.write(*chunk, &Write { ranges, data: payload, crcs })),
        ),
        DiskOp::Punch { chunk, create, ranges } => {
            done(make(store, context, create.as_ref()).and_then(|()| store.punch(*chunk, ranges)))
        }
        DiskOp::Zero { chunk, create, range, size_epoch } => done(
            make(store, context, create.as_ref())
                .and_then(|()| store.zero(*chunk, range.offset, range.end(), *size_epoch).map(drop)),
        ),
        DiskOp::Sync { chunks } => {
            let results = store.sync_many(chunks);
            DiskDone::Synced(
                results.into_iter().map(|result| result.map_err(|error| fault_of(&error))).collect(),
            )
        }
        DiskOp::Header(header) => done(set_header(store, context, header)),
        DiskOp::Fence { chunks } => fence(store, chunks),
        DiskOp::Digest { chunk } => digest(store, *chunk),
        DiskOp::ReadBlocks { chunk, range } => or_fault(
            store
                .read(*chunk, range.offset, range.len, ReadMode::MayBlock)
                .map(|blocks| DiskDone::Blocks(runs_of(&blocks))),
        ),
        DiskOp::Table { chunk, range } => or_fault(store.entries(*chunk, *range).map(DiskDone::Table)),
        DiskOp::Reconcile { chunk, settle } => reconcile(store, *chunk, *settle),
        DiskOp::BeginLearner { header, keep } => done(begin_learner(store, context, header, *keep)),
        DiskOp::Compare { chunk, offset, entries } => {
            or_fault(store.compare(*chunk, *offset, entries).map(DiskDone::Differ))
        }
        DiskOp::Close { chunks } => close(store, chunks),
        DiskOp::Stock { chunk, range } => stock(store, *chunk, *range),
        DiskOp::Mend { chunk, offset, entries, data, insist } => {
            let given = Stock { entries: entries.clone(), data: data.clone() };
            match store.mend(*chunk, offset / BLOCK_SIZE, &given, *insist) {
                Ok(Mended { mended, bad, differ }) => DiskDone::Mended(MendDone { mended, bad, differ }),
                Err(error) => DiskDone::Failed(fault_of(&error)),
            }
        }
        DiskOp::Scrub { chunk, from, .. } => {
            let scrubbed =
                from.map_or_else(|| store.scrub_head(*chunk), |first| store.scrub_blocks(*chunk, first));
            match scrubbed {
                Ok(Scrubbed { bytes, rewritten, bad, next }) => {
                    DiskDone::Scrubbed(ScrubDone { bytes, rewritten, bad, next })
                }
                Err(error) => DiskDone::Failed(fault_of(&error)),
            }
        }
        DiskOp::KeepScrub(mark) => done(store.keep_progress(&progress_of(mark), context.now_s)),
        DiskOp::Look { chunks } => {
            DiskDone::Looked(chunks.iter().map(|chunk| store.is_on_disk(*chunk)).collect())
        }
        DiskOp::Examine { chunk } => examine(store, *chunk),
        DiskOp::Trash { chunk, at_once: false } => done(store.trash(*chunk, context.now_s)),
        DiskOp::Trash { chunk, at_once: true } => done(store.discard(*chunk)),
        DiskOp::HighWater { generation, term, index } => {
            let (max_term, max_meta_index) = (*term, *index);
            done(store.set_mhwm(Mhwm { generation: *generation, max_term, max_meta_index }))
        }
    }
}

fn progress_of(mark: &ScrubMark) -> Progress {
    let ScrubMark { passes, elapsed_ms, last_ms, cursor, done, damaged } = mark.clone();
    Progress { passes, elapsed_ms, last_ms, cursor, done, damaged }
}

/// How far the last process's scrub of a disk was, for the core.
#[must_use]
pub fn scrub_mark<D: Disk>(store: &Store<D>, now_s: u64) -> ScrubMark {
    let Progress { passes, elapsed_ms, last_ms, cursor, done, damaged } = store.progress(now_s);
    ScrubMark { passes, elapsed_ms, last_ms, cursor, done, damaged }
}

/// What a store that was just opened has, for the core. After a clean end everything is as good as under the
/// same kernel.
#[must_use]
pub fn found(opened: &Opened, disk: DiskIx, os_boot: OsBootId) -> Vec<FoundReplica> {
    let one = |header: &Header| FoundReplica {
        disk,
        chunk: header.chunk,
        version: header.version,
        config: header.config,
        open_num: header.open_num,
        size_epoch: header.size_epoch,
        ino: header.ino,
        index: header.index,
        synced: header.seq_synced,
        closed: (!header.open).then_some(header.digest.0),
        learner: header.learner,
        failed: header.failed,
        same_kernel: opened.clean || (header.os_boot == os_boot && !opened.suspect),
    };
    opened.replicas.iter().map(one).collect()
}

/// The blocks' checksums as a reply carries them: a hole is a block of zeros.
#[must_use]
pub fn wire_crcs(blocks: &ReadBlocks) -> Vec<u32> {
    blocks.crcs.iter().map(|crc| crc.unwrap_or(Crc::of_zero_block()).0).collect()
}

/// What the core is told of an error.
#[must_use]
pub fn fault_of(error: &StoreError) -> DiskFault {
    match error {
        StoreError::NoChunk(_) => DiskFault::Missing,
        StoreError::BadChecksum { .. } | StoreError::Invalid => DiskFault::BadChecksum,
        StoreError::Corrupt { block, .. } => DiskFault::Corrupt { block: *block },
        StoreError::NoSpace => DiskFault::NoSpace,
        StoreError::Exists(_)
        | StoreError::WouldBlock
        | StoreError::Older { .. }
        | StoreError::Failed(_)
        | StoreError::Io { .. } => DiskFault::Io,
    }
}

fn header_of(context: Context, header: &ReplicaHeader) -> Header {
    Header {
        size_epoch: header.size_epoch,
        learner: header.learner,
        os_boot: context.os_boot,
        ino: header.ino,
        index: header.index,
        members: header.members,
        note: header.note.as_deref().cloned(),
        ..Header::new(header.chunk, header.version, header.config, header.open_num)
    }
}

/// Makes the replica known, unless it is.
fn make<D: Disk>(
    store: &Store<D>,
    context: Context,
    create: Option<&ReplicaHeader>,
) -> Result<(), StoreError> {
    let Some(header) = create else { return Ok(()) };
    match store.create(header_of(context, header)) {
        Err(StoreError::Exists(_)) => match set_header(store, context, header) {
            // A configuration of the same version overtook this on its way to the disk: what its header says is newer, and
            // the bytes are the chunk's all the same.
            Err(StoreError::Older { version, .. }) if version == header.version => Ok(()),
            other => other,
        },
        other => other,
    }
}

fn set_header<D: Disk>(store: &Store<D>, context: Context, header: &ReplicaHeader) -> Result<(), StoreError> {
    let was_learner = store.header(header.chunk)?.learner;
    let change = HeaderChange {
        version: Some(header.version),
        config: Some(header.config),
        open_num: Some(header.open_num),
        learner: Some(header.learner),
        open: Some(header.open),
        members: (header.members > 0).then_some(header.members),
        os_boot: Some(context.os_boot),
        ..HeaderChange::default()
    };
    // A member that a power cut turned back into a learner would be thrown away.
    let durability = if was_learner && !header.learner { Durability::Synced } else { Durability::Later };
    store.set_header(header.chunk, &change, durability).map(drop)
}

fn begin_learner<D: Disk>(
    store: &Store<D>,
    context: Context,
    header: &ReplicaHeader,
    keep: bool,
) -> Result<(), StoreError> {
    if keep {
        // Durable before the first block changes: half old and half new, it is nobody's copy.
        let change = HeaderChange {
            version: Some(header.version),
            config: Some(header.config),
            open_num: Some(header.open_num),
            size_epoch: Some(header.size_epoch),
            seq_synced: Some(Seq(0)),
            learner: Some(true),
            open: Some(true),
            os_boot: Some(context.os_boot),
            ..HeaderChange::default()
        };
        match store.set_header(header.chunk, &change, Durability::Synced) {
            Ok(_) => return Ok(()),
            Err(error) => log::warn!("chunk {}: filled from nothing: {error}", header.chunk),
        }
    }
    if store.contains(header.chunk) {
        store.trash(header.chunk, context.now_s)?;
    }
    store.create(header_of(context, header))
}

fn fence<D: Disk>(store: &Store<D>, items: &[FenceItem]) -> DiskDone {
    let fences: Vec<_> = items.iter().map(|item| (item.chunk, item.version)).collect();
    match store.fence(&fences) {
        Err(error) => DiskDone::Failed(fault_of(&error)),
        Ok(results) => {
            let one = |(item, result): (&FenceItem, Result<(), StoreError>)| {
                result.and_then(|()| held(store, item)).map_err(|error| fault_of(&error))
            };
            DiskDone::Fenced(items.iter().zip(results).map(one).collect())
        }
    }
}

fn held<D: Disk>(store: &Store<D>, item: &FenceItem) -> Result<FencedReplica, StoreError> {
    let synced = store.header(item.chunk)?.seq_synced;
    if item.verify {
        let verified = store.verify(item.chunk)?;
        let bad_blocks = u32::try_from(verified.bad.len()).unwrap_or(u32::MAX);
        return Ok(FencedReplica {
            synced,
            good_blocks: verified.good,
            bad_blocks,
            digest: verified.digest.0,
        });
    }
    let table = store.table(item.chunk)?;
    let lost = table.entries.iter().filter(|entry| **entry == LOST).count();
    let count = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
    let (good_blocks, bad_blocks) = (count(table.entries.len() - lost), count(lost));
    Ok(FencedReplica { synced, good_blocks, bad_blocks, digest: table.digest.0 })
}

fn close<D: Disk>(store: &Store<D>, items: &[CloseItem]) -> DiskDone {
    let one = |result: Result<Option<Digest>, StoreError>| match result {
        Ok(digest) => Ok(digest.map(|digest| digest.0)),
        Err(error) => Err(fault_of(&error)),
    };
    let to_close = |item: &CloseItem| ToClose {
        chunk: item.chunk,
        open_num: item.open_num,
        seq: item.seq,
        note: item.note.clone(),
    };
    let chunks: Vec<ToClose> = items.iter().map(to_close).collect();
    DiskDone::Closed(store.close_many(&chunks).into_iter().map(one).collect())
}

fn digest<D: Disk>(store: &Store<D>, chunk: ChunkId) -> DiskDone {
    match store.table(chunk) {
        // What is lost of it is nobody's digest.
        Ok(table) => match table.entries.iter().position(|entry| *entry == LOST) {
            Some(at) => DiskDone::Failed(DiskFault::Corrupt { block: u32::try_from(at).unwrap_or(u32::MAX) }),
            None => DiskDone::Digest(table.digest.0),
        },
        // A replica that nothing was ever written to.
        Err(StoreError::NoChunk(_)) => DiskDone::Digest(digest_of(&[]).0),
        Err(error) => DiskDone::Failed(fault_of(&error)),
    }
}

fn examine<D: Disk>(store: &Store<D>, chunk: ChunkId) -> DiskDone {
    if !store.is_on_disk(chunk) {
        // A descriptor may still show what nobody finds after a restart.
        return DiskDone::Failed(DiskFault::Missing);
    }
    let look = || -> Result<DiskDone, StoreError> {
        let synced = store.header(chunk)?.seq_synced;
        let verified = store.verify(chunk)?;
        Ok(DiskDone::Examined { synced, good: verified.good, bad: verified.bad })
    };
    look().unwrap_or_else(|error| DiskDone::Failed(fault_of(&error)))
}

fn stock<D: Disk>(store: &Store<D>, chunk: ChunkId, range: Range) -> DiskDone {
    match store.stock(chunk, range.offset / BLOCK_SIZE, range.len / BLOCK_SIZE) {
        Ok(Stock { entries, data }) => DiskDone::Stock { entries, data },
        Err(error) => DiskDone::Failed(fault_of(&error)),
    }
}

fn reconcile<D: Disk>(store: &Store<D>, chunk: ChunkId, settle: Settle) -> DiskDone {
    let sync = || -> Result<DiskDone, StoreError> {
        let mut torn = 0;
        let bad = if settle == Settle::Keep { Vec::new() } else { store.verify(chunk)?.bad };
        for block in bad {
            if settle == Settle::Zeros {
                log::warn!("chunk {chunk}: an operator gives block {block} up; it becomes zeros");
                store.repair_hole(chunk, block)?;
                torn += 1;
            } else {
                torn += u32::from(store.resolve_torn(chunk, block)?);
            }
        }
        let synced = store.header(chunk)?.seq_synced;
        store.sync(chunk, synced)?;
        Ok(DiskDone::Resolved { digest: store.table(chunk)?.digest.0, torn })
    };
    sync().unwrap_or_else(|error| DiskDone::Failed(fault_of(&error)))
}

/// Neighbouring blocks that are no holes.
fn runs_of(blocks: &ReadBlocks) -> Vec<BlockRun> {
    let mut runs: Vec<BlockRun> = Vec::new();
    let mut at = 0;
    for part in blocks.crcs.chunk_by(|left, right| left.is_some() == right.is_some()) {
        let crcs: Vec<u32> = part.iter().flatten().map(|crc| crc.0).collect();
        let (from, count) = (at, part.len());
        at += count;
        if let (false, Some(range)) = (crcs.is_empty(), block_range(blocks.offset, from, count)) {
            let data = slice_blocks(&blocks.data, from, count);
            runs.push(BlockRun { range, crcs, data });
        }
    }
    runs
}

fn block_range(offset: u32, from: usize, count: usize) -> Option<Range> {
    let bytes = |blocks: usize| u32::try_from(blocks).ok()?.checked_mul(BLOCK_SIZE);
    Some(Range { offset: offset.checked_add(bytes(from)?)?, len: bytes(count)? })
}

fn slice_blocks(data: &Bytes, from: usize, count: usize) -> Bytes {
    let block = BLOCK_SIZE as usize;
    data.slice(from * block..(from + count) * block)
}

#[cfg(test)]
mod tests {
    use dfs_disk::sim::SimDisk;
    use dfs_proto::ids::{
        ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, Ino, OpenNum, ServerId, SizeEpoch,
    };
    use dfs_proto::units::{ChunkIndex, ChunkSize};

    use super::*;
    use crate::store::{Expect, Label, StoreConfig};

    const CHUNK: ChunkId = ChunkId(7);
    const CONTEXT: Context = Context { os_boot: OsBootId(5), now_s: 0 };

    fn header(version: u32, config: u32) -> ReplicaHeader {
        ReplicaHeader {
            chunk: CHUNK,
            version: ChunkVersion(version),
            config: ConfigNum(config),
            open_num: OpenNum(1),
            size_epoch: SizeEpoch(1),
            ino: Ino(2),
            index: ChunkIndex(0),
            learner: false,
            open: true,
            members: 2,
            note: None,
        }
    }

    /// Zeros of a truncation that are on their way to the disk when a learner becomes a member (seed 21297).
    #[test]
    fn a_write_that_a_configuration_overtook_is_no_failure_of_the_disk() {
        let disk = SimDisk::new(1, 1 << 30);
        let (cluster, server) = (ClusterId(1), ServerId(2));
        let label = Label { cluster, generation: Generation(1), disk: DiskId(3), server };
        Store::init(&disk, &label).unwrap();
        let expect = Expect { cluster, server: None, os_boot: CONTEXT.os_boot };
        let config = StoreConfig { chunk_size: ChunkSize::DEFAULT, open_files: 10 };
        let (store, _) = Store::open(disk, expect, config).unwrap();
        let zero = |header: ReplicaHeader| DiskOp::Zero {
            chunk: CHUNK,
            create: Some(header),
            range: Range { offset: 0, len: 4096 },
            size_epoch: SizeEpoch(2),
        };
        assert_eq!(execute(&store, CONTEXT, &zero(header(2, 2))), DiskDone::Done);
        assert_eq!(execute(&store, CONTEXT, &DiskOp::Header(header(2, 3))), DiskDone::Done);
        assert_eq!(execute(&store, CONTEXT, &zero(header(2, 2))), DiskDone::Done);
        assert_eq!(store.header(CHUNK).unwrap().config, ConfigNum(3), "it does not go back");
        // Of an older version it is what a fence is there to stop.
        assert_eq!(execute(&store, CONTEXT, &zero(header(1, 9))), DiskDone::Failed(DiskFault::Io));
    }
}
