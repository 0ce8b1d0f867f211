//! What a statement of a dump is for, as far as its place in a restore depends on it. What is not known
//! here runs in the dump's order, after everything before it.

/// What a statement is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Sets something for the session.
    Setting {
        /// What, in lower case: `search_path`, `session authorization`.
        name: String,
        /// The new value as it is written, where it is a single one.
        value: Option<String>,
    },
    /// Values of sequences, large objects: depend on no row of a table.
    Free,
    /// Begins a transaction.
    Begin,
    /// Ends one.
    End,
    /// `COPY … FROM stdin`.
    Copy {
        /// The table, as it is written.
        table: String,
        /// Whether it is just `COPY table (columns) FROM stdin;`.
        plain: bool,
    },
    /// Adds a primary key, a unique or an exclusion constraint.
    Key {
        /// The table.
        table: String,
    },
    /// Makes an index.
    Index {
        /// The table.
        table: String,
    },
    /// Adds a foreign key.
    ForeignKey {
        /// The table.
        table: String,
        /// The one it refers to.
        other: String,
    },
    /// Only depends on indexes and constraints before it, and nothing of these depends on it.
    Follower,
    /// Anything else.
    Other,
}

/// A part of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A word outside of quotes.
    Word(&'a str),
    /// A quoted name, quotes included.
    Name(&'a str),
    /// A text, quotes included.
    Text(&'a str),
    /// Any other character.
    Sign(u8),
}

/// Reads tokens; ends at anything that pg_dump does not write at the beginning of statements.
pub struct Tokens<'a> {
    rest: &'a str,
    next: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    /// Starts at the beginning.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let mut tokens = Self {
            rest: text,
            next: None,
        };
        tokens.advance();
        tokens
    }

    fn advance(&mut self) {
        self.rest = self.rest.trim_ascii_start();
        let bytes = self.rest.as_bytes();
        let Some(&first) = bytes.first() else {
            self.next = None;
            return;
        };
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        let (length, make): (usize, fn(&'a str) -> Token<'a>) = match first {
            b'"' | b'\'' => {
                let close = closing(bytes, first);
                let make = if first == b'"' {
                    Token::Name
                } else {
                    Token::Text
                };
                (close, make)
            }
            b'-' | b'/' | b'\\' => {
                self.next = None;
                return;
            }
            _ if word(&first) => {
                let length = bytes.iter().take_while(|byte| word(byte)).count();
                (length, Token::Word)
            }
            sign => {
                self.rest = &self.rest[1..];
                self.next = Some(Token::Sign(sign));
                return;
            }
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.next = Some(make(token));
    }

    /// Returns the next token.
    pub fn take(&mut self) -> Option<Token<'a>> {
        let token = self.next;
        self.advance();
        token
    }

    /// Tells whether everything was read, and not only what is known here.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.next.is_none() && self.rest.is_empty()
    }

    /// Moves past a word when it is the next one.
    fn word(&mut self, word: &str) -> bool {
        let is = matches!(self.next, Some(Token::Word(next)) if next.eq_ignore_ascii_case(word));
        if is {
            self.advance();
        }
        is
    }

    fn words(&mut self, words: &[&str]) -> bool {
        words.iter().all(|word| self.word(word))
    }

    fn sign(&mut self, sign: u8) -> bool {
        let is = self.next == Some(Token::Sign(sign));
        if is {
            self.advance();
        }
        is
    }

    /// Takes a name with its schema, as it is written.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            match self.next {
                Some(Token::Word(part) | Token::Name(part)) => name.push_str(part),
                _ => return None,
            }
            self.advance();
            if !self.sign(b'.') {
                return Some(name);
            }
            name.push('.');
        }
    }

    /// Moves past `( … )` when that is next.
    fn parentheses(&mut self) -> bool {
        if !self.sign(b'(') {
            return false;
        }
        let mut depth = 1;
        while depth > 0 {
            match self.take() {
                Some(Token::Sign(b'(')) => depth += 1,
                Some(Token::Sign(b')')) => depth -= 1,
                Some(_) => {}
                None => return false,
            }
        }
        true
    }
}

/// Length of a quoted text, doubled quotes included.
fn closing(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

/// Tells what a statement is for.
#[must_use]
pub fn kind(text: &str) -> Kind {
    let mut tokens = Tokens::new(text);
    let Some(Token::Word(first)) = tokens.take() else {
        return Kind::Other;
    };
    match first.to_ascii_uppercase().as_str() {
        "SET" => setting(tokens),
        "RESET" => match tokens.take() {
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("session") => session("session"),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("role") => session("role"),
            _ => Kind::Other,
        },
        "SELECT" => select(tokens),
        "BEGIN" | "START" => Kind::Begin,
        "COMMIT" | "END" => Kind::End,
        "COPY" => copy(tokens).unwrap_or(Kind::Other),
        "CREATE" => index(tokens).map_or(Kind::Other, |table| Kind::Index { table }),
        "ALTER" => alter(tokens),
        "COMMENT" if tokens.word("ON") && (tokens.word("INDEX") || tokens.word("CONSTRAINT")) => {
            Kind::Follower
        }
        _ => Kind::Other,
    }
}

fn session(what: &str) -> Kind {
    let name = if what == "session" {
        "session authorization"
    } else {
        what
    };
    Kind::Setting {
        name: name.to_owned(),
        value: None,
    }
}

fn setting(mut tokens: Tokens) -> Kind {
    let Some(Token::Word(first)) = tokens.take() else {
        return Kind::Other;
    };
    let first = first.to_ascii_lowercase();
    match first.as_str() {
        "session" if tokens.word("AUTHORIZATION") => return session("session"),
        "role" => return session("role"),
        // Hold for a transaction, or are more than a name and a value.
        "local" | "constraints" | "transaction" | "session" | "names" | "time" => {
            return Kind::Other;
        }
        _ => {}
    }
    if !(tokens.sign(b'=') || tokens.word("TO")) {
        return Kind::Other;
    }
    let value = match tokens.take() {
        Some(Token::Word(value)) => Some(value.to_owned()),
        Some(Token::Text(value)) => Some(value.trim_matches('\'').to_owned()),
        _ => None,
    };
    Kind::Setting { name: first, value }
}

fn select(mut tokens: Tokens) -> Kind {
    if !(tokens.word("pg_catalog") && tokens.sign(b'.')) {
        return Kind::Other;
    }
    let Some(Token::Word(function)) = tokens.take() else {
        return Kind::Other;
    };
    match function {
        "setval" | "lo_create" | "lo_open" | "lowrite" | "lo_close" => Kind::Free,
        "set_config" if tokens.sign(b'(') => match tokens.take() {
            Some(Token::Text(name)) => Kind::Setting {
                name: name.trim_matches('\'').to_ascii_lowercase(),
                value: None,
            },
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn copy(mut tokens: Tokens) -> Option<Kind> {
    let table = tokens.name()?;
    tokens.parentheses();
    if tokens.words(&["FROM", "STDIN"]) {
        let plain = tokens.sign(b';');
        return Some(Kind::Copy { table, plain });
    }
    // `COPY BINARY t FROM STDIN` and whatever else sends data.
    let (mut from, mut depth) = (false, 0_u32);
    while let Some(token) = tokens.take() {
        match token {
            Token::Sign(b'(') => depth += 1,
            Token::Sign(b')') => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 && from && word.eq_ignore_ascii_case("stdin") => {
                let plain = false;
                return Some(Kind::Copy { table, plain });
            }
            _ => {}
        }
        from = matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("from"));
    }
    None
}

/// Returns the columns of `COPY table (columns) FROM stdin`, where it names them.
#[must_use]
pub fn copy_columns(text: &str) -> Option<Vec<String>> {
    let mut tokens = Tokens::new(text);
    if !tokens.word("COPY") {
        return None;
    }
    tokens.name()?;
    if !tokens.sign(b'(') {
        return None;
    }
    let mut columns = Vec::new();
    loop {
        match tokens.take()? {
            Token::Word(name) => columns.push(name.to_owned()),
            Token::Name(name) => {
                columns.push(name[1..name.len() - 1].replace("\"\"", "\""));
            }
            _ => return None,
        }
        if tokens.sign(b')') {
            return Some(columns);
        }
        if !tokens.sign(b',') {
            return None;
        }
    }
}

fn index(mut tokens: Tokens) -> Option<String> {
    tokens.word("UNIQUE");
    if !tokens.word("INDEX") {
        return None;
    }
    let name = tokens.name()?;
    if name.eq_ignore_ascii_case("concurrently") || !tokens.word("ON") {
        return None;
    }
    tokens.word("ONLY");
    tokens.name()
}

fn alter(mut tokens: Tokens) -> Kind {
    if tokens.words(&["LARGE", "OBJECT"]) {
        return Kind::Free;
    }
    if tokens.word("INDEX") {
        let named = tokens.name().is_some();
        let follows = tokens.words(&["ATTACH", "PARTITION"])
            || (tokens.words(&["ALTER", "COLUMN"]) && tokens.take().is_some());
        return if named && follows {
            Kind::Follower
        } else {
            Kind::Other
        };
    }
    if !tokens.word("TABLE") {
        return Kind::Other;
    }
    tokens.word("ONLY");
    let Some(table) = tokens.name() else {
        return Kind::Other;
    };
    if tokens.words(&["CLUSTER", "ON"]) || tokens.words(&["REPLICA", "IDENTITY"]) {
        return Kind::Follower;
    }
    if !tokens.words(&["ADD", "CONSTRAINT"]) || tokens.name().is_none() {
        return Kind::Other;
    }
    if tokens.words(&["PRIMARY", "KEY"]) || tokens.word("UNIQUE") || tokens.word("EXCLUDE") {
        return Kind::Key { table };
    }
    if tokens.words(&["FOREIGN", "KEY"]) && tokens.parentheses() && tokens.word("REFERENCES") {
        return tokens
            .name()
            .map_or(Kind::Other, |other| Kind::ForeignKey { table, other });
    }
    Kind::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_copy_are_known() {
        let columns = copy_columns("COPY public.t (pk, \"a\"\"b, c\", d) FROM stdin;");
        assert_eq!(columns.expect("named"), ["pk", "a\"b, c", "d"]);
        assert_eq!(copy_columns("COPY public.t FROM stdin;"), None);
    }

    #[test]
    fn what_pg_dump_writes_is_known() {
        let table = || "public.study".to_owned();
        let setting = |name: &str, value: Option<&str>| Kind::Setting {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        for (text, expected) in [
            (
                "SET statement_timeout = 0;",
                setting("statement_timeout", Some("0")),
            ),
            (
                "SET client_encoding = 'UTF8';",
                setting("client_encoding", Some("UTF8")),
            ),
            (
                "SELECT pg_catalog.set_config('search_path', '', false);",
                setting("search_path", None),
            ),
            (
                "SET SESSION AUTHORIZATION 'pacs';",
                setting("session authorization", None),
            ),
            (
                "RESET SESSION AUTHORIZATION;",
                setting("session authorization", None),
            ),
            ("SET LOCAL x = 1;", Kind::Other),
            (
                "SELECT pg_catalog.setval('public.a_seq', 1, false);",
                Kind::Free,
            ),
            ("SELECT pg_catalog.lowrite(0, '\\x00');", Kind::Free),
            ("BEGIN;", Kind::Begin),
            ("COMMIT;", Kind::End),
            (
                "COPY public.study (pk, \"a;b)\", c) FROM stdin;",
                Kind::Copy {
                    table: table(),
                    plain: true,
                },
            ),
            (
                "COPY public.\"O\"\"dd. x\" FROM stdin;",
                Kind::Copy {
                    table: "public.\"O\"\"dd. x\"".into(),
                    plain: true,
                },
            ),
            (
                "COPY public.study (pk) FROM stdin WITH (FORMAT csv);",
                Kind::Copy {
                    table: table(),
                    plain: false,
                },
            ),
            ("COPY public.study TO stdout;", Kind::Other),
            ("COPY public.study FROM '/from/stdin';", Kind::Other),
            (
                "ALTER TABLE ONLY public.study\n    ADD CONSTRAINT study_pkey PRIMARY KEY (pk);",
                Kind::Key { table: table() },
            ),
            (
                "ALTER TABLE ONLY public.study\n    ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;",
                Kind::Other,
            ),
            (
                "CREATE UNIQUE INDEX i ON ONLY public.study USING btree (a) WHERE (b = 'x'::text);",
                Kind::Index { table: table() },
            ),
            (
                "CREATE INDEX CONCURRENTLY i ON public.study (a);",
                Kind::Other,
            ),
            (
                "ALTER TABLE ONLY public.study\n    ADD CONSTRAINT f FOREIGN KEY (p) REFERENCES public.patient(pk);",
                Kind::ForeignKey {
                    table: table(),
                    other: "public.patient".into(),
                },
            ),
            (
                "ALTER TABLE public.study CLUSTER ON study_pkey;",
                Kind::Follower,
            ),
            (
                "ALTER INDEX public.a ATTACH PARTITION public.b;",
                Kind::Follower,
            ),
            ("COMMENT ON INDEX public.i IS 'x';", Kind::Follower),
            ("COMMENT ON TABLE public.study IS 'x';", Kind::Other),
            ("ALTER TABLE public.study OWNER TO pacs;", Kind::Other),
            ("ALTER LARGE OBJECT 1 OWNER TO pacs;", Kind::Free),
            ("CREATE TABLE public.study (pk bigint);", Kind::Other),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
