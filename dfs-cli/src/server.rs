//! `dfs server list`: the chunk servers, their disks and load.

use clap::Subcommand;
use dfs_proto::meta::ServerList;

use crate::connect::Target;
use crate::output::{Table, Tone, bytes, span};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All chunk servers that ever registered
    List,
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(target),
    }
}

fn list(target: &Target) -> anyhow::Result<()> {
    let report = target.ask(&ServerList {}, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let mut table = Table::new(&[
        "NUM", "NAME", "ADDRESS", "STATE", "HEARD", "REPLICAS", "FREE", "OF", "LOAD", "DISKS", "LABELS",
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
        let state = if server.up { ("up", Tone::Good) } else { ("down", Tone::Bad) };
        table.row(vec![
            (server.addr.num.to_string(), Tone::Plain),
            (server.name.clone(), Tone::Plain),
            (server.addr.tcp.clone(), Tone::Plain),
            (state.0.to_owned(), state.1),
            (
                server.silent_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", span(ms))),
                Tone::Plain,
            ),
            (server.replicas.to_string(), Tone::Plain),
            (bytes(free), Tone::Plain),
            (bytes(total), Tone::Plain),
            (format!("{} %", server.utilisation_permille / 10), Tone::Plain),
            disks,
            (labels.join(","), Tone::Faint),
        ]);
    }
    table.print();
    Ok(())
}
