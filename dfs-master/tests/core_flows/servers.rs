//! Registration, leases, placement and what a server's word can do to the master.

use dfs_master::core::Input;
use dfs_master::core::chunks::ChunkMeta;
use dfs_proto::conn::Role;
use dfs_proto::control::{CopyReport, GracefulStop, Heartbeat, ScrubReport, ServerLoad};
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, ConfigNum, Generation, Handle, Ino, KeyId, LogIndex, OsBootId,
    ServerNum,
};
use dfs_proto::meta::{
    Access, Attr, ClusterStatus, Creds, GetServers, Getattr, GrantKind, KeepAlive, MapRead, Mkdir, Open,
    OpenSession, Recover,
};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Micros};

use crate::cluster::{Cluster, set_size};

#[test]
fn numbers_are_kept_and_addresses_follow() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let before = cluster.ask(client.conn, &GetServers {}).unwrap();
    assert_eq!(before.list.len(), 2);
    assert!(!cluster.ask(client.conn, &KeepAlive { servers_epoch: before.epoch }).unwrap().servers_changed);
    let num = cluster.servers[0].num;
    cluster.kill(num);
    cluster.revive(num, true);
    assert_eq!(cluster.servers[0].num, num);
    assert!(cluster.ask(client.conn, &KeepAlive { servers_epoch: before.epoch }).unwrap().servers_changed);
    // The same boot on a new connection says nothing new.
    let records = cluster.entries.len();
    cluster.join(0).unwrap();
    assert_eq!(cluster.entries.len(), records);
}

#[test]
fn a_lease_is_for_the_boot_that_registered() {
    let mut cluster = Cluster::new(1, 1);
    let server = &cluster.servers[0];
    let (conn, boot, disks) = (server.conn, server.boot, server.disks());
    let (load, hot, lost) = (ServerLoad::default(), Vec::new(), Vec::new());
    let (scrub, copy) = (ScrubReport::default(), CopyReport::default());
    let key = KeyId(0);
    let beat = Heartbeat { boot, t_send: Micros(7), applied: 0, load, disks, hot, lost, key, scrub, copy };
    let reply = cluster.ask(conn, &beat).unwrap();
    assert!(reply.granted);
    assert_eq!(reply.t_send, Micros(7));
    let other = Heartbeat { boot: BootId(5), ..beat.clone() };
    assert!(!cluster.ask(conn, &other).unwrap().granted);
    cluster.ask(conn, &GracefulStop { boot }).unwrap();
    assert!(!cluster.ask(conn, &beat).unwrap().granted);
    assert_eq!(cluster.join(0).unwrap_err(), Status::AlreadyRegistered);
    let stranger = cluster.connect(Role::ChunkServer);
    assert_eq!(cluster.ask(stranger, &beat).unwrap_err(), Status::NotServing);
    let client = cluster.connect(Role::Client);
    assert_eq!(cluster.ask(client, &beat).unwrap_err(), Status::WrongRole);
}

#[test]
fn a_late_registration_does_not_bury_the_process_that_followed() {
    let mut cluster = Cluster::new(1, 1);
    let num = cluster.servers[0].num;
    cluster.kill(num);
    // A process starts, registers and ends; its message is still under way when the next one registers.
    cluster.servers[0].restart(false);
    let late = cluster.servers[0].register();
    cluster.revive(num, false);
    let conn = cluster.connect(Role::ChunkServer);
    assert_eq!(cluster.ask(conn, &late).unwrap_err(), Status::AlreadyRegistered);
    assert!(cluster.heartbeat(0).unwrap().granted);
    // Without a process of a higher count it is one whose disks were restored from an older image.
    cluster.kill(num);
    let conn = cluster.connect(Role::ChunkServer);
    cluster.ask(conn, &late).unwrap();
}

#[test]
fn a_late_registration_does_not_overtake_the_record_of_the_process_that_followed() {
    let mut cluster = Cluster::new(1, 1);
    let num = cluster.servers[0].num;
    cluster.kill(num);
    cluster.servers[0].restart(false);
    let late = cluster.servers[0].register();
    cluster.servers[0].restart(false);
    let (dead, alive) = (cluster.connect(Role::ChunkServer), cluster.connect(Role::ChunkServer));
    let register = cluster.servers[0].register();
    cluster.send_before(alive, &register);
    assert_eq!(cluster.ask(dead, &late).unwrap_err(), Status::Overloaded);
    // Who is alive may ask again.
    cluster.ask(alive, &register).unwrap();
    cluster.revive(num, false);
    assert!(cluster.heartbeat(0).unwrap().granted);
}

#[test]
fn a_server_that_knows_more_puts_the_master_on_hold() {
    let newer: [fn(&mut dfs_proto::control::Register); 3] = [
        |register| register.generation = Generation(2),
        |register| register.max_meta_index = LogIndex(1_000_000),
        |register| register.max_chunk = Some(ChunkId::new(Generation(1), 10_000_000)),
    ];
    for change in newer {
        let mut cluster = Cluster::new(3, 3);
        let client = cluster.client();
        cluster.create(client, "f", 1).unwrap();
        let conn = cluster.connect(Role::ChunkServer);
        let mut register = cluster.servers[0].register();
        change(&mut register);
        assert_eq!(cluster.ask(conn, &register).unwrap_err(), Status::Behind);
        assert!(cluster.core.hold().is_some());
        let name = b"d".to_vec().into();
        let mkdir = Mkdir { parent: Ino::ROOT, name, mode: 0o755, creds: Creds::default() };
        assert_eq!(cluster.ask(client.conn, &mkdir).unwrap_err(), Status::Hold);
        assert_eq!(cluster.ask(client.conn, &Getattr { ino: Ino::ROOT }).unwrap_err(), Status::Hold);
        assert!(cluster.ask(client.conn, &ClusterStatus {}).unwrap().hold.is_some());
        let records = cluster.entries.len();
        cluster.run(100_000);
        assert_eq!(cluster.entries.len(), records, "nothing changes on hold");
    }
}

#[test]
fn a_log_that_lost_a_record_and_is_as_long_again_is_behind() {
    for lost in [0, 1, 3] {
        let mut cluster = Cluster::new(3, 3);
        let client = cluster.client();
        cluster.written_file(client, "f");
        cluster.servers[0].max_meta_index = cluster.entries.last().unwrap().index;
        cluster.servers[0].max_term = cluster.entries.last().unwrap().term;
        cluster.restart(lost);
        // As a start does by itself, and more.
        for _ in 0..5 {
            cluster.client();
        }
        assert!(cluster.entries.last().unwrap().index > cluster.servers[0].max_meta_index);
        assert_eq!(cluster.join(0).err(), (lost > 0).then_some(Status::Behind), "{lost} lost");
        assert_eq!(cluster.core.hold().is_some(), lost > 0, "{lost} lost");
    }
}

#[test]
fn an_operator_leads_out_of_hold_into_a_new_generation() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, old) = cluster.written_file(client, "f");
    let mut register = cluster.servers[0].register();
    register.max_meta_index = LogIndex(1_000_000);
    register.max_term = dfs_proto::ids::Term(99);
    let lost = ChunkId::new(Generation(1), 10_000_000);
    register.max_chunk = Some(lost);
    let conn = cluster.connect(Role::ChunkServer);
    assert_eq!(cluster.ask(conn, &register).unwrap_err(), Status::Behind);
    let tool = cluster.connect(Role::Tool);
    let report = cluster.ask(tool, &Recover { accept: None }).unwrap();
    assert_eq!((report.generation, report.ahead.len()), (Generation(1), 1));
    assert_eq!((report.ahead[0].index, report.ahead[0].max_chunk), (LogIndex(1_000_000), Some(lost)));
    let wrong = Recover { accept: Some(LogIndex(report.last_index.0 - 1)) };
    assert_eq!(cluster.ask(tool, &wrong).unwrap_err(), Status::Invalid);
    assert!(cluster.core.hold().is_some());
    let after = cluster.ask(tool, &Recover { accept: Some(report.last_index) }).unwrap();
    assert_eq!((after.generation, after.hold), (Generation(2), None));
    // The server that knew more comes in, and what it has of the time that is lost stays.
    cluster.servers[0].write(lost, ChunkVersion(1), ConfigNum(1), 1, 1);
    cluster.join(0).unwrap();
    cluster.run(20_000);
    assert!(cluster.core.hold().is_none());
    // Those that were in before count the records from now on as the new generation's too.
    let counted: Vec<Generation> = cluster.servers.iter().map(|server| server.generation).collect();
    assert_eq!(counted, [Generation(2); 3]);
    assert!(cluster.servers[0].replicas.contains_key(&lost));
    assert_eq!(cluster.ask(tool, &ClusterStatus {}).unwrap().replicas_unknown, 1);
    // The files that the log knows are whole, and no id is given twice.
    assert!(cluster.map_write(client, old.capability.ino, 0).is_ok());
    let (_, new) = cluster.written_file(client, "g");
    assert_eq!(new.chunk().generation(), Generation(2));
    cluster.core.state().check().unwrap();
    // It holds after a restart too.
    cluster.restart(0);
    cluster.rejoin_all();
    assert!(cluster.core.hold().is_none());
    let status = cluster.connect(Role::Tool);
    assert_eq!(cluster.ask(status, &ClusterStatus {}).unwrap().generation, Generation(2));
    assert_eq!(cluster.ask(status, &Recover { accept: Some(LogIndex(1)) }).unwrap_err(), Status::Invalid);
}

/// Both members serve the configuration of the map, and a reader is told of them.
fn assert_served(cluster: &mut Cluster, attr: &Attr, meta: &ChunkMeta, chunk: ChunkId) {
    for server in meta.members.iter() {
        let replica = &cluster.server(server).replicas[&chunk];
        assert_eq!(
            (replica.active, replica.version, replica.config),
            (true, meta.version, meta.config),
            "{server}"
        );
    }
    let client = cluster.client();
    let map = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 1 };
    assert_eq!(cluster.ask(client.conn, &map).unwrap().places[0].members.len(), 2);
}

#[test]
fn a_replica_of_a_config_that_the_log_has_lost_is_recovered() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.run(60_000);
    let members: Vec<ServerNum> = place.members.iter().map(|member| member.server).collect();
    // It went on with another member; then the log went back, and its server registers again.
    let server = cluster.server_mut(members[0]);
    let replica = server.replicas.get_mut(&place.chunk()).unwrap();
    (replica.config, replica.active) = (ConfigNum(replica.config.0 + 1), false);
    let conn = server.conn;
    cluster.input(Input::Disconnected { conn });
    cluster.join(cluster.at(members[0])).unwrap();
    cluster.run(30_000);
    let meta = cluster.meta(place.chunk());
    assert!(meta.is_active() && meta.version > ChunkVersion(1), "{meta:?}");
    assert_served(&mut cluster, &attr, &meta, place.chunk());
}

/// After a loss that an operator accepted, the versions that the lost records had given are not given again: to a server
/// that holds one, a fence of the same number is none.
#[test]
fn a_replica_of_a_version_that_the_log_has_lost_is_recovered_above_it() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let mut register = cluster.servers[2].register();
    (register.max_meta_index, register.max_term) = (LogIndex(1_000_000), dfs_proto::ids::Term(99));
    let conn = cluster.connect(Role::ChunkServer);
    assert_eq!(cluster.ask(conn, &register).unwrap_err(), Status::Behind);
    let tool = cluster.connect(Role::Tool);
    let last = cluster.ask(tool, &Recover { accept: None }).unwrap().last_index;
    cluster.ask(tool, &Recover { accept: Some(last) }).unwrap();
    let first = place.members[0].server;
    let at = cluster.at(first);
    let conn = cluster.servers[at].conn;
    cluster.input(Input::Disconnected { conn });
    // It went through two recoveries, and its process was started again.
    cluster.servers[at].restart(true);
    let replica = cluster.servers[at].replicas.get_mut(&place.chunk()).unwrap();
    (replica.version, replica.config, replica.active) = (ChunkVersion(3), ConfigNum(9), false);
    cluster.join(at).unwrap();
    cluster.run(60_000);
    let meta = cluster.meta(place.chunk());
    assert!(meta.is_active() && meta.version > ChunkVersion(3), "{meta:?}");
    assert_served(&mut cluster, &attr, &meta, place.chunk());
}

#[test]
fn on_hold_only_who_asked_to_see_what_may_be_old_is_told_anything() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, _) = cluster.written_file(client, "f");
    let mut register = cluster.servers[0].register();
    (register.max_meta_index, register.max_term) = (LogIndex(1_000_000), dfs_proto::ids::Term(99));
    let conn = cluster.connect(Role::ChunkServer);
    assert_eq!(cluster.ask(conn, &register).unwrap_err(), Status::Behind);
    let last = cluster.entries.last().unwrap().index;
    let getattr = Getattr { ino: attr.ino };
    assert_eq!(cluster.ask(client.conn, &getattr).unwrap_err(), Status::Hold);
    let open = Open {
        ino: attr.ino,
        handle: Handle(7),
        access: Access { read: true, write: false },
        truncate: false,
        creds: Creds { uid: 0, gid: 0, groups: None },
    };
    let map = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 1 };
    assert_eq!(cluster.ask(client.conn, &map).unwrap_err(), Status::Hold);
    // Neither a session that anybody opens, nor a change by one that looks.
    let other = cluster.connect(Role::Client);
    let request = OpenSession { name: "m".into(), os_boot: OsBootId(1), recover: false };
    assert_eq!(cluster.ask(other, &request).unwrap_err(), Status::Hold);
    let looks = cluster.connect(Role::Client);
    cluster.ask(looks, &OpenSession { recover: true, ..request }).unwrap();
    assert_eq!(cluster.ask(looks, &getattr).unwrap().ino, attr.ino);
    let opened = cluster.ask(looks, &open).unwrap();
    assert_eq!((opened.attr.size, opened.grant.kind), (attr.size, GrantKind::None));
    assert_eq!(cluster.ask(looks, &map).unwrap().size, attr.size);
    let write = Open { access: Access { read: true, write: true }, ..open };
    assert_eq!(cluster.ask(looks, &write).unwrap_err(), Status::Hold);
    assert_eq!(cluster.ask(looks, &set_size(attr.ino, 0)).unwrap_err(), Status::Hold);
    assert_eq!(cluster.entries.last().unwrap().index, last, "the log is as it was");
    // With the hold it ends, and its client opens another.
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &Recover { accept: Some(last) }).unwrap();
    assert_eq!(cluster.ask(looks, &getattr).unwrap_err(), Status::NoSession);
    assert!(cluster.ask(client.conn, &getattr).is_ok());
    cluster.run(60_000);
    cluster.core.state().check().unwrap();
}

#[test]
fn a_replica_of_this_leaders_range_that_is_nowhere_puts_the_master_on_hold() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    // A log that was rolled back reserves the range that the lost one had reserved.
    let lost = ChunkId(place.chunk().0 + 5);
    cluster.servers[0].write(lost, ChunkVersion(1), ConfigNum(1), 1, 1);
    cluster.join(0).unwrap();
    assert!(cluster.core.hold().is_some());
    cluster.run(20_000);
    assert!(cluster.servers[0].replicas.contains_key(&lost));
}

#[test]
fn strangers_are_sent_away() {
    let mut cluster = Cluster::new(1, 1);
    let conn = cluster.connect(Role::ChunkServer);
    let mut register = cluster.servers[0].register();
    register.cluster = Some(ClusterId(1));
    assert_eq!(cluster.ask(conn, &register).unwrap_err(), Status::WrongCluster);
    assert!(cluster.core.hold().is_none());
}

#[test]
fn replicas_are_spread_over_racks() {
    let mut cluster = Cluster::new(0, 2);
    for (id, rack) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        cluster.add_server(id, &[("rack", rack)]);
    }
    cluster.run(200);
    let client = cluster.client();
    for n in 0..50 {
        let place = cluster.create(client, &format!("f{n}"), n).unwrap().opened.first.unwrap();
        let racks: Vec<bool> = place.members.iter().map(|m| cluster.server(m.server).id.0 <= 2).collect();
        assert_ne!(racks[0], racks[1]);
    }
}

#[test]
fn a_short_break_of_the_connection_costs_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let num = place.members[0].server;
    let conn = cluster.server(num).conn;
    cluster.input(dfs_master::core::Input::Disconnected { conn });
    assert_eq!(cluster.map_write(client, attr.ino, 0).unwrap_err(), Status::Recovering);
    let at = cluster.at(num);
    cluster.join(at).unwrap();
    let again = cluster.map_write(client, attr.ino, 0).unwrap();
    assert_eq!((again.capability.version, again.members), (place.capability.version, place.members));
}

#[test]
fn a_place_is_sealed_for_each_member_with_a_key_that_it_has() {
    let mut cluster = Cluster::with(3, 3, |config| config.key_life_ms = 10_000);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let check = |cluster: &Cluster, place: &dfs_proto::meta::ChunkPlace| {
        assert_eq!(place.seals.len(), 3);
        for member in &place.members {
            let capability = place.capability_for(member.server);
            let good = |num| cluster.server(num).keys.iter().any(|key| key.verifies(&capability));
            assert!(good(member.server), "{member:?}");
            let others = place.members.iter().filter(|other| other.server != member.server);
            assert!(!others.map(|other| other.server).any(good), "it is good at {member:?} alone");
        }
        place.seals[0].key
    };
    let first = check(&cluster, &place);
    // In the moment of the turn no server has the new key.
    for _ in 0..300 {
        cluster.run(50);
        let now = cluster.map_write(client, attr.ino, 0).unwrap();
        check(&cluster, &now);
    }
    let later = cluster.map_write(client, attr.ino, 0).unwrap();
    assert!(check(&cluster, &later) > first, "keys take turns");
    cluster.restart(0);
    cluster.rejoin_all();
    let client = cluster.resume(client, Vec::new());
    cluster.run(2_000);
    let (_, place) = cluster.written_file(client, "g");
    assert!(check(&cluster, &place) > later.seals[0].key, "another leader's keys have higher numbers");
}

#[test]
fn how_far_copies_of_the_log_are_is_told_and_none_follows_a_log_on_hold() {
    let mut cluster = Cluster::new(2, 2);
    let tool = cluster.connect(Role::Tool);
    let durable = cluster.ask(tool, &ClusterStatus {}).unwrap().durable_index;
    let generation = cluster.core.copyable().unwrap().generation;
    cluster.servers[0].copy = CopyReport { generation, index: durable, whole_ms: Some(7), trouble: None };
    // A copy of another generation is none of this log.
    let trouble = Some("full".to_owned());
    cluster.servers[1].copy =
        CopyReport { generation: Generation(9), index: durable, whole_ms: Some(7), trouble };
    (0..2).for_each(|at| drop(cluster.heartbeat(at)));
    let status = cluster.ask(tool, &ClusterStatus {}).unwrap();
    let [whole, other] = &status.copies[..] else { panic!("{status:?}") };
    assert_eq!((whole.behind, whole.whole_ms), (status.durable_index.0 - durable.0, Some(7)));
    assert_eq!((other.index, other.behind, other.whole_ms), (LogIndex(0), status.durable_index.0, None));
    assert_eq!(other.trouble.as_deref(), Some("full"));
    let conn = cluster.connect(Role::ChunkServer);
    let mut register = cluster.servers[0].register();
    register.max_meta_index = LogIndex(1 << 40);
    assert_eq!(cluster.ask(conn, &register).unwrap_err(), Status::Behind);
    assert_eq!(cluster.core.copyable(), None);
}
