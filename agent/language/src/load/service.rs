//! `services` on a block: containers that its tasks need.

use super::Loader;
use super::fields::Fields;
use crate::model::{Node, NodeKind, Service};
use crate::source::Problem;

const KEYWORDS: &[&str] = &["name", "docker_container", "ready", "ready_timeout"];

impl Loader<'_> {
    pub(super) fn services(&mut self, nodes: &[Node]) -> Vec<Service> {
        nodes.iter().filter_map(|node| self.service(node)).collect()
    }

    fn service(&mut self, node: &Node) -> Option<Service> {
        let mut found = Vec::new();
        let Some(mut fields) = Fields::of(node, "a service", &mut found) else {
            self.problems.extend(found);
            return None;
        };
        let name = fields.fixed_text("name");
        let container = fields
            .node("docker_container")
            .or_else(|| fields.node("community.docker.docker_container"));
        let ready = fields.node("ready");
        let ready_timeout = fields.node("ready_timeout");
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            self.leftover("a service", key, at, &[KEYWORDS], false);
        }
        let missing = |what: &str| {
            Problem::new(
                "playbook::missing_keyword",
                &super::play::first_line(&node.at),
                format!("the service has no `{what}`"),
                format!("no `{what}`"),
            )
            .with_help(
                "a service has a `name`, a `docker_container` and may have `ready` with a module \
                 that succeeds when it is up",
            )
        };
        if name.is_none() && !fields.has("name") {
            self.problem(missing("name"));
        }
        let container = match container {
            None => {
                self.problem(missing("docker_container"));
                None
            }
            Some(node) if matches!(node.kind, NodeKind::Mapping(_)) => Some(node),
            Some(node) => {
                let problem = super::fields::wrong_type(
                    &node.at,
                    "`docker_container`",
                    "a mapping of arguments",
                    &node,
                );
                self.problem(problem);
                None
            }
        };
        let ready = ready.map(|node| {
            let wrong = Problem::new(
                "playbook::service_ready",
                &node.at,
                "`ready` takes one module with its arguments",
                "not one module",
            )
            .with_help("for example: `ready: {postgresql_ping: {login_db: pacsdb}}`");
            self.one_module(&node, wrong)
        });
        if matches!(ready, Some(None)) {
            return None;
        }
        Some(Service {
            name: name?,
            at: node.at.clone(),
            container: container?,
            ready: ready.flatten(),
            ready_timeout,
        })
    }
}
