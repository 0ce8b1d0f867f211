//! The harness that proves exactly once: kills, faults and power losses, and a table at the end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lab::agent;
use lab::crash::{self, OlderAgent, PHASES, Table, Until};
use lab::error::LabError;
use lab::site::Scale;
use lab::way::{LdapUpdate, Route, Way};

/// Kills migrations at every record and at random, and judges their ends by that of an undisturbed one.
#[derive(Parser)]
#[command(name = "crash", max_term_width = 100)]
struct Arguments {
    /// Everything: the full proof.
    #[arg(long)]
    all: bool,
    /// A kill before and after every record of the journal.
    #[arg(long)]
    records: bool,
    /// The same in the guide's last third, in pods. Scale S.
    #[arg(long)]
    pods: bool,
    /// A kill at records of each route with each way of the LDAP part, and then the way back; from the end, too.
    /// Scale S. So many records of each, spread evenly, unless `--from` or `--to`.
    #[arg(long, value_name = "RECORDS", num_args = 0..=1, default_missing_value = "20")]
    back: Option<u64>,
    /// Which route the database goes, with --records, --pods, --random, --older and --back. [default: guide]
    #[arg(long, value_enum)]
    route: Option<Route>,
    /// How the LDAP part is done, with --records, --random, --older and --back. [default: confirm]
    #[arg(long, value_enum)]
    ldap: Option<LdapUpdate>,
    /// So many cases in which an older agent begins and is killed, and the one of today goes on; over all
    /// ways, unless --route or --ldap. Scale S. Needs --old-agent or --from-commit.
    #[arg(long, value_name = "CASES")]
    older: Option<u64>,
    /// The older agent's binary, of a debug build.
    #[arg(long, value_name = "PATH", requires = "old_playbooks")]
    old_agent: Option<PathBuf>,
    /// The folder of its playbooks.
    #[arg(long, value_name = "DIR", requires = "old_agent")]
    old_playbooks: Option<PathBuf>,
    /// Takes the older agent out of this commit and builds it (minutes).
    #[arg(long, value_name = "COMMIT", conflicts_with = "old_agent")]
    from_commit: Option<String>,
    /// So many cases of one to four kills at random moments; every fifth at scale M, unless `--scale`.
    #[arg(long, value_name = "CASES")]
    random: Option<u64>,
    /// Servers, containers, connections, the Docker daemon and disks fail; at scale M, unless `--scale`.
    #[arg(long)]
    faults: bool,
    /// So many cases of one to three faults at random moments between a controller and two hosts.
    #[arg(long, value_name = "CASES")]
    hosts: Option<u64>,
    /// The migration over SSH on two hosts side by side; at scale M, unless `--scale`.
    #[arg(long)]
    over_ssh: bool,
    /// Every state that a power loss may leave a disk in.
    #[arg(long)]
    power_loss: bool,
    /// Only cases whose name holds this text, or one of them where it is given more than once.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Seed of what is random.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// The random case to begin with, of `--random`, `--hosts` and `--older`.
    #[arg(long, default_value_t = 0)]
    case: u64,
    /// The record to begin with.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// The record to end with.
    #[arg(long)]
    to: Option<u64>,
    /// With --records: only the record that stands so many thousandths into the journal.
    #[arg(long, value_name = "THOUSANDTHS")]
    within: Option<u64>,
    /// Moments of an append: before, torn, written, after. [default: before and after]
    #[arg(long, value_parser = PHASES)]
    phase: Vec<String>,
    /// How large the sites are.
    #[arg(long, value_enum, ignore_case = true)]
    scale: Option<Scale>,
    /// Cases side by side.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// Kills at random moments in the full proof.
const RANDOM_CASES: u64 = 200;
/// Random faults between hosts in the full proof.
const HOST_CASES: u64 = 100;
/// Every how many-th random case is at scale M.
const LARGER_EVERY: u64 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match cases(&arguments) {
        Ok(cases) if cases.is_empty() => {
            eprintln!(
                "crash: nothing to run: --all, --records, --pods, --back, --random N, --older N, --faults, --hosts N, --over-ssh, --power-loss (see --help)"
            );
            ExitCode::FAILURE
        }
        Ok(cases) => {
            let verdicts = crash::run_all(cases, arguments.jobs, None);
            let table = Table::of(&verdicts);
            println!("\n{table}");
            for verdict in verdicts.iter().filter(|verdict| verdict.wrong.is_some()) {
                println!(
                    "WRONG {}: {}\n  again: cargo run -p lab --bin crash -- {}",
                    verdict.kind, verdict.name, verdict.replay
                );
            }
            if table.wrong() == 0 {
                println!("0 wrong ends");
                ExitCode::SUCCESS
            } else {
                println!("{} wrong ends", table.wrong());
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("crash: failed to {error}");
            ExitCode::FAILURE
        }
    }
}

fn cases(arguments: &Arguments) -> Result<Vec<crash::Case>, LabError> {
    // A long run must not change its agent when somebody builds another one meanwhile.
    agent::keep_binary()?;
    let scale = arguments.scale.unwrap_or(Scale::S);
    let mut cases = Vec::new();
    let way = arguments.way();
    if let (true, Some(within)) = (arguments.records, arguments.within) {
        let phases = phases(arguments).into_iter();
        cases.extend(phases.map(|phase| crash::kill_within(way, scale, within, phase)));
    } else if arguments.records {
        cases.extend(records_on(way, arguments, scale, false)?);
    } else if arguments.all {
        for way in Way::ALL {
            cases.extend(records_on(way, arguments, scale, false)?);
        }
    }
    if arguments.pods {
        let ldap = LdapUpdate::Pod;
        cases.extend(records_on(Way { ldap, ..way }, arguments, Scale::S, true)?);
    }
    if let Some(count) = arguments.older {
        let older = arguments.older_agent()?;
        let ways = match (arguments.route, arguments.ldap) {
            (None, None) => Way::ALL.to_vec(),
            _ => vec![way],
        };
        let (seed, first) = (arguments.seed, arguments.case);
        println!("begun by an older agent: seed {seed}");
        cases.extend(crash::taken_over(&older, seed, first, first + count, &ways));
    }
    if arguments.back.is_some() || arguments.all {
        cases.extend(ways_back(arguments)?);
    }
    let random = arguments.random.or(arguments.all.then_some(RANDOM_CASES));
    if let Some(count) = random {
        let seed = arguments.seed;
        println!("random kills: seed {seed}");
        for case in arguments.case..arguments.case + count {
            let larger = arguments.scale.is_none() && case % LARGER_EVERY == LARGER_EVERY - 1;
            let scale = if larger { Scale::M } else { scale };
            cases.extend(crash::random_kills(way, scale, seed, case, case + 1));
        }
    }
    if arguments.faults || arguments.all {
        let scale = arguments.scale.unwrap_or(Scale::M);
        cases.extend(crash::full_disks());
        cases.extend(crash::daemon_restarts(scale));
        cases.extend(crash::server_faults(scale));
    }
    if arguments.over_ssh || arguments.all {
        let scale = arguments.scale.unwrap_or(Scale::M);
        cases.push(crash::migrations_over_ssh(scale));
    }
    if let Some(count) = arguments.hosts.or(arguments.all.then_some(HOST_CASES)) {
        let (seed, first) = (arguments.seed, arguments.case);
        println!("faults between hosts: seed {seed}");
        cases.extend(crash::faults_between_hosts(seed, first, first + count));
    }
    if arguments.power_loss || arguments.all {
        cases.extend(crash::power_losses(arguments.seed, None));
    }
    if !arguments.only.is_empty() {
        let is_wanted =
            |case: &crash::Case| arguments.only.iter().any(|text| case.name.contains(text));
        cases.retain(is_wanted);
    }
    Ok(cases)
}

/// The whole of `--all`, and what a sample takes of it.
fn ways_back(arguments: &Arguments) -> Result<Vec<crash::Case>, LabError> {
    let wanted = |way: &Way| {
        arguments.route.is_none_or(|route| route == way.route)
            && arguments.ldap.is_none_or(|ldap| ldap == way.ldap)
    };
    let mut cases = Vec::new();
    for way in Way::ALL.into_iter().filter(wanted) {
        let last = crash::records_of(way)?;
        println!("{}: {last} records, and back from the end", way.name());
        let to = arguments.to.unwrap_or(last).min(last);
        let records = (arguments.from..=to).collect::<Vec<u64>>();
        let narrowed = arguments.from > 1 || arguments.to.is_some() || arguments.back.is_none();
        let every = match arguments.back {
            Some(wanted) if !narrowed => records.len().div_ceil(wanted.max(1) as usize),
            _ => 1,
        };
        // Another place and phase in each, so that together they meet more.
        let begin = arguments.seed as usize % every.max(1);
        let phases = phases(arguments);
        let mut points = Vec::new();
        for (index, record) in records.iter().skip(begin).step_by(every.max(1)).enumerate() {
            match narrowed {
                true => points.extend(phases.iter().map(|phase| Until::Record(*record, phase))),
                false => points.push(Until::Record(*record, phases[index % phases.len()])),
            }
        }
        // Its end was one of them already.
        cases.extend(crash::ways_back(way, &points));
    }
    Ok(cases)
}

impl Arguments {
    fn way(&self) -> Way {
        Way {
            route: self.route.unwrap_or_default(),
            ldap: self.ldap.unwrap_or_default(),
        }
    }

    fn older_agent(&self) -> Result<OlderAgent, LabError> {
        match (&self.old_agent, &self.old_playbooks, &self.from_commit) {
            (Some(binary), Some(playbooks), _) => Ok(OlderAgent {
                binary: binary.clone(),
                playbooks: playbooks.clone(),
            }),
            (_, _, Some(commit)) => OlderAgent::of_commit(commit),
            _ => Err(LabError::Unexpected(
                "find the older agent: name --old-agent and --old-playbooks, or --from-commit"
                    .into(),
            )),
        }
    }
}

/// Kills at the records of one way that are asked for; `in_pods`: at those that need a cluster.
fn records_on(
    way: Way,
    arguments: &Arguments,
    scale: Scale,
    in_pods: bool,
) -> Result<Vec<crash::Case>, LabError> {
    let (last, first_in_pods) = crash::point_count(way, scale)?;
    println!(
        "an undisturbed migration ({}) has {last} records",
        way.name()
    );
    let first = first_in_pods.filter(|_| in_pods).unwrap_or(1);
    let from = arguments.from.max(first);
    let to = arguments.to.unwrap_or(last).min(last);
    let records: Vec<u64> = (from..=to).collect();
    Ok(crash::kills_at_records(
        way,
        scale,
        &records,
        &phases(arguments),
    ))
}

/// The moments of an append that are asked for.
fn phases(arguments: &Arguments) -> Vec<&'static str> {
    let is_wanted = |phase: &&str| match arguments.phase.as_slice() {
        [] => ["before", "after"].contains(phase),
        wanted => wanted.iter().any(|wanted| wanted == phase),
    };
    PHASES.into_iter().filter(is_wanted).collect()
}
