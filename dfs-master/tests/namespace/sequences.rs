//! Random sequences of all commands, applied to the namespace and to the model: every answer and all that
//! can be read must be equal after every step, and what was cloned or written must stay as it was.
//!
//! `NS_SEQUENCES` sets how many; the default takes seconds.

use std::collections::BTreeMap;

use dfs_master::core::namespace::{Caller, Namespace};
use dfs_master::core::ops::*;
use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{FileKind, Name, RenameMode, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, FILE_SIZE_MAX, Timespec};
use proptest::prelude::*;

use crate::aim::aim;
use crate::model::Model;
use crate::snapshot::reloaded;
use crate::support::{CHUNK, at, fresh};

/// What [`aim`] makes an inode of.
fn any_ino() -> impl Strategy<Value = Ino> {
    (0_u64..64).prop_map(Ino)
}

fn any_name() -> BoxedStrategy<Name> {
    let plain = (0_u8..5).prop_map(|n| vec![b'a' + n]);
    let odd = prop_oneof![
        Just(b"..".to_vec()),
        Just(Vec::new()),
        Just(b"x/y".to_vec()),
        Just(vec![b'n'; 255]),
        Just(vec![b'n'; 256]),
        Just(vec![0xFF, 0xFE]),
    ];
    prop_oneof![15 => plain, 1 => odd].prop_map(Name::from).boxed()
}

fn any_time() -> BoxedStrategy<Timespec> {
    let nsec = prop_oneof![30 => 0_u32..1_000_000_000, 2 => Just(999_999_999), 1 => Just(1_000_000_000)];
    let sec = prop_oneof![20 => -50_i64..50, 1 => Just(-1_i64 << 40), 1 => Just(1_i64 << 40)];
    (sec, nsec).prop_map(|(sec, nsec)| Timespec { sec, nsec }).boxed()
}

/// The groups that there are; uids are from the same range, and 0.
const GIDS: [u32; 3] = [5, 6, 7];

fn any_caller() -> BoxedStrategy<Caller> {
    let uid = prop_oneof![2 => Just(0_u32), 2 => Just(5), 1 => Just(6)];
    let groups = proptest::sample::subsequence(GIDS.to_vec(), 0..=3);
    (uid, 4_u32..7, prop_oneof![2 => groups.prop_map(Some), 1 => Just(None)])
        .prop_map(|(uid, gid, groups)| Caller { uid, gid, groups })
        .boxed()
}

fn any_mode() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0o777_u16), 2 => Just(0o2777), 1 => Just(0o1777), 2 => 0_u16..0o10000, 1 => any::<u16>()]
}

fn any_size() -> BoxedStrategy<u64> {
    let near = (0_u64..4, 0_u64..3).prop_map(|(chunks, rest)| chunks * CHUNK + rest * 5000);
    prop_oneof![10 => near, 1 => Just(FILE_SIZE_MAX), 1 => Just(FILE_SIZE_MAX + 1), 1 => Just(1 << 62)]
        .boxed()
}

fn any_index() -> impl Strategy<Value = ChunkIndex> {
    prop_oneof![10 => 0_u64..5, 1 => Just((1 << 63) / CHUNK - 1), 1 => Just((1 << 63) / CHUNK)]
        .prop_map(ChunkIndex)
}

fn any_set_time() -> BoxedStrategy<Option<SetTime>> {
    prop_oneof![2 => Just(None), 2 => Just(Some(SetTime::Now)), 1 => any_time().prop_map(|t| Some(SetTime::At(t)))].boxed()
}

fn any_xattr_name() -> impl Strategy<Value = Name> {
    let names =
        ["user.a", "user.b", "trusted.a", "security.capability", "user.", "system.posix_acl_access", "x"];
    proptest::sample::select(names.to_vec()).prop_map(|name| Name::from(name.as_bytes().to_vec()))
}

fn any_names_command() -> BoxedStrategy<NsCommand> {
    let place = || (any_ino(), any_name(), any_time(), any_caller());
    let kind = (1_u8..8).prop_map(|code| FileKind::from_code(code).unwrap());
    let target = prop_oneof![5 => Just(3_usize), 1 => Just(0), 1 => Just(4095), 1 => Just(4096)];
    let renaming = prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
    ];
    prop_oneof![
        4 => (place(), any_mode()).prop_map(|((parent, name, now, by), mode)| {
            NsCommand::Create(Create { parent, name, mode, now, by })
        }),
        5 => (place(), any_mode()).prop_map(|((parent, name, now, by), mode)| {
            NsCommand::Mkdir(Mkdir { parent, name, mode, now, by })
        }),
        1 => (place(), any_mode(), kind, any::<u32>()).prop_map(|((parent, name, now, by), mode, kind, rdev)| {
            NsCommand::Mknod(Mknod { parent, name, kind, mode, rdev, now, by })
        }),
        1 => (place(), target).prop_map(|((parent, name, now, by), len)| {
            NsCommand::Symlink(Symlink { parent, name, target: vec![b't'; len].into(), now, by })
        }),
        2 => (place(), any_ino()).prop_map(|((parent, name, now, by), ino)| {
            NsCommand::Link(Link { ino, parent, name, now, by })
        }),
        3 => place().prop_map(|(parent, name, now, by)| NsCommand::Unlink(Unlink { parent, name, now, by })),
        3 => place().prop_map(|(parent, name, now, by)| NsCommand::Rmdir(Rmdir { parent, name, now, by })),
        6 => (place(), any_ino(), any_name(), renaming).prop_map(
            |((parent, name, now, by), new_parent, new_name, mode)| {
                NsCommand::Rename(Rename { parent, name, new_parent, new_name, mode, now, by })
            }
        ),
    ]
    .boxed()
}

fn any_inode_command() -> BoxedStrategy<NsCommand> {
    let who = || (any_ino(), any_time(), any_caller());
    let id = || proptest::option::of(prop_oneof![5 => 4_u32..8, 1 => Just(u32::MAX)]);
    let modes = prop_oneof![Just(SetxattrMode::Any), Just(SetxattrMode::Create), Just(SetxattrMode::Replace)];
    let value = prop_oneof![5 => Just(3_usize), 1 => Just(0), 1 => Just(65_536), 1 => Just(65_537)];
    prop_oneof![
        4 => (who(), proptest::option::of(any_mode()), id(), id(), any_set_time(), any_set_time()).prop_map(
            |((ino, now, by), mode, uid, gid, atime, mtime)| {
                NsCommand::Setattr(Setattr { ino, mode, uid, gid, atime, mtime, now, by })
            }
        ),
        2 => (who(), any_xattr_name(), value, modes).prop_map(|((ino, now, by), name, len, mode)| {
            NsCommand::Setxattr(Setxattr { ino, name, value: vec![7; len].into(), mode, now, by })
        }),
        1 => (who(), any_xattr_name()).prop_map(|((ino, now, by), name)| {
            NsCommand::Removexattr(Removexattr { ino, name, now, by })
        }),
        1 => proptest::collection::vec(any_ino(), 0..8).prop_map(|inos| NsCommand::FreeInodes(FreeInodes { inos })),
    ]
    .boxed()
}

fn any_data_command() -> BoxedStrategy<NsCommand> {
    let by =
        || (any_caller(), any::<bool>()).prop_map(|(caller, by_handle)| TruncateBy { caller, by_handle });
    let epoch = || prop_oneof![5 => 0_u32..4, 1 => 4_u32..6].prop_map(SizeEpoch);
    let chunk = || (0_u64..6).prop_map(ChunkId);
    prop_oneof![
        2 => (any_ino(), any_size(), any_time(), by()).prop_map(|(ino, size, now, by)| {
            NsCommand::Truncate(Truncate { ino, size, now, by })
        }),
        2 => (any_ino(), any_size(), any_time(), by()).prop_map(|(ino, size, now, by)| {
            NsCommand::TruncateIntent(TruncateIntent { ino, size, now, by })
        }),
        3 => (any_ino(), epoch(), any_time()).prop_map(|(ino, size_epoch, now)| {
            NsCommand::TruncateFinal(TruncateFinal { ino, size_epoch, now })
        }),
        5 => (
            (any_ino(), epoch(), any_time()),
            proptest::option::of(any_size()), any_set_time(), any_set_time(), any::<bool>(),
        ).prop_map(|((ino, size_epoch, now), size_at_least, mtime, atime, clear_privileges)| {
            NsCommand::Commit(Commit { ino, size_epoch, size_at_least, mtime, atime, clear_privileges, now })
        }),
        6 => (any_ino(), any_index(), chunk()).prop_map(|(ino, index, chunk)| {
            NsCommand::SetChunk(SetChunk { ino, index, chunk })
        }),
        2 => (any_ino(), any_index(), chunk()).prop_map(|(ino, index, chunk)| {
            NsCommand::ClearChunk(ClearChunk { ino, index, chunk })
        }),
    ]
    .boxed()
}

fn any_command() -> impl Strategy<Value = NsCommand> {
    prop_oneof![4 => any_names_command(), 2 => any_inode_command(), 3 => any_data_command()]
}

/// The caller of a command, if it has one.
fn caller_of(command: &mut NsCommand) -> Option<&mut Caller> {
    Some(match command {
        NsCommand::Create(op) => &mut op.by,
        NsCommand::Mkdir(op) => &mut op.by,
        NsCommand::Mknod(op) => &mut op.by,
        NsCommand::Symlink(op) => &mut op.by,
        NsCommand::Link(op) => &mut op.by,
        NsCommand::Unlink(op) => &mut op.by,
        NsCommand::Rmdir(op) => &mut op.by,
        NsCommand::Rename(op) => &mut op.by,
        NsCommand::Setattr(op) => &mut op.by,
        NsCommand::Truncate(op) => &mut op.by.caller,
        NsCommand::TruncateIntent(op) => &mut op.by.caller,
        NsCommand::Setxattr(op) => &mut op.by,
        NsCommand::Removexattr(op) => &mut op.by,
        NsCommand::TruncateFinal(_)
        | NsCommand::Commit(_)
        | NsCommand::SetChunk(_)
        | NsCommand::ClearChunk(_)
        | NsCommand::FreeInodes(_) => return None,
    })
}

/// All that can be read is what the model says.
pub(crate) fn assert_same(ns: &Namespace, model: &Model) {
    assert_eq!(ns.counts().inodes, model.nodes.len() as u64);
    assert_eq!(ns.next_ino(), Ino(model.next));
    let orphans: Vec<Ino> =
        model.nodes.keys().filter(|ino| model.nlink(**ino) == 0).map(|ino| Ino(*ino)).collect();
    assert!(ns.orphans().eq(orphans));
    let dirs = model.nodes.values().filter(|node| node.kind == FileKind::Dir).count();
    assert_eq!(ns.counts().directories, dirs as u64);
    for (number, node) in &model.nodes {
        let ino = Ino(*number);
        assert_eq!(ns.getattr(ino), Ok(model.attr(*number)));
        assert_eq!(ns.intent(ino).map(|intent| (intent.size, intent.boundary)), node.intent);
        if node.kind == FileKind::Dir {
            let listing = ns.readdir(ino, 0, 1000, false).unwrap();
            let listed: BTreeMap<Vec<u8>, u64> =
                listing.entries.iter().map(|entry| (entry.name.to_vec(), entry.ino.0)).collect();
            assert_eq!(listed, model.children(*number));
            assert_eq!(listing.entries.len(), listed.len());
            if model.nlink(*number) > 0 {
                assert!(ns.path_of(ino).is_some());
            }
        }
        if node.kind == FileKind::File {
            let chunks = ns.chunks(ino, ChunkIndex(0), u64::MAX).unwrap();
            let wanted = node.chunks.iter().map(|(index, chunk)| (ChunkIndex(*index), *chunk));
            assert_eq!(chunks, wanted.collect::<Vec<_>>());
        }
        let target = ns.readlink(ino).map(|link| link.target.to_vec());
        let symlink = node.kind == FileKind::Symlink;
        assert_eq!(target, if symlink { Ok(node.target.clone()) } else { Err(Status::Invalid) });
        let names: Vec<Vec<u8>> = ns.listxattr(ino).unwrap().names.into_iter().map(Name::into_vec).collect();
        assert!(names.iter().eq(node.xattrs.keys()));
        for (name, value) in &node.xattrs {
            assert_eq!(ns.getxattr(ino, name).unwrap().value.as_slice(), value.as_slice());
        }
    }
}

/// One command on both. Without groups, an answer must be the one that every set of groups would get.
fn step(ns: &mut Namespace, model: &mut Model, command: &NsCommand) {
    let command = &aim(model, command.clone());
    let mut known = command.clone();
    if let Some(by) = caller_of(&mut known)
        && by.groups.is_none()
    {
        let answer = ns.check(command);
        for set in 0..1 << GIDS.len() {
            let groups = GIDS.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
            let groups = groups.map(|(_, gid)| *gid).collect();
            caller_of(&mut known).unwrap().groups = Some(groups);
            let wanted = model.clone().apply(&known);
            if answer != Err(Status::NeedGroups) {
                assert_eq!(answer, wanted.clone().map(drop), "{command:?}");
                assert_eq!(ns.clone().apply(command), wanted, "{command:?}");
            }
        }
        let before = ns.state_hash();
        if answer == Err(Status::NeedGroups) {
            assert_eq!(ns.apply(command), Err(Status::NeedGroups));
            assert_eq!(ns.state_hash(), before, "a refused command changed something");
        }
    }
    let checked = ns.check(&known);
    let wanted = model.apply(&known);
    assert_eq!(ns.apply(&known), wanted, "{known:?}");
    assert_eq!(checked, wanted.map(drop));
    assert_same(ns, model);
}

fn sequences() -> u32 {
    std::env::var("NS_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: sequences(), ..ProptestConfig::default() })]

    #[test]
    fn namespace_and_model_agree(commands in proptest::collection::vec(any_command(), 1..80)) {
        let mut ns = fresh();
        let mut model = Model::new(0o777, at(1));
        let half = commands.len() / 2;
        for command in &commands[..half] {
            step(&mut ns, &mut model, command);
        }
        let (clone, model_then, hash_then) = (ns.clone(), model.clone(), ns.state_hash());
        let mut loaded = reloaded(&ns);
        let mut model_loaded = model.clone();
        for command in &commands[half..] {
            step(&mut ns, &mut model, command);
            step(&mut loaded, &mut model_loaded, command);
        }
        assert_same(&clone, &model_then);
        prop_assert_eq!(clone.state_hash(), hash_then);
        prop_assert_eq!(loaded.state_hash(), ns.state_hash());
        prop_assert_eq!(reloaded(&ns).state_hash(), ns.state_hash());
    }
}
