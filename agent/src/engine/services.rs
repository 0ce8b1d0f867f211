//! Services: containers that are wanted as long as a task of their block is pending.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::directories;
use super::failure::Failure;
use super::plan::PlanAction;
use super::run::Stop;
use super::session::Session;
use super::task_log;
use super::unit::TaskInstance;
use super::{arguments, unit};
use crate::event::Event;
use crate::host::docker::service::ServiceHandle;
use crate::host::docker::service::{self, ServiceIdentity, ServiceState};
use crate::host::docker::spec::DockerContainer;
use crate::host::docker::{served, watch};
use crate::host::error::ModuleError;
use crate::host::time::millis;
use crate::playbook::model::Service;
use crate::playbook::template::Scope;
use crate::state::{Body, Contents, ServedDirectory, StateError};
use crate::task::context::TaskContext;

/// How long a service may take until it is ready, where the playbook does not say.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a server may take to write out what it holds before it is left to the admin.
const STOP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a server may say no to a user, a password or a name until that counts: one that is still being made
/// does so for a moment.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How often readiness is looked at.
const READY_INTERVAL: Duration = Duration::from_millis(25);

/// A service that this run started.
pub(super) struct Running {
    pub handle: ServiceHandle,
}

/// Why a service is not up.
pub(super) enum NotUp {
    Failed(Box<Failure>),
    Stop(Stop),
}

impl From<Failure> for NotUp {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl From<StateError> for NotUp {
    fn from(error: StateError) -> Self {
        Self::Stop(error.into())
    }
}

impl<'p> Session<'p> {
    /// Removes what a killed run left, where the journal says that there may be something. Looks at
    /// Docker in that case only.
    pub(super) async fn adopt_left_overs(&mut self, contents: &Contents) -> Result<(), Stop> {
        let mut open: Vec<(String, String)> = Vec::new();
        for record in &contents.records {
            match &record.body {
                Body::ServiceStarted {
                    service, container, ..
                } => {
                    open.push((service.clone(), container.clone()));
                }
                Body::ServiceStopped { service, .. } => open.retain(|(name, _)| name != service),
                _ => {}
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let ctx = self.service_context("services");
        let started = Instant::now();
        match service::remove_left_overs(&ctx, &self.state_id, &[]).await {
            Ok(found) => {
                // What their containers waited for goes with them.
                let alive = self.engine.state.alive(&self.run);
                let _ = alive.parent().map(std::fs::remove_dir_all);
                for (name, container) in open {
                    if found.contains(&name) {
                        (self.events)(Event::ServiceStopped {
                            service: name.clone(),
                            left_over: true,
                            duration_ms: millis(started.elapsed()),
                        });
                    }
                    self.record(Body::ServiceStopped {
                        service: name,
                        container,
                    })?;
                }
            }
            // The service's own start meets the left-over again, and stops there if it must.
            Err(error) => (self.events)(Event::Warning {
                message: format!(
                    "what an earlier run left behind could not be removed yet: {}",
                    super::failure::describe(&error)
                ),
            }),
        }
        Ok(())
    }

    /// Starts the services around a task that are not up yet, outermost first. All that they would mount is
    /// looked at before the first of them starts.
    pub(super) async fn ensure_services(&mut self, place: &TaskInstance<'p>) -> Result<(), NotUp> {
        let frame = &place.frame;
        let missing: Vec<&'p Service> = frame
            .services
            .iter()
            .copied()
            .filter(|service| {
                let up = |running: &Running| running.handle.name == service.name;
                !self.running.iter().any(up)
            })
            .collect();
        for spec in &missing {
            let container = self.container_of(spec, &frame.scope)?;
            self.look_at_directories(spec, &container, place).await?;
        }
        for spec in missing {
            self.start_service(spec, place).await?;
        }
        Ok(())
    }

    /// Looks at the data directories that a service's container would mount, and asks where one of them is
    /// not what it was.
    async fn look_at_directories(
        &self,
        spec: &Service,
        container: &DockerContainer,
        place: &TaskInstance<'p>,
    ) -> Result<Vec<ServedDirectory>, NotUp> {
        let ctx = self.service_context(&spec.name);
        let looked = served::look(&ctx, container).await;
        let served = looked.map_err(|error| match Failure::of_module(&error) {
            Some(failure) => failure.into(),
            None => NotUp::Stop(Stop::Interrupted),
        })?;
        let image = container.image.as_deref().unwrap_or_default();
        if let Err(refused) = self.directories.judge(&spec.name, image, &served) {
            let why = format!("{refused} [{}]", refused.code());
            let entry = place.entry(PlanAction::Decide, why, refused.help());
            return Err(NotUp::Stop(Stop::Decision(Box::new(entry))));
        }
        Ok(served.directories.iter().map(directories::served).collect())
    }

    async fn start_service(
        &mut self,
        spec: &Service,
        place: &TaskInstance<'p>,
    ) -> Result<(), NotUp> {
        let started = Instant::now();
        let scope = place.frame.scope.clone();
        let container = self.container_of(spec, &scope)?;
        let identity = ServiceIdentity {
            state_id: self.state_id.clone(),
            playbook: self.engine.name.clone(),
            service: spec.name.clone(),
            run: self.run.clone(),
        };
        let name = container
            .name
            .clone()
            .unwrap_or_else(|| identity.container_name());
        // Once more: an outer service may have taken minutes to start.
        let directories = self.look_at_directories(spec, &container, place).await?;
        self.hold_settled(place.frame.play)?;
        self.record(Body::ServiceStarted {
            service: spec.name.clone(),
            container: name.clone(),
            directories,
        })?;
        let mut ctx = self.service_context(&spec.name);
        ctx.cancel = self.engine.options.cancel.clone();
        let handle = match service::start(&ctx, &identity, &container).await {
            Ok(handle) => handle,
            Err(error) => {
                self.record(Body::ServiceStopped {
                    service: spec.name.clone(),
                    container: name.clone(),
                })?;
                return Err(match Failure::of_module(&error) {
                    Some(failure) => failure.into(),
                    None => NotUp::Stop(Stop::Interrupted),
                });
            }
        };
        // From here on it is ours to stop, ready or not.
        self.running.insert(
            0,
            Running {
                handle: handle.clone(),
            },
        );
        self.wait_until_ready(
            spec,
            &handle,
            &scope,
            container.image.as_deref().unwrap_or_default(),
        )
        .await?;
        (self.events)(Event::ServiceStarted {
            service: spec.name.clone(),
            container: handle.container_name,
            duration_ms: millis(started.elapsed()),
        });
        Ok(())
    }

    fn container_of(&self, spec: &Service, scope: &Scope) -> Result<DockerContainer, NotUp> {
        let templates = &self.engine.templates;
        let rendered = templates
            .render(&spec.container, scope)
            .map_err(|e| Failure::of_problem(&e))?;
        let schema = schemars::schema_for!(DockerContainer);
        let misfit = |text: String| {
            let message = format!("{}: service `{}`: {text}", spec.at, spec.name);
            NotUp::from(Failure::new("playbook::wrong_argument", message))
        };
        let coerced =
            crate::playbook::arguments::coerce(schema.as_value(), rendered).map_err(|errors| {
                misfit(
                    errors
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("; "),
                )
            })?;
        serde_path_to_error::deserialize(coerced).map_err(|error| misfit(error.to_string()))
    }

    async fn wait_until_ready(
        &mut self,
        spec: &Service,
        handle: &ServiceHandle,
        scope: &Scope,
        image: &str,
    ) -> Result<(), NotUp> {
        let Some((module, args)) = &spec.ready else {
            return Ok(());
        };
        let templates = &self.engine.templates;
        let (probe, _) = arguments::build(self.engine, module, args, scope)
            .map_err(|e| Failure::of_problem(&e))?;
        let patience = match &spec.ready_timeout {
            Some(node) => {
                let value = templates
                    .render(node, scope)
                    .map_err(|e| Failure::of_problem(&e))?;
                seconds(&value).unwrap_or(READY_TIMEOUT)
            }
            None => READY_TIMEOUT,
        };
        let mut ctx = self.service_context(&spec.name);
        ctx.cancel = self.engine.options.cancel.clone();
        ctx.services = self.handles();
        let deadline = Instant::now() + patience;
        let mut refused_since = None;
        loop {
            if ctx.cancel.is_cancelled() {
                return Err(NotUp::Stop(Stop::Interrupted));
            }
            let last = match probe.apply(&ctx, &Value::Null).await {
                Ok(_) => return Ok(()),
                Err(ModuleError::Cancelled) => return Err(NotUp::Stop(Stop::Interrupted)),
                Err(error) => {
                    let since = match error.is_refusal() {
                        true => *refused_since.get_or_insert_with(Instant::now),
                        false => {
                            refused_since = None;
                            Instant::now()
                        }
                    };
                    if since.elapsed() >= REFUSED_FOR
                        && let Some(failure) = Failure::of_module(&error)
                    {
                        return Err(failure.into());
                    }
                    super::failure::describe(&error)
                }
            };
            if let Ok(ServiceState::Exited { code, log }) = service::state(&ctx, handle).await {
                let refused = watch::refusal(image, code, &log).map(ModuleError::from);
                if let Some(failure) = refused.as_ref().and_then(Failure::of_module) {
                    return Err(failure.into());
                }
                let mut failure = Failure::new(
                    "service::died",
                    format!(
                        "service `{}` ended with exit code {code} before it was ready; its last \
                         words: {}",
                        spec.name,
                        log.join(" | ")
                    ),
                );
                failure.help = Some("see what its log says, mend the cause and run again".into());
                return Err(failure.into());
            }
            if Instant::now() >= deadline {
                let mut failure = Failure::new(
                    "service::not_ready",
                    format!(
                        "service `{}` was not ready after {} s: {last}",
                        spec.name,
                        patience.as_secs()
                    ),
                );
                failure.help = Some(
                    "a server that recovers from a crash may need longer: raise `ready_timeout`"
                        .into(),
                );
                return Err(failure.into());
            }
            tokio::select! {
                () = ctx.cancel.cancelled() => {}
                () = tokio::time::sleep(READY_INTERVAL) => {}
            }
        }
    }

    /// Stops the services of a block that is being left.
    pub(super) async fn leave_services(&mut self, services: &[Service]) -> Result<(), Stop> {
        let (gone, kept) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| services.iter().any(|spec| spec.name == running.handle.name));
        self.running = kept;
        self.stop_all(gone).await
    }

    /// Stops whatever is still up: at the end, after a failure, on interruption.
    pub(super) async fn stop_services(&mut self) -> Result<(), Stop> {
        let all = std::mem::take(&mut self.running);
        self.stop_all(all).await
    }

    async fn stop_all(&mut self, gone: Vec<Running>) -> Result<(), Stop> {
        let ctx = self.service_context("services");
        for running in gone {
            let started = Instant::now();
            let Running { handle } = running;
            match service::stop(&ctx, &handle, STOP_TIMEOUT).await {
                Ok(()) => {
                    (self.events)(Event::ServiceStopped {
                        service: handle.name.clone(),
                        left_over: false,
                        duration_ms: millis(started.elapsed()),
                    });
                    self.record(Body::ServiceStopped {
                        service: handle.name,
                        container: handle.container_name,
                    })?;
                }
                // No record: the next run meets it as a left-over.
                Err(error) => (self.events)(Event::Warning {
                    message: format!(
                        "service `{}` could not be stopped: {}; the next run looks at it again",
                        handle.name,
                        super::failure::describe(&error)
                    ),
                }),
            }
        }
        Ok(())
    }

    pub(super) fn handles(&self) -> Vec<ServiceHandle> {
        self.running
            .iter()
            .map(|running| running.handle.clone())
            .collect()
    }

    /// A context that no signal interrupts: stopping is what signals ask for.
    fn service_context(&self, name: &str) -> TaskContext {
        let mut ctx = self.engine.looking_context();
        ctx.attempt.clone_from(&self.run);
        ctx.cancel = CancellationToken::new();
        ctx.progress = task_log::progress(
            name,
            self.engine.state.run_logs(&self.run).join("services.log"),
            &self.events,
            &self.engine.redactor,
            task_log::Lines::Kept,
        );
        ctx.watch.clone_from(&self.watch);
        ctx
    }
}

/// Reads a number of seconds.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        other => unit::text_of_value(other).trim().parse().ok(),
    };
    number.and_then(|number| Duration::try_from_secs_f64(number).ok())
}
