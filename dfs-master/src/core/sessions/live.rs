//! What a session is to this leader: its connection, when it was last heard of, and the chunks that were
//! allocated for it and are not known to be written.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, Ino, SessionId};
use dfs_proto::planted;
use dfs_proto::units::{ChunkIndex, Micros};

use crate::core::command::Unused;
use crate::core::contract::ConnId;
use crate::core::lease;

/// Allocations of one session that are remembered; what is beyond stays allocated until its file goes.
const FRESH_MAX: usize = 65_536;

/// A session that is logged, as this leader knows it.
#[derive(Clone, Debug)]
pub struct LiveSession {
    pub conn: Option<ConnId>,
    /// The last message from it, or this leader's beginning.
    pub heard: Micros,
    /// It has opened, or taken itself up again, with this leader: its opens and grants are known.
    spoken: bool,
    /// Its end is proposed.
    pub ending: bool,
    /// Its client said, when it closed it, that nothing of it is under way.
    pub settled: bool,
    /// An operator wants it to end: it is not heard any more, and its lease runs out.
    pub evicted: bool,
    /// Allocated for it; by chunk.
    pub fresh: BTreeMap<ChunkId, Unused>,
}

impl LiveSession {
    fn new(now: Micros, conn: Option<ConnId>) -> LiveSession {
        LiveSession {
            conn,
            heard: now,
            spoken: conn.is_some(),
            ending: false,
            settled: false,
            evicted: false,
            fresh: BTreeMap::new(),
        }
    }

    /// Whether it is answered.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.ending && !self.evicted
    }

    /// Remembers an allocation.
    pub fn allocated(&mut self, ino: Ino, index: ChunkIndex, chunk: ChunkId) {
        if self.fresh.len() < FRESH_MAX {
            self.fresh.insert(chunk, Unused { ino, index, chunk });
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct LiveSessions {
    table: BTreeMap<SessionId, LiveSession>,
    /// How many have not spoken.
    silent: usize,
}

impl LiveSessions {
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&LiveSession> {
        self.table.get(&id)
    }

    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut LiveSession> {
        self.table.get_mut(&id)
    }

    /// A session of the log that this leader has not heard of yet gets a fresh lease.
    pub fn expect(&mut self, id: SessionId, now: Micros) {
        self.table.insert(id, LiveSession::new(now, None));
        self.silent += 1;
    }

    pub fn opened(&mut self, id: SessionId, conn: ConnId, now: Micros) {
        self.table.insert(id, LiveSession::new(now, Some(conn)));
    }

    pub fn remove(&mut self, id: SessionId) -> Option<LiveSession> {
        let live = self.table.remove(&id)?;
        self.silent -= usize::from(!live.spoken);
        Some(live)
    }

    /// A session is there again on a connection. Whether for the first time since this leader began.
    pub fn resumed(&mut self, id: SessionId, conn: ConnId, now: Micros) -> Option<bool> {
        let live = self.table.get_mut(&id).filter(|live| live.goes_on())?;
        let first = !live.spoken;
        self.silent -= usize::from(first);
        (live.conn, live.heard, live.spoken) = (Some(conn), now, true);
        Some(first)
    }

    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &LiveSession)> {
        self.table.iter().map(|(id, live)| (*id, live))
    }

    /// Whether every session has spoken to this leader: until then one that has not may hold anything.
    #[must_use]
    pub fn all_spoke(&self) -> bool {
        self.silent == 0
    }

    /// Sessions whose lease has surely ended and whose end is not under way.
    #[must_use]
    pub fn expired(&self, now: Micros, lease_ms: u64) -> Vec<SessionId> {
        let lease_ms = if planted!(SessionCutShort) { lease_ms / 2 } else { lease_ms };
        let over = |live: &LiveSession| !live.ending && now >= lease::surely_over(live.heard, lease_ms);
        self.table.iter().filter(|(_, live)| over(live)).map(|(id, _)| *id).collect()
    }

    /// Forgets an allocation that turned out to be used.
    pub fn used(&mut self, session: SessionId, chunk: ChunkId) {
        if let Some(live) = self.table.get_mut(&session) {
            live.fresh.remove(&chunk);
        }
    }
}
