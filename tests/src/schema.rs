//! Renders `schema.txt`, the lab's description of the PACS index, as SQL of schema 5.26 or 5.32.
//!
//! As with the real images, the two differ in more than the update scripts change: 5.32 leaves all
//! constraints unnamed, has narrower enums with checks, and some unique keys that no script adds. A dump
//! of one restored over the other therefore doubles indexes and keys instead of failing cleanly.

use std::fmt::Write as _;

use crate::error::LabError;

const DESCRIPTION: &str = include_str!("../sql/schema.txt");

/// The seven update scripts, oldest first, as (file name, text).
pub const UPDATES: [(&str, &str); 7] = [
    (
        "update-5.27-psql.sql",
        include_str!("../sql/updates/update-5.27-psql.sql"),
    ),
    (
        "update-5.28-psql.sql",
        include_str!("../sql/updates/update-5.28-psql.sql"),
    ),
    (
        "update-5.29-psql.sql",
        include_str!("../sql/updates/update-5.29-psql.sql"),
    ),
    (
        "update-5.30-psql.sql",
        include_str!("../sql/updates/update-5.30-psql.sql"),
    ),
    (
        "update-5.31-psql.sql",
        include_str!("../sql/updates/update-5.31-psql.sql"),
    ),
    (
        "update-5.31.1-psql.sql",
        include_str!("../sql/updates/update-5.31.1-psql.sql"),
    ),
    (
        "update-5.32-psql.sql",
        include_str!("../sql/updates/update-5.32-psql.sql"),
    ),
];

/// Makes a filled 5.26 database look like 5.25, the version that the scripts must not be run on.
pub const TO_5_25: &str = include_str!("../sql/to-5.25.sql");

/// A version of the PACS schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaVersion {
    /// What Kaapana 0.2 has.
    V5_26,
    /// What the images of Kaapana 0.3.1 and newer make.
    V5_32,
}

/// A schema as SQL, in the parts in which a large database is filled fastest.
#[derive(Debug, Clone)]
pub struct Schema {
    /// Tables and sequences, without any key.
    pub tables: String,
    /// Primary keys, unique and foreign keys, in this order.
    pub keys: String,
    /// All other indexes.
    pub indexes: String,
}

impl Schema {
    /// Renders one version.
    ///
    /// # Errors
    /// `schema.txt` has a mistake.
    pub fn render(version: SchemaVersion) -> Result<Self, LabError> {
        Renderer::new(version).render(DESCRIPTION)
    }

    /// Returns (file name, text) of the files for `/docker-entrypoint-initdb.d`.
    #[must_use]
    pub fn files(&self) -> [(&'static str, &str); 3] {
        [
            ("10-tables.sql", &self.tables),
            ("20-keys.sql", &self.keys),
            ("30-indexes.sql", &self.indexes),
        ]
    }
}

struct Renderer {
    version: SchemaVersion,
    table: String,
    columns: Vec<String>,
    tables: String,
    sequences: String,
    unique: String,
    foreign: String,
    indexes: String,
}

impl Renderer {
    fn new(version: SchemaVersion) -> Self {
        Self {
            version,
            table: String::new(),
            columns: Vec::new(),
            tables: String::new(),
            sequences: String::new(),
            unique: String::new(),
            foreign: String::new(),
            indexes: String::new(),
        }
    }

    fn render(mut self, description: &str) -> Result<Schema, LabError> {
        let mut skip_table = false;
        for (number, line) in description.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let schema_error = |problem: String| LabError::Schema {
                line: number + 1,
                problem,
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            let skip = !self.is_wanted(&words);
            let words: Vec<&str> = words
                .into_iter()
                .filter(|word| !word.starts_with("only-"))
                .collect();
            if !line.starts_with(' ') {
                let ["table", name] = words[..] else {
                    return Err(schema_error("expected `table NAME`".to_owned()));
                };
                self.finish_table();
                skip_table = skip;
                self.table = if skip { String::new() } else { name.to_owned() };
            } else if !skip_table && !skip {
                self.line(&words).map_err(schema_error)?;
            }
        }
        self.finish_table();
        Ok(Schema {
            tables: format!("{}{}", self.tables, self.sequences),
            keys: format!("{}{}", self.unique, self.foreign),
            indexes: self.indexes,
        })
    }

    fn is_new(&self) -> bool {
        self.version == SchemaVersion::V5_32
    }

    fn is_wanted(&self, words: &[&str]) -> bool {
        let other = if self.is_new() {
            "only-5.26"
        } else {
            "only-5.32"
        };
        !words.contains(&other)
    }

    fn finish_table(&mut self) {
        if !self.table.is_empty() {
            let columns = self.columns.join(",\n");
            let _ = writeln!(self.tables, "create table {} (\n{columns}\n);", self.table);
        }
        self.columns.clear();
    }

    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["unique", columns @ ..] => self.unique(&columns.concat()),
            ["index", columns @ ..] => self.index(&columns.concat()),
            ["sequence", name] => self.sequence(name),
            [name, kind, flags @ ..] => self.column(name, kind, flags)?,
            [..] => return Err("expected a column, `unique`, `index` or `sequence`".to_owned()),
        }
        Ok(())
    }

    fn column(&mut self, name: &str, kind: &str, flags: &[&str]) -> Result<(), String> {
        if let Some(flag) = flags.iter().find(|flag| {
            ![
                "unique",
                "unique-5.32",
                "not-null-5.32",
                "key",
                "no-sequence",
            ]
            .contains(flag)
        }) {
            return Err(format!("unknown flag `{flag}`"));
        }
        let (kind, mut is_required) = match kind.strip_suffix('!') {
            Some(kind) => (kind, true),
            None => (kind, kind == "id"),
        };
        is_required |= self.is_new() && flags.contains(&"not-null-5.32");
        let is_unique =
            flags.contains(&"unique") || (self.is_new() && flags.contains(&"unique-5.32"));
        let (word, argument) = match kind.split_once('(') {
            Some((word, rest)) => (word, rest.trim_end_matches(')')),
            None => (kind, ""),
        };
        let sql_type = match word {
            "id" | "big" | "ref" => "bigint".to_owned(),
            "text" if argument.is_empty() => "varchar(255)".to_owned(),
            "text" => format!("varchar({argument})"),
            "time" if self.is_new() => "timestamp(6)".to_owned(),
            "time" => "timestamp".to_owned(),
            "enum" if self.is_new() => format!("smallint check ({name} between 0 and {argument})"),
            "enum" | "int" => "integer".to_owned(),
            "bool" => "boolean".to_owned(),
            "bytes" => "bytea".to_owned(),
            _ => return Err(format!("unknown type `{word}`")),
        };
        let not_null = if is_required { " not null" } else { "" };
        self.columns
            .push(format!("    {name} {sql_type}{not_null}"));

        if word == "id" || flags.contains(&"key") {
            let _ = writeln!(
                self.unique,
                "alter table {} add primary key ({name});",
                self.table
            );
        }
        if word == "id" && !flags.contains(&"no-sequence") {
            self.sequence(&format!("{}_pk_seq", self.table));
        }
        if is_unique {
            self.unique(name);
        }
        if word == "ref" {
            let constraint = self.constraint("fk", name);
            let _ = writeln!(
                self.foreign,
                "alter table {} add {constraint}foreign key ({name}) references {argument} (pk);",
                self.table
            );
            if !is_unique {
                self.index(name);
            }
        }
        Ok(())
    }

    /// Returns `constraint NAME ` in 5.26 and nothing in 5.32, where PostgreSQL picks the name.
    fn constraint(&self, prefix: &str, columns: &str) -> String {
        if self.is_new() {
            String::new()
        } else {
            format!("constraint {} ", self.object_name(prefix, columns))
        }
    }

    fn unique(&mut self, columns: &str) {
        let constraint = self.constraint("uk", columns);
        let _ = writeln!(
            self.unique,
            "alter table {} add {constraint}unique ({columns});",
            self.table
        );
    }

    fn index(&mut self, columns: &str) {
        let name = self.object_name(if self.is_new() { "idx" } else { "ix" }, columns);
        let _ = writeln!(
            self.indexes,
            "create index {name} on {} ({columns});",
            self.table
        );
    }

    fn sequence(&mut self, name: &str) {
        let _ = writeln!(self.sequences, "create sequence {name};");
    }

    fn object_name(&self, prefix: &str, columns: &str) -> String {
        let columns = columns.replace([',', '('], "_").replace(')', "");
        let mut name = format!("{prefix}_{}_{columns}", self.table);
        name.truncate(63); // PostgreSQL's limit; it would cut by itself, with a notice
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_schema_has_37_tables_and_28_sequences() {
        let schema = Schema::render(SchemaVersion::V5_26).expect("schema.txt is well-formed");
        assert_eq!(schema.tables.matches("create table").count(), 37);
        assert_eq!(schema.tables.matches("create sequence").count(), 28);
        assert!(schema.indexes.matches("create index").count() > 150);
        assert!(schema.tables.contains("patient_id_fk"));
        assert!(!schema.tables.contains("study_deleting"));
    }

    #[test]
    fn a_mistake_in_the_description_is_named_with_its_line() {
        let error = Renderer::new(SchemaVersion::V5_26)
            .render("table a\n    pk id\n    x nonsense\n")
            .expect_err("no such type");
        assert_eq!(
            error.to_string(),
            "read schema.txt:3: unknown type `nonsense`"
        );
    }
}
