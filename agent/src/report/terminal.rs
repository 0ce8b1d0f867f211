//! A run as a person follows it: a line a task, a bar for what takes longer, a recap.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::fleet::figures;
use super::style::{Ink, Style, View};
use super::units;
use crate::event::{Event, Stats, Status};
use crate::host::progress::Unit;

/// Without a terminal, a long step says how far it is this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// A step shorter than this gets no bar and no progress line.
const LONG: Duration = Duration::from_secs(1);

/// How to show a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Colours and width of the lines on standard output.
    pub view: View,
    /// Standard error is a terminal: show bars there.
    pub bars: bool,
    /// Show what tasks print.
    pub verbose: bool,
}

/// Follows a run.
pub struct Terminal {
    options: Options,
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    bar: Option<ProgressBar>,
    started: Instant,
    last_plain: Instant,
    name: String,
    /// How far the whole run is.
    whole: Whole,
    /// Tasks that took long, and how long.
    long: Vec<(Duration, String)>,
    /// Name of the loop whose skipped items were told last: told once, not item by item.
    skipped: Option<String>,
}

impl Terminal {
    /// Shows on standard output (lines) and standard error (bars).
    #[must_use]
    pub fn new(options: Options) -> Self {
        let now = Instant::now();
        let screen = Screen {
            bar: None,
            started: now,
            last_plain: now,
            name: String::new(),
            whole: Whole::beginning(now),
            long: Vec::new(),
            skipped: None,
        };
        Self {
            options,
            screen: Arc::new(Mutex::new(screen)),
        }
    }

    /// Shows one event.
    pub fn event(&self, event: &Event) {
        let mut screen = self.screen.lock().unwrap_or_else(|e| e.into_inner());
        let view = self.options.view;
        let style = view.style;
        match event {
            Event::RunStarted {
                run: _,
                playbook,
                tasks_total,
                check_mode,
            } => {
                let mode = if *check_mode {
                    " (check mode: nothing is changed)"
                } else {
                    ""
                };
                screen.whole = Whole::beginning(Instant::now());
                screen.line(&format!("{playbook}: {tasks_total} tasks{mode}"));
            }
            Event::PlayStarted { play } => {
                screen.line(&format!(
                    "\n{}",
                    style.paint(Ink::Strong, &format!("PLAY {play}"))
                ));
            }
            Event::TaskStarted {
                name, item, reason, ..
            } => {
                let name = with_item(name, item.as_deref());
                if let Some(reason) = reason {
                    screen.line(&format!(
                        "  {} {name}: {reason}",
                        style.paint(Ink::Calm, "again  ")
                    ));
                }
                screen.begin(name, self.options.bars);
            }
            Event::TaskProgress {
                done,
                total,
                unit,
                what,
                ..
            } => {
                screen.progress(*done, *total, *unit, what.as_deref());
            }
            Event::TaskOutput { line, .. } => {
                if self.options.verbose {
                    screen.line(&style.paint(Ink::Faint, &format!("          | {line}")));
                }
            }
            Event::TaskFinished {
                name,
                item,
                status,
                result,
                summary,
                duration_ms,
                ..
            } => {
                screen.end();
                let name = if *status == Status::Skipped && item.is_some() && !self.options.verbose
                {
                    if screen.skipped.as_deref() == Some(name) {
                        return;
                    }
                    screen.skipped = Some(name.clone());
                    name.clone()
                } else {
                    screen.skipped = None;
                    with_item(name, item.as_deref())
                };
                let took = Duration::from_millis(*duration_ms);
                if took >= LONG {
                    screen.long.push((took, name.clone()));
                }
                let line = task_line(style, *status, &name, summary.as_deref(), took);
                // What went wrong is never cut short.
                if *status == Status::Failed || self.options.verbose {
                    screen.line(&line);
                } else {
                    screen.line(&view.fit(&line));
                }
                if matches!(status, Status::Failed | Status::Ignored)
                    && let Some(help) = result.get("help").and_then(|help| help.as_str())
                {
                    screen.line(&format!("          help: {help}"));
                }
                if *status == Status::Failed
                    && let Some(text) = result.get("stderr").and_then(|text| text.as_str())
                {
                    for line in text.lines().rev().take(10).collect::<Vec<_>>().iter().rev() {
                        screen.line(&format!("          | {line}"));
                    }
                }
            }
            Event::ServiceStarted {
                service,
                container,
                duration_ms,
            } => {
                let took = units::duration(Duration::from_millis(*duration_ms));
                screen.line(&style.paint(
                    Ink::Faint,
                    &format!("  service {service} is ready in container {container} ({took})"),
                ));
            }
            Event::ServiceStopped {
                service,
                left_over,
                duration_ms,
            } => {
                let took = units::duration(Duration::from_millis(*duration_ms));
                let whose = if *left_over {
                    ", left over by an earlier run, was"
                } else {
                    " was"
                };
                screen.line(&style.paint(
                    Ink::Faint,
                    &format!("  service {service}{whose} stopped and removed ({took})"),
                ));
            }
            Event::HandlerNotified { handler } => {
                screen.line(&style.paint(Ink::Faint, &format!("  handler {handler} is due")));
            }
            Event::Warning { message } => {
                screen.line(&format!(
                    "{} {message}",
                    style.paint(Ink::Change, "warning:")
                ));
            }
            Event::RunProgress {
                tasks_done,
                tasks_total,
                percent,
                left_ms,
            } => {
                screen.whole.tasks =
                    Some(format!("{tasks_done} of {tasks_total} tasks, {percent} %"));
                screen.whole.ends =
                    left_ms.map(|left| Instant::now() + Duration::from_millis(left));
            }
            Event::RunFinished {
                outcome,
                stats,
                duration_ms,
            } => {
                screen.end();
                let took = units::duration(Duration::from_millis(*duration_ms));
                screen.line(&recap(style, outcome, stats, &took));
                if let Some(line) = longest(&mut screen.long) {
                    screen.line(&view.fit(&style.paint(Ink::Faint, &line)));
                }
            }
        }
    }

    /// Lets a question be asked without a bar in its way.
    pub fn suspend<T>(&self, ask: impl FnOnce() -> T) -> T {
        let bar = {
            let screen = self.screen.lock().unwrap_or_else(|e| e.into_inner());
            screen.bar.clone()
        };
        match bar {
            Some(bar) => bar.suspend(ask),
            None => ask(),
        }
    }
}

impl Screen {
    fn line(&self, text: &str) {
        let write = || {
            // A reader that went away does not stop the run.
            let _ = writeln!(std::io::stdout(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn begin(&mut self, name: String, bars: bool) {
        self.started = Instant::now();
        self.last_plain = self.started;
        if bars {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(self.style_of("  {spinner} {wide_msg} {elapsed}\n    {whole}"));
            bar.set_message(name.clone());
            bar.enable_steady_tick(Duration::from_millis(150));
            self.bar = Some(bar);
        }
        self.name = name;
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, done: u64, total: Option<u64>, unit: Unit, what: Option<&str>) {
        if let Some(bar) = &self.bar {
            if self.started.elapsed() < LONG && total.is_none() {
                return;
            }
            let all_there = total.is_some_and(|total| done >= total);
            let figures = match (unit, total) {
                // The last byte is rarely the end: indexes are built, files are synced.
                (Unit::Bytes, Some(_)) if all_there => "{bytes}, finishing",
                (Unit::Items, Some(_)) if done == 0 => "{pos}/{len}",
                (Unit::Bytes, Some(_)) => {
                    "[{bar:24}] {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left"
                }
                (Unit::Bytes, None) => "{bytes}, {binary_bytes_per_sec}",
                (Unit::Items, Some(_)) => "[{bar:24}] {pos}/{len}, {eta} left",
                (Unit::Items, None) => "{pos}",
            };
            bar.set_style(self.style_of(&format!(
                "  {{spinner}} {{wide_msg}} {{elapsed}}\n    {figures}\n    {{whole}}"
            )));
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
            match what {
                Some(what) => bar.set_message(format!("{}: {what}", self.name)),
                None => bar.set_message(self.name.clone()),
            }
            return;
        }
        if self.started.elapsed() < LONG || self.last_plain.elapsed() < PLAIN_INTERVAL {
            return;
        }
        self.last_plain = Instant::now();
        let mut text = plain_progress(&self.name, done, total, unit, self.started.elapsed());
        if let Some(what) = what {
            text.push_str(&format!("; {what}"));
        }
        text.push_str(&format!("; {}", self.whole.now()));
        self.line(&text);
    }

    /// A bar's style; `{whole}` is how far the run is, at the moment of drawing.
    fn style_of(&self, template: &str) -> ProgressStyle {
        let whole = self.whole.clone();
        let draw = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be drawn is no reason to stop.
            let _ = out.write_str(&whole.now());
        };
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ")
            .with_key("whole", draw)
    }
}

/// How far the whole run is.
#[derive(Clone)]
struct Whole {
    started: Instant,
    tasks: Option<String>,
    /// When it will be over, roughly.
    ends: Option<Instant>,
}

impl Whole {
    fn beginning(now: Instant) -> Self {
        Self {
            started: now,
            tasks: None,
            ends: None,
        }
    }

    fn now(&self) -> String {
        let whole_seconds = |time: Duration| match time.as_secs() {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds => units::duration(Duration::from_secs(seconds)),
        };
        let mut text = format!("run: {}", whole_seconds(self.started.elapsed()));
        if let Some(tasks) = &self.tasks {
            text.push_str(&format!(", {tasks}"));
        }
        let left = self
            .ends
            .map(|ends| ends.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| *left >= LONG) {
            text.push_str(&format!(", about {} left", whole_seconds(left)));
        }
        text
    }
}

/// The tasks that took longest, where there were several long ones.
fn longest(long: &mut [(Duration, String)]) -> Option<String> {
    if long.len() < 2 {
        return None;
    }
    long.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
    let named: Vec<String> = long
        .iter()
        .take(3)
        .map(|(took, name)| format!("{name} {}", units::duration(*took)))
        .collect();
    Some(format!("Longest: {}", named.join("; ")))
}

fn plain_progress(
    name: &str,
    done: u64,
    total: Option<u64>,
    unit: Unit,
    since: Duration,
) -> String {
    let show = |count: u64| match unit {
        Unit::Bytes => units::bytes(count),
        Unit::Items => count.to_string(),
    };
    let rate = rate(done, unit, since);
    let mut text = format!("  ... {name}: {}", show(done));
    if let Some(total) = total.filter(|total| *total > 0) {
        let percent = u128::from(done) * 100 / u128::from(total);
        text.push_str(&format!(" of {} ({percent} %)", show(total)));
        text.push_str(&rate);
        if done > 0 && done < total {
            let left = since.as_secs_f64() * ((total - done) as f64 / done as f64);
            if let Ok(left) = Duration::try_from_secs_f64(left) {
                text.push_str(&format!(", about {} left", units::duration(left)));
            }
        }
    } else {
        text.push_str(&rate);
    }
    text
}

fn rate(done: u64, unit: Unit, since: Duration) -> String {
    let seconds = since.as_secs_f64();
    if unit != Unit::Bytes || seconds < 1.0 {
        return String::new();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "only for display"
    )]
    let rate = (done as f64 / seconds) as u64;
    format!(", {}/s", units::bytes(rate))
}

pub(super) fn with_item(name: &str, item: Option<&str>) -> String {
    match item {
        Some(item) => format!("{name} [{item}]"),
        None => name.to_owned(),
    }
}

pub(super) fn task_line(
    style: Style,
    status: Status,
    name: &str,
    summary: Option<&str>,
    took: Duration,
) -> String {
    let (word, ink) = match status {
        Status::Ok => ("ok", Ink::Good),
        Status::Changed => ("changed", Ink::Change),
        Status::Skipped => ("skipped", Ink::Faint),
        Status::Done => ("done", Ink::Calm),
        Status::Failed => ("failed", Ink::Bad),
        Status::Ignored => ("ignored", Ink::Calm),
        Status::Rescued => ("rescued", Ink::Calm),
        Status::Undone => ("undone", Ink::Change),
    };
    let mut line = format!("  {} {name}", style.paint(ink, &format!("{word:<7}")));
    if let Some(summary) = summary {
        line.push_str(": ");
        line.push_str(summary);
    }
    if took >= Duration::from_millis(100) {
        line.push_str(&style.paint(Ink::Faint, &format!(" ({})", units::duration(took))));
    }
    line
}

fn recap(style: Style, outcome: &str, stats: &Stats, took: &str) -> String {
    let (headline, ink) = match outcome {
        "done" => ("DONE", Ink::Good),
        "interrupted" => ("INTERRUPTED", Ink::Change),
        "decision_needed" => ("A DECISION IS NEEDED", Ink::Bad),
        _ => ("FAILED", Ink::Bad),
    };
    format!(
        "\n{} in {took}: {}",
        style.paint(ink, headline),
        figures(stats)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_line_says_how_it_ended_and_what_it_found() {
        let plain = Style { colour: false };
        let line = task_line(
            plain,
            Status::Changed,
            "Dump",
            Some("134.2 MiB"),
            Duration::from_millis(2100),
        );
        assert_eq!(line, "  changed Dump: 134.2 MiB (2.1 s)");
    }

    #[test]
    fn plain_progress_says_how_long_it_still_takes() {
        let ten = Duration::from_secs(10);
        let line = plain_progress("Dump", 50, Some(200), Unit::Items, ten);
        assert_eq!(line, "  ... Dump: 50 of 200 (25 %), about 30.0 s left");
        let line = plain_progress("Dump", 10 << 20, Some(40 << 20), Unit::Bytes, ten);
        assert_eq!(
            line,
            "  ... Dump: 10.0 MiB of 40.0 MiB (25 %), 1.0 MiB/s, about 30.0 s left"
        );
    }

    #[test]
    fn the_whole_run_says_how_long_it_will_still_take_once_that_can_be_told() {
        let mut whole = Whole::beginning(Instant::now());
        assert_eq!(whole.now(), "run: 0 s");
        whole.tasks = Some("3 of 9 tasks, 40 %".into());
        whole.ends = Some(Instant::now() + Duration::from_secs(90));
        let text = whole.now();
        assert!(
            text.ends_with("3 of 9 tasks, 40 %, about 1 min 29 s left"),
            "{text}"
        );
    }

    #[test]
    fn the_longest_tasks_are_named_last() {
        let second = Duration::from_secs(1);
        let mut long = vec![(second, "a".to_owned()), (3 * second, "b".to_owned())];
        assert_eq!(
            longest(&mut long).as_deref(),
            Some("Longest: b 3.0 s; a 1.0 s")
        );
        assert_eq!(longest(&mut long[..1]), None);
    }
}
