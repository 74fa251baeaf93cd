//! The master at a million files, on the real core with its real log, snapshots and start: bytes a file,
//! steps while a snapshot is written, a restart, and what single requests take.
//!
//! `cargo run --release -p dfs-master --example memory [FILES] [FILES_PER_DIRECTORY]`
//!
//! Each file has a 12-byte name, one chunk of three replicas, and times as a file has that was written
//! after it was made. Works in a temporary directory. Exits 1 when a promise is not kept: 160 bytes a
//! file, 3 s for a restart, 10 ms for a step while a snapshot is taken. A processor that other programs
//! use shows in the wall-clock times; the steps' own time is what the promise is held against.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "../../src/clock.rs"]
mod clock;
#[allow(dead_code, reason = "the binary's own, of which a measurement uses a part")]
#[path = "../../src/config.rs"]
mod config;
mod live;
mod meter;
mod servers;
#[allow(dead_code, reason = "the binary's own, of which a measurement uses a part")]
#[path = "../../src/start.rs"]
mod start;
mod work;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use clap::Parser;
use dfs_daemon::notify::Startup;
use dfs_master::core::sessions::KEPT_MAX;

use crate::config::{Cli, Command, Run};
use crate::live::{Live, Pause, Snapshots};
use crate::meter::{Cost, allocated, resident};
use crate::work::Work;

/// Bytes of state a file; the goal is 120.
const BYTES_MAX: usize = 160;
/// Seconds from the files on the disk to a core that can lead.
const RESTART_MAX_S: f64 = 3.0;
/// Milliseconds of a step while a snapshot is taken and written.
const STEP_MAX_MS: f64 = 10.0;

/// Requests of each kind that are timed after the files were made.
const TIMED: u64 = 100_000;

fn argument(at: usize, default: u64) -> u64 {
    std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

fn init(dir: &Path) -> anyhow::Result<Run> {
    let data = dir.display().to_string();
    let Command::Init(init) = Cli::parse_from(["dfs-master", "init", "--data", &data]).command else {
        bail!("init is init");
    };
    start::init(&init)?;
    match Cli::parse_from(["dfs-master", "run", "--data", &data]).command {
        Command::Run(run) => Ok(*run),
        Command::Init(_)
        | Command::Replay(_)
        | Command::Check(_)
        | Command::Rebuild(_)
        | Command::Restore(_)
        | Command::Backup(_) => {
            bail!("run is run")
        }
    }
}

/// Makes the files; gives what the requests cost.
fn fill(live: &mut Live, work: &mut Work, files: u64, before: (usize, usize)) -> Vec<(&'static str, Cost)> {
    let (mut create, mut commit, mut release, mut back) = <(Cost, Cost, Cost, Cost)>::default();
    let start = Instant::now();
    // The last write of a file comes a while after it was made.
    let lag = files.min(1000);
    for n in 0..files + lag {
        if n < files {
            let grant = work.create(live, &mut create, n);
            work.release(live, &mut release, n);
            work.give_back(live, &mut back, n, grant);
        }
        if n >= lag {
            work.commit(live, &mut commit, n - lag);
        }
    }
    live.end_snapshot();
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let secs = start.elapsed().as_secs_f64();
    let (each, resident) = ((allocated() - before.0) / files, resident().saturating_sub(before.1) / files);
    row("files", &format!("{files}, made in {secs:.0} s with {} snapshots on the way", live.due));
    row("whole core after that, bytes a file: allocated, resident", &format!("{each}, {resident}"));
    vec![("create", create), ("commit", commit), ("release", release), ("give a grant back", back)]
}

/// What an open file with a grant takes: it is nowhere but in memory.
fn opens(live: &mut Live, work: &Work, files: u64) -> Cost {
    let (mut open, mut other) = <(Cost, Cost)>::default();
    let count = TIMED.min(files);
    let before = allocated();
    let grants: Vec<_> = (0..count).map(|n| work.open(live, &mut open, n)).collect();
    let list = size_of_val(grants.as_slice());
    let bytes = allocated().saturating_sub(before + list) / usize::try_from(count).unwrap_or(usize::MAX);
    row("an open file with its grant, bytes", &format!("{bytes}"));
    for (n, grant) in (0..count).zip(grants) {
        work.release(live, &mut other, n);
        work.give_back(live, &mut other, n, grant);
    }
    open
}

fn requests(live: &mut Live, work: &mut Work, files: u64, mut costs: Vec<(&'static str, Cost)>) {
    costs.push(("open", opens(live, work, files)));
    let (mut lookup, mut unlink, mut other) = <(Cost, Cost, Cost)>::default();
    for _ in 0..TIMED {
        work.lookup(live, &mut lookup);
    }
    for n in 0..TIMED {
        let grant = work.create(live, &mut other, files + n);
        work.release(live, &mut other, files + n);
        work.give_back(live, &mut other, files + n, grant);
    }
    for n in (0..TIMED).rev() {
        work.unlink(live, &mut unlink, files + n);
    }
    costs.push(("lookup", lookup));
    costs.push(("unlink", unlink));
    for (name, cost) in costs {
        let (core, log) = cost.each();
        row(&format!("{name}, us in the core (and writing the log)"), &format!("{core:.2} ({log:.2})"));
    }
}

/// The steps while a snapshot is taken and written, and files are made, written and removed all over.
fn pause(live: &mut Live, work: &mut Work, files: u64) -> bool {
    let mut other = Cost::default();
    live.end_snapshot();
    let due = live.due;
    live.unacknowledged = KEPT_MAX / 2;
    let before = allocated();
    // The step that takes it is among those that count.
    while live.due == due {
        live.pause = Some(Pause::default());
        work.commit_any(live, &mut other);
    }
    meter::reset_peak();
    let start = Instant::now();
    while live.is_writing() {
        let grant = work.create(live, &mut other, files);
        work.release(live, &mut other, files);
        work.give_back(live, &mut other, files, grant);
        work.commit_any(live, &mut other);
        work.unlink(live, &mut other, files);
    }
    let secs = start.elapsed().as_secs_f64();
    let grown = meter::peak().saturating_sub(before) >> 20;
    let Some(Pause { mut wall, mut cpu }) = live.pause.take() else { return false };
    row("a snapshot's writing, s", &format!("{secs:.2}"));
    row("most memory on top meanwhile, MiB", &format!("{grown}"));
    let ((wall_999, wall_max), (cpu_999, cpu_max)) = (wall.tail(1000), cpu.tail(1000));
    row("steps meanwhile", &format!("{}", wall.count()));
    row("a step's own time, ms: p99.9 and longest", &format!("{cpu_999:.3} and {cpu_max:.3}"));
    row("by the wall clock, ms", &format!("{wall_999:.3} and {wall_max:.3}"));
    cpu_max <= STEP_MAX_MS && wall_999 <= STEP_MAX_MS
}

/// A crash just before the next snapshot, as far from the last as there can be. The state's hash.
fn crash(mut live: Live, work: &mut Work, files: u64, before: usize) -> (u64, bool) {
    let mut other = Cost::default();
    (live.snapshots, live.unacknowledged) = (Snapshots::Lose, 0);
    let due = live.due;
    let mut n = files;
    while live.due == due {
        let grant = work.create(&mut live, &mut other, n);
        work.release(&mut live, &mut other, n);
        work.give_back(&mut live, &mut other, n, grant);
        work.commit(&mut live, &mut other, n);
        n += 1;
    }
    live.unacknowledged = KEPT_MAX - 1;
    for _ in 0..KEPT_MAX {
        work.commit_any(&mut live, &mut other);
    }
    let snapshot_at = live.snapshot_at;
    let core = live.crash();
    let start = Instant::now();
    let state = core.state().clone();
    row("a clone of the state, ms", &format!("{:.3}", start.elapsed().as_secs_f64() * 1e3));
    drop(core);
    row("log behind the snapshot, records", &format!("{}", state.applied.0 - snapshot_at.0));
    let (hash, count) = (state.hash(), state.ns.counts().inodes);
    assert!(state.chunks.len() >= n, "every file has its chunk");
    let all = allocated().saturating_sub(before);
    let sessions = state.sessions.clone();
    drop(state);
    let kept = allocated().saturating_sub(before);
    drop(sessions);
    let rest = allocated().saturating_sub(before);
    let each = (all - kept) / usize::try_from(count).unwrap_or(usize::MAX);
    row("inodes at the crash", &format!("{count}"));
    row("state, bytes a file (bar 160)", &format!("{each}"));
    row("kept answers of a session that acknowledges none, bytes", &format!("{}", kept - rest));
    (hash, each <= BYTES_MAX)
}

/// Makes the kernel forget what it has read of the files.
fn make_cold(dir: &Path) -> anyhow::Result<()> {
    for name in ["log", "snapshot"] {
        for entry in std::fs::read_dir(dir.join(name))? {
            let file = std::fs::File::open(entry?.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn restart(run: &Run, hash: u64) -> anyhow::Result<bool> {
    make_cold(&run.data)?;
    meter::reset_peak();
    let before = allocated();
    let start = Instant::now();
    let started = start::recover(run, &Startup::silent())?;
    let recovered = start.elapsed().as_secs_f64();
    let (peak, held) = ((meter::peak() - before) >> 20, (allocated() - before) >> 20);
    assert_eq!(started.core.state().hash(), hash, "a restart changes nothing");
    let start = Instant::now();
    let mut live = Live::new(started);
    let leads = recovered + start.elapsed().as_secs_f64();
    row("restart from a cold disk, s (bar 3): recovered, leading", &format!("{recovered:.2}, {leads:.2}"));
    row("memory after it and at its height, MiB", &format!("{held}, {peak}"));
    come_back(&mut live, before);
    Ok(leads <= RESTART_MAX_S)
}

/// The servers tell what they hold: how the master learns again what is not in its log.
fn come_back(live: &mut Live, before: usize) {
    meter::reset_peak();
    let start = Instant::now();
    let mut steps = live.come_back();
    let secs = start.elapsed().as_secs_f64();
    let chunks = usize::try_from(live.core.state().chunks.len()).unwrap_or(usize::MAX);
    let (each, peak) = ((allocated() - before) / chunks, (meter::peak() - before) >> 20);
    row("three servers' inventories, s", &format!("{secs:.2}"));
    row("whole core after that, bytes a file; at its height, MiB", &format!("{each}; {peak}"));
    let (_, longest) = steps.tail(1000);
    row("longest part of an inventory, of 4096 replicas, ms", &format!("{longest:.1}"));
}

fn main() -> anyhow::Result<ExitCode> {
    let (files, per_dir) = (argument(1, 1_000_000).max(1), argument(2, 1000).max(1));
    let dir = tempfile::tempdir()?;
    let run = init(dir.path())?;
    let mut work = Work::new(files, per_dir);
    let before = allocated();
    let mut live = Live::new(start::recover(&run, &Startup::silent())?);
    live.populate();
    println!("| what | figure |\n|---|---|");
    let costs = fill(&mut live, &mut work, files, (before, resident()));
    requests(&mut live, &mut work, files, costs);
    let short = pause(&mut live, &mut work, files);
    let (hash, small) = crash(live, &mut work, files, before);
    let fast = restart(&run, hash)?;
    for (kept, promise) in [(small, "160 bytes a file"), (short, "10 ms a step"), (fast, "3 s a restart")] {
        if !kept {
            eprintln!("not kept: {promise}");
        }
    }
    Ok(if small && short && fast { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
