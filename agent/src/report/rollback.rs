//! A rollback's plan as text.

use std::fmt::Write as _;

use super::style::{Ink, Style};
use crate::engine::{RollbackPlan, UndoAction, UndoEntry};

/// Renders a plan, one line a task, newest first, its steps below it.
#[must_use]
pub fn text(plan: &RollbackPlan, playbook: &str, style: Style) -> String {
    let mut out = String::new();
    for entry in &plan.entries {
        let (word, ink) = word(entry.action);
        let _ = writeln!(
            out,
            "{} {}  {}",
            style.paint(ink, &format!("{word:<8}")),
            entry.task,
            style.paint(Ink::Faint, &format!("({})", entry.why)),
        );
        for detail in &entry.details {
            let _ = writeln!(out, "           {}", detail.replace("PLAYBOOK", playbook));
        }
    }
    let count = |wanted: &[UndoAction]| {
        plan.entries
            .iter()
            .filter(|entry| wanted.contains(&entry.action))
            .count()
    };
    let _ = writeln!(
        out,
        "\n{} to undo, {} that go with them, {} with nothing to undo, {} that cannot be undone",
        count(&[UndoAction::Undo, UndoAction::Finish]),
        count(&[UndoAction::With]),
        count(&[UndoAction::Nothing, UndoAction::Accept]),
        count(&[UndoAction::Refuse]),
    );
    out
}

fn word(action: UndoAction) -> (&'static str, Ink) {
    match action {
        UndoAction::Undo => ("undo", Ink::Change),
        UndoAction::Finish => ("finish", Ink::Change),
        UndoAction::With => ("with", Ink::Calm),
        UndoAction::Nothing => ("nothing", Ink::Faint),
        UndoAction::Accept => ("accepted", Ink::Calm),
        UndoAction::Refuse => ("refuse", Ink::Bad),
    }
}

/// Renders what stands in the way of a rollback.
#[must_use]
pub fn refusals(entries: &[UndoEntry], playbook: &str, style: Style) -> String {
    let mut out = String::new();
    for entry in entries {
        let _ = writeln!(
            out,
            "{} {}\n  {}",
            style.paint(Ink::Bad, "this cannot be undone:"),
            entry.task,
            entry.why
        );
        for detail in &entry.details {
            let _ = writeln!(out, "  - {}", detail.replace("PLAYBOOK", playbook));
        }
    }
    let _ = writeln!(out, "Nothing was undone.");
    out
}
