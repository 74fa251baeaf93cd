//! `dfs-master check`: whether the state that a directory's snapshot and log come to is whole. It reads what a
//! start would read, and writes nothing.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use dfs_daemon::notify::Startup;
use dfs_disk::Disk;
use dfs_disk::read_only::ReadOnly;
use dfs_disk::real::RealDisk;
use dfs_master::core::check::Checker;
use dfs_master::core::{Core, CoreConfig};
use dfs_proto::meta::{Finding, FindingKind};
use dfs_proto::words::in_words;

use crate::clock;
use crate::config::Check;
use crate::start::{Read, read};

const FOUND: u8 = 1;
const UNCHECKED: u8 = 2;

/// Entries looked at in one go; nobody waits.
const SLICE: usize = 1 << 20;

pub(crate) fn run(check: &Check) -> ExitCode {
    match look(check) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FOUND),
        Err(error) => {
            eprintln!("dfs-master: {}", in_words(error.as_ref()));
            ExitCode::from(UNCHECKED)
        }
    }
}

/// Whether there is no finding.
fn look(check: &Check) -> anyhow::Result<bool> {
    let at = check.data.display();
    if !check.data.join("cluster.json").is_file() {
        bail!("{at} is no master's directory: it has no cluster.json");
    }
    let disk = RealDisk::new(&check.data).with_context(|| format!("{at}"))?;
    let mut checker = checked(&check.data, &disk)?;
    let (found, more) = checker.take(usize::MAX);
    print(check, &checker, &found, more)?;
    Ok(found.is_empty() && more == 0)
}

/// A check of a directory that is through.
fn checked(dir: &Path, disk: &RealDisk) -> anyhow::Result<Checker> {
    check_all(read(dir, &ReadOnly(disk.clone()), &Startup::silent())?)
}

/// The check of what a log comes to.
pub(crate) fn check_all<D: Disk>(read: Read<D>) -> anyhow::Result<Checker> {
    let Read { log, state } = read;
    let identity = *log.identity();
    let config = CoreConfig { generation: identity.generation, ..CoreConfig::new(identity.cluster) };
    let core = Core::new(config, state, clock::now())?;
    let mut checker = Checker::new(core.state().clone());
    while !checker.step(SLICE) {}
    Ok(checker)
}

/// How many findings there are in a directory, chunks below their goal left out.
pub(crate) fn findings(dir: &Path, disk: &RealDisk) -> anyhow::Result<u64> {
    Ok(defects(&mut checked(dir, disk)?))
}

/// How many findings a check that is through has, chunks below their goal left out.
pub(crate) fn defects(checker: &mut Checker) -> u64 {
    let (found, more) = checker.take(usize::MAX);
    let defects = found.iter().filter(|finding| finding.kind != FindingKind::BelowGoal).count();
    defects as u64 + more
}

fn print(check: &Check, checker: &Checker, found: &[Finding], more: u64) -> anyhow::Result<()> {
    let looked = checker.looked();
    if check.json {
        let report = serde_json::json!({
            "index": checker.index(),
            "looked": looked,
            "found": found.iter().map(|finding| serde_json::json!({
                "kind": finding.kind.name(),
                "object": finding.object,
                "what": finding.what,
                "advice": finding.kind.advice(),
            })).collect::<Vec<_>>(),
            "more": more,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    found.iter().for_each(|finding| println!("{finding}"));
    let (count, at) = (found.len() as u64 + more, checker.index());
    let looked = format!("{} inodes, {} chunks, as of record {at}", looked.inodes, looked.chunks);
    match count {
        0 => println!("clean: {looked}"),
        _ => println!("{count} findings: {looked}"),
    }
    Ok(())
}
