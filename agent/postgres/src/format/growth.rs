//! How readers of a dump that is still being written learn that more is there, or that no more will come.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often a file is looked at by a reader that has come to its end.
const LOOK: Duration = Duration::from_millis(5);

/// How far the writing of a dump is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// More will come.
    Growing,
    /// Everything is there.
    Whole,
    /// The rest will never come.
    Failed,
}

/// What readers look at.
#[derive(Debug)]
pub struct Growth {
    stage: Mutex<Stage>,
    ended: Condvar,
}

impl Growth {
    /// Waits a little where the file still grows, and says how far it is.
    #[must_use]
    pub fn wait(&self) -> Stage {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(stage, LOOK, |stage| *stage == Stage::Growing);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Whoever writes. Dropped before [`Grower::end`] it has failed, and no reader waits any longer.
#[derive(Debug)]
pub struct Grower(Arc<Growth>);

impl Grower {
    /// Begins; readers wait at the end of the file from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self(Arc::new(Growth {
            stage: Mutex::new(Stage::Growing),
            ended: Condvar::new(),
        }))
    }

    /// For a reader.
    #[must_use]
    pub fn growth(&self) -> Arc<Growth> {
        Arc::clone(&self.0)
    }

    /// Says that everything is in the file, or that the rest will never come. Once said it stays.
    pub fn end(&self, whole: bool) {
        let mut stage = self.0.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == Stage::Growing {
            *stage = if whole { Stage::Whole } else { Stage::Failed };
            self.0.ended.notify_all();
        }
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.end(false);
    }
}
