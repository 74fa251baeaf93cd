//! Servers that are away for a while on purpose: what they have is kept for their return, and not made anew elsewhere,
//! unless too little of a chunk is left without them.
//!
//! The log says who is in maintenance and for how long; when it ends, the leader says so in the log. A leader that takes
//! over counts what is left of it by the time of day, and never more than was ordered: a wrong clock makes it end early,
//! or as late as if it had begun then.
//!
//! Keeps: a chunk of which fewer than a write needs are left elsewhere does not wait for such a server.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::{MaintainServer, Maintained, OrderReport, ServerStake};
use dfs_proto::status::Status;
use dfs_proto::units::{Micros, Timespec};

use super::Core;
use super::chunks::ChunkMeta;
use super::command::Command;
use super::dispatch::Then;
use super::reply::Caller;
use super::servers::Maintenance;
use super::state::min_write_for;

/// The longest: a server that is away for more is better drained.
const LONGEST_MS: u64 = 7 * 24 * 3_600_000;
/// A chunk that is written goes on without a server that is about to go where so many stay: one could be the last good
/// one the moment after.
const STAY_AT_LEAST: usize = 2;

/// When a maintenance ends, by this leader's clock.
#[derive(Clone, Copy, Debug)]
struct Until {
    of: Maintenance,
    end: Micros,
    /// Its end is proposed.
    ending: bool,
}

/// What this leader knows of maintenance besides the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Away {
    until: BTreeMap<ServerNum, Until>,
    /// Chunks that go on without a member in maintenance: its replica is to count again, and no other is made for it. A
    /// leader that takes over does not know, and has them made.
    without: BTreeMap<ChunkId, BTreeSet<ServerNum>>,
}

impl Away {
    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.without.remove(&chunk);
    }
}

impl Core {
    pub(super) fn is_maintained(&self, server: ServerNum) -> bool {
        self.state.servers.maintenance(server).is_some()
    }

    fn nobody_is_maintained(&self) -> bool {
        self.state.servers.maintained().next().is_none()
    }

    /// An operator wants a server to be left alone for a while, or no longer.
    pub(super) fn maintain_server(&mut self, caller: Caller, order: MaintainServer) -> Result<(), Status> {
        let MaintainServer { server, for_ms, force } = order;
        self.state.servers.get(server).ok_or(Status::NotFound)?;
        match self.means_of_maintenance(server, for_ms, force) {
            Ok(notes) => {
                let command = Command::MaintainServer { server, for_ms };
                self.propose(None, command, Then::Ordered(caller, notes))?;
            }
            Err(why) => self.reply(caller, &OrderReport { refused: Some(why), notes: Vec::new() }),
        }
        Ok(())
    }

    /// What the order means for chunks, or why it is refused.
    fn means_of_maintenance(
        &self,
        server: ServerNum,
        for_ms: Option<u64>,
        force: bool,
    ) -> Result<Vec<String>, String> {
        let Some(for_ms) = for_ms else {
            return if self.is_maintained(server) {
                Ok(Vec::new())
            } else {
                Err("it is not in maintenance".to_owned())
            };
        };
        if for_ms == 0 || for_ms > LONGEST_MS {
            return Err("a maintenance lasts a second at least and a week at most; \
                        `dfs server drain` is for servers that go for longer"
                .to_owned());
        }
        if self.state.servers.is_draining(server) {
            return Err(
                "it is being drained: what it has goes elsewhere; `dfs server undrain` first".to_owned()
            );
        }
        if force {
            return Ok(self.notes_on(self.soft.scan.stake(server).unwrap_or_default()));
        }
        let (others, need) = (self.takers_beside(server), min_write_for(self.state.highest_goal()));
        if others < need {
            return Err(format!(
                "{others} other servers would take new chunks, and writes need {need}: start or add a server, or \
                 --force"
            ));
        }
        let Some(stake) = self.soft.scan.stake(server) else {
            return Err(
                "how its chunks stand is not known yet, this master leads since a moment ago: ask again \
                        in a few seconds"
                    .to_owned(),
            );
        };
        if stake.sole > 0 {
            return Err(format!(
                "{}: the only good replica is there and could not be read meanwhile: wait for their repair if \
                 other servers are up, or `dfs server drain`, which copies all that it has elsewhere first; or \
                 --force",
                chunks(stake.sole)
            ));
        }
        Ok(self.notes_on(stake))
    }

    fn notes_on(&self, stake: ServerStake) -> Vec<String> {
        let mut notes = Vec::new();
        if stake.sole > 0 {
            notes.push(format!("{} can't be read while it is away", chunks(stake.sole)));
        }
        if stake.thin > 0 {
            let need = min_write_for(self.state.highest_goal());
            notes.push(format!(
                "{} would have fewer than the {need} replicas that a write needs: they are made on other servers",
                chunks(stake.thin)
            ));
        }
        notes
    }

    /// Other servers that take replicas.
    pub(super) fn takers_beside(&self, server: ServerNum) -> usize {
        let takes = |other: &super::servers::Server| {
            other.num != server
                && !self.is_emptied(other.num)
                && !self.is_maintained(other.num)
                && self.soft.servers.is_up(other.num, self.now.mono)
        };
        self.state.servers.iter().filter(|other| takes(other)).count()
    }

    /// A maintenance began, or ended.
    pub(super) fn maintenance_applied(&mut self) {
        let servers = &self.state.servers;
        self.soft.away.until.retain(|server, until| servers.maintenance(*server) == Some(until.of));
        self.soft.away.without.retain(|_, without| {
            without.retain(|server| servers.maintenance(*server).is_some());
            !without.is_empty()
        });
        self.refresh_candidates();
        self.soft.scan.wake();
    }

    /// Ends what has lasted long enough.
    pub(super) fn maintenance_tick(&mut self) {
        let (now, wall) = (self.now.mono, self.now.wall);
        let all: Vec<(ServerNum, Maintenance)> = self.state.servers.maintained().collect();
        for (server, of) in all {
            let new = || Until { of, end: now.plus_ms(left_ms(of, wall)), ending: false };
            let until = *self.soft.away.until.entry(server).or_insert_with(new);
            if until.ending || now < until.end {
                continue;
            }
            log::info!("{server}: its maintenance has lasted as long as it was to");
            let ending = self.propose_own(Command::MaintainServer { server, for_ms: None });
            if let Some(until) = self.soft.away.until.get_mut(&server) {
                until.ending = ending;
            }
        }
    }

    /// For how much longer, of a server in maintenance.
    pub(super) fn maintenance_left_ms(&self, server: ServerNum) -> Option<u64> {
        let of = self.state.servers.maintenance(server)?;
        let until = self.soft.away.until.get(&server).filter(|until| until.of == of);
        Some(until.map_or(of.for_ms, |until| until.end.ms_since(self.now.mono)))
    }

    pub(super) fn maintained_servers(&self) -> Vec<Maintained> {
        let of = |(server, _)| {
            Some(Maintained {
                server: self.server_name(server),
                up: self.soft.servers.is_up(server, self.now.mono),
                left_ms: self.maintenance_left_ms(server)?,
            })
        };
        self.state.servers.maintained().filter_map(of).collect()
    }

    /// Replicas of a chunk that count towards its goal: those that stay, and those that servers in maintenance will have
    /// again. Where too few are elsewhere, a server in maintenance counts for nothing.
    pub(super) fn counting(&self, chunk: ChunkId, meta: &ChunkMeta) -> usize {
        let staying = meta.members.iter().filter(|server| !self.should_leave(chunk, *server));
        if self.nobody_is_maintained() {
            return staying.count();
        }
        let (away, here): (Vec<ServerNum>, Vec<ServerNum>) =
            staying.partition(|server| self.is_maintained(*server));
        if here.len() < self.state.min_write(meta) {
            return here.len();
        }
        let without = self.soft.away.without.get(&chunk);
        let back =
            without.map_or(0, |without| without.iter().filter(|s| !meta.members.contains(**s)).count());
        here.len() + away.len() + back
    }

    /// A chunk is about to go on with these members.
    pub(super) fn goes_on_with(&mut self, chunk: ChunkId, members: &[ServerNum]) {
        if self.nobody_is_maintained() {
            return;
        }
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        let goes = |server: &ServerNum| !members.contains(server) && self.is_maintained(*server);
        let gone: Vec<ServerNum> = meta.members.iter().filter(goes).collect();
        if !gone.is_empty() {
            self.soft.away.without.entry(chunk).or_default().extend(gone);
        }
    }

    /// Whether a chunk that is written should go on without a member that is about to go, or with another primary: then
    /// that server's stop costs no writer anything. All members serve.
    pub(super) fn should_hand_over(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        if self.nobody_is_maintained() || !self.has_writer(meta) {
            return false;
        }
        let stay = |server: &ServerNum| !self.is_maintained(*server) && !self.should_leave(chunk, *server);
        let goes = |server: &ServerNum| self.is_maintained(*server);
        let stays = meta.members.iter().filter(stay).count();
        let led = meta.members.primary().is_some_and(|server| goes(&server));
        meta.members.iter().any(|server| goes(&server)) && (self.is_enough(meta, stays) || (led && stays > 0))
    }

    /// Of members that are chosen: those in maintenance lead nothing, and are no members of what is written, where that
    /// costs the chunk nothing that it needs.
    pub(super) fn put_maintained_last<T>(
        &self,
        chunk: ChunkId,
        members: &mut Vec<T>,
        server: impl Fn(&T) -> ServerNum,
    ) {
        if self.nobody_is_maintained() {
            return;
        }
        let written = self.state.chunks.get(chunk).filter(|meta| self.has_writer(meta));
        let stays = members.iter().filter(|member| !self.is_maintained(server(member))).count();
        if written.is_some_and(|meta| self.is_enough(&meta, stays)) {
            members.retain(|member| !self.is_maintained(server(member)));
        } else {
            members.sort_by_key(|member| self.is_maintained(server(member)));
        }
    }

    fn is_enough(&self, meta: &ChunkMeta, stays: usize) -> bool {
        stays >= self.state.min_write(meta).max(STAY_AT_LEAST)
    }
}

/// What is left of it at this time of day.
fn left_ms(of: Maintenance, wall: Timespec) -> u64 {
    let passed_s = u64::try_from(wall.sec.saturating_sub(of.since.sec)).unwrap_or(0);
    of.for_ms.saturating_sub(passed_s.saturating_mul(1000))
}

/// So many, in words.
pub(super) fn chunks(count: u64) -> String {
    if count == 1 { "1 chunk".to_owned() } else { format!("{count} chunks") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_makes_no_maintenance_longer_than_it_was_ordered() {
        let of = Maintenance { since: Timespec { sec: 1_000, nsec: 0 }, for_ms: 60_000 };
        let left = |sec| left_ms(of, Timespec { sec, nsec: 0 });
        assert_eq!((left(1_000), left(1_020), left(1_060), left(9_000)), (60_000, 40_000, 0, 0));
        assert_eq!(left(-5), 60_000, "back before it began");
    }
}
