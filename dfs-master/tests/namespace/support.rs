//! Short ways to say what the tests say often.

use dfs_master::core::namespace::{Caller, Namespace, RootSpec};
use dfs_master::core::ops::{Create, Mkdir, NsCommand, NsOutcome, Setattr, TruncateBy};
use dfs_proto::ids::Ino;
use dfs_proto::meta::Attr;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkSize, Timespec};

pub(crate) const CHUNK: u64 = 64 << 10;

pub(crate) fn at(sec: i64) -> Timespec {
    Timespec { sec, nsec: 5 }
}

pub(crate) fn root() -> Caller {
    Caller { uid: 0, gid: 0, groups: Some(Vec::new()) }
}

pub(crate) fn user(uid: u32, groups: &[u32]) -> Caller {
    Caller { uid, gid: uid, groups: Some(groups.to_vec()) }
}

/// A namespace with small chunks whose root everybody may write.
pub(crate) fn fresh() -> Namespace {
    let chunk_size = ChunkSize::try_from(u32::try_from(CHUNK).unwrap()).unwrap();
    Namespace::new(chunk_size, RootSpec { uid: 0, gid: 0, mode: 0o777, now: at(1) })
}

pub(crate) fn create(parent: Ino, name: &str, mode: u16, by: Caller) -> NsCommand {
    NsCommand::Create(Create { parent, name: name.as_bytes().to_vec().into(), mode, now: at(10), by })
}

pub(crate) fn mkdir(parent: Ino, name: &str, mode: u16, by: Caller) -> NsCommand {
    NsCommand::Mkdir(Mkdir { parent, name: name.as_bytes().to_vec().into(), mode, now: at(10), by })
}

/// Changes nothing, until fields are set.
pub(crate) fn setattr(ino: Ino, by: Caller) -> Setattr {
    Setattr { ino, mode: None, uid: None, gid: None, atime: None, mtime: None, now: at(20), by }
}

pub(crate) fn by_path(caller: Caller) -> TruncateBy {
    TruncateBy { caller, by_handle: false }
}

/// Applies a command that answers with attributes.
pub(crate) fn attr(ns: &mut Namespace, command: &NsCommand) -> Result<Attr, Status> {
    match ns.apply(command)? {
        NsOutcome::Attr(attr) => Ok(attr),
        other => panic!("no attributes but {other:?}"),
    }
}
