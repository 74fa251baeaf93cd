//! One replica as its server knows it: where it stands in its chunk's config, what was applied, what is
//! pending. No messages and no other replica here.
//!
//! Keeps I2's half of this side: version and config never fall. Only [`Standing::Active`] serves.

use std::collections::VecDeque;

use dfs_proto::chunk::{Member, Range};
use dfs_proto::control::{ActiveConfig, ReplicaClass};
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, Ino, OpenNum, Seq, ServerNum, SizeEpoch};
use dfs_proto::note::FileNote;
use dfs_proto::planted;
use dfs_proto::units::{BLOCK_SIZE, ChunkIndex};

use crate::core::io::{CallToken, DiskIx, FoundReplica, ReplicaHeader};
use crate::core::lead::Lead;
use crate::core::ops::OpTable;
use crate::core::pull::Filling;
use crate::core::window::SeqWindow;

/// How many begun writes are remembered for R3. A read that more writes overtook is done again.
const BEGUN_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) chunk: ChunkId,
    /// Where the file is, or will be once the first write makes it.
    pub(crate) disk: DiskIx,
    /// Whether the file is there.
    pub(crate) made: bool,
    pub(crate) version: ChunkVersion,
    pub(crate) config: ConfigNum,
    pub(crate) open_num: OpenNum,
    /// Nothing is written under `open_num` any more.
    pub(crate) closed: bool,
    /// What the bytes of a clean close under `open_num` hash to; the header on the disk says it too.
    pub(crate) digest: Option<u128>,
    /// The header on the disk is of an earlier opening: the next write replaces it.
    pub(crate) header_due: bool,
    /// The last version whose recovery may have lost what was not synced.
    pub(crate) lossy: ChunkVersion,
    pub(crate) size_epoch: SizeEpoch,
    pub(crate) ino: Ino,
    pub(crate) index: ChunkIndex,
    /// What the file that is still to be made keeps of the file that it is a part of.
    pub(crate) note: Option<Box<FileNote>>,
    /// The config's members, primary first; empty until a config is known.
    pub(crate) members: Vec<Member>,
    pub(crate) origin: Origin,
    pub(crate) standing: Standing,
    /// It has left `version` for this config: no confirmation of one before counts.
    pub(crate) withdrawn: ConfigNum,
    /// Not filled to the end: no member's copy, whatever it holds.
    pub(crate) learner: bool,
    pub(crate) applied: SeqWindow,
    /// Every write up to here is on all members.
    pub(crate) committed: Seq,
    pub(crate) ops: OpTable,
    /// Applied or being applied, not known to be on all members. A primary needs none: its locks say it.
    pub(crate) pending: Vec<(Seq, Blocks)>,
    /// FORWARDs that the disk has now.
    pub(crate) applying: Vec<Applying>,
    pub(crate) begun: Begun,
    /// Disk operations under way.
    pub(crate) disk_ops: u32,
    pub(crate) lead: Option<Box<Lead>>,
    /// What a learner has under way.
    pub(crate) filling: Option<Box<Filling>>,
}

/// What is known about the bytes' history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// This process has held it since it joined its config or made it.
    Held,
    /// It was on the disk when this process started.
    Found { same_kernel: bool },
}

/// Where the replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// On the disk, never confirmed for this boot.
    Unconfirmed,
    /// Was confirmed for this boot, but by an earlier registration: takes forwards, serves nothing.
    Unsure,
    Active,
    /// Being filled by its primary.
    Learner,
    /// Refuses everything below its version until an Active comes.
    Fenced,
    /// The config goes on without this server.
    Removed,
    /// Its disk failed it.
    Failed,
}

/// A FORWARD that the disk has; who sent it again meanwhile is answered with the first.
#[derive(Debug)]
pub(crate) struct Applying {
    pub(crate) seq: Seq,
    pub(crate) calls: Vec<CallToken>,
}

/// Blocks of a chunk: the unit of locks and of pending ranges, because a read returns whole blocks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Blocks(Vec<(u32, u32)>);

impl Blocks {
    /// The blocks that ascending, disjoint ranges touch.
    pub(crate) fn of(ranges: &[Range]) -> Blocks {
        let mut runs: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for range in ranges.iter().filter(|range| range.len > 0) {
            let (from, to) = (range.offset / BLOCK_SIZE, range.end().div_ceil(BLOCK_SIZE));
            match runs.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => runs.push((from, to)),
            }
        }
        Blocks(runs)
    }

    /// Every block.
    pub(crate) fn all() -> Blocks {
        Blocks(vec![(0, u32::MAX)])
    }

    /// One after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|&(from, to)| from..to)
    }

    pub(crate) fn contains(&self, block: u32) -> bool {
        self.0.iter().any(|run| run.0 <= block && block < run.1)
    }

    pub(crate) fn overlaps(&self, other: &Blocks) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.0 < b.1 && b.0 < a.1))
    }
}

/// Writes that began lately, for the check that none overlapped a read (R3).
#[derive(Debug, Default)]
pub(crate) struct Begun {
    count: u64,
    last: VecDeque<Blocks>,
}

impl Begun {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn note(&mut self, blocks: &Blocks) {
        self.count += 1;
        if self.last.len() == BEGUN_MAX {
            self.last.pop_front();
        }
        self.last.push_back(blocks.clone());
    }

    /// Whether a write that overlaps `blocks` may have begun after `count` writes had.
    pub(crate) fn since(&self, count: u64, blocks: &Blocks) -> bool {
        let new = self.count.saturating_sub(count);
        match usize::try_from(new) {
            Ok(new) if new <= self.last.len() => {
                self.last.iter().rev().take(new).any(|begun| begun.overlaps(blocks))
            }
            _ => true,
        }
    }
}

impl Replica {
    pub(crate) fn found(found: &FoundReplica) -> Replica {
        Replica {
            disk: found.disk,
            made: true,
            version: found.version,
            config: found.config,
            open_num: found.open_num,
            closed: found.closed.is_some(),
            digest: found.closed,
            size_epoch: found.size_epoch,
            ino: found.ino,
            index: found.index,
            origin: Origin::Found { same_kernel: found.same_kernel },
            learner: found.learner,
            standing: if found.failed { Standing::Failed } else { Standing::Unconfirmed },
            applied: SeqWindow::starting_at(found.synced),
            ..Replica::empty(found.chunk, found.disk)
        }
    }

    /// A replica without a file, of no config.
    pub(crate) fn empty(chunk: ChunkId, disk: DiskIx) -> Replica {
        Replica {
            chunk,
            disk,
            made: false,
            version: ChunkVersion(0),
            config: ConfigNum(0),
            open_num: OpenNum(0),
            closed: false,
            digest: None,
            header_due: false,
            lossy: ChunkVersion(0),
            size_epoch: SizeEpoch(0),
            ino: Ino(0),
            index: ChunkIndex(0),
            note: None,
            members: Vec::new(),
            origin: Origin::Held,
            standing: Standing::Unconfirmed,
            withdrawn: ConfigNum(0),
            learner: false,
            applied: SeqWindow::default(),
            committed: Seq(0),
            ops: OpTable::default(),
            pending: Vec::new(),
            applying: Vec::new(),
            begun: Begun::default(),
            disk_ops: 0,
            lead: None,
            filling: None,
        }
    }

    pub(crate) fn header(&self) -> ReplicaHeader {
        ReplicaHeader {
            chunk: self.chunk,
            version: self.version,
            config: self.config,
            open_num: self.open_num,
            size_epoch: self.size_epoch,
            ino: self.ino,
            index: self.index,
            learner: self.learner,
            open: self.digest.is_none(),
            members: u8::try_from(self.members.len()).unwrap_or(u8::MAX),
            note: self.note.clone(),
        }
    }

    /// The header that the next write has to bring to the disk first.
    pub(crate) fn due_header(&self) -> Option<ReplicaHeader> {
        (!self.made || self.header_due).then(|| self.header())
    }

    /// A write brought the file, or the header of another opening, to the disk.
    pub(crate) fn is_on_disk(&mut self) {
        (self.made, self.header_due) = (true, false);
        self.note = None;
    }

    /// Begins another opening, if it is one.
    pub(crate) fn reopen(&mut self, open_num: OpenNum) {
        if open_num > self.open_num {
            self.open_num = open_num;
            (self.closed, self.digest) = (false, None);
            self.header_due = self.made;
        }
    }

    /// Whether writes of that opening are over.
    pub(crate) fn is_over(&self, open_num: OpenNum) -> bool {
        open_num < self.open_num || (self.closed && open_num == self.open_num)
    }

    pub(crate) fn class(&self) -> ReplicaClass {
        match self.origin {
            Origin::Held => ReplicaClass::Intact,
            Origin::Found { same_kernel: true } => ReplicaClass::Restarted,
            Origin::Found { same_kernel: false } => ReplicaClass::Rebooted,
        }
    }

    pub(crate) fn is_primary(&self, me: ServerNum) -> bool {
        self.members.first().is_some_and(|first| first.server == me)
    }

    /// Whether it takes part in writes of `version`: confirmed for it in this process.
    pub(crate) fn takes_part(&self) -> bool {
        match self.standing {
            Standing::Active | Standing::Unsure | Standing::Learner => true,
            Standing::Unconfirmed | Standing::Fenced | Standing::Removed | Standing::Failed => false,
        }
    }

    /// Who has to have what is acknowledged or synced, besides the members.
    pub(crate) fn mandatory_learner(&self) -> Option<Member> {
        self.lead.as_ref()?.fill.as_ref()?.mandatory()
    }

    /// Every write up to `committed` is on all members: its blocks are pending no longer.
    pub(crate) fn commit(&mut self, committed: Seq) {
        if committed > self.committed {
            self.committed = committed;
            self.pending.retain(|&(seq, _)| seq > committed);
        }
    }

    pub(crate) fn is_pending(&self, blocks: &Blocks) -> bool {
        self.pending.iter().any(|(_, pending)| pending.overlaps(blocks))
    }

    /// Takes the numbers of a config that the master confirmed. An unclean change (a higher version) starts
    /// from what the recovery's base had; a clean one keeps what is here. So does the confirmation of a closed
    /// replica that was found on the disk: it has all that was ever written, up to its synced number.
    pub(crate) fn adopt(&mut self, config: &ActiveConfig) {
        let unclean = config.version > self.version
            || self.standing == Standing::Fenced
            || (self.standing == Standing::Unconfirmed && !config.closed);
        self.version = config.version;
        self.config = config.config;
        self.reopen(config.open_num);
        if config.open_num == self.open_num {
            self.closed = config.closed;
        }
        if !self.closed {
            self.digest = None;
        }
        self.lossy = self.lossy.max(config.lossy);
        if !self.made {
            // Of a replica with bytes, only a zeroing raises it: it says which one was applied here.
            self.size_epoch = config.size_epoch;
        }
        self.ino = config.ino;
        self.index = config.index;
        self.members.clone_from(&config.members);
        if unclean {
            let ops = if planted!(ForgetOps) { &[] } else { config.ops.as_slice() };
            self.ops = OpTable::from_records(ops);
            self.applied = SeqWindow::starting_at(config.seq);
            self.committed = config.seq;
            self.pending.clear();
        } else if self.standing == Standing::Unconfirmed {
            self.committed = self.applied.highest();
        }
        self.standing = Standing::Active;
        self.withdrawn = ConfigNum(0);
        self.learner = false;
        self.origin = Origin::Held;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u32, len: u32) -> Range {
        Range { offset, len }
    }

    #[test]
    fn blocks_round_outwards() {
        let a = Blocks::of(&[range(0, 1), range(4095, 2), range(40960, 4096)]);
        assert_eq!(a, Blocks(vec![(0, 2), (10, 11)]));
        assert!(a.overlaps(&Blocks::of(&[range(8191, 1)])));
        assert!(!a.overlaps(&Blocks::of(&[range(8192, 4096)])));
        assert!(Blocks::all().overlaps(&a));
    }

    #[test]
    fn begun_writes_show_by_overlap_until_forgotten() {
        let mut begun = Begun::default();
        let (a, b) = (Blocks::of(&[range(0, 1)]), Blocks::of(&[range(8192, 1)]));
        begun.note(&a);
        let count = begun.count();
        assert!(!begun.since(count, &a));
        begun.note(&b);
        assert!(!begun.since(count, &a));
        assert!(begun.since(count, &b));
        for _ in 0..BEGUN_MAX {
            begun.note(&b);
        }
        assert!(begun.since(count, &a), "too many to say");
    }
}
