//! Listings: every entry that is there from the first page to the last is listed exactly once, whatever
//! happens to others meanwhile, in directories of any size.

use std::collections::BTreeSet;

use dfs_master::core::namespace::Namespace;
use dfs_master::core::ops::{NsCommand, Rename, Unlink};
use dfs_proto::ids::Ino;
use dfs_proto::meta::RenameMode;
use dfs_proto::units::FILE_SIZE_MAX;

use crate::support::{at, create, fresh, mkdir, root};

fn unlink(ns: &mut Namespace, name: &str) {
    let name = name.as_bytes().to_vec().into();
    ns.apply(&NsCommand::Unlink(Unlink { parent: Ino::ROOT, name, now: at(2), by: root() })).unwrap();
}

#[test]
fn pages_neither_repeat_nor_miss_what_stays() {
    let mut ns = fresh();
    for n in 0..5000 {
        ns.apply(&create(Ino::ROOT, &format!("stays-{n}"), 0o644, root())).unwrap();
        ns.apply(&create(Ino::ROOT, &format!("goes-{n}"), 0o644, root())).unwrap();
    }
    let mut seen = BTreeSet::new();
    let (mut cookie, mut pages) = (0, 0);
    loop {
        let listing = ns.readdir(Ino::ROOT, cookie, 100, true).unwrap();
        for entry in &listing.entries {
            assert!(entry.cookie > cookie);
            cookie = entry.cookie;
            assert!(seen.insert(entry.name.to_vec()), "listed twice");
            assert_eq!(entry.attr.unwrap().ino, entry.ino);
        }
        if listing.end {
            break;
        }
        // Between two pages, names come and go all over the directory.
        for n in pages * 40..pages * 40 + 40 {
            unlink(&mut ns, &format!("goes-{n}"));
            ns.apply(&create(Ino::ROOT, &format!("comes-{n}"), 0o644, root())).unwrap();
        }
        pages += 1;
    }
    assert!(pages >= 99);
    for n in 0..5000 {
        assert!(seen.contains(format!("stays-{n}").as_bytes()), "stays-{n} was missed");
    }
}

#[test]
fn emptying_a_directory_page_by_page_ends() {
    let mut ns = fresh();
    for n in 0..3000 {
        ns.apply(&create(Ino::ROOT, &format!("f{n}"), 0o644, root())).unwrap();
    }
    let mut cookie = 0;
    let mut removed = 0;
    loop {
        let listing = ns.readdir(Ino::ROOT, cookie, 64, false).unwrap();
        for entry in &listing.entries {
            cookie = entry.cookie;
            unlink(&mut ns, std::str::from_utf8(&entry.name).unwrap());
            removed += 1;
        }
        if listing.end {
            break;
        }
    }
    assert_eq!(removed, 3000);
    assert_eq!(ns.entry_count(Ino::ROOT), Ok(0));
    assert_eq!(ns.counts().orphans, 3000);
}

#[test]
fn a_replaced_name_keeps_its_cookie() {
    let mut ns = fresh();
    for name in ["a", "b"] {
        ns.apply(&create(Ino::ROOT, name, 0o644, root())).unwrap();
    }
    let cookie_of = |ns: &Namespace| {
        let listing = ns.readdir(Ino::ROOT, 0, 10, false).unwrap();
        listing.entries.iter().find(|entry| entry.name.as_slice() == b"b").unwrap().cookie
    };
    let before = cookie_of(&ns);
    let rename = Rename {
        parent: Ino::ROOT,
        name: b"a".to_vec().into(),
        new_parent: Ino::ROOT,
        new_name: b"b".to_vec().into(),
        mode: RenameMode::Replace,
        now: at(3),
        by: root(),
    };
    ns.apply(&NsCommand::Rename(rename)).unwrap();
    assert_eq!(cookie_of(&ns), before);
}

#[test]
fn edges_of_a_listing() {
    let mut ns = fresh();
    let empty = ns.readdir(Ino::ROOT, 0, 10, true).unwrap();
    assert!(empty.end && empty.entries.is_empty());
    assert_eq!(empty.parent, Ino::ROOT);
    ns.apply(&mkdir(Ino::ROOT, "d", 0o755, root())).unwrap();
    let one = ns.readdir(Ino::ROOT, 0, 0, false).unwrap();
    assert_eq!(one.entries.len(), 1, "a page of nothing would never end");
    assert!(one.end);
    for behind in [one.entries[0].cookie, FILE_SIZE_MAX, u64::MAX] {
        let listing = ns.readdir(Ino::ROOT, behind, 10, false).unwrap();
        assert!(listing.end && listing.entries.is_empty());
    }
}
