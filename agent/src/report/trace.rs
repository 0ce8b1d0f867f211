//! Events for `tracing`: the log file, the journal of systemd, and standard error with `-vv`.

use tracing::{debug, error, info, trace, warn};

use crate::event::{Event, Status};

/// What a run does. Standard error leaves it out unless asked: the terminal tells it already.
pub const RUN: &str = "kaapana_agent::run";

/// Tells one event.
pub fn event(event: &Event) {
    match event {
        Event::RunStarted {
            run,
            playbook,
            tasks_total,
            check_mode,
        } => info!(target: RUN, %run, %playbook, tasks_total, check_mode, "run started"),
        Event::PlayStarted { play } => debug!(target: RUN, %play, "play started"),
        Event::TaskStarted { task, reason, .. } => {
            info!(target: RUN, %task, reason = reason.as_deref(), "task started");
        }
        Event::TaskProgress {
            task, done, total, ..
        } => trace!(target: RUN, %task, done, total, "task progress"),
        Event::TaskOutput { task, line } => debug!(target: RUN, %task, "{line}"),
        Event::TaskFinished {
            task,
            status,
            summary,
            duration_ms,
            ..
        } => {
            let summary = summary.as_deref().unwrap_or_default();
            match status {
                Status::Failed => error!(target: RUN, %task, duration_ms, "task failed: {summary}"),
                Status::Done | Status::Skipped => debug!(target: RUN, %task, ?status, "{summary}"),
                _ => info!(target: RUN, %task, ?status, duration_ms, "task finished: {summary}"),
            }
        }
        Event::ServiceStarted {
            service,
            container,
            duration_ms,
        } => info!(target: RUN, %service, %container, duration_ms, "service ready"),
        Event::ServiceStopped {
            service,
            left_over,
            duration_ms,
        } => info!(target: RUN, %service, left_over, duration_ms, "service stopped"),
        Event::HandlerNotified { handler } => debug!(target: RUN, %handler, "handler notified"),
        Event::Warning { message } => warn!(target: RUN, "{message}"),
        Event::RunProgress {
            percent, left_ms, ..
        } => debug!(target: RUN, percent, left_ms, "run progress"),
        Event::RunFinished {
            outcome,
            duration_ms,
            ..
        } => info!(target: RUN, %outcome, duration_ms, "run finished"),
    }
}
