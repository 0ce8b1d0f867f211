//! Inventories in YAML: groups with `hosts`, `vars` and `children`; files of variables.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::mistake::Mistake;
use super::model::Draft;
use super::names;
use crate::playbook::model::{Node, NodeKind};
use crate::playbook::parse;
use crate::source::{Location, Problem, SourceFile, closest};

const KEYS: [&str; 3] = ["hosts", "vars", "children"];
const SHAPE: &str =
    "for example `web: {hosts: {web1: {ansible_host: 192.0.2.1}}, vars: {…}, children: {…}}`";

/// Reads a YAML inventory into the draft.
pub(super) fn read(file: &Arc<SourceFile>, draft: &mut Draft) -> Vec<Problem> {
    let root = match parse(file) {
        Ok(root) => root,
        Err(problems) => return problems,
    };
    let mut reader = Reader {
        draft,
        problems: Vec::new(),
    };
    let Some(groups) = reader.mapping(&root, "an inventory", SHAPE) else {
        return reader.problems;
    };
    if let Some(problem) = generated(groups) {
        return vec![problem];
    }
    for (name, at, node) in groups {
        reader.group(name, at, node);
    }
    reader.problems
}

/// Refuses what a program would have to make an inventory of, or has made.
fn generated(groups: &[(String, Location, Node)]) -> Option<Problem> {
    let find = |key: &str| groups.iter().find(|(name, ..)| name == key);
    if let Some((
        _,
        at,
        Node {
            kind: NodeKind::String(name),
            ..
        },
    )) = find("plugin")
    {
        return Some(
            Problem::new(
                "inventory::dynamic",
                at,
                format!("this configures the inventory plugin `{name}`, and plugins are not run"),
                "a plugin",
            )
            .with_help(super::sources::MAKE_STATIC),
        );
    }
    find("_meta").map(|(_, at, _)| {
        Problem::new(
            "inventory::dynamic",
            at,
            "this is what `ansible-inventory --list` prints, not an inventory",
            "here",
        )
        .with_help(super::sources::MAKE_STATIC)
    })
}

/// Reads a file of `group_vars/` or `host_vars/`.
pub(super) fn variables(file: &Arc<SourceFile>) -> Result<Map<String, Value>, Vec<Problem>> {
    // An empty file of variables is none; elsewhere it is a mistake.
    let says_nothing = |line: &str| {
        matches!(line.trim(), "" | "---" | "...") || line.trim_start().starts_with('#')
    };
    if file.text.lines().all(says_nothing) {
        return Ok(Map::new());
    }
    let root = parse(file)?;
    let mut problems = Vec::new();
    let vars = vars_of(&root, &mut problems);
    if problems.is_empty() {
        Ok(vars)
    } else {
        Err(problems)
    }
}

fn vars_of(node: &Node, problems: &mut Vec<Problem>) -> Map<String, Value> {
    match &node.kind {
        NodeKind::Null => Map::new(),
        NodeKind::Mapping(entries) => {
            for (name, at, _) in entries {
                if let Err(wrong) = names::check_variable(name) {
                    problems.push(Mistake::VariableName.of(at, wrong));
                }
            }
            entries
                .iter()
                .map(|(name, _, value)| (name.clone(), value.to_value()))
                .collect()
        }
        _ => {
            problems.push(wrong_type(
                node,
                "variables",
                "for example `ansible_host: 192.0.2.1`",
            ));
            Map::new()
        }
    }
}

fn wrong_type(node: &Node, what: &str, help: &str) -> Problem {
    let found = match node.kind {
        NodeKind::Null => "nothing",
        NodeKind::Bool(_) => "a boolean",
        NodeKind::Number(_) => "a number",
        NodeKind::String(_) => "a text",
        NodeKind::Sequence(_) => "a list",
        NodeKind::Mapping(_) => "a mapping",
    };
    Problem::new(
        "inventory::wrong_type",
        &node.at,
        format!("{what} must be a mapping, and this is {found}"),
        found,
    )
    .with_help(help)
}

struct Reader<'d> {
    draft: &'d mut Draft,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn mapping<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        help: &str,
    ) -> Option<&'n [(String, Location, Node)]> {
        match &node.kind {
            NodeKind::Mapping(entries) => Some(entries),
            _ => {
                self.problems.push(wrong_type(node, what, help));
                None
            }
        }
    }

    /// Names of `hosts` or `children` with what stands below them; a text alone is one name.
    fn named<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        help: &str,
    ) -> Vec<(&'n str, &'n Location, Option<&'n Node>)> {
        match &node.kind {
            NodeKind::Null => Vec::new(),
            NodeKind::String(name) => vec![(name, &node.at, None)],
            _ => self
                .mapping(node, what, help)
                .unwrap_or_default()
                .iter()
                .map(|(name, at, node)| (name.as_str(), at, Some(node)))
                .collect(),
        }
    }

    fn group(&mut self, name: &str, at: &Location, node: &Node) {
        if let Some(group) = self.declare(name, at) {
            self.body(group, name, node);
        }
    }

    fn declare(&mut self, name: &str, at: &Location) -> Option<usize> {
        match names::check_group(name) {
            Ok(()) => Some(self.draft.group(name)),
            Err(wrong) => {
                self.problems.push(Mistake::GroupName.of(at, wrong));
                None
            }
        }
    }

    fn body(&mut self, group: usize, name: &str, node: &Node) {
        if node.kind == NodeKind::Null {
            return;
        }
        let what = format!("the group `{name}`");
        let entries = self.mapping(node, &what, SHAPE).unwrap_or_default();
        for (key, at, node) in entries {
            match key.as_str() {
                "hosts" => self.hosts(group, node),
                "vars" => self.vars(group, node),
                "children" => self.children(group, name, node),
                _ => {
                    let near = closest(key, KEYS)
                        .map(|near| format!("did you mean `{near}`? "))
                        .unwrap_or_default();
                    self.problems.push(
                        Problem::new(
                            "inventory::unknown_key",
                            at,
                            format!("a group has no `{key}`"),
                            "not known",
                        )
                        .with_help(format!(
                            "{near}`hosts`, `vars` and `children` may stand here: groups go below \
                             `children`, variables below `vars`"
                        )),
                    );
                }
            }
        }
    }

    fn hosts(&mut self, group: usize, node: &Node) {
        let help = "hosts are keys: write `web1:` in place of `- web1`";
        for (entry, at, node) in self.named(node, "`hosts`", help) {
            let mut vars = node.map_or_else(Map::new, |node| vars_of(node, &mut self.problems));
            match names::expand(entry) {
                Ok((names, port)) => {
                    if let Some(port) = port {
                        vars.entry("ansible_port").or_insert_with(|| port.into());
                    }
                    for name in names {
                        self.draft.host(group, &name, &vars);
                    }
                }
                Err(wrong) => self.problems.push(Mistake::HostName.of(at, wrong)),
            }
        }
    }

    fn vars(&mut self, group: usize, node: &Node) {
        for (name, value) in vars_of(node, &mut self.problems) {
            if let Err(what) = self.draft.group_var(group, &name, value) {
                self.problems.push(Mistake::Priority.at(
                    &node.at,
                    format!("`{name}` {what}"),
                    "among these",
                ));
            }
        }
    }

    fn children(&mut self, parent: usize, parent_name: &str, node: &Node) {
        let help = "groups are keys: write `web:` in place of `- web`";
        for (name, at, node) in self.named(node, "`children`", help) {
            let Some(child) = self.declare(name, at) else {
                continue;
            };
            // Before what is in it, so that a circle is shown where it closes.
            if !self.draft.child(parent, child) {
                self.problems.push(circle(at, name, parent_name));
            }
            if let Some(node) = node {
                self.body(child, name, node);
            }
        }
    }
}

/// A group that would contain itself.
pub(super) fn circle(at: &Location, child: &str, parent: &str) -> Problem {
    Problem::new(
        "inventory::circle",
        at,
        format!("the group `{child}` cannot be within `{parent}`: that one is within it already"),
        "a circle",
    )
    .with_help("remove one of the two from the other's children")
}
