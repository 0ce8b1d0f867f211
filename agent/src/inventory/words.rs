//! Splits a host's line of an INI inventory into words: quotes hold blanks together and go, a backslash
//! takes the next character as it is, `#` begins a comment.

/// A word and the bytes of the line that it was made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub start: usize,
    pub end: usize,
}

/// What is wrong with a line, and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub at: usize,
    pub what: &'static str,
    pub help: &'static str,
}

/// Splits a line.
pub(super) fn split(line: &str) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        if letter == '#' {
            if word.is_none() {
                break;
            }
            return Err(Wrong {
                at,
                what: "a `#` within a word would begin a comment here",
                help: "put the value into quotes, or a blank before the comment",
            });
        }
        let own = word.get_or_insert_with(|| Word {
            text: String::new(),
            start: at,
            end: at,
        });
        match letter {
            '\'' | '"' => quoted(&mut letters, letter, &mut own.text).map_err(|()| Wrong {
                at,
                what: "this quote is not closed",
                help: "close it on the same line",
            })?,
            '\\' => match letters.next() {
                Some((_, next)) => own.text.push(next),
                None => {
                    return Err(Wrong {
                        at,
                        what: "nothing stands behind this backslash",
                        help: "double it, or put the value into single quotes",
                    });
                }
            },
            other => own.text.push(other),
        }
        own.end = letters.offset();
    }
    words.extend(word);
    Ok(words)
}

/// Reads up to the closing quote. In double quotes a backslash takes a quote or itself as it is.
fn quoted(
    letters: &mut std::str::CharIndices<'_>,
    quote: char,
    text: &mut String,
) -> Result<(), ()> {
    loop {
        match letters.next() {
            Some((_, letter)) if letter == quote => return Ok(()),
            Some((_, '\\')) if quote == '"' => match letters.next() {
                Some((_, next @ ('"' | '\\'))) => text.push(next),
                Some((_, next)) => text.extend(['\\', next]),
                None => return Err(()),
            },
            Some((_, letter)) => text.push(letter),
            None => return Err(()),
        }
    }
}
