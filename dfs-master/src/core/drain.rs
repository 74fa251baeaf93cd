//! An operator's order to empty a server: what has to be there for it, and how far it is. The emptying itself is the
//! scan's, the repair's and [`super::leave`]'s.
//!
//! Keeps: a server is called removable when durably no configuration of the log names it.

use std::collections::BTreeSet;

use dfs_proto::ids::ServerNum;
use dfs_proto::meta::{DrainServer, OrderReport, ServerStake};
use dfs_proto::status::Status;

use super::Core;
use super::chunks::ChunkMeta;
use super::command::Command;
use super::dispatch::Then;
use super::placement::{self, Candidate, NoPlace};
use super::reply::Caller;
use super::state::min_write_for;

impl Core {
    /// An operator wants a server empty, or no longer.
    pub(super) fn drain_server(&mut self, caller: Caller, order: DrainServer) -> Result<(), Status> {
        let DrainServer { server, drain, force } = order;
        self.state.servers.get(server).ok_or(Status::NotFound)?;
        let refused = drain.then(|| self.why_not_drained(server, force)).flatten();
        if refused.is_some() {
            self.reply(caller, &OrderReport { refused, notes: Vec::new() });
            return Ok(());
        }
        self.propose(None, Command::DrainServer { server, drain }, Then::Ordered(caller, Vec::new()))?;
        Ok(())
    }

    /// Why the cluster can't do without a server, and what would help.
    fn why_not_drained(&self, server: ServerNum, force: bool) -> Option<String> {
        let (others, goal) = (self.takers_beside(server), self.state.highest_goal());
        let least = min_write_for(goal);
        let besides = self.who_takes_nothing(server);
        if others < least {
            return Some(format!(
                "{others} other servers take replicas{besides}, and new chunks need {least}: start or add servers"
            ));
        }
        if force {
            return None;
        }
        if others < goal {
            return Some(format!(
                "{others} other servers take replicas{besides}, and the goal is {goal}: start or add servers, or \
                 --force, which leaves there what has no other place"
            ));
        }
        self.why_spread_is_worse(server, goal).or_else(|| self.why_no_room(server))
    }

    /// Servers that are up and take nothing, in words.
    fn who_takes_nothing(&self, server: ServerNum) -> String {
        let idle = |other: &&super::servers::Server| {
            let kept_out = self.is_emptied(other.num) || self.is_maintained(other.num);
            other.num != server && kept_out && self.soft.servers.is_up(other.num, self.now.mono)
        };
        let names: Vec<&str> =
            self.state.servers.iter().filter(idle).map(|other| other.info.name.as_str()).collect();
        if names.is_empty() {
            String::new()
        } else {
            format!(" ({} are up and drained, in maintenance or read-only)", names.join(", "))
        }
    }

    /// Whether replicas would share a rack, or a host, that do not have to with the server.
    fn why_spread_is_worse(&self, server: ServerNum, goal: usize) -> Option<String> {
        let all = &self.soft.candidates;
        let racks = |of: &Candidate| of.rack.clone();
        let hosts = |of: &Candidate| Some(of.host.clone());
        let worse = |what: &str, of: &dyn Fn(&Candidate) -> Option<String>| {
            let distinct = |without: Option<ServerNum>| {
                let left = all.iter().filter(|other| Some(other.server) != without);
                left.filter_map(of).collect::<BTreeSet<String>>().len()
            };
            let (now, then) = (distinct(None), distinct(Some(server)));
            (then < now.min(goal)).then(|| {
                format!(
                    "the other servers are of {then} {what}, and {goal} replicas would share one: add a server of \
                     another, or --force"
                )
            })
        };
        worse("racks", &racks).or_else(|| worse("hosts", &hosts))
    }

    fn why_no_room(&self, server: ServerNum) -> Option<String> {
        let bytes = self.soft.scan.stake(server)?.bytes;
        let others = self.soft.candidates.iter().filter(|other| other.server != server);
        let free: u64 = others.map(Candidate::room).sum();
        (bytes > free).then(|| {
            format!(
                "it has {} MiB of chunks and the others have room for {} MiB: add a disk or a server, delete \
                 something, or --force, which leaves there what has no other place",
                bytes >> 20,
                free >> 20
            )
        })
    }

    /// Whether durably no configuration names the server, which is drained.
    pub(super) fn is_removable(&self, server: ServerNum) -> bool {
        if !self.state.servers.is_draining(server) || self.state.chunks.replicas_on(server) != 0 {
            return false;
        }
        // Copies that were begun before the order: by this leader, or by one before as a walk found them.
        let copying = self.soft.repair.copies_to().contains_key(&server)
            || self.soft.scan.stake(server).is_none_or(|stake| stake.coming > 0);
        !copying
    }

    /// Whether the server was emptied on purpose, is down, and nobody misses it: it is not waited for.
    pub(super) fn is_gone(&self, server: ServerNum) -> bool {
        !self.soft.servers.is_up(server, self.now.mono)
            && self.is_removable(server)
            && self.given_up_on(server) == 0
    }

    /// Replicas there that are for a person to look at.
    pub(super) fn given_up_on(&self, server: ServerNum) -> u64 {
        self.state.given_up.values().filter(|servers| servers.contains(&server)).count() as u64
    }

    /// Notes of a chunk on a server that is drained what keeps it there.
    pub(super) fn note_what_stays(&self, meta: &ChunkMeta, ready: bool, stake: &mut ServerStake) {
        let holders: Vec<ServerNum> = meta.members.iter().collect();
        if !ready {
            stake.unready += 1;
        } else if meta.learners.is_empty() && meta.leaving.is_none() {
            match placement::has_place(&self.soft.candidates, &holders) {
                // As many as the goal stay without it.
                _ if meta.members.len() > self.state.goal_of(meta) => {}
                Ok(()) => {}
                Err(NoPlace::Servers) => stake.no_server += 1,
                Err(NoPlace::Space) => stake.no_space += 1,
                Err(NoPlace::Disks) => stake.no_disk += 1,
            }
        }
    }
}
