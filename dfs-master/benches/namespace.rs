//! What one operation of the namespace costs, in a tree of 100,000 files, 1,000 in each directory.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dfs_master::core::namespace::{Caller, Namespace, RootSpec};
use dfs_master::core::ops::{Commit, Create, FreeInodes, Mkdir, NsCommand, NsOutcome, Unlink};
use dfs_proto::ids::{Ino, SizeEpoch};
use dfs_proto::meta::SetTime;
use dfs_proto::units::{ChunkSize, Timespec};

const DIRS: u64 = 100;
const FILES: u64 = 1000;

fn now(step: u64) -> Timespec {
    Timespec { sec: 1_795_000_000 + i64::try_from(step).unwrap_or(0), nsec: 987_654_321 }
}

fn by() -> Caller {
    Caller { uid: 1000, gid: 1000, groups: None }
}

fn create(parent: Ino, name: String) -> NsCommand {
    NsCommand::Create(Create { parent, name: name.into_bytes().into(), mode: 0o644, now: now(1), by: by() })
}

fn unlink(parent: Ino, name: &str) -> NsCommand {
    let name = name.as_bytes().to_vec().into();
    NsCommand::Unlink(Unlink { parent, name, now: now(2), by: by() })
}

fn made(ns: &mut Namespace, command: &NsCommand) -> Ino {
    match ns.apply(command) {
        Ok(NsOutcome::Attr(attr)) => attr.ino,
        other => panic!("{command:?}: {other:?}"),
    }
}

/// The tree, its directories and the names in each.
fn tree() -> (Namespace, Vec<Ino>, Vec<String>) {
    let root = RootSpec { uid: 1000, gid: 1000, mode: 0o755, now: now(0) };
    let mut ns = Namespace::new(ChunkSize::DEFAULT, root);
    let names: Vec<String> = (0..FILES).map(|n| format!("file{n:08}")).collect();
    let mut dirs = Vec::new();
    for n in 0..DIRS {
        let name = format!("dir{n}").into_bytes().into();
        let mkdir = Mkdir { parent: Ino::ROOT, name, mode: 0o755, now: now(0), by: by() };
        let dir = made(&mut ns, &NsCommand::Mkdir(mkdir));
        for name in &names {
            made(&mut ns, &create(dir, name.clone()));
        }
        dirs.push(dir);
    }
    (ns, dirs, names)
}

fn reads(c: &mut Criterion) {
    let (ns, dirs, names) = tree();
    let caller = by();
    // A stride that is no divisor visits everything in an order that no cache foresees.
    let mut at = 0;
    let mut next = move |len: usize| {
        at = (at + 40_503) % (1 << 30);
        at % len
    };
    c.bench_function("lookup", |b| {
        b.iter(|| {
            let (dir, name) = (dirs[next(dirs.len())], &names[next(names.len())]);
            black_box(ns.lookup(dir, name.as_bytes(), &caller))
        });
    });
    let inodes = usize::try_from(ns.next_ino().0 - 1).unwrap_or(1);
    let mut at = 0;
    c.bench_function("getattr", |b| {
        b.iter(|| {
            at = (at + 40_503) % inodes;
            black_box(ns.getattr(Ino(at as u64 + 1)))
        });
    });
    c.bench_function("readdir of 1000", |b| b.iter(|| black_box(ns.readdir(dirs[3], 0, 1024, false))));
    c.bench_function("readdir of 1000 with attributes", |b| {
        b.iter(|| black_box(ns.readdir(dirs[3], 0, 1024, true)));
    });
}

fn changes(c: &mut Criterion) {
    let (ns, dirs, _) = tree();
    let mut live = ns.clone();
    drop(ns);
    let mut n = 0_u64;
    let mut fresh_name = move || {
        n += 1;
        format!("new{n:09}")
    };
    c.bench_function("create", |b| {
        b.iter_batched(
            || create(dirs[7], fresh_name()),
            |command| black_box(live.apply(&command)),
            BatchSize::SmallInput,
        );
    });
    let mut n = 0_u64;
    c.bench_function("create, unlink and free", |b| {
        b.iter(|| {
            n += 1;
            let name = format!("gone{n}");
            let ino = made(&mut live, &create(dirs[9], name.clone()));
            let removed = live.apply(&unlink(dirs[9], &name));
            let freed = live.apply(&NsCommand::FreeInodes(FreeInodes { inos: vec![ino] }));
            black_box((removed, freed))
        });
    });
    let (mut at, inodes) = (0, 99_000);
    c.bench_function("commit", |b| {
        b.iter(|| {
            at = (at + 40_503) % inodes;
            let commit = Commit {
                ino: Ino(at + 3),
                size_epoch: SizeEpoch(0),
                size_at_least: Some(at),
                mtime: Some(SetTime::Now),
                atime: None,
                clear_privileges: false,
                now: now(at),
            };
            black_box(live.apply(&NsCommand::Commit(commit)))
        });
    });
    let clone = live.clone();
    c.bench_function("clone", |b| b.iter(|| black_box(clone.clone())));
}

criterion_group!(benches, reads, changes);
criterion_main!(benches);
