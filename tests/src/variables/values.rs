//! Other values for a variable: what somebody may write who changes it.

use serde_json::{Value, json};

use super::declared::Variable;
use crate::migration::Migration;

/// Another value than the one that holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Other {
    /// One of its choices, by its place among those that do not hold.
    Choice(usize),
    /// A path below the site where nothing is.
    FreePath,
    /// An empty folder beside the site's.
    EmptyFolder,
    /// The directory of the live database.
    LiveDirectory,
    /// Where the 0.2 database is kept.
    KeptDirectory,
    /// The folder of the site's own data.
    FastFolder,
    /// An image that is on the host: the database's of the other version.
    OtherImage,
    /// An image that is not there.
    NoImage,
    /// Another text.
    Text,
    /// A larger number.
    Number,
    /// Zero.
    Zero,
    /// The other truth.
    Negated,
    /// A list without its last item, a map without its last member.
    Shorter,
    /// With one more.
    Longer,
    /// An empty text, list or map.
    Empty,
    /// A value of another type.
    WrongType,
    /// What is no choice.
    NoChoice,
    /// The right value under a name with a letter less.
    Misspelt,
}

impl Other {
    /// In words.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Choice(place) => format!("another choice ({place})"),
            Self::FreePath => "a path where nothing is".into(),
            Self::EmptyFolder => "an empty folder".into(),
            Self::LiveDirectory => "the live database's directory".into(),
            Self::KeptDirectory => "the kept database's directory".into(),
            Self::FastFolder => "the folder of the site's data".into(),
            Self::OtherImage => "another image".into(),
            Self::NoImage => "an image that is not there".into(),
            Self::Text => "another text".into(),
            Self::Number => "another number".into(),
            Self::Zero => "zero".into(),
            Self::Negated => "the other truth".into(),
            Self::Shorter => "one item less".into(),
            Self::Longer => "one item more".into(),
            Self::Empty => "empty".into(),
            Self::WrongType => "a wrong type".into(),
            Self::NoChoice => "what is no choice".into(),
            Self::Misspelt => "a misspelt name".into(),
        }
    }

    /// It can never hold: a type, a choice or a name is wrong, and that is told before anything runs.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::WrongType | Self::NoChoice | Self::Misspelt)
    }
}

/// All other values of a variable.
#[must_use]
pub fn others(variable: &Variable) -> Vec<Other> {
    let mut all = match variable.kind.as_str() {
        _ if !variable.choices.is_empty() => {
            let others = variable.choices.len().saturating_sub(1);
            let mut all: Vec<Other> = (0..others).map(Other::Choice).collect();
            all.extend([Other::NoChoice, Other::Empty]);
            all
        }
        "path" => vec![
            Other::FreePath,
            Other::EmptyFolder,
            Other::LiveDirectory,
            Other::KeptDirectory,
            Other::FastFolder,
            Other::Empty,
        ],
        "int" | "float" => vec![Other::Number, Other::Zero, Other::Empty],
        "bool" => vec![Other::Negated, Other::Empty],
        "list" | "dict" => vec![Other::Shorter, Other::Longer, Other::Empty],
        _ if is_image(variable) => vec![Other::OtherImage, Other::NoImage, Other::Empty],
        _ => vec![Other::Text, Other::Empty],
    };
    // What may be of any type has no wrong one.
    if variable.kind != "raw" {
        all.push(Other::WrongType);
    }
    all.push(Other::Misspelt);
    all
}

fn is_image(variable: &Variable) -> bool {
    variable.name.ends_with("image")
}

/// What is written into the file of variables for it. `now` is what holds; nothing is written where the
/// value would be no other one.
#[must_use]
pub fn change(
    variable: &Variable,
    other: &Other,
    now: &Value,
    migration: &Migration,
) -> Option<Value> {
    let site = &migration.site;
    let path = |path: std::path::PathBuf| Value::from(path.display().to_string());
    let value = match other {
        Other::Choice(place) => {
            let mut others = variable.choices.iter().filter(|choice| *choice != now);
            others.nth(*place)?.clone()
        }
        Other::FreePath => path(site.root.join("elsewhere/nothing")),
        Other::EmptyFolder => path(site.root.join("elsewhere/empty")),
        Other::LiveDirectory => path(site.postgres_dir()),
        Other::KeptDirectory => path(migration.kept_dir()),
        Other::FastFolder => path(site.fast_data_dir.clone()),
        Other::OtherImage => {
            let images = [&site.images.old, &site.images.new];
            let mut others = images.into_iter().filter(|image| now != *image);
            Value::from(others.next()?.clone())
        }
        // Nobody listens there: no registry is asked.
        Other::NoImage => json!("127.0.0.1:1/kaapana-lab/not-there:1"),
        Other::Text => json!("other"),
        Other::Number => json!(now.as_i64().unwrap_or(1) + 1),
        Other::Zero => json!(0),
        Other::Negated => json!(!now.as_bool().unwrap_or_default()),
        Other::Shorter => shorter(now)?,
        Other::Longer => longer(now),
        Other::Empty => match variable.kind.as_str() {
            "list" => json!([]),
            "dict" => json!({}),
            _ => json!(""),
        },
        // A text is taken for most types where it reads as one; these are not.
        Other::WrongType => match variable.kind.as_str() {
            "list" => json!({"no": "list"}),
            "dict" => json!(["no map"]),
            "int" | "float" | "bool" => json!("neither"),
            _ => json!({"no": "text"}),
        },
        Other::NoChoice => json!("no-such-choice"),
        Other::Misspelt => {
            let mut name = variable.name.clone();
            name.remove(name.len() / 2);
            return Some(json!({name: now}));
        }
    };
    (value != *now).then(|| json!({variable.name.clone(): value}))
}

fn shorter(now: &Value) -> Option<Value> {
    match now {
        Value::Array(items) if !items.is_empty() => {
            Some(Value::from(items[..items.len() - 1].to_vec()))
        }
        Value::Object(members) => {
            let mut members = members.clone();
            let last = members.keys().next_back()?.clone();
            members.remove(&last);
            Some(Value::Object(members))
        }
        _ => None,
    }
}

fn longer(now: &Value) -> Value {
    match now {
        Value::Object(members) => {
            let mut members = members.clone();
            members.insert("other".into(), json!(["other"]));
            Value::Object(members)
        }
        Value::Array(items) => {
            let mut items = items.clone();
            // Of the kind of those that are there.
            items.push(items.first().cloned().unwrap_or_else(|| json!("other")));
            Value::Array(items)
        }
        _ => json!(["other"]),
    }
}
