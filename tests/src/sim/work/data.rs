//! A program that writes, reads, truncates, punches and syncs the shared files.

use dfs_client::{CacheState, FileHandle, SetAttrs};
use dfs_proto::ids::Ino;

use super::{BOTH, Program, READ, ROOT};
use crate::model::history::{FlushKind, Outcome};
use crate::model::stamp::{Found, SECTOR, Stamp, fill, look};
use crate::model::{FileNum, Tick};

const CHUNK_SECTORS: u64 = 128;
/// A file reaches over three chunks of 64 KiB.
pub(in crate::sim) const FILE_SECTORS: u64 = 3 * CHUNK_SECTORS;
const BLOCK_SECTORS: u64 = 8;
const SECTOR_U64: u64 = SECTOR as u64;

/// An open file of a program.
struct Open {
    file: FileNum,
    ino: Ino,
    handle: FileHandle,
    writable: bool,
}

/// Whether the program goes on with the handle.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    /// It reported a failure: it is closed.
    Close,
}

pub(super) async fn run(mut program: Program) {
    while !program.is_quiet() {
        if let Some(open) = open(&mut program).await {
            let count = 1 + program.below(12);
            for _ in 0..count {
                if program.is_quiet() || one(&mut program, &open).await == Next::Close {
                    break;
                }
                program.rest().await;
            }
            close(&mut program, open).await;
        }
        program.rest().await;
    }
}

async fn open(program: &mut Program) -> Option<Open> {
    let files = program.shared.act(|world| world.files.clone());
    let at = usize::try_from(program.below(files.len() as u64)).unwrap_or(0);
    let (file, ino) = *files.get(at)?;
    let writable = program.below(4) > 0 && !program.only_reads();
    let one_in = if program.crowded { 4 } else { 24 };
    let truncate = writable && program.below(one_in) == 0;
    let access = if writable { BOTH } else { READ };
    let actor = program.actor;
    let cut = truncate
        .then(|| program.shared.act(|world| world.history.write(actor, file, Stamp::ZERO, 0, FILE_SECTORS)));
    let opened = program.client.open(ino, access, truncate, ROOT).await;
    let outcome = outcome_of(&opened);
    program.shared.act(|world| {
        world.operations += 1;
        if let Some(cut) = cut {
            world.history.write_returned(cut, outcome, true);
        }
        if outcome == Outcome::Done {
            world.history.opened(actor, file);
        }
        world.note([40, u64::from(file.0), u64::from(truncate)], || {
            format!(
                "{actor:?} opened {file:?} write {writable} truncate {truncate}: {:?}",
                opened.as_ref().err()
            )
        });
    });
    Some(Open { file, ino, handle: opened.ok()?, writable })
}

fn outcome_of<T, E>(result: &Result<T, E>) -> Outcome {
    if result.is_ok() { Outcome::Done } else { Outcome::Failed }
}

async fn one(program: &mut Program, open: &Open) -> Next {
    match program.below(20) {
        0..9 if open.writable => write(program, open).await,
        9 if open.writable => truncate(program, open).await,
        10..12 => flush(program, open, FlushKind::Fsync).await,
        12 if open.writable => flush(program, open, FlushKind::Close).await,
        13 if open.writable => punch(program, open).await,
        14 if open.writable => unheard_close(program, open).await,
        _ => read(program, open).await,
    }
}

/// A place in the file: mostly whole blocks, as programs with pages write. Some are where all programs meet.
fn place(program: &mut Program) -> (u64, u64) {
    let most = FILE_SECTORS;
    let (first, len) = match program.below(10) {
        2..5 => (program.below(4) * BLOCK_SECTORS, BLOCK_SECTORS * (1 + program.below(2))),
        0 => (program.below(most), 1 + program.below(20)),
        1 => (program.below(most / BLOCK_SECTORS) * BLOCK_SECTORS, 8 + program.below(most / 2)),
        _ => (program.below(most / BLOCK_SECTORS) * BLOCK_SECTORS, BLOCK_SECTORS * (1 + program.below(4))),
    };
    (first, len.min(most - first))
}

async fn write(program: &mut Program, open: &Open) -> Next {
    let (first, len) = place(program);
    let (actor, file) = (program.actor, open.file);
    let before = program.client.cache_state(open.ino);
    let (stamp, record) = program.shared.act(|world| {
        let stamp = world.history.stamp();
        world.note([41, stamp.0, first], || {
            format!("{actor:?} writes {stamp:?} to {file:?} at {first}+{len}")
        });
        (stamp, world.history.write(actor, file, stamp, first, first + len))
    });
    let bytes = fill(stamp, file, first, len);
    let count = bytes.len();
    let wrote = program.client.write(&open.handle, first * SECTOR_U64, bytes.into(), false).await;
    let through = before == CacheState::Shared && program.client.cache_state(open.ino) == CacheState::Shared;
    let outcome = outcome_of(&wrote);
    program.shared.act(|world| {
        world.operations += 1;
        world.history.write_returned(record, outcome, through);
        world.note([42, stamp.0, u64::from(through)], || {
            format!("{actor:?} wrote {stamp:?}: {wrote:?} through {through}")
        });
        if wrote.is_ok_and(|wrote| wrote != count) {
            world.violate("posix", format!("a write of {count} bytes wrote {wrote:?}"));
        }
    });
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

async fn truncate(program: &mut Program, open: &Open) -> Next {
    let sectors = match program.below(4) {
        0 => 0,
        1 => program.below(3) * CHUNK_SECTORS,
        2 => program.below(FILE_SECTORS / BLOCK_SECTORS) * BLOCK_SECTORS,
        _ => program.below(FILE_SECTORS),
    };
    let (actor, file) = (program.actor, open.file);
    let record = program.shared.act(|world| {
        world.note([43, sectors, 0], || format!("{actor:?} truncates {file:?} to {sectors}"));
        world.history.write(actor, file, Stamp::ZERO, sectors, FILE_SECTORS)
    });
    let set = SetAttrs { size: Some(sectors * SECTOR_U64), ..SetAttrs::default() };
    let cut = program.client.setattr(open.ino, Some(&open.handle), set, ROOT).await;
    let outcome = outcome_of(&cut);
    program.shared.act(|world| {
        world.operations += 1;
        world.history.write_returned(record, outcome, true);
        world.note([44, sectors, 0], || {
            format!("{actor:?} truncated {file:?} to {sectors}: {:?}", cut.as_ref().err())
        });
    });
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

/// Zeros, often of whole chunks, and at times a file that is longer for them.
async fn punch(program: &mut Program, open: &Open) -> Next {
    let (first, len) = match program.below(5) {
        // To the file's end, wherever in its chunk that is.
        0 => (program.below(3) * CHUNK_SECTORS, FILE_SECTORS),
        1 => (program.below(3) * CHUNK_SECTORS, CHUNK_SECTORS),
        _ => place(program),
    };
    let len = len.min(FILE_SECTORS - first);
    let grows = program.below(4) == 0;
    let (actor, file) = (program.actor, open.file);
    let record = program.shared.act(|world| {
        world.note([49, first, len], || format!("{actor:?} punches {file:?} at {first}+{len} grows {grows}"));
        world.history.hole(actor, file, first, first + len, grows)
    });
    let (offset, bytes) = (first * SECTOR_U64, len * SECTOR_U64);
    let mut done = program.client.punch(&open.handle, offset, bytes).await;
    if grows && done.is_ok() {
        done = program.client.extend(&open.handle, offset + bytes).await;
    }
    let outcome = outcome_of(&done);
    program.shared.act(|world| {
        world.operations += 1;
        // Zeros are not buffered.
        world.history.write_returned(record, outcome, true);
        world.note([52, first, len], || format!("{actor:?} punched {file:?} at {first}+{len}: {done:?}"));
    });
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

/// The program starts another, which closes its copies of the descriptors: nobody hears what that said.
async fn unheard_close(program: &mut Program, open: &Open) -> Next {
    let (actor, file) = (program.actor, open.file);
    let closed = program.client.flush(&open.handle).await;
    program.shared.act(|world| {
        world.operations += 1;
        world.note([53, 0, 0], || format!("a copy of {actor:?}'s {file:?} is closed: {closed:?}"));
    });
    Next::Go
}

async fn flush(program: &mut Program, open: &Open, kind: FlushKind) -> Next {
    let (actor, file) = (program.actor, open.file);
    let record = program.shared.act(|world| {
        world.note([45, 0, 0], || format!("{actor:?} begins {kind:?} of {file:?}"));
        world.history.flush(actor, file, kind)
    });
    let done = match kind {
        FlushKind::Close => program.client.flush(&open.handle).await,
        FlushKind::Fsync => {
            let datasync = program.rng.coin();
            program.client.fsync(&open.handle, datasync).await
        }
    };
    let outcome = outcome_of(&done);
    program.shared.act(|world| {
        world.operations += 1;
        world.history.flush_returned(record, outcome);
        world.note([46, 0, 0], || format!("{actor:?} {kind:?} of {file:?}: {done:?}"));
    });
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

/// What the bytes of a read say, one a sector; what the file did not reach to counts as zeros.
pub(in crate::sim) fn found_in(bytes: &[u8], file: FileNum, first: u64, count: u64) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let (sectors, rest) = bytes.as_chunks::<SECTOR>();
    for (sector, bytes) in (first..).zip(sectors) {
        found.push(look(bytes, file, sector));
    }
    if !rest.is_empty() {
        found.push(Found::Garbage);
    }
    found.resize(usize::try_from(count).unwrap_or(0), Found::Stamp(Stamp::ZERO));
    found
}

async fn read(program: &mut Program, open: &Open) -> Next {
    let (first, count) = place(program);
    let (actor, file) = (program.actor, open.file);
    let invoke: Tick = program.shared.act(|world| {
        world.note([47, first, count], || format!("{actor:?} reads {file:?} at {first}+{count}"));
        world.history.tick()
    });
    let len = u32::try_from(count * SECTOR_U64).unwrap_or(u32::MAX);
    let before = program.client.cache_state(open.ino);
    let read = program.client.read(&open.handle, first * SECTOR_U64, len).await;
    let cached = before != CacheState::Shared || program.client.cache_state(open.ino) != CacheState::Shared;
    program.shared.act(|world| {
        world.operations += 1;
        let sum = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        world.note([48, first, sum], || match &read {
            Ok(bytes) => {
                format!("{actor:?} read {file:?} at {first}: {}", brief(&found_in(bytes, file, first, count)))
            }
            Err(error) => format!("{actor:?} read {file:?} at {first}: {error:?}"),
        });
        if let Ok(bytes) = &read {
            world.history.read(actor, file, first, found_in(bytes, file, first, count), invoke, cached);
        }
    });
    Next::Go
}

/// Runs of equal stamps, for people.
pub(in crate::sim) fn brief(found: &[Found]) -> String {
    let runs = found.chunk_by(|a, b| a == b).map(|run| match run[0] {
        Found::Stamp(stamp) => format!("{}x{}", stamp.0, run.len()),
        Found::Garbage => format!("GARBAGEx{}", run.len()),
    });
    runs.collect::<Vec<_>>().join(" ")
}

async fn close(program: &mut Program, open: Open) {
    flush(program, &open, FlushKind::Close).await;
    program.client.release(open.handle);
}
