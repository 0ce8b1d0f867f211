//! SHA-256 of what goes by.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

const BUFFER_BYTES: usize = 256 * 1024;

/// Copies everything and returns its size in bytes and its SHA-256 in hex; `advance` hears how far it is.
///
/// # Errors
/// Reading or writing fails.
pub fn copy_hashed(
    from: &mut impl Read,
    to: &mut impl Write,
    mut advance: impl FnMut(u64),
) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let size = from.read(&mut buffer)?;
        if size == 0 {
            return Ok((total, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..size]);
        to.write_all(&buffer[..size])?;
        total += size as u64;
        advance(total);
    }
}
