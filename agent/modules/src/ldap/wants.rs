//! What a record asks of single attributes, in the end: several changes of one attribute are one wish.

use super::definition::{is_definition, same_definition};
use super::dn;
use super::ldif::{Change, Modification, ModificationKind, Record};

/// What a record wants an attribute to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The attribute.
    pub attribute: String,
    /// Whether `present` is all that the attribute may have.
    pub whole: bool,
    /// Values that it must have.
    pub present: Vec<Vec<u8>>,
    /// Values that it must not have.
    pub absent: Vec<Vec<u8>>,
}

/// Tells whether two values of an attribute are equal, as far as this side knows.
#[must_use]
pub fn same_value(attribute: &str, a: &[u8], b: &[u8]) -> bool {
    a == b || (is_definition(attribute) && same_definition(a, b))
}

impl Want {
    fn of(attribute: &str) -> Self {
        Self {
            attribute: attribute.to_owned(),
            whole: false,
            present: Vec::new(),
            absent: Vec::new(),
        }
    }

    fn take(&mut self, change: &Modification) {
        match (change.kind, change.values.is_empty()) {
            (ModificationKind::Add, _) => {
                self.forget(&change.values);
                self.present.extend(change.values.iter().cloned());
            }
            (ModificationKind::Delete, false) => {
                self.forget(&change.values);
                self.absent.extend(change.values.iter().cloned());
            }
            (ModificationKind::Delete, true) | (ModificationKind::Replace, _) => {
                self.whole = true;
                self.present = change.values.clone();
                self.absent.clear();
            }
        }
    }

    fn forget(&mut self, values: &[Vec<u8>]) {
        let attribute = self.attribute.clone();
        let other = |known: &Vec<u8>| {
            !values
                .iter()
                .any(|value| same_value(&attribute, known, value))
        };
        self.present.retain(other);
        self.absent.retain(other);
    }

    /// Tells whether this wish takes a value away.
    #[must_use]
    pub fn removes(&self, value: &[u8]) -> bool {
        let has = |values: &[Vec<u8>]| self.has(values, value);
        has(&self.absent) || (self.whole && !has(&self.present))
    }

    /// Tells whether this wish brings a value.
    #[must_use]
    pub fn brings(&self, value: &[u8]) -> bool {
        self.has(&self.present, value)
    }

    fn has(&self, values: &[Vec<u8>], value: &[u8]) -> bool {
        values
            .iter()
            .any(|known| same_value(&self.attribute, known, value))
    }

    /// Returns what this wish makes of values.
    #[must_use]
    pub fn applied_to(&self, values: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut after: Vec<Vec<u8>> = if self.whole {
            Vec::new()
        } else {
            let stays = |value: &&Vec<u8>| !self.removes(value) && !self.brings(value);
            values.iter().filter(stays).cloned().collect()
        };
        after.extend(self.present.iter().cloned());
        after
    }
}

/// Returns what a record wants of the attributes that it names.
#[must_use]
pub fn wants(change: &Change) -> Vec<Want> {
    let mut wants: Vec<Want> = Vec::new();
    match change {
        Change::Add(attributes) => {
            for (attribute, values) in attributes {
                wants.push(Want {
                    present: values.clone(),
                    ..Want::of(attribute)
                });
            }
        }
        Change::Modify(changes) => {
            for change in changes {
                let known = wants
                    .iter()
                    .position(|want| want.attribute.eq_ignore_ascii_case(&change.attribute));
                let at = known.unwrap_or_else(|| {
                    wants.push(Want::of(&change.attribute));
                    wants.len() - 1
                });
                wants[at].take(change);
            }
        }
        Change::Delete | Change::Rename { .. } => {}
    }
    wants
}

/// A new name is a new value of the attribute that names the entry, and may take the old one away.
fn of_rename(old: &str, new_rdn: &str, delete_old_rdn: bool) -> Vec<Want> {
    let mut wants: Vec<Want> = dn::rdn_values(new_rdn)
        .into_iter()
        .map(|(attribute, value)| Want {
            present: vec![value],
            ..Want::of(&attribute)
        })
        .collect();
    for (attribute, value) in dn::rdn_values(old).into_iter().filter(|_| delete_old_rdn) {
        wants.push(Want {
            absent: vec![value],
            ..Want::of(&attribute)
        });
    }
    wants
}

/// What the rest of a file does with the entry of a record.
#[derive(Debug, Default)]
pub struct Future {
    /// Wishes, in order.
    pub wants: Vec<Want>,
    /// Names that it gets, in order.
    pub names: Vec<String>,
    /// Whether it goes.
    pub deleted: bool,
}

impl Future {
    /// Reads what follows a record: `name` is the entry's after it.
    #[must_use]
    pub fn of(name: &str, rest: &[Record]) -> Self {
        let mut future = Self::default();
        let mut name = name.to_owned();
        for record in rest {
            match &record.change {
                Change::Rename {
                    new_rdn,
                    new_superior,
                    delete_old_rdn,
                } => {
                    let to = dn::renamed(&record.dn, new_rdn, new_superior.as_deref());
                    if let Some(moved) = dn::moved(&name, &record.dn, &to) {
                        if dn::normal(&name) == dn::normal(&record.dn) {
                            future
                                .wants
                                .extend(of_rename(&name, new_rdn, *delete_old_rdn));
                        }
                        future.names.push(moved.clone());
                        name = moved;
                    }
                }
                _ if dn::normal(&record.dn) != dn::normal(&name) => {}
                Change::Delete => {
                    future.deleted = true;
                    break;
                }
                change => future.wants.extend(wants(change)),
            }
        }
        future
    }

    /// Returns the later wishes for an attribute.
    pub fn of_attribute<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a Want> {
        self.wants
            .iter()
            .filter(move |want| want.attribute.eq_ignore_ascii_case(attribute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modify(dn: &str, changes: &[(ModificationKind, &[&str])]) -> Record {
        let changes = changes.iter().map(|(kind, values)| Modification {
            kind: *kind,
            attribute: "a".into(),
            values: values
                .iter()
                .map(|value| value.as_bytes().to_vec())
                .collect(),
        });
        Record {
            line: 1,
            dn: dn.into(),
            change: Change::Modify(changes.collect()),
        }
    }

    #[test]
    fn several_changes_of_one_attribute_are_one_wish() {
        use ModificationKind::{Add, Delete, Replace};
        let value = |text: &str| text.as_bytes().to_vec();
        let one =
            |changes: &[(ModificationKind, &[&str])]| wants(&modify("x", changes).change).remove(0);
        let want = one(&[(Delete, &["1"]), (Add, &["2", "3"]), (Delete, &["3"])]);
        assert!(!want.whole);
        assert_eq!(want.present, [value("2")]);
        assert_eq!(want.absent, [value("1"), value("3")]);
        let want = one(&[(Delete, &[]), (Add, &["2"])]);
        assert!(want.whole && want.removes(b"1") && want.brings(b"2"));
        assert_eq!(want.applied_to(&[value("1")]), [value("2")]);
        assert_eq!(one(&[(Replace, &[])]).applied_to(&[value("1")]).len(), 0);
    }

    #[test]
    fn the_future_of_an_entry_follows_its_names() {
        let records = [
            modify("cn=k,cn=a,dc=x", &[(ModificationKind::Add, &["1"])]),
            Record {
                line: 2,
                dn: "cn=a,dc=x".into(),
                change: Change::Rename {
                    new_rdn: "cn=b".into(),
                    delete_old_rdn: true,
                    new_superior: None,
                },
            },
            modify("cn=k, cn=b,dc=x", &[(ModificationKind::Add, &["2"])]),
            modify("cn=k,cn=a,dc=x", &[(ModificationKind::Add, &["3"])]),
            Record {
                line: 5,
                dn: "cn=k,cn=b,dc=x".into(),
                change: Change::Delete,
            },
        ];
        let future = Future::of("cn=k,cn=a,dc=x", &records[1..]);
        assert_eq!(future.names, ["cn=k,cn=b,dc=x"]);
        assert_eq!(future.wants.len(), 1);
        assert!(future.deleted);
    }
}
