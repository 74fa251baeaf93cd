//! The chunk server's decisions: who may read and write what, in which order, and when it is done.
//!
//! [`Core`] holds every replica's state and takes one [`Input`] at a time; what follows from it comes out as
//! [`Effect`]s for a driver: the real one (`server`), or a simulator. No I/O, no clock, no randomness: the
//! same inputs give the same effects. Reads are the exception in form only: [`Core::begin_read`] and
//! [`Core::end_read`] enclose the driver's disk read.
//!
//! Keeps I4 (an acknowledged write is on all members), I6 (nothing is served without lease, confirmation and
//! version, before and after the disk), I20 (no older master is obeyed) and I23 (a write takes effect once).
//!
//! Reading order: [`io`] (the words), `lease`, `replica`, `lead`, `ops`, `window` (the state), `read`,
//! `write`, `primary`, `secondary`, `sync`, `zero` (clients and peers), `events`, `fence`, `close`, `fill`,
//! `learner`, `pull`, `withdraw`, `remove`, `read_only`, `look` (the master), `damage`, `mend`, `mended`, `scrub`, `agree` (what rots), `work`,
//! `answers`, `timers` (what is under way), `heat`.

pub mod io;

mod lease;
mod replica;
mod lead;
mod ops;
mod window;
mod read;
mod write;
mod primary;
mod pull;
mod secondary;
mod sync;
mod zero;
mod events;
mod fence;
mod close;
mod fill;
mod learner;
mod remove;
mod read_only;
mod look;
mod damage;
mod mend;
mod mended;
mod scrub;
mod agree;
mod answers;
mod withdraw;
mod departed;
mod work;
mod timers;
mod heat;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dfs_proto::chunk::Member;
use dfs_proto::control::{ChunkHeat, ReplicaInfo};
use dfs_proto::ids::{ChunkId, ChunkVersion, Generation, KeyId, LogIndex, ServerNum, SessionId, Term};
use dfs_proto::key::IssuedKey;
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::{CHUNK_SIZE_MAX, Micros};

use crate::core::damage::Damage;
use crate::core::departed::Departed;
use crate::core::heat::Heat;
use crate::core::io::{CallToken, DiskIx, DiskOp, DiskSetup, Effect, FoundReplica, Identity, Input, Reply};
use crate::core::lease::Lease;
use crate::core::replica::{Replica, Standing};
use crate::core::scrub::Scrubs;
use crate::core::timers::{Timer, Timers};
use crate::core::work::{DiskWork, Jobs, Work};

pub use crate::core::damage::DamageCounts;
pub use crate::core::scrub::PERIOD_MS as SCRUB_PERIOD_MS;

pub use crate::core::read::{ReadEnd, ReadRequest, ReadStart, ReadTicket};

/// A store takes nothing below this share of its space: what is left is for headers, logs and repair
/// (section 15: refuses at 95 %).
const RESERVE_PARTS: u64 = 20;
/// Disks whose free space differs by less than such a share of their size are alike for a new replica.
const SHARES: u64 = 20;
/// A primary refuses this share earlier, so that disks that fill alike refuse a write before it is anywhere.
const EARLY_PARTS: u64 = 100;
/// Keys kept: of this master's last turns, and of one before it.
const KEYS_MAX: usize = 4;

/// The state of one chunk server process.
#[derive(Debug)]
pub struct Core {
    identity: Identity,
    /// Given by the master at registration.
    num: Option<ServerNum>,
    chunk_size: u32,
    generation: Generation,
    max_term: Term,
    max_index: LogIndex,
    /// What the disks were last told of the three.
    kept: (Generation, Term, LogIndex),
    lease: Lease,
    /// The newest last. One that is no longer given out may still be on capabilities that live.
    keys: VecDeque<IssuedKey>,
    stopped: bool,
    /// Number of the last event applied, of this registration.
    events: u64,
    disks: Vec<Disk>,
    replicas: BTreeMap<ChunkId, Replica>,
    /// Versions below which a chunk is refused, whether it has a replica here or not.
    fences: BTreeMap<ChunkId, ChunkVersion>,
    /// Chunks whose op tables name a session.
    session_chunks: BTreeMap<SessionId, BTreeSet<ChunkId>>,
    /// Sessions that ended lately; their capabilities run out soon after.
    ended: BTreeMap<SessionId, Micros>,
    /// Replicas that failed, until a heartbeat that says so was answered.
    lost: BTreeMap<ChunkId, Option<Micros>>,
    /// Replicas that were removed, and when: a capability of before may still say that nothing was ever written there.
    departed: Departed,
    /// Replicas whose files are being removed: until that is done no new one may take their place.
    trashing: BTreeSet<ChunkId>,
    /// When the master was told last that a replica's disk is read-only, of those that somebody wanted to write to.
    told_read_only: BTreeMap<ChunkId, Micros>,
    /// Up to where the master was told what is on such disks.
    told_stranded: ChunkId,
    /// Chunks whose secondaries have not been told the last commit.
    owed_commits: BTreeSet<ChunkId>,
    /// Chunks that the master is told about again each second.
    reminding: BTreeSet<ChunkId>,
    damage: Damage,
    scrubs: Scrubs,
    work: Work,
    jobs: Jobs,
    timers: Timers,
    heat: Heat,
}

#[derive(Debug)]
struct Disk {
    setup: DiskSetup,
    total_bytes: u64,
    /// What may have been added since the free space was measured.
    added_bytes: u64,
    /// New replicas given to it by this process.
    placed: u64,
    /// A sync of it failed: what is there is read, and nothing more is written.
    read_only: bool,
}

impl Core {
    /// A core of this boot with these disks and what was found on them.
    #[must_use]
    pub fn new(identity: Identity, disks: Vec<DiskSetup>, found: &[FoundReplica]) -> Core {
        let scrubs = Scrubs::new(disks.iter().map(|disk| disk.scrub.clone()));
        let replicas = found.iter().map(|found| (found.chunk, Replica::found(found))).collect();
        Core {
            identity,
            num: None,
            chunk_size: CHUNK_SIZE_MAX,
            generation: identity.generation,
            max_term: identity.max_term,
            max_index: identity.max_index,
            kept: (identity.generation, identity.max_term, identity.max_index),
            lease: Lease::default(),
            keys: VecDeque::new(),
            stopped: false,
            events: 0,
            disks: disks
                .into_iter()
                .map(|setup| Disk { setup, total_bytes: 0, added_bytes: 0, placed: 0, read_only: false })
                .collect(),
            replicas,
            fences: BTreeMap::new(),
            session_chunks: BTreeMap::new(),
            ended: BTreeMap::new(),
            lost: BTreeMap::new(),
            departed: Departed::default(),
            trashing: BTreeSet::new(),
            told_read_only: BTreeMap::new(),
            told_stranded: ChunkId(0),
            owed_commits: BTreeSet::new(),
            reminding: BTreeSet::new(),
            damage: Damage::default(),
            scrubs,
            work: Work::default(),
            jobs: Jobs::default(),
            timers: Timers::default(),
            heat: Heat::default(),
        }
    }

    /// Takes one input; what has to be done is appended to `out`, in the order in which it should be begun.
    pub fn step(&mut self, now: Micros, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Write { call, meta, payload } => self.client_write(now, call, meta, payload, out),
            Input::Forward { call, meta, payload } => self.forward(now, call, meta, payload, out),
            Input::Peer { token, answer } => self.peer_answered(now, token, answer, out),
            Input::Disk { token, done } => self.disk_done(now, token, done, out),
            Input::Committed(chunks) => self.committed(&chunks),
            Input::AskMend(ask) => self.asked_to_mend(now, &ask, out),
            Input::Sync { call, chunks } => self.client_sync(now, call, &chunks, out),
            Input::ForwardSync { call, chunks, digest } => self.forward_sync(call, &chunks, digest, out),
            Input::Registered(body) => self.registered(now, &body, out),
            Input::MasterLost => self.lease.unregister(),
            Input::Heartbeat(body) => self.heartbeat_reply(now, &body, out),
            Input::Apply { call, body } => self.apply_pushed(now, call, &body, out),
            Input::Fence { call, body } => self.fence(now, call, &body, out),
            Input::Reconcile { call, body } => self.reconcile(call, &body, out),
            Input::AddLearner { call, body } => self.add_learner(now, call, &body, out),
            Input::Zero { call, body } => self.zero(now, call, &body, out),
            Input::Delete { call, body } => self.delete(now, call, &body, out),
            Input::Close { call, body } => self.close(now, call, &body, out),
            Input::Withdraw { call, body } => self.withdraw(now, call, &body, out),
            Input::StartScrub { call, body } => self.hurry_scrubs(now, call, &body, out),
            Input::Look { call, body } => self.look(call, &body, out),
            Input::Examine { call, body } => self.examine(call, &body, out),
            Input::LearnerJudged { report, status } => {
                self.learner_judged(now, &report, status, out);
            }
            Input::DiskSpace { disk, total_bytes, free_bytes } => {
                self.disk_space(disk, total_bytes, free_bytes)
            }
            Input::DiskReadOnly { disk } => self.disk_is_read_only(now, disk),
            Input::Tick => self.tick(now, out),
            Input::Stop => self.stop(now, out),
        }
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub fn next_wake(&self) -> Option<Micros> {
        self.timers.next()
    }

    /// What the server has, for the master.
    #[must_use]
    pub fn inventory(&self) -> Vec<ReplicaInfo> {
        let there =
            self.replicas.values().filter(|replica| replica.made && replica.standing != Standing::Failed);
        let info = there.map(|replica| ReplicaInfo {
            chunk: replica.chunk,
            version: replica.version,
            config: replica.config,
            open_num: replica.open_num,
            disk: self.disks[usize::from(replica.disk.0)].setup.id,
            learner: replica.learner,
            fenced: replica.standing == Standing::Fenced,
            closed: replica.digest,
            ino: replica.ino,
            index: replica.index,
        });
        info.collect()
    }

    /// The server's number, once a master gave it.
    #[must_use]
    pub fn server_num(&self) -> Option<ServerNum> {
        self.num
    }

    /// The newest key: what a heartbeat says.
    #[must_use]
    pub fn newest_key(&self) -> KeyId {
        self.keys.back().map_or(KeyId(0), |key| key.id)
    }

    /// Takes a master's key.
    fn take_key(&mut self, key: IssuedKey) {
        self.keys.retain(|old| old.id != key.id);
        if self.keys.len() == KEYS_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back(key);
    }

    /// The last event applied: what a heartbeat says.
    #[must_use]
    pub fn applied_events(&self) -> u64 {
        self.events
    }

    /// The newest generation ever seen, and the highest term and durable index of it.
    #[must_use]
    pub fn high_water(&self) -> (Generation, Term, LogIndex) {
        (self.generation, self.max_term, self.max_index)
    }

    /// Whether the lease is valid.
    #[must_use]
    pub fn has_lease(&self, now: Micros) -> bool {
        !self.stopped && self.lease.is_valid(now)
    }

    /// The version at which clients are served of a chunk while the lease is valid, for oracles.
    #[must_use]
    pub fn serves(&self, chunk: ChunkId) -> Option<ChunkVersion> {
        let replica = self.replicas.get(&chunk).filter(|_| !self.stopped)?;
        (replica.standing == Standing::Active).then_some(replica.version)
    }

    /// The busiest chunks.
    pub fn hottest(&mut self, now: Micros, most: usize) -> Vec<ChunkHeat> {
        self.heat.hottest(now, most)
    }

    /// Replicas that the heartbeat sent at `t_send` has to name as lost.
    pub fn lost(&mut self, t_send: Micros) -> Vec<ChunkId> {
        for sent in self.lost.values_mut() {
            sent.get_or_insert(t_send);
        }
        self.lost.keys().copied().collect()
    }

    /// What was found damaged since this process began, and what became of it.
    #[must_use]
    pub fn damage_counts(&self) -> DamageCounts {
        self.damage.counts
    }

    /// Blocks of which no member has a good copy, the first ones.
    #[must_use]
    pub fn hopeless_blocks(&self, most: usize) -> Vec<(ChunkId, u32)> {
        self.damage.hopeless(most)
    }

    /// How many replicas a disk has.
    #[must_use]
    pub fn replicas_on(&self, disk: DiskIx) -> usize {
        self.replicas.values().filter(|replica| replica.made && replica.disk == disk).count()
    }

    fn me(&self) -> Option<Member> {
        self.num.map(|server| Member { server, boot: self.identity.boot })
    }

    /// The disk for a new replica: of those with about the most free space, the one that got fewest.
    fn disk_for_new(&mut self) -> Result<DiskIx, Status> {
        let usable = self.disks.iter().enumerate().filter(|(_, disk)| !disk.read_only);
        if usable.clone().next().is_none() {
            return Err(Status::DiskFailed);
        }
        let best = usable
            .filter(|(_, disk)| disk.left() >= disk.total_bytes / RESERVE_PARTS)
            .max_by_key(|(_, disk)| (disk.left() / (disk.total_bytes / SHARES).max(1), Reverse(disk.placed)));
        let (at, _) = best.ok_or(Status::NoSpace)?;
        self.disks[at].placed += 1;
        u16::try_from(at).map(DiskIx).map_err(|_| Status::NoSpace)
    }

    fn disk_space(&mut self, disk: DiskIx, total_bytes: u64, free_bytes: u64) {
        if let Some(disk) = self.disks.get_mut(usize::from(disk.0)) {
            disk.setup.free_bytes = free_bytes;
            disk.total_bytes = total_bytes;
            disk.added_bytes = 0;
        }
    }

    /// Whether a disk takes another write. Near its end it is measured first, within a few seconds.
    fn check_space(&self, disk: DiskIx) -> Result<(), Status> {
        let disk = self.disks.get(usize::from(disk.0)).ok_or(Status::DiskFailed)?;
        let limit = disk.total_bytes / RESERVE_PARTS + disk.total_bytes / EARLY_PARTS;
        if disk.setup.free_bytes < limit {
            Err(Status::NoSpace)
        } else if disk.left() < limit {
            Err(Status::Overloaded)
        } else {
            Ok(())
        }
    }

    fn takes_new(&self, disk: DiskIx) -> bool {
        let disk = self.disks.get(usize::from(disk.0)).filter(|disk| !disk.read_only);
        disk.is_some_and(|disk| disk.left() >= disk.total_bytes / RESERVE_PARTS)
    }

    /// Takes a master's generation, with which its marks begin anew: an operator has accepted that what an older
    /// one knew is lost. A master of an older one is refused (I20).
    fn join_generation(&mut self, generation: Generation) -> Result<(), Status> {
        if generation < self.generation {
            return Err(Status::Behind);
        }
        if generation > self.generation {
            log::warn!("the cluster is of generation {generation} now, was of {}", self.generation);
            (self.generation, self.max_term, self.max_index) = (generation, Term(0), LogIndex(0));
        }
        Ok(())
    }

    /// Remembers a master's term, and refuses a master that is older than one seen before (I20).
    fn obey(&mut self, term: Term) -> Result<(), Status> {
        if term < self.max_term && !planted!(ObeyOlderMaster) {
            return Err(Status::Behind);
        }
        self.max_term = term;
        Ok(())
    }

    /// The same for what only a server with a lease may do.
    fn obey_while_serving(&mut self, now: Micros, term: Term) -> Result<(), Status> {
        self.obey(term)?;
        if self.stopped || !self.lease.is_valid(now) { Err(Status::NotServing) } else { Ok(()) }
    }

    /// Has the disks remember the high-water marks. The index moves with every heartbeat and is told to the
    /// disks with the timer; a new term at once.
    fn keep_high_water(&mut self, out: &mut Vec<Effect>) {
        if self.kept == self.high_water() {
            return;
        }
        self.kept = self.high_water();
        for (at, disk) in self.disks.iter().enumerate() {
            if let (false, Ok(at)) = (disk.read_only, u16::try_from(at)) {
                let (generation, term, index) = self.high_water();
                let op = DiskOp::HighWater { generation, term, index };
                self.work.disk(DiskIx(at), DiskWork::Nothing, op, out);
            }
        }
    }

    fn tick(&mut self, now: Micros, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Committed => self.tell_committed(out),
                Timer::Resend { chunk, seq } => self.resend(now, chunk, seq, out),
                Timer::SyncAgain { job } => self.sync_again(job, out),
                Timer::FenceOver { job } => self.fence_over(job, out),
                Timer::Remind { chunk } => self.remind(now, chunk, out),
                Timer::HighWater => self.keep_high_water(out),
                Timer::Scrub { disk } => self.scrub(now, disk, out),
                Timer::Mend { chunk } => self.mend(now, chunk, out),
                Timer::Stranded => self.tell_stranded(now, out),
            }
        }
    }

    /// Serves nothing from here on. What is in flight is answered as it ends.
    fn stop(&mut self, now: Micros, out: &mut Vec<Effect>) {
        self.stopped = true;
        self.lease.drop_grant();
        self.keep_scrubs(now, out);
        self.keep_high_water(out);
        let chunks: Vec<ChunkId> = self.replicas.keys().copied().collect();
        for chunk in chunks {
            self.step_down(chunk, Status::NotServing, out);
        }
    }
}

impl Disk {
    /// Free bytes if all that was written since they were measured was new.
    fn left(&self) -> u64 {
        self.setup.free_bytes.saturating_sub(self.added_bytes)
    }
}

/// Counts bytes that a disk is given.
fn charge(disks: &mut [Disk], disk: DiskIx, payload: &bytes::Bytes) {
    if let Some(disk) = disks.get_mut(usize::from(disk.0)) {
        disk.added_bytes = disk.added_bytes.saturating_add(payload.len() as u64);
    }
}

/// Answers a call.
fn answer(call: CallToken, reply: Reply, out: &mut Vec<Effect>) {
    out.push(Effect::Reply { call, reply });
}

/// Answers a call with an error.
fn refuse(call: CallToken, status: Status, out: &mut Vec<Effect>) {
    answer(call, Reply::Failed(status), out);
}
