//! `group_vars/` and `host_vars/` beside the sources.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::model::extend;
use super::{sources, yaml};
use crate::source::Problem;

/// Files of variables in the folders of the sources, each read once.
#[derive(Default)]
pub(super) struct VarsFiles {
    folders: Vec<PathBuf>,
    read: HashMap<PathBuf, Map<String, Value>>,
    pub problems: Vec<Problem>,
}

impl VarsFiles {
    pub fn folder(&mut self, folder: &Path) {
        if !self.folders.iter().any(|known| known == folder) {
            self.folders.push(folder.to_path_buf());
        }
    }

    /// Sets the variables of groups, given from weak to strong; a later folder wins over an earlier one.
    pub fn add_groups(&mut self, names: &[&str], vars: &mut Map<String, Value>) {
        for folder in 0..self.folders.len() {
            for name in names {
                self.add(folder, "group_vars", name, vars);
            }
        }
    }

    /// Sets the variables of a host.
    pub fn add_host(&mut self, name: &str, vars: &mut Map<String, Value>) {
        for folder in 0..self.folders.len() {
            self.add(folder, "host_vars", name, vars);
        }
    }

    fn add(&mut self, folder: usize, kind: &str, name: &str, vars: &mut Map<String, Value>) {
        let base = self.folders[folder].join(kind).join(name);
        if !self.read.contains_key(&base) {
            let found = self.load(&base);
            self.read.insert(base.clone(), found);
        }
        if let Some(found) = self.read.get(&base) {
            extend(vars, found);
        }
    }

    /// Reads `NAME` (a folder or a file), else `NAME.yml`, else `NAME.yaml`, else `NAME.json`.
    fn load(&mut self, base: &Path) -> Map<String, Value> {
        let mut vars = Map::new();
        for ending in ["", ".yml", ".yaml", ".json"] {
            let mut path = base.as_os_str().to_owned();
            path.push(ending);
            let path = PathBuf::from(path);
            if path.is_dir() {
                self.load_folder(&path, &mut vars);
                break;
            }
            if path.exists() {
                self.load_file(&path, &mut vars);
                break;
            }
        }
        vars
    }

    fn load_folder(&mut self, folder: &Path, vars: &mut Map<String, Value>) {
        let entries = match sources::entries(folder) {
            Ok(entries) => entries,
            Err(problem) => {
                self.problems.push(problem);
                return;
            }
        };
        for (name, path) in entries {
            if name.starts_with('.') || name.ends_with('~') {
                continue;
            }
            let ending = path.extension().map(|ending| ending.to_string_lossy());
            match ending.as_deref() {
                None if path.is_dir() => self.load_folder(&path, vars),
                None | Some("yml" | "yaml" | "json") if path.is_file() => {
                    self.load_file(&path, vars)
                }
                _ => {}
            }
        }
    }

    fn load_file(&mut self, path: &Path, vars: &mut Map<String, Value>) {
        let read = sources::text(path)
            .map_err(|problem| vec![problem])
            .and_then(|file| yaml::variables(&file));
        match read {
            Ok(found) => extend(vars, &found),
            Err(problems) => self.problems.extend(problems),
        }
    }
}
