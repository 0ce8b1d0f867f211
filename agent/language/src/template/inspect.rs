//! Looks into a template without rendering it: is it valid, and which names does it need?

use std::sync::LazyLock;

use regex::Regex;

use super::text::{Prepared, prepare, prepare_expression};
use super::{Templates, error, locate};
use crate::source::{Location, Problem};

/// A name that a template needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Needed {
    /// The variable.
    pub name: String,
    /// Where it stands.
    pub at: Location,
    /// Whether the template itself asks for it with `default` or `is defined`.
    pub guarded: bool,
}

/// What was found in a template.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// Names needed from outside.
    pub needed: Vec<Needed>,
    /// Mistakes.
    pub problems: Vec<Problem>,
}

impl Templates {
    /// Inspects a text that may hold templates.
    pub(crate) fn inspect_text(&self, content: &str, at: &Location) -> Inspected {
        if !super::is_template(content) {
            return Inspected::default();
        }
        self.inspect(&prepare(content), content, at)
    }

    /// Inspects a bare expression.
    pub(crate) fn inspect_expression(&self, content: &str, at: &Location) -> Inspected {
        self.inspect(&prepare_expression(content), content, at)
    }

    fn inspect(&self, prepared: &Prepared, content: &str, at: &Location) -> Inspected {
        let source = prepared.source.as_str();
        let names = if prepared.is_expression {
            self.playbook
                .compile_expression(source)
                .map(|expression| expression.undeclared_variables(false))
        } else {
            self.playbook
                .template_from_str(source)
                .map(|template| template.undeclared_variables(false))
        };
        let place = |start: usize, end: usize| {
            let start = prepared.original(start);
            locate(at, content, start..prepared.original(end))
        };
        let mut names: Vec<String> = match names {
            Ok(names) => names.into_iter().collect(),
            Err(failure) => {
                let range = failure.range().unwrap_or(0..source.len());
                let at = place(range.start, range.end);
                return Inspected {
                    needed: Vec::new(),
                    problems: vec![error::without_context(&failure, &at)],
                };
            }
        };
        names.sort();
        let mut found = Inspected::default();
        for name in names {
            // Functions of the engine and of this file's tests are names, too.
            if self.playbook.globals().any(|(global, _)| global == name) {
                continue;
            }
            let uses = uses_of(&name, source);
            let (start, end) = uses.first().copied().unwrap_or((0, source.len()));
            let guarded = uses.iter().any(|(_, end)| is_guarded(&source[*end..]));
            if is_call(&source[end..]) {
                found.problems.push(error::without_context(
                    &minijinja::Error::new(
                        minijinja::ErrorKind::UnknownFunction,
                        format!("{name} is unknown"),
                    ),
                    &place(start, end),
                ));
                continue;
            }
            found.needed.push(Needed {
                name,
                at: place(start, end),
                guarded,
            });
        }
        found.problems.extend(
            self.unknown_names(source)
                .into_iter()
                .map(|(failure, start, end)| error::without_context(&failure, &place(start, end))),
        );
        found
    }

    /// Filters and tests are looked up by the engine only when it gets to them; this asks beforehand.
    fn unknown_names(&self, source: &str) -> Vec<(minijinja::Error, usize, usize)> {
        static FILTER: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"\|\s*([A-Za-z_][\w.]*)").ok());
        static TEST: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"\bis\s+(?:not\s+)?([A-Za-z_][\w.]*)").ok());
        let masked = mask_texts(source);
        let mut unknown = Vec::new();
        let kinds = [
            (&*FILTER, minijinja::ErrorKind::UnknownFilter, "filter"),
            (&*TEST, minijinja::ErrorKind::UnknownTest, "test"),
        ];
        for (pattern, kind, what) in kinds {
            let Some(pattern) = pattern else { continue };
            for found in pattern.captures_iter(&masked) {
                let Some(name) = found.get(1) else { continue };
                let known = match kind {
                    minijinja::ErrorKind::UnknownFilter => {
                        super::filters::FILTERS.contains(&name.as_str())
                    }
                    _ => super::predicates::TESTS.contains(&name.as_str()),
                };
                if !known {
                    let failure =
                        minijinja::Error::new(kind, format!("{what} {} is unknown", name.as_str()));
                    unknown.push((failure, name.start(), name.end()));
                }
            }
        }
        unknown
    }
}

/// Blanks everything that is not code: texts in quotes, and what stands outside of braces.
fn mask_texts(source: &str) -> String {
    let mut masked = String::with_capacity(source.len());
    let whole_is_code = !super::is_template(source);
    let mut code = whole_is_code;
    let mut quote = None;
    let mut escaped = false;
    let mut previous = ' ';
    for character in source.chars() {
        let mut keep = code;
        match quote {
            Some(open) => {
                keep = false;
                if escaped {
                    escaped = false;
                } else if character == '\\' {
                    escaped = true;
                } else if character == open {
                    quote = None;
                }
            }
            None if code && matches!(character, '\'' | '"') => {
                quote = Some(character);
                keep = false;
            }
            None if !whole_is_code => {
                if previous == '{' && matches!(character, '{' | '%') {
                    code = true;
                } else if character == '}' && matches!(previous, '}' | '%') {
                    code = false;
                }
            }
            None => {}
        }
        previous = character;
        if keep || character == '\n' {
            masked.push(character);
        } else {
            // Byte offsets must stay what they are.
            masked.extend(std::iter::repeat_n(' ', character.len_utf8()));
        }
    }
    masked
}

/// Ranges where a name stands as a variable (not inside a text, not behind a dot).
fn uses_of(name: &str, source: &str) -> Vec<(usize, usize)> {
    let masked = mask_texts(source);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    masked
        .match_indices(name)
        .filter(|(start, _)| {
            let before = masked[..*start].chars().next_back();
            let after = masked[start + name.len()..].chars().next();
            let keyword = masked[start + name.len()..].trim_start().starts_with('=')
                && !masked[start + name.len()..].trim_start().starts_with("==");
            !before.is_some_and(|c| word(c) || c == '.')
                && !after.is_some_and(word)
                && !keyword
                && !masked[..*start].trim_end().ends_with('|')
        })
        .map(|(start, _)| (start, start + name.len()))
        .collect()
}

/// Tells whether what follows a name asks whether it is there: `.a['b'] | default`, `is defined`.
fn is_guarded(rest: &str) -> bool {
    static GUARD: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"^(?:\.\w+|\[[^\]]*\])*\s*\)*\s*(?:\|\s*(?:default|d)\b|is\s+(?:not\s+)?(?:un)?defined\b)",
        )
        .ok()
    });
    GUARD.as_ref().is_some_and(|guard| guard.is_match(rest))
}

fn is_call(rest: &str) -> bool {
    rest.starts_with('(')
}
