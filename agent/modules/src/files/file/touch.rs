//! `state: touch`: a file is there, and has these times.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::path::Path;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Deserialize;

use super::FileModule;
use crate::host::error::PathError;
use crate::host::files::converge::Converge;
use crate::host::files::durable::{fsync_dir, parent_of};
use crate::host::files::error::{FilesError, FilesResult};

/// A time that `touch` sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String")]
pub(super) enum TouchTime {
    #[default]
    Now,
    Preserve,
    At(String),
}

impl From<String> for TouchTime {
    fn from(text: String) -> Self {
        match text.as_str() {
            "now" => Self::Now,
            "preserve" => Self::Preserve,
            _ => Self::At(text),
        }
    }
}

impl TouchTime {
    /// `None`: the time stays.
    fn wanted(&self, form: Option<&str>, now: SystemTime) -> FilesResult<Option<SystemTime>> {
        let text = match self {
            Self::Now => return Ok(Some(now)),
            Self::Preserve => return Ok(None),
            Self::At(text) => text,
        };
        let form = form.unwrap_or("%Y%m%d%H%M.%S");
        jiff::civil::DateTime::strptime(form, text)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()))
            .map(|time| Some(SystemTime::from(time.timestamp())))
            .map_err(|_| {
                FilesError::argument_with_help(
                    format!("`{text}` is no time of the form `{form}`"),
                    "write `now`, `preserve` or for example `202401311200.00`",
                )
                .into()
            })
    }
}

impl FileModule {
    pub(super) fn touch(&self, path: &Path, mode: Converge) -> FilesResult<Vec<String>> {
        let wanted = self.wanted()?;
        let mut lines = Vec::new();
        if !path.exists() {
            lines.push(format!("create file {}", path.display()));
            if mode == Converge::Check {
                return Ok(lines);
            }
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(PathError::on("create", path))?;
            file.sync_all().map_err(PathError::on("sync", path))?;
            fsync_dir(parent_of(path))?;
        }
        let meta = fs::metadata(path).map_err(PathError::on("inspect", path))?;
        let now = SystemTime::now();
        let modified = self
            .modification_time
            .wanted(self.modification_time_format.as_deref(), now)?;
        let accessed = self
            .access_time
            .wanted(self.access_time_format.as_deref(), now)?;
        let differs = |wanted: Option<SystemTime>, found: std::io::Result<SystemTime>| {
            wanted.is_some_and(|wanted| found.is_ok_and(|found| found != wanted))
        };
        if differs(modified, meta.modified()) || differs(accessed, meta.accessed()) {
            lines.push(format!("set the times of {}", path.display()));
            if mode == Converge::Apply {
                let mut times = FileTimes::new();
                if let Some(time) = accessed {
                    times = times.set_accessed(time);
                }
                if let Some(time) = modified {
                    times = times.set_modified(time);
                }
                // Opened for reading: directories can be touched, too.
                let file = File::open(path).map_err(PathError::on("open", path))?;
                file.set_times(times)
                    .and_then(|()| file.sync_all())
                    .map_err(PathError::on("set the times of", path))?;
            }
        }
        lines.extend(self.attributes(path, &wanted, mode)?);
        Ok(lines)
    }
}
