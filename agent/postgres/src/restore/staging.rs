//! The databases of a restore: the one that is being filled, and the one that it becomes.
//!
//! A dump goes into `<db>_restoring`, which gets its final name only when everything is proved. What
//! has been proved stands in the database's comment, which is as durable as the database itself.

use std::path::Path;

use serde_json::json;
use tokio_postgres::Client;

use crate::error::PostgresError;
use crate::format::anticipate::Anticipated;
use crate::format::text::DumpHead;
use crate::server::connect::{Server, ident, literal};
use crate::server::sessions::{self, Whose};

const BEGUN: &str = "kaapana-agent: restoring; attempt=";
const WHOLE: &str = "kaapana-agent: restored; attempt=";
const ANTICIPATED: &str = "; anticipated=";
const REPLACED: &str = "kaapana-agent: empty, and replaced by a restore";

/// What the comment of a database says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// No comment of ours.
    None,
    /// An attempt has begun to fill it.
    Begun {
        /// Which.
        attempt: String,
    },
    /// It was empty, and a whole one has its name now.
    Replaced,
    /// It is whole.
    Whole {
        /// Which attempt filled it.
        attempt: String,
        /// SHA-256 of the dump.
        sha256: String,
        /// Number of tables.
        tables: u64,
        /// Rows of all tables, where they were counted.
        rows: Option<u64>,
        /// What of later scripts is in it already.
        anticipated: Vec<Anticipated>,
    },
}

impl Mark {
    fn parse(comment: Option<&str>) -> Self {
        let comment = comment.unwrap_or_default();
        if let Some(attempt) = comment.strip_prefix(BEGUN) {
            return Self::Begun {
                attempt: attempt.to_owned(),
            };
        }
        if comment == REPLACED {
            return Self::Replaced;
        }
        let whole = || {
            let rest = comment.strip_prefix(WHOLE)?;
            let (rest, anticipated) = match rest.rsplit_once(ANTICIPATED) {
                Some((rest, list)) => (rest, serde_json::from_str(list).ok()?),
                None => (rest, Vec::new()),
            };
            let (rest, counts) = rest.rsplit_once("; tables=")?;
            let (tables, rows) = match counts.split_once("; rows=") {
                Some((tables, rows)) => (tables, Some(rows.parse().ok()?)),
                None => (counts, None),
            };
            let (attempt, sha256) = rest.rsplit_once("; sha256=")?;
            Some(Self::Whole {
                attempt: attempt.to_owned(),
                sha256: sha256.to_owned(),
                tables: tables.parse().ok()?,
                rows,
                anticipated,
            })
        };
        whole().unwrap_or(Self::None)
    }

    /// Returns the comment.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Begun { attempt } => format!("{BEGUN}{attempt}"),
            Self::Replaced => REPLACED.to_owned(),
            Self::Whole {
                attempt,
                sha256,
                tables,
                rows,
                anticipated,
            } => {
                let mut text = format!("{WHOLE}{attempt}; sha256={sha256}; tables={tables}");
                if let Some(rows) = rows {
                    text.push_str(&format!("; rows={rows}"));
                }
                if !anticipated.is_empty() {
                    text.push_str(ANTICIPATED);
                    text.push_str(&json!(anticipated).to_string());
                }
                text
            }
        }
    }
}

/// A database, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What its comment says.
    pub mark: Mark,
    /// Owner.
    pub owner: String,
    /// `ENCODING … LC_COLLATE … LC_CTYPE …`, to make another one like it.
    pub locale: String,
}

/// Looks a database up.
///
/// # Errors
/// The server refuses.
pub async fn find(client: &Client, db: &str) -> Result<Option<Found>, PostgresError> {
    let row = client
        .query_opt(
            "SELECT shobj_description(d.oid, 'pg_database'), pg_get_userbyid(d.datdba)::text, \
             pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text \
             FROM pg_database d WHERE d.datname = $1",
            &[&db],
        )
        .await
        .map_err(PostgresError::sql(format!("look for database {db}")))?;
    Ok(row.map(|row| {
        let text = |index: usize| literal(row.get::<_, &str>(index));
        Found {
            mark: Mark::parse(row.get(0)),
            owner: row.get(1),
            locale: format!(
                "ENCODING {} LC_COLLATE {} LC_CTYPE {}",
                text(2),
                text(3),
                text(4)
            ),
        }
    }))
}

/// Returns the name that a database has until it is whole.
#[must_use]
pub fn staging_of(db: &str) -> String {
    format!("{db}_restoring")
}

/// Returns the database that is meant, where a dump may go there.
///
/// # Errors
/// It is one that every server has, or its name is too long for what is put behind it meanwhile.
pub fn target(server: &Server, named: Option<&str>) -> Result<String, PostgresError> {
    let db = server.db(named);
    if ["postgres", "template0", "template1"].contains(&db.as_str()) {
        let message = format!("`{db}` is the server's own");
        return Err(PostgresError::argument("db", message));
    }
    if db.len() > 50 {
        return Err(PostgresError::argument("db", "is longer than 50 bytes"));
    }
    Ok(db)
}

/// Looks whether a dump may go into `db`, before anything is done.
///
/// # Errors
/// It holds something, a database that is not ours has the name that it has meanwhile, or the server refuses.
pub async fn refuse_unfit(client: &Client, server: &Server, db: &str) -> Result<(), PostgresError> {
    refuse_filled(client, server, db).await?;
    let staging = staging_of(db);
    let there = find(client, &staging).await?;
    if there.is_some_and(|found| found.mark == Mark::None) {
        return Err(PostgresError::ForeignDatabase { db: staging });
    }
    Ok(())
}

/// Makes way: drops what an earlier attempt of ours left, refuses anything else.
///
/// # Errors
/// A database that is not ours has this name, or the server refuses.
pub async fn clear(client: &Client, staging: &str) -> Result<(), PostgresError> {
    match find(client, staging).await?.map(|found| found.mark) {
        None => Ok(()),
        Some(Mark::Begun { .. } | Mark::Whole { .. }) => drop_ours(client, staging).await,
        Some(Mark::None | Mark::Replaced) => Err(PostgresError::ForeignDatabase {
            db: staging.to_owned(),
        }),
    }
}

/// Says what a database holds, or nothing when it is empty.
///
/// # Errors
/// The server refuses.
pub async fn content(server: &Server, db: &str) -> Result<Option<String>, PostgresError> {
    let client = server.connect(db).await?;
    let row = client
        .query_one(
            "SELECT count(*), (array_agg(n.nspname || '.' || c.relname ORDER BY c.relkind = 'r' DESC, 1))[1:3] \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_' \
             AND n.nspname <> 'information_schema'",
            &[],
        )
        .await
        .map_err(PostgresError::sql(format!("look into database {db}")))?;
    let count: i64 = row.get(0);
    if count == 0 {
        return Ok(None);
    }
    let names: Vec<String> = row.get::<_, Option<Vec<String>>>(1).unwrap_or_default();
    Ok(Some(format!(
        "{count} tables, views and sequences ({}, …)",
        names.join(", ")
    )))
}

/// Refuses a target that is there and holds something.
///
/// # Errors
/// It is not empty.
pub async fn refuse_filled(
    client: &Client,
    server: &Server,
    db: &str,
) -> Result<Option<Found>, PostgresError> {
    let Some(found) = find(client, db).await? else {
        return Ok(None);
    };
    match content(server, db).await? {
        None => Ok(Some(found)),
        Some(objects) => Err(PostgresError::TargetNotEmpty {
            db: db.to_owned(),
            objects,
        }),
    }
}

/// Refuses a dump of a newer server than this one.
///
/// # Errors
/// It is of a newer major version, or the server does not answer.
pub async fn refuse_newer(
    client: &Client,
    path: &Path,
    head: &DumpHead,
) -> Result<(), PostgresError> {
    let row = client
        .query_one("SELECT current_setting('server_version')", &[])
        .await
        .map_err(PostgresError::sql("ask the server for its version"))?;
    let server: String = row.get(0);
    match &head.server_version {
        Some(dumped) if major(dumped) > major(&server) => Err(PostgresError::NewerDump {
            path: path.to_path_buf(),
            dumped: dumped.clone(),
            server,
        }),
        _ => Ok(()),
    }
}

/// `9.6.24` is (9, 6), `15.18 (Debian …)` is (15, 0): from 10 on the second number is a minor release.
fn major(version: &str) -> (u32, u32) {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(second)) if first < 10 => (first, second),
        (first, _) => (first.unwrap_or(0), 0),
    }
}

/// Makes the database that gets the dump, and marks it.
///
/// # Errors
/// The server refuses.
pub async fn create(
    client: &Client,
    db: &str,
    owner: Option<&str>,
    locale: &str,
    attempt: &str,
) -> Result<(), PostgresError> {
    let owner = owner.map_or_else(String::new, |owner| format!("OWNER {}", ident(owner)));
    // template1 may hold objects that the dump brings as well.
    client
        .batch_execute(&format!(
            "CREATE DATABASE {} TEMPLATE template0 {owner} {locale}",
            ident(db)
        ))
        .await
        .map_err(PostgresError::sql(format!("create database {db}")))?;
    mark(
        client,
        db,
        &Mark::Begun {
            attempt: attempt.to_owned(),
        },
    )
    .await
}

/// Writes a database's mark.
///
/// # Errors
/// The server refuses.
pub async fn mark(client: &Client, db: &str, mark: &Mark) -> Result<(), PostgresError> {
    client
        .batch_execute(&format!(
            "COMMENT ON DATABASE {} IS {}",
            ident(db),
            literal(&mark.text())
        ))
        .await
        .map_err(PostgresError::sql(format!("mark database {db}")))
}

/// Drops a database of ours, with the sessions in it.
///
/// # Errors
/// The server refuses.
pub async fn drop_ours(client: &Client, db: &str) -> Result<(), PostgresError> {
    sessions::end(client, Whose::Database(db)).await?;
    client
        .batch_execute(&format!("DROP DATABASE IF EXISTS {}", ident(db)))
        .await
        .map_err(PostgresError::sql(format!("drop database {db}")))
}

/// Where the empty database goes whose name the restored one gets.
fn replaced_name(db: &str) -> String {
    format!("{db}_replaced")
}

/// Gives the filled database its final name, in the place of an empty one, and has everything
/// written to disk.
///
/// At every moment there is a database of this name that lets sessions in: a server that stops in
/// between is waited for by its database. One that dies while it drops a database leaves it invalid,
/// and nobody can connect to it any more.
///
/// # Errors
/// The target is not empty after all, somebody is connected to it, a database that is not ours has the
/// name that the empty one gets, or the server refuses.
pub async fn put_in_place(
    client: &Client,
    server: &Server,
    staging: &str,
    db: &str,
) -> Result<(), PostgresError> {
    let aside = replaced_name(db);
    let mut statements = format!("ALTER DATABASE {} RENAME TO {}", ident(staging), ident(db));
    if refuse_filled(client, server, db).await?.is_some() {
        drop_replaced(client, db).await?;
        sessions::end(client, Whose::OursIn(db)).await?;
        statements = format!(
            "COMMENT ON DATABASE {} IS {}; ALTER DATABASE {} RENAME TO {}; {statements}",
            ident(db),
            literal(REPLACED),
            ident(db),
            ident(&aside),
        );
    }
    sessions::end(client, Whose::Database(staging)).await?;
    // Several statements in one message are one transaction.
    client
        .batch_execute(&statements)
        .await
        .map_err(PostgresError::sql(format!(
            "rename database {staging} to {db}"
        )))?;
    checkpoint(client).await?;
    drop_replaced(client, db).await
}

/// Has everything written to disk.
///
/// # Errors
/// The server refuses.
pub async fn checkpoint(client: &Client) -> Result<(), PostgresError> {
    client
        .batch_execute("CHECKPOINT")
        .await
        .map_err(PostgresError::sql("write everything to disk (CHECKPOINT)"))
}

/// Drops the empty database whose name the restored one has got, where it is still there.
///
/// # Errors
/// The one with this name is not ours, or the server refuses.
pub async fn drop_replaced(client: &Client, db: &str) -> Result<(), PostgresError> {
    let aside = replaced_name(db);
    match find(client, &aside).await?.map(|found| found.mark) {
        None => Ok(()),
        Some(Mark::Replaced) => drop_ours(client, &aside).await,
        Some(_) => Err(PostgresError::ForeignDatabase { db: aside }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_major_version_is_newer() {
        assert!(major("15.18 (Debian 15.18-0+deb12u1)") == major("15.6"));
        assert!(major("13.16") > major("9.6.24"));
        assert!(major("9.6.24") > major("9.5.1"));
        assert!(major("18beta1") > major("17.2"));
    }

    #[test]
    fn marks_survive_being_written() {
        for mark in [
            Mark::Replaced,
            Mark::Begun {
                attempt: "run-1/2; sha256=x".into(),
            },
            Mark::Whole {
                attempt: "run-1/2".into(),
                sha256: "ab".into(),
                tables: 7,
                rows: None,
                anticipated: Vec::new(),
            },
            Mark::Whole {
                attempt: "run-1/2".into(),
                sha256: "ab".into(),
                tables: 7,
                rows: Some(12),
                anticipated: vec![Anticipated {
                    table: "public.t".into(),
                    columns: [("a".to_owned(), "; tables=1".to_owned())].into(),
                    values: 3,
                }],
            },
        ] {
            assert_eq!(Mark::parse(Some(&mark.text())), mark);
        }
        assert_eq!(Mark::parse(Some("my database")), Mark::None);
        assert_eq!(Mark::parse(None), Mark::None);
    }
}
