//! Extended attributes. A size of 0 asks how large the answer would be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use dfs_client::Caller;
use dfs_proto::ids::Ino;
use dfs_proto::meta::SetxattrMode;
use fuser::{Errno, ReplyEmpty, ReplyXattr};

use super::{Shared, empty};

/// Access control lists: keeping them without obeying them would pretend.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

/// What the mount's own watch asks for. Of this namespace the kernel asks nothing else first.
pub(crate) const PROBE: &str = "security.dfs-alive";

pub(crate) fn get(shared: &Arc<Shared>, pid: u32, ino: Ino, name: &OsStr, size: u32, reply: ReplyXattr) {
    let name = name.as_bytes();
    if name.starts_with(ACL_PREFIX) {
        return reply.error(Errno::EOPNOTSUPP);
    }
    if name == PROBE.as_bytes() {
        return reply.error(Errno::ENODATA);
    }
    // The kernel asks for security.capability before a first write; almost no file has any attribute.
    if shared.client.has_no_xattrs(ino) {
        return reply.error(Errno::ENODATA);
    }
    let (client, name) = (shared.client.clone(), name.to_vec());
    let operation = async move { client.getxattr(ino, &name).await };
    shared.tasks.run(pid, operation, move |result| answer(result, size, reply));
}

pub(crate) fn list(shared: &Arc<Shared>, pid: u32, ino: Ino, size: u32, reply: ReplyXattr) {
    // Programs that copy files ask this of each, twice.
    if let Some(names) = shared.client.try_listxattr(ino) {
        return answer(Ok(joined(&names)), size, reply);
    }
    let client = shared.client.clone();
    let operation = async move { client.listxattr(ino).await };
    shared.tasks.run(pid, operation, move |result| answer(result.map(|names| joined(&names)), size, reply));
}

/// Each name with a NUL behind it.
fn joined(names: &[Vec<u8>]) -> Vec<u8> {
    names.iter().flat_map(|name| name.iter().copied().chain([0])).collect()
}

fn answer(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    let value = match result {
        Ok(value) => value,
        Err(code) => return reply.error(code),
    };
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(&value),
        Ok(_) | Err(_) => reply.error(Errno::ERANGE),
    }
}

pub(crate) fn set(
    shared: &Arc<Shared>,
    caller: Caller,
    ino: Ino,
    name: &OsStr,
    (value, flags): (&[u8], i32),
    reply: ReplyEmpty,
) {
    if name.as_bytes().starts_with(ACL_PREFIX) {
        return reply.error(Errno::EOPNOTSUPP);
    }
    let Some(mode) = mode(flags) else { return reply.error(Errno::EINVAL) };
    let (client, then) = (shared.client.clone(), Arc::clone(shared));
    let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
    let operation = async move {
        client.setxattr(ino, &name, &value, mode, caller).await?;
        then.inodes.changed(ino);
        Ok(())
    };
    shared.tasks.run(caller.pid, operation, empty(reply));
}

fn mode(flags: i32) -> Option<SetxattrMode> {
    match flags {
        0 => Some(SetxattrMode::Any),
        libc::XATTR_CREATE => Some(SetxattrMode::Create),
        libc::XATTR_REPLACE => Some(SetxattrMode::Replace),
        _ => None,
    }
}

pub(crate) fn remove(shared: &Arc<Shared>, caller: Caller, ino: Ino, name: &OsStr, reply: ReplyEmpty) {
    let (client, then, name) = (shared.client.clone(), Arc::clone(shared), name.as_bytes().to_vec());
    let operation = async move {
        client.removexattr(ino, &name, caller).await?;
        then.inodes.changed(ino);
        Ok(())
    };
    shared.tasks.run(caller.pid, operation, empty(reply));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_nul() {
        assert_eq!(joined(&[b"user.a".to_vec(), b"user.b".to_vec()]), b"user.a\0user.b\0");
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn both_modes_at_once_are_invalid() {
        assert_eq!(mode(libc::XATTR_CREATE | libc::XATTR_REPLACE), None);
    }
}
