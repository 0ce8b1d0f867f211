//! The container that makes a data directory, from its start to its clean end.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::error::PostgresError;
use crate::host::docker::error::DockerError;
use crate::host::docker::service::ServiceHandle;
use crate::host::docker::service::{self, ServiceIdentity, ServiceState};
use crate::host::docker::spec::DockerContainer;
use crate::host::docker::{client, lifecycle};
use crate::host::error::ModuleError;
use crate::initdb::error::InitdbError;
use crate::initdb::place::ClusterLocation;
use crate::redact::HIDDEN;
use crate::server::connect::Login;
use crate::task::context::TaskContext;

const INTERVAL: Duration = Duration::from_millis(25);
/// One try to log in.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns whose container it is: one attempt's at one path, found again after a crash by its labels.
#[must_use]
pub fn identity(place: &ClusterLocation, attempt: &str) -> ServiceIdentity {
    let mut hash = Sha256::new();
    hash.update(attempt.as_bytes());
    hash.update([0]);
    hash.update(place.path.as_os_str().as_encoded_bytes());
    let name = place.path.file_name().unwrap_or_default();
    let name: String = name.to_string_lossy().chars().take(40).collect();
    ServiceIdentity {
        state_id: hex::encode(hash.finalize()),
        playbook: "postgresql_initdb".into(),
        service: format!("initdb-{name}"),
        run: attempt.split('/').next().unwrap_or_default().to_owned(),
    }
}

/// One initialisation under way.
pub struct Init<'a> {
    /// The task's context.
    pub ctx: &'a TaskContext,
    /// What is started.
    pub container: DockerContainer,
    /// Whose it is.
    pub identity: ServiceIdentity,
    /// How long the server may take to answer, and then to stop.
    pub timeout: Duration,
}

impl Init<'_> {
    fn image(&self) -> String {
        self.container.image.clone().unwrap_or_default()
    }

    /// Starts the container, waits for the real server, and stops it cleanly.
    ///
    /// # Errors
    /// It died, did not answer in time, did not end cleanly, or the run was interrupted. The caller
    /// throws away what is left.
    pub async fn run(&self) -> Result<(), ModuleError> {
        // Not to be dropped half way: Docker would make the container after we have looked for it.
        let handle = service::start(self.ctx, &self.identity, &self.container)
            .await
            .map_err(|error| self.explain(error))?;
        self.ctx.progress.line(format!(
            "container {} initialises the data directory",
            handle.container_name
        ));
        let work = async {
            self.wait(&handle).await?;
            self.ctx
                .progress
                .line("the server answers; stopping it cleanly");
            self.stop(&handle).await
        };
        tokio::select! {
            biased;
            () = self.ctx.cancel.cancelled() => Err(ModuleError::Cancelled),
            done = work => done,
        }
    }

    /// A container that is gone at once is the same failure as one that is gone a little later.
    fn explain(&self, error: ModuleError) -> ModuleError {
        if let ModuleError::Failed(failure) = &error {
            let failure: &dyn std::error::Error = failure.as_ref();
            if let Some(DockerError::Died { code, log, .. }) = failure.downcast_ref() {
                return self.died(*code, std::slice::from_ref(log)).into();
            }
        }
        error
    }

    fn died(&self, code: i64, log: &[String]) -> InitdbError {
        InitdbError::Died {
            image: self.image(),
            code,
            log: self.words(log),
        }
    }

    /// Log lines without the password.
    fn words(&self, log: &[String]) -> String {
        let mut text = log.join(" | ");
        let password = self.container.env.get("POSTGRES_PASSWORD");
        if let Some(password) = password.filter(|text| !text.is_empty()) {
            text = text.replace(password.as_str(), HIDDEN);
        }
        if text.is_empty() {
            text = "it said nothing".into();
        }
        self.ctx.redactor.text(&text)
    }

    /// Logs in over TCP: the server that runs while the database is made listens on its socket only.
    async fn wait(&self, handle: &ServiceHandle) -> Result<(), ModuleError> {
        let mut ctx = self.ctx.clone();
        ctx.services = vec![handle.clone()];
        let server = Login::default().server(&ctx)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let last = match server.connect_within(&server.db(None), PATIENCE).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if let ServiceState::Exited { code, log } = service::state(&ctx, handle).await? {
                return Err(self.died(code, &log).into());
            }
            // No passing trouble: it is the real server, and it will never let us in.
            if let PostgresError::Connect { source, .. } = &last
                && let Some("28P01" | "28000" | "3D000") = source.sqlstate.as_deref()
            {
                return Err(last.into());
            }
            if Instant::now() >= deadline {
                let docker = client::connect(&ctx).await?;
                let log = lifecycle::log_tail(&docker, &handle.container_id, 10).await;
                return Err(InitdbError::NotReady {
                    image: self.image(),
                    seconds: self.timeout.as_secs(),
                    last: last.to_string(),
                    log: self.words(&log),
                }
                .into());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Stops the server and makes sure that it ended as it should.
    async fn stop(&self, handle: &ServiceHandle) -> Result<(), ModuleError> {
        let docker = client::connect(self.ctx).await?;
        let id = &handle.container_id;
        lifecycle::stop(&docker, id, self.timeout).await?;
        match service::state(self.ctx, handle).await? {
            ServiceState::Exited { code: 0, .. } => {}
            ServiceState::Exited { code, log } => return Err(self.died(code, &log).into()),
            ServiceState::Running => {
                return Err(InitdbError::Unusable {
                    image: self.image(),
                    why: "the container was started again by somebody else".into(),
                }
                .into());
            }
        }
        Ok(lifecycle::remove(&docker, id).await?)
    }
}
