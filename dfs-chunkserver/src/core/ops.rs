//! The op table of one chunk (I23): which writes of which session were applied, so that a retry is answered
//! and not done twice. It travels whole with recovery.
//!
//! Only applied writes stand here; those on their way are found among the writes in flight.

use std::collections::BTreeMap;

use dfs_proto::control::OpRecord;
use dfs_proto::ids::{OpId, Seq, SessionId, SizeEpoch};

/// How far above `done` a write's id may lie (section 5): bounds the table per session.
pub(crate) const OPS_MAX: u64 = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct OpTable {
    sessions: BTreeMap<SessionId, SessionOps>,
}

#[derive(Clone, Debug, Default)]
struct SessionOps {
    /// Everything below it was answered, and its answer received.
    done: OpId,
    /// Ordered by id; at most [`OPS_MAX`] plus what arrived before `done` rose.
    applied: Vec<(OpId, Done)>,
}

/// Where a write came, and under which size epoch: a truncation of a higher one has cut it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    pub(crate) seq: Seq,
    pub(crate) size_epoch: SizeEpoch,
}

/// What the table knows of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpSeen {
    New,
    Applied(Done),
    /// Answered long ago, or too far above what the session still waits for.
    Refused,
}

impl OpTable {
    pub(crate) fn from_records(records: &[OpRecord]) -> OpTable {
        let mut table = OpTable::default();
        for record in records {
            let done = Done { seq: record.seq, size_epoch: record.size_epoch };
            table.insert(record.session, record.op, OpId(0), done);
        }
        table
    }

    pub(crate) fn records(&self) -> Vec<OpRecord> {
        let mut records = Vec::new();
        for (&session, ops) in &self.sessions {
            let record = |&(op, Done { seq, size_epoch })| OpRecord { session, op, seq, size_epoch };
            records.extend(ops.applied.iter().map(record));
        }
        records
    }

    /// What is known of `op`, which came with `done`.
    pub(crate) fn look(&self, session: SessionId, op: OpId, done: OpId) -> OpSeen {
        let known = self.sessions.get(&session);
        let done = known.map_or(done, |ops| ops.done.max(done));
        if op < done || op.0 > done.0.saturating_add(OPS_MAX) {
            return OpSeen::Refused;
        }
        let found = known.and_then(|ops| ops.applied.binary_search_by_key(&op, |&(id, _)| id).ok());
        match (known, found) {
            (Some(ops), Some(at)) => OpSeen::Applied(ops.applied[at].1),
            _ => OpSeen::New,
        }
    }

    /// Notes an applied write, and forgets what is below `done`. Whether the session is new here.
    pub(crate) fn insert(&mut self, session: SessionId, op: OpId, done: OpId, what: Done) -> bool {
        let fresh = !self.sessions.contains_key(&session);
        let ops = self.sessions.entry(session).or_default();
        if done > ops.done {
            ops.done = done;
            ops.applied.retain(|&(id, _)| id >= done);
        }
        if op >= ops.done {
            match ops.applied.binary_search_by_key(&op, |&(id, _)| id) {
                Ok(_) => {}
                Err(at) => ops.applied.insert(at, (op, what)),
            }
        }
        fresh
    }

    pub(crate) fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: SessionId = SessionId(1);

    fn one(seq: u64) -> Done {
        Done { seq: Seq(seq), size_epoch: SizeEpoch(3) }
    }

    #[test]
    fn a_retry_is_known_until_done_passes_it() {
        let mut table = OpTable::default();
        assert!(table.insert(S, OpId(5), OpId(4), one(1)));
        assert_eq!(table.look(S, OpId(5), OpId(4)), OpSeen::Applied(one(1)));
        assert_eq!(table.look(S, OpId(6), OpId(4)), OpSeen::New);
        assert_eq!(table.look(S, OpId(3), OpId(3)), OpSeen::Refused, "done never falls");
        assert!(!table.insert(S, OpId(6), OpId(6), one(2)));
        assert_eq!(table.look(S, OpId(5), OpId(4)), OpSeen::Refused);
        assert_eq!(table.look(S, OpId(6 + OPS_MAX + 1), OpId(6)), OpSeen::Refused);
    }

    #[test]
    fn travels_whole() {
        let mut table = OpTable::default();
        table.insert(S, OpId(5), OpId(4), one(1));
        table.insert(SessionId(2), OpId(1), OpId(1), one(2));
        let copy = OpTable::from_records(&table.records());
        assert_eq!(copy.look(S, OpId(5), OpId(4)), OpSeen::Applied(one(1)));
        assert_eq!(copy.look(SessionId(2), OpId(1), OpId(1)), OpSeen::Applied(one(2)));
        assert_eq!(copy.look(S, OpId(4), OpId(4)), OpSeen::New);
    }
}
