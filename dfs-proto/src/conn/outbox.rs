//! What leaves a connection: written at once by whoever sends, as long as the socket takes it.
//!
//! One thread writes at a time. While it does, and while the socket is full, others only queue; the writer
//! takes along what they left. A full socket hands the queue to the connection's flusher task. While the
//! reader works through the frames of one read, its own sends are corked: they queue and leave together.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::conn::stream::WriteHalf;
use crate::frame::wire::WireFrame;

/// Queued bytes from which on new calls wait.
const CALLS_WAIT_AT: usize = 32 << 20;
/// Queued bytes from which on no more requests are read. Higher than [`CALLS_WAIT_AT`], so that calls alone
/// never keep replies from being read, which could leave both ends waiting for each other.
const READING_STOPS_AT: usize = 64 << 20;
/// Queued bytes below which those who wait go on.
const GO_ON_BELOW: usize = 16 << 20;
/// Corked bytes that leave without waiting for the end of the batch.
const CORK_MAX: usize = 256 << 10;
/// Pieces given to one system call: some twenty small frames.
const SLICES: usize = 64;
/// Batches that a sender writes on behalf of others before the flusher takes over.
const BATCHES: usize = 16;

thread_local! {
    /// The connection whose frames are being handled by this thread; 0 when none.
    static CORKED: Cell<u64> = const { Cell::new(0) };
}

/// Corks a connection for sends of this thread, until dropped.
pub(crate) struct Cork {
    before: u64,
}

impl Cork {
    pub(crate) fn new(conn: u64) -> Cork {
        Cork { before: CORKED.replace(conn) }
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        CORKED.set(self.before);
    }
}

/// Why something waits for the queue to drain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    /// It wants to send a request.
    Caller,
    /// It wants to read from the peer.
    Reader,
}

/// How a send or a flush left the queue.
#[derive(Debug)]
#[must_use]
pub(crate) enum Left {
    /// Written, or in the hands of another writer.
    Done,
    /// The socket is full: the flusher has to be told.
    Blocked,
    /// The connection is over already; the frame was dropped.
    Closed,
    /// The socket failed.
    Broken(io::Error),
}

#[derive(Debug)]
pub(crate) struct Outbox {
    conn: u64,
    write: WriteHalf,
    /// Never held during a system call. No other lock is taken under it.
    state: Mutex<State>,
    /// Bytes of all frames not yet written whole.
    bytes: AtomicUsize,
    /// Bytes that sockets took, of this connection and others.
    sent: Option<Arc<AtomicU64>>,
    room: Notify,
    blocked: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Nothing more is accepted, and the socket is shut for writing once all is written.
    ending: bool,
    queue: Batch,
    /// An empty queue with its memory, for the next exchange.
    spare: VecDeque<WireFrame>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nobody writes. The queue is empty, or corked.
    Idle,
    /// A thread writes and will take the queue along.
    Writing,
    /// The flusher waits for the socket.
    Blocked,
    Closed,
}

/// Frames in order, the first of them perhaps begun.
#[derive(Debug, Default)]
struct Batch {
    frames: VecDeque<WireFrame>,
    /// Bytes of the first frame that are written.
    begun: usize,
}

impl Outbox {
    pub(crate) fn new(conn: u64, write: WriteHalf, sent: Option<Arc<AtomicU64>>) -> Outbox {
        let state =
            State { phase: Phase::Idle, ending: false, queue: Batch::default(), spare: VecDeque::new() };
        Outbox {
            conn,
            write,
            state: Mutex::new(state),
            bytes: AtomicUsize::new(0),
            sent,
            room: Notify::new(),
            blocked: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame and writes, unless another does or the connection is corked.
    pub(crate) fn send(&self, frame: WireFrame) -> Left {
        let batch = {
            let mut state = self.state();
            if state.phase == Phase::Closed || state.ending {
                return Left::Closed;
            }
            let queued = self.bytes.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
            state.queue.frames.push_back(frame);
            let corked = CORKED.get() == self.conn && queued < CORK_MAX;
            if state.phase != Phase::Idle || corked {
                return Left::Done;
            }
            state.start_writing()
        };
        self.write_out(batch)
    }

    /// Writes what was corked.
    pub(crate) fn flush(&self) -> Left {
        let batch = {
            let mut state = self.state();
            if state.phase != Phase::Idle || state.queue.frames.is_empty() {
                return Left::Done;
            }
            state.start_writing()
        };
        self.write_out(batch)
    }

    /// The flusher's turn: the socket takes bytes again.
    pub(crate) fn resume(&self) -> Left {
        let batch = {
            let mut state = self.state();
            if state.phase != Phase::Blocked {
                return Left::Done;
            }
            state.start_writing()
        };
        self.write_out(batch)
    }

    /// Accepts nothing more, and shuts the socket for writing once the queue is out.
    pub(crate) fn end(&self) -> Left {
        let shut = {
            let mut state = self.state();
            state.ending = true;
            state.phase == Phase::Idle && state.queue.frames.is_empty()
        };
        if shut {
            self.write.shutdown_write();
        }
        self.flush()
    }

    /// Drops the queue and shuts the socket both ways.
    pub(crate) fn close(&self) {
        let queue = {
            let mut state = self.state();
            state.phase = Phase::Closed;
            std::mem::take(&mut state.queue)
        };
        drop(queue);
        self.write.shutdown_both();
        self.room.notify_waiters();
        self.blocked.notify_one();
    }

    /// Returns once the flusher is needed or the connection is closed.
    pub(crate) async fn flusher_wanted(&self) {
        self.blocked.notified().await;
    }

    /// Tells the flusher.
    pub(crate) fn wake_flusher(&self) {
        self.blocked.notify_one();
    }

    /// Waits until the socket takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.write.writable().await
    }

    /// Whether so much is queued that `waiter` has to wait.
    pub(crate) fn is_full(&self, waiter: Waiter) -> bool {
        let limit = match waiter {
            Waiter::Caller => CALLS_WAIT_AT,
            Waiter::Reader => READING_STOPS_AT,
        };
        self.bytes.load(Ordering::Relaxed) >= limit
    }

    /// Waits until there is room or the connection is closed.
    pub(crate) async fn wait_room(&self, waiter: Waiter) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if !self.is_full(waiter) || self.state().phase == Phase::Closed {
                return;
            }
            room.await;
        }
    }

    /// Writes `batch` and whatever is queued meanwhile.
    fn write_out(&self, mut batch: Batch) -> Left {
        for _ in 0..BATCHES {
            match self.write_batch(&mut batch) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Left::Broken(error),
            }
            let mut state = self.state();
            if state.queue.frames.is_empty() {
                return self.stop_writing(state, batch);
            }
            std::mem::swap(&mut state.queue, &mut batch);
        }
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Left::Closed;
        }
        if batch.frames.is_empty() && state.queue.frames.is_empty() {
            return self.stop_writing(state, batch);
        }
        batch.frames.append(&mut state.queue.frames);
        state.queue = batch;
        state.phase = Phase::Blocked;
        Left::Blocked
    }

    fn stop_writing(&self, mut state: MutexGuard<'_, State>, batch: Batch) -> Left {
        state.spare = batch.frames;
        if state.phase == Phase::Closed {
            return Left::Closed;
        }
        state.phase = Phase::Idle;
        let ending = state.ending;
        drop(state);
        if ending {
            self.write.shutdown_write();
        }
        Left::Done
    }

    /// Writes until the batch is empty or the socket is full.
    fn write_batch(&self, batch: &mut Batch) -> io::Result<()> {
        while !batch.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = batch.slices(&mut slices);
            match self.write.try_write_vectored(&slices[..used]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written(batch, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn written(&self, batch: &mut Batch, written: usize) {
        if let Some(sent) = &self.sent {
            sent.fetch_add(u64::try_from(written).unwrap_or(0), Ordering::Relaxed);
        }
        let out = batch.advance(written);
        let before = self.bytes.fetch_sub(out, Ordering::Relaxed);
        if before >= GO_ON_BELOW && before - out < GO_ON_BELOW {
            self.room.notify_waiters();
        }
    }
}

impl State {
    fn start_writing(&mut self) -> Batch {
        self.phase = Phase::Writing;
        let next = Batch { frames: std::mem::take(&mut self.spare), begun: 0 };
        std::mem::replace(&mut self.queue, next)
    }
}

impl Batch {
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut begun = self.begun;
        for frame in &self.frames {
            used += frame.slices_after(begun, &mut slices[used..]);
            begun = 0;
            if used == slices.len() {
                break;
            }
        }
        used
    }

    /// Removes the frames that `written` more bytes complete, and returns their bytes.
    fn advance(&mut self, written: usize) -> usize {
        let mut out = 0;
        self.begun += written;
        while let Some(frame) = self.frames.front()
            && self.begun >= frame.len()
        {
            self.begun -= frame.len();
            out += frame.len();
            self.frames.pop_front();
        }
        out
    }
}
