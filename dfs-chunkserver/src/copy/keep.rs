//! The task that asks the master for what the copy lacks: a listing each second, then the pieces of it, one request at a
//! time. When nothing is missing, a piece of what is here may be due to be looked at. What it does on disks runs on blocking threads, so a disk that hangs stops the copying alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_disk::Disk;
use dfs_proto::checksum::crc32c;
use dfs_proto::conn::{CallError, Conn};
use dfs_proto::control::{ListLog, LogListing};
use dfs_proto::status::Status;
use tokio::sync::watch;

use super::shelf::{CopyError, Next, Shelf};
use super::verify::Pass;
use super::{Around, Said};
use crate::clock;

/// Between two listings while nothing is missing: what the copy lags when all is well.
const EVERY: Duration = Duration::from_secs(1);
/// After an error: disks seldom get better in a second.
const AGAIN: Duration = Duration::from_secs(10);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Pieces fetched for one listing: the log has gone on meanwhile, and comes before snapshots.
const PIECES: usize = 16;

type Shared<D> = Arc<Mutex<Shelf<D>>>;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the master: {0}")]
    Call(#[from] CallError),
    #[error("{0}")]
    Copy(#[from] CopyError),
}

/// Keeps the copy, over every connection to the master that registered.
pub(crate) async fn keep<D: Disk, A: Around>(
    shelf: Shelf<D>,
    mut master: watch::Receiver<Option<Conn>>,
    said: Said,
    around: Arc<A>,
) {
    let shelf = Arc::new(Mutex::new(shelf));
    let mut pass = Pass::new(around.scrub_period_ms(), clock::now());
    loop {
        // Ends together with the server.
        let Ok(conn) = master.wait_for(Option::is_some).await.map(|conn| conn.clone()) else { return };
        let Some(conn) = conn else { continue };
        let pause = match round(&shelf, &conn, &said, &around).await {
            Ok(Round::Done(listing)) => {
                match verify(&shelf, &conn, &said, &around, &mut pass, &listing).await {
                    Ok(()) => EVERY,
                    Err(stopped) => after(&shelf, &said, &stopped).await,
                }
            }
            Ok(Round::MoreToCome) => Duration::ZERO,
            Err(stopped) => after(&shelf, &said, &stopped).await,
        };
        tokio::time::sleep(pause).await;
    }
}

enum Round {
    Done(Arc<LogListing>),
    MoreToCome,
}

async fn round<D: Disk, A: Around>(
    shelf: &Shared<D>,
    conn: &Conn,
    said: &Said,
    around: &Arc<A>,
) -> Result<Round, Stopped> {
    let listing = Arc::new(conn.call(&ListLog {}, CALL_LIMIT).await?.body);
    let asked = clock::now();
    for _ in 0..PIECES {
        let around = Arc::clone(around);
        let look = move |shelf: &mut Shelf<D>, listing: &LogListing| {
            let (log_is_here, next) = shelf.next(listing)?;
            if let (true, Some(on)) = (log_is_here, shelf.current_disk()) {
                around.heard(on, listing.generation, listing.durable);
            }
            Ok((log_is_here, next))
        };
        let (log_is_here, next) = on_disk(shelf, &listing, look).await?;
        if log_is_here {
            said.whole(listing.generation, listing.durable, asked);
        }
        let Next::Read(read) = next else { return Ok(Round::Done(listing)) };
        let reply = conn.call(&read, CALL_LIMIT).await?;
        on_disk(shelf, &listing, move |shelf, listing| shelf.take(listing, reply.body, &reply.payload))
            .await?;
    }
    Ok(Round::MoreToCome)
}

/// Looks at a piece of the copy, if one is due and the disk has the time.
async fn verify<D: Disk, A: Around>(
    shelf: &Shared<D>,
    conn: &Conn,
    said: &Said,
    around: &Arc<A>,
    pass: &mut Pass,
    listing: &Arc<LogListing>,
) -> Result<(), Stopped> {
    let now = clock::now();
    let (on, (piece, pieces)) = {
        let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        (shelf.current_disk(), shelf.next_to_verify(pass, listing))
    };
    if !pass.is_due(now) || !on.is_some_and(|on| around.is_idle(on)) {
        return Ok(());
    }
    let Some(piece) = piece else {
        log::debug!("the copy of the master's log was looked at, {pieces} pieces");
        pass.begin_anew(now);
        return Ok(());
    };
    let reply = conn.call(&piece, CALL_LIMIT).await?;
    let whole = reply.payload.len() == piece.len as usize && crc32c(&reply.payload) == reply.body.crc;
    if !reply.body.same || !whole {
        return Err(CopyError::Transit.into());
    }
    let replaced =
        on_disk(shelf, listing, move |shelf, listing| shelf.verify(&piece, &reply.payload, listing)).await?;
    if replaced {
        said.trouble("it was damaged on the disk, and is copied anew");
        pass.begin_anew(now);
    } else {
        pass.looked_at(&piece, pieces, now);
    }
    Ok(())
}

async fn on_disk<D: Disk, T: Send + 'static>(
    shelf: &Shared<D>,
    listing: &Arc<LogListing>,
    work: impl FnOnce(&mut Shelf<D>, &LogListing) -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    let (shelf, listing) = (Arc::clone(shelf), Arc::clone(listing));
    let done = tokio::task::spawn_blocking(move || {
        work(&mut shelf.lock().unwrap_or_else(PoisonError::into_inner), &listing)
    });
    done.await.unwrap_or(Err(CopyError::NoDisk))
}

/// How long to wait, and what is said of it.
async fn after<D: Disk>(shelf: &Shared<D>, said: &Said, stopped: &Stopped) -> Duration {
    match stopped {
        // The master goes on, or asks for patience: a file was pruned, others are being given the log, a new generation.
        Stopped::Call(CallError::Status(Status::NotFound | Status::Overloaded | Status::Invalid, why)) => {
            log::debug!("the copy of the master's log waits: {why}");
            EVERY
        }
        Stopped::Call(CallError::Status(status, why)) => {
            said.trouble(&format!("{status}: {why}"));
            EVERY
        }
        Stopped::Call(error) => {
            log::debug!("the copy of the master's log waits: {error}");
            EVERY
        }
        Stopped::Copy(error) => {
            said.trouble(&error.to_string());
            let failed = match error {
                CopyError::Io { on, source, .. } if !is_of_the_moment(source) => Some(*on),
                CopyError::Io { .. }
                | CopyError::Full(_)
                | CopyError::NoDisk
                | CopyError::ReadBack { .. }
                | CopyError::Transit => None,
            };
            let shelf = Arc::clone(shelf);
            let reopened = tokio::task::spawn_blocking(move || {
                let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
                match failed {
                    Some(on) => shelf.give_up_disk(on),
                    None => shelf.reopen(),
                }
            });
            drop(reopened.await);
            AGAIN
        }
    }
}

/// A full disk, or a file that was taken away, is no disk that fails.
fn is_of_the_moment(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::NotFound
    )
}
