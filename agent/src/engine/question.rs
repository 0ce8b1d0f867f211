//! What an operator is asked, and told, where only an operator can decide: what the task was doing, what
//! was found, and what either answer leads to.

use serde_json::Value;

use super::decide::Question;
use super::run::Engine;
use super::unit::text_of_value;
use crate::state::{Answer, Attempt, Fingerprint, Finished};
use crate::task::module::Advice;

impl Engine {
    /// The command that records an answer about a task, with the playbook and variables of this one.
    pub(super) fn answer_command(&self, identity: &str, answer: Answer) -> String {
        let how = match answer {
            Answer::Done => "--done",
            Answer::Redo => "--redo",
        };
        let task = quoted(identity);
        format!("{} {task} {how} --reason TEXT", self.command("resolve"))
    }

    /// A command of the agent's on this playbook, with the variables of this invocation.
    pub(super) fn command(&self, name: &str) -> String {
        let mut words = vec![self.options.operator.program(), name.to_owned()];
        words.extend(self.options.invocation.iter().cloned());
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        self.redactor.text(&words.join(" "))
    }

    /// Puts a module's advice and the two answers into lines; `done` and `redo` say what comes after.
    fn answers(&self, identity: &str, advice: &Advice, done: &str, redo: &str) -> Vec<String> {
        let line = |when: &str, then: &str, answer| {
            format!(
                "{then}, right when {when}: `{}`",
                self.answer_command(identity, answer)
            )
        };
        vec![
            format!("look {}", self.redactor.text(&advice.look)),
            line(&self.redactor.text(&advice.done), done, Answer::Done),
            line(&self.redactor.text(&advice.redo), redo, Answer::Redo),
        ]
    }

    /// What to say of an attempt of which the module cannot tell what became.
    pub(super) fn ask_about_interrupted(
        &self,
        identity: &str,
        attempt: &Attempt,
        (doing, found): (&str, &str),
        advice: &Advice,
    ) -> (String, Vec<String>) {
        let run = &attempt.run;
        let why = match &attempt.unseen {
            None => format!("interrupted in run {run} while {doing}; found now: {found}"),
            Some(seen) => format!(
                "nobody saw how it ended in run {run} ({seen}) while {doing}; found now: {found}"
            ),
        };
        let done = "it is passed over from now on";
        (why, self.answers(identity, advice, done, "it runs again"))
    }

    /// What to say of a one-way task whose arguments or input files are no longer those of then.
    pub(super) fn ask_about_changed(
        &self,
        identity: &str,
        question: &Question<'_>,
        (now, fingerprint): (&Value, &Fingerprint),
        advice: &Advice,
    ) -> (String, Vec<String>) {
        let (why, then, old) = match question {
            Question::UndoInterrupted { run } => {
                let why = format!("its undo was begun in run {run} and has not come to its end");
                let finish = format!("finish it first: `{}`", self.command("rollback"));
                return (why, vec![finish]);
            }
            Question::ChangedAfterDone(Finished {
                run,
                arguments,
                fingerprint,
                summary,
                ..
            }) => {
                let what = summary
                    .as_ref()
                    .map_or_else(String::new, |text| format!(" ({text})"));
                let why = format!(
                    "done in run {run}{what}, but what it depends on has changed since, and it \
                     cannot be repeated unasked"
                );
                (why, arguments, fingerprint)
            }
            Question::ChangedAfterInterruption(Attempt {
                run,
                module,
                arguments,
                fingerprint,
                ..
            }) => {
                let why = format!(
                    "interrupted in run {run} while `{module}` was at work, and what it depends on \
                     has changed since, so that nobody can tell what became of it"
                );
                (why, arguments, fingerprint)
            }
        };
        let mut details = differences("", then, now);
        for (path, hash) in &fingerprint.files {
            if old.files.get(path).is_some_and(|before| before != hash) {
                details.push(format!("content of {} differs", path.display()));
            }
        }
        for (service, runs_on) in &fingerprint.services {
            if let Some(before) = old.services.get(service) {
                details.extend(differences(&format!("service {service}"), before, runs_on));
            }
        }
        if details.is_empty() {
            details.push("the task's module, or a long argument, is another".into());
        }
        details.push(match question {
            Question::ChangedAfterDone(_) => {
                "changed by mistake: put the old value back and run again; nothing is repeated"
                    .into()
            }
            Question::ChangedAfterInterruption(_) | Question::UndoInterrupted { .. } => {
                "changed by mistake: put the old value back and run again; the task is then looked \
                 at with the values it was started with"
                    .into()
            }
        });
        details.extend(self.answers(
            identity,
            advice,
            "it counts as done with the new values",
            "it runs with the new values, on top of what it has done",
        ));
        (why, details)
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Lists where two argument values differ: `path: old -> new`.
pub(super) fn differences(path: &str, old: &Value, new: &Value) -> Vec<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            let null = Value::Null;
            keys.into_iter()
                .flat_map(|key| {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    let (old, new) = (old.get(key).unwrap_or(&null), new.get(key).unwrap_or(&null));
                    differences(&path, old, new)
                })
                .collect()
        }
        (old, new) if old == new => Vec::new(),
        (old, new) => {
            let show = |value: &Value| match value {
                Value::Null => "(not given)".to_owned(),
                value => text_of_value(value),
            };
            vec![format!("{path}: {} -> {}", show(old), show(new))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_are_quoted_as_a_shell_needs_them() {
        assert_eq!(quoted("@my-site.yaml"), "@my-site.yaml");
        assert_eq!(quoted("It's / done [5.27]"), r"'It'\''s / done [5.27]'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn differences_name_the_path_and_both_values() {
        let found = differences(
            "",
            &json!({"src": "/a", "env": {"X": "1"}, "same": true}),
            &json!({"src": "/b", "env": {"X": "1", "Y": "2"}, "same": true}),
        );
        assert_eq!(found, ["env.Y: (not given) -> 2", "src: /a -> /b"]);
    }
}
