//! Results that the journal holds without their secrets: whoever needs one has its task look again before
//! anything begins, where that task only looks. Else the run stops there.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};

use super::decide::Decision;
use super::frame::Frame;
use super::plan::PlanAction;
use super::recovery::only_looks;
use super::run::Stop;
use super::session::{Flow, Session};
use super::task::UnitEnd;
use super::unit::{Look, TaskInstance};
use crate::playbook::model::Task;
use crate::playbook::template::{Cut, Scope};
use crate::source::Problem;
use crate::state::{Finished, TaskHistory};
use crate::task::module::Kind;

/// Where a result came from that lost its secrets.
#[derive(Clone)]
pub(super) struct Source<'p> {
    pub task: &'p Task,
    /// What is around the task.
    pub frame: Frame<'p>,
    /// Those of its units whose results lost something.
    pub units: Vec<String>,
}

/// What became of the wish to have a result whole.
pub(super) enum Fresh {
    Whole,
    /// The task does more than look, or is out of reach.
    Stuck,
    /// It looked again, and failed.
    Failed,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'a>>;

impl<'p> Session<'p> {
    /// Makes whole what a unit needs, before anything of it begins. Returns how the unit ends where that
    /// cannot be.
    pub(super) async fn whole(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
    ) -> Result<Option<UnitEnd>, Stop> {
        let mut asked = BTreeSet::new();
        loop {
            // Nothing came back without its secrets, as nearly always.
            if self.sources.is_empty() {
                return Ok(None);
            }
            let missing = self.missing(place, scope);
            if missing.is_empty() {
                return Ok(None);
            }
            for origin in missing {
                match self.freshen(&origin, &place.frame, &mut asked).await? {
                    Fresh::Whole => {}
                    // What was done stays done, though nobody can say any more what it was done with.
                    Fresh::Stuck => {
                        return match self.finished(place) {
                            Some(finished) => Ok(Some(self.done(place, &finished))),
                            None => self.stuck(place, &origin).map(Some),
                        };
                    }
                    Fresh::Failed => {
                        let problem = Problem::new(
                            "engine::needs_secret",
                            &place.task.common.at,
                            format!(
                                "it needs what `{origin}` returns, which the journal holds without \
                                 its secrets; looking again, that task failed"
                            ),
                            "this task",
                        );
                        return self.not_runnable(place, &problem).map(Some);
                    }
                }
            }
        }
    }

    /// The good end of a unit that nobody wants again.
    fn finished(&self, place: &TaskInstance<'p>) -> Option<Finished> {
        let wanted = self.is_due(place) || self.again.contains(&place.identity);
        match self.history.task(&place.identity) {
            Some(TaskHistory::Finished(finished)) if !wanted => Some(finished.as_ref().clone()),
            _ => None,
        }
    }

    /// The tasks whose results a unit would use where something was cut from them.
    fn missing(&self, place: &TaskInstance<'p>, scope: &Scope) -> BTreeSet<String> {
        let engine = self.engine;
        let looking = scope.lenient();
        let _ = scope.take_reached();
        let orphans = match self.history.task(&place.identity) {
            None => self.orphans(),
            Some(_) => Vec::new(),
        };
        let look = engine.look(place, &looking, &self.history, &orphans);
        let passed_over = match &look {
            Ok(Look::Ready(ready)) => {
                matches!(ready.decision, Decision::Done(_) | Decision::Adopt { .. })
                    && !self.is_due(place)
                    && !self.again.contains(&place.identity)
            }
            _ => false,
        };
        if passed_over {
            let _ = scope.take_reached();
            return BTreeSet::new();
        }
        // What is asked when the effect is there already: too late to find something missing.
        let mut after = looking;
        if let Some(name) = &place.task.register {
            after.bind(name, json!({}));
        }
        let task = place.task;
        let conditions = [&task.changed_when, &task.failed_when, &task.until];
        for node in conditions.into_iter().flatten().chain(&task.done_when.that) {
            let _ = engine.templates.evaluate(node, &after);
        }
        for node in &task.notify {
            let _ = engine.templates.render(node, &after);
        }
        scope.take_reached()
    }

    /// Has a task look again whose result lost its secrets.
    pub(super) fn freshen<'a>(
        &'a mut self,
        origin: &'a str,
        user: &'a Frame<'p>,
        asked: &'a mut BTreeSet<String>,
    ) -> Boxed<'a, Fresh> {
        Box::pin(async move {
            let first = asked.insert(origin.to_owned());
            let Some(source) = self.sources.get(origin).cloned() else {
                return Ok(Fresh::Stuck);
            };
            let looks = source.task.module.kind == Kind::ReadOnly || only_looks(source.task);
            let at_hand = source.frame.services.iter().all(|service| {
                let mut around = user.services.iter();
                around.any(|other| other.name == service.name)
            });
            if !first || !looks || !at_hand || self.freshening.iter().any(|one| one == origin) {
                return Ok(Fresh::Stuck);
            }
            self.again.extend(source.units);
            self.freshening.push(origin.to_owned());
            let flow = self.task(source.task, &source.frame).await;
            self.freshening.pop();
            Ok(match flow? {
                Flow::Failed(_) => Fresh::Failed,
                _ => Fresh::Whole,
            })
        })
    }

    /// A unit needs what nobody but an operator can bring back.
    pub(super) fn stuck(
        &mut self,
        place: &TaskInstance<'p>,
        origin: &str,
    ) -> Result<UnitEnd, Stop> {
        if self.checking() {
            return Ok(self.not_predictable(
                place,
                "depends on a result that the journal holds without its secrets",
            ));
        }
        let why = format!(
            "it uses what `{origin}` returned, and the journal holds that without its secrets; that task \
             does more than look, so it is not run again unasked"
        );
        let task = super::question::quoted(origin);
        let details = vec![
            "give the value by a variable (`-e @FILE`) and use that in its place".to_owned(),
            format!(
                "or have that task run again, right when having its effect twice does no harm: `{} \
                 --redo {task}`",
                self.engine.command("run")
            ),
        ];
        let entry = place.entry(PlanAction::Decide, why, details);
        Err(Stop::Decision(Box::new(entry)))
    }

    /// Notes what a task's result lost, or that it is whole.
    pub(super) fn note_source(
        &mut self,
        place: &TaskInstance<'p>,
        frame: &Frame<'p>,
        units: Vec<String>,
    ) {
        if units.is_empty() {
            self.sources.remove(&place.identity);
            return;
        }
        let source = Source {
            task: place.task,
            frame: frame.clone(),
            units,
        };
        self.sources.insert(place.identity.clone(), source);
    }

    /// Sets the facts of a task's result. Looking again, a task sets only what it had set and lost: what
    /// another one has set since stays.
    pub(super) fn take_facts(
        &mut self,
        place: &TaskInstance<'p>,
        result: &Value,
        hidden: &[String],
    ) {
        let cut = Cut {
            paths: hidden.to_vec(),
            origin: place.whole().to_owned(),
        };
        let again = self.freshening.last() == Some(&cut.origin);
        super::facts::take(&self.root, place.task, result, &cut, again);
    }
}
