//! `lineinfile`: one line of a text file.

use async_trait::async_trait;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::edit::{self, Edit, Edited, bare, editing_module, lines_of, pattern};
use crate::host::error::ModuleError;
use crate::host::files::error::{FilesError, FilesResult};
use crate::python_regex::Replacement;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo};

editing_module! {
    /// Makes sure that a line is in a text file, or that none such is.
    pub struct LineInFileModule {
        /// The line, without its end.
        #[serde(default, alias = "value")]
        #[schemars(extend("aliases" = ["value"]))]
        line: Option<String>,
        /// Regular expression of the line that is replaced (the last that matches) or, with `absent`, of the
        /// lines that go.
        #[serde(default, alias = "regex")]
        #[schemars(extend("aliases" = ["regex"]))]
        regexp: Option<String>,
        /// Text that the line holds, instead of `regexp`.
        #[serde(default)]
        search_string: Option<String>,
        /// `present` (default) or `absent`.
        #[serde(default)]
        state: State,
        /// Where a new line goes: behind the last line that matches this expression, or `EOF` (default).
        #[serde(default)]
        insertafter: Option<String>,
        /// Where a new line goes: before the last line that matches this expression, or `BOF`.
        #[serde(default)]
        insertbefore: Option<String>,
        /// The first match counts, not the last. Default: false.
        #[serde(default)]
        firstmatch: bool,
        /// Fills `\1` and `\g<name>` in `line` from the match of `regexp`; where nothing matches, nothing is
        /// done. Default: false.
        #[serde(default)]
        backrefs: bool,
        /// Makes the file, and its folders, where they are missing. Default: false.
        #[serde(default)]
        create: bool,
    }
}

/// Whether the line shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It shall.
    #[default]
    Present,
    /// It shall not.
    Absent,
}

/// Where a new line goes.
enum LinePosition {
    Begin,
    End,
    After(Regex),
    Before(Regex),
}

impl LineInFileModule {
    fn place(&self) -> FilesResult<LinePosition> {
        Ok(match (&self.insertafter, &self.insertbefore) {
            (Some(_), Some(_)) => {
                return Err(FilesError::argument(
                    "`insertafter` and `insertbefore` exclude each other",
                )
                .into());
            }
            (Some(word), None) | (None, Some(word)) if word == "BOF" => LinePosition::Begin,
            (Some(word), None) if word != "EOF" => {
                LinePosition::After(pattern("insertafter", word)?)
            }
            (None, Some(word)) => LinePosition::Before(pattern("insertbefore", word)?),
            _ => LinePosition::End,
        })
    }

    /// The last line that fits, or the first where that is wanted.
    fn pick(&self, mut fitting: impl DoubleEndedIterator<Item = usize>) -> Option<usize> {
        match self.firstmatch {
            true => fitting.next(),
            false => fitting.next_back(),
        }
    }

    fn present(&self, old: Option<&str>) -> FilesResult<Edited> {
        let Some(line) = &self.line else {
            return Err(FilesError::argument("`line` is needed with `state: present`").into());
        };
        if self.backrefs && self.regexp.is_none() {
            return Err(FilesError::argument("`regexp` is needed with `backrefs`").into());
        }
        let old = match (old, self.create) {
            (Some(old), _) => old,
            (None, true) => "",
            (None, false) => return self.missing(),
        };
        let mut lines = lines_of(old);
        let regexp = match &self.regexp {
            Some(source) => Some(pattern("regexp", source)?),
            None => None,
        };
        let fitting: Vec<usize> = lines
            .iter()
            .enumerate()
            .filter(|(_, text)| match (&regexp, &self.search_string) {
                (Some(regexp), _) => regexp.is_match(bare(text)),
                (None, Some(part)) => text.contains(part.as_str()),
                (None, None) => bare(text) == line,
            })
            .map(|(index, _)| index)
            .collect();
        let added = |text: String| {
            Ok(Edited {
                text: Some(text),
                message: "line added".into(),
                found: None,
            })
        };
        let unchanged = || {
            Ok(Edited {
                text: Some(old.to_owned()),
                ..Edited::default()
            })
        };
        if let Some(index) = self.pick(fitting.into_iter()) {
            let mut new = match (&regexp, self.backrefs) {
                (Some(regexp), true) => {
                    let replacement = Replacement::read(line, regexp)
                        .map_err(|error| FilesError::argument(format!("`line`: {error}")))?;
                    let found = regexp.captures(bare(&lines[index]));
                    found.map_or_else(|| line.clone(), |found| replacement.expand(&found))
                }
                _ => line.clone(),
            };
            if !new.ends_with('\n') {
                new.push('\n');
            }
            // The line itself, found by itself, may be the last of a file that does not end its line.
            if lines[index] == new || (regexp.is_none() && self.search_string.is_none()) {
                return unchanged();
            }
            lines[index] = new;
            return Ok(Edited {
                text: Some(lines.concat()),
                message: "line replaced".into(),
                found: None,
            });
        }
        if self.backrefs {
            return unchanged();
        }
        // Where no line was found by its pattern, the line itself may be there all the same.
        if lines.iter().any(|text| bare(text) == line) {
            return unchanged();
        }
        let new = format!("{line}\n");
        let end = |lines: &mut Vec<String>| {
            if let Some(last) = lines.last_mut()
                && !last.ends_with('\n')
            {
                last.push('\n');
            }
            lines.push(new.clone());
        };
        let matching = |anchor: &Regex, lines: &[String]| {
            let all: Vec<usize> = lines
                .iter()
                .enumerate()
                .filter(|(_, text)| anchor.is_match(bare(text)))
                .map(|(index, _)| index)
                .collect();
            self.pick(all.into_iter())
        };
        match self.place()? {
            LinePosition::Begin => lines.insert(0, new.clone()),
            LinePosition::End => end(&mut lines),
            LinePosition::After(anchor) => match matching(&anchor, &lines) {
                Some(index) if index + 1 < lines.len() => lines.insert(index + 1, new.clone()),
                _ => end(&mut lines),
            },
            LinePosition::Before(anchor) => match matching(&anchor, &lines) {
                Some(index) => lines.insert(index, new.clone()),
                None => end(&mut lines),
            },
        }
        added(lines.concat())
    }

    fn absent(&self, old: Option<&str>) -> FilesResult<Edited> {
        if self.line.is_none() && self.regexp.is_none() && self.search_string.is_none() {
            return Err(FilesError::argument(
                "one of `line`, `search_string` and `regexp` is needed with `state: absent`",
            )
            .into());
        }
        let Some(old) = old else {
            return Ok(Edited {
                message: "file not present".into(),
                ..Edited::default()
            });
        };
        let regexp = match &self.regexp {
            Some(source) => Some(pattern("regexp", source)?),
            None => None,
        };
        let goes = |text: &String| match (&regexp, &self.search_string) {
            (Some(regexp), _) => regexp.is_match(bare(text)),
            (None, Some(part)) => text.contains(part.as_str()),
            (None, None) => self.line.as_deref() == Some(bare(text)),
        };
        let lines = lines_of(old);
        let kept: Vec<String> = lines.iter().filter(|text| !goes(text)).cloned().collect();
        let found = (lines.len() - kept.len()) as u64;
        Ok(Edited {
            text: Some(kept.concat()),
            message: if found == 0 {
                String::new()
            } else {
                format!("{found} line(s) removed")
            },
            found: Some(found),
        })
    }
}

impl Edit for LineInFileModule {
    fn edit(&self, old: Option<&str>) -> FilesResult<Edited> {
        if self.regexp.is_some() && self.search_string.is_some() {
            return Err(
                FilesError::argument("`regexp` and `search_string` exclude each other").into(),
            );
        }
        match self.state {
            State::Present => self.present(old),
            State::Absent => self.absent(old),
        }
    }
}

impl TypedModule for LineInFileModule {
    const NAME: &'static str = "lineinfile";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.lineinfile", "ansible.legacy.lineinfile"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "as `copy`";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Makes sure that a line is in a text file, or that none such is";
    const EXAMPLE: &'static str = "\
- name: More shared memory for containers
  lineinfile:
    path: /etc/sysctl.d/90-kaapana.conf
    regexp: ^kernel\\.shmmax
    line: kernel.shmmax = 17179869184
    create: true
    mode: \"0644\"
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        edit::undo(efforts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edited(arguments: Value, old: Option<&str>) -> FilesResult<(Option<String>, String)> {
        let mut arguments = arguments;
        arguments["path"] = "/x".into();
        let module: LineInFileModule = serde_json::from_value(arguments).expect("arguments");
        module.edit(old).map(|edited| (edited.text, edited.message))
    }

    fn text(arguments: Value, old: &str) -> String {
        edited(arguments, Some(old))
            .expect("edits")
            .0
            .expect("text")
    }

    #[test]
    fn the_last_match_is_replaced_and_a_second_time_nothing_is_done() {
        let arguments = json!({"regexp": "^a=", "line": "a=9"});
        let once = text(arguments.clone(), "a=1\na=2\nb=3\n");
        assert_eq!(once, "a=1\na=9\nb=3\n");
        assert_eq!(text(arguments, &once), once);
        let first = json!({"regexp": "^a=", "line": "a=9", "firstmatch": true});
        assert_eq!(text(first, "a=1\na=2\n"), "a=9\na=2\n");
    }

    #[test]
    fn a_new_line_goes_where_it_is_wanted_and_ends_the_line_before_it() {
        assert_eq!(text(json!({"line": "c"}), "a\nb"), "a\nb\nc\n");
        let after = json!({"line": "c", "insertafter": "^a"});
        assert_eq!(text(after, "a\nb\n"), "a\nc\nb\n");
        let before = json!({"line": "c", "insertbefore": "^b"});
        assert_eq!(text(before, "a\nb\n"), "a\nc\nb\n");
        assert_eq!(
            text(json!({"line": "c", "insertbefore": "BOF"}), "a\n"),
            "c\na\n"
        );
    }

    #[test]
    fn back_references_are_filled_and_without_a_match_nothing_is_done() {
        let arguments =
            json!({"regexp": "^(a)=(?P<n>.)", "line": "\\1=<\\g<n>>", "backrefs": true});
        assert_eq!(text(arguments.clone(), "a=1\n"), "a=<1>\n");
        assert_eq!(text(arguments, "b=1\n"), "b=1\n");
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error_where_a_line_fits() {
        let arguments = json!({"regexp": "^(a)=", "line": "\\1=\\2", "backrefs": true});
        assert!(edited(arguments.clone(), Some("a=1\n")).is_err());
        assert_eq!(text(arguments, "b=1\n"), "b=1\n", "as in Ansible");
    }

    #[test]
    fn a_missing_file_is_an_error_unless_it_may_be_made_or_nothing_shall_be_in_it() {
        assert!(edited(json!({"line": "x"}), None).is_err());
        assert_eq!(
            edited(json!({"line": "x", "create": true}), None)
                .expect("made")
                .0
                .as_deref(),
            Some("x\n")
        );
        let absent = edited(json!({"line": "x", "state": "absent"}), None).expect("fine");
        assert_eq!(absent, (None, "file not present".into()));
    }

    #[test]
    fn lines_that_shall_not_be_there_go_all_of_them() {
        let arguments = json!({"regexp": "^x", "state": "absent"});
        let (text, message) = edited(arguments, Some("x1\ny\nx2")).expect("edits");
        assert_eq!(
            (text.as_deref(), message.as_str()),
            (Some("y\n"), "2 line(s) removed")
        );
    }
}
