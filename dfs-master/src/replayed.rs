//! `dfs-master replay`: what other thresholds would have done with a log of loads. `dfs policy replay` runs it. Reads files and
//! prints; [`dfs_master::replay`] does the rest.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use dfs_master::load_log::Decoder;
use dfs_master::replay::{Counts, Point, Replay, Report};
use dfs_proto::meta::Policy;

use crate::config::ReplayArgs;

/// A longer line is none of ours: all chunks that a master could tell of in one second are less.
const LINE_MAX: u64 = 1 << 30;
/// Chunks and decisions that are printed; `--json` has more.
const ROWS: usize = 12;

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let report = replay(&args.log, change(args))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn change(args: &ReplayArgs) -> Policy {
    let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1000));
    Policy {
        max_threshold: args.max_threshold.clone(),
        min_threshold: args.min_threshold.clone(),
        max_replicas: args.max_replicas,
        replication_budget: args.replication_budget.clone(),
        raise_after_ms: ms(args.raise_after),
        lower_after_ms: ms(args.lower_after),
        cooldown_ms: ms(args.cooldown),
        surplus_permille: args.surplus.map(|percent| percent.saturating_mul(10)),
    }
}

fn replay(log: &Path, change: Policy) -> anyhow::Result<Report> {
    let (mut decoder, mut replay) = (Decoder::default(), Replay::new(change));
    let mut seconds = 0_u64;
    for path in files(log)? {
        let at = path.display();
        let mut file = BufReader::new(File::open(&path).with_context(|| format!("{at}"))?);
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let read = std::io::Read::take(&mut file, LINE_MAX).read_until(b'\n', &mut line);
            if read.with_context(|| format!("{at}, line {number}"))? == 0 {
                break;
            }
            if line.last() != Some(&b'\n') && line.len() as u64 >= LINE_MAX {
                bail!("{at}, line {number}: it is longer than any line of a log of loads");
            }
            let decoded = decoder.line(&line).with_context(|| format!("{at}, line {number}"))?;
            replay.second(&decoded).map_err(|why| anyhow!("{at}, line {number}: with its policy: {why}"))?;
            seconds += 1;
        }
    }
    if seconds == 0 {
        bail!("{}: nothing is recorded there", log.display());
    }
    Ok(replay.report())
}

/// The file, or those of a master's directory of them, the oldest first.
fn files(log: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let at = log.display();
    if !log.is_dir() {
        return Ok(vec![log.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(log).with_context(|| format!("{at}"))? {
        let name = entry.with_context(|| format!("{at}"))?.file_name().to_string_lossy().into_owned();
        let age = match name.strip_prefix("load.jsonl") {
            Some("") => Some(0),
            Some(number) => number.strip_prefix('.').and_then(|number| number.parse::<u64>().ok()),
            None => None,
        };
        found.extend(age.map(|age| (std::cmp::Reverse(age), log.join(&name))));
    }
    found.sort();
    if found.is_empty() {
        bail!("{at}: no load.jsonl is there; a master's are in `load` of its directory");
    }
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn print(report: &Report) {
    let Report { recorded, replayed, .. } = report;
    println!("{} s recorded{}", report.seconds, lost(report.lost_seconds));
    if report.begins_in_the_middle {
        println!("note: it begins while a master led; what that remembered of before is not known here");
    }
    if report.not_recorded_chunks > 0 {
        println!("note: up to {} chunks at once were read and are not in it", report.not_recorded_chunks);
    }
    println!();
    let row = |name: &str, recorded: &str, replayed: &str| println!("{name:<26}{recorded:>14}{replayed:>14}");
    row("", "RECORDED", "REPLAYED");
    let (there, here) = (&report.recorded_policy, &report.replayed_policy);
    let text = |setting: &Option<String>| setting.clone().unwrap_or_default();
    let seconds = |ms: Option<u64>| format!("{} s", ms.unwrap_or_default() / 1000);
    row("max threshold", &text(&there.max_threshold), &text(&here.max_threshold));
    row("min threshold", &text(&there.min_threshold), &text(&here.min_threshold));
    row("raise after", &seconds(there.raise_after_ms), &seconds(here.raise_after_ms));
    row("lower after", &seconds(there.lower_after_ms), &seconds(here.lower_after_ms));
    let replicas = |of: &Policy| of.max_replicas.unwrap_or_default().to_string();
    row("max replicas", &replicas(there), &replicas(here));
    row("replication budget", &text(&there.replication_budget), &text(&here.replication_budget));
    let figure =
        |name: &str, of: fn(&Counts) -> u64| row(name, &of(recorded).to_string(), &of(replayed).to_string());
    figure("raises", |counts| counts.raises);
    figure("copies", |counts| counts.copies);
    figure("MiB copied", |counts| counts.copied_bytes >> 20);
    figure("lowers", |counts| counts.lowers);
    figure("most replicas above goals", |counts| counts.most_above_goals);
    figure("replica-seconds above", |counts| counts.above_goal_seconds);
    figure("chunk-seconds hot", |counts| counts.hot_seconds);
    match report.first_difference_unix_ms {
        None => println!("\nevery decision is the recorded one"),
        Some(at) => {
            let after = at.saturating_sub(report.from_unix_ms) / 1000;
            println!(
                "\n{} decisions are as recorded; the first that is not comes after {after} s",
                report.same
            );
        }
    }
    print_course(report);
    print_chunks(report);
    print_decisions(report);
}

fn lost(seconds: u64) -> String {
    if seconds == 0 { String::new() } else { format!(", {seconds} s between them were not written") }
}

fn print_course(report: &Report) {
    if report.course.iter().all(|point| point.recorded == 0 && point.replayed == 0) {
        return;
    }
    println!(
        "\nreplicas above goals, the most in each part of the time\n{:>8}{:>10}{:>10}",
        "AFTER", "RECORDED", "REPLAYED"
    );
    for Point { unix_ms, recorded, replayed } in &report.course {
        let after = format!("{} s", unix_ms.saturating_sub(report.from_unix_ms) / 1000);
        println!("{after:>8}{recorded:>10}{replayed:>10}");
    }
}

fn print_chunks(report: &Report) {
    if report.chunks.is_empty() {
        return;
    }
    println!("\n{:<18}{:>24}{:>24}", "CHUNK", "RECORDED +/- AND MOST", "REPLAYED +/- AND MOST");
    for chunk in report.chunks.iter().take(ROWS) {
        let of = |raises: u64, lowers: u64, most: usize| format!("+{raises} -{lowers} {most:>3}");
        let there = of(chunk.recorded_raises, chunk.recorded_lowers, chunk.recorded_most);
        let here = of(chunk.replayed_raises, chunk.replayed_lowers, chunk.replayed_most);
        println!("{:<18}{there:>24}{here:>24}", chunk.chunk.to_string());
    }
    more(report.chunks.len(), "chunks");
}

fn print_decisions(report: &Report) {
    if report.decisions.is_empty() {
        return;
    }
    println!("\nwhat it would have decided");
    for said in report.decisions.iter().take(ROWS) {
        let after = said.unix_ms.saturating_sub(report.from_unix_ms) / 1000;
        let what = match said.lower_on {
            Some(server) => format!("lower, on {server}"),
            None => {
                let to: Vec<String> = said.raise_to.iter().map(ToString::to_string).collect();
                format!("raise, to {}", to.join(" "))
            }
        };
        println!("after {after} s, chunk {}: {what}: {}", said.chunk, said.why);
    }
    more(report.decisions.len(), "decisions");
}

fn more(all: usize, what: &str) {
    if all > ROWS {
        println!("and {} more {what}: --json", all - ROWS);
    }
}
