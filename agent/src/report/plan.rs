//! A plan as text.

use std::fmt::Write as _;

use super::style::{Ink, Style};
use crate::engine::{Plan, PlanAction, PlanEntry};

/// Renders a plan, one line a task.
#[must_use]
pub fn text(plan: &Plan, style: Style) -> String {
    let mut out = String::new();
    for entry in &plan.entries {
        let (word, ink) = (entry.action.word(), ink(entry.action));
        let _ = writeln!(
            out,
            "{} {}  {}",
            style.paint(ink, &format!("{word:<7}")),
            entry.task,
            style.paint(Ink::Faint, &format!("({})", entry.why)),
        );
        for detail in &entry.details {
            let _ = writeln!(out, "          {detail}");
        }
    }
    for orphan in &plan.orphans {
        let _ = writeln!(
            out,
            "{} {orphan}  {}",
            style.paint(Ink::Faint, "orphan "),
            style.paint(Ink::Faint, "(done earlier, no longer in the playbook)"),
        );
    }
    let count = |wanted| {
        plan.entries
            .iter()
            .filter(|entry| entry.action == wanted)
            .count()
    };
    let _ = writeln!(
        out,
        "\n{} to run, {} to look at after an interruption, {} known later, {} done, {} skipped, {} to decide",
        count(PlanAction::Run),
        count(PlanAction::Recover),
        count(PlanAction::Later),
        count(PlanAction::Done),
        count(PlanAction::Skip),
        count(PlanAction::Decide),
    );
    out
}

pub(super) fn ink(action: PlanAction) -> Ink {
    match action {
        PlanAction::Done => Ink::Calm,
        PlanAction::Run | PlanAction::Recover => Ink::Change,
        PlanAction::Skip | PlanAction::Later => Ink::Faint,
        PlanAction::Decide => Ink::Bad,
    }
}

/// Renders what an operator has to decide.
#[must_use]
pub fn decisions(entries: &[PlanEntry], style: Style) -> String {
    let mut out = String::new();
    for entry in entries {
        let _ = writeln!(
            out,
            "{} {}\n  {}",
            style.paint(Ink::Bad, "your decision is needed:"),
            entry.task,
            entry.why
        );
        for detail in &entry.details {
            let _ = writeln!(out, "  - {detail}");
        }
    }
    out
}
