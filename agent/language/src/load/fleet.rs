//! Keywords of a play that matter where there are several hosts.

use super::Loader;
use super::fields::{Fields, wrong_type};
use super::keywords;
use crate::model::{Batch, Fleet, FleetOnly, Node, NodeKind, Vars};
use crate::source::{Location, Problem};
use crate::template::Scope;

impl Loader<'_> {
    /// Takes `serial`, `any_errors_fatal` and `max_fail_percentage` of a play. Templates in them see the
    /// play's own and extra variables, as those of `vars_files`.
    pub(super) fn fleet(&mut self, fields: &mut Fields<'_>, vars: &Vars) -> Fleet {
        let mut scope = Scope::new();
        scope.push_vars(vars);
        scope.push_extra(&self.options.extra_vars);
        let mut value = |loader: &mut Self, key: &str| {
            let (at, node) = fields.take(key)?;
            let node = loader.rendered(node, &scope)?;
            (node.kind != NodeKind::Null).then(|| (at.clone(), node))
        };
        let mut fleet = Fleet::default();
        if let Some((at, node)) = value(self, "serial") {
            let items = match &node.kind {
                NodeKind::Sequence(items) => items.clone(),
                _ => vec![node],
            };
            fleet.serial = items
                .iter()
                .filter_map(|item| self.batch(item, &scope))
                .collect();
            fleet.serial_at = Some(at);
        }
        if let Some((_, node)) = value(self, "any_errors_fatal") {
            match node.kind {
                NodeKind::Bool(fatal) => fleet.any_errors_fatal = fatal,
                _ => self.problem(wrong_type(
                    &node.at,
                    "`any_errors_fatal`",
                    "true or false",
                    &node,
                )),
            }
        }
        if let Some((_, node)) = value(self, "max_fail_percentage") {
            match number(&node).filter(|percent| (0.0..=100.0).contains(percent)) {
                Some(percent) => fleet.max_fail_percentage = Some(percent),
                None => self.problem(wrong_type(
                    &node.at,
                    "`max_fail_percentage`",
                    "a number from 0 to 100",
                    &node,
                )),
            }
        }
        fleet
    }

    fn rendered(&mut self, node: &Node, scope: &Scope) -> Option<Node> {
        if !node.has_template() {
            return Some(node.clone());
        }
        match self.templates.render(node, scope) {
            Ok(value) => Some(Node::of_value(&value, &node.at)),
            Err(problem) => {
                self.problem(problem);
                None
            }
        }
    }

    /// One entry of `serial`: `2`, `"30%"`.
    fn batch(&mut self, node: &Node, scope: &Scope) -> Option<Batch> {
        let node = self.rendered(node, scope)?;
        let text = super::fields::scalar_text(&node).unwrap_or_default();
        let batch = match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().map(Batch::Percent),
            // Ansible's 0 and -1: all that are left.
            None => text
                .trim()
                .parse()
                .ok()
                .map(|hosts: i64| Batch::Hosts(usize::try_from(hosts).unwrap_or(0))),
        };
        if batch.is_none() {
            let wanted = "a number of hosts (`2`), a share of them (`\"30%\"`), or a list of these";
            self.problem(wrong_type(&node.at, "`serial`", wanted, &node));
        }
        batch
    }

    /// Takes keywords of Ansible's that make no difference where there is one host, and notes them for where
    /// there are several.
    pub(super) fn only_with_one_host(&mut self, fields: &mut Fields<'_>) {
        for key in keywords::WITHOUT_EFFECT {
            // Some of them are a play's own.
            let mine = !fields.is_taken(key);
            let Some((at, node)) = fields.take(key).filter(|_| mine) else {
                continue;
            };
            if let Some(help) = keywords::with_several_hosts(key)
                && !is_usual(key, node)
            {
                self.fleet_only.push(FleetOnly {
                    at: at.clone(),
                    keyword: key,
                    help,
                });
            }
        }
    }
}

impl FleetOnly {
    /// What is said where there are several hosts after all.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let keyword = self.keyword;
        Problem::new(
            "playbook::unsupported",
            &self.at,
            format!("`{keyword}` is not supported with several hosts"),
            "not supported",
        )
        .with_help(self.help)
    }
}

impl Fleet {
    /// What is wrong with two plays that want other batches.
    #[must_use]
    pub fn contradiction(&self, at: &Location) -> Problem {
        Problem::new(
            "playbook::serial",
            at,
            "plays of one playbook cannot have different batches: a host goes through all of its plays \
             before the next batch begins",
            "not the `serial` of an earlier play",
        )
        .with_help("write the same `serial`, or make two playbooks of it")
    }
}

/// Whether it asks for what is done anyway.
fn is_usual(key: &str, node: &Node) -> bool {
    match (key, &node.kind) {
        (_, NodeKind::Null | NodeKind::Bool(false)) => true,
        ("order", NodeKind::String(order)) => order == "inventory",
        ("throttle", NodeKind::Number(number)) => number.as_u64() == Some(0),
        _ => false,
    }
}

fn number(node: &Node) -> Option<f64> {
    match &node.kind {
        NodeKind::Number(number) => number.as_f64(),
        NodeKind::String(text) => text.trim().trim_end_matches('%').trim().parse().ok(),
        _ => None,
    }
}
