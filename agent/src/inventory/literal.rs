//! Values of INI inventories. Ansible reads them as Python literals: numbers, `True`, `None`, quoted texts,
//! lists, tuples and dictionaries; whatever is none of these is a text as it stands.

use serde_json::{Map, Number, Value};

/// Deeper nesting is a text: nobody writes it, and it must not exhaust the stack.
const DEEPEST: usize = 64;

/// Why something is no value.
enum Not {
    /// Not a literal: a text.
    Literal,
    /// A literal that cannot be kept.
    Kept(&'static str),
}

type Read<T> = Result<T, Not>;

/// Reads a value.
///
/// # Errors
/// A literal that cannot be kept exactly, and why.
pub(super) fn value(text: &str) -> Result<Value, &'static str> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    match reader.whole() {
        Ok(value) => Ok(value),
        Err(Not::Literal) => Ok(Value::String(text.to_owned())),
        Err(Not::Kept(why)) => Err(why),
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn blanks(&mut self) {
        while self.take(" ") || self.take("\t") {}
        // A comment ends with the line, and the line is all there is.
        if self.peek() == Some('#') {
            self.at = self.text.len();
        }
    }

    fn whole(&mut self) -> Read<Value> {
        self.blanks();
        let first = self.item()?;
        self.blanks();
        let value = if self.peek() == Some(',') {
            let mut items = vec![first];
            while self.take(",") {
                self.blanks();
                if self.rest().is_empty() {
                    break;
                }
                items.push(self.item()?);
                self.blanks();
            }
            Value::Array(items)
        } else {
            first
        };
        if self.rest().is_empty() {
            Ok(value)
        } else {
            Err(Not::Literal)
        }
    }

    fn item(&mut self) -> Read<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Not::Literal);
        }
        let value = match self.peek() {
            Some('[') => self.list(),
            Some('(') => self.tuple(),
            Some('{') => self.braces(),
            Some('+' | '-') => self.signed(),
            Some('0'..='9' | '.') => self.number(false),
            Some('\'' | '"') => self.texts(),
            Some(letter) if letter.is_alphabetic() => self.word(),
            _ => Err(Not::Literal),
        };
        self.depth -= 1;
        value
    }

    /// Items up to a closing bracket, and whether a comma stood among them.
    fn items(&mut self, close: &str) -> Read<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.blanks();
            if self.take(close) {
                return Ok((items, comma));
            }
            if !items.is_empty() && !comma {
                return Err(Not::Literal);
            }
            items.push(self.item()?);
            self.blanks();
            if self.take(",") {
                comma = true;
            } else if self.take(close) {
                return Ok((items, comma));
            } else {
                return Err(Not::Literal);
            }
        }
    }

    fn list(&mut self) -> Read<Value> {
        self.at += 1;
        Ok(Value::Array(self.items("]")?.0))
    }

    fn tuple(&mut self) -> Read<Value> {
        self.at += 1;
        let (mut items, comma) = self.items(")")?;
        match items.pop() {
            Some(only) if items.is_empty() && !comma => Ok(only),
            last => {
                items.extend(last);
                Ok(Value::Array(items))
            }
        }
    }

    /// A dictionary, or a set, which becomes a list.
    fn braces(&mut self) -> Read<Value> {
        self.at += 1;
        self.blanks();
        if self.take("}") {
            return Ok(Value::Object(Map::new()));
        }
        let start = self.at;
        self.item()?;
        self.blanks();
        let is_set = self.peek() != Some(':');
        self.at = start;
        if is_set {
            let mut set = Vec::new();
            for item in self.items("}")?.0 {
                if item.is_array() || item.is_object() {
                    return Err(Not::Literal);
                }
                if !set.contains(&item) {
                    set.push(item);
                }
            }
            return Ok(Value::Array(set));
        }
        let mut map = Map::new();
        loop {
            self.blanks();
            if self.take("}") {
                return Ok(Value::Object(map));
            }
            let key = self.item()?;
            self.blanks();
            if !self.take(":") {
                return Err(Not::Literal);
            }
            self.blanks();
            let value = self.item()?;
            match key {
                Value::String(key) => map.insert(key, value),
                Value::Array(_) | Value::Object(_) => return Err(Not::Literal),
                _ => return Err(Not::Kept("a key of a dictionary must be a text in quotes")),
            };
            self.blanks();
            if !self.take(",") {
                return if self.take("}") {
                    Ok(Value::Object(map))
                } else {
                    Err(Not::Literal)
                };
            }
        }
    }

    fn word(&mut self) -> Read<Value> {
        for (word, value) in [
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("None", Value::Null),
        ] {
            if let Some(rest) = self.rest().strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                self.at += word.len();
                return Ok(value);
            }
        }
        // `r'…'`, `u"…"`.
        let mut prefixed = self.rest().chars().skip(1);
        if matches!(prefixed.next(), Some('\'' | '"')) {
            return self.texts();
        }
        Err(Not::Literal)
    }

    fn signed(&mut self) -> Read<Value> {
        let negative = self.next() == Some('-');
        self.blanks();
        match self.peek() {
            Some('0'..='9' | '.') => self.number(negative),
            _ => Err(Not::Literal),
        }
    }

    fn number(&mut self, negative: bool) -> Read<Value> {
        let rest = self.rest();
        let based = rest.len() > 1
            && rest.starts_with('0')
            && rest[1..].starts_with(['x', 'X', 'o', 'O', 'b', 'B']);
        let mut last = ' ';
        let length = rest
            .find(|c: char| {
                let exponent_sign = !based && matches!(last, 'e' | 'E') && matches!(c, '+' | '-');
                last = c;
                !(c.is_alphanumeric() || c == '_' || c == '.' || exponent_sign)
            })
            .unwrap_or(rest.len());
        let token = &rest[..length];
        let number = if based {
            let radix = match token.as_bytes()[1] {
                b'x' | b'X' => 16,
                b'o' | b'O' => 8,
                _ => 2,
            };
            // Python takes one `_` behind the base, too.
            let digits = &token[2..];
            integer(digits.strip_prefix('_').unwrap_or(digits), radix, negative)?
        } else if token.contains(['.', 'e', 'E']) {
            float(token, negative)?
        } else {
            let zeros =
                token.starts_with('0') && token.bytes().any(|b| b.is_ascii_digit() && b != b'0');
            if zeros {
                return Err(Not::Literal);
            }
            integer(token, 10, negative)?
        };
        self.at += length;
        Ok(Value::Number(number))
    }

    /// One or several texts in quotes side by side.
    fn texts(&mut self) -> Read<Value> {
        let mut text = String::new();
        loop {
            let raw = match self.peek() {
                Some('r' | 'R') => true,
                Some('u' | 'U' | '\'' | '"') => false,
                _ => return Err(Not::Literal),
            };
            if !matches!(self.peek(), Some('\'' | '"')) {
                self.next();
            }
            self.text(raw, &mut text)?;
            self.blanks();
            let mut ahead = self.rest().chars();
            let goes_on = match ahead.next() {
                Some('\'' | '"') => true,
                Some('r' | 'R' | 'u' | 'U') => matches!(ahead.next(), Some('\'' | '"')),
                _ => false,
            };
            if !goes_on {
                return Ok(Value::String(text));
            }
        }
    }

    fn text(&mut self, raw: bool, text: &mut String) -> Read<()> {
        let quote = match self.peek() {
            Some('\'') if self.rest().starts_with("'''") => "'''",
            Some('"') if self.rest().starts_with("\"\"\"") => "\"\"\"",
            Some('\'') => "'",
            Some('"') => "\"",
            _ => return Err(Not::Literal),
        };
        self.at += quote.len();
        loop {
            if self.take(quote) {
                return Ok(());
            }
            match self.next().ok_or(Not::Literal)? {
                '\\' if raw => {
                    text.push('\\');
                    text.push(self.next().ok_or(Not::Literal)?);
                }
                '\\' => self.escape(text)?,
                letter => text.push(letter),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Read<()> {
        let letter = self.next().ok_or(Not::Literal)?;
        let meant = match letter {
            '\\' | '\'' | '"' => letter,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => self.code(16, 2, 2)?,
            'u' => self.code(16, 4, 4)?,
            'U' => self.code(16, 8, 8)?,
            '0'..='7' => {
                self.at -= 1;
                self.code(8, 1, 3)?
            }
            'N' => return Err(Not::Literal),
            other => {
                text.push('\\');
                other
            }
        };
        text.push(meant);
        Ok(())
    }

    /// A character by its number of `least` to `most` digits.
    fn code(&mut self, radix: u32, least: usize, most: usize) -> Read<char> {
        let digits = self
            .rest()
            .chars()
            .take(most)
            .take_while(|c| c.is_digit(radix))
            .count();
        if digits < least {
            return Err(Not::Literal);
        }
        let text = &self.rest()[..digits];
        self.at += digits;
        u32::from_str_radix(text, radix)
            .ok()
            .and_then(char::from_u32)
            .ok_or(Not::Literal)
    }
}

/// Digits without the `_` that may stand between them.
fn digits(text: &str, radix: u32) -> Read<String> {
    let whole = text
        .split('_')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(radix)));
    if whole {
        Ok(text.replace('_', ""))
    } else {
        Err(Not::Literal)
    }
}

fn integer(text: &str, radix: u32, negative: bool) -> Read<Number> {
    const TOO_LARGE: Not = Not::Kept("the number does not fit into 64 bits");
    let value = i128::from_str_radix(&digits(text, radix)?, radix).map_err(|_| TOO_LARGE)?;
    if negative {
        i64::try_from(-value)
            .map(Number::from)
            .map_err(|_| TOO_LARGE)
    } else {
        u64::try_from(value)
            .map(Number::from)
            .map_err(|_| TOO_LARGE)
    }
}

fn float(token: &str, negative: bool) -> Read<Number> {
    let (mantissa, exponent) = match token.find(['e', 'E']) {
        Some(at) => (&token[..at], Some(&token[at + 1..])),
        None => (token, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let part = |text: &str| match text {
        "" => Ok("0".to_owned()),
        text => digits(text, 10),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(Not::Literal);
    }
    let mut plain = format!("{}.{}", part(whole)?, part(fraction)?);
    if let Some(exponent) = exponent {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let sign = if exponent.starts_with('-') { "-" } else { "" };
        plain = format!("{plain}e{sign}{}", digits(unsigned, 10)?);
    }
    let value: f64 = plain.parse().map_err(|_| Not::Literal)?;
    Number::from_f64(if negative { -value } else { value })
        .ok_or(Not::Kept("the number is too large"))
}
