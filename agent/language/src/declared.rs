//! What a play says about the variables that its users set: `argument_spec`, in the manner of the argument
//! specs of Ansible's roles (`meta/argument_specs.yml`).
//!
//! A play that declares its variables takes these and no others from outside: every other variable that it
//! defines is a constant.

use std::fmt;

use serde_json::Value;

use super::arguments::convert;
use super::model::{Node, NodeKind, Vars};
use super::template::kind_of;
use crate::source::{Location, closest};

/// The variables that a play declares, in the order of the source.
#[derive(Debug, Clone)]
pub struct Declarations {
    /// Where the keyword stands.
    pub at: Location,
    /// The variables.
    pub variables: Vec<Declared>,
}

impl Declarations {
    /// Returns the declaration of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Declared> {
        self.variables.iter().find(|known| known.name == name)
    }

    /// Returns the defaults of those that have one. A required one is an empty text until it is set, so that
    /// commands that only look back need not be told it.
    #[must_use]
    pub fn defaults(&self) -> Vars {
        let all = self.variables.iter();
        all.filter_map(|known| {
            let unset = known.required.then(|| Node {
                kind: NodeKind::String(String::new()),
                at: known.at.clone(),
            });
            let node = known.default.clone().or(unset)?;
            Some((known.name.clone(), known.at.clone(), node))
        })
        .collect()
    }

    /// Returns the names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|known| known.name.as_str())
    }
}

/// A declared variable.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Where it is declared.
    pub at: Location,
    /// Type of its value.
    pub kind: ValueType,
    /// Type of a list's items.
    pub elements: Option<ValueType>,
    /// Values that are allowed; empty: any.
    pub choices: Vec<Value>,
    /// Its value where nobody sets it; may be a template over other variables.
    pub default: Option<Node>,
    /// Whether it has to be set, to something else than an empty text.
    pub required: bool,
    /// Whether its value is a secret: it is written and shown nowhere.
    pub no_log: bool,
    /// Whether it may no longer change once the play has had its first effect.
    pub settled: bool,
    /// What it is for, in one line.
    pub description: String,
}

impl Declared {
    /// Tells whether two values mean the same: a slash at the end of a path makes no difference.
    #[must_use]
    pub fn same(&self, one: &Value, other: &Value) -> bool {
        match (self.kind, one.as_str(), other.as_str()) {
            (ValueType::Path, Some(one), Some(other)) => {
                one.trim_end_matches('/') == other.trim_end_matches('/')
            }
            _ => one == other,
        }
    }

    /// Fits a rendered value to the declaration.
    ///
    /// # Errors
    /// What is wrong with it, and what to do where that is known. A secret's value is not repeated.
    pub fn fit(&self, value: Value) -> Result<Value, Misfit> {
        let shown = match (&value, self.no_log) {
            (_, true) => "its value".to_owned(),
            (Value::String(text), _) => format!("`{text}`"),
            (other, _) => format!("`{other}`"),
        };
        let found = kind_of(&value);
        let Some(fitted) = self.kind.fit(value) else {
            return Err(Misfit {
                message: format!("`{}` must be {}, and is {found}", self.name, self.kind),
                help: Some(self.kind.help().to_owned()),
            });
        };
        let fitted = match (self.elements, fitted) {
            (Some(elements), Value::Array(items)) => {
                let items: Option<Vec<Value>> =
                    items.into_iter().map(|item| elements.fit(item)).collect();
                let items = items.ok_or_else(|| Misfit {
                    message: format!("every item of `{}` must be {elements}", self.name),
                    help: Some(elements.help().to_owned()),
                })?;
                Value::Array(items)
            }
            (_, other) => other,
        };
        if self.choices.is_empty() || self.choices.contains(&fitted) {
            return Ok(fitted);
        }
        let choices: Vec<String> = self.choices.iter().map(plain).collect();
        let near = fitted
            .as_str()
            .and_then(|text| closest(text, choices.iter().map(String::as_str)));
        Err(Misfit {
            message: format!(
                "`{}` is {shown}, and must be {}",
                self.name,
                one_of(&choices)
            ),
            help: near.map(|near| format!("did you mean `{near}`?")),
        })
    }
}

/// A value that does not fit its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// A value as people write it.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn one_of(choices: &[String]) -> String {
    match choices {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|choice| format!("`{choice}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// The types of values, by Ansible's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `str`.
    Str,
    /// `path`: absolute, or empty for none.
    Path,
    /// `int`.
    Int,
    /// `float`.
    Float,
    /// `bool`.
    Bool,
    /// `list`.
    List,
    /// `dict`.
    Dict,
    /// `raw`: anything.
    Raw,
}

impl ValueType {
    /// All of them, by name.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("str", Self::Str),
        ("path", Self::Path),
        ("int", Self::Int),
        ("float", Self::Float),
        ("bool", Self::Bool),
        ("list", Self::List),
        ("dict", Self::Dict),
        ("raw", Self::Raw),
    ];

    /// Returns the type with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, kind)| *kind == self);
        found.map_or("raw", |(name, _)| name)
    }

    fn fit(self, value: Value) -> Option<Value> {
        Some(match self {
            Self::Str => Value::String(convert::text(&value)?),
            Self::Path => Value::String(path(&value)?),
            Self::Int => Value::Number(convert::integer(&value)?),
            Self::Float => Value::Number(convert::number(&value)?),
            Self::Bool => Value::Bool(convert::boolean(&value)?),
            Self::List => match value {
                Value::Array(_) => value,
                Value::String(text) => text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::String(item.to_owned()))
                    .collect(),
                _ => return None,
            },
            Self::Dict => match value {
                Value::Object(_) => value,
                _ => return None,
            },
            Self::Raw => value,
        })
    }

    fn help(self) -> &'static str {
        match self {
            Self::Str => "write one word or one text",
            Self::Path => {
                "write an absolute path, which means the same wherever the agent is started"
            }
            Self::Int => "write a whole number",
            Self::Float => "write a number",
            Self::Bool => "write `true` or `false`",
            Self::List => "write a list: `[one, two]`",
            Self::Dict => "write a mapping: `{name: value}`",
            Self::Raw => "write a value",
        }
    }
}

/// An absolute path as it was written, or an empty text.
fn path(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let fits = text.is_empty() || (text.starts_with('/') && !text.contains('\0'));
    fits.then(|| text.to_owned())
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Str => "a text",
            Self::Path => "an absolute path",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Bool => "true or false",
            Self::List => "a list",
            Self::Dict => "a mapping",
            Self::Raw => "a value",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::source::SourceFile;

    fn declared(kind: ValueType) -> Declared {
        let file = SourceFile {
            path: "spec.yaml".into(),
            text: String::new(),
        };
        Declared {
            name: "v".into(),
            at: Location {
                file: Arc::new(file),
                start: 0,
                end: 0,
            },
            kind,
            elements: None,
            choices: Vec::new(),
            default: None,
            required: false,
            no_log: false,
            settled: false,
            description: String::new(),
        }
    }

    #[test]
    fn every_type_takes_what_ansible_takes_for_it_and_nothing_else() {
        let table = [
            (ValueType::Str, json!("a"), Some(json!("a"))),
            (ValueType::Str, json!(15), Some(json!("15"))),
            (ValueType::Str, json!(["a"]), None),
            (ValueType::Path, json!("/a/b/"), Some(json!("/a/b/"))),
            (ValueType::Path, json!("/"), Some(json!("/"))),
            (ValueType::Path, json!(""), Some(json!(""))),
            (ValueType::Path, json!("a/b"), None),
            (ValueType::Path, json!("~/b"), None),
            (ValueType::Path, json!(true), None),
            (ValueType::Int, json!("7"), Some(json!(7))),
            (ValueType::Int, json!("seven"), None),
            (ValueType::Int, json!(1.5), None),
            (ValueType::Float, json!("1.5"), Some(json!(1.5))),
            (ValueType::Bool, json!("yes"), Some(json!(true))),
            (ValueType::Bool, json!("maybe"), None),
            (ValueType::List, json!("a, b"), Some(json!(["a", "b"]))),
            (ValueType::List, json!({"a": 1}), None),
            (ValueType::Dict, json!({"a": 1}), Some(json!({"a": 1}))),
            (ValueType::Dict, json!("a=1"), None),
            (ValueType::Raw, json!(null), Some(json!(null))),
        ];
        for (kind, value, expected) in table {
            let fitted = declared(kind).fit(value.clone()).ok();
            assert_eq!(fitted, expected, "{value} as {}", kind.name());
        }
        for (name, kind) in ValueType::NAMES {
            assert_eq!(ValueType::named(name), Some(*kind));
            assert_eq!(kind.name(), *name);
        }
    }

    #[test]
    fn a_choice_that_is_missed_is_named_and_a_secret_is_not_repeated() {
        let mut route = declared(ValueType::Str);
        route.choices = vec![json!("guide"), json!("direct")];
        let missed = route.fit(json!("dirct")).expect_err("no choice");
        assert_eq!(
            missed.message,
            "`v` is `dirct`, and must be `guide` or `direct`"
        );
        assert_eq!(missed.help.as_deref(), Some("did you mean `direct`?"));
        route.no_log = true;
        let missed = route.fit(json!("hunter2hunter2")).expect_err("no choice");
        assert!(!missed.message.contains("hunter2"), "{}", missed.message);
    }
}
