//! The oracles Linear and Durable: every sector is a register, and a read must return a write that was not
//! overwritten, by one that had taken effect, before the read began.
//!
//! When a write has certainly taken effect: from its return, if it was through or a later flush succeeded;
//! from the end of another mount's read that saw it. A loss that the fault model allows takes that
//! certainty back for what was not synced, until it is seen again. What failed or never returned may take
//! effect at any time, or never.
//!
//! A read counts for nothing if its mount had written behind that place and then lost that: the file was as long
//! as that for this mount alone, and what lay there is beyond the end again.
//!
//! One thing is let pass: a write under way while its bytes are cut off by a truncation may be seen, be gone,
//! and be seen again before it returns, because the writer can't tell on which side of the cut it was. The same of
//! one that began when its mount had not heard of another's truncation yet: it goes to the old bytes first. A write of
//! zeros is ordered like any write, and nothing of this holds for it.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Flush, FlushKind, History, Kind, Loss, Outcome, Read, Returned, Write};
use super::stamp::{Found, Stamp};
use super::{FileNum, Tick, Violation};

/// A write with what the whole history says of it.
#[derive(Debug)]
struct Judged<'a> {
    write: &'a Write,
    /// From when it certainly stands, if nothing is lost.
    settled: Option<Tick>,
    /// What made it so returned here: a tail lost behind it takes it back.
    settled_by: Tick,
    /// From here on no loss touches it.
    synced: Option<Tick>,
    /// Losses that may have taken it, in order.
    losses: Vec<Tick>,
    /// When it may have taken effect once more: up to its return, if all members of a config may have
    /// forgotten meanwhile that it was done (the documented limit of I23).
    again: Option<Tick>,
}

/// Checks every read of the history. `min_write` is how many servers have every acknowledged write.
#[must_use]
pub fn check(history: &History, min_write: usize) -> Vec<Violation> {
    let mut found = Vec::new();
    let files: BTreeSet<FileNum> = history.reads.iter().map(|read| read.file).collect();
    for file in files {
        let writes = judge(history, file, min_write);
        let reads: Vec<&Read> = history.reads.iter().filter(|read| read.file == file).collect();
        let end = reads.iter().map(|read| read.first + read.found.len() as u64).max().unwrap_or(0);
        for sector in 0..end {
            Register::new(history, sector, &writes, &reads).check(&mut found);
        }
    }
    found
}

fn judge<'a>(history: &'a History, file: FileNum, min_write: usize) -> Vec<Judged<'a>> {
    let writes = history.writes.iter().filter(|write| write.file == file);
    let judged = writes.map(|write| {
        let (settled, settled_by) = settled(history, write);
        let losses = losses(&history.losses, write, settled_by, min_write);
        let again = again(&history.losses, write, min_write);
        let by_others = settled.and_then(|_| synced_by_others(history, write, settled_by, &losses));
        let synced = synced(history, write).into_iter().chain(by_others).min();
        Judged { write, settled, settled_by, synced, losses, again }
    });
    judged.collect()
}

/// When a write returned for good, and what made it so.
fn settled(history: &History, write: &Write) -> (Option<Tick>, Tick) {
    let never = (None, Tick(u64::MAX));
    let Some(returned) = write.returned else { return never };
    if returned.outcome == Outcome::Failed {
        return never;
    }
    if write.through {
        return (Some(returned.at), returned.at);
    }
    let failed = first_failure_after(history, write, returned.at);
    let flushes = history.flushes.iter().filter(|flush| same(flush.actor, flush.file, write));
    let done = flushes.filter(|flush| flush.invoke > returned.at);
    let done = done.filter_map(|flush| flush.returned.filter(|end| end.outcome == Outcome::Done));
    match done.map(|end| end.at).min() {
        Some(at) if failed.is_none_or(|failed| failed > at) => (Some(returned.at), at),
        Some(_) | None => never,
    }
}

fn same(actor: super::Actor, file: FileNum, write: &Write) -> bool {
    actor == write.actor && file == write.file
}

/// A failed write, truncation or flush reports that what was buffered before it may be gone.
fn first_failure_after(history: &History, write: &Write, after: Tick) -> Option<Tick> {
    let flushes = history.flushes.iter().filter(|flush| same(flush.actor, flush.file, write));
    let writes = history.writes.iter().filter(|other| same(other.actor, other.file, write));
    let ends = flushes.map(|flush| flush.returned).chain(writes.map(|write| write.returned));
    let failed = ends.flatten().filter(|end| end.outcome == Outcome::Failed && end.at > after);
    failed.map(|end| end.at).min()
}

/// The end of the first successful fsync that began after the write returned, if nothing was reported in
/// between that may be its loss.
fn synced(history: &History, write: &Write) -> Option<Tick> {
    let returned = write.returned.filter(|end| end.outcome == Outcome::Done)?;
    let done = |flush: &&Flush| flush.returned.is_some_and(|end| end.outcome == Outcome::Done);
    let syncs = history.flushes.iter().filter(|flush| flush.kind == FlushKind::Fsync);
    let syncs = syncs.filter(|flush| same(flush.actor, flush.file, write) && flush.invoke > returned.at);
    let first = syncs.filter(done).min_by_key(|flush| flush.returned.map(|end| end.at))?;
    let at = first.returned?.at;
    // What was through is not buffered: only an fsync can find that it is lost.
    let failed = if write.through {
        first_failed_fsync_after(history, write, returned.at)
    } else {
        first_failure_after(history, write, returned.at)
    };
    let reported = failed.is_some_and(|failed| failed < at)
        || reported_elsewhere(history, write, returned.at, first.invoke);
    (!reported).then_some(at)
}

/// The end of another mount's first successful fsync that began when the write stood on all members, if nothing can
/// have taken it from them before that end (F3).
fn synced_by_others(history: &History, write: &Write, settled_by: Tick, losses: &[Tick]) -> Option<Tick> {
    let syncs = history.flushes.iter().filter(|flush| flush.kind == FlushKind::Fsync);
    let others = syncs.filter(|flush| flush.file == write.file && flush.actor.client != write.actor.client);
    let done = others.filter(|flush| flush.invoke > settled_by).filter_map(|flush| flush.returned);
    let at = done.filter(|end| end.outcome == Outcome::Done).map(|end| end.at).min()?;
    // Also one under the write: its answer may have been on its way.
    losses.iter().all(|loss| *loss > at).then_some(at)
}

fn first_failed_fsync_after(history: &History, write: &Write, after: Tick) -> Option<Tick> {
    let syncs = history.flushes.iter().filter(|flush| flush.kind == FlushKind::Fsync);
    let ends = syncs.filter(|flush| same(flush.actor, flush.file, write)).filter_map(|flush| flush.returned);
    ends.filter(|end| end.outcome == Outcome::Failed && end.at > after).map(|end| end.at).min()
}

/// Whether the descriptor that was synced at `sync` was opened only after the mount had reported a failure
/// on another one. Every descriptor that is open reports a loss once; one opened later need not (F4).
fn reported_elsewhere(history: &History, write: &Write, after: Tick, sync: Tick) -> bool {
    let opens = history.opens.iter().filter(|open| same(open.actor, open.file, write) && open.at < sync);
    let Some(opened) = opens.map(|open| open.at).max() else { return false };
    let mine = |client: u16, file: FileNum| client == write.actor.client && file == write.file;
    let flushes = history.flushes.iter().filter(|flush| mine(flush.actor.client, flush.file));
    let writes = history.writes.iter().filter(|other| mine(other.actor.client, other.file));
    let ends = flushes.map(|flush| flush.returned).chain(writes.map(|write| write.returned));
    ends.flatten().any(|end| end.outcome == Outcome::Failed && after < end.at && end.at < opened)
}

fn losses(losses: &[Loss], write: &Write, settled_by: Tick, min_write: usize) -> Vec<Tick> {
    let mut servers = BTreeSet::new();
    let mut ticks = Vec::new();
    for loss in losses.iter().filter(|loss| loss.at() > write.invoke) {
        match loss {
            Loss::Server { server, at } => {
                servers.insert(*server);
                if servers.len() >= min_write {
                    ticks.push(*at);
                }
            }
            Loss::Tail { since, at } if settled_by > *since => ticks.push(*at),
            Loss::Process { .. } | Loss::Tail { .. } => {}
        }
    }
    ticks
}

/// The end of a write under which so many servers' processes ended that nobody may know that it was done.
fn again(losses: &[Loss], write: &Write, min_write: usize) -> Option<Tick> {
    let end = write.returned.map_or(Tick(u64::MAX), |end| end.at);
    let ended = losses.iter().filter_map(|loss| match loss {
        Loss::Process { server, at } if write.invoke < *at && *at < end => Some(*server),
        Loss::Process { .. } | Loss::Server { .. } | Loss::Tail { .. } => None,
    });
    (ended.collect::<BTreeSet<u16>>().len() >= min_write).then_some(end)
}

/// Whether `cut` truncated while `write` was under way, and `at` is before that had returned.
fn cut_meanwhile(write: &Write, cut: &Write, at: Tick) -> bool {
    let end = |write: &Write| write.returned.map_or(Tick(u64::MAX), |end| end.at);
    cut.kind == Kind::Cut && at < end(write) && cut.invoke < end(write) && end(cut) > write.invoke
}

/// Whether another mount has truncated before `write` began, `at` is before the write's return, and its own mount had
/// no answer about the file in between.
fn cut_unheard(history: &History, write: &Write, cut: &Write, at: Tick) -> bool {
    let end = |returned: Option<Returned>| returned.map_or(Tick(u64::MAX), |end| end.at);
    let since = end(cut.returned);
    if cut.kind != Kind::Cut
        || cut.actor.client == write.actor.client
        || since > write.invoke
        || at > end(write.returned)
    {
        return false;
    }
    let hears = |client: u16, file: FileNum, from: Tick, to: Tick| {
        client == write.actor.client && file == write.file && from > since && to < write.invoke
    };
    let reads = history.reads.iter();
    let writes = history.writes.iter();
    !reads.filter(|read| !read.cached).any(|r| hears(r.actor.client, r.file, r.invoke, r.at))
        && !writes.filter(|w| w.through).any(|w| hears(w.actor.client, w.file, w.invoke, end(w.returned)))
}

/// One sector with everything that touched it.
struct Register<'a> {
    sector: u64,
    writes: Vec<&'a Judged<'a>>,
    reads: Vec<(&'a Read, Found)>,
    /// Other mounts' reads that saw a write: since when they may have had the bytes, and their end.
    seen: BTreeMap<Stamp, Vec<(Tick, Tick)>>,
}

impl<'a> Register<'a> {
    fn new(history: &History, sector: u64, writes: &'a [Judged<'a>], reads: &[&'a Read]) -> Register<'a> {
        let covers = |judged: &&Judged<'_>| (judged.write.first..judged.write.end).contains(&sector);
        let lost_reach = |read: &Read| {
            let lost = writes.iter().filter(|judged| judged.settled.is_none()).map(|judged| judged.write);
            lost.filter(|write| write.end > sector && write.invoke < read.at)
                .any(|write| write.actor.client == read.actor.client && write.stamp != Stamp::ZERO)
        };
        let writes: Vec<&Judged<'_>> = writes.iter().filter(covers).collect();
        let value = |read: &&'a Read| {
            let at = usize::try_from(sector.checked_sub(read.first)?).ok()?;
            read.found.get(at).map(|found| (*read, *found))
        };
        let reads: Vec<(&Read, Found)> = reads.iter().filter_map(value).collect();
        let mut seen: BTreeMap<Stamp, Vec<(Tick, Tick)>> = BTreeMap::new();
        for (read, found) in &reads {
            if let Found::Stamp(stamp) = found
                && *stamp != Stamp::ZERO
                && let Some(w) = writes.iter().find(|w| w.write.stamp == *stamp)
                && w.write.actor.client != read.actor.client
                && !lost_reach(read)
                && !writes.iter().any(|cut| {
                    cut_meanwhile(w.write, cut.write, read.at)
                        || cut_unheard(history, w.write, cut.write, read.at)
                })
            {
                seen.entry(*stamp).or_default().push((history.fetched_since(read), read.at));
            }
        }
        Register { sector, writes, reads, seen }
    }

    fn check(&self, out: &mut Vec<Violation>) {
        for (read, found) in &self.reads {
            if let Some(why) = self.judge(read, *found) {
                let (file, sector) = (read.file.0, self.sector);
                let what = format!("read of file {file} sector {sector} by {:?}: {why}", read.actor);
                out.push(Violation::new("linear", Some(read.at), what));
            }
        }
    }

    /// What is wrong with what the read found.
    fn judge(&self, read: &Read, found: Found) -> Option<String> {
        let stamp = match found {
            Found::Garbage => return Some("bytes that were never written".to_owned()),
            Found::Stamp(stamp) => stamp,
        };
        let candidates: Vec<&&Judged<'_>> =
            self.writes.iter().filter(|w| w.write.stamp == stamp && w.write.invoke < read.at).collect();
        if stamp == Stamp::ZERO && self.over(read, Tick(0)).is_none() {
            return None;
        }
        if stamp != Stamp::ZERO && candidates.is_empty() {
            return Some(format!("{stamp:?} was not written yet"));
        }
        let stands = |w: &&&&Judged<'a>| self.over(read, self.stands_from(w, read)).is_none();
        if let Some(w) = candidates.iter().find(stands) {
            return self.buried(w, read);
        }
        if candidates.iter().filter_map(|w| w.again).any(|end| self.over(read, end).is_none()) {
            return None;
        }
        let last = candidates.iter().map(|w| self.stands_from(w, read)).max().unwrap_or(Tick(0));
        let newer = self.over(read, last)?;
        let kind = if newer.synced.is_some_and(|at| at < read.invoke) { "fsynced" } else { "acknowledged" };
        Some(format!(
            "{stamp:?} is older than {:?} of {:?} (begun {}, {kind} {}, settled by {}), read began {} ended {}",
            newer.write.stamp,
            newer.write.actor,
            newer.write.invoke.0,
            self.stands_from(newer, read).0,
            newer.settled_by.0,
            read.invoke.0,
            read.at.0
        ))
    }

    /// What is wrong with a read of `w`, if an earlier read that began when `w` stood had found something else: then
    /// that came after `w`, though the two were under way together, and `w` can't come back.
    fn buried(&self, w: &Judged<'_>, read: &Read) -> Option<String> {
        if w.write.stamp == Stamp::ZERO || w.again.is_some() {
            return None;
        }
        let from = self.stands_from(w, read);
        let lost = |other: &Judged<'_>| other.losses.iter().any(|loss| *loss < read.at);
        // What a mount buffers is shown to itself before it takes effect, and may be lost with it.
        let effective = |by: &Read, found: Found| match found {
            Found::Garbage => false,
            Found::Stamp(stamp) => {
                let mut writes = self.writes.iter().filter(|other| other.write.stamp == stamp);
                writes.all(|other| {
                    let own = other.write.actor.client == by.actor.client && stamp != Stamp::ZERO;
                    !own && !lost(other) && other.again.is_none()
                })
            }
        };
        let earlier = self.reads.iter().find(|(by, found)| {
            by.invoke > from
                && by.at < read.invoke
                && *found != Found::Stamp(w.write.stamp)
                && effective(by, *found)
        });
        let (by, found) = earlier?;
        Some(format!(
            "{:?} is back, which stood from {} on: the read from {} to {} by {:?} had found {found:?}",
            w.write.stamp, from.0, by.invoke.0, by.at.0, by.actor
        ))
    }

    /// A write that began after `at` and certainly stood before the read began.
    fn over(&self, read: &Read, at: Tick) -> Option<&Judged<'a>> {
        let over = |w: &&&Judged<'_>| w.write.invoke > at && self.stands_from(w, read) < read.invoke;
        self.writes.iter().find(over).copied()
    }

    /// From when the write certainly stands, as seen by `read`; the last tick if that is not certain.
    fn stands_from(&self, judged: &Judged<'_>, read: &Read) -> Tick {
        if let (Some(synced), Some(settled)) = (judged.synced, judged.settled)
            && synced < read.invoke
        {
            return settled;
        }
        let lost = judged.losses.iter().rev().find(|loss| **loss < read.at).copied();
        // A read that was under way at the loss, or out of a cache, may have had its bytes from before: it shows
        // nothing of what is left.
        let after = |(since, _): &&(Tick, Tick)| lost.is_none_or(|lost| *since > lost);
        let seen =
            self.seen.get(&judged.write.stamp).into_iter().flatten().filter(after).map(|(_, end)| *end);
        // A loss while it was under way may have come after the servers' acknowledgement and before the call's
        // return: an answer on its way knows nothing of a power cut behind it.
        let settled = judged.settled.filter(|_| lost.is_none());
        settled.into_iter().chain(seen).min().unwrap_or(Tick(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
