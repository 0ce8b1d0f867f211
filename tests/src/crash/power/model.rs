//! What a disk may hold after a power loss: every file operation that was not synced happened, or did
//! not, or half of it did, each independent of the others.
//!
//! Harsher than the filesystems that the agent runs on: POSIX promises no order without a sync. A file's
//! content is safe after a sync of the file, a name after a sync of its directory, nothing else. Only a
//! rename is taken for one step, as ext4, xfs and btrfs do it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use super::trace::{Call, Event};
use crate::crash::random::Random;
use crate::error::LabError;

type Inode = usize;

/// What is below the root: path → content.
pub(super) type Tree = BTreeMap<PathBuf, Node>;

/// What has a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    Directory,
    File(Vec<u8>),
    /// A directory from before, whose inode counts.
    Kept,
}

#[derive(Debug, Clone)]
enum Effect {
    /// A name in a directory means this inode from now on.
    Name(Inode, String, Inode),
    Unname(Inode, String),
    Rename((Inode, String), (Inode, String), Inode),
    Write(Inode, u64, Vec<u8>),
    Length(Inode, u64),
}

#[derive(Debug, Clone)]
struct Operation {
    effect: Effect,
    start: usize,
    end: usize,
    /// The line at whose end it is safe.
    safe_at: usize,
}

/// How much of an operation reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    All,
    /// The first half of the bytes; the file is no longer than that.
    Half,
    /// The file has its new length, its content has not arrived.
    Zeros,
}

/// Every operation of a traced run.
pub(super) struct Model {
    root: PathBuf,
    nodes: Vec<Node>,
    first: HashMap<(Inode, String), Inode>,
    operations: Vec<Operation>,
}

const ROOT: Inode = 0;

impl Model {
    /// Replays a trace on what was there before.
    ///
    /// # Errors
    /// The trace names something that is not there.
    pub(super) fn new(root: &Path, before: &Tree, events: &[Event]) -> Result<Self, LabError> {
        let mut model = Self {
            root: root.to_path_buf(),
            nodes: vec![Node::Directory],
            first: HashMap::new(),
            operations: Vec::new(),
        };
        for (path, node) in before {
            let (directory, name) = model.place(&model.first, &root.join(path))?;
            model.nodes.push(node.clone());
            let inode = model.nodes.len() - 1;
            model.first.insert((directory, name), inode);
        }
        model.replay(events)?;
        Ok(model)
    }

    fn replay(&mut self, events: &[Event]) -> Result<(), LabError> {
        let mut names = self.first.clone();
        let mut lengths: HashMap<Inode, u64> = HashMap::new();
        let mut positions: HashMap<String, (u64, bool)> = HashMap::new();
        for event in events {
            let mut effects = Vec::new();
            match &event.call {
                Call::Open {
                    path,
                    create,
                    truncate,
                    append,
                    descriptor,
                } => {
                    positions.insert(descriptor.clone(), (0, *append));
                    let place = self.place(&names, path)?;
                    match names.get(&place) {
                        Some(inode) if *truncate => {
                            lengths.insert(*inode, 0);
                            effects.push(Effect::Length(*inode, 0));
                        }
                        Some(_) => {}
                        None if *create => {
                            self.nodes.push(Node::File(Vec::new()));
                            effects.push(Effect::Name(place.0, place.1, self.nodes.len() - 1));
                        }
                        None => {}
                    }
                }
                Call::Seek { descriptor, to } => {
                    positions.entry(descriptor.clone()).or_default().0 = *to;
                }
                Call::Write {
                    path,
                    descriptor,
                    bytes,
                    offset,
                } => {
                    let inode = self.find(&names, path)?;
                    let length = lengths
                        .entry(inode)
                        .or_insert_with(|| match &self.nodes[inode] {
                            Node::File(bytes) => bytes.len() as u64,
                            _ => 0,
                        });
                    let position = positions.entry(descriptor.clone()).or_default();
                    let at = offset.unwrap_or(if position.1 { *length } else { position.0 });
                    let end = at + bytes.len() as u64;
                    if offset.is_none() {
                        position.0 = end;
                    }
                    *length = (*length).max(end);
                    effects.push(Effect::Write(inode, at, bytes.clone()));
                }
                Call::Truncate { path, length } => {
                    let inode = self.find(&names, path)?;
                    lengths.insert(inode, *length);
                    effects.push(Effect::Length(inode, *length));
                }
                Call::Mkdir { path } => {
                    let place = self.place(&names, path)?;
                    self.nodes.push(Node::Directory);
                    effects.push(Effect::Name(place.0, place.1, self.nodes.len() - 1));
                }
                Call::Rename { from, to } => {
                    let (from, to) = (self.place(&names, from)?, self.place(&names, to)?);
                    let inode = names.get(&from).copied();
                    let inode = inode.ok_or_else(|| unknown(Path::new(&from.1)))?;
                    effects.push(Effect::Rename(from, to, inode));
                }
                Call::Link { from, to } => {
                    let inode = self.find(&names, from)?;
                    let (directory, name) = self.place(&names, to)?;
                    effects.push(Effect::Name(directory, name, inode));
                }
                Call::Remove { path } => {
                    let (directory, name) = self.place(&names, path)?;
                    effects.push(Effect::Unname(directory, name));
                }
                Call::Sync { path } => {
                    let inode = if *path == self.root {
                        ROOT
                    } else {
                        self.find(&names, path)?
                    };
                    self.make_safe(event, |effect| effect.is_safe_with(inode));
                }
                Call::SyncAll => self.make_safe(event, |_| true),
            }
            for effect in effects {
                apply_name(&mut names, &effect);
                self.operations.push(Operation {
                    effect,
                    start: event.start,
                    end: event.end,
                    safe_at: usize::MAX,
                });
            }
        }
        Ok(())
    }

    /// A sync covers what had ended when it began.
    fn make_safe(&mut self, event: &Event, covers: impl Fn(&Effect) -> bool) {
        for operation in &mut self.operations {
            if operation.end < event.start && covers(&operation.effect) {
                operation.safe_at = operation.safe_at.min(event.end);
            }
        }
    }

    fn place(
        &self,
        names: &HashMap<(Inode, String), Inode>,
        path: &Path,
    ) -> Result<(Inode, String), LabError> {
        let inner = path.strip_prefix(&self.root).map_err(|_| unknown(path))?;
        let mut parts: Vec<String> = inner
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        let last = parts.pop().ok_or_else(|| unknown(path))?;
        let mut inode = ROOT;
        for part in parts {
            inode = *names.get(&(inode, part)).ok_or_else(|| unknown(path))?;
        }
        Ok((inode, last))
    }

    fn find(
        &self,
        names: &HashMap<(Inode, String), Inode>,
        path: &Path,
    ) -> Result<Inode, LabError> {
        let place = self.place(names, path)?;
        names.get(&place).copied().ok_or_else(|| unknown(path))
    }

    /// Number of operations.
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Every different state that a power loss may leave, at most `cap` for each moment; where there are
    /// more, the extremes and a sample. Each with a text that says how it comes about.
    pub(super) fn states(&self, cap: usize, seed: u64) -> (Vec<(String, Tree)>, usize) {
        let mut found: BTreeMap<Tree, String> = BTreeMap::new();
        let mut sampled = 0;
        let mut moments: Vec<usize> = self
            .operations
            .iter()
            .flat_map(|operation| [operation.start, operation.end, operation.safe_at])
            .filter(|line| *line != usize::MAX)
            .collect();
        moments.sort_unstable();
        moments.dedup();
        for moment in moments {
            let pending: Vec<usize> = (0..self.operations.len())
                .filter(|index| {
                    let operation = &self.operations[*index];
                    operation.start <= moment && operation.safe_at > moment
                })
                .collect();
            let (choices, all) = self.choices(&pending, cap, seed ^ moment as u64);
            sampled += usize::from(!all);
            for choice in choices {
                let tree = self.tree(moment, &pending, &choice);
                let text = || format!("line {moment} of the trace, {choice:?} of {pending:?}");
                found.entry(tree).or_insert_with(text);
            }
        }
        let states = found.into_iter().map(|(tree, text)| (text, tree)).collect();
        (states, sampled)
    }

    /// What may have become of the pending operations, and whether these are all combinations.
    fn choices(&self, pending: &[usize], cap: usize, seed: u64) -> (Vec<Vec<Part>>, bool) {
        let parts = |index: usize| match self.operations[index].effect {
            Effect::Write(..) => &[Part::None, Part::All, Part::Half, Part::Zeros][..],
            _ => &[Part::None, Part::All][..],
        };
        let product = pending.iter().try_fold(1usize, |product, index| {
            product.checked_mul(parts(*index).len())
        });
        if product.is_some_and(|product| product <= cap) {
            let mut all = vec![Vec::new()];
            for index in pending {
                all = all
                    .into_iter()
                    .flat_map(|choice: Vec<Part>| {
                        parts(*index).iter().map(move |part| {
                            let mut choice = choice.clone();
                            choice.push(*part);
                            choice
                        })
                    })
                    .collect();
            }
            return (all, true);
        }
        let count = pending.len();
        let mut some = vec![vec![Part::None; count], vec![Part::All; count]];
        // The newest are what a crash is most likely to cut.
        for at in count.saturating_sub(4)..count {
            for part in parts(pending[at]) {
                for rest in [Part::None, Part::All] {
                    let mut choice = vec![rest; count];
                    choice[at] = *part;
                    some.push(choice);
                }
            }
        }
        let mut random = Random::new(seed, 0);
        while some.len() < cap {
            let choose = |index: &usize| {
                let parts = parts(*index);
                parts[usize::try_from(random.below(parts.len() as u64)).unwrap_or(0)]
            };
            some.push(pending.iter().map(choose).collect());
        }
        (some, false)
    }

    fn tree(&self, moment: usize, pending: &[usize], choice: &[Part]) -> Tree {
        let mut names = self.first.clone();
        let mut nodes = self.nodes.clone();
        for (index, operation) in self.operations.iter().enumerate() {
            let part = match pending.iter().position(|other| *other == index) {
                Some(at) => choice[at],
                None if operation.safe_at <= moment => Part::All,
                None => Part::None,
            };
            if part == Part::None {
                continue;
            }
            apply_name(&mut names, &operation.effect);
            apply_content(&mut nodes, &operation.effect, part);
        }
        let mut tree = Tree::new();
        let mut open = vec![(ROOT, PathBuf::new())];
        while let Some((directory, path)) = open.pop() {
            for ((_, name), inode) in names.iter().filter(|((parent, _), _)| *parent == directory) {
                let path = path.join(name);
                if nodes[*inode] == Node::Directory {
                    open.push((*inode, path.clone()));
                }
                tree.insert(path, nodes[*inode].clone());
            }
        }
        tree
    }
}

impl Effect {
    /// A sync of this file or directory makes it safe.
    fn is_safe_with(&self, synced: Inode) -> bool {
        match self {
            Self::Name(directory, ..) | Self::Unname(directory, _) => *directory == synced,
            Self::Rename(_, (directory, _), _) => *directory == synced,
            Self::Write(inode, ..) | Self::Length(inode, _) => *inode == synced,
        }
    }
}

fn apply_name(names: &mut HashMap<(Inode, String), Inode>, effect: &Effect) {
    match effect {
        Effect::Name(directory, name, inode) => {
            names.insert((*directory, name.clone()), *inode);
        }
        Effect::Unname(directory, name) => {
            names.remove(&(*directory, name.clone()));
        }
        Effect::Rename(from, to, inode) => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
        Effect::Write(..) | Effect::Length(..) => {}
    }
}

fn apply_content(nodes: &mut [Node], effect: &Effect, part: Part) {
    match effect {
        Effect::Write(inode, at, bytes) => {
            let Node::File(content) = &mut nodes[*inode] else {
                return;
            };
            let bytes = match part {
                Part::Half => bytes[..bytes.len() / 2].to_vec(),
                Part::Zeros => vec![0; bytes.len()],
                _ => bytes.clone(),
            };
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Effect::Length(inode, length) => {
            if let Node::File(content) = &mut nodes[*inode] {
                content.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0);
            }
        }
        _ => {}
    }
}

fn unknown(path: &Path) -> LabError {
    LabError::Unexpected(format!(
        "the trace names {}, which is not there in the model",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: usize, call: Call) -> Event {
        Event {
            start: line,
            end: line,
            call,
        }
    }

    /// A file is made and written, then what is given follows.
    fn states_after(more: Vec<Call>) -> Vec<Tree> {
        let mut calls = vec![
            Call::Open {
                path: "/r/f".into(),
                create: true,
                truncate: false,
                append: false,
                descriptor: "3".into(),
            },
            Call::Write {
                path: "/r/f".into(),
                descriptor: "3".into(),
                bytes: b"ab".to_vec(),
                offset: None,
            },
        ];
        calls.extend(more);
        let events: Vec<Event> = calls
            .into_iter()
            .enumerate()
            .map(|(at, call)| event(at, call))
            .collect();
        let model = Model::new(Path::new("/r"), &Tree::new(), &events).expect("a model");
        // The states at the end alone.
        let last = events.len();
        let pending: Vec<usize> = (0..model.len())
            .filter(|index| model.operations[*index].safe_at > last)
            .collect();
        let (choices, _) = model.choices(&pending, 64, 1);
        let mut trees: Vec<Tree> = choices
            .iter()
            .map(|choice| model.tree(last, &pending, choice))
            .collect();
        trees.sort();
        trees.dedup();
        trees
    }

    fn file(content: &[u8]) -> Tree {
        Tree::from([("f".into(), Node::File(content.to_vec()))])
    }

    #[test]
    fn nothing_is_safe_without_a_sync() {
        let expected = [
            Tree::new(),
            file(b""),
            file(b"\0\0"),
            file(b"a"),
            file(b"ab"),
        ];
        assert_eq!(states_after(vec![]), expected);
    }

    #[test]
    fn a_synced_file_may_still_lack_its_name() {
        let synced = Call::Sync {
            path: "/r/f".into(),
        };
        assert_eq!(states_after(vec![synced]), [Tree::new(), file(b"ab")]);
    }

    #[test]
    fn a_name_without_a_synced_file_may_lack_its_content() {
        let synced = Call::Sync { path: "/r".into() };
        let expected = [file(b""), file(b"\0\0"), file(b"a"), file(b"ab")];
        assert_eq!(states_after(vec![synced]), expected);
    }

    #[test]
    fn both_synced_is_safe() {
        let synced = ["/r/f", "/r"].map(|path| Call::Sync { path: path.into() });
        assert_eq!(states_after(synced.to_vec()), [file(b"ab")]);
        assert_eq!(states_after(vec![Call::SyncAll]), [file(b"ab")]);
    }
}
