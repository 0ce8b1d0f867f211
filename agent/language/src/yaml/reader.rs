//! Events -> nodes with places: aliases, merge keys, duplicate keys, tags, limits.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::places::Places;
use crate::scalar::{Plain, resolve};
use crate::source::{Location, Problem};
use crate::vault::Vault;

/// Deeper nesting is refused; reading and rendering go down recursively.
const MAX_DEPTH: usize = 64;
/// More nodes, aliases expanded, are refused: a few lines of nested aliases can stand for gigabytes.
const MAX_NODES: usize = 500_000;

/// A node as the events tell it, aliases already replaced by what they stand for.
#[derive(Clone)]
pub(super) struct Raw {
    pub kind: RawKind,
    pub at: Location,
}

#[derive(Clone)]
pub(super) enum RawKind {
    Scalar { text: String, typing: Typing },
    Sequence(Vec<Raw>),
    Mapping(Vec<(String, Location, Raw)>),
}

/// How a scalar gets its type.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Typing {
    /// By YAML 1.1's rules.
    Plain,
    /// Quoted, block or `!!str`: a text.
    Text,
    /// `!vault`: a text that was decrypted.
    Secret,
}

/// Reads the events of a text into [`Raw`] nodes.
pub(super) struct Reader<'a> {
    places: &'a Places,
    vault: &'a Vault,
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
    pub fn new(places: &'a Places, vault: &'a Vault) -> Self {
        Self {
            places,
            vault,
            events: Vec::new(),
            next: 0,
            anchors: HashMap::new(),
            open_anchors: Vec::new(),
            nodes: 0,
            problems: Vec::new(),
        }
    }

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

    /// Reads the one document.
    pub fn document(mut self) -> Result<Raw, Vec<Problem>> {
        self.read_events().map_err(|problem| vec![problem])?;
        match self.root() {
            Ok(root) if self.problems.is_empty() => Ok(root),
            Ok(_) | Err(None) => Err(self.problems),
            Err(Some(problem)) => {
                self.problems.push(problem);
                Err(self.problems)
            }
        }
    }

    fn root(&mut self) -> Result<Raw, Stop> {
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
                if let Some(tag) = tag.as_deref()
                    && ["!vault", "!vault-encrypted"].contains(&tag.to_string().as_str())
                {
                    return Ok(self.secret(&text, at));
                }
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

    /// A value that is encrypted by itself.
    fn secret(&mut self, text: &str, at: Location) -> Raw {
        let text = match self.vault.open(text) {
            Ok(plain) => {
                self.vault.remember(&plain);
                plain
            }
            Err(error) => {
                self.problems.push(super::locked(&at, &error));
                String::new()
            }
        };
        let kind = RawKind::Scalar {
            text,
            typing: Typing::Secret,
        };
        Raw { kind, at }
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
