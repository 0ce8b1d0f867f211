//! What a migration must not lose: the content of the old database and of the new one, by psql alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::check::{self, Columns, TableChecksum};
use crate::error::{LabError, io_error};
use crate::server::{Server, ServerOptions};
use crate::site::Site;
use crate::{tool, workplace};

/// Columns that the update scripts write into.
const REWRITTEN: [(&str, &str); 4] = [
    ("instance", "ext_retrieve_aet"),
    ("series", "ext_retrieve_aet"),
    ("id_sequence", "next_value"),
    ("id_sequence", "version"),
];

/// What is in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Its columns, without those that the update scripts write into.
    pub columns: Columns,
    /// Rows and checksum of every table, over these columns.
    pub tables: BTreeMap<String, TableChecksum>,
    /// The counter that script 5.28 raises by one each time it runs.
    pub counter: i64,
    /// Its schemas but for the server's own: nothing of the agent's notes may stay.
    pub schemas: String,
}

impl Evidence {
    /// Looks into a data directory, at these columns alone where they are given. A copy is started, so
    /// that the directory itself stays as it is.
    ///
    /// # Errors
    /// It cannot be copied, or its server does not answer.
    pub fn of(
        site: &Site,
        image: &str,
        data_dir: &Path,
        columns: Option<&Columns>,
    ) -> Result<Self, LabError> {
        let copy = site.root.join(workplace::unique("looked-at"));
        let mut cp = Command::new("cp");
        cp.args(["-a", "--reflink=auto"]).arg(data_dir).arg(&copy);
        tool::run(&mut cp, "copy a data directory")?;
        let server = Server::start(image, Some(&copy), &ServerOptions::default())?;
        let mut own = check::columns(&server)?;
        if let Some(columns) = columns {
            own = check::common_columns(columns, &own);
        }
        for (table, column) in REWRITTEN {
            if let Some(names) = own.get_mut(table) {
                names.retain(|name| name != column);
            }
        }
        let tables = check::table_checksums_of(&server, &own)?;
        let counter = server.psql("select max(next_value) from id_sequence")?;
        let counter = counter.parse().map_err(|_| {
            LabError::Unexpected(format!("read the counter of id_sequence from `{counter}`"))
        })?;
        let schemas = server.psql(
            "select string_agg(nspname, ', ' order by nspname) from pg_namespace \
             where nspname !~ '^pg_' and nspname <> 'information_schema'",
        )?;
        server.stop()?;
        workplace::remove_any(&copy)?;
        Ok(Self {
            columns: own,
            tables,
            counter,
            schemas,
        })
    }

    /// Names every table in which the other one differs.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        self.tables
            .iter()
            .filter(|(table, sum)| other.tables.get(*table) != Some(sum))
            .map(|(table, sum)| {
                let found = other.tables.get(table).map(|sum| sum.rows);
                format!(
                    "{table}: {} rows before, {found:?} after, or another content",
                    sum.rows
                )
            })
            .collect()
    }

    /// Number of rows in all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|sum| sum.rows).sum()
    }
}

/// Names, inodes and times of change of everything in a directory.
///
/// # Errors
/// Something cannot be read.
pub fn inodes(dir: &Path) -> Result<Vec<String>, LabError> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let path = entry.map_err(io_error("list", &dir))?.path();
            let meta = fs::symlink_metadata(&path).map_err(io_error("inspect", &path))?;
            let changed = (meta.ctime(), meta.ctime_nsec());
            found.push(format!("{} {} {changed:?}", path.display(), meta.ino()));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Paths of everything in a directory whose name has one of these ends.
///
/// # Errors
/// Something cannot be read.
pub fn left_overs(dir: &Path, ends: &[&str]) -> Result<Vec<String>, LabError> {
    let is_left_over = |line: &String| {
        let path = line.split(' ').next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        ends.iter().any(|end| name.contains(end))
    };
    Ok(inodes(dir)?.into_iter().filter(is_left_over).collect())
}
