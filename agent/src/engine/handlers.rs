//! Handlers: notified by a change, run at the ends of the play's parts. A notification is journaled before
//! the change is recorded as finished, so it survives a failure and a crash; it is over with the record that
//! the handler's turn came to its end.
//!
//! As in Ansible a flush goes through the handlers once, in the order of their definition: one that is
//! notified by a later one has its turn in the next flush, and a play ends with one flush for each part
//! (`pre_tasks`, `tasks`, `post_tasks`) that ends there. Other than in Ansible, whatever is left after the
//! last of them has its turn all the same, once; handlers that notify each other end there.

use std::collections::HashSet;

use super::frame::Frame;
use super::run::Stop;
use super::session::{Flow, Session};
use super::unit::{TaskInstance, text_of_value};
use crate::event::Event;
use crate::playbook::model::{Play, Task};
use crate::source::Problem;
use crate::state::Body;

/// How far the handlers at the end of a play are.
#[derive(Default)]
pub(super) struct Ending {
    /// Those that had a turn.
    had: HashSet<String>,
    /// Flushes that come after this one, as in Ansible.
    left: usize,
    /// Number of the handler whose turn it is.
    at: usize,
    /// The flushes of Ansible's are over: what had a turn has no other one.
    over: bool,
}

impl Ending {
    /// Whether a handler that is notified now will have another turn.
    fn has_a_turn_for(&self, number: usize, identity: &str) -> bool {
        let ahead = number > self.at && !self.over;
        self.left > 0 || ahead || !self.had.contains(identity)
    }
}

impl<'p> Session<'p> {
    /// Journals that a task changed something its handlers wait for.
    pub(super) fn notify(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &crate::playbook::template::Scope,
    ) -> Result<Result<(), Problem>, Stop> {
        let mut topics = Vec::new();
        for node in &place.task.notify {
            match self.engine.templates.render(node, scope) {
                Ok(value) => topics.push(text_of_value(&value)),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        let engine = self.engine;
        let play = place.frame.play;
        for topic in topics {
            for (number, handler) in play.handlers.iter().enumerate() {
                let named = handler.common.name.as_deref() == Some(&topic);
                if !named && !handler.listen.contains(&topic) {
                    continue;
                }
                let identity = engine.identities.get(handler);
                let itself = std::ptr::eq(handler, place.task);
                if !itself && self.is_pending(identity) {
                    continue;
                }
                if let Some(ending) = &self.ending
                    && !ending.has_a_turn_for(number, identity)
                {
                    (self.events)(Event::Warning {
                        message: format!(
                            "`{}` notifies the handler `{topic}` after its last turn; it does not run \
                             again",
                            self.name(place)
                        ),
                    });
                    continue;
                }
                self.record(Body::HandlerNotified {
                    task: identity.to_owned(),
                    by: place.identity.clone(),
                })?;
                (self.events)(Event::HandlerNotified {
                    handler: topic.clone(),
                });
            }
        }
        Ok(Ok(()))
    }

    fn is_pending(&self, identity: &str) -> bool {
        let mut pending = self.history.pending_handlers.iter();
        pending.any(|pending| pending == identity)
    }

    /// Runs the play's notified handlers, in the order of their definition.
    pub(super) async fn flush_handlers(&mut self, play: &'p Play) -> Result<Flow, Stop> {
        let engine = self.engine;
        let mut frame = Frame::of_play(play, engine.play_scope(&self.root, play));
        frame.handlers = true;
        for (number, handler) in play.handlers.iter().enumerate() {
            let identity = engine.identities.get(handler);
            if !self.is_pending(identity) {
                continue;
            }
            if let Some(ending) = &mut self.ending {
                ending.at = number;
                ending.had.insert(identity.to_owned());
            }
            let flow = self.handler(handler, &frame).await?;
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// A handler's turn.
    async fn handler(&mut self, handler: &'p Task, frame: &Frame<'p>) -> Result<Flow, Stop> {
        let flow = self.task(handler, frame).await?;
        if matches!(flow, Flow::Next) {
            self.record(Body::HandlerRan {
                task: self.engine.identities.get(handler).to_owned(),
            })?;
        }
        Ok(flow)
    }

    /// The flushes with which a play ends, until nothing that was notified is left.
    pub(super) async fn last_handlers(&mut self, play: &'p Play) -> Result<Flow, Stop> {
        let pending = |session: &Self| {
            let mut handlers = play.handlers.iter();
            handlers.any(|handler| session.is_pending(session.engine.identities.get(handler)))
        };
        self.ending = Some(Ending::default());
        let mut flushes = play.flushes;
        let mut flow = Flow::Next;
        while matches!(flow, Flow::Next) && pending(self) {
            if let Some(ending) = &mut self.ending {
                ending.over = flushes == 0;
                flushes = flushes.saturating_sub(1);
                ending.left = flushes;
            }
            flow = self.flush_handlers(play).await?;
            if self.checking() {
                // Nothing is noted, so nothing is ever over.
                break;
            }
        }
        self.ending = None;
        Ok(flow)
    }
}
