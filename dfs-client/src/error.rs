//! What a caller of the library sees when an operation fails: one variant for each errno that a program
//! can get, and nothing that only dfs processes say to each other.
//!
//! [`Error::from_status`] is total: a status between processes that reaches this point means that the
//! library gave up, and becomes [`Error::Io`] or [`Error::TimedOut`].

use dfs_proto::status::Status;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// How an operation failed. The names are those of the wire's statuses that programs see.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Error {
            $($(#[$doc])* $name,)*
        }

        impl Error {
            /// All errors, for tests that walk every one.
            pub const ALL: &'static [Error] = &[$(Error::$name),*];

            /// The status of the same name.
            #[must_use]
            pub fn status(self) -> Status {
                match self {
                    $(Error::$name => Status::$name,)*
                }
            }
        }
    };
}

errors! {
    /// ENOENT
    NotFound;
    /// EEXIST
    Exists;
    /// ENOTDIR
    NotDir;
    /// EISDIR
    IsDir;
    /// ENOTEMPTY
    NotEmpty;
    /// EACCES
    Access;
    /// EPERM
    NotPermitted;
    /// ENAMETOOLONG
    NameTooLong;
    /// EINVAL
    Invalid;
    /// EFBIG
    TooBig;
    /// ENOSPC
    NoSpace;
    /// EMLINK
    TooManyLinks;
    /// ENODATA
    NoData;
    /// ERANGE
    Range;
    /// EOPNOTSUPP
    NotSupported;
    /// EIO
    Io;
    /// ESTALE
    Stale;
    /// EBUSY
    Busy;
    /// EROFS
    ReadOnly;
    /// ELOOP
    Loop;
    /// E2BIG
    ValueTooBig;
    /// EBADF
    BadHandle;
    /// ETIMEDOUT
    TimedOut;
    /// EDQUOT
    Quota;
}

impl Error {
    /// The error that a program sees for a status. `Ok` has none and counts as a protocol error.
    #[must_use]
    pub fn from_status(status: Status) -> Error {
        let same_name = Error::ALL.iter().find(|error| error.status() == status);
        match (same_name, status) {
            (Some(error), _) => *error,
            (None, Status::Deadline | Status::Overloaded) => Error::TimedOut,
            // Between processes: whoever could act on it has given up.
            (None, _) => Error::Io,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.status().text())
    }
}

impl std::error::Error for Error {}

/// What operations return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_error_and_every_error_its_status() {
        for status in Status::ALL {
            let error = Error::from_status(*status);
            let code = u16::from(*status);
            if (1..100).contains(&code) {
                assert_eq!(error.status(), *status);
            }
        }
        for error in Error::ALL {
            assert_eq!(Error::from_status(error.status()), *error);
        }
    }
}
