//! Names the rows in which a database differs from the dump that it should hold.
//!
//! Sums say among which keys a difference lies. The dump has the rows as they were; those of that range are
//! hashed, asked of the server, and compared one by one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::Path;

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::Client;

use super::key_ranges::KeyPosition;
use crate::error::PostgresError;
use crate::format::reader::{CopyBlock, DumpReader, Item, ReadError};
use crate::format::source::{DumpSource, unreadable};
use crate::format::statement::{Kind, copy_columns, kind};
use crate::host::error::ModuleError;
use crate::host::worker;
use crate::server::connect::ident;

/// So many rows are named.
const NAMED: usize = 5;
/// How much of the dump is read at once.
const CHUNK: usize = 256 << 10;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `schema.name`.
    pub table: String,
    /// Where it lies.
    pub place: KeyPosition,
    /// Columns that are compared.
    pub columns: Vec<String>,
    /// What stands for NULL in the database, by column.
    pub fills: BTreeMap<String, String>,
}

/// By key, a hash of the row.
type Rows = BTreeMap<i64, u64>;

/// How the fields of a line are used.
struct Fields {
    /// Place of the key.
    key: usize,
    /// Places of what is compared, in the order of [`Wanted::columns`], with what stands for NULL.
    compared: Vec<(usize, Option<Vec<u8>>)>,
}

impl Fields {
    /// Takes a row, without its line end, where its key is one of those.
    fn take(&self, line: &[u8], place: &KeyPosition, rows: &mut Rows) {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let key = fields
            .get(self.key)
            .and_then(|key| std::str::from_utf8(key).ok());
        let Some(key) = key.and_then(|key| key.parse().ok()) else {
            return;
        };
        if key < place.from || key > place.to {
            return;
        }
        let mut hasher = DefaultHasher::new();
        for (at, fill) in &self.compared {
            let value = fields.get(*at).copied().unwrap_or_default();
            let value = match fill {
                Some(fill) if value == b"\\N" => fill,
                _ => value,
            };
            hasher.write(value);
            hasher.write_u8(b'\t');
        }
        rows.insert(key, hasher.finish());
    }
}

impl Wanted {
    fn written(&self) -> (String, String) {
        let (schema, name) = self
            .table
            .split_once('.')
            .unwrap_or(("public", &self.table));
        (schema.to_owned(), name.to_owned())
    }

    /// Returns how the lines of a COPY are used; nothing where it is another table's, or lacks a column.
    fn fields(&self, copy: &str) -> Option<Fields> {
        let Kind::Copy { table, plain: true } = kind(copy) else {
            return None;
        };
        let (schema, name) = self.written();
        let quoted = format!("{}.{}", ident(&schema), ident(&name));
        if ![&self.table, &quoted].contains(&&table) {
            return None;
        }
        let columns = copy_columns(copy)?;
        let at = |name: &String| columns.iter().position(|column| column == name);
        let compared = self.columns.iter().map(|column| {
            let fill = self.fills.get(column);
            Some((at(column)?, fill.map(|fill| fill.clone().into_bytes())))
        });
        Some(Fields {
            key: at(&self.place.column)?,
            compared: compared.collect::<Option<_>>()?,
        })
    }

    /// Reads the rows of that range out of a dump; nothing where it has no such table. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    fn of_dump(&self, dump: &Path) -> Result<Option<Rows>, PostgresError> {
        let unreadable = |error| unreadable(dump, error);
        let source = DumpSource::open(dump)?;
        let mut reader = DumpReader::new(source.whole().map_err(unreadable)?);
        let found = loop {
            match reader.next() {
                Ok(Some(Item::Copy(block))) => {
                    let copy = String::from_utf8_lossy(&block.statement.text);
                    if let Some(fields) = self.fields(&copy) {
                        break Ok(Some((block, fields)));
                    }
                }
                Ok(Some(Item::Statement(_))) => {}
                Ok(None) => break Ok(None),
                Err(ReadError::Io(error)) => break Err(error),
                Err(ReadError::Content { message, .. }) => break Err(io::Error::other(message)),
            }
        };
        let rows = found.and_then(|found| match found {
            None => Ok(None),
            Some((block, fields)) => self.of_block(&source, &block, &fields).map(Some),
        });
        rows.map_err(unreadable)
    }

    fn of_block(
        &self,
        source: &DumpSource,
        block: &CopyBlock,
        fields: &Fields,
    ) -> io::Result<Rows> {
        let mut rows = Rows::new();
        let (Some(first), Some(last)) = (block.cuts.first(), block.cuts.last()) else {
            return Ok(rows);
        };
        let mut part = source.part(first.offset, last.offset)?;
        let (mut buffer, mut held) = (vec![0; CHUNK], Vec::new());
        loop {
            let read = part.read(&mut buffer)?;
            if read == 0 {
                return Ok(rows);
            }
            held.extend_from_slice(&buffer[..read]);
            let mut begin = 0;
            while let Some(end) = memchr::memchr(b'\n', &held[begin..]) {
                fields.take(&held[begin..begin + end], &self.place, &mut rows);
                begin += end + 1;
            }
            held.drain(..begin);
        }
    }

    /// Asks the server for the rows of that range.
    ///
    /// # Errors
    /// The server refuses.
    async fn of_server(&self, client: &Client) -> Result<Rows, PostgresError> {
        let failed = || PostgresError::sql(format!("read the rows of {} that differ", self.table));
        let (schema, name) = self.written();
        let (key, columns) = (ident(&self.place.column), &self.columns);
        let columns: Vec<String> = columns.iter().map(|column| ident(column)).collect();
        let copy = format!(
            "COPY (SELECT {key}, {} FROM ONLY {}.{} WHERE {key} BETWEEN {} AND {}) TO STDOUT",
            columns.join(", "),
            ident(&schema),
            ident(&name),
            self.place.from,
            self.place.to,
        );
        let fields = Fields {
            key: 0,
            compared: (1..=columns.len()).map(|at| (at, None)).collect(),
        };
        let lines = client.copy_out(&copy).await.map_err(failed())?;
        pin_mut!(lines);
        let mut rows = Rows::new();
        while let Some(line) = lines.next().await {
            let line = line.map_err(failed())?;
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            fields.take(line, &self.place, &mut rows);
        }
        Ok(rows)
    }

    /// Compares, and says e.g. `pk 4711 (other content), 4712 (gone) and 3 more`. Nothing where that cannot be
    /// told: the dump has no such table, or the rows look alike.
    ///
    /// # Errors
    /// The dump cannot be read, or the server refuses.
    pub async fn name(&self, dump: &Path, client: &Client) -> Result<Option<String>, ModuleError> {
        let (wanted, path) = (self.clone(), dump.to_path_buf());
        let read = worker::blocking("look for rows", move || wanted.of_dump(&path)).await;
        let Some(before) = read?? else {
            return Ok(None);
        };
        let after = self.of_server(client).await?;
        Ok(named(&self.place.column, &before, &after))
    }
}

fn named(column: &str, before: &Rows, after: &Rows) -> Option<String> {
    let mut all: BTreeMap<i64, &str> = BTreeMap::new();
    for (key, hash) in before {
        match after.get(key) {
            None => all.insert(*key, "gone"),
            Some(other) if other != hash => all.insert(*key, "other content"),
            Some(_) => None,
        };
    }
    for key in after.keys().filter(|key| !before.contains_key(key)) {
        all.insert(*key, "not there before");
    }
    let first: Vec<String> = all
        .iter()
        .take(NAMED)
        .map(|(key, what)| format!("{key} ({what})"))
        .collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!first.is_empty()).then(|| format!("{column} {}{more}", first.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(table: &str) -> Wanted {
        Wanted {
            table: table.into(),
            place: KeyPosition {
                column: "pk".into(),
                from: 8,
                to: 15,
                ranges: (1, 4),
            },
            columns: vec!["aet".into(), "pk".into()],
            fills: [("aet".to_owned(), "*".to_owned())].into(),
        }
    }

    const COPY: &str = "COPY public.series (other, pk, aet) FROM stdin;";

    #[test]
    fn rows_are_compared_by_what_is_asked_for() {
        let wanted = wanted("public.series");
        let dump = wanted.fields(COPY).expect("its columns");
        let server = Fields {
            key: 0,
            compared: vec![(1, None), (2, None)],
        };
        let (mut before, mut after) = (Rows::new(), Rows::new());
        for line in ["a\t8\tX", "b\t9\t\\N", "c\t10\tY", "d\t11\tZ", "e\t16\tfar"] {
            dump.take(line.as_bytes(), &wanted.place, &mut before);
        }
        for line in ["8\tX\t8", "9\t*\t9", "10\tYY\t10", "12\tZ\t12"] {
            server.take(line.as_bytes(), &wanted.place, &mut after);
        }
        assert_eq!(
            named("pk", &before, &after).as_deref(),
            Some("pk 10 (other content), 11 (gone), 12 (not there before)")
        );
        assert_eq!(named("pk", &before, &before), None);
        let many: Rows = (8..15).map(|key| (key, 0)).collect();
        let text = named("pk", &many, &Rows::new()).expect("gone");
        assert!(text.ends_with("12 (gone) and 2 more"), "{text}");
    }

    #[test]
    fn only_the_tables_own_data_is_taken() {
        assert!(wanted("public.serie").fields(COPY).is_none());
        assert!(wanted("other.series").fields(COPY).is_none());
        let quoted = "COPY \"public\".\"series\" (pk, aet) FROM stdin;";
        assert!(wanted("public.series").fields(quoted).is_some());
        let lacking = "COPY public.series (pk) FROM stdin;";
        assert!(wanted("public.series").fields(lacking).is_none());
    }
}
