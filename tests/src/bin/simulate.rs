//! `simulate`: runs seeds of the whole-cluster simulation. A violation prints the line that repeats it, what
//! was violated, and the last events; the last line sums up.

use std::process::ExitCode;

use clap::Parser;
use dfs_tests::sim::{self, Options, Outcome};

/// Run seeds of the whole-cluster simulation
#[derive(Debug, Parser)]
#[command(name = "simulate", max_term_width = 100)]
struct Cli {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print every event as it happens
    #[arg(long)]
    verbose: bool,
    /// Go on after a violation
    #[arg(long)]
    keep_going: bool,
    /// Strike with no faults
    #[arg(long)]
    calm: bool,
    /// Simulated milliseconds of chaos; the seed chooses when it is not given
    #[arg(long)]
    chaos_ms: Option<u64>,
    /// Run each seed twice, and compare
    #[arg(long)]
    twice: bool,
    /// Events to print for a violation
    #[arg(long, default_value_t = 40)]
    last: usize,
}

/// The sums over all runs.
#[derive(Debug, Default)]
struct Sums {
    seeds: u64,
    faults: u64,
    power_cuts: u64,
    operations: u64,
    events: u64,
    simulated_us: u64,
    failed: Vec<u64>,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.faults += outcome.faults;
        self.power_cuts += outcome.power_cuts;
        self.operations += outcome.operations;
        self.events += outcome.events;
        self.simulated_us += outcome.simulated_us;
        if !outcome.violations.is_empty() {
            self.failed.push(outcome.seed);
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.verbose {
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    }
    let options = Options { faults: !cli.calm, text: cli.verbose, echo: cli.verbose, chaos_ms: cli.chaos_ms };
    let started = tokio::time::Instant::now();
    let mut sums = Sums::default();
    for seed in cli.seed..cli.seed.saturating_add(cli.seeds) {
        let outcome = sim::run(seed, &options);
        sums.add(&outcome);
        if cli.twice {
            compare(&options, &outcome);
        }
        if !outcome.violations.is_empty() {
            explain(&cli, &options, &outcome);
            if !cli.keep_going {
                break;
            }
        }
    }
    let took = started.elapsed().as_secs_f64().max(0.001);
    println!(
        "seeds {} faults {} power-cuts {} operations {} events {} simulated-s {} violations {} seeds/s {:.1}",
        sums.seeds,
        sums.faults,
        sums.power_cuts,
        sums.operations,
        sums.events,
        sums.simulated_us / 1_000_000,
        sums.failed.len(),
        std::time::Duration::from_secs(sums.seeds).as_secs_f64() / took,
    );
    #[cfg(dfs_planted)]
    if let Some(mistake) = dfs_proto::planted::active() {
        println!("planted {mistake:?}: reached {} times", dfs_proto::planted::reached());
    }
    if sums.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed seeds: {:?}", sums.failed);
    ExitCode::FAILURE
}

/// Says what was violated, and runs the seed again to tell how it came about.
fn explain(cli: &Cli, options: &Options, outcome: &Outcome) {
    println!("seed {}: {} violations", outcome.seed, outcome.violations.len());
    println!("  cargo run --release -p dfs-tests --bin simulate -- --seed {}{}", outcome.seed, flags(cli));
    for violation in outcome.violations.iter().take(5) {
        println!("  {violation}");
    }
    if cli.verbose {
        return;
    }
    let again = sim::run(outcome.seed, &Options { text: true, ..options.clone() });
    if again.hash != outcome.hash {
        println!("  the run did not repeat: {:016x}, then {:016x}", outcome.hash, again.hash);
    }
    for line in &again.tail[again.tail.len().saturating_sub(cli.last)..] {
        println!("    {line}");
    }
}

/// Says where two runs of a seed part.
fn compare(options: &Options, outcome: &Outcome) {
    if sim::run(outcome.seed, options).hash == outcome.hash {
        return;
    }
    println!("seed {}: two runs differ", outcome.seed);
    let text = Options { text: true, ..options.clone() };
    let (a, b) = (sim::run(outcome.seed, &text).tail, sim::run(outcome.seed, &text).tail);
    if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
        for line in at.saturating_sub(5)..(at + 3).min(a.len()).min(b.len()) {
            println!("    {}\n    {}\n", a[line], b[line]);
        }
    }
}

fn flags(cli: &Cli) -> String {
    let calm = if cli.calm { " --calm" } else { "" };
    let chaos = cli.chaos_ms.map(|ms| format!(" --chaos-ms {ms}")).unwrap_or_default();
    format!("{calm}{chaos}")
}
