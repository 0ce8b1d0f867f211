//! What of a restore may run side by side, and in which order: data, then keys and indexes of a table as
//! soon as its own data is there, the largest first. Decides only; sessions do the work.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::host::error::ModuleError;
use crate::restore::session::Job;

/// How a job uses its tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Fills a table.
    Load(String),
    /// Has the table to itself.
    Alone(String),
    /// The same, for all that is to be done about a small one, which may wait.
    Small(String),
    /// Shares the table with others of its kind.
    Shared(String),
    /// Has both tables to itself.
    Both(String, String),
    /// Reads what nobody changes any more.
    Nothing,
}

impl Claim {
    /// Data comes first: everything else waits for some of it. Keys lock a table, indexes do not.
    fn rank(&self) -> u8 {
        match self {
            Self::Load(_) => 0,
            Self::Alone(_) => 1,
            Self::Small(_) => 3,
            _ => 2,
        }
    }
}

#[derive(Default)]
struct State {
    waiting: Vec<Job>,
    running: usize,
    /// Tables whose data is not all there yet, with the number of jobs.
    loading: HashMap<String, usize>,
    /// Bytes of data by table.
    weights: HashMap<String, u64>,
    shared: HashMap<String, usize>,
    alone: HashSet<String>,
    failed: Option<ModuleError>,
    stopped: bool,
    closed: bool,
}

impl State {
    /// A table that no COPY named may be filled through another one, or be spelt otherwise.
    fn is_loaded(&self, table: &str) -> bool {
        if self.weights.contains_key(table) {
            !self.loading.contains_key(table)
        } else {
            self.loading.is_empty()
        }
    }

    fn is_free(&self, table: &str) -> bool {
        !self.alone.contains(table) && !self.shared.contains_key(table)
    }

    fn may_run(&self, claim: &Claim) -> bool {
        match claim {
            Claim::Load(_) | Claim::Nothing => true,
            Claim::Alone(table) | Claim::Small(table) => {
                self.is_loaded(table) && self.is_free(table)
            }
            Claim::Shared(table) => self.is_loaded(table) && !self.alone.contains(table),
            Claim::Both(a, b) => self.is_free(a) && self.is_free(b),
        }
    }

    fn weight(&self, claim: &Claim) -> u64 {
        let of = |table: &String| self.weights.get(table).copied().unwrap_or(0);
        match claim {
            Claim::Load(table)
            | Claim::Alone(table)
            | Claim::Small(table)
            | Claim::Shared(table) => of(table),
            Claim::Both(a, b) => of(a).saturating_add(of(b)),
            Claim::Nothing => 0,
        }
    }

    fn claim(&mut self, claim: &Claim) {
        match claim {
            Claim::Load(_) | Claim::Nothing => {}
            Claim::Alone(table) | Claim::Small(table) => {
                self.alone.insert(table.clone());
            }
            Claim::Shared(table) => *self.shared.entry(table.clone()).or_default() += 1,
            Claim::Both(a, b) => self.alone.extend([a.clone(), b.clone()]),
        }
    }

    fn release(&mut self, claim: &Claim) {
        match claim {
            Claim::Load(table) => count_down(&mut self.loading, table),
            Claim::Alone(table) | Claim::Small(table) => {
                self.alone.remove(table);
            }
            Claim::Shared(table) => count_down(&mut self.shared, table),
            Claim::Both(a, b) => {
                self.alone.remove(a);
                self.alone.remove(b);
            }
            Claim::Nothing => {}
        }
    }

    /// The one that should run now: of the lowest rank, the heaviest, the first.
    fn next(&mut self) -> Option<Job> {
        let runnable = |(index, job): (usize, &Job)| {
            self.may_run(&job.claim).then(|| {
                let weight = self.weight(&job.claim).max(job.weight);
                (job.claim.rank(), std::cmp::Reverse(weight), index)
            })
        };
        let (_, _, index) = self.waiting.iter().enumerate().filter_map(runnable).min()?;
        let job = self.waiting.remove(index);
        self.claim(&job.claim);
        self.running += 1;
        Some(job)
    }
}

fn count_down(counts: &mut HashMap<String, usize>, table: &str) {
    if let Some(count) = counts.get_mut(table) {
        *count -= 1;
        if *count == 0 {
            counts.remove(table);
        }
    }
}

/// Jobs that wait and run.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    changed: Notify,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; it runs when its tables allow it.
    pub fn push(&self, job: Job) {
        let mut state = self.lock();
        if let Claim::Load(table) = &job.claim {
            *state.loading.entry(table.clone()).or_default() += 1;
            *state.weights.entry(table.clone()).or_default() += job.weight;
        }
        state.waiting.push(job);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Bytes of data that a table gets, as far as is known; `None` for one that no COPY has named.
    #[must_use]
    pub fn bytes_of(&self, table: &str) -> Option<u64> {
        self.lock().weights.get(table).copied()
    }

    /// Waits for `ready` to give something, looking again whenever something has changed.
    async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that nothing is missed in between.
            changed.as_mut().enable();
            if let Some(found) = ready(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    /// Waits for a job; nothing when there will be none any more.
    pub async fn take(&self) -> Option<Job> {
        self.wait(|state| {
            if state.stopped {
                return Some(None);
            }
            match state.next() {
                None if state.closed && state.waiting.is_empty() => Some(None),
                found => found.map(Some),
            }
        })
        .await
    }

    /// Gives a job back that was done; after a failure nobody gets another one.
    pub fn done(&self, claim: &Claim, result: Result<(), ModuleError>) {
        let mut state = self.lock();
        state.running -= 1;
        state.release(claim);
        if let Err(error) = result {
            state.stopped = true;
            // The first one is the cause.
            state.failed.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Fails once a job has failed, with its error the first time.
    ///
    /// # Errors
    /// A job failed.
    pub fn check(&self) -> Result<(), ModuleError> {
        let mut state = self.lock();
        match (state.failed.take(), state.stopped) {
            (Some(error), _) => Err(error),
            (None, true) => Err(ModuleError::Cancelled),
            (None, false) => Ok(()),
        }
    }

    /// Waits until a job has failed; for ever where none does. Its error is given away once. An interruption is
    /// none: everybody hears of it, and has the server cancel what is under way.
    pub async fn failure(&self) -> ModuleError {
        self.wait(|state| match state.failed {
            Some(ModuleError::Failed(_)) => state.failed.take(),
            _ => None,
        })
        .await
    }

    /// Waits until every job is done.
    ///
    /// # Errors
    /// A job failed.
    pub async fn idle(&self) -> Result<(), ModuleError> {
        self.wait(|state| {
            let idle = state.waiting.is_empty() && state.running == 0;
            (idle || state.stopped).then_some(())
        })
        .await;
        self.check()
    }

    /// Tells whether nothing was given away that is not done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.running == 0 && !state.stopped
    }

    /// Says that no more jobs come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::restore::session::Work;

    fn job(claim: Claim, weight: u64) -> Job {
        Job {
            work: Work::Sql(Vec::new()),
            line: 1,
            claim,
            weight,
            settings: "".into(),
        }
    }

    fn next(pool: &Pool) -> Option<Claim> {
        pool.lock().next().map(|job| job.claim)
    }

    #[test]
    fn indexes_wait_for_the_data_of_their_own_table() {
        let (a, b) = (|| "a".to_owned(), || "b".to_owned());
        let pool = Pool::default();
        pool.push(job(Claim::Load(a()), 10));
        pool.push(job(Claim::Load(b()), 90));
        pool.push(job(Claim::Shared(a()), 0));
        pool.push(job(Claim::Alone(a()), 0));
        pool.push(job(Claim::Shared("parent".into()), 0));
        assert_eq!(next(&pool), Some(Claim::Load(b())), "the heaviest first");
        assert_eq!(next(&pool), Some(Claim::Load(a())));
        assert_eq!(next(&pool), None, "no data is there yet");
        pool.done(&Claim::Load(a()), Ok(()));
        assert_eq!(next(&pool), Some(Claim::Alone(a())), "keys before indexes");
        assert_eq!(next(&pool), None, "the key has its table to itself");
        pool.done(&Claim::Alone(a()), Ok(()));
        assert_eq!(next(&pool), Some(Claim::Shared(a())));
        assert_eq!(
            next(&pool),
            None,
            "a table without data of its own waits for all"
        );
        pool.done(&Claim::Load(b()), Ok(()));
        assert_eq!(next(&pool), Some(Claim::Shared("parent".into())));
    }

    #[test]
    fn foreign_keys_never_share_a_table() {
        let both = |a: &str, b: &str| Claim::Both(a.into(), b.into());
        let pool = Pool::default();
        pool.push(job(both("a", "b"), 0));
        pool.push(job(both("b", "c"), 0));
        pool.push(job(both("c", "c"), 0));
        assert_eq!(next(&pool), Some(both("a", "b")));
        assert_eq!(next(&pool), Some(both("c", "c")));
        assert_eq!(next(&pool), None);
        pool.done(&both("a", "b"), Ok(()));
        assert_eq!(next(&pool), None);
        pool.done(&both("c", "c"), Ok(()));
        assert_eq!(next(&pool), Some(both("b", "c")));
    }

    #[tokio::test]
    async fn a_failure_is_heard_and_an_interruption_is_not() {
        let pool = Pool::default();
        pool.push(job(Claim::Nothing, 0));
        pool.push(job(Claim::Nothing, 0));
        for _ in 0..2 {
            assert!(pool.take().await.is_some());
        }
        pool.done(&Claim::Nothing, Err(ModuleError::Cancelled));
        assert!(pool.failure().now_or_never().is_none());
        let pool = Pool::default();
        pool.push(job(Claim::Nothing, 0));
        assert!(pool.take().await.is_some());
        let heard = pool.failure();
        let panicked = crate::host::worker::caught("one", || -> () { panic!("no luck") });
        pool.done(&Claim::Nothing, panicked.map_err(ModuleError::from));
        assert!(heard.await.to_string().ends_with("no luck"));
    }

    #[tokio::test]
    async fn a_failure_ends_everything() {
        let pool = Pool::default();
        pool.push(job(Claim::Nothing, 0));
        pool.push(job(Claim::Nothing, 0));
        let first = pool.take().await.expect("a job");
        pool.done(&first.claim, Err(ModuleError::Cancelled));
        assert!(pool.take().await.is_none());
        assert!(pool.idle().await.is_err());
        assert!(pool.check().is_err(), "it stays failed");
    }
}
