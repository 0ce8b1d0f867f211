//! From a task's arguments to a connection.

use std::path::PathBuf;

use super::access::Access;
use super::client::Cluster;
use super::error::KubernetesError;
use crate::context::HostContext;

/// Defines a module's arguments together with those that say where the cluster is. `serde` cannot flatten
/// a struct into one that refuses unknown fields, so the fields are written into each.
#[macro_export]
macro_rules! with_cluster {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $kind:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $kind,)*
            /// Namespace. Default: that of the context.
            #[serde(default)]
            pub namespace: Option<String>,
            /// The kubeconfig. Default: `$KUBECONFIG`, else `~/.kube/config`, else the pod's own service
            /// account, else microk8s's. Relative paths start at the playbook.
            #[serde(default)]
            pub kubeconfig: Option<::std::path::PathBuf>,
            /// Context in it. Default: its current one.
            #[serde(default)]
            pub context: Option<String>,
        }

        impl $name {
            /// Connects, and returns the namespace that is meant.
            async fn cluster(
                &self,
                ctx: &$crate::context::HostContext,
            ) -> Result<
                ($crate::kubernetes::client::Cluster, String),
                $crate::kubernetes::error::KubernetesError,
            > {
                let cluster = $crate::kubernetes::connect::open(
                    ctx,
                    self.kubeconfig.clone(),
                    self.context.clone(),
                )
                .await?;
                let own = || cluster.default_namespace().to_owned();
                let namespace = self.namespace.clone().unwrap_or_else(own);
                Ok((cluster, namespace))
            }
        }
    };
}

/// Reads the credentials that a task means.
///
/// # Errors
/// There are none, or they cannot be used.
pub async fn open(
    ctx: &HostContext,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
) -> Result<Cluster, KubernetesError> {
    let access = Access {
        kubeconfig: kubeconfig.map(|path| ctx.resolve(&path)),
        context,
    };
    let source = access.source(&ctx.environment, &ctx.cluster)?;
    Cluster::open(&source, access.context.as_deref()).await
}
