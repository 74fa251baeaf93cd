//! Unclean changes: a member is lost, or restarted, or excluded, and the chunk goes on without what it
//! can't vouch for.
//!
//! For each chunk: log `Recovering(v')`, fence every member that can be reached at v', choose a base
//! among what they hold, log `Active(v', c+1)` with those equal to it, tell them. Many chunks share a
//! record and a message. A crash anywhere starts again with v'+1.
//!
//! Keeps I7: nobody is excluded before it is fenced, by its own word, a lease that is over, or a new boot
//! that nobody confirmed. Keeps I14: the base is a member of the last active configuration.

mod base;
mod decide;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::{COMMAND_BATCH, Fence, FenceAnswer, FenceChunk, Fenced, OpRecord};
use dfs_proto::ids::{BootId, ChunkId, ChunkVersion, LogIndex, Seq, ServerNum};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::Core;
use super::chunks::ChunkMeta;
use super::chunks::confirm::Incarnation;
use super::command::{Activation, Command};
use super::reply::{Asked, COMMAND_DEADLINE_MS};

use base::{Base, choose};
pub(super) use standing::MemberStanding;

/// Recoveries that a scan keeps under way; more wait for the next pass. Those that somebody waits for
/// are not bounded by it.
const BACKGROUND_JOBS_MAX: usize = 2048;

/// The process that is asked, and that an answer counts for: one that comes late, after the server was started
/// again, says nothing of what the next process has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Process {
    server: ServerNum,
    boot: BootId,
    incarnation: Incarnation,
}

/// What is known of a chunk's members since it was fenced.
#[derive(Clone, Debug)]
struct Asking {
    version: ChunkVersion,
    /// The record that says so.
    index: LogIndex,
    since: Micros,
    asked: BTreeSet<ServerNum>,
    answers: BTreeMap<ServerNum, (Process, FenceAnswer)>,
    /// What it held when it was fenced is on its disk.
    synced: Option<Process>,
}

/// The configuration to come.
#[derive(Clone, Debug)]
struct Plan {
    version: ChunkVersion,
    members: Vec<Process>,
    /// Members of the configuration before that have a file and are not in this one.
    stale: Vec<ServerNum>,
    /// Some member has a file.
    filled: bool,
    ops: Vec<OpRecord>,
    seq: Seq,
    /// The base's kernel rebooted, or nobody has a file any more.
    lossy: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    /// To be logged with the next batch.
    Starting,
    /// Its record is proposed.
    Logged(ChunkVersion),
    Asking(Asking),
    /// The base syncs what it has, and settles blocks that are torn on every survivor.
    Reconciling {
        asking: Asking,
        base: Process,
    },
    /// Its second record is proposed.
    Activating(Plan),
}

impl Phase {
    /// What the members were asked, while answers count.
    fn asking_mut(&mut self) -> Option<&mut Asking> {
        match self {
            Phase::Asking(asking) | Phase::Reconciling { asking, .. } => Some(asking),
            Phase::Starting | Phase::Logged(_) | Phase::Activating(_) => None,
        }
    }
}

/// Recoveries under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovery {
    jobs: BTreeMap<ChunkId, Phase>,
    starting: BTreeSet<ChunkId>,
    decided: BTreeMap<ChunkId, Activation>,
    /// Members to be left out although they live.
    excluded: BTreeMap<ChunkId, BTreeSet<ServerNum>>,
    /// Chunks whose bad blocks an operator has given up: they become zeros.
    zeroing: BTreeSet<ChunkId>,
}

impl Recovery {
    #[must_use]
    pub(super) fn is_running(&self, chunk: ChunkId) -> bool {
        self.jobs.contains_key(&chunk)
    }

    /// How many are under way.
    #[must_use]
    pub(super) fn running(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.jobs.remove(&chunk);
        self.starting.remove(&chunk);
        self.decided.remove(&chunk);
        self.excluded.remove(&chunk);
        self.zeroing.remove(&chunk);
    }

    /// What a member answered that is the same process still.
    pub(super) fn answer_of(&self, chunk: ChunkId, server: ServerNum) -> Option<(&Process, &FenceAnswer)> {
        let Phase::Asking(asking) = self.jobs.get(&chunk)? else { return None };
        asking.answers.get(&server).map(|(process, answer)| (process, answer))
    }

    pub(super) fn zero_bad_blocks(&mut self, chunk: ChunkId) {
        self.zeroing.insert(chunk);
    }

    fn start(&mut self, chunk: ChunkId) {
        if let std::collections::btree_map::Entry::Vacant(job) = self.jobs.entry(chunk) {
            job.insert(Phase::Starting);
            self.starting.insert(chunk);
        }
    }

    fn restart(&mut self, chunk: ChunkId) {
        self.jobs.insert(chunk, Phase::Starting);
        self.starting.insert(chunk);
    }

    /// Members of the chunk to be left out.
    fn left_out(&self, chunk: ChunkId) -> BTreeSet<ServerNum> {
        self.excluded.get(&chunk).cloned().unwrap_or_default()
    }
}

impl Core {
    /// Somebody waits for the chunk: recovers it if that is needed and can begin now.
    pub(super) fn recover_on_demand(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        if !self.soft.recovery.is_running(chunk)
            && self.needs_recovery(chunk, meta)
            && self.can_recover(chunk, meta)
        {
            self.soft.recovery.start(chunk);
        }
    }

    /// The chunk has other members now: whatever was asked of those before is void.
    pub(super) fn recover_anew(&mut self, chunk: ChunkId) {
        self.soft.recovery.forget(chunk);
        self.soft.recovery.start(chunk);
    }

    /// The chunk needs a new version although its members are well.
    pub(super) fn recover_anyway(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        if self.can_recover(chunk, meta) {
            self.soft.recovery.start(chunk);
        }
    }

    /// A scan found that the chunk needs it.
    pub(super) fn recover_in_background(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        let room = self.soft.recovery.running() < BACKGROUND_JOBS_MAX;
        if room && !self.soft.recovery.is_running(chunk) && self.can_recover(chunk, meta) {
            self.soft.recovery.start(chunk);
        }
    }

    /// A replica is lost, corrupt or out of its peers' reach: the chunk goes on without it.
    pub(super) fn exclude(&mut self, chunk: ChunkId, server: ServerNum) {
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        if meta.learners.contains(&server) {
            self.drop_learner(chunk, server);
        } else if meta.members.contains(server) && meta.members.len() > 1 {
            self.soft.recovery.excluded.entry(chunk).or_default().insert(server);
            self.recover_on_demand(chunk, &meta);
        } else if meta.members.contains(server) {
            log::error!("chunk {chunk}: the only replica, on {server}, is lost or corrupt");
        }
    }

    /// Logs what is ready to be logged.
    pub(super) fn recovery_pump(&mut self) {
        while !self.soft.recovery.starting.is_empty() {
            let batch: Vec<ChunkId> =
                self.soft.recovery.starting.iter().take(COMMAND_BATCH).copied().collect();
            let generation = self.generation();
            let versioned = batch.iter().filter_map(|chunk| {
                let meta = self.state.chunks.get(*chunk)?;
                let fence = meta.fence();
                Some((*chunk, if planted!(SameVersion) { fence } else { fence.raised(generation) }))
            });
            let chunks: Vec<_> = versioned.collect();
            if !self.propose_own(Command::Recovering { chunks: chunks.clone() }) {
                break;
            }
            let recovery = &mut self.soft.recovery;
            for chunk in &batch {
                recovery.starting.remove(chunk);
                recovery.jobs.remove(chunk);
            }
            for (chunk, version) in chunks {
                recovery.jobs.insert(chunk, Phase::Logged(version));
            }
        }
        while !self.soft.recovery.decided.is_empty() {
            let decided = self.soft.recovery.decided.iter().take(COMMAND_BATCH);
            let chunks: Vec<Activation> = decided.map(|(_, activation)| activation.clone()).collect();
            if !self.propose_own(Command::Activate { chunks: chunks.clone() }) {
                break;
            }
            for activation in chunks {
                self.soft.recovery.decided.remove(&activation.chunk);
            }
        }
    }

    /// Chunks are fenced in the log: their members are asked.
    pub(super) fn recovering_applied(&mut self, index: LogIndex, chunks: &[(ChunkId, ChunkVersion)]) {
        let since = self.now.mono;
        let mut to_ask = Vec::new();
        for (chunk, version) in chunks {
            self.learner_lost(*chunk);
            self.soft.leaving.forget(*chunk);
            self.soft.closing.opened(*chunk, index);
            let (asked, answers) = (BTreeSet::new(), BTreeMap::new());
            let asking = Asking { version: *version, index, since, asked, answers, synced: None };
            if let Some(phase) = self.soft.recovery.jobs.get_mut(chunk)
                && matches!(phase, Phase::Logged(logged) if logged == version)
            {
                *phase = Phase::Asking(asking);
                to_ask.push(*chunk);
            }
        }
        self.ask(&to_ask);
    }

    /// Asks every member that can be reached and has not answered, many chunks in a message.
    fn ask(&mut self, chunks: &[ChunkId]) {
        let mut by_server: BTreeMap<ServerNum, Vec<(ChunkId, ChunkVersion)>> = BTreeMap::new();
        let mut index = LogIndex(0);
        for chunk in chunks {
            let Some(meta) = self.state.chunks.get(*chunk) else { continue };
            let Some(Phase::Asking(asking)) = self.soft.recovery.jobs.get_mut(chunk) else { continue };
            for server in meta.members.iter() {
                let live = self.soft.servers.get(server);
                let reachable = live.is_some_and(|live| live.is_reachable() && live.boot.is_some());
                if reachable && !asking.answers.contains_key(&server) && asking.asked.insert(server) {
                    by_server.entry(server).or_default().push((*chunk, asking.version));
                    index = index.max(asking.index);
                }
            }
        }
        let term = self.term();
        for (server, all) in by_server {
            for part in all.chunks(COMMAND_BATCH) {
                let fence = |(chunk, version): &(ChunkId, ChunkVersion)| FenceChunk {
                    chunk: *chunk,
                    version: *version,
                };
                let Some(process) = self.process(server) else { continue };
                let request = Fence { term, chunks: part.iter().map(fence).collect() };
                let asked = Asked::Fence { process, chunks: part.to_vec() };
                self.call(server, &request, asked, COMMAND_DEADLINE_MS, index);
            }
        }
    }

    /// What runs on the server now.
    pub(super) fn process(&self, server: ServerNum) -> Option<Process> {
        let live = self.soft.servers.get(server)?;
        Some(Process { server, boot: live.boot?, incarnation: live.incarnation })
    }

    /// A server answered a FENCE, or did not.
    pub(super) fn fenced(
        &mut self,
        process: Process,
        chunks: &[(ChunkId, ChunkVersion)],
        result: Result<Fenced, Status>,
    ) {
        let server = process.server;
        let current = self.process(server) == Some(process);
        let mut answers = result.map(|fenced| fenced.answers).unwrap_or_default().into_iter();
        for (chunk, version) in chunks {
            let answer = answers.next();
            let job = self.soft.recovery.jobs.get_mut(chunk);
            let Some(asking) = job.and_then(Phase::asking_mut) else { continue };
            if asking.version != *version {
                continue;
            }
            asking.asked.remove(&server);
            if let Some(answer) = answer.filter(|answer| current && is_final(answer)) {
                asking.answers.insert(server, (process, answer));
            }
            self.decide(*chunk);
        }
    }

    /// Asks again who did not answer, and goes on with what is there.
    pub(super) fn recovery_tick(&mut self) {
        let mut waiting = Vec::new();
        let mut over = Vec::new();
        for (chunk, phase) in &self.soft.recovery.jobs {
            match phase {
                Phase::Asking(_) => waiting.push(*chunk),
                Phase::Reconciling { base, .. } if self.process(base.server) != Some(*base) => {
                    over.push(*chunk)
                }
                Phase::Starting | Phase::Logged(_) | Phase::Reconciling { .. } | Phase::Activating(_) => {}
            }
        }
        for chunk in over {
            // Its answer would come with the deadline, and from a process that is gone.
            if let Some(Phase::Reconciling { asking, .. }) = self.soft.recovery.jobs.remove(&chunk) {
                self.soft.recovery.jobs.insert(chunk, Phase::Asking(asking));
                waiting.push(chunk);
            }
        }
        for chunk in &waiting {
            self.drop_old_answers(*chunk);
        }
        self.ask(&waiting);
        waiting.iter().for_each(|chunk| self.decide(*chunk));
        let excluded: Vec<ChunkId> = self.soft.recovery.excluded.keys().copied().collect();
        for chunk in excluded {
            match self.state.chunks.get(chunk) {
                Some(meta) => self.recover_on_demand(chunk, &meta),
                None => self.soft.recovery.forget(chunk),
            }
        }
    }

    /// An answer of a process that has ended says nothing of the next one.
    fn drop_old_answers(&mut self, chunk: ChunkId) {
        let Some(Phase::Asking(asking)) = self.soft.recovery.jobs.get_mut(&chunk) else { return };
        let servers = &self.soft.servers;
        let current = |process: &Process| {
            servers.get(process.server).is_some_and(|live| live.incarnation == process.incarnation)
        };
        asking.answers.retain(|_, (process, _)| current(process));
    }
}

/// Whether an answer says what there is, and not that it could not be found out in time.
fn is_final(answer: &FenceAnswer) -> bool {
    !matches!(
        answer,
        FenceAnswer::Refused(
            Status::Deadline
                | Status::Overloaded
                | Status::NotServing
                | Status::Disconnected
                | Status::NoSpace
        )
    )
}
