//! Which hosts a command is for, and which plays are for which of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::args::{HostsArgs, PlaybookArgs};
use super::super::exit::Failure;
use super::super::extra_vars::ExtraVars;
use super::super::locate;
use super::batches::Batches;
use crate::engine::root_asked_for;
use crate::inventory::Inventory;
use crate::playbook::KnownNames;
use crate::playbook::model::{FleetOnly, NodeKind, Play};
use crate::remote::{HostOrder, Target};
use crate::source::Problem;
use crate::vault::Vault;

/// Variables that say how a host is reached: they are the controller's, and hold what is nobody else's
/// business.
const CONNECTION: [&str; 4] = [
    "ansible_ssh_",
    "ansible_become",
    "ansible_connection",
    "ansible_port",
];

/// A host that a command is for.
pub(super) struct Chosen {
    /// As the inventory describes it.
    pub host: HostOrder,
    /// How it is reached.
    pub target: Target,
}

impl Chosen {
    /// `kaapana_agent_state`: where the host keeps its state instead.
    pub(super) fn state_dir(&self) -> Option<String> {
        let dir = self.host.vars.get("kaapana_agent_state")?;
        dir.as_str().map(str::to_owned)
    }
}

/// The hosts of a command, and how a run goes over them.
pub(super) struct Choice {
    /// In the inventory's order.
    pub hosts: Vec<Chosen>,
    /// What the plays say about several hosts.
    pub batches: Batches,
}

/// Reads the inventory and finds the hosts that a play is for.
pub(super) fn choose(
    args: &PlaybookArgs,
    hosts: &HostsArgs,
    extra: &ExtraVars,
    vault: &Vault,
) -> Result<Choice, Failure> {
    let inventory = Inventory::read(&hosts.inventory).map_err(Failure::Problems)?;
    let checked =
        locate::playbook_with(args, extra, &known_names(&inventory, &extra.values), vault)?;
    let playbook = &checked.playbook.plays;
    let batches = Batches::of(playbook).map_err(Failure::Problems)?;
    let mut plays = plays_by_host(playbook, &inventory)?;
    if let Some(limit) = &hosts.limit {
        let limit = inventory.select(limit).map_err(|error| {
            Failure::other(
                "inventory::limit",
                format!("--limit: {error}"),
                &error.help(),
            )
        })?;
        plays.retain(|name, _| limit.contains(name));
    }
    if plays.is_empty() {
        return Err(Failure::other(
            "inventory::no_hosts",
            "no play is for any of the hosts that are left",
            "compare `hosts:` of the plays, the inventory and --limit",
        ));
    }
    // `localhost` may be in no inventory.
    let mut names: Vec<String> = inventory.hosts().to_vec();
    names.extend(
        plays
            .keys()
            .filter(|name| !inventory.hosts().contains(name))
            .cloned(),
    );
    let groups = inventory.groups();
    let mut chosen = Vec::new();
    for name in names {
        let Some(plays) = plays.remove(&name) else {
            continue;
        };
        let (mut vars, group_names) = inventory
            .host(&name)
            .map_or_else(Default::default, |host| (host.vars, host.group_names));
        let mut target = Target::of(&name, &vars).map_err(|(variable, why)| {
            Failure::other(
                "inventory::connection",
                format!("host {name}: `{variable}`: {why}"),
                "change it in the inventory, or in group_vars and host_vars beside it",
            )
        })?;
        target.local |= name == "localhost" && !vars.contains_key("ansible_connection");
        let mut own = plays.iter().filter_map(|number| playbook.get(*number));
        target.r#become |= hosts.r#become || own.any(|play| root_asked_for(play).is_some());
        vars.retain(|key, _| !CONNECTION.iter().any(|prefix| key.starts_with(prefix)));
        let host = HostOrder {
            address: target.address.clone(),
            name,
            group_names,
            groups: groups.clone(),
            vars,
            plays,
        };
        chosen.push(Chosen { host, target });
    }
    let unfit = &checked.playbook.fleet_only;
    if chosen.len() > 1 && !unfit.is_empty() {
        let problems = unfit.iter().map(FleetOnly::problem);
        return Err(Failure::Problems(problems.collect()));
    }
    Ok(Choice {
        hosts: chosen,
        batches,
    })
}

/// Names that `-e` or the inventory defines, for whichever host.
fn known_names(inventory: &Inventory, extra: &Map<String, Value>) -> KnownNames {
    let mut known = KnownNames::of(extra);
    let hosts = inventory.hosts().iter();
    for host in hosts.filter_map(|name| inventory.host(name)) {
        known
            .names
            .extend(host.vars.into_iter().map(|(name, _)| name));
    }
    known
}

/// The numbers of the plays that are for each host.
fn plays_by_host(
    playbook: &[Play],
    inventory: &Inventory,
) -> Result<BTreeMap<String, Vec<usize>>, Failure> {
    let mut plays: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (number, play) in playbook.iter().enumerate() {
        match hosts_of(play, inventory) {
            Ok(names) => {
                for name in names {
                    plays.entry(name).or_default().push(number);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(plays)
    } else {
        Err(Failure::Problems(problems))
    }
}

fn hosts_of(play: &Play, inventory: &Inventory) -> Result<Vec<String>, Problem> {
    let pattern = match &play.hosts.kind {
        NodeKind::String(text) => text.clone(),
        NodeKind::Sequence(items) => {
            let texts = items.iter().filter_map(|item| match &item.kind {
                NodeKind::String(text) => Some(text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    if pattern.contains("{{") {
        return Err(Problem::new(
            "inventory::pattern",
            &play.hosts.at,
            "templates in `hosts` are not supported",
            "a template",
        )
        .with_help("name a group, and choose with --limit"));
    }
    inventory.select(&pattern).map_err(|error| {
        Problem::new(
            "inventory::pattern",
            &play.hosts.at,
            error.to_string(),
            "this pattern",
        )
        .with_help(error.help())
    })
}
