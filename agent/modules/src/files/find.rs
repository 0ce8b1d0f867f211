//! `find`: what lies below directories, by name, age, size and content.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::stat::{Algorithm, checksum, describe};
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::blocking::blocking;
use crate::host::files::durable::mode_of;
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::files::mode::Mode;
use crate::host::glob::regex_of;
use crate::python_regex;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Lists files or directories below some directories.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindModule {
    /// Directories to look in.
    #[serde(alias = "name", alias = "path")]
    #[schemars(extend("aliases" = ["name", "path"]))]
    paths: Vec<PathBuf>,
    /// Names that count: shell patterns, or expressions with `use_regex`; one is enough.
    #[serde(default, alias = "pattern")]
    #[schemars(extend("aliases" = ["pattern"]))]
    patterns: Vec<String>,
    /// Names that do not count.
    #[serde(default, alias = "exclude")]
    #[schemars(extend("aliases" = ["exclude"]))]
    excludes: Vec<String>,
    /// `patterns` and `excludes` are regular expressions. Default: false.
    #[serde(default)]
    use_regex: bool,
    /// Goes down into directories. Default: false.
    #[serde(default)]
    recurse: bool,
    /// How deep; 1 is the directory itself.
    #[serde(default)]
    depth: Option<usize>,
    /// `file` (default), `directory`, `link` or `any`.
    #[serde(default)]
    file_type: FileType,
    /// Names that begin with a dot count as well. Default: false.
    #[serde(default)]
    hidden: bool,
    /// Goes down into directories behind links. Default: false.
    #[serde(default)]
    follow: bool,
    /// Older than this, or, with a minus, younger: `1d`, `-2h`, seconds without a unit (`s m h d w`).
    #[serde(default)]
    age: Option<String>,
    /// Which time counts: `mtime` (default), `atime` or `ctime`.
    #[serde(default)]
    age_stamp: Stamp,
    /// At least this large, or, with a minus, at most: `10m`, bytes without a unit (`b k m g t`).
    #[serde(default)]
    size: Option<String>,
    /// Regular expression that a line of the file matches from its beginning.
    #[serde(default)]
    contains: Option<String>,
    /// `contains` looks at the whole file, anywhere in it. Default: false.
    #[serde(default)]
    read_whole_file: bool,
    /// Adds the hash of each file. Default: false.
    #[serde(default)]
    get_checksum: bool,
    /// `sha1` (default), `md5`, `sha224`, `sha256`, `sha384` or `sha512`.
    #[serde(default, alias = "checksum", alias = "checksum_algo")]
    #[schemars(extend("aliases" = ["checksum", "checksum_algo"]))]
    checksum_algorithm: Algorithm,
    /// Mode that counts: these bits exactly, or, with `exact_mode: false`, at least these.
    #[serde(default)]
    mode: Option<Mode>,
    /// See `mode`. Default: true.
    #[serde(default = "yes")]
    exact_mode: bool,
    /// Ends the search when so many were found.
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FileType {
    #[default]
    File,
    Directory,
    Link,
    Any,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Stamp {
    #[default]
    Mtime,
    Atime,
    Ctime,
}

fn yes() -> bool {
    true
}

/// What a search goes by, its texts already understood.
struct Search<'a> {
    of: &'a FindModule,
    patterns: Vec<Regex>,
    excludes: Vec<Regex>,
    contains: Option<Regex>,
    age: Option<i64>,
    size: Option<i64>,
    now: i64,
    files: Vec<Value>,
    examined: u64,
    skipped: Map<String, Value>,
}

fn number_with_unit(argument: &str, text: &str, units: &[(char, i64)]) -> FilesResult<i64> {
    let text = text.trim().to_ascii_lowercase();
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let factor = match unit {
        None => Some(1),
        Some(unit) => units
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, f)| *f),
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    match (digits.parse::<i64>(), factor) {
        (Ok(number), Some(factor)) => Ok(number.saturating_mul(factor)),
        _ => Err(FilesError::argument(format!("`{argument}`: `{text}` is not understood")).into()),
    }
}

const AGES: &[(char, i64)] = &[
    ('s', 1),
    ('m', 60),
    ('h', 3600),
    ('d', 86_400),
    ('w', 604_800),
];
const SIZES: &[(char, i64)] = &[
    ('b', 1),
    ('k', 1 << 10),
    ('m', 1 << 20),
    ('g', 1 << 30),
    ('t', 1 << 40),
];

impl FindModule {
    fn search(&self) -> FilesResult<Search<'_>> {
        let wrong =
            |argument: &str, reason: &str| FilesError::argument(format!("`{argument}`: {reason}"));
        let names = |argument: &str, list: &[String]| -> FilesResult<Vec<Regex>> {
            let mut all = Vec::new();
            for pattern in list {
                let source = match self.use_regex {
                    // As in Ansible, an expression must match from the name's beginning.
                    true => format!(r"\A(?:{pattern})"),
                    false => regex_of(pattern),
                };
                let built = python_regex::build(&source, |_| {});
                all.push(built.map_err(|reason| wrong(argument, reason))?);
            }
            Ok(all)
        };
        let contains = match &self.contains {
            None => None,
            Some(source) => {
                let source = match self.read_whole_file {
                    true => source.clone(),
                    false => format!(r"\A(?:{source})"),
                };
                let built = python_regex::build(&source, |_| {});
                Some(built.map_err(|reason| wrong("contains", reason))?)
            }
        };
        let age = self
            .age
            .as_deref()
            .map(|age| number_with_unit("age", age, AGES));
        let size = self
            .size
            .as_deref()
            .map(|size| number_with_unit("size", size, SIZES));
        Ok(Search {
            patterns: names("patterns", &self.patterns)?,
            excludes: names("excludes", &self.excludes)?,
            contains,
            age: age.transpose()?,
            size: size.transpose()?,
            now: Timestamp::now().as_second(),
            files: Vec::new(),
            examined: 0,
            skipped: Map::new(),
            of: self,
        })
    }

    fn run(&self, ctx: &TaskContext) -> FilesResult<Outcome> {
        let mut search = self.search()?;
        for path in &self.paths {
            let path = ctx.resolve(path);
            if !path.is_dir() {
                let name = path.display().to_string();
                let reason = format!("'{name}' is not a directory");
                search.skipped.insert(name, reason.into());
                continue;
            }
            search.below(ctx, &path, 1)?;
        }
        let matched = search.files.len();
        let message = match search.skipped.is_empty() {
            true => "All paths examined",
            false => "Not all paths examined, check warnings for details",
        };
        Ok(Outcome::ok()
            .with("files", search.files)
            .with("matched", matched)
            .with("examined", search.examined)
            .with("skipped_paths", search.skipped)
            .with("msg", message)
            .summary(format!("{matched} found")))
    }
}

impl Search<'_> {
    fn full(&self) -> bool {
        self.of.limit.is_some_and(|limit| self.files.len() >= limit)
    }

    fn below(&mut self, ctx: &TaskContext, dir: &Path, depth: usize) -> FilesResult<()> {
        if ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        let listed = match fs::read_dir(dir) {
            Ok(listed) => listed,
            // What may not be read is told and passed over, as in Ansible.
            Err(error) => {
                let name = dir.display().to_string();
                self.skipped.insert(name, error.to_string().into());
                return Ok(());
            }
        };
        let mut names = BTreeMap::new();
        for entry in listed {
            let entry = entry.map_err(PathError::on("list", dir))?;
            names.insert(entry.file_name(), entry.path());
        }
        let mut inner = Vec::new();
        for (name, path) in names {
            if self.full() {
                return Ok(());
            }
            self.examined += 1;
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            let goes_down = meta.is_dir() || (self.of.follow && path.is_dir());
            let name = name.to_string_lossy().into_owned();
            if name.starts_with('.') && !self.of.hidden {
                continue;
            }
            if goes_down {
                inner.push(path.clone());
            }
            if self.counts(&name, &path, &meta)? {
                let file = self.described(ctx, &path, &meta)?;
                self.files.push(file);
            }
        }
        if !self.of.recurse || self.of.depth.is_some_and(|limit| depth >= limit) {
            return Ok(());
        }
        for path in inner {
            self.below(ctx, &path, depth + 1)?;
        }
        Ok(())
    }

    fn counts(&self, name: &str, path: &Path, meta: &fs::Metadata) -> FilesResult<bool> {
        let of = self.of;
        let kind = match of.file_type {
            FileType::Any => true,
            FileType::File => meta.is_file(),
            FileType::Directory => meta.is_dir(),
            FileType::Link => meta.is_symlink(),
        };
        let named = self.patterns.is_empty() || self.patterns.iter().any(|p| p.is_match(name));
        if !kind || !named || self.excludes.iter().any(|p| p.is_match(name)) {
            return Ok(false);
        }
        let stamp = match of.age_stamp {
            Stamp::Mtime => meta.mtime(),
            Stamp::Atime => meta.atime(),
            Stamp::Ctime => meta.ctime(),
        };
        let since = self.now - stamp;
        let aged = self.age.is_none_or(|age| match age >= 0 {
            true => since >= age,
            false => since <= -age,
        });
        let length = i64::try_from(meta.len()).unwrap_or(i64::MAX);
        let sized = meta.is_dir()
            || self.size.is_none_or(|size| match size >= 0 {
                true => length >= size,
                false => length <= -size,
            });
        let moded = of.mode.as_ref().is_none_or(|mode| {
            let wanted = mode.resolve(0, meta.is_dir());
            match of.exact_mode {
                true => mode_of(meta) == wanted,
                false => mode_of(meta) & wanted == wanted,
            }
        });
        Ok(aged && sized && moded && self.holds(path, meta)?)
    }

    fn holds(&self, path: &Path, meta: &fs::Metadata) -> FilesResult<bool> {
        let Some(contains) = &self.contains else {
            return Ok(true);
        };
        if !meta.is_file() {
            return Ok(false);
        }
        let file = fs::File::open(path).map_err(PathError::on("open", path))?;
        if self.of.read_whole_file {
            let bytes = fs::read(path).map_err(PathError::on("read", path))?;
            return Ok(contains.is_match(&String::from_utf8_lossy(&bytes)));
        }
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(PathError::on("read", path))?;
            if contains.is_match(&String::from_utf8_lossy(&line)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn described(&self, ctx: &TaskContext, path: &Path, meta: &fs::Metadata) -> FilesResult<Value> {
        let mut file = describe(path, meta);
        if let Value::Object(map) = &mut file {
            for key in [
                "exists",
                "readable",
                "writeable",
                "executable",
                "blocks",
                "block_size",
            ] {
                map.remove(key);
            }
        }
        if self.of.get_checksum && meta.is_file() {
            let sum = checksum(self.of.checksum_algorithm, path, meta.len(), ctx)?;
            file["checksum"] = sum.into();
        }
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(PathError::on("read", path))?;
            file["lnk_target"] = json!(target);
            file["lnk_source"] = json!(fs::canonicalize(path).unwrap_or(target));
        }
        Ok(file)
    }
}

#[async_trait]
impl Module for FindModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        blocking(self, ctx, |module, ctx| module.run(ctx)).await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for FindModule {
    const NAME: &'static str = "find";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.find", "ansible.legacy.find"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Lists files or directories below some directories";
    const EXAMPLE: &'static str = "\
- name: Dumps of an earlier try
  find:
    paths: [\"{{ backup_dir }}\"]
    patterns: [\"*.sql\"]
    age: 1d
  register: old_dumps
";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn age_and_size_and_depth_narrow_the_search() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::create_dir_all(dir.path().join("a/b")).expect("made");
        fs::write(dir.path().join("a/small"), "x").expect("written");
        fs::write(dir.path().join("a/b/large"), vec![b'x'; 4096]).expect("written");
        let ctx = TaskContext::for_tests(dir.path());
        let find = async |more: Value| {
            let mut arguments = json!({"paths": [dir.path()], "recurse": true});
            if let (Some(all), Some(more)) = (arguments.as_object_mut(), more.as_object()) {
                all.extend(more.clone());
            }
            let module: FindModule = serde_json::from_value(arguments).expect("arguments");
            let outcome = module.apply(&ctx, &Value::Null).await.expect("apply");
            outcome.result["matched"].clone()
        };
        assert_eq!(find(json!({})).await, 2);
        assert_eq!(find(json!({"size": "2k"})).await, 1);
        assert_eq!(find(json!({"size": "-2k"})).await, 1);
        assert_eq!(find(json!({"depth": 2})).await, 1);
        assert_eq!(find(json!({"age": "1h"})).await, 0);
        assert_eq!(find(json!({"age": "-1h"})).await, 2);
        assert_eq!(find(json!({"file_type": "directory"})).await, 2);
        assert_eq!(find(json!({"limit": 1})).await, 1);
    }
}
