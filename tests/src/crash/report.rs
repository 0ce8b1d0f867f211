//! Runs cases side by side, a line a case, and sums them up in a table.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::error::LabError;

/// Something that is tried once.
pub struct Case {
    /// What it is one of.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// Arguments of `crash` that try it again.
    pub replay: String,
    /// Tries it; says what was seen, or what is wrong.
    pub work: Box<dyn FnOnce() -> Result<String, LabError> + Send>,
}

/// How a case ended.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Kind of the case.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Arguments that try it again.
    pub replay: String,
    /// What is wrong with its end.
    pub wrong: Option<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Tries all cases, `jobs` at a time, and prints a line for each. Begins none after `until`.
#[must_use]
pub fn run_all(cases: Vec<Case>, jobs: usize, until: Option<Instant>) -> Vec<Verdict> {
    let total = cases.len();
    let waiting = Mutex::new(VecDeque::from(cases));
    let ended = Mutex::new(Vec::new());
    let in_time = || until.is_none_or(|until| Instant::now() < until);
    let next = || lock(&waiting).pop_front().filter(|_| in_time());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let since = Instant::now();
                    let outcome = (case.work)();
                    let seconds = since.elapsed().as_secs_f64();
                    let mut ended = lock(&ended);
                    let count = ended.len() + 1;
                    let head = format!("[{count}/{total}] {}: {}", case.kind, case.name);
                    let wrong = match outcome {
                        Ok(seen) => {
                            println!("{head}: right ({seen}; {seconds:.1} s)");
                            None
                        }
                        Err(error) => {
                            let text = whole_message(&error);
                            println!(
                                "{head}: WRONG ({seconds:.1} s)\n  {text}\n  again: {}",
                                case.replay
                            );
                            Some(text)
                        }
                    };
                    ended.push(Verdict {
                        kind: case.kind,
                        name: case.name,
                        replay: case.replay,
                        wrong,
                        seconds,
                    });
                }
            });
        }
    });
    ended
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn whole_message(error: &LabError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// Cases, wrong ends and seconds by kind.
#[derive(Debug, Clone, Default)]
pub struct Table(BTreeMap<&'static str, (usize, usize, f64)>);

impl Table {
    /// Sums verdicts up.
    #[must_use]
    pub fn of(verdicts: &[Verdict]) -> Self {
        let mut table = Self::default();
        for verdict in verdicts {
            let row = table.0.entry(verdict.kind).or_default();
            row.0 += 1;
            row.1 += usize::from(verdict.wrong.is_some());
            row.2 += verdict.seconds;
        }
        table
    }

    /// Number of wrong ends.
    #[must_use]
    pub fn wrong(&self) -> usize {
        self.0.values().map(|row| row.1).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| kind | cases | wrong ends | seconds, all cases | seconds a case |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|")?;
        for (kind, (cases, wrong, seconds)) in &self.0 {
            let each = seconds / (*cases).max(1) as f64;
            writeln!(
                f,
                "| {kind} | {cases} | {wrong} | {seconds:.0} | {each:.1} |"
            )?;
        }
        Ok(())
    }
}
