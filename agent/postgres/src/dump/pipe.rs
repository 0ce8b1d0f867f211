//! A short way for a dump: a named pipe in a folder that the container has mounted. Docker's own stream
//! carries half as much a second. The pipe dies with the agent, as the stream does: pg_dump then gets
//! SIGPIPE, and nothing goes on writing.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::error::PostgresError;
use crate::host::docker::error::DockerError;
use crate::host::docker::exec::{ExecEnd, ExecRequest};
use crate::host::docker::lifecycle;
use crate::host::error::{ModuleError, PathError};

/// What fits into the pipe: pg_dump goes on while what it wrote before is hashed. In bytes.
const ROOM: i32 = 1 << 20;
/// How often an end that nobody has opened yet is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A named pipe that both sides see; removed when dropped.
pub struct DumpPipe {
    here: PathBuf,
    in_container: String,
}

impl Drop for DumpPipe {
    fn drop(&mut self) {
        // A left-over one is removed by the next attempt.
        let _ = std::fs::remove_file(&self.here);
    }
}

impl DumpPipe {
    /// Makes a pipe beside `partial`, where the container has that folder mounted and may write there.
    ///
    /// # Errors
    /// Docker does not answer, or the pipe cannot be made.
    pub async fn beside(
        docker: &Docker,
        container: &str,
        partial: &Path,
    ) -> Result<Option<Self>, ModuleError> {
        let (Some(folder), Some(name)) = (partial.parent(), partial.file_name()) else {
            return Ok(None);
        };
        let Ok(folder) = folder.canonicalize() else {
            return Ok(None);
        };
        let Some(found) = lifecycle::inspect(docker, container).await? else {
            let name = container.to_owned();
            return Err(DockerError::NoContainer { name }.into());
        };
        let mounted = found
            .mounts
            .unwrap_or_default()
            .into_iter()
            .find_map(|mount| {
                let source = Path::new(mount.source.as_deref()?).canonicalize().ok()?;
                let below = folder.strip_prefix(source).ok()?;
                let target = Path::new(mount.destination.as_deref()?).join(below);
                mount.rw.unwrap_or(false).then_some(target)
            });
        let Some(target) = mounted else {
            return Ok(None);
        };
        let name = format!("{}.pipe", name.to_string_lossy());
        let here = folder.join(&name);
        let Some(in_container) = target.join(&name).to_str().map(str::to_owned) else {
            return Ok(None);
        };
        match std::fs::remove_file(&here) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(PathError::on("remove", &here)(error).into());
            }
            _ => {}
        }
        nix::unistd::mkfifo(&here, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| PathError::on("create", &here)(error.into()))?;
        Ok(Some(Self { here, in_container }))
    }

    /// Lets pg_dump write into the pipe. As root in the container: the folder is root's alone.
    #[must_use]
    pub fn request(&self, mut request: ExecRequest) -> ExecRequest {
        request
            .command
            .push(format!("--file={}", self.in_container));
        request.user = Some("0".into());
        request
    }

    /// Carries everything over while `dumping` runs.
    ///
    /// # Errors
    /// As `dumping`, or the pipe or the file fails; the file's own error is with the sink.
    pub async fn pump(
        &self,
        dumping: impl Future<Output = Result<ExecEnd, ModuleError>>,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ExecEnd, ModuleError> {
        let failed = |source| PostgresError::from(PathError::on("read", &self.here)(source));
        let mut receiver = pipe::OpenOptions::new()
            .open_receiver(&self.here)
            .map_err(failed)?;
        // Where the system allows less it stays as it is.
        let _ = fcntl(&receiver, FcntlArg::F_SETPIPE_SZ(ROOM));
        let mut buffer = vec![0; 256 * 1024];
        let (mut carried, mut ended) = (0_u64, None);
        tokio::pin!(dumping);
        loop {
            let read = tokio::select! {
                end = &mut dumping, if ended.is_none() => {
                    let end: ExecEnd = end?;
                    if end.exit_code != 0 {
                        return Ok(end);
                    }
                    ended = Some(end);
                    continue;
                }
                read = receiver.read(&mut buffer) => read.map_err(failed)?,
            };
            if read > 0 {
                carried += read as u64;
                sink.write_all(&buffer[..read]).await.map_err(failed)?;
                continue;
            }
            // No writer: not yet, or no more.
            match ended.take() {
                Some(end) => {
                    sink.flush().await.map_err(failed)?;
                    return Ok(end);
                }
                None if carried > 0 => {
                    let end = (&mut dumping).await?;
                    sink.flush().await.map_err(failed)?;
                    return Ok(end);
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
