//! `dfs server maintenance`: a server that is away for a while on purpose.

use std::time::Duration;

use anyhow::{Context, bail};
use dfs_proto::meta::{MaintainServer, OrderReport, ServerList, ServerReport};

use super::{LOOK_EVERY, find};
use crate::clock::Deadline;
use crate::connect::Target;
use crate::output::{Waiting, span};

/// Primaries that are still asked to hand over after this long are counted, and not waited for.
const HAND_OVER: Duration = Duration::from_secs(30);
/// Walks over the chunks until what the last one found is of after the order.
const PASSES: u64 = 2;

pub(super) fn begin(
    target: &Target,
    server: &ServerReport,
    how_long: Duration,
    force: bool,
) -> anyhow::Result<()> {
    let for_ms = u64::try_from(how_long.as_millis()).unwrap_or(u64::MAX);
    let report = order(target, server, Some(for_ms), force)?;
    println!(
        "{} is in maintenance for {}: {} replicas are kept for its return, and it gets nothing new",
        server.name,
        span(for_ms),
        server.replicas
    );
    report.notes.iter().for_each(|note| println!("{note}"));
    if server.up { hand_over(target, server) } else { Ok(()) }
}

pub(super) fn end(target: &Target, server: &ServerReport) -> anyhow::Result<()> {
    order(target, server, None, false)?;
    println!("{} is no longer in maintenance", server.name);
    if !server.up {
        println!("it is down: what it has is made anew elsewhere unless it comes back soon");
    }
    Ok(())
}

fn order(
    target: &Target,
    server: &ServerReport,
    for_ms: Option<u64>,
    force: bool,
) -> anyhow::Result<OrderReport> {
    let report = target
        .ask(&MaintainServer { server: server.addr.num, for_ms, force }, None)
        .with_context(|| format!("{}: nothing was changed", server.name))?;
    match report.refused {
        Some(why) => bail!("{}: nothing was changed: {why}", server.name),
        None => Ok(report),
    }
}

/// Waits until it numbers no writes any more.
fn hand_over(target: &Target, server: &ServerReport) -> anyhow::Result<()> {
    let _shown = Waiting::show("primaries hand over");
    let (limit, mut first) = (Deadline::after(HAND_OVER), None);
    loop {
        let reports = target.ask(&ServerList {}, None)?;
        let passed = reports.passes.saturating_sub(*first.get_or_insert(reports.passes));
        let leads = find(&reports, &server.addr.num.to_string())?.stake.map_or(0, |stake| stake.leads);
        if passed >= PASSES && leads == 0 {
            println!("it can be stopped now");
            return Ok(());
        }
        if limit.passed() {
            println!(
                "it still leads {leads} chunks that are written: stopping it now makes their writers wait"
            );
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
