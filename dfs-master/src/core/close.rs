//! Clean close (section 9): chunks that nobody writes any more. First the primary, then the other members refuse
//! writes of the opening, make what they have durable and say what it hashes to; if all say the same, the log says
//! that the chunk is closed and what every replica must hash to, or, of a chunk that has nothing but holes, that its
//! file has a hole there (see [`super::holes`]). A server that comes back with such a replica is
//! confirmed by its header alone, so a restart costs a recovery only for what was being written.
//!
//! Keeps I10: a capability after a close that was begun is of a higher opening, logged before, and on the disk
//! before it is given out: with the master's last milliseconds lost, honest bytes would look like corruption.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use dfs_proto::checksum::is_of_nothing;
use dfs_proto::control::{COMMAND_BATCH, Close, CloseAnswer, CloseChunk, Closed};
use dfs_proto::ids::{ChunkId, ChunkVersion, LogIndex, OpenNum, Seq, ServerNum, SessionId};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::Core;
use super::chunks::ChunkMeta;
use super::command::{CloseDone, Command};
use super::contract::After;
use super::reply::{Asked, COMMAND_DEADLINE_MS};

/// Chunks waited for to stay idle; a scan names the others again.
const IDLE_MAX: usize = 1 << 16;
/// Closes under way at once: a wave of them is a batch of each primary.
const JOBS_MAX: usize = COMMAND_BATCH;
/// A close that failed is tried again after this.
const AGAIN_MS: u64 = 10_000;
/// What becomes due meanwhile goes together: many chunks cost a disk one sync of all that it has, few cost it a
/// flush of its cache for each.
const GATHER_MS: u64 = 1_000;
/// While a server is busier than this, in permille, few are closed at a time.
const BUSY_PERMILLE: u16 = 700;
const JOBS_WHILE_BUSY: usize = 32;

/// What a close is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opening {
    pub(super) version: ChunkVersion,
    pub(super) open_num: OpenNum,
}

#[derive(Clone, Debug)]
struct Job {
    of: Opening,
    /// Members that have not answered.
    waits: BTreeSet<ServerNum>,
    /// The secondaries were asked.
    spread: bool,
    /// What the primary has.
    held: Option<(u128, Seq)>,
    why: Why,
}

/// Why a chunk is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Nobody writes it.
    Idle,
    /// It is closed only to go: its file is being written.
    Hole,
    /// What may still be under way to it is to be over.
    Unsettled,
}

/// Who was given the right to write a chunk since all of it was last on the disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writers {
    Nobody,
    One(SessionId),
    Several,
}

/// Chunks that nobody writes, and when they are due.
#[derive(Clone, Debug, Default)]
struct Idle {
    due: BTreeMap<ChunkId, Micros>,
    /// The same in the order in which they are due: looked at on every tick.
    order: BTreeSet<(Micros, ChunkId)>,
}

impl Idle {
    /// The first time that is said counts.
    fn add(&mut self, chunk: ChunkId, due: Micros) {
        if self.due.len() < IDLE_MAX && !self.due.contains_key(&chunk) {
            self.due.insert(chunk, due);
            self.order.insert((due, chunk));
        }
    }

    fn remove(&mut self, chunk: ChunkId) {
        if let Some(due) = self.due.remove(&chunk) {
            self.order.remove(&(due, chunk));
        }
    }

    fn take_due(&mut self, now: Micros) -> Option<ChunkId> {
        let (_, chunk) = *self.order.first().filter(|(due, _)| *due <= now)?;
        self.remove(chunk);
        Some(chunk)
    }
}

/// Closes under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing {
    idle: Idle,
    jobs: BTreeMap<ChunkId, Job>,
    /// When the next ones may begin.
    next: Micros,
    /// Members may refuse the opening that the log names: the next writer gets another.
    tried: BTreeSet<ChunkId>,
    /// Openings whose records may not be on the disk yet.
    opened: BTreeMap<ChunkId, LogIndex>,
    /// For open chunks, as far as this leader has seen it all.
    writers: BTreeMap<ChunkId, Writers>,
    /// Replicas that differed although every member called them whole, since this leader began.
    diverged: u64,
}

impl Closing {
    /// A chunk is closed, or gone.
    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.begin_anew(chunk);
        self.writers.remove(&chunk);
    }

    fn begin_anew(&mut self, chunk: ChunkId) {
        self.idle.remove(chunk);
        self.jobs.remove(&chunk);
        self.tried.remove(&chunk);
    }

    /// All that was ever written to the chunk is on its members' disks.
    pub(super) fn all_is_synced(&mut self, chunk: ChunkId) {
        self.writers.insert(chunk, Writers::Nobody);
    }

    /// Whether others than `session` may have written to an open chunk what is not on its members' disks.
    #[must_use]
    pub(super) fn others_wrote(&self, chunk: ChunkId, session: SessionId) -> bool {
        match self.writers.get(&chunk) {
            Some(Writers::Nobody) => false,
            Some(Writers::One(writer)) => *writer != session,
            Some(Writers::Several) | None => true,
        }
    }

    /// The record at `index` has opened the chunk anew: its members refuse nothing.
    pub(super) fn opened(&mut self, chunk: ChunkId, index: LogIndex) {
        self.begin_anew(chunk);
        self.opened.insert(chunk, index);
    }

    /// The record at `index` has opened the chunk anew, if it was closed.
    pub(super) fn may_be_opened(&mut self, chunk: ChunkId, index: LogIndex) {
        self.opened.insert(chunk, index);
    }

    /// Somebody is about to write it.
    pub(super) fn touched(&mut self, chunk: ChunkId, session: SessionId) {
        self.idle.remove(chunk);
        if let Some(writers) = self.writers.get_mut(&chunk) {
            *writers = match *writers {
                Writers::Nobody => Writers::One(session),
                Writers::One(writer) if writer == session => Writers::One(session),
                Writers::One(_) | Writers::Several => Writers::Several,
            };
        }
    }

    /// Whether members may refuse writes of the opening that the log names.
    pub(super) fn is_refused(&self, chunk: ChunkId) -> bool {
        self.tried.contains(&chunk)
    }

    /// Nobody writes the chunk now.
    pub(super) fn seen_idle(&mut self, chunk: ChunkId, due: Micros) {
        self.idle.add(chunk, due);
    }

    /// Nobody writes the chunk, and it is to be closed with the next ones.
    pub(super) fn hurry(&mut self, chunk: ChunkId, now: Micros) {
        self.idle.remove(chunk);
        self.idle.add(chunk, now);
    }

    #[must_use]
    pub(super) fn is_closing(&self, chunk: ChunkId) -> bool {
        self.jobs.contains_key(&chunk)
    }

    #[must_use]
    pub(super) fn diverged(&self) -> u64 {
        self.diverged
    }
}

impl Core {
    /// Whether nobody writes the chunk, or could without asking first.
    pub(super) fn is_idle(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        self.can_close(chunk, meta) && !self.soft.grants.is_written(meta.ino)
    }

    /// Whether the chunk can be closed now, though somebody may have to ask for another opening of it then.
    pub(super) fn can_close(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        meta.open
            && meta.is_active()
            && meta.learners.is_empty()
            && meta.leaving.is_none()
            && (meta.synced || meta.written)
            && !self.soft.closing.is_closing(chunk)
            && !self.soft.recovery.is_running(chunk)
            && self.soft.sessions.all_spoke()
            && self.state.ns.intent(meta.ino).is_none()
    }

    /// A writer needs another opening of the chunk.
    pub(super) fn must_reopen(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        !meta.open || self.soft.closing.is_refused(chunk)
    }

    /// What a capability to write has to wait for.
    pub(super) fn after_opening(&self, chunk: ChunkId) -> After {
        self.soft.closing.opened.get(&chunk).map_or(After::Now, |index| self.after_durable(*index))
    }

    pub(super) fn close_tick(&mut self) {
        let durable = self.log.durable;
        self.soft.closing.opened.retain(|_, index| *index > durable);
        // Those that a mount waits for do not keep a wave of others from beginning.
        let under_way = self.soft.closing.jobs.values().any(|job| job.why == Why::Idle);
        if self.hold.stands() || under_way {
            return;
        }
        let now = self.now.mono;
        if now < self.soft.closing.next {
            return;
        }
        let busy = self.soft.servers.iter().any(|(_, live)| live.load.utilisation_permille > BUSY_PERMILLE);
        let most = if busy { JOBS_WHILE_BUSY } else { JOBS_MAX };
        let idle = &mut self.soft.closing.idle;
        let due: Vec<ChunkId> = std::iter::from_fn(|| idle.take_due(now)).take(most).collect();
        if due.is_empty() {
            return;
        }
        if busy || due.len() < JOBS_MAX {
            self.soft.closing.next = now.plus_ms(GATHER_MS);
        }
        let mut asks: BTreeMap<ServerNum, Vec<ChunkId>> = BTreeMap::new();
        for chunk in due {
            let Some(meta) = self.state.chunks.get(chunk).filter(|meta| self.is_idle(chunk, meta)) else {
                continue;
            };
            match self.begin_close(chunk, &meta, Why::Idle) {
                Some(primary) => asks.entry(primary).or_default().push(chunk),
                None => self.soft.closing.seen_idle(chunk, now.plus_ms(AGAIN_MS)),
            }
        }
        self.ask_to_close(asks);
    }

    /// The primary, which is to be asked first, if all members are there to be asked.
    pub(super) fn begin_close(&mut self, chunk: ChunkId, meta: &ChunkMeta, why: Why) -> Option<ServerNum> {
        let primary = meta.members.primary().filter(|_| self.all_serve(chunk, meta, None))?;
        let of = Opening { version: meta.version, open_num: meta.open_num };
        let job = Job { of, waits: meta.members.iter().collect(), spread: false, held: None, why };
        self.soft.closing.jobs.insert(chunk, job);
        Some(primary)
    }

    pub(super) fn ask_to_close(&mut self, asks: BTreeMap<ServerNum, Vec<ChunkId>>) {
        let term = self.term();
        for (server, all) in asks {
            for part in all.chunks(COMMAND_BATCH) {
                let mut named: Vec<(ChunkId, Opening)> = Vec::with_capacity(part.len());
                let mut chunks = Vec::with_capacity(part.len());
                for chunk in part {
                    let Some(Job { of, held, .. }) = self.soft.closing.jobs.get(chunk) else { continue };
                    let (of, seq) = (*of, held.map(|(_, seq)| seq));
                    let ino = self.state.chunks.get(*chunk).map(|meta| meta.ino);
                    let note = ino.and_then(|ino| self.note_of(ino));
                    let Opening { version, open_num } = of;
                    chunks.push(CloseChunk { chunk: *chunk, version, open_num, seq, note });
                    named.push((*chunk, of));
                }
                let request = Close { term, chunks };
                self.soft.closing.tried.extend(named.iter().map(|(chunk, _)| *chunk));
                let asked = Asked::Close { server, chunks: named.clone() };
                if !self.call(server, &request, asked, COMMAND_DEADLINE_MS, self.state.applied) {
                    named.iter().for_each(|(chunk, _)| self.close_failed(*chunk));
                }
            }
        }
    }

    /// A close under way is in vain.
    pub(super) fn end_close(&mut self, chunk: ChunkId) {
        if self.soft.closing.jobs.contains_key(&chunk) {
            self.close_failed(chunk);
        }
    }

    /// Members may have closed it; the scan finds it again.
    pub(super) fn close_failed(&mut self, chunk: ChunkId) {
        self.soft.closing.jobs.remove(&chunk);
        let due = self.now.mono.plus_ms(AGAIN_MS);
        self.soft.closing.seen_idle(chunk, due);
    }

    pub(super) fn closed(
        &mut self,
        server: ServerNum,
        chunks: &[(ChunkId, Opening)],
        result: Result<Closed, Status>,
    ) {
        let mut answers = result.map(|closed| closed.answers).unwrap_or_default().into_iter();
        let mut asks: BTreeMap<ServerNum, Vec<ChunkId>> = BTreeMap::new();
        let (mut done, mut holes) = (Vec::new(), Vec::new());
        for (chunk, of) in chunks {
            let answer = answers.next();
            let Some(job) = self.soft.closing.jobs.get_mut(chunk).filter(|job| job.of == *of) else {
                continue;
            };
            let Some(CloseAnswer::Closed { digest, seq }) = answer else {
                log::debug!("chunk {chunk}: {server} does not close it: {answer:?}");
                self.close_failed(*chunk);
                if answer == Some(CloseAnswer::Refused(Status::NoChunk)) {
                    // The log calls it written, by a size that reaches there: nobody else may ever ask for it.
                    self.missing(*chunk, server);
                }
                continue;
            };
            let held = *job.held.get_or_insert((digest, seq));
            let (why, empty) = (job.why, is_of_nothing(digest));
            job.waits.remove(&server);
            if held.1 != seq {
                log::warn!("chunk {chunk}: {server} closes it at write {seq}, its primary at {}", held.1);
                self.close_failed(*chunk);
            } else if held.0 != digest {
                self.replicas_differ(*chunk, server);
            } else if why == Why::Hole && !empty {
                self.close_failed(*chunk);
            } else if job.waits.is_empty() {
                let all = CloseDone { chunk: *chunk, version: of.version, open_num: of.open_num, digest };
                match why {
                    Why::Unsettled if empty => {
                        // It would go if it were closed, but somebody may be about to repeat a write. All members
                        // refuse what was sent before, which is what matters here.
                        self.soft.unsettled.settled(*chunk);
                        self.close_failed(*chunk);
                    }
                    Why::Hole => holes.push(all),
                    Why::Idle if empty && self.lost_nothing(*chunk) => holes.push(all),
                    Why::Idle | Why::Unsettled => done.push(all),
                }
            } else if !job.spread {
                job.spread = true;
                for other in &job.waits {
                    asks.entry(*other).or_default().push(*chunk);
                }
            }
        }
        self.ask_to_close(asks);
        if !done.is_empty() && !self.propose_own(Command::CloseChunks { chunks: done.clone() }) {
            done.iter().for_each(|done| self.close_failed(done.chunk));
        }
        if !holes.is_empty() && !self.propose_own(Command::DropHoles { chunks: holes.clone() }) {
            holes.iter().for_each(|hole| self.close_failed(hole.chunk));
        }
    }

    /// Whether an empty chunk is so because its writers made it so.
    fn lost_nothing(&self, chunk: ChunkId) -> bool {
        self.state.chunks.get(chunk).is_some_and(|meta| meta.lossy == ChunkVersion(0))
    }

    /// Members that have the same writes have not the same bytes.
    fn replicas_differ(&mut self, chunk: ChunkId, server: ServerNum) {
        self.soft.closing.diverged += 1;
        log::error!(
            "chunk {chunk}: {server} has other bytes than its primary, though both have every write; \
             a recovery compares them"
        );
        self.close_failed(chunk);
        if let Some(meta) = self.state.chunks.get(chunk) {
            self.recover_anyway(chunk, &meta);
        }
    }

    /// Chunks are closed in the log.
    pub(super) fn close_applied(&mut self, chunks: &[CloseDone]) {
        for done in chunks {
            let meta = self.state.chunks.get(done.chunk);
            if meta.is_some_and(|meta| !meta.open && meta.open_num == done.open_num) {
                self.soft.closing.forget(done.chunk);
                self.soft.unsettled.settled(done.chunk);
            } else {
                self.close_failed(done.chunk);
            }
        }
    }
}
