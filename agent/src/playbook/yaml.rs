//! YAML text -> [`Node`]s with places. The only file that knows the YAML crates.
//!
//! `saphyr-parser` gives events with spans and scalar styles; `serde_yaml` reads the values. Where the
//! two disagree about a document's shape or a text, the document is refused rather than guessed at.
//! Plain scalars follow YAML 1.1 ([`super::scalar`]), because that is what Ansible's users write.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;
use serde_yaml::Value as Yaml;

use super::model::{Node, NodeKind};
use super::scalar::{Plain, resolve};
use crate::source::{Location, Problem, SourceFile};

/// Deeper nesting is refused; reading and rendering go down recursively.
const MAX_DEPTH: usize = 64;
/// More nodes, aliases expanded, are refused: a few lines of nested aliases can stand for gigabytes.
const MAX_NODES: usize = 500_000;

/// Reads a YAML file that holds exactly one document.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn parse(file: &Arc<SourceFile>) -> Result<Node, Vec<Problem>> {
    let places = Places::new(file);
    let mut reader = Reader {
        places: &places,
        events: Vec::new(),
        next: 0,
        anchors: HashMap::new(),
        open_anchors: Vec::new(),
        nodes: 0,
        problems: Vec::new(),
    };
    reader.read_events().map_err(|problem| vec![problem])?;
    let root = reader.document().map_err(|stop| match stop {
        Some(problem) => vec![problem],
        None => std::mem::take(&mut reader.problems),
    })?;
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let values: Yaml = serde_yaml::from_str(&file.text).map_err(|error| {
        let at = error.location().map_or_else(
            || places.file_start(),
            |place| places.at_line_column(place.line(), place.column()),
        );
        vec![places.syntax_problem(at, &without_position(&error.to_string()), &[])]
    })?;
    let mut problems = Vec::new();
    let node = root.combine(&values, &mut problems);
    match (node, problems.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => Err(problems),
    }
}

/// Writes a value as block-style YAML, keys sorted as Ansible's filters do.
pub(super) fn to_text(value: &Value) -> Option<String> {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(sorted).collect(),
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                entries
                    .into_iter()
                    .map(|(key, item)| (key.clone(), sorted(item)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
            other => other.clone(),
        }
    }
    serde_yaml::to_string(&sorted(value)).ok()
}

/// Cuts serde_yaml's own ` at line 1 column 2` off: the problem carries the place.
fn without_position(message: &str) -> String {
    let parts: Vec<&str> = message
        .split(", ")
        .map(|part| part.split(" at line ").next().unwrap_or(part))
        .collect();
    parts.join(", ")
}

/// Turns the parser's character positions into byte ranges.
struct Places {
    file: Arc<SourceFile>,
    /// Byte offset of each character; `None` where the text is ASCII and they are the same.
    bytes: Option<Vec<usize>>,
}

impl Places {
    fn new(file: &Arc<SourceFile>) -> Self {
        let bytes = (!file.text.is_ascii())
            .then(|| file.text.char_indices().map(|(offset, _)| offset).collect());
        Self {
            file: Arc::clone(file),
            bytes,
        }
    }

    fn byte(&self, character: usize) -> usize {
        let end = self.file.text.len();
        match &self.bytes {
            None => character.min(end),
            Some(bytes) => bytes.get(character).copied().unwrap_or(end),
        }
    }

    fn location(&self, start: usize, end: usize) -> Location {
        Location {
            file: Arc::clone(&self.file),
            start,
            end: end.max(start),
        }
    }

    /// The span without the white space (and line ends of block scalars) behind it.
    fn at(&self, span: Span) -> Location {
        let start = self.byte(span.start.index());
        let end = self.byte(span.end.index()).max(start);
        let length = self.file.text[start..end].trim_end().len();
        self.location(start, start + length)
    }

    /// One character, or nothing at the end of the text.
    fn character_at(&self, start: usize) -> Location {
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

    fn file_start(&self) -> Location {
        self.location(0, 0)
    }

    /// From a 1-based line and column in characters.
    fn at_line_column(&self, line: usize, column: usize) -> Location {
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

    /// A parse error; where a tab indents a line at or before it, the tab is what is wrong.
    fn syntax_problem(&self, at: Location, message: &str, scalars: &[Location]) -> Problem {
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
        for line in self.file.text.split_inclusive('\n') {
            if start > at.start {
                break;
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

/// A node as the events tell it, aliases already replaced by what they stand for.
#[derive(Clone)]
struct Raw {
    kind: RawKind,
    at: Location,
}

#[derive(Clone)]
enum RawKind {
    Scalar { text: String, typing: Typing },
    Sequence(Vec<Raw>),
    Mapping(Vec<(String, Location, Raw)>),
}

/// How a scalar gets its type.
#[derive(Clone, Copy, PartialEq)]
enum Typing {
    /// By YAML 1.1's rules.
    Plain,
    /// Quoted, block or `!!str`: a text.
    Text,
}

struct Reader<'a> {
    places: &'a Places,
    events: Vec<(Event<'a>, Span)>,
    next: usize,
    anchors: HashMap<usize, (Raw, usize)>,
    open_anchors: Vec<usize>,
    nodes: usize,
    problems: Vec<Problem>,
}

/// `None` inside: the reason is already among the problems.
type Stop = Option<Problem>;

impl<'a> Reader<'a> {
    fn read_events(&mut self) -> Result<(), Problem> {
        let mut scalars = Vec::new();
        let mut depth = 0_usize;
        let mut documents = 0;
        let mut parser = Parser::new_from_str(&self.places.file.text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let at = self
                    .places
                    .character_at(self.places.byte(error.marker().index()));
                self.places.syntax_problem(at, error.info(), &scalars)
            })?;
            match &event {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                Event::Scalar(..) => scalars.push(self.places.at(span)),
                Event::DocumentStart(_) => documents += 1,
                Event::StreamEnd => break,
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(Problem::new(
                    "playbook::yaml_too_deep",
                    &self.places.at(span),
                    format!("this is nested more than {MAX_DEPTH} levels deep"),
                    "too deep",
                ));
            }
            if documents > 1 {
                return Err(Problem::new(
                    "playbook::yaml_documents",
                    &self.places.at(span),
                    "a second YAML document begins here",
                    "second document",
                )
                .with_help("a file holds one document: remove the `---`, or split the file"));
            }
            if matches!(
                event,
                Event::Scalar(..)
                    | Event::Alias(_)
                    | Event::SequenceStart(..)
                    | Event::SequenceEnd
                    | Event::MappingStart(..)
                    | Event::MappingEnd
            ) {
                self.events.push((event, span));
            }
        }
        Ok(())
    }

    fn document(&mut self) -> Result<Raw, Stop> {
        if self.events.is_empty() {
            return Err(Some(Problem::new(
                "playbook::yaml_empty",
                &self.places.file_start(),
                "the file is empty",
                "nothing here",
            )));
        }
        self.node()
    }

    fn take(&mut self) -> Option<(Event<'a>, Span)> {
        let event = self.events.get(self.next).cloned();
        self.next += 1;
        event
    }

    fn peek_ends(&self) -> bool {
        matches!(
            self.events.get(self.next),
            None | Some((Event::SequenceEnd | Event::MappingEnd, _))
        )
    }

    fn node(&mut self) -> Result<Raw, Stop> {
        let Some((event, span)) = self.take() else {
            return Err(Some(Problem::new(
                "playbook::yaml_syntax",
                &self.places.character_at(self.places.file.text.len()),
                "this is not valid YAML: it ends too early",
                "here",
            )));
        };
        let at = self.places.at(span);
        let before = self.nodes;
        self.count(1, &at)?;
        let (raw, anchor) = match event {
            Event::Alias(id) => return self.alias(id, &at),
            Event::Scalar(text, style, anchor, tag) => {
                let typing = self.scalar_typing(style, tag.as_deref(), &at);
                if typing == Typing::Plain
                    && let Plain::Unfit(reason) = resolve(&text)
                {
                    self.problems.push(
                        Problem::new("playbook::yaml_number", &at, reason, "this number")
                            .with_help("write it in quotes"),
                    );
                }
                let kind = RawKind::Scalar {
                    text: text.into_owned(),
                    typing,
                };
                (Raw { kind, at }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", &at);
                self.open_anchors.push(anchor);
                let mut items = Vec::new();
                while !self.peek_ends() {
                    items.push(self.node()?);
                }
                let at = self.close(at);
                let kind = RawKind::Sequence(items);
                (Raw { kind, at }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", &at);
                self.open_anchors.push(anchor);
                let entries = self.entries()?;
                let at = self.close(at);
                let kind = RawKind::Mapping(entries);
                (Raw { kind, at }, anchor)
            }
            _ => return Err(None),
        };
        if anchor != 0 {
            let size = self.nodes - before;
            self.anchors.insert(anchor, (raw.clone(), size));
        }
        Ok(raw)
    }

    fn count(&mut self, nodes: usize, at: &Location) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        Err(Some(
            Problem::new(
                "playbook::yaml_too_large",
                at,
                format!("the document stands for more than {MAX_NODES} values"),
                "too many from here on",
            )
            .with_help("aliases of aliases multiply: write the values out, or split the file"),
        ))
    }

    fn alias(&mut self, id: usize, at: &Location) -> Result<Raw, Stop> {
        if self.open_anchors.contains(&id) {
            return Err(Some(Problem::new(
                "playbook::yaml_alias_cycle",
                at,
                "the alias stands inside what it stands for",
                "leads back to itself",
            )));
        }
        let Some((raw, size)) = self.anchors.get(&id) else {
            return Err(Some(Problem::new(
                "playbook::yaml_alias_unknown",
                at,
                "no anchor of this name stands before the alias",
                "unknown alias",
            )));
        };
        let (raw, size) = (raw.clone(), *size);
        self.count(size, at)?;
        Ok(raw)
    }

    /// Takes the end event; the node reaches from its start to the last thing in it.
    fn close(&mut self, start: Location) -> Location {
        self.open_anchors.pop();
        let Some((_, span)) = self.take() else {
            return start;
        };
        let end = self.places.byte(span.end.index()).max(start.start);
        let length = self.places.file.text[start.start..end].trim_end().len();
        self.places.location(start.start, start.start + length)
    }

    fn entries(&mut self) -> Result<Vec<(String, Location, Raw)>, Stop> {
        let mut own: Vec<(String, Location, Raw)> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<(String, Location, Raw)> = Vec::new();
        while !self.peek_ends() {
            let is_merge = matches!(
                self.events.get(self.next),
                Some((Event::Scalar(text, ScalarStyle::Plain, 0, None), _)) if text == "<<"
            );
            let key = self.node()?;
            let value = self.node()?;
            if is_merge {
                self.merge(value, &mut merged)?;
                continue;
            }
            let Some(name) = self.key_text(&key) else {
                continue;
            };
            if let Some(first) = seen.get(&name).and_then(|index| own.get(*index)) {
                self.problems.push(
                    Problem::new(
                        "playbook::yaml_duplicate_key",
                        &key.at,
                        format!(
                            "`{name}` stands twice in this mapping, first at {}",
                            first.1
                        ),
                        "a second time",
                    )
                    .with_help("keep one of the two"),
                );
                continue;
            }
            seen.insert(name.clone(), own.len());
            own.push((name, key.at, value));
        }
        merged.retain(|(name, _, _)| !seen.contains_key(name));
        merged.append(&mut own);
        Ok(merged)
    }

    /// `<<: *a` or `<<: [*a, *b]`: what is there already wins.
    fn merge(&mut self, value: Raw, merged: &mut Vec<(String, Location, Raw)>) -> Result<(), Stop> {
        match value.kind {
            RawKind::Mapping(entries) => {
                for entry in entries {
                    if !merged.iter().any(|(name, _, _)| *name == entry.0) {
                        merged.push(entry);
                    }
                }
            }
            RawKind::Sequence(items)
                if items
                    .iter()
                    .all(|item| matches!(item.kind, RawKind::Mapping(_))) =>
            {
                for item in items {
                    self.merge(item, merged)?;
                }
            }
            _ => self.problems.push(Problem::new(
                "playbook::yaml_merge",
                &value.at,
                "`<<` takes a mapping or a list of mappings",
                "neither",
            )),
        }
        Ok(())
    }

    fn key_text(&mut self, key: &Raw) -> Option<String> {
        let (found, help) = match &key.kind {
            RawKind::Scalar {
                text,
                typing: Typing::Text,
            } => return Some(text.clone()),
            RawKind::Scalar { text, .. } => {
                let found = match resolve(text) {
                    Plain::Text => return Some(text.clone()),
                    Plain::Null => "nothing",
                    Plain::Bool(_) => "a boolean",
                    Plain::Number(_) | Plain::Unfit(_) => "a number",
                };
                (found, Some(format!("write it in quotes: \"{text}\"")))
            }
            RawKind::Sequence(_) => ("a list", None),
            RawKind::Mapping(entries) => {
                // `{{ x }}` without quotes reads as a mapping in a mapping.
                let help = (self.places.file.text[key.at.start..].starts_with('{')
                    && entries.len() == 1)
                    .then(|| "a template must stand in quotes: \"{{ … }}\"".to_owned());
                ("a mapping", help)
            }
        };
        self.problems.push(
            Problem::new(
                "playbook::yaml_key",
                &key.at,
                format!("a key must be a text, and this is {found}"),
                found,
            )
            .with_optional_help(help),
        );
        None
    }

    fn scalar_typing(&mut self, style: ScalarStyle, tag: Option<&Tag>, at: &Location) -> Typing {
        match tag {
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "str" => Typing::Text,
                "int" | "float" | "bool" | "null" => Typing::Plain,
                _ => {
                    self.refuse_tag(Some(tag), "", at);
                    Typing::Text
                }
            },
            // A lone `!` says "do not guess": a text.
            Some(tag) if tag.suffix.is_empty() => Typing::Text,
            Some(tag) => {
                self.refuse_tag(Some(tag), "", at);
                Typing::Text
            }
            None if style == ScalarStyle::Plain => Typing::Plain,
            None => Typing::Text,
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, allowed: &str, at: &Location) {
        let Some(tag) = tag else { return };
        if tag.is_yaml_core_schema() && tag.suffix == allowed {
            return;
        }
        let name = if tag.is_yaml_core_schema() {
            format!("!!{}", tag.suffix)
        } else {
            tag.to_string()
        };
        let help = match name.as_str() {
            "!vault" | "!vault-encrypted" => Some(
                "keep the secret in a file of its own that only root may read, and name the \
                 variable under `secrets`",
            ),
            "!unsafe" => Some("wrap the text in {% raw %} … {% endraw %} instead"),
            _ => None,
        };
        let rest = &self.places.file.text[at.start..];
        let length = rest
            .find(|c: char| c.is_whitespace())
            .unwrap_or(rest.len())
            .min(at.end.saturating_sub(at.start));
        self.problems.push(
            Problem::new(
                "playbook::yaml_tag",
                &self.places.location(at.start, at.start + length),
                format!("the tag `{name}` is not supported here"),
                "this tag",
            )
            .with_optional_help(help.map(str::to_owned)),
        );
    }
}

impl Raw {
    /// Puts the values that serde_yaml read at the places that the events gave.
    fn combine(&self, value: &Yaml, problems: &mut Vec<Problem>) -> Option<Node> {
        let kind = match &self.kind {
            RawKind::Scalar {
                text,
                typing: Typing::Plain,
            } => match resolve(text) {
                Plain::Null => NodeKind::Null,
                Plain::Bool(value) => NodeKind::Bool(value),
                Plain::Number(value) => NodeKind::Number(value),
                // Unfit numbers have been refused before.
                Plain::Text | Plain::Unfit(_) => NodeKind::String(text.clone()),
            },
            RawKind::Scalar { text, .. } => match untagged(value) {
                Yaml::String(value) if value == text => NodeKind::String(value.clone()),
                _ => return self.disagree(problems),
            },
            RawKind::Sequence(items) => match untagged(value) {
                Yaml::Sequence(values) if values.len() == items.len() => {
                    let nodes: Vec<_> = items
                        .iter()
                        .zip(values)
                        .filter_map(|(item, value)| item.combine(value, problems))
                        .collect();
                    NodeKind::Sequence(nodes)
                }
                _ => return self.disagree(problems),
            },
            RawKind::Mapping(entries) => {
                let Yaml::Mapping(values) = untagged(value) else {
                    return self.disagree(problems);
                };
                let mut nodes = Vec::with_capacity(entries.len());
                for (key, at, item) in entries {
                    let Some(value) = lookup(values, key) else {
                        item.disagree(problems);
                        continue;
                    };
                    if let Some(node) = item.combine(value, problems) {
                        nodes.push((key.clone(), at.clone(), node));
                    }
                }
                NodeKind::Mapping(nodes)
            }
        };
        Some(Node {
            kind,
            at: self.at.clone(),
        })
    }

    fn disagree(&self, problems: &mut Vec<Problem>) -> Option<Node> {
        problems.push(
            Problem::new(
                "playbook::yaml_ambiguous",
                &self.at,
                "YAML 1.1 and YAML 1.2 read this differently",
                "ambiguous",
            )
            .with_help("write it in a plainer way: quote texts, indent with spaces"),
        );
        None
    }
}

fn untagged(value: &Yaml) -> &Yaml {
    match value {
        Yaml::Tagged(tagged) => untagged(&tagged.value),
        other => other,
    }
}

/// Finds a key in its own mapping or in those merged into it, nearest first.
fn lookup<'a>(values: &'a serde_yaml::Mapping, key: &str) -> Option<&'a Yaml> {
    if let Some(value) = values.get(key) {
        return Some(value);
    }
    match values.get("<<").map(untagged)? {
        Yaml::Mapping(merged) => lookup(merged, key),
        Yaml::Sequence(items) => items.iter().find_map(|item| match untagged(item) {
            Yaml::Mapping(merged) => lookup(merged, key),
            _ => None,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::playbook::fixtures::{lines, node, try_node};
    use crate::playbook::model::NodeKind;

    #[test]
    fn values_are_those_of_yaml_1_1() {
        let text =
            "{a: yes, b: 'yes', c: 0644, d: 12:30, e: 1e3, f: ~, g: \"5\", h: !!str 5, i: 1.5}";
        assert_eq!(
            node(text).to_value(),
            json!({"a": true, "b": "yes", "c": 420, "d": 750, "e": "1e3", "f": null, "g": "5",
                   "h": "5", "i": 1.5})
        );
        let text = "a: |\n  x\n  y\nb: >-\n  x\n  y\nc:\n- 1\n-\nd: 'it''s'\ne: \"\\u00e4\\n\"\n";
        assert_eq!(
            node(text).to_value(),
            json!({"a": "x\ny\n", "b": "x y", "c": [1, null], "d": "it's", "e": "ä\n"})
        );
    }

    #[test]
    fn aliases_and_merge_keys_give_what_they_stand_for() {
        let text =
            "base: &b {x: 1, y: 1}\none: {<<: *b, y: 2}\ntwo:\n  <<: [*b, {z: 3}]\nthree: *b\n";
        assert_eq!(
            node(text).to_value(),
            json!({"base": {"x": 1, "y": 1}, "one": {"x": 1, "y": 2},
                   "two": {"x": 1, "y": 1, "z": 3}, "three": {"x": 1, "y": 1}})
        );
    }

    #[test]
    fn places_are_right_behind_umlauts() {
        let text = "ä: ö\nliste:\n  - 'ü'\n  - {k: wert}\n";
        let root = node(text);
        let NodeKind::Mapping(entries) = &root.kind else {
            panic!("a mapping")
        };
        let slice = |at: &crate::source::Location| text[at.start..at.end].to_owned();
        assert_eq!(slice(&entries[0].1), "ä");
        assert_eq!(slice(&entries[0].2.at), "ö");
        let NodeKind::Sequence(items) = &entries[1].2.kind else {
            panic!("a list")
        };
        assert_eq!(slice(&items[0].at), "'ü'");
        assert_eq!(items[0].at.line_column(), (3, 5));
        assert_eq!(slice(&items[1].at), "{k: wert}");
        assert_eq!(slice(&entries[1].2.at), "- 'ü'\n  - {k: wert}");
    }

    #[test]
    fn wrong_texts_are_refused_at_their_place() {
        for (text, expected) in [
            (
                "a:\n\tb: 1\n",
                "2:1 a tab indents this line = a tab has no fixed width in YAML: indent with spaces",
            ),
            (
                "- a: 1\n  b:\n  \t- 2\n",
                "3:3 a tab indents this line = a tab has no fixed width in YAML: indent with spaces",
            ),
            (
                "a: 1\nb: 2\na: 3\n",
                "3:1 `a` stands twice in this mapping, first at t.yml:1:1 = keep one of the two",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "2:1 a second YAML document begins here = a file holds one document: remove the `---`, or split the file",
            ),
            ("", "1:1 the file is empty"),
            ("# nothing\n", "1:1 the file is empty"),
            (
                "a: !vault |\n  x\n",
                "1:4 the tag `!vault` is not supported here = keep the secret in a file of its own that only root may read, and name the variable under `secrets`",
            ),
            (
                "a: !unsafe x\n",
                "1:4 the tag `!unsafe` is not supported here = wrap the text in {% raw %} … {% endraw %} instead",
            ),
            ("a: !foo [1]\n", "1:4 the tag `!foo` is not supported here"),
            (
                "on: 1\n",
                "1:1 a key must be a text, and this is a boolean = write it in quotes: \"on\"",
            ),
            (
                "5432: x\n",
                "1:1 a key must be a text, and this is a number = write it in quotes: \"5432\"",
            ),
            (
                "a: {{ b }}\n",
                "1:5 a key must be a text, and this is a mapping = a template must stand in quotes: \"{{ … }}\"",
            ),
            (
                "a: b: c\n",
                "1:5 this is not valid YAML: mapping values are not allowed in this context = a text that contains `: ` must stand in quotes",
            ),
            (
                "a: @x\n",
                "1:4 this is not valid YAML: unexpected character: `@' = a text that begins with this character must stand in quotes",
            ),
            (
                "a: *b\n",
                "1:4 this is not valid YAML: while parsing node, found unknown anchor",
            ),
            (
                "a: &x [*x]\n",
                "1:8 the alias stands inside what it stands for",
            ),
            (
                "a: 99999999999999999999\n",
                "1:4 the number does not fit into 64 bits = write it in quotes",
            ),
            (
                "a: 'x\n",
                "1:4 this is not valid YAML: while scanning a quoted scalar, found unexpected end of stream",
            ),
        ] {
            let found = try_node(text).map_err(|problems| lines(&problems));
            assert_eq!(
                found.map(|node| node.to_value()),
                Err(vec![expected.to_owned()]),
                "{text:?}"
            );
        }
    }

    #[test]
    fn several_mistakes_are_reported_together() {
        let found = try_node("a: !x 1\nb: 1\nb: 2\nno: 3\n").map_err(|problems| problems.len());
        assert_eq!(found.map(|_| ()), Err(3));
    }

    #[test]
    fn a_tab_inside_a_text_is_content() {
        assert_eq!(
            node("a: |\n  all:\n  \tmake\n").to_value(),
            json!({"a": "all:\n\tmake\n"})
        );
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let started = std::time::Instant::now();
        let found = try_node(&bomb).map_err(|problems| problems[0].code);
        assert_eq!(found.map(|_| ()), Err("playbook::yaml_too_large"));
        assert!(started.elapsed().as_secs() < 5, "it is found early");
        let deep = "[".repeat(10_000);
        assert!(try_node(&deep).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "[ \t\n:\\-\\[\\]{}#&*!|>'\"%@`?,a-c0-9ä<~.]{0,60}") {
            let _ = try_node(&text);
        }

        #[test]
        fn places_of_texts_lead_to_the_text(words in proptest::collection::vec("[a-zäöü]{1,6}x", 1..8)) {
            let text: String = words.iter().map(|word| format!("- {word}\n")).collect();
            let root = node(&text);
            if let NodeKind::Sequence(items) = &root.kind {
                for (item, word) in items.iter().zip(&words) {
                    prop_assert_eq!(&text[item.at.start..item.at.end], word.as_str());
                }
            }
        }
    }
}
