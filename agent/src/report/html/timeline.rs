//! The timeline: when which task ran, as figures for an SVG picture. Positions are per cent of its
//! width, so that it fits a telephone and a wall; the time between runs is left out.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Names, Source, class};
use crate::host::time::millis;
use crate::report::attempts::{self, Attempt, Task};
use crate::report::units;

/// Per cent between two runs.
const GAP: f64 = 1.5;
/// A task gets a row of its own if it takes this part of the whole, or did not end well.
const OWN_ROW: f64 = 0.015;
/// Narrower than this a bar cannot be seen.
const MIN_WIDTH: f64 = 0.35;
/// Pixels from row to row; the page's style sheet has the same number, and the next.
const ROW: usize = 34;
/// Pixels above the first row.
const TOP: usize = 28;

#[derive(Serialize)]
pub(super) struct Timeline {
    height: usize,
    text: String,
    desc: String,
    bands: Vec<Band>,
    rows: Vec<Row>,
    legend: Vec<Legend>,
}

#[derive(Serialize)]
struct Band {
    x: String,
    width: String,
    label: String,
}

#[derive(Serialize)]
struct Row {
    bar_y: usize,
    label: String,
    took: String,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    x: String,
    width: String,
    class: &'static str,
    title: String,
}

#[derive(Serialize)]
struct Legend {
    class: &'static str,
    word: &'static str,
}

/// A run's part of the axis.
struct Part<'a> {
    run: &'a str,
    from: Timestamp,
    to: Timestamp,
    /// Per cent where it begins.
    x: f64,
    width: f64,
}

fn per_cent(value: f64) -> String {
    format!("{value:.3}")
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn parts<'a>(source: &'a Source<'_>) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = source
        .history
        .runs
        .iter()
        .map(|run| {
            let last = source
                .contents
                .records
                .iter()
                .rev()
                .find(|record| record.run == run.id)
                .map_or(run.started, |record| record.time);
            Part {
                run: &run.id,
                from: run.started,
                to: last,
                x: 0.0,
                width: 0.0,
            }
        })
        .collect();
    if let (Some(_), Some(last)) = (source.running, parts.last_mut()) {
        last.to = last.to.max(source.now);
    }
    let total: f64 = parts
        .iter()
        .map(|part| between(part.from, part.to).as_secs_f64())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "only for display")]
    let gaps = GAP * parts.len().saturating_sub(1) as f64;
    let mut x = 0.0;
    for part in &mut parts {
        part.x = x;
        let share = if total > 0.0 {
            between(part.from, part.to).as_secs_f64() / total
        } else {
            1.0
        };
        part.width = share * (100.0 - gaps).max(10.0);
        x += part.width + GAP;
    }
    parts
}

impl Part<'_> {
    fn at(&self, time: Timestamp) -> f64 {
        let whole = between(self.from, self.to).as_secs_f64();
        let passed = between(self.from, time).as_secs_f64();
        let share = if whole > 0.0 {
            (passed / whole).min(1.0)
        } else {
            0.0
        };
        self.x + share * self.width
    }
}

pub(super) fn collect(
    source: &Source<'_>,
    all: &[Task<'_>],
    names: &Names<'_>,
) -> Option<Timeline> {
    let parts = parts(source);
    let whole: Duration = parts.iter().map(|part| between(part.from, part.to)).sum();
    if parts.is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    let mut short: Vec<Bar> = Vec::new();
    let (mut short_tasks, mut short_time) = (0, Duration::ZERO);
    for task in all {
        let name = names.name(task.identity);
        let bars: Vec<(Bar, Duration, bool)> = task
            .attempts
            .iter()
            .filter_map(|attempt| bar(&name, attempt, &parts))
            .collect();
        let took: Duration = bars.iter().map(|(_, took, _)| *took).sum();
        let well = bars.iter().all(|(_, _, well)| *well);
        if well && took.as_secs_f64() < whole.as_secs_f64() * OWN_ROW {
            short_tasks += usize::from(!bars.is_empty());
            short_time += took;
            short.extend(bars.into_iter().map(|(bar, _, _)| bar));
            continue;
        }
        rows.push((
            name,
            took,
            bars.into_iter().map(|(bar, _, _)| bar).collect(),
        ));
    }
    if short_tasks > 0 {
        rows.push((format!("{short_tasks} shorter tasks"), short_time, short));
    }
    let longest = rows
        .iter()
        .max_by_key(|(_, took, _)| *took)
        .map_or_else(String::new, |(name, took, _)| {
            format!(" The longest was “{name}”, {}.", units::duration(*took))
        });
    let text = format!(
        "{} in {}.{longest}",
        units::duration(whole),
        match parts.len() {
            1 => "one run".to_owned(),
            number => format!("{number} runs; the time between them is left out"),
        }
    );
    Some(Timeline {
        height: TOP + rows.len() * ROW + 4,
        desc: text.clone(),
        text,
        bands: bands(&parts),
        rows: rows
            .into_iter()
            .enumerate()
            .map(|(index, (label, took, bars))| Row {
                bar_y: TOP + index * ROW + 17,
                label,
                took: units::duration(took),
                bars,
            })
            .collect(),
        legend: [
            ("good", "looked, nothing to change"),
            ("change", "changed"),
            ("bad", "failed or cut off"),
        ]
        .map(|(class, word)| Legend { class, word })
        .into(),
    })
}

/// Bands with their labels, as many labels as there is room for.
fn bands(parts: &[Part<'_>]) -> Vec<Band> {
    parts
        .iter()
        .enumerate()
        .map(|(index, part)| Band {
            x: per_cent(part.x),
            width: per_cent(part.width.max(MIN_WIDTH)),
            label: if part.width >= 15.0 {
                format!("Run {}", index + 1)
            } else {
                String::new()
            },
        })
        .collect()
}

fn bar(name: &str, attempt: &Attempt<'_>, parts: &[Part<'_>]) -> Option<(Bar, Duration, bool)> {
    let started = attempt.started?;
    let part = parts.iter().find(|part| part.run == attempt.run)?;
    // What recovered an attempt did so in a later run: the attempt itself ended with its own.
    let end = attempt.end.as_ref().filter(|end| end.time <= part.to);
    let (to, class, word, well) = match end {
        Some(end) => {
            let well = end.status != crate::state::TaskStatus::Failed;
            (
                end.time,
                class(end.status),
                attempts::word(end.status),
                well,
            )
        }
        None => (part.to, "bad", "cut off", false),
    };
    let took = between(started, to);
    let x = part.at(started);
    let width = (part.at(to) - x).max(MIN_WIDTH);
    let took_text = units::duration(Duration::from_millis(millis(took)));
    Some((
        Bar {
            x: per_cent(x.min(100.0 - MIN_WIDTH)),
            width: per_cent(width),
            class,
            title: format!("{name}: {word}, {took_text}"),
        },
        took,
        well,
    ))
}
