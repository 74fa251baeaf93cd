//! The server's figures. All that was counted since the process began, and what stands now.

use std::fmt;
use std::sync::Arc;

use dfs_admin::{Figures, Page, number, op_name, state};
use dfs_proto::control::ScrubReport;

use crate::clock;
use crate::disks::DiskHandle;
use crate::server::Server;
use crate::startup::disk_ix;
use crate::store::Metrics;

/// What the core said at one moment.
struct Said {
    has_lease: bool,
    scrub: ScrubReport,
    /// By disk.
    replicas: Vec<usize>,
}

/// The figures of now.
pub(super) fn of(server: Arc<Server>) -> Figures {
    let now = clock::now();
    let disks = server.disks.len();
    let said = server.with_core(|core| Said {
        has_lease: core.has_lease(now),
        scrub: core.scrub_report(now),
        replicas: (0..disks).map(|at| core.replicas_on(disk_ix(at))).collect(),
    });
    Box::new(move |page| {
        requests(page, &server)?;
        standing(page, &server, &said)?;
        disk_times(page, &server.disks)?;
        disk_counts(page, &server.disks)?;
        disk_state(page, &server.disks, &said)
    })
}

fn requests(page: &mut Page<'_>, server: &Server) -> fmt::Result {
    let load = &server.load;
    let op = |op| vec![("op", op_name(op))];
    page.times(
        "dfs_chunkserver_request_seconds",
        "From a request's arrival to its answer, by operation",
        load.ops().seen().map(|(of, times, _)| (op(of), times)),
    )?;
    page.counters(
        "dfs_chunkserver_failed_requests",
        "Requests that were answered with an error, by operation",
        load.ops().seen().map(|(of, _, failed)| (op(of), failed)),
    )?;
    let moved = load.moved();
    page.counter("dfs_chunkserver_received_bytes", "Bytes of requests that arrived", moved.bytes_in)?;
    page.counter("dfs_chunkserver_sent_bytes", "Bytes that left over the network", moved.bytes_out)?;
    page.counter("dfs_chunkserver_copied_bytes", "Bytes that left to fill other replicas", moved.copied)?;
    page.gauge("dfs_chunkserver_queue_requests", "Requests that are not answered", number(load.in_flight()))
}

fn standing(page: &mut Page<'_>, server: &Server, said: &Said) -> fmt::Result {
    let (permille, capacity) = server.load.last_sample();
    page.gauge(
        "dfs_chunkserver_utilisation_ratio",
        "The worst of processor, network, disk and queue, of what the server can",
        f64::from(permille) / 1000.0,
    )?;
    page.gauge(
        "dfs_chunkserver_capacity_bytes_per_second",
        "What the server can move; 0 while it is not known",
        number(capacity),
    )?;
    let lease = "1 while the server has a lease of the master and so may serve";
    page.gauge("dfs_chunkserver_lease_state", lease, state(said.has_lease))?;
    let scrub = &said.scrub;
    page.counter("dfs_chunkserver_damage_found_blocks", "Blocks found damaged", scrub.found)?;
    page.counter("dfs_chunkserver_damage_mended_blocks", "Damaged blocks that were made good", scrub.mended)?;
    page.gauge("dfs_chunkserver_damaged_blocks", "Blocks that are damaged now", number(scrub.damaged))?;
    let hopeless = "Damaged blocks of which no member of their chunk has a good copy";
    page.gauge("dfs_chunkserver_hopeless_blocks", hopeless, number(scrub.hopeless))
}

fn of_disk(disk: &Arc<DiskHandle>) -> Vec<(&'static str, String)> {
    vec![("disk", disk.path.display().to_string())]
}

fn disk_times(page: &mut Page<'_>, disks: &[Arc<DiskHandle>]) -> fmt::Result {
    page.times(
        "dfs_chunkserver_disk_read_seconds",
        "Reads that were not in the page cache",
        disks.iter().map(|disk| (of_disk(disk), &disk.times.reads)),
    )?;
    page.times(
        "dfs_chunkserver_disk_write_seconds",
        "Writes, into the page cache as a rule",
        disks.iter().map(|disk| (of_disk(disk), &disk.times.writes)),
    )?;
    page.times(
        "dfs_chunkserver_disk_sync_seconds",
        "Operations that end when the disk has all of it",
        disks.iter().map(|disk| (of_disk(disk), &disk.times.syncs)),
    )
}

/// A family of the store's counters: its name, its help, and which.
type Family = (&'static str, &'static str, fn(&Metrics) -> u64);

const COUNTED: &[Family] = &[
    ("dfs_chunkserver_disk_read_bytes", "Bytes read of replicas", |m| m.read_bytes),
    ("dfs_chunkserver_disk_written_bytes", "Bytes written to replicas", |m| m.written_bytes),
    ("dfs_chunkserver_disk_reads", "Reads of replicas", |m| m.reads),
    ("dfs_chunkserver_disk_writes", "Writes to replicas", |m| m.writes),
    ("dfs_chunkserver_disk_syncs", "Syncs of replicas", |m| m.syncs),
    ("dfs_chunkserver_disk_corrupt_blocks", "Blocks found not to match their checksums", |m| {
        m.corrupt_blocks
    }),
    ("dfs_chunkserver_disk_damaged_sectors", "Sectors of checksum tables found damaged", |m| {
        m.damaged_sectors
    }),
    ("dfs_chunkserver_disk_full_writes", "Writes refused for want of space", |m| m.no_space),
    ("dfs_chunkserver_disk_failed_replicas", "Replicas that failed for good", |m| m.failed),
];

fn disk_counts(page: &mut Page<'_>, disks: &[Arc<DiskHandle>]) -> fmt::Result {
    let counts: Vec<Metrics> = disks.iter().map(|disk| disk.store.metrics()).collect();
    for (name, help, which) in COUNTED {
        let rows = disks.iter().zip(&counts).map(|(disk, counts)| (of_disk(disk), which(counts)));
        page.counters(name, help, rows)?;
    }
    let errors = disks.iter().map(|disk| (of_disk(disk), disk.times.errors.get()));
    page.counters("dfs_chunkserver_disk_errors", "Operations that the disk failed", errors)
}

fn disk_state(page: &mut Page<'_>, disks: &[Arc<DiskHandle>], said: &Said) -> fmt::Result {
    let space = |disk: &Arc<DiskHandle>| disk.last_space().unwrap_or_default();
    page.gauges(
        "dfs_chunkserver_disk_size_bytes",
        "Size of the disk's filesystem; 0 while it can't be asked",
        disks.iter().map(|disk| (of_disk(disk), number(space(disk).total))),
    )?;
    page.gauges(
        "dfs_chunkserver_disk_free_bytes",
        "What may still be written, what is in the trash included",
        disks.iter().map(|disk| {
            let space = space(disk);
            (of_disk(disk), number((space.free + space.trash).saturating_sub(space.reserve)))
        }),
    )?;
    page.gauges(
        "dfs_chunkserver_disk_replicas",
        "Replicas on the disk",
        disks.iter().zip(&said.replicas).map(|(disk, count)| (of_disk(disk), number(*count as u64))),
    )?;
    page.gauges(
        "dfs_chunkserver_disk_failed_state",
        "1 for a disk that takes no writes any more, or can't be asked for its space",
        disks.iter().map(|disk| {
            let failed = disk.store.suspect() || disk.last_space().is_err();
            (of_disk(disk), state(failed))
        }),
    )
}
