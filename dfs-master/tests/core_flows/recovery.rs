//! Members that die, restart, differ: what the chunk goes on with.

use dfs_proto::control::{
    CopyReport, Heartbeat, LearnerReady, ReportTrouble, ScrubReport, ServerLoad, Settle,
};
use dfs_proto::ids::{ChunkVersion, ConfigNum, KeyId, Seq, ServerNum};
use dfs_proto::meta::{
    ChunkPlace, Commit, FailedPlace, MapRead, MapWrite, Suspect, SuspectReport, Suspicion,
};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Micros};

use crate::cluster::{Client, Cluster, commit};

fn read_place(cluster: &mut Cluster, client: Client, place: &ChunkPlace) -> Result<ChunkPlace, Status> {
    let read = MapRead { ino: place.capability.ino, first: place.index, count: 1 };
    cluster.ask(client.conn, &read).map(|map| map.places[0].clone())
}

fn write_place(cluster: &mut Cluster, client: Client, place: &ChunkPlace) -> Result<ChunkPlace, Status> {
    cluster.map_write(client, place.capability.ino, place.index.0)
}

fn nums(place: &ChunkPlace) -> Vec<ServerNum> {
    place.members.iter().map(|member| member.server).collect()
}

/// Asks for a place to write until there is one; how long that took.
fn wait_writable(cluster: &mut Cluster, client: Client, place: &ChunkPlace) -> (ChunkPlace, u64) {
    let began = cluster.now_ms;
    let mut got = None;
    cluster.until(60_000, |cluster| {
        got = write_place(cluster, client, place).ok();
        got.is_some()
    });
    (got.unwrap(), cluster.now_ms - began)
}

#[test]
fn a_dead_secondary_is_left_out_after_its_lease() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let dead = place.members[2].server;
    cluster.kill(dead);
    // Reads go on from the others without any change.
    let read = read_place(&mut cluster, client, &place).unwrap();
    assert_eq!(nums(&read), nums(&place)[..2]);
    assert_eq!(read.capability.version, ChunkVersion(1));
    let (next, took) = wait_writable(&mut cluster, client, &place);
    assert!((5_000..=6_500).contains(&took), "{took}");
    assert_eq!(nums(&next), nums(&place)[..2]);
    assert_eq!((next.capability.version, next.capability.config), (ChunkVersion(2), ConfigNum(2)));
    for member in &next.members {
        let replica = &cluster.server(member.server).replicas[&place.chunk()];
        assert!(replica.active && replica.version == ChunkVersion(2));
        assert_eq!(replica.members, next.members);
    }
}

#[test]
fn a_stopped_member_is_not_waited_for_once_its_lease_is_over() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    // Its connection stays open.
    let at = cluster.at(place.members[0].server);
    cluster.servers[at].cut_off = true;
    let (next, took) = wait_moved(&mut cluster, client, &place);
    assert!((5_000..=6_700).contains(&took), "{took}");
    assert_eq!(nums(&next), nums(&place)[1..]);
}

/// Asks until there is a place under a newer version; how long that took.
fn wait_moved(cluster: &mut Cluster, client: Client, place: &ChunkPlace) -> (ChunkPlace, u64) {
    let began = cluster.now_ms;
    let mut got = None;
    cluster.until(60_000, |cluster| {
        let next = write_place(cluster, client, place).ok();
        got = next.filter(|next| next.capability.version > place.capability.version);
        got.is_some()
    });
    (got.unwrap(), cluster.now_ms - began)
}

#[test]
fn proof_of_death_needs_no_waiting() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let dead = place.members[0];
    cluster.kill(dead.server);
    assert_eq!(write_place(&mut cluster, client, &place).unwrap_err(), Status::Recovering);
    // Silence alone proves nothing.
    let report = |what| Suspect {
        reports: vec![SuspectReport {
            server: dead.server,
            boot: dead.boot,
            chunk: Some(place.chunk()),
            what,
        }],
    };
    cluster.ask(client.conn, &report(Suspicion::Silent)).unwrap();
    assert_eq!(write_place(&mut cluster, client, &place).unwrap_err(), Status::Recovering);
    cluster.ask(client.conn, &report(Suspicion::RefusedUnix)).unwrap();
    let (next, took) = wait_writable(&mut cluster, client, &place);
    assert_eq!(took, 0);
    assert_eq!(nums(&next), nums(&place)[1..]);
    // What a dead process still says counts for nothing.
    let at = cluster.at(dead.server);
    assert_eq!(cluster.join(at).unwrap_err(), Status::AlreadyRegistered);
}

#[test]
fn a_new_leader_names_the_boots_of_members_that_have_not_registered() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.run(10_000);
    cluster.restart(0);
    let primary = cluster.at(place.members[0].server);
    cluster.join(primary).unwrap();
    cluster.heartbeat(primary);
    assert_eq!(cluster.servers[primary].replicas[&place.chunk()].members, place.members);
}

#[test]
fn a_restarted_member_stays_if_it_holds_the_same() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let back = place.members[1].server;
    cluster.kill(back);
    cluster.revive(back, false);
    let (next, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!(nums(&next).len(), 3);
    assert_eq!(next.members[0], place.members[0], "the process that never stopped is the base");
    assert_eq!(next.capability.version, ChunkVersion(2));
    assert!(next.members.contains(&cluster.member(back)), "with its new boot");
}

#[test]
fn a_fenced_member_that_lost_the_outcome_is_recovered_again() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let (behind, dead) = (place.members[1].server, place.members[2].server);
    cluster.kill(dead);
    let (next, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!((nums(&next).len(), next.capability.version), (2, ChunkVersion(2)));
    // What it was told got lost with its connection: it stands where the fence left it.
    let chunk = place.chunk();
    let server = cluster.server_mut(behind);
    server.fences.insert(chunk, ChunkVersion(2));
    let replica = server.replicas.get_mut(&chunk).unwrap();
    (replica.active, replica.config) = (false, ConfigNum(1));
    let conn = server.conn;
    cluster.input(dfs_master::core::Input::Disconnected { conn });
    let at = cluster.at(behind);
    cluster.join(at).unwrap();
    let (after, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!(after.capability.version, ChunkVersion(3), "only a recovery knows where to go on from");
}

#[test]
fn a_member_that_differs_is_refilled() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let back = place.members[1].server;
    cluster.kill(back);
    cluster.server_mut(back).replicas.get_mut(&place.chunk()).unwrap().digest = 99;
    cluster.revive(back, true);
    let (next, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!(nums(&next).len(), 2);
    assert!(!nums(&next).contains(&back));
    // It is the only server without a replica, so it becomes the learner.
    cluster.run(500);
    assert_eq!(cluster.meta(place.chunk()).learners, [back]);
    let primary = next.members[0].server;
    assert_eq!(cluster.finish_learners(primary), [back]);
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.members.len(), meta.config, meta.version), (3, ConfigNum(3), ChunkVersion(2)));
    let whole = write_place(&mut cluster, client, &place).unwrap();
    assert!(whole.members.contains(&cluster.member(back)));
    assert!(cluster.server(back).replicas[&place.chunk()].active);
}

#[test]
fn all_restarted_go_on_from_the_best() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let all = nums(&place);
    all.iter().for_each(|num| cluster.kill(*num));
    for (num, synced, digest) in [(all[0], 1, 5), (all[1], 3, 7), (all[2], 3, 7)] {
        let replica = cluster.server_mut(num).replicas.get_mut(&place.chunk()).unwrap();
        (replica.synced, replica.digest) = (Seq(synced), digest);
    }
    assert_eq!(read_place(&mut cluster, client, &place).unwrap_err(), Status::Recovering);
    all.iter().for_each(|num| cluster.revive(*num, true));
    let (next, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!(nums(&next), all[1..]);
}

#[test]
fn what_a_reboot_may_have_lost_is_waited_for_and_not_for_ever() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let (away, rebooted) = (place.members[0].server, place.members[1].server);
    cluster.kill(away);
    cluster.kill(rebooted);
    cluster.server_mut(rebooted).replicas.get_mut(&place.chunk()).unwrap().digest = 99;
    cluster.revive(rebooted, true);
    cluster.run(20_000);
    assert_eq!(cluster.meta(place.chunk()).config, ConfigNum(1));
    cluster.run(15_000);
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.members.as_slice(), meta.lossy), (&[rebooted][..], ChunkVersion(2)));
}

#[test]
fn a_member_that_was_only_away_is_the_base_when_it_is_back() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let (away, rebooted) = (place.members[0].server, place.members[1].server);
    cluster.kill(away);
    cluster.kill(rebooted);
    cluster.server_mut(rebooted).replicas.get_mut(&place.chunk()).unwrap().digest = 99;
    cluster.revive(rebooted, true);
    cluster.run(20_000);
    cluster.revive(away, false);
    cluster.until(5_000, |cluster| cluster.meta(place.chunk()).is_active());
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.members.as_slice(), meta.lossy), (&[away][..], ChunkVersion(0)));
}

#[test]
fn torn_everywhere_is_settled_at_the_base() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let all = nums(&place);
    all.iter().for_each(|num| cluster.kill(*num));
    for (num, good) in [(all[0], 3), (all[1], 9), (all[2], 3)] {
        let replica = cluster.server_mut(num).replicas.get_mut(&place.chunk()).unwrap();
        (replica.bad_blocks, replica.synced) = (1, Seq(good));
    }
    all.iter().for_each(|num| cluster.revive(*num, true));
    cluster.until(5_000, |cluster| cluster.meta(place.chunk()).version == ChunkVersion(2));
    let meta = cluster.meta(place.chunk());
    assert_eq!(meta.members.as_slice(), [all[1]]);
    assert_eq!(cluster.server(all[1]).replicas[&place.chunk()].bad_blocks, 0);
    // One member is too few to be written; a second comes first.
    assert_eq!(write_place(&mut cluster, client, &place).unwrap_err(), Status::Recovering);
    assert!(read_place(&mut cluster, client, &place).is_ok());
    cluster.run(500);
    cluster.finish_learners(all[1]);
    assert_eq!(write_place(&mut cluster, client, &place).unwrap().members.len(), 2);
}

#[test]
fn a_replica_that_goes_on_alone_is_synced_first() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let all = nums(&place);
    let reconciled = |cluster: &Cluster, num| cluster.server(num).replicas[&place.chunk()].reconciled.clone();
    cluster.kill(all[0]);
    wait_moved(&mut cluster, client, &place);
    assert!(reconciled(&cluster, all[1]).is_empty(), "two have it still");
    cluster.kill(all[2]);
    cluster.until(20_000, |cluster| {
        let _ = write_place(cluster, client, &place);
        cluster.meta(place.chunk()).members.len() == 1
    });
    assert_eq!(reconciled(&cluster, all[1]), [Settle::Keep]);
}

#[test]
fn a_chunk_waits_for_the_only_ones_that_may_have_it() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.commit_synced(client, &attr, &place, 10);
    let all = nums(&place);
    all.iter().for_each(|num| cluster.kill(*num));
    // One comes back without the file: it is not taken for the truth.
    cluster.server_mut(all[0]).replicas.clear();
    cluster.revive(all[0], true);
    cluster.run(20_000);
    assert_eq!(write_place(&mut cluster, client, &place).unwrap_err(), Status::Recovering);
    assert_eq!(cluster.meta(place.chunk()).config, ConfigNum(1));
    cluster.revive(all[1], true);
    cluster.until(10_000, |cluster| cluster.meta(place.chunk()).is_active());
    assert_eq!(cluster.meta(place.chunk()).members.as_slice(), [all[1]]);
}

#[test]
fn a_chunk_that_nobody_wrote_starts_empty() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let place = cluster.create(client, "f", 1).unwrap().opened.first.unwrap();
    let all = nums(&place);
    all.iter().for_each(|num| cluster.kill(*num));
    all.iter().for_each(|num| cluster.revive(*num, true));
    let (next, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!((next.members.len(), next.new), (3, true));
    assert_eq!(next.capability.version, ChunkVersion(2));
}

#[test]
fn a_chunk_that_a_size_covers_and_nobody_has_begins_empty() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    let commit = Commit { size_epoch: attr.size_epoch, size_at_least: Some(4096), ..commit(attr.ino) };
    cluster.ask(client.conn, &commit).unwrap();
    assert!(!read_place(&mut cluster, client, &place).unwrap().new, "written, says the size");
    let member = place.members[0];
    let reports = vec![SuspectReport {
        server: member.server,
        boot: member.boot,
        chunk: Some(place.chunk()),
        what: Suspicion::Missing,
    }];
    cluster.ask(client.conn, &Suspect { reports }).unwrap();
    cluster.until(5_000, |cluster| cluster.meta(place.chunk()).version == ChunkVersion(2));
    assert!(cluster.meta(place.chunk()).is_active());
    assert_eq!(read_place(&mut cluster, client, &place).unwrap().members.len(), 3);
}

#[test]
fn who_has_no_file_is_equal_to_one_that_is_empty_and_was_never_synced() {
    let empty = dfs_proto::checksum::digest_of(&[]).0;
    for (digest, synced, stay) in [(empty, false, 3), (empty, true, 1), (7, false, 1)] {
        let mut cluster = Cluster::new(3, 3);
        let client = cluster.client();
        let (attr, place) = cluster.written_file(client, "f");
        let chunk = place.chunk();
        if synced {
            cluster.commit_synced(client, &attr, &place, 10_000);
        }
        let primary = cluster.meta(chunk).members.primary().unwrap();
        for server in &mut cluster.servers {
            if server.num == primary {
                server.replicas.get_mut(&chunk).unwrap().digest = digest;
            } else {
                server.replicas.remove(&chunk);
            }
        }
        let before = cluster.meta(chunk).config;
        cluster.kill(primary);
        cluster.revive(primary, false);
        cluster.until(60_000, |cluster| {
            let meta = cluster.meta(chunk);
            meta.is_active() && meta.config > before
        });
        let members = cluster.meta(chunk).members;
        assert_eq!(members.len(), stay, "its bytes hash to {digest}, synced {synced}");
    }
}

#[test]
fn a_chunk_that_nobody_wrote_reaches_its_goal() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let late = cluster.servers[2].num;
    cluster.kill(late);
    cluster.run(8_000);
    let place = cluster.create(client, "f", 1).unwrap().opened.first.unwrap();
    assert!(!nums(&place).contains(&late));
    cluster.revive(late, false);
    let primary = place.members[0].server;
    cluster.until(10_000, |cluster| !cluster.server(primary).learners_asked.is_empty());
    assert_eq!(cluster.finish_learners(primary), [late]);
    assert_eq!(cluster.meta(place.chunk()).members.len(), 3);
}

#[test]
fn idle_chunks_keep_a_dead_member_until_the_repair_delay() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.kill(place.members[1].server);
    cluster.run(20_000);
    assert_eq!(cluster.meta(place.chunk()).config, ConfigNum(1));
    cluster.run(10_000);
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.members.len(), meta.version), (2, ChunkVersion(2)));
    assert_eq!(meta.learners.len(), 1);
    let primary = meta.members.primary().unwrap();
    assert_eq!(cluster.finish_learners(primary).len(), 1);
    assert_eq!(cluster.meta(place.chunk()).members.len(), 3);
    cluster.core.state().check().unwrap();
}

#[test]
fn a_deaf_member_is_asked_again() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let back = place.members[1].server;
    cluster.server_mut(place.members[0].server).deaf = 3;
    cluster.kill(back);
    cluster.revive(back, false);
    let (next, _) = wait_writable(&mut cluster, client, &place);
    assert_eq!(next.members.len(), 3);
}

#[test]
fn a_lost_replica_is_replaced() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let lost = place.members[2].server;
    cluster.server_mut(lost).replicas.clear();
    let server = cluster.server(lost);
    let (conn, boot, disks, applied) = (server.conn, server.boot, server.disks(), server.applied);
    let heartbeat = Heartbeat {
        boot,
        t_send: Micros(1),
        applied,
        load: ServerLoad::default(),
        disks,
        hot: Vec::new(),
        lost: vec![place.chunk()],
        key: KeyId(0),
        scrub: ScrubReport::default(),
        copy: CopyReport::default(),
    };
    assert!(cluster.ask(conn, &heartbeat).unwrap().granted);
    cluster.run(200);
    let meta = cluster.meta(place.chunk());
    assert_eq!(meta.members.as_slice(), &nums(&place)[..2]);
    assert_eq!(meta.learners.len(), 1);
}

#[test]
fn a_member_silent_to_its_primary_is_excluded_in_the_end() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let (primary, silent) = (place.members[0], place.members[2]);
    let conn = cluster.server(primary.server).conn;
    let report = SuspectReport {
        server: silent.server,
        boot: silent.boot,
        chunk: Some(place.chunk()),
        what: Suspicion::Silent,
    };
    let trouble = ReportTrouble { reports: vec![report], failed: Vec::new() };
    // The client blames the primary meanwhile; the primary's own word counts for more.
    let failed = FailedPlace { chunk: place.chunk(), version: ChunkVersion(1), server: primary.server };
    let retry =
        MapWrite { ino: place.capability.ino, index: ChunkIndex(0), failed: Some(failed), only: None };
    for _ in 0..5 {
        assert_eq!(cluster.meta(place.chunk()).version, ChunkVersion(1));
        cluster.ask(conn, &trouble).unwrap();
        cluster.ask(client.conn, &retry).unwrap();
        cluster.run(500);
    }
    let meta = cluster.meta(place.chunk());
    assert_eq!(meta.version, ChunkVersion(2));
    assert_eq!(meta.members.as_slice(), &nums(&place)[..2]);
}

#[test]
fn a_new_member_confirms_no_other() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.kill(place.members[2].server);
    let (next, _) = wait_writable(&mut cluster, client, &place);
    let (primary, other) = (next.members[0].server, next.members[1].server);
    cluster.until(60_000, |cluster| !cluster.server(primary).learners_asked.is_empty());
    // A member restarts while the new one is filled to the end, and has said nothing of what it has.
    cluster.kill(other);
    let chunk = place.chunk();
    cluster.revive(other, true);
    cluster.finish_learners(primary);
    assert_eq!(cluster.meta(chunk).members.len(), 3);
    let replica = &cluster.server(other).replicas[&chunk];
    assert!(!replica.active, "its process was never confirmed: {replica:?}");
}

#[test]
fn a_failed_fill_is_given_up_and_tried_again() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.kill(place.members[2].server);
    let (next, _) = wait_writable(&mut cluster, client, &place);
    cluster.add_server(4, &[]);
    cluster.run(5_000);
    let primary = next.members[0].server;
    let add = cluster.server_mut(primary).learners_asked.remove(0);
    let conn = cluster.server(primary).conn;
    let (chunk, version, config, learner) = (add.chunk, add.version, add.config, add.learner);
    let mut ready = LearnerReady { chunk, version, config, learner, ready: false };
    cluster.ask(conn, &ready).unwrap();
    assert_eq!(cluster.meta(chunk).learners, []);
    // Too late a word changes nothing.
    ready.ready = true;
    assert_eq!(cluster.ask(conn, &ready).unwrap_err(), Status::NoChunk);
    cluster.run(5_000);
    assert_eq!(cluster.finish_learners(primary), [learner.server]);
    assert_eq!(cluster.meta(chunk).members.len(), 3);
}

#[test]
fn a_thousand_open_chunks_take_few_records() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let places: Vec<ChunkPlace> =
        (0..1000).map(|n| cluster.written_file(client, &format!("f{n}")).1).collect();
    let dead = places[0].members[0].server;
    cluster.kill(dead);
    let before = cluster.entries.len();
    cluster.revive(dead, false);
    cluster.run(1_000);
    let done = places.iter().filter(|place| cluster.meta(place.chunk()).version == ChunkVersion(2)).count();
    assert_eq!(done, 1000);
    let records = cluster.entries.len() - before;
    assert!(records <= 10, "{records} records");
}
