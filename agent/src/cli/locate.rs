//! Finds and loads what a command works on: playbook, variables, state directory, operator.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::args::{Global, PlaybookArgs};
use super::confirm::Terminal;
use super::exit::Failure;
use super::extra_vars::ExtraVars;
use super::vault::vault;
use super::{extra_vars, prompts, screen};
use crate::engine::{Engine, Host, Operator, RunOptions};
use crate::host::kubernetes::access::ClusterEnvironment;
use crate::playbook::load::LoadOptions;
use crate::playbook::validate::{Checked, KnownNames, check};
use crate::report::diagnostic;
use crate::source::shown;
use crate::state::{Lock, StateDir, StateError};
use crate::vault::Vault;

/// The state directory: `--state-dir`, `KAAPANA_AGENT_STATE`, or `state/` in the folder above the
/// playbook's, so that it does not depend on the working directory.
pub(super) fn state_dir(global: &Global, playbook: Option<&Path>) -> PathBuf {
    if let Some(dir) = &global.state_dir {
        return dir.clone();
    }
    let Some(playbook) = playbook else {
        return PathBuf::from("state");
    };
    let absolute = std::path::absolute(playbook).unwrap_or_else(|_| playbook.to_path_buf());
    absolute
        .parent()
        .and_then(Path::parent)
        .map_or_else(|| PathBuf::from("state"), |above| above.join("state"))
}

/// Loads and validates a playbook with its extra variables: everything that is wrong, at once.
pub(super) fn playbook(
    global: &Global,
    args: &PlaybookArgs,
) -> Result<(Checked, Map<String, Value>, Vault), Failure> {
    let vault = vault(global)?;
    let extra = extra_vars::read(&args.extra_vars, &vault)?;
    let checked = playbook_with(args, &extra, &KnownNames::default(), &vault)?;
    Ok((checked, extra.values, vault))
}

/// As [`playbook`], with extra variables that were read, and names that are defined elsewhere.
pub(super) fn playbook_with(
    args: &PlaybookArgs,
    extra: &ExtraVars,
    known: &KnownNames,
    vault: &Vault,
) -> Result<Checked, Failure> {
    let options = LoadOptions {
        extra_vars: extra.values.clone(),
        extra_places: extra.places.clone(),
        vault: vault.clone(),
        ..LoadOptions::default()
    };
    check(&args.playbook, &options, known).map_err(Failure::Problems)
}

/// What a controller says about a run on this host.
#[derive(Debug)]
pub(super) struct HostInputs {
    pub host: Host,
    pub extra_vars: ExtraVars,
    /// Who ordered it, and from where.
    pub operator: String,
    /// Passwords for what is encrypted, and what was revealed.
    pub vault: Vault,
    /// The file that ends the run behind the task that it is at.
    pub drain: Option<PathBuf>,
}

/// What only `run` is told.
#[derive(Debug, Default)]
pub(super) struct RunChoices {
    pub outside: Option<HostInputs>,
    pub check: bool,
    pub diff: bool,
    pub no_checkpoint: bool,
    /// A person is asked for variables.
    pub asks: bool,
    pub redo: Vec<String>,
    pub redo_reason: String,
}

impl RunChoices {
    /// A look, or the real thing; nothing is wanted again.
    pub fn checking(check: bool) -> Self {
        Self {
            check,
            ..Self::default()
        }
    }
}

/// The playbook and its options again, for a further command.
fn invocation(global: &Global, args: &PlaybookArgs) -> Vec<String> {
    let mut words = vec![shown(&args.playbook).to_string()];
    for vars in &args.extra_vars {
        let file = vars.strip_prefix('@').map(Path::new);
        let vars = file.map_or_else(|| vars.clone(), |file| format!("@{}", shown(file)));
        words.extend(["-e".to_owned(), vars]);
    }
    if let Some(dir) = &global.state_dir {
        words.extend(["--state-dir".to_owned(), shown(dir).to_string()]);
    }
    words
}

/// Makes the engine for a playbook that must be sound.
pub(super) fn engine(
    global: &Global,
    args: &PlaybookArgs,
    ask: Terminal,
    cancel: CancellationToken,
    more: RunChoices,
) -> Result<Engine, Failure> {
    let outside = more.outside.map_or_else(
        || {
            let vault = vault(global)?;
            Ok(HostInputs {
                host: Host::default(),
                extra_vars: extra_vars::read(&args.extra_vars, &vault)?,
                operator: String::new(),
                vault,
                drain: None,
            })
        },
        Ok::<_, Failure>,
    )?;
    let vault = outside.vault;
    let known = KnownNames {
        names: outside
            .host
            .vars
            .iter()
            .map(|(name, _, _)| name.clone())
            .collect(),
        ..KnownNames::default()
    };
    let checked = playbook_with(args, &outside.extra_vars, &known, &vault)?;
    if more.asks {
        let style = screen::stderr_style();
        let unused = checked.warnings.iter();
        let unused: Vec<_> = unused
            .filter(|warning| warning.code == "playbook::unused_variable")
            .cloned()
            .collect();
        eprint!("{}", diagnostic::problems(&unused, style, screen::width()));
    }
    let plays = &checked.playbook.plays;
    let prompted = match more.asks {
        true => prompts::answers(plays, &outside.extra_vars.values)?,
        false => prompts::defaults(plays),
    };
    let mut operator = operator();
    if !outside.operator.is_empty() {
        operator.user = format!("{} (for {})", operator.user, outside.operator);
    }
    let options = RunOptions {
        extra_vars: outside.extra_vars.values,
        extra_places: outside.extra_vars.places,
        host: outside.host,
        check: more.check,
        diff: more.diff,
        no_checkpoint: more.no_checkpoint,
        prompted,
        vault,
        invocation: invocation(global, args),
        redo: more.redo,
        redo_reason: more.redo_reason,
        tags: args.tags.clone(),
        skip_tags: args.skip_tags.clone(),
        operator,
        cluster: std::sync::Arc::new(cluster()),
        confirm: std::sync::Arc::new(ask),
        cancel,
        drain: outside.drain,
    };
    let state = state_dir(global, Some(&args.playbook));
    Ok(Engine::new(checked.playbook, &state, options)?)
}

/// Where this process would find a kubeconfig.
fn cluster() -> ClusterEnvironment {
    ClusterEnvironment {
        kubeconfig: std::env::var_os("KUBECONFIG"),
        home: std::env::home_dir(),
        in_cluster: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
    }
}

/// Who runs, from where, with which words.
pub(super) fn operator() -> Operator {
    let uid = nix::unistd::Uid::effective();
    let user = nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| format!("uid {uid}"), |user| user.name);
    let user = match std::env::var("SUDO_USER") {
        Ok(by) if !by.is_empty() => format!("{user} (sudo by {by})"),
        _ => user,
    };
    let host = nix::unistd::gethostname().map_or_else(
        |_| "unknown host".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    Operator {
        user,
        host,
        arguments: std::env::args().collect(),
        machine: ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .map(|id| id.trim().to_owned())
            .find(|id| !id.is_empty()),
    }
}

/// Who runs just now, if anybody.
pub(super) fn holder(dir: &StateDir) -> Option<String> {
    if !dir.lock().is_file() {
        return None;
    }
    match Lock::look(&dir.lock()) {
        Err(StateError::Locked { holder, .. }) => Some(holder),
        _ => None,
    }
}

/// Names of the playbooks that have a state, each with its folder.
pub(super) fn states(
    global: &Global,
    playbook: Option<&Path>,
) -> Result<Vec<(String, PathBuf)>, Failure> {
    let root = state_dir(global, playbook);
    if let Some(playbook) = playbook {
        return Ok(vec![(crate::engine::playbook_name(playbook), root)]);
    }
    let listed = std::fs::read_dir(&root).map_err(|error| {
        Failure::other(
            "state::not_found",
            format!(
                "failed to read the state directory {}: {error}",
                root.display()
            ),
            "name it with --state-dir, or name a playbook",
        )
    })?;
    let mut names: Vec<(String, PathBuf)> = listed
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("journal.jsonl").is_file())
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                root.clone(),
            )
        })
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(Failure::other(
            "state::empty",
            format!("{} holds no journal", root.display()),
            "nothing has been run with this state directory yet",
        ));
    }
    Ok(names)
}
