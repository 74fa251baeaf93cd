//! Sessions as logged: who they are, and the answers kept for repeated requests. Their leases, opens and
//! connections are soft and live in [`live`].
//!
//! Invariant: an answer is kept from the record that produced it until the session says that it arrived,
//! so a mutation takes effect once however often it is sent.

pub mod live;

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::ids::{OsBootId, RequestId, SessionId};
use serde::{Deserialize, Serialize};

use super::command::{Answer, Origin};

/// How far a request id may lie above the lowest unanswered one: the most answers kept for a session.
pub const KEPT_MAX: u64 = 1024;

/// A session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Session {
    pub name: String,
    pub os_boot: OsBootId,
    /// Everything below has arrived at the client.
    done: RequestId,
    kept: BTreeMap<RequestId, Answer>,
}

/// What is known of a request id.
#[derive(Clone, PartialEq, Debug)]
pub enum Known<'a> {
    /// Not seen: it may take effect.
    New,
    /// Its answer.
    Answered(&'a Answer),
    /// The client had its answer: a copy that was late.
    Over,
}

impl Session {
    /// What became of a request.
    #[must_use]
    pub fn known(&self, rid: RequestId) -> Known<'_> {
        match self.kept.get(&rid) {
            Some(answer) => Known::Answered(answer),
            None if rid < self.done => Known::Over,
            None => Known::New,
        }
    }

    /// How many answers are kept.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        self.kept.len()
    }

    /// Whether an answer is kept that the client has: no record leaves one.
    #[must_use]
    pub fn keeps_arrived(&self) -> bool {
        self.kept.first_key_value().is_some_and(|(rid, _)| *rid < self.done)
    }

    fn keep(&mut self, origin: &Origin, answer: Answer) {
        if origin.done > self.done {
            self.done = origin.done;
            self.kept = self.kept.split_off(&origin.done);
        }
        if origin.rid >= self.done {
            self.kept.insert(origin.rid, answer);
        }
    }
}

/// All sessions.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    table: BTreeMap<SessionId, Arc<Session>>,
    /// The last id given.
    last: SessionId,
}

impl Sessions {
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.table.get(&id).map(Arc::as_ref)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.table.iter().map(|(id, session)| (*id, session.as_ref()))
    }

    /// The last id given.
    #[must_use]
    pub fn last(&self) -> SessionId {
        self.last
    }

    pub fn open(&mut self, name: String, os_boot: OsBootId) -> SessionId {
        self.last = SessionId(self.last.0 + 1);
        let session = Session { name, os_boot, done: RequestId(0), kept: BTreeMap::new() };
        self.table.insert(self.last, Arc::new(session));
        self.last
    }

    /// Whether there was one.
    pub fn end(&mut self, id: SessionId) -> bool {
        self.table.remove(&id).is_some()
    }

    /// Keeps an answer, if the session still lives.
    pub fn keep(&mut self, origin: &Origin, answer: &Answer) {
        if let Some(session) = self.table.get_mut(&origin.session) {
            Arc::make_mut(session).keep(origin, answer.clone());
        }
    }

    /// Puts back what a snapshot held.
    pub(super) fn restore(&mut self, id: SessionId, session: Session) {
        self.table.insert(id, Arc::new(session));
    }

    pub(super) fn restore_last(&mut self, last: SessionId) {
        self.last = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_until_they_arrived() {
        let mut sessions = Sessions::default();
        let id = sessions.open("a".into(), OsBootId(1));
        let origin = |rid, done| Origin { session: id, rid: RequestId(rid), done: RequestId(done) };
        sessions.keep(&origin(1, 1), &Answer::Done);
        sessions.keep(&origin(3, 1), &Answer::Done);
        let known = |sessions: &Sessions, rid| match sessions.get(id).unwrap().known(RequestId(rid)) {
            Known::New => 'n',
            Known::Answered(_) => 'a',
            Known::Over => 'o',
        };
        assert_eq!([1, 2, 3].map(|rid| known(&sessions, rid)), ['a', 'n', 'a']);
        sessions.keep(&origin(4, 3), &Answer::Done);
        assert_eq!([1, 2, 3, 4].map(|rid| known(&sessions, rid)), ['o', 'o', 'a', 'a']);
        assert!(sessions.end(id));
        sessions.keep(&origin(5, 3), &Answer::Done);
        assert!(sessions.get(id).is_none());
        assert_eq!(sessions.open("b".into(), OsBootId(1)), SessionId(2));
    }
}
