//! Threads that open files on a mount under test.
//!
//! A process that starts another one hands it copies of its descriptors, and the kernel flushes each of them when
//! the new program begins. A flush of a file on a mount asks the cluster; while that is down the new program would
//! not begin, and might be the one that brings the cluster up. So whoever opens files on a mount has a table of
//! descriptors of its own.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The first descriptor that is not one of the standard ones.
const FIRST: libc::c_uint = 3;

/// Starts a thread with a table of descriptors of its own, empty but for the standard ones.
///
/// # Errors
/// When no thread is to be had.
pub fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name).spawn(|| {
        own_descriptors().expect("Linux 5.9 or newer");
        run()
    })
}

fn own_descriptors() -> io::Result<()> {
    // SAFETY: it gives this thread, which has just begun and has opened nothing, a new table, and closes copies of
    // descriptors in it; what other threads have stays as it is.
    let result =
        unsafe { libc::close_range(FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
