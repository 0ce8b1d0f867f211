//! The walk through plays, blocks and tasks of one run, and what it carries along.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::decide::Orphan;
use super::directories::Directories;
use super::frame::Frame;
use super::fresh::{Fresh, Source};
use super::handlers::Ending;
use super::plan::orphans;
use super::run::{Engine, RunEnd, Stop};
use super::run_progress::RunProgress;
use super::services::Running;
use super::site::Sites;
use super::task_log::EventSink;
use crate::event::{Event, Stats, Status};
use crate::host::docker::watch::Watch;
use crate::host::time::millis;
use crate::playbook::model::{Block, Item, Node, Play, Task};
use crate::playbook::template::{Cut, Rank, Scope};
use crate::source::Problem;
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
    /// What the journal knows of the directories that services work on.
    pub directories: Directories,
    /// By what the containers of this run know that the agent is there; none in check mode.
    pub watch: Option<Arc<Watch>>,
    pub stats: Stats,
    /// Number of the last task log.
    pub logs: usize,
    /// Fingerprint, result and what was cut from it, of each failure of this run, for when a `rescue` takes over.
    pub last_failure: HashMap<String, (Fingerprint, Value, Vec<String>)>,
    /// How far the whole run is.
    pub effort: RunProgress,
    /// Sites that it works on.
    pub sites: Sites,
    /// In check mode: whether there are names whose values only a real run would give.
    pub unknown: bool,
    /// Results that came back from the journal without their secrets, by their tasks' identities.
    pub sources: HashMap<String, Source<'p>>,
    /// Units that look again although they are done.
    pub again: HashSet<String>,
    /// The tasks that look again now, the innermost last.
    pub freshening: Vec<String>,
    /// The handlers at the end of the play, while they have their turns.
    pub ending: Option<Ending>,
}

/// How the walk goes on after an item.
pub(super) enum Flow {
    Next,
    /// A task failed and nothing took over yet.
    Failed(Failed),
    /// `meta` ends the play here, well.
    EndPlay,
}

/// The task that failed.
pub(super) struct Failed {
    pub identity: String,
    /// Its name, for people.
    pub name: String,
    pub result: Value,
    /// What the result lost on its way through the journal.
    pub hidden: Vec<String>,
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
        effort: RunProgress,
    ) -> Self {
        let orphans = orphans(engine, &history)
            .into_iter()
            .map(|orphan| orphan.identity.to_owned())
            .collect();
        let watch = journal
            .as_ref()
            .map(|_| Arc::new(Watch::new(engine.state.alive(&run))));
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
            directories: Directories::default(),
            watch,
            stats: Stats::default(),
            logs: 0,
            last_failure: HashMap::new(),
            effort,
            sites: Sites::default(),
            unknown: false,
            sources: HashMap::new(),
            again: HashSet::new(),
            freshening: Vec::new(),
            ending: None,
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
            self.directories.add(&record);
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
        })?;
        self.advance_markers();
        Ok(())
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
            match self.items(&play.items, &frame).await? {
                Flow::Failed(_) => return Ok(RunEnd::Failed),
                Flow::EndPlay => continue,
                Flow::Next => {}
            }
            if let Flow::Failed(_) = self.last_handlers(play).await? {
                return Ok(RunEnd::Failed);
            }
        }
        Ok(RunEnd::Done)
    }

    fn items<'a>(&'a mut self, items: &'p [Item], frame: &'a Frame<'p>) -> Walk<'a> {
        Box::pin(async move {
            for item in items {
                if self.engine.options.is_to_end() {
                    return Err(Stop::Interrupted);
                }
                let flow = match item {
                    Item::Task(task) if task.module.name == "meta" => {
                        self.meta(task, frame).await?
                    }
                    Item::Task(task) => self.task(task, frame).await?,
                    Item::Block(block) => self.block(block, frame).await?,
                };
                if !matches!(flow, Flow::Next) {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    async fn block(&mut self, block: &'p Block, frame: &Frame<'p>) -> Result<Flow, Stop> {
        // Those are a rollback's.
        if block.before_undo_of.is_some() {
            return Ok(Flow::Next);
        }
        self.all_rounds(block, frame).await
    }

    /// Runs a block's tasks, once or for each item of its loop.
    pub(super) async fn all_rounds(
        &mut self,
        block: &'p Block,
        frame: &Frame<'p>,
    ) -> Result<Flow, Stop> {
        self.whole_rounds(block, frame).await?;
        let rounds = match self.engine.rounds(block, frame) {
            Ok(rounds) => rounds,
            Err(problem) => return self.no_rounds(block, frame, &problem),
        };
        for frame in rounds {
            let flow = self.round(block, frame).await?;
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Makes whole what the conditions and the loop of an include need.
    async fn whole_rounds(&mut self, block: &'p Block, frame: &Frame<'p>) -> Result<(), Stop> {
        let mut asked = BTreeSet::new();
        while block.dynamic && !self.sources.is_empty() {
            let looking = Frame {
                scope: frame.scope.lenient(),
                ..frame.clone()
            };
            let _ = frame.scope.take_reached();
            let _ = self.engine.rounds(block, &looking);
            let missing = frame.scope.take_reached();
            if missing.is_empty() {
                break;
            }
            for origin in missing {
                if let Fresh::Whole = self.freshen(&origin, frame, &mut asked).await? {
                    continue;
                }
                let Some(task) = first_task(&block.block) else {
                    return Ok(());
                };
                let place = self.engine.place(task, &frame.enter(block), None);
                self.stuck(&place, &origin)?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The items of an include's loop cannot be known: its first task is what fails.
    fn no_rounds(
        &mut self,
        block: &'p Block,
        frame: &Frame<'p>,
        problem: &Problem,
    ) -> Result<Flow, Stop> {
        let Some(task) = first_task(&block.block) else {
            return Ok(Flow::Next);
        };
        let place = self.engine.place(task, &frame.enter(block), None);
        if self.checking() && self.unknown {
            self.not_predictable(&place, "depends on what earlier tasks find");
            return Ok(Flow::Next);
        }
        let end = self.not_runnable(&place, problem)?;
        Ok(match end.status {
            Status::Failed => Flow::Failed(Failed {
                name: self.name(&place),
                identity: place.identity,
                result: end.result,
                hidden: end.hidden,
            }),
            _ => Flow::Next,
        })
    }

    /// A task that is a word to the engine itself.
    async fn meta(&mut self, task: &'p Task, frame: &Frame<'p>) -> Result<Flow, Stop> {
        let engine = self.engine;
        let place = engine.place(task, frame, None);
        if !engine.wants(&place.frame, task) {
            return Ok(Flow::Next);
        }
        for condition in &place.frame.when {
            match engine.templates.condition(condition, &place.frame.scope) {
                Ok(true) => {}
                Ok(false) => return Ok(Flow::Next),
                Err(problem) => {
                    let end = self.not_runnable(&place, &problem)?;
                    return Ok(Flow::Failed(Failed {
                        name: self.name(&place),
                        identity: place.identity,
                        result: end.result,
                        hidden: end.hidden,
                    }));
                }
            }
        }
        let word = task.args.get("free_form").map(Node::to_value);
        Ok(match word.as_ref().and_then(Value::as_str) {
            Some("flush_handlers") => Box::pin(self.flush_handlers(frame.play)).await?,
            Some("end_play" | "end_batch" | "end_host") => Flow::EndPlay,
            _ => Flow::Next,
        })
    }

    async fn round(&mut self, block: &'p Block, frame: Frame<'p>) -> Result<Flow, Stop> {
        let mut flow = self.items(&block.block, &frame).await?;
        if let Flow::Failed(failed) = &flow
            && !block.rescue.is_empty()
        {
            let identity = failed.identity.clone();
            let cut = Cut {
                paths: failed.hidden.clone(),
                origin: identity.clone(),
            };
            let result = failed.result.clone();
            self.root
                .set_cut(Rank::Set, "ansible_failed_result", result, cut);
            self.root
                .set("ansible_failed_task", json!({"name": failed.name}));
            // As in Ansible, whatever becomes of the rescue.
            self.stats.failed = self.stats.failed.saturating_sub(1);
            self.stats.rescued += 1;
            let rescued = self.items(&block.rescue, &frame).await?;
            if matches!(rescued, Flow::Next) {
                self.mark_rescued(&identity)?;
            }
            flow = rescued;
        }
        if !matches!(flow, Flow::EndPlay) {
            let always = self.items(&block.always, &frame).await?;
            if !matches!(always, Flow::Next) {
                flow = always;
            }
        }
        self.leave_services(&block.services).await?;
        Ok(flow)
    }

    /// From now on the failure counts as dealt with: a rerun goes straight to what follows.
    fn mark_rescued(&mut self, identity: &str) -> Result<(), Stop> {
        let known = self.last_failure.get(identity).cloned();
        if let Some((fingerprint, result, hidden)) = known {
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
                hidden,
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
        let here = [&host.name];
        let asked = |tags: &[String], none: &str| match tags {
            [] if !none.is_empty() => vec![none.to_owned()],
            tags => tags.to_vec(),
        };
        let mut groups = host.groups.clone();
        for always in ["all", "ungrouped"] {
            groups.entry(always.to_owned()).or_default();
        }
        let mut magic = json!({
            "inventory_hostname": host.name,
            "inventory_hostname_short": host.name.split('.').next(),
            "ansible_host": host.address,
            "ansible_play_hosts": here,
            "ansible_play_hosts_all": here,
            "ansible_play_batch": here,
            "play_hosts": here,
            "groups": groups,
            "group_names": host.group_names,
            "ansible_verbosity": 0,
            "playbook_dir": self.base_dir,
            "ansible_check_mode": self.options.check,
            "ansible_diff_mode": self.options.diff,
            "ansible_run_tags": asked(&self.options.tags, "all"),
            "ansible_skip_tags": asked(&self.options.skip_tags, ""),
        });
        magic["hostvars"] = json!({host.name.as_str(): magic});
        if let Value::Object(magic) = magic {
            scope.push_values(magic);
        }
        scope.push_extra(&self.options.extra_vars);
        scope
    }

    /// Variables of a play, above `root`: its own, then those of its files, then those of the inventory.
    pub(super) fn play_scope(&self, root: &Scope, play: &Play) -> Scope {
        let mut scope = root.child();
        scope.push_values(Map::from_iter([(
            "ansible_play_name".to_owned(),
            Value::from(play.name.clone()),
        )]));
        // A play that declares its variables has defaults that everything beats, and constants that nothing
        // from outside reaches: there the inventory stands between the two, as in Ansible.
        if let Some(declared) = &play.declared {
            scope.push_vars(&declared.defaults());
            scope.push_vars(&self.options.host.vars);
        }
        scope.push_vars(&play.vars);
        let prompted = self.options.prompted.iter();
        let own = |name: &String| play.prompts.iter().any(|prompt| prompt.name == *name);
        scope.push_values(
            prompted
                .filter(|(name, _)| own(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        );
        for vars in &play.vars_files {
            scope.push_vars(vars);
        }
        if play.declared.is_none() {
            scope.push_vars(&self.options.host.vars);
        }
        scope
    }
}

/// The first task in a list of items.
fn first_task(items: &[Item]) -> Option<&Task> {
    items.iter().find_map(|item| match item {
        Item::Task(task) => Some(task.as_ref()),
        Item::Block(block) => first_task(&block.block),
    })
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
