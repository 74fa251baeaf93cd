//! `dfs ops`: what is under way in the cluster, and what took long lately: who waits, for whom, since when.

use std::time::Duration;

use dfs_proto::meta::{DaemonOps, Flight, Ops, OpsReport, Side};

use crate::connect::Target;
use crate::output::{Table, Tone, micros, span};

/// What has taken longer is worth a look.
const LONG_US: u64 = 1_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what has taken so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    min: u64,
    /// At most so many of each daemon, the oldest
    #[arg(short, long, value_name = "COUNT", default_value_t = 20)]
    number: u32,
}

pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<()> {
    let min_us = u64::try_from(Duration::from_millis(args.min).as_micros()).unwrap_or(u64::MAX);
    let report = target.line(None)?.ask(&Ops { min_us, most: args.number })?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show(&report);
    }
    Ok(())
}

fn show(report: &OpsReport) {
    let mut now = Table::new(&["DAEMON", "SINCE", "OPERATION", "ON", "WITH"]);
    let mut late = Table::new(&["DAEMON", "TOOK", "ENDED", "OPERATION", "ON", "WITH"]);
    let (mut count, mut shown, mut slow) = (0, 0, 0);
    for DaemonOps { name, at } in &report.daemons {
        let Some(at) = at else {
            println!("{name} does not say what it is at: it hangs, or the network to it does");
            continue;
        };
        count += at.count;
        for flight in &at.flights {
            shown += 1;
            let tone = if flight.age_us >= LONG_US { Tone::Bad } else { Tone::Plain };
            let since = (micros(flight.age_us), tone);
            now.row([plain(name.clone()), since].into_iter().chain(what(flight)).collect());
        }
        for flight in &at.slow {
            slow += 1;
            let ended = format!("{} ago", span(flight.ended_ms.unwrap_or_default()));
            let head = [plain(name.clone()), plain(micros(flight.age_us)), plain(ended)];
            late.row(head.into_iter().chain(what(flight)).collect());
        }
    }
    println!(
        "under way: {count}{}",
        if shown < count { format!(", of which {shown} are shown") } else { String::new() }
    );
    if shown > 0 {
        now.print();
    }
    println!();
    println!("took longer than a second lately: {slow}");
    if slow > 0 {
        late.print();
    }
}

fn plain(text: String) -> (String, Tone) {
    (text, Tone::Plain)
}

/// The operation, what it is on, and who is at the other end.
fn what(flight: &Flight) -> [(String, Tone); 3] {
    let on = match (flight.ino, flight.chunk) {
        (Some(ino), Some(chunk)) => format!("inode {ino}, chunk {chunk}"),
        (Some(ino), None) => format!("inode {ino}"),
        (None, Some(chunk)) => format!("chunk {chunk}"),
        (None, None) => String::new(),
    };
    let with = match flight.side {
        Side::Serves | Side::Program => format!("for {}", flight.peer),
        Side::Calls => format!("waits for {}", flight.peer),
    };
    [plain(flight.op.clone()), plain(on), plain(with)]
}
