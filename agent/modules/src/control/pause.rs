//! `pause`: waits for a time or for a person, once.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Zoned;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::ask::ask;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Step, Undo};

/// Waits for a time, or until a person confirms.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseModule {
    /// What the person is asked, or why the run waits.
    #[serde(default)]
    prompt: Option<String>,
    /// Seconds to wait.
    #[serde(default)]
    seconds: Option<u64>,
    /// Minutes to wait.
    #[serde(default)]
    minutes: Option<u64>,
    /// Accepted for Ansible's sake; the answer is shown as it is typed.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    echo: Option<bool>,
    /// What `rollback` asks for when it comes here: that what was confirmed was taken back. Default:
    /// made from `prompt`.
    #[serde(default)]
    #[expect(dead_code, reason = "read from the journal, by `undo`")]
    undo_prompt: Option<String>,
    /// Asks for a confirmation, at a terminal or beforehand by `--yes`; who gave it is journaled.
    /// Default: true where neither `seconds` nor `minutes` is given.
    #[serde(default)]
    confirm: Option<bool>,
}

impl PauseModule {
    fn wait(&self) -> Result<Option<Duration>, ControlError> {
        match (self.seconds, self.minutes) {
            (Some(_), Some(_)) => Err(ControlError::argument(
                "`seconds` and `minutes` exclude each other",
            )),
            (Some(seconds), None) => Ok(Some(Duration::from_secs(seconds))),
            (None, Some(minutes)) => Ok(Some(Duration::from_secs(minutes.saturating_mul(60)))),
            (None, None) => Ok(None),
        }
    }
}

#[async_trait]
impl Module for PauseModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.wait()?;
        // Nobody is asked, and nobody waits, for a prediction.
        Ok(Plan::CannotPredict)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let wait = self.wait()?;
        let start = Zoned::now();
        if let Some(wait) = wait {
            ctx.progress.line(match &self.prompt {
                Some(prompt) => format!("waiting for {} s: {prompt}", wait.as_secs()),
                None => format!("waiting for {} s", wait.as_secs()),
            });
            tokio::select! {
                () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
                () = tokio::time::sleep(wait) => {}
            }
        }
        let mut confirmed_by = None;
        if self.confirm.unwrap_or(wait.is_none()) {
            let prompt = self.prompt.as_deref().unwrap_or("Go on?");
            confirmed_by = Some(ask(ctx, &ctx.redactor.text(prompt)).await?);
        }
        let end = Zoned::now();
        let seconds =
            (end.timestamp().as_millisecond() - start.timestamp().as_millisecond()) / 1000;
        let time = |time: &Zoned| time.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
        let mut outcome = Outcome::ok()
            .with("start", time(&start))
            .with("stop", time(&end))
            .with("delta", seconds)
            .with("stdout", format!("Paused for {seconds} seconds"))
            .with("user_input", "")
            .with("confirmed_by", confirmed_by.clone());
        if let Some(who) = confirmed_by {
            outcome = outcome.summary(format!("confirmed by {who}"));
        }
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        // An answer that was not journaled was not given.
        Ok(Recovery::NotDone)
    }

    fn may_repeat(&self) -> bool {
        true
    }
}

impl TypedModule for PauseModule {
    const NAME: &'static str = "pause";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.pause", "ansible.legacy.pause"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str =
        "asks, or waits, again: an answer that is not in the journal was not given";
    const CHECK_MODE: &'static str = "skipped";
    const SUMMARY: &'static str = "Waits for a time, or until a person confirms, once";
    const EXAMPLE: &'static str = "\
- name: Kaapana 0.3 is up and shows the studies
  pause:
    prompt: Have you opened the study list in the new Kaapana, and is it complete?
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        let confirmed = |effort: &PastAttempt<'_>| {
            effort
                .result
                .is_some_and(|result| !result["confirmed_by"].is_null())
        };
        let Some(effort) = efforts.iter().rfind(|effort| confirmed(effort)) else {
            return Undo::Nothing("it waited, and nobody was asked".into());
        };
        let text = |key: &str| effort.arguments[key].as_str();
        let prompt = match (text("undo_prompt"), text("prompt")) {
            (Some(prompt), _) => prompt.to_owned(),
            (None, Some(prompt)) => {
                format!("Somebody confirmed this:\n{prompt}\nHas it been taken back?")
            }
            (None, None) => "Has what was confirmed been taken back?".into(),
        };
        Undo::Steps(vec![Step::Confirm { prompt }])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::task::context::Confirm;

    fn module(arguments: Value) -> PauseModule {
        serde_json::from_value(arguments).expect("arguments")
    }

    #[tokio::test]
    async fn a_confirmation_says_who_gave_it_and_a_missing_one_fails() {
        struct Alice;
        impl Confirm for Alice {
            fn confirm(&self, prompt: &str) -> Result<String, String> {
                assert_eq!(prompt, "Sure?");
                Ok("alice with --yes".into())
            }
        }
        let mut ctx = TaskContext::for_tests(Path::new("/"));
        let ask = module(json!({"prompt": "Sure?"}));
        assert_eq!(ask.check(&ctx).await.expect("check"), Plan::CannotPredict);
        let error = ask
            .apply(&ctx, &Value::Null)
            .await
            .expect_err("nobody")
            .to_string();
        assert_eq!(
            error,
            "not confirmed: nobody is there; the question is:\nSure?"
        );
        ctx.confirm = Arc::new(Alice);
        let outcome = ask.apply(&ctx, &Value::Null).await.expect("alice");
        assert_eq!(outcome.result["confirmed_by"], "alice with --yes");
        assert_eq!(
            ask.recover(&ctx, &Value::Null).await.expect("recover"),
            Recovery::NotDone
        );
    }

    #[test]
    fn what_a_person_confirmed_a_person_takes_back() {
        let undo = |arguments: Value, by: Value| {
            let result = json!({"changed": false, "confirmed_by": by});
            PauseModule::undo(&[PastAttempt {
                attempt: "r/1",
                intent: &Value::Null,
                arguments: &arguments,
                result: Some(&result),
                accepted: false,
            }])
        };
        let asked = |undo: Undo| match undo {
            Undo::Steps(steps) => match &steps[..] {
                [Step::Confirm { prompt }] => prompt.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let own = json!({"prompt": "Deployed?", "undo_prompt": "Undeployed?"});
        assert_eq!(asked(undo(own, json!("alice"))), "Undeployed?");
        let derived = asked(undo(json!({"prompt": "Deployed?"}), json!("alice")));
        assert!(derived.contains("Deployed?"), "{derived}");
        let waited = undo(json!({"seconds": 1}), Value::Null);
        assert!(matches!(waited, Undo::Nothing(_)));
    }

    #[tokio::test]
    async fn waiting_asks_nobody_and_can_be_interrupted() {
        let ctx = TaskContext::for_tests(Path::new("/"));
        let outcome = module(json!({"seconds": 0}))
            .apply(&ctx, &Value::Null)
            .await
            .expect("waited");
        assert_eq!(outcome.result["confirmed_by"], Value::Null);
        ctx.cancel.cancel();
        let stopped = module(json!({"minutes": 5}))
            .apply(&ctx, &Value::Null)
            .await;
        assert!(matches!(stopped, Err(ModuleError::Cancelled)));
        assert!(
            module(json!({"minutes": 5, "seconds": 1}))
                .check(&ctx)
                .await
                .is_err()
        );
    }
}
