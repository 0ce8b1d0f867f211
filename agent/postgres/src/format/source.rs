//! A plain dump on the disk, as it is or compressed with zstd: read in order, with its SHA-256, or from any
//! place on.
//!
//! Compressed ones are in zstd's seekable format: frames of a few MiB each and a table of them at the end, in
//! a frame that other programs skip, so that `zstd -d` reads them, too
//! (<https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md>).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use zeekstd::{DecodeOptions, Decoder, SeekTable};

use crate::error::PostgresError;
use crate::format::growth::{Growth, Stage};
use crate::host::error::PathError;

/// What every zstd frame begins with (RFC 8878, section 3.1.1).
const ZSTD: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The error for a dump that cannot be read: what zstd has against it, or the system.
pub fn unreadable(path: &Path, error: io::Error) -> PostgresError {
    if error.kind() == io::ErrorKind::InvalidData {
        return PostgresError::BadDump {
            path: path.to_path_buf(),
            message: format!("it is compressed, and damaged: {error}"),
            help: "make the dump again, or use a copy with the right checksum".into(),
        };
    }
    PathError::on("read", path)(error).into()
}

/// What tells whether a file was written to.
pub type Stamp = (u64, i64, i64);

/// An open dump.
#[derive(Debug)]
pub struct DumpSource {
    file: Arc<File>,
    /// Of a compressed one.
    frames: Option<SeekTable>,
    size: u64,
    /// Of one that is still being written.
    growth: Option<Arc<Growth>>,
}

impl DumpSource {
    /// Opens a dump; whether it is compressed is seen from its first bytes.
    ///
    /// # Errors
    /// It cannot be read, or is compressed but not in the seekable format, or cut short.
    pub fn open(path: &Path) -> Result<Self, PostgresError> {
        let file = File::open(path).map_err(PathError::on("open", path))?;
        let read = |action: &'static str| PathError::on(action, path);
        let on_disk = file.metadata().map_err(read("inspect"))?.size();
        let file = Arc::new(file);
        let mut magic = [0; 4];
        let compressed = match file.read_exact_at(&mut magic, 0) {
            Ok(()) => magic == ZSTD,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(read("read")(error).into()),
        };
        if !compressed {
            return Ok(Self {
                file,
                frames: None,
                size: on_disk,
                growth: None,
            });
        }
        let mut all = FileAt::new(&file, None);
        let frames = SeekTable::from_seekable(&mut all).ok();
        let frames = frames.filter(|frames| frames.size_comp() < on_disk);
        let frames = frames.ok_or_else(|| PostgresError::BadDump {
            path: path.to_path_buf(),
            message:
                "it is compressed, and the table of its frames is missing: it is cut short, or \
                      not compressed by `postgresql_dump`"
                    .into(),
            help: "`zstd -d` tells whether it is whole; what it makes of it can be restored".into(),
        })?;
        Ok(Self {
            file,
            size: frames.size_decomp(),
            frames: Some(frames),
            growth: None,
        })
    }

    /// Opens a dump that is still being written, plain text in a file that is there. `estimate`: about how much
    /// text it will be, in bytes.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn growing(path: &Path, estimate: u64, growth: Arc<Growth>) -> Result<Self, PostgresError> {
        let file = File::open(path).map_err(PathError::on("open", path))?;
        Ok(Self {
            file: Arc::new(file),
            frames: None,
            size: estimate,
            growth: Some(growth),
        })
    }

    /// Tells whether it is one that may still be being written.
    #[must_use]
    pub fn grows(&self) -> bool {
        self.growth.is_some()
    }

    /// Bytes of the text; about so many where it grows.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns what tells whether the file was written to since.
    ///
    /// # Errors
    /// It cannot be inspected.
    pub fn stamp(&self) -> io::Result<Stamp> {
        let found = self.file.metadata()?;
        Ok((found.size(), found.ctime(), found.ctime_nsec()))
    }

    /// Reads the whole text in order, and hashes the file on the way. Where it grows, up to its end.
    ///
    /// # Errors
    /// There is no memory for the decoder.
    pub fn whole(&self) -> io::Result<Whole> {
        let hash = Arc::new(Mutex::new(Hash::default()));
        let end = if self.grows() { u64::MAX } else { self.size };
        let text = self.text(0, end, Some(Arc::clone(&hash)))?;
        let file = Arc::clone(&self.file);
        Ok(Whole { text, hash, file })
    }

    /// Reads a part of the text. Where it grows, what is not there yet is waited for, and may never come.
    ///
    /// # Errors
    /// It is not in there, or there is no memory for the decoder.
    pub fn part(&self, from: u64, to: u64) -> io::Result<Text> {
        self.text(from, to, None)
    }

    fn text(&self, from: u64, to: u64, hash: Option<Arc<Mutex<Hash>>>) -> io::Result<Text> {
        let mut file = FileAt::new(&self.file, hash);
        let origin = match &self.frames {
            None => {
                file.offset = from;
                file.growth = self.growth.clone();
                Origin::Plain {
                    file,
                    left: to - from,
                }
            }
            Some(frames) => {
                let options = DecodeOptions::try_new(file).ok_or(io::ErrorKind::OutOfMemory)?;
                let options = options.seek_table(frames.clone());
                let decoder = options.offset(from).offset_limit(to).into_decoder();
                Origin::Frames(Box::new(decoder.map_err(io::Error::other)?))
            }
        };
        Ok(Text(origin))
    }
}

/// A part of a dump's text.
pub struct Text(Origin);

enum Origin {
    Plain { file: FileAt, left: u64 },
    Frames(Box<Decoder<'static, FileAt>>),
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Origin::Plain { left: 0, .. } => Ok(0),
            Origin::Plain { file, left } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let most = buffer.len().min(most);
                let read = file.read(&mut buffer[..most])?;
                *left -= read as u64;
                Ok(read)
            }
            Origin::Frames(decoder) => decoder
                .decompress(buffer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// All of a dump's text.
pub struct Whole {
    text: Text,
    hash: Arc<Mutex<Hash>>,
    file: Arc<File>,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer)
    }
}

impl Whole {
    /// Returns the SHA-256 of the file, in hex. What is not text, and what was not read, is read now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sha256(self) -> io::Result<String> {
        let mut rest = FileAt::new(&self.file, Some(Arc::clone(&self.hash)));
        rest.offset = locked(&self.hash).bytes;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match rest.read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        let hasher = std::mem::take(&mut locked(&self.hash).hasher);
        Ok(hex::encode(hasher.finalize()))
    }
}

#[derive(Default)]
struct Hash {
    hasher: Sha256,
    bytes: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in the file. Its end is an error: whoever reads knows how much there is, and the decoder would
/// wait for more for ever. Where the file grows, its end is the end of the text.
struct FileAt {
    file: Arc<File>,
    offset: u64,
    hash: Option<Arc<Mutex<Hash>>>,
    growth: Option<Arc<Growth>>,
}

impl FileAt {
    fn new(file: &Arc<File>, hash: Option<Arc<Mutex<Hash>>>) -> Self {
        Self {
            file: Arc::clone(file),
            offset: 0,
            hash,
            growth: None,
        }
    }

    fn read_here(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Reads at what was the end of the file a moment ago: more, once it is there, or nothing.
    fn read_on(&self, growth: &Growth, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Before reading: what was written until then is read, whatever comes in between.
            let stage = growth.wait();
            match (self.read_here(buffer)?, stage) {
                (0, Stage::Growing) => {}
                (0, Stage::Failed) => {
                    return Err(io::Error::other("the dump came to no good end"));
                }
                (read, _) => return Ok(read),
            }
        }
    }
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = self.read_here(buffer)?;
        if read == 0 && !buffer.is_empty() {
            match &self.growth {
                Some(growth) => read = self.read_on(growth, buffer)?,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        if let Some(hash) = &self.hash {
            let mut hash = locked(hash);
            // Nothing is left out: the frames follow each other.
            if self.offset == hash.bytes {
                hash.hasher.update(&buffer[..read]);
                hash.bytes += read as u64;
            }
        }
        self.offset += read as u64;
        Ok(read)
    }
}

impl Seek for FileAt {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => self.file.metadata()?.size().checked_add_signed(delta),
            SeekFrom::Current(delta) => self.offset.checked_add_signed(delta),
        };
        self.offset = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::sink::Compressor;
    use crate::format::growth::Grower;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let (mut compressor, mut all) = (Compressor::new().expect("memory"), Vec::new());
        for piece in text.chunks(70_001) {
            compressor.push(piece, &mut all).expect("compressed");
        }
        compressor.finish(&mut all).expect("ended");
        all
    }

    fn text() -> Vec<u8> {
        let mut state = 7_u64;
        let mut line = |number: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("{number}\tvalue {state}\n")
        };
        (0..400_000)
            .flat_map(|number| line(number).into_bytes())
            .collect()
    }

    #[test]
    fn a_compressed_text_is_read_from_any_place_and_hashed_as_it_lies_there() {
        let text = text();
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("dump");
        for content in [text.clone(), compressed(&text)] {
            std::fs::write(&path, &content).expect("written");
            let source = DumpSource::open(&path).expect("opened");
            assert_eq!(source.size(), text.len() as u64);
            let mut whole = source.whole().expect("reader");
            let mut read = Vec::new();
            whole.read_to_end(&mut read).expect("read");
            assert!(read == text);
            let expected = hex::encode(Sha256::digest(&content));
            assert_eq!(whole.sha256().expect("hashed"), expected);
            assert_eq!(
                source.whole().expect("reader").sha256().expect("hashed"),
                expected
            );
            let end = text.len();
            for (from, to) in [(0, 1), (3_000_000, 9_000_000), (end - 5, end), (end, end)] {
                let mut part = source.part(from as u64, to as u64).expect("reader");
                let mut read = Vec::new();
                part.read_to_end(&mut read).expect("read");
                assert!(read == text[from..to], "{from} to {to}");
            }
        }
    }

    #[test]
    fn a_text_that_grows_is_read_to_its_end_and_not_beyond_a_failure() {
        let text = text();
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("dump");
        for whole in [true, false] {
            let mut file = File::create(&path).expect("made");
            let grower = Grower::begin();
            let source = DumpSource::growing(&path, 7, grower.growth()).expect("opened");
            assert!(source.grows());
            let reader = std::thread::spawn(move || {
                let mut all = source.whole().expect("reader");
                let mut read = Vec::new();
                let ended = all.read_to_end(&mut read).map(|_| ());
                let again = source.part(5, 9).and_then(|mut part| {
                    let mut some = String::new();
                    part.read_to_string(&mut some).map(|_| some)
                });
                (ended, read, all.sha256().expect("hashed"), again)
            });
            for piece in text.chunks(1_500_000) {
                io::Write::write_all(&mut file, piece).expect("written");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            if whole {
                grower.end(true);
            }
            drop(grower);
            let (ended, read, sha256, again) = reader.join().expect("thread");
            assert_eq!(ended.is_ok(), whole, "{ended:?}");
            assert!(read == text);
            assert_eq!(sha256, hex::encode(Sha256::digest(&text)));
            assert_eq!(again.expect("part").as_bytes(), &text[5..9]);
        }
    }

    #[test]
    fn what_is_damaged_or_cut_is_no_text_and_ends() {
        let text = text();
        let whole = compressed(&text);
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("dump");
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            DumpSource::open(&path)
        };
        for cut in [4, 1000, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            let error = open(&whole[..cut]).expect_err("no table");
            assert!(error.to_string().contains("frames is missing"), "{error}");
        }
        // A byte of the data, one of its length in the table, and data without its beginning.
        for at in [whole.len() / 2, whole.len() - 14] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let Ok(source) = open(&damaged) else { continue };
            let mut read = Vec::new();
            let outcome = source.whole().expect("reader").read_to_end(&mut read);
            assert!(outcome.is_err() || read != text, "byte {at}");
        }
    }
}
