//! Work on other threads and connections that cannot end without a word: a panic in it ends what waits for
//! it at once, as a failure that says where the agent panicked.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Once, OnceLock};

use futures_util::FutureExt;
use thiserror::Error;
use tokio::task::JoinHandle;

use super::error::{ModuleError, ModuleFailure};

/// A mistake in the agent, found while it worked for a task.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the agent panicked at {place}, in its {worker}: {message}")]
pub struct Panicked {
    /// File, line and column of the source.
    pub place: String,
    /// What was at work.
    pub worker: &'static str,
    /// What it said.
    pub message: String,
}

impl ModuleFailure for Panicked {
    fn code(&self) -> &'static str {
        "agent::panic"
    }

    fn help(&self) -> Option<String> {
        Some(
            "this is a mistake in the agent: report it with this message and `kaapana-agent \
             --version`; run again, it finds out what became of the task"
                .into(),
        )
    }

    // Nothing tidied up behind it.
    fn is_outcome_unknown(&self) -> bool {
        true
    }
}

/// Work on a thread that may block.
pub type Task<T> = JoinHandle<Result<T, Panicked>>;

/// Begins work on a thread that may block. It is never given up half way.
pub fn start<T: Send + 'static>(
    worker: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Task<T> {
    #[expect(clippy::disallowed_methods, reason = "this is where it is caught")]
    tokio::task::spawn_blocking(move || caught(worker, work))
}

/// Waits for work that was begun.
///
/// # Errors
/// [`Panicked`]; [`ModuleError::Cancelled`] where the runtime is being shut down.
pub async fn ended<T>(task: Task<T>) -> Result<T, ModuleError> {
    match task.await {
        Ok(done) => Ok(done?),
        // Caught inside; what is left is a runtime that drops its work.
        Err(_) => Err(ModuleError::Cancelled),
    }
}

/// Runs work on a thread that may block.
///
/// # Errors
/// As [`ended`].
pub async fn blocking<T: Send + 'static>(
    worker: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ModuleError> {
    ended(start(worker, work)).await
}

/// Runs work in the caller's thread.
///
/// # Errors
/// It panicked.
pub fn caught<T>(worker: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    note_places();
    let work = || {
        reach(worker);
        work()
    };
    // What it worked on is not looked at again: the failure ends the task.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| of(worker, payload.as_ref()))
}

/// Runs asynchronous work.
///
/// # Errors
/// It panicked.
pub async fn watched<F: Future>(worker: &'static str, work: F) -> Result<F::Output, Panicked> {
    note_places();
    let work = async {
        reach(worker);
        work.await
    };
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|payload| of(worker, payload.as_ref()))
}

thread_local! {
    /// Where this thread panicked last: what unwinds does not know it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string);
            PLACE.with(|known| known.replace(place));
            before(info);
        }));
    });
}

fn of(worker: &'static str, payload: &(dyn Any + Send)) -> Panicked {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    Panicked {
        place: PLACE
            .with(RefCell::take)
            .unwrap_or_else(|| "an unknown place".into()),
        worker,
        message: text.unwrap_or_else(|| "without a word".into()),
    }
}

static POINTS: OnceLock<Vec<String>> = OnceLock::new();

/// Test-only: makes these workers panic when they begin.
///
/// # Errors
/// This build has no failure points, or they were set before.
pub fn arm(workers: Vec<String>) -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Err("this build has no failure points".into());
    }
    POINTS
        .set(workers)
        .map_err(|_| "they were set before".to_owned())
}

fn reach(worker: &'static str) {
    if cfg!(debug_assertions)
        && let Some(points) = POINTS.get()
        && points.iter().any(|point| point == worker)
    {
        panic!("a failure point");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(error: &ModuleError) -> String {
        let ModuleError::Failed(failure) = error else {
            panic!("no failure: {error}");
        };
        assert_eq!(failure.code(), "agent::panic");
        assert!(failure.is_outcome_unknown());
        failure.to_string()
    }

    #[tokio::test]
    async fn a_panic_is_told_with_its_place_wherever_it_happens() {
        let told = [
            line(
                &blocking("one", || panic!("no {}", "luck"))
                    .await
                    .expect_err("ends"),
            ),
            line(
                &watched("one", async { panic!("no luck") })
                    .await
                    .expect_err("ends")
                    .into(),
            ),
            line(
                &caught("one", || panic!("no luck"))
                    .expect_err("ends")
                    .into(),
            ),
        ];
        for text in told {
            assert!(text.contains("host/src/worker.rs:"), "{text}");
            assert!(text.ends_with("in its one: no luck"), "{text}");
        }
    }

    #[tokio::test]
    async fn what_ends_well_is_handed_on() {
        assert_eq!(blocking("one", || 1).await.expect("well"), 1);
        assert_eq!(watched("one", async { 2 }).await, Ok(2));
    }
}
