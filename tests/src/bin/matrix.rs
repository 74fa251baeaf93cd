//! `matrix`: the faults of real processes in network namespaces, a row each, judged against its bounds. The last line
//! sums up; exit code 1 when a row is not green.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dfs_tests::cluster::binaries;
use dfs_tests::real::matrix::{Options, ROWS, Row, run};

/// Break a cluster of real processes in network namespaces, in one way after the other
#[derive(Debug, Parser)]
#[command(name = "matrix", max_term_width = 100)]
struct Cli {
    /// Rows to run, in this order; all if none is given
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Print what there is
    #[arg(long)]
    list: bool,
    /// Run them so often
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Chooses what programs do; the machine's timing is not its to choose
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds that a busy machine may add to every bound
    #[arg(long, default_value_t = 1000)]
    slack_ms: u64,
    /// Where state goes
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

/// Rows of the table that can't be run by processes.
const NOT_RUN: &[(&str, &str)] =
    &[("clock-jump", "Linux has no namespace for the time of day; the simulator's clocks cover it")];

fn rows(names: &[String]) -> Result<Vec<&'static Row>, String> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        let row = ROWS.iter().find(|row| row.name == name);
        row.ok_or_else(|| format!("no row {name}; `matrix --list` prints all"))
    };
    names.iter().map(find).collect()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        for row in ROWS {
            println!("{:18} {}", row.name, row.fault);
        }
        return ExitCode::SUCCESS;
    }
    let rows = match rows(&cli.rows) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("matrix: {error}");
            return ExitCode::from(2);
        }
    };
    let (mut green, mut red) = (0, Vec::new());
    for time in 0..cli.times {
        for row in &rows {
            let options = Options {
                seed: cli.seed.wrapping_add(time),
                dir: cli.dir.clone(),
                bin: binaries(),
                slack: Duration::from_millis(cli.slack_ms),
            };
            let report = match run(row, &options) {
                Ok(report) => report,
                Err(error) => {
                    eprintln!("matrix: {}: {error:#}", row.name);
                    return ExitCode::from(2);
                }
            };
            println!("{:18} {report}", row.name);
            for violation in report.violations.iter().take(10) {
                println!("  VIOLATION {violation}");
            }
            if report.violations.is_empty() {
                green += 1;
            } else {
                red.push(format!("{} (seed {})", row.name, options.seed));
            }
        }
    }
    for (name, why) in NOT_RUN {
        println!("{name:18} not run: {why}");
    }
    println!("matrix: green {green} red {} {}", red.len(), red.join(", "));
    if red.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
