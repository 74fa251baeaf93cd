//! Gives chunk servers the files of which they keep a copy. Reads happen on blocking threads, some at a time and so many
//! bytes a second at most: whoever gets none asks again, and what a copy then lags is shown in `dfs status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dfs_master::core::Copyable;
use dfs_master::log::files::{self, Part, ReadError};
use dfs_proto::checksum::crc32c;
use dfs_proto::conn::{Conn, PeerSaid, Responder, Role};
use dfs_proto::control::{ClusterFacts, LOG_READ_MAX, ListLog, LogBytes, LogListing, ReadLog};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Header;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::clock;
use crate::driver::{Driver, Inner};

/// Requests that are read for at once: more would only wait for one another, with a megabyte each.
const AT_ONCE: usize = 4;
/// Bytes given out in a second: ten servers' share of the log of 30,000 creates a second, at a twentieth of what the
/// thread that answers everybody can send.
const BYTES_PER_S: u64 = 64 << 20;
const SECOND: u64 = 1_000_000;

/// What is being given out.
#[derive(Debug, Default)]
pub(super) struct Copies {
    running: AtomicUsize,
    /// Taken alone.
    budget: Mutex<Budget>,
}

/// Bytes in the second that began at `since`.
#[derive(Debug, Default)]
struct Budget {
    since: Micros,
    given: u64,
}

impl Budget {
    fn take(&mut self, now: Micros, bytes: u64) -> bool {
        if now.0.saturating_sub(self.since.0) >= SECOND {
            *self = Budget { since: now, given: 0 };
        }
        let fits = self.given + bytes <= BYTES_PER_S;
        if fits {
            self.given += bytes;
        }
        fits
    }
}

/// Counts one request as running.
struct Running(Arc<Driver>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.copies.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Driver {
    /// Answers [`ListLog`] and [`ReadLog`].
    pub(super) fn copy_request(self: &Arc<Driver>, conn: &Conn, frame: &Frame, reply: Responder) {
        let PeerSaid::Hello(hello) = &conn.peer().said else { return };
        if !matches!(hello.role, Role::ChunkServer | Role::Tool) {
            reply.fail(Status::WrongRole, "only chunk servers and tools copy the log");
            return;
        }
        let header = frame.header;
        if header.op == Op::ListLog {
            match frame.decode::<ListLog>() {
                Ok(ListLog {}) => self.on_thread(reply, move |driver, reply| driver.list_log(&header, reply)),
                Err(error) => reply.fail(Status::Malformed, &error.to_string()),
            }
            return;
        }
        match frame.decode::<ReadLog>() {
            Ok(read) if read.len > LOG_READ_MAX => reply.fail(Status::TooLarge, "at most a megabyte at once"),
            Ok(read) => {
                let mut budget = self.copies.budget.lock().unwrap_or_else(PoisonError::into_inner);
                let given = budget.take(clock::now().mono, u64::from(read.len));
                drop(budget);
                if given {
                    self.on_thread(reply, move |driver, reply| driver.read_log(&header, &read, reply));
                } else {
                    reply.fail(Status::Overloaded, "others are being given the log");
                }
            }
            Err(error) => reply.fail(Status::Malformed, &error.to_string()),
        }
    }

    fn on_thread(
        self: &Arc<Driver>,
        reply: Responder,
        work: impl FnOnce(&Driver, Responder) + Send + 'static,
    ) {
        let before = self.copies.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(self));
        if before >= AT_ONCE {
            reply.fail(Status::Overloaded, "others are being given the log");
            return;
        }
        self.runtime.spawn_blocking(move || work(&running.0, reply));
    }

    fn list_log(&self, header: &Header, reply: Responder) {
        let (copyable, (segments, end), durable) = {
            let inner = self.lock();
            let Some(copyable) = copyable(&inner) else {
                drop(inner);
                return on_hold(reply);
            };
            (copyable, inner.log.durable_files(), inner.log.durable().entry.index)
        };
        let about = ClusterFacts {
            made_in: self.identity.generation,
            chunk_size: self.identity.chunk_size,
            goal: self.identity.goal,
            created: self.identity.created,
        };
        match files::list(&self.disk, &segments, end, copyable.snapshot) {
            Ok(files::Files { snapshots, segments }) => {
                let generation = copyable.generation;
                let listing = LogListing { generation, about, snapshots, segments, durable };
                reply.send(Outgoing::reply(header, &listing));
            }
            Err(error) => reply.fail(Status::Io, &error.to_string()),
        }
    }

    fn read_log(&self, header: &Header, read: &ReadLog, reply: Responder) {
        let end = {
            let inner = self.lock();
            match copyable(&inner) {
                Some(now) if now.generation == read.generation => inner.log.durable_files().1,
                Some(_) => {
                    drop(inner);
                    return reply.fail(Status::Invalid, "the cluster is in another generation");
                }
                None => {
                    drop(inner);
                    return on_hold(reply);
                }
            }
        };
        match files::read(&self.disk, read.file, end, (read.offset, read.len), read.before) {
            Ok(Part::Bytes(bytes)) => {
                let body = LogBytes { same: true, crc: crc32c(&bytes) };
                reply.send(Outgoing::reply(header, &body).with_payload(bytes));
            }
            Ok(Part::Differs) => {
                reply.send(Outgoing::reply(header, &LogBytes { same: false, crc: crc32c(&[]) }));
            }
            Err(error @ ReadError::Gone(_)) => reply.fail(Status::NotFound, &error.to_string()),
            Err(ReadError::Io(error)) => reply.fail(Status::Io, &error.to_string()),
        }
    }
}

/// A log that failed is not copied on: what it calls durable was so, but a restart has the word.
fn copyable(inner: &Inner) -> Option<Copyable> {
    inner.core.copyable().filter(|_| inner.failed.is_none())
}

fn on_hold(reply: Responder) {
    reply.fail(Status::Hold, "a copy does not follow a log that may be the wrong one");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bytes_a_second() {
        let mut budget = Budget::default();
        let (now, most) = (Micros(5_000_000), u64::from(LOG_READ_MAX));
        assert!((0..BYTES_PER_S / most).all(|_| budget.take(now, most)));
        assert!(!budget.take(Micros(now.0 + SECOND - 1), most));
        assert!(budget.take(Micros(now.0 + SECOND), most));
    }
}
