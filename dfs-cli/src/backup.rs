//! `dfs backup` and `dfs restore`: the master's state kept elsewhere. The master's binary does both, since it knows its files and
//! reads back what it wrote as a start would.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::connect::Target;
use crate::offline::run_master;
use crate::output::ended;

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
    let made = run_master(target, |master| {
        let addr = target.addr(None)?;
        master.arg("backup").arg("--from").arg(addr.to_string()).arg("--to").arg(&args.to);
        Ok(())
    });
    ended(made, ExitCode::FAILURE)
}

pub(crate) fn restore(target: &Target, args: &RestoreArgs) -> ExitCode {
    let made = run_master(target, |master| {
        master.arg("restore").arg("--backup").arg(&args.from);
        if let Some(dir) = &args.to {
            master.arg("--data").arg(dir);
        }
        Ok(())
    });
    ended(made, ExitCode::FAILURE)
}
