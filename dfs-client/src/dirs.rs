//! Listing directories: pages of the largest size from the master, the next fetched while one is read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::ids::{Ino, SizeEpoch};
use dfs_proto::meta::{Commit, DirEntry, READDIR_MAX, Readdir};
use dfs_proto::units::Micros;

use crate::call::{Refused, Scope};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::net::Net;
use crate::shared::{Shared, lock};

/// Entries of one answer to the caller: what a kernel's buffer holds, with attributes.
const SERVE_MAX: usize = 256;
/// How old a page with attributes may be: as old as a kernel may remember them.
const FRESH_US: u64 = 1_000_000;
/// Between two looks at how far the master's disk has come.
const DURABLE_PAUSE: Duration = Duration::from_millis(5);

/// An open directory: a listing under way, with what was fetched ahead.
#[derive(Clone, Debug)]
pub struct DirHandle {
    inner: Arc<Dir>,
}

#[derive(Debug)]
struct Dir {
    ino: Ino,
    /// Held for look-ups and copies of entries.
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    current: Option<Arc<Page>>,
    next: Option<Arc<Page>>,
    fetching: bool,
}

#[derive(Debug)]
struct Page {
    /// The cookie that it was asked for with.
    after: u64,
    plus: bool,
    fetched: Micros,
    parent: Ino,
    entries: Vec<DirEntry>,
    end: bool,
}

impl Page {
    /// Where the entries behind `cookie` begin, if they are here.
    fn position(&self, cookie: u64) -> Option<usize> {
        if cookie == self.after {
            return Some(0);
        }
        let at = self.entries.iter().position(|entry| entry.cookie == cookie)? + 1;
        // Behind the last entry only the end is here.
        (at < self.entries.len() || self.end).then_some(at)
    }

    fn last_cookie(&self) -> u64 {
        self.entries.last().map_or(self.after, |entry| entry.cookie)
    }
}

impl DirHandle {
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.inner.ino
    }
}

/// Some entries of a directory, in order. `.` and `..` are not among them.
#[derive(Clone, Debug)]
pub struct DirPage {
    /// For `..`.
    pub parent: Ino,
    /// Not empty unless `end`.
    pub entries: Vec<DirEntry>,
    /// Nothing follows these.
    pub end: bool,
}

impl<N: Net> Client<N> {
    /// Starts a listing; no round trip.
    #[must_use]
    pub fn opendir(&self, ino: Ino) -> DirHandle {
        DirHandle { inner: Arc::new(Dir { ino, pages: Mutex::default() }) }
    }

    /// Entries from behind `cookie` (0: from the start); the next page's cookie is the last entry's.
    /// `plus`: with attributes.
    pub async fn readdir(&self, dir: &DirHandle, cookie: u64, plus: bool) -> Result<DirPage> {
        if let Some(page) = self.try_readdir(dir, cookie, plus) {
            return Ok(page);
        }
        let page = Arc::new(self.shared.fetch_page(dir.inner.ino, cookie, plus).await?);
        {
            let mut pages = lock(&dir.inner.pages);
            pages.current = Some(Arc::clone(&page));
            pages.next = None;
        }
        let at = page.position(cookie).unwrap_or(0);
        self.shared.look_ahead(dir, &page, at);
        Ok(self.shared.serve(&page, at))
    }

    /// [`Client::readdir`] when the entries were fetched already.
    #[must_use]
    pub fn try_readdir(&self, dir: &DirHandle, cookie: u64, plus: bool) -> Option<DirPage> {
        if cookie == 0 {
            // A listing that begins, or begins again, shows what is there now.
            return None;
        }
        let now = self.shared.now();
        let usable = |page: &Arc<Page>| {
            let fresh = now.0.saturating_sub(page.fetched.0) < FRESH_US;
            let fits = page.plus == plus && (fresh || !plus);
            fits.then(|| page.position(cookie)).flatten().map(|at| (Arc::clone(page), at))
        };
        let found = {
            let mut pages = lock(&dir.inner.pages);
            if let Some(next) = pages.next.as_ref().and_then(usable) {
                pages.current = pages.next.take();
                Some(next)
            } else {
                pages.current.as_ref().and_then(usable)
            }
        };
        let (page, at) = found?;
        self.shared.look_ahead(dir, &page, at);
        Some(self.shared.serve(&page, at))
    }

    /// Makes what was done to the directory's names durable.
    pub async fn fsyncdir(&self, dir: &DirHandle) -> Result<()> {
        let shared = &self.shared;
        let synced = self.sync_dir(dir.inner.ino).await;
        if lock(&shared.dir_changes).report(dir.inner.ino) {
            return Err(Error::Io);
        }
        synced
    }

    async fn sync_dir(&self, dir: Ino) -> Result<()> {
        let shared = &self.shared;
        let (seen, durable) = shared.session.log_seen();
        if seen <= durable {
            return Ok(());
        }
        let until = shared.patience();
        let request = Commit {
            ino: dir,
            size_epoch: SizeEpoch(0),
            size_at_least: None,
            mtime: None,
            atime: None,
            synced: Vec::new(),
            durable: true,
            unused: Vec::new(),
            set: None,
            hole: false,
        };
        match shared.ask_in(&request, Scope::Any, until).await {
            Ok(_) => return Ok(()),
            // A master that commits files only: its log reaches the disk by itself soon.
            Err(Refused::OldEpoch | Refused::Final(Error::IsDir | Error::Invalid | Error::NotSupported)) => {}
            Err(refused) => return Err(refused.into()),
        }
        while shared.session.log_seen().1 < seen {
            until.check()?;
            tokio::time::sleep(DURABLE_PAUSE).await;
            shared.renew(until).await?;
        }
        Ok(())
    }
}

impl<N: Net> Shared<N> {
    async fn fetch_page(&self, dir: Ino, cookie: u64, plus: bool) -> Result<Page> {
        let fetched = self.now();
        let request = Readdir { dir, cookie, max: READDIR_MAX, plus };
        let listing = self.ask(&request).await?;
        {
            let mut attrs = lock(&self.attrs);
            for attr in listing.entries.iter().filter_map(|entry| entry.attr.as_ref()) {
                attrs.note(attr, fetched);
            }
        }
        Ok(Page {
            after: cookie,
            plus,
            fetched,
            parent: listing.parent,
            // An empty page that is not the end would have the caller ask for ever.
            end: listing.end || listing.entries.is_empty(),
            entries: listing.entries,
        })
    }

    /// Fetches the next page once half of this one was read.
    fn look_ahead(self: &Arc<Self>, dir: &DirHandle, page: &Arc<Page>, at: usize) {
        if page.end || at + SERVE_MAX < page.entries.len() / 2 {
            return;
        }
        {
            let mut pages = lock(&dir.inner.pages);
            if pages.fetching || pages.next.is_some() {
                return;
            }
            pages.fetching = true;
        }
        let (shared, dir, page) = (Arc::clone(self), dir.clone(), Arc::clone(page));
        self.spawn(async move {
            let next = shared.fetch_page(dir.inner.ino, page.last_cookie(), page.plus).await;
            let mut pages = lock(&dir.inner.pages);
            pages.fetching = false;
            // A failure shows when the page is asked for.
            pages.next = next.ok().map(Arc::new);
        });
    }

    fn serve(&self, page: &Page, at: usize) -> DirPage {
        let stop = (at + SERVE_MAX).min(page.entries.len());
        let mut entries = page.entries[at..stop].to_vec();
        for entry in entries.iter_mut().filter(|entry| entry.attr.is_some()) {
            if let Some(inode) = self.inode(entry.ino) {
                let state = inode.lock();
                // A time that the master has yet to give is asked for by name.
                entry.attr = entry.attr.filter(|_| !state.attrs_wait()).map(|attr| state.show(attr));
            }
        }
        DirPage { parent: page.parent, entries, end: page.end && stop == page.entries.len() }
    }
}
