//! What a plain dump looks like from outside: whole or cut, and by and for which programs.

use std::io::{self, Read};
use std::path::Path;

use crate::error::PostgresError;
use crate::format::source::{DumpSource, unreadable};

/// The line that pg_dump writes last. Only this tells a whole dump from one that was cut at the end
/// of a line, which psql restores without any error.
pub const TRAILER: &str = "-- PostgreSQL database dump complete";

/// Begins the line that names pg_dump's version.
const MADE_BY: &str = "-- Dumped by pg_dump version ";

/// How much of the beginning is looked at.
const HEAD: u64 = 64 * 1024;
/// How much of the end is looked at.
const TAIL: u64 = 4 * 1024;

/// Tells whether a dump's last bytes are the end of a whole one.
#[must_use]
pub fn is_complete(tail: &[u8]) -> bool {
    if !tail.ends_with(b"\n") {
        return false;
    }
    let text = String::from_utf8_lossy(tail);
    let mut lines = text.lines().rev().map(str::trim_end);
    // Newer versions write `\unrestrict` after it.
    lines.find(|line| !line.is_empty() && *line != "--" && !line.starts_with("\\unrestrict"))
        == Some(TRAILER)
}

/// What the beginning of a dump says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpHead {
    /// Bytes of its text.
    pub size: u64,
    /// Version of the server that was dumped.
    pub server_version: Option<String>,
    /// Version of pg_dump.
    pub program_version: Option<String>,
    /// `client_encoding` of the text.
    pub encoding: Option<String>,
    /// Whether it begins with `\restrict`, which older psql do not know.
    pub restrict: bool,
}

/// Looks at a dump's beginning and end before anything is done with it.
///
/// # Errors
/// It cannot be read, is empty, cut short, made through a terminal, or not a plain dump of one database.
pub fn inspect(path: &Path) -> Result<DumpHead, PostgresError> {
    let source = DumpSource::open(path)?;
    let size = source.size();
    let head = part(path, &source, 0, size.min(HEAD))?;
    let tail = part(path, &source, size.saturating_sub(TAIL), size)?;
    let text = String::from_utf8_lossy(&head);
    let checked = check_head(&text).and_then(|()| check_tail(&tail));
    checked.map_err(|wrong| bad(path, wrong))?;
    Ok(read_head(&text, size))
}

fn part(path: &Path, source: &DumpSource, from: u64, to: u64) -> Result<Vec<u8>, PostgresError> {
    let mut text = Vec::new();
    let read = source.part(from, to);
    let read = read.and_then(|mut part| part.read_to_end(&mut text));
    read.map_err(|error| unreadable(path, error)).map(|_| text)
}

/// Looks at the beginning of a dump that is still being written, and waits for it. The size is an estimate.
///
/// # Errors
/// It cannot be read, or is no plain dump of one database.
pub fn inspect_growing(path: &Path, source: &DumpSource) -> Result<DumpHead, PostgresError> {
    let head = part(path, source, 0, HEAD)?;
    let text = String::from_utf8_lossy(&head);
    check_head(&text).map_err(|wrong| bad(path, wrong))?;
    Ok(read_head(&text, source.size()))
}

/// Says which pg_dump made a dump, as `pg_dump --version` says it, where the dump does, and how many bytes of
/// text it is.
///
/// # Errors
/// It cannot be read.
pub fn made_by(path: &Path) -> Result<(Option<String>, u64), PostgresError> {
    let source = DumpSource::open(path)?;
    let head = part(path, &source, 0, source.size().min(HEAD))?;
    let text = String::from_utf8_lossy(&head);
    let version = text.lines().find_map(|line| line.strip_prefix(MADE_BY));
    let program = version.map(|version| format!("pg_dump (PostgreSQL) {version}"));
    Ok((program, source.size()))
}

/// What is wrong, and what helps.
type Wrong = (&'static str, &'static str);

fn bad(path: &Path, (message, help): Wrong) -> PostgresError {
    PostgresError::BadDump {
        path: path.to_path_buf(),
        message: message.to_owned(),
        help: help.to_owned(),
    }
}

const AGAIN: &str = "make the dump again; a dump that is not whole must never be restored";

fn check_head(head: &str) -> Result<(), Wrong> {
    if head.is_empty() {
        return Err(("it is empty", AGAIN));
    }
    if head.starts_with("PGDMP") {
        return Err((
            "it is in pg_dump's custom format",
            "a plain dump is needed: `pg_dump` without -Fc",
        ));
    }
    // Values of tables may look like anything.
    let is_data = |line: &&str| line.starts_with("COPY ") || line.starts_with("INSERT ");
    if head
        .lines()
        .take_while(|line| !is_data(line))
        .any(|line| line.starts_with("\\connect") || line.starts_with("CREATE DATABASE"))
    {
        return Err((
            "it creates or connects to databases by itself",
            "dump one database, with `pg_dump` (not `pg_dumpall`) and without -C",
        ));
    }
    // All lines or none: a text in a function may have such line ends of its own.
    if head.lines().count() > 1
        && head
            .split('\n')
            .next()
            .is_some_and(|line| line.ends_with('\r'))
    {
        return Err((
            "its lines end with CR LF: it was written through a terminal (`docker exec -t`)",
            "make the dump again without -t; error messages may be mixed into it as well",
        ));
    }
    let frame = |line: &&str| line.is_empty() || *line == "--" || line.starts_with("\\restrict ");
    let first = head.lines().map(str::trim_end).find(|line| !frame(line));
    if first != Some("-- PostgreSQL database dump") {
        return Err((
            "it does not begin like a plain dump (`-- PostgreSQL database dump`)",
            "check the path; a pg_dump that failed leaves only its error message in such a file",
        ));
    }
    Ok(())
}

fn check_tail(tail: &[u8]) -> Result<(), Wrong> {
    if !is_complete(tail) {
        return Err((
            "it is cut short: the last line of a whole dump is missing",
            AGAIN,
        ));
    }
    Ok(())
}

fn read_head(text: &str, size: u64) -> DumpHead {
    let after = |prefix: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
    };
    let first = |text: String| {
        text.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    DumpHead {
        size,
        server_version: after("-- Dumped from database version ").map(first),
        program_version: after(MADE_BY).map(first),
        encoding: after("SET client_encoding = '")
            .map(|rest| rest.trim_end_matches("';").to_owned()),
        restrict: text.lines().any(|line| line.starts_with("\\restrict ")),
    }
}

/// Tells whether a psql of this version knows `\restrict`, from what `psql --version` prints.
#[must_use]
pub fn knows_restrict(version: &str) -> bool {
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = number
        .unwrap_or("0")
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match major {
        13 => minor >= 22,
        14 => minor >= 19,
        15 => minor >= 14,
        16 => minor >= 10,
        17 => minor >= 6,
        major => major >= 18,
    }
}

/// Follows a dump while it streams by and finds a `\connect` at the start of a line.
#[derive(Debug, Default)]
pub struct ConnectFinder {
    /// Last bytes of what was seen.
    carry: Vec<u8>,
}

impl ConnectFinder {
    /// Takes the next bytes; true when a `\connect` begins a line in them.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        const NEEDLE: &[u8] = b"\n\\connect";
        let mut seam = std::mem::take(&mut self.carry);
        seam.extend_from_slice(&bytes[..bytes.len().min(NEEDLE.len() - 1)]);
        let finder = memchr::memmem::Finder::new(NEEDLE);
        let found = finder.find(&seam).is_some() || finder.find(bytes).is_some();
        if bytes.len() < NEEDLE.len() - 1 {
            let keep = seam.len().saturating_sub(NEEDLE.len() - 1);
            self.carry = seam.split_off(keep);
        } else {
            self.carry = bytes[bytes.len() - (NEEDLE.len() - 1)..].to_vec();
        }
        found
    }

    /// The error that a reader returns for it.
    #[must_use]
    pub fn error() -> io::Error {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "it connects to another database (\\connect)",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "--\n-- PostgreSQL database dump\n--\n\n\
        -- Dumped from database version 9.6.24\n-- Dumped by pg_dump version 9.6.24\n\n\
        SET client_encoding = 'UTF8';\n\
        --\n-- PostgreSQL database dump complete\n--\n\n";

    fn inspected(text: &str) -> Result<DumpHead, String> {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("dump.sql");
        std::fs::write(&path, text).expect("write");
        inspect(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn only_whole_plain_dumps_pass() {
        let head = inspected(GOOD).expect("whole");
        assert_eq!(head.server_version.as_deref(), Some("9.6.24"));
        assert_eq!(head.encoding.as_deref(), Some("UTF8"));
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("dump.sql");
        std::fs::write(&path, GOOD).expect("write");
        let (program, size) = made_by(&path).expect("read");
        assert_eq!(program.as_deref(), Some("pg_dump (PostgreSQL) 9.6.24"));
        assert_eq!(size, GOOD.len() as u64);
        let newer = format!("\\restrict abc\n{GOOD}\\unrestrict abc\n\n");
        assert!(inspected(&newer).expect("whole").restrict);
        let cut_at_a_line = GOOD.replace("-- PostgreSQL database dump complete\n--\n\n", "");
        let in_a_value = GOOD.replace(
            "SET client",
            "CREATE FUNCTION f() AS $$a\r\nb$$;\nCOPY t FROM stdin;\nCREATE DATABASE x\n\\.\nSET client",
        );
        assert!(inspected(&in_a_value).is_ok());
        let mixed = format!("pg_dump: error\n{GOOD}").replace("-- PostgreSQL database dump\n", "");
        for (wrong, said) in [
            (String::new(), "empty"),
            (cut_at_a_line, "cut short"),
            (GOOD.trim_end().to_owned(), "cut short"),
            (GOOD.replace('\n', "\r\n"), "CR LF"),
            (GOOD.replace("SET", "\\connect a\nSET"), "connects"),
            (mixed, "begin"),
            ("PGDMP...".to_owned(), "custom"),
        ] {
            let error = inspected(&wrong).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn restrict_is_known_from_the_minor_releases_of_august_2025() {
        for (version, knows) in [
            ("psql (PostgreSQL) 15.6", false),
            ("psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", true),
            ("psql (PostgreSQL) 9.6.24", false),
            ("psql (PostgreSQL) 13.22", true),
            ("psql (PostgreSQL) 18.0", true),
        ] {
            assert_eq!(knows_restrict(version), knows, "{version}");
        }
    }

    #[test]
    fn a_connect_is_found_whatever_the_chunks() {
        let text = b"abc\n\\connect other\n";
        for size in 1..text.len() {
            let mut finder = ConnectFinder::default();
            let found = text.chunks(size).any(|chunk| finder.push(chunk));
            assert!(found, "chunks of {size}");
        }
        let mut finder = ConnectFinder::default();
        assert!(!finder.push(b"x \\connect\n\\conn") && !finder.push(b"ip\n"));
    }
}
