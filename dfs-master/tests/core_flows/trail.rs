//! What the log came to, logged and compared: a state that is not the one of before is not gone on with.

use dfs_master::core::command::{Command, Record};
use dfs_master::core::ops::NsCommand;
use dfs_master::core::state::HASH_EVERY;
use dfs_proto::conn::Role;
use dfs_proto::ids::Ino;
use dfs_proto::meta::{Creds, MadeDir, Mkdir, Recover};
use dfs_proto::status::Status;

use crate::cluster::{Client, Cluster};

fn mkdir(cluster: &mut Cluster, client: Client, name: &str) -> Result<MadeDir, Status> {
    let name = name.as_bytes().to_vec().into();
    cluster.ask(client.conn, &Mkdir { parent: Ino::ROOT, name, mode: 0o755, creds: Creds::default() })
}

/// A log that has passed its first number.
fn long_log(snapshot_records: u64) -> Cluster {
    let mut cluster = Cluster::with(2, 2, |config| config.snapshot_records = snapshot_records);
    let client = cluster.client();
    for n in 0..HASH_EVERY {
        mkdir(&mut cluster, client, &format!("d{n}")).unwrap();
        if n % 100 == 0 {
            cluster.written_file(client, &format!("f{n}"));
            cluster.run(100);
        }
    }
    cluster
}

fn logged(cluster: &Cluster) -> usize {
    let of = |data: &[u8]| Record::decode(data).is_ok_and(|r| matches!(r.command, Command::StateHash(_)));
    cluster.entries.iter().filter(|entry| of(&entry.data)).count()
}

#[test]
fn a_log_applied_again_comes_to_the_same() {
    for snapshot_records in [u64::MAX, 3_000] {
        let mut cluster = long_log(snapshot_records);
        assert_eq!(logged(&cluster), 1);
        assert_eq!(cluster.snapshot.is_some(), snapshot_records < u64::MAX);
        cluster.restart(0);
        assert_eq!(cluster.core.hold(), None);
        let client = cluster.client();
        mkdir(&mut cluster, client, "after").unwrap();
    }
}

#[test]
fn a_log_that_comes_to_something_else_is_not_gone_on_with() {
    let mut cluster = long_log(u64::MAX);
    // As if this build took one old record differently.
    let is_d7 = |data: &[u8]| match Record::decode(data).map(|record| record.command) {
        Ok(Command::Ns(NsCommand::Mkdir(mkdir))) => mkdir.name.as_ref() == b"d7",
        _ => false,
    };
    let entry = cluster.entries.iter_mut().find(|entry| is_d7(&entry.data)).unwrap();
    let mut record = Record::decode(&entry.data).unwrap();
    if let Command::Ns(NsCommand::Mkdir(mkdir)) = &mut record.command {
        mkdir.name = b"d6".to_vec().into();
    }
    entry.data = record.encode().into();
    cluster.restart(0);
    let why = cluster.core.hold().unwrap().to_owned();
    assert!(why.contains("another state"), "{why}");
    let tool = cluster.connect(Role::Tool);
    let report = cluster.ask(tool, &Recover { accept: None }).unwrap();
    assert_eq!(report.hold.as_deref(), Some(&*why));
    cluster.ask(tool, &Recover { accept: Some(report.last_index) }).unwrap();
    assert_eq!(cluster.core.hold(), None);
    let client = cluster.client();
    mkdir(&mut cluster, client, "after").unwrap();
    // What was accepted once is not asked again.
    cluster.restart(0);
    assert_eq!(cluster.core.hold(), None);
}
