//! Colour, where it is wanted.

/// Whether and how to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Write ANSI colour codes.
    pub colour: bool,
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
