//! Sessions, and mutations that are sent more than once.

use dfs_master::core::After;
use dfs_proto::conn::Role;
use dfs_proto::ids::{Handle, Ino, LogIndex, SessionId, Term};
use dfs_proto::meta::{
    Attr, CloseSession, Commit, Creds, EvictSession, Getattr, GrantKind, KeepAlive, Lookup, MadeDir, Mkdir,
    Open, OpenClaim, Opened, Release, Removed, ResumeSession, SessionList, Unlink,
};
use dfs_proto::status::Status;

use crate::cluster::{Cluster, RW, commit};

fn mkdir(name: &str) -> Mkdir {
    let name = name.as_bytes().to_vec().into();
    Mkdir { parent: Ino::ROOT, name, mode: 0o755, creds: Creds::default() }
}

#[test]
fn an_open_that_outlives_its_session_holds_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let (attr, _) = cluster.written_file(a, "a");
    let end = CloseSession { settled: true };
    cluster.ask(a.conn, &end).unwrap();
    let open = Open { ino: attr.ino, handle: Handle(7), access: RW, truncate: true, creds: Creds::default() };
    // The truncation takes a record; the session ends before the open goes on behind it.
    cluster.send_both(b, &open, &end);
    let c = cluster.client();
    assert_eq!(cluster.open(c, attr.ino, 1, RW).unwrap().grant.kind, GrantKind::Write);
}

#[test]
fn a_place_is_not_given_of_a_chunk_that_is_being_dropped() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "a", 1).unwrap();
    let (ino, place) = (created.opened.attr.ino, created.opened.first.unwrap());
    cluster.ask(client.conn, &Release { handles: vec![(ino, Handle(1))], unsettled: Vec::new() }).unwrap();
    let commit = Commit {
        size_epoch: created.opened.attr.size_epoch,
        unused: vec![(place.index, place.chunk())],
        ..commit(ino)
    };
    let open = Open { ino, handle: Handle(2), access: RW, truncate: false, creds: Creds::default() };
    let req = cluster.send_both(client, &commit, &open);
    let answer = cluster.answer(client.conn, req).unwrap();
    assert_eq!(answer.status, Status::Ok);
    let opened: Opened = rmp_serde::from_slice(&answer.body).unwrap();
    assert!(cluster.core.state().chunks.get(place.chunk()).is_none(), "it was never written");
    assert_ne!(opened.first.map(|first| first.chunk()), Some(place.chunk()));
    // The next allocation is another chunk, and can be written.
    assert_ne!(cluster.map_write(client, ino, 0).unwrap().chunk(), place.chunk());
}

#[test]
fn a_session_makes_and_finds() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "a", 1).unwrap();
    assert!(created.new);
    assert_eq!(created.opened.grant.kind, GrantKind::Write);
    let name = b"a".to_vec().into();
    let found: Attr =
        cluster.ask(client.conn, &Lookup { parent: Ino::ROOT, name, creds: Creds::default() }).unwrap();
    assert_eq!(found, created.opened.attr);
    assert_eq!(cluster.ask(client.conn, &Getattr { ino: Ino(999) }), Err(Status::Stale));
    cluster.core.state().check().unwrap();
}

#[test]
fn a_repeated_mutation_takes_effect_once() {
    let mut cluster = Cluster::new(0, 1);
    let client = cluster.client();
    let first = cluster.send(client.conn, &mkdir("d"), 7, 7);
    let first = cluster.answer(client.conn, first).unwrap();
    assert_eq!(first.status, Status::Ok);
    let again = cluster.send(client.conn, &mkdir("d"), 7, 7);
    let again = cluster.answer(client.conn, again).unwrap();
    assert_eq!((again.status, &again.body), (Status::Ok, &first.body));
    // After its answer arrived, the id is over; under another id the name is taken.
    let other = cluster.send(client.conn, &mkdir("d"), 8, 8);
    assert_eq!(cluster.answer(client.conn, other).unwrap().status, Status::Exists);
    let next = cluster.send(client.conn, &mkdir("e"), 9, 9);
    assert_eq!(cluster.answer(client.conn, next).unwrap().status, Status::Ok);
    let late = cluster.send(client.conn, &mkdir("d"), 7, 7);
    assert_eq!(cluster.answer(client.conn, late).unwrap().status, Status::Invalid);
    // Too far ahead of what is unanswered.
    let far = cluster.send(client.conn, &mkdir("f"), 9 + 1024, 9);
    assert_eq!(cluster.answer(client.conn, far).unwrap().status, Status::Overloaded);
}

#[test]
fn answers_are_kept_over_a_restart() {
    let mut cluster = Cluster::new(0, 1);
    let client = cluster.client();
    let made = cluster.send(client.conn, &mkdir("d"), 1, 1);
    let made = cluster.answer(client.conn, made).unwrap();
    let name = b"d".to_vec().into();
    let request = dfs_proto::meta::Rmdir { parent: Ino::ROOT, name, creds: Creds::default() };
    let gone = cluster.send(client.conn, &request, 2, 1);
    let gone = cluster.answer(client.conn, gone).unwrap();
    cluster.restart(0);
    let conn = cluster.connect(Role::Client);
    let resume = ResumeSession {
        session: client.session,
        seen_term: Term(u64::from(gone.words.word2)),
        seen_index: LogIndex(gone.words.word0),
        opens: Vec::new(),
        recover: false,
    };
    let resumed = cluster.ask(conn, &resume).unwrap();
    assert!(!resumed.tail_lost);
    let again = cluster.send(conn, &request, 2, 1);
    let again = cluster.answer(conn, again).unwrap();
    assert_eq!((again.status, &again.body), (Status::Ok, &gone.body));
    // Attributes are as of now, as the index of the answer says: a directory that has been removed.
    let again = cluster.send(conn, &mkdir("d"), 1, 1);
    let again = cluster.answer(conn, again).unwrap();
    let attr = |body: &[u8]| rmp_serde::from_slice::<MadeDir>(body).unwrap().attr;
    let (before, now) = (attr(&made.body), attr(&again.body));
    assert_eq!((before.ino, before.nlink, now.nlink), (now.ino, 2, 0));
    assert!(again.words.word0 > made.words.word0);
}

#[test]
fn a_lost_tail_is_told() {
    let mut cluster = Cluster::new(0, 1);
    let client = cluster.client();
    let made = cluster.send(client.conn, &mkdir("d"), 1, 1);
    let made = cluster.answer(client.conn, made).unwrap();
    cluster.restart(1);
    let conn = cluster.connect(Role::Client);
    let seen_term = Term(u64::from(made.words.word2));
    let opens = Vec::new();
    let mut resume = ResumeSession {
        session: client.session,
        seen_term,
        seen_index: LogIndex(made.words.word0),
        opens,
        recover: false,
    };
    assert!(cluster.ask(conn, &resume).unwrap().tail_lost);
    resume.seen_index = LogIndex(made.words.word0 - 1);
    assert!(!cluster.ask(conn, &resume).unwrap().tail_lost);
    // The next leader has logged something else in its place, and dies: the one after it has a log that is long enough.
    let other = cluster.client();
    let req = cluster.send(other.conn, &mkdir("e"), 1, 1);
    assert!(cluster.answer(other.conn, req).unwrap().words.word0 >= made.words.word0);
    cluster.restart(0);
    let conn = cluster.connect(Role::Client);
    resume.seen_index = LogIndex(made.words.word0);
    assert!(cluster.ask(conn, &resume).unwrap().tail_lost);
    resume.seen_index = LogIndex(made.words.word0 - 1);
    assert!(!cluster.ask(conn, &resume).unwrap().tail_lost);
}

#[test]
fn a_new_session_waits_for_the_disk() {
    let mut cluster = Cluster::new(0, 1);
    cluster.power_held = true;
    let conn = cluster.connect(Role::Client);
    let request = dfs_proto::meta::OpenSession {
        name: "m".into(),
        os_boot: dfs_proto::ids::OsBootId(1),
        recover: false,
    };
    let req = cluster.send(conn, &request, 0, 0);
    let answered = cluster.answer(conn, req).unwrap();
    assert_eq!(answered.after, After::Durable(LogIndex(answered.words.word0)));
    // A mutation's answer does not, and says how much is missing.
    let made = cluster.send(conn, &mkdir("d"), 1, 1);
    let made = cluster.answer(conn, made).unwrap();
    assert_eq!(made.after, After::Now);
    assert!(made.words.word3 >= 2);
    cluster.sync();
    let made = cluster.send(conn, &mkdir("e"), 2, 2);
    assert_eq!(cluster.answer(conn, made).unwrap().words.word3, 1);
}

#[test]
fn a_silent_session_ends_with_its_lease() {
    let mut cluster = Cluster::new(3, 3);
    let (quiet, other) = (cluster.client(), cluster.client());
    let created = cluster.create(quiet, "a", 1).unwrap();
    let ino = created.opened.attr.ino;
    cluster.mute.push(quiet.session);
    cluster.run(30_000);
    assert_eq!(cluster.open(other, ino, 1, crate::cluster::RO).unwrap_err(), Status::Recalling);
    cluster.run(1_000);
    // 30 s and what clocks may differ by.
    assert_eq!(cluster.ask(quiet.conn, &Getattr { ino }), Err(Status::NoSession));
    assert!(cluster.open(other, ino, 1, crate::cluster::RO).is_ok());
    assert!(cluster.servers.iter().all(|server| server.ended_sessions == 1));
    // Its chunk was never written and goes with it.
    assert_eq!(cluster.core.state().chunks.len(), 0);
    assert_eq!(cluster.core.state().tombstones.len(), 1);
}

#[test]
fn an_evicted_session_is_not_heard_and_ends_with_its_lease() {
    let mut cluster = Cluster::new(3, 3);
    let (evicted, other) = (cluster.client(), cluster.client());
    let ino = cluster.create(evicted, "a", 1).unwrap().opened.attr.ino;
    let tool = cluster.connect(Role::Tool);
    let order = |session| EvictSession { session };
    assert_eq!(cluster.ask(tool, &order(SessionId(99))), Err(Status::NotFound));
    cluster.ask(tool, &order(evicted.session)).unwrap();
    assert_eq!(cluster.ask(evicted.conn, &KeepAlive { servers_epoch: 0 }), Err(Status::NoSession));
    let resume = ResumeSession {
        session: evicted.session,
        seen_term: Term(0),
        seen_index: LogIndex(0),
        opens: Vec::new(),
        recover: false,
    };
    assert_eq!(cluster.ask(evicted.conn, &resume).unwrap_err(), Status::NoSession);
    let sessions = cluster.ask(tool, &SessionList {}).unwrap().sessions;
    assert_eq!(sessions.iter().map(|session| session.evicted).collect::<Vec<_>>(), [true, false]);
    // It may have heard none of that, and may show what its grant lets it keep as long as its lease lasts.
    cluster.run(29_000);
    assert_eq!(cluster.open(other, ino, 1, crate::cluster::RO).unwrap_err(), Status::Recalling);
    cluster.run(2_000);
    assert!(cluster.open(other, ino, 1, crate::cluster::RO).is_ok());
    assert_eq!(cluster.ask(tool, &SessionList {}).unwrap().sessions.len(), 1);
}

#[test]
fn a_closed_session_is_no_more() {
    let mut cluster = Cluster::new(0, 1);
    let client = cluster.client();
    cluster.ask(client.conn, &CloseSession { settled: true }).unwrap();
    assert_eq!(cluster.ask(client.conn, &Getattr { ino: Ino::ROOT }), Err(Status::NoSession));
    let resume = ResumeSession {
        session: client.session,
        seen_term: Term(0),
        seen_index: LogIndex(0),
        opens: Vec::new(),
        recover: false,
    };
    assert_eq!(cluster.ask(client.conn, &resume).unwrap_err(), Status::NoSession);
    let unknown = ResumeSession { session: SessionId(99), ..resume };
    assert_eq!(cluster.ask(client.conn, &unknown).unwrap_err(), Status::NoSession);
}

#[test]
fn grants_come_back_after_a_restart_and_nobody_gets_ahead() {
    let mut cluster = Cluster::new(3, 3);
    let (writer, other) = (cluster.client(), cluster.client());
    let ino = cluster.create(writer, "a", 5).unwrap().opened.attr.ino;
    cluster.restart(0);
    cluster.rejoin_all();
    let resume = |session, opens| ResumeSession {
        session,
        seen_term: Term(0),
        seen_index: LogIndex(0),
        opens,
        recover: false,
    };
    let other_conn = cluster.connect(Role::Client);
    cluster.ask(other_conn, &resume(other.session, Vec::new())).unwrap();
    let other = crate::cluster::Client { conn: other_conn, ..other };
    // The writer has not come back: it may hold what it held.
    assert_eq!(cluster.open(other, ino, 1, crate::cluster::RO).unwrap_err(), Status::Recalling);
    let conn = cluster.connect(Role::Client);
    let claim = OpenClaim { ino, handle: Handle(5), write: true, grant: GrantKind::Write };
    let resumed = cluster.ask(conn, &resume(writer.session, vec![claim])).unwrap();
    assert_eq!(resumed.grants.len(), 1);
    assert_eq!(resumed.grants[0].1.kind, GrantKind::Write);
    assert_eq!(cluster.open(other, ino, 1, crate::cluster::RO).unwrap_err(), Status::Recalling);
    let recalled = cluster.notified.iter().any(|(to, _, _)| *to == conn);
    assert!(recalled);
}

#[test]
fn only_a_mutation_that_can_work_is_logged() {
    let mut cluster = Cluster::new(0, 1);
    let client = cluster.client();
    let before = cluster.entries.len();
    let name = b"none".to_vec().into();
    let unlink = Unlink { parent: Ino::ROOT, name, creds: Creds::default() };
    let refused: Result<Removed, Status> = cluster.ask(client.conn, &unlink);
    assert_eq!(refused, Err(Status::NotFound));
    assert_eq!(cluster.entries.len(), before);
}
