//! Logical lines of LDIF: comments are left out, folded lines are put together, places are kept.

use super::ldif::SyntaxError;

/// One logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line of the file that it starts on, from 1.
    pub number: usize,
    /// Its text, unfolded.
    pub text: String,
    /// Where in the text each of its lines in the file begins.
    parts: Vec<usize>,
}

impl Line {
    /// Tells whether it parts two records.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.text.is_empty()
    }

    /// Makes an error at a byte of the text.
    #[must_use]
    pub fn error(&self, offset: usize, message: impl Into<String>) -> SyntaxError {
        let offset = offset.min(self.text.len());
        // A substitution may have made the text shorter than its parts say.
        let part = self
            .parts
            .iter()
            .rposition(|start| *start <= offset)
            .unwrap_or(0);
        let start = self.parts.get(part).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        // A line that goes on begins with the blank that says so.
        let blank = usize::from(part > 0);
        SyntaxError {
            line: self.number + part,
            column: before.chars().count() + 1 + blank,
            message: message.into(),
        }
    }
}

/// Cuts a file into logical lines.
///
/// # Errors
/// A line is no UTF-8, or one that goes on has nothing before it.
pub fn lines(bytes: &[u8]) -> Result<Vec<Line>, SyntaxError> {
    let mut lines: Vec<Line> = Vec::new();
    // A comment goes on as other lines do, and is left out whole.
    let mut in_comment = false;
    for (index, raw) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        let text = std::str::from_utf8(raw).map_err(|error| {
            let valid = String::from_utf8_lossy(&raw[..error.valid_up_to()]);
            SyntaxError {
                line: number,
                column: valid.chars().count() + 1,
                message: "this is no UTF-8; such values are written in base64 (`name:: …`)".into(),
            }
        })?;
        // Some editors put a mark at the start.
        let text = if index == 0 {
            text.strip_prefix('\u{feff}').unwrap_or(text)
        } else {
            text
        };
        if let Some(rest) = text.strip_prefix(' ') {
            if in_comment {
                continue;
            }
            // A line of blanks alone parts records in files that people wrote.
            match lines.last_mut() {
                Some(line) if !line.is_blank() => {
                    line.parts.push(line.text.len());
                    line.text.push_str(rest);
                    continue;
                }
                _ if rest.trim().is_empty() => {}
                _ => {
                    return Err(SyntaxError {
                        line: number,
                        column: 1,
                        message: "the line goes on from one that is not there".into(),
                    });
                }
            }
        }
        in_comment = text.starts_with('#');
        if !in_comment {
            lines.push(Line {
                number,
                text: text.trim_start().to_owned(),
                parts: vec![0],
            });
        }
    }
    Ok(lines)
}
