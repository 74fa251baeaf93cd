//! The `dfs-chunkserver` program: reads its arguments, starts a runtime, and runs the server in it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use dfs_chunkserver::config::Args;
use dfs_chunkserver::run::run;

/// Most threads that serve connections. Disks have their own.
const WORKERS_MAX: usize = 4;

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
    // A second one where there are no cores to spare costs more wake-ups than it shares work.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let workers = (cores / 2).clamp(1, WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let result = runtime.block_on(run(config));
    runtime.shutdown_background();
    result
}
