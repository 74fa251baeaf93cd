//! `dfs heat`: which chunks are read and written most, and how many replicas they have for it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use dfs_proto::meta::{Heat, HeatReport};

use crate::connect::Target;
use crate::output::{Table, Tone, cost, from_root, on_terminal};

/// How often `--watch` looks: the master hears from its servers once a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The busiest chunks of the cluster
    Top {
        /// How many
        #[arg(short, long, default_value_t = 20)]
        number: u32,
        /// Show them again every second, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// The chunks of one file
    File {
        /// A path on a dfs mount
        path: PathBuf,
    },
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Top { number, watch } => loop {
            let report = target.ask(&Heat { ino: None, most: *number }, None)?;
            if *watch && on_terminal() {
                print!("\x1b[H\x1b[2J");
            }
            show(target, &report)?;
            if !watch {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        },
        Command::File { path } => {
            let ino = target.inode_of(path)?;
            show(target, &target.ask(&Heat { ino: Some(ino), most: u32::MAX }, Some(path))?)
        }
    }
}

fn show(target: &Target, report: &HeatReport) -> anyhow::Result<()> {
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report.shown())?);
        return Ok(());
    }
    print(report);
    Ok(())
}

/// As people see it.
pub(crate) fn print(report: &HeatReport) {
    if report.chunks.is_empty() {
        println!("nothing is read or written");
        return;
    }
    let mut table = Table::new(&["READ", "LAST 3 S", "WRITTEN", "REPLICAS", "GOAL", "ON", "CHUNK", "FILE"]);
    for chunk in &report.chunks {
        let replicas = chunk.replicas.len();
        let hot = chunk.read_milli > report.max_milli.saturating_mul(replicas as u64);
        let coming = if chunk.to_come > 0 { format!(" +{}", chunk.to_come) } else { String::new() };
        table.row(vec![
            (cost(chunk.read_milli), if hot { Tone::Bad } else { Tone::Plain }),
            (cost(chunk.recent_milli), Tone::Plain),
            (cost(chunk.write_milli), Tone::Plain),
            (format!("{replicas}{coming}"), Tone::Plain),
            (chunk.goal.to_string(), Tone::Plain),
            (chunk.replicas.join(" "), Tone::Plain),
            (chunk.chunk.to_string(), Tone::Faint),
            (format!("{}:{}", from_root(&chunk.path), chunk.index.0), Tone::Plain),
        ]);
    }
    table.print();
    println!(
        "cost a second: 1 a request, and 1 for each 64 KiB; a replica that is read more than {} is hot",
        cost(report.max_milli)
    );
}
