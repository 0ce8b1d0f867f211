//! Handlers: notified by a change, run once at the end of the play. A notification is journaled before
//! the change is recorded as finished, so it survives a failure and a crash.

use super::frame::Frame;
use super::run::Stop;
use super::session::{Flow, Session};
use super::unit::{Place, text_of_value};
use crate::event::Event;
use crate::playbook::model::Play;
use crate::source::Problem;
use crate::state::Body;

impl<'p> Session<'p> {
    /// Journals that a task changed something its handlers wait for.
    pub(super) fn notify(
        &mut self,
        place: &Place<'p>,
        scope: &crate::playbook::template::Scope,
    ) -> Result<Result<(), Problem>, Stop> {
        let mut topics = Vec::new();
        for node in &place.task.notify {
            match self.engine.templates.render(node, scope) {
                Ok(value) => topics.push(text_of_value(&value)),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        let play = place.frame.play;
        for topic in topics {
            for handler in &play.handlers {
                let named = handler.common.name.as_deref() == Some(&topic);
                if !named && !handler.listen.contains(&topic) {
                    continue;
                }
                let identity = self.engine.identities.get(handler).to_owned();
                if !self.history.pending_handlers.contains(&identity) {
                    self.record(Body::HandlerNotified {
                        task: identity,
                        by: place.identity.clone(),
                    })?;
                    (self.events)(Event::HandlerNotified {
                        handler: topic.clone(),
                    });
                }
            }
        }
        Ok(Ok(()))
    }

    /// Runs the play's notified handlers, in the order of their definition.
    pub(super) async fn flush_handlers(&mut self, play: &'p Play) -> Result<Flow, Stop> {
        let mut frame = Frame::of_play(play, self.engine.play_scope(&self.root, play));
        frame.handlers = true;
        for handler in &play.handlers {
            let identity = self.engine.identities.get(handler);
            let due = self.history.pending_handlers.iter().any(|pending| {
                pending == identity
                    || identity
                        .strip_prefix(pending.as_str())
                        .is_some_and(|r| r.starts_with(" ["))
            });
            if due {
                let flow = self.task(handler, &frame).await?;
                if !matches!(flow, Flow::Next) {
                    return Ok(flow);
                }
            }
        }
        Ok(Flow::Next)
    }
}
