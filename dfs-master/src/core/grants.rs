//! Who has which inode open, and who may cache its data. Soft: a new leader learns it from the sessions
//! that resume.
//!
//! Invariant: while a session holds a Write grant no other holds any, and a Read grant and a foreign
//! open for writing never stand together.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{GrantId, Handle, Ino, SessionId};
use dfs_proto::meta::{Grant, GrantKind, OpenClaim};
use dfs_proto::units::Micros;

/// No grant.
pub const NO_GRANT: Grant = Grant { id: GrantId(0), kind: GrantKind::None };

/// How often a recall is repeated until the grant came back.
const RECALL_EVERY_MS: u64 = 1000;

/// An open file of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct OpenFile {
    session: SessionId,
    handle: Handle,
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    session: SessionId,
    grant: Grant,
    /// When the holder was last told to give it back.
    recalled: Option<Micros>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    opens: Vec<OpenFile>,
    held: Vec<Held>,
}

impl Inode {
    fn opened_by_others(&self, session: SessionId, writing: bool) -> bool {
        self.opens.iter().any(|open| open.session != session && (open.write || !writing))
    }

    fn held_by(&self, session: SessionId) -> Option<Held> {
        self.held.iter().find(|held| held.session == session).copied()
    }

    /// Whether the session writes, now or with the open that is asked for. A session that writes through
    /// one handle and caches through another would miss its own writes.
    fn writes(&self, session: SessionId, write: bool) -> bool {
        write || self.opens.iter().any(|open| open.session == session && open.write)
    }

    /// The best that `session` may hold beside the other opens.
    fn best_for(&self, session: SessionId, write: bool) -> GrantKind {
        let write = self.writes(session, write);
        if self.opened_by_others(session, true) || (write && self.opened_by_others(session, false)) {
            GrantKind::None
        } else if write {
            GrantKind::Write
        } else {
            GrantKind::Read
        }
    }
}

/// A recall to be sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecallOf {
    pub session: SessionId,
    pub ino: Ino,
    pub grant: GrantId,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Grants {
    inodes: BTreeMap<Ino, Inode>,
    /// Which inodes a session has something of.
    by_session: BTreeMap<(SessionId, Ino), ()>,
    next: u64,
}

impl Grants {
    /// An empty table whose grant numbers begin at `first`.
    #[must_use]
    pub fn new(first: u64) -> Grants {
        Grants { inodes: BTreeMap::new(), by_session: BTreeMap::new(), next: first.max(1) }
    }

    /// Whether the session has the inode open, for writing if `write`.
    #[must_use]
    pub fn is_open(&self, ino: Ino, session: SessionId, write: bool) -> bool {
        let opens = self.inodes.get(&ino).map_or(&[][..], |inode| &inode.opens);
        opens.iter().any(|open| open.session == session && (open.write || !write))
    }

    /// Whether that handle is open for writing.
    #[must_use]
    pub fn writes(&self, ino: Ino, session: SessionId, handle: Handle) -> bool {
        let opens = self.inodes.get(&ino).map_or(&[][..], |inode| &inode.opens);
        opens.iter().any(|open| open.session == session && open.handle == handle && open.write)
    }

    /// The sessions that have the inode open or hold a grant on it.
    #[must_use]
    pub fn sessions_of(&self, ino: Ino) -> BTreeSet<SessionId> {
        let inode = self.inodes.get(&ino).into_iter();
        inode
            .flat_map(|inode| {
                let open = inode.opens.iter().map(|open| open.session);
                open.chain(inode.held.iter().map(|held| held.session))
            })
            .collect()
    }

    /// The inodes that the session has open for writing. Of one that it closed, every write has an answer.
    #[must_use]
    pub fn written_by(&self, session: SessionId) -> Vec<Ino> {
        self.inodes_of(session).into_iter().filter(|ino| self.is_open(*ino, session, true)).collect()
    }

    /// Whether an open would be given more than the session holds.
    #[must_use]
    pub fn would_give(&self, ino: Ino, session: SessionId, write: bool) -> bool {
        let best = match self.inodes.get(&ino) {
            Some(inode) => inode.best_for(session, write),
            None => GrantKind::Read,
        };
        best > self.held(ino, session).kind
    }

    /// Which sessions have which inodes open.
    pub fn opens(&self) -> impl Iterator<Item = (SessionId, Ino)> + '_ {
        self.inodes.iter().flat_map(|(ino, inode)| inode.opens.iter().map(|open| (open.session, *ino)))
    }

    #[must_use]
    pub fn is_open_by_any(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| !inode.opens.is_empty())
    }

    /// Whether anybody has it open for writing.
    #[must_use]
    pub fn is_written(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| inode.opens.iter().any(|open| open.write))
    }

    #[must_use]
    pub fn is_open_by_other_writer(&self, ino: Ino, session: SessionId) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| inode.opened_by_others(session, true))
    }

    /// What the session holds.
    #[must_use]
    pub fn held(&self, ino: Ino, session: SessionId) -> Grant {
        self.inodes.get(&ino).and_then(|inode| inode.held_by(session)).map_or(NO_GRANT, |held| held.grant)
    }

    /// The grants that stand in the way of opening (`write`: for writing or cutting): those of others,
    /// and the session's own where the inode is to be shared from now on.
    #[must_use]
    pub fn conflicts(&self, ino: Ino, session: SessionId, write: bool) -> Vec<RecallOf> {
        let Some(inode) = self.inodes.get(&ino) else { return Vec::new() };
        let write = inode.writes(session, write);
        let shared = write && inode.opened_by_others(session, false);
        let conflicts = |held: &&Held| {
            if held.session == session { shared } else { write || held.grant.kind == GrantKind::Write }
        };
        let recall = |held: &Held| RecallOf { session: held.session, ino, grant: held.grant.id };
        inode.held.iter().filter(conflicts).map(recall).collect()
    }

    /// Notes an open and gives the grant that goes with it, none if the file may not be cached. Nothing may conflict any
    /// more.
    ///
    /// # Panics
    /// When something does: the caller recalls first.
    pub fn open(&mut self, ino: Ino, session: SessionId, handle: Handle, write: bool, cache: bool) -> Grant {
        assert!(self.conflicts(ino, session, write).is_empty(), "{ino} opened against a grant");
        let inode = self.inodes.entry(ino).or_default();
        inode.opens.retain(|open| (open.session, open.handle) != (session, handle));
        inode.opens.push(OpenFile { session, handle, write });
        self.by_session.insert((session, ino), ());
        let best = if cache { inode.best_for(session, write) } else { GrantKind::None };
        match inode.held_by(session) {
            // It is on its way back; a new one in its place would let its holder keep others out for ever.
            Some(held) if held.recalled.is_some() => NO_GRANT,
            Some(held) if held.grant.kind >= best => held.grant,
            Some(_) | None => self.give(ino, session, best),
        }
    }

    fn give(&mut self, ino: Ino, session: SessionId, kind: GrantKind) -> Grant {
        let inode = self.inodes.entry(ino).or_default();
        inode.held.retain(|held| held.session != session);
        if kind == GrantKind::None {
            return NO_GRANT;
        }
        let grant = Grant { id: GrantId(self.next), kind };
        self.next += 1;
        inode.held.push(Held { session, grant, recalled: None });
        self.by_session.insert((session, ino), ());
        grant
    }

    /// Takes up what a resuming session says it holds. The grant it keeps, if any: another session may
    /// have come first.
    pub fn claim(
        &mut self,
        ino: Ino,
        session: SessionId,
        handle: Handle,
        write: bool,
        kind: GrantKind,
    ) -> Grant {
        let inode = self.inodes.entry(ino).or_default();
        inode.opens.retain(|open| (open.session, open.handle) != (session, handle));
        inode.opens.push(OpenFile { session, handle, write });
        self.by_session.insert((session, ino), ());
        let wanted = kind.max(self.held(ino, session).kind);
        let foreign = |recall: &RecallOf| recall.session != session;
        let clash = self.conflicts(ino, session, wanted == GrantKind::Write).iter().any(foreign);
        let inode = self.inodes.entry(ino).or_default();
        let open = inode.opened_by_others(session, wanted != GrantKind::Write);
        if wanted == GrantKind::None || clash || open {
            return self.give(ino, session, GrantKind::None);
        }
        let held = self.held(ino, session);
        if held.kind == wanted { held } else { self.give(ino, session, wanted) }
    }

    /// Makes what the session has open be what it says, after its connection broke: a grant on an inode
    /// that it does not name is one that it no longer knows of. Returns the inodes that it wrote and writes no more.
    pub fn keep_opens(&mut self, session: SessionId, opens: &[OpenClaim]) -> Vec<Ino> {
        let mut written = self.written_by(session);
        for ino in self.inodes_of(session) {
            let named: Vec<Handle> = opens.iter().filter(|c| c.ino == ino).map(|c| c.handle).collect();
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.opens.retain(|open| open.session != session || named.contains(&open.handle));
                inode.held.retain(|held| held.session != session || !named.is_empty());
            }
            self.tidy(ino, session);
        }
        for claim in opens {
            let known = self.inodes.get(&claim.ino).is_some_and(|inode| {
                inode.opens.iter().any(|open| (open.session, open.handle) == (session, claim.handle))
            });
            if !known {
                self.claim(claim.ino, session, claim.handle, claim.write, GrantKind::None);
            }
        }
        let writes = self.written_by(session);
        written.retain(|ino| writes.binary_search(ino).is_err());
        written
    }

    fn inodes_of(&self, session: SessionId) -> Vec<Ino> {
        let range = (session, Ino(0))..=(session, Ino(u64::MAX));
        self.by_session.range(range).map(|((_, ino), ())| *ino).collect()
    }

    /// Closes a handle; the grant stays.
    pub fn release(&mut self, ino: Ino, session: SessionId, handle: Handle) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opens.retain(|open| (open.session, open.handle) != (session, handle));
            self.tidy(ino, session);
        }
    }

    /// Takes a grant back, if it is the one that the session holds.
    pub fn give_back(&mut self, ino: Ino, session: SessionId, grant: GrantId) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.held.retain(|held| held.session != session || held.grant.id != grant);
            self.tidy(ino, session);
        }
    }

    /// Whether a recall is due now: at first, then once a second.
    pub fn recall(&mut self, recall: &RecallOf, now: Micros) -> bool {
        let Some(inode) = self.inodes.get_mut(&recall.ino) else { return false };
        let mine = |held: &&mut Held| held.session == recall.session && held.grant.id == recall.grant;
        let Some(held) = inode.held.iter_mut().find(mine) else { return false };
        let due = held.recalled.is_none_or(|last| now.ms_since(last) >= RECALL_EVERY_MS);
        if due {
            held.recalled = Some(now);
        }
        due
    }

    /// Ends all that a session has.
    pub fn end_session(&mut self, session: SessionId) {
        for ino in self.inodes_of(session) {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.opens.retain(|open| open.session != session);
                inode.held.retain(|held| held.session != session);
            }
            self.tidy(ino, session);
        }
    }

    fn tidy(&mut self, ino: Ino, session: SessionId) {
        let Some(inode) = self.inodes.get(&ino) else { return };
        let any = inode.opens.iter().any(|open| open.session == session) || inode.held_by(session).is_some();
        if !any {
            self.by_session.remove(&(session, ino));
        }
        if inode.opens.is_empty() && inode.held.is_empty() {
            self.inodes.remove(&ino);
        }
    }

    /// What the sessions hold of an inode, for assertions and tests.
    #[must_use]
    pub fn kinds(&self, ino: Ino) -> Vec<(SessionId, GrantKind)> {
        let held = self.inodes.get(&ino).map_or(&[][..], |inode| &inode.held);
        held.iter().map(|held| (held.session, held.grant.kind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(9);
    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    fn recall_all(grants: &mut Grants, session: SessionId, write: bool) -> usize {
        let found = grants.conflicts(INO, session, write);
        for recall in &found {
            assert!(grants.recall(recall, Micros(0)));
            assert!(!grants.recall(recall, Micros(999_000)));
            assert!(grants.recall(recall, Micros(1_000_000)));
            grants.give_back(INO, recall.session, recall.grant);
        }
        found.len()
    }

    #[test]
    fn many_read_one_writes() {
        let mut grants = Grants::new(1);
        assert_eq!(grants.open(INO, A, Handle(1), false, true).kind, GrantKind::Read);
        assert_eq!(grants.open(INO, B, Handle(1), false, true).kind, GrantKind::Read);
        assert_eq!(recall_all(&mut grants, B, true), 2);
        // A still has it open for reading: nobody may cache.
        assert_eq!(grants.open(INO, B, Handle(2), true, true).kind, GrantKind::None);
        assert_eq!(grants.kinds(INO), []);
        assert_eq!(grants.open(INO, A, Handle(3), false, true).kind, GrantKind::None);
        grants.release(INO, A, Handle(1));
        grants.release(INO, A, Handle(3));
        assert_eq!(grants.open(INO, B, Handle(4), true, true).kind, GrantKind::Write);
    }

    #[test]
    fn a_writer_never_holds_a_read_grant() {
        let mut grants = Grants::new(1);
        grants.open(INO, A, Handle(1), false, true);
        assert_eq!(recall_all(&mut grants, B, true), 1);
        assert_eq!(grants.open(INO, B, Handle(1), true, true).kind, GrantKind::None);
        assert_eq!(grants.open(INO, B, Handle(2), false, true).kind, GrantKind::None);
        grants.release(INO, A, Handle(1));
        assert_eq!(grants.open(INO, B, Handle(3), false, true).kind, GrantKind::Write);
    }

    #[test]
    fn a_grant_outlives_the_last_close() {
        let mut grants = Grants::new(1);
        let first = grants.open(INO, A, Handle(1), true, true);
        assert_eq!(first.kind, GrantKind::Write);
        grants.release(INO, A, Handle(1));
        assert!(!grants.is_open_by_any(INO));
        assert_eq!(grants.open(INO, A, Handle(2), false, true), first);
        grants.release(INO, A, Handle(2));
        assert_eq!(recall_all(&mut grants, B, false), 1);
        assert_eq!(grants.open(INO, B, Handle(1), false, true).kind, GrantKind::Read);
    }

    #[test]
    fn a_recalled_grant_is_not_given_out_again() {
        let mut grants = Grants::new(1);
        grants.open(INO, A, Handle(1), true, true);
        let recall = grants.conflicts(INO, B, false)[0];
        grants.recall(&recall, Micros(0));
        assert_eq!(grants.open(INO, A, Handle(2), true, true), NO_GRANT);
        grants.give_back(INO, A, recall.grant);
        assert_eq!(grants.open(INO, B, Handle(1), false, true).kind, GrantKind::None);
    }

    #[test]
    fn an_ended_session_leaves_nothing() {
        let mut grants = Grants::new(1);
        grants.open(INO, A, Handle(1), true, true);
        grants.open(Ino(10), A, Handle(2), false, true);
        grants.end_session(A);
        assert!(grants.inodes.is_empty() && grants.by_session.is_empty());
    }

    #[test]
    fn claims_after_a_restart() {
        let mut grants = Grants::new(100);
        let write = grants.claim(INO, A, Handle(1), true, GrantKind::Write);
        assert_eq!(write.kind, GrantKind::Write);
        // A second handle of the same session keeps it.
        assert_eq!(grants.claim(INO, A, Handle(2), false, GrantKind::None), write);
        assert_eq!(grants.claim(INO, B, Handle(1), false, GrantKind::Read).kind, GrantKind::None);
        grants.claim(Ino(10), A, Handle(3), false, GrantKind::Read);
        assert_eq!(grants.claim(Ino(10), B, Handle(3), false, GrantKind::Read).kind, GrantKind::Read);
    }
}
