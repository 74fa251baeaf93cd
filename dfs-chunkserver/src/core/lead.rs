//! What a primary keeps of a chunk that it leads: writes in flight with their acknowledgements, writes that
//! wait for blocks, reads that wait for writes, the learner being filled, and the blocks being mended. Data and
//! look-ups only; what happens is in `primary`, `write`, `zero`, `fill` and `mend`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use dfs_proto::chunk::{ForwardMeta, Member, Range, WriteMeta};
use dfs_proto::ids::{OpId, Seq, ServerNum, SessionId, SizeEpoch};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::agree::Agreeing;
use crate::core::fill::Fill;
use crate::core::io::{CallToken, DiskFault};
use crate::core::mend::Mend;
use crate::core::replica::Blocks;

/// Writes of one chunk in flight, and as many again waiting for blocks: four full op windows.
pub(crate) const FLIGHTS_MAX: usize = 256;
/// Reads of one chunk that wait for writes.
pub(crate) const PARKED_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Lead {
    /// The last sequence number given out.
    pub(crate) last: Seq,
    /// What the others were told of `committed`.
    pub(crate) told: Seq,
    pub(crate) flights: BTreeMap<Seq, Flight>,
    /// In order of arrival.
    pub(crate) queue: VecDeque<Waiting>,
    pub(crate) parked: Vec<(CallToken, Blocks)>,
    /// Members of a new chunk that have not acknowledged a write yet: FORWARDs to them say how to make it.
    pub(crate) unmade: BTreeSet<ServerNum>,
    pub(crate) fill: Option<Fill>,
    /// Members with damaged blocks that wait for them.
    pub(crate) asks: Vec<(Member, Range)>,
    pub(crate) mend: Option<Mend>,
    pub(crate) agreeing: Option<Agreeing>,
}

/// A write, or a zeroing, that has its number.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) blocks: Blocks,
    /// What the others are sent, but for `to`, `committed` and `create`.
    pub(crate) meta: ForwardMeta,
    pub(crate) payload: Bytes,
    pub(crate) local: Local,
    pub(crate) acks: Vec<Ack>,
    /// Who asked; a retry joins.
    pub(crate) calls: Vec<CallToken>,
}

/// How far the primary's own disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Local {
    Running,
    Applied,
    /// Not applied: it brings a part of a block that is damaged here, and is applied once that is mended.
    Damaged,
    /// Not applied, and nothing changed: the bytes do not match their checksums, or the disk is full.
    Refused(DiskFault),
}

/// One other member's part in a flight.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) member: Member,
    pub(crate) state: AckState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckState {
    Sent {
        tries: u32,
    },
    /// To be sent again at that time.
    Again {
        tries: u32,
        at: Micros,
        /// What it answered; `None` when it did not.
        why: Option<Status>,
    },
    Acked,
    /// It answered that it can't: only a new config helps.
    Refused(Status),
}

/// What waits until the blocks it needs are free.
#[derive(Debug)]
pub(crate) enum Waiting {
    Write {
        calls: Vec<CallToken>,
        meta: Box<WriteMeta>,
        payload: Bytes,
        blocks: Blocks,
    },
    Zero {
        call: CallToken,
        offset: u32,
        size_epoch: SizeEpoch,
        blocks: Blocks,
    },
    /// A part of the fill, by its offset, or all of it.
    Fill {
        blocks: Blocks,
        part: Option<u32>,
    },
}

impl Waiting {
    pub(crate) fn blocks(&self) -> &Blocks {
        match self {
            Waiting::Write { blocks, .. } | Waiting::Zero { blocks, .. } | Waiting::Fill { blocks, .. } => {
                blocks
            }
        }
    }
}

impl Lead {
    pub(crate) fn starting_at(seq: Seq) -> Lead {
        Lead {
            last: seq,
            told: seq,
            flights: BTreeMap::new(),
            queue: VecDeque::new(),
            parked: Vec::new(),
            unmade: BTreeSet::new(),
            fill: None,
            asks: Vec::new(),
            mend: None,
            agreeing: None,
        }
    }

    /// Whether nothing is under way that changes a replica's bytes.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.flights.is_empty() && self.queue.is_empty() && self.fill.is_none() && self.mend.is_none()
    }

    /// Whether a write in flight touches `blocks`.
    pub(crate) fn is_written(&self, blocks: &Blocks) -> bool {
        self.flights.values().any(|flight| flight.blocks.overlaps(blocks))
    }

    /// Whether something that changes or copies `blocks` holds them.
    pub(crate) fn is_locked(&self, blocks: &Blocks) -> bool {
        self.is_written(blocks)
            || self.fill.as_ref().is_some_and(|fill| fill.locks(blocks))
            || self.mend.as_ref().is_some_and(|mend| mend.blocks.overlaps(blocks))
    }

    /// Whether a newcomer has to wait: for what holds its blocks, or behind who waits for them.
    pub(crate) fn must_wait(&self, blocks: &Blocks) -> bool {
        self.is_locked(blocks) || self.queue.iter().any(|waiting| waiting.blocks().overlaps(blocks))
    }

    /// The first waiting one that can go on now; one behind another with common blocks can't.
    pub(crate) fn next_runnable(&mut self) -> Option<Waiting> {
        let at = (0..self.queue.len()).find(|&at| {
            let blocks = self.queue[at].blocks();
            !self.is_locked(blocks)
                && !self.queue.iter().take(at).any(|ahead| ahead.blocks().overlaps(blocks))
        })?;
        self.queue.remove(at)
    }

    /// The calls of a write on its way, so that its retry can join.
    pub(crate) fn calls_of(&mut self, session: SessionId, op: OpId) -> Option<&mut Vec<CallToken>> {
        let flight = self
            .flights
            .values_mut()
            .find(|flight| flight.meta.session == session && flight.meta.op == op)
            .map(|flight| &mut flight.calls);
        if flight.is_some() {
            return flight;
        }
        self.queue.iter_mut().find_map(|waiting| match waiting {
            Waiting::Write { calls, meta, .. } if meta.capability.session == session && meta.op == op => {
                Some(calls)
            }
            Waiting::Write { .. } | Waiting::Zero { .. } | Waiting::Fill { .. } => None,
        })
    }

    /// The highest number up to which every write is on all members.
    pub(crate) fn committed(&self) -> Seq {
        self.flights.first_key_value().map_or(self.last, |(first, _)| Seq(first.0 - 1))
    }
}

impl Ack {
    /// What it last answered, if that was an error.
    pub(crate) fn refused(&self) -> Option<Status> {
        match self.state {
            AckState::Refused(status) => Some(status),
            AckState::Again { why, .. } => why,
            AckState::Sent { .. } | AckState::Acked => None,
        }
    }
}

impl Flight {
    /// Applied here and by every other member.
    pub(crate) fn is_done(&self) -> bool {
        let missing = self.acks.iter().filter(|ack| ack.state != AckState::Acked).count();
        self.local == Local::Applied && missing <= usize::from(planted!(AckOneShort))
    }

    /// What everyone refused it for: it took effect nowhere.
    pub(crate) fn refused_by_all(&self) -> Option<Status> {
        let status = self.refused_here()?.status();
        self.acks.iter().all(|ack| ack.refused() == Some(status)).then_some(status)
    }

    pub(crate) fn refused_here(&self) -> Option<DiskFault> {
        match self.local {
            Local::Refused(fault) => Some(fault),
            Local::Running | Local::Applied | Local::Damaged => None,
        }
    }
}
