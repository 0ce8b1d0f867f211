//! Whether a playbook can be run on this host, by this user.

use super::run::Engine;
use crate::playbook::model::{Item, Node, NodeKind, Play};
use crate::source::Problem;

impl Engine {
    /// What keeps the playbook from being run here.
    pub(super) fn unmet_requirements(&self) -> Vec<Problem> {
        let mut problems = self.hosts_elsewhere();
        problems.extend(self.root_wanted());
        problems
    }

    fn hosts_elsewhere(&self) -> Vec<Problem> {
        if self.options.host.plays.is_some() {
            return Vec::new();
        }
        let here = ["localhost", "127.0.0.1", "all"];
        self.playbook
            .plays
            .iter()
            .filter(|play| match &play.hosts.kind {
                NodeKind::String(hosts) => !here.contains(&hosts.as_str()),
                _ => true,
            })
            .map(|play| {
                Problem::new(
                    "playbook::hosts_elsewhere",
                    &play.hosts.at,
                    format!("play `{}` is for other hosts than this one", play.name),
                    "runs here only with `localhost` or `all`",
                )
                .with_help(
                    "name the inventory that has these hosts (`-i`), or write `hosts: localhost` \
                     and run the agent on the host itself",
                )
            })
            .collect()
    }

    /// `become: true` asks for root: the agent is started as root, it does not change users.
    fn root_wanted(&self) -> Vec<Problem> {
        if nix::unistd::Uid::effective().is_root() {
            return Vec::new();
        }
        self.playbook
            .plays
            .iter()
            .filter_map(root_asked_for)
            .map(|node| {
                Problem::new(
                    "playbook::needs_root",
                    &node.at,
                    "this asks for root, and the agent does not run as root",
                    "asked for here",
                )
                .with_help("run it as root, for example with sudo")
            })
            .collect()
    }
}

/// Where a play asks for root, for all of it or for a task or block.
#[must_use]
pub fn root_asked_for(play: &Play) -> Option<&Node> {
    let own = play.r#become.as_ref().filter(|node| is_true(node));
    own.or_else(|| become_in(&play.items))
}

fn is_true(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Bool(true))
}

/// The first `become: true` of tasks and blocks.
fn become_in(items: &[Item]) -> Option<&Node> {
    items.iter().find_map(|item| {
        let (common, inner) = match item {
            Item::Task(task) => (&task.common, None),
            Item::Block(block) => (&block.common, Some(block)),
        };
        let own = common.r#become.as_ref();
        own.filter(|node| is_true(node)).or_else(|| {
            let block = inner?;
            [&block.block, &block.rescue, &block.always]
                .into_iter()
                .find_map(|items| become_in(items))
        })
    })
}
