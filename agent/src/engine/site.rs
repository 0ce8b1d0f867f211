//! One site, one state: which sites a playbook works on, whether this state may go on there, and the
//! marker that says so from the first effect on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failure::describe;
use super::run::{Engine, RunError, Stop};
use super::session::Session;
use crate::event::Event;
use crate::modules::registry;
use crate::playbook::model::{Item, Play, Task};
use crate::source::Problem;
use crate::state::site::{self, Claimant, Marker, Standing};
use crate::state::{Body, Contents, History, StateError, UndoableTasks, adopt};
use crate::task::module::Kind;

/// The sites of one run: what its plays name, rendered once, before anything runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Sites {
    /// Number of a play, and its site.
    plays: Vec<(usize, PathBuf)>,
    /// Those that this run has marked.
    marked: Vec<PathBuf>,
}

/// A site as it is now, for those who only look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteView {
    /// Its folder.
    pub site: PathBuf,
    /// Whether this state's journal holds it.
    pub held: bool,
    /// What its marker says, where there is one that can be read.
    pub marker: Option<Marker>,
    /// Why a run would not go on there.
    pub refusal: Option<String>,
}

impl SiteView {
    /// Looks at a site.
    #[must_use]
    pub fn of(site: &Path, held: bool, contents: &Contents, state: &Path) -> Self {
        let marker = site::read(site).ok().flatten();
        let refused = site::look(site, &Claimant::of(contents, state)).err();
        Self {
            site: site.to_path_buf(),
            held,
            marker,
            refusal: refused.as_ref().map(told),
        }
    }
}

/// An error with what to do about it, in one line.
fn told(error: &StateError) -> String {
    let help = error.help().map(|help| format!("; {help}"));
    format!("{}{}", describe(error), help.unwrap_or_default())
}

impl Engine {
    /// The sites that plays name. Facts and results are not known when they are looked at.
    pub(super) fn sites(&self) -> Result<Sites, Problem> {
        let root = self.root_scope();
        let mut sites = Sites::default();
        for (number, play) in self.playbook.plays.iter().enumerate() {
            let Some(node) = &play.site else { continue };
            let wrong = |message: String| Problem::new("playbook::site", &node.at, message, "here");
            let value = self
                .templates
                .render(node, &self.play_scope(&root, play))
                .map_err(|problem| {
                    problem.with_help(
                        "`site` is looked at before anything runs: only variables of the play and `-e` are \
                         known then",
                    )
                })?;
            let path = match value {
                Value::String(path) if Path::new(&path).is_absolute() => PathBuf::from(path),
                other => {
                    let other = super::unit::text_of_value(&self.redactor.value(&other));
                    let message = format!("`site` must be an absolute path, and is `{other}`");
                    return Err(wrong(message)
                        .with_help("name the folder that all of the play's work belongs to"));
                }
            };
            sites.plays.push((number, site::real(&path)));
        }
        Ok(sites)
    }

    /// This playbook's state, as markers name it.
    fn own_state(&self) -> PathBuf {
        let path = self.state.path();
        std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
    }

    /// Refuses to begin where a site does not go on with this state. A run goes on at what its journal
    /// holds and what its plays name; who takes back or deletes, only at what the journal holds.
    pub(super) fn refuse_other_sites(
        &self,
        contents: &Contents,
        history: &History,
        command: Option<&str>,
    ) -> Result<Sites, RunError> {
        let sites = match (self.sites(), command) {
            (Ok(sites), _) => sites,
            (Err(problem), None) => return Err(RunError::Invalid(vec![problem])),
            (Err(_), Some(_)) => Sites::default(),
        };
        let own = self.own_state();
        let held = history.held_sites();
        let named = sites.plays.iter().map(|(_, site)| site);
        // A journal of an older format holds none, whatever was done.
        let named = named.filter(|_| command.is_none() || history.sites.is_empty());
        for site in held.chain(named) {
            site::look(site, &Claimant::of(contents, &own))?;
        }
        Ok(sites)
    }

    /// Whether the journal has effects on the host that were not taken back.
    fn has_effects(&self, contents: &Contents) -> bool {
        let mut looks = HashSet::new();
        for play in &self.playbook.plays {
            each_task(&play.items, &mut |task| {
                if task.is_look() {
                    looks.insert(self.identities.get(task));
                }
            });
        }
        let is_look = |name: &str| {
            let mut without_item = name.match_indices(" [").map(|(end, _)| &name[..end]);
            looks.contains(name) || without_item.any(|name| looks.contains(name))
        };
        let deeds = UndoableTasks::of(&contents.records).deeds;
        let mut efforts = deeds
            .iter()
            .filter(|deed| !is_look(&deed.task))
            .flat_map(|deed| &deed.efforts);
        efforts.any(|effort| {
            registry::find(&effort.module).is_none_or(|spec| spec.kind != Kind::ReadOnly)
        })
    }

    /// Every site of this playbook and its journal as it is now.
    #[must_use]
    pub fn site_views(&self, contents: &Contents, history: &History) -> Vec<SiteView> {
        let named = self.sites().unwrap_or_default().plays.into_iter();
        let mut views = site_views(contents, history, &self.own_state());
        for (_, site) in named {
            if !views.iter().any(|view| view.site == site) {
                views.push(SiteView::of(&site, false, contents, &self.own_state()));
            }
        }
        views
    }
}

fn each_task<'p>(items: &'p [Item], visit: &mut impl FnMut(&'p Task)) {
    for item in items {
        match item {
            Item::Task(task) => visit(task),
            Item::Block(block) => {
                for items in [&block.block, &block.rescue, &block.always] {
                    each_task(items, visit);
                }
            }
        }
    }
}

/// Every site that a journal holds as it is now.
#[must_use]
pub fn site_views(contents: &Contents, history: &History, state: &Path) -> Vec<SiteView> {
    let held = history.held_sites();
    held.map(|site| SiteView::of(site, true, contents, state))
        .collect()
}

impl Session<'_> {
    /// Marks the site of a play, before the first effect there.
    pub(super) fn mark_site_of(&mut self, play: &Play) -> Result<(), Stop> {
        let plays = &self.engine.playbook.plays;
        let number = plays.iter().position(|known| std::ptr::eq(known, play));
        let mut named = self.sites.plays.iter();
        match named.find(|(of, _)| Some(*of) == number) {
            Some((_, site)) if !self.sites.marked.contains(site) => {
                Ok(self.mark_site(site.clone())?)
            }
            _ => Ok(()),
        }
    }

    /// Marks the sites that the journal holds, and those of an older journal that could not hold any, where
    /// something is about to be taken back or deleted.
    pub(super) fn mark_held_sites(&mut self) -> Result<(), StateError> {
        // Where the journal names none, the plays of today may name another one than those of then.
        let named_today = self.history.sites.is_empty();
        for site in self.held_sites() {
            match self.mark_site(site) {
                Err(error) if named_today => self.warn(told(&error)),
                marked => marked?,
            }
        }
        Ok(())
    }

    /// A journal with effects and without a site is of an older agent, or was killed before it could tell,
    /// or somebody took the marker away. What plays name beside a site that the journal holds is marked by the
    /// first effect there.
    pub(super) fn mark_again(&mut self, contents: &Contents) {
        for (_, site) in self.sites.plays.clone() {
            let held = self.holds(&site);
            if !held && !self.history.sites.is_empty() {
                continue;
            }
            let standing = site::look(&site, &Claimant::of(contents, &self.engine.own_state()));
            match standing {
                Ok(Standing::Free) => {}
                Ok(Standing::Own(_)) if !held => {}
                _ => continue,
            }
            // Asked last: it goes over the whole journal.
            if !self.engine.has_effects(contents) {
                return;
            }
            if held {
                self.warn(format!(
                    "the marker of {} is gone; it is made again: is this the folder that the last run worked \
                     in, and is its filesystem mounted?",
                    site.display()
                ));
            }
            // Nothing is done there yet: the first effect tries it again, and does not go on without.
            if let Err(error) = self.mark_site(site) {
                self.warn(told(&error));
            }
        }
    }

    /// Whether the journal says that a site is marked as this state's.
    fn holds(&self, site: &Path) -> bool {
        self.history.held_sites().any(|held| held == site)
    }

    fn mark_site(&mut self, site: PathBuf) -> Result<(), StateError> {
        let Some(marker) = self.marker() else {
            return Ok(());
        };
        let made = site::mark(&site, &marker)?;
        if made || !self.holds(&site) {
            self.record(adopt::site_marked(&site, &marker)?)?;
        }
        self.sites.marked.push(site);
        Ok(())
    }

    /// What this state would write into a marker now; nothing in check mode.
    fn marker(&self) -> Option<Marker> {
        let head = self.journal.as_ref()?.head();
        let engine = self.engine;
        let state = engine.own_state();
        Some(Marker::now(
            &self.state_id,
            state,
            &engine.name,
            head,
            &self.run,
        ))
    }

    fn held_sites(&self) -> Vec<PathBuf> {
        if self.history.sites.is_empty() {
            return self
                .sites
                .plays
                .iter()
                .map(|(_, site)| site.clone())
                .collect();
        }
        self.history.held_sites().cloned().collect()
    }

    /// Everything was taken back: the sites are free for any state.
    pub(super) fn free_sites(&mut self) -> Result<(), StateError> {
        for site in self.held_sites() {
            site::free(&site, &self.state_id)?;
            let marker = Value::Null;
            self.sites.marked.retain(|marked| *marked != site);
            self.record(Body::SiteMarked { site, marker })?;
        }
        Ok(())
    }

    /// Brings the markers of this run to the journal's end.
    pub(super) fn advance_markers(&mut self) {
        let Some(marker) = self.marker() else { return };
        for site in std::mem::take(&mut self.sites.marked) {
            if let Err(error) = site::mark(&site, &marker) {
                // What it says is still true: the journal holds that record.
                self.warn(told(&error));
            }
        }
    }

    fn warn(&self, message: String) {
        (self.events)(Event::Warning { message });
    }
}
