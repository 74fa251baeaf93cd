//! `dfs status`: the cluster on one page.

use dfs_proto::meta::ClusterStatus;

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
                "{} of at most {}, goal {} replicas",
                report.chunks,
                bytes(u64::from(report.chunk_size.bytes())),
                report.goal
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
    pairs(&lines);
    Ok(())
}
