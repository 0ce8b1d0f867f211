//! `state: link` and `state: hard`: another name, put in place by a rename.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::FileModule;
use crate::host::error::PathError;
use crate::host::files::converge::Converge;
use crate::host::files::durable::{
    Identity, fsync_dir, kind_of, metadata_of, parent_of, remove_if_there, sibling,
};
use crate::host::files::error::{FilesError, FilesResult};
use crate::task::context::TaskContext;
use crate::task::prior_state::Before;

impl FileModule {
    pub(super) fn link(
        &self,
        path: &Path,
        ctx: &TaskContext,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<Vec<String>> {
        let found = metadata_of(path)?;
        let current = found
            .as_ref()
            .filter(|meta| meta.is_symlink())
            .and_then(|_| fs::read_link(path).ok());
        let Some(target) = self.src.clone().or_else(|| current.clone()) else {
            return Err(FilesError::argument("`state: link` needs `src`").into());
        };
        if !self.force && !parent_of(path).join(&target).exists() {
            return Err(FilesError::argument_with_help(
                format!("the link's target {} does not exist", target.display()),
                "make the target first, or say `force: true`",
            )
            .into());
        }
        let mut lines = Vec::new();
        if current.as_ref() != Some(&target) {
            if let Some(meta) = found.filter(|meta| !meta.is_symlink()) {
                let empty = meta.is_dir()
                    && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
                if !self.force || meta.is_dir() && !empty {
                    return Err(FilesError::TargetExists {
                        path: path.to_path_buf(),
                        found: kind_of(&meta),
                    }
                    .into());
                }
                if meta.is_dir() && mode == Converge::Apply {
                    fs::remove_dir(path).map_err(PathError::on("remove", path))?;
                }
            }
            lines.push(match current {
                Some(old) => {
                    format!(
                        "link {} -> {} (was {})",
                        path.display(),
                        target.display(),
                        old.display()
                    )
                }
                None => format!("link {} -> {}", path.display(), target.display()),
            });
            if mode == Converge::Check {
                return Ok(lines);
            }
            // A link cannot be changed in place; this way there is never none.
            let temporary = sibling(path, "partial", &ctx.attempt);
            remove_if_there(&temporary)?;
            symlink(&target, &temporary).map_err(PathError::on("create", &temporary))?;
            if let Some(before) = before {
                before.keep()?;
            }
            fs::rename(&temporary, path).map_err(PathError::on("replace", path))?;
            fsync_dir(parent_of(path))?;
        }
        if path.exists() || !self.follow {
            lines.extend(self.attributes(path, &self.wanted()?, mode)?);
        }
        Ok(lines)
    }

    /// Another name of a file, put in place by a rename.
    pub(super) fn hard(
        &self,
        path: &Path,
        ctx: &TaskContext,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<Vec<String>> {
        let Some(src) = &self.src else {
            return Err(FilesError::argument("`state: hard` needs `src`").into());
        };
        let source = ctx.resolve(src);
        let Some(wanted) = Identity::at(&source)? else {
            return Err(FilesError::Missing {
                what: "the source",
                path: source,
            }
            .into());
        };
        let mut lines = Vec::new();
        if Identity::at(path)? != Some(wanted) {
            if let Some(meta) = metadata_of(path)?
                && (!self.force || meta.is_dir())
            {
                return Err(FilesError::TargetExists {
                    path: path.to_path_buf(),
                    found: kind_of(&meta),
                }
                .into());
            }
            lines.push(format!(
                "hard link {} to {}",
                path.display(),
                source.display()
            ));
            if mode == Converge::Check {
                return Ok(lines);
            }
            let temporary = sibling(path, "partial", &ctx.attempt);
            remove_if_there(&temporary)?;
            fs::hard_link(&source, &temporary).map_err(PathError::on("link", &temporary))?;
            if let Some(before) = before {
                before.keep()?;
            }
            fs::rename(&temporary, path).map_err(PathError::on("replace", path))?;
            fsync_dir(parent_of(path))?;
        }
        lines.extend(self.attributes(path, &self.wanted()?, mode)?);
        Ok(lines)
    }
}
