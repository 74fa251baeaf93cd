//! `dfs top`: what the cluster moves now, on one screen: in all, each server, the busiest chunks.

use std::time::Duration;

use dfs_proto::meta::{ClusterReport, ClusterStatus, Heat, HeatReport, ServerList, ServerReport, Traffic};

use crate::connect::{Line, Target};
use crate::heat;
use crate::output::{Table, Tone, bytes, micros, on_terminal};

/// A server that is busier than this is worth a look.
const BUSY_PERMILLE: u16 = 800;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds between two looks; the master hears from its servers once a second
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    delay: u64,
    /// Look so many times and end; without it until interrupted, or once if nobody watches
    #[arg(short, long)]
    number: Option<u64>,
    /// How many chunks
    #[arg(short, long, default_value_t = 10)]
    chunks: u32,
}

/// One look.
struct Look {
    status: ClusterReport,
    servers: Vec<ServerReport>,
    heat: HeatReport,
}

pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<()> {
    let watched = on_terminal() && !target.json;
    let looks = args.number.unwrap_or(if watched { u64::MAX } else { 1 });
    for at in 0..looks {
        if at > 0 {
            std::thread::sleep(Duration::from_secs(args.delay));
        }
        // Each by a connection of its own: a master that restarts in between is found again.
        let look = look(&target.line(None)?, args.chunks)?;
        if target.json {
            let Look { status, servers, heat } = &look;
            let shown = serde_json::json!({ "status": status, "servers": servers, "heat": heat.shown() });
            println!("{shown}");
            continue;
        }
        if watched {
            print!("\x1b[H\x1b[2J");
        } else if at > 0 {
            println!();
        }
        show(&look);
    }
    Ok(())
}

fn look(line: &Line, chunks: u32) -> anyhow::Result<Look> {
    let status = line.ask(&ClusterStatus {})?;
    let mut servers = line.ask(&ServerList {})?.servers;
    servers.retain(|server| !server.is_gone());
    servers.sort_by_key(|server| (server.up, std::cmp::Reverse(server.utilisation_permille)));
    Ok(Look { status, servers, heat: line.ask(&Heat { ino: None, most: chunks })? })
}

fn show(look: &Look) {
    println!("{}", headline(look));
    println!();
    let mut table =
        Table::new(&["SERVER", "BUSY", "IN", "OUT", "REQUESTS", "MEDIAN", "SLOWEST 1 %", "QUEUE"]);
    for server in &look.servers {
        table.row(row(server));
    }
    table.print();
    println!();
    heat::print(&look.heat);
}

fn row(server: &ServerReport) -> Vec<(String, Tone)> {
    if !server.up {
        return vec![(server.name.clone(), Tone::Plain), ("down".to_owned(), Tone::Bad)];
    }
    let Traffic { bytes_in_per_s, bytes_out_per_s, requests_per_s, service_p50_us, service_p99_us } =
        server.traffic;
    let busy = if server.utilisation_permille > BUSY_PERMILLE { Tone::Bad } else { Tone::Plain };
    vec![
        (server.name.clone(), Tone::Plain),
        (format!("{} %", server.utilisation_permille / 10), busy),
        (rate(bytes_in_per_s), Tone::Plain),
        (rate(bytes_out_per_s), Tone::Plain),
        (format!("{requests_per_s}/s"), Tone::Plain),
        (took(service_p50_us), Tone::Plain),
        (took(service_p99_us), Tone::Plain),
        (server.queue.to_string(), Tone::Plain),
    ]
}

/// What all servers move, and what is not as it should be.
fn headline(look: &Look) -> String {
    let up = || look.servers.iter().filter(|server| server.up);
    let sum = |of: fn(&Traffic) -> u64| up().map(|server| of(&server.traffic)).fold(0, u64::saturating_add);
    let mut words = vec![
        format!("in {}", rate(sum(|t| t.bytes_in_per_s))),
        format!("out {}", rate(sum(|t| t.bytes_out_per_s))),
        format!("{} requests/s", sum(|t| t.requests_per_s)),
        format!("{} of {} servers up", up().count(), look.servers.len()),
        format!("{} mounts", look.status.sessions),
    ];
    let counts = [
        (look.status.chunks_below_goal, "chunks below goal"),
        (look.status.chunks_recovering, "recovering"),
        (look.status.chunks_unavailable, "unavailable"),
    ];
    words
        .extend(counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    words.extend(look.status.hold.iter().map(|why| format!("ON HOLD: {why}")));
    words.join(", ")
}

fn rate(per_s: u64) -> String {
    format!("{}/s", bytes(per_s))
}

/// Of requests, of which there may have been none.
fn took(us: u32) -> String {
    if us == 0 { "-".to_owned() } else { micros(us.into()) }
}
