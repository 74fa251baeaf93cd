//! What a replay came to, beside what was recorded.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::Policy;
use serde::Serialize;

use super::Tracked;
use crate::core::LoadSecond;
use crate::core::policy::{Decision, Direction, Kind, Limits, Thresholds};
use crate::load_log::{Begins, Decoded};

/// Points of the course of replicas in a report.
const POINTS: usize = 24;
/// Decisions that a report names, the first ones.
const DECISIONS_MAX: usize = 10_000;

/// Of all seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    pub seconds: u64,
    pub lost_seconds: u64,
    pub from_unix_ms: i64,
    pub to_unix_ms: i64,
    /// Of the last second: as recorded, and as replayed.
    pub recorded_policy: Policy,
    pub replayed_policy: Policy,
    pub recorded: Counts,
    pub replayed: Counts,
    /// Decisions that are the same here and there, at the same second.
    pub same: u64,
    pub first_difference_unix_ms: Option<i64>,
    /// The log begins while a master led: what it remembered of before is not known here.
    pub begins_in_the_middle: bool,
    /// The most chunks at once that were read and are not in the log.
    pub not_recorded_chunks: u64,
    /// Those that were raised or lowered, the most changed first.
    pub chunks: Vec<Chunk>,
    pub course: Vec<Point>,
    /// The first of them, in order.
    pub decisions: Vec<Said>,
}

/// What was decided, and what it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    pub raises: u64,
    /// Copies that the raises asked for, and their bytes.
    pub copies: u64,
    pub copied_bytes: u64,
    pub lowers: u64,
    /// The most replicas above goals at once, and their sum over all seconds.
    pub most_above_goals: u64,
    pub above_goal_seconds: u64,
    /// Chunks that were hot by the replayed thresholds, summed over all seconds.
    pub hot_seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Chunk {
    pub chunk: ChunkId,
    pub recorded_raises: u64,
    pub recorded_lowers: u64,
    pub replayed_raises: u64,
    pub replayed_lowers: u64,
    pub recorded_most: usize,
    pub replayed_most: usize,
}

/// The most replicas above goals in a part of the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Point {
    pub unix_ms: i64,
    pub recorded: u64,
    pub replayed: u64,
}

/// A decision of the replay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Said {
    pub unix_ms: i64,
    pub chunk: ChunkId,
    pub raise_to: Vec<ServerNum>,
    pub lower_on: Option<ServerNum>,
    pub why: String,
}

/// A report that is being written.
#[derive(Debug, Default)]
pub(super) struct Book {
    report: Report,
    chunks: BTreeMap<ChunkId, Chunk>,
    course: Vec<Point>,
}

fn unix_ms(second: &LoadSecond) -> i64 {
    second.wall.sec.saturating_mul(1000).saturating_add(i64::from(second.wall.nsec / 1_000_000))
}

impl Book {
    pub(super) fn begin(&mut self, decoded: &Decoded, thresholds: Thresholds) {
        let (report, at) = (&mut self.report, unix_ms(&decoded.second));
        if report.seconds == 0 {
            report.from_unix_ms = at;
            report.begins_in_the_middle = decoded.begins != Some(Begins::Leader);
        }
        report.seconds += 1;
        report.lost_seconds += decoded.lost_seconds;
        report.to_unix_ms = at;
        report.recorded_policy = decoded.second.thresholds.as_written();
        report.replayed_policy = thresholds.as_written();
        report.not_recorded_chunks = report.not_recorded_chunks.max(decoded.second.rest.chunks);
    }

    /// How many replicas there are now, there and here.
    pub(super) fn look<'a>(
        &mut self,
        second: &LoadSecond,
        limits: &Limits,
        chunks: impl Iterator<Item = &'a Tracked>,
    ) {
        let mut point = Point { unix_ms: unix_ms(second), recorded: 0, replayed: 0 };
        for tracked in chunks {
            let (there, here) = (tracked.view.replicas.len(), tracked.replicas().len());
            point.recorded += there.saturating_sub(tracked.view.goal) as u64;
            point.replayed += here.saturating_sub(tracked.view.goal) as u64;
            let hot = |replicas: usize| u64::from(tracked.view.read.exceeds(limits.max, replicas));
            self.report.recorded.hot_seconds += hot(there);
            self.report.replayed.hot_seconds += hot(here);
            if let Some(chunk) = self.chunks.get_mut(&tracked.view.chunk) {
                chunk.recorded_most = chunk.recorded_most.max(there);
                chunk.replayed_most = chunk.replayed_most.max(here);
            }
        }
        for (counts, above) in
            [(&mut self.report.recorded, point.recorded), (&mut self.report.replayed, point.replayed)]
        {
            counts.most_above_goals = counts.most_above_goals.max(above);
            counts.above_goal_seconds += above;
        }
        self.course.push(point);
    }

    pub(super) fn decided(&mut self, second: &LoadSecond, decision: &Decision, tracked: Option<&Tracked>) {
        count(&mut self.report.replayed, decision, tracked);
        let chunk = self.chunk(decision.chunk, tracked);
        match decision.direction() {
            Direction::Up => chunk.replayed_raises += 1,
            Direction::Down => chunk.replayed_lowers += 1,
        }
        if self.report.decisions.len() < DECISIONS_MAX {
            let (raise_to, lower_on) = match &decision.kind {
                Kind::Raise { copies } => (copies.iter().map(|step| step.target).collect(), None),
                Kind::Lower { server } => (Vec::new(), Some(*server)),
            };
            let why = decision.reason.to_string();
            let (unix_ms, chunk) = (unix_ms(second), decision.chunk);
            self.report.decisions.push(Said { unix_ms, chunk, raise_to, lower_on, why });
        }
    }

    pub(super) fn recorded(&mut self, _second: &LoadSecond, decision: &Decision, tracked: Option<&Tracked>) {
        count(&mut self.report.recorded, decision, tracked);
        let chunk = self.chunk(decision.chunk, tracked);
        match decision.direction() {
            Direction::Up => chunk.recorded_raises += 1,
            Direction::Down => chunk.recorded_lowers += 1,
        }
    }

    /// A chunk that something was decided on, there or here.
    pub(super) fn compared(&mut self, second: &LoadSecond, same: bool) {
        if same {
            self.report.same += 1;
        } else {
            self.report.first_difference_unix_ms.get_or_insert(unix_ms(second));
        }
    }

    fn chunk(&mut self, chunk: ChunkId, tracked: Option<&Tracked>) -> &mut Chunk {
        let most = |of: Option<usize>| of.unwrap_or(0);
        self.chunks.entry(chunk).or_insert_with(|| Chunk {
            chunk,
            recorded_raises: 0,
            recorded_lowers: 0,
            replayed_raises: 0,
            replayed_lowers: 0,
            recorded_most: most(tracked.map(|tracked| tracked.view.replicas.len())),
            replayed_most: most(tracked.map(|tracked| tracked.replicas().len())),
        })
    }

    pub(super) fn report(self) -> Report {
        let mut report = self.report;
        let changes = |chunk: &Chunk| {
            chunk.recorded_raises + chunk.recorded_lowers + chunk.replayed_raises + chunk.replayed_lowers
        };
        report.chunks = self.chunks.into_values().collect();
        report.chunks.sort_by_key(|chunk| (std::cmp::Reverse(changes(chunk)), chunk.chunk));
        let each = self.course.len().div_ceil(POINTS).max(1);
        report.course = self.course.chunks(each).filter_map(most_of).collect();
        report
    }
}

fn most_of(part: &[Point]) -> Option<Point> {
    let first = part.first()?;
    let most = |of: fn(&Point) -> u64| part.iter().map(of).max().unwrap_or(0);
    Some(Point { recorded: most(|point| point.recorded), replayed: most(|point| point.replayed), ..*first })
}

fn count(counts: &mut Counts, decision: &Decision, tracked: Option<&Tracked>) {
    match &decision.kind {
        Kind::Raise { copies } => {
            let bytes = tracked.map_or(0, |tracked| tracked.view.bytes);
            counts.raises += 1;
            counts.copies += copies.len() as u64;
            counts.copied_bytes =
                counts.copied_bytes.saturating_add(bytes.saturating_mul(copies.len() as u64));
        }
        Kind::Lower { .. } => counts.lowers += 1,
    }
}
