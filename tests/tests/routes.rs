//! All ways lead to the same database: the guide's, the short one without a work server, and the guide's own
//! commands by hand, which restore with psql and anticipate nothing.

use std::error::Error;
use std::process::Command;

use lab::check;
use lab::migration::Migration;
use lab::server::{Server, ServerOptions};
use lab::site::{Scale, Site};
use serde_json::{Value, json};

/// Tables with columns that the update scripts fill where they are NULL, which the restore does beforehand.
const FILLED: [&str; 2] = ["public.instance", "public.series"];

#[test]
fn both_routes_lead_to_the_database_that_the_guide_leads_to_by_hand() -> Result<(), Box<dyn Error>>
{
    let guide = migrated(&json!({"route": "guide", "dump_compression": "zstd"}))?;
    guide.must_have_ended_right()?;
    comes_in_filled(&guide, "restore-work")?;
    let dumps = ["pacsdb_9_6.sql.zst", "pacsdb_updated.sql.zst"];
    let there = |dump: &&str| guide.site.backup_dir.join(dump).exists();
    assert!(dumps.iter().all(there));
    let by_guide = described(&guide.site)?;
    drop(guide);
    let direct = migrated(&json!({"route": "direct"}))?;
    direct.must_be_passed_over()?;
    direct.must_leave_nothing()?;
    let restored = comes_in_filled(&direct, "restore-direct")?;
    assert_eq!(restored["ahead"], true, "restored while it was dumped");
    is_short(&direct);
    let by_short_way = described(&direct.site)?;
    drop(direct);
    let by_hand = described(&done_by_hand()?)?;
    assert!(by_hand.content.len() > 35, "{}", by_hand.content.len());
    for found in [by_guide, by_short_way] {
        assert_eq!(found.schema, by_hand.schema);
        assert_eq!(found.sequences, by_hand.sequences);
        assert_eq!(found.content, by_hand.content);
    }
    Ok(())
}

fn migrated(variables: &Value) -> Result<Migration, Box<dyn Error>> {
    let migration = Migration::begin(Scale::S)?;
    migration.agent.set(variables)?;
    migration.finish()?;
    Ok(migration)
}

fn done_by_hand() -> Result<Site, Box<dyn Error>> {
    let site = Site::temporary(Scale::S)?;
    let script = lab::agent::workspace().join("tests/baseline/guide.sh");
    let mut guide = Command::new("bash");
    lab::tool::run(guide.arg(script).envs(site.variables()), "follow the guide")?;
    Ok(site)
}

/// Every object, every row, every sequence of a migrated site.
struct Described {
    schema: Vec<String>,
    content: std::collections::BTreeMap<String, check::TableChecksum>,
    sequences: String,
}

fn described(site: &Site) -> Result<Described, Box<dyn Error>> {
    let server = Server::start(
        &site.images.new,
        Some(&site.postgres_dir()),
        &ServerOptions::default(),
    )?;
    let dump = format!(
        "pg_dump --schema-only -U {} -d {}",
        server.user(),
        server.database()
    );
    // The key of this pair is another one in each dump.
    let is_content =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    let text = server.shell(&dump)?;
    let described = Described {
        schema: text.lines().filter(is_content).map(str::to_owned).collect(),
        content: check::table_checksums(&server)?,
        sequences: server
            .psql("select schemaname, sequencename, last_value from pg_sequences order by 1, 2")?,
    };
    server.stop()?;
    Ok(described)
}

/// The columns were filled on the way, in as many rows as there were. Returns what the restore says.
fn comes_in_filled(migration: &Migration, restore: &str) -> Result<Value, Box<dyn Error>> {
    let journal = migration.agent.journal();
    let ended = journal
        .iter()
        .find(|record| lab::agent::is_about(record, "task_finished", restore));
    let ended = ended.ok_or_else(|| format!("{restore} has not ended"))?;
    let restored = &ended["result"]["anticipated"];
    let done: Vec<&Value> = restored.as_array().into_iter().flatten().collect();
    let tables: Vec<&Value> = done.iter().map(|done| &done["table"]).collect();
    assert_eq!(tables, FILLED, "{restored}");
    let some = |done: &&Value| done["values"].as_u64() > Some(0);
    assert!(done.iter().all(some), "{restored}");
    Ok(ended["result"].clone())
}

/// There was no work server.
fn is_short(migration: &Migration) {
    assert!(!migration.has_started("restore-work"));
    let journal = migration.agent.journal();
    let services = journal.iter().filter(|r| r["event"] == "service_started");
    let names: Vec<&Value> = services.map(|record| &record["service"]).collect();
    assert_eq!(names, ["pacs_old", "pacs_direct"]);
}
