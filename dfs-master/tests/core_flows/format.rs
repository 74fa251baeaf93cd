//! The bytes of records: what an older build logged, a newer one must read.

use std::fmt::Write as _;
use std::path::Path;

use dfs_master::core::command::{
    Activation, CloseDone, Command, CommitFile, Departure, GiveUp, LearnerChange, NewChunk, Origin, Record,
    Unused,
};
use dfs_master::core::ops;
use dfs_master::core::policy::Thresholds;
use dfs_master::core::servers::ServerInfo;
use dfs_master::core::state::Mark;
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, ConfigNum, Generation, Ino, LogIndex, OpenNum, OsBootId,
    RequestId, ServerId, ServerNum, SessionId, SizeEpoch,
};
use dfs_proto::meta::Goal;
use dfs_proto::units::{ChunkIndex, ChunkSize, Timespec};

fn set_while_making(now: Timespec, by: dfs_master::core::namespace::Caller) -> ops::Setattr {
    ops::Setattr {
        ino: Ino(9),
        mode: Some(0o640),
        uid: None,
        gid: Some(7),
        atime: None,
        mtime: Some(dfs_proto::meta::SetTime::At(now)),
        now,
        by,
    }
}

fn given_up() -> Command {
    Command::GiveUp(GiveUp {
        chunk: ChunkId(77),
        version: ChunkVersion(3),
        config: ConfigNum(4),
        members: vec![ServerNum(5)],
        filled: true,
    })
}

fn genesis() -> Command {
    let (cluster, generation, chunk_size) = (ClusterId(1), Generation(1), ChunkSize::DEFAULT);
    Command::Genesis { cluster, generation, chunk_size, goal: 3 }
}

fn goal() -> Goal {
    Goal { goal: Some(3), max: Some(5) }
}

fn closed() -> Vec<CloseDone> {
    let (version, open_num) = (ChunkVersion(3), OpenNum(2));
    vec![CloseDone { chunk: ChunkId(77), version, open_num, digest: 1 << 100 }]
}

fn departures() -> Vec<Departure> {
    let (version, config) = (ChunkVersion(2), ConfigNum(3));
    vec![Departure { chunk: ChunkId(77), version, config, server: ServerNum(3) }]
}

fn registered() -> Command {
    Command::RegisterServer(ServerInfo {
        id: ServerId(5),
        boot: BootId(6),
        os_boot: OsBootId(7),
        hb_ctr: 8,
        name: "cs1".into(),
        tcp: "10.0.0.1:7000".into(),
        unix: Some("/run/cs1".into()),
        labels: vec![("rack".into(), "a".into())],
        version: "0.1.0".into(),
    })
}

/// One of every command.
fn samples() -> Vec<Command> {
    let now = Timespec { sec: 1_700_000_000, nsec: 5 };
    let by = dfs_master::core::namespace::Caller { uid: 1, gid: 2, groups: None };
    let name = serde_bytes::ByteBuf::from(b"name".to_vec());
    let chunk = NewChunk { id: ChunkId(77), members: vec![ServerNum(1), ServerNum(2)] };
    let create = ops::Create { parent: Ino::ROOT, name: name.clone(), mode: 0o644, now, by: by.clone() };
    let commit = ops::Commit {
        ino: Ino(9),
        size_epoch: SizeEpoch(3),
        size_at_least: Some(1000),
        mtime: Some(dfs_proto::meta::SetTime::Now),
        atime: None,
        clear_privileges: false,
        now,
    };
    let learner = LearnerChange { chunk: ChunkId(77), server: ServerNum(3) };
    let activation = Activation {
        chunk: ChunkId(77),
        version: ChunkVersion(2),
        config: ConfigNum(2),
        members: vec![ServerNum(2)],
        lossy: false,
    };
    let unlink = ops::Unlink { parent: Ino::ROOT, name, now, by: by.clone() };
    let (server, boot, index) = (ServerNum(3), BootId(6), ChunkIndex(4));
    vec![
        genesis(),
        Command::Ns(ops::NsCommand::Unlink(unlink)),
        Command::Create { create, first: Some(chunk.clone()) },
        Command::Allocate { ino: Ino(9), index, chunk },
        Command::Commit(CommitFile {
            commit,
            synced: vec![ChunkId(77)],
            unused: vec![(index, ChunkId(78))],
            set: Some(set_while_making(now, by.clone())),
        }),
        Command::DropUnused { chunks: vec![Unused { ino: Ino(9), index, chunk: ChunkId(78) }] },
        Command::OpenSession { name: "host:/mnt".into(), os_boot: OsBootId(7) },
        Command::EndSession { session: SessionId(4) },
        registered(),
        Command::SettleServer { server, boot },
        Command::ReserveIds { below: 65_536 },
        Command::Recovering { chunks: vec![(ChunkId(77), ChunkVersion(2))] },
        Command::Activate { chunks: vec![activation] },
        Command::AddLearners { learners: vec![learner] },
        Command::DropLearners { learners: vec![learner] },
        Command::CommitLearner { chunk: ChunkId(77), version: ChunkVersion(2), config: ConfigNum(2), server },
        Command::FreeInodes(ops::FreeInodes { inos: vec![Ino(9)] }),
        Command::Tombstones { done: vec![ChunkId(77)], forget: vec![ChunkId(70)] },
        Command::NewGeneration { generation: Generation(2) },
        given_up(),
        Command::StateHash(Mark { index: LogIndex(10_000), hash: 0x0123_4567_89ab_cdef }),
        Command::CloseChunks { chunks: closed() },
        Command::Reopen { chunk: ChunkId(77), open_num: OpenNum(3) },
        Command::Leave { leaving: departures() },
        Command::Left { left: departures() },
        Command::DrainServer { server, drain: true },
        Command::DropHoles { chunks: closed() },
        Command::SetPolicy(Thresholds::default()),
        Command::MaintainServer { server, for_ms: Some(1_800_000) },
        Command::SetGoal(ops::SetGoal { inos: vec![Ino(9), Ino(300)], goal: goal() }),
    ]
}

#[test]
fn records_are_the_ones_of_the_fixture() {
    let mut now = String::new();
    for (at, command) in samples().into_iter().enumerate() {
        let origin =
            (at % 2 == 0).then_some(Origin { session: SessionId(4), rid: RequestId(10), done: RequestId(9) });
        let record = Record { origin, wall: Timespec { sec: 1_700_000_001, nsec: 6 }, command };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        for byte in bytes {
            write!(now, "{byte:02x}").unwrap();
        }
        now.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/record.v1");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        golden,
        now,
        "appended commands belong at the end of {}; nothing else may change",
        path.display()
    );
}

#[test]
fn what_is_no_record_is_refused() {
    assert!(Record::decode(&[]).is_err());
    assert!(Record::decode(&[9, 0, 0]).is_err());
    assert!(Record::decode(&[1]).is_err());
}
