//! Who may use whom, as the table in `agent/README.md` says it. Rooms are the folders of the binary's crate, the
//! other crates under `agent/`, and the families of modules.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use lab::agent::workspace;

/// Room, and the rooms that it may use.
type Table = BTreeMap<String, BTreeSet<String>>;

/// Names by which a crate's rooms are reached where they are not its own.
const ALIASES: [(&str, &str); 7] = [
    ("state", "journal"),
    ("playbook", "language"),
    ("source", "language"),
    ("vault", "language"),
    ("redact", "host"),
    ("python_json", "host"),
    ("python_regex", "host"),
];

/// One use of a room by another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    file: PathBuf,
    line: usize,
}

/// Where a file stands: its room, and its path from the root of its crate.
struct Stand<'f> {
    room: String,
    file: &'f Path,
    own: Vec<String>,
}

#[test]
fn nobody_uses_what_the_table_does_not_allow() -> Result<(), Box<dyn Error>> {
    let agent = workspace().join("agent");
    let table = table_of(&fs::read_to_string(agent.join("README.md"))?)?;
    let rooms = rooms(&agent)?;
    let mut told = Vec::new();
    for file in sources_below(&agent)? {
        let text = fs::read_to_string(&file)?;
        let inside = file.strip_prefix(&agent)?;
        let Some(stand) = stand_of(inside, &rooms) else {
            continue;
        };
        let arrows = arrows_of(&stand, &text, &rooms);
        for arrow in arrows.iter().filter(|arrow| !is_allowed(&table, arrow)) {
            let file = arrow.file.display();
            told.push(format!(
                "{file}:{}: {} -> {}",
                arrow.line, arrow.from, arrow.to
            ));
        }
    }
    assert!(told.is_empty(), "not in the table:\n{}", told.join("\n"));
    Ok(())
}

#[test]
fn every_room_stands_in_the_table() -> Result<(), Box<dyn Error>> {
    let agent = workspace().join("agent");
    let table = table_of(&fs::read_to_string(agent.join("README.md"))?)?;
    for room in rooms(&agent)? {
        let named = table.contains_key(&room) || room.starts_with("modules/");
        assert!(named, "`{room}` is not in the table");
    }
    Ok(())
}

#[test]
fn an_arrow_that_is_not_allowed_is_found_however_it_is_written() -> Result<(), Box<dyn Error>> {
    let rooms = rooms(&workspace().join("agent"))?;
    let table = table_of(
        "```text\nhost -> nothing\nmodules/* -> host, task\nengine -> event, journal\n```\n",
    )?;
    let walk = "host/src/files/walk.rs";
    let data_dir = "modules/src/ldap/data_dir.rs";
    let run = "src/engine/run.rs";
    for (file, text, found) in [
        (walk, "use kaapana_task::context::TaskContext;", true),
        (walk, "use crate::error::PathError;", false),
        (walk, "// as kaapana_task does\n", false),
        (data_dir, "fn a() { crate::docker::b() }", true),
        (data_dir, "use super::super::docker::b;", true),
        (data_dir, "use super::error::LdapError;", false),
        (data_dir, "use crate::task::context::TaskContext;", false),
        (data_dir, "use crate::{\n    docker::b,\n};", true),
        (run, "use crate::state::Journal;", false),
        (run, "use crate::report::status;", true),
        (run, "use crate::source::Problem;", true),
    ] {
        let stand = stand_of(Path::new(file), &rooms).ok_or("a file of no room")?;
        let wrong = arrows_of(&stand, text, &rooms)
            .iter()
            .any(|arrow| !is_allowed(&table, arrow));
        assert_eq!(wrong, found, "{file}: {text}");
    }
    Ok(())
}

/// Reads the block in the README that has arrows.
fn table_of(readme: &str) -> Result<Table, String> {
    let block = readme
        .split("```text\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .find(|block| block.contains(" -> "))
        .ok_or("agent/README.md has no table of arrows")?;
    let words = |text: &str| -> Vec<String> {
        let all = text.split(',').map(|word| word.trim().to_owned());
        all.filter(|word| !word.is_empty()).collect()
    };
    let mut table = Table::new();
    for line in block.lines().filter(|line| line.contains("->")) {
        let (from, to) = line.split_once("->").unwrap_or_default();
        for room in words(from) {
            table.entry(room).or_default().extend(words(to));
        }
    }
    Ok(table)
}

fn is_allowed(table: &Table, arrow: &Arrow) -> bool {
    let family = arrow.from.starts_with("modules/").then_some("modules/*");
    [Some(arrow.from.as_str()), family]
        .into_iter()
        .flatten()
        .filter_map(|from| table.get(from))
        .any(|may| {
            let whole = arrow.to.starts_with("modules/") && may.contains("modules/*");
            may.contains("everything") || may.contains(&arrow.to) || whole
        })
}

/// Every room: folders and files of the binary's crate, the other crates, each family of modules.
fn rooms(agent: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut rooms = BTreeSet::new();
    for entry in fs::read_dir(agent.join("src"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let room = name.strip_suffix(".rs").unwrap_or(&name);
        if !["lib", "main"].contains(&room) {
            rooms.insert(room.to_owned());
        }
    }
    for entry in fs::read_dir(agent)? {
        let entry = entry?;
        if entry.path().join("src/lib.rs").exists() && entry.file_name() != "fuzz" {
            rooms.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    for entry in fs::read_dir(agent.join("modules/src"))? {
        let entry = entry?;
        if entry.path().is_dir() {
            rooms.insert(format!("modules/{}", entry.file_name().to_string_lossy()));
        }
    }
    Ok(rooms)
}

fn stand_of<'f>(file: &'f Path, rooms: &BTreeSet<String>) -> Option<Stand<'f>> {
    let shown = file.with_extension("").to_string_lossy().into_owned();
    let mut own: Vec<String> = shown.split('/').map(str::to_owned).collect();
    if own
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        own.pop();
    }
    let at = own.iter().position(|part| part == "src")?;
    let of_crate = (at > 0).then(|| own[at - 1].clone());
    let own = own.split_off(at + 1);
    let first = own.first().cloned().unwrap_or_default();
    let room = match of_crate.as_deref() {
        None => first,
        Some("modules") if rooms.contains(&format!("modules/{first}")) => {
            format!("modules/{first}")
        }
        Some(other) => other.to_owned(),
    };
    rooms.contains(&room).then_some(Stand { room, file, own })
}

/// The room of a path from the root of a crate, where it is another's or a family's.
fn room_of(stand: &Stand<'_>, segments: &[String], rooms: &BTreeSet<String>) -> Option<String> {
    let first = segments.first()?.as_str();
    let of_modules = stand.room == "modules" || stand.room.starts_with("modules/");
    let family = format!("modules/{first}");
    if of_modules && rooms.contains(&family) {
        return Some(family);
    }
    let aliased = ALIASES.iter().find(|(alias, _)| *alias == first);
    // In its own crate that name is a part of it.
    let own = |room: &str| room == stand.room && aliased.is_some();
    let room = aliased.map_or(first, |(_, room)| *room);
    (rooms.contains(room) && !own(room)).then(|| room.to_owned())
}

/// Which other rooms a file uses.
fn arrows_of(stand: &Stand<'_>, text: &str, rooms: &BTreeSet<String>) -> BTreeSet<Arrow> {
    let in_one_crate =
        |room: &str| !["host", "journal", "language", "postgres", "task"].contains(&room);
    let mut arrows = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut paths: Vec<Vec<String>> = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            paths.push(segments_at(code, at).split_off(1));
        }
        for (at, _) in code.match_indices("kaapana_") {
            let path = segments_at(code, at);
            let named = path.first().and_then(|name| name.strip_prefix("kaapana_"));
            if at == 0 || !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                paths.extend(named.map(|name| vec![name.to_owned()]));
            }
        }
        for (at, _) in code.match_indices("super::super::") {
            let path = segments_at(code, at);
            let up = path.iter().take_while(|part| *part == "super").count();
            let depth = stand.own.len().saturating_sub(up);
            let above = stand.own[..depth].iter().cloned();
            paths.push(above.chain(path.into_iter().skip(up)).collect());
        }
        // Inside of `use crate::{…}` a path begins with the room itself.
        let bare = segments_at(code, code.len() - code.trim_start().len());
        if bare.len() > 1 && bare[0] != "crate" && bare[0] != "super" && in_one_crate(&stand.room) {
            paths.push(bare);
        }
        for to in paths.iter().filter_map(|path| room_of(stand, path, rooms)) {
            if to != stand.room {
                arrows.insert(Arrow {
                    from: stand.room.clone(),
                    to,
                    file: stand.file.to_path_buf(),
                    line: number + 1,
                });
            }
        }
    }
    arrows
}

/// The segments of the path that begins at a place of a line.
fn segments_at(code: &str, at: usize) -> Vec<String> {
    let path: String = code[at..]
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
        .collect();
    let parts = path.split("::").filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn sources_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources_below(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
