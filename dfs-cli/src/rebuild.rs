//! `dfs rebuild-namespace`: a new master's directory out of the headers on chunk servers' disks. The chunk server's
//! binary reads the disks of stopped servers, running ones are asked, the master's binary writes the directory; this joins
//! them.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::connect::Target;
use crate::output::ended;
use crate::{offline, online};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of a disk of a stopped chunk server; give all disks of all servers
    #[arg(long = "disk", value_name = "DIR", required_unless_present = "servers")]
    disks: Vec<PathBuf>,
    /// A chunk server that runs and has lost its master; give all that are not given by their disks
    #[arg(long = "server", value_name = "HOST:PORT")]
    servers: Vec<String>,
    /// The new master's directory, which must not be there yet or be empty. Without it, only tell what would come of it
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Write nothing, even with --to
    #[arg(long)]
    dry_run: bool,
    /// Go on although a server does not answer, or some chunks have fewer replicas on these disks than they had members:
    /// what the missing ones alone hold is then given up
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
    ended(rebuild(target, args), ExitCode::FAILURE)
}

fn rebuild(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let writer = crate::dev::find("dfs-master")?;
    let copies = offline::copies_on(&args.disks);
    if copies > 0 && !target.json {
        println!(
            "note: {copies} copies of the master's own log are on these disks, which have more than headers do: look at `dfs \
             recover --from-servers` first"
        );
    }
    let master = master(target, args, &writer);
    if args.servers.is_empty() {
        return offline::pipe(&args.disks, &[], master);
    }
    let lines = online::listing(&args.disks, &args.servers, args.accept_missing_replicas)?;
    offline::feed(&lines, master)
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
