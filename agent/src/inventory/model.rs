//! Hosts and groups while they are read, and how they are put together.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::vars_files::VarsFiles;
use super::{ALL, Host, Inventory, LOCAL, UNGROUPED};
use crate::source::Problem;

/// What all sources said so far. Groups and hosts are known by their index, in the order in which they
/// were first met, because Ansible's order of hosts depends on it.
pub(super) struct Draft {
    hosts: Vec<DraftHost>,
    host_index: HashMap<String, usize>,
    groups: Vec<DraftGroup>,
    group_index: HashMap<String, usize>,
}

struct DraftHost {
    name: String,
    vars: Map<String, Value>,
}

struct DraftGroup {
    name: String,
    /// In the order of the file.
    hosts: Vec<usize>,
    /// The same: ranges make tens of thousands of them.
    has: HashSet<usize>,
    children: Vec<usize>,
    vars: Map<String, Value>,
    priority: i64,
}

impl Draft {
    pub fn new() -> Self {
        let mut draft = Self {
            hosts: Vec::new(),
            host_index: HashMap::new(),
            groups: Vec::new(),
            group_index: HashMap::new(),
        };
        let all = draft.group(ALL);
        let ungrouped = draft.group(UNGROUPED);
        draft.groups[all].children.push(ungrouped);
        draft
    }

    /// The group's index; makes it where there is none yet.
    pub fn group(&mut self, name: &str) -> usize {
        if let Some(index) = self.group_index.get(name) {
            return *index;
        }
        let index = self.groups.len();
        self.groups.push(DraftGroup {
            name: name.to_owned(),
            hosts: Vec::new(),
            has: HashSet::new(),
            children: Vec::new(),
            vars: Map::new(),
            priority: 1,
        });
        self.group_index.insert(name.to_owned(), index);
        index
    }

    pub fn has_group(&self, name: &str) -> bool {
        self.group_index.contains_key(name)
    }

    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }

    /// Adds a host to a group, and variables to the host.
    pub fn host(&mut self, group: usize, name: &str, vars: &Map<String, Value>) {
        let index = match self.host_index.get(name) {
            Some(index) => *index,
            None => {
                self.hosts.push(DraftHost {
                    name: name.to_owned(),
                    vars: Map::new(),
                });
                self.host_index
                    .insert(name.to_owned(), self.hosts.len() - 1);
                self.hosts.len() - 1
            }
        };
        extend(&mut self.hosts[index].vars, vars);
        let group = &mut self.groups[group];
        if group.has.insert(index) {
            group.hosts.push(index);
        }
    }

    /// Sets a variable of a group.
    ///
    /// # Errors
    /// What the value must be.
    pub fn group_var(
        &mut self,
        group: usize,
        name: &str,
        value: Value,
    ) -> Result<(), &'static str> {
        let group = &mut self.groups[group];
        if name != "ansible_group_priority" {
            group.vars.insert(name.to_owned(), value);
            return Ok(());
        }
        let priority = match &value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        };
        group.priority = priority.ok_or("must be a whole number")?;
        Ok(())
    }

    /// Puts a group into another; `false` where it would then contain itself.
    pub fn child(&mut self, parent: usize, child: usize) -> bool {
        let is_all = self.groups[child].name == ALL;
        if is_all || self.descendants(child).contains(&parent) {
            return false;
        }
        let children = &mut self.groups[parent].children;
        if !children.contains(&child) {
            children.push(child);
        }
        true
    }

    /// The group and all within it, level by level.
    fn descendants(&self, group: usize) -> Vec<usize> {
        let mut found = vec![group];
        let mut seen = HashSet::from([group]);
        let mut next = 0;
        while let Some(group) = found.get(next).copied() {
            next += 1;
            for child in &self.groups[group].children {
                if seen.insert(*child) {
                    found.push(*child);
                }
            }
        }
        found
    }

    /// Hosts of a group and of all within it.
    fn members(&self, group: usize) -> Vec<usize> {
        let mut seen = HashSet::new();
        self.descendants(group)
            .into_iter()
            .flat_map(|group| &self.groups[group].hosts)
            .copied()
            .filter(|host| seen.insert(*host))
            .collect()
    }

    /// Puts groups without a parent below `all`, and hosts without a group into `ungrouped`.
    fn complete(&mut self) {
        let (all, ungrouped) = (self.group(ALL), self.group(UNGROUPED));
        let below: HashSet<usize> = self
            .groups
            .iter()
            .flat_map(|group| group.children.iter().copied())
            .collect();
        for group in 0..self.groups.len() {
            if group != all && !below.contains(&group) {
                self.groups[all].children.push(group);
            }
        }
        let grouped: HashSet<usize> = (0..self.groups.len())
            .filter(|group| *group != all && *group != ungrouped)
            .flat_map(|group| self.groups[group].hosts.iter().copied())
            .collect();
        let known: HashSet<usize> = self.groups[ungrouped].hosts.iter().copied().collect();
        let hosts = &mut self.groups[ungrouped].hosts;
        hosts.retain(|host| !grouped.contains(host));
        hosts.extend(
            (0..self.hosts.len()).filter(|host| !grouped.contains(host) && !known.contains(host)),
        );
    }

    /// How far each group lies below `all` on the longest way. There are no circles.
    fn depths(&self) -> Vec<usize> {
        let mut waiting_for = vec![0_usize; self.groups.len()];
        for child in self.groups.iter().flat_map(|group| &group.children) {
            waiting_for[*child] += 1;
        }
        let mut depths = vec![0; self.groups.len()];
        let mut ready: Vec<usize> = (0..self.groups.len())
            .filter(|group| waiting_for[*group] == 0)
            .collect();
        while let Some(group) = ready.pop() {
            for child in &self.groups[group].children {
                depths[*child] = depths[*child].max(depths[group] + 1);
                waiting_for[*child] -= 1;
                if waiting_for[*child] == 0 {
                    ready.push(*child);
                }
            }
        }
        depths
    }

    /// Puts everything together; `files` are the folders whose `group_vars/` and `host_vars/` count.
    pub fn finish(mut self, mut files: VarsFiles) -> Result<Inventory, Vec<Problem>> {
        self.complete();
        let all = self.group(ALL);
        let depths = self.depths();
        let members: Vec<Vec<usize>> = (0..self.groups.len())
            .map(|group| self.members(group))
            .collect();
        // From weak to strong: outer groups first, then by priority, then by name.
        let mut order: Vec<usize> = (0..self.groups.len())
            .filter(|group| *group != all)
            .collect();
        order.sort_by_key(|group| {
            let own = &self.groups[*group];
            (depths[*group], own.priority, own.name.clone())
        });
        let mut groups_of = vec![Vec::new(); self.hosts.len()];
        for group in &order {
            for host in &members[*group] {
                groups_of[*host].push(*group);
            }
        }

        let mut entries = BTreeMap::new();
        for (host, groups) in self.hosts.iter().zip(&groups_of) {
            let mut vars = self.groups[all].vars.clone();
            for group in groups {
                extend(&mut vars, &self.groups[*group].vars);
            }
            files.add_groups(&[ALL], &mut vars);
            let names: Vec<&str> = groups
                .iter()
                .map(|group| self.groups[*group].name.as_str())
                .collect();
            files.add_groups(&names, &mut vars);
            extend(&mut vars, &host.vars);
            files.add_host(&host.name, &mut vars);
            let mut group_names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            group_names.sort_unstable();
            entries.insert(
                host.name.clone(),
                Host {
                    name: host.name.clone(),
                    vars,
                    group_names,
                },
            );
        }
        let mut local = BTreeMap::new();
        for name in LOCAL {
            let mut vars = self.groups[all].vars.clone();
            files.add_groups(&[ALL], &mut vars);
            vars.insert("ansible_connection".into(), "local".into());
            files.add_host(name, &mut vars);
            local.insert(name.to_owned(), vars);
        }
        if !files.problems.is_empty() {
            return Err(files.problems);
        }
        let named = |hosts: &[usize]| -> Vec<String> {
            hosts
                .iter()
                .map(|host| self.hosts[*host].name.clone())
                .collect()
        };
        Ok(Inventory {
            hosts: named(&members[all]),
            groups: self
                .groups
                .iter()
                .zip(&members)
                .map(|(group, hosts)| (group.name.clone(), named(hosts)))
                .collect(),
            entries,
            local,
        })
    }
}

/// Sets variables, the new ones over the old.
pub(super) fn extend(vars: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, value) in more {
        vars.insert(name.clone(), value.clone());
    }
}
