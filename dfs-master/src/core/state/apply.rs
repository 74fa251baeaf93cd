//! How a record changes the state. Changes of chunks' members are in [`super::membership`].
//!
//! Nothing here fails: what is refused answers so and changes nothing. A record that could only come
//! from a broken leader stops the process (I1, I2, I14, I15).

use std::sync::Arc;

use dfs_proto::ids::{ChunkId, Ino, LogIndex, OpenNum};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};

use super::{Cluster, State, namespace};
use crate::core::chunks::{ChunkMeta, Members};
use crate::core::command::{Answer, CloseDone, Command, CommitFile, NewChunk, Record, Unused};
use crate::core::ops::{ClearChunk, Create, NsCommand, NsOutcome, SetChunk};
use crate::core::servers::Maintenance;
use crate::core::tombstones::Tombstone;

/// What a record did.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    pub answer: Answer,
    /// Chunks that have a tombstone since this record.
    pub dropped: Vec<ChunkId>,
}

impl Outcome {
    fn of(answer: Answer) -> Outcome {
        Outcome { answer, dropped: Vec::new() }
    }
}

/// When and where a record is applied: what a tombstone says of its origin.
#[derive(Clone, Copy)]
struct At {
    index: LogIndex,
    wall: Timespec,
}

impl State {
    /// Takes a record into effect.
    ///
    /// # Panics
    /// When it breaks an invariant that a correct leader keeps.
    pub fn apply(&mut self, index: LogIndex, record: &Record) -> Outcome {
        let before = self.applied;
        assert!(index > before, "record {index} applied after {before}");
        self.applied = index;
        let outcome = self.take_record(index, record);
        self.trail.note(before, index, &outcome, self.chunks.sum());
        outcome
    }

    fn take_record(&mut self, index: LogIndex, record: &Record) -> Outcome {
        let at = At { index, wall: record.wall };
        if let Some(origin) = &record.origin
            && self.sessions.get(origin.session).is_none()
        {
            // The session ended while the record was under way: its client was told so, or will be.
            return Outcome::of(Answer::Failed(Status::NoSession));
        }
        let outcome = self.take(at, &record.command);
        if let Some(origin) = &record.origin {
            match (&outcome.answer, &record.command) {
                // The answer is the second half's.
                (Answer::Intended, Command::Ns(NsCommand::TruncateIntent(intent))) => {
                    Arc::make_mut(&mut self.cuts).insert(intent.ino, *origin);
                }
                // It comes again, and is then to be done: the check that it passed was of a state that another
                // record has changed since.
                (Answer::Failed(status), _) if status.passes() => {}
                _ => self.sessions.keep(origin, &outcome.answer),
            }
        }
        outcome
    }

    #[expect(clippy::too_many_lines, reason = "a table; a new record has to take its place in it")]
    fn take(&mut self, at: At, command: &Command) -> Outcome {
        match command {
            Command::Genesis { cluster, generation, chunk_size, goal } => {
                assert!(self.cluster.is_none(), "a second genesis at {}", at.index);
                let (id, generation) = (*cluster, *generation);
                self.cluster =
                    Some(Cluster { id, generation, chunk_size: *chunk_size, goal: *goal, ids_below: 0 });
                self.ns = namespace(*chunk_size, at.wall);
                Outcome::of(Answer::Done)
            }
            Command::Ns(command) => self.take_ns(at, command),
            Command::Create { create, first } => self.create(create, first.as_ref()),
            Command::Allocate { ino, index, chunk } => Outcome::of(self.allocate(*ino, *index, chunk)),
            Command::Commit(commit) => self.commit(at, commit),
            Command::DropUnused { chunks } => {
                let dropped = self.drop_unused(at, chunks);
                Outcome { answer: Answer::Done, dropped }
            }
            Command::OpenSession { name, os_boot } => {
                Outcome::of(Answer::Session(self.sessions.open(name.clone(), *os_boot)))
            }
            Command::EndSession { session } => {
                let was = self.sessions.end(*session);
                Outcome::of(if was { Answer::Done } else { Answer::Failed(Status::NoSession) })
            }
            Command::RegisterServer(info) => Outcome::of(match self.servers.register(info.clone()) {
                Some(num) => Answer::Server(num),
                None => Answer::Failed(Status::TooBig),
            }),
            Command::SettleServer { server, boot } => {
                self.servers.settle(*server, *boot);
                Outcome::of(Answer::Done)
            }
            Command::NewGeneration { generation } => {
                if let Some(cluster) = &mut self.cluster {
                    assert!(*generation > cluster.generation, "I1: the generation falls at {}", at.index);
                    cluster.generation = *generation;
                }
                self.trail.accept();
                Outcome::of(Answer::Done)
            }
            Command::ReserveIds { below } => {
                if let Some(cluster) = &mut self.cluster {
                    assert!(*below >= cluster.ids_below, "I1: the id range shrinks at {}", at.index);
                    cluster.ids_below = *below;
                }
                Outcome::of(Answer::Done)
            }
            Command::Recovering { chunks } => Outcome::of(self.recovering(chunks)),
            Command::Activate { chunks } => Outcome::of(self.activate(chunks)),
            Command::AddLearners { learners } => Outcome::of(self.add_learners(learners)),
            Command::DropLearners { learners } => Outcome::of(self.drop_learners(learners)),
            Command::CommitLearner { chunk, version, config, server } => {
                Outcome::of(self.commit_learner(*chunk, *version, *config, *server))
            }
            Command::Leave { leaving } => Outcome::of(self.leave(leaving)),
            Command::Left { left } => Outcome::of(self.left(left)),
            Command::DrainServer { server, drain } => {
                let known = self.servers.drain(*server, *drain);
                Outcome::of(if known { Answer::Done } else { Answer::Failed(Status::NotFound) })
            }
            Command::MaintainServer { server, for_ms } => {
                let maintenance = for_ms.map(|for_ms| Maintenance { since: at.wall, for_ms });
                let known = self.servers.maintain(*server, maintenance);
                Outcome::of(if known { Answer::Done } else { Answer::Failed(Status::NotFound) })
            }
            Command::SetPolicy(policy) => {
                self.policy = *policy;
                Outcome::of(Answer::Done)
            }
            Command::SetGoal(set) => Outcome::of(match set.apply(&mut self.ns) {
                Ok(()) => Answer::Done,
                Err(status) => Answer::Failed(status),
            }),
            Command::CloseChunks { chunks } => Outcome::of(self.close(chunks)),
            Command::DropHoles { chunks } => self.drop_holes(at, chunks),
            Command::Reopen { chunk, open_num } => Outcome::of(self.reopen(*chunk, *open_num)),
            Command::GiveUp(give_up) => Outcome::of(self.give_up(give_up)),
            Command::StateHash(mark) => {
                self.trail.compare(*mark);
                Outcome::of(Answer::Done)
            }
            Command::FreeInodes(free) => self.take_ns(at, &NsCommand::FreeInodes(free.clone())),
            Command::Tombstones { done, forget } => {
                done.iter().for_each(|chunk| self.tombstones.finish(*chunk));
                forget.iter().for_each(|chunk| self.tombstones.remove(*chunk));
                Outcome::of(Answer::Done)
            }
        }
    }

    fn take_ns(&mut self, at: At, command: &NsCommand) -> Outcome {
        match self.ns.apply(command) {
            Err(status) => Outcome::of(Answer::Failed(status)),
            Ok(NsOutcome::Done) => Outcome::of(Answer::Done),
            Ok(NsOutcome::Attr(attr)) => Outcome::of(Answer::Attr(attr)),
            Ok(NsOutcome::Removed(removed)) => Outcome::of(Answer::Removed(removed)),
            Ok(NsOutcome::Renamed(renamed)) => Outcome::of(Answer::Renamed(renamed)),
            Ok(NsOutcome::Intended(boundary)) => {
                // The zeros are written, and a close that is under way must not speak of the bytes before.
                let open_num = self.chunks.get(boundary.chunk).map(|meta| OpenNum(meta.open_num.0 + 1));
                open_num.into_iter().for_each(|open_num| {
                    self.reopen(boundary.chunk, open_num);
                });
                Outcome::of(Answer::Intended)
            }
            Ok(NsOutcome::Truncated { attr, dropped }) => {
                self.no_longer_cut(&[attr.ino]);
                Outcome { answer: Answer::Attr(attr), dropped: self.bury(at, dropped) }
            }
            Ok(NsOutcome::Freed { inos, dropped }) => {
                self.no_longer_cut(&inos);
                Outcome { answer: Answer::Done, dropped: self.bury(at, dropped) }
            }
        }
    }

    fn no_longer_cut(&mut self, inos: &[Ino]) {
        if inos.iter().any(|ino| self.cuts.contains_key(ino)) {
            let cuts = Arc::make_mut(&mut self.cuts);
            inos.iter().for_each(|ino| {
                cuts.remove(ino);
            });
        }
    }

    fn create(&mut self, create: &Create, first: Option<&NewChunk>) -> Outcome {
        Outcome::of(match self.ns.apply(&NsCommand::Create(create.clone())) {
            Ok(NsOutcome::Attr(attr)) => {
                if let Some(chunk) = first {
                    // A file just made has a hole at index 0.
                    self.allocate(attr.ino, ChunkIndex(0), chunk);
                }
                Answer::Created(self.ns.getattr(attr.ino).unwrap_or(attr))
            }
            Ok(other) => unreachable!("Create came to {other:?}"),
            Err(status) => Answer::Failed(status),
        })
    }

    fn allocate(&mut self, ino: Ino, index: ChunkIndex, chunk: &NewChunk) -> Answer {
        assert!(self.knows_id(chunk.id), "I1: {} is outside the reserved ids", chunk.id);
        assert!(self.tombstones.get(chunk.id).is_none(), "I1: {} was deleted once", chunk.id);
        if let Ok(Some(there)) = self.ns.chunk_at(ino, index) {
            return Answer::Placed(there);
        }
        let set = SetChunk { ino, index, chunk: chunk.id };
        match self.ns.apply(&NsCommand::SetChunk(set)) {
            Ok(_) => {
                let meta = ChunkMeta::new(ino, index, Members::of(&chunk.members));
                self.chunks.insert(chunk.id, &meta);
                Answer::Placed(chunk.id)
            }
            Err(status) => Answer::Failed(status),
        }
    }

    fn commit(&mut self, at: At, file: &CommitFile) -> Outcome {
        let set = file.set.clone().map(NsCommand::Setattr);
        // All of it, or nothing.
        if let Some(Err(status)) = set.as_ref().map(|set| self.ns.check(set)) {
            return Outcome::of(Answer::Failed(status));
        }
        let mut attr = None;
        for command in [Some(NsCommand::Commit(file.commit.clone())), set].into_iter().flatten() {
            match self.ns.apply(&command) {
                Ok(NsOutcome::Attr(now)) => attr = Some(now),
                Ok(other) => unreachable!("a commit came to {other:?}"),
                Err(status) => return Outcome::of(Answer::Failed(status)),
            }
        }
        let Some(attr) = attr else { unreachable!("the commit itself was applied") };
        let ino = file.commit.ino;
        let chunks = self.ns.chunk_size().chunks_for(attr.size);
        for chunk in &file.synced {
            self.mark(*chunk, ino, |meta| {
                // A write whose commit has yet to come, or never will, left bytes there that the file does not hold.
                if meta.index.0 < chunks {
                    (meta.synced, meta.written) = (true, true);
                }
            });
        }
        if let Some(last) = file.commit.size_at_least.and_then(|size| size.checked_sub(1)) {
            // The writer's bytes end there, so that chunk has some.
            let (index, _) = self.ns.chunk_size().locate(last);
            if let Ok(Some(chunk)) = self.ns.chunk_at(ino, index) {
                self.mark(chunk, ino, |meta| meta.written = true);
            }
        }
        let unused: Vec<Unused> =
            file.unused.iter().map(|(index, chunk)| Unused { ino, index: *index, chunk: *chunk }).collect();
        let dropped = self.drop_unused(at, &unused);
        let attr = if dropped.is_empty() { attr } else { self.ns.getattr(ino).unwrap_or(attr) };
        Outcome { answer: Answer::Attr(attr), dropped }
    }

    /// Changes marks of a chunk of that file, if there is anything to change.
    fn mark(&mut self, chunk: ChunkId, ino: Ino, change: impl FnOnce(&mut ChunkMeta)) {
        let Some(old) = self.chunks.get(chunk).filter(|meta| meta.ino == ino) else { return };
        let mut new = old.clone();
        change(&mut new);
        if new != old {
            self.chunks.update(chunk, |meta| *meta = new);
        }
    }

    /// Drops allocations that hold nothing of their file. What does hold something stays, whoever
    /// called it unused.
    fn drop_unused(&mut self, at: At, unused: &[Unused]) -> Vec<ChunkId> {
        let mut dropped = Vec::new();
        for Unused { ino, index, chunk } in unused {
            let empty = self.chunks.get(*chunk).is_some_and(|meta| !meta.synced && !meta.written);
            let chunk_size = self.ns.chunk_size();
            let beyond = self.ns.getattr(*ino).is_ok_and(|attr| index.0 >= chunk_size.chunks_for(attr.size));
            if !empty || !beyond {
                continue;
            }
            let clear = ClearChunk { ino: *ino, index: *index, chunk: *chunk };
            if let Ok(NsOutcome::Freed { dropped: gone, .. }) = self.ns.apply(&NsCommand::ClearChunk(clear)) {
                dropped.extend(gone);
            }
        }
        self.bury(at, dropped)
    }

    /// Makes holes of chunks that have nothing else. One that went on since its close stays, and so does one whose
    /// file is being cut.
    fn drop_holes(&mut self, at: At, chunks: &[CloseDone]) -> Outcome {
        let mut dropped = Vec::new();
        for CloseDone { chunk, version, open_num, .. } in chunks {
            let meta = self.chunks.get(*chunk).filter(|meta| meta.closes_at(*version, *open_num));
            let Some(meta) = meta else { continue };
            let clear = ClearChunk { ino: meta.ino, index: meta.index, chunk: *chunk };
            if let Ok(NsOutcome::Freed { dropped: gone, .. }) = self.ns.apply(&NsCommand::ClearChunk(clear)) {
                dropped.extend(gone);
            }
        }
        Outcome { answer: Answer::Done, dropped: self.bury(at, dropped) }
    }

    /// Gives chunks that no file points to their tombstones.
    fn bury(&mut self, at: At, chunks: Vec<ChunkId>) -> Vec<ChunkId> {
        for chunk in &chunks {
            let meta = self.chunks.remove(*chunk);
            let meta = meta.unwrap_or_else(|| panic!("I18: a file pointed to {chunk}, which is not there"));
            assert_eq!(meta.refs, 1, "I18: {chunk} has other pointers");
            let servers = meta.members.iter().chain(meta.learners.iter().copied()).collect();
            let (index, sec, version) = (at.index, at.wall.sec, meta.fence());
            self.tombstones.insert(*chunk, Tombstone { index, sec, version, servers, done: false });
        }
        chunks
    }
}
