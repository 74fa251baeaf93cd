//! fallocate(2): which of its modes are served, and by what.

use std::sync::Arc;

use dfs_client::{Caller, Error};
use fuser::{Errno, FileHandle, ReplyEmpty};

use super::privileges::has_privileges;
use super::{Shared, empty};

/// What a mode asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wish {
    /// The range reads as zeros afterwards.
    zeros: bool,
    /// The file reaches to the range's end afterwards.
    grows: bool,
    /// It is to be known now if there is no room.
    room: bool,
}

/// `None`: what moves bytes within the file, or takes them from other files that share them, is not there.
fn wish(mode: i32) -> Option<Wish> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_WITHIN: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        PUNCH => Some(Wish { zeros: true, grows: false, room: false }),
        ZERO => Some(Wish { zeros: true, grows: true, room: true }),
        ZERO_WITHIN => Some(Wish { zeros: true, grows: false, room: true }),
        0 => Some(Wish { zeros: false, grows: true, room: true }),
        libc::FALLOC_FL_KEEP_SIZE => Some(Wish { zeros: false, grows: false, room: true }),
        _ => None,
    }
}

pub(crate) fn fallocate(
    shared: &Arc<Shared>,
    caller: Caller,
    fh: FileHandle,
    (offset, len): (u64, u64),
    mode: i32,
    reply: ReplyEmpty,
) {
    let Some(file) = shared.files.get(fh.0) else { return reply.error(Errno::EBADF) };
    let Some(wish) = wish(mode) else { return reply.error(Errno::EOPNOTSUPP) };
    let then = Arc::clone(shared);
    let operation = async move {
        let ino = file.ino();
        let client = &then.client;
        if wish.room {
            client.check_room(&file, offset, len).await?;
        }
        // The kernel does not say who may keep these bits; as at a truncation, user 0 may.
        if caller.uid != 0 && has_privileges(then.inodes.mode(ino)) {
            then.drop_privileges(ino, caller).await?;
        }
        if !client.has_no_xattrs(ino) {
            then.drop_capability(ino).await?;
        }
        if wish.zeros {
            client.punch(&file, offset, len).await?;
        }
        if wish.grows {
            client.extend(&file, offset.saturating_add(len)).await?;
        }
        then.inodes.written(ino);
        Ok::<(), Error>(())
    };
    shared.tasks.run(caller.pid, operation, empty(reply));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_in_its_place_is_served() {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let zeros = |mode| wish(mode).map(|wish| (wish.zeros, wish.grows));
        assert_eq!((zeros(0), zeros(keep)), (Some((false, true)), Some((false, false))));
        assert_eq!(zeros(libc::FALLOC_FL_PUNCH_HOLE | keep), Some((true, false)));
        assert_eq!(zeros(libc::FALLOC_FL_ZERO_RANGE), Some((true, true)));
        assert_eq!(zeros(libc::FALLOC_FL_ZERO_RANGE | keep), Some((true, false)));
        for mode in [
            libc::FALLOC_FL_PUNCH_HOLE,
            libc::FALLOC_FL_COLLAPSE_RANGE,
            libc::FALLOC_FL_INSERT_RANGE,
            libc::FALLOC_FL_UNSHARE_RANGE,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE | keep,
        ] {
            assert_eq!(wish(mode), None, "{mode}");
        }
    }
}
