//! Sizes, times and notes for people.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

/// Bytes with a binary unit: `134.2 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    // Shown with one digit: the rounding of a float does not matter.
    #[expect(clippy::cast_precision_loss, reason = "only for display")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A duration: `80 ms`, `2.1 s`, `4 min 05 s`, `2 h 03 min`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.as_millis() < 1000 => format!("{} ms", time.as_millis()),
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A moment in UTC: `2026-11-22 21:46:02`.
#[must_use]
pub fn moment(time: Timestamp) -> String {
    time.strftime("%F %T").to_string()
}

/// A count with a narrow gap between thousands: `338 459`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Text on one line, words parted by one space each.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    let is_one = text.split(' ').all(|word| {
        // Nothing but a word: no other white space, and no two spaces in a row.
        !word.is_empty() && !word.contains(char::is_whitespace)
    });
    if is_one {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_on_one_line() {
        assert!(matches!(one_line("a b"), Cow::Borrowed("a b")));
        assert_eq!(one_line(" a\n\tb  c "), "a b c");
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(count(338_459), "338\u{202f}459");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(140_720_000), "134.2 MiB");
        let shown: Vec<_> = [80, 2_100, 245_000, 7_380_000]
            .map(|ms| duration(Duration::from_millis(ms)))
            .into();
        assert_eq!(shown, ["80 ms", "2.1 s", "4 min 05 s", "2 h 03 min"]);
    }
}
