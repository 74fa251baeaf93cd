//! The one place where an outcome becomes an errno. Nothing else in this crate chooses an errno for what
//! the cluster answered.

use dfs_proto::status::Status;
use libc::c_int;

/// What a program sees when an operation ended with `status`; 0 for [`Status::Ok`].
pub(crate) fn errno(status: Status) -> c_int {
    match status {
        Status::Ok => 0,
        Status::NotFound => libc::ENOENT,
        Status::Exists => libc::EEXIST,
        Status::NotDir => libc::ENOTDIR,
        Status::IsDir => libc::EISDIR,
        Status::NotEmpty => libc::ENOTEMPTY,
        Status::Access => libc::EACCES,
        Status::NotPermitted => libc::EPERM,
        Status::NameTooLong => libc::ENAMETOOLONG,
        Status::Invalid => libc::EINVAL,
        Status::TooBig => libc::EFBIG,
        Status::NoSpace => libc::ENOSPC,
        Status::TooManyLinks => libc::EMLINK,
        Status::NoData => libc::ENODATA,
        Status::Range => libc::ERANGE,
        // Never ENOSYS: the kernel would take it for the whole mount and not ask again.
        Status::NotSupported | Status::UnknownOp => libc::EOPNOTSUPP,
        Status::Io => libc::EIO,
        Status::Stale => libc::ESTALE,
        Status::Busy => libc::EBUSY,
        Status::ReadOnly => libc::EROFS,
        Status::Loop => libc::ELOOP,
        Status::ValueTooBig => libc::E2BIG,
        Status::BadHandle => libc::EBADF,
        Status::TimedOut | Status::Deadline => libc::ETIMEDOUT,
        Status::Quota => libc::EDQUOT,
        // On hold the master serves reads only, which is what a read-only file system is to a program.
        Status::Hold => libc::EROFS,
        // The client asks for groups and sends again; one that still could not name them has no access.
        Status::NeedGroups => libc::EACCES,
        // With the session went what this mount had open.
        Status::NoSession => libc::ESTALE,
        // The rest is between the processes of the cluster. The client answers it with another attempt;
        // what still comes through could not be served, and no errno says it better than EIO.
        Status::Malformed
        | Status::TooLarge
        | Status::WrongVersion
        | Status::WrongCluster
        | Status::NoHello
        | Status::WrongRole
        | Status::Overloaded
        | Status::NotLeader
        | Status::WrongChunkVersion
        | Status::NotServing
        | Status::Redirect
        | Status::Recovering
        | Status::BadChecksum
        | Status::Corrupt
        | Status::BadCapability
        | Status::OldEpoch
        | Status::TailLost
        | Status::Lost
        | Status::Disconnected
        | Status::NoServers
        | Status::AlreadyRegistered
        | Status::DiskFailed
        | Status::Behind
        | Status::Recalling
        | Status::NoChunk => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_no_error_and_none_disables_an_operation() {
        for &status in Status::ALL {
            let code = errno(status);
            assert_eq!(code == 0, status == Status::Ok, "{status:?}");
            // The kernel reads ENOSYS as "never ask again" and refuses codes beyond its range.
            assert!(code != libc::ENOSYS && (0..512).contains(&code), "{status:?}");
        }
    }

    #[test]
    fn each_posix_status_has_its_own_errno() {
        let posix = Status::ALL.iter().filter(|status| u16::from(**status) < 100);
        let mut codes: Vec<c_int> = posix.map(|status| errno(*status)).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
