//! `dfs fsck`: whether the master's state is whole, and whether servers have what it says. It changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dfs_proto::ids::{ChunkId, LogIndex};
use dfs_proto::meta::{Finding, FindingKind, Fsck, FsckServer, Looked, ServerList, ServerReport};

use crate::connect::{Line, Target};
use crate::offline::run_master;
use crate::output::{Tone, Waiting, colour, ended, paint};

/// No finding, and everything was looked at.
const CLEAN: u8 = 0;
const FOUND: u8 = 1;
/// No finding, and something could not be looked at. A failed command ends so, too.
const UNCHECKED: u8 = 2;

/// What a server is told of a change takes a heartbeat at most; a finding that is there in each of these looks is
/// not one that comes and goes with the work under way.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what is looked at
    #[arg(long)]
    verbose: bool,
    /// Check the log and snapshot of a master that does not run, in this directory. Nothing in it is changed
    #[arg(long, value_name = "DIR")]
    master_dir: Option<PathBuf>,
}

/// What came of a check.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    /// The last record of the state that was checked.
    index: LogIndex,
    looked: Looked,
    found: Vec<Found>,
    /// Findings beyond those that are listed.
    more: u64,
    /// What could not be looked at, and why.
    unchecked: Vec<String>,
}

#[derive(Debug, serde::Serialize)]
struct Found {
    kind: &'static str,
    object: String,
    what: String,
    advice: &'static str,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Found {
        let Finding { kind, object, what } = finding;
        Found { kind: kind.name(), object, what, advice: kind.advice() }
    }
}

pub(crate) fn run(target: &Target, args: &Args) -> ExitCode {
    let checked = match &args.master_dir {
        Some(dir) => offline(target, dir),
        None => online(target, args.verbose),
    };
    ended(checked, ExitCode::from(UNCHECKED))
}

/// The master's own binary reads its log.
fn offline(target: &Target, dir: &std::path::Path) -> anyhow::Result<ExitCode> {
    run_master(target, |master| {
        master.arg("check").arg("--data").arg(dir);
        Ok(())
    })
}

fn online(target: &Target, verbose: bool) -> anyhow::Result<ExitCode> {
    let line = target.line(None)?;
    let mut report = Report::default();
    state(&line, verbose, &mut report)?;
    servers(&line, verbose, &mut report)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show(&report);
    }
    Ok(ExitCode::from(match report {
        Report { found, more, .. } if !found.is_empty() || more > 0 => FOUND,
        Report { unchecked, .. } if !unchecked.is_empty() => UNCHECKED,
        Report { .. } => CLEAN,
    }))
}

/// The master's state.
fn state(line: &Line, verbose: bool, report: &mut Report) -> anyhow::Result<()> {
    let _waiting = Waiting::show("checking the master's state");
    let mut begin = true;
    loop {
        let part = line.ask(&Fsck { begin })?;
        begin = false;
        (report.index, report.looked) = (part.index, part.looked);
        report.more += part.more;
        report.found.extend(part.found.into_iter().map(Found::from));
        if part.done {
            break;
        }
    }
    if verbose {
        let Looked { inodes, directories, names, chunks, tombstones, sessions, servers, .. } = report.looked;
        eprintln!(
            "record {}: {inodes} inodes, {names} names in {directories} directories, {chunks} chunks, {tombstones} \
             tombstones, {sessions} sessions, {servers} servers",
            report.index
        );
    }
    Ok(())
}

/// What servers have.
fn servers(line: &Line, verbose: bool, report: &mut Report) -> anyhow::Result<()> {
    for server in line.ask(&ServerList {})?.servers {
        let who = format!("server {} ({}, {})", server.addr.num, server.name, server.addr.tcp);
        let _waiting = Waiting::show(&format!("checking {who}"));
        if !server.up && server.replicas == 0 {
            continue;
        }
        match one_server(line, &server, report) {
            Ok(replicas) if verbose => eprintln!("{who}: {replicas} replicas"),
            Ok(_) => {}
            Err(error) => report.unchecked.push(format!(
                "{who}: {error:#}; {} replicas of the map were not looked at: start it, and check again",
                server.replicas
            )),
        }
    }
    Ok(())
}

fn one_server(line: &Line, server: &ServerReport, report: &mut Report) -> anyhow::Result<u64> {
    let num = server.addr.num;
    let (mut from, mut replicas) = (Some(ChunkId(0)), 0);
    while let Some(at) = from {
        let part = line.ask(&FsckServer { server: num, from: at })?;
        let mut found = part.found;
        for _ in 1..LOOKS {
            if found.is_empty() {
                break;
            }
            std::thread::sleep(BETWEEN_LOOKS);
            let again = line.ask(&FsckServer { server: num, from: at })?.found;
            found.retain(|finding| again.contains(finding));
        }
        report.found.extend(found.into_iter().map(Found::from));
        replicas += part.replicas;
        from = part.next;
    }
    report.looked.replicas += replicas;
    Ok(replicas)
}

fn show(report: &Report) {
    let colour = colour();
    for Found { kind, object, what, advice } in &report.found {
        println!("{}: {object}: {what}: {advice}", paint(kind, Tone::Bad, colour));
    }
    for what in &report.unchecked {
        println!("{}: {what}", paint("not checked", Tone::Bad, colour));
    }
    let Report { found, more, looked, .. } = report;
    let looked = format!("{} inodes, {} chunks, {} replicas", looked.inodes, looked.chunks, looked.replicas);
    let below = found.iter().filter(|found| found.kind == FindingKind::BelowGoal.name()).count();
    match (found.len() as u64 + more, report.unchecked.is_empty()) {
        (0, true) => println!("clean: {looked}"),
        (0, false) => println!("no finding, and not all was looked at: {looked}"),
        (count, _) => println!("{count} findings, {below} of them chunks below their goal: {looked}"),
    }
}
