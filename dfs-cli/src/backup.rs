//! `dfs backup` and `dfs restore`: the master's state kept elsewhere. The master's binary does both, since it knows its files and
//! reads back what it wrote as a start would.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use dfs_proto::words::in_words;

use crate::connect::Target;
use crate::dev::find;

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The directory to make, which is not there yet or empty. It takes as much room as the master's
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The directory of the backup, which is not changed
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// The master's directory to make, which is not there yet or empty. Without it, only check the backup
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(crate) fn backup(target: &Target, args: &BackupArgs) -> ExitCode {
    run(target, |master| {
        let addr = target.addr(None)?;
        master.arg("backup").arg("--from").arg(addr.to_string()).arg("--to").arg(&args.to);
        Ok(())
    })
}

pub(crate) fn restore(target: &Target, args: &RestoreArgs) -> ExitCode {
    run(target, |master| {
        master.arg("restore").arg("--backup").arg(&args.from);
        if let Some(dir) = &args.to {
            master.arg("--data").arg(dir);
        }
        Ok(())
    })
}

fn run(target: &Target, options: impl FnOnce(&mut Command) -> anyhow::Result<()>) -> ExitCode {
    match run_master(target, options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dfs: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run_master(
    target: &Target,
    options: impl FnOnce(&mut Command) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let program = find("dfs-master")?;
    let mut master = Command::new(&program);
    options(&mut master)?;
    if target.json {
        master.arg("--json");
    }
    let status = master.status().with_context(|| format!("cannot start {}", program.display()))?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => bail!("{} ended by {status}", program.display()),
    }
}
