//! Extended attributes as they are stored, and what their names say about who may touch them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::ids::Ino;
use dfs_proto::meta::FileKind;
use dfs_proto::status::Status;

use super::{Caller, Inode, Namespace, S_ISVTX, WRITE};

/// Longest name (Linux's XATTR_NAME_MAX).
const XATTR_NAME_MAX: usize = 255;
/// Most bytes of all names of an inode, each with its terminator: what listxattr can return (Linux's
/// XATTR_LIST_MAX).
const XATTR_LIST_MAX: usize = 65_536;
/// Most bytes of all values of an inode: sixteen of the largest, which bounds what one inode takes of the
/// master's memory.
const XATTR_VALUES_MAX: usize = 1 << 20;
/// The file capabilities of Linux, which a change of data or owner takes away.
const CAPABILITY: &[u8] = b"security.capability";

/// Extended attributes of one inode by name.
pub(crate) type Xattrs = Arc<BTreeMap<Arc<[u8]>, Arc<[u8]>>>;

/// The part of a name before its first dot decides who may touch the attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    /// Whoever may read or write the file.
    User,
    /// Root.
    Trusted,
    /// Root, in place of the kernel's security modules.
    Security,
}

impl Space {
    /// `system.`, where Linux keeps its access lists, is not supported.
    pub(crate) fn of(name: &[u8]) -> Result<Space, Status> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Status::Range);
        }
        let spaces: [(&[u8], Space); 3] =
            [(b"user.", Space::User), (b"trusted.", Space::Trusted), (b"security.", Space::Security)];
        for (prefix, space) in spaces {
            if let Some(rest) = name.strip_prefix(prefix) {
                return if rest.is_empty() || rest.contains(&0) { Err(Status::Invalid) } else { Ok(space) };
            }
        }
        Err(Status::NotSupported)
    }

    /// Whether the caller may set or remove such an attribute of the inode.
    pub(crate) fn may_write(self, inode: &Inode, by: &Caller) -> Result<(), Status> {
        match self {
            Space::Trusted | Space::Security if by.is_root() => Ok(()),
            Space::Trusted | Space::Security => Err(Status::NotPermitted),
            Space::User => {
                let sticky = inode.kind == FileKind::Dir && inode.mode & S_ISVTX != 0;
                let plain = matches!(inode.kind, FileKind::File | FileKind::Dir);
                if !plain || (sticky && !by.owns(inode)) {
                    return Err(Status::NotPermitted);
                }
                by.may(inode, WRITE)
            }
        }
    }
}

/// Whether the attributes with `name` set to `len` bytes stay within the limits.
pub(crate) fn fits(all: Option<&Xattrs>, name: &[u8], len: usize) -> bool {
    let others = all.into_iter().flat_map(|all| all.iter()).filter(|(other, _)| other.as_ref() != name);
    let (names, values) = others.fold((name.len() + 1, len), |(names, values), (name, value)| {
        (names + name.len() + 1, values + value.len())
    });
    names <= XATTR_LIST_MAX && values <= XATTR_VALUES_MAX
}

impl Namespace {
    /// Sets an attribute; the caller stores the inode.
    pub(crate) fn put_xattr(&mut self, ino: Ino, inode: &mut Inode, name: &[u8], value: &[u8]) {
        if !inode.xattrs {
            self.xattrs.insert(ino.0, Xattrs::default());
            inode.xattrs = true;
        }
        if let Some(all) = self.xattrs.get_mut(ino.0) {
            Arc::make_mut(all).insert(Arc::from(name), Arc::from(value));
        }
    }

    /// Removes an attribute if it is there; the caller stores the inode.
    pub(crate) fn take_xattr(&mut self, ino: Ino, inode: &mut Inode, name: &[u8]) {
        if !inode.xattrs {
            return;
        }
        let Some(all) = self.xattrs.get_mut(ino.0) else { return };
        Arc::make_mut(all).remove(name);
        if all.is_empty() {
            self.xattrs.remove(ino.0);
            inode.xattrs = false;
        }
    }

    /// Takes the file capabilities away; the caller stores the inode.
    pub(crate) fn take_capability(&mut self, ino: Ino, inode: &mut Inode) {
        self.take_xattr(ino, inode, CAPABILITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        let cases: [(&[u8], _); 10] = [
            (b"user.a", Ok(Space::User)),
            (b"trusted.overlay.opaque", Ok(Space::Trusted)),
            (b"security.capability", Ok(Space::Security)),
            (b"user.", Err(Status::Invalid)),
            (b"user.a\0b", Err(Status::Invalid)),
            (b"user", Err(Status::NotSupported)),
            (b"system.posix_acl_access", Err(Status::NotSupported)),
            (b"other.a", Err(Status::NotSupported)),
            (b"", Err(Status::Range)),
            (&[b'u'; 256], Err(Status::Range)),
        ];
        for (name, answer) in cases {
            assert_eq!(Space::of(name), answer, "{name:?}");
        }
    }

    #[test]
    fn user_attributes_follow_the_mode() {
        let of = |kind, mode| Inode { mode, uid: 5, gid: 5, ..Inode::new(kind) };
        let stranger = Caller { uid: 6, gid: 6, groups: Some(Vec::new()) };
        let root = Caller::default();
        let cases = [
            (of(FileKind::File, 0o666), &stranger, Ok(())),
            (of(FileKind::File, 0o644), &stranger, Err(Status::Access)),
            (of(FileKind::Dir, 0o777), &stranger, Ok(())),
            (of(FileKind::Dir, 0o1777), &stranger, Err(Status::NotPermitted)),
            (of(FileKind::Dir, 0o1777), &root, Ok(())),
            (of(FileKind::Symlink, 0o777), &root, Err(Status::NotPermitted)),
            (of(FileKind::Fifo, 0o777), &stranger, Err(Status::NotPermitted)),
        ];
        for (inode, by, answer) in cases {
            assert_eq!(Space::User.may_write(&inode, by), answer, "{inode:?}");
        }
        assert_eq!(
            Space::Trusted.may_write(&of(FileKind::File, 0o666), &stranger),
            Err(Status::NotPermitted)
        );
    }
}
