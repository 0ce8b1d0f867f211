//! An outcome that nobody saw: a time limit ran out, a connection was cut, an answer was lost. The attempt
//! stays open, and the run ends here: no `rescue`, `always`, `ignore_errors`, `until` or handler may build on
//! something that may be half done, or still at work.

use std::time::Instant;

use serde_json::Value;

use super::execute::Work;
use super::failure::Failure;
use super::plan::PlanAction;
use super::run::Stop;
use super::session::Session;
use super::unit::TaskInstance;
use crate::event::Status;
use crate::host::time::millis;
use crate::playbook::template::Scope;
use crate::state::{Body, TaskHistory};
use crate::task::context::TaskContext;
use crate::task::module::Recovery;

/// What to do about it, whatever happened.
const HELP: &str = "nobody saw how this ended: it may be in effect, in part or as a whole. Fix the \
                    cause and run the same command again: it looks what became of it, and asks where \
                    nothing tells";

impl<'p> Session<'p> {
    /// Journals that nobody saw how an attempt ended, tells it, and says how the run ends. A question that
    /// the next run would ask for sure is asked at once.
    pub(super) async fn unseen(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: &Work,
        ctx: &TaskContext,
        mut failure: Failure,
        since: Instant,
    ) -> Result<Stop, Stop> {
        failure.help = Some(HELP.into());
        failure.result.insert("outcome".into(), "unknown".into());
        let error = self.message(place, &failure);
        self.record(Body::OutcomeUnknown {
            task: place.identity.clone(),
            attempt: ctx.attempt.clone(),
            error: error.clone(),
            duration_ms: millis(since.elapsed()),
        })?;
        self.stats.failed += 1;
        let result = Value::Object(failure.to_result());
        let summary = format!("{error}; nobody saw how it ended");
        self.finished_event(place, Status::Failed, &result, Some(summary), since);
        let Some(TaskHistory::Interrupted(attempt)) = self.history.task(&place.identity) else {
            return Ok(Stop::Unseen);
        };
        if !work.module.recovers_by_a_look() {
            return Ok(Stop::Unseen);
        }
        let attempt = attempt.clone();
        let looked = work.module.recover(ctx, &attempt.intent).await;
        let Ok(Recovery::Unknown { doing, found }) = looked else {
            return Ok(Stop::Unseen);
        };
        // Done, or not to be told now: the next run looks again.
        if !matches!(self.already_done(place, scope, ctx).await?, Ok(false)) {
            return Ok(Stop::Unseen);
        }
        let (why, details) = self.engine.ask_about_interrupted(
            &place.identity,
            &attempt,
            (&doing, &found),
            &work.module.advice(ctx),
        );
        let entry = place.entry(PlanAction::Decide, why, details);
        Ok(Stop::Decision(Box::new(entry)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use crate::modules::registry;
    use crate::task::module::Kind;

    /// What the next run knows of an attempt whose end nobody saw.
    #[derive(Debug, PartialEq)]
    enum Tells {
        /// Nothing: a person is asked at once.
        Nobody,
        /// The module finds out in the next run.
        Module,
        /// There is nothing to find out: it only looks, or waits.
        Nothing,
    }

    /// Every one-way module, so that a new one is thought about.
    fn table() -> Vec<(&'static str, Value, Tells)> {
        let ldap = json!({"service": "ldap", "base": "x", "dest": "/x"});
        vec![
            ("command", json!({"cmd": "ls"}), Tells::Nobody),
            ("shell", json!({"cmd": "ls"}), Tells::Nobody),
            ("script", json!({"cmd": "x.sh"}), Tells::Nobody),
            ("pause", json!({"seconds": 1}), Tells::Nothing),
            (
                "docker_container_exec",
                json!({"argv": ["ls"], "container": "x"}),
                Tells::Nobody,
            ),
            (
                "k8s_exec",
                json!({"argv": ["ls"], "pod": "x", "container": "x"}),
                Tells::Nobody,
            ),
            ("k8s_rollout", json!({"name": "x"}), Tells::Module),
            (
                "postgresql_query",
                json!({"query": "SELECT 1"}),
                Tells::Nobody,
            ),
            (
                "postgresql_script",
                json!({"path": "/x.sql"}),
                Tells::Module,
            ),
            ("postgresql_dump", json!({"dest": "/x"}), Tells::Module),
            (
                "postgresql_restore",
                json!({"src": "/x", "db": "x"}),
                Tells::Module,
            ),
            (
                "postgresql_initdb",
                json!({"path": "/x", "image": "x", "env": {}}),
                Tells::Module,
            ),
            ("ldap_export", ldap, Tells::Module),
            ("ldif_apply", json!({"path": "/x"}), Tells::Module),
            ("move", json!({"src": "/x", "dest": "/y"}), Tells::Module),
            ("tempfile", json!({}), Tells::Module),
            ("uri", json!({"url": "http://x/"}), Tells::Nothing),
            (
                "uri",
                json!({"url": "http://x/", "method": "POST"}),
                Tells::Nobody,
            ),
            (
                "uri",
                json!({"url": "http://x/", "method": "DELETE"}),
                Tells::Nobody,
            ),
        ]
    }

    #[test]
    fn every_one_way_module_says_who_tells_of_an_end_that_nobody_saw() {
        let once: BTreeSet<&str> = registry::all()
            .iter()
            .filter(|spec| spec.kind == Kind::OneWay)
            .map(|spec| spec.name)
            .collect();
        let listed: BTreeSet<&str> = table().iter().map(|(name, ..)| *name).collect();
        assert_eq!(once, listed, "the table has another set of modules");
        for (name, arguments, tells) in table() {
            let spec = registry::all()
                .iter()
                .find(|spec| spec.name == name)
                .expect("listed");
            let module = (spec.build)(arguments).unwrap_or_else(|error| panic!("{name}: {error}"));
            let found = match (module.may_repeat(), module.recovers_by_a_look()) {
                (true, _) => Tells::Nothing,
                (false, true) => Tells::Nobody,
                (false, false) => Tells::Module,
            };
            assert_eq!(found, tells, "{name}");
        }
    }
}
