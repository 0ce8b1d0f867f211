//! A directory over a connection. The only file that knows the `ldap3` crate.
//!
//! Plain LDAP, without TLS: a directory is reached through loopback, through a container, or through a
//! command in a pod ([`Directory::over`]).

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::time::Duration;

use ldap3::asn1::StructureTag;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError as Raw, LdapResult, Mod, StdStream};
use tokio_util::sync::CancellationToken;

pub use ldap3::Scope;

use super::error::{LdapError, RefusedBy};
use super::ldif::{Attribute, Modification, ModificationKind};
use crate::host::error::ModuleError;
use crate::host::kubernetes::bridge::{Bridge, Why};

/// How long the server may take to answer the first time, and each later time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// RFC 4511, 4.1.9.
const NO_SUCH_ATTRIBUTE: u32 = 16;
const INAPPROPRIATE_MATCHING: u32 = 18;
const NO_SUCH_OBJECT: u32 = 32;
const INVALID_CREDENTIALS: u32 = 49;
const COMPARE_FALSE: u32 = 5;
const COMPARE_TRUE: u32 = 6;

/// An entry as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as the server writes it.
    pub dn: String,
    /// Attributes, by name.
    pub attributes: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Entry {
    /// Returns the values of an attribute, whose name may be written in another case.
    #[must_use]
    pub fn values(&self, attribute: &str) -> &[Vec<u8>] {
        self.attributes
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(attribute))
            .map_or(&[], |(_, values)| values)
    }
}

/// A connection, bound. Clones share it.
#[derive(Clone)]
pub struct Directory {
    ldap: Ldap,
    address: String,
    /// Of a connection through a pod.
    why: Option<Why>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.address)
    }
}

impl Directory {
    /// Connects to `host:port` and binds; without a user, anonymously.
    ///
    /// # Errors
    /// The server is not there, or does not let the user in.
    pub async fn connect(address: &str, user: Option<(&str, &str)>) -> Result<Self, LdapError> {
        let settings = LdapConnSettings::new().set_conn_timeout(CONNECT_TIMEOUT);
        let url = format!("ldap://{address}");
        Self::begin(settings, &url, address, None, user).await
    }

    /// As [`Directory::connect`], through a command in a pod.
    ///
    /// # Errors
    /// As [`Directory::connect`].
    pub async fn over(
        bridge: Bridge,
        address: &str,
        user: Option<(&str, &str)>,
    ) -> Result<Self, LdapError> {
        let stream = StdStream::Unix(bridge.stream);
        let settings = LdapConnSettings::new().set_std_stream(stream);
        // The address is not used, as the stream is there; its scheme says what stream it is.
        Self::begin(settings, "ldapi://pod", address, Some(bridge.why), user).await
    }

    async fn begin(
        settings: LdapConnSettings,
        url: &str,
        address: &str,
        why: Option<Why>,
        user: Option<(&str, &str)>,
    ) -> Result<Self, LdapError> {
        let made = LdapConnAsync::with_settings(settings, url).await;
        let (connection, ldap) =
            made.map_err(|error| broken("connect", address, why.as_ref(), error))?;
        // Ends with the last handle; what breaks it is reported by the operation that was under way.
        tokio::spawn(async move {
            let _ = connection.drive().await;
        });
        let directory = Self {
            ldap,
            address: address.to_owned(),
            why,
        };
        if let Some((bind_dn, password)) = user {
            directory.bind(bind_dn, password).await?;
        }
        Ok(directory)
    }

    async fn bind(&self, bind_dn: &str, password: &str) -> Result<(), LdapError> {
        let mut ldap = self.ldap.clone();
        // A port that Docker's proxy holds accepts before the server listens, and then says nothing.
        let bound = ldap
            .with_timeout(CONNECT_TIMEOUT)
            .simple_bind(bind_dn, password)
            .await
            .map_err(|error| self.broken("bind", error))?;
        match bound.rc {
            0 => Ok(()),
            INVALID_CREDENTIALS => Err(LdapError::InvalidCredentials {
                address: self.address.clone(),
                bind_dn: bind_dn.to_owned(),
                message: "the server does not know this user and password".into(),
            }),
            code => Err(LdapError::InvalidCredentials {
                address: self.address.clone(),
                bind_dn: bind_dn.to_owned(),
                message: RefusedBy {
                    code,
                    text: bound.text,
                }
                .to_string(),
            }),
        }
    }

    fn broken(&self, action: &str, error: Raw) -> LdapError {
        broken(action, &self.address, self.why.as_ref(), error)
    }

    fn handle(&self) -> Ldap {
        let mut ldap = self.ldap.clone();
        ldap.with_timeout(ANSWER_TIMEOUT);
        ldap
    }

    /// Calls `each` with every entry found, in the server's order: parents before children.
    ///
    /// # Errors
    /// The base is not there, the filter is none, or the connection breaks.
    pub async fn search_each(
        &self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[String],
        mut each: impl FnMut(Entry) -> Result<(), LdapError> + Send,
    ) -> Result<(), LdapError> {
        let fail = |error| match error {
            Raw::FilterParsing => {
                LdapError::argument("filter", format!("`{filter}` is no search filter"))
            }
            error => self.broken("search", error),
        };
        let mut ldap = self.handle();
        let mut stream = ldap
            .streaming_search(base, scope, filter, attributes)
            .await
            .map_err(fail)?;
        while let Some(found) = stream.next().await.map_err(fail)? {
            if !found.is_ref() && !found.is_intermediate() {
                let entry = entry_of(found.0).ok_or_else(|| LdapError::Connection {
                    action: "search".into(),
                    address: self.address.clone(),
                    message: "the server sent an entry that is malformed".into(),
                })?;
                each(entry)?;
            }
        }
        answer("search", base, stream.finish().await)
    }

    /// Returns every entry found.
    ///
    /// # Errors
    /// As [`Directory::search_each`].
    pub async fn search(
        &self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[String],
    ) -> Result<Vec<Entry>, LdapError> {
        let mut entries = Vec::new();
        self.search_each(base, scope, filter, attributes, |entry| {
            entries.push(entry);
            Ok(())
        })
        .await?;
        Ok(entries)
    }

    /// Returns one entry; `attributes` empty means all that users may set.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    pub async fn read(&self, dn: &str, attributes: &[String]) -> Result<Option<Entry>, LdapError> {
        let found = self
            .search(dn, Scope::Base, "(objectClass=*)", attributes)
            .await;
        match found {
            Ok(entries) => Ok(entries.into_iter().next()),
            Err(LdapError::Refused { result, .. }) if result.code == NO_SUCH_OBJECT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the server, by its own rules of equality, whether an entry has a value. `None` where the
    /// attribute has no such rule.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    pub async fn compare(
        &self,
        dn: &str,
        attribute: &str,
        value: &[u8],
    ) -> Result<Option<bool>, LdapError> {
        let compared = self.handle().compare(dn, attribute, value).await;
        let result = compared.map_err(|error| self.broken("compare", error))?.0;
        match result.rc {
            COMPARE_TRUE => Ok(Some(true)),
            COMPARE_FALSE | NO_SUCH_ATTRIBUTE | NO_SUCH_OBJECT => Ok(Some(false)),
            INAPPROPRIATE_MATCHING => Ok(None),
            _ => answer("compare", dn, result).map(|()| None),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    pub async fn add(&self, dn: &str, attributes: &[Attribute]) -> Result<(), LdapError> {
        let attributes = attributes
            .iter()
            .map(|(name, values)| (name.clone().into_bytes(), values.iter().cloned().collect()))
            .collect::<Vec<(Vec<u8>, HashSet<Vec<u8>>)>>();
        let added = self.handle().add(dn, attributes).await;
        answer("add", dn, added.map_err(|e| self.broken("add", e))?)
    }

    /// Changes attributes of an entry, all or none.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    pub async fn modify(&self, dn: &str, changes: &[Modification]) -> Result<(), LdapError> {
        let mods = changes.iter().flat_map(in_order).collect();
        let done = self.handle().modify(dn, mods).await;
        answer("modify", dn, done.map_err(|e| self.broken("modify", e))?)
    }

    /// Removes an entry without children.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    pub async fn delete(&self, dn: &str) -> Result<(), LdapError> {
        let done = self.handle().delete(dn).await;
        answer("delete", dn, done.map_err(|e| self.broken("delete", e))?)
    }

    /// Gives an entry another name.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    pub async fn rename(
        &self,
        dn: &str,
        new_rdn: &str,
        delete_old_rdn: bool,
        new_superior: Option<&str>,
    ) -> Result<(), LdapError> {
        let done = self
            .handle()
            .modifydn(dn, new_rdn, delete_old_rdn, new_superior)
            .await;
        answer("rename", dn, done.map_err(|e| self.broken("rename", e))?)
    }
}

/// The crate keeps values in a set without an order, and definitions of a schema may rest on ones before
/// them: so each value gets a change of its own. The server still makes all of them or none.
fn in_order(change: &Modification) -> Vec<Mod<Vec<u8>>> {
    let name = || change.attribute.clone().into_bytes();
    let one = |value: &Vec<u8>| HashSet::from([value.clone()]);
    let added = |values: &[Vec<u8>]| -> Vec<Mod<Vec<u8>>> {
        values
            .iter()
            .map(|value| Mod::Add(name(), one(value)))
            .collect()
    };
    match (change.kind, change.values.split_first()) {
        (ModificationKind::Add, _) => added(&change.values),
        (ModificationKind::Delete, _) => {
            vec![Mod::Delete(name(), change.values.iter().cloned().collect())]
        }
        (ModificationKind::Replace, None) => vec![Mod::Replace(name(), HashSet::new())],
        (ModificationKind::Replace, Some((first, rest))) => {
            let mut mods = vec![Mod::Replace(name(), one(first))];
            mods.extend(added(rest));
            mods
        }
    }
}

/// Takes an entry apart (RFC 4511, 4.5.2). The crate's own way gives up its process on a malformed one,
/// and loses the order of values that are not all UTF-8.
fn entry_of(found: StructureTag) -> Option<Entry> {
    let text = |tag: StructureTag| String::from_utf8(tag.expect_primitive()?).ok();
    let mut parts = found.expect_constructed()?.into_iter();
    let dn = text(parts.next()?)?;
    let mut attributes = BTreeMap::new();
    for attribute in parts.next()?.expect_constructed()? {
        let mut parts = attribute.expect_constructed()?.into_iter();
        let name = text(parts.next()?)?;
        let values = parts.next()?.expect_constructed()?.into_iter();
        let values: Option<Vec<Vec<u8>>> = values.map(StructureTag::expect_primitive).collect();
        attributes.insert(name, values?);
    }
    Some(Entry { dn, attributes })
}

fn answer(action: &'static str, dn: &str, result: LdapResult) -> Result<(), LdapError> {
    if result.rc == 0 {
        return Ok(());
    }
    Err(LdapError::Refused {
        action,
        dn: dn.to_owned(),
        result: RefusedBy {
            code: result.rc,
            text: result.text,
        },
    })
}

fn broken(action: &str, address: &str, why: Option<&Why>, error: Raw) -> LdapError {
    let message = match error {
        // What is behind it is known better.
        Raw::Io { .. }
        | Raw::OpSend { .. }
        | Raw::ResultRecv { .. }
        | Raw::IdScrubSend { .. }
        | Raw::EndOfStream
            if why.and_then(Why::text).is_some() =>
        {
            why.and_then(Why::text).unwrap_or_default()
        }
        Raw::Io { source } => source.to_string(),
        Raw::Timeout { .. } => "no answer in time".into(),
        Raw::OpSend { .. }
        | Raw::ResultRecv { .. }
        | Raw::IdScrubSend { .. }
        | Raw::EndOfStream => "the connection was closed".into(),
        other => other.to_string(),
    };
    LdapError::Connection {
        action: action.to_owned(),
        address: address.to_owned(),
        message,
    }
}

/// Runs `work` until `cancel` fires. An operation that was sent is not called back: the server makes it or
/// not, and the next run finds out by searching.
///
/// # Errors
/// Those of `work`, or [`ModuleError::Cancelled`].
pub async fn cancellable<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, LdapError>>,
) -> Result<T, ModuleError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ModuleError::Cancelled),
        result = work => result.map_err(Into::into),
    }
}
