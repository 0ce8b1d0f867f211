//! Ansible's everyday filters, where the engine has none or behaves differently.

mod collections;
mod data;
mod more;
mod texts;

pub(super) use self::texts::pattern;

use minijinja::Environment;

/// Every filter there is, the engine's own included; for checks before a run and for suggestions.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "b64decode",
    "b64encode",
    "basename",
    "batch",
    "bool",
    "capitalize",
    "center",
    "chain",
    "checksum",
    "combinations",
    "combine",
    "comment",
    "count",
    "d",
    "default",
    "dict2items",
    "dictsort",
    "difference",
    "dirname",
    "e",
    "escape",
    "expanduser",
    "extract",
    "filesizeformat",
    "first",
    "flatten",
    "float",
    "format",
    "from_json",
    "from_yaml",
    "groupby",
    "hash",
    "human_readable",
    "human_to_bytes",
    "indent",
    "int",
    "intersect",
    "items",
    "items2dict",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "log",
    "lower",
    "mandatory",
    "map",
    "max",
    "md5",
    "min",
    "normpath",
    "path_join",
    "permutations",
    "pow",
    "pprint",
    "product",
    "quote",
    "realpath",
    "regex_escape",
    "regex_findall",
    "regex_replace",
    "regex_search",
    "reject",
    "rejectattr",
    "relpath",
    "replace",
    "reverse",
    "root",
    "round",
    "safe",
    "select",
    "selectattr",
    "sha1",
    "slice",
    "sort",
    "split",
    "splitext",
    "splitlines",
    "strftime",
    "string",
    "subelements",
    "sum",
    "symmetric_difference",
    "ternary",
    "title",
    "to_json",
    "to_nice_json",
    "to_nice_yaml",
    "to_yaml",
    "tojson",
    "trim",
    "truncate",
    "type_debug",
    "union",
    "unique",
    "upper",
    "urlencode",
    "urlsplit",
    "wordcount",
    "zip",
    "zip_longest",
];

pub(super) fn add_to(environment: &mut Environment<'static>) {
    collections::add_to(environment);
    data::add_to(environment);
    more::add_to(environment);
    texts::add_to(environment);
}

#[cfg(test)]
mod checks {
    /// The engine tells an unknown filter from a wrong use of a known one.
    #[test]
    fn every_listed_filter_and_test_exists() {
        let templates = crate::template::Templates::new();
        for name in super::FILTERS {
            let source = format!("{{{{ '{name}' is filter }}}}");
            assert_eq!(
                templates.playbook.render_str(&source, ()).ok().as_deref(),
                Some("True"),
                "{name}"
            );
        }
        for name in crate::template::predicates::TESTS {
            let source = format!("{{{{ '{name}' is test }}}}");
            assert_eq!(
                templates.playbook.render_str(&source, ()).ok().as_deref(),
                Some("True"),
                "{name}"
            );
        }
    }
}
