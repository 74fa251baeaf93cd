//! A look at everything that programs wrote, through a mount that knows nothing from before: it is made durable,
//! read, judged by the models, and what was found is where the next record begins.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use super::work::{Shared, look_up_all, read_whole};
use super::{clock, threads};
use crate::model::history::{Flush, FlushKind, History, Outcome};
use crate::model::names::Directory;
use crate::model::register;
use crate::model::stamp::SECTOR;
use crate::model::{Actor, FileNum};

/// Who looks. No program has this number.
const EYES: Actor = Actor { client: u16::MAX, stream: 0 };

/// What is to be looked at, and by which rules.
#[derive(Clone, Debug)]
pub struct Look {
    pub files: Vec<FileNum>,
    /// How many servers have every acknowledged write.
    pub min_write: usize,
    /// Reading everything takes at most this.
    pub limit: Duration,
}

/// What there was.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What the programs saw and what was found now against the models.
    pub violations: Vec<String>,
    pub operations: u64,
    /// fsyncs that were acknowledged.
    pub synced: u64,
    /// Bytes that were read just now.
    pub bytes: u64,
    /// All that happened, if something is wrong with it.
    pub story: Option<String>,
}

/// What a call of the cluster's gives, if that is in time. Else its thread is left: it ends when the mounts go.
///
/// # Errors
/// The call's, or that it took too long.
pub fn in_time<T: Send + 'static>(
    what: &str,
    limit: Duration,
    call: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let thread = threads::spawn("eyes".to_owned(), call)?;
    if clock::poll(limit, || Ok(thread.is_finished().then_some(())))?.is_none() {
        bail!("not within {limit:?}: {what}");
    }
    let result = thread.join().map_err(|_| anyhow!("{what}: panicked"))?;
    result.with_context(|| what.to_owned())
}

impl Seen {
    /// Leaves the story beside what else is kept of a run that failed.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn leave_story(&self, dir: &Path) -> anyhow::Result<()> {
        if let Some(story) = &self.story {
            File::create(dir.join("story"))?.write_all(story.as_bytes())?;
        }
        Ok(())
    }
}

/// Looks. No program may be running.
///
/// # Errors
/// When something can't be synced or read in time.
pub fn look(shared: &Arc<Shared>, mount: &Path, look: &Look) -> anyhow::Result<Seen> {
    let files = look.files.clone();
    let owners: Vec<Actor> = shared.record().directories.keys().copied().collect();
    let (theirs, mount) = (Arc::clone(shared), mount.to_owned());
    let (found, held) = in_time("everything is read", look.limit, move || {
        let mut found = Vec::new();
        for file in files {
            let read = read_whole(&theirs, EYES, &mount, file);
            found.push((file, read.with_context(|| format!("{file:?}"))?));
        }
        let mut held = Vec::new();
        for owner in owners {
            held.push((owner, look_up_all(&theirs, EYES, &mount, owner)?));
        }
        Ok((found, held))
    })?;
    let mut record = shared.record();
    let mut wrong = std::mem::take(&mut record.violations);
    wrong.extend(register::check(&record.history, look.min_write));
    let sectors: usize = found.iter().map(|(_, found)| found.len()).sum();
    let seen = Seen {
        violations: wrong.iter().map(ToString::to_string).collect(),
        operations: std::mem::take(&mut record.operations),
        synced: synced(&record.history),
        bytes: (sectors * SECTOR) as u64,
        story: (!wrong.is_empty()).then(|| record.history.story()),
    };
    record.history = record.history.continued(EYES, &found);
    record.directories = held.into_iter().map(|(owner, names)| (owner, Directory::holding(names))).collect();
    Ok(seen)
}

fn synced(history: &History) -> u64 {
    let done = |flush: &&Flush| {
        flush.kind == FlushKind::Fsync && flush.returned.is_some_and(|end| end.outcome == Outcome::Done)
    };
    history.flushes.iter().filter(done).count() as u64
}
