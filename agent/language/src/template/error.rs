//! The template engine's errors as problems: from kinds, names and places, never from values.

use std::error::Error as _;
use std::ops::Range;

use minijinja::{Error, ErrorKind};

use super::context::Context;
use super::filters::FILTERS;
use super::predicates::TESTS;
use crate::source::{Location, Problem, closest};

/// Code of the problem "a variable is undefined".
pub(crate) const UNDEFINED: &str = "playbook::undefined";
const TEMPLATE: &str = "playbook::template";
const SYNTAX: &str = "playbook::template_syntax";

/// A message of our own filters, known to hold no values.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(String);

/// Makes an error whose message may be shown.
pub(super) fn say(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, "a filter failed").with_source(Said(message.into()))
}

/// What was cut from a value was needed.
pub(super) fn secrets_cut(at: &Location) -> Problem {
    Problem::new(
        "playbook::secrets_cut",
        at,
        "it uses a result that the journal holds without its secrets",
        "needs them",
    )
    .with_help(
        "give the value by a variable (`-e @FILE`), or have the task that returns it run again: `run \
         --redo TASK`",
    )
}

/// Makes a problem of an engine's error; `place` turns a range of the compiled source into a place.
pub(super) fn from_engine(
    failure: &Error,
    context: &Context,
    place: impl Fn(Range<usize>) -> Location,
) -> Problem {
    if let Some(problem) = source_of::<Problem>(failure) {
        return problem.clone();
    }
    let at = place(failure.range().unwrap_or(0..usize::MAX / 2));
    if failure.kind() == ErrorKind::UndefinedError {
        return undefined(failure, context, &at);
    }
    without_context(failure, &at)
}

/// Makes a problem of an error that has nothing to do with variables: syntax, unknown names.
pub(super) fn without_context(failure: &Error, at: &Location) -> Problem {
    let detail = failure.detail().unwrap_or_default();
    let named = |kind: &str, prefix: &str, known: &[&str]| {
        let name = detail
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(" is unknown"));
        let message = name.map_or_else(
            || format!("this template uses an unknown {kind}"),
            |name| format!("there is no {kind} `{name}`"),
        );
        let near = name.and_then(|name| closest(name, known.iter().copied()));
        Problem::new(TEMPLATE, at, message, format!("unknown {kind}"))
            .with_optional_help(near.map(|near| format!("did you mean `{near}`?")))
    };
    match failure.kind() {
        ErrorKind::SyntaxError => Problem::new(
            SYNTAX,
            at,
            format!("the template is not valid: {detail}"),
            "here",
        )
        .with_optional_help(
            detail
                .contains("expected expression")
                .then(|| "an expression is missing, or braces stand inside an expression".into()),
        ),
        ErrorKind::UnknownFilter => named("filter", "filter ", FILTERS),
        ErrorKind::UnknownTest => named("test", "test ", TESTS),
        ErrorKind::UnknownFunction => named(
            "function",
            "",
            &["range", "dict", "namespace", "lookup", "query"],
        ),
        ErrorKind::UnknownMethod => Problem::new(
            TEMPLATE,
            at,
            if detail.is_empty() {
                "there is no such method".to_owned()
            } else {
                detail.to_owned()
            },
            "unknown method",
        ),
        ErrorKind::TooManyArguments => {
            Problem::new(TEMPLATE, at, "too many arguments are given", "here")
        }
        ErrorKind::MissingArgument => Problem::new(TEMPLATE, at, "an argument is missing", "here"),
        ErrorKind::TemplateNotFound | ErrorKind::BadInclude => Problem::new(
            TEMPLATE,
            at,
            "including other templates is not supported here",
            "here",
        ),
        ErrorKind::OutOfFuel => Problem::new(
            TEMPLATE,
            at,
            "the template takes too many steps: are there large loops within loops?",
            "given up here",
        ),
        _ => {
            let said = source_of::<Said>(failure)
                .map(ToString::to_string)
                .or_else(|| harmless(detail))
                .unwrap_or_else(|| "the operation does not fit its values".to_owned());
            Problem::new(TEMPLATE, at, said, "fails here")
        }
    }
}

/// The engine's messages that name kinds of values only; others may quote a value and are not shown.
fn harmless(detail: &str) -> Option<String> {
    let known = [
        "cannot calculate length of value of type ",
        "cannot convert ",
        "cannot join value of type ",
        "can only sum numbers",
        "tried to use ",
        "value of type ",
        "cannot unpack",
    ];
    let fits =
        known.iter().any(|start| detail.starts_with(start)) || detail.ends_with(" is not iterable");
    fits.then(|| detail.to_owned())
}

fn source_of<T: std::error::Error + 'static>(failure: &Error) -> Option<&T> {
    let mut source = failure.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn undefined(failure: &Error, context: &Context, at: &Location) -> Problem {
    let path = failure
        .detail()
        .and_then(|detail| detail.strip_prefix('`'))
        .and_then(|detail| detail.strip_suffix("` is undefined"));
    let Some(path) = path else {
        return context
            .session
            .take_any()
            .unwrap_or_else(|| undefined_inside(at));
    };
    let root = path.split(['.', '[', '(']).next().unwrap_or(path);
    if let Some(problem) = context.session.failure_of(root) {
        return problem;
    }
    let names = context.scope.names();
    let near = (root == path)
        .then(|| closest(root, names.iter().map(String::as_str)))
        .flatten();
    undefined_name(path, at, near)
}

/// A name that nothing defines.
pub(crate) fn undefined_name(path: &str, at: &Location, near: Option<&str>) -> Problem {
    Problem::new(
        UNDEFINED,
        at,
        format!("`{path}` is undefined"),
        "not defined",
    )
    .with_optional_help(near.map(|near| format!("did you mean `{near}`?")))
}

pub(super) fn undefined_inside(at: &Location) -> Problem {
    Problem::new(
        UNDEFINED,
        at,
        "something in this value is undefined",
        "not defined",
    )
}

pub(super) fn cycle(at: &Location, chain: &[String]) -> Problem {
    let shown = if chain.len() > 12 {
        let (first, last) = (&chain[..6], &chain[chain.len() - 3..]);
        format!("{} -> … -> {}", first.join(" -> "), last.join(" -> "))
    } else {
        chain.join(" -> ")
    };
    let message = if chain.first() == chain.last() {
        format!("the variables lead back to themselves: {shown}")
    } else {
        format!("the variables lead on too far: {shown}")
    };
    Problem::new(
        "playbook::variable_cycle",
        at,
        message,
        "part of the circle",
    )
}

pub(super) fn not_a_condition(at: &Location, found: &str) -> Problem {
    Problem::new(
        "playbook::condition",
        at,
        format!("a condition must give true or false, and this gives {found}"),
        format!("gives {found}"),
    )
    .with_help("compare it (`x | length > 0`, `x is not none`) or convert it (`x | bool`)")
}

pub(super) fn not_a_key(at: &Location, found: &str) -> Problem {
    Problem::new(
        TEMPLATE,
        at,
        format!("a key must be a text, and this gives {found}"),
        format!("gives {found}"),
    )
}

pub(super) fn not_a_value(at: &Location, reason: &str) -> Problem {
    Problem::new(
        TEMPLATE,
        at,
        format!("this gives nothing that can be kept: {reason}"),
        "here",
    )
}

pub(super) fn omit_in_text(at: &Location) -> Problem {
    Problem::new(
        TEMPLATE,
        at,
        "`omit` stands inside a text",
        "only a part of the value would be left out",
    )
    .with_help("make the whole value one expression: \"{{ … | default(omit) }}\"")
}
