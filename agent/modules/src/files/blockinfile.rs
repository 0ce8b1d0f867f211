//! `blockinfile`: lines between two markers of a text file.

use async_trait::async_trait;
use serde_json::Value;

use super::edit::{self, Edit, Edited, bare, editing_module, lines_of, pattern};
use super::lineinfile::State;
use crate::host::error::ModuleError;
use crate::host::files::error::{FilesError, FilesResult};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo};

editing_module! {
    /// Makes sure that lines stand between two markers of a text file, or that no such block does.
    pub struct BlockInFileModule {
        /// The lines. Without any, the block goes, markers included.
        #[serde(default, alias = "content")]
        #[schemars(extend("aliases" = ["content"]))]
        block: String,
        /// `present` (default) or `absent`.
        #[serde(default)]
        state: State,
        /// The markers' line; `{mark}` stands for `BEGIN` and `END`.
        /// Default: `# {mark} ANSIBLE MANAGED BLOCK`.
        #[serde(default = "default_marker")]
        marker: String,
        /// Word of the first marker. Default: `BEGIN`.
        #[serde(default = "begin")]
        marker_begin: String,
        /// Word of the second marker. Default: `END`.
        #[serde(default = "end")]
        marker_end: String,
        /// Where a new block goes: behind the last line that matches this expression, or `EOF` (default).
        #[serde(default)]
        insertafter: Option<String>,
        /// Where a new block goes: before the last line that matches this expression, or `BOF`.
        #[serde(default)]
        insertbefore: Option<String>,
        /// Makes sure of an empty line before the block. Default: false.
        #[serde(default)]
        prepend_newline: bool,
        /// Makes sure of an empty line behind the block. Default: false.
        #[serde(default)]
        append_newline: bool,
        /// Makes the file, and its folders, where they are missing. Default: false.
        #[serde(default)]
        create: bool,
    }
}

fn default_marker() -> String {
    "# {mark} ANSIBLE MANAGED BLOCK".into()
}

fn begin() -> String {
    "BEGIN".into()
}

fn end() -> String {
    "END".into()
}

impl BlockInFileModule {
    fn marker(&self, word: &str) -> String {
        self.marker.replace("{mark}", word)
    }

    /// Where a block goes that is not there yet.
    fn place(&self, lines: &[String]) -> FilesResult<usize> {
        let last = |argument: &str, source: &str| -> FilesResult<Option<usize>> {
            let anchor = pattern(argument, source)?;
            Ok(lines.iter().rposition(|line| anchor.is_match(bare(line))))
        };
        Ok(match (&self.insertafter, &self.insertbefore) {
            (Some(_), Some(_)) => {
                return Err(FilesError::argument(
                    "`insertafter` and `insertbefore` exclude each other",
                )
                .into());
            }
            (Some(word), None) if word != "EOF" => {
                last("insertafter", word)?.map_or(lines.len(), |index| index + 1)
            }
            (None, Some(word)) if word == "BOF" => 0,
            (None, Some(word)) => last("insertbefore", word)?.unwrap_or(lines.len()),
            _ => lines.len(),
        })
    }
}

impl Edit for BlockInFileModule {
    fn edit(&self, old: Option<&str>) -> FilesResult<Edited> {
        let wanted = self.state == State::Present && !self.block.is_empty();
        let (Some(text), made) = (match (old, self.create, self.state) {
            (Some(old), _, _) => (Some(old), false),
            (None, true, State::Present) => (Some(""), true),
            (None, _, State::Absent) => (None, false),
            (None, false, State::Present) => return self.missing(),
        }) else {
            return Ok(Edited {
                message: "File not present".into(),
                ..Edited::default()
            });
        };
        let (first, last) = (
            self.marker(&self.marker_begin),
            self.marker(&self.marker_end),
        );
        if first == last {
            return Err(FilesError::argument_with_help(
                "the two markers are the same",
                "put `{mark}` into `marker`, or give `marker_begin` and `marker_end`",
            )
            .into());
        }
        let mut lines = lines_of(text);
        let at = |marker: &str| lines.iter().rposition(|line| bare(line) == marker);
        let mut place = match (at(&first), at(&last)) {
            (Some(one), Some(other)) => {
                let (from, to) = (one.min(other), one.max(other));
                lines.drain(from..=to);
                from
            }
            _ => self.place(&lines)?,
        };
        if wanted {
            let block = self.block.trim_end_matches('\n');
            let block: Vec<String> = std::iter::once(first.as_str())
                .chain(block.split('\n'))
                .chain([last.as_str()])
                .map(|line| format!("{line}\n"))
                .collect();
            if let Some(before) = place.checked_sub(1).and_then(|index| lines.get_mut(index))
                && !before.ends_with('\n')
            {
                before.push('\n');
            }
            if self.prepend_newline && place > 0 && lines[place - 1] != "\n" {
                lines.insert(place, "\n".into());
                place += 1;
            }
            let behind = place + block.len();
            lines.splice(place..place, block);
            if self.append_newline && lines.get(behind).is_some_and(|line| line != "\n") {
                lines.insert(behind, "\n".into());
            }
        }
        let new = lines.concat();
        let message = match (new == text, made, wanted) {
            (_, true, _) => "File created",
            (true, ..) => "",
            (false, false, true) => "Block inserted",
            (false, false, false) => "Block removed",
        };
        Ok(Edited {
            text: Some(new),
            message: message.into(),
            found: None,
        })
    }
}

impl TypedModule for BlockInFileModule {
    const NAME: &'static str = "blockinfile";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.blockinfile", "ansible.legacy.blockinfile"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "as `copy`";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Makes sure that lines stand between two markers of a text file, or that no such block does";
    const EXAMPLE: &'static str = "\
- name: The hospital's archives by name
  blockinfile:
    path: /etc/hosts
    marker: \"# {mark} archives\"
    block: |
      10.0.0.5 pacs-main
      10.0.0.6 pacs-backup
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        edit::undo(efforts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edited(mut arguments: Value, old: Option<&str>) -> Edited {
        arguments["path"] = "/x".into();
        let module: BlockInFileModule = serde_json::from_value(arguments).expect("arguments");
        module.edit(old).expect("edits")
    }

    #[test]
    fn a_block_is_put_replaced_where_it_is_and_taken_away_again() {
        let arguments = |block: &str| json!({"block": block, "marker": "# {mark}"});
        let once = edited(arguments("x\ny"), Some("a\nb"));
        assert_eq!(once.text.as_deref(), Some("a\nb\n# BEGIN\nx\ny\n# END\n"));
        assert_eq!(once.message, "Block inserted");
        let again = edited(arguments("x\ny\n"), once.text.as_deref());
        assert_eq!((again.text, again.message.as_str()), (once.text, ""));
        let other = edited(arguments("z"), again_text("a\n# BEGIN\nx\n# END\nb\n"));
        assert_eq!(other.text.as_deref(), Some("a\n# BEGIN\nz\n# END\nb\n"));
        let gone = edited(arguments(""), other.text.as_deref());
        assert_eq!(
            (gone.text.as_deref(), gone.message.as_str()),
            (Some("a\nb\n"), "Block removed")
        );
    }

    fn again_text(text: &str) -> Option<&str> {
        Some(text)
    }

    #[test]
    fn empty_lines_around_a_block_are_made_once() {
        let arguments = json!({
            "block": "x", "marker": "# {mark}", "insertafter": "^a",
            "prepend_newline": true, "append_newline": true,
        });
        let once = edited(arguments.clone(), Some("a\nb\n")).text;
        assert_eq!(once.as_deref(), Some("a\n\n# BEGIN\nx\n# END\n\nb\n"));
        assert_eq!(edited(arguments, once.as_deref()).text, once);
    }
}
