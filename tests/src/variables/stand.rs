//! A site at a moment of its migration, at which somebody changes a variable. A stand that a refused run
//! left as it was serves the next case.

use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::agent::{PLAYBOOK, workspace};
use crate::error::{LabError, io_error};
use crate::images::docker;
use crate::migration::{Migration, Running, must};
use crate::site::Scale;
use crate::way::Way;

/// The agent's variable for failure points (`agent/README.md`).
const POINTS: &str = "KAAPANA_AGENT_TEST_POINTS";

/// When somebody changes a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The migration has come to its end.
    AfterTheEnd,
    /// The agent was killed at a record, which stands so many thousandths into a journal.
    InTheMiddle(u64),
    /// It came to its end and was taken back.
    AfterRollback,
}

impl Moment {
    /// In words.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::AfterTheEnd => "after the end".into(),
            Self::InTheMiddle(place) => format!("killed at {place}‰"),
            Self::AfterRollback => "after a rollback".into(),
        }
    }
}

/// A site at a moment.
#[derive(Debug)]
pub struct Stand {
    /// The migration.
    pub migration: Migration,
    /// The inodes of the site's own directories, from before the migration: data, `ldap`, `slapd.d`.
    pub originals: Vec<u64>,
    /// Everything that was there before the migration.
    pub owned: Vec<u64>,
    key: (Way, Moment),
}

/// Those that wait for a case.
type Free = HashMap<(Way, Moment), Vec<Stand>>;

static FREE: Mutex<Option<Free>> = Mutex::new(None);

impl Stand {
    /// Takes a free one, or makes one.
    ///
    /// # Errors
    /// The migration does not come to that moment.
    pub fn at(way: Way, moment: Moment) -> Result<Self, LabError> {
        let key = (way, moment);
        let free = FREE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|free| free.get_mut(&key)?.pop());
        match free {
            Some(mut stand) => {
                stand.migration.take_turn();
                Ok(stand)
            }
            None => Self::make(key),
        }
    }

    /// Leaves it to the next case.
    pub fn free(mut self) {
        self.migration.leave_turn();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let free = free.get_or_insert_default();
        free.entry(self.key).or_default().push(self);
    }

    /// Removes the free ones: what is kept for a whole process is not dropped at its end.
    pub fn clear() {
        drop(FREE.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn make(key: (Way, Moment)) -> Result<Self, LabError> {
        let (way, moment) = key;
        let migration = Migration::begin_on(way, Scale::S)?;
        // A server that takes no password is waited for as long as one that recovers.
        migration.agent.set(&json!({"server_ready_timeout": 60}))?;
        let site = &migration.site;
        let empty = site.root.join("elsewhere/empty");
        fs::create_dir_all(&empty).map_err(io_error("create", &empty))?;
        let originals = [
            site.postgres_dir(),
            site.ldap_dir(),
            site.slapd_config_dir(),
        ]
        .iter()
        .map(|dir| inode(dir))
        .collect::<Result<_, _>>()?;
        let owned = super::judge::entries(&migration)?
            .into_values()
            .map(|entry| entry.inode)
            .collect();
        match moment {
            Moment::AfterTheEnd => migration.finish()?,
            Moment::InTheMiddle(place) => {
                let record = (records_of(way)? * place / 1000).max(1);
                let mut run = migration.agent.run();
                run.env(POINTS, format!("kill:after:{record}"));
                let ended = Running::start(&mut run)?.end()?;
                must(ended.code.is_none(), || {
                    format!("it was not killed: {:?}\n{}", ended.code, ended.stderr)
                })?;
                // A server that is still up writes into its directory, whatever the next run does.
                for container in migration.agent.containers()? {
                    docker(&["stop", "--time", "60", &container])?;
                    docker(&["rm", "--force", "--volumes", &container])?;
                }
            }
            Moment::AfterRollback => {
                migration.finish()?;
                migration.start_rollback()?.end()?.must_have(0)?;
            }
        }
        Ok(Self {
            migration,
            originals,
            owned,
            key,
        })
    }
}

fn inode(path: &std::path::Path) -> Result<u64, LabError> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path).map_err(io_error("inspect", path))?;
    Ok(meta.ino())
}

/// Number of records of a whole journal, about: that of the kept journal of this way.
fn records_of(way: Way) -> Result<u64, LabError> {
    let kept = format!(
        "tests/fixtures/state/v2-{}/{PLAYBOOK}/journal.jsonl",
        way.name()
    );
    let kept = workspace().join(kept);
    let text = fs::read_to_string(&kept).map_err(io_error("read", &kept))?;
    Ok(text.lines().count() as u64)
}
