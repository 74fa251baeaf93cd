//! Every inconsistency that a check is for is planted, and found; and nothing else is.

mod plants;
mod replicas;

use dfs_proto::ids::{
    BootId, ChunkId, ClusterId, Generation, Ino, LogIndex, OsBootId, RequestId, ServerId, ServerNum,
};
use dfs_proto::meta::{Finding, FindingKind};
use dfs_proto::units::{ChunkIndex, ChunkSize, Timespec};

use super::Checker;
use crate::core::command::{Answer, Command, CommitFile, NewChunk, Origin, Record};
use crate::core::namespace::Caller;
use crate::core::ops::{self, NsCommand};
use crate::core::servers::ServerInfo;
use crate::core::state::State;

/// A state that records made, with some of everything.
pub(super) struct Sample {
    pub(super) state: State,
    pub(super) dir: Ino,
    pub(super) sub: Ino,
    /// One chunk.
    pub(super) small: Ino,
    /// Chunks at 0 and 2.
    pub(super) big: Ino,
    /// Two names.
    pub(super) linked: Ino,
    pub(super) symlink: Ino,
    /// Lost its name.
    pub(super) orphan: Ino,
}

pub(super) fn chunk(counter: u64) -> ChunkId {
    ChunkId::new(Generation(1), counter)
}

fn root() -> Caller {
    Caller { uid: 0, gid: 0, groups: None }
}

struct Maker {
    state: State,
    index: u64,
}

impl Maker {
    fn apply(&mut self, command: Command) -> Answer {
        self.apply_of(None, command)
    }

    fn apply_of(&mut self, origin: Option<Origin>, command: Command) -> Answer {
        self.index += 1;
        let wall = Timespec { sec: 1_795_000_000, nsec: 7 };
        let answer = self.state.apply(LogIndex(self.index), &Record { origin, wall, command }).answer;
        assert!(!matches!(answer, Answer::Failed(_)), "{answer:?}");
        answer
    }

    fn made(&mut self, command: NsCommand) -> Ino {
        match self.apply(Command::Ns(command)) {
            Answer::Attr(attr) => attr.ino,
            other => panic!("{other:?}"),
        }
    }

    fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        let name = name.as_bytes().to_vec().into();
        self.made(NsCommand::Mkdir(ops::Mkdir { parent, name, mode: 0o755, now: now(), by: root() }))
    }

    fn file(&mut self, parent: Ino, name: &str) -> Ino {
        let name = name.as_bytes().to_vec().into();
        self.made(NsCommand::Create(ops::Create { parent, name, mode: 0o644, now: now(), by: root() }))
    }

    fn chunk(&mut self, ino: Ino, index: u64, counter: u64, members: &[u16]) {
        let members = members.iter().map(|num| ServerNum(*num)).collect();
        let chunk = NewChunk { id: chunk(counter), members };
        self.apply(Command::Allocate { ino, index: ChunkIndex(index), chunk });
    }

    fn commit(&mut self, ino: Ino, size: u64, synced: &[u64]) {
        let size_epoch = self.state.ns.getattr(ino).unwrap().size_epoch;
        let commit = ops::Commit {
            ino,
            size_epoch,
            size_at_least: Some(size),
            mtime: None,
            atime: None,
            clear_privileges: false,
            now: now(),
        };
        let synced = synced.iter().map(|counter| chunk(*counter)).collect();
        self.apply(Command::Commit(CommitFile { commit, synced, unused: Vec::new(), set: None }));
    }
}

fn now() -> Timespec {
    Timespec { sec: 1_795_000_000, nsec: 7 }
}

pub(super) fn server(num: u16) -> ServerInfo {
    ServerInfo {
        id: ServerId(u128::from(num) + 100),
        boot: BootId(u64::from(num)),
        os_boot: OsBootId(1),
        hb_ctr: 1,
        name: format!("server-{num}"),
        tcp: format!("10.0.0.{num}:9500"),
        unix: None,
        labels: Vec::new(),
        version: "1".to_owned(),
    }
}

pub(super) fn sample() -> Sample {
    let mut make = Maker { state: State::empty(), index: 0 };
    make.apply(Command::Genesis {
        cluster: ClusterId(1),
        generation: Generation(1),
        chunk_size: ChunkSize::try_from(65_536).unwrap(),
        goal: 2,
    });
    make.apply(Command::ReserveIds { below: 1000 });
    for num in 1..=3 {
        make.apply(Command::RegisterServer(server(num)));
    }
    make.apply(Command::OpenSession { name: "mount".to_owned(), os_boot: OsBootId(5) });
    let dir = make.dir(Ino::ROOT, "dir");
    let sub = make.dir(dir, "sub");
    let small = make.file(sub, "small");
    make.chunk(small, 0, 1, &[1, 2]);
    make.commit(small, 100, &[1]);
    let big = make.file(dir, "big");
    make.chunk(big, 0, 2, &[2, 3]);
    make.chunk(big, 2, 3, &[3, 1]);
    make.commit(big, 3 * 65_536, &[2, 3]);
    let linked = make.file(dir, "linked");
    let link = ops::Link { ino: linked, parent: sub, name: b"other".to_vec().into(), now: now(), by: root() };
    make.made(NsCommand::Link(link));
    let symlink = make.made(NsCommand::Symlink(ops::Symlink {
        parent: dir,
        name: b"symlink".to_vec().into(),
        target: b"to/there".to_vec().into(),
        now: now(),
        by: root(),
    }));
    let orphan = make.file(dir, "orphan");
    make.chunk(orphan, 0, 4, &[1, 3]);
    make.commit(orphan, 10, &[4]);
    let unlink = |name: &str| {
        let name = name.as_bytes().to_vec().into();
        Command::Ns(NsCommand::Unlink(ops::Unlink { parent: dir, name, now: now(), by: root() }))
    };
    let session = make.state.sessions.last();
    let origin = Origin { session, rid: RequestId(3), done: RequestId(3) };
    make.apply_of(Some(origin), unlink("orphan"));
    // One that is gone, and has its tombstone.
    let gone = make.file(dir, "gone");
    make.chunk(gone, 0, 5, &[1, 2]);
    make.apply(unlink("gone"));
    make.apply(Command::FreeInodes(ops::FreeInodes { inos: vec![gone] }));
    Sample { state: make.state, dir, sub, small, big, linked, symlink, orphan }
}

/// All findings, looked for in steps of `budget`.
pub(super) fn findings(state: &State, budget: usize) -> Vec<Finding> {
    let mut checker = Checker::new(state.clone());
    while !checker.step(budget) {}
    let (mut found, more) = checker.take(usize::MAX);
    assert_eq!(more, 0);
    found.sort();
    found
}

#[test]
fn what_records_made_is_whole() {
    let sample = sample();
    assert_eq!(findings(&sample.state, 1), []);
    sample.state.check().unwrap();
    let mut checker = Checker::new(sample.state.clone());
    assert!(checker.step(1 << 20));
    let looked = checker.looked();
    let counts =
        (looked.inodes, looked.names, looked.chunks, looked.tombstones, looked.sessions, looked.servers);
    assert_eq!(counts, (8, 7, 4, 1, 1, 3), "{looked:?}");
    assert_eq!(State::empty().check(), Ok(()));
}

#[test]
fn a_chunk_below_its_goal_is_named_and_no_defect() {
    let mut sample = sample();
    let mut meta = sample.state.chunks.get(chunk(1)).unwrap();
    meta.members = crate::core::chunks::Members::of(&[ServerNum(1)]);
    meta.config.0 += 1;
    sample.state.chunks.update(chunk(1), |at| *at = meta);
    let found = findings(&sample.state, 1 << 20);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, FindingKind::BelowGoal);
    sample.state.check().unwrap();
}

#[test]
fn a_finding_says_what_to_do() {
    let mut sample = sample();
    sample.state.ns.directory_count += 1;
    let found = findings(&sample.state, 1 << 20);
    let line = found[0].to_string();
    assert_eq!(
        line,
        "counter: directories: counter 4, counted 3: a defect of the master: keep a copy of its directory, and \
         report it with this line"
    );
}
