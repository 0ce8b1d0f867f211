//! Dumps with random damage, and psql as the judge: what our reader accepts, psql accepts, and the database is
//! the same; what the server refuses of ours, it refuses of psql's.

use std::process::{Command, Stdio};

use serde_json::json;

use super::live_restore_tests::described;
use crate::live_rig::{Rig, Server, code, inside, psql, run};

/// One of everything that the reader has to tell apart.
const SMALL: &str = "
CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql AS $body$ SELECT 'it''s; ' || $1 || $$ -- no comment $$ $body$;
CREATE TABLE parent (pk integer PRIMARY KEY, \"odd \"\"name\" text DEFAULT E'a\\'b;');
INSERT INTO parent SELECT i, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN E'\\\\.' WHEN 2 THEN E'tab\\there' ELSE 'x' || i END
  FROM generate_series(1, 12) i;
CREATE TABLE child (pk integer PRIMARY KEY, parent_fk integer REFERENCES parent, n numeric CHECK (n > 0));
INSERT INTO child SELECT i, i, i / 3.0 FROM generate_series(1, 9) i;
CREATE INDEX child_n ON child (n) WHERE n > 1;
CREATE VIEW v AS SELECT p.pk, count(*) FROM parent p JOIN child ON parent_fk = p.pk GROUP BY p.pk;
COMMENT ON TABLE child IS 'a /* remark */ with ; and -- in it';
CREATE SEQUENCE s; SELECT nextval('s');
";

/// Where something else begins or ends.
const SIGNS: &[u8] = b"'\"$\\;-*/\n\t().x0";

/// Random numbers that are the same again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

fn damaged(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.below(2) {
        let at = dice.below(bytes.len());
        let sign = SIGNS[dice.below(SIGNS.len())];
        match dice.below(7) {
            0 => drop(bytes.remove(at)),
            1 => bytes[at] = sign,
            2 => bytes.insert(at, sign),
            // A line twice, away, at another place, or in two.
            kind => {
                let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let (from, to) = (dice.below(lines.len()), dice.below(lines.len()));
                match kind {
                    3 => lines.insert(from, lines[from]),
                    4 => drop(lines.remove(from)),
                    5 => lines.swap(from, to),
                    _ => lines.insert(from, b"\n"),
                }
                bytes = lines.concat();
            }
        }
    }
    bytes
}

/// Tells whether psql takes the text whole.
fn psql_takes(server: &Server, db: &str, text: &[u8]) -> bool {
    psql(
        server,
        "postgres",
        &format!("CREATE DATABASE {db} TEMPLATE template0"),
    );
    let mut child = Command::new("docker")
        .args([
            "exec",
            "-i",
            "-e",
            "PGUSER=pacs",
            &server.handle.container_id,
        ])
        .args([
            "psql",
            "-X",
            "-q",
            "-1",
            "-v",
            "ON_ERROR_STOP=1",
            "-o",
            "/dev/null",
            "-d",
            db,
            "-f",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker");
    let mut pipe = child.stdin.take().expect("stdin");
    // It may end before it has read everything.
    let _ = std::io::Write::write_all(&mut pipe, text);
    drop(pipe);
    child.wait().expect("docker").success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_of_a_damaged_dump_is_what_psql_makes_of_it() {
    let trials = std::env::var("KAAPANA_AGENT_TRIALS").ok();
    let trials: u64 = trials.and_then(|trials| trials.parse().ok()).unwrap_or(40);
    let rig = Rig::new();
    let server = rig.server("server", &rig.new, true).await;
    psql(&server, "pacsdb", SMALL);
    let good = inside(&server, &[], &["pg_dump", "-d", "pacsdb"], "").stdout;
    let src = rig.dir.path().join("damaged.sql");
    let (mut accepted, mut by_server, mut by_reader) = (0, 0, 0);
    for seed in 0..trials {
        let text = damaged(&good, &mut Dice(seed));
        std::fs::write(&src, &text).expect("written");
        let keep = || {
            let kept = std::env::temp_dir().join(format!("damaged-{seed}.sql"));
            std::fs::copy(&src, &kept).expect("kept");
            kept.display().to_string()
        };
        let arguments = json!({"src": src, "db": "ours", "connections": 2});
        let ours = run(&server.ctx, "postgresql_restore", arguments).await;
        let theirs = psql_takes(&server, "theirs", &text);
        match ours.map_err(code).map(|_| ()) {
            Ok(()) => {
                accepted += 1;
                assert!(theirs, "psql refuses {}", keep());
                let both = ["ours", "theirs"].map(|db| described(&server, db, &[]));
                assert!(both[0] == both[1], "not the same from {}", keep());
                psql(&server, "postgres", "DROP DATABASE ours");
            }
            Err(code) if code == "postgresql::restore_failed" => {
                by_server += 1;
                assert!(!theirs, "psql takes {}", keep());
            }
            Err(code) => {
                by_reader += 1;
                let known = ["postgresql::bad_dump", "postgresql::newer_dump"];
                assert!(known.contains(&code.as_str()), "{code} for {}", keep());
            }
        }
        psql(&server, "postgres", "DROP DATABASE theirs");
    }
    eprintln!(
        "{trials} dumps: {accepted} restored, {by_server} refused by the server, {by_reader} by the reader"
    );
    assert!(accepted > 0 && by_server > 0 && by_reader > 0);
    drop(rig);
}
