//! `dfs recover --from-servers`: a new master's directory out of the copies of the lost one that chunk servers keep. The
//! chunk server's binary finds those of stopped servers, running ones are asked for theirs; the master's reads them and
//! writes the directory.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::connect::Target;
use crate::output::ended;
use crate::recover::Args;
use crate::{offline, online};

pub(crate) fn run(target: &Target, args: &Args) -> ExitCode {
    ended(restore(target, args), ExitCode::FAILURE)
}

fn restore(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let writer = crate::dev::find("dfs-master")?;
    let master = master(target, args, Command::new(writer));
    if args.servers.is_empty() {
        return offline::pipe(&args.disks, &["--copies"], master);
    }
    let scratch = tempfile::Builder::new().prefix("dfs-copies-").tempdir_in(&args.scratch);
    let scratch = scratch.with_context(|| format!("--scratch {}", args.scratch.display()))?;
    let lines = online::copies(&args.disks, &args.servers, scratch.path())?;
    offline::feed(&lines, master)
}

fn master(target: &Target, args: &Args, mut master: Command) -> Command {
    master.arg("restore");
    if let Some(dir) = &args.to {
        master.arg("--data").arg(dir);
    }
    if let Some(generation) = args.generation {
        master.arg("--generation").arg(generation.to_string());
    }
    if target.json {
        master.arg("--json");
    }
    master
}
