//! Colour and width, where they are wanted.

use std::borrow::Cow;

/// Whether and how to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Write ANSI colour codes.
    pub colour: bool,
}

/// How something is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Colours.
    pub style: Style,
    /// Columns of the terminal; `None` where there is none: nothing is cut short then.
    pub width: Option<usize>,
}

/// A colour by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Went well, nothing changed.
    Good,
    /// Changed something.
    Change,
    /// Went wrong.
    Bad,
    /// Passed over.
    Calm,
    /// Beside the point.
    Faint,
    /// Headings.
    Strong,
}

impl Style {
    /// Returns the text in a colour, or as it is.
    #[must_use]
    pub fn paint(self, ink: Ink, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Good => "32",
            Ink::Change => "33",
            Ink::Bad => "1;31",
            Ink::Calm => "36",
            Ink::Faint => "2",
            Ink::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

impl View {
    /// Returns the text in a colour, or as it is.
    #[must_use]
    pub fn paint(self, ink: Ink, text: &str) -> String {
        self.style.paint(ink, text)
    }

    /// Cuts a line to the terminal's width; colours count nothing.
    #[must_use]
    pub fn fit(self, line: &str) -> Cow<'_, str> {
        match self.width {
            Some(width) if width > 1 => console::truncate_str(line, width, "…"),
            _ => Cow::Borrowed(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_terminal_and_left_whole_elsewhere() {
        let style = Style { colour: true };
        let line = format!("{} und noch viel mehr", style.paint(Ink::Bad, "größer"));
        let narrow = View {
            style,
            width: Some(10),
        };
        assert_eq!(console::measure_text_width(&narrow.fit(&line)), 10);
        let file = View { style, width: None };
        assert_eq!(file.fit(&line), line);
    }
}
