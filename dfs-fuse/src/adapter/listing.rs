//! A directory being listed: what was fetched, where the reader is, and which of the attributes fetched
//! along may still be shown.
//!
//! Attributes in a listing are as dangerous as they are cheap: the kernel takes them for the inode's newest,
//! size included. So they are shown only while they are younger than the kernel may believe anything, and
//! never for an inode that this mount has open or has just changed; those are asked for one by one.
//! No I/O here: [`Listing::fill`] says what it lacks.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use dfs_client::{DirHandle, DirPage};
use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, DirEntry, FileKind};

/// How long attributes of a page may be shown. The library gives them up to a second old; that and the second
/// that the kernel believes them are not to grow by much here. A reader in a stream is done with a page
/// in a fraction of this.
pub(crate) const SHOWN_FOR: Duration = Duration::from_millis(250);

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDir {
    pub(crate) dir: DirHandle,
    /// Held while a reply is filled.
    pub(crate) listing: Mutex<Listing>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    page: Option<Page>,
    /// Asked for by itself, for the next entry only.
    verified: Option<Attr>,
}

#[derive(Debug)]
struct Page {
    /// The cookie that it was fetched from behind.
    from: u64,
    content: DirPage,
    plus: bool,
    /// When it was asked for.
    asked: Instant,
    /// Where the reader went on last.
    next: usize,
}

/// One line of a directory.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    /// `.` and `..`.
    Special { ino: Ino, name: &'static str },
    /// An entry; with attributes if they were wanted.
    Entry { entry: &'a DirEntry, attr: Option<&'a Attr> },
}

/// A reply being filled.
pub(crate) trait Sink {
    /// With attributes.
    const PLUS: bool;
    /// Adds a line, from behind which the listing goes on at `next`; false when there is no room for it.
    fn add(&mut self, line: Line<'_>, next: u64) -> bool;
    /// Attributes that were at hand all the time; `listed` if those may be shown.
    fn attr(&self, ino: Ino, listed: Option<Attr>) -> Option<Attr>;
}

/// What came of filling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// Send the reply; if nothing was added, the directory ends here.
    Done,
    /// Nothing was added: fetch a page from behind this cookie.
    Fetch { cookie: u64 },
    /// Nothing was added: ask for this inode's attributes.
    Verify { ino: Ino },
}

/// Where the kernel's offset stands: 0 is the start, 1 behind `.`, 2 behind `..`, and then two more than the
/// last entry's cookie.
fn cookie_at(offset: u64) -> u64 {
    offset.saturating_sub(OFFSET_OF_COOKIE_0)
}

const OFFSET_OF_COOKIE_0: u64 = 2;

impl Listing {
    /// A page arrived that was asked for at `asked`.
    pub(crate) fn fetched(&mut self, from: u64, content: DirPage, plus: bool, asked: Instant) {
        self.page = Some(Page { from, content, plus, asked, next: 0 });
    }

    /// Attributes arrived; `None`: the inode is gone, and its entry with it.
    pub(crate) fn verified(&mut self, ino: Ino, attr: Option<Attr>) {
        self.verified = attr;
        if attr.is_none()
            && let Some(page) = &mut self.page
        {
            page.content.entries.retain(|entry| entry.ino != ino);
        }
    }

    /// Adds lines from `offset` on. `restart`: the reader is at the start and wants what is there now.
    pub(crate) fn fill<S: Sink>(
        &mut self,
        offset: u64,
        restart: bool,
        dir: Ino,
        now: Instant,
        sink: &mut S,
    ) -> Fill {
        let cookie = cookie_at(offset);
        let verified = self.verified.take();
        let usable = |page: &&mut Page| {
            !restart && (!S::PLUS || (page.plus && now.duration_since(page.asked) <= SHOWN_FOR))
        };
        let Some(page) = self.page.as_mut().filter(usable) else { return Fill::Fetch { cookie } };
        let Some(start) = page.index_after(cookie) else { return Fill::Fetch { cookie } };
        if start == page.content.entries.len() && !page.content.end {
            return Fill::Fetch { cookie };
        }
        let mut added = false;
        for (at, ino, name) in [(0, dir, "."), (1, page.content.parent, "..")] {
            if offset <= at {
                if !sink.add(Line::Special { ino, name }, at + 1) {
                    return Fill::Done;
                }
                added = true;
            }
        }
        for entry in &page.content.entries[start..] {
            let attr = if S::PLUS {
                let verified = verified.filter(|attr| attr.ino == entry.ino);
                match verified.or_else(|| sink.attr(entry.ino, entry.attr)) {
                    Some(attr) => Some(attr),
                    None if added => return Fill::Done,
                    None => return Fill::Verify { ino: entry.ino },
                }
            } else {
                None
            };
            let line = Line::Entry { entry, attr: attr.as_ref() };
            if !sink.add(line, entry.cookie.saturating_add(OFFSET_OF_COOKIE_0)) {
                return Fill::Done;
            }
            page.next += 1;
            added = true;
        }
        Fill::Done
    }
}

impl Page {
    /// Which entry follows the cookie; the length when it is the last one's. Moves the reader there.
    fn index_after(&mut self, cookie: u64) -> Option<usize> {
        let entries = &self.content.entries;
        let is_before = |at: usize| match at.checked_sub(1) {
            None => self.from == cookie,
            Some(before) => entries.get(before).is_some_and(|entry| entry.cookie == cookie),
        };
        let found = if is_before(self.next) {
            Some(self.next)
        } else {
            // Someone sought back.
            (0..=entries.len()).find(|at| is_before(*at))
        };
        self.next = found?;
        found
    }
}

/// The kind that a line has.
impl Line<'_> {
    pub(crate) fn kind(&self) -> FileKind {
        match self {
            Line::Special { .. } => FileKind::Dir,
            Line::Entry { entry, .. } => entry.kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::SizeEpoch;
    use dfs_proto::meta::Name;
    use dfs_proto::units::Timespec;

    use super::*;
    use crate::clock;

    const DIR: Ino = Ino(5);

    fn attr(ino: Ino) -> Attr {
        let time = Timespec::default();
        Attr {
            ino,
            kind: FileKind::File,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            size_epoch: SizeEpoch(0),
            xattrs: false,
        }
    }

    /// Entries named by their cookies, with inodes 100 above.
    fn page(cookies: std::ops::Range<u64>, end: bool) -> DirPage {
        let entry = |cookie: u64| DirEntry {
            name: Name::from(cookie.to_string()),
            ino: Ino(100 + cookie),
            kind: FileKind::File,
            cookie,
            attr: Some(attr(Ino(100 + cookie))),
        };
        DirPage { parent: Ino(4), entries: cookies.map(entry).collect(), end }
    }

    #[derive(Default)]
    struct Reply<const PLUS: bool> {
        lines: Vec<(String, u64)>,
        room: usize,
        unsure: Vec<Ino>,
    }

    impl<const PLUS: bool> Sink for Reply<PLUS> {
        const PLUS: bool = PLUS;

        fn add(&mut self, line: Line<'_>, next: u64) -> bool {
            let room = self.lines.len() < self.room;
            if room {
                let name = match line {
                    Line::Special { name, .. } => name.to_owned(),
                    Line::Entry { entry, attr } => {
                        assert_eq!(attr.is_some(), PLUS);
                        String::from_utf8(entry.name.to_vec()).unwrap()
                    }
                };
                self.lines.push((name, next));
            }
            room
        }

        fn attr(&self, ino: Ino, listed: Option<Attr>) -> Option<Attr> {
            listed.filter(|_| !self.unsure.contains(&ino))
        }
    }

    fn names<const PLUS: bool>(reply: &Reply<PLUS>) -> Vec<&str> {
        reply.lines.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_directory_in_pages_and_small_replies() {
        let (mut listing, now) = (Listing::default(), clock::now());
        assert_eq!(
            listing.fill(0, true, DIR, now, &mut Reply::<false>::default()),
            Fill::Fetch { cookie: 0 }
        );
        listing.fetched(0, page(1..5, false), false, now);
        let mut offset = 0;
        let mut seen = Vec::new();
        loop {
            let mut reply = Reply::<false> { room: 3, ..Reply::default() };
            match listing.fill(offset, false, DIR, now, &mut reply) {
                Fill::Done if reply.lines.is_empty() => break,
                Fill::Done => {}
                Fill::Fetch { cookie: 4 } => {
                    listing.fetched(4, page(5..8, true), false, now);
                    continue;
                }
                other => panic!("{other:?} at {offset}"),
            }
            offset = reply.lines.last().unwrap().1;
            seen.extend(reply.lines.into_iter().map(|(name, _)| name));
        }
        assert_eq!(seen, [".", "..", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn an_empty_directory_has_its_two_names() {
        let (mut listing, now) = (Listing::default(), clock::now());
        listing.fetched(0, page(1..1, true), false, now);
        let mut reply = Reply::<false> { room: 9, ..Reply::default() };
        assert_eq!(listing.fill(0, false, DIR, now, &mut reply), Fill::Done);
        assert_eq!(names(&reply), [".", ".."]);
        let mut reply = Reply::<false> { room: 9, ..Reply::default() };
        assert_eq!(listing.fill(2, false, DIR, now, &mut reply), Fill::Done);
        assert!(reply.lines.is_empty());
    }

    #[test]
    fn seeking_back_finds_its_place() {
        let (mut listing, now) = (Listing::default(), clock::now());
        listing.fetched(0, page(1..9, true), false, now);
        for (offset, wanted) in [(2 + 6, vec!["7", "8"]), (2 + 3, vec!["4", "5", "6", "7", "8"])] {
            let mut reply = Reply::<false> { room: 9, ..Reply::default() };
            assert_eq!(listing.fill(offset, false, DIR, now, &mut reply), Fill::Done);
            assert_eq!(names(&reply), wanted);
        }
        let mut reply = Reply::<false> { room: 9, ..Reply::default() };
        assert_eq!(listing.fill(2 + 77, false, DIR, now, &mut reply), Fill::Fetch { cookie: 77 });
    }

    #[test]
    fn attributes_that_are_not_sure_are_asked_for() {
        let (mut listing, now) = (Listing::default(), clock::now());
        listing.fetched(0, page(1..4, true), true, now);
        let reply = || Reply::<true> { room: 9, unsure: vec![Ino(102)], ..Reply::default() };
        let mut first = reply();
        assert_eq!(listing.fill(2, false, DIR, now, &mut first), Fill::Done);
        assert_eq!(names(&first), ["1"]);
        assert_eq!(listing.fill(3, false, DIR, now, &mut reply()), Fill::Verify { ino: Ino(102) });
        listing.verified(Ino(102), Some(attr(Ino(102))));
        let mut second = reply();
        assert_eq!(listing.fill(3, false, DIR, now, &mut second), Fill::Done);
        assert_eq!(names(&second), ["2", "3"]);
    }

    #[test]
    fn an_entry_whose_inode_is_gone_is_left_out() {
        let (mut listing, now) = (Listing::default(), clock::now());
        listing.fetched(0, page(1..4, true), true, now);
        let mut reply = Reply::<true> { room: 9, unsure: vec![Ino(101)], ..Reply::default() };
        assert_eq!(listing.fill(2, false, DIR, now, &mut reply), Fill::Verify { ino: Ino(101) });
        listing.verified(Ino(101), None);
        assert_eq!(listing.fill(2, false, DIR, now, &mut reply), Fill::Done);
        assert_eq!(names(&reply), ["2", "3"]);
    }

    #[test]
    fn old_or_missing_attributes_are_fetched_again() {
        let (mut listing, now) = (Listing::default(), clock::now());
        listing.fetched(0, page(1..4, true), true, now);
        let late = now + 2 * SHOWN_FOR;
        let mut reply = Reply::<true> { room: 9, ..Reply::default() };
        assert_eq!(listing.fill(3, false, DIR, late, &mut reply), Fill::Fetch { cookie: 1 });
        let mut names_only = Reply::<false> { room: 9, ..Reply::default() };
        assert_eq!(listing.fill(3, false, DIR, late, &mut names_only), Fill::Done);
        listing.fetched(0, page(1..4, true), false, now);
        assert_eq!(listing.fill(3, false, DIR, now, &mut reply), Fill::Fetch { cookie: 1 });
    }
}
