//! What other thresholds would have done with a log of loads: the policy itself, second by second, on what was recorded.
//!
//! What a chunk was read is taken as it was recorded, and divides over the replicas that it has here. A chunk goes with the
//! record for as long as what is decided here is what was decided there; from the first difference on it has replicas of its
//! own (`apart`), until it has as many as the record again. So that with the thresholds of the record nothing differs.
//!
//! Does not read files, and does not know what the record can't tell: `docs/load.md` says what that is.

mod apart;
mod report;
mod servers;

use std::collections::BTreeMap;

use dfs_proto::ids::ChunkId;
use dfs_proto::meta::Policy;
use dfs_proto::units::Micros;

use crate::core::LoadSecond;
use crate::core::policy::{
    ChunkView, CopyStep, CostRate, Decision, Kind, Limits, Memory, Pace, Purse, Seconds, UnderWay, View,
    decide, look,
};
use crate::load_log::{Begins, Decoded};

pub use report::{Chunk, Counts, Point, Report, Said};

use apart::{Apart, CopyTimes};
use report::Book;

/// A log that is replayed.
#[derive(Debug)]
pub struct Replay {
    /// What is set other than it was.
    change: Policy,
    chunks: BTreeMap<ChunkId, Tracked>,
    purse: Option<Purse>,
    pace: Pace,
    seconds: Seconds,
    copy_times: CopyTimes,
    book: Book,
}

/// A chunk as it was recorded, and what has become of it here.
#[derive(Debug)]
struct Tracked {
    /// As recorded, with the memory that it has here.
    view: ChunkView,
    /// Recorded copies that are not done.
    copies: Vec<CopyStep>,
    apart: Option<Apart>,
}

impl Replay {
    /// The options that `change` names are other than those of the record.
    #[must_use]
    pub fn new(change: Policy) -> Replay {
        Replay {
            change,
            chunks: BTreeMap::new(),
            purse: None,
            pace: Pace::default(),
            seconds: Seconds::default(),
            copy_times: CopyTimes::default(),
            book: Book::default(),
        }
    }

    /// The next second of the log.
    ///
    /// # Errors
    /// In words, when the options can't be with those that the record has now.
    pub fn second(&mut self, decoded: &Decoded) -> Result<(), String> {
        let second = &decoded.second;
        let (now, thresholds) = (second.at, second.thresholds.changed_by(&self.change)?);
        self.book.begin(decoded, thresholds);
        if decoded.begins == Some(Begins::Leader) {
            self.forget();
        }
        self.take_in(second);
        for tracked in self.chunks.values_mut() {
            tracked.go_on(second, now);
        }
        let servers = servers::as_here(second, &self.chunks);
        let limits = thresholds.limits(&servers);
        self.chunks.retain(|_, tracked| {
            let (read, replicas) = (tracked.view.read, tracked.replicas().len());
            tracked.view.memory = look(tracked.view.memory, read, replicas, &limits, now);
            // As the master forgets them.
            let idle = read.0 == 0 && tracked.view.write.0 == 0 && tracked.is_settled();
            !(idle && tracked.view.memory.is_forgettable(limits.cooldown_ms, now))
        });
        let mut view =
            View { chunks: self.chunks.values().map(Tracked::here).collect(), servers, budget_bytes: 0 };
        let purse = self.purse_of(&view, &limits, second);
        view.budget_bytes = purse.bytes();
        let outcome = decide(&view, &thresholds, now);
        self.purse = Some(purse.spend(outcome.copied_bytes));
        self.book.look(second, &limits, self.chunks.values());
        self.carry_out(second, outcome.decisions, &limits);
        Ok(())
    }

    /// What it all came to.
    #[must_use]
    pub fn report(self) -> Report {
        self.book.report()
    }

    /// A master that leads anew remembers nothing.
    fn forget(&mut self) {
        (self.purse, self.pace, self.seconds) = (None, Pace::default(), Seconds::default());
        for tracked in self.chunks.values_mut() {
            tracked.view.memory = Memory::default();
            tracked.copies.clear();
            if let Some(apart) = &mut tracked.apart {
                apart.end();
            }
        }
    }

    fn take_in(&mut self, second: &LoadSecond) {
        for chunk in &second.gone {
            self.chunks.remove(chunk);
        }
        for tracked in self.chunks.values_mut() {
            (tracked.view.read, tracked.view.write) = (CostRate(0), CostRate(0));
        }
        for seen in &second.chunks {
            let tracked = self.chunks.entry(seen.view.chunk).or_insert_with(|| Tracked {
                view: seen.view.clone(),
                copies: Vec::new(),
                apart: None,
            });
            tracked.view = ChunkView { memory: tracked.view.memory, ..seen.view.clone() };
            let done = tracked.recorded_copies_done(second.at);
            done.into_iter().for_each(|time| self.copy_times.add(time));
        }
    }

    fn purse_of(&mut self, view: &View, limits: &Limits, second: &LoadSecond) -> Purse {
        let new = self.seconds.is_new(second.at);
        match self.purse {
            // The log begins in the middle: as the master had it.
            None if !second.first => {
                self.pace = second.pace;
                Purse::holding(second.budget_bytes, second.at)
            }
            purse => {
                if new {
                    self.pace = self.pace.observe(&view.chunks, &view.servers);
                }
                let purse = purse.unwrap_or_else(|| Purse::new(limits, self.pace, second.at));
                purse.fill(limits, self.pace, second.at)
            }
        }
    }

    fn carry_out(&mut self, second: &LoadSecond, decisions: Vec<Decision>, limits: &Limits) {
        let rate = self.copy_times.rate().unwrap_or(limits.floor_bytes_per_s).max(1);
        let recorded: BTreeMap<ChunkId, &Decision> =
            second.decisions.iter().map(|decision| (decision.chunk, decision)).collect();
        let mut here: BTreeMap<ChunkId, &Decision> = BTreeMap::new();
        for decision in &decisions {
            here.insert(decision.chunk, decision);
            self.book.decided(second, decision, self.chunks.get(&decision.chunk));
        }
        for decision in &second.decisions {
            self.book.recorded(second, decision, self.chunks.get(&decision.chunk));
        }
        let named: std::collections::BTreeSet<ChunkId> =
            here.keys().chain(recorded.keys()).copied().collect();
        for chunk in named {
            let (mine, theirs) = (here.get(&chunk).copied(), recorded.get(&chunk).copied());
            let Some(tracked) = self.chunks.get_mut(&chunk) else { continue };
            let same = mine.map(|decision| &decision.kind) == theirs.map(|decision| &decision.kind);
            self.book.compared(second, same && tracked.apart.is_none());
            if let Some(decision) = mine {
                tracked.view.memory = tracked.view.memory.changed(decision.direction(), second.at);
            }
            if let Some(Kind::Raise { copies }) = theirs.map(|decision| &decision.kind) {
                tracked.copies.clone_from(copies);
                self.copy_times.begun(chunk, second.at);
            }
            if tracked.apart.is_none() && !same {
                tracked.apart = Some(Apart::new(tracked.view.replicas.clone()));
            }
            if let (Some(apart), Some(decision)) = (&mut tracked.apart, mine) {
                apart.decided(&decision.kind, tracked.view.bytes, rate, second.at);
            }
        }
    }
}

impl Tracked {
    fn replicas(&self) -> &[dfs_proto::ids::ServerNum] {
        self.apart.as_ref().map_or(&self.view.replicas, |apart| &apart.replicas)
    }

    /// Copies that are not done here.
    fn copies_here(&self) -> Vec<CopyStep> {
        self.apart.as_ref().map_or_else(|| self.copies.clone(), Apart::copies)
    }

    /// As the policy sees it here.
    fn here(&self) -> ChunkView {
        match &self.apart {
            None => self.view.clone(),
            Some(apart) => {
                let replicas = apart.replicas.clone();
                ChunkView { replicas, under_way: apart.under_way(), ..self.view.clone() }
            }
        }
    }

    /// At its goal, and nothing to come or go, there and here.
    fn is_settled(&self) -> bool {
        let goal = self.view.goal;
        self.apart.is_none() && self.view.under_way.is_none() && self.view.replicas.len() <= goal
    }

    /// Notes which recorded copies have become replicas; the time of a raise that is through.
    fn recorded_copies_done(&mut self, now: Micros) -> Option<apart::CopyTime> {
        if self.copies.is_empty() {
            return None;
        }
        let all = self.copies.len();
        let replicas = &self.view.replicas;
        self.copies.retain(|step| !replicas.contains(&step.target));
        let made = all - self.copies.len();
        if !matches!(self.view.under_way, Some(UnderWay::Raise { .. })) {
            self.copies.clear();
        }
        (made > 0).then_some(apart::CopyTime { chunk: self.view.chunk, bytes: self.view.bytes, made, now })
    }

    /// What has become of it here since the last second.
    fn go_on(&mut self, second: &LoadSecond, now: Micros) {
        let Some(apart) = &mut self.apart else { return };
        apart.go_on(&self.view, second, now);
        let recorded_settled = self.view.under_way.is_none() && self.copies.is_empty();
        if recorded_settled && apart.under_way().is_none() && apart.replicas.len() == self.view.replicas.len()
        {
            self.apart = None;
        }
    }
}
