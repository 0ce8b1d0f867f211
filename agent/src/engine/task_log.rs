//! The file of what one task printed, and the sink that modules write their progress to.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::host::progress::Progress;
use crate::redact::Redactor;
use crate::state::journal::{LOG_HEADER, create_private};

/// Hears events.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// How often figures are told at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Writes lines to the task's log file, made with the first line. A log that cannot be written does not
/// stop a task: the journal is the record, the log is for reading.
struct TaskLog {
    path: PathBuf,
    /// Identity, for the first line: a log says by itself which task it belongs to.
    task: String,
    file: Option<File>,
    broken: bool,
}

impl TaskLog {
    fn line(&mut self, line: &str) {
        if self.broken {
            return;
        }
        if self.file.is_none() {
            let opened = self
                .path
                .parent()
                .map_or(Ok(()), create_private)
                .is_ok()
                .then(|| {
                    OpenOptions::new()
                        .create(true)
                        .append(true)
                        .mode(0o600)
                        .open(&self.path)
                        .ok()
                })
                .flatten();
            self.broken = opened.is_none();
            self.file = opened;
            self.line(&format!("{LOG_HEADER}{}", self.task));
        }
        if let Some(file) = &mut self.file {
            self.broken = writeln!(file, "{line}").is_err();
        }
    }
}

/// What becomes of a module's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// They go to the log and become events.
    Kept,
    /// They become events: check mode writes nothing.
    Told,
    /// Nobody hears them.
    Hidden,
}

/// Makes a module's sink: figures become events (not too many), lines what `lines_are` says.
pub(super) fn progress(
    task: &str,
    log: PathBuf,
    events: &EventSink,
    redactor: &Redactor,
    lines_are: Lines,
) -> Progress {
    let last = Mutex::new(None::<Instant>);
    let (figures, name) = (events.clone(), task.to_owned());
    let advance = move |done, total: Option<u64>, unit, what: Option<String>| {
        let mut last = last.lock().unwrap_or_else(|e| e.into_inner());
        let now = Instant::now();
        let finished = total.is_some_and(|total| done >= total);
        if !finished && last.is_some_and(|at| now.duration_since(at) < PROGRESS_INTERVAL) {
            return;
        }
        *last = Some(now);
        figures(Event::TaskProgress {
            task: name.clone(),
            done,
            total,
            unit,
            what,
        });
    };
    let log = Mutex::new(TaskLog {
        path: log,
        task: redactor.text(task),
        file: None,
        broken: false,
    });
    let (lines, name, redactor) = (events.clone(), task.to_owned(), redactor.clone());
    let line = move |text: String| {
        if lines_are == Lines::Hidden {
            return;
        }
        let text = redactor.text(&text);
        if lines_are == Lines::Kept {
            log.lock().unwrap_or_else(|e| e.into_inner()).line(&text);
        }
        lines(Event::TaskOutput {
            task: name.clone(),
            line: text,
        });
    };
    Progress::new(advance, line)
}
