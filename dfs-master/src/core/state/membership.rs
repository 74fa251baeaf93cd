//! Changes of who holds a chunk: recovery's two records, the learner's three, the leaver's two, and an operator's one.
//!
//! A record may be overtaken by the chunk's deletion or by another recovery; such a part is passed over.
//! What no race explains stops the process: a base from outside the last active configuration (I14), a
//! planned change that leaves fewer members (I15), two changes at once (I16).

use std::sync::Arc;

use dfs_proto::checksum::is_of_nothing;
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, OpenNum, ServerNum};
use dfs_proto::planted;
use dfs_proto::status::Status;

use super::State;
use crate::core::chunks::{ChunkMeta, ChunkState, MEMBERS_MAX, Members};
use crate::core::command::{Activation, Answer, CloseDone, Departure, GiveUp, LearnerChange};

impl State {
    pub(super) fn recovering(&mut self, chunks: &[(ChunkId, ChunkVersion)]) -> Answer {
        for (chunk, version) in chunks {
            let Some(meta) = self.chunks.get(*chunk) else { continue };
            if *version > meta.fence() || planted!(SameVersion) {
                self.chunks.update(*chunk, |meta| {
                    meta.state = ChunkState::Recovering(*version);
                    // Whatever a learner was given belongs to the old version.
                    meta.learners.clear();
                    // The next configuration may have it again: it holds all that was acknowledged.
                    meta.leaving = None;
                    meta.reopen();
                });
            }
        }
        Answer::Done
    }

    pub(super) fn activate(&mut self, chunks: &[Activation]) -> Answer {
        for new in chunks {
            let Some(meta) = self.chunks.get(new.chunk) else { continue };
            if meta.state != ChunkState::Recovering(new.version) {
                continue;
            }
            let chunk = new.chunk;
            assert_eq!(new.config.0, meta.config.0 + 1, "I3: {chunk} skips a configuration");
            assert!(!new.members.is_empty(), "I14: {chunk} is left without a member");
            let last_active = new.members.iter().all(|server| meta.members.contains(*server));
            assert!(last_active, "I14: {chunk} gets {:?} out of {:?}", new.members, meta.members);
            self.chunks.update(chunk, |meta| {
                meta.version = new.version;
                meta.config = new.config;
                meta.state = ChunkState::Active;
                meta.members = Members::of(&new.members);
                if new.lossy {
                    meta.lossy = new.version;
                }
            });
        }
        Answer::Done
    }

    pub(super) fn close(&mut self, chunks: &[CloseDone]) -> Answer {
        for done in chunks {
            let Some(meta) = self.chunks.get(done.chunk) else { continue };
            if meta.closes_at(done.version, done.open_num) {
                self.chunks.update(done.chunk, |meta| {
                    (meta.open, meta.digest) = (false, done.digest);
                    // Every member has it on its disk, unless there is nothing to have.
                    if !is_of_nothing(done.digest) {
                        (meta.synced, meta.written) = (true, true);
                    }
                });
            }
        }
        Answer::Done
    }

    pub(super) fn reopen(&mut self, chunk: ChunkId, open_num: OpenNum) -> Answer {
        let Some(meta) = self.chunks.get(chunk) else { return Answer::Failed(Status::NoChunk) };
        if open_num > meta.open_num {
            self.chunks.update(chunk, |meta| {
                (meta.open, meta.digest, meta.open_num) = (true, 0, open_num);
            });
        }
        Answer::Done
    }

    /// The one change of members that no fence precedes and no base vouches for: an operator ordered it. Who was
    /// a member serves nothing under the version that follows.
    pub(super) fn give_up(&mut self, give_up: &GiveUp) -> Answer {
        let chunk = give_up.chunk;
        let Some(old) = self.chunks.get(chunk) else { return Answer::Failed(Status::NoChunk) };
        if (old.fence(), old.config) != (give_up.version, give_up.config) {
            return Answer::Failed(Status::WrongChunkVersion);
        }
        assert!(!give_up.members.is_empty(), "{chunk} is given to nobody");
        let generation = self.cluster.map(|cluster| cluster.generation).unwrap_or_default();
        let version = give_up.version.raised(generation);
        self.chunks.update(chunk, |meta| {
            meta.state = ChunkState::Recovering(version);
            meta.config = ConfigNum(meta.config.0 + 1);
            meta.members = Members::of(&give_up.members);
            meta.learners.clear();
            meta.leaving = None;
            meta.reopen();
            // Whoever still has to sync a write of an older version is told that it is lost.
            meta.lossy = version;
            if !give_up.filled {
                (meta.synced, meta.written) = (false, false);
            }
        });
        let before = old.members.iter().chain(old.learners);
        let kept = Arc::make_mut(&mut self.given_up).entry(chunk).or_default();
        kept.extend(before.filter(|server| !give_up.members.contains(server)));
        kept.sort_unstable();
        kept.dedup();
        Answer::Done
    }

    pub(super) fn add_learners(&mut self, learners: &[LearnerChange]) -> Answer {
        for LearnerChange { chunk, server } in learners {
            let Some(meta) = self.chunks.get(*chunk) else { continue };
            let room = meta.members.len() + meta.learners.len() < MEMBERS_MAX;
            let quiet = meta.is_active() && meta.learners.is_empty() && meta.leaving.is_none();
            if quiet && !meta.members.contains(*server) && room {
                self.chunks.update(*chunk, |meta| meta.learners.push(*server));
            }
        }
        Answer::Done
    }

    pub(super) fn drop_learners(&mut self, learners: &[LearnerChange]) -> Answer {
        for LearnerChange { chunk, server } in learners {
            if self.chunks.get(*chunk).is_some_and(|meta| meta.learners.contains(server)) {
                self.chunks.update(*chunk, |meta| meta.learners.retain(|learner| learner != server));
            }
        }
        Answer::Done
    }

    pub(super) fn commit_learner(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        config: ConfigNum,
        server: ServerNum,
    ) -> Answer {
        let Some(meta) = self.chunks.get(chunk) else { return Answer::Failed(Status::NoChunk) };
        let expected = meta.is_active() && meta.version == version && meta.config == config;
        if !expected || !meta.learners.contains(&server) {
            return Answer::Failed(Status::NoChunk);
        }
        self.chunks.update(chunk, |meta| {
            let before = meta.members.len();
            meta.learners.retain(|learner| *learner != server);
            meta.members.push(server);
            meta.config = ConfigNum(config.0 + 1);
            meta.reopen();
            assert!(meta.members.len() > before, "I15: {chunk} loses members by a planned change");
        });
        Answer::Done
    }

    /// The choice is durable: whoever leads next goes on with the same members.
    pub(super) fn leave(&mut self, leaving: &[Departure]) -> Answer {
        for departure in leaving {
            let Some(meta) = self.chunks.get(departure.chunk) else { continue };
            let quiet = meta.learners.is_empty() && meta.leaving.is_none();
            if quiet && self.may_leave(&meta, departure) {
                self.chunks.update(departure.chunk, |meta| meta.leaving = Some(departure.server));
            }
        }
        Answer::Done
    }

    pub(super) fn left(&mut self, left: &[Departure]) -> Answer {
        for departure in left {
            let Some(meta) = self.chunks.get(departure.chunk) else { continue };
            if meta.leaving != Some(departure.server) || !self.may_leave(&meta, departure) {
                continue;
            }
            self.chunks.update(departure.chunk, |meta| {
                let stay: Vec<ServerNum> =
                    meta.members.iter().filter(|server| *server != departure.server).collect();
                meta.members = Members::of(&stay);
                meta.config = ConfigNum(meta.config.0 + 1);
                meta.leaving = None;
            });
        }
        Answer::Done
    }

    /// I15: as many as the goal stay; the primary alone numbers writes, and only a recovery takes its place.
    fn may_leave(&self, meta: &ChunkMeta, departure: &Departure) -> bool {
        let Departure { version, config, server, .. } = *departure;
        meta.is_active()
            && (meta.version, meta.config) == (version, config)
            && meta.members.contains(server)
            && meta.members.primary() != Some(server)
            && meta.members.len() > self.goal_of(meta)
    }
}
