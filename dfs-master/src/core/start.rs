//! From what the disk holds to a core, and from a follower to a leader.

use std::collections::BTreeMap;

use super::Core;
use super::command::{Command, Record};
use super::config::{CoreConfig, Recovered, StartError};
use super::contract::{CallNum, Now};
use super::hold::Hold;
use super::pump::LogProgress;
use super::raft::{RaftConfig, RaftNode, RaftStart};
use super::soft::Soft;
use super::state::State;
use crate::log::entry::{ConfState, EntryId, EntryKind, LogEntry};

impl Core {
    /// The core as it stands after what the disk holds. An empty log gets its first record with the
    /// first steps.
    ///
    /// # Errors
    /// When the recovered parts do not fit each other or this build.
    pub fn new(config: CoreConfig, recovered: Recovered, now: Now) -> Result<Core, StartError> {
        let Recovered { snapshot, mut entries, hard_state } = recovered;
        let (mut state, mut base, conf) = match snapshot {
            Some(snapshot) => {
                let base = EntryId { index: snapshot.index, term: snapshot.term };
                (snapshot.image.into_state(), base, snapshot.conf)
            }
            None => (State::empty(), EntryId::default(), ConfState::of(&[config.node])),
        };
        state.applied = base.index;
        let mut applied_term = base.term;
        let snapshot_index = base.index;
        let mut terms = vec![base];
        terms.extend(entries.iter().map(LogEntry::id));
        if let Some(first) = entries.first()
            && first.index.0 != base.index.0 + 1
        {
            return Err(StartError::Gap { first: first.index, snapshot: base.index });
        }
        if conf.is_sole_voter(config.node) {
            // What a sole voter has written is committed: nobody could replace it. Replayed here, it
            // need not be held in memory a second time.
            let plain = entries.iter().take_while(|entry| entry.kind != EntryKind::ConfChange).count();
            for entry in entries.drain(..plain) {
                base = entry.id();
                if entry.kind == EntryKind::Command {
                    let index = entry.index;
                    let record =
                        Record::decode(&entry.data).map_err(|why| StartError::BadCommand { index, why })?;
                    state.apply(index, &record);
                    applied_term = entry.term;
                }
            }
        }
        if let Some(cluster) = state.cluster.filter(|cluster| cluster.id != config.cluster) {
            return Err(StartError::WrongCluster { found: cluster.id, wanted: config.cluster });
        }
        let last = entries.last().map_or(base, |entry| entry.id());
        let raft_config = RaftConfig::new(config.node, config.seed);
        let raft = RaftNode::new(&raft_config, RaftStart { base, conf, entries, hard_state })
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let soft = Soft::new(&state, now.mono, config.server_lease_ms, hard_state.term, config.seed);
        let mut log = LogProgress::recovered(last, applied_term, snapshot_index, hard_state);
        log.records = last.index.0 - snapshot_index.0;
        terms.into_iter().for_each(|id| log.note_term(id));
        Ok(Core {
            raft,
            state,
            log,
            pending: BTreeMap::new(),
            inflight: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_call: CallNum(0),
            early: Vec::new(),
            leading: false,
            soft,
            hold: Hold::default(),
            started: now.mono,
            now,
            effects: Vec::new(),
            config,
        })
    }

    /// This node leads now, and has applied all that was committed before: it takes over.
    pub(super) fn lead(&mut self) {
        let (elected, lease_ms) = (self.now.mono, self.config.server_lease_ms);
        self.soft = Soft::new(&self.state, elected, lease_ms, self.term(), self.config.seed);
        self.leading = true;
        self.hold_if_it_differs();
        if self.state.cluster.is_none() {
            let CoreConfig { cluster, generation, chunk_size, goal, .. } = self.config;
            self.propose_own(Command::Genesis { cluster, generation, chunk_size, goal });
        }
        self.reserve_ids();
        self.take_up_truncations();
        for early in std::mem::take(&mut self.early) {
            self.request(early.caller, early.rid, early.done, &early.body);
        }
        log::info!("leading in term {} from record {}", self.term(), self.state.applied);
    }

    /// Reserves chunk ids ahead of their use.
    pub(super) fn reserve_ids(&mut self) {
        if let Some(below) = self.soft.ids.wanted()
            && self.propose_own(Command::ReserveIds { below })
        {
            self.soft.ids.ask();
        }
    }
}
