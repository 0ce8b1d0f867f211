//! What the agent talks to goes away under its hands: server, backend, container, connection.

use std::process::Command;

use super::leg::{Fire, Leg, Watched, on_a_site};
use super::pause::pause;
use super::reference::Reference;
use super::report::{Case, Seen};
use super::strike::{self, Moment};
use crate::error::LabError;
use crate::migration::{Migration, Running, must};
use crate::site::Scale;
use crate::tool;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL to the postmaster.
    Postmaster,
    /// SIGKILL to a backend that works: the postmaster ends all others, and recovers.
    Backend,
    /// `pg_terminate_backend` of every client.
    Terminate,
    /// The agent's connections are reset by the kernel, `ss -K`.
    Reset,
    /// `docker kill`.
    Container,
    /// `docker pause`, and later `docker unpause`.
    Pause,
    /// `docker pause`, and SIGTERM to the agent.
    PauseAndTerm,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Postmaster,
        Self::Backend,
        Self::Terminate,
        Self::Reset,
        Self::Container,
        Self::Pause,
        Self::PauseAndTerm,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Postmaster => "SIGKILL to the postmaster",
            Self::Backend => "SIGKILL to a backend",
            Self::Terminate => "pg_terminate_backend",
            Self::Reset => "connections reset",
            Self::Container => "docker kill",
            Self::Pause => "docker pause and unpause",
            Self::PauseAndTerm => "docker pause and SIGTERM to the agent",
        }
    }
}

/// The long tasks, and the services that they need.
pub const SCENES: [(&str, &str); 5] = [
    ("snapshot-old", "pacs_old"),
    ("dump-old", "pacs_old"),
    ("restore-work", "pacs_work"),
    ("update [5.32]", "pacs_work"),
    ("restore-new", "pacs_new"),
];

/// Every blow within every long task.
#[must_use]
pub fn server_faults(scale: Scale) -> Vec<Case> {
    let mut cases = Vec::new();
    for blow in Blow::ALL {
        for (task, service) in SCENES {
            // These speak through `docker exec`, not over TCP.
            if blow == Blow::Reset && task == "dump-old" {
                continue;
            }
            cases.push(server_fault(
                scale,
                blow,
                Moment::Within(task, service),
                service,
            ));
        }
    }
    cases
}

/// One blow at one moment.
#[must_use]
pub fn server_fault(scale: Scale, blow: Blow, moment: Moment, service: &'static str) -> Case {
    let at = match moment {
        Moment::At(point) => point,
        Moment::Within(task, _) => task,
    };
    let name = format!("{} in {at}, scale {}", blow.name(), scale.letter());
    Case {
        kind: "fault: server, container",
        replay: format!("--faults --scale {} --only '{name}'", scale.letter()),
        name,
        work: Box::new(move || {
            let reference = Reference::of(Scale::S)?;
            on_a_site(Migration::begin(scale)?, |migration| {
                strike_and_judge(migration, reference, blow, moment, service)
            })
        }),
    }
}

fn strike_and_judge(
    migration: &Migration,
    reference: &Reference,
    blow: Blow,
    moment: Moment,
    service: &str,
) -> Result<Seen, LabError> {
    let (run, dealt) =
        strike::strike(migration, moment, |run| deal(migration, blow, service, run))?;
    if blow == Blow::Pause {
        // It gets no answer, and must neither fail nor go on.
        let records = migration.agent.journal().len();
        std::thread::sleep(std::time::Duration::from_secs(3));
        must(migration.agent.journal().len() <= records + 1, || {
            "the agent went on while its server stood still".into()
        })?;
        let container = migration.container(service).unwrap_or_default();
        migration.docker(&["unpause", &container])?;
    }
    let ended = strike::must_end(run)?;
    let expected: &[i32] = match blow {
        Blow::Pause => &[0],
        Blow::PauseAndTerm => &[130],
        _ => &[0, 2],
    };
    must(
        ended.code.is_some_and(|code| expected.contains(&code)),
        || {
            format!(
                "exit code {:?}, not {expected:?}\n{}{}",
                ended.code, ended.stdout, ended.stderr
            )
        },
    )?;
    migration.must_leave_no_container()?;
    finish_and_judge(migration, reference)?;
    Ok(format!("{dealt}; first end {:?}", ended.code).into())
}

/// Runs to the end once what was disturbed is as it should be.
pub(super) fn finish_and_judge(
    migration: &Migration,
    reference: &Reference,
) -> Result<(), LabError> {
    let mut watched = Watched::default();
    Leg::run(migration, &Fire::None, &mut watched)?
        .ended
        .must_have(0)?;
    reference.must_be_reached_by(migration, &watched, false)
}

fn deal(
    migration: &Migration,
    blow: Blow,
    service: &str,
    run: &Running,
) -> Result<String, LabError> {
    let container = migration
        .container(service)
        .ok_or_else(|| LabError::Unexpected(format!("{service} has no container")))?;
    match blow {
        Blow::Postmaster => {
            // Not the container's first process, which watches over it.
            let kill = "kill -KILL \"$(head -n 1 \"$PGDATA/postmaster.pid\")\"";
            migration.docker(&["exec", &container, "bash", "-c", kill])?;
            Ok("killed".into())
        }
        Blow::Backend => {
            let sql = "select pid from pg_stat_activity where backend_type = 'client backend' \
                       and pid <> pg_backend_pid() order by state limit 1";
            let pid = migration.psql(service, sql)?;
            if pid.is_empty() {
                return Ok("no backend there".into());
            }
            // It may have ended by itself meanwhile.
            let killed =
                migration.docker(&["exec", &container, "bash", "-c", &format!("kill -9 {pid}")]);
            Ok(if killed.is_ok() { "killed" } else { "gone" }.into())
        }
        Blow::Terminate => {
            let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                       where backend_type = 'client backend' and pid <> pg_backend_pid()";
            Ok(format!("{} backends", migration.psql(service, sql)?))
        }
        Blow::Reset => {
            let port = migration.docker(&["port", &container, "5432/tcp"])?;
            let port = port.lines().next().and_then(|line| line.rsplit(':').next());
            let port = port.unwrap_or_default().trim().to_owned();
            let mut ss = Command::new("ss");
            ss.args([
                "-K",
                "-H",
                "-t",
                "state",
                "established",
                "dport",
                "=",
                &port,
            ]);
            let reset = tool::run(&mut ss, "reset connections")?;
            Ok(format!("{} connections", reset.lines().count()))
        }
        Blow::Container => {
            migration.docker(&["kill", &container])?;
            Ok("killed".into())
        }
        Blow::Pause => pause(migration, &container).map(|()| "paused".into()),
        Blow::PauseAndTerm => {
            pause(migration, &container)?;
            run.signal("TERM")?;
            Ok("paused".into())
        }
    }
}
