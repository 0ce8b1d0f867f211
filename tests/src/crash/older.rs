//! A migration that an older agent begins and the agent of today ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::leg::{Fire, Leg, Watched, on_a_site};
use super::random::Random;
use super::records::PHASES;
use super::reference::Reference;
use super::report::{Case, Seen};
use crate::agent::{PLAYBOOK, build_in, workspace};
use crate::error::{LabError, io_error};
use crate::migration::{Migration, must};
use crate::site::Scale;
use crate::tool;
use crate::way::Way;
use crate::workplace::{lab_subdir, stage};

/// An older state of the agent: its binary, and the playbooks that shipped with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderAgent {
    /// The binary, of a build with debug assertions: it can end itself at a record.
    pub binary: PathBuf,
    /// The folder of its playbooks.
    pub playbooks: PathBuf,
}

impl OlderAgent {
    /// Takes a commit out of the repository (`git archive`) and builds its agent, unless that was done.
    ///
    /// # Errors
    /// There is no such commit here, or it does not build.
    pub fn of_commit(commit: &str) -> Result<Self, LabError> {
        let mut parse = Command::new("git");
        parse.current_dir(workspace()).args([
            "rev-parse",
            "--verify",
            &format!("{commit}^{{commit}}"),
        ]);
        let commit = tool::run(&mut parse, "find a commit")?.trim().to_owned();
        let dir = lab_subdir("older")?.join(&commit);
        if !dir.is_dir() {
            let partial = dir.with_extension("partial");
            crate::workplace::remove_any(&partial)?;
            fs::create_dir(&partial).map_err(io_error("create", &partial))?;
            let script = "git -C \"$1\" archive \"$2\" | tar -x -C \"$3\"";
            let mut archive = Command::new("sh");
            archive
                .args(["-ec", script, "sh"])
                .arg(workspace())
                .arg(&commit)
                .arg(&partial)
                .stdin(Stdio::null());
            tool::run(&mut archive, "take a commit out of the repository")?;
            fs::rename(&partial, &dir).map_err(io_error("rename", &partial))?;
        }
        let target = dir.join("target");
        let binary = stage("build the older agent", || {
            build_in(&dir, &["--package", "kaapana-agent"], |build| {
                build.arg("--target-dir").arg(&target);
            })
        })?;
        let playbooks = dir.join("playbooks");
        Ok(Self { binary, playbooks })
    }

    /// Its migration's playbook.
    #[must_use]
    pub fn playbook(&self) -> PathBuf {
        self.playbooks.join(format!("{PLAYBOOK}.yaml"))
    }
}

/// Cases `from` to `to` (not included) of a seed: each way in its turn, killed at a record and a moment of
/// its append that the seed names.
#[must_use]
pub fn taken_over(older: &OlderAgent, seed: u64, from: u64, to: u64, ways: &[Way]) -> Vec<Case> {
    let mut cases = Vec::new();
    for case in from..to {
        let Some(way) = ways.get(case as usize % ways.len().max(1)).copied() else {
            continue;
        };
        let mut random = Random::new(seed, case);
        let thousandths = random.below(1000);
        let phase = PHASES[random.below(PHASES.len() as u64) as usize];
        let older = older.clone();
        cases.push(Case {
            kind: "begun by an older agent",
            name: format!(
                "case {case} of seed {seed}: {phase} the record at {thousandths}‰, {}",
                way.name()
            ),
            replay: format!(
                "{}--older 1 --seed {seed} --case {case}{}",
                agent_options(&older.binary, &older.playbooks),
                match ways {
                    [only] => only.options(),
                    _ => String::new(),
                }
            ),
            work: Box::new(move || take_over(&older, way, thousandths, phase)),
        });
    }
    cases
}

fn agent_options(binary: &Path, playbooks: &Path) -> String {
    format!(
        "--old-agent {} --old-playbooks {} ",
        binary.display(),
        playbooks.display()
    )
}

fn take_over(
    older: &OlderAgent,
    way: Way,
    thousandths: u64,
    phase: &str,
) -> Result<Seen, LabError> {
    let reference = Reference::on(way, Scale::S)?;
    let record = (reference.records * thousandths / 1000).max(1);
    let mut migration = Migration::begin_on(way, Scale::S)?;
    let binary = std::mem::replace(&mut migration.agent.binary, older.binary.clone());
    let playbook = std::mem::replace(&mut migration.agent.playbook, older.playbook());
    on_a_site(migration, |migration| {
        let mut watched = Watched::default();
        let fire = Fire::Point(format!("kill:{phase}:{record}"));
        let leg = Leg::run(migration, &fire, &mut watched)?;
        // Its journal may be shorter than that of today.
        must(leg.was_killed() || leg.ended.code == Some(0), || {
            format!(
                "it was not killed: {:?}\n{}",
                leg.ended.code, leg.ended.stderr
            )
        })?;
        let journal = migration.agent.journal();
        let said = journal.last().map_or_else(String::new, |last| {
            format!(
                "record {}, {} {}",
                journal.len(),
                last["event"],
                last["task"]
            )
        });
        migration.agent.binary.clone_from(&binary);
        migration.agent.playbook.clone_from(&playbook);
        let next = Leg::run(migration, &Fire::None, &mut watched)?;
        next.ended.must_have(0)?;
        must(!watched.histories.is_empty(), || {
            "nobody saw the schema history".into()
        })?;
        reference.must_be_reached_by(migration, &watched, true)?;
        let kills = usize::from(leg.was_killed());
        Ok(Seen { said, kills })
    })
}
