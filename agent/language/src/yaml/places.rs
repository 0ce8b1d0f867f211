//! Places in a YAML text, and problems with its syntax.

use std::sync::Arc;

use saphyr_parser::Span;

use crate::source::{Location, Problem, SourceFile};

/// Turns the parser's character positions into byte ranges.
pub(super) struct Places {
    pub file: Arc<SourceFile>,
    /// Byte offset of each character; `None` where the text is ASCII and they are the same.
    bytes: Option<Vec<usize>>,
}

impl Places {
    pub fn new(file: &Arc<SourceFile>) -> Self {
        let bytes = (!file.text.is_ascii())
            .then(|| file.text.char_indices().map(|(offset, _)| offset).collect());
        Self {
            file: Arc::clone(file),
            bytes,
        }
    }

    pub fn byte(&self, character: usize) -> usize {
        let end = self.file.text.len();
        match &self.bytes {
            None => character.min(end),
            Some(bytes) => bytes.get(character).copied().unwrap_or(end),
        }
    }

    pub fn location(&self, start: usize, end: usize) -> Location {
        Location {
            file: Arc::clone(&self.file),
            start,
            end: end.max(start),
        }
    }

    /// The span without the white space (and line ends of block scalars) behind it.
    pub fn at(&self, span: Span) -> Location {
        let start = self.byte(span.start.index());
        let end = self.byte(span.end.index()).max(start);
        let length = self.file.text[start..end].trim_end().len();
        self.location(start, start + length)
    }

    /// One character, or nothing at the end of the text.
    pub fn character_at(&self, start: usize) -> Location {
        let mut start = start.min(self.file.text.len());
        while !self.file.text.is_char_boundary(start) {
            start -= 1;
        }
        let length = self.file.text[start..]
            .chars()
            .next()
            .filter(|c| *c != '\n')
            .map_or(0, char::len_utf8);
        self.location(start, start + length)
    }

    pub fn file_start(&self) -> Location {
        self.location(0, 0)
    }

    /// From a 1-based line and column in characters.
    pub fn at_line_column(&self, line: usize, column: usize) -> Location {
        let mut start = 0;
        for _ in 1..line {
            match self.file.text[start..].find('\n') {
                Some(length) => start += length + 1,
                None => return self.character_at(self.file.text.len()),
            }
        }
        let rest = &self.file.text[start..];
        let offset = rest
            .char_indices()
            .nth(column.saturating_sub(1))
            .map_or(rest.len(), |(offset, _)| offset);
        self.character_at(start + offset)
    }

    /// A parse error; where a tab indents a line before it, or the line behind it, the tab is what is
    /// wrong: a text that runs on over such a line is complained of where it begins.
    pub fn syntax_problem(&self, at: Location, message: &str, scalars: &[Location]) -> Problem {
        if let Some(tab) = self.tab_before(&at, scalars) {
            return Problem::new(
                "playbook::yaml_tab",
                &tab,
                "a tab indents this line",
                "a tab",
            )
            .with_help("a tab has no fixed width in YAML: indent with spaces");
        }
        Problem::new(
            "playbook::yaml_syntax",
            &at,
            format!("this is not valid YAML: {message}"),
            "here",
        )
        .with_optional_help(syntax_help(message, &self.file.text[at.start..]))
    }

    fn tab_before(&self, at: &Location, scalars: &[Location]) -> Option<Location> {
        let mut found = None;
        let mut start = 0;
        let mut behind = false;
        for line in self.file.text.split_inclusive('\n') {
            if start > at.start {
                if behind {
                    break;
                }
                behind = true;
            }
            let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
            if let Some(tab) = line[..indent].find('\t') {
                let tab = start + tab;
                // Inside a text (a Makefile in a block scalar) a tab is content.
                let inside = scalars.iter().any(|s| s.start <= tab && tab < s.end);
                if !inside && !line.trim().is_empty() {
                    found = Some(self.location(tab, tab + 1));
                }
            }
            start += line.len();
        }
        found
    }
}

fn syntax_help(message: &str, rest: &str) -> Option<String> {
    if message.contains("mapping values are not allowed") {
        return Some("a text that contains `: ` must stand in quotes".into());
    }
    match rest.chars().next() {
        Some('%' | '@' | '`') => {
            Some("a text that begins with this character must stand in quotes".into())
        }
        Some('{') if rest.starts_with("{{") => {
            Some("a value that begins with `{{` must stand in quotes: \"{{ … }}\"".into())
        }
        _ if message.contains("unknown escape") => {
            Some("double the backslash, or use single quotes".into())
        }
        _ => None,
    }
}
