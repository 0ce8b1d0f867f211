//! Both ways lead to the same database: the guide's, and the short one without a work server.

use std::error::Error;

use lab::check;
use lab::migration::Migration;
use lab::server::{Server, ServerOptions};
use lab::site::Scale;
use serde_json::{Value, json};

/// Columns that the update scripts fill where they are NULL, which the short way does beforehand.
const FILLED: [&str; 2] = ["public.instance", "public.series"];

#[test]
fn both_routes_lead_to_the_same_database() -> Result<(), Box<dyn Error>> {
    let guide = migrated("guide")?;
    guide.must_have_ended_right()?;
    let by_guide = described(&guide)?;
    drop(guide);
    let direct = migrated("direct")?;
    direct.must_be_passed_over()?;
    direct.must_leave_nothing()?;
    is_short(&direct)?;
    let by_short_way = described(&direct)?;
    assert_eq!(by_guide.schema, by_short_way.schema);
    assert_eq!(by_guide.sequences, by_short_way.sequences);
    assert!(by_guide.content.len() > 35, "{}", by_guide.content.len());
    assert_eq!(by_guide.content, by_short_way.content);
    Ok(())
}

fn migrated(route: &str) -> Result<Migration, Box<dyn Error>> {
    let migration = Migration::begin(Scale::S)?;
    migration.agent.set(&json!({"route": route}))?;
    migration.finish()?;
    Ok(migration)
}

/// Every object, every row, every sequence of a migrated site.
struct Described {
    schema: Vec<String>,
    content: std::collections::BTreeMap<String, check::TableChecksum>,
    sequences: String,
}

fn described(migration: &Migration) -> Result<Described, Box<dyn Error>> {
    let site = &migration.site;
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

/// The columns were filled on the way, nothing of them was left to the scripts, and there was no work server.
fn is_short(migration: &Migration) -> Result<(), Box<dyn Error>> {
    let journal = migration.agent.journal();
    let ended = |task: &str| {
        let found = journal
            .iter()
            .find(|record| lab::agent::is_about(record, "task_finished", task));
        found.ok_or_else(|| format!("{task} has not ended"))
    };
    let restored = &ended("restore-direct")?["result"]["anticipated"];
    let tables: Vec<&Value> = restored
        .as_array()
        .into_iter()
        .flatten()
        .map(|done| &done["table"])
        .collect();
    assert_eq!(tables, FILLED, "{restored}");
    for done in restored.as_array().into_iter().flatten() {
        assert!(done["values"].as_u64() > Some(0), "{restored}");
    }
    assert!(!migration.has_started("restore-work"));
    let services = journal.iter().filter(|r| r["event"] == "service_started");
    let names: Vec<&Value> = services.map(|record| &record["service"]).collect();
    assert_eq!(names, ["pacs_old", "pacs_direct"]);
    Ok(())
}
