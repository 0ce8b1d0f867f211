//! Runs cases side by side, a line a case, and sums them up in a table.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::error::LabError;

/// What a case saw on its way to the right end.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// In words.
    pub said: String,
    /// SIGKILLs that met the agent.
    pub kills: usize,
}

impl From<String> for Seen {
    fn from(said: String) -> Self {
        Self { said, kills: 0 }
    }
}

/// Something that is tried once.
pub struct Case {
    /// What it is one of.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// Arguments of `crash` that try it again.
    pub replay: String,
    /// Tries it; says what was seen, or what is wrong.
    pub work: Box<dyn FnOnce() -> Result<Seen, LabError> + Send>,
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
    /// SIGKILLs that met the agent, where the end is right.
    pub kills: usize,
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
                    let outcome = match outcome {
                        Ok(seen) => {
                            println!("{head}: right ({}; {seconds:.1} s)", seen.said);
                            Ok(seen.kills)
                        }
                        Err(error) => {
                            let text = whole_message(&error);
                            println!(
                                "{head}: WRONG ({seconds:.1} s)\n  {text}\n  again: {}",
                                case.replay
                            );
                            Err(text)
                        }
                    };
                    ended.push(Verdict {
                        kind: case.kind,
                        name: case.name,
                        replay: case.replay,
                        kills: outcome.as_ref().copied().unwrap_or_default(),
                        wrong: outcome.err(),
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

/// The sums of one kind of cases.
#[derive(Debug, Clone, Default)]
struct Row {
    cases: usize,
    kills: usize,
    wrong: usize,
    seconds: f64,
}

/// Cases, kills, wrong ends and seconds by kind.
#[derive(Debug, Clone, Default)]
pub struct Table(BTreeMap<&'static str, Row>);

impl Table {
    /// Sums verdicts up.
    #[must_use]
    pub fn of(verdicts: &[Verdict]) -> Self {
        let mut table = Self::default();
        for verdict in verdicts {
            let row = table.0.entry(verdict.kind).or_default();
            row.cases += 1;
            row.kills += verdict.kills;
            row.wrong += usize::from(verdict.wrong.is_some());
            row.seconds += verdict.seconds;
        }
        table
    }

    /// Number of wrong ends.
    #[must_use]
    pub fn wrong(&self) -> usize {
        self.0.values().map(|row| row.wrong).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| kind | cases | SIGKILLs to the agent | wrong ends | seconds, all cases | seconds a case |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|")?;
        for (kind, row) in &self.0 {
            let Row {
                cases,
                kills,
                wrong,
                seconds,
            } = row;
            let each = seconds / (*cases).max(1) as f64;
            writeln!(
                f,
                "| {kind} | {cases} | {kills} | {wrong} | {seconds:.0} | {each:.1} |"
            )?;
        }
        Ok(())
    }
}
