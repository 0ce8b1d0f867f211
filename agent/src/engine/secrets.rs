//! What must not be shown: learnt before anything is.

use super::run::Engine;
use crate::playbook::model::Node;
use crate::playbook::template::Scope;
use crate::source::Problem;

impl Engine {
    /// Whatever was encrypted is a secret.
    pub(super) fn learn_revealed(&self) {
        for secret in self.options.vault.revealed() {
            self.redactor.add(&secret.into());
        }
    }

    /// The values of what the playbook calls secret, of private prompts, and of what was encrypted.
    ///
    /// # Errors
    /// A secret's value cannot be rendered.
    pub(super) fn learn_secrets(&self) -> Result<(), Problem> {
        self.learn_revealed();
        for play in &self.playbook.plays {
            let scope = self.play_scope(&self.root_scope(), play);
            let asked = play.prompts.iter().filter(|prompt| prompt.private);
            for prompt in asked {
                if let Some(value) = self.options.prompted.get(&prompt.name) {
                    self.redactor.add(value);
                }
                self.learn_extra(&prompt.name, &scope)?;
            }
            for name in &play.secrets {
                self.learn_extra(name, &scope)?;
                let inventory = &self.options.host.vars;
                let declared = play.declared.as_ref().map(|all| all.defaults());
                let files = play.vars_files.iter().chain(&declared);
                let vars = files.chain([&play.vars, inventory]).flatten();
                for (_, _, node) in vars.filter(|(key, _, _)| key == name) {
                    self.redactor.add(&self.templates.render(node, &scope)?);
                }
            }
        }
        Ok(())
    }

    /// What `-e` gives for a name, as it will be where it is needed.
    fn learn_extra(&self, name: &str, scope: &Scope) -> Result<(), Problem> {
        if let Some(value) = self.options.extra_vars.get(name) {
            let node = Node::of_extra(name, value);
            self.redactor.add(&self.templates.render(&node, scope)?);
        }
        Ok(())
    }
}
