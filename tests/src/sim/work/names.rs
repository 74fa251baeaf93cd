//! A program that makes, renames, looks up and unlinks names in a directory of its own.

use dfs_client::Error;
use dfs_proto::ids::Ino;
use dfs_proto::meta::RenameMode;

use super::{BOTH, Program, ROOT};
use crate::model::names::{Answer, Directory, Name, NameOp};

const NAMES: u64 = 5;

/// A name as it stands in the directory.
pub(in crate::sim) fn text(name: Name) -> String {
    format!("name-{name}")
}

pub(super) async fn run(mut program: Program) {
    let Some(home) = home(&mut program).await else { return };
    while !program.is_quiet() {
        one(&mut program, home).await;
        program.rest().await;
    }
}

/// Makes the directory, durably.
async fn home(program: &mut Program) -> Option<Ino> {
    let name = format!("home-{}-{}", program.actor.client, program.actor.stream);
    while !program.is_quiet() {
        let made = match program.client.mkdir(Ino::ROOT, name.as_bytes(), 0o755, ROOT).await {
            Err(Error::Exists) => program.client.lookup(Ino::ROOT, name.as_bytes(), ROOT).await,
            other => other,
        };
        let root = program.client.opendir(Ino::ROOT);
        if let Ok(attr) = made
            && program.client.fsyncdir(&root).await.is_ok()
        {
            let actor = program.actor;
            program.shared.act(|world| {
                world.homes.insert(actor, attr.ino);
                world.directories.insert(actor, Directory::default());
            });
            return Some(attr.ino);
        }
        program.rest().await;
    }
    None
}

async fn one(program: &mut Program, home: Ino) {
    let name = |program: &mut Program| Name::try_from(program.below(NAMES)).unwrap_or(0);
    let first = name(program);
    let op = match program.below(10) {
        0..4 => NameOp::Create(first),
        4..6 => NameOp::Unlink(first),
        6..8 => NameOp::Rename(first, name(program)),
        8 => return sync(program, home).await,
        _ => NameOp::Lookup(first),
    };
    let actor = program.actor;
    program.shared.act(|world| {
        world.history.tick();
        if let Some(directory) = world.directories.get_mut(&actor) {
            directory.begin(op);
        }
        world.note([50, u64::from(first), 0], || format!("{actor:?} begins {op:?}"));
    });
    let result = perform(program, home, op).await;
    program.shared.act(|world| {
        world.operations += 1;
        world.note([51, u64::from(first), u64::from(result.is_ok())], || {
            format!("{actor:?} {op:?}: {result:?}")
        });
        let at = world.history.tick();
        let Some(directory) = world.directories.get_mut(&actor) else { return };
        let wrong = match answer_of(result) {
            Some(answer) => directory.answered(at, op, answer),
            None => {
                directory.unknown(op);
                None
            }
        };
        if let Some(wrong) = wrong {
            world.violate(wrong.oracle, wrong.what);
        }
    });
}

async fn sync(program: &mut Program, home: Ino) {
    let began = program.shared.act(|world| world.history.tick());
    let synced = program.client.fsyncdir(&program.client.opendir(home)).await;
    let actor = program.actor;
    program.shared.act(|world| {
        world.note([52, 0, 0], || format!("{actor:?} fsyncs its directory: {synced:?}"));
        if let (Ok(()), Some(directory)) = (synced, world.directories.get_mut(&actor)) {
            directory.synced(began);
        }
    });
}

async fn perform(program: &Program, home: Ino, op: NameOp) -> Result<Option<Ino>, Error> {
    let client = &program.client;
    match op {
        NameOp::Create(name) => {
            let made = client.create(home, text(name).as_bytes(), 0o644, BOTH, true, false, ROOT).await;
            let (attr, handle) = made?;
            client.release(handle);
            Ok(Some(attr.ino))
        }
        NameOp::Unlink(name) => client.unlink(home, text(name).as_bytes(), ROOT).await.map(|_| None),
        NameOp::Rename(from, to) => {
            let (from, to) = (text(from), text(to));
            let from = (home, from.as_bytes());
            client.rename(from, (home, to.as_bytes()), RenameMode::Replace, ROOT).await.map(|_| None)
        }
        NameOp::Lookup(name) => {
            client.lookup(home, text(name).as_bytes(), ROOT).await.map(|attr| Some(attr.ino))
        }
    }
}

/// What the model is told; `None` when the outcome is not known.
pub(in crate::sim) fn answer_of(result: Result<Option<Ino>, Error>) -> Option<Answer> {
    match result {
        Ok(ino) => Some(Answer::Done(ino.map(|ino| ino.0))),
        Err(Error::NotFound) => Some(Answer::NotFound),
        Err(Error::Exists) => Some(Answer::Exists),
        Err(_) => None,
    }
}
