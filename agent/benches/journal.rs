//! What the journal of 1,000 tasks costs, against a bare `write` and `fdatasync` of the same bytes in the
//! same folder: `cargo bench --bench journal [-- --dir DIR]`. The bar is 1.3.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kaapana_agent::state::{Body, Fingerprint, How, Journal, Output, TaskStatus, reader};
use serde_json::json;

const TASKS: usize = 1000;
/// An odd number, so that the median is a round's own.
const ROUNDS: usize = 7;

/// What a task of the migration writes: some 500 bytes when it starts, some 900 when it ends.
fn records(task: usize) -> [Body; 2] {
    let name =
        format!("Kaapana 0.2 to 0.3 / Guide 1 to 3, what the 0.2 database holds / task-{task}");
    let attempt = format!("20261122T214549Z-ad88/{task}");
    let arguments = json!({
        "db": "pacsdb", "dest": format!("/home/kaapana/fast/backup/pacsdb_{task}.sql"),
        "login_user": "pacs", "login_password": "[hidden]",
    });
    let fingerprint = Fingerprint::new("postgresql_dump", &arguments, &[]);
    let sha256 = fingerprint.arguments.clone();
    [
        Body::TaskStarted {
            task: name.clone(),
            attempt: attempt.clone(),
            module: "postgresql_dump".into(),
            fingerprint: fingerprint.clone(),
            arguments,
            intent: json!({"dest": "/home/kaapana/fast/backup/pacsdb.sql", "free": 1_234_567_890_u64}),
            needs_change: None,
            reason: None,
        },
        Body::TaskFinished {
            task: name,
            attempt: Some(attempt),
            status: TaskStatus::Changed,
            how: How::Ran,
            fingerprint,
            arguments: json!(null),
            result: json!({
                "dest": "/home/kaapana/fast/backup/pacsdb.sql", "size": 134_285_892,
                "checksum": format!("sha256:{sha256}"), "sha256": sha256,
                "program": "pg_dump (PostgreSQL) 13.16", "changed": true, "failed": false,
            }),
            hidden: Vec::new(),
            outputs: vec![Output {
                path: PathBuf::from("/home/kaapana/fast/backup/pacsdb.sql"),
                size: 134_285_892,
                sha256,
            }],
            summary: Some("/home/kaapana/fast/backup/pacsdb.sql (128 MiB)".into()),
            error: None,
            duration_ms: 7589,
        },
    ]
}

fn journaled(path: &Path) -> Result<Duration, Box<dyn Error>> {
    let empty = reader::read(path)?;
    let (mut journal, _) = Journal::open(path, &empty, "20261122T214549Z-ad88")?;
    let bodies: Vec<Body> = (0..TASKS).flat_map(records).collect();
    let since = Instant::now();
    for body in bodies {
        journal.append(body)?;
    }
    Ok(since.elapsed())
}

fn bare(path: &Path, lines: &[&[u8]]) -> Result<Duration, Box<dyn Error>> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(path)?;
    file.sync_all()?;
    File::open(path.parent().ok_or("the file is in a folder")?)?.sync_all()?;
    let since = Instant::now();
    for line in lines {
        file.write_all(line)?;
        file.sync_data()?;
    }
    Ok(since.elapsed())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip_while(|word| word != "--dir").skip(1);
    let parent = words.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (journal, plain) = (dir.path().join("journal.jsonl"), dir.path().join("bare"));
        // In turns, and each first in turns: what the disk does beside is shared.
        let first = if round % 2 == 0 {
            Some(journaled(&journal)?)
        } else {
            None
        };
        let bytes = match fs::read(&journal) {
            Ok(bytes) => bytes,
            Err(_) => {
                let other = dir.path().join("sample");
                journaled(&other)?;
                let bytes = fs::read(&other)?;
                fs::remove_file(&other)?;
                bytes
            }
        };
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 2 * TASKS, "every record is a line");
        let their = bare(&plain, &lines)?;
        let our = match first {
            Some(our) => our,
            None => journaled(&journal)?,
        };
        let written = reader::read(&journal)?;
        assert_eq!(written.records.len(), 2 * TASKS, "the journal is whole");
        println!(
            "round {round}: journal {:.1} ms, bare {:.1} ms, {} bytes",
            our.as_secs_f64() * 1e3,
            their.as_secs_f64() * 1e3,
            bytes.len()
        );
        ours.push(our.as_secs_f64() * 1e3);
        theirs.push(their.as_secs_f64() * 1e3);
        ratios.push(our.as_secs_f64() / their.as_secs_f64());
        fs::remove_file(&journal)?;
        fs::remove_file(&plain)?;
    }
    let (low, high) = ratios
        .iter()
        .fold((f64::MAX, 0.0_f64), |(low, high), ratio| {
            (low.min(*ratio), high.max(*ratio))
        });
    let ratio = median(ratios.clone());
    println!(
        "{TASKS} tasks, {} records: journal {:.1} ms, bare write + fdatasync {:.1} ms, ratio {ratio:.2} \
         [{low:.2} to {high:.2}] (bar: 1.3)",
        2 * TASKS,
        median(ours),
        median(theirs),
    );
    if ratio > 1.3 {
        return Err("the journal costs more than 1.3 times its bytes".into());
    }
    Ok(())
}
