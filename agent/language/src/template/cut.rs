//! Values that came back from the journal without their secrets. They look as what is left of them does, and
//! whoever reaches what was cut is noted.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::Value as Engine;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde_json::Value;

use super::value::from_json;

/// What of a result `no_log` leaves as it was.
const LEFT: &[&str] = &["changed", "failed", "skipped", "censored"];

/// What was cut from a value, and whose result it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// JSON pointers; the empty one stands for the whole.
    pub paths: Vec<String>,
    /// Identity of the task whose result it is.
    pub origin: String,
}

/// Who reached what was cut.
#[derive(Default)]
pub(super) struct Reached {
    times: AtomicU64,
    origins: Mutex<BTreeSet<String>>,
}

impl Reached {
    fn note(&self, origin: &str) {
        self.times.fetch_add(1, Ordering::Relaxed);
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if !origins.contains(origin) {
            origins.insert(origin.to_owned());
        }
    }

    /// How often something was reached.
    pub fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    /// Whose results were reached, since this was asked last.
    pub fn take(&self) -> BTreeSet<String> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *origins)
    }
}

/// A value with something missing, or a part of one.
#[derive(Clone)]
pub(super) struct Rest {
    pub value: Value,
    pub cut: Cut,
    pub reached: Arc<Reached>,
}

impl fmt::Debug for Rest {
    /// Nothing of the value: the engine prints this in its own messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
}

impl Rest {
    /// The engine's value, handed to a template: what of it is missing as a whole is reached by that.
    pub fn handed_out(self) -> Engine {
        if self.cut.paths.is_empty() {
            return from_json(&self.value);
        }
        if self.is_whole() && !self.is_censored() {
            self.note();
            return from_json(&self.value);
        }
        match self.value {
            Value::Object(_) | Value::Array(_) => Engine::from_object(self),
            value => from_json(&value),
        }
    }

    fn note(&self) {
        self.reached.note(&self.cut.origin);
    }

    fn is_whole(&self) -> bool {
        self.cut.paths.iter().any(String::is_empty)
    }

    /// Whether it is what `no_log` leaves of a result.
    fn is_censored(&self) -> bool {
        self.value.get("censored").is_some()
    }

    fn child(&self, name: &str, item: &Value) -> Engine {
        let name = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let below = |path: &String| {
            let rest = path.strip_prefix(&name)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let rest = Self {
            value: item.clone(),
            cut: Cut {
                paths: self.cut.paths.iter().filter_map(below).collect(),
                origin: self.cut.origin.clone(),
            },
            reached: Arc::clone(&self.reached),
        };
        rest.handed_out()
    }
}

impl Object for Rest {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.value {
            Value::Array(_) => ObjectRepr::Seq,
            _ => ObjectRepr::Map,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        match &self.value {
            Value::Array(items) => {
                let index = key.as_usize()?;
                let item = items.get(index)?;
                Some(self.child(&index.to_string(), item))
            }
            Value::Object(map) => {
                let name = key.as_str()?;
                match map.get(name) {
                    Some(item) => Some(self.child(name, item)),
                    None => {
                        if self.is_whole() && !LEFT.contains(&name) {
                            self.note();
                        }
                        None
                    }
                }
            }
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.value {
            Value::Array(items) => Enumerator::Seq(items.len()),
            Value::Object(map) => {
                if self.is_whole() {
                    self.note();
                }
                Enumerator::Values(map.keys().map(|key| Engine::from(key.as_str())).collect())
            }
            _ => Enumerator::NonEnumerable,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Rank, Scope, Templates};
    use super::Cut;
    use crate::fixtures::node;
    use crate::model::NodeKind;

    fn scope() -> Scope {
        let scope = Scope::new();
        let value = json!({
            "rc": 0, "stdout": "[hidden] x", "lines": ["a", "[hidden]"],
            "deep": {"a": {"b": "[hidden]"}, "c": 1},
        });
        let cut = |paths: &[&str]| Cut {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            origin: "Play / get".into(),
        };
        scope.set_cut(
            Rank::Set,
            "r",
            value,
            cut(&["/stdout", "/lines/1", "/deep/a/b"]),
        );
        scope.set_cut(Rank::Set, "w", json!("[hidden]"), cut(&[""]));
        let censored = json!({"censored": "no_log", "changed": true, "failed": false});
        scope.set_cut(Rank::Set, "q", censored, cut(&[""]));
        scope.set_cut(Rank::Set, "plain", json!("[hidden]"), cut(&[]));
        scope
    }

    #[test]
    fn only_what_was_cut_is_out_of_reach() {
        let templates = Templates::new();
        for (template, reached) in [
            ("{{ r.rc }}", false),
            ("{{ r.stdout }}", true),
            ("{{ r['stdout'] | length }}", true),
            ("{{ r.stdout is defined }}", true),
            ("{{ r.stdout | default('x') }}", true),
            ("{{ r.lines[0] }}", false),
            ("{{ r.lines | first }}", false),
            ("{{ r.lines | length }}", false),
            ("{{ r.lines[-1] }}", true),
            ("{{ r.lines | join(',') }}", true),
            ("{{ r.deep.c }}", false),
            ("{{ r.deep.a.b }}", true),
            ("{{ r.deep }}", true),
            ("{{ r }}", true),
            ("a {{ r }}", true),
            ("{{ r is failed }}", false),
            ("{{ r.nothing is defined }}", false),
            ("{% for line in r.lines %}{{ line }}{% endfor %}", true),
            ("{{ w }}", true),
            ("{{ plain }}", false),
            ("{{ q is changed }}", false),
            ("{{ q is skipped }}", false),
            ("{{ q.stdout | default('x') }}", true),
            ("{{ q }}", true),
            ("{{ lookup('vars', 'w') }}", true),
        ] {
            let scope = scope();
            let text = node(&format!("{template:?}"));
            let strict = templates.render(&text, &scope);
            let code = strict.as_ref().err().map(|problem| problem.code);
            assert_eq!(
                code,
                reached.then_some("playbook::secrets_cut"),
                "{template}: {strict:?}"
            );
            let _ = scope.take_reached();
            let lenient = templates.render(&text, &scope.lenient());
            assert!(lenient.is_ok(), "{template}: {lenient:?}");
            assert_eq!(!scope.take_reached().is_empty(), reached, "{template}");
        }
    }

    #[test]
    fn what_rests_on_it_is_out_of_reach_however_often_it_is_asked_for() {
        let mut scope = scope();
        let NodeKind::Mapping(vars) = node("{user: '{{ w }}', other: 1}").kind else {
            panic!("a mapping")
        };
        scope.push_vars(&vars);
        let templates = Templates::new();
        for _ in 0..2 {
            assert!(templates.render(&node("'{{ user }}'"), &scope).is_err());
            assert!(templates.render(&node("'{{ other }}'"), &scope).is_ok());
        }
        scope.set("w", json!("whole"));
        let whole = templates.render(&node("'{{ user }}'"), &scope);
        assert_eq!(whole.ok(), Some(json!("whole")));
    }
}
