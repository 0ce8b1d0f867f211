//! Where a record of a file stands: its effect is in the directory, or is to be made, or neither fits.
//!
//! Only searches and compares are made here. What a record did may have been changed again by a later
//! record of the same file, when a file is applied for the second time; so what comes after it is looked at
//! too. Which values are equal the server says, by the attribute's own rule.

use std::collections::BTreeSet;

use super::definition::{is_definition, meaning};
use super::directory::{Directory, Entry};
use super::dn;
use super::error::LdapError;
use super::ldif::{Attribute, Change, Modification, ModificationKind, Record};
use super::wants::{Future, Want, same_value, wants};

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its effect is in the directory.
    There,
    /// It is to be applied; the entry has this name now.
    Open {
        /// The entry's name.
        dn: String,
    },
    /// The directory is neither what it was before the record nor what it is after it.
    Conflict(String),
}

/// Where the entry of a record is.
enum Found {
    /// Here.
    Entry(Entry),
    /// A later record removes it, and it is not under its own name.
    Passed,
    /// Nowhere.
    Nothing,
}

/// Judges the records of a file.
pub struct Judge<'a> {
    /// The directory.
    pub directory: &'a Directory,
    /// All records of the file.
    pub records: &'a [Record],
}

impl Judge<'_> {
    /// Tells where a record stands.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses to answer.
    pub async fn standing(&self, index: usize) -> Result<Standing, LdapError> {
        let record = &self.records[index];
        let rest = &self.records[index + 1..];
        match &record.change {
            Change::Add(attributes) => self.add(record, attributes, rest).await,
            Change::Delete => self.delete(record, rest).await,
            Change::Modify(changes) => self.modify(record, changes, rest).await,
            Change::Rename {
                new_rdn,
                new_superior,
                ..
            } => {
                let to = dn::renamed(&record.dn, new_rdn, new_superior.as_deref());
                self.rename(record, &to, rest).await
            }
        }
    }

    /// Finds the entry of a record under its name, or under one that a later record gives it.
    async fn find(&self, name: &str, future: &Future) -> Result<Found, LdapError> {
        if let Some(entry) = self.directory.read(name, &[]).await? {
            return Ok(Found::Entry(entry));
        }
        // What is under a later name may be another entry by now; and what this record does to one that
        // goes does not last.
        if future.deleted {
            return Ok(Found::Passed);
        }
        for name in &future.names {
            if let Some(entry) = self.directory.read(name, &[]).await? {
                return Ok(Found::Entry(entry));
            }
        }
        Ok(Found::Nothing)
    }

    async fn add(
        &self,
        record: &Record,
        attributes: &[Attribute],
        rest: &[Record],
    ) -> Result<Standing, LdapError> {
        let future = Future::of(&record.dn, rest);
        let entry = match self.find(&record.dn, &future).await? {
            Found::Entry(entry) => entry,
            Found::Passed => return Ok(Standing::There),
            Found::Nothing => {
                return Ok(Standing::Open {
                    dn: record.dn.clone(),
                });
            }
        };
        let wants = wants(&Change::Add(attributes.to_vec()));
        Ok(match self.unmet(&entry, &wants, &future).await? {
            None => Standing::There,
            Some(want) => Standing::Conflict(format!(
                "an entry of this name is there with other content: {}",
                held(&entry, &want.attribute)
            )),
        })
    }

    async fn delete(&self, record: &Record, rest: &[Record]) -> Result<Standing, LdapError> {
        let Some(entry) = self.directory.read(&record.dn, &[]).await? else {
            return Ok(Standing::There);
        };
        // It may be the one that a later record puts in its place.
        let name = dn::normal(&record.dn);
        for (at, later) in rest.iter().enumerate() {
            let Change::Add(attributes) = &later.change else {
                continue;
            };
            if dn::normal(&later.dn) == name {
                let future = Future::of(&later.dn, &rest[at + 1..]);
                if self.is_exactly(&entry, attributes, &future).await? {
                    return Ok(Standing::There);
                }
            }
        }
        Ok(Standing::Open {
            dn: record.dn.clone(),
        })
    }

    async fn is_exactly(
        &self,
        entry: &Entry,
        attributes: &[Attribute],
        future: &Future,
    ) -> Result<bool, LdapError> {
        let mut exact = wants(&Change::Add(attributes.to_vec()));
        exact.iter_mut().for_each(|want| want.whole = true);
        let known = |name: &str| {
            exact
                .iter()
                .chain(&future.wants)
                .any(|want| want.attribute.eq_ignore_ascii_case(name))
        };
        Ok(entry.attributes.keys().all(|name| known(name))
            && self.unmet(entry, &exact, future).await?.is_none())
    }

    async fn modify(
        &self,
        record: &Record,
        changes: &[Modification],
        rest: &[Record],
    ) -> Result<Standing, LdapError> {
        let future = Future::of(&record.dn, rest);
        let entry = match self.find(&record.dn, &future).await? {
            Found::Entry(entry) => entry,
            Found::Passed => return Ok(Standing::There),
            Found::Nothing => return Ok(Standing::Conflict("there is no such entry".into())),
        };
        if self
            .unmet(&entry, &wants(&record.change), &future)
            .await?
            .is_none()
        {
            return Ok(Standing::There);
        }
        Ok(match self.hindrance(&entry, changes).await? {
            None => Standing::Open { dn: entry.dn },
            Some(found) => Standing::Conflict(found),
        })
    }

    async fn rename(
        &self,
        record: &Record,
        to: &str,
        rest: &[Record],
    ) -> Result<Standing, LdapError> {
        let open = || Standing::Open {
            dn: record.dn.clone(),
        };
        let old = self.directory.read(&record.dn, &[]).await?;
        if dn::normal(&record.dn) == dn::normal(to) {
            // Only the spelling of the name changes.
            return Ok(match old {
                Some(entry) if entry.dn == to => Standing::There,
                Some(_) => open(),
                None => Standing::Conflict("there is no such entry".into()),
            });
        }
        let new = self.directory.read(to, &[]).await?;
        let future = Future::of(to, rest);
        let comes_back = future
            .names
            .iter()
            .any(|name| dn::normal(name) == dn::normal(&record.dn));
        Ok(match (old, new) {
            (Some(_), None) if comes_back => Standing::There,
            (Some(_), None) => open(),
            (None, Some(_)) => Standing::There,
            (Some(_), Some(_)) => {
                Standing::Conflict(format!("both it and the new name `{to}` are there"))
            }
            (None, None) if !matches!(self.find(to, &future).await?, Found::Nothing) => {
                Standing::There
            }
            (None, None) => {
                Standing::Conflict(format!("neither it nor the new name `{to}` is there"))
            }
        })
    }

    /// Returns the first wish that is not fulfilled and was not overtaken by later records.
    async fn unmet<'w>(
        &self,
        entry: &Entry,
        wants: &'w [Want],
        future: &Future,
    ) -> Result<Option<&'w Want>, LdapError> {
        for want in wants {
            if !self.is_met(entry, want, future).await? {
                return Ok(Some(want));
            }
        }
        Ok(None)
    }

    async fn is_met(&self, entry: &Entry, want: &Want, future: &Future) -> Result<bool, LdapError> {
        let attribute = &want.attribute;
        if want.whole {
            // What the attribute is after this record, and after each later one that changes it.
            let mut values = want.present.clone();
            if self.is_set(entry, attribute, &values).await? {
                return Ok(true);
            }
            for later in future.of_attribute(attribute) {
                values = later.applied_to(&values);
                if self.is_set(entry, attribute, &values).await? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for value in &want.present {
            if !holds(self.directory, entry, attribute, value).await?
                && !self
                    .is_overtaken(entry, want, future, |later| later.removes(value))
                    .await?
            {
                return Ok(false);
            }
        }
        for value in &want.absent {
            if holds(self.directory, entry, attribute, value).await?
                && !self
                    .is_overtaken(entry, want, future, |later| later.brings(value))
                    .await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells whether a later record undid what is missing, and was applied: it is fulfilled, or one after
    /// it is.
    async fn is_overtaken(
        &self,
        entry: &Entry,
        want: &Want,
        future: &Future,
        undoes: impl Fn(&Want) -> bool + Send,
    ) -> Result<bool, LdapError> {
        let later: Vec<&Want> = future.of_attribute(&want.attribute).collect();
        let Some(first) = later.iter().position(|want| undoes(want)) else {
            return Ok(false);
        };
        for want in &later[first..] {
            if self.is_fulfilled(entry, want).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether the entry is what a wish wants, whatever came before or after it.
    async fn is_fulfilled(&self, entry: &Entry, want: &Want) -> Result<bool, LdapError> {
        if want.whole {
            return self.is_set(entry, &want.attribute, &want.present).await;
        }
        for value in &want.present {
            if !holds(self.directory, entry, &want.attribute, value).await? {
                return Ok(false);
            }
        }
        for value in &want.absent {
            if holds(self.directory, entry, &want.attribute, value).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn is_set(
        &self,
        entry: &Entry,
        attribute: &str,
        values: &[Vec<u8>],
    ) -> Result<bool, LdapError> {
        if entry.values(attribute).len() != values.len() {
            return Ok(false);
        }
        if is_definition(attribute) {
            // Some hundreds on both sides: each is read once.
            let meanings = |values: &[Vec<u8>]| -> BTreeSet<Vec<u8>> {
                values.iter().map(|value| meaning(value)).collect()
            };
            return Ok(meanings(entry.values(attribute)) == meanings(values));
        }
        for value in values {
            if !holds(self.directory, entry, attribute, value).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says what keeps the changes from being made as the file has them, where something does.
    async fn hindrance(
        &self,
        entry: &Entry,
        changes: &[Modification],
    ) -> Result<Option<String>, LdapError> {
        let mut so_far: Vec<Modification> = Vec::new();
        for change in changes {
            let attribute = &change.attribute;
            for value in &change.values {
                let has = self.has_after(entry, &so_far, attribute, value).await?;
                let shown = show(attribute, value);
                let found = match change.kind {
                    ModificationKind::Add if has => format!("the value {shown} is there already"),
                    ModificationKind::Delete if !has => format!("the value {shown} is not there"),
                    _ => continue,
                };
                return Ok(Some(format!(
                    "{found}, but not all of the record: {}",
                    held(entry, attribute)
                )));
            }
            let whole = change.kind == ModificationKind::Delete && change.values.is_empty();
            let untouched = !so_far
                .iter()
                .any(|earlier| earlier.attribute.eq_ignore_ascii_case(attribute));
            if whole && untouched && entry.values(attribute).is_empty() {
                return Ok(Some(format!(
                    "`{attribute}` is not there, but not all of the record is"
                )));
            }
            so_far.push(change.clone());
        }
        Ok(None)
    }

    /// Tells whether the entry has a value once some changes are made.
    async fn has_after(
        &self,
        entry: &Entry,
        changes: &[Modification],
        attribute: &str,
        value: &[u8],
    ) -> Result<bool, LdapError> {
        for want in wants(&Change::Modify(changes.to_vec())) {
            if want.attribute.eq_ignore_ascii_case(attribute) {
                if want.brings(value) {
                    return Ok(true);
                }
                if want.removes(value) {
                    return Ok(false);
                }
            }
        }
        holds(self.directory, entry, attribute, value).await
    }
}

/// Tells whether an entry has a value, by the server's rule of equality for the attribute.
///
/// # Errors
/// The connection breaks, or the server refuses to answer.
pub async fn holds(
    directory: &Directory,
    entry: &Entry,
    attribute: &str,
    value: &[u8],
) -> Result<bool, LdapError> {
    let values = entry.values(attribute);
    if values
        .iter()
        .any(|known| same_value(attribute, known, value))
    {
        return Ok(true);
    }
    if values.is_empty() {
        return Ok(false);
    }
    let compared = directory.compare(&entry.dn, attribute, value).await?;
    // Without a rule of equality there is nothing but bytes to go by.
    Ok(compared.unwrap_or(false))
}

/// Says what an entry holds of an attribute.
#[must_use]
pub fn held(entry: &Entry, attribute: &str) -> String {
    const SHOWN: usize = 8;
    let values = entry.values(attribute);
    if values.is_empty() {
        return format!("it has no `{attribute}`");
    }
    let mut shown: Vec<String> = values
        .iter()
        .take(SHOWN)
        .map(|value| show(attribute, value))
        .collect();
    if values.len() > SHOWN {
        shown.push(format!("and {} more", values.len() - SHOWN));
    }
    format!("its `{attribute}` is {}", shown.join(", "))
}

/// Tells whether values of an attribute are passwords.
#[must_use]
pub fn is_secret(attribute: &str) -> bool {
    let attribute = attribute.to_ascii_lowercase();
    attribute.ends_with("password") || attribute.ends_with("rootpw")
}

fn show(attribute: &str, value: &[u8]) -> String {
    const LONGEST: usize = 80;
    if is_secret(attribute) {
        return crate::redact::HIDDEN.to_owned();
    }
    match std::str::from_utf8(value) {
        Ok(text) if text.chars().count() <= LONGEST => format!("`{text}`"),
        Ok(text) => format!("`{}…`", text.chars().take(LONGEST).collect::<String>()),
        Err(_) => format!("{} bytes", value.len()),
    }
}
