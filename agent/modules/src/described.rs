//! What every module owes its users.

use crate::task::module::ModuleSpec;
use crate::task::rendered::rendered;

/// Fails unless each has an example that builds, and a line on each argument.
pub(crate) fn assert_well_described(modules: &[ModuleSpec]) {
    for module in modules {
        let tasks: serde_json::Value = serde_yaml::from_str(module.example).expect(module.name);
        let mut arguments = tasks[0][module.name].clone();
        if let (Some(key), true) = (module.free_form, arguments.is_string()) {
            arguments = serde_json::json!({ key: arguments });
        }
        for key in module.expressions {
            let evaluate =
                |text: &serde_json::Value| serde_json::json!({"expression": text, "value": true});
            match arguments.get_mut(*key) {
                Some(serde_json::Value::Array(items)) => {
                    items.iter_mut().for_each(|item| *item = evaluate(item));
                }
                Some(other) => *other = evaluate(other),
                None => {}
            }
        }
        if let Some(key) = module.template_file {
            let path = arguments[key].as_str().unwrap_or_default().to_owned();
            arguments[key] = rendered(std::path::Path::new(&path), "");
        }
        (module.build)(arguments).map(drop).expect(module.name);
        let schema = (module.schema)();
        let properties = schema.get("properties").and_then(|all| all.as_object());
        for (name, property) in properties.expect(module.name) {
            let described = property.get("description").is_some();
            assert!(described, "{}: `{name}` has no description", module.name);
        }
    }
}
