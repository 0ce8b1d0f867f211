//! The JSON Schema of whole playbook files, for editors with a YAML language server. Made from the
//! keywords and the modules' argument types; draft-07, which such servers know best.
//!
//! An editor sees text before templates are rendered and before variables are known, so wherever a
//! value may come from a template the schema lets one stand. It is a help for writing; `run
//! --syntax-check` finds more (names, templates, files) and has the last word.

use serde_json::{Map, Value, json};

use super::arguments::schema_of;
use super::declared::ValueType;
use crate::modules::registry;
use crate::task::module::ModuleSpec;

/// Where the definitions are.
const DEFINITIONS: &str = "#/definitions/";
/// A text with a template.
const TEMPLATE: &str = r"\{\{|\{%";
/// What may stand for a truth value (YAML 1.1's words among them), or a template.
const TRUTH: &str =
    r"\{\{|\{%|^([Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF|[Tt]rue|TRUE|[Ff]alse|FALSE|[yYnN01])$";
/// A whole number in quotes, or a template.
const NUMBER: &str = r"\{\{|\{%|^[+-]?[0-9_]+(\.[0-9]+)?$";

/// Returns the schema of a playbook, or of a file with tasks that a playbook includes.
#[must_use]
pub fn playbook_schema() -> Value {
    let mut definitions = keywords();
    let mut modules = Map::new();
    let mut one_of = Vec::new();
    for module in registry::all() {
        definitions.insert(module_key(module), arguments_of(module));
        for (name, own) in inner_types(module) {
            definitions.insert(name, own);
        }
        for name in std::iter::once(&module.name).chain(module.aliases) {
            let reference = reference(&module_key(module));
            modules.insert((*name).to_owned(), described(reference, module.summary));
            one_of.push(json!({"required": [name]}));
        }
    }
    for keyword in ["action", "local_action"] {
        one_of.push(json!({"required": [keyword]}));
    }
    let mut task = common();
    task.extend(task_keywords());
    task.extend(modules.clone());
    definitions.insert(
        "task".into(),
        json!({
            "type": "object",
            "description": "One module with its arguments",
            "properties": task, "additionalProperties": false, "oneOf": one_of,
        }),
    );
    definitions.insert(
        "one_module".into(),
        json!({
            "type": "object", "properties": modules, "additionalProperties": false,
            "minProperties": 1, "maxProperties": 1,
        }),
    );
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Playbook of kaapana-agent",
        "type": "array",
        "items": {
            "if": {"anyOf": [{"required": ["hosts"]}, {"required": ["tasks"]}]},
            "then": reference("play"),
            "else": {
                "if": {"anyOf": import_names("import_playbook")},
                "then": reference("import_playbook"),
                "else": reference("item"),
            },
        },
        "definitions": definitions,
    })
}

fn value_types() -> Vec<&'static str> {
    ValueType::NAMES.iter().map(|(name, _)| *name).collect()
}

fn module_key(module: &ModuleSpec) -> String {
    format!("module.{}", module.name)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{DEFINITIONS}{name}")})
}

/// Draft-07 overlooks what stands beside `$ref`, so the text goes around it.
fn described(schema: Value, text: &str) -> Value {
    json!({"description": text, "allOf": [schema]})
}

fn import_names(keyword: &str) -> Vec<Value> {
    ["", "ansible.builtin.", "ansible.legacy."]
        .iter()
        .map(|prefix| json!({"required": [format!("{prefix}{keyword}")]}))
        .collect()
}

fn include_names() -> Vec<Value> {
    [import_names("import_tasks"), import_names("include_tasks")].concat()
}

fn with_names(keywords: &[&str], schema: &Value) -> Map<String, Value> {
    keywords
        .iter()
        .flat_map(|keyword| {
            ["", "ansible.builtin.", "ansible.legacy."]
                .map(|prefix| (format!("{prefix}{keyword}"), schema.clone()))
        })
        .collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Keywords that make no difference here.
fn without_effect() -> Map<String, Value> {
    let mut all: Map<String, Value> = super::load::WITHOUT_EFFECT
        .iter()
        .map(|keyword| {
            (
                (*keyword).to_owned(),
                json!({"description": "Without effect here"}),
            )
        })
        .collect();
    all.extend(object(json!({
        "become_user": {"const": "root"},
        "connection": {"const": "local"},
        "delegate_to": {"enum": ["localhost", "127.0.0.1"]},
        "strategy": {"enum": ["linear", "free", "host_pinned"]},
    })));
    all
}

/// Loops, of tasks and of `include_tasks`.
fn loops() -> Map<String, Value> {
    let mut all: Map<String, Value> = super::load::LOOPS
        .iter()
        .map(|(keyword, _)| {
            let text = "Once for each item, as Ansible makes them of this";
            ((*keyword).to_owned(), json!({"description": text}))
        })
        .collect();
    all.extend(object(json!({
        "loop": described(reference("list"), "Once for each item, known as `item`"),
        "loop_control": {
            "type": "object", "additionalProperties": false,
            "properties": {
                "loop_var": described(reference("variable"), "Name of the item; `item`"),
                "index_var": described(reference("variable"), "Name of the item's number"),
                "label": described(reference("text"), "What stands for the item in output and identity"),
                "extended": described(reference("fixed_truth"), "`ansible_loop` tells where the loop is"),
                "extended_allitems": reference("fixed_truth"),
                "pause": described(reference("number"), "Seconds between two items"),
            },
        },
    })));
    all
}

/// Keywords that tasks, blocks and includes share.
fn common() -> Map<String, Value> {
    let mut all = without_effect();
    all.extend(object(json!({
        "name": described(reference("text"), "Name for people; templates are rendered"),
        "when": described(reference("expressions"), "Runs only if all of these are true; without braces"),
        "vars": described(reference("vars"), "Variables for this task or block"),
        "tags": described(reference("texts"), "For `--tags` and `--skip-tags`"),
        "environment": described(reference("mapping"), "Environment of programs that the task starts"),
        "become": described(reference("truth"), "Asks for root"),
        "ignore_errors": described(reference("truth"), "A failure does not stop the play"),
        "check_mode": described(reference("truth"), "Predict only, or really run in check mode"),
        "diff": described(reference("truth"), "Show how files change, line by line"),
        "no_log": described(reference("fixed_truth"), "Keep arguments and results out of journal, log and output"),
    })));
    all
}

fn task_keywords() -> Map<String, Value> {
    let mut all = loops();
    all.extend(object(json!({
        "action": {"description": "A module and its arguments, in the old form"},
        "local_action": {"description": "As `action`"},
        "id": described(reference("fixed_text"), "A stable identity: the task may then be renamed"),
        "register": described(reference("variable"), "Variable that gets the result"),
        "until": described(reference("expressions"), "Tries again until all of these are true"),
        "retries": described(reference("number"), "Tries beyond the first; with `until` 3"),
        "delay": described(reference("number"), "Seconds between tries; 5"),
        "timeout": described(reference("number"), "Seconds after which the task is stopped"),
        "notify": described(reference("texts"), "Handlers that run at the end if this changes something"),
        "listen": described(reference("texts"), "Topics that notify this handler"),
        "failed_when": described(reference("expressions"), "Fails if all of these are true"),
        "changed_when": described(reference("expressions"), "Counts as changed if all of these are true"),
        "done_when": described(
            json!({"anyOf": [reference("expressions"), reference("probe")]}),
            "Its effect is there already if all of these are true",
        ),
        "undone_by": described(reference("fixed_text"), "`id` of the earlier task with which `rollback` takes this one's effect away"),
        "again_until": described(reference("texts"), "`id`s of later tasks: a later run looks again until one of them has begun"),
        "args": described(reference("mapping"), "More arguments of the module"),
    })));
    all
}

/// Definitions that do not depend on modules.
fn keywords() -> Map<String, Value> {
    let mut definitions = object(json!({
        "text": {"type": ["string", "number", "boolean", "null"]},
        "fixed_text": {"type": ["string", "number", "boolean"], "not": {"type": "string", "pattern": TEMPLATE}},
        "variable": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "argument_spec": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": {
                "type": "object", "additionalProperties": false, "required": ["description"],
                "properties": {
                    "type": {"enum": value_types()},
                    "elements": {"enum": value_types()},
                    "choices": {"type": "array"},
                    "default": {"description": "Its value where nobody sets it"},
                    "required": described(reference("fixed_truth"), "It has to be set"),
                    "description": {"type": "string", "description": "What it is for, in one line"},
                    "no_log": described(reference("fixed_truth"), "Its value is written nowhere"),
                    "settled": described(reference("fixed_truth"), "It may not change once the play has had an effect"),
                },
            },
        },
        "truth": {"anyOf": [{"type": ["boolean", "null"]}, {"type": "string", "pattern": TRUTH}]},
        "fixed_truth": {"type": ["boolean", "null"]},
        "number": {"anyOf": [{"type": ["number", "null"]}, {"type": "string", "pattern": NUMBER}]},
        "expressions": {"anyOf": [
            {"type": ["string", "boolean", "null"]},
            {"type": "array", "items": {"type": ["string", "boolean"]}},
        ]},
        "texts": {"anyOf": [
            {"type": ["string", "number", "boolean", "null"]},
            {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
        ]},
        "probe": {
            "type": "object", "additionalProperties": false, "required": ["probe", "that"],
            "properties": {
                "probe": described(reference("mapping"), "A module that only looks, with its arguments"),
                "that": described(reference("expressions"), "What must be true of what it found, `probe`"),
            },
        },
        "list": {"anyOf": [{"type": "array"}, {"type": "string", "pattern": TEMPLATE}]},
        "mapping": {"anyOf": [{"type": ["object", "null"]}, {"type": "string", "pattern": TEMPLATE}]},
        "vars": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        },
        "items": {"type": ["array", "null"], "items": reference("item")},
        "item": {
            "if": {"required": ["block"]},
            "then": reference("block"),
            "else": {
                "if": {"anyOf": include_names()},
                "then": reference("include"),
                "else": reference("task"),
            },
        },
        "service": {
            "type": "object", "additionalProperties": false,
            "required": ["name"],
            "properties": {
                "name": described(reference("fixed_text"), "Name, for `service` of modules"),
                "docker_container": described(reference("mapping"), "Arguments of `docker_container`; `name` may be left out"),
                "community.docker.docker_container": reference("mapping"),
                "ready": described(reference("one_module"), "A module that succeeds when the service is up"),
                "ready_timeout": described(reference("number"), "Seconds; 120"),
            },
            "anyOf": [
                {"required": ["docker_container"]},
                {"required": ["community.docker.docker_container"]},
            ],
        },
    }));
    let mut block = common();
    block.extend(object(json!({
        "block": described(reference("items"), "Tasks that belong together"),
        "rescue": described(reference("items"), "What runs when one of them fails"),
        "always": described(reference("items"), "What runs in any case"),
        "module_defaults": described(reference("mapping"), "Arguments by module, where a task does not give them"),
        "before_undo_of": described(reference("fixed_text"), "`id` of an earlier task: these tasks run only in a rollback, before that one is taken back"),
        "services": {
            "description": "Containers that the tasks need, up only while one of them is to run",
            "type": ["array", "null"], "items": reference("service"),
        },
    })));
    definitions.insert(
        "block".into(),
        json!({"type": "object", "properties": block, "additionalProperties": false}),
    );
    let mut include = common();
    include.extend(loops());
    include.extend(with_names(&["import_tasks", "include_tasks"], &json!({
        "description": "A file with tasks, relative to this one",
        "anyOf": [
            {"type": "string"},
            {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"], "additionalProperties": false},
        ],
    })));
    definitions.insert(
        "include".into(),
        json!({"type": "object", "properties": include, "additionalProperties": false}),
    );
    let mut import = with_names(&["import_playbook"], &json!({"type": "string"}));
    import.extend(object(json!({
        "name": reference("text"), "vars": reference("vars"), "tags": reference("texts"),
    })));
    definitions.insert(
        "import_playbook".into(),
        json!({"type": "object", "properties": import, "additionalProperties": false}),
    );
    definitions.insert("play".into(), play());
    definitions
}

fn play() -> Value {
    let mut properties = without_effect();
    let items = |text: &str| described(reference("items"), text);
    properties.extend(object(json!({
            "name": described(reference("text"), "Name for people, and first part of every identity"),
            "hosts": described(reference("text"), "`localhost` or `all`"),
            "vars": described(reference("vars"), "Variables of the play"),
            "vars_prompt": {
                "description": "Variables that a person is asked for",
                "type": ["array", "null"],
                "items": {
                    "type": "object", "required": ["name"], "additionalProperties": false,
                    "properties": {
                        "name": reference("variable"), "prompt": reference("text"),
                        "private": reference("fixed_truth"), "confirm": reference("fixed_truth"),
                        "default": reference("text"), "unsafe": reference("fixed_truth"),
                    },
                },
            },
            "diff": described(reference("truth"), "Show how files change, line by line"),
            "argument_spec": {
                "description": "The variables that are set from outside, and the only ones; or files that declare them",
                "anyOf": [
                    {"$ref": "#/definitions/argument_spec"},
                    {"type": "string"},
                    {"type": "array", "items": {
                        "anyOf": [{"$ref": "#/definitions/argument_spec"}, {"type": "string"}],
                    }},
                ],
            },
            "vars_files": described(reference("texts"), "Files with variables, relative to the playbook"),
            "site": {"description": "Folder that all of the play's work belongs to: one state alone goes on there", "type": ["string", "null"]},
            "environment": described(reference("mapping"), "Environment of programs that tasks start"),
            "become": described(reference("truth"), "Asks for root"),
            "tags": described(reference("texts"), "For `--tags` and `--skip-tags`"),
            "no_log": described(reference("fixed_truth"), "Keep arguments and results out of journal, log and output"),
            "gather_facts": described(reference("fixed_truth"), "Run `setup` first"),
            "module_defaults": described(reference("mapping"), "Arguments by module, where a task does not give them"),
            "secrets": described(reference("texts"), "Variables whose values are written nowhere"),
            "pre_tasks": items("Tasks that come first"),
            "tasks": items("Tasks"),
            "post_tasks": items("Tasks that come last"),
            "handlers": {
                "description": "Tasks that run at the end if they were notified",
                "type": ["array", "null"], "items": reference("task"),
            },
    })));
    json!({
        "type": "object",
        "description": "Hosts, variables and tasks",
        "required": ["hosts"],
        "additionalProperties": false,
        "properties": properties,
    })
}

/// What may stand behind a module's name.
fn arguments_of(module: &ModuleSpec) -> Value {
    let schema = schema_of(module);
    let own = schema.as_object().cloned().unwrap_or_default();
    let mut mapping = object(object_of(&own, module));
    let required = mapping.remove("required");
    let aliases = aliases(&schema);
    // A required argument may also be given by another name, or below `args`.
    let mut all_of = Vec::new();
    for name in required.iter().filter_map(Value::as_array).flatten() {
        let others = aliases
            .iter()
            .filter(|(_, own)| Some(own.as_str()) == name.as_str())
            .map(|(alias, _)| json!({"required": [alias]}));
        let names: Vec<Value> = std::iter::once(json!({"required": [name]}))
            .chain(others)
            .collect();
        all_of.push(match names.as_slice() {
            [only] => only.clone(),
            _ => json!({"anyOf": names}),
        });
    }
    if !all_of.is_empty() {
        mapping.insert("allOf".into(), all_of.into());
    }
    // `path=/x state=directory`, or the free form.
    let text = match module.free_form {
        Some(_) => json!({}),
        None => json!({"type": ["string", "null"]}),
    };
    json!({
        "description": module.summary,
        "if": {"type": "object"}, "then": mapping, "else": text,
    })
}

/// Other names of arguments: alias -> name.
fn aliases(schema: &Value) -> Vec<(String, String)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .flat_map(|(name, property)| {
            let listed = property.get("aliases").and_then(Value::as_array);
            listed
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|alias| (alias.to_owned(), name.clone()))
        })
        .collect()
}

/// The types that a module's arguments refer to, under names of their own.
fn inner_types(module: &ModuleSpec) -> Vec<(String, Value)> {
    let schema = schema_of(module);
    let own = schema.get("$defs").and_then(Value::as_object);
    own.into_iter()
        .flatten()
        .map(|(name, inner)| {
            let key = format!("{}.{name}", module_key(module));
            (key, generous(inner, module))
        })
        .collect()
}

/// Takes whatever the agent would turn into what the schema wants: templates anywhere, numbers as
/// texts, YAML 1.1's words for truth, `a,b` for a list.
fn generous(schema: &Value, module: &ModuleSpec) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
        let name = target.rsplit('/').next().unwrap_or_default();
        return reference(&format!("{}.{name}", module_key(module)));
    }
    let mut own = Map::new();
    for key in ["description", "default"] {
        if let Some(value) = map.get(key).filter(|value| !value.is_null()) {
            own.insert(key.into(), value.clone());
        }
    }
    let forms = |key: &str| -> Option<Vec<Value>> {
        let list = map.get(key)?.as_array()?;
        Some(list.iter().map(|form| generous(form, module)).collect())
    };
    if let Some(forms) = forms("anyOf").or_else(|| forms("oneOf")) {
        own.insert("anyOf".into(), forms.into());
        return own.into();
    }
    if let Some(forms) = forms("allOf") {
        own.insert("allOf".into(), forms.into());
        return own.into();
    }
    let template = json!({"type": "string", "pattern": TEMPLATE});
    if let Some(value) = map.get("const") {
        own.insert("anyOf".into(), json!([{"const": value}, template]));
        return own.into();
    }
    if let Some(values) = map.get("enum") {
        own.insert("anyOf".into(), json!([{"enum": values}, template]));
        return own.into();
    }
    let kinds: Vec<&str> = match map.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return own.into(),
    };
    let any: Vec<Value> = kinds
        .iter()
        .flat_map(|kind| match *kind {
            "string" => vec![json!({"type": ["string", "number", "boolean"]})],
            "boolean" => vec![
                json!({"type": "boolean"}),
                json!({"type": "string", "pattern": TRUTH}),
            ],
            "integer" | "number" => {
                let mut number = object(json!({"type": kind}));
                for limit in ["minimum", "maximum"] {
                    number.extend(
                        map.get(limit)
                            .map(|value| (limit.to_owned(), value.clone())),
                    );
                }
                vec![number.into(), json!({"type": "string", "pattern": NUMBER})]
            }
            "array" => {
                let mut array = object(json!({"type": "array"}));
                if let Some(items) = map.get("items") {
                    array.insert("items".into(), generous(items, module));
                }
                vec![array.into(), json!({"type": ["string", "number"]})]
            }
            "object" => vec![object_of(map, module), template.clone()],
            other => vec![json!({"type": other})],
        })
        .collect();
    own.insert("anyOf".into(), any.into());
    own.into()
}

fn object_of(map: &Map<String, Value>, module: &ModuleSpec) -> Value {
    let mut own = object(json!({"type": "object"}));
    if let Some(Value::Object(properties)) = map.get("properties") {
        let mut fitted: Map<String, Value> = properties
            .iter()
            .map(|(name, inner)| (name.clone(), nullable(generous(inner, module))))
            .collect();
        for (alias, name) in aliases(&Value::Object(map.clone())) {
            let same = fitted.get(&name).cloned().unwrap_or_default();
            fitted.insert(alias, same);
        }
        own.insert("properties".into(), fitted.into());
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(open)) => {
            own.insert("additionalProperties".into(), (*open).into());
        }
        Some(inner) => {
            own.insert("additionalProperties".into(), generous(inner, module));
        }
        None => {}
    }
    if let Some(required) = map.get("required") {
        own.insert("required".into(), required.clone());
    }
    own.into()
}

/// `key:` without a value counts as not given.
fn nullable(schema: Value) -> Value {
    let mut map = object(schema);
    let text = map.remove("description");
    let mut forms = match map.remove("anyOf") {
        Some(Value::Array(forms)) => forms,
        _ if map.is_empty() => return text.map_or(json!({}), |text| json!({"description": text})),
        _ => vec![Value::Object(std::mem::take(&mut map))],
    };
    if !forms.contains(&json!({"type": "null"})) {
        forms.push(json!({"type": "null"}));
    }
    map.insert("anyOf".into(), forms.into());
    map.extend(text.map(|text| ("description".to_owned(), text)));
    map.into()
}
