//! Asking the daemon from the admin port's thread: the question runs on the daemon's own runtime, and is waited for
//! with a bound.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// A daemon that takes longer hangs: its steps take microseconds, and what asks it gives up after as long.
const LIMIT: Duration = Duration::from_secs(2);
/// Questions under way. One that hangs holds its place, so that no more pile up in a daemon that hangs.
const ASKED_MAX: usize = 16;

/// The way into the daemon.
#[derive(Clone, Debug)]
pub struct Inside {
    runtime: Handle,
    places: Arc<Semaphore>,
}

impl Inside {
    /// Into the daemon that runs on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Inside {
        Inside { runtime, places: Arc::new(Semaphore::new(ASKED_MAX)) }
    }

    /// Has `question` answered by the daemon.
    ///
    /// # Errors
    /// When it is not in time, in words.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<T, String> {
        let place = Arc::clone(&self.places).acquire_owned();
        let asked = async {
            let place = place.await.map_err(|closed| closed.to_string())?;
            let answered = self.runtime.spawn(async move {
                let answer = question.await;
                drop(place);
                answer
            });
            answered.await.map_err(|ended| format!("the daemon did not answer: {ended}"))?
        };
        let hangs = |_elapsed| {
            format!(
                "the daemon did not answer within {} s: it hangs, or its machine is overloaded",
                LIMIT.as_secs()
            )
        };
        tokio::time::timeout(LIMIT, asked).await.map_err(hangs)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_hangs_is_not_waited_for() {
        let daemon = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let inside = Inside::new(daemon.handle().clone());
        let admin =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        // Nobody runs the daemon's runtime.
        let said = admin.block_on(inside.ask(async { Ok(1) })).unwrap_err();
        assert!(said.contains("hangs"), "{said}");
    }

    #[test]
    fn what_the_daemon_says_comes_back() {
        let daemon = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let inside = Inside::new(daemon.handle().clone());
        let admin = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(admin.block_on(inside.ask(async { Ok(1) })), Ok(1));
        let refused: Result<(), String> = Err("on hold".to_owned());
        assert_eq!(admin.block_on(inside.ask(async { refused })), Err("on hold".to_owned()));
    }
}
