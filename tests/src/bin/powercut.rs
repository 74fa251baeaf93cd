//! `powercut`: cuts the power of a cluster under load, again and again, and checks that what was synced is there.
//! The last line sums up; exit code 1 when something was lost, or did not come back in time.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dfs_tests::cluster::binaries;
use dfs_tests::real::power::{self, Options, Spread};
use dfs_tests::real::volume::FsKind;

/// Cut the power of a cluster of real processes on loop-mounted filesystems, by `FS_IOC_SHUTDOWN`
#[derive(Debug, Parser)]
#[command(name = "powercut", max_term_width = 100)]
struct Cli {
    /// How many cuts
    #[arg(long, default_value_t = 10)]
    cuts: u64,
    /// ext4 or xfs
    #[arg(long, default_value = "ext4")]
    fs: FsKind,
    /// one: all state on one filesystem; each: one for every process, of which one or all are cut
    #[arg(long, default_value = "one")]
    spread: Spread,
    /// Chooses what is done and cut; the machine's timing is not its to choose
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the images go, sparse files of 2 GiB each
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Say nothing of single cuts
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = Options {
        fs: cli.fs,
        spread: cli.spread,
        cuts: cli.cuts,
        seed: cli.seed,
        dir: cli.dir,
        bin: binaries(),
        verbose: !cli.quiet,
    };
    let report = match power::run(&options) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("powercut: {error:#}");
            return ExitCode::from(2);
        }
    };
    for violation in report.violations.iter().take(10) {
        println!("VIOLATION {violation}");
    }
    let Options { fs, spread, seed, .. } = options;
    println!("powercut {fs} {spread:?} seed {seed}: {report}");
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
