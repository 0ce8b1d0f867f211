//! Sessions that a killed attempt left behind on the server, and their end.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::connect::session_name;
use crate::error::{PostgresError, SqlError};

const PATIENCE: Duration = Duration::from_secs(30);

/// Which sessions are meant.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// All sessions of one attempt.
    Attempt(&'a str),
    /// All sessions in a database.
    Database(&'a str),
    /// The agent's own sessions in a database.
    OursIn(&'a str),
}

/// Ends sessions and waits until they are gone; never the one that asks. A session whose client was
/// killed may still be at work, and could commit after we have looked.
///
/// # Errors
/// One does not go away.
pub async fn end(client: &Client, whose: Whose<'_>) -> Result<(), PostgresError> {
    let failed = || PostgresError::sql("end left-over sessions");
    let (condition, name) = match whose {
        Whose::Attempt(attempt) => ("application_name = $1", session_name(attempt)),
        Whose::Database(db) => ("datname = $1", db.to_owned()),
        Whose::OursIn(db) => (
            "datname = $1 AND application_name LIKE 'kaapana-agent %'",
            db.to_owned(),
        ),
    };
    let query = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND {condition}"
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: i64 = client
            .query_one(&query, &[&name])
            .await
            .map_err(failed())?
            .get(0);
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(PostgresError::Sql {
                action: "end left-over sessions".into(),
                source: SqlError::said(format!(
                    "{left} are still there after {} s",
                    PATIENCE.as_secs()
                )),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
