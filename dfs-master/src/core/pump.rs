//! From a proposal to its effects: what is persisted, what is committed, what it did, who waits for it,
//! and when a snapshot is due.

use std::collections::{BTreeMap, VecDeque};

use dfs_proto::ids::{LogIndex, Term};
use dfs_proto::status::Status;

use super::Core;
use super::command::{Command, Origin, Record};
use super::config::MetadataSync;
use super::contract::Effect;
use super::dispatch::Then;
use super::image::StateImage;
use super::raft::ReadyOut;
use super::state::Outcome;
use crate::log::entry::{EntryId, EntryKind, HardState, LogEntry};

/// A proposal that is not applied.
#[derive(Debug)]
pub(super) struct Pending {
    term: Term,
    origin: Option<Origin>,
    pub(super) then: Then,
}

/// Where the log is.
#[derive(Debug, Default)]
pub(super) struct LogProgress {
    /// On the disk up to here.
    pub(super) durable: LogIndex,
    pub(super) applied_term: Term,
    /// Where each term that is known begins; before the first is what a snapshot covers, of that term or lower ones.
    terms: BTreeMap<LogIndex, Term>,
    /// The term and vote written last.
    voted: HardState,
    /// Persist effects under way that are synced: when they are done the log is durable up to there.
    syncing: VecDeque<(u64, LogIndex)>,
    /// Logged since the last snapshot was taken.
    pub(super) bytes: u64,
    pub(super) records: u64,
    /// The newest snapshot on the disk.
    pub(super) snapshot: LogIndex,
    /// One is being written, or waits to be.
    snapshotting: bool,
    /// Taken, and waiting for the log to be on the disk up to it: a snapshot must not outrun its log.
    held: Option<(LogIndex, Term, StateImage)>,
    /// One is wanted though little was logged.
    pub(super) snapshot_wanted: bool,
}

impl LogProgress {
    /// What a process begins with: all that was recovered is durable.
    pub(super) fn recovered(
        last: EntryId,
        applied_term: Term,
        snapshot: LogIndex,
        voted: HardState,
    ) -> LogProgress {
        LogProgress { durable: last.index, applied_term, voted, snapshot, ..LogProgress::default() }
    }

    /// Takes note of an entry's term.
    pub(super) fn note_term(&mut self, id: EntryId) {
        if self.terms.last_key_value().is_none_or(|(_, term)| *term < id.term) {
            self.terms.insert(id.index, id.term);
        }
    }

    /// The term of the entry at `index`; of what a snapshot covers, the highest that it can be.
    pub(super) fn term_at(&self, index: LogIndex) -> Term {
        let first = || self.terms.first_key_value().map(|(_, term)| *term);
        self.known_term_at(index).or_else(first).unwrap_or_default()
    }

    /// The term of the entry at `index`, unless a snapshot covers it.
    pub(super) fn known_term_at(&self, index: LogIndex) -> Option<Term> {
        self.terms.range(..=index).next_back().map(|(_, term)| *term)
    }
}

impl Core {
    /// Proposes a command. Its record has this index if it is ever applied.
    ///
    /// # Errors
    /// The status for whoever asked: nothing was proposed.
    pub(super) fn propose(
        &mut self,
        origin: Option<Origin>,
        command: Command,
        then: Then,
    ) -> Result<LogIndex, Status> {
        if self.hold.stands() {
            return Err(Status::Hold);
        }
        if self.pending.len() >= self.config.inflight_max {
            return Err(Status::Overloaded);
        }
        let record = Record { origin, wall: self.now.wall, command };
        let id = self.raft.propose(record.encode()).map_err(|refused| match refused {
            super::raft::Refused::NotLeader(_) => Status::NotLeader,
            super::raft::Refused::Busy => Status::Overloaded,
        })?;
        if let Some(origin) = origin {
            self.inflight.insert((origin.session, origin.rid), id.index);
        }
        self.pending.insert(id.index, Pending { term: id.term, origin, then });
        Ok(id.index)
    }

    /// Proposes something of the core's own, for which nobody waits. Whether it was taken.
    pub(super) fn propose_own(&mut self, command: Command) -> bool {
        self.propose(None, command, Then::Nothing).is_ok()
    }

    /// Brings everything forward that can go forward now.
    pub(super) fn pump(&mut self) {
        loop {
            let committed = self.raft.committed();
            let quiet = committed.is_empty();
            for entry in committed {
                self.take_entry(&entry);
            }
            if !self.leading && self.raft.leads_safely() {
                self.lead();
            }
            if self.leading {
                self.recovery_pump();
                self.push_events();
                self.answer_drops();
            }
            while let Some(ready) = self.raft.ready() {
                self.persist(ready);
            }
            if quiet {
                break;
            }
        }
    }

    fn persist(&mut self, ready: ReadyOut) {
        let voted = ready.hard_state.is_some_and(|hard_state| {
            (hard_state.term, hard_state.vote) != (self.log.voted.term, self.log.voted.vote)
        });
        if let Some(hard_state) = ready.hard_state {
            self.log.voted = hard_state;
        }
        let alone = self.raft.conf().is_sole_voter(self.config.node);
        let must_sync = voted || !alone || self.config.metadata_sync == MetadataSync::Always;
        self.log.records += u64::try_from(ready.entries.len()).unwrap_or(0);
        let bytes: usize = ready.entries.iter().map(|entry| entry.data.len()).sum();
        self.log.bytes += u64::try_from(bytes).unwrap_or(0);
        if must_sync && let Some(last) = ready.entries.last() {
            self.log.syncing.push_back((ready.number, last.index));
        }
        let ReadyOut { number, entries, hard_state, install: _, must_sync: _ } = ready;
        self.effects.push(Effect::Persist { number, entries, hard_state, must_sync });
    }

    pub(super) fn persisted(&mut self, number: u64) {
        while let Some((_, index)) = self.log.syncing.pop_front_if(|(synced, _)| *synced <= number) {
            self.durable(index);
        }
        self.raft.on_persisted(number);
    }

    pub(super) fn durable(&mut self, index: LogIndex) {
        self.log.durable = self.log.durable.max(index);
        self.release_snapshot();
    }

    fn take_entry(&mut self, entry: &LogEntry) {
        self.log.note_term(entry.id());
        match entry.kind {
            // The state stands at this entry; an election's after it does not move it.
            EntryKind::Command => self.log.applied_term = entry.term,
            EntryKind::Election | EntryKind::ConfChange => return,
        }
        // Every record was encoded by this build or an older one, or was checked when it was recovered.
        let record = Record::decode(&entry.data)
            .unwrap_or_else(|why| panic!("record {} of the log does not decode: {why}", entry.index));
        if let Command::SetGoal(set) = &record.command
            && self.leading
        {
            self.goals_change(set);
        }
        let outcome = self.state.apply(entry.index, &record);
        if matches!(record.command, Command::StateHash(_)) {
            self.hold_if_it_differs();
        }
        if let Some(origin) = &record.origin {
            self.inflight.remove(&(origin.session, origin.rid));
        }
        if self.leading {
            self.applied(entry.index, &record, &outcome);
        }
        if let Some(pending) = self.pending.remove(&entry.index) {
            if pending.term == entry.term {
                self.then(entry.index, pending.origin, pending.then, &outcome);
            } else {
                self.not_taken(pending.then);
            }
        }
    }

    /// What a record means to the soft state, whoever proposed it.
    fn applied(&mut self, index: LogIndex, record: &Record, outcome: &Outcome) {
        self.forget_chunks(&outcome.dropped);
        self.learn_name(&record.command, &outcome.answer);
        match &record.command {
            Command::EndSession { session } => self.session_ended(index, *session),
            Command::ReserveIds { below } => self.soft.ids.reserved(index, *below),
            Command::Recovering { chunks } => self.recovering_applied(index, chunks),
            Command::Activate { chunks } => self.activate_applied(index, chunks),
            Command::AddLearners { learners } => self.learners_applied(index, learners),
            Command::DropLearners { learners } => self.learners_dropped(learners),
            Command::CommitLearner { chunk, .. } => self.learner_committed(index, *chunk),
            Command::Leave { leaving } => self.leave_applied(leaving),
            Command::Left { left } => self.left_applied(index, left),
            Command::DrainServer { .. } => {
                self.refresh_candidates();
                self.soft.scan.wake();
            }
            Command::MaintainServer { .. } => self.maintenance_applied(),
            Command::CloseChunks { chunks } => self.close_applied(chunks),
            Command::DropHoles { chunks } => self.holes_applied(chunks),
            Command::Reopen { chunk, .. } => self.soft.closing.opened(*chunk, index),
            Command::NewGeneration { .. } => self.register_anew(),
            Command::FreeInodes(_) => self.soft.gc.freed(),
            Command::Tombstones { .. } => self.soft.gc.finished(),
            Command::Allocate { chunk, .. } | Command::Create { first: Some(chunk), .. } => {
                self.soft.closing.all_is_synced(chunk.id);
                self.allocated(chunk.id);
            }
            Command::GiveUp(give_up) => self.chunk_given_up(index, give_up, &outcome.answer),
            Command::Commit(commit) => self.committed_sizes(record.origin, commit),
            Command::DropUnused { chunks } => {
                for unused in chunks {
                    self.soft.dropping.remove(&unused.chunk);
                }
            }
            Command::Genesis { .. }
            | Command::SetPolicy(_)
            | Command::SetGoal(_)
            | Command::Create { first: None, .. }
            | Command::Ns(_)
            | Command::OpenSession { .. }
            | Command::RegisterServer(_)
            | Command::SettleServer { .. }
            | Command::StateHash(_) => {}
        }
        if let Some(mark) = self.state.trail.made_at(index) {
            self.propose_own(Command::StateHash(mark));
        }
    }

    /// Takes a snapshot if enough was logged since the last, or if one is wanted.
    pub(super) fn snapshot_tick(&mut self) {
        let due = self.log.bytes >= self.config.snapshot_bytes
            || self.log.records >= self.config.snapshot_records
            || self.log.snapshot_wanted;
        if !due || self.log.snapshotting || self.state.applied <= self.log.snapshot {
            return;
        }
        self.log.snapshotting = true;
        self.log.snapshot_wanted = false;
        self.log.bytes = 0;
        self.log.records = 0;
        let image = StateImage::new(self.state.clone(), self.raft.conf());
        self.log.held = Some((self.state.applied, self.log.applied_term, image));
        self.release_snapshot();
    }

    fn release_snapshot(&mut self) {
        let durable = self.log.durable;
        if let Some((index, term, image)) = self.log.held.take_if(|(index, ..)| *index <= durable) {
            self.effects.push(Effect::Snapshot { index, term, image });
        }
    }

    pub(super) fn snapshot_done(&mut self, index: LogIndex, term: Term) {
        self.log.snapshotting = false;
        self.log.snapshot = self.log.snapshot.max(index);
        self.raft.snapshot_done(EntryId { index, term }, self.raft.conf());
    }

    pub(super) fn snapshot_failed(&mut self, index: LogIndex) {
        log::warn!("the snapshot at {index} failed; the next one is taken when as much was logged again");
        self.log.snapshotting = false;
    }
}
