//! The master's figures: what this process counted, and what it knows of the cluster while it leads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use dfs_admin::{Figures, Page, number, op_name, state};
use dfs_proto::meta::{
    ClusterReport, ClusterStatus, Policy, PolicyReport, ServerList, ServerReport, ServerReports, SessionList,
    SessionReports,
};

use crate::driver::Driver;

/// What the core knows.
struct Known {
    status: ClusterReport,
    servers: ServerReports,
    sessions: SessionReports,
    policy: PolicyReport,
}

/// The figures of now. A master that does not lead has those of its process alone: what it would say of the cluster
/// may be old.
pub(super) async fn of(driver: Arc<Driver>) -> Figures {
    let known = known(&driver).await;
    Box::new(move |page| {
        process(page, &driver)?;
        let leads = "1 while this master leads and answers";
        page.gauge("dfs_master_leader_state", leads, state(known.is_ok()))?;
        let Ok(known) = &known else { return Ok(()) };
        cluster(page, &known.status)?;
        chunks(page, &known.status)?;
        load(page, known)?;
        servers(page, &known.servers.servers)?;
        server_loads(page, &known.servers.servers)?;
        log_copies(page, &known.status)
    })
}

async fn known(driver: &Arc<Driver>) -> Result<Known, String> {
    Ok(Known {
        status: driver.ask(&ClusterStatus {}).await?,
        servers: driver.ask(&ServerList {}).await?,
        sessions: driver.ask(&SessionList {}).await?,
        policy: driver.ask(&Policy::default()).await?,
    })
}

fn process(page: &mut Page<'_>, driver: &Driver) -> fmt::Result {
    let stats = driver.stats();
    let op = |op| vec![("op", op_name(op))];
    page.times(
        "dfs_master_request_seconds",
        "From a request's arrival to its answer, by operation",
        stats.ops.seen().map(|(of, times, _)| (op(of), times)),
    )?;
    page.counters(
        "dfs_master_failed_requests",
        "Requests that were answered with an error, by operation; that a name is not there is one, too",
        stats.ops.seen().map(|(of, _, failed)| (op(of), failed)),
    )?;
    page.gauge("dfs_master_queue_requests", "Requests that are not answered", number(driver.queue() as u64))?;
    page.times("dfs_master_log_sync_seconds", "Syncs of the log", [(Vec::new(), &stats.log_syncs)])?;
    page.counter("dfs_master_log_appended_records", "Records appended to the log", stats.records.get())?;
    page.times(
        "dfs_master_snapshot_write_seconds",
        "Snapshots, until they were read back",
        [(Vec::new(), &stats.snapshots)],
    )?;
    page.gauge(
        "dfs_master_snapshot_age_seconds",
        "Since the last snapshot, or since this process began if it has written none",
        ms(stats.snapshot_age_ms()),
    )
}

fn cluster(page: &mut Page<'_>, status: &ClusterReport) -> fmt::Result {
    page.gauges(
        "dfs_master_build_info",
        "The version that runs",
        [(vec![("version", status.version.clone())], 1.0)],
    )?;
    page.gauge("dfs_master_uptime_seconds", "Since this process began", ms(status.uptime_ms))?;
    page.gauge(
        "dfs_master_hold_state",
        "1 while the master is on hold and changes nothing",
        state(status.hold.is_some()),
    )?;
    page.gauge("dfs_master_log_last_records", "The last record of the log", number(status.last_index.0))?;
    page.gauge(
        "dfs_master_log_durable_records",
        "The last record on the disk",
        number(status.durable_index.0),
    )?;
    page.gauge(
        "dfs_master_snapshot_last_records",
        "The record of the last snapshot",
        number(status.snapshot_index.0),
    )?;
    page.gauge("dfs_master_inodes", "Files, directories and others", number(status.inodes))?;
    page.gauge("dfs_master_size_bytes", "Of all disks of servers that are up", number(status.total_bytes))?;
    page.gauge("dfs_master_free_bytes", "What may still be written there", number(status.free_bytes))
}

fn chunks(page: &mut Page<'_>, status: &ClusterReport) -> fmt::Result {
    page.gauge("dfs_master_chunks", "Chunks of files", number(status.chunks))?;
    let below = "Chunks with fewer replicas than their goal";
    page.gauge("dfs_master_below_goal_chunks", below, number(status.chunks_below_goal))?;
    let recovering = "Chunks whose replicas are being agreed on: they can't be used until then";
    page.gauge("dfs_master_recovering_chunks", recovering, number(status.chunks_recovering))?;
    page.gauge("dfs_master_open_chunks", "Chunks written and not closed since", number(status.chunks_open))?;
    let gone = "Chunks of which no replica is alive";
    page.gauge("dfs_master_unavailable_chunks", gone, number(status.chunks_unavailable))?;
    let tombs = "Chunks that are to be deleted";
    page.gauge("dfs_master_tombstoned_chunks", tombs, number(status.tombstones))?;
    let damaged = "Blocks that are damaged on some server";
    page.gauge("dfs_master_damaged_blocks", damaged, number(status.blocks_damaged))?;
    let hopeless = "Blocks of which no replica is good";
    page.gauge("dfs_master_hopeless_blocks", hopeless, number(status.blocks_hopeless))?;
    let unknown = "Replicas of chunks that nothing names, quarantined: left alone until a person looks";
    page.gauge("dfs_master_quarantined_replicas", unknown, number(status.replicas_unknown))?;
    let diverged =
        "Replicas found to differ although their servers called them whole, since this master leads";
    page.gauge("dfs_master_diverged_replicas", diverged, number(status.replicas_diverged))
}

fn load(page: &mut Page<'_>, known: &Known) -> fmt::Result {
    let Known { status, sessions, policy, .. } = known;
    page.gauge("dfs_master_sessions", "Mounts that have a session", number(sessions.sessions.len() as u64))?;
    let connected = sessions.sessions.iter().filter(|session| session.connected).count();
    let lost = "Sessions without a connection: their mounts are cut off, or dead";
    let lost_count = number((sessions.sessions.len() - connected) as u64);
    page.gauge("dfs_master_unconnected_sessions", lost, lost_count)?;
    let raising = "Replicas that are being made for the load";
    page.gauge("dfs_master_raising_replicas", raising, number(policy.raising))?;
    let lowering = "Replicas that the load needs no more, on their way out";
    page.gauge("dfs_master_lowering_replicas", lowering, number(policy.lowering))?;
    let moving = "Replicas on their way to emptier servers";
    page.gauge("dfs_master_moving_replicas", moving, number(status.moving))
}

/// Names need not be different; numbers are.
fn named(server: &ServerReport) -> Vec<(&'static str, String)> {
    vec![("server", server.name.clone()), ("num", server.addr.num.to_string())]
}

fn servers(page: &mut Page<'_>, servers: &[ServerReport]) -> fmt::Result {
    let count = |is: &dyn Fn(&ServerReport) -> bool| {
        number(servers.iter().filter(|server| is(server)).count() as u64)
    };
    let in_state = |name: &str, value| (vec![("state", name.to_owned())], value);
    let away = |server: &ServerReport| server.maintenance_ms.is_some();
    page.gauges(
        "dfs_master_servers",
        "Chunk servers, each in one state: up, draining, maintenance, down; without those that were drained and turned off",
        [
            in_state("up", count(&|s| s.up && !s.draining && !away(s))),
            in_state("draining", count(&|s| s.draining && !s.is_gone() && !away(s))),
            in_state("maintenance", count(&away)),
            in_state("down", count(&|s| !s.up && !s.draining && !away(s))),
        ],
    )?;
    let each =
        |value: fn(&ServerReport) -> f64| servers.iter().map(move |server| (named(server), value(server)));
    let up = "1 for a server that is connected and has a lease";
    page.gauges("dfs_master_server_up_state", up, each(|s| state(s.up)))?;
    let silent = "Since the server's last heartbeat; nothing for one that was never heard";
    let heard = servers.iter().filter_map(|s| s.silent_ms.map(|silent| (named(s), ms(silent))));
    page.gauges("dfs_master_server_silent_seconds", silent, heard)?;
    page.gauges("dfs_master_server_replicas", "Replicas that are to be there", each(|s| number(s.replicas)))?;
    let failed = "Disks of the server that failed, as it last said";
    page.gauges(
        "dfs_master_server_failed_disks",
        failed,
        each(|s| number(s.disks.iter().filter(|disk| disk.failed.is_some()).count() as u64)),
    )?;
    let total = "Size of the server's disks";
    page.gauges(
        "dfs_master_server_size_bytes",
        total,
        each(|s| number(s.disks.iter().map(|disk| disk.total_bytes).sum())),
    )?;
    let free = "What may still be written there";
    page.gauges(
        "dfs_master_server_free_bytes",
        free,
        each(|s| number(s.disks.iter().map(|disk| disk.free_bytes).sum())),
    )
}

fn server_loads(page: &mut Page<'_>, servers: &[ServerReport]) -> fmt::Result {
    let each =
        |value: fn(&ServerReport) -> f64| servers.iter().map(move |server| (named(server), value(server)));
    let busy = "How busy the server is, as it last said";
    page.gauges(
        "dfs_master_server_utilisation_ratio",
        busy,
        each(|s| f64::from(s.utilisation_permille) / 1000.0),
    )?;
    page.gauges(
        "dfs_master_server_queue_requests",
        "Requests under way there",
        each(|s| f64::from(s.queue)),
    )?;
    let sent = "What left the server in its last second";
    page.gauges(
        "dfs_master_server_sent_bytes_per_second",
        sent,
        each(|s| number(s.traffic.bytes_out_per_s)),
    )?;
    let got = "What came to the server in its last second";
    page.gauges(
        "dfs_master_server_received_bytes_per_second",
        got,
        each(|s| number(s.traffic.bytes_in_per_s)),
    )
}

fn log_copies(page: &mut Page<'_>, status: &ClusterReport) -> fmt::Result {
    let mut behind: BTreeMap<&str, u64> = BTreeMap::new();
    for copy in &status.copies {
        let worst = behind.entry(&copy.server).or_default();
        *worst = copy.behind.max(*worst);
    }
    page.gauges(
        "dfs_master_log_copy_behind_records",
        "Records on the master's disk that the server's copy of the log lacks",
        behind.into_iter().map(|(server, behind)| (vec![("server", server.to_owned())], number(behind))),
    )
}

fn ms(ms: u64) -> f64 {
    number(ms) / 1000.0
}
