//! The format of slapd's database, told from its file alone.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Page header, then the head of the first meta page: magic number and version (`MDB_meta` of lmdb.h).
const HEAD: usize = 16 + 8;
const MAGIC: u32 = 0xBEEF_C0DE;

/// Returns the version of an LMDB file's format; nothing where it is none. Every slapd from 2.4 to 2.6
/// writes version 1.
///
/// # Errors
/// The file cannot be read.
pub fn format_of(file: &Path) -> io::Result<Option<u32>> {
    let mut head = [0_u8; HEAD];
    match File::open(file)?.read_exact(&mut head) {
        Ok(()) => {}
        // Cut short, or empty: no database yet.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let word = |at: usize| {
        let bytes: [u8; 4] = head[at..at + 4].try_into().unwrap_or_default();
        u32::from_ne_bytes(bytes)
    };

    Ok((word(16) == MAGIC).then(|| word(20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_read_from_the_first_page() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("data.mdb");
        assert!(format_of(&file).is_err());
        std::fs::write(&file, b"").expect("write");
        assert_eq!(format_of(&file).expect("read"), None);
        let mut bytes = vec![0; 16];
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend([0; 4072]);
        std::fs::write(&file, &bytes).expect("write");
        assert_eq!(format_of(&file).expect("read"), Some(1));
        bytes[16] = 0;
        std::fs::write(&file, &bytes).expect("write");
        assert_eq!(format_of(&file).expect("read"), None);
    }
}
