//! Independent evidence: what is in a database, what is in a directory. Plain `psql`, `sort` and
//! SHA-256, none of it shared with the agent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{LabError, io_error};
use crate::server::Server;

/// Columns of each table, by table name.
pub type Columns = BTreeMap<String, Vec<String>>;

/// What is in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChecksum {
    /// Number of rows.
    pub rows: u64,
    /// SHA-256 of the rows as `COPY` prints them, in an order that depends on the content alone.
    pub sha256: String,
}

/// Returns the columns of all tables in schema `public`, sorted by name: a migrated table has them in
/// another order than a fresh one.
///
/// # Errors
/// The database does not answer.
pub fn columns(server: &Server) -> Result<Columns, LabError> {
    let rows = server.psql(
        "select c.table_name, c.column_name from information_schema.columns c
         join information_schema.tables t using (table_schema, table_name)
         where table_schema = 'public' and t.table_type = 'BASE TABLE'",
    )?;
    let mut columns = Columns::new();
    for (table, column) in rows.lines().filter_map(|row| row.split_once('|')) {
        columns
            .entry(table.to_owned())
            .or_default()
            .push(column.to_owned());
    }
    columns.values_mut().for_each(|names| names.sort());
    Ok(columns)
}

/// Returns the columns that both sides have, for comparing the content of an old and an updated database.
#[must_use]
pub fn common_columns(left: &Columns, right: &Columns) -> Columns {
    let mut common = Columns::new();
    for (table, names) in left {
        if let Some(others) = right.get(table) {
            let shared = names
                .iter()
                .filter(|name| others.contains(name))
                .cloned()
                .collect();
            common.insert(table.clone(), shared);
        }
    }
    common
}

/// Returns rows and checksum of every table of schema `public`.
///
/// # Errors
/// The database does not answer.
pub fn table_checksums(server: &Server) -> Result<BTreeMap<String, TableChecksum>, LabError> {
    table_checksums_of(server, &columns(server)?)
}

/// Returns rows and checksum of these tables, looking at these columns alone.
///
/// # Errors
/// The database does not answer, or has not got them.
pub fn table_checksums_of(
    server: &Server,
    columns: &Columns,
) -> Result<BTreeMap<String, TableChecksum>, LabError> {
    let mut script = String::new();
    let mut counts = Vec::new();
    for (table, names) in columns.iter().filter(|(_, names)| !names.is_empty()) {
        // COPY writes a newline inside a value as \n: a row is a line, and sorting lines sorts rows. By
        // key where there is one, for speed.
        let (order, sort) = if names.iter().any(|name| name == "pk") {
            ("order by pk", "cat")
        } else {
            ("", "sort")
        };
        let list = names.join(", ");
        script.push_str(&format!(
            "printf '%s ' {table}; psql -X -q -v ON_ERROR_STOP=1 -U {} -d {} \
             -c 'copy (select {list} from public.{table} {order}) to stdout' | LC_ALL=C {sort} | sha256sum\n",
            server.user(),
            server.database()
        ));
        counts.push(format!("select '{table}', count(*) from public.{table}"));
    }
    let mut rows = BTreeMap::new();
    for line in server.psql(&counts.join(" union all "))?.lines() {
        let unreadable = || LabError::Unexpected(format!("read a number of rows from `{line}`"));
        let (table, count) = line.split_once('|').ok_or_else(unreadable)?;
        rows.insert(table.to_owned(), count.parse().map_err(|_| unreadable())?);
    }
    let mut sums = BTreeMap::new();
    for line in server.shell(&format!("set -e\n{script}"))?.lines() {
        let mut words = line.split_whitespace();
        let (Some(table), Some(sha256)) = (words.next(), words.next()) else {
            return Err(LabError::Unexpected(format!(
                "read a checksum from `{line}`"
            )));
        };
        let rows = rows.get(table).copied().unwrap_or_default();
        sums.insert(
            table.to_owned(),
            TableChecksum {
                rows,
                sha256: sha256.to_owned(),
            },
        );
    }
    Ok(sums)
}

/// Returns a fingerprint of a whole directory: names, kinds, modes, owners and contents, without times.
///
/// # Errors
/// Something cannot be read.
pub fn dir_fingerprint(dir: &Path) -> Result<String, LabError> {
    let mut hasher = Sha256::new();
    add_entry(&mut hasher, dir, Path::new(""))?;
    Ok(hex::encode(hasher.finalize()))
}

fn add_entry(hasher: &mut Sha256, path: &Path, name: &Path) -> Result<(), LabError> {
    let meta = fs::symlink_metadata(path).map_err(io_error("inspect", path))?;
    hasher.update(format!(
        "{}\0{:o} {} {}\0",
        name.display(),
        meta.mode(),
        meta.uid(),
        meta.gid()
    ));
    if meta.is_dir() {
        let list = fs::read_dir(path).map_err(io_error("list", path))?;
        let mut entries = list
            .collect::<Result<Vec<_>, io::Error>>()
            .map_err(io_error("list", path))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add_entry(hasher, &entry.path(), &name.join(entry.file_name()))?;
        }
    } else if meta.is_symlink() {
        let target = fs::read_link(path).map_err(io_error("read", path))?;
        hasher.update(target.as_os_str().as_encoded_bytes());
    } else if meta.is_file() {
        hasher.update(meta.len().to_le_bytes());
        let mut file = File::open(path).map_err(io_error("open", path))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).map_err(io_error("read", path))? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
    }
    Ok(())
}
