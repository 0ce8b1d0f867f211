//! Modules that stand below a keyword: `ready` of a service, `probe` of `done_when`.

use super::Loader;
use super::fields::Fields;
use crate::model::{DoneWhen, Node, NodeKind};
use crate::source::{Location, Problem};
use crate::task::module::{Kind, ModuleSpec};

const KEYWORDS: &[&str] = &["probe", "that"];

impl Loader<'_> {
    /// Reads `done_when`: expressions, or a probe and expressions over what it finds.
    pub(super) fn done_when(&mut self, fields: &mut Fields<'_>) -> DoneWhen {
        let node = match fields.take("done_when") {
            Some((_, node)) if matches!(node.kind, NodeKind::Mapping(_)) => node,
            _ => {
                return DoneWhen {
                    probe: None,
                    that: fields.expressions("done_when"),
                };
            }
        };
        let mut found = Vec::new();
        let Some(mut own) = Fields::of(node, "`done_when`", &mut found) else {
            self.problems.extend(found);
            return DoneWhen::default();
        };
        let probe = own.node("probe");
        let that = own.expressions("that");
        self.problems.append(&mut own.problems);
        for (key, at, _) in own.rest() {
            self.leftover("`done_when`", key, at, &[KEYWORDS], false);
        }
        let help = "for example: `done_when: {probe: {stat: {path: /x}}, that: probe.stat.exists}`";
        for (missing, name) in [(probe.is_none(), "probe"), (that.is_empty(), "that")] {
            if missing {
                let message = format!("this `done_when` has no `{name}`");
                self.problem(
                    Problem::new("playbook::missing_keyword", &node.at, message, "not whole")
                        .with_help(help),
                );
            }
        }
        let wrong = |node: &Node| {
            Problem::new(
                "playbook::probe",
                &node.at,
                "`probe` takes one module with its arguments",
                "not one module",
            )
            .with_help(help)
        };
        let probe = probe.and_then(|node| self.one_module(&node, wrong(&node)));
        if let Some((spec, args)) = &probe
            && spec.kind != Kind::ReadOnly
        {
            let message = format!("`{}` may change the host; a probe only looks", spec.name);
            self.problem(
                Problem::new("playbook::probe", &args.at, message, "not read-only")
                    .with_help("every run asks it again: use a module that is read-only"),
            );
        }
        DoneWhen { probe, that }
    }

    /// Reads a mapping with one module in it; reports `wrong` where it is anything else.
    pub(super) fn one_module(
        &mut self,
        node: &Node,
        wrong: Problem,
    ) -> Option<(&'static ModuleSpec, Node)> {
        let entries = match &node.kind {
            NodeKind::Mapping(entries) if entries.len() == 1 => entries,
            _ => {
                self.problem(wrong);
                return None;
            }
        };
        let (name, at, arguments): &(String, Location, Node) = entries.first()?;
        let Some(spec) = self.options.catalog.find(name) else {
            let near = crate::source::closest(name, self.options.catalog.names());
            self.problem(
                Problem::new(
                    "playbook::unknown_module",
                    at,
                    format!("there is no module `{name}`"),
                    "no module has this name",
                )
                .with_optional_help(near.map(|near| format!("did you mean `{near}`?"))),
            );
            return None;
        };
        let entries = self.arguments(spec, at, arguments)?;
        Some((
            spec,
            Node {
                kind: NodeKind::Mapping(entries),
                at: arguments.at.clone(),
            },
        ))
    }
}
