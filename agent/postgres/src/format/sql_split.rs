//! Cuts a SQL script into statements, as psql would, with the position of each.
//!
//! Knows quotes, `E''` strings, quoted names, dollar quotes and nested comments, so a semicolon
//! inside any of them does not end a statement. The pieces together are the script, byte for byte.

/// What a piece of a script is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Only blanks, comments or a lone semicolon.
    Blank,
    /// A statement.
    Statement,
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT` and their like.
    TransactionControl,
    /// `COPY … FROM STDIN`: data follows.
    CopyData,
    /// A backslash command of psql's.
    MetaCommand,
}

impl PieceKind {
    /// Names it in a message.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Blank => "nothing",
            Self::Statement => "a statement",
            Self::TransactionControl => "transaction control (BEGIN, COMMIT, …)",
            Self::CopyData => "COPY FROM STDIN",
            Self::MetaCommand => "a psql command (backslash)",
        }
    }
}

/// One piece of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text, with what stands before the statement and its semicolon.
    pub text: &'a str,
    /// Byte offset of `text` in the script.
    pub offset: usize,
    /// Byte offset of the first word in `text`.
    pub start: usize,
    /// Line of the first word, from 1.
    pub line: usize,
    /// What it is.
    pub kind: PieceKind,
}

/// The script ends inside something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitError {
    /// Line where that began.
    pub line: usize,
    /// What is not closed.
    pub message: &'static str,
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// Cuts a script into pieces.
///
/// # Errors
/// A quote or comment is not closed.
pub fn split(text: &str) -> Result<Vec<Piece<'_>>, SplitError> {
    let mut scanner = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut pieces = Vec::new();
    let (mut counted_to, mut line) = (0, 1);
    while scanner.at < text.len() {
        let offset = scanner.at;
        let first = scanner.piece().map_err(|(begin, message)| SplitError {
            line: line_of(text, begin),
            message,
        })?;
        let end = scanner.at;
        let start = first.unwrap_or(end);
        line += newlines(&scanner.bytes[counted_to..start]);
        counted_to = start;
        let body = &text[start..end];
        let kind = if first.is_none() {
            PieceKind::Blank
        } else {
            kind_of(body)
        };
        pieces.push(Piece {
            text: &text[offset..end],
            offset,
            start: start - offset,
            line,
            kind,
        });
    }
    Ok(pieces)
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

fn line_of(text: &str, offset: usize) -> usize {
    newlines(&text.as_bytes()[..offset]) + 1
}

/// Where an unclosed thing began, and what it is.
type Unclosed = (usize, &'static str);

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    /// Moves past one piece and returns where its first word is.
    fn piece(&mut self) -> Result<Option<usize>, Unclosed> {
        let mut first = None;
        let mut depth = 0usize;
        let mut atomic = Atomic::default();
        while let Some(byte) = self.peek(0) {
            let here = self.at;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                    self.at += 1;
                    continue;
                }
                b'-' if self.peek(1) == Some(b'-') => {
                    self.line_comment();
                    continue;
                }
                b'/' if self.peek(1) == Some(b'*') => {
                    self.block_comment()?;
                    continue;
                }
                b';' if depth == 0 && !atomic.is_open() => {
                    self.at += 1;
                    return Ok(first);
                }
                b'\\' if first.is_none() => {
                    // A psql command reaches to the end of its line.
                    while self.peek(0).is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                    return Ok(Some(here));
                }
                b'\'' => self.quoted(b'\'', false)?,
                b'"' => self.quoted(b'"', false)?,
                b'$' => self.dollar()?,
                b'(' => {
                    depth += 1;
                    self.at += 1;
                }
                b')' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                byte if is_name_start(byte) => self.word(&mut atomic, depth)?,
                byte if byte.is_ascii_digit() => {
                    // A number takes what follows it: the `$` in `1$` opens no dollar quote.
                    while self.peek(0).is_some_and(is_name_part) {
                        self.at += 1;
                    }
                }
                _ => self.at += 1,
            }
            first.get_or_insert(here);
        }
        Ok(first)
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// Comments nest in SQL.
    fn block_comment(&mut self) -> Result<(), Unclosed> {
        let begin = self.at;
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err((begin, "a comment is not closed")),
            }
        }
    }

    /// Moves past a quoted text or name; a doubled quote stands for itself.
    fn quoted(&mut self, quote: u8, backslash: bool) -> Result<(), Unclosed> {
        let begin = self.at;
        self.at += 1;
        loop {
            match self.peek(0) {
                None => {
                    let what = if quote == b'"' {
                        "a quoted name"
                    } else {
                        "a text"
                    };
                    let message = match what {
                        "a text" => "a text is not closed (')",
                        _ => "a quoted name is not closed (\")",
                    };
                    return Err((begin, message));
                }
                Some(b'\\') if backslash => self.at = (self.at + 2).min(self.bytes.len()),
                Some(byte) if byte == quote => {
                    self.at += 1;
                    if self.peek(0) != Some(quote) {
                        return Ok(());
                    }
                    self.at += 1;
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// Moves past `$tag$ … $tag$`, or past a lone `$` or `$1`.
    fn dollar(&mut self) -> Result<(), Unclosed> {
        let begin = self.at;
        let mut end = self.at + 1;
        if self.bytes.get(end).is_some_and(|&byte| is_name_start(byte)) {
            while self
                .bytes
                .get(end)
                .is_some_and(|&byte| is_name_part(byte) && byte != b'$')
            {
                end += 1;
            }
        }
        if self.bytes.get(end) != Some(&b'$') {
            self.at += 1;
            return Ok(());
        }
        let tag = &self.text[begin..=end];
        match self.text[end + 1..].find(tag) {
            Some(found) => {
                self.at = end + 1 + found + tag.len();
                Ok(())
            }
            None => Err((begin, "a dollar-quoted text is not closed")),
        }
    }

    /// Moves past a word; `E'…'` has backslash escapes, `U&'…'`, `B'…'`, `X'…'`, `N'…'` have not.
    fn word(&mut self, atomic: &mut Atomic, depth: usize) -> Result<(), Unclosed> {
        let begin = self.at;
        while self.peek(0).is_some_and(is_name_part) {
            self.at += 1;
        }
        let word = &self.text[begin..self.at];
        if word.eq_ignore_ascii_case("e") && self.peek(0) == Some(b'\'') {
            return self.quoted(b'\'', true);
        }
        atomic.hear(word, depth);
        Ok(())
    }
}

/// Follows `CREATE FUNCTION … BEGIN ATOMIC … END`, whose body has semicolons of its own (14 and on).
#[derive(Default)]
struct Atomic {
    words: Vec<String>,
    routine: bool,
    open: usize,
}

impl Atomic {
    fn hear(&mut self, word: &str, depth: usize) {
        if self.words.len() < 4 {
            self.words.push(word.to_ascii_uppercase());
            let is = |index: usize, options: &[&str]| {
                self.words
                    .get(index)
                    .is_some_and(|word| options.contains(&word.as_str()))
            };
            const ROUTINES: &[&str] = &["FUNCTION", "PROCEDURE"];
            self.routine = is(0, &["CREATE"])
                && (is(1, ROUTINES) || (is(1, &["OR"]) && is(2, &["REPLACE"]) && is(3, ROUTINES)));
        }
        // As psql: what stands in parentheses opens and closes nothing.
        if !self.routine || depth > 0 {
            return;
        }
        if word.eq_ignore_ascii_case("begin")
            || (self.open > 0 && word.eq_ignore_ascii_case("case"))
        {
            self.open += 1;
        } else if word.eq_ignore_ascii_case("end") {
            self.open = self.open.saturating_sub(1);
        }
    }

    fn is_open(&self) -> bool {
        self.open > 0
    }
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn kind_of(body: &str) -> PieceKind {
    if body.starts_with('\\') {
        return PieceKind::MetaCommand;
    }
    let plain = strip_comments(body).to_ascii_uppercase();
    let mut words = plain
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|w| !w.is_empty());
    match words.next() {
        Some(
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE",
        ) => PieceKind::TransactionControl,
        Some("PREPARE") if words.next() == Some("TRANSACTION") => PieceKind::TransactionControl,
        Some("COPY") => {
            let words: Vec<&str> = words.collect();
            let from_stdin = words.windows(2).any(|pair| pair == ["FROM", "STDIN"]);
            if from_stdin {
                PieceKind::CopyData
            } else {
                PieceKind::Statement
            }
        }
        Some(_) => PieceKind::Statement,
        // Only signs, such as `;;`: the server will say what is wrong with them.
        None => PieceKind::Statement,
    }
}

/// Returns the script without comments, blanks outside of quotes folded: two scripts that differ
/// only in remarks and layout give the same text. What cannot be cut is returned as it is.
#[must_use]
pub fn strip_comments(text: &str) -> String {
    let mut scanner = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    while let Some(byte) = scanner.peek(0) {
        let begin = scanner.at;
        let moved = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                scanner.at += 1;
                gap = true;
                continue;
            }
            b'-' if scanner.peek(1) == Some(b'-') => {
                scanner.line_comment();
                gap = true;
                continue;
            }
            b'/' if scanner.peek(1) == Some(b'*') => {
                if scanner.block_comment().is_err() {
                    return text.to_owned();
                }
                gap = true;
                continue;
            }
            b'\'' | b'"' => scanner.quoted(byte, false),
            b'$' => scanner.dollar(),
            byte if is_name_start(byte) => scanner.word(&mut Atomic::default(), 0),
            _ => {
                scanner.at += 1;
                while !text.is_char_boundary(scanner.at) {
                    scanner.at += 1;
                }
                Ok(())
            }
        };
        if moved.is_err() {
            return text.to_owned();
        }
        // Beside these signs a blank means nothing.
        let plain = |text: &str, at_end: bool| {
            let edge = if at_end {
                text.chars().next_back()
            } else {
                text.chars().next()
            };
            edge.is_none_or(|c| ";,()".contains(c))
        };
        if gap && !plain(&out, true) && !plain(&text[begin..], false) {
            out.push(' ');
        }
        gap = false;
        out.push_str(&text[begin..scanner.at]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statements(text: &str) -> Vec<(usize, &str)> {
        split(text)
            .expect("closed")
            .into_iter()
            .filter(|piece| piece.kind != PieceKind::Blank)
            .map(|piece| (piece.line, &piece.text[piece.start..]))
            .collect()
    }

    #[test]
    fn semicolons_inside_of_things_end_nothing() {
        let text = "-- a; b\nselect ';', \"x;y\", E'it\\';s', 'a''b;' /* ; /* ; */ ; */ ;\n\
                    do $$ begin x; end $$;select $a$ ; $b$ ; $a$, 1$;";
        let found = statements(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0].0, 2);
        assert_eq!(found[1], (3, "do $$ begin x; end $$;"));
        assert_eq!(found[2].0, 3);
    }

    #[test]
    fn a_rule_and_a_new_style_function_are_one_statement() {
        let rule = "CREATE RULE r AS ON INSERT TO t DO (INSERT INTO a VALUES (1); SELECT 2);";
        assert_eq!(statements(rule).len(), 1);
        let function = "create or replace function f() returns int begin atomic select \
                        case when true then 1 end; select 2; end; select 1";
        assert_eq!(statements(function).len(), 2);
        // A BEGIN elsewhere is only a word.
        assert_eq!(
            statements("alter table t add \"begin\" int; select 1;").len(),
            2
        );
    }

    #[test]
    fn what_cannot_be_run_is_recognised() {
        let kinds = |text: &str| -> Vec<PieceKind> {
            let pieces = split(text).expect("closed").into_iter();
            pieces
                .map(|piece| piece.kind)
                .filter(|kind| *kind != PieceKind::Blank)
                .collect()
        };
        use PieceKind::{CopyData, MetaCommand, Statement, TransactionControl};
        assert_eq!(
            kinds("begin; /* x */ COMMIT work;"),
            [TransactionControl; 2]
        );
        assert_eq!(kinds("copy t (a) from stdin;"), [CopyData]);
        assert_eq!(kinds("copy t from '/a' ;"), [Statement]);
        assert_eq!(kinds("\\set x 1\nselect 1;"), [MetaCommand, Statement]);
        assert_eq!(
            kinds("prepare transaction 'a'; prepare a as select 1;"),
            [TransactionControl, Statement]
        );
        assert_eq!(kinds("-- commit;\n;"), []);
        assert_eq!(kinds("create table savepoints (a int);"), [Statement]);
    }

    #[test]
    fn unclosed_things_are_said_with_their_line() {
        let line = |text: &str| split(text).expect_err("not closed").line;
        assert_eq!(line("select 1;\nselect 'a;\n"), 2);
        assert_eq!(line("\n\n/* /* */"), 3);
        assert_eq!(line("select $x$ a $y$"), 1);
        assert_eq!(line("select \"a"), 1);
    }

    #[test]
    fn remarks_and_layout_do_not_matter() {
        let a = "-- 5.27 for Arc\nalter table  t\n add c int; -- done\n";
        let b = "alter table t /* x */ add c int ;";
        assert_eq!(strip_comments(a), strip_comments(b));
        assert_ne!(
            strip_comments("select 'a  b'"),
            strip_comments("select 'a b'")
        );
        let quoted = strip_comments("select 'ä -- b', \"ö\"");
        assert_eq!(quoted, "select 'ä -- b',\"ö\"");
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_script(text in "[a-e'\"$;\\-/*\\\\( )\nEé1]{0,60}") {
            if let Ok(pieces) = split(&text) {
                let joined: String = pieces.iter().map(|piece| piece.text).collect();
                prop_assert_eq!(joined, text.clone());
                for piece in pieces {
                    prop_assert_eq!(&text[piece.offset..piece.offset + piece.text.len()], piece.text);
                    prop_assert!(piece.start <= piece.text.len());
                    prop_assert_eq!(piece.line, line_of(&text, piece.offset + piece.start));
                }
            }
        }

        #[test]
        fn stripping_twice_changes_nothing(text in "[a-c'$;\\-/* \nE]{0,40}") {
            let once = strip_comments(&text);
            if split(&text).is_ok() {
                prop_assert_eq!(strip_comments(&once), once);
            }
        }
    }
}
