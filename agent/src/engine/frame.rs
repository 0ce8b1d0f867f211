//! What a task inherits from its play and its blocks.

use crate::playbook::model::{Block, Common, Node, Play, Service, Task};
use crate::playbook::template::Scope;

/// Keywords in force around a task, outermost first.
#[derive(Clone)]
pub(super) struct Frame<'p> {
    pub play: &'p Play,
    /// Variables as they stand here; clones share facts and registered results.
    pub scope: Scope,
    pub when: Vec<&'p Node>,
    pub services: Vec<&'p Service>,
    pub environment: Vec<&'p Node>,
    pub ignore_errors: Option<&'p Node>,
    pub check_mode: Option<&'p Node>,
    pub no_log: bool,
    pub diff: Option<&'p Node>,
    /// Around handlers: they run when they were notified, whatever tags are asked for.
    pub handlers: bool,
    /// Keys of the items of the includes around, outermost first.
    pub rounds: Vec<String>,
}

impl<'p> Frame<'p> {
    pub(super) fn of_play(play: &'p Play, scope: Scope) -> Self {
        Self {
            play,
            scope,
            when: Vec::new(),
            services: Vec::new(),
            environment: play.environment.iter().collect(),
            ignore_errors: None,
            check_mode: None,
            no_log: false,
            diff: play.diff.as_ref(),
            handlers: false,
            rounds: Vec::new(),
        }
    }

    pub(super) fn enter(&self, block: &'p Block) -> Self {
        let mut inner = self.clone();
        inner.services.extend(&block.services);
        if block.dynamic {
            inner.scope.push_params(&block.common.vars);
        } else {
            inner.scope.push_vars(&block.common.vars);
        }
        inner.add(&block.common);
        inner
    }

    pub(super) fn with_task(&self, task: &'p Task) -> Self {
        let mut inner = self.clone();
        inner.scope.push_vars(&task.common.vars);
        inner.add(&task.common);
        inner
    }

    fn add(&mut self, common: &'p Common) {
        self.when.extend(&common.when);
        self.environment.extend(&common.environment);
        self.ignore_errors = common.ignore_errors.as_ref().or(self.ignore_errors);
        self.check_mode = common.check_mode.as_ref().or(self.check_mode);
        self.no_log |= common.no_log;
        self.diff = common.diff.as_ref().or(self.diff);
    }
}
