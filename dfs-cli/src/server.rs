//! `dfs server`: the chunk servers, their disks and load, emptying one, and having one away for a while.

mod drain;
mod maintenance;

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use dfs_proto::meta::{ServerList, ServerReport, ServerReports};

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
        /// Although not all that it has can be elsewhere as it should be: what has no other place stays
        #[arg(long)]
        force: bool,
    },
    /// A server will be away for a while on purpose: what it has is kept for its return instead of being made anew
    /// elsewhere, and it gets nothing new. Says when it can be stopped
    Maintenance {
        /// Its name or number
        server: String,
        /// How long: 90s, 30m, 2h; it ends by itself then
        #[arg(long = "for", value_name = "TIME", value_parser = parse_span, default_value = "30m")]
        span: Duration,
        /// Although chunks can't be read, or written, while it is away
        #[arg(long)]
        force: bool,
        /// It is back, or stays: its replicas are brought up to date, and it takes new ones
        #[arg(long, conflicts_with_all = ["span", "force"])]
        end: bool,
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
        Command::Drain { server, wait, force } => {
            let server = find(&target.ask(&ServerList {}, None)?, server)?;
            drain::begin(target, &server, *force)?;
            if *wait { drain::follow(target, &server) } else { Ok(()) }
        }
        Command::Maintenance { server, span, force, end } => {
            let server = find(&target.ask(&ServerList {}, None)?, server)?;
            if *end {
                maintenance::end(target, &server)
            } else {
                maintenance::begin(target, &server, *span, *force)
            }
        }
        Command::Undrain { server } => {
            let server = find(&target.ask(&ServerList {}, None)?, server)?;
            drain::end(target, &server)
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

/// A time as people write it: a number and s, m, h or d.
fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: give a number and s, m, h or d, as in 30m");
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_no_number| wrong())?;
    number.checked_mul(each).map(Duration::from_secs).ok_or_else(wrong)
}

fn state(server: &ServerReport) -> (String, Tone) {
    let (text, tone) = if server.up { ("up", Tone::Good) } else { ("down", Tone::Bad) };
    if let Some(left) = server.maintenance_ms {
        // It is down because somebody wanted it to be.
        return (format!("{text}, maintenance for {}", span(left)), Tone::Plain);
    }
    if server.is_gone() {
        return ("drained, gone".to_owned(), Tone::Plain);
    }
    match (server.draining, server.removable) {
        (false, _) => (text.to_owned(), tone),
        (true, true) => (format!("{text}, drained"), tone),
        (true, false) => (format!("{text}, draining"), tone),
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
                maintenance_ms: None,
                stake: None,
                removable: false,
                given_up: 0,
                traffic: dfs_proto::meta::Traffic::default(),
            })
        };
        assert_eq!(said(1_250_000_000, false), "1250 MB/s");
        assert_eq!(said(48_712_345, true), "48 MB/s, learned");
        assert_eq!(said(1_270_000, true), "1.2 MB/s, learned");
        assert_eq!(said(0, false), "-");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let secs = |text: &str| parse_span(text).map(|span| span.as_secs());
        assert_eq!(
            (secs("90s"), secs("30m"), secs("2h"), secs("1d")),
            (Ok(90), Ok(1800), Ok(7200), Ok(86_400))
        );
        for wrong in ["", "30", "m", "-1s", "1w", "99999999999999999999d", "1\u{b5}"] {
            assert!(secs(wrong).is_err(), "{wrong:?}");
        }
    }
}
