//! Snapshots: they come back whole, damage is refused, and their bytes are those of version 1.

use std::fmt::Write;

use dfs_master::core::namespace::{LoadError, Namespace, NamespaceReader};
use dfs_master::core::ops::*;
use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{FileKind, RenameMode, SetTime, SetxattrMode};
use dfs_proto::units::{ChunkIndex, Timespec};

use crate::support::{at, by_path, create, fresh, mkdir, root, user};

pub(crate) fn blocks(ns: &Namespace) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    ns.write_sections(&mut |block: &[u8]| blocks.push(block.to_vec()));
    blocks
}

pub(crate) fn load(blocks: &[Vec<u8>]) -> Result<Namespace, LoadError> {
    let mut reader = NamespaceReader::new();
    for block in blocks {
        reader.block(block)?;
    }
    reader.finish()
}

/// What a snapshot makes of a namespace.
pub(crate) fn reloaded(ns: &Namespace) -> Namespace {
    load(&blocks(ns)).unwrap()
}

/// One command of every variant, in an order in which all succeed on a fresh namespace.
#[allow(clippy::too_many_lines, reason = "a list, read from top to bottom")]
pub(crate) fn one_of_each() -> Vec<NsCommand> {
    let name = |name: &str| name.as_bytes().to_vec().into();
    let by = user(5, &[5, 6]);
    let (now, top) = (at(-7), Ino::ROOT);
    let chunk = |index, chunk| {
        NsCommand::SetChunk(SetChunk { ino: Ino(3), index: ChunkIndex(index), chunk: ChunkId(chunk) })
    };
    vec![
        mkdir(top, "dir", 0o2770, by.clone()),
        create(Ino(2), "file", 0o640, by.clone()),
        NsCommand::Mknod(Mknod {
            parent: top,
            name: name("null"),
            kind: FileKind::CharDev,
            mode: 0o666,
            rdev: 259,
            now,
            by: root(),
        }),
        NsCommand::Symlink(Symlink {
            parent: top,
            name: name("sym"),
            target: name("dir/file"),
            now,
            by: by.clone(),
        }),
        NsCommand::Link(Link { ino: Ino(3), parent: top, name: name("hard"), now, by: by.clone() }),
        create(top, "gone", 0o600, by.clone()),
        NsCommand::Unlink(Unlink { parent: top, name: name("gone"), now, by: by.clone() }),
        mkdir(top, "empty", 0o700, by.clone()),
        NsCommand::Rmdir(Rmdir { parent: top, name: name("empty"), now, by: by.clone() }),
        NsCommand::Rename(Rename {
            parent: top,
            name: name("sym"),
            new_parent: Ino(2),
            new_name: name("moved"),
            mode: RenameMode::NoReplace,
            now,
            by: by.clone(),
        }),
        NsCommand::Setattr(Setattr {
            ino: Ino(3),
            mode: Some(0o4755),
            uid: None,
            gid: Some(6),
            atime: Some(SetTime::At(Timespec { sec: -1 << 50, nsec: 999_999_999 })),
            mtime: Some(SetTime::Now),
            now,
            by: by.clone(),
        }),
        chunk(0, 1 << 48 | 77),
        chunk(2, 1 << 48 | 78),
        chunk(1 << 40, 1 << 48 | 79),
        NsCommand::Commit(Commit {
            ino: Ino(3),
            size_epoch: SizeEpoch(0),
            size_at_least: Some(150_000),
            mtime: Some(SetTime::Now),
            atime: None,
            clear_privileges: true,
            now,
        }),
        NsCommand::ClearChunk(ClearChunk {
            ino: Ino(3),
            index: ChunkIndex(1 << 40),
            chunk: ChunkId(1 << 48 | 79),
        }),
        NsCommand::Setxattr(Setxattr {
            ino: Ino(3),
            name: name("user.note"),
            value: vec![0, 1, 255].into(),
            mode: SetxattrMode::Create,
            now,
            by: by.clone(),
        }),
        NsCommand::Setxattr(Setxattr {
            ino: Ino(2),
            name: name("user.x"),
            value: vec![].into(),
            mode: SetxattrMode::Any,
            now,
            by: by.clone(),
        }),
        NsCommand::Removexattr(Removexattr { ino: Ino(2), name: name("user.x"), now, by: by.clone() }),
        NsCommand::Truncate(Truncate { ino: Ino(3), size: 150_001, now, by: by_path(by.clone()) }),
        NsCommand::TruncateIntent(TruncateIntent {
            ino: Ino(3),
            size: 140_000,
            now,
            by: by_path(by.clone()),
        }),
        NsCommand::TruncateFinal(TruncateFinal { ino: Ino(3), size_epoch: SizeEpoch(1), now }),
        NsCommand::FreeInodes(FreeInodes { inos: vec![Ino(6)] }),
        NsCommand::TruncateIntent(TruncateIntent {
            ino: Ino(3),
            size: 131_073,
            now,
            by: TruncateBy { caller: by, by_handle: true },
        }),
    ]
}

/// A namespace with something of every section.
fn some_of_everything() -> Namespace {
    let mut ns = fresh();
    for command in one_of_each() {
        ns.apply(&command).unwrap_or_else(|status| panic!("{command:?}: {status}"));
    }
    ns
}

fn hex<'a>(lines: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let mut out = String::new();
    for line in lines {
        for byte in line {
            write!(out, "{byte:02x}").unwrap();
        }
        out.push('\n');
    }
    out
}

fn unhex(text: &str) -> Vec<Vec<u8>> {
    let byte = |line: &str, at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    text.lines().map(|line| (0..line.len()).step_by(2).map(|at| byte(line, at)).collect()).collect()
}

/// The bytes of a fixture; written anew when `BLESS` is set, for a new version only.
fn fixture(name: &str, now: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, now.as_bytes()).unwrap();
    }
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_encoding_is_version_1() {
    let ns = some_of_everything();
    let now = hex(&blocks(&ns));
    let golden = fixture("namespace.v1", &now);
    assert_eq!(golden, now);
    assert_eq!(load(&unhex(&golden)).unwrap().state_hash(), ns.state_hash());
}

#[test]
fn the_commands_are_those_of_version_1() {
    let commands = one_of_each();
    let encoded: Vec<Vec<u8>> =
        commands.iter().map(|command| postcard::to_stdvec(command).unwrap()).collect();
    let now = hex(&encoded);
    let golden = fixture("ns-command.v1", &now);
    assert_eq!(golden, now);
    let decoded: Vec<NsCommand> =
        unhex(&golden).iter().map(|bytes| postcard::from_bytes(bytes).unwrap()).collect();
    assert_eq!(decoded, commands);
}

#[test]
fn a_large_namespace_comes_back_in_many_blocks() {
    let mut ns = fresh();
    for n in 0..9000 {
        ns.apply(&create(Ino::ROOT, &format!("file-with-a-name-{n}"), 0o644, user(5, &[]))).unwrap();
    }
    for index in 0..3000 {
        ns.apply(&NsCommand::SetChunk(SetChunk {
            ino: Ino(5),
            index: ChunkIndex(index * 3),
            chunk: ChunkId(index),
        }))
        .unwrap();
    }
    let written = blocks(&ns);
    assert!(written.len() > 6, "{} blocks", written.len());
    assert!(written.iter().all(|block| block.len() < 200 << 10));
    let loaded = load(&written).unwrap();
    assert_eq!(loaded.state_hash(), ns.state_hash());
    assert_eq!(blocks(&loaded), written);
    assert_eq!(loaded.counts(), ns.counts());
}

#[test]
fn damage_is_refused_and_never_panics() {
    let written = blocks(&some_of_everything());
    for missing in 0..written.len() {
        let mut fewer = written.clone();
        fewer.remove(missing);
        // Side tables may be empty, so only what is counted is missed.
        let counted = matches!(written[missing][0], 1 | 2 | 3 | 8);
        assert!(load(&fewer).is_err() || !counted, "block {missing} is not missed");
    }
    for (at, block) in written.iter().enumerate() {
        for byte in 0..block.len() {
            for flip in [1, 0x80, 0xFF] {
                let mut damaged = written.clone();
                damaged[at][byte] ^= flip;
                if let Ok(mut ns) = load(&damaged) {
                    for command in one_of_each() {
                        let _ = ns.apply(&command);
                    }
                    let _ = ns.state_hash();
                }
            }
            let mut cut = written.clone();
            cut[at].truncate(byte);
            let _ = load(&cut);
        }
    }
    let mut newer = written.clone();
    newer[0][1] = 2;
    assert!(matches!(load(&newer), Err(LoadError::Version(2))));
    let mut twice = written.clone();
    twice.push(written[1].clone());
    assert!(matches!(load(&twice), Err(LoadError::Damaged { .. })));
}
