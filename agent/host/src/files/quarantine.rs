//! Where things wait that a task takes away: by one rename on their own filesystem, so that nothing is
//! deleted before somebody says `purge`.

use std::path::{Path, PathBuf};

use super::attributes::Attributes;
use super::converge::make_directories;
use super::durable::{Identity, nearest_existing, parent_of};
use super::error::FilesResult;
use super::mounts::Mounts;

/// Name of the folder beside a thing that lies on another filesystem than the state.
const BESIDE: &str = ".kaapana-agent-quarantine";

/// Where things wait that a task takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Folder in the state directory, absolute.
    pub own: PathBuf,
    /// Id of the state, which keeps several states apart beside one thing.
    pub state_id: String,
}

impl Quarantine {
    /// Names the folder that one attempt moves a path into: in the state directory where a rename gets
    /// there, else beside the path. Makes nothing.
    ///
    /// # Errors
    /// When the mounts cannot be read.
    pub fn folder(&self, path: &Path, attempt: &str) -> FilesResult<PathBuf> {
        let attempt = attempt.replace('/', "-");
        let own = self.own.join(&attempt);
        // Two subvolumes can share a mount and still have two devices, which no rename crosses.
        let device = |path: &Path| Identity::at(&nearest_existing(path)).ok().flatten();
        let same_device = device(parent_of(path)).map(|found| found.dev)
            == device(&self.own).map(|found| found.dev);
        if same_device && Mounts::read()?.same_for_rename(path, &own.join("entry")) {
            return Ok(own);
        }
        Ok(parent_of(path)
            .join(BESIDE)
            .join(&self.state_id)
            .join(attempt))
    }

    /// Names a place for `path`, different from those in `taken`, and remembers it there.
    ///
    /// # Errors
    /// As [`Quarantine::folder`].
    pub fn place(
        &self,
        path: &Path,
        attempt: &str,
        taken: &mut Vec<PathBuf>,
    ) -> FilesResult<PathBuf> {
        let folder = self.folder(path, attempt)?;
        let name = path.file_name().unwrap_or_default();
        let mut place = folder.join(name);
        let mut count = 1;
        while taken.contains(&place) {
            count += 1;
            let mut numbered = name.to_owned();
            numbered.push(format!(" #{count}"));
            place = folder.join(numbered);
        }
        taken.push(place.clone());
        Ok(place)
    }
}

/// Makes the folder of a place in quarantine, and those above it, for its owner only.
///
/// # Errors
/// When the system refuses.
pub fn make_folder(place: &Path) -> FilesResult<()> {
    make_directories(parent_of(place), &|_, _| Attributes {
        mode: Some(0o700),
        ..Attributes::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_on_the_states_filesystem_goes_there_and_any_other_stays_beside() {
        let dir = tempfile::tempdir().expect("temp dir");
        let quarantine = Quarantine {
            own: dir.path().join("state/p/quarantine"),
            state_id: "abc".into(),
        };
        let mut taken = Vec::new();
        let mut place = |path: &Path| {
            quarantine
                .place(path, "run/7", &mut taken)
                .expect("a place")
        };
        let data = dir.path().join("data");
        let own = quarantine.own.join("run-7/data");
        assert_eq!(place(&data), own);
        assert_eq!(place(&data), own.with_file_name("data #2"));
        // /proc is another filesystem wherever this runs.
        assert_eq!(
            place(Path::new("/proc/thing")),
            Path::new("/proc/.kaapana-agent-quarantine/abc/run-7/thing")
        );
    }
}
