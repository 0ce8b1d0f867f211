//! Keeps a program's output within bounds: the beginning, the end, and a note of what is missing
//! between. The log gets every line.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::progress::Progress;

/// Kept of the beginning, and as much again of the end.
const HALF_BYTES: usize = 512 * 1024;
/// A line longer than this goes to the log in pieces, so that output without line ends is bounded, too.
const LINE_BYTES: u64 = 64 * 1024;

/// One stream's output.
#[derive(Debug, Default)]
pub struct Capture {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    dropped: u64,
}

impl Capture {
    /// Adds output.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = HALF_BYTES - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(HALF_BYTES);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// Returns the text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        let (a, b) = self.tail.as_slices();
        if self.dropped == 0 {
            return String::from_utf8_lossy(&[&self.head, a, b].concat()).into_owned();
        }
        format!(
            "{}\n[… {} bytes left out, the task's log has them …]\n{}",
            String::from_utf8_lossy(&self.head),
            self.dropped,
            String::from_utf8_lossy(&[a, b].concat())
        )
    }
}

/// Reads a stream to its end: every line to the log, the whole into `capture`.
///
/// # Errors
/// What reading said.
pub async fn drain(
    stream: impl AsyncRead + Unpin,
    capture: &std::sync::Mutex<Capture>,
    progress: &Progress,
) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut reader)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await?;
        if count == 0 {
            return Ok(());
        }
        capture
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(&line);
        let text = String::from_utf8_lossy(&line);
        progress.line(text.trim_end_matches(['\n', '\r']));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept() {
        let mut capture = Capture::default();
        capture.push(b"first ");
        for _ in 0..40 {
            capture.push(&[b'x'; 50_000]);
        }
        capture.push(b" last");
        let text = capture.text();
        assert!(text.starts_with("first x") && text.ends_with("x last"));
        assert!(text.contains(&format!("[… {} bytes left out", 2_000_011 - 2 * HALF_BYTES)));
        assert!(text.len() < 2 * HALF_BYTES + 200);
    }
}
