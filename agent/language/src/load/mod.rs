//! Playbook files -> [`Playbook`]: plays, tasks, blocks, includes, variables files.
//!
//! Collects everything that is wrong in all files instead of stopping at the first mistake. What can
//! be judged only with the modules' schemas or the names of variables is left to
//! [`validate`](mod@super::validate).

mod declared;
mod fields;
mod fleet;
mod include;
mod keywords;
mod module_args;
mod play;
mod probe;
mod service;
mod task;

pub(crate) use self::keywords::WITHOUT_EFFECT;
pub(crate) use self::task::LOOPS;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::model::{FleetOnly, Node, Playbook};
use super::template::Templates;
use super::yaml;
use crate::modules::registry;
use crate::source::{Location, Problem, SourceFile, closest, shown};
use crate::task::module::ModuleSpec;
use crate::vault::Vault;

/// The modules that a playbook may use.
#[derive(Debug, Clone, Copy)]
pub struct Catalog(&'static [ModuleSpec]);

impl Catalog {
    /// A catalogue of other modules than the registry's.
    #[must_use]
    pub fn new(modules: &'static [ModuleSpec]) -> Self {
        Self(modules)
    }

    /// Finds a module by its short or a fully-qualified name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static ModuleSpec> {
        self.0
            .iter()
            .find(|module| module.name == name || module.aliases.contains(&name))
    }

    /// Returns the modules' short names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.0.iter().map(|module| module.name)
    }
}

impl Default for Catalog {
    /// The registry's modules.
    fn default() -> Self {
        Self(registry::all())
    }
}

/// What loading needs beside the file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Modules that tasks may use.
    pub catalog: Catalog,
    /// Extra variables (`-e`), for templates in the paths of `vars_files`.
    pub extra_vars: Map<String, Value>,
    /// Where they stand, as far as that is known.
    pub extra_places: BTreeMap<String, Location>,
    /// Passwords for what is encrypted.
    pub vault: Vault,
}

/// What loading got out of the files, mistakes included.
pub(super) struct Loaded {
    pub playbook: Playbook,
    pub problems: Vec<Problem>,
    /// Names that parts which could not be read may define.
    pub defined_elsewhere: HashSet<String>,
    /// Whether a file that may define names could not be read.
    pub names_incomplete: bool,
    /// Files of tasks that could not be read: what they register is not known.
    pub unread_tasks: Vec<PathBuf>,
}

/// Reads a playbook and everything it includes.
///
/// # Errors
/// Everything that is wrong in any of the files, in the order of the files; also when the playbook
/// itself cannot be read.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Playbook, Vec<Problem>> {
    let loaded = load_what_can_be(path, options);
    if loaded.problems.is_empty() {
        Ok(loaded.playbook)
    } else {
        Err(loaded.problems)
    }
}

/// Reads as much as can be read.
pub(super) fn load_what_can_be(path: &Path, options: &LoadOptions) -> Loaded {
    let mut loader = Loader {
        options,
        templates: Templates::new(),
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        sources: Vec::new(),
        problems: Vec::new(),
        reading: Vec::new(),
        defined_elsewhere: HashSet::new(),
        names_incomplete: false,
        unread_tasks: Vec::new(),
        fleet_only: Vec::new(),
    };
    let plays = loader.main_file(path);
    Loaded {
        playbook: Playbook {
            path: path.to_owned(),
            plays,
            sources: loader.sources,
            fleet_only: loader.fleet_only,
        },
        problems: loader.problems,
        defined_elsewhere: loader.defined_elsewhere,
        names_incomplete: loader.names_incomplete,
        unread_tasks: loader.unread_tasks,
    }
}

struct Loader<'a> {
    options: &'a LoadOptions,
    templates: Templates,
    /// The main playbook's folder.
    folder: PathBuf,
    sources: Vec<Arc<SourceFile>>,
    problems: Vec<Problem>,
    /// Files that are being read, outermost first: a file among them includes itself.
    reading: Vec<PathBuf>,
    defined_elsewhere: HashSet<String>,
    names_incomplete: bool,
    unread_tasks: Vec<PathBuf>,
    fleet_only: Vec<FleetOnly>,
}

impl Loader<'_> {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reads and parses a file; `None` after noting what is wrong. Without `named_at` the file itself
    /// is blamed.
    fn file(&mut self, path: &Path, what: &str, named_at: Option<&Location>) -> Option<Node> {
        let text = match read(path) {
            Ok(text) => text,
            Err(reason) => {
                let at = named_at.cloned().unwrap_or_else(|| Location {
                    file: Arc::new(SourceFile {
                        path: path.to_owned(),
                        text: String::new(),
                    }),
                    start: 0,
                    end: 0,
                });
                self.problem(Problem::new(
                    "playbook::file",
                    &at,
                    format!("cannot read the {what} {}: {reason}", shown(path)),
                    "this file",
                ));
                self.names_incomplete = true;
                return None;
            }
        };
        // A file that is read twice (variables of two plays) is one source.
        let known = self
            .sources
            .iter()
            .find(|source| source.path == path && source.text == text);
        let file = match known {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(SourceFile {
                    path: path.to_owned(),
                    text,
                });
                self.sources.push(Arc::clone(&file));
                file
            }
        };
        match yaml::parse_with(&file, &self.options.vault) {
            Ok(node) => Some(node),
            Err(problems) => {
                for problem in problems {
                    // The same file, included twice, is wrong once.
                    let repeated = self
                        .problems
                        .iter()
                        .any(|known| known.at == problem.at && known.code == problem.code);
                    if !repeated {
                        self.problem(problem);
                    }
                }
                self.names_incomplete = true;
                None
            }
        }
    }

    /// Reports keys that nobody took: unsupported ones with what to do, others with a near miss.
    fn leftover(
        &mut self,
        what: &str,
        key: &str,
        at: &Location,
        known: &[&[&'static str]],
        modules: bool,
    ) {
        if let Some(help) = keywords::unsupported(key) {
            self.problem(
                Problem::new(
                    "playbook::unsupported",
                    at,
                    format!("`{key}` is not supported here"),
                    "not supported",
                )
                .with_help(help),
            );
            return;
        }
        let names = known.iter().copied().flatten().copied();
        let near = if modules {
            let modules = self.options.catalog.names();
            closest(key, names.chain(modules))
        } else {
            closest(key, names)
        };
        let message = if modules {
            format!("`{key}` is neither a module nor a keyword of a task")
        } else {
            format!("`{key}` is not a keyword of {what}")
        };
        let code = if modules {
            "playbook::unknown_module"
        } else {
            "playbook::unknown_keyword"
        };
        self.problem(
            Problem::new(code, at, message, "not known")
                .with_optional_help(near.map(|near| format!("did you mean `{near}`?"))),
        );
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        format!(
            "it is not UTF-8 text (byte {})",
            error.utf8_error().valid_up_to()
        )
    })
}
