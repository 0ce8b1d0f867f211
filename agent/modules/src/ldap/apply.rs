//! `ldif_apply`: a file of LDIF records, each of them once.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::directory::{Directory, cancellable};
use super::dn;
use super::effect::{Judge, Standing};
use super::error::LdapError;
use super::ldif::{Change, Record};
use super::login::with_directory;
use super::script::{Paths, Script, Source};
use super::substitute::Substitution;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_directory! {
    /// Applies an LDIF file (RFC 2849) record by record. Each record's effect is searched before and
    /// after; what is there already is passed over, so an interrupted file goes on where it stopped.
    pub struct LdifApply {
        /// The file, on this host, or a list of files that are applied as one. Relative paths start at the
        /// playbook.
        pub path: Paths,
        /// SHA-256 that the file must have, `sha256:<hex>` or plain hex. With one file only.
        #[serde(default)]
        pub checksum: Option<String>,
        /// Texts that are put in the place of others, in order, in each line once it is unfolded.
        #[serde(default)]
        pub substitute: Vec<Substitution>,
        /// Folder that relative `file:` values start at. Default: the file's own.
        #[serde(default)]
        pub values_from: Option<PathBuf>,
    }
}

impl TypedModule for LdifApply {
    const NAME: &'static str = "ldif_apply";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.ldif_apply"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "searches: records whose effect is there are passed over, the rest is applied. Nothing is undone: make an export first";
    const CHECK_MODE: &'static str =
        "predicts where the directory can be reached; otherwise skipped";
    const SUMMARY: &'static str =
        "Applies a file of LDIF records to a directory, each record once.";
    const EXAMPLE: &'static str = r#"- name: Update the archive's device to 5.31.2
  ldif_apply:
    path: "{{ work_dir }}/ldif/5.31.2/update-dev-5.31.2.ldif"
    values_from: "{{ work_dir }}/ldif"
    substitute:
      - {regexp: 'dicomDeviceName=dcm4chee-arc', replace: dicomDeviceName=kaapana}
  register: update   # update.records, .applied, .already, .files: [{path, sha256}]
"#;
}

/// What became of the records.
#[derive(Default)]
struct Tally {
    applied: usize,
    already: usize,
}

impl LdifApply {
    fn source(&self) -> Source<'_> {
        Source {
            paths: &self.path,
            checksum: self.checksum.as_deref(),
            substitute: &self.substitute,
            values_from: self.values_from.as_deref(),
        }
    }

    async fn run(&self, ctx: &TaskContext, script: &Script) -> Result<Tally, ModuleError> {
        let directory = self.login().directory(ctx).await?;
        // All that can be told is told before the first change.
        cancellable(&ctx.cancel, open_records(&directory, script)).await?;
        let judge = Judge {
            directory: &directory,
            records: &script.records,
        };
        let total = script.records.len() as u64;
        let mut tally = Tally::default();
        for index in 0..script.records.len() {
            let what = script.name_of(index);
            ctx.progress.items(index as u64, Some(total), &what);
            let done = cancellable(&ctx.cancel, once(&judge, script, index, &tally)).await?;
            if done {
                tally.applied += 1;
                ctx.progress.line(format!("{what}: applied"));
            } else {
                tally.already += 1;
            }
        }
        ctx.progress.items(total, Some(total), "done");
        Ok(tally)
    }
}

/// Applies one record where it is not there yet. Returns whether it was applied.
async fn once(
    judge: &Judge<'_>,
    script: &Script,
    index: usize,
    tally: &Tally,
) -> Result<bool, LdapError> {
    let record = &script.records[index];
    let dn = match judge.standing(index).await? {
        Standing::There => return Ok(false),
        Standing::Open { dn } => dn,
        Standing::Conflict(found) => return Err(conflict(script, index, found, tally)),
    };
    let refused = perform(judge.directory, &dn, &record.change).await.err();
    // Whatever the server said: what counts is what the directory holds.
    match (judge.standing(index).await?, refused) {
        (Standing::There, None) => Ok(true),
        // Another connection was faster: that of an attempt whose end nobody saw.
        (Standing::There, Some(_)) => Ok(false),
        (_, Some(LdapError::Refused { result, .. })) => Err(LdapError::Record {
            path: script.file_of(index).to_path_buf(),
            line: record.line,
            change: record.change.word(),
            dn,
            result,
        }),
        (_, Some(error)) => Err(error),
        (standing, None) => Err(LdapError::NoEffect {
            path: script.file_of(index).to_path_buf(),
            line: record.line,
            change: record.change.word(),
            dn,
            found: match standing {
                Standing::Conflict(found) => found,
                _ => "it is as before".into(),
            },
        }),
    }
}

async fn perform(directory: &Directory, dn: &str, change: &Change) -> Result<(), LdapError> {
    match change {
        Change::Add(attributes) => directory.add(dn, attributes).await,
        Change::Delete => directory.delete(dn).await,
        Change::Modify(changes) => directory.modify(dn, changes).await,
        Change::Rename {
            new_rdn,
            delete_old_rdn,
            new_superior,
        } => {
            directory
                .rename(dn, new_rdn, *delete_old_rdn, new_superior.as_deref())
                .await
        }
    }
}

/// Returns the records that are to be applied, after a look at all of them. A record that rests on one
/// before it that is not applied yet cannot be judged, and counts as open.
async fn open_records(directory: &Directory, script: &Script) -> Result<Vec<usize>, LdapError> {
    let judge = Judge {
        directory,
        records: &script.records,
    };
    let mut open: Vec<usize> = Vec::new();
    for (index, record) in script.records.iter().enumerate() {
        let rests_on = |earlier: &usize| rests_on(record, &script.records[*earlier]);
        match judge.standing(index).await? {
            Standing::There => {}
            Standing::Open { .. } => open.push(index),
            Standing::Conflict(_) if open.iter().any(rests_on) => open.push(index),
            Standing::Conflict(found) => {
                let tally = Tally {
                    applied: 0,
                    already: index - open.len(),
                };
                return Err(conflict(script, index, found, &tally));
            }
        }
    }
    Ok(open)
}

/// Tells whether what an earlier record does may decide over a later one: same entry, one above or below.
fn rests_on(record: &Record, earlier: &Record) -> bool {
    let names = |record: &Record| {
        let mut names = vec![record.dn.clone()];
        if let Change::Rename {
            new_rdn,
            new_superior,
            ..
        } = &record.change
        {
            names.push(dn::renamed(&record.dn, new_rdn, new_superior.as_deref()));
        }
        names
    };
    let touches = |a: &str, b: &str| dn::is_at_or_below(a, b) || dn::is_at_or_below(b, a);
    let earlier = names(earlier);
    names(record)
        .iter()
        .any(|name| earlier.iter().any(|other| touches(name, other)))
}

fn conflict(script: &Script, index: usize, found: String, tally: &Tally) -> LdapError {
    let record = &script.records[index];
    LdapError::Conflict {
        path: script.file_of(index).to_path_buf(),
        line: record.line,
        change: record.change.word(),
        dn: record.dn.clone(),
        found,
        already: tally.already,
        applied: tally.applied,
    }
}

fn outcome(script: &Script, tally: &Tally) -> Outcome {
    let summary = match (tally.applied, tally.already) {
        (applied, 0) => format!("{applied} records"),
        (applied, already) => format!("{applied} records, {already} were there already"),
    };
    let mut outcome = Outcome::ok()
        .with("files", script.described())
        .with("records", script.records.len())
        .with("applied", tally.applied)
        .with("already", tally.already)
        .summary(summary);
    outcome.changed = tally.applied > 0;
    outcome
}

#[async_trait]
impl Module for LdifApply {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        self.source().paths(ctx)
    }

    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        // An earlier task may bring the file, and services do not run in check mode.
        if !self.source().paths(ctx).iter().all(|path| path.exists()) {
            return Ok(Plan::CannotPredict);
        }
        let script = self.source().read(ctx)?;
        let Some(directory) = self.login().directory_if_there(ctx).await? else {
            return Ok(Plan::CannotPredict);
        };
        let open = cancellable(&ctx.cancel, open_records(&directory, &script)).await?;
        if open.is_empty() {
            return Ok(Plan::InSync);
        }
        let lines = open.iter().map(|index| script.name_of(*index));
        Ok(Plan::NeedsChange(lines.collect()))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let script = self.source().read(ctx)?;
        let paths: Vec<&PathBuf> = script.files.iter().map(|(path, ..)| path).collect();
        Ok(json!({"files": paths, "records": script.records.len()}))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let script = self.source().read(ctx)?;
        let tally = self.run(ctx, &script).await?;
        Ok(outcome(&script, &tally))
    }

    /// By searching: where every record's effect is there, the attempt came to its end. Otherwise the
    /// next one passes over what is there.
    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        let script = self.source().read(ctx)?;
        let directory = self.login().directory(ctx).await?;
        let judge = Judge {
            directory: &directory,
            records: &script.records,
        };
        for index in 0..script.records.len() {
            let standing = cancellable(&ctx.cancel, judge.standing(index)).await?;
            if standing != Standing::There {
                return Ok(Recovery::NotDone);
            }
        }
        let tally = Tally {
            applied: 0,
            already: script.records.len(),
        };
        Ok(Recovery::Done(Outcome {
            changed: true,
            ..outcome(&script, &tally)
        }))
    }
}
