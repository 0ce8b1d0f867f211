//! Tells the statements of a SQL text apart as psql does, piece by piece, so that a text of any size
//! streams through: quotes, `E''` strings, `standard_conforming_strings`, dollar quotes, nested comments,
//! parentheses, bodies of `BEGIN ATOMIC`. What psql does with data of COPY is the reader's part.

use crate::format::text::TRAILER;

/// Longest statement that is held in memory; a row of COPY is not one.
pub const STATEMENT_LIMIT: usize = 64 << 20;
/// Longest line of a psql command.
const META_LIMIT: usize = 8 << 10;

/// What came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A statement, semicolon included.
    Statement,
    /// A psql command: a line that begins with a backslash, its line end taken and left out.
    Meta,
}

/// The text cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexError {
    /// Line where what is wrong begins.
    pub line: u64,
    /// What is wrong.
    pub message: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    Word,
    Number,
    /// One `-`, which may begin a comment.
    Dash,
    /// One `/`, likewise.
    Slash,
    LineComment,
    BlockComment {
        depth: u32,
        last: u8,
    },
    Quoted {
        quote: u8,
        backslash: bool,
    },
    /// After a backslash in a text that has escapes.
    Escaped,
    /// After a quote that ends the text, unless a second one follows.
    QuoteSeen {
        quote: u8,
        backslash: bool,
    },
    /// In `$tag`, before its second `$`.
    DollarTag,
    /// In a dollar-quoted text whose content begins at `from` in the statement.
    Dollar {
        from: usize,
    },
    Meta,
}

enum Step {
    Taken,
    Again,
    Ended(Found),
}

/// The lexer; what it has read of a statement stays in it until that is taken.
#[derive(Debug)]
pub struct Lexer {
    state: State,
    started: bool,
    text: Vec<u8>,
    /// The word or dollar tag that is being read.
    word: Vec<u8>,
    /// A comment outside of statements.
    remark: Vec<u8>,
    line: u64,
    start_line: u64,
    /// Line where a quote or comment began.
    open_line: u64,
    depth: usize,
    routine: Routine,
    standard_strings: bool,
    after_trailer: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            state: State::Plain,
            started: false,
            text: Vec::new(),
            word: Vec::new(),
            remark: Vec::new(),
            line: 1,
            start_line: 1,
            open_line: 1,
            depth: 0,
            routine: Routine::default(),
            standard_strings: true,
            after_trailer: false,
        }
    }
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl Lexer {
    /// Returns the line of the next byte, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Counts lines that went by without it.
    pub fn skip_lines(&mut self, lines: u64) {
        self.line += lines;
    }

    /// Follows the server's `standard_conforming_strings`.
    pub fn set_standard_strings(&mut self, on: bool) {
        self.standard_strings = on;
    }

    /// Tells whether pg_dump's last line was the last thing outside of comments and psql commands.
    #[must_use]
    pub fn is_after_trailer(&self) -> bool {
        self.after_trailer
    }

    /// Takes what has come to its end, with the line where it began.
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        self.started = false;
        self.depth = 0;
        self.routine = Routine::default();
        (std::mem::take(&mut self.text), self.start_line)
    }

    /// Reads on, to the end of the next statement or command, or of `bytes`. Returns how many were read.
    ///
    /// # Errors
    /// A backslash command inside a statement, or something too long.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Found>), LexError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let step = self.step(byte)?;
            if matches!(step, Step::Again) {
                continue;
            }
            at += 1;
            if byte == b'\n' {
                self.line += 1;
            }
            if let Step::Ended(found) = step {
                return Ok((at, Some(found)));
            }
        }
        Ok((at, None))
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// Something is not closed.
    pub fn finish(&mut self) -> Result<(), LexError> {
        let open = |message| {
            Err(LexError {
                line: self.open_line,
                message,
            })
        };
        match self.state {
            State::Quoted { quote: b'"', .. } => return open("a quoted name is not closed (\")"),
            State::Quoted { .. } | State::Escaped => return open("a text is not closed (')"),
            State::Dollar { .. } => return open("a dollar-quoted text is not closed"),
            State::BlockComment { .. } => return open("a comment is not closed"),
            State::LineComment if !self.started => self.judge_remark(),
            State::Dash | State::Slash => self.start(),
            _ => {}
        }
        if self.started {
            return Err(LexError {
                line: self.start_line,
                message: "the last statement does not end with a semicolon",
            });
        }
        Ok(())
    }

    fn start(&mut self) {
        if !self.started {
            self.started = true;
            self.start_line = self.line;
            self.after_trailer = false;
        }
    }

    fn keep(&mut self, byte: u8) -> Result<Step, LexError> {
        if self.started {
            if self.text.len() >= STATEMENT_LIMIT {
                return Err(LexError {
                    line: self.start_line,
                    message: "a single statement is longer than 64 MiB",
                });
            }
            self.text.push(byte);
        }
        Ok(Step::Taken)
    }

    fn judge_remark(&mut self) {
        let text = self.remark.trim_ascii_end();
        if TRAILER.as_bytes().strip_prefix(b"--") == Some(text) {
            self.after_trailer = true;
        }
    }

    fn step(&mut self, byte: u8) -> Result<Step, LexError> {
        match self.state {
            State::Plain => return self.plain(byte),
            State::Word if is_name_part(byte) => {
                if self.word.len() < 64 {
                    self.word.push(byte);
                }
            }
            State::Word => {
                let word = std::mem::take(&mut self.word);
                self.state = State::Plain;
                if byte == b'\'' && word.eq_ignore_ascii_case(b"e") {
                    self.open(State::Quoted {
                        quote: byte,
                        backslash: true,
                    });
                    return self.keep(byte);
                }
                self.routine.hear(&word, self.depth);
                return Ok(Step::Again);
            }
            State::Number if is_name_part(byte) => {}
            State::Number => return self.again(),
            State::Dash if byte == b'-' => {
                self.open(State::LineComment);
                self.remark.clear();
                self.keep(b'-')?;
            }
            State::Slash if byte == b'*' => {
                self.open(State::BlockComment { depth: 1, last: 0 });
                self.keep(b'/')?;
            }
            State::Dash | State::Slash => {
                let sign = if self.state == State::Dash {
                    b'-'
                } else {
                    b'/'
                };
                self.start();
                self.keep(sign)?;
                return self.again();
            }
            State::LineComment if byte == b'\n' => {
                if !self.started {
                    self.judge_remark();
                }
                return self.again();
            }
            State::LineComment => {
                if !self.started && self.remark.len() < 128 {
                    self.remark.push(byte);
                }
            }
            State::BlockComment { depth, last } => {
                let (depth, last) = match (last, byte) {
                    (b'/', b'*') => (depth + 1, 0),
                    (b'*', b'/') => (depth - 1, 0),
                    _ => (depth, byte),
                };
                self.state = if depth == 0 {
                    State::Plain
                } else {
                    State::BlockComment { depth, last }
                };
            }
            State::Quoted {
                backslash: true, ..
            } if byte == b'\\' => self.state = State::Escaped,
            State::Quoted { quote, backslash } if byte == quote => {
                self.state = State::QuoteSeen { quote, backslash };
            }
            State::Quoted { .. } => {}
            State::Escaped => {
                self.state = State::Quoted {
                    quote: b'\'',
                    backslash: true,
                }
            }
            State::QuoteSeen { quote, backslash } if byte == quote => {
                self.state = State::Quoted { quote, backslash };
            }
            State::QuoteSeen { .. } => return self.again(),
            State::DollarTag if byte == b'$' => {
                self.word.push(byte);
                self.state = State::Dollar {
                    from: self.text.len() + 1,
                };
            }
            State::DollarTag
                if is_name_start(byte) || (self.word.len() > 1 && is_name_part(byte)) =>
            {
                self.word.push(byte);
            }
            State::DollarTag => {
                // It was no tag: a lone `$`, and perhaps a word.
                self.word.remove(0);
                self.state = if self.word.is_empty() {
                    State::Plain
                } else {
                    State::Word
                };
                return Ok(Step::Again);
            }
            State::Dollar { from } => {
                self.keep(byte)?;
                if byte == b'$'
                    && self.text.len() >= from + self.word.len()
                    && self.text.ends_with(&self.word)
                {
                    self.word.clear();
                    self.state = State::Plain;
                }
                return Ok(Step::Taken);
            }
            State::Meta if byte == b'\n' => {
                self.state = State::Plain;
                return Ok(Step::Ended(Found::Meta));
            }
            State::Meta => {
                if self.text.len() >= META_LIMIT {
                    return Err(LexError {
                        line: self.start_line,
                        message: "a psql command is longer than 8 KiB",
                    });
                }
                self.text.push(byte);
                return Ok(Step::Taken);
            }
        }
        self.keep(byte)
    }

    fn again(&mut self) -> Result<Step, LexError> {
        self.state = State::Plain;
        Ok(Step::Again)
    }

    fn open(&mut self, state: State) {
        self.open_line = self.line;
        self.state = state;
    }

    fn plain(&mut self, byte: u8) -> Result<Step, LexError> {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => return self.keep(byte),
            b'-' => {
                self.state = State::Dash;
                return Ok(Step::Taken);
            }
            b'/' => {
                self.state = State::Slash;
                return Ok(Step::Taken);
            }
            b';' if self.depth == 0 && !self.routine.is_open() => {
                self.keep(byte)?;
                return Ok(if self.started {
                    Step::Ended(Found::Statement)
                } else {
                    Step::Taken
                });
            }
            b'\\' if self.started => {
                return Err(LexError {
                    line: self.line,
                    message: "a psql command (backslash) stands in the middle of a statement",
                });
            }
            b'\\' => {
                self.start_line = self.line;
                self.text.clear();
                self.text.push(byte);
                self.state = State::Meta;
                return Ok(Step::Taken);
            }
            _ => {}
        }
        self.start();
        match byte {
            b'\'' => {
                let backslash = !self.standard_strings;
                self.open(State::Quoted {
                    quote: byte,
                    backslash,
                });
            }
            b'"' => self.open(State::Quoted {
                quote: byte,
                backslash: false,
            }),
            b'$' => {
                self.word.clear();
                self.word.push(byte);
                self.open(State::DollarTag);
            }
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            byte if is_name_start(byte) => {
                self.word.clear();
                self.word.push(byte);
                self.state = State::Word;
            }
            byte if byte.is_ascii_digit() => self.state = State::Number,
            _ => {}
        }
        self.keep(byte)
    }
}

/// Follows `CREATE FUNCTION … BEGIN ATOMIC … END`, whose body has semicolons of its own (14 and on).
#[derive(Debug, Default)]
struct Routine {
    /// First letters of the first words, where they may begin a routine.
    words: Vec<u8>,
    open: u32,
}

impl Routine {
    fn hear(&mut self, word: &[u8], depth: usize) {
        if self.words.len() < 4 {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let known = ["create", "or", "replace", "function", "procedure"]
                .iter()
                .any(|name| is(name));
            self.words.push(if known {
                word[0].to_ascii_lowercase()
            } else {
                0
            });
        }
        let routine = matches!(
            self.words[..],
            [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p', ..]
        );
        if !routine || depth > 0 {
            return;
        }
        if word.eq_ignore_ascii_case(b"begin")
            || (self.open > 0 && word.eq_ignore_ascii_case(b"case"))
        {
            self.open += 1;
        } else if word.eq_ignore_ascii_case(b"end") {
            self.open = self.open.saturating_sub(1);
        }
    }

    fn is_open(&self) -> bool {
        self.open > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sql_split;
    use proptest::prelude::*;

    /// Statements and commands with their lines, read in pieces of `size` bytes.
    fn pieces(text: &str, size: usize) -> Result<Vec<(u64, String)>, LexError> {
        let mut lexer = Lexer::default();
        let mut found = Vec::new();
        for mut bytes in text.as_bytes().chunks(size.max(1)) {
            while !bytes.is_empty() {
                let (read, end) = lexer.feed(bytes)?;
                bytes = &bytes[read..];
                if end.is_some() {
                    let (text, line) = lexer.take();
                    found.push((line, String::from_utf8(text).expect("whole characters")));
                }
            }
        }
        lexer.finish()?;
        Ok(found)
    }

    #[test]
    fn semicolons_inside_of_things_end_nothing() {
        let text = "-- a; b\nselect ';', \"x;y\", E'it\\';s', 'a''b;' /* ; /* ; */ ; */ ;\n\
                    do $$ begin x; end $$;select $a$ ; $b$ ; $a$, 1$;\n\\unrestrict x\nselect 1;";
        for size in [1, 2, 3, 7, text.len()] {
            let found = pieces(text, size).expect("closed");
            assert_eq!(found.len(), 5, "{found:?}");
            assert_eq!(found[1], (3, "do $$ begin x; end $$;".to_owned()));
            assert_eq!(found[3], (4, "\\unrestrict x".to_owned()));
        }
    }

    #[test]
    fn strings_follow_the_setting() {
        let text = "select 'a\\'; select 'b';";
        assert_eq!(pieces(text, 3).expect("closed").len(), 2);
        let mut lexer = Lexer::default();
        lexer.set_standard_strings(false);
        assert_eq!(lexer.feed(text.as_bytes()).expect("read").1, None);
        assert!(lexer.finish().is_err(), "the second text is open");
    }

    #[test]
    fn only_a_comment_at_the_end_is_the_trailer() {
        let ends = |text: &str| {
            let mut lexer = Lexer::default();
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let (read, end) = lexer.feed(rest).expect("read");
                rest = &rest[read..];
                if end.is_some() {
                    lexer.take();
                }
            }
            lexer.finish().expect("closed");
            lexer.is_after_trailer()
        };
        assert!(ends(&format!("select 1;\n--\n{TRAILER}\n--\n\n")));
        assert!(ends(&format!("{TRAILER}\n\\unrestrict a\n")));
        assert!(!ends(&format!("{TRAILER}\nselect 1;\n")));
        assert!(!ends(&format!("select '\n{TRAILER}\n';\n")));
        assert!(!ends(&format!("/*\n{TRAILER}\n*/\n")));
    }

    proptest! {
        /// The script splitter reads whole texts, by other code: both must see the same.
        #[test]
        fn it_cuts_as_the_script_splitter_does(
            text in "([a-ce$1\"'();\\-/* \nE]|begin |end |case |create |function |é){0,40}",
            size in 1_usize..9,
        ) {
            let ours = pieces(&text, size);
            let whole = match sql_split::split(&text) {
                Err(error) => {
                    let found = ours.expect_err("not closed");
                    prop_assert_eq!(found.line, error.line as u64);
                    return Ok(());
                }
                Ok(pieces) => pieces,
            };
            let theirs: Vec<(u64, String)> = whole
                .iter()
                .filter(|piece| piece.kind != sql_split::PieceKind::Blank)
                .map(|piece| (piece.line as u64, piece.text[piece.start..].to_owned()))
                .collect();
            match ours {
                Ok(found) => prop_assert_eq!(found, theirs),
                // A script may end without a semicolon, a dump may not.
                Err(error) => {
                    prop_assert!(error.message.contains("semicolon"), "{error:?}");
                    prop_assert!(theirs.last().is_some_and(|(line, _)| *line == error.line));
                }
            }
        }
    }
}
