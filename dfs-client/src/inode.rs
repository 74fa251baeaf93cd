//! What is known of an inode that is open or whose grant is kept, and the handles on it.
//!
//! An [`Inode`] belongs to one incarnation of the session; when that ends it is dead for good, and an
//! open of the same number makes a new one. Invariant: `places`, `size` and `ahead` are used without
//! asking the master only while `grant` is held, `dead` is false and the session's lease stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use dfs_proto::ids::{ChunkId, ChunkVersion, GrantId, Handle, Ino, LogIndex, OpId, SizeEpoch};
use dfs_proto::meta::{Access, Attr, ChunkPlace, Grant, GrantKind};
use dfs_proto::units::{ChunkIndex, ChunkSize, Micros};
use tokio::sync::Notify;

use crate::ahead::Slot;
use crate::core::ahead::Stream;
use crate::core::dirty::Dirty;
use crate::core::latch::{Latch, Seen};
use crate::core::opids::OpIds;
use crate::error::Error;
use crate::making::Pending;
use crate::owed::Debt;
use crate::shared::lock;

/// See the module.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) incarnation: u64,
    state: Mutex<State>,
    /// Something that others wait for has changed: a flight landed, a gate opened, the inode died.
    pub(crate) changed: Notify,
    /// One commit or truncation at a time, so that sizes reach the master in order.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// One question about an index at a time: the others find its answer. Indices share them in turn.
    map_turns: [tokio::sync::Mutex<()>; 8],
    /// One append without a grant at a time.
    pub(crate) append_turn: tokio::sync::Mutex<()>,
}

/// Whether writes may enter the buffer and leave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    Open,
    /// The grant is going back: what is dirty leaves, nothing enters.
    Draining,
    /// The file is being cut: what is dirty stays, new writes wait.
    Cutting,
}

/// What a chunk index stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mapped {
    Place(Arc<ChunkPlace>),
    Hole,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) dead: bool,
    pub(crate) grant: Grant,
    /// The last grant that was held and has not been given back. An answer that none stands comes also while that is being
    /// recalled: the master has it still.
    pub(crate) last_grant: GrantId,
    /// The grant that is being handed back.
    pub(crate) returning: Option<GrantId>,
    pub(crate) gate: Gate,
    /// Grants that are being given up: the gate opens with the end of the last.
    pub(crate) drains: usize,
    /// Open handles, and whether each may write.
    pub(crate) handles: BTreeMap<Handle, bool>,
    /// The place among the idle, if no handle is open.
    pub(crate) idle: Option<u64>,
    pub(crate) attr: Option<(Attr, Micros)>,
    /// The record that the attributes taken last were as of: answers are taken in by tasks, in any order.
    pub(crate) attr_as_of: LogIndex,
    /// Raised by every local change of attributes: an answer asked for before it is old.
    pub(crate) attr_changes: u64,
    pub(crate) size: u64,
    pub(crate) size_epoch: SizeEpoch,
    /// The master lost records: its next size epoch may be lower.
    pub(crate) rewound: bool,
    /// How often it did: places of before are none any more.
    pub(crate) tails_lost: u64,
    pub(crate) places: BTreeMap<ChunkIndex, Mapped>,
    pub(crate) ops: BTreeMap<ChunkId, OpIds>,
    /// Counts writes that were given up, and may still take effect.
    pub(crate) given_up: u64,
    /// Of how many of them the master knows.
    pub(crate) given_up_told: u64,
    pub(crate) dirty: Dirty,
    pub(crate) dirty_since: Option<Micros>,
    /// Flushes under way: everything dirty is to leave at once.
    pub(crate) flushing: usize,
    /// Bytes buffered since a flush began.
    pub(crate) since_flush: u64,
    /// How far acknowledged writes reach.
    pub(crate) acked_end: u64,
    /// The size that the master knows.
    pub(crate) committed: u64,
    /// Written since the last mtime that the master gave.
    pub(crate) touched: bool,
    /// A program made the file here and has not closed it since.
    pub(crate) making: bool,
    /// Attributes that wait for that close.
    pub(crate) pending: Option<Pending>,
    /// Raised by every write: what was fetched or asked for before is old.
    pub(crate) writes: u64,
    /// Raised by every truncation by this mount.
    pub(crate) cuts: u64,
    /// Written since the last sync.
    pub(crate) unsynced: BTreeMap<ChunkId, Unsynced>,
    /// Counts acknowledged writes, so that a sync knows of those that came after it began.
    pub(crate) acks: u64,
    /// The master knows that these were synced.
    pub(crate) synced: BTreeSet<(ChunkId, ChunkVersion)>,
    /// The Write grant under which the others' writes were synced: there can't be more of them.
    pub(crate) alone: Option<GrantId>,
    /// The log index of the last change to this inode that was answered.
    pub(crate) last_change: LogIndex,
    pub(crate) latch: Latch,
    /// What is fetched ahead, by window.
    pub(crate) ahead: BTreeMap<u64, Arc<Slot>>,
}

/// A chunk with writes that are acknowledged and may not be on the disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unsynced {
    pub(crate) chunk: ChunkId,
    pub(crate) index: ChunkIndex,
    /// The lowest version under which one of them was acknowledged.
    pub(crate) since: ChunkVersion,
    /// [`State::acks`] at the last of them.
    pub(crate) last: u64,
}

impl Inode {
    pub(crate) fn new(ino: Ino, incarnation: u64, chunk: ChunkSize) -> Inode {
        let state = State {
            dead: false,
            grant: Grant { id: GrantId(0), kind: GrantKind::None },
            last_grant: GrantId(0),
            returning: None,
            gate: Gate::Open,
            drains: 0,
            handles: BTreeMap::new(),
            idle: None,
            attr: None,
            attr_as_of: LogIndex(0),
            attr_changes: 0,
            size: 0,
            size_epoch: SizeEpoch(0),
            rewound: false,
            tails_lost: 0,
            places: BTreeMap::new(),
            ops: BTreeMap::new(),
            given_up: 0,
            given_up_told: 0,
            dirty: Dirty::new(chunk),
            dirty_since: None,
            flushing: 0,
            since_flush: 0,
            acked_end: 0,
            committed: 0,
            touched: false,
            making: false,
            pending: None,
            writes: 0,
            cuts: 0,
            unsynced: BTreeMap::new(),
            acks: 0,
            synced: BTreeSet::new(),
            alone: None,
            last_change: LogIndex(0),
            latch: Latch::default(),
            ahead: BTreeMap::new(),
        };
        Inode {
            ino,
            incarnation,
            state: Mutex::new(state),
            changed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            map_turns: Default::default(),
            append_turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The right to ask the master about an index.
    pub(crate) async fn map_turn(&self, index: ChunkIndex) -> tokio::sync::MutexGuard<'_, ()> {
        let turns = u64::try_from(self.map_turns.len()).unwrap_or(1);
        let nth = usize::try_from(index.0 % turns).unwrap_or(0);
        self.map_turns[nth].lock().await
    }

    /// Waits until `test` gives something. It is asked again after every change.
    pub(crate) async fn until<T>(&self, mut test: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = test(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    /// The number for one write to `chunk`, as soon as the window allows it; none when the inode died.
    pub(crate) async fn take_op(&self, chunk: ChunkId, floor: u64) -> Option<OpId> {
        self.until(|state| {
            if state.dead {
                return Some(None);
            }
            state.ops.entry(chunk).or_insert_with(|| OpIds::above(floor)).take().map(Some)
        })
        .await
    }

    /// The operation will not be sent again. `known`: what became of it.
    pub(crate) fn op_is_over(&self, chunk: ChunkId, op: OpId, known: bool) {
        let mut state = self.lock();
        if let Some(ops) = state.ops.get_mut(&chunk) {
            ops.answered(op);
        }
        state.given_up += u64::from(!known);
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    /// Whether a read may be answered from what is known here.
    pub(crate) fn may_cache(&self) -> bool {
        !self.dead && self.grant.kind >= GrantKind::Read
    }

    /// Whether writes are buffered.
    pub(crate) fn may_buffer(&self) -> bool {
        !self.dead && self.grant.kind == GrantKind::Write
    }

    /// Whether others may have written what is not synced.
    pub(crate) fn is_shared(&self) -> bool {
        !self.may_buffer() || self.alone != Some(self.grant.id)
    }

    /// Nothing to write, nothing to commit.
    pub(crate) fn is_settled(&self) -> bool {
        self.dirty.is_clean() && !self.must_commit()
    }

    pub(crate) fn must_commit(&self) -> bool {
        self.attrs_wait() || self.acked_end > self.committed
    }

    /// The count of writes given up, if the master does not know of all of them.
    pub(crate) fn left_writes(&self) -> Option<u64> {
        (self.given_up > self.given_up_told).then_some(self.given_up)
    }

    /// Takes the master's word for attributes and, where no bytes of ours are ahead of it, for the size.
    pub(crate) fn take_attr(&mut self, attr: &Attr, as_of: LogIndex, now: Micros) {
        // A truncation can show first in a map, which has no attributes.
        let overtaken = as_of < self.attr_as_of || attr.size_epoch < self.size_epoch;
        if overtaken && !self.rewound {
            return;
        }
        self.rewound = false;
        self.attr_as_of = as_of;
        self.attr = Some((*attr, now));
        if attr.size_epoch > self.size_epoch {
            // The file was cut since: a size from before would make it grow again, with nothing in it, and a place from
            // before may be of a chunk that only those read who have not heard of the cut.
            self.acked_end = 0;
            self.places.retain(|_, mapped| match mapped {
                Mapped::Place(place) => place.capability.size_epoch >= attr.size_epoch,
                Mapped::Hole => false,
            });
        }
        self.size_epoch = attr.size_epoch;
        self.committed = attr.size;
        let ours = if self.may_buffer() { self.acked_end.max(self.dirty.end().unwrap_or(0)) } else { 0 };
        self.size = attr.size.max(ours);
    }

    /// The attributes as this mount's programs have to see them.
    pub(crate) fn show(&self, mut attr: Attr) -> Attr {
        self.show_pending(&mut attr);
        if self.may_buffer() {
            attr.size = self.size;
            // Programs take a file with fewer blocks than bytes for sparse.
            attr.blocks = attr.blocks.saturating_add(self.dirty.bytes().div_ceil(512));
        }
        attr
    }

    /// A write to the chunk was acknowledged.
    pub(crate) fn owe_sync(&mut self, chunk: ChunkId, index: ChunkIndex, version: ChunkVersion) {
        self.acks += 1;
        let new = Unsynced { chunk, index, since: version, last: self.acks };
        let owed = self.unsynced.entry(chunk).or_insert(new);
        (owed.since, owed.last) = (owed.since.min(version), self.acks);
    }

    /// What was owed for this inode when it was forgotten.
    pub(crate) fn take_owed(&mut self, debt: Debt) {
        if debt.lost {
            self.latch.set(Error::Io);
        }
        for (chunk, old) in debt.chunks {
            self.acks = self.acks.max(old.last);
            let owed = self.unsynced.entry(chunk).or_insert(old);
            owed.since = owed.since.min(old.since);
        }
    }

    /// A sync under `version` that began when `asked` was owed has ended: all of that is on the disks, or is
    /// known to be lost. What was acknowledged meanwhile is still owed.
    pub(crate) fn sync_ended(&mut self, asked: &Unsynced, version: ChunkVersion) {
        let Some(owed) = self.unsynced.get_mut(&asked.chunk) else { return };
        if owed.last == asked.last {
            self.unsynced.remove(&asked.chunk);
        } else {
            owed.since = owed.since.max(version);
        }
    }

    /// Drops what was fetched ahead. Returns how many bytes that frees.
    pub(crate) fn drop_ahead(&mut self) -> u64 {
        std::mem::take(&mut self.ahead).values().map(|slot| slot.charged()).sum()
    }

    /// Forgets the counters of operation ids; what they used is at or below the answer.
    pub(crate) fn forget_ops(&mut self) -> u64 {
        std::mem::take(&mut self.ops).values().map(OpIds::used).max().unwrap_or(0)
    }
}

/// An open file. Clones are the same open file.
#[derive(Clone, Debug)]
pub struct FileHandle {
    pub(crate) open: Arc<OpenFile>,
}

#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) inode: Arc<Inode>,
    pub(crate) id: Handle,
    pub(crate) access: Access,
    pub(crate) cached: bool,
    pub(crate) keep_cache: bool,
    /// Held for a moment, after the inode's lock where both are needed.
    pub(crate) seen: Mutex<Seen>,
    /// Held for a moment, after the inode's lock where both are needed.
    pub(crate) stream: Mutex<Stream>,
}

impl FileHandle {
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.open.inode.ino
    }

    /// Unique in the session.
    #[must_use]
    pub fn id(&self) -> Handle {
        self.open.id
    }

    #[must_use]
    pub fn access(&self) -> Access {
        self.open.access
    }

    /// It was opened under a grant: the kernel may cache pages. Without: direct I/O.
    #[must_use]
    pub fn cached(&self) -> bool {
        self.open.cached
    }

    /// Pages that the kernel has from before are still true: the grant was held since.
    #[must_use]
    pub fn keep_cache(&self) -> bool {
        self.open.keep_cache
    }
}
