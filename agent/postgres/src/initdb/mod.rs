//! `postgresql_initdb`: a data directory with an empty database, whole or not at all.

pub(crate) mod error;
#[cfg(test)]
mod live_tests;
pub(crate) mod place;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::PostgresError;
use crate::host::docker::arguments::{MountArgument, MountKind, Words, env_map};
use crate::host::docker::spec::DockerContainer;
use crate::host::docker::{client, lifecycle, service};
use crate::host::error::ModuleError;
use crate::host::files::durable::{Identity, fsync_dir, metadata_of, parent_of};
use crate::host::holders::holders;
use crate::host::worker;
use crate::initdb::error::InitdbError;
use crate::initdb::place::{Before, Claim, ClusterLocation};
use crate::initdb::server::{Init, identity};
use crate::server::data_directory::{self, Found};
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{ACCEPTED, PastAttempt, Step, Undo};

/// Makes a server's data directory, with an empty database in it, by an image's own initialisation.
///
/// The directory is made under the name `<path>.initializing` and gets its own when the server has
/// answered, was stopped cleanly, and everything is on the disk. A directory of that name is whole.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresqlInitdb {
    /// The data directory to be made. It must not exist, or be an empty directory that nobody uses;
    /// the folder that holds it must exist. A relative path starts at the playbook.
    pub path: PathBuf,
    /// Image of the server, by name or id. Never pulled here: see `docker_image`.
    pub image: String,
    /// Environment of the container: POSTGRES_PASSWORD (required, unless POSTGRES_HOST_AUTH_METHOD is
    /// `trust`), POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS.
    #[serde(default, deserialize_with = "env_map")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, String>,
    /// Command, as a list or as one text cut into words. Default: `[postgres, -c, fsync=off]`; the
    /// directory is synced as a whole before it gets its name.
    #[serde(default)]
    pub command: Option<Words>,
    /// Seconds until the server must answer; it may take as long again to stop. Default: 300.
    #[serde(default = "timeout")]
    pub timeout: u64,
    /// Where the image keeps its data directory. Default: /var/lib/postgresql/data.
    #[serde(default = "data_mount")]
    pub data_mount: String,
}

fn timeout() -> u64 {
    300
}

fn data_mount() -> String {
    "/var/lib/postgresql/data".into()
}

impl TypedModule for PostgresqlInitdb {
    const NAME: &'static str = "postgresql_initdb";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_initdb"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "removes its own `<path>.initializing` and its container, and begins again; done where the directory had got its name; *unknown* where something else is there";
    const CHECK_MODE: &'static str = "predicts where the directory is there; otherwise skipped";
    const TUNING: &'static [&'static str] = &["timeout"];
    const SUMMARY: &'static str =
        "Makes a server's data directory with an empty database, whole or not at all.";
    const EXAMPLE: &'static str = r#"- name: Make the data directory of the 0.3 database
  postgresql_initdb:
    path: "{{ fast_data_dir }}/postgres-dcm4che.new"
    image: "{{ new_image }}"
    env:
      POSTGRES_DB: pacsdb
      POSTGRES_USER: "{{ pacs_user }}"
      POSTGRES_PASSWORD: "{{ pacs_password }}"
  register: pgdata   # pgdata.path, .version, .uid, .gid, .size_bytes
"#;

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        let mut steps = Vec::new();
        for effort in efforts.iter().rev() {
            let intended = effort.intent["path"].as_str().map(PathBuf::from);
            if effort.accepted {
                return Undo::Impossible(ACCEPTED.into());
            }
            let Some(path) = effort.path("path") else {
                // It cleans up after itself; where it could not, its next attempt would.
                let left = intended.map(|path| ClusterLocation::new(&path).initializing);
                if let Some(left) = left.filter(|left| left.exists()) {
                    let left = left.display();
                    return Undo::Impossible(format!("a failed attempt left {left} behind"));
                }
                continue;
            };
            let identity = effort.identity();
            steps.push(Step::SetAside { path, identity });
        }
        Undo::Steps(steps)
    }
}

impl PostgresqlInitdb {
    fn place(&self, ctx: &TaskContext) -> Result<ClusterLocation, PostgresError> {
        let path = ctx.resolve(&self.path);
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(PostgresError::argument(
                "path",
                format!("{} names no directory that can be made", path.display()),
            ));
        }
        Ok(ClusterLocation::new(&path))
    }

    /// Returns what is started.
    fn container(&self, place: &ClusterLocation) -> Result<DockerContainer, ModuleError> {
        let given = |name: &str| self.env.get(name).is_some_and(|value| !value.is_empty());
        let trust = self.env.get("POSTGRES_HOST_AUTH_METHOD");
        if !given("POSTGRES_PASSWORD") && trust.is_none_or(|method| method != "trust") {
            return Err(InitdbError::NoPassword.into());
        }
        if !self.data_mount.starts_with('/') {
            return Err(PostgresError::argument("data_mount", "is not absolute").into());
        }
        if self.timeout == 0 {
            return Err(PostgresError::argument("timeout", "must be above 0").into());
        }
        let mut env = self.env.clone();
        let data = env
            .entry("PGDATA".into())
            .or_insert(self.data_mount.clone());
        if data.trim_end_matches('/') != self.data_mount.trim_end_matches('/') {
            return Err(PostgresError::argument(
                "env",
                format!("PGDATA is {data}, and `data_mount` is {}", self.data_mount),
            )
            .into());
        }
        let source = place.initializing.to_str().ok_or_else(|| {
            PostgresError::argument("path", "is not UTF-8, which Docker wants paths to be")
        })?;
        // Nobody needs what is made here before all of it is synced at once: initdb and the server
        // leave that to us. `-N` is initdb's only spelling of it that 9.6 knows as well.
        let arguments = env.entry("POSTGRES_INITDB_ARGS".into()).or_default();
        *arguments = format!("-N {arguments}").trim().to_owned();
        let unsynced = ["postgres", "-c", "fsync=off"].map(str::to_owned).to_vec();
        Ok(DockerContainer {
            image: Some(self.image.clone()),
            command: self.command.clone().or(Some(Words::List(unsynced))),
            env,
            mounts: vec![MountArgument {
                source: Some(source.to_owned()),
                target: self.data_mount.clone(),
                kind: MountKind::Bind,
                read_only: false,
            }],
            // Whatever the image would create beside the empty database stays out.
            tmpfs: vec!["/docker-entrypoint-initdb.d".into()],
            published_ports: vec!["5432".into()],
            // PostgreSQL's fast shutdown: it waits for no client and writes everything out.
            stop_signal: Some("SIGINT".into()),
            stop_timeout: Some(self.timeout),
            ..DockerContainer::default()
        })
    }

    /// Refuses what cannot come to a good end, before anything is touched.
    async fn survey(
        &self,
        ctx: &TaskContext,
        place: &ClusterLocation,
    ) -> Result<Before, ModuleError> {
        self.container(place)?;
        let before = place.refuse_taken()?;
        self.refuse_path(ctx, place).await?;
        Ok(before)
    }

    /// Makes the directory under its temporary name and brings it to its own.
    async fn make(&self, ctx: &TaskContext, place: &ClusterLocation) -> Result<Found, ModuleError> {
        place.make()?;
        let init = Init {
            ctx,
            container: self.container(place)?,
            identity: identity(place, &ctx.attempt),
            timeout: Duration::from_secs(self.timeout),
        };
        init.run().await?;
        let (looked, image) = (place.initializing.clone(), self.image.clone());
        let found = blocking(move || Ok(examine(&looked, &image)?)).await?;
        // Whoever came meanwhile keeps what is theirs.
        self.refuse_path(ctx, place).await?;
        if ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        ctx.progress.line("writing everything to disk");
        let last = place.clone();
        blocking(move || last.put_in_place()).await?;
        Ok(found)
    }

    /// Refuses a path that holds something or that somebody uses.
    async fn refuse_path(
        &self,
        ctx: &TaskContext,
        place: &ClusterLocation,
    ) -> Result<(), ModuleError> {
        match place.look()? {
            (Before::Absent, _) => Ok(()),
            (Before::Empty, _) => {
                let held = holders(ctx, &place.path).await?;
                if held.is_empty() {
                    return Ok(());
                }
                Err(InitdbError::Held {
                    path: place.path.clone(),
                    holders: held.iter().map(ToString::to_string).collect(),
                }
                .into())
            }
            (_, found) => Err(InitdbError::Taken {
                path: place.path.clone(),
                found,
            }
            .into()),
        }
    }
}

/// Runs work that blocks; it is never given up half way.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ModuleError> + Send + 'static,
) -> Result<T, ModuleError> {
    worker::blocking("work on a data directory", work).await?
}

/// Makes sure that a stopped server left a whole data directory.
fn examine(path: &Path, image: &str) -> Result<Found, InitdbError> {
    let unusable = |why: String| InitdbError::Unusable {
        image: image.to_owned(),
        why,
    };
    let found = data_directory::look(path).map_err(|error| unusable(error.to_string()))?;
    if found.postmaster_pid.is_some() {
        let why = "postmaster.pid is still there, so the server did not end cleanly";
        return Err(unusable(why.into()));
    }
    Ok(found)
}

/// Removes everything that an attempt left: its container first, which works in the directory.
async fn discard(
    ctx: &TaskContext,
    place: &ClusterLocation,
    attempt: &str,
) -> Result<(), ModuleError> {
    // Cleaning up is what an interruption asks for.
    let mut ctx = ctx.clone();
    ctx.cancel = CancellationToken::new();
    service::discard(&ctx, &identity(place, attempt)).await?;
    let (place, attempt) = (place.clone(), attempt.to_owned());
    blocking(move || place.remove(&attempt)).await
}

/// Takes the place for this attempt; what an attempt that is over left there goes first.
async fn take(ctx: &TaskContext, place: &ClusterLocation) -> Result<Claim, ModuleError> {
    let mut claim = place.claim()?;
    if let Some(before) = claim.before.take() {
        ctx.progress.line(format!(
            "removing what an earlier attempt left behind at {}",
            place.initializing.display()
        ));
        discard(ctx, place, &before).await?;
    }
    claim.write(&ctx.attempt)?;
    Ok(claim)
}

fn outcome(path: &Path, found: &Found) -> Outcome {
    Outcome::changed()
        .with("path", path.display().to_string())
        .with("version", found.version.as_str())
        .with("uid", found.meta.uid())
        .with("gid", found.meta.gid())
        .with("size_bytes", found.size)
        .with("device", found.meta.dev())
        .with("inode", found.meta.ino())
        .summary(format!(
            "PostgreSQL {}, {} MiB",
            found.version,
            found.size >> 20
        ))
}

#[async_trait]
impl Module for PostgresqlInitdb {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let place = self.place(ctx)?;
        // Earlier tasks may make the folder and bring the image.
        if metadata_of(parent_of(&place.path))?.is_none() {
            return Ok(Plan::CannotPredict);
        }
        self.survey(ctx, &place).await?;
        Ok(Plan::NeedsChange(vec![format!(
            "make the data directory {} with {}",
            place.path.display(),
            self.image
        )]))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let place = self.place(ctx)?;
        let before = self.survey(ctx, &place).await?;
        lifecycle::image_id(&client::connect(ctx).await?, &self.image).await?;
        Ok(json!({
            "path": place.path.display().to_string(),
            "parent": serde_json::to_value(place.parent()?).unwrap_or_default(),
            "path_was": serde_json::to_value(before).unwrap_or_default(),
        }))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let place = self.place(ctx)?;
        self.survey(ctx, &place).await?;
        let claim = take(ctx, &place).await?;
        match self.make(ctx, &place).await {
            Ok(found) => {
                claim.release()?;
                Ok(outcome(&place.path, &found))
            }
            // Somebody put it there after the survey: not ours to remove.
            Err(ModuleError::Failed(failure)) if failure.code() == "postgresql::initdb_foreign" => {
                claim.release()?;
                Err(ModuleError::Failed(failure))
            }
            Err(error) => {
                let cleaned = match discard(ctx, &place, &ctx.attempt).await {
                    Ok(()) => claim.release().map_err(ModuleError::from),
                    Err(second) => Err(second),
                };
                // The first error is the one that counts; the claim stays, so the next attempt knows
                // what it finds for ours and removes it.
                if let Err(second) = cleaned {
                    ctx.progress.line(format!(
                        "left {} behind, which the next run removes: {second}",
                        place.initializing.display()
                    ));
                }
                Err(error)
            }
        }
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let place = self.place(ctx)?;
        let attempt = ctx.interrupted_attempt.clone().unwrap_or_default();
        let unknown = |found: String| {
            Ok(Recovery::Unknown {
                doing: format!("making the data directory {}", place.path.display()),
                found,
            })
        };
        let parent: Option<Identity> = serde_json::from_value(intent["parent"].clone()).ok();
        let folder = parent_of(&place.path).display();
        if intent["path"] != place.path.display().to_string() {
            return unknown(format!("it was to become {} then", intent["path"]));
        }
        match place.parent() {
            Ok(now) if parent == Some(now) => {}
            Ok(_) => return unknown(format!("the folder {folder} is another one now")),
            Err(InitdbError::NoParent { .. }) => {
                return unknown(format!("the folder {folder} is gone"));
            }
            Err(error) => return Err(error.into()),
        }
        let claim = place.existing_claim()?;
        let owner = claim.as_ref().and_then(|claim| claim.before.clone());
        let ours = owner.as_ref().is_none_or(|owner| *owner == attempt);
        let initializing = metadata_of(&place.initializing)?.is_some();
        let shown = place.initializing.display();
        if initializing && owner.is_none() {
            return unknown(format!(
                "{shown} is there, and no mark that this task made it"
            ));
        }
        let (now, found) = place.look()?;
        match now {
            Before::Database if !initializing && ours => {
                service::discard(ctx, &identity(&place, &attempt)).await?;
                let path = place.path.clone();
                let looked = blocking(move || Ok(data_directory::look(&path)?)).await;
                let found = match looked {
                    Ok(found) => found,
                    Err(error) => return unknown(error.to_string()),
                };
                fsync_dir(parent_of(&place.path))?;
                if let Some(claim) = claim {
                    claim.release()?;
                }
                Ok(Recovery::Done(outcome(&place.path, &found)))
            }
            Before::Absent | Before::Empty => {
                if ours {
                    discard(ctx, &place, &attempt).await?;
                    if let Some(claim) = claim {
                        claim.release()?;
                    }
                } else {
                    // Another attempt's, which is over: whoever claims the place removes it.
                    service::discard(ctx, &identity(&place, &attempt)).await?;
                }
                Ok(Recovery::NotDone)
            }
            Before::Database if initializing => unknown(format!(
                "{} {found}, and {shown} is there, too",
                place.path.display()
            )),
            Before::Database => unknown(format!(
                "{} {found}, which another attempt made",
                place.path.display()
            )),
            Before::Other => unknown(format!("{} {found}", place.path.display())),
        }
    }

    fn advice(&self, ctx: &TaskContext) -> Advice {
        let path = ctx.resolve(&self.path);
        let path = path.display();
        Advice {
            look: format!(
                "at {path} and what lies beside it (`ls -la {path} {path}.initializing`)"
            ),
            done: format!("{path} is the data directory that the next tasks are to use, whole"),
            redo: format!(
                "{path} and {path}.initializing have been moved away: a new directory is made; what \
                 is in the way is refused, not overwritten"
            ),
        }
    }
}
