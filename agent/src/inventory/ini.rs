//! Inventories in INI: `[group]`, `[group:vars]`, `[group:children]`, `host key=value …`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::mistake::Mistake;
use super::model::Draft;
use super::{UNGROUPED, literal, names, words, yaml};
use crate::source::{Location, Problem, SourceFile, closest};

#[derive(Clone, Copy)]
enum Kind {
    Hosts,
    Vars,
    Children,
}

/// A group that is mentioned before, or without, being declared.
struct Pending {
    at: Location,
    /// Parents and where they name it, in their order.
    parents: Vec<(usize, String, Location)>,
    vars: Vec<(String, Value, Location)>,
}

struct Reader<'d> {
    file: &'d Arc<SourceFile>,
    draft: &'d mut Draft,
    group: String,
    kind: Kind,
    /// Mentioned groups that nothing declared so far, in their order.
    pending: Vec<(String, Pending)>,
    /// Variables of groups that this file has set, and where.
    set: HashMap<(String, String), Location>,
    problems: Vec<Problem>,
}

/// Reads an INI inventory into the draft.
pub(super) fn read(file: &Arc<SourceFile>, draft: &mut Draft) -> Vec<Problem> {
    let mut reader = Reader {
        file,
        draft,
        group: UNGROUPED.into(),
        kind: Kind::Hosts,
        pending: Vec::new(),
        set: HashMap::new(),
        problems: Vec::new(),
    };
    let mut start = 0;
    for line in file.text.split_inclusive('\n') {
        let text = line.trim();
        let begin = start + (line.len() - line.trim_start().len());
        start += line.len();
        if !text.is_empty() && !text.starts_with(['#', ';']) {
            reader.line(text, begin);
        }
    }
    reader.undeclared();
    reader.problems
}

impl Reader<'_> {
    fn at(&self, start: usize, end: usize) -> Location {
        Location {
            file: Arc::clone(self.file),
            start,
            end,
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn line(&mut self, text: &str, start: usize) {
        // A host can begin with a range (`[a:c].example`) or an address in brackets.
        let without_comment = text.split(" #").next().unwrap_or(text).trim_end();
        if text.starts_with('[') && (without_comment.ends_with(']') || !text.contains(']')) {
            return self.section(without_comment, start);
        }
        match self.kind {
            Kind::Hosts => self.host(text, start),
            Kind::Vars => self.variable(text, start),
            Kind::Children => self.child(without_comment, start),
        }
    }

    fn section(&mut self, text: &str, start: usize) {
        let at = self.at(start, start + text.len());
        let Some(inner) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        else {
            let message = "this section's `[` is not closed";
            let problem = Mistake::Section.at(&at, message, "no `]`");
            return self.problem(
                problem.with_help("write `[group]`, `[group:vars]` or `[group:children]`"),
            );
        };
        let (name, kind) = inner.split_once(':').unwrap_or((inner, "hosts"));
        let kind = match kind {
            "hosts" => Kind::Hosts,
            "vars" => Kind::Vars,
            "children" => Kind::Children,
            other => {
                let near = closest(other, ["hosts", "vars", "children"])
                    .map(|near| format!("did you mean `[{name}:{near}]`? "))
                    .unwrap_or_default();
                let problem = Mistake::Section.at(
                    &at,
                    format!("a section cannot be of kind `{other}`"),
                    "not known",
                );
                self.problem(problem.with_help(format!(
                    "{near}`[group]`, `[group:vars]` and `[group:children]` are known"
                )));
                Kind::Hosts
            }
        };
        if let Err(wrong) = names::check_group(name) {
            return self.problem(Mistake::GroupName.of(&at, wrong));
        }
        self.group = name.to_owned();
        self.kind = kind;
        match kind {
            Kind::Vars => {
                if !self.draft.has_group(name) {
                    self.mention(name, &at);
                }
            }
            Kind::Hosts | Kind::Children => self.declare(name),
        }
    }

    fn mention(&mut self, name: &str, at: &Location) -> usize {
        if let Some(known) = self.pending.iter().position(|(known, _)| known == name) {
            return known;
        }
        let pending = Pending {
            at: at.clone(),
            parents: Vec::new(),
            vars: Vec::new(),
        };
        self.pending.push((name.to_owned(), pending));
        self.pending.len() - 1
    }

    /// Makes a group, and puts it into those that named it before.
    fn declare(&mut self, name: &str) {
        let child = self.draft.group(name);
        let Some(index) = self.pending.iter().position(|(known, _)| known == name) else {
            return;
        };
        let (_, pending) = self.pending.remove(index);
        for (parent, parent_name, at) in pending.parents {
            if !self.draft.child(parent, child) {
                self.problem(yaml::circle(&at, name, &parent_name));
            }
        }
        for (name, value, at) in pending.vars {
            self.set_variable(child, &name, value, &at);
        }
    }

    fn child(&mut self, name: &str, start: usize) {
        let at = self.at(start, start + name.len());
        if let Err(wrong) = names::check_group(name) {
            return self.problem(Mistake::GroupName.of(&at, wrong));
        }
        let parent_name = self.group.clone();
        let parent = self.draft.group(&parent_name);
        if self.draft.has_group(name) {
            let child = self.draft.group(name);
            if !self.draft.child(parent, child) {
                self.problem(yaml::circle(&at, name, &parent_name));
            }
        } else {
            let index = self.mention(name, &at);
            self.pending[index]
                .1
                .parents
                .push((parent, parent_name, at));
        }
    }

    fn variable(&mut self, text: &str, start: usize) {
        let at = self.at(start, start + text.len());
        let Some((name, value)) = text.split_once('=') else {
            let message = format!("a line below `[{}:vars]` is `name=value`", self.group);
            let problem = Mistake::Syntax.at(&at, message, "no `=`");
            return self.problem(problem.with_help(format!(
                "write `name=value`; hosts go below `[{}]`",
                self.group
            )));
        };
        let name = name.trim_end();
        let name_at = self.at(start, start + name.len());
        if let Err(wrong) = names::check_variable(name) {
            return self.problem(Mistake::VariableName.of(&name_at, wrong));
        }
        let key = (self.group.clone(), name.to_owned());
        if let Some(first) = self.set.get(&key) {
            let message = format!(
                "`{name}` stands twice for `{}`, first at {first}",
                self.group
            );
            let problem = Mistake::Twice.at(&name_at, message, "again");
            return self.problem(problem.with_help("keep one of the two"));
        }
        self.set.insert(key, name_at.clone());
        let value = match literal::value(value.trim()) {
            Ok(value) => value,
            Err(why) => return self.unfit(&at, why),
        };
        let group = self.group.clone();
        if let Some((_, pending)) = self.pending.iter_mut().find(|(known, _)| *known == group) {
            pending.vars.push((name.to_owned(), value, name_at));
            return;
        }
        let group = self.draft.group(&group);
        self.set_variable(group, name, value, &name_at);
    }

    fn set_variable(&mut self, group: usize, name: &str, value: Value, at: &Location) {
        if let Err(what) = self.draft.group_var(group, name, value) {
            let message = format!("`{name}` {what}");
            self.problem(Mistake::Priority.at(at, message, "here"));
        }
    }

    fn unfit(&mut self, at: &Location, why: &'static str) {
        let problem = Mistake::Value.at(at, why, "this value");
        self.problem(
            problem.with_help("put it into quotes, and those into others: `name='\"…\"'`"),
        );
    }

    fn host(&mut self, text: &str, start: usize) {
        let words = match words::split(text) {
            Ok(words) => words,
            Err(wrong) => {
                let at = self.at(start + wrong.at, start + text.len());
                let problem = Mistake::Syntax.at(&at, wrong.what, "from here on");
                return self.problem(problem.with_help(wrong.help));
            }
        };
        let mut words = words.into_iter();
        let Some(entry) = words.next() else { return };
        let mut vars = Map::new();
        let mut names_seen = HashSet::new();
        for word in words {
            let at = self.at(start + word.start, start + word.end);
            let Some((name, value)) = word.text.split_once('=') else {
                let message = format!(
                    "expected `name=value` behind a host, and found `{}`",
                    word.text
                );
                let problem = Mistake::Syntax.at(&at, message, "no `=`");
                self.problem(problem.with_help(
                    "no blanks around `=`, quotes around values with blanks, one host a line",
                ));
                return;
            };
            if let Err(wrong) = names::check_variable(name) {
                self.problem(Mistake::VariableName.of(&at, wrong));
            }
            if !names_seen.insert(name.to_owned()) {
                let message = format!("`{name}` stands twice on this line");
                let problem = Mistake::Twice.at(&at, message, "again");
                self.problem(problem.with_help("keep one of the two"));
            }
            match literal::value(value) {
                Ok(value) => {
                    vars.insert(name.to_owned(), value);
                }
                Err(why) => self.unfit(&at, why),
            }
        }
        match names::expand(&entry.text) {
            Ok((names, port)) => {
                if let Some(port) = port {
                    vars.entry("ansible_port").or_insert_with(|| port.into());
                }
                let group = self.draft.group(&self.group);
                for name in names {
                    self.draft.host(group, &name, &vars);
                }
            }
            Err(wrong) => {
                let at = self.at(start + entry.start, start + entry.end);
                self.problem(Mistake::HostName.of(&at, wrong));
            }
        }
    }

    /// Groups that are named as children or have variables, and that nothing declares.
    fn undeclared(&mut self) {
        for (name, pending) in std::mem::take(&mut self.pending) {
            let near = closest(&name, self.draft.group_names())
                .map(|near| format!("did you mean `{near}`? "))
                .unwrap_or_default();
            let problem = Problem::new(
                "inventory::unknown_group",
                &pending.at,
                format!("there is no group `{name}`"),
                "not declared",
            );
            self.problem(problem.with_help(format!("{near}declare it with a section `[{name}]`")));
        }
    }
}
