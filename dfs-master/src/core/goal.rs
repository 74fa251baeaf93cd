//! Goals of files and directories: what tools set and are shown, and what follows when one is lowered.
//!
//! A raised goal needs nothing of its own: the next pass of the scan finds the chunks below it. Of a lowered one the
//! chunks that have more members give them up at once, by the way that replicas of a load that is over go; the pass
//! finds them by their files, which are remembered here for so long. A leader that comes in between lets them go as it
//! does all surplus that it did not make: when the load has not needed them for long enough.

use std::collections::BTreeSet;

use dfs_proto::ids::Ino;
use dfs_proto::meta::{GOAL_BATCH, GOAL_MAX, Goal, GoalReport, GoalSet, SetGoal, ShowGoal};
use dfs_proto::status::Status;
use serde_bytes::ByteBuf;

use super::Core;
use super::command::Command;
use super::dispatch::Then;
use super::namespace::has_goal;
use super::ops;
use super::placement;
use super::reply::Caller;

/// Files whose goal was lowered.
#[derive(Clone, Debug, Default)]
pub(super) struct Lowered {
    /// Since the pass of the scan began that is under way.
    new: BTreeSet<Ino>,
    /// Before, so that this pass meets all of their chunks.
    looked_for: BTreeSet<Ino>,
}

impl Lowered {
    pub(super) fn begin_pass(&mut self) {
        self.looked_for = std::mem::take(&mut self.new);
    }

    #[must_use]
    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.looked_for.contains(&ino)
    }
}

/// What a request names.
struct Part {
    inos: Vec<Ino>,
    inner: Vec<Ino>,
    next: Option<u64>,
}

impl Core {
    pub(super) fn set_goal(&mut self, caller: Caller, request: SetGoal) -> Result<(), Status> {
        let SetGoal { ino, goal, below } = request;
        let kind = self.state.ns.getattr(ino).map_err(|_gone| Status::NotFound)?.kind;
        let refused = if has_goal(kind) {
            self.refuse_goal(goal, below.is_none())
        } else {
            Some("only files and directories have goals".to_owned())
        };
        if refused.is_some() {
            self.reply(caller, &GoalSet { refused, ..GoalSet::default() });
            return Ok(());
        }
        let Part { inos, inner, next } = match below {
            None => Part { inos: vec![ino], inner: Vec::new(), next: None },
            Some(cookie) => self.entries_below(ino, cookie)?,
        };
        let ns = &self.state.ns;
        let other = inos.into_iter().filter(|ino| ns.goals.get(*ino) != goal);
        let (dirs, files): (Vec<Ino>, Vec<Ino>) = other.partition(|ino| ns.dir(*ino).is_ok());
        let set = GoalSet {
            refused: None,
            note: self.note_on_hosts(goal).filter(|_| below.is_none()),
            files: files.len() as u64,
            dirs: dirs.len() as u64,
            inner,
            next,
        };
        let inos = [dirs, files].concat();
        if inos.is_empty() {
            let after = self.after_durable(self.state.applied);
            self.reply_at(caller, &set, self.state.applied, after);
            return Ok(());
        }
        let command = Command::SetGoal(ops::SetGoal { inos, goal });
        self.propose(None, command, Then::Goal(caller, Box::new(set)))?;
        Ok(())
    }

    /// What lies in a directory behind the cookie, and can have a goal.
    fn entries_below(&self, dir: Ino, cookie: u64) -> Result<Part, Status> {
        let listing = self.state.ns.readdir(dir, cookie, GOAL_BATCH, false)?;
        let last = listing.entries.last().map(|entry| entry.cookie);
        let entries = listing.entries.iter().filter(|entry| has_goal(entry.kind));
        let inner = listing.entries.iter().filter(|entry| entry.kind == dfs_proto::meta::FileKind::Dir);
        Ok(Part {
            inos: entries.map(|entry| entry.ino).collect(),
            inner: inner.map(|entry| entry.ino).collect(),
            next: last.filter(|_| !listing.end),
        })
    }

    /// Why a goal can't be, and what can. `now`: servers that take replicas count; a walk that was begun goes on when one
    /// of them goes.
    fn refuse_goal(&self, asked: Goal, now: bool) -> Option<String> {
        let (servers, _) = placement::takers(&self.soft.candidates);
        let known = self.state.servers.len();
        let goal = asked.goal.map_or(self.state.goal(), usize::from);
        let most = servers.min(usize::from(GOAL_MAX));
        if now && asked.goal.is_some() && !(1..=most).contains(&goal) {
            return Some(match (goal, most) {
                (_, 0) => "no server takes replicas now: `dfs server list` shows why".to_owned(),
                (0, _) => format!("a goal of 0 keeps nothing: 1 to {most} works"),
                _ => format!(
                    "a goal of {goal} is more than the {servers} servers that take replicas now, of {known} known: 1 \
                     to {most} works"
                ),
            });
        }
        let max = usize::from(asked.max?);
        if max < goal || max > usize::from(GOAL_MAX) {
            return Some(format!(
                "a bound of {max} replicas with a goal of {goal}: {goal} to {GOAL_MAX} works"
            ));
        }
        None
    }

    fn note_on_hosts(&self, goal: Goal) -> Option<String> {
        let (servers, hosts) = placement::takers(&self.soft.candidates);
        let goal = goal.goal.map(usize::from).filter(|goal| *goal > hosts && hosts < servers)?;
        Some(format!(
            "the {servers} servers that take replicas are on {hosts} hosts: of {goal} replicas some are on the same one"
        ))
    }

    pub(super) fn reply_goal(&mut self, caller: Caller, set: &GoalSet) {
        let after = self.after_durable(self.state.applied);
        self.reply_at(caller, set, self.state.applied, after);
    }

    pub(super) fn show_goal(&self, request: ShowGoal) -> Result<GoalReport, Status> {
        let ns = &self.state.ns;
        let kind = ns.getattr(request.ino).map_err(|_gone| Status::NotFound)?.kind;
        let (servers, hosts) = placement::takers(&self.soft.candidates);
        let small = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let goal = self.state.goal_at(request.ino);
        Ok(GoalReport {
            path: ByteBuf::from(ns.path_of(request.ino).unwrap_or_default()),
            dir: kind == dfs_proto::meta::FileKind::Dir,
            own: ns.goals.get(request.ino),
            goal: small(goal),
            max: small(self.most_replicas(request.ino)),
            cluster_goal: small(self.state.goal()),
            policy_max: small(self.state.policy.max_replicas),
            servers: u32::try_from(servers).unwrap_or(u32::MAX),
            hosts: u32::try_from(hosts).unwrap_or(u32::MAX),
        })
    }

    /// What load can bring a file's chunks to.
    pub(super) fn most_replicas(&self, ino: Ino) -> usize {
        let own = self.state.max_at(ino).unwrap_or(usize::MAX);
        own.min(self.state.policy.max_replicas).max(self.state.goal_at(ino))
    }

    /// A record that is about to be applied changes goals.
    pub(super) fn goals_change(&mut self, set: &ops::SetGoal) {
        let goal = set.goal.goal.map_or(self.state.goal(), usize::from);
        let lowered = set.inos.iter().filter(|ino| self.state.goal_at(**ino) > goal);
        self.soft.goals.new.extend(lowered);
        self.soft.scan.wake();
    }
}
