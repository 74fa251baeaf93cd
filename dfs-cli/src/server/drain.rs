//! `dfs server drain` and `undrain`: emptying a server, and how far that is.

use std::time::Duration;

use anyhow::{Context, bail};
use dfs_proto::meta::{DrainServer, ServerList, ServerReport, ServerStake};

use super::{LOOK_EVERY, find};
use crate::clock::Stopwatch;
use crate::connect::Target;
use crate::output::{bytes, span};

/// An estimate of less than this long a look says little.
const ESTIMATE_AFTER: Duration = Duration::from_secs(3);

pub(super) fn begin(target: &Target, server: &ServerReport, force: bool) -> anyhow::Result<()> {
    order(target, server, true, force)?;
    let server = look(target, server)?;
    println!("{} is being drained: {}", server.name, left(&server, None));
    Ok(())
}

pub(super) fn end(target: &Target, server: &ServerReport) -> anyhow::Result<()> {
    order(target, server, false, false)?;
    println!("{} takes replicas again: {} are still there", server.name, server.replicas);
    Ok(())
}

fn order(target: &Target, server: &ServerReport, drain: bool, force: bool) -> anyhow::Result<()> {
    let report = target
        .ask(&DrainServer { server: server.addr.num, drain, force }, None)
        .with_context(|| format!("{} is not drained", server.name))?;
    match report.refused {
        Some(why) => bail!("{} is not drained: {why}", server.name),
        None => Ok(()),
    }
}

fn look(target: &Target, server: &ServerReport) -> anyhow::Result<ServerReport> {
    find(&target.ask(&ServerList {}, None)?, &server.addr.num.to_string())
}

/// Says how far it is until nothing counts on it.
pub(super) fn follow(target: &Target, server: &ServerReport) -> anyhow::Result<()> {
    let (watch, first) = (Stopwatch::start(), look(target, server)?.replicas);
    let mut last = (0, String::new());
    loop {
        let report = look(target, server)?;
        if !report.draining {
            bail!("{} is not drained any more", server.name);
        }
        if report.removable {
            println!("{} holds nothing that counts: it is safe to remove", server.name);
            if report.given_up > 0 {
                println!(
                    "replicas of {} chunks that were given up are left there for a person to look at",
                    report.given_up
                );
            }
            return Ok(());
        }
        let estimate = estimate(first, report.replicas, watch.elapsed());
        let stops = what_stops(&report).unwrap_or_default();
        if last != (report.replicas, stops.clone()) {
            println!("{}", left(&report, estimate));
            if !stops.is_empty() {
                println!("{stops}");
            }
            last = (report.replicas, stops);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// As fast as until now.
fn estimate(first: u64, now: u64, took: Duration) -> Option<Duration> {
    let done = u32::try_from(first.checked_sub(now)?).ok().filter(|done| *done > 0)?;
    let left = u32::try_from(now).ok()?;
    (took >= ESTIMATE_AFTER).then(|| took / done * left)
}

fn left(server: &ServerReport, estimate: Option<Duration>) -> String {
    let size = server.stake.map_or_else(String::new, |stake| format!(", {}", bytes(stake.bytes)));
    let about = estimate.map_or_else(String::new, |time| {
        format!(", about {} to go", span(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    });
    format!("{} replicas left{size}{about}", server.replicas)
}

/// What can't go on by itself, in words.
fn what_stops(server: &ServerReport) -> Option<String> {
    let ServerStake { no_server, no_space, no_disk, unready, .. } = server.stake?;
    let why = [
        (no_server, "have no other place: every server that takes replicas has them; add a server"),
        (no_space, "have no other place: the other servers have no room; add a disk or a server"),
        (no_disk, "have no other place: no disk of the other servers takes writes; see `dfs server list`"),
        (unready, "are being recovered, or wait for their servers to be up"),
    ];
    let said: Vec<String> = why
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("  {count} chunks {why}"))
        .collect();
    (!said.is_empty()).then(|| said.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_goes_on_as_it_was() {
        let secs =
            |first, now, took| estimate(first, now, Duration::from_secs(took)).map(|time| time.as_secs());
        assert_eq!(secs(100, 50, 10), Some(10));
        assert_eq!(secs(100, 99, 10), Some(990));
        assert_eq!(secs(100, 100, 10), None, "nothing was done yet");
        assert_eq!(secs(100, 110, 10), None, "it gets more");
        assert_eq!(secs(100, 50, 1), None, "too early");
    }
}
