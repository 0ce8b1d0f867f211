//! Where a directory is, and as whom to speak to it.

use std::collections::BTreeMap;

use super::directory::Directory;
use super::error::LdapError;
use crate::host::error::ModuleError;
use crate::host::kubernetes::bridge::{self, InPod};
use crate::task::context::TaskContext;

/// Administrator of the configuration, in the dcm4chee images.
const CONFIG_ADMIN: &str = "cn=admin,cn=config";
/// Suffix of the data, in the dcm4chee images, where LDAP_BASE_DN names no other.
const BASE_DN: &str = "dc=dcm4che,dc=org";

/// Defines a module's arguments together with those that say where the directory is. `serde` cannot
/// flatten a struct into one that refuses unknown fields, so the fields are written into each.
macro_rules! with_directory {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $kind:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $kind,)*
            /// Service whose directory is meant. Default: the innermost one of the enclosing blocks.
            #[serde(default)]
            pub service: Option<String>,
            /// `ldap://host:port` of the server, instead of a service. No TLS.
            #[serde(default)]
            pub server_uri: Option<String>,
            /// Container of a pod in which the server runs, instead of a service: it is reached through a
            /// command in there.
            #[serde(default)]
            pub in_pod: Option<$crate::host::kubernetes::bridge::InPod>,
            /// User. Default: of a service or a pod the administrator, `cn=admin` and its LDAP_BASE_DN
            /// (`dc=dcm4che,dc=org`); otherwise nobody (anonymous).
            #[serde(default)]
            pub bind_dn: Option<String>,
            /// Password. Default: the service's or pod's LDAP_ROOTPASS, for `cn=admin,cn=config` its
            /// LDAP_CONFIGPASS.
            #[serde(default)]
            pub bind_pw: Option<String>,
        }

        impl $name {
            fn login(&self) -> $crate::ldap::login::Login {
                $crate::ldap::login::Login {
                    service: self.service.clone(),
                    server_uri: self.server_uri.clone(),
                    in_pod: self.in_pod.clone(),
                    bind_dn: self.bind_dn.clone(),
                    bind_pw: self.bind_pw.clone(),
                }
            }
        }
    };
}
pub(crate) use with_directory;

/// Where slapd listens in the pod.
const LDAP_PORT: u16 = 389;

/// The arguments that say where a directory is.
#[derive(Clone, Default)]
pub struct Login {
    /// Service's name.
    pub service: Option<String>,
    /// Address, instead of a service.
    pub server_uri: Option<String>,
    /// Container of a pod, instead of a service.
    pub in_pod: Option<InPod>,
    /// User.
    pub bind_dn: Option<String>,
    /// Password.
    pub bind_pw: Option<String>,
}

impl Login {
    /// As [`Login::directory`], or nothing where there is no server to talk to: in check mode services are
    /// not running, and pods may not be deployed yet.
    ///
    /// # Errors
    /// As [`Login::directory`].
    pub async fn directory_if_there(
        &self,
        ctx: &TaskContext,
    ) -> Result<Option<Directory>, ModuleError> {
        if let Some(pod) = &self.in_pod {
            match pod.find(ctx).await {
                Ok(_) => {}
                Err(error) if error.is_absence() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        } else if self.server_uri.is_none() && ctx.service(self.service.as_deref()).is_none() {
            return Ok(None);
        }
        self.directory(ctx).await.map(Some)
    }

    /// Connects and binds.
    ///
    /// # Errors
    /// Nothing says where the server is, it is not there, or it does not let the user in.
    pub async fn directory(&self, ctx: &TaskContext) -> Result<Directory, ModuleError> {
        if let Some(pod) = &self.in_pod {
            return self.directory_in(ctx, pod).await;
        }
        let (address, user) = self.target(ctx)?;
        let user = user
            .as_ref()
            .map(|(bind_dn, password)| (bind_dn.as_str(), password.as_str()));
        super::directory::cancellable(&ctx.cancel, Directory::connect(&address, user)).await
    }

    async fn directory_in(&self, ctx: &TaskContext, pod: &InPod) -> Result<Directory, ModuleError> {
        if self.server_uri.is_some() || self.service.is_some() {
            let message = "give one of `service`, `server_uri` and `in_pod`";
            return Err(LdapError::argument("in_pod", message).into());
        }
        let (cluster, target) = pod.find(ctx).await?;
        let env = if self.bind_dn.is_some() && self.bind_pw.is_some() {
            BTreeMap::new()
        } else {
            bridge::environment(&cluster, &target, "LDAP_", ctx).await?
        };
        let (bind_dn, password) = self.user_of(&target.name(), &env)?;
        let opened = tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
            opened = bridge::open(&cluster, &target, LDAP_PORT) => opened,
        };
        let bridge = opened?;
        let user = Some((bind_dn.as_str(), password.as_str()));
        let name = target.name();
        let made = Directory::over(bridge, &name, user);
        super::directory::cancellable(&ctx.cancel, made).await
    }

    /// Returns `host:port`, and user and password.
    fn target(&self, ctx: &TaskContext) -> Result<(String, Option<(String, String)>), LdapError> {
        if let Some(uri) = &self.server_uri {
            let address = address_of(uri)?;
            let user = match (&self.bind_dn, &self.bind_pw) {
                (Some(bind_dn), Some(password)) => Some((bind_dn.clone(), password.clone())),
                (None, None) => None,
                (Some(_), None) => return Err(LdapError::argument("bind_pw", "is missing")),
                (None, Some(_)) => return Err(LdapError::argument("bind_dn", "is missing")),
            };
            return Ok((address, user));
        }
        let service = ctx.service(self.service.as_deref()).ok_or_else(|| {
            LdapError::NoServer(match &self.service {
                Some(name) => format!("no enclosing block has a service `{name}`"),
                None => "no service in an enclosing block, and no `server_uri`".into(),
            })
        })?;
        let address = service.ports.get("389/tcp").ok_or_else(|| {
            LdapError::NoServer(format!(
                "service `{}` does not publish port 389 (`published_ports: [\"389\"]`)",
                service.name
            ))
        })?;
        let holder = format!("service `{}`", service.name);
        Ok((
            address.to_string(),
            Some(self.user_of(&holder, &service.env)?),
        ))
    }

    fn user_of(
        &self,
        holder: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<(String, String), LdapError> {
        let of_service = |name: &str| env.get(name).cloned();
        let bind_dn = self.bind_dn.clone().unwrap_or_else(|| {
            let base = of_service("LDAP_BASE_DN").unwrap_or_else(|| BASE_DN.to_owned());
            format!("cn=admin,{base}")
        });
        let variable = if bind_dn.eq_ignore_ascii_case(CONFIG_ADMIN) {
            "LDAP_CONFIGPASS"
        } else {
            "LDAP_ROOTPASS"
        };
        let password = self.bind_pw.clone().or_else(|| of_service(variable));
        let password = password.ok_or_else(|| {
            LdapError::argument(
                "bind_pw",
                format!("is missing, and {holder} has no {variable}"),
            )
        })?;
        Ok((bind_dn, password))
    }
}

fn address_of(uri: &str) -> Result<String, LdapError> {
    let wrong = |message: &str| LdapError::argument("server_uri", format!("`{uri}` {message}"));
    let Some(address) = uri.strip_prefix("ldap://") else {
        return Err(wrong(
            "is not supported: `ldap://host:port` is expected (no TLS, no socket)",
        ));
    };
    let address = address.trim_end_matches('/');
    if address.is_empty() || address.contains(['/', '?', '@']) {
        return Err(wrong("is no `ldap://host:port`"));
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::docker::service::ServiceHandle;
    use std::path::Path;

    #[test]
    fn a_service_gives_address_and_credentials() {
        let mut ctx = TaskContext::for_tests(Path::new("/"));
        assert!(Login::default().target(&ctx).is_err());
        ctx.services.push(ServiceHandle {
            name: "directory".into(),
            container_id: "c".into(),
            container_name: "c".into(),
            ports: [(
                "389/tcp".to_owned(),
                "127.0.0.1:4242".parse().expect("address"),
            )]
            .into(),
            env: [("LDAP_ROOTPASS", "root"), ("LDAP_CONFIGPASS", "config")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        });
        let found = |login: &Login| login.target(&ctx).expect("found");
        let user = |dn: &str, password: &str| Some((dn.to_owned(), password.to_owned()));
        assert_eq!(
            found(&Login::default()),
            (
                "127.0.0.1:4242".to_owned(),
                user("cn=admin,dc=dcm4che,dc=org", "root")
            )
        );
        let config = Login {
            bind_dn: Some(CONFIG_ADMIN.into()),
            ..Login::default()
        };
        assert_eq!(found(&config).1, user(CONFIG_ADMIN, "config"));
    }

    #[test]
    fn only_plain_addresses_are_taken() {
        assert_eq!(address_of("ldap://h:1/").expect("address"), "h:1");
        for wrong in [
            "ldaps://h",
            "ldapi:///",
            "ldap://",
            "ldap://h/dc=x",
            "h:389",
        ] {
            assert!(address_of(wrong).is_err(), "{wrong}");
        }
    }
}
