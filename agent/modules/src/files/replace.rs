//! `replace`: every match of an expression in a text file.

use async_trait::async_trait;
use regex::Captures;
use serde_json::Value;

use super::edit::{self, Edit, Edited, editing_module};
use crate::host::error::ModuleError;
use crate::host::files::error::{FilesError, FilesResult};
use crate::python_regex::{Replacement, build};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo};

editing_module! {
    /// Replaces every match of a regular expression in a text file.
    pub struct ReplaceModule {
        /// The regular expression; `^` and `$` match at each line.
        regexp: String,
        /// What stands for each match; `\1` and `\g<name>` are its groups. Default: nothing, the matches go.
        #[serde(default)]
        replace: String,
        /// Only what stands behind the first match of this expression.
        #[serde(default)]
        after: Option<String>,
        /// Only what stands before the first match of this expression (behind `after`, where that is given).
        #[serde(default)]
        before: Option<String>,
        /// Accepted where it is UTF-8, which all text is taken for.
        #[serde(default)]
        encoding: Option<String>,
    }
}

impl Edit for ReplaceModule {
    fn edit(&self, old: Option<&str>) -> FilesResult<Edited> {
        if let Some(encoding) = &self.encoding
            && !["utf-8", "utf8"].contains(&encoding.to_ascii_lowercase().as_str())
        {
            return Err(FilesError::argument("`encoding`: only utf-8 is known").into());
        }
        let Some(old) = old else {
            return self.missing();
        };
        let wrong = |argument: &'static str| {
            move |reason| FilesError::argument(format!("`{argument}`: {reason}"))
        };
        let dots = |argument: &'static str, source: &str| {
            build(source, |builder| {
                builder.dot_matches_new_line(true);
            })
            .map_err(wrong(argument))
        };
        let mut section = 0..old.len();
        let mut outside = false;
        if let Some(after) = &self.after {
            match dots("after", after)?.find(old) {
                Some(found) => section.start = found.end(),
                None => outside = true,
            }
        }
        if let (Some(before), false) = (&self.before, outside) {
            match dots("before", before)?.find(&old[section.clone()]) {
                Some(found) => section.end = section.start + found.start(),
                None => outside = true,
            }
        }
        if outside {
            return Ok(Edited {
                text: Some(old.to_owned()),
                message: "Pattern for before/after params did not match the given file".into(),
                found: None,
            });
        }
        let regexp = build(&self.regexp, |builder| {
            builder.multi_line(true);
        })
        .map_err(wrong("regexp"))?;
        let replace = Replacement::read(&self.replace, &regexp)
            .map_err(|error| FilesError::argument(format!("`replace`: {error}")))?;
        let mut count = 0_u64;
        let replaced = regexp.replace_all(&old[section.clone()], |found: &Captures<'_>| {
            count += 1;
            replace.expand(found)
        });
        let text = format!("{}{replaced}{}", &old[..section.start], &old[section.end..]);
        Ok(Edited {
            message: if text == old {
                String::new()
            } else {
                format!("{count} replacements made")
            },
            text: Some(text),
            found: None,
        })
    }
}

impl TypedModule for ReplaceModule {
    const NAME: &'static str = "replace";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.replace", "ansible.legacy.replace"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "as `copy`";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Replaces every match of a regular expression in a text file";
    const EXAMPLE: &'static str = "\
- name: The archive's new name
  replace:
    path: /etc/hosts
    regexp: \\bpacs-old\\b
    replace: pacs-new
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        edit::undo(efforts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edited(mut arguments: Value, old: &str) -> (String, String) {
        arguments["path"] = "/x".into();
        let module: ReplaceModule = serde_json::from_value(arguments).expect("arguments");
        let edited = module.edit(Some(old)).expect("edits");
        (edited.text.expect("text"), edited.message)
    }

    #[test]
    fn every_line_is_looked_at_and_groups_are_filled() {
        let arguments = json!({"regexp": "^a (\\d)$", "replace": "<\\1>"});
        let (text, message) = edited(arguments.clone(), "a 1\nb 2\na 3\n");
        assert_eq!(
            (text.as_str(), message.as_str()),
            ("<1>\nb 2\n<3>\n", "2 replacements made")
        );
        assert_eq!(edited(arguments, &text), (text, String::new()));
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error_before_anything_is_written() {
        for replace in ["\\2", "\\10", "\\g<2>", "\\g<name>", "\\d", "end\\"] {
            // Also where nothing matches, as in Python.
            for old in ["a 1\n", "b\n"] {
                let arguments = json!({"path": "/x", "regexp": "^a (\\d)$", "replace": replace});
                let module: ReplaceModule = serde_json::from_value(arguments).expect("arguments");
                assert!(module.edit(Some(old)).is_err(), "{replace}");
            }
        }
    }

    #[test]
    fn only_the_section_is_touched_and_nothing_where_there_is_none() {
        let arguments = json!({"regexp": "x", "replace": "y", "after": "^A\n", "before": "B"});
        assert_eq!(edited(arguments.clone(), "A\nx\nB x\n").0, "A\ny\nB x\n");
        let (text, message) = edited(arguments, "x\n");
        assert_eq!(text, "x\n");
        assert!(message.starts_with("Pattern for before/after"), "{message}");
    }
}
