//! The end of a mount: by a signal, by somebody's unmount, or because the device failed.
//!
//! A signal ends the process within 10 s, whatever the cluster does: 3 s to unmount as umount(8) would, 1 s
//! to take a busy mount out of the tree instead, 4 s to write back, and an abort of the connection in the
//! kernel, which lets go every program and thread that still hangs in the mount.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dfs_daemon::notify as manager;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::Live;
use crate::mount::{Manner, Mount};

const GENTLE_LIMIT: Duration = Duration::from_secs(3);
const LAZY_LIMIT: Duration = Duration::from_secs(1);
const WRITE_BACK_LIMIT: Duration = Duration::from_secs(4);

/// The signals that ask for the end.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where it means something else.
    hangup: Option<Signal>,
}

/// How it came to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Clean,
    /// What programs wrote may not have reached the cluster.
    BytesLost,
    /// The mount broke, and was taken out of the tree.
    MountLost,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    pub(crate) fn new(ends_by_hangup: bool) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: ends_by_hangup.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for one.
    pub(crate) async fn any(&mut self) {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hung_up => {}
        }
    }
}

/// Serves until the mount is gone or a signal comes, then cleans up.
pub(crate) async fn serve_until_over(mut live: Live, signals: &mut Signals) -> End {
    let served = tokio::select! {
        ended = &mut live.ended => gone(&live.mount, ended).await,
        () = signals.any() => {
            log::info!("asked to end: unmounting");
            manager::stopping();
            // A second signal does not wait for the polite part.
            tokio::select! {
                () = unmount(&live.mount, &mut live.ended) => {}
                () = signals.any() => live.mount.abort(),
            }
            true
        }
    };
    let written = live.shared.client.shutdown(WRITE_BACK_LIMIT).await;
    if let Err(error) = &written {
        log::error!("written bytes may be lost: {error}");
    }
    // One that was only taken out of the tree ends here for those who still use it, and for threads of this
    // process that wait in the kernel. Never when the threads ended: the mount is gone then, and its number
    // in the kernel may be another's.
    if !live.ended.is_terminated() && live.ended.is_empty() {
        live.mount.abort();
    }
    if let Some(path) = &live.pid_file {
        // Whoever removed it first had the right to.
        let _ = std::fs::remove_file(path);
    }
    match (served, written) {
        (false, _) => End::MountLost,
        (true, Err(_)) => End::BytesLost,
        (true, Ok(())) => End::Clean,
    }
}

/// The threads ended by themselves: somebody unmounted, which is true, or the device failed.
async fn gone(mount: &Arc<Mount>, ended: Result<io::Result<()>, oneshot::error::RecvError>) -> bool {
    match ended {
        Ok(Ok(())) => {
            log::info!("unmounted");
            true
        }
        Ok(Err(error)) => {
            log::error!("the FUSE device failed: {error}");
            let_go(mount, Manner::Lazy, LAZY_LIMIT).await;
            false
        }
        Err(_) => {
            log::error!("the threads that answer the kernel ended unexpectedly");
            let_go(mount, Manner::Lazy, LAZY_LIMIT).await;
            false
        }
    }
}

async fn unmount(mount: &Arc<Mount>, ended: &mut oneshot::Receiver<io::Result<()>>) {
    if let_go(mount, Manner::Gentle, GENTLE_LIMIT).await {
        // What the kernel still sends at an unmount is answered before the session with the cluster ends.
        let _ = tokio::time::timeout(LAZY_LIMIT, ended).await;
        return;
    }
    log::info!("in use: taking the mount out of the tree");
    let_go(mount, Manner::Lazy, LAZY_LIMIT).await;
}

/// Unmounts on a thread of its own: the kernel may want bytes written back first, by this very process.
async fn let_go(mount: &Arc<Mount>, manner: Manner, limit: Duration) -> bool {
    let mount = Arc::clone(mount);
    let unmounting = tokio::task::spawn_blocking(move || mount.unmount(manner));
    match tokio::time::timeout(limit, unmounting).await {
        Ok(Ok(Ok(()))) => true,
        Ok(Ok(Err(error))) => {
            log::debug!("unmount ({manner:?}): {error}");
            false
        }
        Ok(Err(panicked)) => {
            log::error!("unmount ({manner:?}): {panicked}");
            false
        }
        Err(_elapsed) => {
            log::debug!("unmount ({manner:?}): no end after {limit:?}");
            false
        }
    }
}
