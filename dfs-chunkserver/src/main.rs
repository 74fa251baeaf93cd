//! The `dfs-chunkserver` program: reads its arguments, starts a runtime, and runs the server in it.

use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use dfs_chunkserver::config::Args;
use dfs_chunkserver::headers::{self, HeadersArgs, HeadersError};
use dfs_chunkserver::run::run;
use dfs_daemon::settings::Settings;
use dfs_daemon::{logging, memory, pages, reload};
use dfs_proto::words::{in_words, wrong_usage};

/// Threads that serve connections; disks have their own. A write to a disk that has been quick is done by whoever read
/// it, one at a time: should that disk hang, the other threads go on, with heartbeats too.
const WORKERS_MIN: usize = 2;
const WORKERS_MAX: usize = 4;

/// The one other thing that the program does than serve.
const HEADERS: &str = "headers";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == HEADERS) {
        return list_headers();
    }
    match pages::if_asked(|| vec![Args::command()]) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return complain(&error),
    }
    let read = match Settings::<Args>::read(std::env::args_os().collect(), None) {
        Ok(read) => read,
        Err(wrong) => return wrong.tell("dfs-chunkserver"),
    };
    if let Some(printed) = read.printed {
        print!("{printed}");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = logging::start(&logging::Target::Stderr, &read.args.file.log_level) {
        return complain(&error);
    }
    match start(read.args, read.settings) {
        // Threads of a disk that hangs must not keep the process.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.as_ref()),
    }
}

fn complain(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // Where standard error is closed there is nobody to tell.
    drop(writeln!(std::io::stderr(), "dfs-chunkserver: {}", in_words(error)));
    ExitCode::FAILURE
}

fn list_headers() -> ExitCode {
    let args = match HeadersArgs::try_parse_from(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(wrong) if wrong.use_stderr() => return wrong_usage("dfs-chunkserver", &wrong),
        Err(help) => help.exit(),
    };
    match headers::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the listing wants no more of it, and says why.
        Err(HeadersError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(error) => complain(&error),
    }
}

fn start(args: Args, settings: Settings<Args>) -> anyhow::Result<()> {
    let config = args.check()?;
    // Before the first thread, which inherits it.
    memory::promise_io_flusher();
    let cores = std::thread::available_parallelism().map_or(WORKERS_MIN, NonZero::get);
    let workers = (cores / 2).clamp(WORKERS_MIN, WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.spawn(reload::on_hangup(settings, str::to_owned));
    let result = runtime.block_on(run(config));
    runtime.shutdown_background();
    result
}
