//! The `dfs-chunkserver` program: reads its arguments, starts a runtime, and runs the server in it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use dfs_chunkserver::config::Args;
use dfs_chunkserver::run::run;

/// Threads that serve connections. Disks have their own.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let level = args.log_level;
    env_logger::Builder::new().filter_level(level).format_timestamp_millis().init();
    match start(args) {
        // Threads of a disk that hangs must not keep the process.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            drop(writeln!(std::io::stderr(), "dfs-chunkserver: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = args.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let result = runtime.block_on(run(config));
    runtime.shutdown_background();
    result
}
