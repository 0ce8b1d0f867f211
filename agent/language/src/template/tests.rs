//! What templates promise.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Scope, Syntax, Templates, is_omitted};
use crate::fixtures::node;
use crate::model::{NodeKind, Vars};

fn vars(text: &str) -> Vars {
    match node(text).kind {
        NodeKind::Mapping(entries) => entries,
        _ => Vec::new(),
    }
}

fn scope(text: &str) -> Scope {
    let mut scope = Scope::new();
    scope.push_vars(&vars(text));
    scope
}

fn render(template: &str, variables: &str) -> Result<Value, String> {
    Templates::new()
        .render(&node(template), &scope(variables))
        .map_err(|problem| {
            let (line, column) = problem.at.line_column();
            let help = problem.help.map(|help| format!(" = {help}"));
            format!(
                "{line}:{column} {}{}",
                problem.message,
                help.unwrap_or_default()
            )
        })
}

fn condition(expression: &str, variables: &str) -> Result<bool, String> {
    Templates::new()
        .condition(&node(expression), &scope(variables))
        .map_err(|problem| {
            let (line, column) = problem.at.line_column();
            format!("{line}:{column} {}", problem.message)
        })
}

#[test]
fn a_lone_expression_keeps_its_type_and_mixed_text_is_text() {
    let variables = "{n: 5, b: yes, l: [1, two], m: {z: 1, a: 2}, e: null, t: x}";
    for (template, expected) in [
        ("'{{ n }}'", json!(5)),
        ("'{{ b }}'", json!(true)),
        ("'{{ l }}'", json!([1, "two"])),
        ("'{{ m }}'", json!({"z": 1, "a": 2})),
        ("'{{ e }}'", json!(null)),
        ("'a{{ n }}'", json!("a5")),
        ("'{{ b }} {{ e }}.'", json!("True .")),
        (
            "'{{ l }} {{ [e] }} {{ m }}'",
            json!("[1, 'two'] [None] {'z': 1, 'a': 2}"),
        ),
        ("'{{ m.z }}{{ m[\"a\"] }}'", json!("12")),
        ("'{% if b %}yes{% endif %}'", json!("yes")),
        ("\"{% if b %}\\nyes{% endif %}\\n\"", json!("yes\n")),
        (
            "{a: '{{ n }}', b: ['{{ t }}']}",
            json!({"a": 5, "b": ["x"]}),
        ),
        ("{'{{ t }}': 1}", json!({"x": 1})),
        ("'{{ {\"k\": {\"j\": 1}} }}'", json!({"k": {"j": 1}})),
        ("'{% raw %}{{ x }}{% endraw %}'", json!("{{ x }}")),
        (r"'{{ ''a\d'' }}'", json!(r"a\d")),
        (r"'{{ ''a\n'' }}!'", json!("a\\n!")),
        ("'{{ 7 / 2 }}'", json!(3.5)),
        ("'{{ vars[\"n\"] }}'", json!(5)),
    ] {
        assert_eq!(render(template, variables), Ok(expected), "{template}");
    }
}

#[test]
fn omitted_entries_and_items_are_left_out() {
    let template = "{a: '{{ x | default(omit) }}', b: [1, '{{ omit }}'], c: '{{ y }}'}";
    assert_eq!(render(template, "{y: 2}"), Ok(json!({"b": [1], "c": 2})));
    let alone = render("'{{ x | default(omit) }}'", "{y: 2}");
    assert!(alone.is_ok_and(|value| is_omitted(&value)));
    assert_eq!(
        render("'a {{ omit }}'", "{}"),
        Err(
            "1:1 `omit` stands inside a text = make the whole value one expression: \"{{ … | \
             default(omit) }}\""
                .to_owned()
        )
    );
}

#[test]
fn variables_refer_to_variables_of_stronger_layers() {
    let templates = Templates::new();
    let scope = scope("{a: '{{ b }}/x', b: '{{ c }}', c: low}");
    let text = node("'{{ a }}'");
    assert_eq!(templates.render(&text, &scope).ok(), Some(json!("low/x")));
    let child = {
        let mut child = scope.child();
        child.push_vars(&vars("{c: task}"));
        child
    };
    assert_eq!(templates.render(&text, &child).ok(), Some(json!("task/x")));
    assert_eq!(templates.render(&text, &scope).ok(), Some(json!("low/x")));
    scope.set("c", json!("fact"));
    assert_eq!(templates.render(&text, &scope).ok(), Some(json!("fact/x")));
    assert_eq!(templates.render(&text, &child).ok(), Some(json!("fact/x")));
}

#[test]
fn results_are_never_rendered_again() {
    let scope = Scope::new();
    scope.set("out", json!({"stdout": "{{ secret }}"}));
    let rendered = Templates::new().render(&node("'{{ out.stdout }}'"), &scope);
    assert_eq!(rendered.ok(), Some(json!("{{ secret }}")));
}

#[test]
fn loops_that_would_go_on_for_days_are_given_up() {
    let template =
        "'{% for a in range(99999) %}{% for b in range(99999) %}{{ 1 }}{% endfor %}{% endfor %}'";
    let given_up = render(template, "{}").expect_err("it does not end");
    assert!(given_up.contains("too many steps"), "{given_up}");
}

#[test]
fn mistakes_name_place_and_reason() {
    let variables = "
backup_dir: /b
a: '{{ b }}'
b: '{{ a }}'
broken: 'x {{ nowhere }}'
m: {k: 1}
n: 5
secret: hunter2
";
    for (template, expected) in [
        (
            "'in {{ backup_dri }}'",
            "1:8 `backup_dri` is undefined = did you mean `backup_dir`?",
        ),
        (
            "'{{ backup_dri }}'",
            "1:5 `backup_dri` is undefined = did you mean `backup_dir`?",
        ),
        ("'{{ m.x }}'", "1:5 `m.x` is undefined"),
        ("'{{ m.x.y }}'", "1:6 `m.x` is undefined"),
        ("|\n  a\n  {{ nix }}\n", "3:6 `nix` is undefined"),
        ("'{{ [nix] }}'", "1:5 something in this value is undefined"),
        (
            "'{{ a }}'",
            "3:4 the variables lead back to themselves: a -> b -> a",
        ),
        ("'{{ broken }}'", "5:15 `nowhere` is undefined"),
        ("'{{ n | nofilter }}'", "1:9 there is no filter `nofilter`"),
        (
            "'{{ n | dirnam }}'",
            "1:9 there is no filter `dirnam` = did you mean `dirname`?",
        ),
        (
            "'{{ n is chnged }}'",
            "1:10 there is no test `chnged` = did you mean `changed`?",
        ),
        (
            "'{{ n + \"a\" }}'",
            "1:5 tried to use + operator on unsupported types number and string",
        ),
        (
            "'{{ secret - 1 }}'",
            "1:5 tried to use - operator on unsupported types string and number",
        ),
        (
            "'{{ secret | from_json }}'",
            "1:14 `from_json` is given something that is not JSON",
        ),
        (
            "'{{ lookup(\"pipe\", \"id\") }}'",
            "1:5 there is no lookup `pipe` here: file, env, vars, first_found, fileglob, dict, items, flattened and list are known; what a program prints is a `command` with `register`",
        ),
        (
            "'{{ n + }}'",
            "1:7 the template is not valid: unexpected end of input, expected expression = an expression is missing, or braces stand inside an expression",
        ),
        (
            "'{{ nix | mandatory }}'",
            "1:11 a mandatory variable is not defined",
        ),
    ] {
        assert_eq!(
            render(template, variables),
            Err(expected.to_owned()),
            "{template}"
        );
    }
    assert_eq!(
        render(
            "'{{ broken | default(1) }} {{ m.x is defined }}'",
            variables
        ),
        Ok(json!("1 False"))
    );
}

#[test]
fn conditions_must_give_a_boolean() {
    let variables = "{t: text, n: 1, b: 'no', r: {changed: true, failed: false}}";
    for (expression, expected) in [
        ("n == 1 and t != 'x'", Ok(true)),
        ("yes", Ok(true)),
        ("r is changed", Ok(true)),
        ("r is failed or r is skipped", Ok(false)),
        ("r is succeeded", Ok(true)),
        ("b | bool", Ok(false)),
        ("nix is defined", Ok(false)),
        ("nix | default(false)", Ok(false)),
        ("'{{ n == 1 }}'", Ok(true)),
        (
            "t",
            Err("1:1 a condition must give true or false, and this gives a text"),
        ),
        (
            "n",
            Err("1:1 a condition must give true or false, and this gives a number"),
        ),
        (
            "[1]",
            Err("1:1 a condition must give true or false, and this gives a list"),
        ),
        ("nix", Err("1:1 `nix` is undefined")),
        ("n == 1 and nix", Err("1:1 `nix` is undefined")),
        ("nix == 1", Err("1:1 `nix` is undefined")),
    ] {
        assert_eq!(
            condition(expression, variables),
            expected.map_err(str::to_owned),
            "{expression}"
        );
    }
}

#[test]
fn filters_and_tests_behave_as_in_ansible() {
    let variables = r"
l: [3, 1, 3]
m: {b: 1, a: {x: 1}}
s: Häuser
users: [{name: a, up: true}, {name: b, up: false}]
";
    for (expression, expected) in [
        ("'yes' | bool", json!(true)),
        ("'x' | bool", json!(false)),
        ("'12' | int + 1", json!(13)),
        ("'x' | int", json!(0)),
        ("'0x1f' | int(base=16)", json!(31)),
        ("'1.9' | int", json!(1)),
        ("none | default('d', true)", json!("d")),
        ("'' | default('d', true)", json!("d")),
        ("nix | default({}) | length", json!(0)),
        ("l | unique | sort | join('-')", json!("1-3")),
        ("l | difference([3])", json!([1])),
        ("l | union([4])", json!([3, 1, 4])),
        ("l | intersect([1, 9])", json!([1])),
        ("l | sum", json!(7)),
        ("l | max", json!(3)),
        ("users | map(attribute='name') | list", json!(["a", "b"])),
        (
            "users | selectattr('up') | map(attribute='name') | first",
            json!("a"),
        ),
        (
            "users | selectattr('name', 'equalto', 'b') | list | length",
            json!(1),
        ),
        (
            "users | rejectattr('up') | map(attribute='name') | last",
            json!("b"),
        ),
        ("['a', 'b'] | map('upper') | list", json!(["A", "B"])),
        ("['ab', 'c'] | select('match', 'a') | list", json!(["ab"])),
        (
            "m | dict2items",
            json!([{"key": "b", "value": 1}, {"key": "a", "value": {"x": 1}}]),
        ),
        (
            "m | dict2items | items2dict",
            json!({"b": 1, "a": {"x": 1}}),
        ),
        (
            "m | combine({'a': {'y': 2}}, recursive=true)",
            json!({"b": 1, "a": {"x": 1, "y": 2}}),
        ),
        ("m | combine({'a': 0})", json!({"b": 1, "a": 0})),
        ("m.keys() | list", json!(["b", "a"])),
        ("m.items() | list | first", json!(["b", 1])),
        ("m.get('z', 7)", json!(7)),
        ("'a-b'.split('-')", json!(["a", "b"])),
        ("' x '.strip().startswith('x')", json!(true)),
        ("','.join(['a', 'b'])", json!("a,b")),
        ("'/a/b.c' | basename", json!("b.c")),
        ("'/a/b.c' | dirname", json!("/a")),
        ("'/a' | dirname", json!("/")),
        ("'b' | dirname", json!("")),
        ("'/a/b.tar.gz' | splitext", json!(["/a/b.tar", ".gz"])),
        (
            r"'v1.2' | regex_replace('^v(\d+)\.(\d+)$', '\2.\1')",
            json!("2.1"),
        ),
        (r"'port 80' | regex_search('\d+')", json!("80")),
        (
            r"'port 80' | regex_search('(\w+) (\d+)', '\2', '\1')",
            json!(["80", "port"]),
        ),
        (r"'no' | regex_search('\d+')", json!(null)),
        (r"'a1b2' | regex_findall('\d')", json!(["1", "2"])),
        ("m | to_json", json!(r#"{"b": 1, "a": {"x": 1}}"#)),
        ("s | to_json", json!(r#""H\u00e4user""#)),
        (
            "m | to_nice_json",
            json!("{\n    \"a\": {\n        \"x\": 1\n    },\n    \"b\": 1\n}"),
        ),
        ("m | to_nice_yaml", json!("a:\n  x: 1\nb: 1\n")),
        ("('{\"a\": [1]}' | from_json).a[0]", json!(1)),
        ("('a: yes' | from_yaml).a", json!(true)),
        ("'x' | b64encode", json!("eA==")),
        ("'eA==' | b64decode", json!("x")),
        (
            "'x' | hash",
            json!("11f6ad8ec52a2984abaafd7c3b516503785c2072"),
        ),
        ("'x' | hash('sha256') | length", json!(64)),
        (
            "'x' | hash('md5')",
            json!("9dd4e461268c8034f5c8564e155c67a6"),
        ),
        ("\"it's\" | quote", json!(r#"'it'"'"'s'"#)),
        ("1 | type_debug", json!("int")),
        ("(1 == 1) | ternary('a', 'b')", json!("a")),
        ("1610612736 | human_readable", json!("1.50 GB")),
        ("1500000 | filesizeformat", json!("1.5 MB")),
        ("'10G' | human_to_bytes", json!(10_737_418_240_i64)),
        ("[1, [2, [3]]] | flatten", json!([1, 2, 3])),
        ("[1, [2, [3]]] | flatten(levels=1)", json!([1, 2, [3]])),
        (
            "[1, 2] | zip(['a', 'b']) | list",
            json!([[1, "a"], [2, "b"]]),
        ),
        ("'a b' | split", json!(["a", "b"])),
        ("'9.6.24' is version('13', '<')", json!(true)),
        ("'0.10.0' is version('0.9', '>=')", json!(true)),
        ("'abc' is match('b')", json!(false)),
        ("'abc' is search('b')", json!(true)),
        ("'ABC' is regex('^a', ignorecase=true)", json!(true)),
        ("[1] is subset([1, 2])", json!(true)),
        ("[1, 2] is contains(2)", json!(true)),
        (
            "'/' is directory and '/' is exists and not '/nix-da' is exists",
            json!(true),
        ),
        ("2.5 | round", json!(2.0)),
        ("-2 | abs", json!(2)),
        ("1 in l", json!(true)),
        ("'a' ~ 1 ~ none", json!("a1None")),
    ] {
        let quoted = format!("'{{{{ {} }}}}'", expression.replace('\'', "''"));
        assert_eq!(render(&quoted, variables), Ok(expected), "{expression}");
    }
}

#[test]
fn a_template_file_has_escapes_and_places() {
    use crate::source::SourceFile;
    use std::sync::Arc;
    let file = |text: &str| {
        Arc::new(SourceFile {
            path: "a.j2".into(),
            text: text.to_owned(),
        })
    };
    let templates = Templates::new();
    let scope = scope("{x: 1}");
    let rendered = templates.render_file(
        &file("{{ x }}{{ '\\t' }}|\n{% if x %}\ny\n{% endif %}\n"),
        &scope,
        &Syntax::default(),
    );
    assert_eq!(rendered.ok().as_deref(), Some("1\t|\ny\n"));
    let failed = templates.render_file(&file("a\nb {{ y }}\n"), &scope, &Syntax::default());
    assert_eq!(
        failed.map_err(|problem| problem.at.to_string()),
        Err("a.j2:2:6".to_owned())
    );
}

proptest! {
    #[test]
    fn no_text_panics_the_templates(text in "[ {}%#'\"\\\\\\[\\]().|a-c0-9~+*=\n-]{0,40}") {
        let templates = Templates::new();
        let scope = scope("{a: 1, b: '{{ a }}', c: [1]}");
        let node = crate::model::Node {
            kind: NodeKind::String(text.clone()),
            at: node("x").at,
        };
        let _ = templates.render(&node, &scope);
        let _ = templates.condition(&node, &scope);
        let _ = templates.inspect_text(&text, &node.at);
        let _ = templates.inspect_expression(&text, &node.at);
    }
}
