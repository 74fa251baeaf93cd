//! Carrying out what the policy decided, a chunk's copies one after the other.

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::LocationsChanged;

use crate::core::Core;
use crate::core::chunks::ChunkMeta;
use crate::core::command::LearnerChange;
use crate::core::recovery::MemberStanding;

impl Core {
    /// Begins the next copy of every chunk that is being raised and has none under way.
    pub(super) fn raise_on(&mut self) {
        let idle: Vec<ChunkId> = {
            let waits = |chunk: &&ChunkId| !self.soft.repair.is_running(**chunk);
            self.soft.load.raises.keys().filter(waits).copied().collect()
        };
        let mut learners = Vec::new();
        for chunk in idle {
            match self.next_copy(chunk) {
                Ok((source, server)) => {
                    self.soft.repair.begin(chunk, source, server, self.now.mono);
                    learners.push(LearnerChange { chunk, server });
                }
                Err(why) => self.raise_over(chunk, why),
            }
        }
        if !self.add_learners(&learners) {
            learners.iter().for_each(|learner| self.raise_over(learner.chunk, "the log takes nothing now"));
        }
    }

    /// From whom and to whom the chunk is copied next, or why it is not.
    fn next_copy(&self, chunk: ChunkId) -> Result<(ServerNum, ServerNum), &'static str> {
        let step = self.soft.load.raises.get(&chunk).and_then(|steps| steps.front()).copied();
        let target = step.ok_or("all copies are made")?.target;
        let meta =
            self.state.chunks.get(chunk).filter(ChunkMeta::is_active).ok_or("it is being recovered")?;
        let source = meta.members.primary().ok_or("it has no primary")?;
        if self.soft.recovery.is_running(chunk) || !meta.learners.is_empty() || meta.leaving.is_some() {
            return Err("another change of its replicas came between");
        }
        if self.has_writer(&meta) {
            return Err("a writer has opened it");
        }
        if !matches!(self.member_standing(chunk, &meta, 0, source), MemberStanding::Serving(_)) {
            return Err("its primary does not serve");
        }
        if !self.can_get(target, chunk, &meta) {
            return Err("the server that was to get it can't take it now");
        }
        Ok((source, target))
    }

    fn raise_over(&mut self, chunk: ChunkId, why: &str) {
        if let Some(left) = self.soft.load.raises.remove(&chunk)
            && !left.is_empty()
        {
            let what = format!("raise ended with {} of its copies not made: {why}", left.len());
            log::info!("chunk {chunk}: {what}");
            self.soft.load.past.add(chunk, self.now.wall, what);
        }
    }

    /// A copy is a member now.
    pub(in crate::core) fn raised(&mut self, chunk: ChunkId, meta: &ChunkMeta, target: ServerNum) {
        if meta.members.len() > self.state.goal_of(meta) {
            self.soft.load.above.insert(chunk);
        }
        if let Some(steps) = self.soft.load.raises.get_mut(&chunk) {
            steps.retain(|step| step.target != target);
            let (left, name) = (steps.len(), self.server_name(target));
            let what = format!("{name} serves it: {} replicas, {left} to come", meta.members.len());
            self.soft.load.past.add(chunk, self.now.wall, what);
            if left == 0 {
                self.soft.load.raises.remove(&chunk);
            }
        }
        self.push_location(chunk, meta);
    }

    /// A copy was given up.
    pub(in crate::core) fn not_raised(&mut self, chunk: ChunkId, target: ServerNum) {
        if self.soft.load.is_raising(chunk) {
            let why = format!("the copy to {} was given up", self.server_name(target));
            self.raise_over(chunk, &why);
        }
    }

    /// A member has left, or is left out.
    pub(in crate::core) fn lowered(&mut self, chunk: ChunkId, meta: &ChunkMeta, server: ServerNum) {
        let load = &mut self.soft.load;
        let decided = load.lowers.get(&chunk).is_some_and(|going| going.server == server);
        if decided {
            load.lowers.remove(&chunk);
            // What else of it is not needed goes without waiting for the next second.
            load.next = self.now.mono;
        }
        if decided || load.shed.contains(&chunk) {
            let what = format!("{} gave it back: {} replicas", self.server_name(server), meta.members.len());
            self.soft.load.past.add(chunk, self.now.wall, what);
            self.soft.gc.surplus(server, chunk);
        }
        self.push_location(chunk, meta);
        self.shed_on(chunk, meta);
    }

    /// A writer has the chunk: the replicas beyond its goal leave, one after the other, while it writes.
    pub(in crate::core) fn shed(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        if meta.members.len() <= self.state.goal_of(meta) || !self.soft.load.shed.insert(chunk) {
            return;
        }
        self.soft.load.above.insert(chunk);
        let what = format!("written: of {} replicas those above its goal go", meta.members.len());
        self.soft.load.past.add(chunk, self.now.wall, what);
        self.raise_over(chunk, "a writer has opened it");
        self.shed_on(chunk, meta);
    }

    /// A pass found chunks above the goals that their files have now. Those of which the load needs more stay the
    /// policy's.
    pub(in crate::core) fn goals_are_lower(&mut self, chunks: &[ChunkId]) {
        if chunks.is_empty() {
            return;
        }
        let min = self.limits().min;
        for chunk in chunks {
            let Some(meta) = self.state.chunks.get(*chunk) else { continue };
            let goal = self.state.goal_of(&meta);
            let read = self.soft.load.chunks.get(chunk).map(|watched| watched.read).unwrap_or_default();
            if !read.is_under(min, goal) || !self.soft.load.shed.insert(*chunk) {
                continue;
            }
            self.soft.load.above.insert(*chunk);
            let what =
                format!("its goal is {goal} now: of {} replicas those above it go", meta.members.len());
            self.soft.load.past.add(*chunk, self.now.wall, what);
            self.raise_over(*chunk, "its goal was lowered");
        }
        // The next pass begins with them.
        self.soft.scan.wake();
    }

    fn shed_on(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        if !self.soft.load.shed.contains(&chunk) {
            return;
        }
        if meta.members.len() <= self.state.goal_of(meta) {
            self.soft.load.shed.remove(&chunk);
        } else if let Some(server) = self.leaves_for_load(chunk, meta) {
            self.soft.leaving.want(chunk, server);
        }
    }

    /// Tells whoever has the file open that its places have changed: a hint, which saves a redirect, or brings a new replica
    /// into use at once.
    fn push_location(&mut self, chunk: ChunkId, meta: &ChunkMeta) {
        let sessions = self.soft.grants.sessions_of(meta.ino);
        for session in sessions {
            let conn = self.soft.sessions.get(session).and_then(|live| live.conn);
            if let Some(conn) = conn {
                self.notify(conn, &LocationsChanged { chunks: vec![chunk] });
            }
        }
    }
}
