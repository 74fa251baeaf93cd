//! After healing: the cluster comes to rest within a bound, serves every file, its replicas are equal and as
//! many as the goal, and `dfs fsck` finds nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use dfs_client::Client;
use dfs_client::net::{LinkId, Net, NetError};
use dfs_disk::sim::Rng;
use dfs_proto::checksum::digest_of;
use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, Ino, ServerNum};
use dfs_proto::meta::{
    ChunkReport, ClusterReport, ClusterStatus, FileInfo, FileReport, Finding, FindingKind, Fsck, FsckServer,
    ScrubNow, ScrubStatus, ServerList, ServerScrub,
};
use tokio::sync::mpsc;

use super::Shared;
use super::client::SimNet;
use super::fabric::Node;
use super::work::{self, ROOT};
use super::world::World;
use crate::model::names::NameOp;
use crate::model::stamp::SECTOR;
use crate::model::{Actor, FileNum};

/// Goal and health are reached within this time after the programs ended. Ten times the longest wait in
/// it, a session's lease, because waits follow one another.
const REST_LIMIT_US: u64 = 100_000_000;
const LOOK_EVERY_US: u64 = 300_000;
/// Where replicas move, none has for so many looks: longer than the master's walk over the chunks takes to come by again,
/// three times.
const STILL_LOOKS: u32 = 30;
/// As `dfs fsck` does it.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS_US: u64 = 1_200_000;
/// Reading everything takes at most this.
const READ_LIMIT_US: u64 = 60_000_000;

/// Writes and flushes that never returned, for people.
#[must_use]
pub fn unfinished(world: &World) -> String {
    let writes = world.history.writes.iter().filter(|write| write.returned.is_none());
    let flushes = world.history.flushes.iter().filter(|flush| flush.returned.is_none());
    let alive = |actor: Actor| world.is_alive(Node::Client(actor.client));
    let mut text = String::new();
    for write in writes.filter(|write| alive(write.actor)) {
        let _ = write!(text, " {:?} writes {:?} of {:?};", write.actor, write.stamp, write.file);
    }
    for flush in flushes.filter(|flush| alive(flush.actor)) {
        let _ = write!(text, " {:?} {:?} of {:?};", flush.actor, flush.kind, flush.file);
    }
    if text.is_empty() { " no write or flush, but an open, a read or a name".to_owned() } else { text }
}

/// All verdicts of the healed cluster.
pub(super) async fn verify(shared: &Arc<Shared>) {
    let new = shared.act(|world| world.new_client(Role::Tool, None));
    let net = SimNet::new(Arc::clone(shared), new.node);
    let Some(link) = rot(shared, &net).await else { return };
    if let Err(error) = scrub(shared, &net, link).await {
        return shared.act(|world| world.violate("alive", format!("no scrub begins: {error}")));
    }
    let read = work::within(shared, READ_LIMIT_US, read_all(shared)).await;
    if read.is_err() {
        shared
            .act(|world| world.violate("alive", format!("reading everything takes over {READ_LIMIT_US} us")));
        return;
    }
    // What the reading found damaged is repaired now.
    let Some(link) = rest(shared, &net, "reading everything").await else { return };
    fsck(shared, &net, link).await;
    let files = shared.act(|world| {
        check_closed(world);
        world.files.clone()
    });
    for (file, ino) in files {
        match net.ask(link, &FileInfo { ino, from: dfs_proto::units::ChunkIndex(0) }).await {
            Ok(report) => shared.act(|world| check_replicas(world, file, &report)),
            Err(error) => {
                shared.act(|world| world.violate("alive", format!("no report of {file:?}: {error}")))
            }
        }
    }
}

/// Flips bits of the files' chunks.
async fn rot(shared: &Arc<Shared>, net: &SimNet) -> Option<LinkId> {
    let link = rest(shared, net, "healing").await?;
    let files = shared.act(|world| world.files.clone());
    for (_, ino) in files {
        if let Ok(report) = net.ask(link, &FileInfo { ino, from: dfs_proto::units::ChunkIndex(0) }).await {
            shared.act(|world| super::rot::flip(world, &report));
        }
    }
    Some(link)
}

/// Has all servers scrub; the cluster is not at rest before they have.
async fn scrub(shared: &Arc<Shared>, net: &SimNet, link: LinkId) -> Result<(), NetError> {
    let before = net.ask(link, &ScrubStatus {}).await?;
    let passes = |server: &ServerScrub| server.scrub.disks.first().map_or(0, |disk| disk.passes);
    let due = before.servers.iter().map(|server| (server.server, passes(server) + 1)).collect();
    net.ask(link, &ScrubNow { server: None }).await?;
    shared.act(|world| world.scrubs_due = due);
    Ok(())
}

/// The Whole oracle: what `dfs fsck` asks, over the network.
async fn fsck(shared: &Arc<Shared>, net: &SimNet, link: LinkId) {
    let checked = work::within(shared, READ_LIMIT_US, find(shared, net, link)).await;
    shared.act(|world| match checked {
        Ok(Ok(found)) => {
            // What a power cut took back of the master's log, servers may have been told.
            let explained = |finding: &&Finding| finding.kind == FindingKind::Unknown && world.tails_lost > 0;
            let wrong: Vec<String> =
                found.iter().filter(|finding| !explained(finding)).map(ToString::to_string).collect();
            wrong.into_iter().for_each(|finding| world.violate("whole", format!("fsck: {finding}")));
        }
        Ok(Err(why)) => world.violate("alive", format!("fsck: {why}")),
        Err(_) => world.violate("alive", format!("fsck takes over {READ_LIMIT_US} us")),
    });
}

/// All findings. Those about replicas count when they stay: what a server is about to be told shows, too.
async fn find(shared: &Arc<Shared>, net: &SimNet, link: LinkId) -> Result<Vec<Finding>, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let mut found = Vec::new();
    let mut begin = true;
    loop {
        let part = net.ask(link, &Fsck { begin }).await.map_err(|error| failed(&error))?;
        begin = false;
        found.extend(part.found);
        if part.done {
            break;
        }
    }
    let servers = net.ask(link, &ServerList {}).await.map_err(|error| failed(&error))?.servers;
    for server in servers {
        let num = server.addr.num;
        let mut left = look_at(shared, net, link, num).await?;
        for _ in 0..LOOKS {
            if left.is_empty() {
                break;
            }
            shared.sleep_us(BETWEEN_LOOKS_US).await;
            let again = look_at(shared, net, link, num).await?;
            left.retain(|finding| again.contains(finding));
        }
        found.extend(left);
    }
    Ok(found)
}

/// `dfs fsck` names a server that it could not look at, and its user asks again.
async fn look_at(
    shared: &Arc<Shared>,
    net: &SimNet,
    link: LinkId,
    server: ServerNum,
) -> Result<Vec<Finding>, String> {
    let (mut found, mut from, mut failures) = (Vec::new(), Some(ChunkId(0)), 0);
    while let Some(at) = from {
        let part = match net.ask(link, &FsckServer { server, from: at }).await {
            // Of the connection that it came over nobody knew yet that it had not survived the faults.
            Err(_) if failures < LOOKS => {
                failures += 1;
                shared.sleep_us(BETWEEN_LOOKS_US).await;
                continue;
            }
            part => part.map_err(|error| format!("server {server}: {error}"))?,
        };
        found.extend(part.found);
        from = part.next;
    }
    Ok(found)
}

/// Waits until the cluster is at rest. `None`, and a violation, when that takes too long.
async fn rest(shared: &Arc<Shared>, net: &SimNet, after: &str) -> Option<LinkId> {
    let link = work::within(shared, REST_LIMIT_US, until_rest(shared, net)).await.ok();
    if link.is_none() {
        shared.act(|world| {
            let last = std::mem::take(&mut world.last_look);
            world.violate("whole", format!("not at rest {REST_LIMIT_US} us after {after}: {last}"));
        });
    }
    link
}

/// Asks the master until nothing is left to do.
async fn until_rest(shared: &Arc<Shared>, net: &SimNet) -> LinkId {
    let (notices, _keep) = mpsc::channel(16);
    let mut link = None;
    loop {
        let on = match link {
            Some(link) => Ok(link),
            None => net.dial_master(notices.clone()).await,
        };
        if let Ok(on) = on {
            match net.ask(on, &ClusterStatus {}).await {
                Ok(report) => {
                    if shared.act(|world| look(world, &report)) && whole(shared, net, on).await {
                        return on;
                    }
                    link = Some(on);
                }
                Err(_) => link = None,
            }
        }
        shared.sleep_us(LOOK_EVERY_US).await;
    }
}

/// Whether nothing is left to do.
fn look(world: &mut World, report: &ClusterReport) -> bool {
    let chunks = world.master.state().into_iter().flat_map(|state| state.chunks.iter_from(ChunkId(0)));
    let open = chunks.filter(|(_, meta)| meta.open);
    let cuts = world.master.state().into_iter().flat_map(|state| state.ns.intents());
    world.last_look = format!(
        "{report:?}; open: {:?}; being cut: {:?}",
        open.collect::<Vec<_>>(),
        cuts.map(|(ino, _)| ino).collect::<Vec<_>>()
    );
    if report.replicas_diverged > 0 {
        world.violate(
            "equal",
            format!("{} replicas differed when they were closed", report.replicas_diverged),
        );
    }
    let servers = u32::from(world.shape.servers);
    world.still_looks = if report.moving > 0 { 0 } else { world.still_looks.saturating_add(1) };
    let still = !world.shape.small_disks || world.still_looks > STILL_LOOKS;
    still
        && report.hold.is_none()
        && report.servers_up == servers
        && report.chunks_below_goal == 0
        && report.chunks_recovering == 0
        && report.chunks_unavailable == 0
        && report.chunks_open == 0
}

/// Whether every chunk of the files has its members, and those are equal. The counts of the report are of the
/// last walk over the chunks, and may be older than the last fault; a write that nobody waits for any more
/// may still be on its way to a member that was cut off.
async fn whole(shared: &Arc<Shared>, net: &SimNet, link: LinkId) -> bool {
    match net.ask(link, &ScrubStatus {}).await {
        Ok(reports) => {
            let due = shared.act(|world| world.scrubs_due.clone());
            let is_due = |server: &ServerScrub| {
                let passes = server.scrub.disks.iter().map(|disk| disk.passes).min();
                due.get(&server.server).is_some_and(|due| passes.is_none_or(|passes| passes < *due))
            };
            if let Some(server) = reports.servers.iter().find(|server| is_due(server)) {
                shared.act(|world| world.last_look = format!("still scrubbing: {server:?}"));
                return false;
            }
        }
        Err(_) => return false,
    }
    match net.ask(link, &ServerList {}).await {
        Ok(list) => {
            let full = list.servers.into_iter().find(|server| server.draining && server.replicas > 0);
            if let Some(server) = full {
                shared.act(|world| world.last_look = format!("not drained: {server:?}"));
                return false;
            }
        }
        Err(_) => return false,
    }
    let (files, goal) = shared.act(|world| (world.files.clone(), usize::from(world.shape.goal)));
    for (file, ino) in files {
        let Ok(report) = net.ask(link, &FileInfo { ino, from: dfs_proto::units::ChunkIndex(0) }).await else {
            return false;
        };
        let odd = report.chunks.iter().find(|chunk| chunk.recovering || chunk.members.len() != goal);
        if let Some(chunk) = odd {
            shared.act(|world| world.last_look = format!("{file:?}: {chunk:?}"));
            return false;
        }
        let unequal = |world: &mut World| {
            let mut whys = report.chunks.iter().filter_map(|chunk| equal(world, chunk, false).err());
            whys.next().map(|why| world.last_look = format!("{file:?}: {why}"))
        };
        if shared.act(unequal).is_some() {
            return false;
        }
    }
    true
}

/// Reads every file and every name, as a program that was started last.
async fn read_all(shared: &Arc<Shared>) {
    let new = shared.act(|world| world.new_client(Role::Client, None));
    let Some(client) = work::connect(shared, &new, false).await else {
        return shared.act(|world| world.violate("alive", "no session after healing".to_owned()));
    };
    let Node::Client(number) = new.node else { return };
    let actor = Actor { client: number, stream: 0 };
    let files = shared.act(|world| world.files.clone());
    for (file, ino) in files {
        read_file(shared, &client, actor, file, ino).await;
    }
    let homes = shared.act(|world| world.homes.clone());
    let mut rng = Rng::new(new.seed);
    for (owner, home) in homes {
        look_up_all(shared, &client, owner, home, &mut rng).await;
    }
}

async fn read_file(shared: &Arc<Shared>, client: &Client<SimNet>, actor: Actor, file: FileNum, ino: Ino) {
    let handle = match client.open(ino, work::READ, false, ROOT).await {
        Ok(handle) => handle,
        Err(error) => {
            return shared.act(|world| world.violate("alive", format!("{file:?} does not open: {error:?}")));
        }
    };
    let sectors = work::data::FILE_SECTORS;
    let invoke = shared.act(|world| world.history.tick());
    let len = u32::try_from(sectors * SECTOR as u64).unwrap_or(u32::MAX);
    let read = client.read(&handle, 0, len).await;
    client.release(handle);
    shared.act(|world| match read {
        Ok(bytes) => {
            let found = work::data::found_in(&bytes, file, 0, sectors);
            world.note([60, u64::from(file.0), bytes.len() as u64], || {
                format!("{file:?} at last: {}", work::data::brief(&found))
            });
            let size = bytes.len() / SECTOR;
            let last = size.checked_sub(1).and_then(|last| found.get(last)).copied();
            if let Some(wrong) = crate::model::size::check(&world.history, file, size as u64, last) {
                world.violate("size", format!("{file:?} {wrong}"));
            }
            world.history.read(actor, file, 0, found, invoke, true);
        }
        Err(error) => world.violate("alive", format!("{file:?} is not readable after healing: {error:?}")),
    });
}

async fn look_up_all(shared: &Arc<Shared>, client: &Client<SimNet>, owner: Actor, home: Ino, rng: &mut Rng) {
    let start = rng.below(5);
    for step in 0..5 {
        let name = u8::try_from((start + step) % 5).unwrap_or(0);
        let found = client.lookup(home, work::names::text(name).as_bytes(), ROOT).await;
        let Some(answer) = work::names::answer_of(found.map(|attr| Some(attr.ino))) else {
            return shared
                .act(|world| world.violate("alive", format!("name {name} of {owner:?}: {found:?}")));
        };
        shared.act(|world| {
            let at = world.history.tick();
            let directory = world.directories.get_mut(&owner);
            let wrong = directory.and_then(|directory| directory.answered(at, NameOp::Lookup(name), answer));
            if let Some(wrong) = wrong {
                world.violate(wrong.oracle, format!("{owner:?} after healing: {}", wrong.what));
            }
        });
    }
}

/// What the log says of closed chunks is so on every member's disk (I10).
fn check_closed(world: &mut World) {
    use dfs_chunkserver::store::StoreError;
    let closed: Vec<_> = match world.master.state() {
        Some(state) => state.chunks.iter_from(ChunkId(0)).filter(|(_, meta)| !meta.open).collect(),
        None => return,
    };
    for (chunk, meta) in closed {
        for server in meta.members.iter() {
            let Some(Node::Server(num)) = world.fabric.server_of(server) else { continue };
            let Some(store) = world.servers[usize::from(num)].store() else { continue };
            let says = store.header(chunk).map(|header| (header.open, header.open_num, header.digest.0));
            let holds = store.table(chunk).map(|table| table.digest.0);
            // What was lost whole before any sync is a file nowhere, or one that no write has made yet.
            let empty = digest_of(&[]).0;
            let none = matches!(holds, Ok(digest) if digest == empty)
                || matches!(holds, Err(StoreError::NoChunk(_)));
            let nothing = none && meta.digest == empty;
            let right = nothing
                || matches!(says, Ok(says) if says == (false, meta.open_num, meta.digest))
                    && matches!(holds, Ok(holds) if holds == meta.digest);
            if !right {
                let what = format!("chunk {chunk} is closed as {meta:?}; server {num}: {says:?}, {holds:?}");
                world.violate("closed", what);
            }
        }
        // One that may have lost what it had tells its writers so for as long as it is there.
        if meta.digest == digest_of(&[]).0 && meta.lossy.0 == 0 {
            world.violate("holes", format!("chunk {chunk} has nothing but holes, and is kept as {meta:?}"));
        }
    }
}

/// Equal, and as many as the goal.
fn check_replicas(world: &mut World, file: FileNum, report: &FileReport) {
    let goal = usize::from(world.shape.goal);
    for chunk in &report.chunks {
        let members = chunk.members.len();
        if chunk.recovering || members != goal {
            world.violate("whole", format!("{file:?}: {chunk:?} has {members} members, goal {goal}"));
        }
        if let Err(why) = equal(world, chunk, true) {
            world.violate("equal", format!("{file:?} chunk {}: {why}", chunk.chunk));
        }
    }
}

fn equal(world: &World, chunk: &ChunkReport, scrubbed: bool) -> Result<(), String> {
    let mut first: Option<(usize, Vec<u8>)> = None;
    for member in &chunk.members {
        let Some(Node::Server(num)) = world.fabric.server_of(member.server) else {
            return Err(format!("member {} is nobody", member.server));
        };
        let num = usize::from(num);
        let bytes = stored(world, num, chunk.chunk)?;
        if scrubbed {
            super::rot::is_sound(world, num, chunk.chunk)?;
        }
        match &first {
            None => first = Some((num, bytes)),
            Some((other, expected)) if *expected != bytes => {
                let at = expected.iter().zip(&bytes).position(|(a, b)| a != b);
                let (left, right) = (expected.len(), bytes.len());
                return Err(format!(
                    "chunk {}: servers {other} and {num} differ, first at {at:?} of {left} and {right}",
                    chunk.chunk
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The bytes of a replica without trailing zeros; each was checked against its checksum.
fn stored(world: &World, num: usize, chunk: ChunkId) -> Result<Vec<u8>, String> {
    use dfs_chunkserver::store::{ReadMode, StoreError};
    let store = world.servers[num].store().ok_or_else(|| format!("server {num} is down"))?;
    let read = store.read(chunk, 0, super::world::CHUNK_BYTES, ReadMode::MayBlock);
    let mut bytes = match read {
        Ok(blocks) => blocks.data.to_vec(),
        // Nothing was ever written to it.
        Err(StoreError::NoChunk(_)) => Vec::new(),
        Err(error) => return Err(format!("server {num}: {error}")),
    };
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    Ok(bytes)
}
