//! The table in which a database remembers which scripts were applied to it.
//!
//! It lives in a schema of the agent's own, which dumps and snapshots leave out. A script's row is
//! committed together with its effect, so after a crash the row tells whether the effect is there.

use tokio_postgres::{Client, GenericClient};

use crate::error::PostgresError;

/// One lock for all scripts of a database: `kaapana` as a number.
const LOCK: i64 = 0x006b_6161_7061_6e61;

/// An applied script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the SQL without comments and layout.
    pub sha256_sql: String,
    /// Attempt that applied it.
    pub attempt: String,
    /// When, in UTC.
    pub applied_at: String,
    /// How long it took.
    pub duration_ms: i64,
}

/// Keeps two scripts from running at once, until the transaction ends.
///
/// # Errors
/// The server refuses.
pub async fn lock(client: &Client) -> Result<(), PostgresError> {
    client
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await
        .map_err(PostgresError::sql("lock the history of scripts"))?;
    Ok(())
}

/// Makes the table where it is missing.
///
/// # Errors
/// The user may not create schemas.
pub async fn ensure(client: &Client) -> Result<(), PostgresError> {
    client
        .batch_execute(
            "CREATE SCHEMA IF NOT EXISTS kaapana_agent; \
             CREATE TABLE IF NOT EXISTS kaapana_agent.schema_history ( \
               installed_rank integer PRIMARY KEY, \
               script text NOT NULL UNIQUE, \
               sha256 text NOT NULL, \
               sha256_sql text NOT NULL, \
               attempt text NOT NULL, \
               run text NOT NULL, \
               applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
               duration_ms bigint NOT NULL)",
        )
        .await
        .map_err(PostgresError::sql("create kaapana_agent.schema_history"))
}

/// Returns what is known of a script.
///
/// # Errors
/// The server refuses.
pub async fn find(
    client: &impl GenericClient,
    script: &str,
) -> Result<Option<Applied>, PostgresError> {
    let failed = || PostgresError::sql("read kaapana_agent.schema_history");
    let exists = client
        .query_one(
            "SELECT to_regclass('kaapana_agent.schema_history') IS NOT NULL",
            &[],
        )
        .await
        .map_err(failed())?;
    if !exists.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "SELECT sha256, sha256_sql, attempt, to_char(applied_at AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), duration_ms \
             FROM kaapana_agent.schema_history WHERE script = $1",
            &[&script],
        )
        .await
        .map_err(failed())?;
    Ok(row.map(|row| Applied {
        sha256: row.get(0),
        sha256_sql: row.get(1),
        attempt: row.get(2),
        applied_at: row.get(3),
        duration_ms: row.get(4),
    }))
}

/// Returns the names of all scripts that are noted, in their order; none where there is no table.
///
/// # Errors
/// The server refuses.
pub async fn scripts(client: &Client) -> Result<Vec<String>, PostgresError> {
    let failed = || PostgresError::sql("read kaapana_agent.schema_history");
    let exists = client
        .query_one(
            "SELECT to_regclass('kaapana_agent.schema_history') IS NOT NULL",
            &[],
        )
        .await
        .map_err(failed())?;
    if !exists.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "SELECT script FROM kaapana_agent.schema_history ORDER BY installed_rank",
            &[],
        )
        .await
        .map_err(failed())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Writes a script's row, inside the script's transaction.
///
/// # Errors
/// The server refuses.
pub async fn record(client: &Client, script: &str, applied: &Applied) -> Result<(), PostgresError> {
    let run = applied
        .attempt
        .rsplit_once('/')
        .map_or(applied.attempt.as_str(), |(run, _)| run);
    client
        .execute(
            // No sequence: under `wal_level=minimal` one that was made in the same transaction falls back
            // when its server crashes (seen with PostgreSQL 13: its first values are not in the WAL).
            "INSERT INTO kaapana_agent.schema_history \
             (installed_rank, script, sha256, sha256_sql, attempt, run, duration_ms) \
             SELECT coalesce(max(installed_rank), 0) + 1, $1, $2, $3, $4, $5, $6::bigint \
             FROM kaapana_agent.schema_history",
            &[
                &script,
                &applied.sha256,
                &applied.sha256_sql,
                &applied.attempt,
                &run,
                &applied.duration_ms,
            ],
        )
        .await
        .map_err(PostgresError::sql("write kaapana_agent.schema_history"))?;
    Ok(())
}
