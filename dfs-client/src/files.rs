//! Opening and closing files, and what is kept of a file after its last close: the grant, so that the
//! next open needs no recall, until there are too many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::ids::{ChunkId, GrantId, Handle, Ino};
use dfs_proto::meta::{Access, Attr, Commit, Create, Created, Grant, GrantKind, Name, Open, Opened, Release};
use dfs_proto::units::{ChunkIndex, Micros};
use tokio::sync::Notify;

use crate::attrs::{Cut, SetAttrs};
use crate::call::{Answer, Scope};
use crate::client::Client;
use crate::config::Caller;
use crate::core::ahead::Stream;
use crate::error::{Error, Result};
use crate::inode::{FileHandle, Gate, Inode, Mapped, OpenFile, State};
use crate::net::Net;
use crate::recall::Back;
use crate::shared::{Shared, Until, lock};

/// How long closed handles are gathered into one message.
const RELEASE_GATHER: Duration = Duration::from_millis(10);
/// Most handles of one message.
const RELEASE_BATCH: usize = 1024;
/// Grants of closed files given back in one message.
const GRANTS_BACK_BATCH: usize = 64;

/// Handles that were closed and that the master has yet to hear of, with the count of writes given up if it has not
/// heard of them.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    list: Mutex<Vec<(Ino, Handle, Option<u64>)>>,
    wake: Notify,
}

impl Releases {
    /// Has the sender look whether the client was shut down.
    pub(crate) fn stop(&self) {
        self.wake.notify_one();
    }
}

/// An open that was answered.
#[derive(Clone, Copy, Debug)]
struct Opening {
    incarnation: u64,
    handle: Handle,
    access: Access,
    truncate: Option<Truncate>,
    /// When it was asked for.
    sent: Micros,
}

/// How an open cuts the file at the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truncate {
    /// Writes through this mount wait meanwhile.
    Gated,
    /// The file was not known to be open here.
    Blind,
}

/// What became of an open that was answered.
enum Installed {
    Open(Attr, FileHandle),
    /// Others here have written while the file was cut blindly, before the cut or after it: it is cut again, with the
    /// gate closed, so that all of that is before.
    CutAgain(FileHandle),
    /// The link that it came over is gone: the session may have been taken up without this open, which the master
    /// forgets then.
    Again,
}

/// Counts an open as under way: a recall of a grant not known yet may belong to it.
struct OpenTurn<'a, N: Net>(&'a Arc<Shared<N>>);

impl<'a, N: Net> OpenTurn<'a, N> {
    fn begin(shared: &'a Arc<Shared<N>>) -> OpenTurn<'a, N> {
        lock(&shared.early).opens += 1;
        OpenTurn(shared)
    }
}

impl<N: Net> Drop for OpenTurn<'_, N> {
    fn drop(&mut self) {
        let over = {
            let mut early = lock(&self.0.early);
            early.opens -= 1;
            if early.opens == 0 {
                early.given.retain(|_, given| !given.answered);
                std::mem::take(&mut early.recalls)
            } else {
                BTreeMap::new()
            }
        };
        for (ino, grant) in over {
            self.0.recalled(ino, grant);
        }
    }
}

impl<N: Net> Client<N> {
    /// O_CREAT: opens the file of that name, and makes it when there is none. `mode` has the umask applied.
    #[allow(clippy::too_many_arguments, reason = "open(2) has as many")]
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u16,
        access: Access,
        exclusive: bool,
        truncate: bool,
        caller: Caller,
    ) -> Result<(Attr, FileHandle)> {
        let shared = &self.shared;
        let until = shared.patience();
        let handle = shared.session.handle();
        let incarnation = shared.session.incarnation();
        let _turn = OpenTurn::begin(shared);
        shared.may_come(parent, name);
        let name = Name::from(name);
        let make = |creds| {
            let name = name.clone();
            Create { parent, name, mode, handle, access, exclusive, truncate, creds }
        };
        let sent = shared.now();
        let answer = shared.ask_as(caller, Scope::Session(incarnation), until, make).await?;
        let Answer { body: Created { opened, new: made }, index, link, dirs_told } = answer;
        if made {
            shared.dir_was_changed(parent, index);
        }
        if made && !dirs_told {
            shared.changed_attrs(parent);
        }
        let ino = opened.attr.ino;
        lock(&shared.attrs).note(&opened.attr, sent);
        let truncate = truncate.then_some(Truncate::Blind);
        let new = Opening { incarnation, handle, access, truncate, sent };
        match shared.install(new, Answer { body: opened, index, link, dirs_told })? {
            Installed::Open(attr, file) => {
                let mut state = file.open.inode.lock();
                state.making = made && access.write;
                if made {
                    state.alone = Some(state.grant.id);
                }
                drop(state);
                Ok((attr, file))
            }
            Installed::CutAgain(file) => shared.cut_again(file, caller, until).await,
            Installed::Again => shared.open_file(ino, access, None, caller, until).await,
        }
    }

    pub async fn open(&self, ino: Ino, access: Access, truncate: bool, caller: Caller) -> Result<FileHandle> {
        let shared = &self.shared;
        let until = shared.patience();
        shared.settle_pending(ino, until).await?;
        let cut = if truncate { shared.cut_for_open(ino, until).await? } else { None };
        let _turn = OpenTurn::begin(shared);
        let how = if cut.is_some() { Truncate::Gated } else { Truncate::Blind };
        let (_, file) = shared.open_file(ino, access, truncate.then_some(how), caller, until).await?;
        drop(cut);
        Ok(file)
    }

    /// The last user of the handle is gone. Does not wait.
    pub fn release(&self, handle: FileHandle) {
        let shared = Arc::clone(&self.shared);
        let inode = &handle.open.inode;
        let settled = {
            let mut state = inode.lock();
            state.latch.released(*lock(&handle.open.seen));
            state.is_settled()
        };
        if settled {
            shared.closed(inode, handle.id());
        } else {
            let inode = Arc::clone(inode);
            let id = handle.id();
            self.shared.spawn(async move {
                if let Err(error) = shared.settle(&inode, shared.patience()).await {
                    log::warn!("inode {}: not written back at its close: {error}", inode.ino);
                    // Its writes may still be under way.
                    inode.lock().given_up += 1;
                }
                shared.closed(&inode, id);
            });
        }
    }
}

impl<N: Net> Shared<N> {
    async fn cut_for_open(self: &Arc<Self>, ino: Ino, until: Until) -> Result<Option<Cut<N>>> {
        match self.inode(ino) {
            Some(inode) => Ok(Some(self.begin_cut(&inode, until).await?)),
            None => Ok(None),
        }
    }

    /// Opens, and once more if the link broke before the answer was taken in.
    async fn open_file(
        self: &Arc<Self>,
        ino: Ino,
        access: Access,
        truncate: Option<Truncate>,
        caller: Caller,
        until: Until,
    ) -> Result<(Attr, FileHandle)> {
        loop {
            let handle = self.session.handle();
            let incarnation = self.session.incarnation();
            let make = |creds| Open { ino, handle, access, truncate: truncate.is_some(), creds };
            let sent = self.now();
            let answer = self.ask_as(caller, Scope::Session(incarnation), until, make).await?;
            lock(&self.attrs).note(&answer.body.attr, sent);
            let new = Opening { incarnation, handle, access, truncate, sent };
            match self.install(new, answer)? {
                Installed::Open(attr, file) => return Ok((attr, file)),
                Installed::CutAgain(file) => return self.cut_again(file, caller, until).await,
                Installed::Again => {}
            }
        }
    }

    async fn cut_again(
        self: &Arc<Self>,
        file: FileHandle,
        caller: Caller,
        until: Until,
    ) -> Result<(Attr, FileHandle)> {
        let inode = &file.open.inode;
        let set = SetAttrs { size: Some(0), ..SetAttrs::default() };
        match self.setattr_open(inode, Some(&file), set, caller, until).await {
            Ok(attr) => Ok((attr, file)),
            Err(error) => {
                self.closed(inode, file.id());
                Err(error)
            }
        }
    }

    /// Makes a handle of the master's answer.
    fn install(self: &Arc<Self>, new: Opening, answer: Answer<Opened>) -> Result<Installed> {
        let Opening { incarnation, handle, access, truncate, sent } = new;
        let Opened { attr, grant, first } = answer.body;
        let chunk = self.session.facts().chunk_size;
        let inode = Arc::clone(
            lock(&self.inodes)
                .entry(attr.ino)
                .or_insert_with(|| Arc::new(Inode::new(attr.ino, incarnation, chunk))),
        );
        let mut state = inode.lock();
        if state.dead || inode.incarnation != incarnation {
            return Err(Error::Io);
        }
        state.take_owed(lock(&self.owed).take(attr.ino));
        // Under the inode's lock: taking the session up looks at its handles under it, after the link is gone.
        if self.session.view.get().link != Some(answer.link) {
            return Ok(Installed::Again);
        }
        let grant = self.grant_after(attr.ino, state.grant, grant);
        let held = state.may_cache() && state.gate != Gate::Draining;
        let lost = state.grant.kind == GrantKind::Write && grant.kind != GrantKind::Write;
        // An inode that was given up meanwhile took its closed gate with it.
        let gated = truncate == Some(Truncate::Gated) && state.gate == Gate::Cutting;
        let cut_again = truncate.is_some() && !gated && state.writes > 0;
        if truncate.is_some() && !cut_again {
            self.memory.free(state.dirty.truncate(0) + state.drop_ahead());
            state.cut_at(attr.size, chunk);
            state.touched = false;
        }
        // The write grant ended unnoticed, or is on its way back: what it let us buffer goes out as after a recall. Until
        // then it is held, and claimed should the master restart.
        let leaves = lost && !state.is_settled();
        if leaves && (state.drains == 0 || state.returning.is_some_and(|id| id != state.grant.id)) {
            self.drain_grant(&inode, &mut state, None);
        }
        let draining = lost && (leaves || state.gate == Gate::Draining);
        if !draining {
            state.take_grant(grant);
        }
        state.handles.insert(handle, access.write);
        if let Some(idle) = state.idle.take() {
            lock(&self.idle).remove(&idle);
        }
        if !held || !state.may_cache() {
            self.memory.free(state.drop_ahead());
            state.places.clear();
        }
        state.last_change = state.last_change.max(answer.index);
        state.attr_changes += 1;
        state.take_attr(&attr, answer.index, sent);
        if let Some(place) = first {
            state.take_place(&Arc::new(place));
        }
        let open = OpenFile {
            inode: Arc::clone(&inode),
            id: handle,
            access,
            cached: !draining && state.may_cache(),
            keep_cache: held && state.may_cache(),
            seen: Mutex::new(state.latch.now()),
            stream: Mutex::new(Stream::default()),
        };
        let shown = state.show(attr);
        drop(state);
        let early = lock(&self.early).recalls.get(&inode.ino) == Some(&grant.id);
        if early {
            lock(&self.early).recalls.remove(&inode.ino);
            self.recalled(inode.ino, grant.id);
        }
        let file = FileHandle { open: Arc::new(open) };
        Ok(if cut_again { Installed::CutAgain(file) } else { Installed::Open(shown, file) })
    }

    /// What counts of the grant that is held and the one that an open was answered with.
    fn grant_after(&self, ino: Ino, held: Grant, given: Grant) -> Grant {
        if self.is_on_its_way_back(ino, given.id) {
            // The master answered the open before it had heard of that.
            return Grant { kind: GrantKind::None, ..given };
        }
        // Given before the one that is held, by an answer that came first.
        let older = given.kind != GrantKind::None && given.id < held.id;
        if older { held } else { given }
    }

    /// The handle is gone, and nothing of it is left to write.
    fn closed(self: &Arc<Self>, inode: &Arc<Inode>, handle: Handle) {
        let mut state = inode.lock();
        state.handles.remove(&handle);
        state.making = false;
        let left = state.left_writes();
        let last = state.handles.is_empty();
        if state.dead {
            return;
        }
        if last {
            self.memory.free(state.drop_ahead());
            let number = self.number();
            state.idle = Some(number);
            lock(&self.idle).insert(number, Arc::clone(inode));
        }
        drop(state);
        let many = {
            let mut list = lock(&self.releases.list);
            list.push((inode.ino, handle, left));
            list.len() == 1 || list.len() >= RELEASE_BATCH
        };
        if many {
            self.releases.wake.notify_one();
        }
        if last {
            self.trim_idle();
        }
    }

    /// Gives back the oldest grants beyond the bound, some at a time: a message for each file that is closed would
    /// cost as much as its close.
    fn trim_idle(self: &Arc<Self>) {
        let most = self.config.idle_grants;
        let oldest = {
            let mut idle = lock(&self.idle);
            if idle.len() < most + (most / 2).clamp(1, GRANTS_BACK_BATCH) {
                return;
            }
            let mut oldest = Vec::with_capacity(idle.len() - most);
            while idle.len() > most {
                oldest.extend(idle.pop_first());
            }
            oldest
        };
        let shared = Arc::clone(self);
        self.spawn(async move { shared.give_up(oldest).await });
    }

    /// Forgets idle inodes and gives their grants back. One that has still to be settled may wait for long: the
    /// others don't wait for it.
    async fn give_up(self: Arc<Self>, idle: Vec<(u64, Arc<Inode>)>) {
        let owes_much = lock(&self.owed).is_full();
        let incarnation = self.session.incarnation();
        let mut back = Vec::with_capacity(idle.len());
        for (number, inode) in idle {
            if !owes_much && inode.incarnation == incarnation && inode.lock().is_settled() {
                back.extend(self.forget_idle(&inode, number).await);
                continue;
            }
            let shared = Arc::clone(&self);
            self.spawn(async move {
                let patience = shared.patience();
                let settled = if owes_much {
                    shared.sync_inode(&inode, true, patience).await
                } else {
                    shared.settle(&inode, patience).await
                };
                if settled.is_ok()
                    && let Some(grant) = shared.forget_idle(&inode, number).await
                {
                    shared.send_back(vec![grant], inode.incarnation).await;
                }
            });
        }
        if !back.is_empty() {
            self.send_back(back, incarnation).await;
        }
    }

    /// Forgets an inode that is still idle and settled; the grant that is to be given back for it.
    async fn forget_idle(&self, inode: &Inode, number: u64) -> Option<Back> {
        let (grant, left, unused) = {
            let mut inodes = lock(&self.inodes);
            let mut state = inode.lock();
            let reopened = !state.handles.is_empty() || state.idle != Some(number);
            if reopened || state.dead || !state.is_settled() || state.gate != Gate::Open {
                return None;
            }
            // Its handles, if any are still held by their owner, see a file that is not there any more.
            state.dead = true;
            inodes.remove(&inode.ino);
            lock(&self.owed).keep(inode.ino, &mut state, self.session.log_seen().1);
            self.session.raise_op_floor(state.forget_ops());
            let grant = state.last_grant;
            self.note_given(inode.ino, grant, state.left_writes());
            (grant, state.left_writes(), state.take_unused())
        };
        self.drop_unused(inode, unused).await;
        (grant != GrantId(0)).then_some(Back { ino: inode.ino, grant, left })
    }

    /// Gives back chunks that were allocated for us and never written.
    pub(crate) async fn drop_unused(&self, inode: &Inode, unused: Vec<(ChunkIndex, ChunkId)>) {
        if unused.is_empty() {
            return;
        }
        let request = Commit {
            ino: inode.ino,
            size_epoch: inode.size_epoch(),
            size_at_least: None,
            mtime: None,
            atime: None,
            synced: Vec::new(),
            durable: false,
            unused,
            set: None,
            hole: false,
        };
        if let Err(error) = self.ask_in(&request, Scope::Session(inode.incarnation), self.patience()).await {
            // The file may be gone, and its chunks with it.
            log::debug!("unused chunks of inode {}: {error}", inode.ino);
        }
    }

    /// The master was told of so many writes that were given up.
    pub(crate) fn master_knows_of(&self, left: Vec<(Ino, u64)>) {
        for (ino, count) in left {
            if let Some(inode) = self.inode(ino) {
                let told = &mut inode.lock().given_up_told;
                *told = count.max(*told);
            }
        }
    }

    /// Tells the master of closed handles, some milliseconds' worth in one message.
    pub(crate) async fn send_releases(self: Arc<Self>) {
        loop {
            self.releases.wake.notified().await;
            if self.session.view.get().closed {
                return;
            }
            if lock(&self.releases.list).len() < RELEASE_BATCH {
                tokio::time::sleep(RELEASE_GATHER).await;
            }
            let incarnation = self.session.incarnation();
            let list = std::mem::take(&mut *lock(&self.releases.list));
            if list.is_empty() {
                continue;
            }
            let left: Vec<_> =
                list.iter().filter_map(|(ino, _, left)| left.map(|left| (*ino, left))).collect();
            let request = Release {
                handles: list.into_iter().map(|(ino, handle, _)| (ino, handle)).collect(),
                unsettled: left.iter().map(|(ino, _)| *ino).collect(),
            };
            match self.ask_in(&request, Scope::Session(incarnation), Until::NEVER).await {
                Ok(_) => self.master_knows_of(left),
                Err(error) => log::debug!("closed handles: {error}"),
            }
        }
    }
}

impl State {
    /// Chunks that exist only in the master's books; they are forgotten here.
    pub(crate) fn take_unused(&mut self) -> Vec<(ChunkIndex, ChunkId)> {
        let unused: Vec<_> = self
            .places
            .iter()
            .filter_map(|(index, mapped)| match mapped {
                Mapped::Place(place) if place.new && place.capability.rights.write => {
                    Some((*index, place.chunk()))
                }
                Mapped::Place(_) | Mapped::Hole => None,
            })
            .collect();
        for (index, _) in &unused {
            self.places.remove(index);
        }
        unused
    }
}
