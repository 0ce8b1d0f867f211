//! The variables that a playbook declares: for people, for programs, and as the table of a README.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::style::{Ink, Style};
use crate::playbook::declared::{Declared, plain};
use crate::playbook::model::{Play, Playbook};

/// Renders them for people, play by play.
#[must_use]
pub fn text(playbook: &Playbook, style: Style) -> String {
    let mut out = String::new();
    for play in &playbook.plays {
        let Some(declared) = &play.declared else {
            let _ = writeln!(
                out,
                "Play `{}` declares no variables: it takes whatever it is given.",
                play.name
            );
            continue;
        };
        let _ = writeln!(out, "{}", style.paint(Ink::Strong, &play.name));
        for known in &declared.variables {
            let mut facts = vec![known.kind.name().to_owned()];
            if !known.choices.is_empty() {
                let choices: Vec<String> = known.choices.iter().map(plain).collect();
                facts = vec![choices.join(" | ")];
            }
            facts.extend(default_of(known).map(|text| format!("default: {text}")));
            facts.extend(marks(known).into_iter().map(str::to_owned));
            let facts = style.paint(Ink::Faint, &format!("({})", facts.join("; ")));
            let _ = writeln!(out, "  {}  {facts}", known.name);
            let _ = writeln!(out, "      {}", known.description);
        }
    }
    out
}

/// What they are as one JSON object.
#[must_use]
pub fn json(playbook: &Playbook) -> Value {
    let play = |play: &Play| {
        let declared = play.declared.iter().flat_map(|all| &all.variables);
        let variables: Vec<Value> = declared.map(variable).collect();
        json!({"play": play.name, "declares": play.declared.is_some(), "variables": variables})
    };
    json!({
        "v": 1,
        "playbook": playbook.path,
        "plays": playbook.plays.iter().map(play).collect::<Vec<_>>(),
    })
}

fn variable(known: &Declared) -> Value {
    let default = known.default.as_ref().filter(|_| !known.no_log);
    json!({
        "name": known.name,
        "type": known.kind.name(),
        "elements": known.elements.map(|kind| kind.name()),
        "choices": known.choices,
        "default": default.map(|node| node.to_value()),
        "required": known.required,
        "no_log": known.no_log,
        "settled": known.settled,
        "description": known.description,
    })
}

/// The table of a README, one line a variable.
#[must_use]
pub fn markdown(playbook: &Playbook) -> String {
    let mut out = String::new();
    for play in &playbook.plays {
        let Some(declared) = &play.declared else {
            continue;
        };
        out.push_str("| variable | type | default | |\n|---|---|---|---|\n");
        for known in &declared.variables {
            let kind = if known.choices.is_empty() {
                known.kind.name().to_owned()
            } else {
                let choices = known.choices.iter();
                let choices: Vec<String> = choices.map(|c| format!("`{}`", plain(c))).collect();
                choices.join(", ")
            };
            let default = match default_of(known) {
                _ if known.required => "**must be set**".to_owned(),
                Some(text) if text == "empty" => "*(empty)*".to_owned(),
                Some(text) => format!("`{text}`"),
                None => String::new(),
            };
            let marks = marks(known).into_iter().filter(|mark| *mark != "required");
            let marks: Vec<&str> = marks.collect();
            let marks = match marks.is_empty() {
                true => String::new(),
                false => format!(" *({})*", marks.join(", ")),
            };
            let _ = writeln!(
                out,
                "| `{}` | {kind} | {default} | {}{marks} |",
                known.name,
                known.description.replace('|', "\\|"),
            );
        }
    }
    out
}

fn default_of(known: &Declared) -> Option<String> {
    let default = known.default.as_ref()?;
    Some(match plain(&default.to_value()) {
        _ if known.no_log => "as Kaapana ships it".to_owned(),
        text if text.is_empty() => "empty".to_owned(),
        text => text,
    })
}

fn marks(known: &Declared) -> Vec<&'static str> {
    let marks = [
        (known.required, "required"),
        (known.settled, "settled"),
        (known.no_log, "secret"),
    ];
    let on = marks.into_iter().filter(|(on, _)| *on);
    on.map(|(_, mark)| mark).collect()
}
