//! Operations that took their first step on the thread that read the request and now wait: kept without a
//! task until they are woken, which most are by the answer that they wait for, on the runtime's own thread.
//!
//! Invariant: whatever is parked goes on as a task of the runtime when its waker is woken, and at the latest
//! when it has waited for the time that [`Parked::resume_old`] is given.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

/// What is left to do.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the first step ended.
pub(super) enum Started<F: Future> {
    Done(F::Output),
    Waits(Pin<Box<F>>, Arc<Parking>),
}

/// One operation's place.
#[derive(Debug, Default)]
pub(super) struct Parking {
    place: Mutex<Place>,
}

#[derive(Default)]
enum Place {
    /// The first step is not over yet.
    #[default]
    Empty,
    /// Woken before there was anything to resume.
    Woken,
    Waits(Rest, Handle),
    /// A task has it.
    Gone,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// In order of their beginning; those that went on meanwhile are dead references.
    queue: Mutex<VecDeque<(Instant, Weak<Parking>)>>,
}

/// Takes the operation's first step here and now. Must be called within the runtime's context.
pub(super) fn begin<F: Future>(mut operation: Pin<Box<F>>) -> Started<F> {
    let parking = Arc::new(Parking::default());
    let waker = Waker::from(Arc::clone(&parking));
    match operation.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(output) => Started::Done(output),
        Poll::Pending => Started::Waits(operation, parking),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Parking {
    fn resume(&self) {
        let resumed = {
            let mut place = lock(&self.place);
            match std::mem::replace(&mut *place, Place::Gone) {
                Place::Empty | Place::Woken => {
                    *place = Place::Woken;
                    None
                }
                Place::Waits(rest, runtime) => Some((rest, runtime)),
                Place::Gone => None,
            }
        };
        if let Some((rest, runtime)) = resumed {
            runtime.spawn(rest);
        }
    }
}

impl Wake for Parking {
    fn wake(self: Arc<Self>) {
        self.resume();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.resume();
    }
}

impl Parked {
    /// Keeps what is left of an operation until it is woken.
    pub(super) fn park(&self, parking: Arc<Parking>, rest: Rest, runtime: &Handle) {
        let woken = {
            let mut place = lock(&parking.place);
            let woken = matches!(*place, Place::Woken);
            *place = Place::Waits(rest, runtime.clone());
            woken
        };
        if woken {
            parking.resume();
        } else {
            lock(&self.queue).push_back((Instant::now(), Arc::downgrade(&parking)));
        }
    }

    /// Makes tasks of those that have waited for `age`, for ever: a task can look at more than its waker.
    pub(super) async fn resume_old(self: Arc<Self>, age: Duration) {
        loop {
            tokio::time::sleep(age).await;
            let now = Instant::now();
            while let Some(old) = self.pop_older(now, age) {
                if let Some(parking) = old.upgrade() {
                    parking.resume();
                }
            }
        }
    }

    fn pop_older(&self, now: Instant, age: Duration) -> Option<Weak<Parking>> {
        let mut queue = lock(&self.queue);
        let is_old = queue.front().is_some_and(|(since, _)| now.duration_since(*since) >= age);
        if is_old { queue.pop_front().map(|(_, parking)| parking) } else { None }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Empty => "Empty",
            Place::Woken => "Woken",
            Place::Waits(..) => "Waits",
            Place::Gone => "Gone",
        })
    }
}
