//! The rules of POSIX and Linux that programs notice, one table or story each.

use dfs_master::core::namespace::{Caller, Namespace, READ, WRITE};
use dfs_master::core::ops::*;
use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, RenameMode, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, FILE_SIZE_MAX, LINK_MAX, Timespec};

use crate::support::{CHUNK, at, attr, by_path, create, fresh, mkdir, root, setattr, user};

const TOP: Ino = Ino::ROOT;

fn name(name: &str) -> Name {
    name.as_bytes().to_vec().into()
}

fn make(ns: &mut Namespace, command: &NsCommand) -> Ino {
    attr(ns, command).unwrap().ino
}

fn change(ns: &mut Namespace, op: Setattr) -> Result<Attr, Status> {
    attr(ns, &NsCommand::Setattr(op))
}

fn rename(from: (Ino, &str), to: (Ino, &str), mode: RenameMode, by: Caller) -> NsCommand {
    NsCommand::Rename(Rename {
        parent: from.0,
        name: name(from.1),
        new_parent: to.0,
        new_name: name(to.1),
        mode,
        now: at(30),
        by,
    })
}

fn unlink(parent: Ino, what: &str, by: Caller) -> NsCommand {
    NsCommand::Unlink(Unlink { parent, name: name(what), now: at(30), by })
}

fn rmdir(parent: Ino, what: &str, by: Caller) -> NsCommand {
    NsCommand::Rmdir(Rmdir { parent, name: name(what), now: at(30), by })
}

fn link(ino: Ino, parent: Ino, what: &str, by: Caller) -> NsCommand {
    NsCommand::Link(Link { ino, parent, name: name(what), now: at(30), by })
}

fn commit(ino: Ino, epoch: u32, size: Option<u64>, mtime: Option<SetTime>) -> NsCommand {
    NsCommand::Commit(Commit {
        ino,
        size_epoch: SizeEpoch(epoch),
        size_at_least: size,
        mtime,
        atime: None,
        clear_privileges: false,
        now: at(50),
    })
}

fn set_chunk(ino: Ino, index: u64, chunk: u64) -> NsCommand {
    NsCommand::SetChunk(SetChunk { ino, index: ChunkIndex(index), chunk: ChunkId(chunk) })
}

#[test]
fn a_new_file_is_its_makers() {
    let mut ns = fresh();
    let made = attr(&mut ns, &create(TOP, "f", 0o6751, user(5, &[]))).unwrap();
    assert_eq!((made.mode, made.uid, made.gid, made.nlink), (0o6751, 5, 5, 1));
    assert_eq!([made.atime, made.mtime, made.ctime, made.btime], [at(10); 4]);
    let parent = ns.getattr(TOP).unwrap();
    assert_eq!((parent.atime, parent.mtime, parent.ctime), (at(1), at(10), at(10)));
    let dir = attr(&mut ns, &mkdir(TOP, "d", 0o7777, user(5, &[]))).unwrap();
    assert_eq!((dir.mode, dir.nlink, ns.getattr(TOP).unwrap().nlink), (0o1777, 2, 3));
}

#[test]
fn setgid_directories_hand_down_their_group() {
    let mut ns = fresh();
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o777, root()));
    change(&mut ns, Setattr { mode: Some(0o2777), gid: Some(9), ..setattr(dir, root()) }).unwrap();
    let cases = [
        // mode, caller, mode of the file
        (0o2755, user(5, &[]), 0o755),
        (0o2755, user(5, &[9]), 0o2755),
        (0o2745, user(5, &[]), 0o2745),
        (0o2755, root(), 0o2755),
    ];
    for (n, (mode, by, wanted)) in cases.into_iter().enumerate() {
        let made = attr(&mut ns, &create(dir, &format!("f{n}"), mode, by)).unwrap();
        assert_eq!((made.mode, made.gid), (wanted, 9));
    }
    let sub = attr(&mut ns, &mkdir(dir, "sub", 0o755, user(5, &[]))).unwrap();
    assert_eq!((sub.mode, sub.gid), (0o2755, 9));
    let unknown = Caller { groups: None, ..user(5, &[]) };
    assert_eq!(ns.check(&create(dir, "g", 0o2755, unknown.clone())), Err(Status::NeedGroups));
    assert_eq!(ns.check(&create(dir, "g", 0o755, unknown)), Ok(()));
}

#[test]
fn names_have_limits() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o644, root()));
    let cases = [
        ("n".repeat(255), Ok(())),
        ("n".repeat(256), Err(Status::NameTooLong)),
        (String::new(), Err(Status::Invalid)),
        (".".to_owned(), Err(Status::Invalid)),
        ("..".to_owned(), Err(Status::Invalid)),
        ("...".to_owned(), Ok(())),
        ("a/b".to_owned(), Err(Status::Invalid)),
        ("a\0b".to_owned(), Err(Status::Invalid)),
        ("f".to_owned(), Err(Status::Exists)),
    ];
    for (bad, answer) in &cases {
        assert_eq!(ns.check(&create(TOP, bad, 0o644, root())), *answer, "{bad:?}");
    }
    assert_eq!(ns.check(&create(file, "x", 0o644, root())), Err(Status::NotDir));
    assert_eq!(ns.check(&create(Ino(99), "x", 0o644, root())), Err(Status::Stale));
    assert_eq!(ns.lookup(TOP, &[b'n'; 256], &root()), Err(Status::NameTooLong));
    assert_eq!(ns.lookup(TOP, b"none", &root()), Err(Status::NotFound));
    let target = |len| {
        NsCommand::Symlink(Symlink {
            parent: TOP,
            name: name("s"),
            target: vec![b't'; len].into(),
            now: at(1),
            by: root(),
        })
    };
    assert_eq!(ns.check(&target(4095)), Ok(()));
    assert_eq!(ns.check(&target(4096)), Err(Status::NameTooLong));
}

#[test]
fn an_existing_name_is_told_before_a_closed_directory() {
    let mut ns = fresh();
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o755, root()));
    make(&mut ns, &create(dir, "f", 0o644, root()));
    assert_eq!(ns.check(&create(dir, "f", 0o644, user(5, &[]))), Err(Status::Exists));
    assert_eq!(ns.check(&create(dir, "g", 0o644, user(5, &[]))), Err(Status::Access));
    change(&mut ns, Setattr { mode: Some(0o700), ..setattr(dir, root()) }).unwrap();
    assert_eq!(ns.check(&create(dir, "f", 0o644, user(5, &[]))), Err(Status::Access));
    assert_eq!(ns.lookup(dir, b"f", &user(5, &[])), Err(Status::Access));
}

#[test]
fn sticky_directories_protect_entries() {
    let mut ns = fresh();
    let dir = make(&mut ns, &mkdir(TOP, "tmp", 0o777, user(4, &[])));
    change(&mut ns, Setattr { mode: Some(0o1777), ..setattr(dir, root()) }).unwrap();
    make(&mut ns, &create(dir, "f", 0o666, user(5, &[])));
    make(&mut ns, &create(dir, "mine", 0o666, user(6, &[])));
    for (by, answer) in [
        (user(6, &[5]), Err(Status::NotPermitted)),
        (user(5, &[]), Ok(())),
        (user(4, &[]), Ok(())),
        (root(), Ok(())),
    ] {
        assert_eq!(ns.check(&unlink(dir, "f", by.clone())), answer, "{by:?}");
        assert_eq!(ns.check(&rename((dir, "f"), (dir, "g"), RenameMode::Replace, by.clone())), answer);
    }
    let over = rename((dir, "mine"), (dir, "f"), RenameMode::Replace, user(6, &[]));
    assert_eq!(ns.check(&over), Err(Status::NotPermitted));
}

#[test]
fn links() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o644, user(5, &[])));
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o777, root()));
    assert_eq!(ns.check(&link(dir, TOP, "d2", root())), Err(Status::NotPermitted));
    let linked = attr(&mut ns, &link(file, dir, "f2", root())).unwrap();
    assert_eq!((linked.nlink, linked.ctime, linked.mtime), (2, at(30), at(10)));
    assert_eq!(ns.path_of(file).unwrap(), b"/d/f2");
    ns.apply(&unlink(TOP, "f", root())).unwrap();
    assert!(!ns.is_orphan(file));
    ns.apply(&unlink(dir, "f2", root())).unwrap();
    assert!(ns.is_orphan(file));
    assert_eq!(ns.path_of(file), None);
    assert_eq!(ns.check(&link(file, TOP, "f3", root())), Err(Status::NotFound));

    let many = make(&mut ns, &create(TOP, "many", 0o644, root()));
    for n in 1..LINK_MAX {
        ns.apply(&link(many, dir, &n.to_string(), root())).unwrap();
    }
    assert_eq!(ns.check(&link(many, TOP, "more", root())), Err(Status::TooManyLinks));
}

#[test]
fn removal_wants_the_right_kind_and_empty_directories() {
    let mut ns = fresh();
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o777, root()));
    make(&mut ns, &create(dir, "f", 0o644, root()));
    assert_eq!(ns.check(&unlink(TOP, "d", root())), Err(Status::IsDir));
    assert_eq!(ns.check(&rmdir(dir, "f", root())), Err(Status::NotDir));
    assert_eq!(ns.check(&rmdir(TOP, "d", root())), Err(Status::NotEmpty));
    ns.apply(&unlink(dir, "f", root())).unwrap();
    ns.apply(&rmdir(TOP, "d", root())).unwrap();
    let gone = ns.getattr(dir).unwrap();
    assert_eq!((gone.nlink, ns.getattr(TOP).unwrap().nlink), (0, 2));
    // Someone may still stand in it.
    make(&mut ns, &mkdir(TOP, "e", 0o777, root()));
    let into = rename((TOP, "e"), (dir, "e"), RenameMode::Replace, root());
    assert_eq!(ns.check(&into), Err(Status::NotFound));
    ns.apply(&rmdir(TOP, "e", root())).unwrap();
    assert_eq!(ns.check(&create(dir, "x", 0o644, root())), Err(Status::NotFound));
    assert!(ns.readdir(dir, 0, 10, false).unwrap().entries.is_empty());
    let orphans: Vec<Ino> = ns.orphans().collect();
    ns.apply(&NsCommand::FreeInodes(FreeInodes { inos: orphans })).unwrap();
    assert_eq!(ns.getattr(dir), Err(Status::Stale));
    assert_eq!(ns.counts().inodes, 1);
}

#[test]
fn renames() {
    let mut ns = fresh();
    let a = make(&mut ns, &mkdir(TOP, "a", 0o777, root()));
    let b = make(&mut ns, &mkdir(a, "b", 0o777, root()));
    make(&mut ns, &mkdir(TOP, "empty", 0o777, root()));
    let file = make(&mut ns, &create(TOP, "f", 0o644, root()));
    let (replace, no_replace, exchange) = (RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange);
    let cases = [
        ((TOP, "none"), (TOP, "x"), replace, Err(Status::NotFound)),
        ((TOP, "a"), (a, "a"), replace, Err(Status::Invalid)),
        ((TOP, "a"), (b, "a"), replace, Err(Status::Invalid)),
        ((a, "b"), (TOP, "a"), replace, Err(Status::NotEmpty)),
        ((a, "b"), (TOP, "a"), exchange, Err(Status::Invalid)),
        ((TOP, "f"), (TOP, "a"), replace, Err(Status::IsDir)),
        ((TOP, "a"), (TOP, "f"), replace, Err(Status::NotDir)),
        ((TOP, "empty"), (TOP, "a"), replace, Err(Status::NotEmpty)),
        ((TOP, "a"), (TOP, "empty"), replace, Ok(())),
        ((TOP, "f"), (a, "b"), no_replace, Err(Status::Exists)),
        ((TOP, "f"), (a, "c"), no_replace, Ok(())),
        ((TOP, "f"), (a, "c"), exchange, Err(Status::NotFound)),
        ((TOP, "f"), (a, "b"), exchange, Ok(())),
        ((TOP, "f"), (TOP, "f"), replace, Ok(())),
        ((TOP, "f"), (file, "x"), replace, Err(Status::NotDir)),
    ];
    for (from, to, mode, answer) in cases {
        assert_eq!(ns.check(&rename(from, to, mode, root())), answer, "{from:?} {to:?} {mode:?}");
    }
    // A file and a directory trade places: one parent gains a subdirectory, the other loses one.
    ns.apply(&rename((TOP, "f"), (a, "b"), exchange, root())).unwrap();
    assert_eq!((ns.getattr(TOP).unwrap().nlink, ns.getattr(a).unwrap().nlink), (5, 2));
    assert_eq!((ns.path_of(file).unwrap(), ns.path_of(b).unwrap()), (b"/a/b".to_vec(), b"/f".to_vec()));
    // Both names of one inode: nothing happens.
    ns.apply(&link(file, TOP, "hard", root())).unwrap();
    let before = ns.state_hash();
    ns.apply(&rename((TOP, "hard"), (a, "b"), replace, root())).unwrap();
    assert_eq!(ns.state_hash(), before);
}

#[test]
fn a_moved_directory_must_be_writable_for_its_dotdot() {
    let mut ns = fresh();
    let by = user(5, &[]);
    make(&mut ns, &mkdir(TOP, "from", 0o777, by.clone()));
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o555, by.clone()));
    let to = make(&mut ns, &mkdir(TOP, "to", 0o777, by.clone()));
    let across = rename((TOP, "d"), (to, "d"), RenameMode::Replace, by.clone());
    assert_eq!(ns.check(&across), Err(Status::Access));
    assert_eq!(ns.check(&rename((TOP, "d"), (TOP, "e"), RenameMode::Replace, by.clone())), Ok(()));
    change(&mut ns, Setattr { mode: Some(0o755), ..setattr(dir, by) }).unwrap();
    ns.apply(&across).unwrap();
    assert_eq!((ns.getattr(TOP).unwrap().nlink, ns.getattr(to).unwrap().nlink), (4, 3));
}

#[test]
fn owners_and_groups() {
    let owner = || user(5, &[7]);
    let cases = [
        // uid, gid, caller, mode before, answer: mode after
        (Some(6), None, owner(), 0o644, Err(Status::NotPermitted)),
        (Some(5), None, owner(), 0o6755, Ok(0o755)),
        (None, Some(7), owner(), 0o6755, Ok(0o755)),
        (None, Some(8), owner(), 0o644, Err(Status::NotPermitted)),
        (None, Some(5), owner(), 0o2745, Ok(0o2745)),
        (None, Some(7), user(6, &[7]), 0o644, Err(Status::NotPermitted)),
        (None, Some(7), Caller { groups: None, ..owner() }, 0o644, Err(Status::NeedGroups)),
        (Some(6), Some(8), root(), 0o6755, Ok(0o755)),
        (Some(u32::MAX), None, root(), 0o644, Err(Status::Invalid)),
    ];
    for (uid, gid, by, mode, answer) in cases {
        let mut ns = fresh();
        let file = make(&mut ns, &create(TOP, "f", mode, user(5, &[])));
        let answered = change(&mut ns, Setattr { uid, gid, ..setattr(file, by) });
        assert_eq!(answered.map(|attr| attr.mode), answer, "{uid:?} {gid:?} {mode:o}");
        if answer.is_ok() {
            assert_eq!(answered.unwrap().ctime, at(20));
        }
    }
    // Directories keep their bits: they mean something else there.
    let mut ns = fresh();
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o777, root()));
    change(&mut ns, Setattr { mode: Some(0o6777), ..setattr(dir, root()) }).unwrap();
    assert_eq!(change(&mut ns, Setattr { uid: Some(5), ..setattr(dir, root()) }).unwrap().mode, 0o6777);
}

#[test]
fn modes() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o644, user(5, &[])));
    change(&mut ns, Setattr { gid: Some(9), ..setattr(file, root()) }).unwrap();
    let cases = [
        (0o600, user(6, &[9]), Err(Status::NotPermitted)),
        (0o7777, user(5, &[9]), Ok(0o7777)),
        (0o7777, user(5, &[]), Ok(0o5777)),
        (0o2745, root(), Ok(0o2745)),
        (0o2745, Caller { groups: None, ..user(5, &[]) }, Err(Status::NeedGroups)),
        (0o0745, Caller { groups: None, ..user(5, &[]) }, Ok(0o745)),
    ];
    for (mode, by, answer) in cases {
        let answered = change(&mut ns, Setattr { mode: Some(mode), ..setattr(file, by) });
        assert_eq!(answered.map(|attr| attr.mode), answer, "{mode:o}");
    }
}

#[test]
fn times() {
    let (now, then) = (Some(SetTime::Now), Some(SetTime::At(Timespec { sec: -1, nsec: 999_999_999 })));
    let cases = [
        // atime, mtime, caller, mode, answer
        (now, now, user(6, &[]), 0o666, Ok(())),
        (now, now, user(6, &[]), 0o644, Err(Status::Access)),
        (now, now, user(5, &[]), 0o444, Ok(())),
        (then, then, user(5, &[]), 0o444, Ok(())),
        (then, then, user(6, &[]), 0o666, Err(Status::NotPermitted)),
        (now, None, user(6, &[]), 0o666, Err(Status::NotPermitted)),
        (None, then, root(), 0o000, Ok(())),
        (None, None, user(6, &[]), 0o000, Ok(())),
    ];
    for (atime, mtime, by, mode, answer) in cases {
        let mut ns = fresh();
        let file = make(&mut ns, &create(TOP, "f", mode, user(5, &[])));
        let answered = change(&mut ns, Setattr { atime, mtime, ..setattr(file, by) });
        assert_eq!(answered.map(drop), answer, "{atime:?} {mtime:?} {mode:o}");
        if mtime == then && answer.is_ok() {
            assert_eq!(ns.getattr(file).unwrap().mtime, Timespec { sec: -1, nsec: 999_999_999 });
        }
    }
}

#[test]
fn sizes_and_epochs() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o644, root()));
    for index in 0..4 {
        ns.apply(&set_chunk(file, index, 100 + index)).unwrap();
    }
    ns.apply(&commit(file, 0, Some(3 * CHUNK + 10), Some(SetTime::Now))).unwrap();
    assert_eq!(ns.getattr(file).unwrap().blocks, 3 * CHUNK / 512 + 8);
    let cut = |size| NsCommand::Truncate(Truncate { ino: file, size, now: at(60), by: by_path(root()) });
    assert_eq!(ns.check(&cut(CHUNK + 5)), Err(Status::Recovering), "a written chunk is cut");
    assert_eq!(ns.check(&cut(FILE_SIZE_MAX + 1)), Err(Status::TooBig));
    // A chunk border is one record.
    let Ok(NsOutcome::Truncated { attr, dropped }) = ns.apply(&cut(2 * CHUNK)) else { panic!("refused") };
    assert_eq!((attr.size, attr.size_epoch), (2 * CHUNK, SizeEpoch(1)));
    assert_eq!(dropped, [ChunkId(102), ChunkId(103)]);
    assert_eq!(ns.check(&commit(file, 0, Some(3 * CHUNK), None)), Err(Status::OldEpoch));
    assert_eq!(ns.check(&commit(file, 2, Some(3 * CHUNK), None)), Err(Status::Invalid));
    // Elsewhere it is two, and nothing else happens to the file between them.
    let intent = NsCommand::TruncateIntent(TruncateIntent {
        ino: file,
        size: CHUNK + 5,
        now: at(61),
        by: by_path(root()),
    });
    let Ok(NsOutcome::Intended(boundary)) = ns.apply(&intent) else { panic!("refused") };
    assert_eq!((boundary.chunk, boundary.index, boundary.from), (ChunkId(101), ChunkIndex(1), 5));
    assert_eq!(ns.check(&commit(file, 1, Some(9), None)), Err(Status::OldEpoch));
    assert_eq!(ns.check(&commit(file, 2, Some(9), None)), Err(Status::Recovering));
    assert_eq!(ns.check(&set_chunk(file, 3, 104)), Err(Status::Recovering));
    assert_eq!(ns.check(&cut(0)), Err(Status::Recovering));
    assert_eq!(ns.getattr(file).unwrap().size, CHUNK + 5, "seen from the intent on");
    assert_eq!(ns.intents().count(), 1);
    let last =
        NsCommand::TruncateFinal(TruncateFinal { ino: file, size_epoch: boundary.size_epoch, now: at(62) });
    let Ok(NsOutcome::Truncated { attr, dropped }) = ns.apply(&last) else { panic!("refused") };
    assert_eq!((attr.size, attr.mtime, dropped.len()), (CHUNK + 5, at(62), 0));
    assert_eq!(ns.check(&last), Err(Status::OldEpoch));
    assert_eq!(
        ns.check(&cut(CHUNK + 5)),
        Err(Status::Recovering),
        "something may have been put behind the size"
    );
    assert_eq!(ns.check(&commit(file, 2, Some(FILE_SIZE_MAX), None)), Ok(()));
    assert_eq!(ns.check(&commit(file, 2, Some(FILE_SIZE_MAX + 1), None)), Err(Status::TooBig));
}

#[test]
fn commits_move_mtime_on_and_only_that() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o6755, user(5, &[])));
    let early = Some(SetTime::At(at(-9)));
    let first = attr(&mut ns, &commit(file, 0, Some(10), early)).unwrap();
    assert_eq!(first.mtime, Timespec { sec: 10, nsec: 6 }, "a nanosecond after the old one");
    assert_eq!((first.size, first.mode, first.ctime), (10, 0o6755, at(50)));
    let second = attr(&mut ns, &commit(file, 0, Some(3), Some(SetTime::Now))).unwrap();
    assert_eq!((second.size, second.mtime), (10, at(50)));
    let NsCommand::Commit(plain) = commit(file, 0, None, Some(SetTime::Now)) else { return };
    let by_stranger = NsCommand::Commit(Commit { clear_privileges: true, ..plain.clone() });
    assert_eq!(attr(&mut ns, &by_stranger).unwrap().mode, 0o755);
    // An access time may be set on anything, under any epoch, and is no change.
    let read = Commit { ino: TOP, mtime: None, atime: Some(SetTime::At(at(70))), ..plain.clone() };
    let before = ns.getattr(TOP).unwrap();
    let after = attr(&mut ns, &NsCommand::Commit(Commit { size_epoch: SizeEpoch(9), ..read })).unwrap();
    assert_eq!(after, Attr { atime: at(70), ..before });
    assert_eq!(ns.check(&NsCommand::Commit(Commit { ino: TOP, ..plain })), Err(Status::IsDir));
}

#[test]
fn truncating_needs_the_right_and_clears_privileges() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o6755, user(5, &[])));
    let dir = make(&mut ns, &mkdir(TOP, "d", 0o777, root()));
    let cut = |ino, caller, by_handle| {
        NsCommand::Truncate(Truncate { ino, size: 0, now: at(3), by: TruncateBy { caller, by_handle } })
    };
    assert_eq!(ns.check(&cut(file, user(6, &[]), false)), Err(Status::Access));
    assert_eq!(ns.check(&cut(dir, root(), false)), Err(Status::IsDir));
    ns.apply(&cut(file, root(), false)).unwrap();
    assert_eq!(ns.getattr(file).unwrap().mode, 0o6755);
    ns.apply(&cut(file, user(6, &[]), true)).unwrap();
    assert_eq!(ns.getattr(file).unwrap().mode, 0o755);
    assert_eq!(ns.access(file, READ, &user(6, &[])), Ok(()));
    assert_eq!(ns.access(file, READ | WRITE, &user(6, &[])), Err(Status::Access));
}

#[test]
fn chunks_fill_holes_and_are_given_back() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o644, root()));
    ns.apply(&set_chunk(file, 7, 1)).unwrap();
    assert_eq!(ns.check(&set_chunk(file, 7, 2)), Err(Status::Exists));
    assert_eq!(ns.check(&set_chunk(TOP, 0, 2)), Err(Status::IsDir));
    assert_eq!(ns.check(&set_chunk(file, (1 << 63) / CHUNK, 2)), Err(Status::TooBig));
    assert_eq!(ns.chunk_at(file, ChunkIndex(7)), Ok(Some(ChunkId(1))));
    assert_eq!(ns.chunk_at(file, ChunkIndex(6)), Ok(None));
    ns.apply(&set_chunk(file, 0, 3)).unwrap();
    assert_eq!(ns.chunks(file, ChunkIndex(1), 6).unwrap(), []);
    assert_eq!(ns.chunks(file, ChunkIndex(0), 8).unwrap().len(), 2);
    let clear = |index, chunk| {
        NsCommand::ClearChunk(ClearChunk { ino: file, index: ChunkIndex(index), chunk: ChunkId(chunk) })
    };
    assert_eq!(ns.check(&clear(7, 3)), Err(Status::NoChunk));
    ns.apply(&clear(7, 1)).unwrap();
    assert_eq!(ns.chunk_count(file), Ok(1));
    // Orphans keep their chunks until they are freed.
    ns.apply(&unlink(TOP, "f", root())).unwrap();
    ns.apply(&set_chunk(file, 1, 4)).unwrap();
    let freed = ns.apply(&NsCommand::FreeInodes(FreeInodes { inos: vec![TOP, file, file, Ino(77)] }));
    assert_eq!(freed, Ok(NsOutcome::Freed { inos: vec![file], dropped: vec![ChunkId(3), ChunkId(4)] }));
}

#[test]
fn extended_attributes() {
    let mut ns = fresh();
    let file = make(&mut ns, &create(TOP, "f", 0o644, user(5, &[])));
    let set = |what: &str, len: usize, mode, by| {
        NsCommand::Setxattr(Setxattr {
            ino: file,
            name: name(what),
            value: vec![1; len].into(),
            mode,
            now: at(40),
            by,
        })
    };
    assert_eq!(ns.check(&set("user.a", 3, SetxattrMode::Replace, root())), Err(Status::NoData));
    ns.apply(&set("user.a", 3, SetxattrMode::Create, user(5, &[]))).unwrap();
    assert_eq!(ns.check(&set("user.a", 3, SetxattrMode::Create, root())), Err(Status::Exists));
    assert_eq!(ns.check(&set("user.b", 65_537, SetxattrMode::Any, root())), Err(Status::ValueTooBig));
    assert_eq!(ns.check(&set("trusted.a", 1, SetxattrMode::Any, user(5, &[]))), Err(Status::NotPermitted));
    assert_eq!(ns.getattr(file).unwrap().ctime, at(40));
    assert!(ns.getattr(file).unwrap().xattrs);
    // A megabyte of values, and no more.
    for n in 0..15 {
        ns.apply(&set(&format!("user.{n}"), 65_536, SetxattrMode::Any, root())).unwrap();
    }
    assert_eq!(ns.check(&set("user.last", 65_536, SetxattrMode::Any, root())), Err(Status::NoSpace));
    // Capabilities go with the owner, everything goes with the inode.
    ns.apply(&set("security.capability", 20, SetxattrMode::Any, root())).unwrap();
    change(&mut ns, Setattr { uid: Some(6), ..setattr(file, root()) }).unwrap();
    assert_eq!(ns.getxattr(file, b"security.capability"), Err(Status::NoData));
    let remove = |what: &str| {
        NsCommand::Removexattr(Removexattr { ino: file, name: name(what), now: at(41), by: root() })
    };
    assert_eq!(ns.check(&remove("user.none")), Err(Status::NoData));
    for entry in ns.listxattr(file).unwrap().names {
        ns.apply(&remove(std::str::from_utf8(&entry).unwrap())).unwrap();
    }
    assert!(!ns.getattr(file).unwrap().xattrs);
}

#[test]
fn devices_are_for_root() {
    let mut ns = fresh();
    let node = |kind, by| {
        NsCommand::Mknod(Mknod {
            parent: TOP,
            name: name("n"),
            kind,
            mode: 0o600,
            rdev: 0x0103,
            now: at(2),
            by,
        })
    };
    for kind in [FileKind::CharDev, FileKind::BlockDev] {
        assert_eq!(ns.check(&node(kind, user(5, &[]))), Err(Status::NotPermitted));
    }
    for kind in [FileKind::Fifo, FileKind::Socket, FileKind::File] {
        assert_eq!(ns.check(&node(kind, user(5, &[]))), Ok(()));
    }
    for kind in [FileKind::Dir, FileKind::Symlink] {
        assert_eq!(ns.check(&node(kind, root())), Err(Status::Invalid));
    }
    assert_eq!(attr(&mut ns, &node(FileKind::CharDev, root())).unwrap().rdev, 0x0103);
    assert_eq!(ns.check(&set_chunk(Ino(2), 0, 1)), Err(Status::Invalid));
}
