//! Memory, where a mount and a chunk server share a machine.
//!
//! When memory is short the kernel wants dirty pages of the mount written back, and waits for that in whoever asks for
//! memory. Should it be the very process that the bytes have to go through, nothing would go on. A process that has said
//! it takes part in writing back is not made to wait so.

/// Of `linux/prctl.h`, and one of the numbers that the libc crate has no name for.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Says so for this thread, and the threads and processes that it starts later; logs where it may not.
pub fn promise_io_flusher() {
    // SAFETY: the call takes plain numbers, and changes a flag of this thread.
    let done = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        log::info!(
            "not an I/O flusher ({error}; it takes CAP_SYS_RESOURCE): where a mount and a chunk server share this \
             machine, a shortage of memory may stall both"
        );
    }
}
