//! `crashimages`: what a power cut may leave on a device that reorders and tears what was not flushed, image after
//! image, mounted and judged. The last line sums up; exit code 1 when something synced is gone, or does not open.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dfs_tests::crash::{Options, run};

/// Build images that a power cut may leave of the chunk store and the master's log, and check each
#[derive(Debug, Parser)]
#[command(name = "crashimages", max_term_width = 100)]
struct Cli {
    /// How many images
    #[arg(long, default_value_t = 200)]
    images: usize,
    /// Chooses the work and the images; which of two threads comes first is not its to choose
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records of their own, each with its share of the images
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Where images go, 64 MiB each, one at a time
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (mut images, mut unmountable, mut violations) = (0, 0, 0);
    let share = cli.images.div_ceil(usize::try_from(cli.runs).unwrap_or(usize::MAX));
    for seed in cli.seed..cli.seed.saturating_add(cli.runs) {
        let options = Options { images: share, seed, dir: cli.dir.clone() };
        let report = match run(&options) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("crashimages: {error:#}");
                return ExitCode::from(2);
            }
        };
        for violation in report.violations.iter().take(10) {
            println!("VIOLATION {violation}");
        }
        println!("seed {seed}: {report}");
        images += report.images;
        unmountable += report.unmountable;
        violations += report.violations.len();
    }
    println!("crashimages: images {images} unmountable {unmountable} violations {violations}");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
