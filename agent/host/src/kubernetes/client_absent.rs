//! What stands in the client's place in a build without the feature `kubernetes`: nothing can be opened.

use serde_json::Value;

use super::access::Source;
use super::error::KubernetesError;
use super::exec::Process;
use super::kind::ObjectKind;

/// There is none.
#[derive(Clone)]
pub enum Cluster {}

#[allow(clippy::unused_async, reason = "the same calls as with the client")]
impl Cluster {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub async fn open(_: &Source, _: Option<&str>) -> Result<Self, KubernetesError> {
        Err(KubernetesError::NotBuiltIn)
    }

    /// The namespace of the context.
    #[must_use]
    pub fn default_namespace(&self) -> &str {
        match *self {}
    }

    /// Returns the objects of a kind that fit.
    ///
    /// # Errors
    /// Never called.
    pub async fn list(
        &self,
        _: &ObjectKind,
        _: Option<&str>,
        _: &str,
        _: &str,
    ) -> Result<Vec<Value>, KubernetesError> {
        match *self {}
    }

    /// Returns an object.
    ///
    /// # Errors
    /// Never called.
    pub async fn get(
        &self,
        _: &ObjectKind,
        _: Option<&str>,
        _: &str,
    ) -> Result<Option<Value>, KubernetesError> {
        match *self {}
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Never called.
    pub async fn delete(
        &self,
        _: &ObjectKind,
        _: &str,
        _: &str,
        _: &str,
        _: Option<u32>,
    ) -> Result<(), KubernetesError> {
        match *self {}
    }

    /// Merges a change into an object.
    ///
    /// # Errors
    /// Never called.
    pub async fn merge(
        &self,
        _: &ObjectKind,
        _: &str,
        _: &str,
        _: &Value,
    ) -> Result<Value, KubernetesError> {
        match *self {}
    }

    /// Returns the last lines of a container.
    ///
    /// # Errors
    /// Never called.
    pub async fn logs(&self, _: &str, _: &str, _: &str, _: i64) -> Result<String, KubernetesError> {
        match *self {}
    }

    /// Starts a command.
    ///
    /// # Errors
    /// Never called.
    pub async fn exec(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &[String],
        _: bool,
    ) -> Result<Process, KubernetesError> {
        match *self {}
    }
}
