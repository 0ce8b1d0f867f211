//! Kinds of objects, and how the API calls them.

/// A kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKind {
    /// API group; empty for the core.
    pub group: String,
    /// Version in the group.
    pub version: String,
    /// Name, e.g. `Pod`.
    pub kind: String,
    /// Name in addresses and rights, e.g. `pods`.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// Kinds of which there is one set in a cluster.
const OF_CLUSTER: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "Node",
    "PersistentVolume",
    "StorageClass",
];
/// Kinds of the group `apps`, for who gives no `api_version`.
const OF_APPS: &[&str] = &["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"];

impl ObjectKind {
    /// Reads `api_version` (`v1`, `apps/v1`) and `kind`.
    #[must_use]
    pub fn new(api_version: Option<&str>, kind: &str) -> Self {
        let api_version = api_version.unwrap_or(if OF_APPS.contains(&kind) {
            "apps/v1"
        } else {
            "v1"
        });
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural(&kind.to_lowercase()),
            namespaced: !OF_CLUSTER.contains(&kind),
        }
    }

    /// `Pod`.
    #[must_use]
    pub fn pod() -> Self {
        Self::new(None, "Pod")
    }

    /// `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.clone();
        }
        format!("{}/{}", self.group, self.version)
    }
}

/// The API's own rule.
fn plural(kind: &str) -> String {
    if kind == "endpoints" {
        return kind.to_owned();
    }
    if ["s", "x", "ch", "sh"].iter().any(|end| kind.ends_with(end)) {
        return format!("{kind}es");
    }
    match kind.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_apis_names() {
        let found = |api: Option<&str>, kind: &str| {
            let kind = ObjectKind::new(api, kind);
            (kind.api_version(), kind.plural, kind.namespaced)
        };
        let is =
            |api: &str, plural: &str, namespaced| (api.to_owned(), plural.to_owned(), namespaced);
        assert_eq!(found(None, "Pod"), is("v1", "pods", true));
        assert_eq!(
            found(None, "Deployment"),
            is("apps/v1", "deployments", true)
        );
        assert_eq!(found(None, "Node"), is("v1", "nodes", false));
        let policy = found(Some("networking.k8s.io/v1"), "NetworkPolicy");
        assert_eq!(policy, is("networking.k8s.io/v1", "networkpolicies", true));
        let ingress = found(Some("networking.k8s.io/v1"), "Ingress");
        assert_eq!(ingress, is("networking.k8s.io/v1", "ingresses", true));
    }
}
