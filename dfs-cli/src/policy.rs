//! `dfs policy`: how the number of replicas follows the load.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use clap::Subcommand;
use dfs_proto::meta::{Policy, PolicyReport};

use crate::connect::Target;
use crate::output::{Tone, bytes, cost, pairs};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The settings, and what they come to with the servers that are up
    Show,
    /// Change settings; those that are not named stay
    Set(Set),
    /// What other settings would have done with what a master has recorded of loads
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// A file of the log of loads, or the directory of them: `load` in the master's directory
    log: PathBuf,
    /// Those that are not named are as they were recorded
    #[command(flatten)]
    set: Settings,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("some").args(NAMES).required(true).multiple(true))]
pub(crate) struct Set {
    #[command(flatten)]
    set: Settings,
}

const NAMES: [&str; 8] = [
    "max_threshold",
    "min_threshold",
    "max_replicas",
    "replication_budget",
    "raise_after",
    "lower_after",
    "cooldown",
    "surplus",
];

#[derive(Debug, clap::Args)]
struct Settings {
    /// A replica that is read more is hot: cost a second, or auto, a quarter of what the median server can
    #[arg(long, value_name = "COST")]
    max_threshold: Option<String>,
    /// Replicas are too many when the others would be read less with one fewer: cost a second, or auto, a third of the
    /// max threshold
    #[arg(long, value_name = "COST")]
    min_threshold: Option<String>,
    /// Most replicas of a chunk; 1 keeps all chunks at their goal
    #[arg(long, value_name = "N")]
    max_replicas: Option<u64>,
    /// What copies for the load may move: bytes a second, or auto, a fifth of what all servers can
    #[arg(long, value_name = "BYTES")]
    replication_budget: Option<String>,
    /// A chunk is hot for so many seconds before it gets replicas
    #[arg(long, value_name = "SECONDS")]
    raise_after: Option<u64>,
    /// A replica is too many for so many seconds before it goes
    #[arg(long, value_name = "SECONDS")]
    lower_after: Option<u64>,
    /// A chunk whose direction was turned is not turned again for so many seconds
    #[arg(long, value_name = "SECONDS")]
    cooldown: Option<u64>,
    /// Percent of the free space that replicas above goals may take
    #[arg(long, value_name = "PERCENT")]
    surplus: Option<u64>,
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    let change = match command {
        Command::Show => Policy::default(),
        Command::Set(set) => change(&set.set),
        Command::Replay(replay) => return self::replay(target, replay),
    };
    let report = target.ask(&change, None)?;
    if let Some(why) = &report.refused {
        bail!("nothing was changed: {why}");
    }
    show(target, &report)
}

/// The policy is the master's: its binary replays.
fn replay(target: &Target, replay: &Replay) -> anyhow::Result<()> {
    let master = crate::dev::find("dfs-master")?;
    let mut command = std::process::Command::new(&master);
    command.arg("replay");
    let Settings { max_threshold, min_threshold, replication_budget, .. } = &replay.set;
    let Settings { max_replicas, raise_after, lower_after, cooldown, surplus, .. } = replay.set;
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let settings = [
        ("--max-threshold", max_threshold.clone()),
        ("--min-threshold", min_threshold.clone()),
        ("--replication-budget", replication_budget.clone()),
        ("--max-replicas", number(max_replicas)),
        ("--raise-after", number(raise_after)),
        ("--lower-after", number(lower_after)),
        ("--cooldown", number(cooldown)),
        ("--surplus", number(surplus)),
    ];
    for (name, value) in settings {
        command.args(value.map(|value| format!("{name}={value}")));
    }
    command.args(target.json.then_some("--json")).arg("--").arg(&replay.log);
    let done = command.stderr(Stdio::piped()).spawn().and_then(std::process::Child::wait_with_output);
    let done = done.with_context(|| format!("cannot start {}", master.display()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{}", said.trim_end().trim_start_matches("dfs-master: "));
    }
    Ok(())
}

fn change(set: &Settings) -> Policy {
    let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1000));
    Policy {
        max_threshold: set.max_threshold.clone(),
        min_threshold: set.min_threshold.clone(),
        max_replicas: set.max_replicas,
        replication_budget: set.replication_budget.clone(),
        raise_after_ms: ms(set.raise_after),
        lower_after_ms: ms(set.lower_after),
        cooldown_ms: ms(set.cooldown),
        surplus_permille: set.surplus.map(|percent| percent.saturating_mul(10)),
    }
}

fn show(target: &Target, report: &PolicyReport) -> anyhow::Result<()> {
    if target.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let PolicyReport { set, .. } = report;
    let text = |setting: &Option<String>| setting.clone().unwrap_or_default();
    let seconds = |ms: Option<u64>| format!("{} s", ms.unwrap_or_default() / 1000);
    pairs(&[
        ("max threshold", format!("{} ({})", text(&set.max_threshold), cost(report.max_milli)), Tone::Plain),
        ("min threshold", format!("{} ({})", text(&set.min_threshold), cost(report.min_milli)), Tone::Plain),
        ("max replicas", set.max_replicas.unwrap_or_default().to_string(), Tone::Plain),
        ("raise after", seconds(set.raise_after_ms), Tone::Plain),
        ("lower after", seconds(set.lower_after_ms), Tone::Plain),
        ("cooldown", seconds(set.cooldown_ms), Tone::Plain),
        (
            "replication budget",
            format!("{} ({}/s)", text(&set.replication_budget), bytes(report.budget_bytes_per_s)),
            Tone::Plain,
        ),
        (
            "  used of it",
            format!("{} %", report.pace_permille / 10),
            if report.pace_permille < 1000 { Tone::Bad } else { Tone::Plain },
        ),
        (
            "surplus",
            format!("{} % of the free space", set.surplus_permille.unwrap_or_default() / 10),
            Tone::Plain,
        ),
        ("copies to come", report.raising.to_string(), Tone::Plain),
        ("replicas to go", report.lowering.to_string(), Tone::Plain),
    ]);
    Ok(())
}
