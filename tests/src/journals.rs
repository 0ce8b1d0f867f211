//! Whole journals that an agent leaves, one of each way, to be kept as fixtures: a later agent must go on
//! from every record of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::agent::PLAYBOOK;
use crate::crash::{Fire, Leg, OlderAgent, Watched};
use crate::error::{LabError, io_error};
use crate::migration::Migration;
use crate::site::{Scale, Site};
use crate::tool;
use crate::way::Way;
use crate::workplace::remove_any;

/// Where the site is meanwhile. Its paths stand in the journals: nothing of the host's own should.
const SITE: &str = "/srv/kaapana-lab";

/// Migrates a small site on this way by an agent, and keeps the journal, the state's id and the variables in
/// a folder.
///
/// # Errors
/// The migration does not come to the right end, or the system refuses.
pub fn keep(agent: &OlderAgent, way: Way, into: &Path) -> Result<(), LabError> {
    let dir = Path::new(SITE);
    if dir.exists() {
        // Left by an attempt that was cut short; anything else is refused.
        Site::remove_at(dir)?;
    }
    let mut migration = Migration::begin_at(dir, way, Scale::S)?;
    let root = migration.site.root.clone();
    // As it is installed: beside the state.
    for (from, name) in [
        (&agent.binary, "kaapana-agent"),
        (&agent.playbooks, "playbooks"),
    ] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(from).arg(root.join(name));
        tool::run(&mut copy, "install the agent on the site")?;
    }
    migration.agent.binary = root.join("kaapana-agent");
    migration.agent.playbook = root.join(format!("playbooks/{PLAYBOOK}.yaml"));
    if let Some(deployment) = &migration.deployment {
        let link = root.join("cluster");
        symlink(&deployment.cluster.dir, &link).map_err(io_error("link", &link))?;
        let kubeconfig = link.join("admin.conf");
        migration.agent.set(&json!({"kubeconfig": kubeconfig}))?;
    }
    let leg = Leg::run(&migration, &Fire::None, &mut Watched::default())?;
    leg.ended.must_have(0)?;
    migration.must_have_ended_right()?;

    let state = into.join(PLAYBOOK);
    remove_any(into)?;
    fs::create_dir_all(&state).map_err(io_error("create", &state))?;
    let from = migration.agent.state.join(PLAYBOOK);
    for name in ["journal.jsonl", "state-id"] {
        let kept = state.join(name);
        fs::copy(from.join(name), &kept).map_err(io_error("keep", &kept))?;
    }
    let kept = into.join("site.yaml");
    fs::copy(&migration.agent.variables, &kept).map_err(io_error("keep", &kept))?;
    drop(migration);
    Site::remove_at(dir)
}
