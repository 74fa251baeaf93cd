//! `dfs rebuild-namespace`: a new master's directory out of the headers on chunk servers' disks. The chunk server's
//! binary reads the disks, the master's writes the directory; this joins the two.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use dfs_proto::words::in_words;

use crate::connect::Target;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of a disk of a stopped chunk server; give all disks of all servers
    #[arg(long = "disk", value_name = "DIR", required = true)]
    disks: Vec<PathBuf>,
    /// The new master's directory, which must not be there yet or be empty. Without it, only tell what would come of it
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Write nothing, even with --to
    #[arg(long)]
    dry_run: bool,
    /// Go on although some chunks have fewer replicas on these disks than they had members: what the missing ones
    /// alone hold is then given up
    #[arg(long)]
    accept_missing_replicas: bool,
    /// Replicas that files should have; else as most chunks have
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// Bytes of a chunk, for a cluster none of whose headers tells it
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u32>,
}

pub(crate) fn run(target: &Target, args: &Args) -> ExitCode {
    match rebuild(target, args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dfs: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn rebuild(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let (reader, writer) = (crate::dev::find("dfs-chunkserver")?, crate::dev::find("dfs-master")?);
    let mut headers = Command::new(&reader);
    headers.arg("headers").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for disk in &args.disks {
        headers.arg("--disk").arg(disk);
    }
    let mut headers = headers.spawn().with_context(|| format!("cannot start {}", reader.display()))?;
    let listing = headers.stdout.take().context("no pipe to read the headers from")?;
    let made = master(target, args, &writer).stdin(Stdio::from(listing)).stderr(Stdio::piped()).spawn();
    let made = made.and_then(std::process::Child::wait_with_output);
    let read = headers.wait_with_output().with_context(|| format!("{}", reader.display()))?;
    let made = made.with_context(|| format!("cannot start {}", writer.display()))?;
    // When the disks can't be read, that the listing ends early is no news.
    let said = if read.stderr.is_empty() { &made.stderr } else { &read.stderr };
    std::io::stderr().write_all(said)?;
    match (read.status.success(), made.status.code().and_then(|code| u8::try_from(code).ok())) {
        (true, Some(code)) => Ok(ExitCode::from(code)),
        (true, None) => bail!("{} ended by {}", writer.display(), made.status),
        (false, _) => Ok(ExitCode::FAILURE),
    }
}

fn master(target: &Target, args: &Args, binary: &std::path::Path) -> Command {
    let mut master = Command::new(binary);
    master.arg("rebuild");
    if let Some(dir) = args.to.as_ref().filter(|_| !args.dry_run) {
        master.arg("--data").arg(dir);
    }
    if args.accept_missing_replicas {
        master.arg("--accept-missing-replicas");
    }
    if let Some(replicas) = args.replicas {
        master.arg("--replicas").arg(replicas.to_string());
    }
    if let Some(bytes) = args.chunk_size {
        master.arg("--chunk-size").arg(bytes.to_string());
    }
    if target.json {
        master.arg("--json");
    }
    master
}
