//! The walk through plays, blocks and tasks of one run, and what it carries along.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::decide::Orphan;
use super::effort::Effort;
use super::frame::Frame;
use super::plan::orphans;
use super::run::{Engine, RunEnd, Stop};
use super::services::Running;
use super::task_log::EventSink;
use crate::event::{Event, Stats, Status, millis};
use crate::playbook::model::{Block, Item, Play};
use crate::playbook::template::Scope;
use crate::state::{
    Body, Fingerprint, History, How, Journal, Outcome, StateError, TaskHistory, TaskStatus,
};

/// What a run carries along.
pub(super) struct Session<'p> {
    pub engine: &'p Engine,
    pub events: EventSink,
    pub history: History,
    /// Finished tasks that the playbook does not have: what this run finishes is in the playbook, so they
    /// are looked for once.
    orphans: Vec<String>,
    /// `None` in check mode.
    pub journal: Option<Journal>,
    pub run: String,
    pub state_id: String,
    /// Magic and extra variables; facts and registered results are set here and seen by every scope
    /// made from it.
    pub root: Scope,
    pub running: Vec<Running>,
    pub stats: Stats,
    /// Number of the last task log.
    pub logs: usize,
    /// Fingerprint and result of each failure of this run, for when a `rescue` takes over.
    pub last_failure: HashMap<String, (Fingerprint, Value)>,
    /// How far the whole run is.
    pub effort: Effort,
    /// In check mode: whether there are names whose values only a real run would give.
    pub unknown: bool,
}

/// How the walk goes on after an item.
pub(super) enum Flow {
    Next,
    /// A task failed and nothing took over yet.
    Failed(Failed),
}

/// The task that failed.
pub(super) struct Failed {
    pub identity: String,
    pub result: Value,
}

type Walk<'a> = Pin<Box<dyn Future<Output = Result<Flow, Stop>> + Send + 'a>>;

impl<'p> Session<'p> {
    pub(super) fn new(
        engine: &'p Engine,
        events: EventSink,
        history: History,
        journal: Option<Journal>,
        run: String,
        state_id: String,
        effort: Effort,
    ) -> Self {
        let orphans = orphans(engine, &history)
            .into_iter()
            .map(|orphan| orphan.identity.to_owned())
            .collect();
        Self {
            engine,
            events,
            history,
            orphans,
            journal,
            run,
            state_id,
            root: engine.root_scope(),
            running: Vec::new(),
            stats: Stats::default(),
            logs: 0,
            last_failure: HashMap::new(),
            effort,
            unknown: false,
        }
    }

    /// Finished tasks that the playbook does not have and that no task of this run has adopted.
    pub(super) fn orphans(&self) -> Vec<Orphan<'_>> {
        let finished = |identity: &'_ String| match self.history.task(identity)? {
            TaskHistory::Finished(finished) => Some(finished),
            _ => None,
        };
        self.orphans
            .iter()
            .filter_map(|identity| finished(identity).map(|finished| Orphan { identity, finished }))
            .collect()
    }

    /// Appends to the journal; in check mode does nothing.
    pub(super) fn record(&mut self, body: Body) -> Result<(), StateError> {
        if let Some(journal) = &mut self.journal {
            let record = journal.append(body)?;
            self.history.add(&record);
        }
        Ok(())
    }

    /// Tells how the run ended, and journals it, unless the journal is what broke.
    ///
    /// # Errors
    /// What broke, or the journal.
    pub(super) fn close(
        &mut self,
        outcome: Outcome,
        started: Instant,
        broken: Option<Box<StateError>>,
    ) -> Result<(), StateError> {
        let duration_ms = millis(started.elapsed());
        (self.events)(Event::RunFinished {
            outcome: outcome.word().to_owned(),
            stats: self.stats,
            duration_ms,
        });
        if let Some(error) = broken {
            return Err(*error);
        }
        self.record(Body::RunFinished {
            outcome,
            stats: stats_map(self.stats),
            duration_ms,
        })
    }

    pub(super) fn checking(&self) -> bool {
        self.journal.is_none()
    }

    pub(super) async fn plays(&mut self) -> Result<RunEnd, Stop> {
        let engine = self.engine;
        for play in &engine.playbook.plays {
            (self.events)(Event::PlayStarted {
                play: play.name.clone(),
            });
            let frame = Frame::of_play(play, engine.play_scope(&self.root, play));
            let flow = self.items(&play.items, &frame).await?;
            if let Flow::Failed(_) = flow {
                return Ok(RunEnd::Failed);
            }
            if let Flow::Failed(_) = self.flush_handlers(play).await? {
                return Ok(RunEnd::Failed);
            }
        }
        Ok(RunEnd::Done)
    }

    fn items<'a>(&'a mut self, items: &'p [Item], frame: &'a Frame<'p>) -> Walk<'a> {
        Box::pin(async move {
            for item in items {
                if self.engine.options.cancel.is_cancelled() {
                    return Err(Stop::Interrupted);
                }
                let flow = match item {
                    Item::Task(task) => self.task(task, frame).await?,
                    Item::Block(block) => self.block(block, frame).await?,
                };
                if let Flow::Failed(failed) = flow {
                    return Ok(Flow::Failed(failed));
                }
            }
            Ok(Flow::Next)
        })
    }

    async fn block(&mut self, block: &'p Block, frame: &Frame<'p>) -> Result<Flow, Stop> {
        let frame = frame.enter(block);
        let mut flow = self.items(&block.block, &frame).await?;
        if let Flow::Failed(failed) = &flow
            && !block.rescue.is_empty()
        {
            let identity = failed.identity.clone();
            self.root
                .set("ansible_failed_result", failed.result.clone());
            self.root
                .set("ansible_failed_task", json!({"name": identity}));
            let rescued = self.items(&block.rescue, &frame).await?;
            if matches!(rescued, Flow::Next) {
                self.mark_rescued(&identity)?;
            }
            flow = rescued;
        }
        if let Flow::Failed(failed) = self.items(&block.always, &frame).await? {
            flow = Flow::Failed(failed);
        }
        self.leave_services(&block.services).await?;
        Ok(flow)
    }

    /// From now on the failure counts as dealt with: a rerun goes straight to what follows.
    fn mark_rescued(&mut self, identity: &str) -> Result<(), Stop> {
        self.stats.failed = self.stats.failed.saturating_sub(1);
        self.stats.rescued += 1;
        let known = self.last_failure.get(identity).cloned();
        if let Some((fingerprint, result)) = known {
            (self.events)(Event::TaskFinished {
                task: identity.to_owned(),
                name: identity.rsplit(" / ").next().unwrap_or(identity).to_owned(),
                item: None,
                status: Status::Rescued,
                result: result.clone(),
                summary: Some("its block's rescue took over".into()),
                duration_ms: 0,
            });
            self.record(Body::TaskFinished {
                task: identity.to_owned(),
                attempt: None,
                status: TaskStatus::Rescued,
                how: How::Ran,
                fingerprint,
                arguments: Value::Null,
                result,
                outputs: Vec::new(),
                summary: None,
                error: None,
                duration_ms: 0,
            })?;
        }
        Ok(())
    }
}

impl Engine {
    /// Variables that every play sees: those that are always there, and `-e`.
    pub(super) fn root_scope(&self) -> Scope {
        let mut scope = Scope::new();
        let host = &self.options.host;
        let magic = json!({
            "inventory_hostname": host.name,
            "inventory_hostname_short": host.name.split('.').next(),
            "ansible_host": host.address,
            "group_names": host.group_names,
            "groups": host.groups,
            "playbook_dir": self.base_dir,
            "ansible_check_mode": self.options.check,
        });
        if let Value::Object(magic) = magic {
            scope.push_values(magic);
        }
        scope.push_extra(self.options.extra_vars.clone());
        scope
    }

    /// Variables of a play, above `root`: its own, then those of its files, then those of the inventory.
    pub(super) fn play_scope(&self, root: &Scope, play: &Play) -> Scope {
        let mut scope = root.child();
        scope.push_values(Map::from_iter([(
            "ansible_play_name".to_owned(),
            Value::from(play.name.clone()),
        )]));
        for vars in std::iter::once(&play.vars).chain(&play.vars_files) {
            scope.push_vars(vars);
        }
        scope.push_vars(&self.options.host.vars);
        scope
    }
}

fn stats_map(stats: Stats) -> BTreeMap<String, u32> {
    let value = serde_json::to_value(stats).unwrap_or_else(|_| Map::new().into());
    let Value::Object(map) = value else {
        return Default::default();
    };
    map.into_iter()
        .filter_map(|(key, count)| Some((key, u32::try_from(count.as_u64()?).ok()?)))
        .collect()
}
