//! What of update scripts may be done while rows are loaded: `UPDATE t SET c = 'v' WHERE c IS NULL`.
//!
//! Run on a filled table such a statement writes every row anew, under all its indexes. Put into the data
//! of a COPY it costs nothing, and the statement finds nothing left to do when its script runs. That comes
//! to the same where nothing that the scripts do before it looks at the column or at whole rows of the
//! table: the statement then changes places with all of it, and what was filled is not filled twice. Every
//! statement before it must be of a kind that is known here; behind one that is not, nothing is anticipated.
//! What only the database can tell is asked there, by [`crate::restore::fill`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sql_split::{PieceKind, split, strip_comments};
use crate::error::PostgresError;
use crate::format::statement::{Token, Tokens};
use crate::host::error::PathError;
use crate::task::context::TaskContext;

/// By table, as `schema.name`: by column, the value that its NULLs get.
pub type Fills = BTreeMap<String, BTreeMap<String, String>>;

/// A table of which something was anticipated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Anticipated {
    /// `schema.name`.
    pub table: String,
    /// The value that NULLs got, by column.
    pub columns: BTreeMap<String, String>,
    /// How many values were filled in.
    #[serde(default)]
    pub values: u64,
}

/// Reads scripts in the order in which they will run, and returns what of them may be anticipated. One that
/// is not understood ends the search, and is no error.
///
/// # Errors
/// A script cannot be read.
pub fn of_scripts(ctx: &TaskContext, scripts: &[PathBuf]) -> Result<Fills, PostgresError> {
    let mut search = Search::default();
    for script in scripts {
        let path = ctx.resolve(script);
        let bytes = std::fs::read(&path).map_err(PathError::on("read", &path))?;
        let text = String::from_utf8(bytes).ok();
        if text.and_then(|text| search.script(&text)).is_none() {
            break;
        }
    }
    Ok(search.found)
}

/// A statement that fills NULLs.
struct Fill {
    table: String,
    column: String,
    value: String,
}

#[derive(Default)]
struct Search {
    found: Fills,
    before: Vec<Known>,
}

impl Search {
    /// Goes through a script; nothing where it holds something that is not known.
    fn script(&mut self, text: &str) -> Option<()> {
        for piece in split(text).ok()? {
            match piece.kind {
                PieceKind::Blank => continue,
                PieceKind::Statement => {}
                _ => return None,
            }
            let parts = parts(&strip_comments(&piece.text[piece.start..]))?;
            if let Some(fill) = fill(&parts) {
                self.fill(fill);
            }
            self.before.push(Known::of(&parts)?);
        }
        Some(())
    }

    fn fill(&mut self, fill: Fill) {
        let known = self.found.get(&fill.table);
        let may = match known.and_then(|columns| columns.get(&fill.column)) {
            // After the first one there are no NULLs any more, whatever came in between.
            Some(_) => false,
            None => self.before.iter().all(|known| known.commutes_with(&fill)),
        };
        if may {
            let columns = self.found.entry(fill.table).or_default();
            columns.insert(fill.column, fill.value);
        }
    }
}

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// A word, folded as the server does it, or a quoted name as it is.
    Word(String),
    Text(String),
    Sign(u8),
}

impl Part {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }
}

/// Cuts a statement into its parts; nothing where some of it could be something else than it seems.
fn parts(text: &str) -> Option<Vec<Part>> {
    if !text.is_ascii() || text.contains('\\') {
        return None;
    }
    let mut tokens = Tokens::new(text);
    let mut parts = Vec::new();
    while let Some(token) = tokens.take() {
        let part = match token {
            Token::Word(word) => Part::Word(word.to_ascii_lowercase()),
            Token::Name(name) => Part::Word(unquoted(name, '"')?),
            Token::Text(text) => Part::Text(unquoted(text, '\'')?),
            Token::Sign(sign) => Part::Sign(sign),
        };
        // Dollar quotes, and names spelt in code points.
        if matches!(&part, Part::Word(word) if word.starts_with('$') || word == "uescape") {
            return None;
        }
        parts.push(part);
    }
    (tokens.is_at_end() && !parts.is_empty()).then_some(parts)
}

fn unquoted(quoted: &str, quote: char) -> Option<String> {
    let inner = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    let doubled: String = [quote, quote].iter().collect();
    Some(inner.replace(&doubled, &quote.to_string()))
}

/// Names that are written as they are, by people and by pg_dump.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Takes `name` or `schema.name` from the beginning, and returns the rest.
fn table(parts: &[Part]) -> Option<(String, &[Part])> {
    match parts {
        [
            Part::Word(schema),
            Part::Sign(b'.'),
            Part::Word(name),
            rest @ ..,
        ] => Some((format!("{schema}.{name}"), rest)),
        [Part::Word(name), rest @ ..] => Some((format!("public.{name}"), rest)),
        _ => None,
    }
}

fn name_of(table: &str) -> &str {
    table.rsplit('.').next().unwrap_or(table)
}

/// Recognises `UPDATE t SET c = 'v' WHERE c IS NULL`.
fn fill(parts: &[Part]) -> Option<Fill> {
    let [update, rest @ ..] = parts else {
        return None;
    };
    if !update.is("update") {
        return None;
    }
    let (table, rest) = table(rest)?;
    let rest = rest.strip_suffix(&[Part::Sign(b';')]).unwrap_or(rest);
    let [
        set,
        Part::Word(column),
        Part::Sign(b'='),
        Part::Text(value),
        r#where,
        Part::Word(same),
        is,
        null,
    ] = rest
    else {
        return None;
    };
    let words = set.is("set") && r#where.is("where") && is.is("is") && null.is("null");
    // Neither COPY nor anybody else sees anything special in such a value.
    let plain = value
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let names = is_plain(column) && table.split('.').all(is_plain);
    (words && column == same && plain && names).then(|| Fill {
        table,
        column: column.clone(),
        value: value.clone(),
    })
}

/// Words after which `(` opens no call of a function.
const NO_CALLS: &[&str] = &[
    "and",
    "bit",
    "btree",
    "bpchar",
    "char",
    "character",
    "check",
    "decimal",
    "exists",
    "hash",
    "in",
    "key",
    "not",
    "numeric",
    "or",
    "set",
    "time",
    "timestamp",
    "timestamptz",
    "unique",
    "varchar",
    "varying",
    "where",
];
/// Words after which a table is only named.
const NAMES: &[&str] = &["update", "table", "only", "exists", "on", "references"];
/// What depends on how rows lie in a table, which a statement that writes them anew changes.
const PLACES: &[&str] = &[
    "ctid",
    "xmin",
    "xmax",
    "cmin",
    "cmax",
    "tableoid",
    "identity",
    "serial",
    "bigserial",
    "smallserial",
    "serial2",
    "serial4",
    "serial8",
];

/// What a statement of a known kind has to do with tables.
struct Known {
    /// Every word in it.
    words: BTreeSet<String>,
    /// Words that stand where more than a table's name may be meant.
    read: BTreeSet<String>,
    /// Name of the table that comes or goes.
    made: Option<String>,
    /// Whether it says `*`, calls functions, or depends on how rows lie in a table.
    opaque: bool,
}

impl Known {
    /// Nothing for a statement that may do anything.
    fn of(parts: &[Part]) -> Option<Self> {
        let word = |index: usize| match parts.get(index) {
            Some(Part::Word(word)) => word.as_str(),
            _ => "",
        };
        let has = |words: &[&str]| words.iter().any(|word| parts.iter().any(|p| p.is(word)));
        // Moves past `IF EXISTS` and its like, to the name.
        let named = |mut at: usize| {
            while ["if", "not", "exists", "only"].contains(&word(at)) {
                at += 1;
            }
            table(parts.get(at..)?).map(|(table, rest)| (name_of(&table).to_owned(), rest))
        };
        let mut made = None;
        match (word(0), word(1)) {
            // No other name for its rows.
            ("update", _) if named(1)?.1.first()?.is("set") => {}
            ("create", "table")
                if !has(&["as", "like", "inherits", "partition", "of", "execute"]) =>
            {
                made = Some(named(2)?.0);
            }
            ("create", "index" | "sequence") | ("drop", "index" | "sequence") => {}
            ("create", "unique") if word(2) == "index" => {}
            ("drop", "table") => {
                let (name, rest) = named(2)?;
                let ends = |part: &Part| {
                    part.is("cascade") || part.is("restrict") || *part == Part::Sign(b';')
                };
                if !rest.iter().all(ends) {
                    return None;
                }
                made = Some(name);
            }
            ("alter", "table") => {
                let first = named(2)?.1.first()?;
                let known = ["add", "alter", "drop"]
                    .iter()
                    .any(|action| first.is(action));
                if !known || has(&["rename", "inherit", "attach", "detach", "enable", "disable"]) {
                    return None;
                }
            }
            _ => return None,
        }
        let (mut words, mut read) = (BTreeSet::new(), BTreeSet::new());
        let mut opaque = parts.contains(&Part::Sign(b'*')) || has(PLACES);
        for (at, part) in parts.iter().enumerate() {
            let Part::Word(own) = part else { continue };
            words.insert(own.clone());
            let before = at.checked_sub(1).map(|before| &parts[before]);
            let only_named = match before {
                Some(Part::Word(word)) => NAMES.contains(&word.as_str()),
                // `schema.name`; a column is asked for by its own name.
                Some(Part::Sign(b'.')) => true,
                _ => false,
            };
            let next = parts.get(at + 1);
            if !only_named && next != Some(&Part::Sign(b'.')) {
                read.insert(own.clone());
            }
            let called = next == Some(&Part::Sign(b'('));
            opaque |= called && !only_named && !NO_CALLS.contains(&own.as_str());
        }
        Some(Self {
            words,
            read,
            made,
            opaque,
        })
    }

    /// Tells whether it comes to the same before and after the filling.
    fn commutes_with(&self, fill: &Fill) -> bool {
        let table = name_of(&fill.table);
        if !self.words.contains(table) {
            return true;
        }
        !self.opaque
            && !self.words.contains(&fill.column)
            && !self.read.contains(table)
            && self.made.as_deref() != Some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILL: &str = "UPDATE instance SET aet = '*' WHERE aet IS NULL;";

    fn found(scripts: &[&str]) -> Fills {
        let mut search = Search::default();
        for script in scripts {
            if search.script(script).is_none() {
                break;
            }
        }
        search.found
    }

    fn one(table: &str, column: &str, value: &str) -> Fills {
        [(
            table.to_owned(),
            [(column.to_owned(), value.to_owned())].into(),
        )]
        .into()
    }

    #[test]
    fn what_only_fills_is_found_behind_what_does_not_touch_it() {
        let before = "-- part 1\n\
            create table instance_req (pk int8 not null, instance_fk int8, name varchar(255), primary key (pk),\n\
              constraint f foreign key (instance_fk) references instance (pk));\n\
            alter table instance_req add constraint g foreign key (instance_fk) references instance;\n\
            alter table instance add modified_time timestamp;\n\
            update instance set modified_time = updated_time where modified_time is null;\n\
            create index i on instance (modified_time);\n\
            update id_sequence set next_value = next_value + 1;\n\
            update patient_id set patient_fk = (select p.pk from patient p where p.x = patient_id.pk);\n\
            drop table key_value; drop sequence key_value_pk_seq;";
        let fills = found(&[
            before,
            "update series set aet = 'a b' where aet is null; /* x */ update public.instance\nset aet = '*' \
             where aet is null; update instance set aet = 'other' where aet is null",
        ]);
        let mut expected = one("public.instance", "aet", "*");
        expected.extend(one("public.series", "aet", "a b"));
        assert_eq!(fills, expected);
    }

    #[test]
    fn nothing_is_anticipated_past_what_might_see_the_difference() {
        for before in [
            // Looks at the column, or at whole rows.
            "update instance set other = aet;",
            "update other set x = (select count(*) from instance);",
            "update other set x = (select count(instance) from instance);",
            "update other set x = (select max(pk) from instance i);",
            "update instance set x = md5(y);",
            "update instance set x = nextval('s');",
            "alter table instance add n bigserial;",
            "create index i on instance (aet);",
            "alter table instance alter aet set default 'x';",
            "create table copy as select * from instance;",
            "create table child () inherits (instance);",
            "drop table instance;",
            "create table instance (aet varchar(3));",
            "alter table other rename to instance;",
            "update instance i set x = i.y;",
            "update instance set \"aet\" = 'x';",
            "update instance set U&\"a!0065t\" uescape '!' = 'x';",
            // May do anything.
            "do $$ begin end $$;",
            "select f();",
            "insert into instance (pk) values (1);",
            "delete from instance;",
            "create trigger t before update on instance execute function f();",
            "create view v as select aet from instance;",
            "begin;",
            "\\i other.sql\n",
            "update instance set x = y - 1;",
        ] {
            assert_eq!(found(&[before, FILL]), Fills::new(), "{before}");
            assert_eq!(found(&[FILL, before]).len(), 1, "{before}");
        }
    }

    #[test]
    fn only_the_plain_filling_is_one() {
        for other in [
            "update instance set aet = '*';",
            "update instance set aet = '*' where aet is not null;",
            "update instance set aet = '*' where x is null;",
            "update instance set aet = '*' where aet is null and x = 1;",
            "update instance set aet = '*', x = 1 where aet is null;",
            "update instance set aet = E'*' where aet is null;",
            "update instance set aet = 'a\\b' where aet is null;",
            "update instance set aet = 'ä' where aet is null;",
            "update instance set aet = 1 where aet is null;",
            "update \"Instance\" set aet = '*' where aet is null;",
            "update only instance set aet = '*' where aet is null;",
        ] {
            assert_eq!(found(&[other]), Fills::new(), "{other}");
        }
        assert_eq!(
            found(&["update instance set aet = 'it''s' where aet is null"]),
            one("public.instance", "aet", "it's")
        );
    }
}
