//! Runs on several hosts in one view: each line begins with its host; on a terminal, a line at the bottom
//! tells for every host what it is at.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::style::{Ink, View};
use super::terminal::{Options, task_line, with_item};
use super::units;
use crate::event::{Event, Stats, Status};
use crate::host::progress::Unit;

/// Shows several hosts.
pub struct Fleet {
    options: Options,
    width: usize,
    bars: Option<MultiProgress>,
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Default)]
struct Host {
    bar: Option<ProgressBar>,
    percent: u64,
    task: String,
}

impl Fleet {
    /// Shows these hosts: lines on standard output, bars on standard error.
    #[must_use]
    pub fn new(options: Options, hosts: &[String]) -> Self {
        let bars = options
            .bars
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self {
            options,
            width: hosts
                .iter()
                .map(|host| host.chars().count())
                .max()
                .unwrap_or(0),
            bars,
            hosts: Mutex::new(HashMap::new()),
        }
    }

    fn view(&self) -> View {
        self.options.view
    }

    fn line(&self, host: &str, text: &str) {
        let style = self.view().style;
        let head = style.paint(Ink::Strong, &format!("{host:<width$}", width = self.width));
        let write = || {
            for line in text.lines() {
                // A reader that went away does not stop anything.
                let _ = writeln!(std::io::stdout(), "{head} {line}");
            }
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Something a reader should know about a host.
    pub fn note(&self, host: &str, ink: Ink, text: &str) {
        let style = self.view().style;
        self.line(host, &format!("  {}", style.paint(ink, text)));
    }

    /// What a host is at, on a terminal.
    pub fn at(&self, host: &str, what: &str) {
        let Some(bars) = &self.bars else { return };
        let mut hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner());
        let known = hosts.entry(host.to_owned()).or_default();
        let bar = known.bar.get_or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            let form = format!(
                "{{spinner}} {{prefix:<{}}} {{wide_msg}} {{elapsed}}",
                self.width
            );
            if let Ok(form) = ProgressStyle::with_template(&form) {
                bar.set_style(form);
            }
            bar.set_prefix(host.to_owned());
            bar.enable_steady_tick(Duration::from_millis(150));
            bar
        });
        bar.set_message(match known.percent {
            0 => what.to_owned(),
            percent => format!("{percent} % {what}"),
        });
    }

    /// A host needs no line at the bottom any more.
    pub fn leave(&self, host: &str) {
        let mut hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(bar) = hosts.remove(host).and_then(|host| host.bar) {
            bar.finish_and_clear();
        }
    }

    /// Shows one event of a host's run.
    pub fn event(&self, host: &str, event: &Event) {
        let view = self.view();
        match event {
            Event::TaskStarted {
                name, item, reason, ..
            } => {
                let name = with_item(name, item.as_deref());
                if let Some(reason) = reason {
                    self.note(host, Ink::Calm, &format!("again   {name}: {reason}"));
                }
                self.remember(host, |host| host.task.clone_from(&name));
                self.at(host, &name);
            }
            Event::TaskProgress {
                done, total, unit, ..
            } => {
                let figure = |value: u64| match unit {
                    Unit::Bytes => units::bytes(value),
                    Unit::Items => value.to_string(),
                };
                let of = total.map_or_else(String::new, |total| format!(" of {}", figure(total)));
                let task = self.remember(host, |host| host.task.clone());
                self.at(host, &format!("{task}: {}{of}", figure(*done)));
            }
            Event::TaskOutput { line, .. } if self.options.verbose => {
                self.note(host, Ink::Faint, &format!("        | {line}"));
            }
            // What the journal lets a run pass over is in the recap.
            Event::TaskFinished {
                status: Status::Done | Status::Skipped,
                ..
            } if !self.options.verbose => {}
            Event::TaskFinished {
                name,
                item,
                status,
                result,
                summary,
                duration_ms,
                ..
            } => {
                let name = with_item(name, item.as_deref());
                let took = Duration::from_millis(*duration_ms);
                let line = task_line(view.style, *status, &name, summary.as_deref(), took);
                self.line(host, &line);
                if *status == Status::Failed
                    && let Some(stderr) = result["stderr"].as_str()
                {
                    for line in stderr
                        .lines()
                        .rev()
                        .take(5)
                        .collect::<Vec<_>>()
                        .iter()
                        .rev()
                    {
                        self.note(host, Ink::Faint, &format!("        | {line}"));
                    }
                }
            }
            Event::Warning { message } => {
                self.note(host, Ink::Change, &format!("warning: {message}"));
            }
            Event::RunProgress { percent, .. } => {
                self.remember(host, |host| host.percent = *percent);
            }
            _ => {}
        }
    }

    fn remember<T>(&self, host: &str, change: impl FnOnce(&mut Host) -> T) -> T {
        let mut hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner());
        change(hosts.entry(host.to_owned()).or_default())
    }

    /// The last lines: one a host, as Ansible's recap.
    pub fn recap(&self, hosts: &[(String, Ink, String)]) {
        let style = self.view().style;
        println!("\n{}", style.paint(Ink::Strong, "RECAP"));
        for (host, ink, text) in hosts {
            self.line(host, &format!(": {}", style.paint(*ink, text)));
        }
    }
}

/// A recap's figures.
#[must_use]
pub fn figures(stats: &Stats) -> String {
    format!(
        "ok={} changed={} done={} skipped={} failed={} rescued={} ignored={}",
        stats.ok,
        stats.changed,
        stats.done,
        stats.skipped,
        stats.failed,
        stats.rescued,
        stats.ignored
    )
}
