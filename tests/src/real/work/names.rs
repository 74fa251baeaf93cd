//! A program that makes, renames, looks up and removes names in a directory of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Kind, Program, Shared, close, home_of};
use crate::model::Actor;
use crate::model::names::{Answer, Name, NameOp};
use crate::real::clock;

const NAMES: u8 = 5;

fn text(name: Name) -> String {
    format!("name-{name}")
}

pub(super) fn run(mut program: Program) {
    let home = home_of(&program.mount, program.actor);
    while !program.shared.is_quiet() {
        one(&mut program, &home);
        program.rest();
    }
}

fn one(program: &mut Program, home: &Path) {
    let name = |program: &mut Program| Name::try_from(program.rng.below(u64::from(NAMES))).unwrap_or(0);
    let first = name(program);
    let op = match program.rng.below(10) {
        0..4 => NameOp::Create(first),
        4..6 => NameOp::Unlink(first),
        6..8 => NameOp::Rename(first, name(program)),
        8 => return sync(&program.shared, program.actor, home),
        _ => NameOp::Lookup(first),
    };
    ask(&program.shared, program.actor, program.actor, home, op);
}

/// Does one, and tells the model of the directory of `owner`. What it was answered, if that is known.
fn ask(shared: &Shared, actor: Actor, owner: Actor, home: &Path, op: NameOp) -> Option<Answer> {
    // By its descriptor: while a mount is away its path leads to an empty directory behind it.
    let opened =
        shared.call(actor, Kind::Name, format!("opens {}", home.display()), || File::open(home)).ok()?;
    let dir = PathBuf::from(format!("/proc/thread-self/fd/{}", opened.as_raw_fd()));
    {
        let mut record = shared.record();
        record.history.tick();
        if let Some(directory) = record.directories.get_mut(&owner) {
            directory.begin(op);
        }
    }
    let what = format!("{op:?} in {}", home.display());
    let answer = answer_of(&shared.call(actor, Kind::Name, what, || perform(&dir, op)));
    let mut record = shared.record();
    let at = record.history.tick();
    let believed = clock::now() < record.believed_until;
    let directory = record.directories.get_mut(&owner)?;
    let wrong = match answer {
        Some(answer) if believed => directory.answered_by_belief(at, op, answer),
        Some(answer) => directory.answered(at, op, answer),
        None => {
            directory.unknown(op);
            None
        }
    };
    if let Some(mut wrong) = wrong {
        wrong.what = format!("{actor:?} in the directory of {owner:?}: {}", wrong.what);
        record.violations.push(wrong);
    }
    answer
}

fn sync(shared: &Shared, actor: Actor, home: &Path) {
    let began = shared.record().history.tick();
    let what = format!("fsync of {}", home.display());
    let synced = shared.call(actor, Kind::Name, what, || File::open(home)?.sync_all());
    let mut record = shared.record();
    let counts = synced.is_ok() && !record.dying;
    if let (true, Some(directory)) = (counts, record.directories.get_mut(&actor)) {
        directory.synced(began);
    }
}

fn perform(dir: &Path, op: NameOp) -> io::Result<Option<u64>> {
    match op {
        NameOp::Create(name) => {
            let file = File::create_new(dir.join(text(name)))?;
            let ino = file.metadata()?.ino();
            // At the latest it is made now.
            close(file)?;
            Ok(Some(ino))
        }
        NameOp::Unlink(name) => fs::remove_file(dir.join(text(name))).map(|()| None),
        NameOp::Rename(from, to) => fs::rename(dir.join(text(from)), dir.join(text(to))).map(|()| None),
        NameOp::Lookup(name) => fs::metadata(dir.join(text(name))).map(|meta| Some(meta.ino())),
    }
}

/// What the model is told; `None` when the outcome is not known.
fn answer_of(result: &io::Result<Option<u64>>) -> Option<Answer> {
    match result {
        Ok(ino) => Some(Answer::Done(*ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Answer::NotFound),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(Answer::Exists),
        Err(_) => None,
    }
}

/// Makes the directory of `owner` durable through this mount, then looks all its names up: what it holds.
///
/// # Errors
/// When a call has no answer.
pub fn look_up_all(
    shared: &Shared,
    actor: Actor,
    mount: &Path,
    owner: Actor,
) -> anyhow::Result<BTreeMap<Name, u64>> {
    let home = home_of(mount, owner);
    let what = format!("fsync of {}", home.display());
    shared.call(actor, Kind::Name, what, || File::open(&home)?.sync_all())?;
    let mut names = BTreeMap::new();
    for name in 0..NAMES {
        match ask(shared, actor, owner, &home, NameOp::Lookup(name)) {
            Some(Answer::Done(Some(ino))) => {
                names.insert(name, ino);
            }
            Some(Answer::Done(None) | Answer::NotFound | Answer::Exists) => {}
            None => anyhow::bail!("looking up {} gets no answer", home.join(text(name)).display()),
        }
    }
    Ok(names)
}
