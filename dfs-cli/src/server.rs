//! `dfs server`: the chunk servers, their disks and load, and emptying one.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use dfs_proto::meta::{ClusterStatus, DrainServer, ServerList, ServerReport, ServerReports};

use crate::connect::Target;
use crate::output::{Table, Tone, bytes, span};

/// How often a drain's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All chunk servers that ever registered
    List,
    /// Empty a server: it gets nothing new, and its replicas are made on other servers before they leave it
    Drain {
        /// Its name or number, as `dfs server list` shows them
        server: String,
        /// Return when it is empty, and say how far it is until then
        #[arg(long)]
        wait: bool,
    },
    /// Let a server take replicas again
    Undrain {
        /// Its name or number
        server: String,
    },
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(target),
        Command::Drain { server, wait } => {
            let server = find(&target.ask(&ServerList {}, None)?, server)?;
            drain(target, &server)?;
            if *wait { follow(target, &server) } else { Ok(()) }
        }
        Command::Undrain { server } => {
            let server = find(&target.ask(&ServerList {}, None)?, server)?;
            target.ask(&DrainServer { server: server.addr.num, drain: false }, None)?;
            println!("{} takes replicas again", server.name);
            Ok(())
        }
    }
}

/// The server of that name or number.
pub(crate) fn find(reports: &ServerReports, text: &str) -> anyhow::Result<ServerReport> {
    let is = |server: &&ServerReport| server.name == text || server.addr.num.to_string() == text;
    let mut found = reports.servers.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(server), None) => Ok(server.clone()),
        (Some(_), Some(_)) => {
            bail!("{text:?} is the name of several servers: give a number of `dfs server list`")
        }
        (None, _) => bail!("no server {text:?}: `dfs server list` shows names and numbers"),
    }
}

fn drain(target: &Target, server: &ServerReport) -> anyhow::Result<()> {
    target
        .ask(&DrainServer { server: server.addr.num, drain: true }, None)
        .with_context(|| format!("{} is not drained", server.name))?;
    let reports = target.ask(&ServerList {}, None)?;
    let status = target.ask(&ClusterStatus {}, None)?;
    let goal = status.goal.max(status.goal_highest);
    let others = reports.servers.iter().filter(|other| other.up && !other.draining).count();
    println!("{} is being drained: {} replicas to go", server.name, server.replicas);
    if others < usize::from(goal) {
        println!(
            "only {others} other servers are up and the goal is {goal}: what has no other place stays there \
             until more servers join"
        );
    }
    Ok(())
}

fn follow(target: &Target, server: &ServerReport) -> anyhow::Result<()> {
    let mut last = None;
    loop {
        let report = find(&target.ask(&ServerList {}, None)?, &server.addr.num.to_string())?;
        if !report.draining {
            bail!("{} is not drained any more", server.name);
        }
        if report.replicas == 0 {
            println!("{} holds nothing that counts: it is safe to remove", server.name);
            return Ok(());
        }
        if last != Some(report.replicas) {
            println!("{} replicas left", report.replicas);
            last = Some(report.replicas);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn state(server: &ServerReport) -> (String, Tone) {
    let (text, tone) = if server.up { ("up", Tone::Good) } else { ("down", Tone::Bad) };
    match (server.draining, server.replicas) {
        (false, _) => (text.to_owned(), tone),
        (true, 0) => (format!("{text}, drained"), tone),
        (true, _) => (format!("{text}, draining"), tone),
    }
}

/// In the unit of the server's `--capacity`.
fn capacity(server: &ServerReport) -> String {
    let learned = if server.capacity_learned { ", learned" } else { "" };
    match server.capacity_bytes_per_s {
        0 => "-".to_owned(),
        slow @ ..10_000_000 => format!("{}.{} MB/s{learned}", slow / 1_000_000, slow % 1_000_000 / 100_000),
        bytes => format!("{} MB/s{learned}", bytes / 1_000_000),
    }
}

fn list(target: &Target) -> anyhow::Result<()> {
    let report = target.ask(&ServerList {}, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let mut table = Table::new(&[
        "NUM", "NAME", "ADDRESS", "STATE", "HEARD", "REPLICAS", "FREE", "OF", "LOAD", "CAPACITY", "DISKS",
        "LABELS",
    ]);
    for server in &report.servers {
        let free: u64 = server.disks.iter().map(|d| d.free_bytes).sum();
        let total: u64 = server.disks.iter().map(|d| d.total_bytes).sum();
        let failed = server.disks.iter().filter(|d| d.failed.is_some()).count();
        let disks = if failed == 0 {
            (server.disks.len().to_string(), Tone::Plain)
        } else {
            (format!("{} ({failed} failed)", server.disks.len()), Tone::Bad)
        };
        let labels: Vec<String> = server.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        table.row(vec![
            (server.addr.num.to_string(), Tone::Plain),
            (server.name.clone(), Tone::Plain),
            (server.addr.tcp.clone(), Tone::Plain),
            state(server),
            (
                server.silent_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", span(ms))),
                Tone::Plain,
            ),
            (server.replicas.to_string(), Tone::Plain),
            (bytes(free), Tone::Plain),
            (bytes(total), Tone::Plain),
            (format!("{} %", server.utilisation_permille / 10), Tone::Plain),
            (capacity(server), Tone::Plain),
            disks,
            (labels.join(","), Tone::Faint),
        ]);
    }
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::ids::{OsBootId, ServerId, ServerNum};
    use dfs_proto::meta::ServerAddr;

    #[test]
    fn a_capacity_says_where_it_is_from() {
        let said = |capacity_bytes_per_s, capacity_learned| {
            capacity(&ServerReport {
                addr: ServerAddr {
                    num: ServerNum(1),
                    id: ServerId(1),
                    tcp: String::new(),
                    unix: None,
                    os_boot: OsBootId(1),
                },
                name: String::new(),
                up: true,
                silent_ms: None,
                labels: Vec::new(),
                version: String::new(),
                disks: Vec::new(),
                replicas: 0,
                utilisation_permille: 0,
                queue: 0,
                capacity_bytes_per_s,
                capacity_learned,
                draining: false,
            })
        };
        assert_eq!(said(1_250_000_000, false), "1250 MB/s");
        assert_eq!(said(48_712_345, true), "48 MB/s, learned");
        assert_eq!(said(1_270_000, true), "1.2 MB/s, learned");
        assert_eq!(said(0, false), "-");
    }
}
