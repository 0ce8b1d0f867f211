//! Modules for files and directories, and the durable building blocks that others may use.

mod archive;
mod blockinfile;
mod content;
mod copy;
mod copy_dir;
mod difference;
mod edit;
mod file;
mod find;
mod get_url;
mod lineinfile;
mod put;
mod relocate;
mod removal;
mod replace;
mod result;
mod sizes;
mod slurp;
mod stat;
pub mod template;
mod temporary;
mod unarchive;

use crate::task::module::{ModuleSpec, spec_of};

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

#[cfg(test)]
mod tests {
    #[test]
    fn examples_build_and_arguments_are_described() {
        crate::described::assert_well_described(&super::modules());
    }

    #[test]
    fn aliases_of_arguments_are_in_the_schema() {
        let schema = schemars::schema_for!(super::file::FileModule);
        let path = &schema.as_value()["properties"]["path"];
        assert_eq!(path["aliases"], serde_json::json!(["dest", "name"]));
        assert_eq!(schema.as_value()["additionalProperties"], false);
    }
}
