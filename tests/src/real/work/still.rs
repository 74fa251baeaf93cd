//! A program that reads files which nobody writes any more, past the kernel's cache: what it waits for is a server
//! that serves.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::{Kind, Program, bytes_of, path_of};
use crate::model::stamp::{Found, SECTOR, Stamp, fill, look};
use crate::model::{FileNum, Violation};

/// Three chunks of 64 KiB.
const SECTORS: u64 = 384;
const AT_ONCE: u64 = 16;
/// No recorded write has it.
const STAMP: Stamp = Stamp(u64::MAX);

/// Writes one, durably.
///
/// # Errors
/// The failing call's.
pub fn write_still(mount: &Path, file: FileNum) -> anyhow::Result<()> {
    let mut handle = File::create_new(path_of(mount, file))?;
    handle.write_all(&fill(STAMP, file, 0, SECTORS))?;
    Ok(handle.sync_all()?)
}

pub(super) fn run(mut program: Program) {
    while !program.shared.is_quiet() {
        one(&mut program);
        program.rest();
    }
}

fn one(program: &mut Program) {
    let at = usize::try_from(program.rng.below(program.files.len() as u64)).unwrap_or(0);
    let Some(file) = program.files.get(at).map(|file| file.num) else { return };
    let first = program.rng.below(SECTORS / AT_ONCE) * AT_ONCE;
    let path = path_of(&program.mount, file);
    let mut bytes = [0; SECTOR * 16];
    let what = format!("reads {file:?} at {first}, which nobody writes");
    let read = program.shared.call(program.actor, Kind::Still, what, || {
        let handle = File::open(path)?;
        fadvise(&handle, 0, None, Advice::DontNeed)?;
        handle.read_exact_at(&mut bytes, bytes_of(first))
    });
    let right = |(sector, bytes): (u64, &[u8])| look(bytes, file, sector) == Found::Stamp(STAMP);
    if read.is_ok() && !(first..).zip(bytes.chunks(SECTOR)).all(right) {
        let what = format!("{:?} read {file:?} at {first}: other bytes than were synced", program.actor);
        program.shared.record().violations.push(Violation::new("durable", None, what));
    }
}
