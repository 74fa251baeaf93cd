//! Attributes and extended attributes: asking, changing, and what may be answered without asking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::ids::{Ino, LogIndex};
use dfs_proto::meta::{
    Attr, Creds, Getattr, Getxattr, Listxattr, Name, Removexattr, SetTime, Setattr, Setxattr, SetxattrMode,
    changed_dirs,
};
use dfs_proto::request::Request;
use dfs_proto::units::{ChunkSize, Micros};

use crate::call::{Answer, Refused, Scope};
use crate::client::{CacheState, Client};
use crate::config::Caller;
use crate::error::{Error, Result};
use crate::inode::{FileHandle, Gate, Inode, State};
use crate::net::Net;
use crate::shared::{Shared, Until, lock};
use crate::sync::Extra;

/// How old attributes may be: what a kernel may remember too.
const FRESH_US: u64 = 1_000_000;
/// What a file loses with every write, so that it is looked for before each.
pub const CAPABILITY: &[u8] = b"security.capability";
/// Most inodes whose lack of extended attributes is remembered.
const CACHE_MAX: usize = 16 << 10;
/// The kernel gets this less than what is left of the lease: it may look at its watch late.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// What to change of an inode; `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttrs {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// Which inodes had no extended attribute lately: one is looked for at every write.
#[derive(Debug, Default)]
pub(crate) struct AttrCache {
    bare: BTreeMap<Ino, Micros>,
    /// Directories as they were after a change of our own.
    dirs: BTreeMap<Ino, Dir>,
    /// Changes up to here may be newer than an answer that says less.
    floor: LogIndex,
}

/// A directory's attributes, when they were asked for, and the change that they come from.
#[derive(Clone, Copy, Debug)]
struct Dir {
    attr: Attr,
    at: Micros,
    index: LogIndex,
}

impl AttrCache {
    pub(crate) fn note(&mut self, attr: &Attr, now: Micros) {
        if attr.xattrs {
            self.bare.remove(&attr.ino);
            return;
        }
        if self.bare.len() >= CACHE_MAX {
            // Most are over by now; those that are not are asked for once more.
            self.bare.clear();
        }
        self.bare.insert(attr.ino, now);
    }

    fn forget(&mut self, ino: Ino, seen: LogIndex) {
        self.bare.remove(&ino);
        self.dirs.remove(&ino);
        // An answer to an earlier change may be on its way.
        self.floor = self.floor.max(seen);
    }

    fn note_dir(&mut self, attr: Attr, at: Micros, index: LogIndex) {
        let old = self.dirs.get(&attr.ino).map_or(self.floor, |dir| dir.index);
        if index <= old {
            return;
        }
        if self.dirs.len() >= CACHE_MAX {
            self.dirs.clear();
        }
        self.dirs.insert(attr.ino, Dir { attr, at, index });
    }

    /// What was told of the directory, and for how long it may be believed.
    fn dir(&self, ino: Ino, now: Micros) -> Option<(Attr, Duration)> {
        let Dir { attr, at, .. } = self.dirs.get(&ino)?;
        let left = FRESH_US.checked_sub(now.0.saturating_sub(at.0)).filter(|left| *left > 0)?;
        Some((*attr, Duration::from_micros(left)))
    }

    fn is_bare(&self, ino: Ino, now: Micros) -> bool {
        self.bare.get(&ino).is_some_and(|at| now.0.saturating_sub(at.0) < FRESH_US)
    }
}

impl<N: Net> Client<N> {
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        let shared = &self.shared;
        let inode = shared.inode(ino);
        if let Some(inode) = &inode {
            shared.settle_times(inode).await?;
        }
        let before = inode.as_ref().map_or(0, |inode| inode.lock().attr_changes);
        let sent = shared.now();
        let answer = shared.ask_in(&Getattr { ino }, Scope::Any, shared.patience()).await?;
        let attr = answer.body;
        lock(&shared.attrs).note(&attr, sent);
        let Some(inode) = inode else { return Ok(attr) };
        let mut state = inode.lock();
        if state.attr_changes == before && !state.dead && state.gate != Gate::Cutting {
            state.take_attr(&attr, answer.index, sent);
        }
        Ok(state.show(attr))
    }

    /// The attributes when they are at hand and true enough: under a grant, at most a second old. Of a file that
    /// is being made they are what its program set; its time of change is given when it is closed. (The kernel
    /// looks at a file's mode before each chown(2).)
    #[must_use]
    pub fn try_getattr(&self, ino: Ino) -> Option<Attr> {
        let shared = &self.shared;
        let now = shared.now();
        if shared.session.lease_left(now).is_zero() {
            return None;
        }
        let inode = shared.inode(ino)?;
        let state = inode.lock();
        let (attr, at) = state.attr?;
        let fresh = now.0.saturating_sub(at.0) < FRESH_US;
        (fresh && state.may_cache() && !state.touched).then(|| state.show(attr))
    }

    /// The attributes of a directory that this mount changed less than a second ago, as they were then, and
    /// what is left of that second.
    #[must_use]
    pub fn try_dir_attr(&self, ino: Ino) -> Option<(Attr, Duration)> {
        let shared = &self.shared;
        let now = shared.now();
        if shared.session.lease_left(now).is_zero() {
            return None;
        }
        lock(&shared.attrs).dir(ino, now)
    }

    /// `handle`: the change comes through this descriptor.
    pub async fn setattr(
        &self,
        ino: Ino,
        handle: Option<&FileHandle>,
        set: SetAttrs,
        caller: Caller,
    ) -> Result<Attr> {
        let shared = &self.shared;
        let until = shared.patience();
        match shared.inode(ino) {
            Some(inode) => shared.setattr_open(&inode, handle, set, caller, until).await,
            None => Ok(shared.setattr_plain(ino, handle, set, caller, Scope::Any, until).await?.body),
        }
    }

    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let shared = &self.shared;
        if name == CAPABILITY {
            // Asked for before every write: that there is none of any name answers the next ones too.
            let sent = shared.now();
            let attr = shared.ask(&Getattr { ino }).await?;
            lock(&shared.attrs).note(&attr, sent);
            if !attr.xattrs {
                return Err(Error::NoData);
            }
        }
        let request = Getxattr { ino, name: Name::from(name) };
        Ok(shared.ask(&request).await?.value.into_vec())
    }

    /// Whether it was heard within a second that the inode has no extended attribute at all.
    #[must_use]
    pub fn has_no_xattrs(&self, ino: Ino) -> bool {
        let now = self.shared.now();
        lock(&self.shared.attrs).is_bare(ino, now)
    }

    pub async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: SetxattrMode,
        caller: Caller,
    ) -> Result<()> {
        let shared = &self.shared;
        let (name, value) = (Name::from(name), Name::from(value));
        shared.changed_attrs(ino);
        let make = |creds| Setxattr { ino, name: name.clone(), value: value.clone(), mode, creds };
        let done = shared.ask_for(caller, make).await;
        shared.changed_attrs(ino);
        done.map(|_| ())
    }

    /// The empty list when it is known that the inode has no extended attribute at all.
    #[must_use]
    pub fn try_listxattr(&self, ino: Ino) -> Option<Vec<Vec<u8>>> {
        let now = self.shared.now();
        lock(&self.shared.attrs).is_bare(ino, now).then(Vec::new)
    }

    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let names = self.shared.ask(&Listxattr { ino }).await?.names;
        Ok(names.into_iter().map(Name::into_vec).collect())
    }

    pub async fn removexattr(&self, ino: Ino, name: &[u8], caller: Caller) -> Result<()> {
        let shared = &self.shared;
        let make = |creds| Removexattr { ino, name: Name::from(name), creds };
        let done = shared.ask_for(caller, make).await;
        shared.changed_attrs(ino);
        done.map(|_| ())
    }

    /// What the kernel may remember of the inode now.
    #[must_use]
    pub fn cache_state(&self, ino: Ino) -> CacheState {
        let Some(inode) = self.shared.inode(ino) else { return CacheState::Unopened };
        let state = inode.lock();
        if state.may_cache() && state.gate != Gate::Draining {
            if state.pending.is_some() {
                // The master will say another time of change.
                return CacheState::Granted(Duration::ZERO);
            }
            let left = self.shared.session.lease_left(self.shared.now());
            CacheState::Granted(left.saturating_sub(LEASE_MARGIN))
        } else if state.handles.is_empty() {
            CacheState::Unopened
        } else {
            CacheState::Shared
        }
    }
}

impl<N: Net> Shared<N> {
    /// Asks as the caller, and once more with its groups if the master needs them.
    pub(crate) async fn ask_as<R: Request>(
        &self,
        caller: Caller,
        scope: Scope,
        until: Until,
        make: impl Fn(Creds) -> R + Send,
    ) -> Result<Answer<R::Reply>> {
        let creds = Creds { uid: caller.uid, gid: caller.gid, groups: None };
        let request = make(creds.clone());
        match self.ask_in(&request, scope, until).await {
            Err(Refused::Groups) => {
                let groups = self.upcalls.groups(caller.pid).unwrap_or_default();
                let request = make(Creds { groups: Some(groups), ..creds });
                Ok(self.ask_in(&request, scope, until).await?)
            }
            other => Ok(other?),
        }
    }

    /// [`Shared::ask_as`] in whatever session there is.
    pub(crate) async fn ask_for<R: Request>(
        &self,
        caller: Caller,
        make: impl Fn(Creds) -> R + Send,
    ) -> Result<R::Reply> {
        Ok(self.ask_as(caller, Scope::Any, self.patience(), make).await?.body)
    }

    /// Takes in what an answer to a change of names says of the directories. Whether it says anything.
    pub(crate) fn note_dirs(&self, payload: &[u8], sent: Micros, index: LogIndex) -> bool {
        let Some(dirs) = changed_dirs(payload) else { return false };
        let mut attrs = lock(&self.attrs);
        dirs.into_iter().for_each(|attr| attrs.note_dir(attr, sent, index));
        true
    }

    /// What is remembered of the attributes is old.
    pub(crate) fn changed_attrs(&self, ino: Ino) {
        lock(&self.attrs).forget(ino, self.session.log_seen().0);
        if let Some(inode) = self.inode(ino) {
            let mut state = inode.lock();
            state.attr_changes += 1;
            state.attr = None;
        }
    }

    /// Lets the master give the mtime of what was written, and have what was set meanwhile: a program that
    /// looks at it twice must see one.
    pub(crate) async fn settle_times(&self, inode: &Arc<Inode>) -> Result<()> {
        let waits = {
            let state = inode.lock();
            state.attrs_wait() && state.may_buffer()
        };
        if waits { self.commit(inode, Extra::default(), self.patience()).await } else { Ok(()) }
    }

    async fn setattr_plain(
        &self,
        ino: Ino,
        handle: Option<&FileHandle>,
        set: SetAttrs,
        caller: Caller,
        scope: Scope,
        until: Until,
    ) -> Result<Answer<Attr>> {
        let handle = handle.map(FileHandle::id);
        let SetAttrs { mode, uid, gid, size, atime, mtime } = set;
        let make = |creds| Setattr { ino, handle, mode, uid, gid, size, atime, mtime, creds };
        let sent = self.now();
        let answer = self.ask_as(caller, scope, until, make).await?;
        match self.inode(ino) {
            Some(inode) => {
                let mut state = inode.lock();
                state.last_change = state.last_change.max(answer.index);
            }
            None => lock(&self.owed).note_change(ino, answer.index, self.session.log_seen().1),
        }
        self.changed_attrs(ino);
        lock(&self.attrs).note(&answer.body, sent);
        Ok(answer)
    }

    pub(crate) async fn setattr_open(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        handle: Option<&FileHandle>,
        set: SetAttrs,
        caller: Caller,
        until: Until,
    ) -> Result<Attr> {
        if let Some(shown) = self.set_while_making(inode, &set, caller) {
            return Ok(shown);
        }
        self.settle_pending(inode.ino, until).await?;
        let cut = match set.size {
            Some(_) => Some(self.begin_cut(inode, until).await?),
            None => None,
        };
        let _turn = inode.turn.lock().await;
        let scope = Scope::Session(inode.incarnation);
        let writes = inode.lock().writes;
        let answer = self.setattr_plain(inode.ino, handle, set, caller, scope, until).await?;
        let now = self.now();
        let mut state = inode.lock();
        if (set.mtime.is_some() || set.size.is_some()) && state.writes == writes {
            // This time stands, also when bytes that were buffered before it go out after it.
            state.touched = false;
        }
        if let Some(size) = set.size {
            // Not before: until the master cut the file, readers see what was written, and a refusal loses nothing.
            self.memory.free(state.dirty.truncate(size) + state.drop_ahead());
            state.cut_at(size, self.session.facts().chunk_size);
        }
        if !state.dead {
            state.take_attr(&answer.body, answer.index, now);
        }
        let shown = state.show(answer.body);
        drop(state);
        drop(cut);
        Ok(shown)
    }

    /// Before a truncation: nothing under way, and the master knows how far the bytes reach that it has to
    /// cut. Writes wait until the answer is dropped.
    pub(crate) async fn begin_cut(self: &Arc<Self>, inode: &Arc<Inode>, until: Until) -> Result<Cut<N>> {
        let cut = self.close_gate(inode, until).await?;
        let behind = {
            let state = inode.lock();
            state.may_buffer() && state.acked_end > state.committed
        };
        if behind {
            self.commit(inode, Extra::default(), until).await?;
        }
        Ok(cut)
    }

    /// Nothing is under way, what is dirty stays, writes wait, and nothing is fetched ahead, until the answer is
    /// dropped.
    pub(crate) async fn close_gate(self: &Arc<Self>, inode: &Arc<Inode>, until: Until) -> Result<Cut<N>> {
        until
            .bound(inode.until(|state| {
                let free = state.dead || state.gate == Gate::Open;
                free.then(|| state.gate = Gate::Cutting)
            }))
            .await?;
        let cut = Cut { shared: Arc::clone(self), inode: Arc::clone(inode) };
        until.bound(inode.until(|state| (state.dead || state.dirty.flights() == 0).then_some(()))).await?;
        self.memory.free(inode.lock().drop_ahead());
        Ok(cut)
    }
}

/// A truncation, or a write of zeros, under way: opens the gate again when dropped.
pub(crate) struct Cut<N: Net> {
    shared: Arc<Shared<N>>,
    inode: Arc<Inode>,
}

impl<N: Net> Drop for Cut<N> {
    fn drop(&mut self) {
        let mut state = self.inode.lock();
        if state.gate == Gate::Cutting {
            state.gate = if state.drains == 0 { Gate::Open } else { Gate::Draining };
        }
        self.shared.pump(&self.inode, &mut state);
        drop(state);
        self.inode.changed.notify_waiters();
    }
}

impl State {
    /// The master cut the file, or grew it, to `size`.
    pub(crate) fn cut_at(&mut self, size: u64, chunk: ChunkSize) {
        self.acked_end = self.acked_end.min(size);
        self.committed = size;
        self.places.clear();
        let chunks = chunk.chunks_for(size);
        self.unsynced.retain(|_, owed| owed.index.0 < chunks);
        self.cuts += 1;
        self.writes += 1;
        self.attr_changes += 1;
    }
}
