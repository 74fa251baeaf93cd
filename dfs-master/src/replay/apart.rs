//! A chunk's replicas where they are not those of the record any more.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::Micros;

use crate::core::LoadSecond;
use crate::core::policy::{ChunkView, Condition, CopyStep, Kind, UnderWay};

/// Replicas that a chunk has here alone.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) replicas: Vec<ServerNum>,
    /// Copies, and when each is done.
    coming: Vec<(CopyStep, Micros)>,
    /// Leaves with the next second.
    going: Option<ServerNum>,
}

impl Apart {
    pub(super) fn new(replicas: Vec<ServerNum>) -> Apart {
        Apart { replicas, coming: Vec::new(), going: None }
    }

    pub(super) fn copies(&self) -> Vec<CopyStep> {
        self.coming.iter().map(|(step, _)| *step).collect()
    }

    pub(super) fn under_way(&self) -> Option<UnderWay> {
        let raise = (!self.coming.is_empty()).then_some(UnderWay::Raise { to_come: self.coming.len() });
        raise.or(self.going.map(|_| UnderWay::Lower))
    }

    /// Copies that are not done will not be.
    pub(super) fn end(&mut self) {
        (self.coming, self.going) = (Vec::new(), None);
    }

    /// A chunk's copies are made one after the other, at this rate.
    pub(super) fn decided(&mut self, kind: &Kind, bytes: u64, bytes_per_s: u64, now: Micros) {
        match kind {
            Kind::Raise { copies } => {
                let each_ms =
                    u64::try_from(u128::from(bytes) * 1000 / u128::from(bytes_per_s)).unwrap_or(u64::MAX);
                let steps = (1..).zip(copies);
                let step = |(at, step): (u64, &CopyStep)| (*step, now.plus_ms(each_ms.saturating_mul(at)));
                self.coming = steps.map(step).collect();
            }
            Kind::Lower { server } => self.going = Some(*server),
        }
    }

    pub(super) fn go_on(&mut self, recorded: &ChunkView, second: &LoadSecond, now: Micros) {
        if let Some(server) = self.going.take() {
            self.replicas.retain(|other| *other != server);
        }
        let done = self.coming.iter().filter(|(_, at)| *at <= now).map(|(step, _)| step.target);
        self.replicas.extend(done);
        self.coming.retain(|(_, at)| *at > now);
        self.repair(recorded, second);
        if recorded.written && self.replicas.len() > recorded.goal {
            // A writer does not pay for them.
            self.coming.clear();
            self.replicas.truncate(recorded.goal.max(1));
        }
    }

    /// What repairs and recoveries did is as it was recorded: replicas on servers that are lost go, those that came in their
    /// place come, and the primary is the recorded one.
    fn repair(&mut self, recorded: &ChunkView, second: &LoadSecond) {
        let lost = |server: &ServerNum| {
            let view = second.servers.iter().find(|view| view.server == *server);
            view.is_none_or(|view| view.condition == Condition::Down) && !recorded.replicas.contains(server)
        };
        self.replicas.retain(|server| !lost(server));
        for server in &recorded.replicas {
            if self.replicas.len() < recorded.goal && !self.replicas.contains(server) {
                self.replicas.push(*server);
            }
        }
        if let Some(primary) = recorded.replicas.first() {
            self.replicas.retain(|server| server != primary);
            self.replicas.insert(0, *primary);
        }
    }
}

/// Recorded copies that were seen to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyTime {
    pub(super) chunk: ChunkId,
    pub(super) bytes: u64,
    pub(super) made: usize,
    pub(super) now: Micros,
}

/// How fast recorded copies were, which is how fast those are that are made here alone.
#[derive(Debug, Default)]
pub(super) struct CopyTimes {
    since: BTreeMap<ChunkId, Micros>,
    bytes: u64,
    us: u64,
}

impl CopyTimes {
    pub(super) fn begun(&mut self, chunk: ChunkId, now: Micros) {
        self.since.insert(chunk, now);
    }

    pub(super) fn add(&mut self, time: CopyTime) {
        let Some(since) = self.since.insert(time.chunk, time.now) else { return };
        self.bytes = self.bytes.saturating_add(time.bytes.saturating_mul(time.made as u64));
        self.us = self.us.saturating_add(time.now.0.saturating_sub(since.0));
    }

    /// Bytes a second, of all recorded so far.
    pub(super) fn rate(&self) -> Option<u64> {
        let rate = u128::from(self.bytes) * 1_000_000 / u128::from(self.us.max(1));
        (self.bytes > 0).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}
