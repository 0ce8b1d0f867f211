//! Prints what is wrong, once, with its place, its causes and what to do next.

use std::fmt::Write as _;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::style::{Ink, Style};
use crate::source::Problem;

/// Renders problems of a playbook, each with the marked line.
#[must_use]
pub fn problems(problems: &[Problem], style: Style, width: usize) -> String {
    let theme = if style.colour {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_context_lines(1);
    let mut text = String::new();
    for problem in problems {
        if handler.render_report(&mut text, problem).is_err() {
            let _ = writeln!(text, "{}: {}", problem.at, problem.message);
        }
        text.push('\n');
    }
    text
}

/// Renders an error that has no place in a text file.
#[must_use]
pub fn error(code: &str, message: &str, help: Option<&str>, style: Style) -> String {
    let mut text = format!("{} {message}", style.paint(Ink::Bad, "error:"));
    let _ = write!(text, " {}", style.paint(Ink::Faint, &format!("[{code}]")));
    if let Some(help) = help {
        let _ = write!(text, "\n  help: {help}");
    }
    text
}
