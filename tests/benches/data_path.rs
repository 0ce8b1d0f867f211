//! The data path by itself: dump, restore and verification by the agent, and the same by PostgreSQL's own
//! programs, in turns: `cargo bench --bench data_path -- --scale m`. Prints ratios, and the agent's peak
//! memory, with `--large-row` also over one row of 200 MB; tests nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use lab::agent;
use lab::error::{LabError, io_error};
use lab::hash::sha256;
use lab::server::{Server, ServerOptions};
use lab::site::{Scale, Site};
use lab::timing::{Watched, median, settle, shown, watched};
use serde_json::{Value, json};

/// Times dump, restore and verification against psql, pg_restore and pg_dump.
#[derive(Parser)]
struct Arguments {
    /// Scales to run.
    #[arg(long, value_enum, ignore_case = true, default_values = ["m"])]
    scale: Vec<Scale>,
    /// Runs of each, in turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Also dump, restore and read a table with one row of 200 MB.
    #[arg(long)]
    large_row: bool,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How the servers run that are restored into, as in the shipped playbook.
const RESTORED_INTO: &[&str] = &[
    "shared_buffers=2GB",
    "maintenance_work_mem=512MB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=8GB",
    "autovacuum=off",
];

/// Where the dumps are in the containers.
const DUMPS: &str = "/dumps";

/// Who restores.
#[derive(Clone, Copy)]
enum Who {
    Agent,
    Psql,
    PgRestore,
}

struct Bench {
    site: Site,
    dumps: tempfile::TempDir,
    binary: PathBuf,
}

fn main() -> Result<(), LabError> {
    let arguments = Arguments::parse();
    println!(
        "| scale | dump, MB | dump: agent, s | docker exec pg_dump, s | ratio | restore: agent, s | psql -1, s | ratio | pg_restore -j2, s | ratio | verification: agent, s | pg_dump to /dev/null, s | ratio | cat, s | COPY to /dev/null, s | peak memory: dump, restore, verification, MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for scale in arguments.scale {
        let bench = Bench::prepare(scale)?;
        let mut dumps: [Vec<Duration>; 2] = Default::default();
        let mut peaks = [0; 3];
        let mut restores: [Vec<Duration>; 3] = Default::default();
        let mut reads: [Vec<Duration>; 3] = Default::default();
        for _ in 0..arguments.runs {
            for (who, times) in [Who::Agent, Who::Psql, Who::PgRestore]
                .into_iter()
                .zip(&mut restores)
            {
                times.push(bench.restore(who, &mut peaks[1])?);
            }
            for (time, times) in bench.dump_again(&mut peaks[0])?.into_iter().zip(&mut dumps) {
                times.push(time);
            }
            for (time, times) in bench.read(&mut peaks[2])?.into_iter().zip(&mut reads) {
                times.push(time);
            }
        }
        let cat = timed(Command::new("cat").arg(bench.dump("dump.sql")))?;
        let size = fs::metadata(bench.dump("dump.sql"))
            .map_err(io_error("inspect", &bench.dump("dump.sql")))?;
        let ratio =
            |a: &[Duration], b: &[Duration]| median(a).as_secs_f64() / median(b).as_secs_f64();
        println!(
            "| {} | {} | {} | {} | {:.2} | {} | {} | {:.2} | {} | {:.2} | {} | {} | {:.2} | {:.2} | {} | {} |",
            scale.letter(),
            size.len() / 1_000_000,
            shown(&dumps[0], 2),
            shown(&dumps[1], 2),
            ratio(&dumps[0], &dumps[1]),
            shown(&restores[0], 2),
            shown(&restores[1], 2),
            ratio(&restores[0], &restores[1]),
            shown(&restores[2], 2),
            ratio(&restores[0], &restores[2]),
            shown(&reads[0], 2),
            shown(&reads[1], 2),
            ratio(&reads[0], &reads[1]),
            cat.as_secs_f64(),
            shown(&reads[2], 2),
            peaks.map(|kib| (kib / 1024).to_string()).join(", "),
        );
    }
    if arguments.large_row {
        large_row()?;
    }
    Ok(())
}

/// The agent's peak memory over a table with one row of 200 MB.
fn large_row() -> Result<(), LabError> {
    let bench = Bench::prepare(Scale::S)?;
    let server = bench.old_server()?;
    server.psql(
        "create table large_row (pk int primary key, t text); \
         insert into large_row select 1, string_agg(md5(i::text), '') from generate_series(1, 6250000) i",
    )?;
    let to = bench.dump("large.sql");
    let dump = json!({"container": server.name(), "dest": &to});
    let dumped = bench.agent(&server, "postgresql_dump", dump)?;
    let read = bench.agent(&server, "postgresql_snapshot", json!({}))?;
    server.stop()?;
    let size = fs::metadata(&to).map_err(io_error("inspect", &to))?.len();
    fs::rename(&to, bench.dump("dump.sql")).map_err(io_error("rename", &to))?;
    let mut restored = 0;
    bench.restore(Who::Agent, &mut restored)?;
    println!(
        "one row of 200 MB in {} MB: peak memory {} MiB in the dump, {} in the restore, {} in the verification",
        size / 1_000_000,
        dumped.peak_kib / 1024,
        restored / 1024,
        read.peak_kib / 1024
    );
    Ok(())
}

impl Bench {
    /// A site, and both kinds of dumps of its database.
    fn prepare(scale: Scale) -> Result<Self, LabError> {
        let site = Site::temporary(scale)?;
        let dumps = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
        let bench = Self {
            site,
            dumps,
            binary: agent::binary()?,
        };
        let server = bench
            .site
            .serve(&bench.site.images.old, &bench.site.postgres_dir())?;
        for (name, format) in [("dump.sql", "plain"), ("dump.custom", "custom")] {
            dump_by_hand(&server, &bench.dump(name), format)?;
        }
        server.stop()?;
        Ok(bench)
    }

    fn dump(&self, name: &str) -> PathBuf {
        self.dumps.path().join(name)
    }

    /// The 0.2 server, which sees the folder of the dumps.
    fn old_server(&self) -> Result<Server, LabError> {
        let options = ServerOptions {
            mounts: vec![(self.dumps.path().to_owned(), DUMPS.to_owned())],
            writable_mounts: true,
            publish: true,
            ..ServerOptions::default()
        };
        let data = self.site.postgres_dir();
        Server::start(&self.site.images.old, Some(&data), &options)
    }

    /// The agent's dump, hashed and synced, and the guide's without a terminal.
    fn dump_again(&self, peak_kib: &mut u64) -> Result<[Duration; 2], LabError> {
        let server = self.old_server()?;
        let login = format!("-U {} -d {}", server.user(), server.database());
        // Whoever came first would read for the other.
        server.shell(&format!("pg_dump {login} >/dev/null"))?;
        let to = self.dump("again.sql");
        settle()?;
        let dump = json!({"container": server.name(), "dest": &to});
        let agent = self.agent(&server, "postgresql_dump", dump)?;
        *peak_kib = agent.peak_kib.max(*peak_kib);
        fs::remove_file(&to).map_err(io_error("remove", &to))?;
        settle()?;
        let started = Instant::now();
        dump_by_hand(&server, &to, "plain")?;
        let by_hand = started.elapsed();
        fs::remove_file(&to).map_err(io_error("remove", &to))?;
        server.stop()?;
        Ok([agent.elapsed, by_hand])
    }

    /// Restores into a fresh, durable server; a checkpoint at the end belongs to it.
    fn restore(&self, who: Who, peak_kib: &mut u64) -> Result<Duration, LabError> {
        let data =
            tempfile::tempdir_in(&self.site.root).map_err(io_error("create", &self.site.root))?;
        let arguments = RESTORED_INTO
            .iter()
            .flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()])
            .collect();
        let options = ServerOptions {
            arguments,
            mounts: vec![(self.dumps.path().to_owned(), DUMPS.to_owned())],
            without_schema: true,
            publish: true,
            ..ServerOptions::default()
        };
        let server = Server::start(&self.site.images.new, Some(data.path()), &options)?;
        // The shipped playbook has it from the dump.
        let dump = self.dump("dump.sql");
        let checksum = sha256(fs::read(&dump).map_err(io_error("read", &dump))?);
        settle()?;
        let login = format!("-U {} -d {}", server.user(), server.database());
        let started = Instant::now();
        match who {
            Who::Agent => {
                let restore = json!({"src": dump, "checksum": checksum});
                let agent = self.agent(&server, "postgresql_restore", restore)?;
                *peak_kib = agent.peak_kib.max(*peak_kib);
            }
            Who::Psql => {
                server.shell(&format!(
                    "psql {login} -X -q -1 -v ON_ERROR_STOP=1 -o /dev/null -f {DUMPS}/dump.sql"
                ))?;
                server.psql("checkpoint")?;
            }
            Who::PgRestore => {
                server.shell(&format!(
                    "pg_restore {login} -j2 --exit-on-error {DUMPS}/dump.custom"
                ))?;
                server.psql("checkpoint")?;
            }
        }
        let elapsed = started.elapsed();
        server.stop()?;
        Ok(elapsed)
    }

    /// The agent's verification, pg_dump to nowhere, and what the server alone needs to write all rows out.
    fn read(&self, peak_kib: &mut u64) -> Result<[Duration; 3], LabError> {
        let server = self.old_server()?;
        let login = format!("-U {} -d {}", server.user(), server.database());
        // Whoever came first would read for the others.
        server.shell(&format!("pg_dump {login} >/dev/null"))?;
        let mut times = [Duration::ZERO; 3];
        let agent = self.agent(&server, "postgresql_snapshot", json!({}))?;
        *peak_kib = agent.peak_kib.max(*peak_kib);
        times[0] = agent.elapsed;
        let started = Instant::now();
        server.shell(&format!("pg_dump {login} >/dev/null"))?;
        times[1] = started.elapsed();
        let copies = server.psql(
            "select format('copy %I.%I to ''/dev/null'';', schemaname, tablename) from pg_tables where schemaname = 'public'",
        )?;
        let started = Instant::now();
        server.psql(&copies)?;
        times[2] = started.elapsed();
        server.stop()?;
        Ok(times)
    }

    /// Runs a playbook of one task.
    fn agent(
        &self,
        server: &Server,
        module: &str,
        mut arguments: Value,
    ) -> Result<Watched, LabError> {
        let folder = tempfile::tempdir_in(self.dumps.path())
            .map_err(io_error("create", self.dumps.path()))?;
        for (name, value) in [
            // As services are reached.
            ("login_host", json!(server.address()?)),
            ("login_user", json!(server.user())),
            ("login_password", json!("pacs")),
            ("db", json!(server.database())),
        ] {
            arguments[name] = value;
        }
        let playbook = folder.path().join("one.yaml");
        let text = json!([{"name": "Bench", "hosts": "localhost", "tasks": [{"name": "One", "id": "one", module: arguments}]}]);
        fs::write(&playbook, text.to_string()).map_err(io_error("write", &playbook))?;
        let mut run = Command::new(&self.binary);
        run.arg("run")
            .arg(&playbook)
            .arg("--state-dir")
            .arg(folder.path().join("state"));
        watched(&mut run)
    }
}

fn dump_by_hand(server: &Server, to: &Path, format: &str) -> Result<(), LabError> {
    let file = fs::File::create(to).map_err(io_error("create", to))?;
    let mut dump = Command::new("docker");
    dump.args(["exec", server.name(), "pg_dump", "-U", server.user()])
        .args(["-d", server.database(), "--format", format])
        .stdout(file);
    let status = dump.status().map_err(io_error("write", to))?;
    if status.success() {
        Ok(())
    } else {
        Err(LabError::Unexpected(format!("pg_dump ended with {status}")))
    }
}

fn timed(command: &mut Command) -> Result<Duration, LabError> {
    let started = Instant::now();
    let status = command
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(io_error("run", Path::new("cat")))?;
    if !status.success() {
        return Err(LabError::Unexpected(format!("cat ended with {status}")));
    }
    Ok(started.elapsed())
}
