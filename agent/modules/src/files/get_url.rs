//! `get_url`: a download that is what the playbook was written for, whole or not there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::result::with_file_facts;
use super::stat::ansible_checksum;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::{Attributes, Wanted, apply_to_path, umask};
use crate::host::files::blocking::{blocking, detached};
use crate::host::files::durable::{
    PendingFile, kind_of, metadata_of, mode_of, parent_of, read_through, remove_partial,
    sha256_file,
};
use crate::host::files::error::{FilesError, FilesResult, human_bytes};
use crate::host::files::mode::Mode;
use crate::host::http::{Guarded, Manners, shown};
use crate::host::output_file::OutputFile;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_state::{Before, before_of, intent_of, undo_of_path};
use crate::task::undo::{PastAttempt, Undo};

/// How many redirects are followed.
const REDIRECTS: u32 = 10;
/// How long an interrupted download may take to notice.
const NOTICE: Duration = Duration::from_secs(2);

/// Downloads a file over HTTP or HTTPS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetUrlModule {
    /// `http://` or `https://` address.
    url: String,
    /// Where to. An existing directory gets the file under the address's last part.
    dest: PathBuf,
    /// `sha256:` and the hex digits that the content must have. A file that has them already is not
    /// downloaded again. Without one, a web page (`text/html`) is refused, unless `dest` ends in
    /// `.html`: a link to a page about a file is an easy mistake.
    #[serde(default)]
    checksum: Option<String>,
    /// Downloads although `dest` exists, and replaces it when it differs. Default: false.
    #[serde(default)]
    force: bool,
    /// Seconds that the server may be silent. Default: 10.
    #[serde(default = "ten")]
    timeout: u64,
    /// Headers of the request.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Mode: `0644`, `"0644"` or `u=rw,g=r`. Default: for a new file the umask decides.
    #[serde(default)]
    mode: Option<Mode>,
    /// Owner, a name or number.
    #[serde(default)]
    owner: Option<String>,
    /// Group, a name or number.
    #[serde(default)]
    group: Option<String>,
}

fn ten() -> u64 {
    10
}

impl GetUrlModule {
    fn wanted(&self) -> FilesResult<Wanted> {
        Wanted::look_up(
            self.mode.as_ref(),
            self.owner.as_deref(),
            self.group.as_deref(),
        )
    }

    fn expected(&self) -> FilesResult<Option<String>> {
        let Some(checksum) = &self.checksum else {
            return Ok(None);
        };
        let hex = checksum
            .strip_prefix("sha256:")
            .map(|hex| hex.trim().to_ascii_lowercase());
        hex.filter(|hex| hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()))
            .map(Some)
            .ok_or_else(|| {
                FilesError::argument_with_help(
                    format!("`checksum`: `{checksum}` is not `sha256:` and 64 hex digits"),
                    "`sha256sum FILE` prints them",
                )
                .into()
            })
    }

    fn target(&self, ctx: &TaskContext) -> FilesResult<PathBuf> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err(FilesError::argument("`url` must begin with http:// or https://").into());
        }
        let dest = ctx.resolve(&self.dest);
        if !dest.is_dir() {
            return Ok(dest);
        }
        let address = self.url.split(['?', '#']).next().unwrap_or_default();
        let after = address.split_once("://").map_or("", |(_, rest)| rest);
        match after.rsplit_once('/').map(|(_, name)| name) {
            Some(name) if !name.is_empty() => Ok(dest.join(name)),
            _ => Err(FilesError::argument("`dest` is a directory, and `url` names no file").into()),
        }
    }

    /// Tells whether the content that is there will do: `None` when only a download can tell.
    fn content_is_there(&self, ctx: &TaskContext, target: &Path) -> FilesResult<Option<bool>> {
        match metadata_of(target)? {
            None => return Ok(Some(false)),
            Some(meta) if meta.is_dir() => {
                return Err(FilesError::WrongKind {
                    path: target.to_path_buf(),
                    wanted: "file",
                    found: kind_of(&meta),
                }
                .into());
            }
            Some(_) => {}
        }
        Ok(match self.expected()? {
            Some(expected) => Some(sha256_file(target, &ctx.cancel, |_| {})? == expected),
            None if self.force => None,
            None => Some(true),
        })
    }

    fn plan(&self, ctx: &TaskContext) -> FilesResult<Plan> {
        let target = self.target(ctx)?;
        let mut lines = Vec::new();
        match self.content_is_there(ctx, &target)? {
            None => return Ok(Plan::CannotPredict),
            Some(false) => {
                lines.push(format!("download {} to {}", self.url, target.display()));
            }
            Some(true) => {
                let meta = fs::metadata(&target).map_err(PathError::on("inspect", &target))?;
                lines.extend(self.wanted()?.difference(&meta).1);
            }
        }
        Ok(Plan::from(lines))
    }

    fn run(&self, ctx: &TaskContext, before: &Before) -> FilesResult<Outcome> {
        let target = self.target(ctx)?;
        let begun = Instant::now();
        let mut outcome = Outcome::ok();
        if self.content_is_there(ctx, &target)? == Some(true) {
            let meta = fs::metadata(&target).map_err(PathError::on("inspect", &target))?;
            let (change, lines) = self.wanted()?.difference(&meta);
            if change != Attributes::default() {
                apply_to_path(&target, &change)?;
            }
            outcome.changed = !lines.is_empty();
            outcome = outcome.with("msg", "the file is there already");
        } else {
            let (status, changed) = self.download(ctx, &target, before)?;
            outcome.changed = changed;
            outcome = outcome.with("status_code", status).with("msg", "OK");
        }
        let size = fs::metadata(&target)
            .map_err(PathError::on("inspect", &target))?
            .len();
        let sha256 = sha256_file(&target, &ctx.cancel, |_| {})?;
        let outcome = with_file_facts(outcome, "dest", &target)?
            .with("url", self.url.clone())
            .with("elapsed", begun.elapsed().as_secs())
            .with("checksum_dest", ansible_checksum(&target, ctx)?)
            .with("sha256", sha256.clone())
            .summary(format!("{}, SHA-256 {sha256}", human_bytes(size)));
        Ok(outcome.output(OutputFile {
            path: target,
            size,
            sha256,
        }))
    }

    fn download(
        &self,
        ctx: &TaskContext,
        target: &Path,
        before: &Before,
    ) -> FilesResult<(u16, bool)> {
        let expected = self.expected()?;
        let failed = |message: String, help: Option<&str>| FilesError::Download {
            url: shown(&self.url),
            message,
            help: help.map(Into::into),
        };
        if !parent_of(target).is_dir() {
            return Err(FilesError::Missing {
                what: "the target's folder",
                path: parent_of(target).to_path_buf(),
            }
            .into());
        }
        let manners = Manners {
            silence: Duration::from_secs(self.timeout.max(1)),
            verify: true,
            redirects: REDIRECTS,
        };
        let agent = manners.client();
        let mut request = agent.get(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request
            .call()
            .map_err(|error| failed(error.to_string(), None))?;
        let status = response.status();
        if status != 200 {
            return Err(failed(format!("the server answers {status}"), None).into());
        }
        let body = response.into_body();
        let is_page = body
            .mime_type()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let wants_page = target
            .extension()
            .is_some_and(|end| end == "html" || end == "htm");
        if is_page && !wants_page && expected.is_none() {
            return Err(failed(
                "the server sends a web page (text/html), not a file".into(),
                Some("use the address of the raw file, and pin its content with `checksum`"),
            )
            .into());
        }
        let total = body.content_length();
        let mut pending = PendingFile::create(target, &ctx.attempt)?;
        let temporary = pending.path().to_path_buf();
        let mut hash = Sha256::new();
        let mut done = 0;
        let mut reader = Guarded {
            body: body.into_reader(),
            error: None,
        };
        let read = read_through(&mut reader, &temporary, &ctx.cancel, |piece| {
            pending
                .file
                .write_all(piece)
                .map_err(PathError::on("write", &temporary))?;
            hash.update(piece);
            done += piece.len() as u64;
            ctx.progress.bytes(done, total);
            Ok(())
        });
        if let Some(error) = reader.error {
            return Err(failed(format!("after {}: {error}", human_bytes(done)), None).into());
        }
        read?;
        if let Some(total) = total.filter(|total| *total != done) {
            return Err(failed(format!("{done} of {total} bytes came"), None).into());
        }
        let found = hex::encode(hash.finalize());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(FilesError::ChecksumDiffers {
                what: shown(&self.url),
                found,
                expected,
            }
            .into());
        }
        if ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        let meta = metadata_of(target)?.filter(fs::Metadata::is_file);
        let default = meta.as_ref().map_or(0o666 & !umask(), mode_of);
        let same = meta.is_some() && sha256_file(target, &ctx.cancel, |_| {})? == found;
        before.keep()?;
        pending.commit(&self.wanted()?.for_new(default, false))?;
        Ok((status.as_u16(), !same))
    }
}

#[async_trait]
impl Module for GetUrlModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        blocking(self, ctx, |module, ctx| module.plan(ctx)).await
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            intent_of(&module.target(ctx)?, ctx)
        })
        .await
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let (module, own) = (self.clone(), ctx.clone());
        let before = before_of(intent, &self.target(ctx)?, ctx)?;
        let work = detached("download", move || module.run(&own, &before));
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => return ended?,
            () = ctx.cancel.cancelled() => {}
        }
        // The thread may sit in a read for `timeout` seconds; it looks at the token before it commits.
        if let Ok(ended) = tokio::time::timeout(NOTICE, work).await {
            return ended?;
        }
        remove_partial(&self.target(ctx)?, Some(&ctx.attempt))?;
        Err(ModuleError::Cancelled)
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        remove_partial(&self.target(ctx)?, ctx.interrupted_attempt.as_deref())?;
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for GetUrlModule {
    const NAME: &'static str = "get_url";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.get_url", "ansible.legacy.get_url"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "removes its half file, downloads again";
    const CHECK_MODE: &'static str =
        "predicts where a checksum or the file itself tells; otherwise skipped";
    const SUMMARY: &'static str = "Downloads a file and checks that it is the right one";
    const EXAMPLE: &'static str = "\
- name: The update script of 5.27
  get_url:
    url: https://example.org/dcm4chee-arc-light/5.32.0/sql/psql/update-5.27-psql.sql
    dest: \"{{ work_dir }}/update-5.27-psql.sql\"
    checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    mode: \"0644\"
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        undo_of_path(efforts)
    }
}

#[cfg(test)]
#[path = "get_url_tests.rs"]
mod tests;
