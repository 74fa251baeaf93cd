//! What a leader knows besides the log. All of it is lost with the process, and learned again from
//! sessions that resume, servers that register, and time that passes.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, Ino, LogIndex, ServerNum, Term};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::balance::Balance;
use super::chunks::confirm::Confirmed;
use super::close::Closing;
use super::damage::Damage;
use super::dispatch::Doubts;
use super::fsck::Checks;
use super::gc::Gc;
use super::goal::Lowered;
use super::grants::Grants;
use super::holes::Drops;
use super::leave::Leaving;
use super::load::LoadPolicy;
use super::maintenance::Away;
use super::paths::Paths;
use super::placement::{self, Candidate, NoPlace, Rng};
use super::read_only::ReadOnly;
use super::recovery::Recovery;
use super::repair::Repair;
use super::scan::Scan;
use super::scrub::Orders;
use super::servers::live::LiveServers;
use super::sessions::live::LiveSessions;
use super::state::State;
use super::table::CowTable;
use super::truncate::Truncates;
use super::unsettled::Unsettled;
use super::watched::Watched;

/// Chunk ids reserved by one record: few records at any rate of creation, and few ids lost to a restart.
pub const ID_RANGE: u64 = 65_536;

/// Chunk ids that may be given out.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// Below it are the ranges of leaders before.
    floor: u64,
    next: u64,
    /// Durably reserved up to here.
    below: u64,
    /// Reserved up to this counter by the record at this index, which may not be on the disk yet.
    coming: Option<(LogIndex, u64)>,
    /// A reservation is proposed.
    asked: bool,
}

impl Ids {
    /// A new leader gives up what is left of the ranges before: an id of theirs may have been given out
    /// by a record that a power cut took back.
    #[must_use]
    pub fn after(below: u64) -> Ids {
        let next = if planted!(ReuseIds) { below.saturating_sub(ID_RANGE) } else { below };
        Ids { floor: below, next, below, coming: None, asked: false }
    }

    /// Whether only this leader can have given the id out.
    #[must_use]
    pub fn is_ours(&self, counter: u64) -> bool {
        counter >= self.floor
    }

    /// The next id whose range is on the disk (I1).
    pub fn take(&mut self, durable: LogIndex) -> Option<u64> {
        if let Some((_, below)) = self.coming.take_if(|(index, _)| *index <= durable) {
            self.below = below;
        }
        if self.next >= self.below {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// The counter to reserve up to, when less than half a range is left.
    #[must_use]
    pub fn wanted(&self) -> Option<u64> {
        let left = self.below - self.next;
        let due = !self.asked && self.coming.is_none() && left < ID_RANGE / 2;
        due.then(|| self.below + ID_RANGE)
    }

    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// A reservation was applied. Its ids are given out once it is on the disk.
    pub fn reserved(&mut self, index: LogIndex, below: u64) {
        self.asked = false;
        self.coming = Some((index, below));
    }
}

/// The tables.
#[derive(Debug)]
pub struct Soft {
    pub(super) sessions: LiveSessions,
    pub(super) servers: LiveServers,
    pub(super) grants: Grants,
    pub(super) confirmed: Confirmed,
    /// Chunks of which some server is known to have a file.
    pub(super) seen: CowTable<()>,
    /// Allocations that a record under way drops: a place given out now would be of a chunk that is gone.
    pub(super) dropping: BTreeSet<ChunkId>,
    pub(super) ids: Ids,
    pub(super) candidates: Vec<Candidate>,
    pub(super) rng: Rng,
    pub(super) doubts: Doubts,
    pub(super) damage: Damage,
    pub(super) read_only: ReadOnly,
    pub(super) recovery: Recovery,
    pub(super) repair: Repair,
    pub(super) load: LoadPolicy,
    pub(super) goals: Lowered,
    pub(super) leaving: Leaving,
    pub(super) away: Away,
    pub(super) balance: Balance,
    pub(super) closing: Closing,
    pub(super) drops: Drops,
    pub(super) unsettled: Unsettled,
    pub(super) truncate: Truncates,
    pub(super) scrubs: Orders,
    pub(super) watched: Watched,
    pub(super) paths: Paths,
    pub(super) gc: Gc,
    pub(super) scan: Scan,
    pub(super) checks: Checks,
    /// Inodes below this may be held by sessions that have not come back yet.
    pub(super) grace_floor: Ino,
}

/// Takes all that a table has of a chunk's members out of it.
pub(super) fn forget_members<T>(table: &mut BTreeMap<(ChunkId, ServerNum), T>, chunk: ChunkId) {
    let range = (chunk, ServerNum(0))..=(chunk, ServerNum(u16::MAX));
    let keys: Vec<_> = table.range(range).map(|(key, _)| *key).collect();
    for key in keys {
        table.remove(&key);
    }
}

/// Grant numbers of a term begin here, so that none is ever given twice.
const GRANT_TERM_SHIFT: u32 = 40;

impl Soft {
    /// What a leader knows that was elected now.
    #[must_use]
    pub fn new(state: &State, elected: Micros, server_lease_ms: u64, term: Term, seed: u64) -> Soft {
        let mut servers = LiveServers::new(elected, server_lease_ms);
        for server in state.servers.iter() {
            servers.expect(server.num);
        }
        let mut sessions = LiveSessions::default();
        for (session, _) in state.sessions.iter() {
            sessions.expect(session, elected);
        }
        Soft {
            sessions,
            servers,
            grants: Grants::new(term.0 << GRANT_TERM_SHIFT),
            confirmed: Confirmed::default(),
            seen: CowTable::new(),
            dropping: BTreeSet::new(),
            ids: Ids::after(state.cluster.map_or(0, |cluster| cluster.ids_below)),
            candidates: Vec::new(),
            rng: Rng(seed ^ term.0),
            doubts: Doubts::default(),
            damage: Damage::default(),
            read_only: ReadOnly::default(),
            recovery: Recovery::default(),
            repair: Repair::default(),
            load: LoadPolicy::default(),
            goals: Lowered::default(),
            leaving: Leaving::default(),
            away: Away::default(),
            balance: Balance::default(),
            closing: Closing::default(),
            drops: Drops::default(),
            unsettled: Unsettled::default(),
            truncate: Truncates::default(),
            scrubs: Orders::default(),
            watched: Watched::default(),
            paths: Paths::default(),
            gc: Gc::default(),
            scan: Scan::default(),
            checks: Checks::default(),
            grace_floor: state.ns.next_ino(),
        }
    }

    /// Servers for `want` more replicas beside `holders`.
    pub(super) fn choose(
        &mut self,
        holders: &[ServerNum],
        want: usize,
        least: usize,
    ) -> Result<Vec<ServerNum>, Status> {
        placement::choose(&self.candidates, holders, want, least, &mut self.rng).map_err(|why| match why {
            NoPlace::Servers => Status::NoServers,
            NoPlace::Space => Status::NoSpace,
            NoPlace::Disks => Status::DiskFailed,
        })
    }

    /// Nothing is left to know of a chunk.
    pub(super) fn forget_chunk(&mut self, chunk: ChunkId) {
        self.confirmed.forget(chunk);
        self.seen.remove(chunk.0);
        self.doubts.forget(chunk);
        self.damage.forget(chunk);
        self.read_only.forget(chunk);
        self.recovery.forget(chunk);
        self.repair.forget(chunk);
        self.load.forget(chunk);
        self.leaving.forget(chunk);
        self.away.forget(chunk);
        self.balance.forget(chunk);
        self.closing.forget(chunk);
        self.unsettled.settled(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_durable_ranges_only() {
        let mut ids = Ids::after(100);
        assert_eq!(ids.take(LogIndex(50)), None);
        assert_eq!(ids.wanted(), Some(100 + ID_RANGE));
        ids.ask();
        assert_eq!(ids.wanted(), None);
        ids.reserved(LogIndex(7), 100 + ID_RANGE);
        assert_eq!(ids.take(LogIndex(6)), None);
        assert_eq!(ids.take(LogIndex(7)), Some(100));
        assert_eq!(ids.take(LogIndex(7)), Some(101));
        assert_eq!(ids.wanted(), None);
    }
}
