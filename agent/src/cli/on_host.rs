//! `on-host`: what a controller starts on a host. Not for people: it speaks JSON lines, each with a key
//! `on_host`, and those of the run's events.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{
    Global, HostsArgs, Output, PlaybookArgs, PurgeArgs, ResolveArgs, RollbackArgs, RunArgs,
};
use super::exit::Failure;
use super::extra_vars::ExtraVars;
use super::{Done, door, locate, purge, resolve, rollback, run};
use crate::engine;
use crate::playbook::{self, model::NodeKind};
use crate::remote::job::{Base, Job, until_hung_up};
use crate::remote::{HostOrder, Order, RemoteCommand, RemoteError, unpack};
use crate::report::status;
use crate::source::SourceFile;
use crate::state::fingerprint::sha256_of_file;
use crate::state::journal::read_outline_for;
use crate::state::{History, StateDir, archive};
use crate::vault::Vault;

#[derive(Debug, Args)]
pub(super) struct OnHostArgs {
    /// The agent's folder on this host
    #[arg(long, value_parser = door::path())]
    pub base: PathBuf,
    #[command(subcommand)]
    pub command: OnHost,
}

#[derive(Debug, Subcommand)]
pub(super) enum OnHost {
    /// Begin the run that a line of standard input orders, unless it has begun; follow it
    Start {
        #[arg(long)]
        name: String,
        #[arg(long)]
        job: String,
        #[arg(long)]
        from: u64,
        #[arg(long, value_parser = door::path())]
        state: Option<PathBuf>,
    },
    /// Follow the newest run
    Follow {
        #[arg(long)]
        name: String,
        #[arg(long)]
        from: u64,
        #[arg(long, value_parser = door::path())]
        state: Option<PathBuf>,
    },
    /// Do a job's run
    Work {
        #[arg(long, value_parser = door::path())]
        job: PathBuf,
    },
    /// Unpack a bundle from standard input
    Unpack {
        #[arg(long)]
        sha256: String,
    },
    /// Print the SHA-256 of the agent itself
    Digest,
    /// End the newest run cleanly
    Stop {
        #[arg(long)]
        name: String,
        #[arg(long)]
        after_task: bool,
    },
    /// Say where tasks stand
    Status {
        #[arg(long)]
        name: String,
        #[arg(long, value_parser = door::path())]
        state: Option<PathBuf>,
    },
}

pub(super) fn on_host(global: &Global, args: &OnHostArgs) -> Done {
    let base = Base::new(&args.base);
    let answered = match &args.command {
        OnHost::Work { job } => return work(global, &base, &Job::at(job)),
        OnHost::Start {
            name,
            job,
            from,
            state,
        } => {
            let code = code_of(start(&base, name, job, *from));
            hand_over(&base, name, state.as_ref()).map(|()| code)
        }
        OnHost::Follow { name, from, state } => {
            let code = code_of(base.newest(name).and_then(|job| match job {
                Some(job) => follow(&job, *from),
                None => say(&nothing_ran(name)),
            }));
            hand_over(&base, name, state.as_ref()).map(|()| code)
        }
        OnHost::Unpack { sha256 } => {
            let folder = base.bundle(sha256);
            std::fs::create_dir_all(folder.parent().unwrap_or(&folder))
                .map_err(|source| RemoteError::Io {
                    action: "create",
                    path: folder.clone(),
                    source,
                })
                .and_then(|()| unpack(&mut io::stdin(), sha256, &folder))
                .and_then(|()| say(&json!({"on_host": "unpacked"})))
                .map(|()| ExitCode::SUCCESS)
        }
        OnHost::Digest => own_digest().map(|()| ExitCode::SUCCESS),
        OnHost::Stop { name, after_task } => base
            .newest(name)
            .and_then(|job| job.map_or(Ok(false), |job| job.stop(*after_task)))
            .and_then(|was| say(&json!({"on_host": "stopped", "was_at_work": was})))
            .map(|()| ExitCode::SUCCESS),
        OnHost::Status { name, state } => {
            where_tasks_stand(&base, name, state.as_ref()).map(|()| ExitCode::SUCCESS)
        }
    };
    Ok(answered.unwrap_or_else(|error| code_of(Err(error))))
}

/// Says why something did not come to its end.
fn code_of(answered: Result<(), RemoteError>) -> ExitCode {
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = json!({
                "on_host": "error", "code": error.code(), "message": error.to_string(),
                "help": error.help(), "exit": error.exit(),
            });
            println!("{line}");
            ExitCode::from(error.exit())
        }
    }
}

fn say(line: &Value) -> Result<(), RemoteError> {
    // A controller that went away has nothing to hear.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(())
}

/// Prints the SHA-256 of the file that this process was started from, hexadecimal.
fn own_digest() -> Result<(), RemoteError> {
    let own = Path::new("/proc/self/exe");
    let digest = sha256_of_file(own).map_err(|source| RemoteError::Io {
        action: "read",
        path: own.to_path_buf(),
        source,
    })?;
    println!("{digest}");
    Ok(())
}

fn nothing_ran(name: &str) -> Value {
    json!({
        "on_host": "error", "code": "remote::nothing_ran", "exit": 5,
        "message": format!("no run of {name} was ever ordered there"),
        "help": "begin one with `run -i`; one that runs as root (`--become`) is asked about as root, too",
    })
}

fn start(base: &Base, name: &str, id: &str, from: u64) -> Result<(), RemoteError> {
    let io_error = |action, path: &str| {
        let path = PathBuf::from(path);
        move |source| RemoteError::Io {
            action,
            path,
            source,
        }
    };
    loop {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        if read.map_err(io_error("read", "standard input"))? == 0 {
            // A controller that went away has nothing to order.
            std::process::exit(0);
        }
        // An order that arrives again, after the line was cut, is the same job.
        if let Some(job) = base.newest(name)?
            && job.id == id
        {
            return follow(&job, from);
        }
        let order: Order = serde_json::from_str(&line).map_err(|error| RemoteError::Answer {
            said: format!("an order that cannot be read: {error}"),
        })?;
        let program = std::env::current_exe().map_err(io_error("find", "/proc/self/exe"))?;
        if let Some(job) = base.start(&order, name, id, &program)? {
            return follow(&job, from);
        }
        // The order comes again behind it.
        say(&json!({"on_host": "bundle"}))?;
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody waits for its end")]
fn follow(job: &Job, from: u64) -> Result<(), RemoteError> {
    std::thread::spawn(|| {
        until_hung_up();
        // Nobody reads; the job does not need a reader.
        std::process::exit(0);
    });
    job.follow(from, &mut io::stdout())
}

/// Writes the state, as an archive behind a line that says its size.
fn hand_over(base: &Base, name: &str, state: Option<&PathBuf>) -> Result<(), RemoteError> {
    let root = state.cloned().unwrap_or_else(|| base.state());
    let dir = StateDir::new(&root, name);
    if !dir.journal().is_file() {
        return say(&json!({"on_host": "no_state"}));
    }
    let not_read = |what: String| RemoteError::State { what };
    let export = archive::Export::of(&dir, name).map_err(|error| not_read(error.to_string()))?;
    let mut archive = Vec::new();
    let packed = export.write(&mut archive);
    packed.map_err(|error| not_read(error.to_string()))?;
    say(&json!({"on_host": "state", "bytes": archive.len()}))?;
    // A controller that went away has nothing to hear.
    let mut out = io::stdout().lock();
    let _ = out.write_all(&archive).and_then(|()| out.flush());
    Ok(())
}

fn where_tasks_stand(base: &Base, name: &str, state: Option<&PathBuf>) -> Result<(), RemoteError> {
    let root = state.cloned().unwrap_or_else(|| base.state());
    let dir = StateDir::new(&root, name);
    if !dir.journal().is_file() {
        return say(&json!({"on_host": "status", "status": null}));
    }
    let contents = read_outline_for(&dir, name).map_err(|error| RemoteError::State {
        what: error.to_string(),
    })?;
    let history = History::of(&contents.records);
    let running = locate::holder(&dir);
    let servers = super::status::servers(&history, contents.state_id());
    let sites = engine::site_views(&contents, &history, dir.path());
    let view = status::Status {
        playbook: name,
        state: dir.path(),
        history: &history,
        sites: &sites,
        running: running.as_deref(),
        servers: &servers,
        next: status::Next::Unknown("the controller was not asked to plan"),
    };
    say(&json!({"on_host": "status", "status": status::json(&view)}))
}

/// Does the run of a job. Standard output is the job's events.
fn work(global: &Global, base: &Base, job: &Job) -> Done {
    let (order, _lock) = job
        .take()
        .map_err(|error| Failure::other("remote::job", error.to_string(), "order the run again"))?;
    let code = match ordered(global, base, job, &order) {
        Ok(code) => code,
        Err(failure) => failure.reported(global),
    };
    let noted = job.ended(code);
    noted.map_err(|error| {
        Failure::other(
            "remote::job",
            error.to_string(),
            "look at the state: the run has ended",
        )
    })?;
    Ok(ExitCode::from(code))
}

fn ordered(global: &Global, base: &Base, job: &Job, order: &Order) -> Result<u8, Failure> {
    let name = engine::playbook_name(Path::new(&order.playbook));
    let state = order
        .state_dir
        .as_ref()
        .map_or_else(|| base.state(), PathBuf::from);
    let global = Global {
        state_dir: Some(state),
        output: Output::Json,
        verbose: global.verbose,
        log_file: None,
        vault_password_file: Vec::new(),
        ask_vault_pass: false,
    };
    let playbook = base.playbook(&name).join(&order.playbook);
    let vault = Vault::new(order.vault_passwords.clone());
    for secret in &order.revealed {
        vault.remember(secret);
    }
    let outside = locate::HostInputs {
        host: host_of(&order.host)?,
        extra_vars: ExtraVars::of(order.extra_vars.clone()),
        operator: order.operator.clone(),
        vault,
        drain: Some(job.drain()),
    };
    let (outside, hosts) = (Some(outside), HostsArgs::default());
    let (check, yes, reason) = (order.check, order.yes, order.reason.clone());
    let playbook_args = PlaybookArgs {
        playbook: playbook.clone(),
        extra_vars: Vec::new(),
        tags: order.tags.clone(),
        skip_tags: order.skip_tags.clone(),
    };
    match &order.deed {
        RemoteCommand::Run => {
            let args = RunArgs {
                playbook: playbook_args,
                check,
                diff: order.diff,
                no_checkpoint: order.no_checkpoint,
                syntax_check: false,
                yes,
                redo: order.redo.clone(),
                reason,
                hosts,
            };
            run::here(&global, &args, outside)
        }
        RemoteCommand::Resolve { task, done } => {
            let args = ResolveArgs {
                playbook: playbook_args,
                task: task.clone(),
                done: *done,
                redo: !*done,
                reason: reason.unwrap_or_default(),
                hosts,
            };
            resolve::here(&global, &args, outside)
        }
        RemoteCommand::Rollback { accept } => {
            let args = RollbackArgs {
                playbook,
                extra_vars: Vec::new(),
                check,
                yes,
                accept: accept.clone(),
                reason,
                hosts,
            };
            rollback::here(&global, &args, outside)
        }
        RemoteCommand::Purge => {
            let args = PurgeArgs {
                playbook,
                extra_vars: Vec::new(),
                check,
                yes,
                hosts,
            };
            purge::here(&global, &args, outside)
        }
    }
}

fn host_of(order: &HostOrder) -> Result<engine::Host, Failure> {
    let text = Value::Object(order.vars.clone()).to_string();
    let source = std::sync::Arc::new(SourceFile {
        path: format!("inventory variables of {}", order.name).into(),
        text,
    });
    // JSON is YAML.
    let node = playbook::parse(&source).map_err(Failure::Problems)?;
    Ok(engine::Host {
        name: order.name.clone(),
        address: order.address.clone(),
        group_names: order.group_names.clone(),
        groups: order.groups.clone(),
        vars: match node.kind {
            NodeKind::Mapping(vars) => vars,
            _ => Vec::new(),
        },
        plays: Some(order.plays.clone()),
    })
}
