//! A program that writes, reads, truncates, punches and syncs files, as the simulator's does, with one descriptor at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::{Kind, Program, Shared, WorkFile, bytes_of, close, path_of};
use crate::model::history::{FlushKind, Outcome};
use crate::model::stamp::{Found, SECTOR, Stamp, fill, look};
use crate::model::{Actor, FileNum};

const CHUNK_SECTORS: u64 = 128;
/// A file reaches over three chunks of 64 KiB.
pub const FILE_SECTORS: u64 = 3 * CHUNK_SECTORS;
const BLOCK_SECTORS: u64 = 8;

/// An open file of a program.
struct Open {
    file: WorkFile,
    handle: File,
    writable: bool,
}

/// Whether the program goes on with the descriptor.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    /// It reported a failure: it is closed.
    Close,
}

pub(super) fn run(mut program: Program) {
    while !program.shared.is_quiet() {
        if let Some(open) = open(&mut program) {
            let count = 1 + program.rng.below(12);
            for _ in 0..count {
                if program.shared.is_quiet() || one(&mut program, &open) == Next::Close {
                    break;
                }
                program.rest();
            }
            let file = open.file.num;
            flushed(&program, file, FlushKind::Close, || close(open.handle));
        }
        program.rest();
    }
}

fn open(program: &mut Program) -> Option<Open> {
    let at = usize::try_from(program.rng.below(program.files.len() as u64)).unwrap_or(0);
    let file = *program.files.get(at)?;
    let writable = program.rng.below(4) > 0;
    let truncate = writable && program.rng.below(24) == 0;
    let actor = program.actor;
    let cut = truncate
        .then(|| program.shared.record().history.write(actor, file.num, Stamp::ZERO, 0, FILE_SECTORS));
    let path = path_of(&program.mount, file.num);
    let what = format!("opens {:?} write {writable} truncate {truncate}", file.num);
    let opened = program.shared.call(actor, Kind::Name, what, || {
        OpenOptions::new().read(true).write(writable).truncate(truncate).open(path)
    });
    let mut record = program.shared.record();
    if let Some(cut) = cut {
        record.history.write_returned(cut, outcome_of(&opened), true);
    }
    if opened.is_ok() {
        record.history.opened(actor, file.num);
    }
    Some(Open { file, handle: opened.ok()?, writable })
}

fn outcome_of<T>(result: &io::Result<T>) -> Outcome {
    if result.is_ok() { Outcome::Done } else { Outcome::Failed }
}

fn one(program: &mut Program, open: &Open) -> Next {
    let (file, handle) = (open.file.num, &open.handle);
    match program.rng.below(20) {
        0..9 if open.writable => write(program, open),
        9 if open.writable => truncate(program, open),
        10 if open.writable => flushed(program, file, FlushKind::Fsync, || handle.sync_data()),
        11 if open.writable => flushed(program, file, FlushKind::Fsync, || handle.sync_all()),
        13 if open.writable => punch(program, open),
        // Closing any descriptor of a file flushes it.
        12 if open.writable => flushed(program, file, FlushKind::Close, || close(handle.try_clone()?)),
        _ => {
            let place = place(program);
            // One that fails shows nothing.
            drop(read_at(&program.shared, program.actor, handle, file, place));
            Next::Go
        }
    }
}

/// A place in the file: mostly whole blocks, as programs with pages write.
fn place(program: &mut Program) -> (u64, u64) {
    let (most, rng) = (FILE_SECTORS, &mut program.rng);
    let (first, len) = match rng.below(10) {
        0 => (rng.below(most), 1 + rng.below(20)),
        1 => (rng.below(most / BLOCK_SECTORS) * BLOCK_SECTORS, 8 + rng.below(most / 2)),
        _ => (rng.below(most / BLOCK_SECTORS) * BLOCK_SECTORS, BLOCK_SECTORS * (1 + rng.below(4))),
    };
    (first, len.min(most - first))
}

fn write(program: &mut Program, open: &Open) -> Next {
    let (first, len) = place(program);
    let (actor, file) = (program.actor, open.file);
    let (stamp, written) = {
        let mut record = program.shared.record();
        let stamp = record.history.stamp();
        (stamp, record.history.write(actor, file.num, stamp, first, first + len))
    };
    let bytes = fill(stamp, file.num, first, len);
    let what = format!("writes {stamp:?} to {:?} at {first}+{len}", file.num);
    let write = || open.handle.write_all_at(&bytes, bytes_of(first));
    let outcome = outcome_of(&program.shared.call(actor, Kind::Write, what, write));
    program.shared.record().history.write_returned(written, outcome, file.through);
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

fn truncate(program: &mut Program, open: &Open) -> Next {
    let rng = &mut program.rng;
    let sectors = match rng.below(4) {
        0 => 0,
        1 => rng.below(3) * CHUNK_SECTORS,
        2 => rng.below(FILE_SECTORS / BLOCK_SECTORS) * BLOCK_SECTORS,
        _ => rng.below(FILE_SECTORS),
    };
    let (actor, file) = (program.actor, open.file.num);
    let cut = program.shared.record().history.write(actor, file, Stamp::ZERO, sectors, FILE_SECTORS);
    let what = format!("truncates {file:?} to {sectors}");
    let set = program.shared.call(actor, Kind::Write, what, || open.handle.set_len(bytes_of(sectors)));
    let outcome = outcome_of(&set);
    program.shared.record().history.write_returned(cut, outcome, true);
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

/// Zeros, often of whole chunks; those that need not stay within the file make it longer.
fn punch(program: &mut Program, open: &Open) -> Next {
    let (first, len) = match program.rng.below(4) {
        0 => (program.rng.below(3) * CHUNK_SECTORS, FILE_SECTORS),
        1 => (program.rng.below(3) * CHUNK_SECTORS, CHUNK_SECTORS),
        _ => place(program),
    };
    let len = len.min(FILE_SECTORS - first);
    let grows = program.rng.below(4) == 0;
    let mode = if grows {
        FallocateFlags::ZERO_RANGE
    } else {
        FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE)
    };
    let (actor, file) = (program.actor, open.file.num);
    let hole = program.shared.record().history.hole(actor, file, first, first + len, grows);
    let what = format!("punches {file:?} at {first}+{len} grows {grows}");
    let punch = || Ok(fallocate(&open.handle, mode, bytes_of(first), bytes_of(len))?);
    let outcome = outcome_of(&program.shared.call(actor, Kind::Write, what, punch));
    // Zeros are not buffered.
    program.shared.record().history.write_returned(hole, outcome, true);
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

fn flushed(
    program: &Program,
    file: FileNum,
    kind: FlushKind,
    flush: impl FnOnce() -> io::Result<()>,
) -> Next {
    let actor = program.actor;
    let begun = program.shared.record().history.flush(actor, file, kind);
    let done = program.shared.call(actor, Kind::Write, format!("{kind:?} of {file:?}"), flush);
    let mut record = program.shared.record();
    let outcome = if record.dying { Outcome::Failed } else { outcome_of(&done) };
    record.history.flush_returned(begun, outcome);
    drop(record);
    if outcome == Outcome::Done { Next::Go } else { Next::Close }
}

fn read_at(
    shared: &Shared,
    actor: Actor,
    handle: &File,
    file: FileNum,
    (first, count): (u64, u64),
) -> io::Result<(Vec<u8>, Vec<Found>)> {
    let invoke = shared.record().history.tick();
    let mut bytes = vec![0; usize::try_from(bytes_of(count)).unwrap_or(0)];
    let what = format!("reads {file:?} at {first}+{count}");
    let read = shared.call(actor, Kind::Read, what, || read_full(handle, &mut bytes, bytes_of(first)));
    bytes.truncate(read?);
    let found = found_in(&bytes, file, first, count);
    // The kernel may have had it cached.
    shared.record().history.read(actor, file, first, found.clone(), invoke, true);
    Ok((bytes, found))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// What the bytes of a read say, one a sector; what the file did not reach to counts as zeros.
fn found_in(bytes: &[u8], file: FileNum, first: u64, count: u64) -> Vec<Found> {
    let (sectors, rest) = bytes.as_chunks::<SECTOR>();
    let mut found: Vec<Found> =
        (first..).zip(sectors).map(|(sector, bytes)| look(bytes, file, sector)).collect();
    if !rest.is_empty() {
        found.push(Found::Garbage);
    }
    found.resize(usize::try_from(count).unwrap_or(0), Found::Stamp(Stamp::ZERO));
    found
}

/// Reads a whole file, writes it as it is and syncs it: what was found is then durable through this mount, whoever
/// wrote it, and whether or not its own mount ever synced it.
///
/// # Errors
/// When it can't be opened, read, written or synced.
pub fn read_whole(shared: &Shared, actor: Actor, mount: &Path, file: FileNum) -> io::Result<Vec<Found>> {
    let path = path_of(mount, file);
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let handle = shared.call(actor, Kind::Name, format!("opens {file:?}"), open)?;
    let (bytes, found) = read_at(shared, actor, &handle, file, (0, FILE_SECTORS))?;
    shared.call(actor, Kind::Write, format!("writes and syncs {file:?}"), || {
        handle.write_all_at(&bytes, 0)?;
        handle.sync_all()?;
        close(handle)
    })?;
    Ok(found)
}
