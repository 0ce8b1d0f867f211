//! Connections to servers: where, as whom, and with settings that do not depend on the server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};
use tokio_util::sync::CancellationToken;

use crate::error::PostgresError;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;

/// How long the server may take to answer the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take for what is asked of it when the work is given up.
pub(crate) const FAREWELL: Duration = Duration::from_secs(10);
/// PostgreSQL cuts names to this many bytes.
const NAME_LIMIT: usize = 63;

/// Defines a module's arguments together with those that say where the server is. `serde` cannot
/// flatten a struct into one that refuses unknown fields, so the fields are written into each.
macro_rules! with_login {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $kind:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $kind,)*
            /// Service whose server is meant. Default: the innermost one of the enclosing blocks.
            #[serde(default)]
            pub service: Option<String>,
            /// Host of the server, instead of a service.
            #[serde(default, alias = "host")]
            #[schemars(extend("aliases" = ["host"]))]
            pub login_host: Option<String>,
            /// Port of the server. Default: the service's published 5432, or 5432.
            #[serde(default, alias = "port")]
            #[schemars(extend("aliases" = ["port"]))]
            pub login_port: Option<u16>,
            /// Folder of the server's socket, instead of a host.
            #[serde(default, alias = "unix_socket")]
            #[schemars(extend("aliases" = ["unix_socket"]))]
            pub login_unix_socket: Option<std::path::PathBuf>,
            /// User. Default: the service's POSTGRES_USER, or `postgres`.
            #[serde(default, alias = "login")]
            #[schemars(extend("aliases" = ["login"]))]
            pub login_user: Option<String>,
            /// Password. Default: the service's POSTGRES_PASSWORD.
            #[serde(default)]
            pub login_password: Option<String>,
        }

        impl $name {
            #[allow(dead_code, reason = "not every module connects without naming a database")]
            fn login(&self) -> $crate::server::connect::Login {
                $crate::server::connect::Login {
                    service: self.service.clone(),
                    host: self.login_host.clone(),
                    port: self.login_port,
                    unix_socket: self.login_unix_socket.clone(),
                    user: self.login_user.clone(),
                    password: self.login_password.clone(),
                }
            }
        }
    };
}
pub(crate) use with_login;

/// The arguments that say where a server is.
#[derive(Clone, Default)]
pub struct Login {
    /// Service's name.
    pub service: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Folder of the socket.
    pub unix_socket: Option<PathBuf>,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
}

/// A server, found.
#[derive(Clone)]
pub struct Server {
    config: Config,
    /// Host and port, or socket, for messages.
    pub address: String,
    /// User.
    pub user: String,
    /// Password.
    pub password: Option<String>,
    /// The service's database, where it names one.
    pub default_db: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({} as {})", self.address, self.user)
    }
}

/// Returns the name under which the sessions of an attempt show in `pg_stat_activity`.
#[must_use]
pub fn session_name(attempt: &str) -> String {
    // The server shows anything but ASCII as question marks.
    let attempt: String = attempt.chars().filter(char::is_ascii_graphic).collect();
    let name = format!("kaapana-agent {attempt}");
    if name.len() <= NAME_LIMIT {
        return name;
    }
    // The end of an id is what tells two apart.
    format!(
        "kaapana-agent ..{}",
        &attempt[attempt.len() - (NAME_LIMIT - 16)..]
    )
}

impl Login {
    /// Tells whether there is a server to talk to. In check mode services are not running.
    #[must_use]
    pub fn is_known(&self, ctx: &TaskContext) -> bool {
        self.host.is_some()
            || self.unix_socket.is_some()
            || ctx.service(self.service.as_deref()).is_some()
    }

    /// Finds the server: the arguments' own, else the service's.
    ///
    /// # Errors
    /// Neither is there, or the service publishes no 5432.
    pub fn server(&self, ctx: &TaskContext) -> Result<Server, PostgresError> {
        let mut config = Config::new();
        let direct = self.host.is_some() || self.unix_socket.is_some();
        let service = if direct && self.service.is_none() {
            None
        } else {
            ctx.service(self.service.as_deref())
        };
        let from_env = |name: &str| service.and_then(|service| service.env.get(name).cloned());
        let address = if let Some(folder) = &self.unix_socket {
            config.host_path(folder).port(self.port.unwrap_or(5432));
            folder.display().to_string()
        } else if let Some(host) = &self.host {
            let port = self.port.unwrap_or(5432);
            config.host(host).port(port);
            format!("{host}:{port}")
        } else {
            let service = service.ok_or_else(|| {
                PostgresError::NoServer(match &self.service {
                    Some(name) => format!("no enclosing block has a service `{name}`"),
                    None => "no service in an enclosing block, and no `login_host`".into(),
                })
            })?;
            let address = service.ports.get("5432/tcp").ok_or_else(|| {
                PostgresError::NoServer(format!(
                    "service `{}` does not publish port 5432 (`published_ports: [\"5432\"]`)",
                    service.name
                ))
            })?;
            config.host(address.ip().to_string()).port(address.port());
            address.to_string()
        };
        let user = self.user.clone().or_else(|| from_env("POSTGRES_USER"));
        let user = user.unwrap_or_else(|| "postgres".to_owned());
        let password = self
            .password
            .clone()
            .or_else(|| from_env("POSTGRES_PASSWORD"));
        let default_db = from_env("POSTGRES_DB").unwrap_or_else(|| user.clone());
        config
            .user(&user)
            .connect_timeout(CONNECT_TIMEOUT)
            .application_name(session_name(&ctx.attempt));
        if let Some(password) = &password {
            config.password(password);
        }
        Ok(Server {
            config,
            address,
            user,
            password,
            default_db,
        })
    }
}

impl Server {
    /// Returns the database that is meant: the one named, else the service's.
    #[must_use]
    pub fn db(&self, named: Option<&str>) -> String {
        named
            .filter(|name| !name.is_empty())
            .unwrap_or(&self.default_db)
            .to_owned()
    }

    /// Connects to a database with pinned settings.
    ///
    /// # Errors
    /// The server is not there, or does not let us in.
    pub async fn connect(&self, db: &str) -> Result<Client, PostgresError> {
        self.connect_within(db, CONNECT_TIMEOUT).await
    }

    /// Connects to a database; the whole handshake may take `patience`.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub async fn connect_within(
        &self,
        db: &str,
        patience: Duration,
    ) -> Result<Client, PostgresError> {
        let mut config = self.config.clone();
        config.dbname(db).connect_timeout(patience);
        let refused = |source| PostgresError::Connect {
            address: self.address.clone(),
            db: db.to_owned(),
            user: self.user.clone(),
            source,
        };
        // A port that Docker's proxy holds accepts before the server listens, and then says nothing.
        let shaken = tokio::time::timeout(patience, config.connect(NoTls)).await;
        let (client, connection) = match shaken {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => return Err(refused(error.into())),
            Err(_) => {
                let message = format!("no answer within {} s", patience.as_secs());
                return Err(refused(crate::error::SqlError::said(message)));
            }
        };
        // Ends with the client; what breaks it is reported by the query that was under way.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
            .batch_execute(PINNED)
            .await
            .map_err(|error| refused(error.into()))?;
        Ok(client)
    }

    /// Connects to a database that is always there.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub async fn connect_maintenance(&self) -> Result<Client, PostgresError> {
        match self.connect("postgres").await {
            Err(PostgresError::Connect { source, .. }) if source.is_no_database() => {
                self.connect("template1").await
            }
            other => other,
        }
    }
}

/// Settings that change how values look or what may interrupt us. All are known to 9.6.
const PINNED: &str = "SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD'; \
    SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET bytea_output = 'hex'; \
    SET extra_float_digits = 3; SET lc_monetary = 'C'; SET xmlbinary = 'base64'; \
    SET standard_conforming_strings = on; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET client_min_messages = warning";

/// Runs `work`; when `cancel` fires, has the server cancel the query first, so that nothing goes on
/// behind our back.
///
/// # Errors
/// Those of `work`, or [`ModuleError::Cancelled`].
pub async fn cancellable<T, E: Into<ModuleError>>(
    client: &Client,
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ModuleError> {
    let token = client.cancel_token();
    tokio::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => result.map_err(Into::into),
        () = cancel.cancelled() => {
            // Refused only when the server is gone, which ends the query as well. One that stands still
            // (a paused container) never answers.
            let _ = tokio::time::timeout(FAREWELL, async {
                let _ = token.cancel_query(NoTls).await;
                let _ = work.await;
            })
            .await;
            Err(ModuleError::Cancelled)
        }
    }
}

/// Quotes an identifier.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text.
#[must_use]
pub fn literal(text: &str) -> String {
    // Standard strings are pinned on, so a backslash is a backslash.
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_names_fit_and_keep_their_end() {
        let name = session_name(&format!("{}/7", "x".repeat(100)));
        assert!(name.len() <= NAME_LIMIT, "{}", name.len());
        assert!(name.ends_with("x/7"));
    }

    #[test]
    fn a_service_gives_address_and_credentials() {
        let mut ctx = TaskContext::for_tests(std::path::Path::new("/"));
        assert!(Login::default().server(&ctx).is_err());
        ctx.services
            .push(crate::host::docker::service::ServiceHandle {
                name: "pacs_old".into(),
                container_id: "c".into(),
                container_name: "c".into(),
                ports: [(
                    "5432/tcp".to_owned(),
                    "127.0.0.1:4242".parse().expect("address"),
                )]
                .into(),
                env: [
                    ("POSTGRES_USER", "pacs"),
                    ("POSTGRES_DB", "pacsdb"),
                    ("POSTGRES_PASSWORD", "x"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            });
        let server = Login::default().server(&ctx).expect("server");
        assert_eq!(
            (server.address.as_str(), server.user.as_str()),
            ("127.0.0.1:4242", "pacs")
        );
        assert_eq!(server.db(None), "pacsdb");
        assert!(!format!("{server:?}").contains('x'.to_string().repeat(2).as_str()));
        let other = Login {
            service: Some("nobody".into()),
            ..Login::default()
        };
        assert!(other.server(&ctx).is_err());
    }
}
