//! Loops: a task's items, the rounds of an include, and what a loop's result is made of.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::frame::Frame;
use super::identity::item_keys;
use super::run::Engine;
use super::services::seconds;
use super::unit::{Item, text_of_value};
use crate::playbook::model::{Block, Loop, LoopStyle};
use crate::playbook::template::{Cut, Scope};
use crate::source::Problem;

/// A sequence longer than this is taken for a mistake.
const MAX_SEQUENCE: i64 = 100_000;

impl Engine {
    /// What a block is run with: once, or once an item where it is an include with a loop.
    pub(super) fn rounds<'p>(
        &self,
        block: &'p Block,
        frame: &Frame<'p>,
    ) -> Result<Vec<Frame<'p>>, Problem> {
        let mut inner = frame.enter(block);
        if !block.dynamic {
            return Ok(vec![inner]);
        }
        // What the include asks was asked for all of its tasks; what is around it may change with them.
        inner.when.truncate(frame.when.len());
        let rounds = match &block.r#loop {
            None => vec![inner],
            Some(spec) => self
                .loop_items(spec, &inner.scope)?
                .into_iter()
                .map(|item| {
                    let mut round = inner.clone();
                    round.scope = self.item_scope(&inner.scope, spec, &item);
                    round.rounds.push(item.key);
                    round
                })
                .collect(),
        };
        let mut wanted = Vec::new();
        for round in rounds {
            let mut all = true;
            for condition in &block.common.when {
                all = all && self.templates.condition(condition, &round.scope)?;
            }
            if all {
                wanted.push(round);
            }
        }
        Ok(wanted)
    }

    /// Renders a loop's items.
    pub(super) fn loop_items(&self, spec: &Loop, scope: &Scope) -> Result<Vec<Item>, Problem> {
        let rendered = self.templates.render(&spec.items, scope)?;
        let wrong = |message: &str, help: &str| {
            Problem::new(
                "playbook::loop_needs_a_list",
                &spec.items.at,
                message,
                "after rendering, this does not fit",
            )
            .with_help(help)
        };
        let values = items_of(spec.style, rendered, &self.base_dir)
            .map_err(|(message, help)| wrong(&message, help))?;
        let around = |index: usize| spec.extended.then(|| Around::of(&values, index));
        let mut labels = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            labels.push(match &spec.label {
                Some(label) => {
                    let item = Item {
                        key: String::new(),
                        value: value.clone(),
                        index,
                        around: around(index),
                        lost: None,
                    };
                    let scope = self.item_scope(scope, spec, &item);
                    Some(text_of_value(&self.templates.render(label, &scope)?))
                }
                None => None,
            });
        }
        let keys = item_keys(&values, &labels);
        let around: Vec<_> = (0..values.len()).map(around).collect();
        let keyed = values.into_iter().zip(keys).zip(around).enumerate();
        Ok(keyed
            .map(|(index, ((value, key), around))| Item {
                key,
                value,
                index,
                around,
                lost: None,
            })
            .collect())
    }

    pub(super) fn item_scope(&self, scope: &Scope, spec: &Loop, item: &Item) -> Scope {
        let mut scope = scope.clone();
        match &item.lost {
            None => scope.bind(&spec.loop_var, item.value.clone()),
            Some(origin) => {
                let cut = Cut {
                    paths: vec![String::new()],
                    origin: origin.clone(),
                };
                scope.bind_cut(&spec.loop_var, item.value.clone(), cut);
            }
        }
        scope.bind("ansible_loop_var", spec.loop_var.clone().into());
        if let Some(name) = &spec.index_var {
            scope.bind(name, item.index.into());
        }
        if let Some(around) = &item.around {
            scope.bind("ansible_loop", around.extended(item.index));
        }
        scope
    }

    /// How long a loop waits between two items.
    pub(super) fn pause_between(&self, spec: &Loop, scope: &Scope) -> Duration {
        spec.pause
            .as_ref()
            .and_then(|node| self.templates.render(node, scope).ok())
            .and_then(|value| seconds(&value))
            .unwrap_or_default()
    }
}

/// An item's neighbours.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Around {
    total: usize,
    before: Option<Value>,
    after: Option<Value>,
}

impl Around {
    pub(super) fn of(values: &[Value], index: usize) -> Self {
        Self {
            total: values.len(),
            before: index.checked_sub(1).and_then(|at| values.get(at)).cloned(),
            after: values.get(index + 1).cloned(),
        }
    }

    /// `ansible_loop`.
    fn extended(&self, index: usize) -> Value {
        let mut told = json!({
            "index": index + 1,
            "index0": index,
            "revindex": self.total.saturating_sub(index),
            "revindex0": self.total.saturating_sub(index + 1),
            "first": index == 0,
            "last": index + 1 == self.total,
            "length": self.total,
        });
        if let Some(before) = &self.before {
            told["previtem"] = before.clone();
        }
        if let Some(after) = &self.after {
            told["nextitem"] = after.clone();
        }
        told
    }
}

type Wrong = (String, &'static str);

fn list(value: Value) -> Result<Vec<Value>, Wrong> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err((
            "a loop needs a list".into(),
            "use `dict2items` for a map, or put the value into brackets",
        )),
    }
}

/// Lists inside the list are flattened, one level.
fn flat(value: Value) -> Vec<Value> {
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    values
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(inner) => inner,
            other => vec![other],
        })
        .collect()
}

fn items_of(style: LoopStyle, value: Value, folder: &Path) -> Result<Vec<Value>, Wrong> {
    Ok(match style {
        LoopStyle::List => list(value)?,
        LoopStyle::Items => flat(value),
        LoopStyle::Dict => {
            let maps = match value {
                Value::Object(map) => vec![map],
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| match value {
                        Value::Object(map) => Ok(map),
                        _ => Err(("`with_dict` needs a map".into(), "use `loop` for a list")),
                    })
                    .collect::<Result<_, Wrong>>()?,
                _ => return Err(("`with_dict` needs a map".into(), "use `loop` for a list")),
            };
            maps.into_iter()
                .flatten()
                .map(|(key, value)| json!({"key": key, "value": value}))
                .collect()
        }
        LoopStyle::Nested => {
            let mut rows = vec![Vec::new()];
            for values in list(value)? {
                let values = flat(values);
                rows = rows
                    .iter()
                    .flat_map(|row| {
                        values.iter().map(move |value| {
                            let mut row = row.clone();
                            row.push(value.clone());
                            row
                        })
                    })
                    .collect();
            }
            rows.into_iter().map(Value::Array).collect()
        }
        LoopStyle::Together => {
            let lists: Vec<Vec<Value>> = list(value)?.into_iter().map(flat).collect();
            let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
            (0..longest)
                .map(|at| {
                    let row = lists.iter().map(|list| list.get(at).cloned());
                    Value::Array(row.map(Option::unwrap_or_default).collect())
                })
                .collect()
        }
        LoopStyle::Indexed => flat(value)
            .into_iter()
            .enumerate()
            .map(|(index, value)| json!([index, value]))
            .collect(),
        LoopStyle::Sequence => {
            let terms = match value {
                Value::Array(terms) => terms,
                one => vec![one],
            };
            let mut all = Vec::new();
            for term in terms {
                all.extend(sequence(&term)?);
            }
            all
        }
        LoopStyle::FileGlob => {
            let patterns = match value {
                Value::Array(patterns) => patterns,
                one => vec![one],
            };
            let mut files = Vec::new();
            for pattern in &patterns {
                files.extend(glob(folder, pattern.as_str().unwrap_or_default()));
            }
            files
        }
    })
}

/// `start=1 end=5 stride=2 format=n%02d`, or the same as a map; `count` in place of `end`.
fn sequence(term: &Value) -> Result<Vec<Value>, Wrong> {
    const HELP: &str = "for example: `start=1 end=5 stride=2 format=host%02d`";
    let wrong = |what: &str| (format!("`with_sequence`: {what}"), HELP);
    let mut words = Map::new();
    match term {
        Value::Object(map) => words = map.clone(),
        other => {
            for word in text_of_value(other).split_whitespace() {
                let Some((key, value)) = word.split_once('=') else {
                    return Err(wrong(&format!("`{word}` is not understood")));
                };
                words.insert(key.to_owned(), value.into());
            }
        }
    }
    let mut number = |key: &str| -> Result<Option<i64>, Wrong> {
        let Some(value) = words.remove(key) else {
            return Ok(None);
        };
        let text = text_of_value(&value);
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed
            .map(Some)
            .map_err(|_| wrong(&format!("`{key}` is not a number")))
    };
    let (start, end, stride, count) = (
        number("start")?,
        number("end")?,
        number("stride")?,
        number("count")?,
    );
    let form = words.remove("format").map(|form| text_of_value(&form));
    if let Some(other) = words.keys().next() {
        return Err(wrong(&format!("`{other}` is not known")));
    }
    let start = start.unwrap_or(1);
    let end = match (end, count) {
        (Some(end), None) => end,
        (None, Some(0)) => return Ok(Vec::new()),
        (None, Some(count)) => {
            start.saturating_add((count - 1).saturating_mul(stride.unwrap_or(1)))
        }
        _ => return Err(wrong("give either `end` or `count`")),
    };
    let stride = stride.unwrap_or(if end < start { -1 } else { 1 });
    if stride == 0 || (end - start) / stride > MAX_SEQUENCE {
        return Err(wrong("it does not end"));
    }
    if (end - start).signum() * stride.signum() < 0 {
        return Err(wrong("it leads away from its end"));
    }
    let mut all = Vec::new();
    let mut at = start;
    while (stride > 0 && at <= end) || (stride < 0 && at >= end) {
        all.push(match &form {
            Some(form) => formatted(form, at).ok_or_else(|| wrong("`format` is not understood"))?,
            None => at.to_string(),
        });
        at += stride;
    }
    Ok(all.into_iter().map(Value::String).collect())
}

/// Fills the one `%d`, `%02d`, `%x` or `%o` of a text.
fn formatted(form: &str, number: i64) -> Option<String> {
    let (before, rest) = form.split_once('%')?;
    let kind = rest.find(|c: char| c.is_ascii_alphabetic())?;
    let (width, after) = rest.split_at(kind);
    let mut after = after.chars();
    let digits = match after.next()? {
        'd' | 'i' | 'u' => number.to_string(),
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        'o' => format!("{number:o}"),
        _ => return None,
    };
    let fill = if width.starts_with('0') { '0' } else { ' ' };
    let wide: usize = if width.is_empty() {
        0
    } else {
        width.parse().ok()?
    };
    let missing = wide.min(64).saturating_sub(digits.len());
    let padding: String = std::iter::repeat_n(fill, missing).collect();
    Some(format!("{before}{padding}{digits}{}", after.as_str()))
}

/// Files (no directories) that fit a pattern; as in Ansible, only the last part of a path is one. A
/// relative pattern is looked for in `files/` beside the playbook, then beside it.
fn glob(folder: &Path, pattern: &str) -> Vec<Value> {
    let places = [folder.join("files").join(pattern), folder.join(pattern)];
    for place in places {
        let found = crate::host::glob::all_matches(&place);
        let files: Vec<Value> = found
            .into_iter()
            .filter(|path| path.is_file())
            .map(|path| json!(path))
            .collect();
        if !files.is_empty() {
            return files;
        }
    }
    Vec::new()
}

/// Result of one item, as it stands in the loop's `results`.
pub(super) fn item_result(spec: &Loop, item: &Item, mut result: Value) -> Value {
    if let Value::Object(map) = &mut result {
        map.insert(spec.loop_var.clone(), item.value.clone());
        map.insert("ansible_loop_var".into(), spec.loop_var.clone().into());
    }
    result
}

/// Result of a loop: each item's, and whether any changed or failed.
pub(super) fn loop_result(results: Vec<Value>) -> Value {
    let any = |key: &str| {
        results
            .iter()
            .any(|r| r.get(key) == Some(&Value::Bool(true)))
    };
    let all = |key: &str| {
        !results.is_empty()
            && results
                .iter()
                .all(|r| r.get(key) == Some(&Value::Bool(true)))
    };
    let (changed, failed, skipped) = (any("changed"), any("failed"), all("skipped"));
    json!({
        "results": results,
        "changed": changed,
        "failed": failed,
        "skipped": skipped,
        "msg": if failed { "One or more items failed" } else { "All items completed" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(style: LoopStyle, value: Value) -> Value {
        items_of(style, value, Path::new("/"))
            .expect("items")
            .into()
    }

    #[test]
    fn each_keyword_makes_its_own_of_its_value() {
        assert_eq!(
            items(LoopStyle::Items, json!(["a", ["b"], [["c"]]])),
            json!(["a", "b", ["c"]])
        );
        assert_eq!(
            items(LoopStyle::Dict, json!({"a": 1})),
            json!([{"key": "a", "value": 1}])
        );
        let nested = json!([["a", "b"], [1, 2]]);
        assert_eq!(
            items(LoopStyle::Nested, nested.clone()),
            json!([["a", 1], ["a", 2], ["b", 1], ["b", 2]])
        );
        assert_eq!(
            items(LoopStyle::Together, nested),
            json!([["a", 1], ["b", 2]])
        );
        assert_eq!(
            items(LoopStyle::Together, json!([["a", "b"], [1]])),
            json!([["a", 1], ["b", null]])
        );
        assert_eq!(items(LoopStyle::Indexed, json!(["x"])), json!([[0, "x"]]));
        assert!(items_of(LoopStyle::List, json!({"a": 1}), Path::new("/")).is_err());
    }

    #[test]
    fn sequences_count_up_and_down_and_never_run_away() {
        let seq = |text: &str| items(LoopStyle::Sequence, text.into());
        assert_eq!(
            seq("start=1 end=5 stride=2 format=n%02d"),
            json!(["n01", "n03", "n05"])
        );
        assert_eq!(seq("count=2 start=0x0f format=%x"), json!(["f", "10"]));
        assert_eq!(seq("start=3 end=1 stride=-1"), json!(["3", "2", "1"]));
        assert_eq!(seq("count=0"), json!([]));
        for wrong in [
            "start=1",
            "end=x",
            "end=1 stride=0",
            "end=99999999",
            "end=3 stride=-1",
            "a",
        ] {
            assert!(
                items_of(LoopStyle::Sequence, wrong.into(), Path::new("/")).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_item_knows_where_it_stands() {
        let values = [json!("a"), json!("b")];
        let told = Around::of(&values, 1).extended(1);
        assert_eq!(told["last"], true);
        assert_eq!(told["previtem"], "a");
        assert!(told.get("nextitem").is_none());
    }
}
