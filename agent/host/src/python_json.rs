//! JSON as Python writes it: what Ansible makes of a value where a text is wanted.

use std::fmt::Write as _;

/// Writes a value: on one line with blanks behind `,` and `:`, or indented; keys sorted or in their order.
#[must_use]
pub fn write(value: &serde_json::Value, indent: Option<usize>, sorted: bool) -> String {
    let mut text = String::new();
    put(value, indent, sorted, 0, &mut text);
    text
}

fn put(
    value: &serde_json::Value,
    indent: Option<usize>,
    sorted: bool,
    depth: usize,
    text: &mut String,
) {
    let line = |depth: usize, text: &mut String| {
        if let Some(indent) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let separator = if indent.is_some() { "," } else { ", " };
    match value {
        serde_json::Value::String(content) => put_text(content, text),
        serde_json::Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(separator);
                }
                line(depth + 1, text);
                put(item, indent, sorted, depth + 1, text);
            }
            line(depth, text);
            text.push(']');
        }
        serde_json::Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<_> = map.iter().collect();
            if sorted {
                entries.sort_by_key(|(key, _)| key.as_str());
            }
            text.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push_str(separator);
                }
                line(depth + 1, text);
                put_text(key, text);
                text.push_str(": ");
                put(item, indent, sorted, depth + 1, text);
            }
            line(depth, text);
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn put_text(content: &str, text: &mut String) {
    text.push('"');
    for character in content.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            ' '..='~' => text.push(character),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}
