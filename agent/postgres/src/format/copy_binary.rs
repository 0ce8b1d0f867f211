//! What `COPY … TO STDOUT (FORMAT binary)` sends: one row a message
//! (<https://www.postgresql.org/docs/15/sql-copy.html>, "Binary Format", and
//! <https://www.postgresql.org/docs/15/protocol-flow.html#PROTOCOL-COPY>).

use std::ops::Range;

/// What the first message begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Follows the messages of one COPY.
#[derive(Debug, Default)]
pub struct CopyBinary {
    begun: bool,
    ended: bool,
}

/// Fields of a row: each its length in four bytes, -1 for NULL, and as many bytes.
#[derive(Debug)]
pub struct Row<'a> {
    /// All fields.
    pub bytes: &'a [u8],
    /// Where each field's value lies; nothing for NULL.
    pub values: &'a [Option<Range<usize>>],
}

impl Row<'_> {
    /// Returns the place behind so many fields.
    #[must_use]
    pub fn behind(&self, fields: usize) -> usize {
        // A field begins four bytes before its value; of a NULL nothing else is there.
        let mut at = 0;
        for value in self.values.iter().take(fields) {
            at = value.as_ref().map_or(at + 4, |value| value.end);
        }
        at
    }

    /// Returns a field's value.
    #[must_use]
    pub fn value(&self, field: usize) -> Option<&[u8]> {
        let value = self.values.get(field)?.clone()?;
        self.bytes.get(value)
    }
}

impl CopyBinary {
    /// Takes a message; `values` is filled anew. Nothing where it holds no row. `None` at the end where it is
    /// not what it should be.
    pub fn row<'a>(
        &mut self,
        message: &'a [u8],
        values: &'a mut Vec<Option<Range<usize>>>,
    ) -> Option<Option<Row<'a>>> {
        let mut bytes = message;
        if !self.begun {
            let (_flags, rest) = take_i32(bytes.strip_prefix(SIGNATURE)?)?;
            let (extension, rest) = take_i32(rest)?;
            bytes = rest.get(usize::try_from(extension).ok()?..)?;
            self.begun = true;
            if bytes.is_empty() {
                return Some(None);
            }
        }
        if self.ended {
            return None;
        }
        let (count, fields) = bytes.split_first_chunk()?;
        let Ok(count) = usize::try_from(i16::from_be_bytes(*count)) else {
            self.ended = fields.is_empty();
            return self.ended.then_some(None);
        };
        values.clear();
        let mut at = 0;
        for _ in 0..count {
            let (length, _) = take_i32(fields.get(at..)?)?;
            at += 4;
            // -1 for NULL, and nothing else is below zero.
            if length == -1 {
                values.push(None);
                continue;
            }
            let end = at + usize::try_from(length).ok()?;
            values.push(Some(at..end));
            at = end;
        }
        let row = Row {
            bytes: fields,
            values,
        };
        (at == fields.len()).then_some(Some(row))
    }

    /// Behind the head.
    #[cfg(test)]
    pub fn begun() -> Self {
        Self {
            begun: true,
            ended: false,
        }
    }

    /// Tells whether the end of the data was seen.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ended
    }
}

fn take_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes(*head), rest))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row as the server sends it.
    pub fn message(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = i16::try_from(values.len())
            .expect("few")
            .to_be_bytes()
            .to_vec();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).expect("short"));
            bytes.extend(length.to_be_bytes());
            bytes.extend(value.unwrap_or_default());
        }
        bytes
    }

    #[test]
    fn rows_are_read_with_the_head_before_the_first_and_the_end_behind_the_last() {
        let mut head = SIGNATURE.to_vec();
        head.extend([0; 8]);
        let row = message(&[Some(b"ab"), None, Some(b"")]);
        for messages in [
            vec![[head.clone(), row.clone()].concat(), row.clone()],
            vec![head, row.clone(), row],
        ] {
            let (mut copy, mut values, mut rows) = (CopyBinary::default(), Vec::new(), 0);
            for message in messages {
                let Some(row) = copy.row(&message, &mut values).expect("good") else {
                    continue;
                };
                rows += 1;
                assert_eq!(row.value(0), Some(&b"ab"[..]));
                assert_eq!((row.value(1), row.value(2)), (None, Some(&b""[..])));
                assert_eq!(
                    [0, 1, 2, 3].map(|fields| row.behind(fields)),
                    [0, 6, 10, 14]
                );
            }
            assert_eq!(rows, 2);
            assert!(!copy.is_whole());
            assert!(
                copy.row(&[0xff, 0xff], &mut values)
                    .expect("good")
                    .is_none()
            );
            assert!(copy.is_whole());
            assert!(
                copy.row(&message(&[]), &mut values).is_none(),
                "nothing follows"
            );
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let mut values = Vec::new();
        assert!(
            CopyBinary::default()
                .row(b"PGCOPY\n", &mut values)
                .is_none()
        );
        let row = message(&[Some(b"ab"), None]);
        for cut in 0..row.len() {
            assert!(
                CopyBinary::begun().row(&row[..cut], &mut values).is_none(),
                "{cut}"
            );
        }
        assert!(
            CopyBinary::begun()
                .row(&[row, vec![0]].concat(), &mut values)
                .is_none()
        );
    }
}
