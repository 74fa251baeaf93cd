//! Attributes, from the cluster's form to fuser's.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind};
use fuser::{FileAttr, FileType, INodeNo};

use super::time::shown;

/// What stat(2) gives as the best size of an I/O: the page. More would make every stdio stream of every
/// program buffer that much, and the kernel takes it for the unit of its own page cache.
const BLOCK_SIZE: u32 = 4096;

/// For a reply. `number`: the inode number as the kernel knows it, which differs for the root of a mounted
/// subdirectory.
pub(crate) fn file_attr(attr: &Attr, number: INodeNo) -> FileAttr {
    FileAttr {
        ino: number,
        size: attr.size,
        blocks: attr.blocks,
        atime: shown(attr.atime),
        mtime: shown(attr.mtime),
        ctime: shown(attr.ctime),
        crtime: shown(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The kind as fuser names it.
pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::BlockDev => FileType::BlockDevice,
        FileKind::CharDev => FileType::CharDevice,
    }
}

/// The kind that the type bits of a mode ask mknod(2) for; `None` for those that it cannot make.
pub(crate) fn kind_to_make(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::File),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFBLK => Some(FileKind::BlockDev),
        libc::S_IFCHR => Some(FileKind::CharDev),
        _ => None,
    }
}

/// The permission bits of a mode, setuid, setgid and sticky among them.
pub(crate) fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// The root of the mount is number 1 to the kernel, whatever directory of the cluster it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) root: Ino,
}

impl Numbers {
    /// The cluster's number of what the kernel names.
    pub(crate) fn inode(self, number: INodeNo) -> Ino {
        if number == INodeNo::ROOT { self.root } else { Ino(number.0) }
    }

    /// The kernel's number.
    pub(crate) fn number(self, ino: Ino) -> INodeNo {
        if ino == self.root { INodeNo::ROOT } else { INodeNo(ino.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_subdirectory_is_number_one() {
        let numbers = Numbers { root: Ino(40) };
        assert_eq!(numbers.inode(INodeNo(1)), Ino(40));
        assert_eq!(numbers.number(Ino(40)), INodeNo(1));
        assert_eq!(numbers.inode(INodeNo(41)), Ino(41));
    }

    #[test]
    fn what_mknod_makes() {
        assert_eq!(kind_to_make(libc::S_IFIFO | 0o600), Some(FileKind::Fifo));
        assert_eq!(kind_to_make(0o600), Some(FileKind::File));
        assert_eq!(kind_to_make(libc::S_IFDIR | 0o700), None);
        assert_eq!(permissions(libc::S_IFREG | 0o4755), 0o4755);
    }
}
