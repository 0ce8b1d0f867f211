//! `ldap_export`: a part of a directory as an LDIF file that slapadd takes.
//!
//! By a search, not by slapcat: it needs a connection and nothing else, so it works with any server, also
//! one in a pod that leaves no memory for a second program, and the file is written by the agent, which
//! syncs it. What slapcat has beyond that, the operational attributes, a search returns when asked.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::directory::{Directory, Entry, Scope, cancellable};
use super::error::LdapError;
use super::ldif::{Change, parse};
use super::ldif_write::write_entry;
use super::login::with_directory;
use super::substitute::Substitutions;
use crate::host::error::{ModuleError, PathError};
use crate::host::files::durable::{parent_of, remove_if_there, rename_noreplace, sibling};
use crate::host::output_file::OutputFile;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo, files_made};

/// First line of a file: which attempt wrote it.
const WRITTEN_BY: &str = "# Written by kaapana-agent, attempt ";

/// Made up by the server for each answer, and refused by slapadd.
const COMPUTED: [&str; 4] = [
    "entryDN",
    "subschemaSubentry",
    "hasSubordinates",
    "numSubordinates",
];

with_directory! {
    /// Writes entries of a directory to an LDIF file, reads the file again and compares it with what the
    /// server sent. The file appears when it is whole. Nobody should write to the directory meanwhile.
    pub struct LdapExport {
        /// The entry to begin with; it and everything below it is written.
        pub base: String,
        /// The file. Must not exist. Relative paths start at the playbook.
        pub dest: PathBuf,
        /// Which entries (RFC 4515). Default: all.
        #[serde(default = "any_entry")]
        pub filter: String,
        /// Write what the server keeps of its own as well (identities, times), for slapadd; without it the
        /// file is one for ldapadd. Default: true.
        #[serde(default = "yes")]
        pub operational: bool,
    }
}

fn any_entry() -> String {
    "(objectClass=*)".to_owned()
}

fn yes() -> bool {
    true
}

impl TypedModule for LdapExport {
    const NAME: &'static str = "ldap_export";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.ldap_export"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "done where the file has its name: it says by which attempt it was written; otherwise the half file is removed and the export made again; a file that it has not made: *unknown*";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Writes entries of a directory to an LDIF file, and checks it.";
    const EXAMPLE: &'static str = r#"- name: Save the directory
  ldap_export:
    base: dc=dcm4che,dc=org
    dest: "{{ backup_dir }}/ldap-data.ldif"
  register: saved   # saved.dest, .entries, .size, .sha256
"#;

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        files_made(efforts, &["dest"])
    }
}

/// What a file holds, so that two can be compared: a hash of each entry, by name.
type Digests = BTreeMap<String, [u8; 32]>;

fn digest(attributes: &BTreeMap<String, Vec<Vec<u8>>>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, values) in attributes {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        for value in values {
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
        }
    }
    hash.finalize().into()
}

impl LdapExport {
    async fn export(
        &self,
        ctx: &TaskContext,
        dest: &Path,
        partial: &Path,
    ) -> Result<Outcome, ModuleError> {
        let directory = self.login().directory(ctx).await?;
        let sent = cancellable(&ctx.cancel, self.write(ctx, &directory, partial)).await?;
        let outcome = described(dest, partial, Some(&sent))?;
        if sent.is_empty() {
            return Err(LdapError::Export {
                path: dest.to_path_buf(),
                message: "no entry was found".into(),
            }
            .into());
        }
        rename_noreplace(partial, dest)?;
        Ok(outcome)
    }

    async fn write(
        &self,
        ctx: &TaskContext,
        directory: &Directory,
        partial: &Path,
    ) -> Result<Digests, LdapError> {
        let file = create(partial)?;
        let mut out = BufWriter::new(file);
        let failed = |error| LdapError::from(PathError::on("write", partial)(error));
        // No version line: slapadd takes one for an entry without a name.
        writeln!(out, "{WRITTEN_BY}{}", ctx.attempt).map_err(failed)?;
        let mut attributes = vec!["*".to_owned()];
        attributes.extend(self.operational.then(|| "+".to_owned()));
        let mut sent = Digests::new();
        let search = directory.search_each(
            &self.base,
            Scope::Subtree,
            &self.filter,
            &attributes,
            |mut entry| {
                tidy(&mut entry);
                write_entry(&mut out, &entry)
                    .map_err(|error| LdapError::from(PathError::on("write", partial)(error)))?;
                sent.insert(entry.dn.clone(), digest(&entry.attributes));
                ctx.progress.items(sent.len() as u64, None, &entry.dn);
                Ok(())
            },
        );
        search.await?;
        let file = out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(PathError::on("sync", partial))?;
        Ok(sent)
    }

    fn dest(&self, ctx: &TaskContext) -> PathBuf {
        ctx.resolve(&self.dest)
    }
}

/// Takes out what slapadd would refuse: what the server computes, and, of the entry that holds them, the
/// definitions that are built into the server.
fn tidy(entry: &mut Entry) {
    entry.attributes.retain(|name, _| {
        !COMPUTED
            .iter()
            .any(|computed| computed.eq_ignore_ascii_case(name))
    });
    if entry.dn.eq_ignore_ascii_case("cn=schema,cn=config") {
        entry.attributes.retain(|name, _| {
            let name = name.to_ascii_lowercase();
            !name.starts_with("olc")
        });
    }
}

fn create(path: &Path) -> Result<std::fs::File, PathError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(PathError::on("create", path))
}

/// Reads a file again, compares it with what was sent, and describes it.
fn described(dest: &Path, file: &Path, sent: Option<&Digests>) -> Result<Outcome, LdapError> {
    let bytes = std::fs::read(file).map_err(PathError::on("read", file))?;
    let wrong = |message: String| LdapError::Export {
        path: dest.to_path_buf(),
        message,
    };
    let records = parse(&bytes, &Substitutions::default(), parent_of(file))
        .map_err(|error| wrong(error.to_string()))?;
    let mut found = Digests::new();
    for record in records {
        let Change::Add(attributes) = record.change else {
            return Err(wrong(format!("line {} is no entry", record.line)));
        };
        found.insert(record.dn, digest(&attributes.into_iter().collect()));
    }
    if let Some(sent) = sent.filter(|sent| **sent != found) {
        let name = sent
            .iter()
            .find(|(name, digest)| found.get(*name) != Some(*digest))
            .map_or("an entry too many", |(name, _)| name.as_str());
        return Err(wrong(format!("`{name}` reads otherwise than it was sent")));
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let (size, entries) = (bytes.len() as u64, found.len());
    Ok(Outcome::changed()
        .with("dest", dest.display().to_string())
        .with("entries", entries)
        .with("size", size)
        .with("sha256", sha256.as_str())
        .with("checksum", format!("sha256:{sha256}"))
        .output(OutputFile {
            path: dest.to_path_buf(),
            size,
            sha256,
        })
        .summary(format!("{entries} entries in {}", dest.display())))
}

#[async_trait]
impl Module for LdapExport {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let dest = self.dest(ctx);
        if dest.exists() {
            return Err(LdapError::DestExists(dest).into());
        }
        Ok(Plan::NeedsChange(vec![format!("write {}", dest.display())]))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let dest = self.dest(ctx);
        if dest.exists() {
            return Err(LdapError::DestExists(dest).into());
        }
        Ok(json!({"dest": dest}))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let dest = self.dest(ctx);
        let partial = sibling(&dest, "partial", &ctx.attempt);
        let exported = self.export(ctx, &dest, &partial).await;
        if exported.is_err() {
            remove_if_there(&partial)?;
        }
        exported
    }

    /// A file gets its name when it is whole, and says whose it is.
    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let dest = intent["dest"]
            .as_str()
            .map_or_else(|| self.dest(ctx), PathBuf::from);
        let interrupted = ctx.interrupted_attempt.as_deref().unwrap_or_default();
        remove_if_there(&sibling(&dest, "partial", interrupted))?;
        if !dest.exists() {
            return Ok(Recovery::NotDone);
        }
        let text = std::fs::read(&dest).map_err(PathError::on("read", &dest))?;
        if text.starts_with(format!("{WRITTEN_BY}{interrupted}\n").as_bytes()) {
            return Ok(Recovery::Done(described(&dest, &dest, None)?));
        }
        Ok(Recovery::Unknown {
            doing: format!("writing {}", dest.display()),
            found: "a file is there that this task has not made; move it away and say redo".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_export_is_found_whole_undone_or_somebody_elses() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut ctx = TaskContext::for_tests(dir.path());
        ctx.interrupted_attempt = Some("run-1/7".into());
        let module: LdapExport =
            serde_json::from_value(json!({"base": "dc=x", "dest": "out.ldif"})).expect("arguments");
        let dest = dir.path().join("out.ldif");
        let intent = json!({"dest": dest});
        let recovered = async || module.recover(&ctx, &intent).await.expect("recovered");

        let partial = sibling(&dest, "partial", "run-1/7");
        std::fs::write(&partial, format!("{WRITTEN_BY}run-1/7\ndn: dc=x\n")).expect("write");
        assert_eq!(recovered().await, Recovery::NotDone);
        assert!(!partial.exists(), "the half file is gone");

        let whole = |attempt: &str| format!("{WRITTEN_BY}{attempt}\ndn: dc=x\ndc: x\n\n");
        std::fs::write(&dest, whole("run-1/7")).expect("write");
        let Recovery::Done(outcome) = recovered().await else {
            panic!("the file is whole and ours")
        };
        assert_eq!(outcome.result["entries"], 1);
        assert_eq!(outcome.outputs[0].path, dest);
        std::fs::write(&dest, whole("run-1/70")).expect("write");
        assert!(matches!(recovered().await, Recovery::Unknown { .. }));
        assert!(dest.exists(), "nothing of somebody else's is removed");
    }
}
