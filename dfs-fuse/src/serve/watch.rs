//! Tells the service manager that the mount answers, for as long as it does.
//!
//! Each time the kernel is asked for an attribute of the mount's root that this process answers without the cluster: the
//! question comes back through `/dev/fuse`, so that a hang of the threads that read requests shows, and one of the
//! runtime, which waits for the answer. A cluster that is away does not: programs wait for it as on any hard mount.

use std::sync::Arc;

use dfs_daemon::notify::Watchdog;

use crate::adapter::PROBE;
use crate::mount::Mount;

/// Pings for as long as the mount answers; ends with the runtime.
pub(super) async fn keep(mount: Arc<Mount>) {
    let mut watchdog = Watchdog::of_manager();
    loop {
        watchdog.due().await;
        let on = Arc::clone(&mount);
        // On a thread of its own, which may wait in the kernel.
        if tokio::task::spawn_blocking(move || answers(&on)).await.is_ok_and(|answered| answered) {
            watchdog.alive();
        }
    }
}

fn answers(mount: &Mount) -> bool {
    // Under another mount nobody can ask; the end of this one is seen by those who wait for it.
    if !mount.is_seen() {
        return true;
    }
    let none: &mut [u8] = &mut [];
    match rustix::fs::lgetxattr(mount.path(), PROBE, none) {
        Ok(_) | Err(rustix::io::Errno::NODATA) => true,
        Err(error) => {
            log::error!("the mount does not answer: {error}");
            false
        }
    }
}
