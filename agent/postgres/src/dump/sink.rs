//! Where a dump goes: a file that is hashed while it is written, compressed on request.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use zeekstd::{EncodeOptions, FrameSizePolicy, RawEncoder};

use crate::format::text::is_complete;
use crate::host::error::PathError;
use crate::host::progress::Progress;
use crate::host::worker;

/// How much of the end is kept to look for the completion line.
const TAIL: usize = 4 * 1024;
/// Bytes of text in a frame: what has to be decompressed to reach any place.
const FRAME: u32 = 4 << 20;
/// Room for what comes out of the compressor at once.
const ROOM: usize = 128 << 10;

/// After so many bytes they are sent on to the disk: while more comes, not all at once at the end.
const STRETCH: u64 = 32 << 20;

/// Makes zstd's seekable format of a text.
pub struct Compressor(RawEncoder<'static>);

impl Compressor {
    /// Begins, at zstd's own level (3), with a checksum in each frame.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new() -> io::Result<Self> {
        let options = EncodeOptions::try_new().ok_or(io::ErrorKind::OutOfMemory)?;
        let options = options
            .checksum_flag(true)
            .frame_size_policy(FrameSizePolicy::Uncompressed(FRAME));
        options
            .into_raw_encoder()
            .map(Self)
            .map_err(io::Error::other)
    }

    /// Takes text, and appends what comes of it.
    ///
    /// # Errors
    /// zstd fails.
    pub fn push(&mut self, text: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        let mut taken = 0;
        while taken < text.len() {
            let end = into.len();
            into.resize(end + ROOM, 0);
            let done = self.0.compress(&text[taken..], &mut into[end..]);
            let done = done.map_err(io::Error::other)?;
            into.truncate(end + done.out_progress());
            taken += done.in_progress();
        }
        Ok(())
    }

    /// Appends the end: of the last frame, and the table of all.
    ///
    /// # Errors
    /// zstd fails.
    pub fn finish(mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let end = into.len();
            into.resize(end + ROOM, 0);
            let done = self.0.end_frame(&mut into[end..]);
            let done = done.map_err(io::Error::other)?;
            into.truncate(end + done.out_progress());
            if done.data_left() == 0 {
                break;
            }
        }
        let mut table = self.0.into_seek_table().into_serializer();
        loop {
            let end = into.len();
            into.resize(end + ROOM, 0);
            let written = table.write_into(&mut into[end..]);
            into.truncate(end + written);
            if written == 0 {
                return Ok(());
            }
        }
    }
}

/// What was written.
pub struct Written {
    /// Bytes of the file.
    pub size: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// Bytes of the text.
    pub text: u64,
}

/// Gets the dump: writes, hashes, and remembers the end.
pub struct Sink {
    file: tokio::fs::File,
    compressor: Option<Compressor>,
    /// Compressed, and not written yet.
    pending: Vec<u8>,
    hasher: Sha256,
    /// The same file, and its sync that is under way.
    on_disk: Arc<File>,
    syncing: Option<worker::Task<io::Result<()>>>,
    /// Bytes when that began.
    synced: u64,
    size: u64,
    text: u64,
    tail: Vec<u8>,
    progress: Progress,
    total: u64,
    shown: u64,
    failed: Option<io::Error>,
}

impl Sink {
    /// Makes the file, mode 0600. `total`: about how much text will come.
    ///
    /// # Errors
    /// It cannot be made, or there is no memory for the compressor.
    pub fn create(
        path: &Path,
        compress: bool,
        progress: Progress,
        total: u64,
    ) -> Result<Self, PathError> {
        let failed = || PathError::on("create", path);
        let compressor = compress.then(Compressor::new).transpose();
        let compressor = compressor.map_err(failed())?;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(failed())?;
        Ok(Self {
            on_disk: Arc::new(file.try_clone().map_err(failed())?),
            syncing: None,
            synced: 0,
            file: tokio::fs::File::from_std(file),
            compressor,
            pending: Vec::new(),
            hasher: Sha256::new(),
            size: 0,
            text: 0,
            tail: Vec::new(),
            progress,
            total,
            shown: 0,
            failed: None,
        })
    }

    /// Tells whether the text ended as a whole dump does.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        is_complete(&self.tail)
    }

    /// Returns why nothing more could be written, if that was so.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    fn written(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn seen(&mut self, text: &[u8]) {
        self.text += text.len() as u64;
        self.tail
            .extend_from_slice(&text[text.len().saturating_sub(TAIL)..]);
        let extra = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..extra);
        if self.text - self.shown >= 1024 * 1024 {
            self.shown = self.text;
            self.progress
                .bytes(self.text, Some(self.total.max(self.text)));
        }
    }

    /// Begins a sync where enough is new. An error of the last one counts: the system says it once.
    fn poll_sync(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(syncing) = &mut self.syncing {
            let Poll::Ready(ended) = Pin::new(syncing).poll(cx) else {
                return Ok(());
            };
            self.syncing = None;
            ended
                .map_err(io::Error::other)?
                .map_err(io::Error::other)??;
        }
        if self.size - self.synced >= STRETCH {
            self.synced = self.size;
            let file = Arc::clone(&self.on_disk);
            self.syncing = Some(worker::start("sync of the dump", move || file.sync_data()));
        }
        Ok(())
    }

    /// Keeps a copy of what went wrong; the caller sees only that something did.
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let copy = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            self.failed = Some(copy);
        }
        result
    }

    /// Writes what is compressed.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pending = std::mem::take(&mut self.pending);
        let mut written = 0;
        let result = loop {
            if written == pending.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.file).poll_write(cx, &pending[written..]) {
                Poll::Ready(Ok(size)) => {
                    self.written(&pending[written..written + size]);
                    written += size;
                }
                Poll::Ready(Err(error)) => break Poll::Ready(self.note(Err(error))),
                Poll::Pending => break Poll::Pending,
            }
        };
        pending.drain(..written);
        self.pending = pending;
        result
    }

    /// Writes what is left, and syncs the file.
    ///
    /// # Errors
    /// It cannot be written or synced.
    pub async fn finish(mut self, path: &Path) -> Result<Written, PathError> {
        let failed = |action: &'static str| PathError::on(action, path);
        if let Some(compressor) = self.compressor.take() {
            let mut rest = std::mem::take(&mut self.pending);
            compressor.finish(&mut rest).map_err(failed("compress"))?;
            self.file.write_all(&rest).await.map_err(failed("write"))?;
            self.written(&rest);
        }
        self.file.flush().await.map_err(failed("write"))?;
        if let Some(syncing) = self.syncing.take() {
            let ended = worker::ended(syncing).await.map_err(io::Error::other);
            ended.and_then(|ended| ended).map_err(failed("sync"))?;
        }
        self.file.sync_all().await.map_err(failed("sync"))?;
        self.progress.bytes(self.text, Some(self.text));
        Ok(Written {
            size: self.size,
            sha256: hex::encode(self.hasher.finalize()),
            text: self.text,
        })
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let synced = this.poll_sync(cx);
        this.note(synced)?;
        ready!(this.poll_pending(cx))?;
        if let Some(compressor) = &mut this.compressor {
            let pushed = compressor.push(bytes, &mut this.pending);
            this.note(pushed)?;
            this.seen(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.file).poll_write(cx, bytes));
        if let Ok(size) = written {
            this.written(&bytes[..size]);
            this.seen(&bytes[..size]);
        }
        Poll::Ready(this.note(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        let flushed = ready!(Pin::new(&mut self.file).poll_flush(cx));
        Poll::Ready(self.note(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        let done = ready!(Pin::new(&mut self.file).poll_shutdown(cx));
        Poll::Ready(self.note(done))
    }
}
