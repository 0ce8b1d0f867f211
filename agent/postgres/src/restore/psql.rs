//! Feeds a dump to the psql of the server's container, and believes nothing that psql says alone:
//! with `--single-transaction` it commits when its input ends early.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard::Docker;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::error::PostgresError;
use crate::format::source::{self, DumpSource, Whole};
use crate::format::text::{ConnectFinder, DumpHead, knows_restrict};
use crate::host::docker::exec::{ExecEnd, ExecRequest, ExecStreams, run, run_ok};
use crate::host::error::{ModuleError, PathError};
use crate::host::progress::Progress;
use crate::host::worker;
use crate::server::connect::{Server, session_name};
use crate::task::context::TaskContext;

/// How much is read at once, and how many of these ahead.
const CHUNK: usize = 256 << 10;
const READ_AHEAD: usize = 4;

/// Reads the dump, and follows it for what must not be in it.
pub struct DumpFeed {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    reading: worker::Task<Whole>,
    chunk: Bytes,
    finder: ConnectFinder,
    done: u64,
    total: u64,
    progress: Progress,
    failed: Option<io::Error>,
}

fn read_all(mut text: Whole, send: &mpsc::Sender<io::Result<Bytes>>) -> Whole {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = text.read(&mut chunk).map(|size| {
            chunk.truncate(size);
            Bytes::from(chunk)
        });
        let over = match &read {
            Ok(chunk) if chunk.is_empty() => return text,
            Ok(_) => false,
            Err(_) => true,
        };
        // Nobody listens any more when psql has ended.
        if send.blocking_send(read).is_err() || over {
            return text;
        }
    }
}

impl DumpFeed {
    /// Opens the dump.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, progress: Progress) -> Result<Self, PostgresError> {
        let source = DumpSource::open(path)?;
        let text = source.whole().map_err(PathError::on("read", path))?;
        let (send, chunks) = mpsc::channel(READ_AHEAD);
        Ok(Self {
            chunks,
            reading: worker::start("reader of the dump", move || read_all(text, &send)),
            chunk: Bytes::new(),
            finder: ConnectFinder::default(),
            done: 0,
            total: source.size(),
            progress,
            failed: None,
        })
    }

    /// Returns how much of the text was read, and the SHA-256 of the file.
    ///
    /// # Errors
    /// The rest of the file cannot be read.
    pub async fn finish(self, path: &Path) -> Result<(u64, String), ModuleError> {
        drop(self.chunks);
        let text = worker::ended(self.reading).await?;
        let hashed = worker::blocking("hash of the dump", || text.sha256()).await?;
        Ok((self.done, hashed.map_err(PathError::on("read", path))?))
    }
}

impl AsyncRead for DumpFeed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.chunk.is_empty() {
            let next = ready!(this.chunks.poll_recv(cx)).transpose();
            let checked = next.and_then(|chunk| {
                let chunk = chunk.unwrap_or_default();
                match this.finder.push(&chunk) {
                    true => Err(ConnectFinder::error()),
                    false => Ok(chunk),
                }
            });
            match checked {
                Ok(chunk) => this.chunk = chunk,
                Err(error) => {
                    this.failed = Some(match error.raw_os_error() {
                        Some(code) => io::Error::from_raw_os_error(code),
                        None => io::Error::new(error.kind(), error.to_string()),
                    });
                    return Poll::Ready(Err(error));
                }
            }
        }
        let size = this.chunk.len().min(buffer.remaining());
        buffer.put_slice(&this.chunk[..size]);
        this.chunk.advance(size);
        this.done += size as u64;
        this.progress.bytes(this.done, Some(this.total));
        Poll::Ready(Ok(()))
    }
}

/// Where and how psql runs.
pub struct Psql<'a> {
    /// The connection to Docker.
    pub docker: &'a Docker,
    /// Container with psql and the server.
    pub container: &'a str,
    /// The server, for user and password.
    pub server: &'a Server,
    /// Settings of psql's session.
    pub settings: &'a BTreeMap<String, String>,
}

impl Psql<'_> {
    /// Returns what `psql --version` prints, and refuses one that cannot read the dump.
    ///
    /// # Errors
    /// There is no psql, or it is too old for the dump.
    pub async fn version(
        &self,
        ctx: &TaskContext,
        src: &Path,
        head: &DumpHead,
    ) -> Result<String, ModuleError> {
        let request = ExecRequest::new(["psql", "--version"]);
        let end = run_ok(self.docker, self.container, &request, &ctx.cancel).await?;
        let version = end.stdout.trim().to_owned();
        if head.restrict && !knows_restrict(&version) {
            let by = head.program_version.as_deref().unwrap_or("a newer version");
            return Err(PostgresError::BadDump {
                path: src.to_path_buf(),
                message: format!("it was made by pg_dump {by} and begins with \\restrict, which {version} does not know"),
                help: "make the dump with the pg_dump of the server's own container \
                       (`postgresql_dump` does), or restore into a newer image"
                    .into(),
            }
            .into());
        }
        Ok(version)
    }

    /// Restores everything that `reader` gives into `db`, in one transaction.
    ///
    /// # Errors
    /// psql failed, the dump could not be read, or not all of it was taken.
    pub async fn restore(
        &self,
        ctx: &TaskContext,
        src: &Path,
        db: &str,
        reader: &mut DumpFeed,
    ) -> Result<(), ModuleError> {
        let request = self.request(ctx, db);
        let mut hear = |line: &str| ctx.progress.line(ctx.redactor.text(line));
        let streams = ExecStreams {
            stdin: Some(reader),
            stdout: None,
            on_stderr: Some(&mut hear),
        };
        let end = match run(self.docker, self.container, &request, streams, &ctx.cancel).await {
            Ok(end) => end,
            Err(error) => {
                return Err(reader
                    .failed
                    .take()
                    .map_or(error, |source| unreadable(src, source)));
            }
        };
        if end.exit_code != 0 {
            return Err(explain(ctx, &end).into());
        }
        if !end.stdin_taken {
            return Err(PostgresError::Program {
                program: "psql",
                rc: 0,
                place: None,
                stderr: "it ended before it had read the whole dump".into(),
            }
            .into());
        }
        Ok(())
    }

    fn request(&self, ctx: &TaskContext, db: &str) -> ExecRequest {
        let command = [
            "psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "--single-transaction",
            "-o",
            "/dev/null",
            "-f",
            "-",
        ];
        let escape = |text: &str| text.replace('\\', "\\\\").replace(' ', "\\ ");
        let options: Vec<String> = self
            .settings
            .iter()
            .map(|(name, value)| format!("-c {}={}", escape(name), escape(value)))
            .collect();
        let request = ExecRequest::new(command)
            .env("PGUSER", &self.server.user)
            .env("PGDATABASE", db)
            .env("PGAPPNAME", &session_name(&ctx.attempt))
            .env("PGOPTIONS", &options.join(" "))
            .env("LC_MESSAGES", "C");
        match &self.server.password {
            Some(password) => request.env("PGPASSWORD", password),
            None => request,
        }
    }
}

fn unreadable(src: &Path, source: io::Error) -> ModuleError {
    if source.kind() == io::ErrorKind::Unsupported {
        return PostgresError::BadDump {
            path: src.to_path_buf(),
            message: source.to_string(),
            help: "dump one database, with `pg_dump` (not `pg_dumpall`) and without -C".into(),
        }
        .into();
    }
    source::unreadable(src, source).into()
}

/// psql says `psql:<stdin>:123: ERROR:  42P01: …`: the line of the dump and the SQLSTATE.
fn explain(ctx: &TaskContext, end: &ExecEnd) -> PostgresError {
    let stderr = ctx.redactor.text(&end.stderr);
    let place = stderr.lines().find_map(|line| {
        let (line, _) = line.strip_prefix("psql:<stdin>:")?.split_once(": ERROR:")?;
        Some(format!("line {line} of the dump"))
    });
    // What follows the error (`LOCATION:` in the server's sources) helps nobody.
    let useful: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.starts_with("LOCATION:"))
        .skip_while(|line| !line.contains("ERROR:") && !line.contains("FATAL:"))
        .collect();
    let stderr = if useful.is_empty() {
        stderr.clone()
    } else {
        useful.join("\n")
    };
    PostgresError::Program {
        program: "psql",
        rc: end.exit_code,
        place,
        stderr,
    }
}
