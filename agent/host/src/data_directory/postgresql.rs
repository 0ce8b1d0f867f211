//! Which cluster a data directory holds, told from its files alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Content of PG_VERSION: `9.6`, `15`.
    pub version: String,
    /// The number that initdb gave it and every copy of it has; nothing where there is no pg_control.
    pub system_identifier: Option<u64>,
}

impl Cluster {
    /// Looks at a directory; nothing where it is none of PostgreSQL's.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let version = match fs::read_to_string(path.join("PG_VERSION")) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let system_identifier = match File::open(path.join("global/pg_control")) {
            Ok(mut file) => {
                let mut bytes = [0_u8; 8];
                // As the server's own machine wrote it, which is this one: no other can open it.
                let whole = file.read_exact(&mut bytes).is_ok();
                whole.then(|| u64::from_ne_bytes(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            version,
            system_identifier,
        }))
    }
}

/// The version that PG_VERSION would have, of a full one: `9.6.24-1.pgdg90+1`, `15.4`, `17beta1`.
pub fn major(version: &str) -> Option<String> {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .take_while(|part| !part.is_empty());
    let first: u32 = numbers.next()?.parse().ok()?;
    if first >= 10 {
        return Some(first.to_string());
    }
    Some(format!("{first}.{}", numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_pg_version_would_say() {
        for (full, expected) in [
            ("9.6.24-1.pgdg90+1", Some("9.6")),
            ("9.6", Some("9.6")),
            ("15.4", Some("15")),
            ("15", Some("15")),
            ("17beta1", Some("17")),
            ("9", None),
            ("", None),
            ("latest", None),
        ] {
            assert_eq!(major(full).as_deref(), expected, "{full}");
        }
    }

    #[test]
    fn a_cluster_is_known_by_the_number_that_initdb_gave_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(Cluster::at(dir.path()).expect("looked"), None);
        fs::write(dir.path().join("PG_VERSION"), "15\n").expect("write");
        let found = Cluster::at(dir.path()).expect("looked").expect("one");
        assert_eq!(
            (found.version.as_str(), found.system_identifier),
            ("15", None)
        );
        fs::create_dir(dir.path().join("global")).expect("mkdir");
        let mut bytes = 7_234_567_890_123_456_789_u64.to_ne_bytes().to_vec();
        bytes.extend([0; 100]);
        fs::write(dir.path().join("global/pg_control"), bytes).expect("write");
        let found = Cluster::at(dir.path()).expect("looked").expect("one");
        assert_eq!(found.system_identifier, Some(7_234_567_890_123_456_789));
    }
}
