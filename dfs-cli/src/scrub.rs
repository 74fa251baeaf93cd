//! `dfs scrub`: how far the servers are with comparing every replica with its checksums, what they found, and an
//! order to look at everything now.

use clap::Subcommand;
use dfs_proto::control::DiskScrub;
use dfs_proto::ids::ServerNum;
use dfs_proto::meta::{ScrubNow, ScrubStatus, ServerList, ServerScrub};

use crate::connect::Target;
use crate::output::{Table, Tone, bytes, span};
use crate::server;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How far the scrubs are, and what they found
    Status,
    /// Look at all replicas now, as fast as the disks can
    Now {
        /// A server's name or number, as `dfs server list` shows them; all if not given
        server: Option<String>,
    },
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Status => status(target),
        Command::Now { server } => now(target, server.as_deref()),
    }
}

fn status(target: &Target) -> anyhow::Result<()> {
    let reports = target.ask(&ScrubStatus {}, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
        return Ok(());
    }
    let mut table = Table::new(&[
        "SERVER",
        "DISK",
        "PASS",
        "LOOKED AT",
        "READ",
        "OLDEST",
        "FOUND",
        "MENDED",
        "REWRITTEN",
        "DAMAGED",
        "LOST",
        "DIFFER",
    ]);
    for server in &reports.servers {
        for (at, disk) in server.scrub.disks.iter().enumerate() {
            table.row(row(server, at, disk));
        }
    }
    table.print();
    let lost: Vec<String> = reports.servers.iter().flat_map(lost_of).collect();
    if !lost.is_empty() {
        println!();
        println!("No replica has a good copy of these blocks; reads of them fail:");
        lost.iter().for_each(|line| println!("  {line}"));
    }
    Ok(())
}

fn row(server: &ServerScrub, at: usize, disk: &DiskScrub) -> Vec<(String, Tone)> {
    let scrub = &server.scrub;
    // What is counted for a server stands in the line of its first disk.
    let count = |n: u64, bad: Tone| match at {
        0 => (n.to_string(), if n == 0 { Tone::Plain } else { bad }),
        _ => (String::new(), Tone::Plain),
    };
    let pass = match (server.up, disk.hurried, disk.behind) {
        (false, ..) => ("server down".to_owned(), Tone::Bad),
        (true, true, _) => (format!("{}, hurried", disk.passes + 1), Tone::Good),
        (true, false, true) => (format!("{}, behind", disk.passes + 1), Tone::Bad),
        (true, false, false) => {
            let period = span(disk.period_s.saturating_mul(1000));
            (
                format!("{}, {} of {period}", disk.passes + 1, span(disk.elapsed_s.saturating_mul(1000))),
                Tone::Plain,
            )
        }
    };
    let oldest = match disk.oldest_s {
        Some(age) => (format!("at most {}", span(age.saturating_mul(1000))), Tone::Plain),
        None => ("some never".to_owned(), Tone::Plain),
    };
    vec![
        (server.name.clone(), Tone::Plain),
        (format!("{:.8}", disk.disk.to_string()), Tone::Faint),
        pass,
        (format!("{} of {}", disk.done, disk.total), Tone::Plain),
        (bytes(disk.bytes), Tone::Plain),
        oldest,
        count(scrub.found, Tone::Bad),
        count(scrub.mended, Tone::Good),
        count(scrub.rewritten, Tone::Good),
        count(scrub.damaged, Tone::Bad),
        count(scrub.hopeless, Tone::Bad),
        count(scrub.diverged, Tone::Bad),
    ]
}

fn lost_of(server: &ServerScrub) -> Vec<String> {
    let blocks = &server.scrub.blocks;
    let mut lines: Vec<String> = blocks
        .iter()
        .map(|(chunk, block)| format!("chunk {chunk} block {block} on {}", server.name))
        .collect();
    let more = server.scrub.hopeless.saturating_sub(blocks.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more on {}", server.name));
    }
    lines
}

fn now(target: &Target, server: Option<&str>) -> anyhow::Result<()> {
    let reports = target.ask(&ScrubStatus {}, None)?;
    let server = match server {
        Some(text) => Some(server::find(&target.ask(&ServerList {}, None)?, text)?.addr.num),
        None => None,
    };
    let started = target.ask(&ScrubNow { server }, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&started)?);
        return Ok(());
    }
    let name = |num: &ServerNum| {
        let found = reports.servers.iter().find(|server| server.server == *num);
        found.map_or_else(|| num.to_string(), |server| server.name.clone())
    };
    let names: Vec<String> = started.servers.iter().map(name).collect();
    println!(
        "{} look at all their replicas now; `dfs scrub status` tells how far they are",
        names.join(", ")
    );
    Ok(())
}
