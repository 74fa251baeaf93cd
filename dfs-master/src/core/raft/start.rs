//! What a node starts from, checked.

use raft::{Config, ReadOnlyOption};

use super::RaftStartError;
use super::convert;
use super::member::check_conf;
use super::message::is_sound;
use super::store::Store;
use crate::log::entry::{ConfState, EntryId, EntryKind, HardState, LogEntry, NodeId};

/// A node's options. A tick is whatever the driver's clock makes it; all nodes of a group must agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RaftConfig {
    pub id: NodeId,
    pub heartbeat_ticks: u16,
    /// How long a leader may be silent before others ask for votes, and how long they refuse theirs.
    pub election_ticks: u16,
    /// Of the cluster: spreads the nodes' election timeouts, the same way in every run.
    pub seed: u64,
}

impl RaftConfig {
    /// Heartbeats each tick, elections after ten silent ones.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> RaftConfig {
        RaftConfig { id, heartbeat_ticks: 1, election_ticks: 10, seed }
    }

    /// This node's own timeout, in `election_ticks..2 * election_ticks`. Members of a group get
    /// different ones as long as there are ticks enough, or two of them could split votes for ever.
    fn own_election_ticks(&self, conf: &ConfState) -> usize {
        let ticks = u64::from(self.election_ticks.max(1));
        let mut voters = conf.voters.clone();
        voters.sort_unstable();
        let rank = voters.iter().filter(|id| **id < self.id).count() as u64;
        let step = (ticks / voters.len().max(1) as u64).max(1);
        let offset = (self.seed % ticks + rank * step) % ticks;
        usize::try_from(ticks + offset).unwrap_or(usize::MAX)
    }
}

/// What was recovered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaftStart {
    /// The last entry that the applied state includes: the snapshot's, or that of a replay done since.
    pub base: EntryId,
    /// The members after `base`.
    pub conf: ConfState,
    /// Every entry after `base`.
    pub entries: Vec<LogEntry>,
    pub hard_state: HardState,
}

impl RaftStart {
    /// A new group of one voter.
    #[must_use]
    pub fn empty(id: NodeId) -> RaftStart {
        RaftStart {
            base: EntryId::default(),
            conf: ConfState::of(&[id]),
            entries: Vec::new(),
            hard_state: HardState::default(),
        }
    }

    /// The store to begin with.
    pub(super) fn into_store(self, id: NodeId) -> Result<Store, RaftStartError> {
        check_conf(&self.conf)?;
        let mut last = self.base;
        for entry in &self.entries {
            if entry.index.0 != last.index.0 + 1 {
                return Err(RaftStartError::Gap { found: entry.index, last: last.index });
            }
            if entry.term < last.term || entry.term > self.hard_state.term {
                return Err(RaftStartError::Term { index: entry.index, term: entry.term.0 });
            }
            if entry.kind == EntryKind::ConfChange && !is_sound(entry) {
                return Err(RaftStartError::Change(entry.index));
            }
            last = entry.id();
        }
        let mut hard_state = self.hard_state;
        // What a sole voter has persisted is committed: nobody could replace it.
        let known = if self.conf.is_sole_voter(id) { last.index } else { hard_state.commit };
        hard_state.commit = known.clamp(self.base.index, last.index);
        let base = (self.base.index.0, self.base.term.0);
        let mut store = Store::new(convert::hard_state_in(hard_state), convert::conf_in(&self.conf), base);
        store.append(self.entries.into_iter().map(convert::entry_in));
        Ok(store)
    }
}

/// Most bytes of entries in one message: what a link carries in a few milliseconds.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages under way to a follower, before its answers are waited for.
const INFLIGHT_MESSAGES: usize = 256;
/// Proposed and not yet committed, before a leader says that it is busy.
const UNCOMMITTED_BYTES: u64 = 64 << 20;

/// raft-rs's options.
pub(super) fn options(config: &RaftConfig, conf: &ConfState, applied: u64) -> Config {
    let own = config.own_election_ticks(conf);
    Config {
        id: config.id.0,
        election_tick: usize::from(config.election_ticks),
        heartbeat_tick: usize::from(config.heartbeat_ticks),
        // An interval of one value leaves raft-rs's own randomness nothing to choose.
        min_election_tick: own,
        max_election_tick: own + 1,
        applied,
        max_size_per_msg: MESSAGE_BYTES,
        max_inflight_msgs: INFLIGHT_MESSAGES,
        max_uncommitted_size: UNCOMMITTED_BYTES,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        read_only_option: ReadOnlyOption::Safe,
        ..Config::default()
    }
}
