//! Events as JSON lines: `run --output json`. A public format, versioned by `v`.

use std::io::Write;
use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::event::{EVENT_VERSION, Event};

/// Writes one JSON object a line.
pub struct JsonLines<W> {
    out: Mutex<W>,
    host: String,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`.
    pub fn new(out: W, host: &str) -> Self {
        Self {
            out: Mutex::new(out),
            host: host.to_owned(),
        }
    }

    /// Writes one event. A reader that went away does not stop the run.
    pub fn event(&self, event: &Event) {
        let mut line = json!({
            "v": EVENT_VERSION,
            "time": Timestamp::now().to_string(),
            "host": self.host,
        });
        if let (Value::Object(line), Ok(Value::Object(fields))) =
            (&mut line, serde_json::to_value(event))
        {
            line.extend(fields);
        }
        let mut out = self.out.lock().unwrap_or_else(|e| e.into_inner());
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
