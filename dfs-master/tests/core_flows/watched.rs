//! New directories whose maker is told when another client makes a name in them.

use dfs_proto::ids::{Handle, Ino};
use dfs_proto::meta::{Create, Creds, DirChanged, Link, MadeDir, Mkdir, Name, Rename, RenameMode};
use dfs_proto::request::Op;

use crate::cluster::{Client, Cluster, RW};

fn name(name: &str) -> Name {
    name.as_bytes().to_vec().into()
}

fn mkdir(of: &str) -> Mkdir {
    Mkdir { parent: Ino::ROOT, name: name(of), mode: 0o755, creds: Creds::default() }
}

fn create(parent: Ino, of: &str) -> Create {
    Create {
        parent,
        name: name(of),
        mode: 0o644,
        handle: Handle(u64::from(of.as_bytes()[0])),
        access: RW,
        exclusive: true,
        truncate: false,
        creds: Creds::default(),
    }
}

/// Directories that the client was told of.
fn told(cluster: &mut Cluster, client: Client) -> Vec<Ino> {
    let told = std::mem::take(&mut cluster.notified);
    let mine = told.into_iter().filter(|(conn, op, _)| *conn == client.conn && *op == Op::DirChanged);
    mine.map(|(_, _, body)| rmp_serde::from_slice::<DirChanged>(&body).unwrap().dir).collect()
}

#[test]
fn another_clients_name_is_told_once_and_ones_own_never() {
    let mut cluster = Cluster::new(3, 2);
    let (a, b) = (cluster.client(), cluster.client());
    let MadeDir { attr, watched } = cluster.ask(a.conn, &mkdir("d")).unwrap();
    assert!(watched);
    cluster.ask(a.conn, &create(attr.ino, "x")).unwrap();
    assert_eq!(told(&mut cluster, a), []);
    cluster.ask(b.conn, &create(attr.ino, "y")).unwrap();
    assert_eq!(told(&mut cluster, a), [attr.ino]);
    cluster.ask(b.conn, &create(attr.ino, "z")).unwrap();
    assert_eq!(told(&mut cluster, a), []);
}

#[test]
fn links_and_renames_into_a_directory_are_told() {
    let mut cluster = Cluster::new(3, 2);
    let (a, b) = (cluster.client(), cluster.client());
    let file = cluster.ask(b.conn, &create(Ino::ROOT, "f")).unwrap().opened.attr.ino;
    let dirs = ["d", "e", "g"].map(|dir| cluster.ask(a.conn, &mkdir(dir)).unwrap().attr.ino);
    let link = Link { ino: file, parent: dirs[0], name: name("l"), creds: Creds::default() };
    cluster.ask(b.conn, &link).unwrap();
    let rename = Rename {
        parent: Ino::ROOT,
        name: name("f"),
        new_parent: dirs[1],
        new_name: name("r"),
        mode: RenameMode::Replace,
        creds: Creds::default(),
    };
    cluster.ask(b.conn, &rename).unwrap();
    let inside = Mkdir { parent: dirs[2], ..mkdir("m") };
    cluster.ask(b.conn, &inside).unwrap();
    assert_eq!(told(&mut cluster, a), dirs);
}

#[test]
fn a_late_answer_is_not_believed_empty() {
    let mut cluster = Cluster::new(3, 2);
    let (a, b) = (cluster.client(), cluster.client());
    let made = cluster.send(a.conn, &mkdir("d"), 70, 70);
    let made: MadeDir = rmp_serde::from_slice(&cluster.answer(a.conn, made).unwrap().body).unwrap();
    cluster.ask(b.conn, &create(made.attr.ino, "y")).unwrap();
    let again = cluster.send(a.conn, &mkdir("d"), 70, 70);
    let again: MadeDir = rmp_serde::from_slice(&cluster.answer(a.conn, again).unwrap().body).unwrap();
    assert_eq!((again.attr.ino, again.watched), (made.attr.ino, false));
}
