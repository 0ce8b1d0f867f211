//! Places that the model does not keep, found again in the text.

use crate::model::{Play, Task};
use crate::source::Location;

/// Shortens a place to its first line.
pub(super) fn first_line(at: &Location) -> Location {
    let text = &at.file.text[at.start..at.end];
    let length = text.find('\n').unwrap_or(text.len());
    Location {
        file: at.file.clone(),
        start: at.start,
        end: at.start + text[..length].trim_end().len(),
    }
}

/// Returns the place of a task's `id`.
pub(super) fn value_of_id(task: &Task, id: &str) -> Location {
    behind_key(&task.common.at, "id", id).unwrap_or_else(|| first_line(&task.common.at))
}

/// Returns the place of a word in the value of one of the play's keywords.
pub(super) fn word_in_play(play: &Play, key: &str, word: &str) -> Location {
    behind_key(&play.at, key, word).unwrap_or_else(|| first_line(&play.at))
}

fn behind_key(at: &Location, key: &str, word: &str) -> Option<Location> {
    let text = at.file.text.get(at.start..at.end)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let stands_alone = |start: usize, end: usize| {
        !text[..start].chars().next_back().is_some_and(is_word)
            && !text[end..].chars().next().is_some_and(is_word)
    };
    text.match_indices(key)
        .filter(|(start, _)| {
            stands_alone(*start, start + key.len())
                && text[start + key.len()..]
                    .trim_start_matches(['"', '\''])
                    .starts_with(':')
        })
        .find_map(|(start, _)| {
            let from = start + key.len();
            text[from..]
                .match_indices(word)
                .map(|(offset, _)| from + offset)
                .find(|start| stands_alone(*start, start + word.len()))
        })
        .map(|start| Location {
            file: at.file.clone(),
            start: at.start + start,
            end: at.start + start + word.len(),
        })
}
