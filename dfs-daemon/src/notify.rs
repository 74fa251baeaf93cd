//! What the service manager is told, by sd_notify(3): that the daemon serves, what it does in words, that a long start
//! goes on, and that its main loop still turns. Where no manager listens, nothing is sent and no thread runs.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::clock;

/// How often a start that goes on says so.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// What each of these asks for: three may be late or lost.
const EXTEND_BY: Duration = Duration::from_secs(20);

/// A step of a start that takes longer has hung, unless it is known to take long. The longest of the others is to read
/// a whole snapshot of the master's once: 30 GB of names, on a disk that reads 100 MB/s.
const STEP_LIMIT: Duration = Duration::from_secs(300);

/// Pings for each period in which the manager wants one.
const PINGS: u32 = 3;

/// Messages that wait while the manager reads none; more are dropped. Pings alone fill it in ten minutes.
const QUEUE: usize = 64;

/// Sends from a thread of its own: a manager that does not read must not keep the daemon from its work.
static SENDER: LazyLock<Option<SyncSender<String>>> = LazyLock::new(|| {
    std::env::var_os("NOTIFY_SOCKET")?;
    let (queue, messages) = sync_channel::<String>(QUEUE);
    let sending = move || {
        for message in messages {
            if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&message)]) {
                log::warn!("the service manager was not told {message:?}: {error}");
            }
        }
    };
    match std::thread::Builder::new().name("sd-notify".into()).spawn(sending) {
        Ok(_) => Some(queue),
        Err(error) => {
            log::error!("the service manager will hear nothing: no thread: {error}");
            None
        }
    }
});

fn send(states: &[NotifyState<'_>]) {
    let Some(queue) = &*SENDER else { return };
    // A line each, whatever an error's words have in them.
    let lines: Vec<String> = states.iter().map(|state| state.to_string().replace('\n', "; ")).collect();
    if queue.try_send(lines.join("\n")).is_err() {
        log::debug!("the service manager does not read; not told: {lines:?}");
    }
}

/// The daemon serves from now on.
pub fn ready(words: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(words)]);
}

/// What the daemon does, for `systemctl status`.
pub fn status(words: &str) {
    send(&[NotifyState::Status(words)]);
}

/// The daemon ends on purpose.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Options are read again, until the next [`reloaded`].
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("no time for the service manager: {error}"),
    }
}

/// They have been.
pub(crate) fn reloaded() {
    send(&[NotifyState::Ready]);
}

/// A start that may take longer than the manager waits: it is told to wait on, while steps follow one another. Ends
/// when dropped.
#[derive(Debug)]
pub struct Startup {
    steps: Arc<Mutex<Steps>>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

/// What the thread that tells the manager knows.
#[derive(Debug)]
struct Steps {
    words: String,
    /// When the last one was made.
    last: Instant,
    /// How long the one that is under way may take.
    limit: Duration,
}

impl Startup {
    /// One of which nobody is told.
    #[must_use]
    pub fn silent() -> Startup {
        let steps = Steps { words: String::new(), last: clock::now(), limit: STEP_LIMIT };
        Startup { steps: Arc::new(Mutex::new(steps)), thread: None }
    }

    /// # Errors
    /// When no thread can be started.
    pub fn begin(words: &str) -> io::Result<Startup> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Startup::silent());
        }
        let steps = Steps { words: words.to_owned(), last: clock::now(), limit: STEP_LIMIT };
        let steps = Arc::new(Mutex::new(steps));
        status(words);
        let ((over, wait), of) = (channel(), Arc::clone(&steps));
        let thread = std::thread::Builder::new().name("startup".into()).spawn(move || tell(&of, &wait))?;
        Ok(Startup { steps, thread: Some((over, thread)) })
    }

    /// One more step is done.
    pub fn step(&self) {
        if self.thread.is_some() {
            self.lock().last = clock::now();
        }
    }

    /// One more step is done, and something else is begun.
    pub fn stage(&self, words: &str) {
        self.long_stage(words, STEP_LIMIT);
    }

    /// The same, of which one step may take as long as `limit`.
    pub fn long_stage(&self, words: &str, limit: Duration) {
        if self.thread.is_none() {
            return;
        }
        let mut steps = self.lock();
        (steps.last, steps.limit) = (clock::now(), limit);
        if steps.words != words {
            words.clone_into(&mut steps.words);
            status(words);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Steps> {
        // Two plain values are whole whoever panicked.
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.thread.take() {
            drop(over);
            // It has nothing to report, and a panic there was printed.
            let _ = thread.join();
        }
    }
}

fn tell(steps: &Mutex<Steps>, over: &Receiver<()>) {
    loop {
        {
            let steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
            let since_step = clock::now().saturating_duration_since(steps.last);
            if let Some(more) = extension(since_step, steps.limit) {
                send(&[NotifyState::ExtendTimeoutUsec(more)]);
            }
        }
        match over.recv_timeout(EXTEND_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Microseconds to ask for, unless the last step was made too long ago.
fn extension(since_step: Duration, limit: Duration) -> Option<u32> {
    (since_step < limit).then(|| u32::try_from(EXTEND_BY.as_micros()).unwrap_or(u32::MAX))
}

/// Pings of the main loop, if the manager watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Watchdog {
    /// As the manager asked when it started this process.
    #[must_use]
    pub fn of_manager() -> Watchdog {
        Watchdog { every: sd_notify::watchdog_enabled().map(|within| within / PINGS), last: None }
    }

    /// Returns when a ping is due; never, when nobody watches.
    pub async fn due(&self) {
        match self.every {
            Some(every) => tokio::time::sleep(every).await,
            None => std::future::pending().await,
        }
    }

    /// To be called from where a hang would show, as often as that comes by.
    pub fn alive(&mut self) {
        let Some(every) = self.every else { return };
        let now = clock::now();
        // A loop of the same period as the pings would miss every other one.
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= every / 2) {
            self.last = Some(now);
            send(&[NotifyState::Watchdog]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_hangs_gets_no_more_time() {
        assert_eq!(extension(Duration::ZERO, STEP_LIMIT), Some(20_000_000));
        assert_eq!(extension(STEP_LIMIT, STEP_LIMIT), None);
    }

    #[test]
    fn without_a_manager_nothing_runs() {
        let startup = Startup::begin("x").unwrap();
        assert!(startup.thread.is_none());
        startup.step();
    }
}
