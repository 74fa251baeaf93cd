//! `dfs recover --from-servers`: a new master's directory out of the copies of the lost one that chunk servers keep. The
//! chunk server's binary finds them, the master's reads them and writes the directory.

use std::process::{Command, ExitCode};

use dfs_proto::words::in_words;

use crate::connect::Target;
use crate::offline;
use crate::recover::Args;

pub(crate) fn run(target: &Target, args: &Args) -> ExitCode {
    let done = crate::dev::find("dfs-master").and_then(|writer| {
        offline::pipe(&args.disks, &["--copies"], master(target, args, Command::new(writer)))
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dfs: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
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
