//! Modules for files and directories, and the durable building blocks that others may use.

mod archive;
pub(crate) mod attributes;
mod blockinfile;
pub(in crate::modules) mod blocking;
mod content;
mod converge;
mod copy;
mod copy_dir;
mod difference;
pub mod durable;
mod edit;
mod error;
mod file;
pub mod filesystem;
mod find;
mod get_url;
mod lineinfile;
mod mode;
pub(in crate::modules) mod mounts;
mod put;
pub mod quarantine;
mod relocate;
mod removal;
pub(crate) mod remove;
mod replace;
mod result;
mod sizes;
mod slurp;
mod stat;
pub mod template;
mod temporary;
mod tree_copy;
mod tree_resume;
mod tree_verify;
mod unarchive;
pub(crate) mod undo;
pub(crate) mod undo_tree;
pub(crate) mod users;
pub(crate) mod walk;

pub(crate) use blocking::{blocking, detached};
pub use error::{FilesError, human_bytes};
pub use mode::{Mode, show_mode};

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<archive::ArchiveModule>(),
        spec_of::<blockinfile::BlockInFileModule>(),
        spec_of::<copy::CopyModule>(),
        spec_of::<file::FileModule>(),
        spec_of::<find::FindModule>(),
        spec_of::<get_url::GetUrlModule>(),
        spec_of::<lineinfile::LineInFileModule>(),
        spec_of::<relocate::MoveModule>(),
        spec_of::<replace::ReplaceModule>(),
        spec_of::<sizes::DirectorySizeModule>(),
        spec_of::<sizes::DiskSpaceModule>(),
        spec_of::<slurp::SlurpModule>(),
        spec_of::<stat::StatModule>(),
        spec_of::<template::TemplateModule>(),
        spec_of::<temporary::TempfileModule>(),
        spec_of::<unarchive::UnarchiveModule>(),
    ]
}

/// What every module owes its users: an example that builds, and a line on each argument.
#[cfg(test)]
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
            arguments[key] = template::rendered(std::path::Path::new(&path), "");
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

#[cfg(test)]
mod tests {
    #[test]
    fn examples_build_and_arguments_are_described() {
        super::assert_well_described(&super::modules());
    }

    #[test]
    fn aliases_of_arguments_are_in_the_schema() {
        let schema = schemars::schema_for!(super::file::FileModule);
        let path = &schema.as_value()["properties"]["path"];
        assert_eq!(path["aliases"], serde_json::json!(["dest", "name"]));
        assert_eq!(schema.as_value()["additionalProperties"], false);
    }
}
