//! Reads a plain dump once, from its first byte to its last: statements one by one, and where the data of
//! each COPY lies. Holds one statement and one buffer, whatever the size.

use std::io::{self, Read};

use crate::format::lexer::{Found, LexError, Lexer};
use crate::format::statement::{Kind, kind};

/// How much is read at once.
const BUFFER: usize = 1 << 20;
/// Distance of places where the data of a table may be cut.
const PIECE: u64 = 4 << 20;

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its text with the semicolon, in the dump's encoding.
    pub text: Vec<u8>,
    /// Line of its first word, from 1.
    pub line: u64,
}

/// An end of a row where data may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Offset of the next row in the text.
    pub offset: u64,
    /// Rows before it.
    pub rows: u64,
}

/// A `COPY … FROM stdin` with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyBlock {
    /// The COPY itself.
    pub statement: Statement,
    /// Beginning and end of the data, and places between them, some MiB apart.
    pub cuts: Vec<Cut>,
}

/// What a dump consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A statement.
    Statement(Statement),
    /// Data of a table.
    Copy(CopyBlock),
}

/// The dump cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file.
    Io(io::Error),
    /// What is in it.
    Content {
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        message: String,
    },
}

impl From<LexError> for ReadError {
    fn from(error: LexError) -> Self {
        content(error.line, error.message)
    }
}

fn content(line: u64, message: impl Into<String>) -> ReadError {
    ReadError::Content {
        line,
        message: message.into(),
    }
}

/// The reader.
pub struct DumpReader<R> {
    input: R,
    buffer: Vec<u8>,
    /// The part of the buffer that is not used up.
    unread: std::ops::Range<usize>,
    /// Offset in the text of the first unread byte.
    offset: u64,
    lexer: Lexer,
    restricted: Option<Vec<u8>>,
    piece: u64,
}

impl<R: Read> DumpReader<R> {
    /// Starts at the beginning of `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER],
            unread: 0..0,
            offset: 0,
            lexer: Lexer::default(),
            restricted: None,
            piece: PIECE,
        }
    }

    /// With other sizes of buffer and pieces.
    #[cfg(test)]
    fn with_sizes(input: R, buffer: usize, piece: u64) -> Self {
        Self {
            buffer: vec![0; buffer],
            piece,
            ..Self::new(input)
        }
    }

    /// Makes sure that something is unread; false at the end of the file.
    fn fill(&mut self) -> Result<bool, ReadError> {
        while self.unread.is_empty() {
            match self.input.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => self.unread = 0..read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, bytes: usize) {
        self.unread.start += bytes;
        self.offset += bytes as u64;
    }

    /// Returns what comes next, or nothing at the end of a whole dump.
    ///
    /// # Errors
    /// The file cannot be read; it ends too early; it holds what a plain dump of one database does not.
    pub fn next(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            if !self.fill()? {
                self.finish_text()?;
                return Ok(None);
            }
            let (read, found) = self.lexer.feed(&self.buffer[self.unread.clone()])?;
            self.advance(read);
            let Some(found) = found else { continue };
            let (text, line) = self.lexer.take();
            if found == Found::Meta {
                self.meta(&text, line)?;
                continue;
            }
            let statement = Statement { text, line };
            match kind(&String::from_utf8_lossy(&statement.text)) {
                Kind::Copy { plain: true, .. } => {
                    let cuts = self.data(line)?;
                    return Ok(Some(Item::Copy(CopyBlock { statement, cuts })));
                }
                Kind::Copy { plain: false, .. } => {
                    let message = "a COPY with options, which pg_dump does not write; \
                                   `method: psql` may know it";
                    return Err(content(line, message));
                }
                Kind::Setting {
                    name,
                    value: Some(value),
                } if name == "standard_conforming_strings" => {
                    let on = !["off", "false", "no", "0"].contains(&value.as_str());
                    self.lexer.set_standard_strings(on);
                }
                _ => {}
            }
            return Ok(Some(Item::Statement(statement)));
        }
    }

    /// Returns how many bytes were read, and what they were read from.
    pub fn finish(self) -> (u64, R) {
        (self.offset, self.input)
    }

    fn finish_text(&mut self) -> Result<(), ReadError> {
        self.lexer.finish()?;
        let line = self.lexer.line();
        if !self.lexer.is_after_trailer() {
            let message = "it is cut short: the last line of a whole dump is missing";
            return Err(content(line, message));
        }
        if self.restricted.is_some() {
            return Err(content(
                line,
                "it is cut short: its \\unrestrict is missing",
            ));
        }
        Ok(())
    }

    /// `\restrict KEY` shuts every other command out until `\unrestrict KEY`, as in psql.
    fn meta(&mut self, text: &[u8], line: u64) -> Result<(), ReadError> {
        let mut words = text
            .split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty());
        let (command, key, more) = (words.next(), words.next(), words.next());
        match (command, key, more, &self.restricted) {
            (Some(b"\\restrict"), Some(key), None, None) => {
                self.restricted = Some(key.to_vec());
                Ok(())
            }
            (Some(b"\\unrestrict"), Some(key), None, Some(open)) if key == open => {
                self.restricted = None;
                Ok(())
            }
            (Some(b"\\unrestrict"), ..) => Err(content(
                line,
                "\\unrestrict does not fit to a \\restrict before it",
            )),
            (Some(b"\\connect" | b"\\c"), ..) => {
                Err(content(line, "it connects to another database (\\connect)"))
            }
            (command, ..) => {
                let name: String = String::from_utf8_lossy(command.unwrap_or_default())
                    .chars()
                    .take(40)
                    .collect();
                Err(content(
                    line,
                    format!("{name}: pg_dump writes no such psql command"),
                ))
            }
        }
    }

    /// Moves past the data of a COPY, `\.` included.
    fn data(&mut self, copy_line: u64) -> Result<Vec<Cut>, ReadError> {
        self.end_of_copy_line(copy_line)?;
        let mut cuts = vec![Cut {
            offset: self.offset,
            rows: 0,
        }];
        let (mut rows, mut row) = (0, Row::default());
        loop {
            if !self.fill()? {
                let message = format!(
                    "it is cut short: the data of the COPY in line {copy_line} does not end with \\."
                );
                return Err(content(self.lexer.line(), message));
            }
            let bytes = &self.buffer[self.unread.clone()];
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                row.see(bytes);
                self.advance(bytes.len());
                continue;
            };
            row.see(&bytes[..end]);
            let start = self.offset + end as u64 - row.length;
            self.advance(end + 1);
            let line = self.lexer.line();
            self.lexer.skip_lines(1);
            if row.last == b'\r' {
                return Err(content(line, "the data has lines that end with CR LF"));
            }
            if row.length >= 2 && row.head == *b"\\." {
                if row.length > 2 {
                    return Err(content(
                        line,
                        "a row begins with \\. and does not end there",
                    ));
                }
                // The beginning of the marker is the end of the data.
                cuts.push(Cut {
                    offset: start,
                    rows,
                });
                return Ok(cuts);
            }
            rows += 1;
            let last = cuts[cuts.len() - 1].offset;
            // A backslash before a line end makes it part of the value.
            if self.offset - last >= self.piece && row.last != b'\\' {
                let offset = self.offset;
                cuts.push(Cut { offset, rows });
            }
            row = Row::default();
        }
    }

    /// psql takes the data from the next line on; nothing but blanks may follow the COPY on its own.
    fn end_of_copy_line(&mut self, line: u64) -> Result<(), ReadError> {
        while self.fill()? {
            let byte = self.buffer[self.unread.start];
            self.advance(1);
            match byte {
                b'\n' => {
                    self.lexer.skip_lines(1);
                    return Ok(());
                }
                b' ' | b'\t' => {}
                b'\r' => return Err(content(line, "the line of a COPY ends with CR LF")),
                _ => return Err(content(line, "something follows a COPY on its line")),
            }
        }
        Err(content(
            line,
            "it is cut short: the data of a COPY is missing",
        ))
    }
}

/// What matters of a row that may be longer than the buffer.
#[derive(Debug, Default)]
struct Row {
    length: u64,
    head: [u8; 2],
    last: u8,
}

impl Row {
    fn see(&mut self, bytes: &[u8]) {
        let seen = usize::try_from(self.length).unwrap_or(usize::MAX);
        for (slot, &byte) in self.head.iter_mut().skip(seen).zip(bytes) {
            *slot = byte;
        }
        self.last = bytes.last().copied().unwrap_or(self.last);
        self.length += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::text::TRAILER;
    use proptest::prelude::*;

    fn end() -> String {
        format!("--\n{TRAILER}\n--\n\n")
    }

    fn read(text: &[u8], buffer: usize, piece: u64) -> Result<Vec<Item>, String> {
        let mut reader = DumpReader::with_sizes(text, buffer, piece);
        let mut items = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(ReadError::Content { line, message }) => {
                    return Err(format!("{line}: {message}"));
                }
                Err(ReadError::Io(error)) => return Err(error.to_string()),
            }
        }
        let (bytes, rest) = reader.finish();
        assert_eq!(bytes, text.len() as u64);
        assert!(rest.is_empty(), "everything was read");
        Ok(items)
    }

    #[test]
    fn data_is_found_whatever_the_buffer_is() {
        let head = "\\restrict k\nCREATE TABLE t (a text);\nCOPY t (a) FROM stdin;\n";
        let data = "one\n\\\\.\n\\N\na;b'c\n--\n";
        let rest = format!("\\.\n\n\nSELECT 1;\n{}\\unrestrict k\n\n", end());
        let text = format!("{head}{data}{rest}");
        for buffer in [1, 2, 3, 5, 1000] {
            let items = read(text.as_bytes(), buffer, 6).expect("whole");
            assert_eq!(items.len(), 3, "{items:?}");
            let Item::Copy(block) = &items[1] else {
                panic!("{items:?}")
            };
            assert_eq!(block.statement.line, 3);
            let (first, last) = (block.cuts[0], block.cuts[block.cuts.len() - 1]);
            assert_eq!(first.offset, head.len() as u64);
            assert_eq!(
                last,
                Cut {
                    offset: (head.len() + data.len()) as u64,
                    rows: 5
                }
            );
            for cut in &block.cuts {
                let before = &text.as_bytes()[first.offset as usize..cut.offset as usize];
                assert_eq!(
                    before.iter().filter(|b| **b == b'\n').count() as u64,
                    cut.rows
                );
                assert!(before.is_empty() || before.ends_with(b"\n"));
            }
            let Item::Statement(statement) = &items[2] else {
                panic!("{items:?}")
            };
            assert_eq!(
                (statement.line, &statement.text[..]),
                (12, &b"SELECT 1;"[..])
            );
        }
    }

    #[test]
    fn an_empty_table_has_no_rows() {
        let text = format!("COPY t (a) FROM stdin;\n\\.\n{}", end());
        let items = read(text.as_bytes(), 64, 8).expect("whole");
        let Item::Copy(block) = &items[0] else {
            panic!("{items:?}")
        };
        assert_eq!(block.cuts.len(), 2);
        assert_eq!(block.cuts[0], block.cuts[1]);
    }

    #[test]
    fn what_no_plain_dump_has_is_refused_with_its_line() {
        for (text, said) in [
            ("SELECT 1;\n\\connect other\n", "2: it connects"),
            ("\n\\! rm x\n", "2: \\!: pg_dump writes no such"),
            ("\\restrict a\n\\echo x\n", "2: \\echo: pg_dump"),
            (
                "\\restrict a\n\\unrestrict b\n",
                "2: \\unrestrict does not fit",
            ),
            ("\\restrict a\n\\restrict a\n", "2: \\restrict: pg_dump"),
            ("SELECT 1 \\gexec\n", "1: a psql command"),
            ("COPY t FROM stdin; SELECT 1;\n", "1: something follows"),
            ("COPY t FROM stdin;\r\n", "1: the line of a COPY"),
            ("COPY t FROM stdin;\na\nb\r\n\\.\n", "3: the data has lines"),
            ("COPY t FROM stdin;\na\n\\.x\n", "3: a row begins"),
            (
                "COPY t FROM stdin;\na\n",
                "3: it is cut short: the data of the COPY in line 1",
            ),
            ("COPY t FROM stdin CSV;\n", "1: a COPY with options"),
            ("SELECT 'a;\n", "1: a text is not closed"),
            ("SELECT 1;\nSELECT 2\n", "2: the last statement"),
            ("SELECT 1;\n", "2: it is cut short"),
        ] {
            let error = read(text.as_bytes(), 16, 8).expect_err(text);
            assert!(error.starts_with(said), "{text:?}: {error}");
        }
        let open = format!("\\restrict a\n{}", end());
        assert!(
            read(open.as_bytes(), 16, 8)
                .expect_err("open")
                .contains("unrestrict")
        );
    }

    proptest! {
        /// Whatever values a table holds, the data ends where pg_dump ended it, and no cut at any byte
        /// passes for a whole dump.
        #[test]
        fn rows_and_cuts(
            rows in proptest::collection::vec("[a\\\\.;'$-]{0,12}", 0..20),
            buffer in 1_usize..40,
            cut in any::<proptest::sample::Index>(),
        ) {
            let escaped: String = rows
                .iter()
                .map(|row| row.replace('\\', "\\\\") + "\n")
                .collect();
            let head = "SET a = 1;\nCOPY public.t (a) FROM stdin;\n";
            let text = format!("{head}{escaped}\\.\n\nALTER TABLE t ADD b int;\n{}", end());
            let items = read(text.as_bytes(), buffer, 9).expect("whole");
            prop_assert_eq!(items.len(), 3);
            let Item::Copy(block) = &items[1] else { panic!("{items:?}") };
            let (first, last) = (block.cuts[0], block.cuts[block.cuts.len() - 1]);
            let data = &text[first.offset as usize..last.offset as usize];
            prop_assert_eq!(data, escaped);
            prop_assert_eq!(last.rows, rows.len() as u64);
            // Behind the trailer there are only two line ends and `--`.
            let end = text.len() - "\n--\n\n".len();
            let cut = cut.index(end);
            prop_assert!(read(&text.as_bytes()[..cut], buffer, 9).is_err());
        }
    }
}
