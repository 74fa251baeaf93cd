//! The node: raft-rs's asynchronous ready, turned into calls that cannot be made in the wrong order.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use dfs_proto::ids::{LogIndex, Term};
use raft::eraftpb as pb;
use raft::{RawNode, StateRole, Storage as _};

use super::convert;
use super::member::{MemberChange, decode_changes};
use super::message::{BadMessage, MessageKind, Ours, RaftMessage, SnapshotOffer};
use super::start::{self, RaftConfig, RaftStart};
use super::store::Store;
use super::{Install, RaftStartError, ReadyOut, Refused};
use crate::log::entry::{ConfState, EntryId, EntryKind, HardState, LogEntry, NodeId};

/// A member of the group.
pub struct RaftNode {
    raw: RawNode<Store>,
    id: NodeId,
    /// To be persisted and not yet handed to the driver.
    out: VecDeque<ReadyOut>,
    /// Numbers of what is to be persisted, handed out or not, in order.
    waiting: VecDeque<u64>,
    /// The newest number, of readies that need no persisting too.
    newest: u64,
    /// Messages that promise something that is not persisted yet, by number.
    held: VecDeque<(u64, Vec<pb::Message>)>,
    /// Snapshots being installed, by number.
    installs: VecDeque<(u64, u64)>,
    messages: Vec<RaftMessage>,
    committed: Vec<LogEntry>,
    /// A hard state in which only the commit moved: a hint, written along with the next entries.
    lazy: Option<HardState>,
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode")
            .field("id", &self.id)
            .field("term", &self.term())
            .field("leader", &self.leader())
            .field("last", &self.last())
            .field("commit", &self.commit())
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl RaftNode {
    /// The node as it stands after what was recovered.
    ///
    /// # Errors
    /// When the recovered parts do not fit each other.
    pub fn new(config: &RaftConfig, start: RaftStart) -> Result<RaftNode, RaftStartError> {
        let (election, heartbeat) = (config.election_ticks, config.heartbeat_ticks);
        if heartbeat == 0 || election <= heartbeat {
            return Err(RaftStartError::Ticks { election, heartbeat });
        }
        let options = start::options(config, &start.conf, start.base.index.0);
        let store = start.into_store(config.id)?;
        // Its log lines would be the only ones of the process with a time and a target of their own.
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&options, store, &silent)
            .map_err(|error| RaftStartError::Raft(error.to_string()))?;
        Ok(RaftNode {
            raw,
            id: config.id,
            out: VecDeque::new(),
            waiting: VecDeque::new(),
            newest: 0,
            held: VecDeque::new(),
            installs: VecDeque::new(),
            messages: Vec::new(),
            committed: Vec::new(),
            lazy: None,
        })
    }

    /// Asks for leadership now: a sole voter at its start, which would else wait for a timeout. The
    /// recovered entries must have been taken by [`RaftNode::committed`] first.
    pub fn campaign(&mut self) {
        if !self.is_settled() {
            return;
        }
        // Refused only while a change of members is committed and not applied; the timeout asks again.
        self.raw.campaign().unwrap_or_default();
    }

    /// One tick of the group's clock.
    pub fn tick(&mut self) {
        if self.leads() || self.is_settled() {
            self.raw.tick();
        }
    }

    /// Is nothing being persisted or installed? Raft-rs panics over an election in the middle of either:
    /// a sole voter must have persisted its log, and a snapshot has replaced entries that it looks for.
    /// So none is begun, and the clock of an election stands still meanwhile.
    fn is_settled(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        self.waiting.is_empty() && log.unstable_entries().is_empty() && log.unstable_snapshot().is_none()
    }

    /// Proposes a command. It has this name if it is ever committed.
    ///
    /// # Errors
    /// When this node does not lead, or leads and cannot take more.
    ///
    /// # Panics
    /// When the command is empty, which is what an election's entry looks like.
    pub fn propose(&mut self, command: impl Into<Bytes>) -> Result<EntryId, Refused> {
        let data = command.into();
        assert!(!data.is_empty(), "an empty command");
        self.propose_entry(pb::Entry { data, ..pb::Entry::default() })
    }

    /// Proposes a change of the members; none leaves a joint state that does not leave by itself.
    ///
    /// # Errors
    /// As [`RaftNode::propose`]; `Busy` too while an earlier change is not applied.
    pub fn propose_members(&mut self, changes: &[MemberChange]) -> Result<EntryId, Refused> {
        if self.raw.raft.has_pending_conf() {
            return Err(Refused::Busy);
        }
        let mut entry = pb::Entry { data: convert::changes_in(changes), ..pb::Entry::default() };
        entry.set_entry_type(pb::EntryType::EntryConfChangeV2);
        self.propose_entry(entry)
    }

    fn propose_entry(&mut self, entry: pb::Entry) -> Result<EntryId, Refused> {
        // A follower would forward it, and nobody would know under which name.
        if !self.leads() {
            return Err(Refused::NotLeader(self.leader()));
        }
        let mut message = pb::Message::default();
        message.set_msg_type(pb::MessageType::MsgPropose);
        message.from = self.id.0;
        message.set_entries(vec![entry].into());
        self.raw.step(message).map_err(|_dropped| Refused::Busy)?;
        Ok(EntryId { index: self.last(), term: self.term() })
    }

    /// Takes a peer's message. A snapshot's file must be on disk before its message comes here.
    ///
    /// # Errors
    /// When the message is nonsense. Nothing has changed then.
    pub fn step(&mut self, message: RaftMessage) -> Result<(), BadMessage> {
        let ours = Ours { id: self.id, term: self.term(), last: self.last(), leads: self.leads() };
        message.check(ours)?;
        if message.kind == MessageKind::TimeoutNow && !self.is_settled() {
            return Err(BadMessage::Refused);
        }
        self.raw.step(convert::message_in(message)).map_err(|_error| BadMessage::Refused)
    }

    /// A message to `peer` could not be delivered.
    pub fn unreachable(&mut self, peer: NodeId) {
        self.raw.report_unreachable(peer.0);
    }

    /// How the transfer of a snapshot's file to `peer` ended.
    pub fn snapshot_sent(&mut self, peer: NodeId, arrived: bool) {
        use raft::SnapshotStatus::{Failure, Finish};
        self.raw.report_snapshot(peer.0, if arrived { Finish } else { Failure });
    }

    /// Hands leadership to `peer`, as before a graceful stop.
    pub fn hand_over(&mut self, peer: NodeId) {
        self.raw.transfer_leader(peer.0);
    }

    /// What to persist next, if anything. Everything proposed since the last call comes in one.
    pub fn ready(&mut self) -> Option<ReadyOut> {
        self.pump();
        self.out.pop_front()
    }

    /// What carries this number, and all before it, is persisted.
    pub fn on_persisted(&mut self, number: u64) {
        while self.waiting.front().is_some_and(|waiting| *waiting <= number) {
            self.waiting.pop_front();
        }
        // A ready that needs no persisting counts as persisted with the one before it.
        let upto = self.waiting.front().map_or(self.newest, |next| next - 1);
        self.persisted_upto(upto);
        self.pump();
    }

    fn persisted_upto(&mut self, upto: u64) {
        self.raw.on_persist_ready(upto);
        while let Some((_, index)) = self.installs.pop_front_if(|(number, _)| *number <= upto) {
            if index > self.raw.raft.raft_log.applied() {
                self.raw.advance_apply_to(index);
            }
        }
        while let Some((_, messages)) = self.held.pop_front_if(|(number, _)| *number <= upto) {
            self.messages.extend(messages.iter().filter_map(convert::message_out));
        }
    }

    /// The entries committed since the last call, in order, to be applied now. Election entries carry
    /// nothing; changes of members have been made here. A node that is alone forgets them with this call.
    pub fn committed(&mut self) -> Vec<LogEntry> {
        self.pump();
        let entries = std::mem::take(&mut self.committed);
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
            self.change_members(&entry.data);
        }
        if let Some(last) = entries.last() {
            self.raw.advance_apply_to(last.index.0);
            if self.raw.mut_store().is_alone(self.id.0) {
                self.raw.mut_store().compact(last.index.0);
            }
        }
        entries
    }

    fn change_members(&mut self, data: &[u8]) {
        let changes = decode_changes(data).unwrap_or_default();
        // Raft-rs refuses a change that fits no member set, and every node refuses the same ones.
        if let Ok(conf) = self.raw.apply_conf_change(&convert::change_v2(&changes)) {
            self.raw.mut_store().conf = conf;
        }
    }

    /// Messages that may be sent now. A leader's go out while its entries are still being persisted.
    pub fn take_messages(&mut self) -> Vec<RaftMessage> {
        self.pump();
        std::mem::take(&mut self.messages)
    }

    /// A snapshot of this node is on disk, or was found there at the start: followers that lag behind the
    /// entries in memory get it.
    pub fn snapshot_done(&mut self, id: EntryId, conf: ConfState) {
        self.raw.mut_store().offer(convert::snapshot_in(&SnapshotOffer { id, conf }));
    }

    /// Forgets applied entries up to `index`. With peers, leave those after the last snapshot, and some
    /// before it for followers that are only a little behind.
    pub fn compact(&mut self, index: LogIndex) {
        let applied = self.raw.raft.raft_log.applied();
        self.raw.mut_store().compact(index.0.min(applied));
    }

    /// Takes in all that raft-rs has to say.
    fn pump(&mut self) {
        while self.raw.has_ready() {
            self.take_ready();
        }
    }

    fn take_ready(&mut self) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        self.newest = number;
        let must_sync = ready.must_sync();
        let hard_state = ready.hs().map(convert::hard_state_out);
        let entries = ready.take_entries();
        let now = ready.take_messages();
        let held = ready.take_persisted_messages();
        self.committed.extend(ready.take_committed_entries().iter().map(convert::entry_out));
        let install = (!ready.snapshot().is_empty()).then(|| convert::snapshot_out(ready.snapshot()));
        if install.is_some() {
            self.raw.mut_store().install(ready.snapshot());
            self.committed.clear();
        }
        let persist: Vec<LogEntry> = entries.iter().map(convert::entry_out).collect();
        self.raw.mut_store().append(entries);
        self.raw.advance_append_async(ready);

        self.messages.extend(now.iter().filter_map(convert::message_out));
        if !held.is_empty() {
            self.held.push_back((number, held));
        }
        self.lazy = hard_state.or(self.lazy);
        if must_sync {
            self.queue(number, install, persist);
        } else if self.waiting.is_empty() {
            self.persisted_upto(number);
        }
    }

    /// Queues what must be persisted, together with what the driver has not taken yet.
    fn queue(&mut self, number: u64, install: Option<SnapshotOffer>, entries: Vec<LogEntry>) {
        let hard_state = self.lazy.take();
        let install = install.map(|SnapshotOffer { id, conf }| Install { id, conf });
        if let Some(offer) = &install {
            self.installs.push_back((number, offer.id.index.0));
        }
        match self.out.back_mut() {
            Some(out) if install.is_none() => {
                out.number = number;
                out.hard_state = hard_state.or(out.hard_state);
                out.entries.extend(entries);
                self.waiting.pop_back();
            }
            Some(_) | None => {
                self.out.push_back(ReadyOut { number, hard_state, install, entries, must_sync: true });
            }
        }
        self.waiting.push_back(number);
    }

    /// Does this node lead? It may serve only once [`RaftNode::leads_safely`].
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Does this node lead, with an entry of its own term committed, so that its state is the newest?
    #[must_use]
    pub fn leads_safely(&self) -> bool {
        self.leads() && self.raw.raft.commit_to_current_term()
    }

    /// Who leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        convert::node_out(self.raw.raft.leader_id)
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// The last entry, persisted or not.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        LogIndex(self.raw.raft.raft_log.last_index())
    }

    /// The last entry known committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.raw.raft.raft_log.committed)
    }

    /// The last entry that [`RaftNode::committed`] has handed out.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.raw.raft.raft_log.applied())
    }

    /// The members after the last applied change.
    #[must_use]
    pub fn conf(&self) -> ConfState {
        convert::conf_out(&self.raw.store().conf)
    }

    /// How many entries are held in memory.
    #[must_use]
    pub fn entries_held(&self) -> u64 {
        let store = self.raw.store();
        let (first, last) = (store.first_index().unwrap_or(0), store.last_index().unwrap_or(0));
        (last + 1).saturating_sub(first)
    }
}
