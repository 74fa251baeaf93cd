//! The calls of one connection that wait for a reply.
//!
//! A call's id is a slot's index in the low half and the slot's generation in the high half, so that a late
//! reply never reaches the slot's next user. One sweeper task per connection ends overdue calls: a timer per
//! call would wake a sleeping worker for nearly every one of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::conn::CallError;
use crate::conn::flight::Entry;
use crate::frame::Frame;
use crate::header::CallId;
use crate::status::Status;

/// Most calls that wait at once on one connection: four times what a peer serves at once.
const CALLS_MAX: usize = 4096;
/// Bits of a call id that are the slot's index.
const INDEX_BITS: u32 = 32;

/// What a waiting call is given.
pub(crate) type Outcome = Result<Frame, CallError>;

#[derive(Debug)]
pub(crate) struct Calls {
    /// Held for some loads and stores only. No other lock is taken under it.
    table: Mutex<Table>,
    /// Wakes the sweeper: a deadline came before the one it sleeps for, or the connection closed.
    sweep: Notify,
}

#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// When the sweeper looks next by itself.
    next_sweep: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    entry: Entry,
    done: oneshot::Sender<Outcome>,
}

/// What the sweeper has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// Sleep until then, or until woken.
    At(Instant),
    /// Sleep until woken.
    Idle,
    /// The connection is closed.
    Over,
}

/// A started call; dropped early it gives its slot back, and the reply is thrown away when it comes.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    calls: &'a Calls,
    pub(crate) id: CallId,
    reply: oneshot::Receiver<Outcome>,
    ended: bool,
}

impl Calls {
    pub(crate) fn new() -> Calls {
        let table = Table { slots: Vec::new(), free: Vec::new(), next_sweep: None, closed: false };
        Calls { table: Mutex::new(table), sweep: Notify::new() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a call that ends at `deadline` at the latest.
    pub(crate) fn start(&self, deadline: Instant, entry: Entry) -> Result<Pending<'_>, CallError> {
        let (done, reply) = oneshot::channel();
        let (id, wake) = self.table().start(Waiting { deadline, entry, done })?;
        if wake {
            self.sweep.notify_one();
        }
        Ok(Pending { calls: self, id, reply, ended: false })
    }

    /// What waits.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.table().slots.iter().filter_map(|slot| Some(slot.waiting.as_ref()?.entry)).collect()
    }

    /// Gives the call its reply. A call that is over already gets nothing.
    pub(crate) fn complete(&self, frame: Frame) {
        let waiting = self.table().end(frame.header.call);
        match waiting {
            // The caller may have gone in the meantime; then nobody wants the reply.
            Some(waiting) => drop(waiting.done.send(Ok(frame))),
            None => log::trace!("late reply to {:?} dropped", frame.header.op),
        }
    }

    /// Ends overdue calls and says when to look again.
    pub(crate) fn sweep(&self, now: Instant) -> Sweep {
        let (overdue, next) = self.table().sweep(now);
        for waiting in overdue {
            drop(waiting.done.send(Err(CallError::Deadline)));
        }
        next
    }

    /// Returns when the sweeper should look before its time.
    pub(crate) async fn sweep_wanted(&self) {
        self.sweep.notified().await;
    }

    /// Ends all calls, and every later one at its start.
    pub(crate) fn close(&self) {
        let waiting: Vec<Waiting> = {
            let mut table = self.table();
            table.closed = true;
            table.slots.iter_mut().filter_map(|slot| slot.waiting.take()).collect()
        };
        for waiting in waiting {
            drop(waiting.done.send(Err(CallError::Closed)));
        }
        self.sweep.notify_one();
    }
}

impl Table {
    /// The call's id, and whether the sweeper has to be woken for its deadline.
    fn start(&mut self, waiting: Waiting) -> Result<(CallId, bool), CallError> {
        if self.closed {
            return Err(CallError::Closed);
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < CALLS_MAX => {
                self.slots.push(Slot { generation: 1, waiting: None });
                self.slots.len() - 1
            }
            None => {
                let detail = format!("{CALLS_MAX} calls wait on this connection");
                return Err(CallError::Status(Status::Overloaded, detail));
            }
        };
        let wake = self.next_sweep.is_none_or(|next| waiting.deadline < next);
        if wake {
            self.next_sweep = Some(waiting.deadline);
        }
        let slot = &mut self.slots[index];
        let id = u64::from(slot.generation) << INDEX_BITS | index as u64;
        slot.waiting = Some(waiting);
        Ok((CallId(id), wake))
    }

    /// Empties the call's slot, if the call still has it.
    fn end(&mut self, id: CallId) -> Option<Waiting> {
        let index = usize::try_from(id.0 & ((1 << INDEX_BITS) - 1)).ok()?;
        let slot = self.slots.get_mut(index)?;
        if u64::from(slot.generation) != id.0 >> INDEX_BITS {
            return None;
        }
        let waiting = slot.waiting.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(waiting)
    }

    fn sweep(&mut self, now: Instant) -> (Vec<Waiting>, Sweep) {
        if self.closed {
            return (Vec::new(), Sweep::Over);
        }
        let mut overdue = Vec::new();
        let mut next: Option<Instant> = None;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(waiting) = slot.waiting.take() else { continue };
            if waiting.deadline <= now {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index);
                overdue.push(waiting);
            } else {
                next = Some(next.map_or(waiting.deadline, |next| next.min(waiting.deadline)));
                slot.waiting = Some(waiting);
            }
        }
        self.next_sweep = next;
        (overdue, next.map_or(Sweep::Idle, Sweep::At))
    }
}

impl Pending<'_> {
    /// Waits for the reply, the deadline, or the end of the connection.
    pub(crate) async fn reply(mut self) -> Outcome {
        // A sender is dropped unused only together with the connection.
        let outcome = (&mut self.reply).await.unwrap_or(Err(CallError::Closed));
        self.ended = true;
        outcome
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.ended {
            drop(self.calls.table().end(self.id));
        }
    }
}

/// Longest deadline of a call: a day is for ever to a network.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Now, when a call that starts now and may take `limit` is overdue, and `limit` as the header says it.
pub(crate) fn deadline_after(limit: Duration) -> (Instant, Instant, u32) {
    let limit = limit.min(DEADLINE_MAX);
    // 0 in the header would say that there is no deadline.
    let ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
    let now = Instant::now();
    (now, now + limit, ms)
}
