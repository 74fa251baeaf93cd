//! `dfs status`: the cluster on one page.

use dfs_proto::meta::{ClusterStatus, LogCopy};

use crate::connect::Target;
use crate::output::{Tone, bytes, pairs, span};

/// Asks and prints. A degraded cluster is shown, not an error.
#[expect(clippy::too_many_lines, reason = "one line of the page after the other")]
pub(crate) fn run(target: &Target) -> anyhow::Result<()> {
    let report = target.ask(&ClusterStatus {}, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let count = |n: u64| (n.to_string(), if n == 0 { Tone::Plain } else { Tone::Bad });
    let (below, below_tone) = count(report.chunks_below_goal);
    let (recovering, recovering_tone) = count(report.chunks_recovering);
    let (diverged, diverged_tone) = count(report.replicas_diverged);
    let (gone, gone_tone) = count(report.chunks_unavailable);
    let (unknown, unknown_tone) = count(report.replicas_unknown);
    let servers_tone = if report.servers_up == report.servers_known { Tone::Good } else { Tone::Bad };
    let used = report.total_bytes.saturating_sub(report.free_bytes);
    let mut lines = vec![
        ("cluster", format!("{} generation {}", report.cluster, report.generation), Tone::Plain),
        (
            "master",
            format!("{} up {}, term {}", report.version, span(report.uptime_ms), report.term),
            Tone::Plain,
        ),
        (
            "hold",
            report.hold.clone().unwrap_or_else(|| "no".into()),
            if report.hold.is_some() { Tone::Bad } else { Tone::Plain },
        ),
        (
            "log",
            format!(
                "record {}, on disk to {}, snapshot at {}",
                report.last_index, report.durable_index, report.snapshot_index
            ),
            Tone::Plain,
        ),
        log_copies(&report.copies),
        ("servers", format!("{} of {} up", report.servers_up, report.servers_known), servers_tone),
        (
            "space",
            format!(
                "{} used, {} free of {}",
                bytes(used),
                bytes(report.free_bytes),
                bytes(report.total_bytes)
            ),
            Tone::Plain,
        ),
        ("files", format!("{} inodes, {} mounts", report.inodes, report.sessions), Tone::Plain),
        (
            "chunks",
            format!(
                "{} of at most {}, goal {} replicas{}",
                report.chunks,
                bytes(u64::from(report.chunk_size.bytes())),
                report.goal,
                own_goals(report.goals_own, report.goal_highest)
            ),
            Tone::Plain,
        ),
        ("  below goal", below, below_tone),
        ("  recovering", recovering, recovering_tone),
        ("  open for writing", report.chunks_open.to_string(), Tone::Plain),
        ("  replicas that differed", diverged, diverged_tone),
        ("  unavailable", gone, gone_tone),
        ("  unknown replicas", unknown, unknown_tone),
        ("to be deleted", format!("{} chunks", report.tombstones), Tone::Plain),
    ];
    if report.blocks_damaged > 0 {
        let lost = match report.blocks_hopeless {
            0 => "being mended".to_owned(),
            lost => format!("{lost} without a good copy"),
        };
        let text = format!("{} blocks, {lost}; see `dfs scrub status`", report.blocks_damaged);
        lines.push(("damaged", text, Tone::Bad));
    }
    if report.moving > 0 {
        lines.push(("space", format!("{} replicas move to emptier servers", report.moving), Tone::Plain));
    }
    for away in &report.maintained {
        let up = if away.up { "up" } else { "down" };
        lines.push((
            "maintenance",
            format!("{} ({up}), {} left", away.server, span(away.left_ms)),
            Tone::Plain,
        ));
    }
    pairs(&lines);
    Ok(())
}

/// Copies named one by one: the page stays one.
const NAMED: usize = 3;
/// A copy that is behind for so long is worth a look.
const BEHIND_MS: u64 = 60_000;

/// Where goals differ from the cluster's.
fn own_goals(count: u64, highest: u8) -> String {
    match count {
        0 => String::new(),
        _ => format!(" ({count} files and directories have their own; the highest is {highest})"),
    }
}

/// How far the servers' copies of the log are, those that lag most first.
fn log_copies(copies: &[LogCopy]) -> (&'static str, String, Tone) {
    let lags = |copy: &&LogCopy| copy.behind > 0 || copy.trouble.is_some();
    let mut lagging: Vec<&LogCopy> = copies.iter().filter(lags).collect();
    lagging.sort_by_key(|copy| std::cmp::Reverse((copy.trouble.is_some(), copy.behind)));
    let mut text =
        format!("{} of {} servers have all of the log", copies.len() - lagging.len(), copies.len());
    for copy in lagging.iter().take(NAMED) {
        let since = copy.whole_ms.map(|ms| format!(", whole {} ago", span(ms))).unwrap_or_default();
        text.push_str(&format!("; {} {} records behind{since}", copy.server, copy.behind));
        if let Some(why) = &copy.trouble {
            text.push_str(&format!(" ({why})"));
        }
    }
    if lagging.len() > NAMED {
        text.push_str(&format!("; {} more, see --json", lagging.len() - NAMED));
    }
    let bad = |copy: &&LogCopy| copy.trouble.is_some() || copy.whole_ms.is_none_or(|ms| ms > BEHIND_MS);
    let tone = if lagging.iter().any(bad) { Tone::Bad } else { Tone::Plain };
    ("  copies", text, tone)
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::LogIndex;

    use super::*;

    #[test]
    fn copies_that_lag_are_named() {
        let copy = |server: &str, behind, whole_ms, trouble: Option<&str>| LogCopy {
            server: server.to_owned(),
            up: true,
            index: LogIndex(7),
            behind,
            whole_ms,
            trouble: trouble.map(str::to_owned),
        };
        let all = [copy("a", 0, Some(10), None), copy("b", 3, Some(900), None)];
        let (_, text, tone) = log_copies(&all);
        assert_eq!(text, "1 of 2 servers have all of the log; b 3 records behind, whole 900 ms ago");
        assert_eq!(tone, Tone::Plain);
        let (_, text, tone) =
            log_copies(&[copy("a", 9, None, Some("full")), copy("b", 3, Some(61_000), None)]);
        assert_eq!(
            text,
            "0 of 2 servers have all of the log; a 9 records behind (full); b 3 records behind, whole 1 min 1 s ago"
        );
        assert_eq!(tone, Tone::Bad);
        assert_eq!(log_copies(&all[1..]).2, Tone::Plain);
    }
}
